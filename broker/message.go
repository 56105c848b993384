package broker

import (
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
)

// Message is the row of a half message, and of the message of an activity. While it is open it has all that is
// needed to decide and deliver it; once it has ended it is its outcome row.
type Message struct {
	_           struct{} `cbor:",toarray"`
	State       State
	Fingerprint log.Fingerprint
	Begun       log.Offset // of the event that prepared it, in the partition of its id
	PreparedMs  int64
	DecidedMs   int64
	By, Reason  string
	Topic       string
	Producer    string
	Key         string
	Event       []byte // JSON format; nil once it is not needed, and in activities
	DueMs       int64  // when its producer is asked first, or it is looked at to be delivered; 0 when it is not, or waits behind another of its key
	// DeliverAtMs and DeliverAfterMs are the delays that were asked for.
	DeliverAtMs, DeliverAfterMs int64
	Conflicts                   int64 // how many contradictions are on the log
	Schedule                    Schedule
	ResumedMs                   int64 // when a person put it back: the schedule begins there
	ParkedMs                    int64 // when it was set aside, if it was and has not been put back
	Steps                       int64 // how often it was parked, put back, and asked about by a person
	// Precheck: its producer is asked before it is delivered.
	Precheck bool
}

// Row is a message with the activity whose message it is: one row.
type Row struct {
	_       struct{} `cbor:",toarray"`
	Message Message
	// Activity is what package saga keeps; nil for a plain message. Only saga moves a row that has one.
	Activity cbor.RawMessage
}

// Table is the table of messages, and of activities.
const Table = 'm'

// MachineByte is the broker's in due rows.
const MachineByte = 'b'

var (
	due = fold.DueOf(MachineByte)

	// rows are by the 16 bytes of the id. Most ids that are looked up are new.
	messages = fold.NewTable[Row](Table).Ascending().Until(func(r *Row) bool { return r.Message.State.Final() })

	// uses are by topic.
	uses = fold.NewTable[inUse]('u')
)

// inUse counts the messages of a topic.
type inUse struct {
	_       struct{} `cbor:",toarray"`
	Open    int64    // those that are prepared, or not delivered
	Waiting int64    // those of them that stand in a line; see line
}

// Name is the source and id of the message's event; empty where the row has none that can be read: the message has ended, or is an activity's.
func (m Message) Name() string {
	if len(m.Event) == 0 {
		return ""
	}
	e, err := log.ParseStructured(m.Event)
	if err != nil {
		return ""
	}
	return MessageName(&e)
}

// step names a fact that may come more than once.
func (m Message) step(fact string) string { return fmt.Sprintf("%s/%d", fact, m.Steps+1) }

// Get returns the row of a message, and whether it is a plain one: it has no activity.
func Get(rows fold.Reader, id log.ID) (m Message, plain, ok bool) {
	r, ok := messages.Get(rows, string(id[:]))
	return r.Message, isNull(r.Activity), ok
}

// isNull reports whether b is nothing, or CBOR's null.
func isNull(b cbor.RawMessage) bool { return len(b) == 0 || len(b) == 1 && b[0] == 0xf6 }

// InUse returns how many messages of a topic are prepared or not yet delivered in a partition.
func InUse(rows fold.Reader, topic string) int64 {
	n, _ := uses.Get(rows, topic)
	return n.Open
}

// Apply implements fold.Machine.
func (b *Broker) Apply(rows fold.Rows, e *fold.Event) {
	switch f := e.Fact.(type) {
	case Prepared:
		applyPrepared(rows, e, f)
	case Committed:
		applyCommitted(rows, e, f)
	case RolledBack:
		m := moved(rows, e, f.ID, InputRollback)
		clearDue(rows, f.ID, &m)
		m.DecidedMs, m.By, m.Reason, m.Event = e.Time.UnixMilli(), f.By, f.Reason, nil
		use(rows, m.Topic, -1, 0)
		put(rows, f.ID, m)
	case Parked:
		m := moved(rows, e, f.ID, InputExpired)
		clearDue(rows, f.ID, &m)
		m.By, m.Reason, m.ParkedMs = f.By, f.Reason, e.Time.UnixMilli()
		m.Steps++
		count(rows, f.ID, m, 1)
		put(rows, f.ID, m)
	case Resumed:
		m := moved(rows, e, f.ID, InputResume)
		m.By, m.Reason, m.ParkedMs, m.ResumedMs = "", "", 0, e.Time.UnixMilli()
		m.Steps++
		count(rows, f.ID, m, 1)
		checkFirst(rows, f.ID, &m)
		put(rows, f.ID, m)
	case CheckAsked:
		m, plain, ok := Get(rows, f.ID)
		if !ok || !plain {
			fold.Broken(e, "message %s is not there, or an activity's", f.ID)
		}
		m.Steps++
		put(rows, f.ID, m)
	case Conflicted:
		if m, plain, ok := Get(rows, f.ID); !ok {
			fold.Broken(e, "message %s is not there", f.ID)
		} else if plain { // an activity's is saga's to move
			m.Conflicts++
			put(rows, f.ID, m)
		}
	case Delivered:
		leaveLine(rows, e, f.ID, moved(rows, e, f.ID, InputDelivered))
	case Dropped:
		m := moved(rows, e, f.ID, InputDropped)
		m.Reason = f.Reason
		leaveLine(rows, e, f.ID, m)
	}
}

