package accounts

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
)

// Errors of commands.
var (
	// ErrUnknown: no such account. Open it first.
	ErrUnknown = errors.New("accounts: unknown account")
	// ErrNotEmpty: an account with a balance or holds cannot be closed.
	ErrNotEmpty = errors.New("accounts: account is not empty")
)

// RefusedError says why a deposit or withdrawal was not taken. Nothing was recorded: the same may be tried again.
type RefusedError struct{ Reason Reason }

func (e *RefusedError) Error() string { return "accounts: refused: " + string(e.Reason) }

// MismatchError says that an account, or a name under it, stands for other content (D4).
type MismatchError struct {
	Field    string
	Recorded string
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("accounts: %s differs from what is recorded, %s", e.Field, e.Recorded)
}

// OpenAccount opens an account. The answer is Outcome[Account].
type OpenAccount struct {
	Account     string
	Currency    Currency
	CreditLimit int64
}

// Outcome is an answer, and whether this command made it or an earlier one had.
type Outcome[T any] struct {
	Value    T
	Replayed bool
}

// Decide implements fold.Command.
func (c OpenAccount) Decide(t *fold.Turn) (any, error) {
	if a, ok := Get(t.Rows(), c.Account); ok {
		switch {
		case a.Currency != c.Currency:
			return nil, &MismatchError{Field: "currency", Recorded: string(a.Currency)}
		case a.OpenedLimit != c.CreditLimit:
			return nil, &MismatchError{Field: "creditLimit", Recorded: FormatAmount(a.OpenedLimit, a.Currency)}
		}
		return Outcome[Account]{a, true}, nil
	}
	t.Emit(fold.Event{ID: c.Account + "/opened", Key: c.Account, Fact: Opened(c)})
	a, _ := Get(t.Rows(), c.Account)
	return Outcome[Account]{Value: a}, nil
}

// ChangeAccount sets what is not nil. The answer is Outcome[Account].
type ChangeAccount struct {
	Account     string
	State       *State
	CreditLimit *int64
}

// Decide implements fold.Command.
func (c ChangeAccount) Decide(t *fold.Turn) (any, error) {
	a, ok := Get(t.Rows(), c.Account)
	if !ok {
		return nil, ErrUnknown
	}
	next := a
	if c.State != nil {
		next.State = *c.State
	}
	if c.CreditLimit != nil {
		next.CreditLimit = *c.CreditLimit
	}
	switch {
	case next == a:
		return Outcome[Account]{a, true}, nil
	case next.State == Closed && a.State != Closed && (a.Balance != 0 || a.Held != 0):
		return nil, ErrNotEmpty
	}
	t.Emit(fold.Event{
		ID:  c.Account + "/changed/" + strconv.FormatInt(a.Changes+1, 10),
		Key: c.Account, Fact: Changed{Account: c.Account, State: next.State, CreditLimit: next.CreditLimit},
	})
	a, _ = Get(t.Rows(), c.Account)
	return Outcome[Account]{Value: a}, nil
}

// MoveCash deposits (from outside) or, with Side Debit, withdraws. The answer is Outcome[CashMoved].
type MoveCash struct {
	Order
	Name string
}

// differs says in what this is not what was recorded under its name.
func (c MoveCash) differs(recorded log.Fingerprint) error {
	other := MoveCash{Order: Order{Side: Credit, Amount: c.Amount}}
	if c.Side == Credit {
		other.Side = Debit
	}
	if other.fingerprint() == recorded {
		return &MismatchError{Field: "side", Recorded: string(other.Side)}
	}
	return &MismatchError{Field: "amount", Recorded: "another amount"}
}

func (c MoveCash) fingerprint() log.Fingerprint {
	return log.FingerprintOf(string(c.Side), strconv.FormatInt(c.Amount, 10))
}

// CashMoved is a deposit or withdrawal as it was recorded.
type CashMoved struct {
	Balance int64
	AtMs    int64
}

