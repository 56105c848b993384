package kafkaapi

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Client is who asks.
type Client struct {
	ID   string // as it calls itself
	Host string // where it comes from
}

// Groups coordinates consumer groups.
type Groups interface {
	// MaxVersions says which requests it answers, and up to which version.
	MaxVersions() map[int16]int16
	// Answer answers one. It may wait until ctx ends, which it does when the client has left.
	Answer(ctx context.Context, client Client, q kmsg.Request) kmsg.Response
}

// groupMin are the oldest versions of requests of groups, Kafka's own.
var groupMin = map[int16]int16{8: 2, 9: 1, keyJoinGroup: 0, 12: 0, 13: 0, keySyncGroup: 0, 15: 0, 16: 0, 42: 0, 47: 0}
