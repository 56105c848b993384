package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/remitlog/remit/broker"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/projections/transactions"
)

// Message is a message as it is answered.
type Message struct {
	ID       log.ID `json:"id"`
	Name     string `json:"name,omitzero"` // the event's source and id
	Topic    string `json:"topic"`
	Producer string `json:"producer,omitzero"`
	Key      string `json:"key"`
	State    string `json:"state"`
	// Event is the CloudEvent as it is, or will be, delivered. Answers of decisions leave it out, and the history.
	Event jsontext.Value `json:"event,omitzero"`
	// Checks is how many checks of the schedule have come, asked or not.
	Checks      int  `json:"checks"`
	NextCheckAt Time `json:"nextCheckAt,omitzero"`
	// Unreachable: its producer is waited for, and there is nobody to ask, or nobody who answers.
	Unreachable bool   `json:"unreachable"`
	Stuck       bool   `json:"stuck"`
	DecidedBy   string `json:"decidedBy,omitzero"`
	Reason      string `json:"reason,omitzero"` // why it stands where it stands
	PreparedAt  Time   `json:"preparedAt"`
	DecidedAt   Time   `json:"decidedAt,omitzero"`
	DeliverAt   Time   `json:"deliverAt,omitzero"` // when it was asked to be delivered
	// DeliveredAt is where it stands on its topic. The offset is known a moment after the partition: the answer of the decision has none.
	DeliveredAt *Delivery `json:"deliveredAt,omitzero"`
	// Check is what its producer said, where it was asked by this very call.
	Check   *Heard `json:"check,omitzero"`
	History []Step `json:"history,omitempty"`
}

// Heard is what a producer answered. Without a verdict it did not, and Error says why not.
type Heard struct {
	Verdict string `json:"verdict,omitzero"`
	Reason  string `json:"reason,omitzero"`
	Error   string `json:"error,omitzero"`
}

// Delivery is where a message stands on its topic.
type Delivery struct {
	Partition int32       `json:"partition"`
	Offset    *log.Offset `json:"offset,omitzero"`
}

// Step is one event of a history.
type Step struct {
	At     Time   `json:"at"`
	Type   string `json:"type"`
	By     string `json:"by,omitzero"`
	Detail string `json:"detail,omitzero"`
}

// AppendJSON appends what json.Marshal would write, but for white space in the data of the event.
func (m Message) AppendJSON(b []byte) []byte {
	b = append(append(append(b, `{"id":"`...), m.ID.String()...), '"')
	b = appendMember(b, "name", m.Name)
	b = appendAlways(b, "topic", m.Topic)
	b = appendMember(b, "producer", m.Producer)
	b = appendAlways(b, "key", m.Key)
	b = appendAlways(b, "state", m.State)
	if len(m.Event) > 0 {
		b = appendLine(append(b, `,"event":`...), m.Event)
	}
	b = strconv.AppendInt(append(b, `,"checks":`...), int64(m.Checks), 10)
	b = appendTime(b, "nextCheckAt", m.NextCheckAt)
	b = strconv.AppendBool(append(b, `,"unreachable":`...), m.Unreachable)
	b = strconv.AppendBool(append(b, `,"stuck":`...), m.Stuck)
	b = appendMember(b, "decidedBy", m.DecidedBy)
	b = appendMember(b, "reason", m.Reason)
	b = appendInstant(append(b, `,"preparedAt":`...), m.PreparedAt)
	b = appendTime(b, "decidedAt", m.DecidedAt)
	b = appendTime(b, "deliverAt", m.DeliverAt)
	if at := m.DeliveredAt; at != nil {
		b = strconv.AppendInt(append(b, `,"deliveredAt":{"partition":`...), int64(at.Partition), 10)
		if at.Offset != nil {
			b = strconv.AppendInt(append(b, `,"offset":`...), int64(*at.Offset), 10)
		}
		b = append(b, '}')
	}
	if m.Check != nil {
		b = m.Check.AppendJSON(append(b, `,"check":`...))
	}
	for i := range m.History {
		if i == 0 {
			b = append(b, `,"history":[`...)
		} else {
			b = append(b, ',')
		}
		b = m.History[i].AppendJSON(b)
	}
	if len(m.History) > 0 {
		b = append(b, ']')
	}
	return append(b, '}')
}

