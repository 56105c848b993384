package broker

import (
	"time"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
)

// Verdict is what a producer answers. It alone is an answer: what is none of these is silence.
type Verdict string

// The verdicts of a back-check, and those of a pre-check.
const (
	VerdictCommit   Verdict = "commit"
	VerdictRollback Verdict = "rollback"
	VerdictUnknown  Verdict = "unknown" // the local transaction still runs

	VerdictDeliver Verdict = "deliver"
	VerdictHold    Verdict = "hold" // ask again
	VerdictDrop    Verdict = "drop"
)

// Said is a producer's answer.
type Said struct {
	Verdict Verdict
	Reason  string
}

// Question is what a producer is asked about.
type Question struct {
	ID      log.ID
	Message Message // as it stands
	Now     time.Time
	// Attempt is the number of the check in the schedule, from 1 on; 0 for a person's.
	Attempt int
}

// Asker asks producers for the broker. It is called on the goroutines of partitions, and must not block.
type Asker interface {
	// Wants reports whether the producer is to be asked about a half message now: it can be, its condition holds, and it is not
	// being asked about it already.
	Wants(Question) bool
	// Check asks what became of a half message; done is called once with a Said, or an error if there was no answer.
	Check(q Question, done func(answer any, err error))
	// Prechecks reports whether a message that is being committed waits for its producer's word.
	Prechecks(Question) bool
	// Waits reports whether a message that waits for its producer's word still has to: its producer may have been registered anew
	// without a pre-check.
	Waits(Question) bool
	// Precheck asks whether a committed message is to be delivered; done as with Check.
	Precheck(q Question, done func(answer any, err error))
	// Landed is told what became of a verdict, once that is durable.
	Landed(q Question, said Said, o Outcome)
}

const (
	// LateMax is how late a check may be and still be asked at once. What is later was missed, by a node that was down, and is spread.
	LateMax = 2 * time.Second
	// SpreadMax is over how long those are spread, at most: they never come after the check that follows them.
	SpreadMax = time.Minute
)

// Owed implements fold.Machine.
func (b *Broker) Owed(rows fold.Reader, id string, look fold.Look) []fold.Effect {
	q := Question{ID: log.ID([]byte(id)), Now: look.Now}
	var ok bool
	if q.Message, _, ok = Get(rows, q.ID); !ok || q.Message.DueMs == 0 || q.Message.DueMs > look.Now.UnixMilli() {
		return nil
	}
	switch {
	case q.Message.State == StatePrepared && b.opts.Asker != nil:
		return b.owesCheck(q, look)
	case q.Message.State != StateCommitted:
		return nil
	case q.Message.Precheck && b.opts.Asker != nil && b.opts.Asker.Waits(q):
		return b.owesPrecheck(rows, q)
	default:
		return b.owesDelivery(q)
	}
}

// owesCheck asks the producer of a half message, and says when to look again. What a node that was down has missed is spread over the time
// until the next check.
func (b *Broker) owesCheck(q Question, look fold.Look) []fold.Effect {
	m := q.Message
	n, next := m.Schedule.Next(m.checkFrom(), q.ID, look.Now.UnixMilli())
	if late := look.Now.Sub(time.UnixMilli(m.DueMs)); look.Last.IsZero() && late > LateMax {
		span := min(next-look.Now.UnixMilli(), SpreadMax.Milliseconds())
		return []fold.Effect{{At: look.Now.Add(time.Duration(jitter(q.ID, n, 10*span)) * time.Millisecond)}}
	}
	q.Attempt = n
	if !b.opts.Asker.Wants(q) { // by its condition, or since there is nobody to ask: there may be a million of those
		return []fold.Effect{{At: time.UnixMilli(next)}}
	}
	var said Said
	return []fold.Effect{
		{At: time.UnixMilli(next)},
		{
			Call: func(done func(any, error)) { b.opts.Asker.Check(q, done) },
			Answer: func(r fold.Result) fold.Command {
				if r.Err != nil {
					return nil
				}
				said = r.Answer.(Said)
				return b.verdict(q, said)
			},
			Landed: func(r fold.Result) { b.opts.Asker.Landed(q, said, r.Answer.(Outcome)) },
		},
	}
}

