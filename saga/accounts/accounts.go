package accounts

import (
	"fmt"
	"math"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
)

// State is what an account may do. It is written to the log.
type State string

// The states. Only Change moves an account from one to another.
const (
	Open   State = "open"
	Frozen State = "frozen" // nothing new; what is held may still be posted or voided
	Closed State = "closed" // the same, for good unless opened again; a credit on its way is still taken
)

// Reason is why money was refused. The list is closed; it is checked in this order.
type Reason string

// The reasons.
const (
	UnknownAccount    Reason = "unknown_account"
	AccountClosed     Reason = "account_closed"
	AccountFrozen     Reason = "account_frozen"
	CurrencyMismatch  Reason = "currency_mismatch"
	InsufficientFunds Reason = "insufficient_funds"
	BalanceLimit      Reason = "balance_limit"
	// Cancelled: the cancel came before the hold, which is shut out (A3).
	Cancelled Reason = "cancelled"
)

// Account is the row of an account. Amounts are minor units of Currency.
type Account struct {
	_           struct{} `cbor:",toarray"`
	Currency    Currency
	State       State
	Balance     int64
	Held        int64 // INVARIANT: the sum of its open holds
	CreditLimit int64
	OpenedLimit int64 // what it was opened with, to know a repeat
	Changes     int64 // how many there were
}

// Available is what may still be held or withdrawn; it may be negative when the credit limit was lowered.
func (a Account) Available() int64 { return a.Balance - a.Held + a.CreditLimit }

// cash is the row of a deposit or withdrawal, named under its account.
type cash struct {
	_           struct{} `cbor:",toarray"`
	Fingerprint log.Fingerprint
	Balance     int64 // of the account, right after
	At          int64 // Unix ms
}

// ActionState is where an action of another partition's activity stands here.
type ActionState string

// The states of an action; see the picture in the package comment.
const (
	ActionHeld     ActionState = "held"     // Post or Void moves it on
	ActionDeclined ActionState = "declined" // final
	ActionPosted   ActionState = "posted"   // final
	ActionVoided   ActionState = "voided"   // final
	ActionCredited ActionState = "credited" // final
)

// leads reports whether an action may move from s to next; the picture in the package comment has all moves.
func (s ActionState) leads(next ActionState) bool {
	switch next {
	case ActionHeld, ActionDeclined, ActionCredited:
		return s == ""
	case ActionPosted:
		return s == ActionHeld
	case ActionVoided:
		return s == "" || s == ActionHeld
	}
	return false
}

// action is the row of an action.
type action struct {
	_       struct{} `cbor:",toarray"`
	State   ActionState
	Account string
	Amount  int64
	Reason  Reason
}

var (
	accounts  = fold.NewTable[Account]('a')
	internals = fold.NewTable[int64]('i') // balances of Transit and Outside, by name and currency
	cashes    = fold.NewTable[cash]('c').MostlyAbsent().Until(func(*cash) bool { return true })
	actions   = fold.NewTable[action]('h').Ascending()
)

func cashKey(account, name string) string { return account + "/" + name }

func actionKey(activity log.ID, name string) string { return string(activity[:]) + name }

func internalKey(name string, c Currency) string { return name + "/" + string(c) }

// Get returns the row of an account.
func Get(rows fold.Reader, account string) (Account, bool) { return accounts.Get(rows, account) }

// Stands returns where an action of another partition's activity stands here; "" if nothing is known of it.
func Stands(rows fold.Reader, activity log.ID, name string) ActionState {
	a, _ := actions.Get(rows, actionKey(activity, name))
	return a.State
}

// Internal returns the balance of Transit or Outside in a currency.
func Internal(rows fold.Reader, name string, c Currency) int64 {
	v, _ := internals.Get(rows, internalKey(name, c))
	return v
}

// All yields the accounts of a partition in the order of their names.
func All(rows fold.Scanner, yield func(name string, a Account) bool) {
	for key, a := range accounts.Scan(rows, "", "", false) {
		if !yield(key, a) {
			return
		}
	}
}

