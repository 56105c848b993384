package core_test

import (
	"context"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/remitlog/remit/cmd/remit/core"
	"github.com/remitlog/remit/log/embedded"
	"github.com/remitlog/remit/saga/accounts"
	"github.com/remitlog/remit/saga/payments"
)

// remit without its face: a payment under the caller's own name, the same again, and a part of it given back.
func Example() {
	ctx, fs := context.Background(), vfs.NewMem()
	l, err := embedded.Open(embedded.Options{Dir: "log", FS: fs})
	if err != nil {
		panic(err)
	}
	defer l.Close()
	c, err := core.Open(ctx, core.Options{Log: l, FS: fs, Partitions: 4})
	if err != nil {
		panic(err)
	}
	defer c.Close()
	for _, name := range []string{"alice", "shop"} {
		if _, err := c.Node.Do(ctx, c.Node.PartitionOf(name), accounts.OpenAccount{Account: name, Currency: "EUR"}); err != nil {
			panic(err)
		}
	}
	money := accounts.MoveCash{Order: accounts.Order{Side: accounts.Credit, Account: "alice", Amount: 100_00}, Name: "salary"}
	if _, err := c.Node.Do(ctx, c.Node.PartitionOf("alice"), money); err != nil {
		panic(err)
	}

	order := payments.Request{Name: "order-1", Payer: "alice", Payee: "shop", Amount: 12_50, Currency: "EUR"}
	for range 2 {
		a, err := c.Payments.Pay(ctx, order, time.Minute)
		fmt.Println(a.Payment.State, a.Payment.Settled, a.Replayed, err)
	}
	paid, _ := c.Payments.Find("", "order-1")
	back, err := c.Payments.Refund(ctx, payments.RefundRequest{Of: paid.Payment.ID, Name: "return-1", Amount: 2_50}, time.Minute)
	fmt.Println(back.Payment.State, accounts.FormatAmount(back.Payment.Amount, "EUR"), err)
	_, err = c.Payments.Refund(ctx, payments.RefundRequest{Of: paid.Payment.ID, Name: "return-2", Amount: 11_00}, time.Minute)
	fmt.Println(err)
	// Output:
	// paid true false <nil>
	// paid true true <nil>
	// paid 2.50 <nil>
	// payments: more than is left of what was paid
}
