package push

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/remitlog/remit/log"
)

// Subscription is what is sent where. It is compared: what differs is taken up at once. What its calls are signed with is the Caller's to know.
type Subscription struct {
	Name   string
	Topic  string
	Sink   string // an http or https URL
	Filter string // CloudEvents SQL; empty: every record
	// Interval is the pause after a first failure; it doubles up to MaxInterval. Deadline is how long a record is tried.
	Interval, MaxInterval, Deadline time.Duration
	// From is the time of the first record that is sent; zero sends all that the topic has.
	From time.Time
	// Registered tells it from one of the same name that was removed.
	Registered time.Time
}

// Group is the consumer group that a subscription reads in.
func Group(subscription string) string { return groupPrefix + subscription }

// OfGroup returns the subscription that reads in a group.
func OfGroup(group string) (subscription string, ok bool) {
	if len(group) <= len(groupPrefix) || group[:len(groupPrefix)] != groupPrefix {
		return "", false
	}
	return group[len(groupPrefix):], true
}

const groupPrefix = "remit.push."

// Registry knows the subscriptions.
type Registry interface {
	// Subscriptions lists them, with distinct names.
	Subscriptions() []Subscription
	// Changed returns a channel that is closed when the list changes. It is taken before the list is looked at.
	Changed() <-chan struct{}
}

// Offsets keep what consumer groups have read. log/kafkaapi has them.
type Offsets interface {
	// Committed returns what a group has committed; nothing of one that is not there.
	Committed(ctx context.Context, group string) (map[log.Partition]Committed, error)
	// Commit is durable when it returns nil: all of it, or none. log.ErrUnknownTopic when a topic is not there.
	Commit(ctx context.Context, group string, at map[log.Partition]Committed) error
	// ForgetGroup drops all that a group has committed.
	ForgetGroup(ctx context.Context, group string) error
	// Groups lists the groups whose names begin with prefix.
	Groups(ctx context.Context, prefix string) []string
}

// Committed is what a group has committed of a partition.
type Committed struct {
	Next   log.Offset
	Remark string
}

// Caller makes calls. broker/callout has one. A target that hangs must not delay another.
type Caller interface {
	// Call makes one call and returns its answer, whatever it is. An error says that there was none. It ends when ctx does.
	Call(ctx context.Context, to Target, r Request) (Answer, error)
}

// Target is who is called.
type Target struct {
	Subscription string
	URL          string
}

// Request is what it is called with. It is signed as Standard Webhooks with the subscription's secrets, and ID as the webhook-id.
type Request struct {
	Method string
	ID     string
	Header http.Header
	Body   []byte
}

// Answer is what it answered.
type Answer struct {
	Status     int
	Header     http.Header
	Body       []byte // the beginning of it, for people
	RetryAfter time.Duration
}

// Filter reports whether an event is to be delivered.
type Filter func(*log.Event) (bool, error)

// Limits that are not options.
const (
	// RetryAfterMax is the longest that a sink's Retry-After is kept to. A longer one is taken for it.
	RetryAfterMax = time.Hour
	// AnswerMax is how many bytes of an answer's body stand in an error.
	AnswerMax = 200
	// FailingMax is how many failing keys a status shows.
	FailingMax = 20
	// readMax is how many bytes one read of the log brings, but one record at least.
	readMax = 256 << 10
	// attemptMax is how long one attempt may take: a wait for a sink's Retry-After, and the call.
	attemptMax = 2 * RetryAfterMax
)