// AppendJSON appends what json.Marshal would write.
func (s Step) AppendJSON(b []byte) []byte {
	b = appendInstant(append(b, `{"at":`...), s.At)
	b = appendAlways(b, "type", s.Type)
	b = appendMember(b, "by", s.By)
	b = appendMember(b, "detail", s.Detail)
	return append(b, '}')
}

// AppendJSON appends what json.Marshal would write.
func (h Heard) AppendJSON(b []byte) []byte {
	at := len(b)
	b = appendMember(b, "verdict", h.Verdict)
	b = appendMember(b, "reason", h.Reason)
	b = appendMember(b, "error", h.Error)
	if len(b) == at {
		return append(b, '{', '}')
	}
	b[at] = '{' // where the comma of the first member was
	return append(b, '}')
}

// show is a plain message as the core has it, without what its answer would have to be read for: its name, event and history.
func (m *Messages) show(id log.ID, row broker.Message) Message {
	answer := Message{
		ID: id, Topic: row.Topic, Producer: row.Producer, Key: row.Key, State: row.State.String(), Reason: row.Reason,
		PreparedAt: timeOf(row.PreparedMs), DecidedAt: timeOf(row.DecidedMs), DeliverAt: timeOf(row.DeliverAtMs),
	}
	if row.DecidedMs > 0 {
		answer.DecidedBy = row.By
	}
	if row.DeliverAfterMs > 0 && row.DecidedMs > 0 {
		answer.DeliverAt = timeOf(max(row.DeliverAtMs, row.DecidedMs+row.DeliverAfterMs))
	}
	m.showChecks(&answer, row)
	return answer
}

// decided is a message as it is answered to who decides, or asks for something to be done to it: show, with what its command knew beside it. Of
// one that had ended before, the row has neither its name nor where it was delivered: see again.
func (m *Messages) decided(o broker.Outcome) Message {
	answer := m.show(o.ID, o.Message)
	if answer.Name = o.Name; answer.Name == "" {
		answer.Name = o.Message.Name()
	}
	if o.Partition != nil {
		answer.DeliveredAt = &Delivery{Partition: *o.Partition}
	}
	return answer
}

// again is decided for a message that may have ended before.
func (m *Messages) again(ctx context.Context, o broker.Outcome, at log.Position) Message {
	return m.recall(ctx, m.decided(o), o, at)
}

// forgotten reports whether the row of a message that has ended lacks what its answer would have, and the transactions view has.
func forgotten(answer Message, o broker.Outcome) bool {
	state := o.Message.State
	return state.Final() && (answer.Name == "" || state == broker.StateDelivered && answer.DeliveredAt == nil)
}

// recall adds what was forgotten. The view is waited for, at most for AfterWaitDefault; past that the answer does without.
func (m *Messages) recall(ctx context.Context, answer Message, o broker.Outcome, at log.Position) Message {
	if !forgotten(answer, o) {
		return answer
	}
	ctx, cancel := context.WithTimeout(ctx, AfterWaitDefault)
	defer cancel()
	name, partition, ended, err := m.Views.Transactions.Ended(ctx, answer.ID, at)
	if err != nil || !ended {
		return answer
	}
	if answer.Name = name; partition >= 0 {
		answer.DeliveredAt = &Delivery{Partition: partition}
	}
	return answer
}

// showChecks says how it stands with asking a message's producer.
func (m *Messages) showChecks(answer *Message, row broker.Message) {
	now := m.Node.Now()
	answer.Checks, answer.NextCheckAt = row.Checks(answer.ID, now), Time(row.NextCheck(answer.ID, now))
	if p, _ := m.Registry.Producer(row.Producer); p.Precheck.URL != "" {
		answer.NextCheckAt = cmp.Or(answer.NextCheckAt, Time(row.NextPrecheck(answer.ID, now)))
	}
	answer.Stuck, answer.Unreachable = row.Stuck(answer.ID, now), m.unreachable(row)
}

