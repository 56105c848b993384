package fold

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/remitlog/remit/log"
)

// Errors that callers of a Node meet.
var (
	// ErrBusy: more commands wait at the doors of this partition than QueueMax, or more is owed than OpenMax. Try again after
	// a moment.
	ErrBusy = errors.New("fold: too many commands wait")
	// ErrStopped: the node is stopping, or has failed. What was asked may have been decided: ask
	// again after the restart.
	ErrStopped = errors.New("fold: stopped")
	// ErrNotOwned: the partition belongs to another node.
	ErrNotOwned = errors.New("fold: partition is not owned here")
	// ErrAhead: a store has folded records that the log does not have. The log was restored, or
	// is another one: move the store away, and it is made again.
	ErrAhead = errors.New("fold: store is ahead of the log")
	// ErrClockBehind: the wall clock is more than ClockBehindMax behind the log. Set it right, or allow it.
	ErrClockBehind = errors.New("fold: clock is behind the log")
)

// Fact is the data of a core event. Its JSON form is written to the log and therefore never changes:
// a new meaning is a new type with the next version.
type Fact interface {
	// EventType is the CloudEvents type, remit.<package>.<fact>.v1.
	EventType() string
}

// Event is one core event, as it is folded.
type Event struct {
	Partition int32
	Offset    log.Offset
	// Time is when it was recorded, in whole milliseconds.
	Time        time.Time
	ID          string
	Key         string // the routing key
	Correlation string // the transaction or activity
	Causation   string
	TraceParent string
	Fact        Fact // nil if its type is none that was asked for
}

// Machine folds the events of a partition into rows and says what rows owe.
type Machine interface {
	// Apply folds e into rows. It is total and deterministic: no I/O, no clock, no randomness; it
	// cannot refuse, because e has happened. A broken invariant is reported with [Broken].
	Apply(rows Rows, e *Event)
	// Owed returns what the thing called id owes now: it is asked when a due row of this
	// machine has come (see [Due]), again after an effect has failed, and when an effect wanted it (Effect.At).
	Owed(rows Reader, id string, look Look) []Effect
}

// Look is one look at a thing that is due.
type Look struct {
	Now time.Time
	// Last is when it was looked at before and wanted to be again (Effect.At). It is zero at the first look since the process
	// started: it is not written, and lost with the process.
	Last time.Time
}

// Command asks a partition to decide something.
type Command interface {
	// Decide looks at the turn's rows, emits the events that follow, and returns the answer. It
	// must check before it emits: after an error, nothing of it remains. It may run more
	// than once (a topic was missing), and must not change itself.
	Decide(t *Turn) (answer any, err error)
}

// Result is what became of a command.
type Result struct {
	Answer any
	Err    error
	// Partition decided it; End is the partition's end after the turn: a position that has
	// everything that the answer speaks of.
	Partition int32
	End       log.Offset
}

// Position returns where a reader must have come to see what the result speaks of.
func (r Result) Position() log.Position { return log.Position{}.With(r.Partition, r.End) }

// Effect is something owed: a command to the partition To (perhaps this one), or a call to the outside, whose result
// comes back as a command, or not at all; or that nothing is owed before a time.
type Effect struct {
	// At, if set, is all of the effect: the thing is looked at again then, unless its due row has gone. It is for what is asked on a
	// schedule, and is not written. Beside it stand Calls alone.
	At time.Time
	// Call, if set, takes the place of Command: it starts a call to the outside, and returns at once. It runs on the partition's
	// goroutine; done is to be called once, from anywhere. A call that fails is not started again: At says when to look.
	Call func(done func(answer any, err error))
	// ToSelf: the command is for the partition that owes it; To is not looked at.
	ToSelf  bool
	To      int32
	Command Command
	// Answer turns the result into the command that records it. It is called without locks
	// and may be nil. When it returns nil for a failed result, the effect is owed still and is started again
	// after a growing delay.
	Answer func(Result) Command
	// Lazy: nobody waits for what Answer's command records. See LazyMax.
	Lazy bool
	// Landed is told what became of Answer's command, once that is durable. It runs on the goroutine of the
	// partition that owes, and may be nil.
	Landed func(Result)
}

// InvariantError reports a state that cannot be. The process stops: nothing may be decided on it.
type InvariantError struct {
	Topic     string // the core's, if empty
	Partition int32
	Offset    log.Offset
	Detail    string
}

func (e *InvariantError) Error() string {
	return fmt.Sprintf("fold: invariant broken at %s/%d offset %d: %s", cmp.Or(e.Topic, log.EventsTopic), e.Partition, e.Offset, e.Detail)
}

// Broken stops the fold at e. Machines call it where they find what cannot be.
func Broken(e *Event, format string, args ...any) {
	panic(&InvariantError{Partition: e.Partition, Offset: e.Offset, Detail: fmt.Sprintf(format, args...)})
}
