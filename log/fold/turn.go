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

	records  []log.Record // of core
	events   []Event      // what records say, by index
	delivery []delivery
	bytes    int
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
// must be set; place and time are given here. It returns the event as folded.
func (t *Turn) Emit(e Event) Event {
	e.Partition, e.Offset, e.Time = t.core.Index, t.next, t.Now
	r, err := encode(&e, t.core.Topic)
	if err != nil {
		Broken(&e, "%v", err)
	}
	t.records, t.events = append(t.records, r), append(t.events, e)
	t.bytes += len(r.Value)
	t.next++
	t.apply(t.rows, &e)
	return e
}

// Deliver adds a record for a user's topic to the same append. Where it went comes back, in the turn
// after, through Options.Placed under the given id.
func (t *Turn) Deliver(r log.Record, id string) {
	t.delivery = append(t.delivery, delivery{r, id})
	t.bytes += len(r.Value)
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
	answer, err = c.Decide(t)
	if err != nil {
		t.rows.rollback()
		t.next, t.records, t.events, t.delivery = next, t.records[:records], t.events[:records], t.delivery[:deliveries]
	}
	return answer, err
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
