package accounts

import (
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
)

// The internal accounts; no caller's account can be called so (see log.NamePattern).
const (
	// Transit is where money stands that has left this partition and not yet arrived in its own.
	Transit = "@transit"
	// Outside is where deposits come from and withdrawals go to.
	Outside = "@outside"
)

// Posting is one line of an entry: Amount minor units added to (or, negative, taken from) an account
// of this partition.
type Posting struct {
	Account  string   `json:"account"`
	Currency Currency `json:"currency"`
	Amount   int64    `json:"amount"`
}

// Side says which way an order moves money.
type Side string

// The sides.
const (
	Debit  Side = "debit"  // out of the account: held, then posted or voided
	Credit Side = "credit" // into the account: only ever confirmed
)

// Order is what an activity wants of an account: the payload of an action of this participant.
type Order struct {
	_        struct{} `cbor:",toarray"`
	Side     Side     `json:"side"`
	Account  string   `json:"account"`
	Currency Currency `json:"currency"`
	Amount   int64    `json:"amount"` // minor units, 1 to AmountMax
}

// Opened is the fact that an account was opened.
type Opened struct {
	Account     string   `json:"account"`
	Currency    Currency `json:"currency"`
	CreditLimit int64    `json:"creditLimit,omitzero"`
}

// Changed is the fact that an account's state or credit limit was set.
type Changed struct {
	Account     string `json:"account"`
	State       State  `json:"state"`
	CreditLimit int64  `json:"creditLimit,omitzero"`
}

// Cash is money that came from outside, or went there.
type Cash struct {
	Account     string          `json:"account"`
	Name        string          `json:"name"` // the caller's, unique under the account
	Fingerprint log.Fingerprint `json:"fingerprint"`
	Postings    []Posting       `json:"postings"`
}

// Deposited is the fact that money came from outside.
type Deposited struct{ Cash }

// Withdrawn is the fact that money went outside.
type Withdrawn struct{ Cash }

// Done is one action of an activity at an account of another partition, in the past tense.
type Done struct {
	Activity log.ID   `json:"activity"`
	Action   string   `json:"action"`
	Account  string   `json:"account,omitzero"`
	Currency Currency `json:"currency,omitzero"`
	Amount   int64    `json:"amount,omitzero"`
	// Context is what the views want to know of the activity, as its initiator wrote it.
	Context  Context   `json:"context,omitzero"`
	Postings []Posting `json:"postings,omitempty"`
}

// Context is the business behind an action.
type Context struct {
	_         struct{} `cbor:",toarray"`
	Kind      string   `json:"kind,omitzero"` // payment, refund
	Name      string   `json:"name,omitzero"`
	Of        string   `json:"of,omitzero"`   // the payment that a refund is of
	From      string   `json:"from,omitzero"` // the account on the other side
	Reference string   `json:"reference,omitzero"`
	At        int64    `json:"at,omitzero"` // Unix milliseconds of the decision
}

// Held is the fact that a debit is reserved.
type Held struct{ Done }

// Declined is the fact that a debit was refused.
type Declined struct {
	Done
	Reason Reason `json:"reason"`
}

// Posted is the fact that a held debit was taken.
type Posted struct{ Done }

// Voided is the fact that a debit was given back, or that its door was shut before it came.
type Voided struct{ Done }

// Credited is the fact that a credit has arrived.
type Credited struct{ Done }

// EventType is the type on the log.
func (Opened) EventType() string { return "remit.account.opened.v1" }

// EventType is the type on the log.
func (Changed) EventType() string { return "remit.account.changed.v1" }

// EventType is the type on the log.
func (Deposited) EventType() string { return "remit.account.deposited.v1" }

// EventType is the type on the log.
func (Withdrawn) EventType() string { return "remit.account.withdrawn.v1" }

// EventType is the type on the log.
func (Held) EventType() string { return "remit.account.held.v1" }

// EventType is the type on the log.
func (Declined) EventType() string { return "remit.account.declined.v1" }

// EventType is the type on the log.
func (Posted) EventType() string { return "remit.account.posted.v1" }

// EventType is the type on the log.
func (Voided) EventType() string { return "remit.account.voided.v1" }

// EventType is the type on the log.
func (Credited) EventType() string { return "remit.account.credited.v1" }

// AppendJSON implements fold.Appender.
func (f Credited) AppendJSON(b []byte) []byte {
	o := fold.ObjectIn(b)
	o.ID("activity", f.Activity)
	o.Text("action", f.Action)
	o.TextIf("account", f.Account)
	o.TextIf("currency", string(f.Currency))
	o.NumberIf("amount", f.Amount)
	if c := f.Context; c != (Context{}) {
		o.Open("context", '{')
		o.TextIf("kind", c.Kind)
		o.TextIf("name", c.Name)
		o.TextIf("of", c.Of)
		o.TextIf("from", c.From)
		o.TextIf("reference", c.Reference)
		o.NumberIf("at", c.At)
		o.Close('}')
	}
	WritePostings(&o, f.Postings)
	return o.End()
}

// WritePostings writes the postings of a fact, if it has some.
func WritePostings(o *fold.Object, postings []Posting) {
	if len(postings) == 0 {
		return
	}
	o.Open("postings", '[')
	for _, p := range postings {
		o.Open("", '{')
		o.Text("account", p.Account)
		o.Text("currency", string(p.Currency))
		o.Number("amount", p.Amount)
		o.Close('}')
	}
	o.Close(']')
}

// Facts lists the facts of this package.
func Facts() []fold.FactType {
	return []fold.FactType{
		fold.FactOf[Opened](), fold.FactOf[Changed](), fold.FactOf[Deposited](), fold.FactOf[Withdrawn](),
		fold.FactOf[Held](), fold.FactOf[Declined](), fold.FactOf[Posted](), fold.FactOf[Voided](), fold.FactOf[Credited](),
	}
}
