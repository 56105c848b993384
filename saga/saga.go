package saga

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/remitlog/remit/broker"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/saga/accounts"
)

// Errors of commands.
var (
	// ErrUnknownActivity: no such activity. Check the id.
	ErrUnknownActivity = errors.New("saga: unknown activity")
	// ErrTooMuch: more than is held cannot be captured, nor less than nothing.
	ErrTooMuch = errors.New("saga: more than is held")
	// ErrNotTried: not all that the activity needs is held yet. Ask again.
	ErrNotTried = errors.New("saga: not everything is tried")
	// ErrMisrouted: the id routes to another partition. Ask that one, or make the id for the slot of its key.
	ErrMisrouted = errors.New("saga: id of another partition")
)

// MismatchError says that an id stands for another activity, or for a plain message (D4): then Recorded.Activity is zero.
type MismatchError struct{ Recorded Row }

func (e *MismatchError) Error() string {
	return fmt.Sprintf("saga: %s stands for other content", e.Recorded.ID)
}

// Row is an activity with its message: one row.
type Row struct {
	ID log.ID
	stored
}

// stored is broker.Row with what it leaves to this package.
type stored struct {
	_        struct{} `cbor:",toarray"`
	Message  broker.Message
	Activity Activity
}

var activities = fold.NewTable[stored](broker.Table).Ascending().Until(func(r *stored) bool { return r.Activity.Phase.Final() })

// Reply is the answer of commands: the activity as it now stands, whether an earlier command had made it
// so, and whether what was asked for contradicts what stands (D2).
type Reply struct {
	Row
	Replayed bool
	Conflict bool
}

// Initiator makes what an activity of its kind tells.
type Initiator interface {
	// Message returns what the world is told when the activity is confirmed; false if nothing.
	Message(r Row, amount int64, now time.Time) (topic string, e log.Event, ok bool)
	// Context returns what the participants' views want to know.
	Context(r Row) accounts.Context
}

// MachineByte is the saga's in due rows.
const MachineByte = 's'

var due = fold.DueOf(MachineByte)

// Options of a Saga.
type Options struct {
	Partitions int
	Topics     broker.Topics
	Initiators map[Kind]Initiator
	// Answered is told what a remote action has answered, once that is durable there; and, with an empty verb, that the
	// activity has ended, once that is. It runs on a partition's goroutine and must not block.
	Answered func(id log.ID, verb accounts.Verb, answer accounts.Answer, at log.Position)
}

// Saga is the machine of activities.
type Saga struct {
	opts Options
	// said is what remote actions have answered and no fact rests on yet, by partition: each is touched by the goroutine of its
	// partition alone. It is lost with the process: what it said is asked again.
	said []map[log.ID]heard
}

// heard is what was said in a phase.
type heard struct {
	phase Phase
	said  Said
}

// New returns the machine.
func New(opts Options) *Saga {
	s := &Saga{opts: opts, said: make([]map[log.ID]heard, opts.Partitions)}
	for i := range s.said {
		s.said[i] = map[log.ID]heard{}
	}
	return s
}

// Get returns the row of an activity; false also for a plain message.
func Get(rows fold.Reader, id log.ID) (Row, bool) {
	r, ok := get(rows, id)
	if !ok || r.plain() {
		return Row{}, false
	}
	return r, true
}

// get returns the row of an activity, or of a plain message.
func get(rows fold.Reader, id log.ID) (Row, bool) {
	r, ok := activities.Get(rows, string(id[:]))
	return Row{ID: id, stored: r}, ok
}

// plain reports whether the row is that of a message without an activity.
func (r Row) plain() bool { return r.Activity.Phase == "" }

func put(rows fold.Rows, r Row) { activities.Put(rows, string(r.ID[:]), r.stored) }

