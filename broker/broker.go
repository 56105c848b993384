package broker

import (
	"errors"
	"fmt"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
)

// Errors of commands.
var (
	// ErrUnknownMessage: no such message. Check the id.
	ErrUnknownMessage = errors.New("broker: unknown message")
	// ErrNotTried: the message of a coordinated activity is decided by its coordinator alone.
	ErrNotTried = errors.New("broker: the message of a coordinated activity cannot be decided from elsewhere")
)

// MismatchError says that an id stands for another message (D4).
type MismatchError struct{ Recorded Message }

func (e *MismatchError) Error() string { return "broker: the id stands for other content" }

// Topics tells how many partitions a user's topic has now; false if it is not there.
type Topics func(topic string) (partitions int, ok bool)

// Options of a Broker.
type Options struct {
	Topics Topics
	// Asker asks producers; nil asks nobody.
	Asker Asker
}

// Broker is the machine of messages.
type Broker struct{ opts Options }

// New returns the machine.
func New(opts Options) *Broker { return &Broker{opts} }

// Outcome is the answer to a command: the message as it now stands, and whether an earlier command had made it so.
type Outcome struct {
	ID       log.ID
	Message  Message
	Replayed bool
	// Conflict: the decision asked for is not the one that stands (D2).
	Conflict bool
	// Name is the message's, where this command has ended it: its row has no event any more to find it in.
	Name string
	// Partition is where this command has delivered it; nil if it has not. The offset is known after the append.
	Partition *int32
}

// Prepare stores a half message. The answer is an Outcome; *MismatchError if the id stands for other content.
type Prepare struct{ Prepared }

// Decide implements fold.Command.
func (c Prepare) Decide(t *fold.Turn) (any, error) {
	if m, _, ok := Get(t.Rows(), c.ID); ok {
		if m.Fingerprint != c.Fingerprint {
			return nil, &MismatchError{m}
		}
		return Outcome{ID: c.ID, Message: m, Replayed: true}, nil
	}
	id := c.ID.String()
	t.Emit(fold.Event{ID: id + "/prepared", Key: c.Key, Correlation: id, Fact: c.Prepared})
	m, _, _ := Get(t.Rows(), c.ID)
	return Outcome{ID: c.ID, Message: m}, nil
}

// Settle commits a half message, or rolls it back. The answer is an Outcome.
type Settle struct {
	Broker *Broker
	ID     log.ID
	Input  Input // InputCommit or InputRollback
	By     string
	Reason string
}

// Decide implements fold.Command.
func (c Settle) Decide(t *fold.Turn) (any, error) {
	m, plain, ok := Get(t.Rows(), c.ID)
	switch {
	case !ok:
		return nil, ErrUnknownMessage
	case !plain:
		return nil, ErrNotTried
	}
	next, err := Next(m.State, c.Input)
	switch {
	case err != nil:
		return c.conflict(t, m)
	case next == m.State:
		return Outcome{ID: c.ID, Message: m, Replayed: true}, nil
	}
	d, o := Decision{ID: c.ID, By: c.By, Reason: c.Reason}, Outcome{ID: c.ID}
	if c.Input == InputRollback {
		o.Name = m.Name()
		c.emit(t, m, "rolledback", RolledBack{d})
	} else if o.Name, o.Partition, err = c.commit(t, m, d); err != nil {
		return nil, err
	}
	o.Message, _, _ = Get(t.Rows(), c.ID)
	return o, nil
}

// conflict leaves an event for who wants to decide otherwise than was decided.
func (c Settle) conflict(t *fold.Turn, m Message) (any, error) {
	Conflict(t, m, c.Input, Decision{ID: c.ID, By: c.By, Reason: c.Reason})
	return Outcome{ID: c.ID, Message: m, Conflict: true}, nil
}

// ConflictsMax is how many contradictions of one message are recorded. Those after it are answered as well, and leave nothing.
const ConflictsMax = 64

// Conflict records that someone wanted a decided message to be decided otherwise (D2). The message may be an activity's.
func Conflict(t *fold.Turn, m Message, wanted Input, d Decision) {
	if m.Conflicts >= ConflictsMax {
		return
	}
	emit(t, d.ID, m, fmt.Sprintf("conflicted/%d", m.Conflicts+1), Conflicted{Decision: d, Wanted: wanted, Recorded: m.State.String()})
}

func (c Settle) emit(t *fold.Turn, m Message, fact string, f fold.Fact) {
	emit(t, c.ID, m, fact, f)
}

func emit(t *fold.Turn, id log.ID, m Message, fact string, f fold.Fact) {
	s := id.String()
	t.Emit(fold.Event{ID: s + "/" + fact, Key: m.Key, Correlation: s, Fact: f})
}

// commit decides, and delivers at once if the message need not wait; then it returns its name, and where to.
func (c Settle) commit(t *fold.Turn, m Message, d Decision) (name string, to *int32, err error) {
	m.DecidedMs = t.Now.UnixMilli()
	partition, there := c.Broker.place(t, m)
	precheck := c.Broker.opts.Asker != nil && c.Broker.opts.Asker.Prechecks(Question{ID: c.ID, Message: m, Now: t.Now})
	if precheck || !there || m.wantedAt() > m.DecidedMs || heldBack(t.Rows(), m) {
		c.emit(t, m, "committed", Committed{Decision: d, Precheck: precheck})
		return "", nil, nil
	}
	if name, err = deliver(t, c.ID, m, partition); err != nil {
		return "", nil, err
	}
	c.emit(t, m, "committed", Committed{Decision: d, Partition: &partition})
	return name, &partition, nil
}

// place returns the partition of the topic that the message belongs to, and whether the topic is there.
func (b *Broker) place(t *fold.Turn, m Message) (int32, bool) {
	n, ok := b.opts.Topics(m.Topic)
	if !ok || n < 1 || t.Missing(m.Topic) {
		return 0, false
	}
	return log.KeyPartition(m.Key, n), true
}

// deliver adds the message to the turn's append, and returns its name.
func deliver(t *fold.Turn, id log.ID, m Message, partition int32) (name string, err error) {
	e, err := log.ParseStructured(m.Event)
	if err != nil {
		return "", fmt.Errorf("broker: message %s: %w", id, err)
	}
	Deliver(t, id, &e, log.Partition{Topic: m.Topic, Index: partition})
	return MessageName(&e), nil
}

// Deliver makes e visible on a topic in the append of this turn. RecordedTime is set; the rest is as given.
func Deliver(t *fold.Turn, id log.ID, e *log.Event, to log.Partition) {
	e.RecordedTime = t.Now
	t.Deliver(e, to, string(id[:]))
}

// Placed makes the command that records where a turn's deliveries went.
func Placed(placed []fold.Placed) fold.Command {
	f := PlacedAll{Places: make([]Place, len(placed))}
	for i, p := range placed {
		f.Places[i] = Place{ID: log.ID([]byte(p.ID)), Partition: p.Partition.Index, Offset: p.Offset}
	}
	return place(f)
}

type place PlacedAll

// Decide implements fold.Command.
func (c place) Decide(t *fold.Turn) (any, error) {
	first := c.Places[0].ID.String()
	t.Emit(fold.Event{ID: first + "/placed", Correlation: first, Fact: PlacedAll(c)})
	return nil, nil
}
