package fold

import (
	"fmt"
	"time"

	"github.com/remitlog/remit/log"
)

// Turn is what a partition decides at once. Commands see it in Decide.
type Turn struct {
	// Now is the time of the turn, in whole milliseconds; it never goes back.
	Now time.Time

	core    log.Partition
	rows    *overlay
	apply   func(Rows, *Event)
	next    log.Offset // the offset that the next event is expected to get
	missing map[string]bool

	scratch  log.Scratch  // of what is in records and delivery
	records  []log.Record // of core
	events   []Event      // what records say, by index
	delivery []delivery
	bytes    int
	before   int // bytes, when the command that decides now began
}

// delivery is a record for a user's topic, and who wants to know where it went.
type delivery struct {
	record log.Record
	id     string
}

// Rows returns the state as the turn's earlier events have made it.
func (t *Turn) Rows() Reader { return t.rows }

// Partition returns the partition that decides.
func (t *Turn) Partition() int32 { return t.core.Index }

// Emit records e and folds it at once, so that whatever follows in this turn stands on it. ID, Key and Fact
// must be set; place and time are given here. It returns the event as folded; of a log whose offsets have gaps, its offset
// is only expected. It does not return if the log would not take the record: the command fails.
func (t *Turn) Emit(e Event) Event {
	e.Partition, e.Offset, e.Time = t.core.Index, t.next, t.Now
	r, err := encode(&t.scratch, &e, t.core.Topic)
	if err != nil {
		panic(unfit{err})
	}
	t.take(&r)
	t.records, t.events = append(t.records, r), append(t.events, e)
	t.next++
	t.apply(t.rows, &e)
	return e
}

// Deliver adds an event for a user's topic to the same append. Where it went comes back, in the turn
// after, through Options.Placed under the given id.
func (t *Turn) Deliver(e *log.Event, to log.Partition, id string) {
	r := t.scratch.Record(e, to)
	r.Time = t.Now
	t.take(&r)
	t.delivery = append(t.delivery, delivery{r, id})
}

// CommandBytesMax is how many bytes one command may append: what it emits and delivers, together.
const CommandBytesMax = log.AppendMax / 2

// unfit is what Emit and Deliver panic with when the log would not take a record: the command fails, alone. The log's own
// refusal would be the answer to all commands of the turn.
type unfit struct{ error }

// take counts the bytes of a record, and looks whether it fits.
func (t *Turn) take(r *log.Record) {
	n := log.RecordLen(r)
	switch t.bytes += n; {
	case n > log.RecordMax:
		panic(unfit{fmt.Errorf("fold: a record for %s/%d of %d bytes, at most %d: %w", r.Topic, r.Index, n, log.RecordMax, log.ErrTooLarge)})
	case t.bytes-t.before > CommandBytesMax:
		panic(unfit{fmt.Errorf("fold: a command that appends more than %d bytes: %w", CommandBytesMax, log.ErrTooLarge)})
	}
}

// Missing reports whether the log has said in this turn that a topic is not there: decide without it.
func (t *Turn) Missing(topic string) bool { return t.missing[topic] }

// Placed says where a delivered record went.
type Placed struct {
	ID        string
	Partition log.Partition
	Offset    log.Offset
}

// decide runs one command; what a failed one has emitted is gone.
func (t *Turn) decide(c Command) (answer any, err error) {
	t.rows.mark()
	next, records, deliveries := t.next, len(t.records), len(t.delivery)
	t.before = t.bytes
	answer, err = t.ask(c)
	if err != nil {
		t.rows.rollback()
		t.next, t.bytes = next, t.before
		t.records, t.events, t.delivery = t.records[:records], t.events[:records], t.delivery[:deliveries]
	}
	return answer, err
}

func (t *Turn) ask(c Command) (answer any, err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case unfit:
			answer, err = nil, r.error
		default:
			panic(r)
		}
	}()
	return c.Decide(t)
}

// all returns the records of the turn's append, core first.
func (t *Turn) all() []log.Record {
	if len(t.delivery) == 0 {
		return t.records
	}
	all := t.records
	for _, d := range t.delivery {
		all = append(all, d.record)
	}
	return all
}

// moved folds the turn's events again at the offsets that they really got: a log whose offsets have gaps
// may give others than were expected, and rows may hold an offset.
func (t *Turn) moved(offsets []log.Offset) {
	t.rows.reset()
	for i := range t.events {
		t.events[i].Offset = offsets[i]
		t.apply(t.rows, &t.events[i])
	}
}

func (t *Turn) String() string {
	return fmt.Sprintf("turn of %s/%d: %d events, %d deliveries", t.core.Topic, t.core.Index, len(t.records), len(t.delivery))
}