// Refuses says why an order cannot be taken now, or "". The order of the checks is the order of the reasons.
func Refuses(rows fold.Reader, o Order) Reason {
	a, ok := accounts.Get(rows, o.Account)
	switch {
	case !ok:
		return UnknownAccount
	case a.State == Closed:
		return AccountClosed
	case a.State == Frozen:
		return AccountFrozen
	case a.Currency != o.Currency:
		return CurrencyMismatch
	case o.Side == Debit && a.Available() < o.Amount:
		return InsufficientFunds
	case o.Side == Credit && a.Balance > BalanceMax-o.Amount:
		return BalanceLimit
	case o.Side == Debit && Internal(rows, Transit, o.Currency) > BalanceMax-o.Amount: // where it would stand
		return BalanceLimit
	}
	return ""
}

// Fit says whether all that postings touch can take them: nothing comes nearer to the end of int64 than the largest amount. It is
// asked before they are emitted, ErrOverflow if not. BalanceMax is looked at long before, but not by what had begun by then, nor by
// Outside and Transit, which have no owner who is asked.
func Fit(rows fold.Reader, postings []Posting) error {
	for i, p := range postings {
		balance := balanceOf(rows, p)
		for _, q := range postings[:i+1] {
			if q.Account != p.Account || q.Currency != p.Currency {
				continue
			}
			sum, err := Add(balance, q.Amount)
			if err != nil || sum > math.MaxInt64-AmountMax || sum < math.MinInt64+AmountMax {
				return fmt.Errorf("accounts: %q in %s: %w: %d + %d", p.Account, p.Currency, ErrOverflow, balance, q.Amount)
			}
			balance = sum
		}
	}
	return nil
}

func balanceOf(rows fold.Reader, p Posting) int64 {
	if internal(p.Account) {
		return Internal(rows, p.Account, p.Currency)
	}
	a, _ := accounts.Get(rows, p.Account)
	return a.Balance
}

func internal(account string) bool { return account == Transit || account == Outside }

// Machine folds the facts of accounts.
type Machine struct{}

// Owed returns nothing: accounts answer, and ask nobody.
func (Machine) Owed(fold.Reader, string, fold.Look) []fold.Effect { return nil }

// Apply folds one event.
func (Machine) Apply(rows fold.Rows, e *fold.Event) {
	switch f := e.Fact.(type) {
	case Opened:
		if _, ok := accounts.Get(rows, f.Account); ok {
			fold.Broken(e, "account %q is opened twice", f.Account)
		}
		accounts.Put(rows, f.Account, Account{Currency: f.Currency, State: Open, CreditLimit: f.CreditLimit, OpenedLimit: f.CreditLimit})
	case Changed:
		a := must(rows, e, f.Account)
		a.State, a.CreditLimit = f.State, f.CreditLimit
		a.Changes++
		accounts.Put(rows, f.Account, a)
	case Deposited:
		applyCash(rows, e, f.Cash)
	case Withdrawn:
		applyCash(rows, e, f.Cash)
	case Held:
		ApplyHold(rows, e, f.Account, f.Amount)
		put(rows, e, f.Done, ActionHeld, "")
	case Declined:
		put(rows, e, f.Done, ActionDeclined, f.Reason)
	case Posted:
		ApplyRelease(rows, e, f.Account, f.Amount)
		ApplyPostings(rows, e, f.Postings)
		put(rows, e, f.Done, ActionPosted, "")
	case Voided:
		if f.Amount > 0 {
			ApplyRelease(rows, e, f.Account, f.Amount)
		}
		put(rows, e, f.Done, ActionVoided, "")
	case Credited:
		ApplyPostings(rows, e, f.Postings)
		put(rows, e, f.Done, ActionCredited, "")
	}
}

