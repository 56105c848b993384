package bench

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/remitlog/remit/cmd/remit/core"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/embedded"
	"github.com/remitlog/remit/saga/accounts"
	"github.com/remitlog/remit/saga/payments"
)

// bytesOf returns how many bytes one payment of this kind puts on the log, as rows of its store: measured in memory, on as many payments
// at once as there will be, since payments that are decided together are written together.
func bytesOf(ctx context.Context, o PaymentOptions) (_ int, err error) {
	at := o.Callers
	if o.Batch {
		at = min(o.Callers*o.InFlight, ceilingCallersMax)
	}
	in, err := openMemory(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	m := &sample{core: in.core, with: o}
	if err := m.open(ctx); err != nil {
		return 0, err
	}
	n := max(1000, 2*at)
	before := in.written.Load()
	if err := m.pay(ctx, n, at); err != nil {
		return 0, err
	}
	return int(in.written.Load()-before) / n, nil
}

// memory is a remit in memory, whose bytes are counted.
type memory struct {
	log     *embedded.Log
	core    *core.Core
	written atomic.Int64
}

func openMemory(ctx context.Context) (_ *memory, err error) {
	m := &memory{}
	fs := vfs.NewMem()
	m.log, err = embedded.Open(embedded.Options{Dir: "log", FS: fs, FreeFloorBytes: -1, BallastBytes: -1, Listener: embedded.Listener{
		Appended: func(_, bytes int, _ time.Duration) { m.written.Add(int64(bytes)) },
	}})
	if err != nil {
		return nil, err
	}
	if m.core, err = core.Open(ctx, core.Options{Log: m.log, FS: fs, Partitions: log.PartitionsDefault}); err != nil {
		return nil, errors.Join(err, m.log.Close())
	}
	return m, nil
}

func (m *memory) Close() error { return errors.Join(m.core.Close(), m.log.Close()) }

// sample pays in memory.
type sample struct {
	core *core.Core
	with PaymentOptions
}

func (m *sample) open(ctx context.Context) error {
	for i := range m.with.Accounts + 1 {
		name := account(i)
		if i == m.with.Accounts {
			name = onePayee
		}
		p := m.core.Node.PartitionOf(name)
		if _, err := m.core.Node.Do(ctx, p, accounts.OpenAccount{Account: name, Currency: "USD"}); err != nil {
			return err
		}
		deposit := accounts.MoveCash{Order: accounts.Order{Side: accounts.Credit, Account: name, Currency: "USD", Amount: 1e11}, Name: "open"}
		if _, err := m.core.Node.Do(ctx, p, deposit); err != nil {
			return err
		}
	}
	return nil
}

// pay makes n payments, so many of them at once.
func (m *sample) pay(ctx context.Context, n, at int) error {
	open := make(chan struct{}, at)
	answers := make(chan error, n)
	for i := range n {
		select {
		case open <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		from := i % m.with.Accounts
		r := payments.Request{Payer: account(from), Payee: account((from + 1) % m.with.Accounts), Amount: 100, Currency: "USD"}
		if m.with.OnePayee {
			r.Payee = onePayee
		}
		if m.with.Names {
			r.Name = fmt.Sprintf("%x-%d", time.Now().UnixNano(), i)
		} else {
			r.ID = log.NewID(time.Now(), r.Payer).String()
		}
		m.core.Payments.Start(r, nil, func(a payments.Answer, err error) {
			if err == nil && a.Payment.State != payments.StatePaid {
				err = fmt.Errorf("bench: a payment of the sample is %s: %s", a.Payment.State, a.Payment.Reason)
			}
			<-open
			answers <- err
		})
	}
	var errs []error
	for range n {
		errs = append(errs, <-answers)
	}
	return errors.Join(errs...)
}