// verdict is the command that follows from what a producer has said of a half message; nil if none does.
func (b *Broker) verdict(q Question, said Said) fold.Command {
	switch said.Verdict {
	case VerdictCommit:
		return Settle{Broker: b, ID: q.ID, Input: InputCommit, By: q.Message.Producer, Reason: said.Reason}
	case VerdictRollback:
		return Settle{Broker: b, ID: q.ID, Input: InputRollback, By: q.Message.Producer, Reason: said.Reason}
	default:
		return expire{Decision{ID: q.ID, By: q.Message.Producer, Reason: said.Reason}}
	}
}

// expire parks a half message whose producer has answered unknown, if its deadline is over. The answer is an Outcome.
type expire struct{ Decision }

// Decide implements fold.Command.
func (c expire) Decide(t *fold.Turn) (any, error) {
	m, _, ok := Get(t.Rows(), c.ID)
	if !ok {
		return nil, ErrUnknownMessage
	}
	if m.State == StatePrepared && !t.Now.Before(m.Deadline()) {
		emit(t, c.ID, m, m.step("parked"), Parked(c))
		m, _, _ = Get(t.Rows(), c.ID)
	}
	return Outcome{ID: c.ID, Message: m}, nil
}

// owesPrecheck asks the producer of a committed message whether it is to be delivered, if it is the first of its line, and says when to ask
// again: pauses grow as between checks, from when it was due.
func (b *Broker) owesPrecheck(rows fold.Reader, q Question) []fold.Effect {
	m := q.Message
	if !first(rows, q.ID, m) {
		return nil // it becomes due again when those before it are gone
	}
	var next int64
	q.Attempt, next = m.precheckSchedule().Next(m.DueMs, q.ID, q.Now.UnixMilli())
	q.Attempt++
	return []fold.Effect{
		{At: time.UnixMilli(next)},
		{
			Call: func(done func(any, error)) { b.opts.Asker.Precheck(q, done) },
			Answer: func(r fold.Result) fold.Command {
				if r.Err != nil {
					return nil
				}
				switch said := r.Answer.(Said); said.Verdict {
				case VerdictDeliver:
					return deliverDue{b, q.ID}
				case VerdictDrop:
					return drop{Decision{ID: q.ID, By: m.Producer, Reason: said.Reason}}
				default:
					return nil
				}
			},
		},
	}
}

// MissingMin and MissingMax bound how soon a message whose topic is missing is looked at again: it waits as long as it has waited already.
const (
	MissingMin = time.Second
	MissingMax = 30 * time.Second
)

// owesDelivery delivers a committed message that had to wait. While its topic is missing nothing is owed: there may be many of those, and what fails
// counts against the doors of the partition.
func (b *Broker) owesDelivery(q Question) []fold.Effect {
	if n, ok := b.opts.Topics(q.Message.Topic); !ok || n < 1 {
		waited := q.Now.Sub(time.UnixMilli(q.Message.DueMs))
		return []fold.Effect{{At: q.Now.Add(min(max(waited, MissingMin), MissingMax))}}
	}
	return []fold.Effect{{ToSelf: true, Command: deliverDue{b, q.ID}}}
}

// deliverDue delivers a committed message that had to wait. It fails while its topic is missing, and is asked again.
type deliverDue struct {
	broker *Broker
	id     log.ID
}

// Decide implements fold.Command.
func (c deliverDue) Decide(t *fold.Turn) (any, error) {
	m, _, ok := Get(t.Rows(), c.id)
	if !ok || m.State != StateCommitted || !first(t.Rows(), c.id, m) { // a delayed one behind another becomes due again when that is gone
		return nil, nil
	}
	partition, ok := c.broker.place(t, m)
	if !ok {
		return nil, &log.TopicError{Partition: log.Partition{Topic: m.Topic}, Err: log.ErrUnknownTopic}
	}
	if _, err := deliver(t, c.id, m, partition); err != nil {
		return nil, err
	}
	emit(t, c.id, m, "delivered", Delivered{ID: c.id, Partition: partition})
	return nil, nil
}

// drop ends a committed message whose producer takes it back.
type drop struct{ Decision }

// Decide implements fold.Command.
func (c drop) Decide(t *fold.Turn) (any, error) {
	m, _, ok := Get(t.Rows(), c.ID)
	if !ok || m.State != StateCommitted || !m.Precheck || !first(t.Rows(), c.ID, m) {
		return nil, nil
	}
	emit(t, c.ID, m, "dropped", Dropped(c))
	return nil, nil
}
