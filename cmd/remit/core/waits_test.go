package core_test

import (
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/saga/payments"
)

// TestNoWait: a caller who does not wait is told how the payment stands once it has begun, not that nobody knows.
func TestNoWait(t *testing.T) {
	w := open(t, vfs.NewMem())
	defer w.close()
	w.account("alice", 1000)
	w.account("shop", 0)
	for _, r := range []payments.Request{
		{Name: "by-name", Payer: "alice", Payee: "shop", Amount: 10, Currency: "USD"},
		{ID: log.NewID(time.Now(), "alice").String(), Payer: "alice", Payee: "shop", Amount: 10, Currency: "USD"},
	} {
		a, err := w.c.Payments.Pay(t.Context(), r, 0)
		if err != nil || a.Payment.State != payments.StatePaid {
			t.Errorf("%+v, %v", a, err)
		}
		refund := payments.RefundRequest{Of: a.Payment.ID, Name: "r", Amount: 1}
		if a, err = w.c.Payments.Refund(t.Context(), refund, 0); err != nil {
			t.Errorf("%+v, %v", a, err)
		}
	}
}
