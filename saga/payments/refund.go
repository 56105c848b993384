package payments

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/remitlog/remit/broker"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/saga"
	"github.com/remitlog/remit/saga/accounts"
)

// Errors of refunds.
var (
	// ErrUnknownPayment: no such payment. Check the id.
	ErrUnknownPayment = errors.New("payments: unknown payment")
	// ErrExceedsPaid: more than was captured, less what was refunded or is about to be.
	ErrExceedsPaid = errors.New("payments: more than is left of what was paid")
	// ErrNotPaid: what is not paid cannot be refunded. Void a held payment; wait for a pending one.
	ErrNotPaid = errors.New("payments: payment is not paid")
)

// RefundRequest asks for a refund of a payment. One of ID and Name is set.
type RefundRequest struct {
	Of       log.ID
	ID, Name string
	Amount   int64 // minor units
}

// fingerprint is the meaning of a request; the payment fixes the currency.
func (r RefundRequest) fingerprint() log.Fingerprint {
	return log.FingerprintOf("refund", r.Of.String(), strconv.FormatInt(r.Amount, 10))
}

// mismatch names the first field in which a request differs from what its id or name stands for.
func (r RefundRequest) mismatch(was saga.Row) error {
	e := &MismatchError{ID: was.ID, Field: "id", Recorded: what(was)}
	if was.Activity.Kind != KindRefund {
		return e
	}
	if was.Activity.Parent != r.Of {
		e.Field, e.Recorded = "payment", was.Activity.Parent.String()
		return e
	}
	o := was.Activity.Order(accounts.Debit)
	e.Field, e.Recorded = "amount", accounts.FormatAmount(o.Amount, o.Currency)
	return e
}

// what is the word for what a row is of.
func what(r saga.Row) string {
	if r.Activity.Kind == "" {
		return "message"
	}
	return string(r.Activity.Kind)
}

// beginRefund reserves the amount against what is left of the payment, and begins the refund. The answer is a
// saga.Reply.
type beginRefund struct {
	RefundRequest
	saga *saga.Saga
	id   log.ID // of the refund, if it is new
}

// Decide implements fold.Command.
func (c beginRefund) Decide(t *fold.Turn) (any, error) {
	r, ok := saga.Get(t.Rows(), c.Of)
	switch {
	case !ok || r.Activity.Kind != KindPayment:
		return nil, ErrUnknownPayment
	case c.id.Slot() != c.Of.Slot():
		return nil, fmt.Errorf("%w: refund %s is not in the slot of payment %s", ErrInvalid, c.id, c.Of)
	case c.Amount < 1 || c.Amount > accounts.AmountMax:
		return nil, fmt.Errorf("%w: a refund of %d minor units", ErrInvalid, c.Amount)
	}
	debit, credit := r.Activity.Order(accounts.Debit), r.Activity.Order(accounts.Credit)
	begun := saga.Begun{
		ID: c.id, Kind: KindRefund, Name: c.Name, Key: debit.Account, Parent: c.Of, Fingerprint: c.fingerprint(),
		Deadline: t.Now.Add(RefundDeadline).UnixMilli(),
		Actions: []saga.Action{
			{Name: "debit", Participant: participant, Order: accounts.Order{Side: accounts.Debit, Account: credit.Account, Currency: debit.Currency, Amount: c.Amount}},
			{Name: "credit", Participant: participant, Order: accounts.Order{Side: accounts.Credit, Account: debit.Account, Currency: debit.Currency, Amount: c.Amount}},
		},
	}
	if was, ok := refunds.Get(t.Rows(), refundKey(c.Of, c.Name)); ok {
		begun.ID = was
	}
	g, _ := givens.Get(t.Rows(), string(c.Of[:]))
	_, _, known := broker.Get(t.Rows(), begun.ID)
	switch {
	case known: // whatever it is, it is answered as it stands, or refused (D4), before what is left of the payment is looked at
	case r.Activity.Phase != saga.PhaseConfirming && r.Activity.Phase != saga.PhaseConfirmed:
		return nil, ErrNotPaid
	case c.Amount > r.Activity.Amount-g.Refunded-g.Reserved:
		return nil, ErrExceedsPaid
	}
	return saga.Begin{Saga: c.saga, Begun: begun}.Decide(t)
}
