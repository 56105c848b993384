// Package facts is what the views fold: of each fact on the core topic the few fields that some view needs, as any consumer of the
// log would declare them. The types are the consumer's own: a view depends on what is written on the log, never on the
// packages that write it. A test holds the two against each other.
//
// It is the union over all views, so that one follower decodes each event once.
package facts

import (
	"github.com/go-json-experiment/json/jsontext"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
)

// Named is the fact that a name was claimed.
type Named struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
	ID   log.ID `json:"id"`
}

// The kinds of activities that payments are.
const (
	KindPayment = "payment"
	KindRefund  = "refund"
)

// Sides of an order.
const (
	Debit  = "debit"
	Credit = "credit"
)

// The outcomes of an activity.
const (
	Confirm = "confirm"
	Cancel  = "cancel"
)

// Order is what an action wants of an account. Amounts are minor units.
type Order struct {
	_        struct{} `cbor:",toarray"`
	Side     string   `json:"side"`
	Account  string   `json:"account"`
	Currency string   `json:"currency"`
	Amount   int64    `json:"amount"`
}

// Action is one participant's part in an activity.
type Action struct {
	_           struct{} `cbor:",toarray"`
	Name        string   `json:"name"`
	Participant string   `json:"participant"`
	Order       Order    `json:"order"`
}

// Begun is the fact that an activity began.
type Begun struct {
	ID        log.ID   `json:"id"`
	Kind      string   `json:"kind"`
	Name      string   `json:"name"`
	Key       string   `json:"key"`
	Parent    log.ID   `json:"parent"`
	Reference string   `json:"reference"`
	Manual    bool     `json:"manual"`
	Deadline  int64    `json:"deadline"` // Unix ms
	Refused   string   `json:"refused"`
	Actions   []Action `json:"actions"`
}

// Order returns the order of the first action on a side; the zero Order if there is none.
func (b *Begun) Order(side string) Order {
	for i := range b.Actions {
		if b.Actions[i].Order.Side == side {
			return b.Actions[i].Order
		}
	}
	return Order{}
}

// Held returns what the begun itself holds on its key's account: the debits of the activity's own partition.
func (b *Begun) Held() int64 {
	var held int64
	for i := range b.Actions {
		if o := &b.Actions[i].Order; b.Refused == "" && o.Side == Debit && o.Account == b.Key {
			held += o.Amount
		}
	}
	return held
}

// Posting is one line of an entry.
type Posting struct {
	Account  string `json:"account"`
	Currency string `json:"currency"`
	Amount   int64  `json:"amount"`
}

// Decided is the fact that an activity, and with it its message, was decided.
type Decided struct {
	ID        log.ID    `json:"id"`
	Kind      string    `json:"kind"`
	Parent    log.ID    `json:"parent"`
	Outcome   string    `json:"outcome"`
	By        string    `json:"by"`
	Reason    string    `json:"reason"`
	Amount    int64     `json:"amount"`
	Postings  []Posting `json:"postings"`
	Partition *int32    `json:"partition"`
}

// Ended is the fact that all participants have done what was decided.
type Ended struct {
	ID log.ID `json:"id"`
}

// Opened is the fact that an account was opened.
type Opened struct {
	Account     string `json:"account"`
	Currency    string `json:"currency"`
	CreditLimit int64  `json:"creditLimit"`
}

// Changed is the fact that an account's state or credit limit was set.
type Changed struct {
	Account     string `json:"account"`
	State       string `json:"state"`
	CreditLimit int64  `json:"creditLimit"`
}

// Cash is money that came from outside, or went there.
type Cash struct {
	Account  string    `json:"account"`
	Name     string    `json:"name"` // unique under the account
	Postings []Posting `json:"postings"`
}

// Deposited is the fact that money came from outside.
type Deposited struct{ Cash }

// Withdrawn is the fact that money went outside.
type Withdrawn struct{ Cash }

// Context is the business behind an action.
type Context struct {
	Kind      string `json:"kind"`
	Name      string `json:"name"`
	Of        string `json:"of"`   // the payment that a refund is of
	From      string `json:"from"` // the account on the other side
	Reference string `json:"reference"`
	At        int64  `json:"at"` // Unix ms of the decision
}