// Options say what is delivered, by what, and within which limits. Zero limits are the defaults.
type Options struct {
	Log      log.Log
	Offsets  Offsets
	Registry Registry
	Caller   Caller
	// Compile reads a filter; an error says what is wrong with it.
	Compile func(filter string) (Filter, error)
	// Origin is the DNS name that sinks are asked for consent under.
	Origin   string
	Logger   *slog.Logger
	Listener Listener

	// WorkersMax is how many calls of one subscription are under way at once; the rest waits. 16.
	WorkersMax int
	// HeldMax is how many records of one partition wait or are under way, for one subscription; past it the partition waits. 1024.
	HeldMax int
	// HeldBytesMax is how many bytes of records all subscriptions hold, shared out evenly when each begins, but HeldBytesMin to each at least. Past
	// its share a subscription reads no further. 64 MiB, 128 KiB.
	HeldBytesMax, HeldBytesMin int64
	// OutageMax is how many keys may fail, with nothing taken in between, until that is the sink's fault and nobody's deadline runs. 16.
	OutageMax int
	// AskingMax is how many sinks are asked for consent at once; others wait. 64.
	AskingMax int
	// CommitEvery is how often what was taken is noted: what a crash repeats at most. 250 ms.
	CommitEvery time.Duration
	// DrainMax is how long calls under way may take when remit stops; ChangeMax when their subscription is changed. Then they are cut off, and
	// made again. 5 s, 1 s.
	DrainMax, ChangeMax time.Duration
	// LookEvery is how often it is looked whether topics have come, or have more partitions. 1 s.
	LookEvery time.Duration
}

// EnsureDefaults fills in what is zero.
func (o *Options) EnsureDefaults() {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	set(&o.WorkersMax, 16)
	set(&o.HeldMax, 1024)
	set(&o.HeldBytesMax, 64<<20)
	set(&o.HeldBytesMin, 128<<10)
	set(&o.OutageMax, 16)
	set(&o.AskingMax, 64)
	set(&o.CommitEvery, 250*time.Millisecond)
	set(&o.DrainMax, 5*time.Second)
	set(&o.ChangeMax, time.Second)
	set(&o.LookEvery, time.Second)
	o.Listener.ensureDefaults()
}

func set[T int | int64 | time.Duration](p *T, v T) {
	if *p == 0 {
		*p = v
	}
}

// Validate reports the first thing that is wrong.
func (o *Options) Validate() error {
	switch {
	case o.Log == nil || o.Offsets == nil || o.Registry == nil || o.Caller == nil || o.Compile == nil:
		return errors.New("push: Log, Offsets, Registry, Caller and Compile are needed")
	case o.Origin == "":
		return errors.New("push: Origin is missing: sinks are asked for consent under it")
	case min(o.WorkersMax, o.HeldMax, o.OutageMax, o.AskingMax) < 1 || min(o.HeldBytesMax, o.HeldBytesMin) < 1:
		return fmt.Errorf("push: each limit is at least 1: %s", o)
	case min(o.CommitEvery, o.DrainMax, o.ChangeMax, o.LookEvery) < 0:
		return fmt.Errorf("push: times are not negative: %s", o)
	default:
		return nil
	}
}

func (o *Options) String() string {
	return fmt.Sprintf("origin=%s workers=%d held=%d heldBytes=%d..%d outage=%d asking=%d commit=%s drain=%s change=%s look=%s",
		o.Origin, o.WorkersMax, o.HeldMax, o.HeldBytesMin, o.HeldBytesMax, o.OutageMax, o.AskingMax, o.CommitEvery, o.DrainMax, o.ChangeMax, o.LookEvery)
}

// Listener is told what happens. Any function may be nil. They are called without locks, by many goroutines at once, and hold the work of their
// subscription up until they return.
type Listener struct {
	// Delivered: the sink has taken a record. late is how long after it was recorded.
	Delivered func(subscription string, took, late time.Duration)
	// Failed: it has not. status is 0 when there was no answer.
	Failed func(subscription string, status int)
	// Skipped: a record does not match the filter.
	Skipped func(subscription string)
	// Parked: a record was set aside.
	Parked func(subscription string)
	// Missed: so many records were gone before they were delivered.
	Missed func(subscription string, records int64)
	// Removed: the subscription is not there any more.
	Removed func(subscription string)
}

func (l *Listener) ensureDefaults() {
	if l.Delivered == nil {
		l.Delivered = func(string, time.Duration, time.Duration) {}
	}
	if l.Failed == nil {
		l.Failed = func(string, int) {}
	}
	if l.Skipped == nil {
		l.Skipped = func(string) {}
	}
	if l.Parked == nil {
		l.Parked = func(string) {}
	}
	if l.Missed == nil {
		l.Missed = func(string, int64) {}
	}
	if l.Removed == nil {
		l.Removed = func(string) {}
	}
}
