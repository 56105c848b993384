package embedded_test

import (
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/logtest"
)

// Retention drops what is old or too much, of users' topics alone.
func TestRetention(t *testing.T) {
	clock := logtest.NewClock(time.UnixMilli(1_700_000_000_000))
	o := options(t, vfs.NewMem())
	o.Clock, o.RetentionEvery = clock.Now, time.Millisecond
	type trim struct {
		topic string
		to    log.Offset
	}
	trimmed := make(chan trim, 1000)
	o.Listener.Trimmed = func(p log.Partition, to log.Offset) { trimmed <- trim{p.Topic, to} }
	l := open(t, o)
	defer func() { must(t, l.Close()) }()
	for _, c := range []log.TopicConfig{
		{Name: "old", Partitions: 1, Retention: time.Hour}, {Name: "big", Partitions: 1, RetentionBytes: 5000},
		{Name: log.EventsTopic, Partitions: 1, Retention: time.Hour, RetentionBytes: 1}, {Name: log.PaymentsTopic, Partitions: 1, Retention: time.Hour},
	} {
		must(t, l.CreateTopic(ctx, c))
		for range 10 {
			_, err := l.Append(ctx, log.Record{Partition: log.Partition{Topic: c.Name}, Time: clock.Now(), Value: make([]byte, 1000)})
			must(t, err)
		}
	}
	for at := range trimmed { // it is looked at while it grows: only the last trim leaves what is said to stay
		if at == (trim{"big", 5}) {
			break
		}
	}
	clock.Advance(30 * time.Minute)
	_, err := l.Append(ctx, log.Record{Partition: log.Partition{Topic: "old"}, Time: clock.Now()})
	must(t, err)
	clock.Advance(31 * time.Minute)
	for at := range trimmed {
		if at == (trim{"old", 10}) {
			break
		}
	}
	for topic, want := range map[string]log.Offset{"old": 10, log.EventsTopic: 0, log.PaymentsTopic: 0} {
		if first, _, err := l.Bounds(ctx, log.Partition{Topic: topic}); err != nil || first != want {
			t.Fatal(topic, first, err)
		}
	}
	big := log.Partition{Topic: "big"}
	first, end, err := l.Bounds(ctx, big)
	must(t, err)
	if n, err := l.Size(ctx, big); err != nil || n < 5000 || n > 7000 || end-first != 5 {
		t.Fatal(n, first, end, err)
	}
}
