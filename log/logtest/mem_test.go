package logtest_test

import (
	"testing"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/logtest"
)

func TestMem(t *testing.T) {
	logtest.Exercise(t, func(*testing.T) log.Log { return logtest.NewMem() })
}