// put moves an action, which may be done once (B2).
func put(rows fold.Rows, e *fold.Event, d Done, s ActionState, r Reason) {
	was, _ := actions.Get(rows, actionKey(d.Activity, d.Action))
	if !was.State.leads(s) || was.State == ActionHeld && was.Amount != d.Amount {
		fold.Broken(e, "action %s of %s, %q of %d, is %s of %d", d.Action, d.Activity, was.State, was.Amount, s, d.Amount)
	}
	actions.Put(rows, actionKey(d.Activity, d.Action), action{State: s, Account: d.Account, Amount: d.Amount, Reason: r})
}

func must(rows fold.Rows, e *fold.Event, name string) Account {
	a, ok := accounts.Get(rows, name)
	if !ok {
		fold.Broken(e, "account %q is not there", name)
	}
	return a
}

func applyCash(rows fold.Rows, e *fold.Event, f Cash) {
	if _, ok := cashes.Get(rows, cashKey(f.Account, f.Name)); ok {
		fold.Broken(e, "%q of account %q is taken twice", f.Name, f.Account)
	}
	ApplyPostings(rows, e, f.Postings)
	cashes.Put(rows, cashKey(f.Account, f.Name), cash{Fingerprint: f.Fingerprint, Balance: must(rows, e, f.Account).Balance, At: e.Time.UnixMilli()})
}

// ApplyHold reserves amount on an account. It is called where a fact is folded that holds.
func ApplyHold(rows fold.Rows, e *fold.Event, account string, amount int64) {
	a := must(rows, e, account)
	held, err := Add(a.Held, amount)
	if err != nil || amount <= 0 {
		fold.Broken(e, "hold of %d on %q: held %d", amount, account, a.Held)
	}
	a.Held = held
	accounts.Put(rows, account, a)
}

// ApplyRelease gives a hold back.
func ApplyRelease(rows fold.Rows, e *fold.Event, account string, amount int64) {
	a := must(rows, e, account)
	if a.Held < amount {
		fold.Broken(e, "release of %d on %q: held %d", amount, account, a.Held)
	}
	a.Held -= amount
	accounts.Put(rows, account, a)
}

// ApplyPostings moves money; postings that do not sum to zero per currency stop the fold (A5).
func ApplyPostings(rows fold.Rows, e *fold.Event, postings []Posting) {
	if err := Balanced(postings); err != nil {
		fold.Broken(e, "%v", err)
	}
	for _, p := range postings {
		if internal(p.Account) {
			key := internalKey(p.Account, p.Currency)
			was, _ := internals.Get(rows, key)
			internals.Put(rows, key, checked(e, was, p))
			continue
		}
		a := must(rows, e, p.Account)
		if a.Currency != p.Currency {
			fold.Broken(e, "posting in %s on %q, which is in %s", p.Currency, p.Account, a.Currency)
		}
		a.Balance = checked(e, a.Balance, p)
		accounts.Put(rows, p.Account, a)
	}
}

func checked(e *fold.Event, balance int64, p Posting) int64 {
	sum, err := Add(balance, p.Amount)
	if err != nil {
		fold.Broken(e, "balance of %q: %v", p.Account, err)
	}
	return sum
}

// Balanced checks that postings sum to zero per currency (A5).
func Balanced(postings []Posting) error {
	for i, p := range postings {
		var sum int64
		var err error
		for j, q := range postings {
			if q.Currency != p.Currency {
				continue
			}
			if j < i { // this currency has been summed
				sum = 0
				break
			}
			if sum, err = Add(sum, q.Amount); err != nil {
				return fmt.Errorf("accounts: postings in %s: %w", p.Currency, err)
			}
		}
		if sum != 0 {
			return fmt.Errorf("accounts: postings in %s sum to %d, not to zero", p.Currency, sum)
		}
	}
	return nil
}

// move is the two postings that take amount from one account to another of the same partition.
func move(from, to string, c Currency, amount int64) []Posting {
	return []Posting{{from, c, -amount}, {to, c, amount}}
}

// Leave is the postings of a debit that is taken here: into transit.
func Leave(o Order, amount int64) []Posting { return move(o.Account, Transit, o.Currency, amount) }

// Arrive is the postings of a credit that arrives here: out of transit.
func Arrive(o Order, amount int64) []Posting { return move(Transit, o.Account, o.Currency, amount) }