// Apply implements fold.Machine.
func (s *Saga) Apply(rows fold.Rows, e *fold.Event) {
	switch f := e.Fact.(type) {
	case Begun:
		applyBegun(rows, e, f)
	case Decided:
		applyDecided(rows, e, f)
	case Ended:
		r := known(rows, e, f.ID)
		if r.Activity.Phase != PhaseConfirming && r.Activity.Phase != PhaseCancelling {
			fold.Broken(e, "activity %s in phase %s has ended", f.ID, r.Activity.Phase)
		}
		due.Clear(rows, time.UnixMilli(r.Message.DecidedMs), string(f.ID[:]))
		r.Activity = r.Activity.ended(e.Time.UnixMilli())
		put(rows, r)
	case broker.Conflicted:
		if r, ok := Get(rows, f.ID); ok { // else a plain message's, which is the broker's
			r.Message.Conflicts++
			put(rows, r)
		}
	}
}

func known(rows fold.Rows, e *fold.Event, id log.ID) Row {
	r, ok := Get(rows, id)
	if !ok {
		fold.Broken(e, "activity %s is not there", id)
	}
	return r
}

func applyBegun(rows fold.Rows, e *fold.Event, f Begun) {
	if _, ok := activities.Get(rows, string(f.ID[:])); ok {
		fold.Broken(e, "activity %s begins twice", f.ID)
	}
	r := Row{ID: f.ID, stored: stored{
		Message: broker.Message{
			State: broker.StatePrepared, Fingerprint: f.Fingerprint, Begun: e.Offset, PreparedMs: e.Time.UnixMilli(), Key: f.Key,
		},
		Activity: Activity{
			Kind: f.Kind, Phase: PhaseTrying, Name: f.Name, Reference: f.Reference, Parent: f.Parent, Manual: f.Manual,
			DeadlineMs: f.Deadline, Refused: f.Refused, Actions: f.Actions,
		},
	}}
	if f.Refused == "" {
		for _, x := range f.Actions {
			if x.local(f.Key) && x.Order.Side == accounts.Debit {
				accounts.ApplyHold(rows, e, x.Order.Account, x.Order.Amount)
			}
		}
		if f.waits() {
			due.Set(rows, e.Time, string(f.ID[:]))
			due.Set(rows, spread(r.Message.PreparedMs, f.Deadline, f.ID), string(f.ID[:]))
		}
	}
	put(rows, r)
}

// Deadlines are looked at a little late, by at most spreadPart of the time until then, and spreadMax.
const (
	spreadPart = 64
	spreadMax  = 10 * time.Second
)

// spread returns when a deadline is looked at: what began together does not end together. It follows from the id, as the rows of a replay must.
func spread(beganMs, deadlineMs int64, id log.ID) time.Time {
	late := min((deadlineMs-beganMs)/spreadPart, spreadMax.Milliseconds())
	if late > 0 {
		deadlineMs += int64(binary.BigEndian.Uint32(id[9:])) % (late + 1) // of the id's random bits
	}
	return time.UnixMilli(deadlineMs)
}

// waits reports whether the activity cannot be decided in the turn that begins it.
func (f Begun) waits() bool {
	a := Activity{Phase: PhaseTrying, Actions: f.Actions}
	return f.Manual || len(a.Owes(f.Key, nil)) > 0
}

func applyDecided(rows fold.Rows, e *fold.Event, f Decided) {
	r := known(rows, e, f.ID)
	if r.Activity.Phase != PhaseTrying {
		fold.Broken(e, "activity %s in phase %s is decided", f.ID, r.Activity.Phase)
	}
	id := string(f.ID[:])
	due.Clear(rows, time.UnixMilli(r.Message.PreparedMs), id)
	due.Clear(rows, spread(r.Message.PreparedMs, r.Activity.DeadlineMs, f.ID), id)
	release(rows, e, r)
	accounts.ApplyPostings(rows, e, f.Postings)
	r.Message.DecidedMs, r.Message.By, r.Message.Reason = e.Time.UnixMilli(), f.By, f.Reason
	r.Message.State = broker.StateRolledBack
	if f.Outcome == Confirm {
		r.Message.State = broker.StateDelivered
	}
	r.Activity = r.Activity.after(r.Message.Key, f.Outcome, f.Amount, e.Time.UnixMilli())
	if !r.Activity.Phase.Final() {
		due.Set(rows, e.Time, id)
	}
	put(rows, r)
}