// Decide implements fold.Command.
func (c MoveCash) Decide(t *fold.Turn) (any, error) {
	a, ok := Get(t.Rows(), c.Account)
	if !ok {
		return nil, ErrUnknown
	}
	c.Currency = a.Currency
	print := c.fingerprint()
	if was, ok := cashes.Get(t.Rows(), cashKey(c.Account, c.Name)); ok {
		if was.Fingerprint != print {
			return nil, c.differs(was.Fingerprint)
		}
		return Outcome[CashMoved]{CashMoved{was.Balance, was.At}, true}, nil
	}
	if c.Amount < 1 || c.Amount > AmountMax {
		return nil, fmt.Errorf("%w: %d minor units, 1 to %d at once", ErrAmount, c.Amount, AmountMax)
	}
	if reason := Refuses(t.Rows(), c.Order); reason != "" {
		return nil, &RefusedError{reason}
	}
	f := Cash{Account: c.Account, Name: c.Name, Fingerprint: print}
	e := fold.Event{Key: c.Account, Correlation: c.Account + "/" + c.Name}
	if c.Side == Credit {
		f.Postings = move(Outside, c.Account, c.Currency, c.Amount)
		e.ID, e.Fact = c.Account+"/"+c.Name+"/deposited", Deposited{f}
	} else {
		f.Postings = move(c.Account, Outside, c.Currency, c.Amount)
		e.ID, e.Fact = c.Account+"/"+c.Name+"/withdrawn", Withdrawn{f}
	}
	if Fit(t.Rows(), f.Postings) != nil { // what has come into this partition, or left it, is more than can be counted
		return nil, &RefusedError{BalanceLimit}
	}
	t.Emit(e)
	a, _ = Get(t.Rows(), c.Account)
	return Outcome[CashMoved]{Value: CashMoved{a.Balance, t.Now.UnixMilli()}}, nil
}

// Verb is what an activity asks of an account in another partition.
type Verb string

// The verbs.
const (
	VerbHold   Verb = "hold"   // try a debit
	VerbPost   Verb = "post"   // confirm a debit
	VerbVoid   Verb = "void"   // cancel a debit
	VerbCredit Verb = "credit" // confirm a credit
)

// Answer is what an account says to a verb.
type Answer struct {
	Result Result
	Reason Reason // when declined
}

// Result is the kind of an Answer.
type Result string

// The results.
const (
	ResultDone     Result = "done"
	ResultDeclined Result = "declined" // to a hold only
	// ResultConflict: a post or credit after a void, a void after a post, a post without a hold. It cannot happen
	// while the coordinator keeps A2; a person must look.
	ResultConflict Result = "conflict"
)

// Act is the command that carries a verb. The answer is an Answer.
type Act struct {
	Verb     Verb
	Activity log.ID
	Action   string
	Order    Order
	Context  Context
}

// Decide implements fold.Command.
func (c Act) Decide(t *fold.Turn) (any, error) {
	was, ok := actions.Get(t.Rows(), actionKey(c.Activity, c.Action))
	if ok {
		return c.again(t, was)
	}
	switch c.Verb {
	case VerbHold:
		if reason := Refuses(t.Rows(), c.Order); reason != "" {
			c.emit(t, "declined", Declined{c.done(), reason})
			return Answer{ResultDeclined, reason}, nil
		}
		c.emit(t, "held", Held{c.done()})
	case VerbVoid: // a cancel without a try succeeds, and shuts the door (A3)
		d := c.done()
		d.Amount = 0
		c.emit(t, "voided", Voided{d})
	case VerbCredit:
		d := c.done()
		d.Postings = Arrive(c.Order, c.Order.Amount)
		if err := Fit(t.Rows(), d.Postings); err != nil {
			return nil, err // it is never refused: it stays owed until there is room
		}
		c.emit(t, "credited", Credited{d})
	default:
		return Answer{Result: ResultConflict}, nil
	}
	return Answer{Result: ResultDone}, nil
}

// again answers a verb to an action that is known here.
func (c Act) again(t *fold.Turn, was action) (any, error) {
	switch {
	case c.Verb == VerbPost && was.State == ActionHeld:
		d := c.done()
		d.Amount, d.Postings = was.Amount, Leave(c.Order, was.Amount)
		if err := Fit(t.Rows(), d.Postings); err != nil {
			return nil, err // it stays owed
		}
		c.emit(t, "posted", Posted{d})
	case c.Verb == VerbVoid && was.State == ActionHeld:
		d := c.done()
		d.Amount = was.Amount
		c.emit(t, "voided", Voided{d})
	case c.Verb == VerbHold && was.State == ActionVoided:
		return Answer{ResultDeclined, Cancelled}, nil
	case c.Verb == VerbHold && was.State == ActionDeclined:
		return Answer{ResultDeclined, was.Reason}, nil
	case c.Verb == VerbHold,
		c.Verb == VerbPost && was.State == ActionPosted,
		c.Verb == VerbVoid && (was.State == ActionVoided || was.State == ActionDeclined),
		c.Verb == VerbCredit && was.State == ActionCredited:
	default:
		return Answer{Result: ResultConflict}, nil
	}
	return Answer{Result: ResultDone}, nil
}

func (c Act) done() Done {
	return Done{Activity: c.Activity, Action: c.Action, Account: c.Order.Account, Currency: c.Order.Currency, Amount: c.Order.Amount, Context: c.Context}
}

func (c Act) emit(t *fold.Turn, fact string, f fold.Fact) {
	id := c.Activity.String()
	t.Emit(fold.Event{ID: id + "/" + c.Action + "/" + fact, Key: c.Order.Account, Correlation: id, Fact: f})
}
