//go:build !linux

package kafkaapi_test

import (
	"testing"
	"time"
)

func rss(testing.TB) int64         { return 0 }
func cpu(testing.TB) time.Duration { return 0 }
