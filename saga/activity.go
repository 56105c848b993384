package saga

import (
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/saga/accounts"
)

// Kind is whose activity it is: the initiator that makes its message.
type Kind string

// Phase is where an activity stands. It is written to rows.
type Phase string

// The phases.
const (
	// PhaseTrying is ended by the last try (for a manual activity, the capture), the first refusal, a void or the deadline,
	// whichever is appended first.
	PhaseTrying Phase = "trying"
	// PhaseConfirming is ended by the last confirmed. It has no deadline: it can only go forward.
	PhaseConfirming Phase = "confirming"
	// PhaseCancelling is ended by the last cancelled. It has no deadline either.
	PhaseCancelling Phase = "cancelling"
	// PhaseConfirmed is final.
	PhaseConfirmed Phase = "confirmed"
	// PhaseCancelled is final.
	PhaseCancelled Phase = "cancelled"
)

// Final reports whether nothing more happens.
func (p Phase) Final() bool { return p == PhaseConfirmed || p == PhaseCancelled }

// Action is one participant's part. So far the one participant is accounts.
type Action struct {
	_           struct{}       `cbor:",toarray"`
	Name        string         `json:"name"`
	Participant string         `json:"participant"`
	Order       accounts.Order `json:"order"`
}

// Activity is the fold of its events. It is kept in the row of its message.
//
// INVARIANT: once any action is owed a confirm, no action is ever owed a cancel, and the other way round (A2).
type Activity struct {
	_          struct{} `cbor:",toarray"`
	Kind       Kind
	Phase      Phase
	Name       string          // the caller's; dropped at the end
	Reference  string          // dropped at the end
	Parent     log.ID          // the activity that it is named under; zero if none
	Manual     bool            // its last try is a capture
	Refused    accounts.Reason // why nothing is held: it was refused as it began
	DeadlineMs int64           // dropped at the end
	EndedMs    int64
	Amount     int64    // what was taken, minor units; 0 until confirmed
	Actions    []Action // at the end, their orders alone; see ended
}

// Order returns the order of the action on a side; the zero Order if there is none.
func (a Activity) Order(side accounts.Side) accounts.Order {
	for _, x := range a.Actions {
		if x.Order.Side == side {
			return x.Order
		}
	}
	return accounts.Order{}
}

// Said is what the remote actions have answered in the present phase, by action.
type Said map[string]accounts.Answer

// Outcome is what an activity is decided to.
type Outcome string

// The outcomes, as they stand on the log.
const (
	Confirm Outcome = "confirm"
	Cancel  Outcome = "cancel"
)

// Verdict returns how the activity is to be decided now, and why if it is to be cancelled; "" while it cannot be
// decided. key is the activity's own, whose actions are local: they were tried when it began.
func (a Activity) Verdict(key string, said Said, nowMs int64) (Outcome, string) {
	if a.Phase != PhaseTrying {
		return "", ""
	}
	if a.Refused != "" {
		return Cancel, string(a.Refused)
	}
	waits := false
	for _, x := range a.Actions {
		answer, ok := said[x.Name]
		switch {
		case x.local(key) || x.Order.Side == accounts.Credit: // a credit has no try
		case ok && answer.Result == accounts.ResultDeclined:
			return Cancel, string(answer.Reason)
		case !ok:
			waits = true
		}
	}
	switch {
	case nowMs >= a.DeadlineMs:
		return Cancel, ReasonDeadline
	case waits || a.Manual:
		return "", ""
	}
	return Confirm, ""
}

// ReasonDeadline is the reason of an activity that was not decided in time.
const ReasonDeadline = "deadline"

func (x Action) local(key string) bool { return x.Order.Account == key }

// Owed is one verb owed to one action.
type Owed struct {
	Action Action
	Verb   accounts.Verb
}

// Owes returns what the remote actions must still be told, in the order of the actions.
//
// A cancel goes to every action that may have been asked, whatever it said: one that never answered may
// still get its try, and one that refused may have been asked twice (A3).
func (a Activity) Owes(key string, said Said) []Owed {
	var owed []Owed
	for _, x := range a.Actions {
		if _, ok := said[x.Name]; ok || x.local(key) {
			continue
		}
		if verb := a.verb(x.Order.Side); verb != "" {
			owed = append(owed, Owed{x, verb})
		}
	}
	return owed
}

// verb is what an action of a side is told in the present phase.
func (a Activity) verb(side accounts.Side) accounts.Verb {
	debit := side == accounts.Debit
	switch {
	case a.Phase == PhaseTrying && debit:
		return accounts.VerbHold
	case a.Phase == PhaseConfirming && debit:
		return accounts.VerbPost
	case a.Phase == PhaseConfirming:
		return accounts.VerbCredit
	case a.Phase == PhaseCancelling && debit:
		return accounts.VerbVoid
	}
	return ""
}

// after returns the activity once it is decided. Where nothing is owed to others, that ends it.
func (a Activity) after(key string, outcome Outcome, amount, nowMs int64) Activity {
	a.Phase, a.Amount = PhaseCancelling, 0
	if outcome == Confirm {
		a.Phase, a.Amount = PhaseConfirming, amount
	}
	if a.Refused != "" || len(a.Owes(key, nil)) == 0 { // what was refused as it began asked nobody
		return a.ended(nowMs)
	}
	return a
}

// ended returns the activity as its outcome row has it: what a repeat is answered with, and what a refund rests on. Who took part
// and until when stands on the log; the credit's currency and amount are the debit's.
func (a Activity) ended(nowMs int64) Activity {
	if a.Phase == PhaseConfirming {
		a.Phase = PhaseConfirmed
	} else {
		a.Phase = PhaseCancelled
	}
	a.EndedMs, a.Name, a.Reference, a.DeadlineMs = nowMs, "", "", 0
	actions := make([]Action, len(a.Actions))
	for i, x := range a.Actions {
		if actions[i].Order = x.Order; x.Order.Side == accounts.Credit {
			actions[i].Order.Currency, actions[i].Order.Amount = "", 0
		}
	}
	a.Actions = actions
	return a
}

// postings returns what the decision moves in the activity's own partition (A5).
func (a Activity) postings(key string, outcome Outcome, amount int64) []accounts.Posting {
	var postings []accounts.Posting
	for _, x := range a.Actions {
		switch {
		case outcome != Confirm || !x.local(key):
		case x.Order.Side == accounts.Debit:
			postings = append(postings, accounts.Leave(x.Order, amount)...)
		default:
			postings = append(postings, accounts.Arrive(x.Order, amount)...)
		}
	}
	return postings
}
