package payments

import (
	"time"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/saga"
	"github.com/remitlog/remit/saga/accounts"
)

// The kinds of activities of this package.
const (
	KindPayment saga.Kind = "payment"
	KindRefund  saga.Kind = "refund"
)

// Paid is what the world is told of a paid payment, on topic payments, keyed by payer.
type Paid struct {
	ID        log.ID            `json:"id"`
	Name      string            `json:"name,omitzero"`
	Payer     string            `json:"payer"`
	Payee     string            `json:"payee"`
	Amount    string            `json:"amount"` // decimal, major units: what was captured
	Currency  accounts.Currency `json:"currency"`
	Reference string            `json:"reference,omitzero"`
	PaidAt    time.Time         `json:"paidAt"`
}

// Refunded is what the world is told of a refund, on topic payments, keyed by payer.
type Refunded struct {
	ID         log.ID            `json:"id"`
	Name       string            `json:"name,omitzero"`
	Payment    log.ID            `json:"payment"`
	Payer      string            `json:"payer"` // who gets it back
	Payee      string            `json:"payee"` // who gives it back
	Amount     string            `json:"amount"`
	Currency   accounts.Currency `json:"currency"`
	RefundedAt time.Time         `json:"refundedAt"`
}

// EventType is the CloudEvents type.
func (Paid) EventType() string { return "remit.payment.paid.v1" }

// EventType is the CloudEvents type.
func (Refunded) EventType() string { return "remit.payment.refunded.v1" }

// AppendJSON implements fold.Appender.
func (p Paid) AppendJSON(b []byte) []byte {
	o := fold.ObjectIn(b)
	o.ID("id", p.ID)
	o.TextIf("name", p.Name)
	o.Text("payer", p.Payer)
	o.Text("payee", p.Payee)
	o.Text("amount", p.Amount)
	o.Text("currency", string(p.Currency))
	o.TextIf("reference", p.Reference)
	o.Time("paidAt", p.PaidAt)
	return o.End()
}

// Told lists the types that leave remit, for their schemas.
func Told() []fold.FactType {
	return []fold.FactType{fold.FactOf[Paid](), fold.FactOf[Refunded]()}
}

// source is the CloudEvents source of what payments tell.
const source = "remit/payments"

func told(f fold.Fact, id log.ID, payer string, now time.Time) log.Event {
	data, err := fold.Data(f)
	if err != nil {
		panic(err) // a struct of plain fields: it cannot be
	}
	return log.Event{
		ID: id.String(), Source: source, Type: f.EventType(), Time: now, DataContentType: "application/json",
		DataSchema: "/schemas/" + f.EventType() + ".json", Key: payer, Correlation: id.String(), Data: data,
	}
}

// payment is the initiator of payments.
type payment struct{}

// Message implements saga.Initiator.
func (payment) Message(r saga.Row, amount int64, now time.Time) (string, log.Event, bool) {
	debit, credit := r.Activity.Order(accounts.Debit), r.Activity.Order(accounts.Credit)
	return log.PaymentsTopic, told(Paid{
		ID: r.ID, Name: r.Activity.Name, Payer: debit.Account, Payee: credit.Account,
		Amount: accounts.FormatAmount(amount, debit.Currency), Currency: debit.Currency, Reference: r.Activity.Reference, PaidAt: now,
	}, r.ID, debit.Account, now), true
}

// Context implements saga.Initiator.
func (payment) Context(r saga.Row) accounts.Context {
	return accounts.Context{
		Kind: string(KindPayment), Name: r.Activity.Name, From: r.Activity.Order(accounts.Debit).Account,
		Reference: r.Activity.Reference, At: r.Message.DecidedMs,
	}
}

// refund is the initiator of refunds.
type refund struct{}

// Message implements saga.Initiator.
func (refund) Message(r saga.Row, amount int64, now time.Time) (string, log.Event, bool) {
	debit, credit := r.Activity.Order(accounts.Debit), r.Activity.Order(accounts.Credit)
	return log.PaymentsTopic, told(Refunded{
		ID: r.ID, Name: r.Activity.Name, Payment: r.Activity.Parent, Payer: credit.Account, Payee: debit.Account,
		Amount: accounts.FormatAmount(amount, debit.Currency), Currency: debit.Currency, RefundedAt: now,
	}, r.ID, credit.Account, now), true
}

// Context implements saga.Initiator.
func (refund) Context(r saga.Row) accounts.Context {
	return accounts.Context{
		Kind: string(KindRefund), Name: r.Activity.Name, Of: r.Activity.Parent.String(),
		From: r.Activity.Order(accounts.Credit).Account, At: r.Message.DecidedMs,
	}
}

// Initiators are those of this package, for saga.Options.
func Initiators() map[saga.Kind]saga.Initiator {
	return map[saga.Kind]saga.Initiator{KindPayment: payment{}, KindRefund: refund{}}
}

// given is the row of a payment that was refunded, or is about to be: minor units.
type given struct {
	_        struct{} `cbor:",toarray"`
	Reserved int64    // by refunds that are not decided
	Refunded int64
}

var (
	givens  = fold.NewTable[given]('g').Ascending()
	refunds = fold.NewTable[log.ID]('r').Ascending() // by payment id and the refund's name
)

func refundKey(payment log.ID, name string) string { return string(payment[:]) + name }

// Machine folds what refunds reserve and give back.
type Machine struct{}

// Owed returns nothing: the saga owes what a refund does.
func (Machine) Owed(fold.Reader, string, fold.Look) []fold.Effect { return nil }

// Apply folds one event. It stands behind the saga's, whose row it reads.
func (Machine) Apply(rows fold.Rows, e *fold.Event) {
	switch f := e.Fact.(type) {
	case saga.Begun:
		if f.Kind != KindRefund {
			return
		}
		if f.Name != "" {
			refunds.Put(rows, refundKey(f.Parent, f.Name), f.ID)
		}
		g, _ := givens.Get(rows, string(f.Parent[:]))
		g.Reserved += f.Actions[0].Order.Amount
		keep(rows, e, f.Parent, g)
	case saga.Decided:
		if f.Kind != KindRefund {
			return
		}
		r, _ := saga.Get(rows, f.ID)
		g, _ := givens.Get(rows, string(f.Parent[:]))
		g.Reserved -= r.Activity.Order(accounts.Debit).Amount
		g.Refunded += f.Amount
		keep(rows, e, f.Parent, g)
	}
}

// keep stores what was given back; never more than was captured (P2).
func keep(rows fold.Rows, e *fold.Event, id log.ID, g given) {
	r, ok := saga.Get(rows, id)
	if !ok || g.Reserved < 0 || g.Refunded < 0 || g.Reserved+g.Refunded > r.Activity.Amount {
		fold.Broken(e, "payment %s: reserved %d and refunded %d of %d", id, g.Reserved, g.Refunded, r.Activity.Amount)
	}
	givens.Put(rows, string(id[:]), g)
}
