package broker

import (
	"context"
	"errors"

	"github.com/remitlog/remit/log/fold"
)

// ErrNobodyAsked: no producers are asked here.
var ErrNobodyAsked = errors.New("broker: there is nobody who asks producers")

// Resume puts a parked message back: its producer is asked anew. The answer is an Outcome, with Conflict if it is neither parked nor
// prepared.
type Resume struct{ Decision }

// Decide implements fold.Command.
func (c Resume) Decide(t *fold.Turn) (any, error) {
	m, err := plain(t, c.Decision)
	switch {
	case err != nil:
		return nil, err
	case m.State == StatePrepared:
		return Outcome{ID: c.ID, Message: m, Replayed: true}, nil
	case m.State != StateParked:
		return Outcome{ID: c.ID, Message: m, Conflict: true}, nil
	}
	emit(t, c.ID, m, m.step("resumed"), Resumed(c))
	m, _, _ = Get(t.Rows(), c.ID)
	return Outcome{ID: c.ID, Message: m}, nil
}

// StepsMax is how often a message's being asked about by a person is recorded. Beyond it the producer is asked as well, and nothing is left.
const StepsMax = 1024

// AskCheck records that a person has the producer of an undecided message asked now; asking is the caller's, see [Broker.Ask]. The answer is
// an Outcome, with Conflict if it is decided.
type AskCheck struct{ Decision }

// Decide implements fold.Command.
func (c AskCheck) Decide(t *fold.Turn) (any, error) {
	m, err := plain(t, c.Decision)
	switch {
	case err != nil:
		return nil, err
	case m.State != StatePrepared && m.State != StateParked:
		return Outcome{ID: c.ID, Message: m, Conflict: true}, nil
	}
	if m.Steps < StepsMax {
		emit(t, c.ID, m, m.step("checkasked"), CheckAsked(c))
	}
	m, _, _ = Get(t.Rows(), c.ID)
	return Outcome{ID: c.ID, Message: m}, nil
}

// Ask has the producer of an undecided message asked now, and does what follows from the answer. The result is that of the last command, an
// Outcome with Conflict if the message is decided. An error that is not the node's says why there was no answer.
func (b *Broker) Ask(ctx context.Context, n *fold.Node, d Decision) (r fold.Result, said Said, err error) {
	p := n.PartitionOfID(d.ID)
	if r, err = n.Do(ctx, p, AskCheck{d}); err != nil || r.Answer.(Outcome).Conflict {
		return r, said, err
	}
	if b.opts.Asker == nil {
		return r, said, ErrNobodyAsked
	}
	q := Question{ID: d.ID, Message: r.Answer.(Outcome).Message, Now: n.Now()}
	type heard struct {
		answer any
		err    error
	}
	got := make(chan heard, 1)
	b.opts.Asker.Check(q, func(answer any, err error) { got <- heard{answer, err} })
	select {
	case h := <-got:
		if h.err != nil {
			return r, said, h.err
		}
		said = h.answer.(Said)
	case <-ctx.Done():
		return r, said, ctx.Err()
	}
	asked := r.Position()
	if r, err = n.Do(ctx, p, b.verdict(q, said)); err == nil {
		b.opts.Asker.Landed(q, said, r.Answer.(Outcome))
		r.End = max(r.End, asked[p])
	}
	return r, said, err
}

// plain returns a message that has no activity.
func plain(t *fold.Turn, d Decision) (Message, error) {
	switch m, plain, ok := Get(t.Rows(), d.ID); {
	case !ok:
		return m, ErrUnknownMessage
	case !plain:
		return m, ErrNotTried
	default:
		return m, nil
	}
}