// unreachable reports whether a message waits for its producer's word in vain.
func (m *Messages) unreachable(row broker.Message) bool {
	p, ok := m.Registry.Producer(row.Producer)
	switch row.State {
	case broker.StatePrepared, broker.StateParked:
	case broker.StateCommitted:
		if !row.Precheck || ok && p.Precheck.URL == "" { // it is not waited for, or not any more
			return false
		}
	default:
		return false
	}
	if m.Answering != nil {
		return m.Answering(row) == 0
	}
	return !ok || row.State != broker.StateCommitted && p.Check.URL == "" && len(m.Registry.Instances(row.Producer)) == 0
}

// schedule is that of a producer, as it is registered now.
func (m *Messages) schedule(producer string) broker.Schedule {
	p, _ := m.Registry.Producer(producer)
	return scheduleOf(p.Check)
}

func timeOf(ms int64) Time {
	if ms == 0 {
		return Time{}
	}
	return Time(time.UnixMilli(ms).UTC())
}

// open is a plain message that has not ended as the core has it, with all that can be said of it.
func (m *Messages) open(id log.ID, row broker.Message) (Message, error) {
	answer := m.show(id, row)
	e, err := log.ParseStructured(row.Event)
	if err != nil {
		return answer, fmt.Errorf("api: message %s: %w", id, err)
	}
	answer.Name, answer.Event, answer.History = broker.MessageName(&e), row.Event, openHistory(row)
	return answer, nil
}

// openHistory is the history of a message that has not ended, as far as its row has it: without parking, asking and contradictions.
func openHistory(row broker.Message) []Step {
	history := []Step{{At: timeOf(row.PreparedMs), Type: broker.Prepared{}.EventType(), By: row.Producer}}
	if row.DecidedMs > 0 {
		history = append(history, Step{At: timeOf(row.DecidedMs), Type: broker.Committed{}.EventType(), By: row.By, Detail: row.Reason})
	}
	return history
}

// viewed is a message as the view has it. How it stands with asking its producer is the core's to say: it is a matter of now.
func (m *Messages) viewed(x transactions.Message) Message {
	answer := Message{
		ID: x.ID, Name: x.Name, Topic: x.Topic, Producer: x.Producer, Key: x.Key, State: x.State, Event: x.Event,
		DecidedBy: x.DecidedBy, Reason: x.Reason, PreparedAt: Time(x.PreparedAt), DecidedAt: Time(x.DecidedAt), DeliverAt: Time(x.DeliverAt),
		DeliveredAt: delivery(x.DeliveredAt), History: steps(x.History),
	}
	if row, ok := m.peek(x.ID); ok {
		m.showChecks(&answer, row)
	}
	return answer
}

// stuck reports whether a message is stuck now.
func (m *Messages) stuck(id log.ID) bool {
	row, ok := m.peek(id)
	return ok && row.Stuck(id, m.Node.Now())
}

// stuckBefore returns a time from which on no message was prepared that is stuck now: they are the oldest, and lists begin with the newest.
func (m *Messages) stuckBefore() (last time.Time, err error) {
	last = time.UnixMilli(0)
	for p := range int32(m.Node.Partitions()) {
		err = errors.Join(err, m.Node.Read(p, func(rows fold.Scanner, _ log.Offset) error {
			if before, ok := broker.StuckBefore(rows, m.Node.Now()); ok && before.After(last) {
				last = before
			}
			return nil
		}))
	}
	return last.Add(time.Millisecond), err
}

// peek looks at the core's row of a plain message. It reports false if there is none, or none that can be read: the node says so itself.
func (m *Messages) peek(id log.ID) (row broker.Message, ok bool) {
	err := m.Node.Peek(m.Node.PartitionOfID(id), func(rows fold.Reader) {
		var plain bool
		row, plain, ok = broker.Get(rows, id)
		ok = ok && plain
	})
	return row, ok && err == nil
}