// release gives the local holds back: what was taken of them is posted.
func release(rows fold.Rows, e *fold.Event, r Row) {
	for _, x := range r.Activity.Actions {
		if r.Activity.Refused == "" && x.local(r.Message.Key) && x.Order.Side == accounts.Debit {
			accounts.ApplyRelease(rows, e, x.Order.Account, x.Order.Amount)
		}
	}
}

// Owed implements fold.Machine: the verbs that are owed to remote actions, and the deadline.
func (s *Saga) Owed(rows fold.Reader, id string, look fold.Look) []fold.Effect {
	r, ok := Get(rows, log.ID([]byte(id)))
	if !ok {
		return nil
	}
	said := s.saidOf(r)
	outcome, _ := r.Activity.Verdict(r.Message.Key, said, look.Now.UnixMilli())
	owed := r.Activity.Owes(r.Message.Key, said)
	switch trying := r.Activity.Phase == PhaseTrying; {
	case outcome != "", !trying && !r.Activity.Phase.Final() && len(owed) == 0:
		// Time has passed; or all has been said, and the append that was to say so was refused.
		return []fold.Effect{s.carry(r.ID, fold.Effect{ToSelf: true, Command: nothing{}}, Owed{})}
	case len(owed) == 0:
		return nil
	}
	effects, context := make([]fold.Effect, len(owed)), s.opts.Initiators[r.Activity.Kind].Context(r)
	for i, o := range owed {
		if r.Activity.Phase == PhaseConfirming {
			o.Action.Order.Amount = r.Activity.Amount // less than was asked for, perhaps
		}
		effects[i] = s.effect(r.ID, o, context)
	}
	return effects
}

func (s *Saga) partition(id log.ID) int32 { return log.PartitionOf(id.Slot(), s.opts.Partitions) }

// saidOf returns what has been said in the phase that the activity is in.
func (s *Saga) saidOf(r Row) Said {
	if h := s.said[s.partition(r.ID)][r.ID]; h.phase == r.Activity.Phase {
		return h.said
	}
	return nil
}

func (s *Saga) note(r Row, action string, answer accounts.Answer) {
	all := s.said[s.partition(r.ID)]
	h := all[r.ID]
	if h.phase != r.Activity.Phase {
		h = heard{phase: r.Activity.Phase, said: Said{}}
	}
	h.said[action] = answer
	all[r.ID] = h
}

// effect carries one verb to the partition of its account, and the answer back.
func (s *Saga) effect(id log.ID, o Owed, c accounts.Context) fold.Effect {
	return s.carry(id, fold.Effect{
		Lazy:    o.Verb != accounts.VerbHold, // a payment is settled when its credit is durable; that it has ended can wait
		To:      log.PartitionOf(log.SlotOf(o.Action.Order.Account), s.opts.Partitions),
		Command: accounts.Act{Verb: o.Verb, Activity: id, Action: o.Action.Name, Order: o.Action.Order, Context: c},
	}, o)
}

// carry completes an effect: what it is answered comes back as a command to the activity.
func (s *Saga) carry(id log.ID, e fold.Effect, o Owed) fold.Effect {
	var at log.Position // what the action's own partition has written
	e.Answer = func(r fold.Result) fold.Command {
		if r.Err != nil {
			return nil
		}
		back := answered{saga: s, id: id, action: o.Action.Name, verb: o.Verb}
		if answer, ok := r.Answer.(accounts.Answer); ok {
			back.answer, at = answer, r.Position()
			if s.opts.Answered != nil && answer.Result != accounts.ResultConflict {
				s.opts.Answered(id, o.Verb, answer, at)
			}
		}
		return back
	}
	e.Landed = func(r fold.Result) {
		if reply, decided := r.Answer.(Reply); !decided || !reply.Activity.Phase.Final() {
			if _, ended := r.Answer.(Ended); !ended {
				return
			}
		}
		delete(s.said[s.partition(id)], id)
		if s.opts.Answered != nil {
			s.opts.Answered(id, "", accounts.Answer{Result: accounts.ResultDone}, r.Position().Merge(at))
		}
	}
	return e
}

// nothing decides nothing: that it is answered is all that is wanted.
type nothing struct{}

// Decide implements fold.Command.
func (nothing) Decide(*fold.Turn) (any, error) { return nil, nil }
