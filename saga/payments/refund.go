package payments

import (
	"errors"

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

// beginRefund reserves the amount against what is left of the payment, and begins the refund. The answer is a
// saga.Reply.
type beginRefund struct {
	saga   *saga.Saga
	id     log.ID // of the refund, if it is new
	name   string
	of     log.ID
	amount int64
}

// Decide implements fold.Command.
func (c beginRefund) Decide(t *fold.Turn) (any, error) {
	r, ok := saga.Get(t.Rows(), c.of)
	if !ok || r.Activity.Kind != KindPayment {
		return nil, ErrUnknownPayment
	}
	debit, credit := r.Activity.Order(accounts.Debit), r.Activity.Order(accounts.Credit)
	begun := saga.Begun{
		ID: c.id, Kind: KindRefund, Name: c.name, Key: debit.Account, Parent: c.of,
		Fingerprint: log.FingerprintOf("refund", c.of.String(), accounts.FormatAmount(c.amount, debit.Currency)),
		Deadline:    t.Now.Add(RefundDeadline).UnixMilli(),
		Actions: []saga.Action{
			{Name: "debit", Participant: participant, Order: accounts.Order{Side: accounts.Debit, Account: credit.Account, Currency: debit.Currency, Amount: c.amount}},
			{Name: "credit", Participant: participant, Order: accounts.Order{Side: accounts.Credit, Account: debit.Account, Currency: debit.Currency, Amount: c.amount}},
		},
	}
	if was, ok := refunds.Get(t.Rows(), refundKey(c.of, c.name)); ok {
		begun.ID = was
		return saga.Begin{Saga: c.saga, Begun: begun}.Decide(t) // it is answered as it stands
	}
	g, _ := givens.Get(t.Rows(), string(c.of[:]))
	switch {
	case r.Activity.Phase != saga.PhaseConfirming && r.Activity.Phase != saga.PhaseConfirmed:
		return nil, ErrNotPaid
	case c.amount > r.Activity.Amount-g.Refunded-g.Reserved:
		return nil, ErrExceedsPaid
	}
	return saga.Begin{Saga: c.saga, Begun: begun}.Decide(t)
}