// Done is one action of an activity at an account of another partition.
type Done struct {
	Activity log.ID    `json:"activity"`
	Action   string    `json:"action"`
	Account  string    `json:"account"`
	Currency string    `json:"currency"`
	Amount   int64     `json:"amount"`
	Context  Context   `json:"context"`
	Postings []Posting `json:"postings"`
}

// Held is the fact that a debit is reserved.
type Held struct{ Done }

// Declined is the fact that a debit was refused.
type Declined struct {
	Done
	Reason string `json:"reason"`
}

// Posted is the fact that a held debit was taken.
type Posted struct{ Done }

// Voided is the fact that a debit was given back, or that its door was shut before it came: then its amount is 0.
type Voided struct{ Done }

// Credited is the fact that a credit has arrived.
type Credited struct{ Done }

// Prepared is the fact that a half message was stored.
type Prepared struct {
	ID       log.ID `json:"id"`
	Name     string `json:"name"`
	Topic    string `json:"topic"`
	Producer string `json:"producer"`
	Key      string `json:"key"`
	// Event is a CloudEvent in its JSON format. It may be a part of the record that it was read from.
	Event jsontext.Value `json:"event"`
	// DeliverAt and DeliverAfter delay the delivery: Unix ms, and ms from the commit.
	DeliverAt    int64 `json:"deliverAt"`
	DeliverAfter int64 `json:"deliverAfter"`
}

// Decision is who decided a message, and why.
type Decision struct {
	ID     log.ID `json:"id"`
	By     string `json:"by"`
	Reason string `json:"reason"`
}

// Committed is the fact that a message is to be visible. With a Partition it became so in the same append.
type Committed struct {
	Decision
	Partition *int32 `json:"partition"`
}

// RolledBack is the fact that a message will never be visible.
type RolledBack struct{ Decision }

// Delivered is the fact that a committed message that had to wait became visible.
type Delivered struct {
	ID        log.ID `json:"id"`
	Partition int32  `json:"partition"`
}

// Parked is the fact that a half message was set aside for a person.
type Parked struct{ Decision }

// Resumed is the fact that a person put a parked message back.
type Resumed struct{ Decision }

// CheckAsked is the fact that a person had the producer asked now.
type CheckAsked struct{ Decision }

// Dropped is the fact that the producer took back a committed message: it will never be visible.
type Dropped struct{ Decision }

// Conflicted is the fact that someone wanted to decide otherwise than was decided (D2).
type Conflicted struct {
	Decision
	Wanted   string `json:"wanted"`
	Recorded string `json:"recorded"`
}

// PlacedAll is the fact that delivered messages got these offsets.
type PlacedAll struct {
	Places []Place `json:"places"`
}

// Place is where a message stands on its topic.
type Place struct {
	_         struct{}   `cbor:",toarray"`
	ID        log.ID     `json:"id"`
	Partition int32      `json:"partition"`
	Offset    log.Offset `json:"offset"`
}

// EventType is the type on the log.
func (Named) EventType() string { return "remit.log.named.v1" }

// EventType is the type on the log.
func (Begun) EventType() string { return "remit.activity.begun.v1" }

// EventType is the type on the log.
func (Decided) EventType() string { return "remit.activity.decided.v1" }

// EventType is the type on the log.
func (Ended) EventType() string { return "remit.activity.ended.v1" }

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

// Types lists all of them.
func Types() []fold.FactType {
	return []fold.FactType{
		read((*scanner).named), read((*scanner).begun), read((*scanner).decided), read((*scanner).ended),
		fold.FactOf[Opened](), fold.FactOf[Changed](), fold.FactOf[Deposited](), fold.FactOf[Withdrawn](),
		fold.FactOf[Held](), fold.FactOf[Declined](), fold.FactOf[Posted](), fold.FactOf[Voided](), read((*scanner).credited),
		read((*scanner).prepared), read((*scanner).committed), fold.FactOf[RolledBack](), fold.FactOf[Delivered](),
		fold.FactOf[Conflicted](), read((*scanner).placedAll),
		fold.FactOf[Parked](), fold.FactOf[Resumed](), fold.FactOf[CheckAsked](), fold.FactOf[Dropped](),
	}
}

// All returns the facts for a follower: what is not among them is passed over.
func All() fold.Facts { return fold.NewFacts(false, Types()...) }

// Internal reports whether an account is remit's own: where money stands between partitions, and where it comes from. No
// caller's account can be called so.
func Internal(account string) bool { return len(account) > 0 && account[0] == '@' }
