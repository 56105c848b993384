package saga

import (
	"fmt"

	"github.com/remitlog/remit/broker"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/saga/accounts"
)

// Begin begins an activity, and decides it in the same turn if it can be. The answer is a Reply;
// *MismatchError if the id stands for other content.
type Begin struct {
	Saga *Saga
	Begun
}

// Decide implements fold.Command.
func (c Begin) Decide(t *fold.Turn) (any, error) {
	if c.Saga.partition(c.ID) != t.Partition() {
		return nil, ErrMisrouted
	}
	if r, ok := get(t.Rows(), c.ID); ok {
		if r.plain() || r.Message.Fingerprint != c.Fingerprint {
			return nil, &MismatchError{r}
		}
		return Reply{Row: r, Replayed: true}, nil
	}
	begun := c.Begun
	for _, x := range begun.Actions {
		if begun.Refused == "" && x.local(c.Key) && x.Order.Side == accounts.Debit {
			begun.Refused = accounts.Refuses(t.Rows(), x.Order)
		}
	}
	emit(t, c.ID, c.Key, "begun", begun)
	return c.Saga.advance(t, c.ID, "remit")
}

func emit(t *fold.Turn, id log.ID, key, fact string, f fold.Fact) {
	s := id.String()
	t.Emit(fold.Event{ID: s + "/" + fact, Key: key, Correlation: s, Fact: f})
}

// advance decides an activity if its verdict is in.
func (s *Saga) advance(t *fold.Turn, id log.ID, by string) (Reply, error) {
	r, ok := Get(t.Rows(), id)
	if !ok {
		return Reply{}, ErrUnknownActivity
	}
	outcome, reason := r.Activity.Verdict(r.Message.Key, s.saidOf(r), t.Now.UnixMilli())
	if outcome == "" {
		return Reply{Row: r}, nil
	}
	return s.decide(t, r, Decided{Outcome: outcome, By: by, Reason: reason, Amount: r.Activity.asked()})
}

// asked is what all of the activity's money comes to.
func (a Activity) asked() int64 { return a.Order(accounts.Debit).Amount }

// decide emits the decision, and makes the message visible in the same append.
func (s *Saga) decide(t *fold.Turn, r Row, d Decided) (Reply, error) {
	d.ID, d.Kind, d.Parent = r.ID, r.Activity.Kind, r.Activity.Parent
	d.Postings = r.Activity.postings(r.Message.Key, d.Outcome, d.Amount)
	if err := accounts.Fit(t.Rows(), d.Postings); err != nil {
		return Reply{}, err
	}
	if d.Outcome == Confirm {
		partition, err := s.tell(t, r, d.Amount)
		if err != nil {
			return Reply{}, err
		}
		d.Partition = partition
	} else {
		d.Amount = 0
	}
	emit(t, r.ID, r.Message.Key, "decided", d)
	r, _ = Get(t.Rows(), r.ID)
	return Reply{Row: r}, nil
}

// tell delivers the activity's message onto its topic.
func (s *Saga) tell(t *fold.Turn, r Row, amount int64) (*int32, error) {
	topic, e, ok := s.opts.Initiators[r.Activity.Kind].Message(r, amount, t.Now)
	if !ok {
		return nil, nil
	}
	n, ok := s.opts.Topics(topic)
	if !ok || t.Missing(topic) {
		return nil, &log.TopicError{Partition: log.Partition{Topic: topic}, Err: log.ErrUnknownTopic}
	}
	partition := log.KeyPartition(e.Key, n)
	broker.Deliver(t, r.ID, &e, log.Partition{Topic: topic, Index: partition})
	return &partition, nil
}

// Finish is the initiator's decision of a manual activity: its last try, or that there will be none. The
// answer is a Reply; with Conflict if it was decided otherwise. ErrTooMuch if Amount is more than is held; ErrNotTried while a remote
// try is out.
type Finish struct {
	Saga    *Saga
	ID      log.ID
	Outcome Outcome
	Amount  int64 // to confirm; 0 means all that is held
	By      string
	Reason  string
}

// Decide implements fold.Command.
func (c Finish) Decide(t *fold.Turn) (any, error) {
	r, ok := Get(t.Rows(), c.ID)
	switch {
	case !ok:
		return nil, ErrUnknownActivity
	case !r.Activity.Manual:
		return Reply{Row: r, Conflict: true}, nil
	case r.Activity.Phase != PhaseTrying:
		reply := c.Stands(r)
		if reply.Conflict {
			broker.Conflict(t, r.Message, c.wanted(), broker.Decision{ID: c.ID, By: c.By, Reason: c.Reason})
		}
		return reply, nil
	}
	amount := c.Amount
	if amount == 0 {
		amount = r.Activity.asked()
	}
	if c.Outcome == Confirm && len(r.Activity.Owes(r.Message.Key, c.Saga.saidOf(r))) > 0 {
		return nil, ErrNotTried
	}
	if c.Outcome == Confirm && (amount < 1 || amount > r.Activity.asked()) {
		return nil, ErrTooMuch
	}
	return c.Saga.decide(t, r, Decided{Outcome: c.Outcome, By: c.By, Reason: c.Reason, Amount: amount})
}

func (c Finish) wanted() broker.Input {
	if c.Outcome == Confirm {
		return broker.InputCommit
	}
	return broker.InputRollback
}

// Stands answers what was asked for by what is decided.
func (c Finish) Stands(r Row) Reply {
	confirmed := r.Activity.Phase == PhaseConfirming || r.Activity.Phase == PhaseConfirmed
	same := (c.Outcome == Confirm) == confirmed
	return Reply{Row: r, Replayed: same, Conflict: !same}
}

// answered brings what a remote action has said, or that the deadline has come: it decides or ends the activity
// when nothing is awaited any more.
type answered struct {
	saga   *Saga
	id     log.ID
	action string // empty: time has passed
	verb   accounts.Verb
	answer accounts.Answer
}

// Decide implements fold.Command.
func (c answered) Decide(t *fold.Turn) (any, error) {
	r, ok := Get(t.Rows(), c.id)
	if !ok || r.Activity.Phase.Final() {
		return nil, nil
	}
	if c.action != "" {
		if !r.owes(c.action, c.verb) { // late: of an earlier phase
			return nil, nil
		}
		if c.answer.Result == accounts.ResultConflict {
			return nil, fmt.Errorf("saga: %s: action %s answers %s with a conflict; a person must look", c.id, c.action, c.verb)
		}
		c.saga.note(r, c.action, c.answer)
	}
	if r.Activity.Phase == PhaseTrying {
		return c.saga.advance(t, c.id, "remit")
	}
	if len(r.Activity.Owes(r.Message.Key, c.saga.saidOf(r))) > 0 {
		return nil, nil
	}
	ended := Ended{ID: c.id}
	emit(t, c.id, r.Message.Key, "ended", ended)
	return ended, nil
}

// owes reports whether an action is told a verb in the present phase.
func (r Row) owes(action string, verb accounts.Verb) bool {
	for _, o := range r.Activity.Owes(r.Message.Key, nil) {
		if o.Action.Name == action && o.Verb == verb {
			return true
		}
	}
	return false
}
