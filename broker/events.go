package broker

import (
	"github.com/go-json-experiment/json/jsontext"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
)

// Prepared is the fact that a half message was stored.
type Prepared struct {
	ID          log.ID          `json:"id"`
	Name        string          `json:"name"` // the event's source and id, as claimed
	Fingerprint log.Fingerprint `json:"fingerprint"`
	Topic       string          `json:"topic"`
	Producer    string          `json:"producer"`
	Key         string          `json:"key"`
	// Event is the CloudEvent in its JSON format, as it will be delivered.
	Event jsontext.Value `json:"event"`
	// DeliverAt and DeliverAfter delay the delivery: Unix ms, and ms from the commit. CheckAfter
	// replaces the producer's time of the first back-check: ms from now.
	DeliverAt    int64 `json:"deliverAt,omitzero"`
	DeliverAfter int64 `json:"deliverAfter,omitzero"`
	CheckAfter   int64 `json:"checkAfter,omitzero"`
	// Schedule is the producer's, as it was registered then; left out where it is the default one.
	Schedule Schedule `json:"schedule,omitzero"`
}

// schedule is when the producer is asked about this message.
func (p Prepared) schedule() Schedule {
	s := p.Schedule
	if p.CheckAfter > 0 {
		s = s.orDefault()
		s.FirstAfter = p.CheckAfter
	}
	return s
}

// Decision is who decided a message, and why.
type Decision struct {
	ID     log.ID `json:"id"`
	By     string `json:"by,omitzero"`
	Reason string `json:"reason,omitzero"`
}

// Committed is the fact that a message is to be visible. With a Partition it became so in the same append.
type Committed struct {
	Decision
	// Partition of the topic that has the message since this very append; nil if it must wait.
	Partition *int32 `json:"partition,omitempty"`
	// Precheck: it waits for its producer's word.
	Precheck bool `json:"precheck,omitzero"`
}

// RolledBack is the fact that a message will never be visible.
type RolledBack struct{ Decision }

// Delivered is the fact that a committed message that had to wait became visible in this very append.
type Delivered struct {
	ID        log.ID `json:"id"`
	Partition int32  `json:"partition"`
}

// Parked is the fact that a half message was set aside for a person: past its deadline its producer still answers unknown.
type Parked struct{ Decision }

// Resumed is the fact that a person put a parked message back. Its schedule begins anew.
type Resumed struct{ Decision }

// CheckAsked is the fact that a person had the producer asked now.
type CheckAsked struct{ Decision }

// Dropped is the fact that the producer's pre-check took back a committed message: it will never be visible.
type Dropped struct{ Decision }

// Conflicted is the fact that someone wanted to decide otherwise than was decided (D2).
type Conflicted struct {
	Decision
	Wanted   Input  `json:"wanted"`
	Recorded string `json:"recorded"`
}

// PlacedAll is the fact that delivered messages got these offsets. It is written once for all
// deliveries of a turn, by the turn after.
type PlacedAll struct {
	Places []Place `json:"places"`
}

// Place is where a message stands on its topic.
type Place struct {
	ID        log.ID     `json:"id"`
	Partition int32      `json:"partition"`
	Offset    log.Offset `json:"offset"`
}

// EventType is the type on the log.
func (Prepared) EventType() string { return "remit.message.prepared.v1" }

// EventType is the type on the log.
func (Committed) EventType() string { return "remit.message.committed.v1" }

// EventType is the type on the log.
func (RolledBack) EventType() string { return "remit.message.rolledback.v1" }

// EventType is the type on the log.
func (Delivered) EventType() string { return "remit.message.delivered.v1" }

// EventType is the type on the log.
func (Parked) EventType() string { return "remit.message.parked.v1" }

// EventType is the type on the log.
func (Resumed) EventType() string { return "remit.message.resumed.v1" }

// EventType is the type on the log.
func (CheckAsked) EventType() string { return "remit.message.checkasked.v1" }

// EventType is the type on the log.
func (Dropped) EventType() string { return "remit.message.dropped.v1" }

// EventType is the type on the log.
func (Conflicted) EventType() string { return "remit.message.conflicted.v1" }

// EventType is the type on the log.
func (PlacedAll) EventType() string { return "remit.message.placed.v1" }

// AppendJSON implements fold.Appender. The event stays as it is, byte for byte.
func (p Prepared) AppendJSON(b []byte) []byte {
	o := fold.ObjectIn(b)
	o.ID("id", p.ID)
	o.Text("name", p.Name)
	o.Fingerprint("fingerprint", p.Fingerprint)
	o.Text("topic", p.Topic)
	o.Text("producer", p.Producer)
	o.Text("key", p.Key)
	o.JSON("event", p.Event)
	o.NumberIf("deliverAt", p.DeliverAt)
	o.NumberIf("deliverAfter", p.DeliverAfter)
	o.NumberIf("checkAfter", p.CheckAfter)
	if s := p.Schedule; s != (Schedule{}) {
		o.Open("schedule", '{')
		o.NumberIf("firstAfter", s.FirstAfter)
		o.NumberIf("interval", s.Interval)
		o.NumberIf("maxInterval", s.MaxInterval)
		o.NumberIf("deadline", s.Deadline)
		o.Close('}')
	}
	return o.End()
}

// AppendJSON implements fold.Appender.
func (c Committed) AppendJSON(b []byte) []byte {
	o := fold.ObjectIn(b)
	o.ID("id", c.ID)
	o.TextIf("by", c.By)
	o.TextIf("reason", c.Reason)
	if c.Partition != nil {
		o.Number("partition", int64(*c.Partition))
	}
	o.TrueIf("precheck", c.Precheck)
	return o.End()
}

// AppendJSON implements fold.Appender.
func (p PlacedAll) AppendJSON(b []byte) []byte {
	o := fold.ObjectIn(b)
	o.Open("places", '[')
	for _, at := range p.Places {
		o.Open("", '{')
		o.ID("id", at.ID)
		o.Number("partition", int64(at.Partition))
		o.Number("offset", int64(at.Offset))
		o.Close('}')
	}
	o.Close(']')
	return o.End()
}

// Facts lists the facts of this package.
func Facts() []fold.FactType {
	return []fold.FactType{
		fold.FactOf[Prepared](), fold.FactOf[Committed](), fold.FactOf[RolledBack](), fold.FactOf[Delivered](),
		fold.FactOf[Conflicted](), fold.FactOf[PlacedAll](), fold.FactOf[Parked](), fold.FactOf[Resumed](), fold.FactOf[CheckAsked](),
		fold.FactOf[Dropped](),
	}
}
