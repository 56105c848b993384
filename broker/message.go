package broker

import (
	"slices"
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
	DueMs       int64  // when it is owed to its topic; 0 when it is not, or waits behind another of its key
	// DeliverAtMs and DeliverAfterMs are the delays that were asked for.
	DeliverAtMs, DeliverAfterMs int64
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
	messages = fold.NewTable[Row](Table).Ascending()

	// waiting are the messages of a topic and key that are committed and must wait, in the order of decisions.
	waiting = fold.NewTable[[]log.ID]('w')

	// uses counts the messages of a topic that are prepared, or not delivered.
	uses = fold.NewTable[int64]('u')
)

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
	return n
}

func waitKey(m Message) string { return m.Topic + "\x00" + m.Key }

// Apply implements fold.Machine.
func (b *Broker) Apply(rows fold.Rows, e *fold.Event) {
	switch f := e.Fact.(type) {
	case Prepared:
		applyPrepared(rows, e, f)
	case Committed:
		applyCommitted(rows, e, f)
	case RolledBack:
		m := moved(rows, e, f.ID, InputRollback)
		m.DecidedMs, m.By, m.Reason, m.Event = e.Time.UnixMilli(), f.By, f.Reason, nil
		use(rows, m.Topic, -1)
		put(rows, f.ID, m)
	case Delivered:
		m := moved(rows, e, f.ID, InputDelivered)
		applyDelivered(rows, e, f.ID, m)
	}
}

func put(rows fold.Rows, id log.ID, m Message) { messages.Put(rows, string(id[:]), Row{Message: m}) }

// moved returns the message after in, which must be legal: it has happened.
func moved(rows fold.Rows, e *fold.Event, id log.ID, in Input) Message {
	m, plain, ok := Get(rows, id)
	if !ok {
		fold.Broken(e, "message %s is not there", id)
	}
	next, err := Next(m.State, in)
	if err != nil || !plain || next == m.State {
		fold.Broken(e, "message %s in state %s takes %q: %v", id, m.State, in, err)
	}
	m.State = next
	return m
}

func applyPrepared(rows fold.Rows, e *fold.Event, f Prepared) {
	if _, _, ok := Get(rows, f.ID); ok {
		fold.Broken(e, "message %s is prepared twice", f.ID)
	}
	put(rows, f.ID, Message{
		State: StatePrepared, Fingerprint: f.Fingerprint, Begun: e.Offset, PreparedMs: e.Time.UnixMilli(),
		Topic: f.Topic, Producer: f.Producer, Key: f.Key, Event: f.Event,
		DeliverAtMs: f.DeliverAt, DeliverAfterMs: f.DeliverAfter,
	})
	use(rows, f.Topic, 1)
}

func applyCommitted(rows fold.Rows, e *fold.Event, f Committed) {
	m := moved(rows, e, f.ID, InputCommit)
	m.DecidedMs, m.By, m.Reason = e.Time.UnixMilli(), f.By, f.Reason
	if f.Partition != nil {
		m.State = must(e, m.State, InputDelivered)
		m.Event = nil
		use(rows, m.Topic, -1)
		put(rows, f.ID, m)
		return
	}
	if at := m.deliverAt(); at > m.DecidedMs { // it enters the order of its key when it is due
		m.DueMs = at
	} else if m.DueMs = m.DecidedMs; !queue(rows, f.ID, m) {
		m.DueMs = 0 // behind another of its key
	}
	setDue(rows, f.ID, m)
	put(rows, f.ID, m)
}

// deliverAt returns when a committed message is wanted on its topic, in Unix ms; 0 means at once.
func (m Message) deliverAt() int64 {
	if m.DeliverAfterMs > 0 {
		return max(m.DeliverAtMs, m.DecidedMs+m.DeliverAfterMs)
	}
	return m.DeliverAtMs
}

func must(e *fold.Event, s State, in Input) State {
	next, err := Next(s, in)
	if err != nil {
		fold.Broken(e, "%v", err)
	}
	return next
}

// queue adds a message to those that wait for its topic, and reports whether it is the first of its key.
func queue(rows fold.Rows, id log.ID, m Message) bool {
	ids, _ := waiting.Get(rows, waitKey(m))
	waiting.Put(rows, waitKey(m), append(slices.Clone(ids), id))
	return len(ids) == 0
}

func setDue(rows fold.Rows, id log.ID, m Message) {
	if m.DueMs > 0 {
		due.Set(rows, time.UnixMilli(m.DueMs), string(id[:]))
	}
}

func applyDelivered(rows fold.Rows, e *fold.Event, id log.ID, m Message) {
	due.Clear(rows, time.UnixMilli(m.DueMs), string(id[:]))
	m.DueMs, m.Event = 0, nil
	use(rows, m.Topic, -1)
	put(rows, id, m)
	ids, _ := waiting.Get(rows, waitKey(m))
	if len(ids) == 0 || ids[0] != id {
		return // a delayed one, that found nobody waiting
	}
	if ids = ids[1:]; len(ids) == 0 {
		waiting.Delete(rows, waitKey(m))
		return
	}
	waiting.Put(rows, waitKey(m), ids)
	next, _, ok := Get(rows, ids[0])
	if !ok {
		fold.Broken(e, "message %s waits and is not there", ids[0])
	}
	next.DueMs = e.Time.UnixMilli()
	setDue(rows, ids[0], next)
	put(rows, ids[0], next)
}

func use(rows fold.Rows, topic string, by int64) {
	n, _ := uses.Get(rows, topic)
	if n += by; n == 0 {
		uses.Delete(rows, topic)
		return
	}
	uses.Put(rows, topic, n)
}