func put(rows fold.Rows, id log.ID, m Message) { messages.Put(rows, string(id[:]), Row{Message: m}) }

// moved returns the message after in, which must be legal: it has happened. It is counted where it stands no longer; where it stands now is the
// caller's to count.
func moved(rows fold.Rows, e *fold.Event, id log.ID, in Input) Message {
	m, plain, ok := Get(rows, id)
	if !ok {
		fold.Broken(e, "message %s is not there", id)
	}
	next, err := Next(m.State, in)
	if err != nil || !plain || next == m.State {
		fold.Broken(e, "message %s in state %s takes %q: %v", id, m.State, in, err)
	}
	count(rows, id, m, -1)
	m.State = next
	return m
}

func applyPrepared(rows fold.Rows, e *fold.Event, f Prepared) {
	if _, _, ok := Get(rows, f.ID); ok {
		fold.Broken(e, "message %s is prepared twice", f.ID)
	}
	m := Message{
		State: StatePrepared, Fingerprint: f.Fingerprint, Begun: e.Offset, PreparedMs: e.Time.UnixMilli(),
		Topic: f.Topic, Producer: f.Producer, Key: f.Key, Event: f.Event,
		DeliverAtMs: f.DeliverAt, DeliverAfterMs: f.DeliverAfter, Schedule: f.schedule(),
	}
	checkFirst(rows, f.ID, &m)
	count(rows, f.ID, m, 1)
	put(rows, f.ID, m)
	use(rows, f.Topic, 1, 0)
}

// checkFirst makes a half message due when its producer is asked first. The due row stays where it is until the message is decided or
// parked: later checks are a function of it.
func checkFirst(rows fold.Rows, id log.ID, m *Message) {
	_, m.DueMs = m.Schedule.Next(m.checkFrom(), id, m.checkFrom())
	setDue(rows, id, *m)
}

func clearDue(rows fold.Rows, id log.ID, m *Message) {
	if m.DueMs > 0 {
		due.Clear(rows, time.UnixMilli(m.DueMs), string(id[:]))
		m.DueMs = 0
	}
}

func applyCommitted(rows fold.Rows, e *fold.Event, f Committed) {
	m := moved(rows, e, f.ID, InputCommit)
	clearDue(rows, f.ID, &m)
	m.DecidedMs, m.By, m.Reason, m.Precheck = e.Time.UnixMilli(), f.By, f.Reason, f.Precheck
	if f.Partition != nil {
		m.State = must(e, m.State, InputDelivered)
		m.Event = nil
		use(rows, m.Topic, -1, 0)
		put(rows, f.ID, m)
		return
	}
	count(rows, f.ID, m, 1)
	use(rows, m.Topic, 0, 1)
	if at := m.wantedAt(); queue(rows, e, f.ID, m) || at > m.DecidedMs {
		m.DueMs = at // else it becomes due when it is the first of its key
	}
	setDue(rows, f.ID, m)
	put(rows, f.ID, m)
}

// wantedAt returns when a committed message is wanted on its topic, in Unix ms.
func (m Message) wantedAt() int64 {
	if m.DeliverAfterMs > 0 {
		return max(m.DeliverAtMs, m.DecidedMs+m.DeliverAfterMs)
	}
	return max(m.DeliverAtMs, m.DecidedMs)
}

func must(e *fold.Event, s State, in Input) State {
	next, err := Next(s, in)
	if err != nil {
		fold.Broken(e, "%v", err)
	}
	return next
}

func setDue(rows fold.Rows, id log.ID, m Message) {
	if m.DueMs > 0 {
		due.Set(rows, time.UnixMilli(m.DueMs), string(id[:]))
	}
}

// leaveLine ends a message that waited, and moves the next of its line up.
func leaveLine(rows fold.Rows, e *fold.Event, id log.ID, m Message) {
	clearDue(rows, id, &m)
	m.Event = nil
	use(rows, m.Topic, -1, -1)
	put(rows, id, m)
	if next, at, ok := leave(rows, e, id, m); ok {
		moveUp(rows, e, next, at)
	}
}

// moveUp makes the message due that is the first of its line now.
func moveUp(rows fold.Rows, e *fold.Event, id log.ID, at int64) {
	m, _, ok := Get(rows, id)
	if !ok || m.State != StateCommitted {
		fold.Broken(e, "message %s waits and is not there, or not committed", id)
	}
	clearDue(rows, id, &m)
	m.DueMs = max(at, e.Time.UnixMilli())
	setDue(rows, id, m)
	put(rows, id, m)
}

// use counts messages of a topic that come or go, and those that come into a line or leave one.
func use(rows fold.Rows, topic string, open, waiting int64) {
	n, _ := uses.Get(rows, topic)
	n.Open += open
	if n.Waiting += waiting; n.Open == 0 {
		uses.Delete(rows, topic)
		return
	}
	uses.Put(rows, topic, n)
}
