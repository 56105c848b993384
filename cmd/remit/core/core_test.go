package core_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/remitlog/remit/cmd/remit/core"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/embedded"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/saga/accounts"
	"github.com/remitlog/remit/saga/payments"
)

type world struct {
	t *testing.T
	l *embedded.Log
	c *core.Core
}

func open(t *testing.T, fs vfs.FS) *world {
	t.Helper()
	fatal := func(err error) { t.Errorf("fatal: %v", err) }
	l, err := embedded.Open(embedded.Options{Dir: "log", FS: fs, Fatal: fatal})
	if err != nil {
		t.Fatal(err)
	}
	c, err := core.Open(t.Context(), core.Options{Log: l, Dir: "", FS: fs, Partitions: 4, Fatal: fatal})
	if err != nil {
		t.Fatal(err)
	}
	return &world{t, l, c}
}

func (w *world) close() {
	w.t.Helper()
	if err := w.c.Close(); err != nil {
		w.t.Error(err)
	}
	if err := w.l.Close(); err != nil {
		w.t.Error(err)
	}
}

func (w *world) do(key string, c fold.Command) any {
	w.t.Helper()
	r, err := w.c.Node.Do(w.t.Context(), w.c.Node.PartitionOf(key), c)
	if err != nil {
		w.t.Fatal(err)
	}
	return r.Answer
}

func (w *world) account(name string, deposit int64) {
	w.t.Helper()
	w.do(name, accounts.OpenAccount{Account: name, Currency: "USD"})
	if deposit > 0 {
		w.do(name, accounts.MoveCash{Order: accounts.Order{Side: accounts.Credit, Account: name, Amount: deposit}, Name: "open"})
	}
}

func (w *world) balance(name string) (a accounts.Account) {
	w.t.Helper()
	err := w.c.Node.Read(w.c.Node.PartitionOf(name), func(rows fold.Scanner, _ log.Offset) error {
		a, _ = accounts.Get(rows, name)
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

func TestPayment(t *testing.T) {
	fs := vfs.NewMem()
	w := open(t, fs)
	w.account("alice", 1000)
	w.account("shop", 0)
	req := payments.Request{Name: "order-1", Payer: "alice", Payee: "shop", Amount: 300, Currency: "USD"}
	a, err := w.c.Payments.Pay(t.Context(), req, 5*time.Second)
	if err != nil || a.Payment.State != payments.StatePaid || !a.Payment.Settled {
		t.Fatalf("%+v %v", a, err)
	}
	b, err := w.c.Payments.Pay(t.Context(), req, 5*time.Second)
	if err != nil || b.Payment.ID != a.Payment.ID || !b.Replayed {
		t.Fatalf("%+v %v", b, err)
	}
	if got := w.balance("alice"); got.Balance != 700 || got.Held != 0 {
		t.Errorf("alice %+v", got)
	}
	if got := w.balance("shop"); got.Balance != 300 {
		t.Errorf("shop %+v", got)
	}
	w.close()
	w = open(t, fs)
	c, err := w.c.Payments.Pay(t.Context(), req, 5*time.Second)
	if err != nil || c.Payment.ID != a.Payment.ID || !c.Replayed || !c.Payment.Settled {
		t.Fatalf("%+v %v", c, err)
	}
	w.close()
}

func BenchmarkPay(b *testing.B) {
	fs := vfs.Default
	dir := b.TempDir()
	l, err := embedded.Open(embedded.Options{Dir: dir + "/log", FS: fs})
	if err != nil {
		b.Fatal(err)
	}
	c, err := core.Open(b.Context(), core.Options{Log: l, Dir: dir, FS: fs, Partitions: 16})
	if err != nil {
		b.Fatal(err)
	}
	const n = 1000
	for i := range n {
		name := fmt.Sprint("acc", i)
		p := c.Node.PartitionOf(name)
		if _, err := c.Node.Do(context.Background(), p, accounts.OpenAccount{Account: name, Currency: "USD"}); err != nil {
			b.Fatal(err)
		}
		if _, err := c.Node.Do(context.Background(), p, accounts.MoveCash{Order: accounts.Order{Side: accounts.Credit, Account: name, Amount: 1e12}, Name: "open"}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	sem := make(chan struct{}, 1024)
	var wg sync.WaitGroup
	for i := range b.N {
		payer := fmt.Sprint("acc", i%n)
		sem <- struct{}{}
		wg.Add(1)
		c.Payments.Start(payments.Request{ID: log.NewID(time.Now(), payer).String(), Payer: payer, Payee: fmt.Sprint("acc", (i*7+1)%n), Amount: 100, Currency: "USD"}, nil, func(a payments.Answer, err error) {
			if err != nil || a.Payment.State != payments.StatePaid {
				b.Error(a, err)
			}
			<-sem
			wg.Done()
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "payments/s")
	if err := c.Close(); err != nil {
		b.Fatal(err)
	}
	l.Close()
}
