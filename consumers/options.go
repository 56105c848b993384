package consumers

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/remitlog/remit/log"
)

// Reader is one member of a consumer group. log/kafka has the one over franz-go, and consumerstest one in memory.
// A Consumer calls Join first and Close last; one Poll runs at a time, and the rest beside it.
type Reader interface {
	// Join makes it a member of a group. Reading begins at what the group has committed, else at the first record. A topic that is not
	// there is read when it is.
	//
	// INVARIANT: revoked is called only while a Poll runs, and no Poll returns until it has returned. Otherwise records would come
	// that are another member's by now. When lost is true they may be another's already, and committing is in vain.
	Join(group string, topics []string, revoked func(partitions []log.Partition, lost bool)) error
	// Poll waits for records and returns at most max, of each partition in the order of their offsets. An error ends the
	// Consumer: what can be tried again is the Reader's own matter.
	Poll(ctx context.Context, max int) ([]log.Record, error)
	// Pause keeps Poll from returning records of partitions until Resume. Nothing is skipped by it.
	Pause(partitions ...log.Partition)
	Resume(partitions ...log.Partition)
	// Commit keeps, for the group, the next offset to read of each partition, and beside it its progress, a text of at most 4,000 bytes.
	Commit(ctx context.Context, next map[log.Partition]log.Offset, progress map[log.Partition]string) error
	// Progress returns what was committed beside the offset from which a partition is read since it was assigned; empty if that is not known.
	Progress(p log.Partition) string
	// Produce appends a record to its topic, making the topic if it is not there, and returns when it is durable. The key says
	// which partition.
	Produce(ctx context.Context, r log.Record) error
	// Close leaves the group.
	Close()
}

// Handler makes the effect of a delivery. nil is done; an error is tried again, see [Options].
// The context ends when the partition must be let go, or after AttemptMax. A panic is an error.
type Handler func(ctx context.Context, d Delivery) error

// Delivery is a record on its way to a handler, which does not change the bytes: another attempt reads them again.
type Delivery struct {
	// Event is what the record says; empty when it is no CloudEvent.
	Event event.Event
	// Record is the record as it was read.
	Record log.Record
	// Group is the consumer group that reads.
	Group string
	// Attempt counts from 1 on. After a crash it goes on from about where it was.
	Attempt int
	// Replay says that it was parked before and is sent again, see [Options.Replays]. Its record stands on the topic's [ReplayTopic].
	Replay bool
}

// String names the delivery's place, for messages.
func (d Delivery) String() string {
	return fmt.Sprintf("%s/%d/%d", d.Record.Topic, d.Record.Index, d.Record.Offset)
}

// Options say what is read, by whom, and within which limits. Zero limits are the defaults.
type Options struct {
	Reader  Reader
	Group   string
	Topics  []string
	Handler Handler
	// NotEvent takes records that are no CloudEvent; nil parks them. To discard them is to return nil.
	NotEvent Handler
	// Outage reports whether an error says that what the handler needs is down, rather than that this delivery fails. Such a delivery
	// is tried again until it is not, and never parked for it. [IsOutage] by default.
	Outage func(error) bool
	// Replays also reads what this group has parked and a person has asked to be sent again: the [ReplayTopic] of each topic. What is meant for
	// other groups is passed over.
	Replays  bool
	Listener Listener

	// WorkersMax is how many handlers run at once. 16.
	WorkersMax int
	// HeldMax is how many records of one partition wait or are handled; past it the partition is paused. 1024.
	HeldMax int
	// HeldBytesMax is how many bytes of all partitions are held; past it all are paused. One Poll may go beyond it. 64 MiB.
	HeldBytesMax int64
	// AheadMax is how many records a partition may be ahead of its lowest unfinished one, which are read again after a crash; past it the
	// partition is paused. 100,000.
	AheadMax int
	// AttemptsMax is how often a delivery is tried until it is parked. 10, or without a limit if there is a RetryMax.
	AttemptsMax int
	// RetryMax is how long a delivery is tried until it is parked, the waits included. The last attempt comes about then. What an outage takes is
	// not counted, and not the time in which nobody runs. 0 is without a limit.
	RetryMax time.Duration
	// AttemptMax is how long one attempt may take until its context ends. 1 minute.
	AttemptMax time.Duration
	// BackoffMin is the time until the second attempt; it doubles up to BackoffMax, and a part of it is jitter. 100 ms, 30 s.
	BackoffMin, BackoffMax time.Duration
	// CommitEvery is how often offsets are committed. 1 s.
	CommitEvery time.Duration
	// DrainMax is how long what is under way may take when a partition is let go; then its context ends. It must stay below the
	// group's rebalance timeout. 10 s.
	DrainMax time.Duration
}

// EnsureDefaults fills in what is zero.
func (o *Options) EnsureDefaults() {
	set := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	wait := func(p *time.Duration, v time.Duration) {
		if *p == 0 {
			*p = v
		}
	}
	set(&o.WorkersMax, 16)
	set(&o.HeldMax, 1024)
	set(&o.AheadMax, 100_000)
	if o.RetryMax > 0 {
		set(&o.AttemptsMax, math.MaxInt)
	}
	set(&o.AttemptsMax, 10)
	wait(&o.AttemptMax, time.Minute)
	wait(&o.BackoffMin, 100*time.Millisecond)
	wait(&o.BackoffMax, 30*time.Second)
	wait(&o.CommitEvery, time.Second)
	wait(&o.DrainMax, 10*time.Second)
	if o.HeldBytesMax == 0 {
		o.HeldBytesMax = 64 << 20
	}
	if o.Outage == nil {
		o.Outage = IsOutage
	}
}

// Validate reports the first thing that is wrong.
func (o *Options) Validate() error {
	switch {
	case o.Reader == nil:
		return errors.New("consumers: Options.Reader is missing; log/kafka.NewReader makes one")
	case o.Group == "":
		return errors.New("consumers: Options.Group is missing; members of one group share the work")
	case len(o.Topics) == 0 || slices.Contains(o.Topics, ""):
		return errors.New("consumers: Options.Topics has no topic, or an empty one")
	case o.Handler == nil:
		return errors.New("consumers: Options.Handler is missing")
	case o.WorkersMax < 1 || o.HeldMax < 1 || o.AheadMax < 1 || o.AttemptsMax < 1 || o.HeldBytesMax < 1:
		return fmt.Errorf("consumers: each limit is at least 1: %s", o)
	case o.AttemptMax < 0 || o.RetryMax < 0 || o.CommitEvery < 0 || o.DrainMax < 0 || o.BackoffMin < 0 || o.BackoffMax < o.BackoffMin:
		return fmt.Errorf("consumers: times are not negative, and BackoffMax is not below BackoffMin: %s", o)
	}
	for _, topic := range o.Topics {
		if len(ParkedTopic(topic)) > log.TopicNameMax {
			return fmt.Errorf("consumers: topic %q: its parked topic's name would be longer than %d bytes", topic, log.TopicNameMax)
		}
	}
	return nil
}

func (o *Options) String() string {
	return fmt.Sprintf("group=%s topics=%s replays=%t workers=%d held=%d heldBytes=%d ahead=%d attempts=%d retry=%s attempt=%s backoff=%s..%s commit=%s drain=%s",
		o.Group, strings.Join(o.Topics, ","), o.Replays, o.WorkersMax, o.HeldMax, o.HeldBytesMax, o.AheadMax, o.AttemptsMax, o.RetryMax, o.AttemptMax,
		o.BackoffMin, o.BackoffMax, o.CommitEvery, o.DrainMax)
}

// Listener is told what happens. Any function may be nil. They are called without locks and hold the work up until they return;
// Started is called by many goroutines at once, the others by one.
type Listener struct {
	// Started: an attempt begins.
	Started func(Delivery)
	// Handled: the handler returned nil.
	Handled func(d Delivery, took time.Duration)
	// Retried: it did not, and is tried again after a while. When parking fails it is this, too.
	Retried func(d Delivery, err error, after time.Duration)
	// Parked: it stands on the parked topic.
	Parked func(d Delivery, reason string)
	// Committed: the group's next offsets were noted.
	Committed func(next map[log.Partition]log.Offset)
	// NotCommitted: they were not. They are again with the next commit; what a crash in between repeats is for [Once].
	NotCommitted func(next map[log.Partition]log.Offset, err error)
	// Paused: a partition has come to a limit.
	Paused func(log.Partition)
	// Resumed: a partition that was paused is read again.
	Resumed func(log.Partition)
	// Revoked: partitions were let go; lost says that they were gone before. Left is how many deliveries under way were given up.
	Revoked func(partitions []log.Partition, lost bool, left int)
}

func (l *Listener) ensureDefaults() {
	if l.Started == nil {
		l.Started = func(Delivery) {}
	}
	if l.Handled == nil {
		l.Handled = func(Delivery, time.Duration) {}
	}
	if l.Retried == nil {
		l.Retried = func(Delivery, error, time.Duration) {}
	}
	if l.Parked == nil {
		l.Parked = func(Delivery, string) {}
	}
	if l.Committed == nil {
		l.Committed = func(map[log.Partition]log.Offset) {}
	}
	if l.NotCommitted == nil {
		l.NotCommitted = func(map[log.Partition]log.Offset, error) {}
	}
	if l.Paused == nil {
		l.Paused = func(log.Partition) {}
	}
	if l.Resumed == nil {
		l.Resumed = func(log.Partition) {}
	}
	if l.Revoked == nil {
		l.Revoked = func([]log.Partition, bool, int) {}
	}
}
