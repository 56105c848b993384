package torture

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"github.com/remitlog/remit/cmd/remit/core"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/embedded"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/projections"
	"github.com/remitlog/remit/projections/consumerrecords"
	"github.com/remitlog/remit/projections/lists"
	"github.com/remitlog/remit/saga"
	"github.com/remitlog/remit/saga/accounts"
	"github.com/remitlog/remit/saga/payments"
)

// restMax is how long what is still owed may take to be done.
const restMax = time.Minute

// Audit is what a server left behind, and what of it must not be.
type Audit struct {
	Accounts int
	// Balances, Held, Transit and Outside are the sums over all partitions, per currency, in minor units.
	Balances, Held, Transit, Outside map[accounts.Currency]int64
	Paid                             int // payments and refunds that were decided so, and tell the world
	Messages                         int // on topic payments
	Events                           int64
	// Views are the digests of the views, per partition; each equals its replay unless Broken says otherwise.
	Views []projections.Digest
	// Broken says which invariants do not hold; empty is well.
	Broken []string
}

func (a *Audit) broken(format string, args ...any) {
	const most = 20
	if len(a.Broken) < most {
		a.Broken = append(a.Broken, fmt.Sprintf(format, args...))
	}
}

// Inspect opens what a server has left in its directory, lets what is owed come to rest, and holds it against what must be: that money is
// conserved, that every view equals a fresh replay (V1) and adds up to what was decided, and that each paid payment and each refund is told
// once, per payer in the order of decisions (M1). No server may run on it.
func Inspect(ctx context.Context, data string) (a Audit, err error) {
	a = Audit{Balances: map[accounts.Currency]int64{}, Held: map[accounts.Currency]int64{}, Transit: map[accounts.Currency]int64{}, Outside: map[accounts.Currency]int64{}}
	err = unlessFatal(func(fatal func(error)) error {
		i := &inspection{audit: &a, begun: map[log.ID]saga.Begun{}, decided: map[string][]string{},
			paid: map[string]int64{}, sold: map[string]int64{}, gave: map[string]int64{}, fatal: fatal}
		return i.run(ctx, data)
	})
	if f := (*fatalError)(nil); errors.As(err, &f) {
		return Audit{}, err // what runs may still write to a
	}
	return a, err
}

// fatalError is what a Fatal was told.
type fatalError struct{ error }

func (e *fatalError) Unwrap() error { return e.error }

// unlessFatal returns what run returns. Once fatal is told run may wait for ever, also for what it closes: then it is left to itself,
// and the error is a *fatalError.
func unlessFatal(run func(fatal func(error)) error) error {
	failed, done := make(chan error, 1), make(chan error, 1)
	go func() {
		done <- run(func(err error) {
			select {
			case failed <- &fatalError{fmt.Errorf("torture: %w", err)}:
			default: // only the first counts
			}
		})
	}()
	select {
	case err := <-failed:
		return err
	case err := <-done:
		select {
		case cause := <-failed:
			return cause
		default:
			return err
		}
	}
}

type inspection struct {
	audit *Audit
	fatal func(error)
	log   *embedded.Log
	core  *core.Core

	begun            map[log.ID]saga.Begun
	decided          map[string][]string // by payer: what the world is told of, in the order of decisions
	paid, sold, gave map[string]int64    // by consumer and by merchant, in minor units
}

func (i *inspection) run(ctx context.Context, data string) (err error) {
	quiet := slog.New(slog.DiscardHandler)
	if i.log, err = embedded.Open(embedded.Options{Dir: filepath.Join(data, "log"), Fatal: i.fatal}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, i.log.Close()) }()
	topic, err := i.log.Topic(ctx, log.EventsTopic)
	if err != nil {
		return err
	}
	i.core, err = core.Open(ctx, core.Options{Log: i.log, Dir: data, Partitions: topic.Partitions, Logger: quiet, Fatal: i.fatal})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, i.core.Close()) }()
	if err := i.rest(ctx); err != nil {
		return err
	}
	views, err := projections.Follow(ctx, projections.Options{Log: i.log, Dir: data, Partitions: topic.Partitions, Logger: quiet, Fatal: i.fatal})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, views.Close()) }()
	if err := i.views(ctx, views, filepath.Join(data, "verify")); err != nil {
		return err
	}
	if err := i.events(ctx, topic.Partitions); err != nil {
		return err
	}
	if err := i.messages(ctx); err != nil {
		return err
	}
	return i.addUp(views)
}

// rest waits until nothing is on its way, and sums up. When it does not come to rest in time, Broken says how it stands.
func (i *inspection) rest(ctx context.Context) error {
	patience, cancel := context.WithTimeout(ctx, restMax)
	defer cancel()
	if err := i.core.Node.Rest(patience); err != nil && patience.Err() == nil {
		return err
	}
	if err := i.sum(); err != nil {
		return err
	}
	a := i.audit
	for c, outside := range a.Outside {
		if n := a.Balances[c] + outside + a.Transit[c]; n != 0 {
			a.broken("%s: balances %d, outside %d and transit %d sum to %d, not to zero", c, a.Balances[c], outside, a.Transit[c], n)
		}
		if a.Transit[c] != 0 {
			a.broken("%s: %d is in transit, and nothing is on its way", c, a.Transit[c])
		}
	}
	return nil
}

func (i *inspection) sum() error {
	a := i.audit
	a.Accounts = 0
	for _, m := range []map[accounts.Currency]int64{a.Balances, a.Held, a.Transit, a.Outside} {
		clear(m)
	}
	for p := range int32(i.core.Node.Partitions()) {
		err := i.core.Node.Read(p, func(rows fold.Scanner, _ log.Offset) error {
			here := map[accounts.Currency]bool{}
			accounts.All(rows, func(_ string, x accounts.Account) bool {
				a.Accounts++
				a.Balances[x.Currency] += x.Balance
				a.Held[x.Currency] += x.Held
				here[x.Currency] = true
				return true
			})
			for c := range here {
				a.Transit[c] += accounts.Internal(rows, accounts.Transit, c)
				a.Outside[c] += accounts.Internal(rows, accounts.Outside, c)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("torture: %w", err)
		}
	}
	return nil
}

func (i *inspection) views(ctx context.Context, views *projections.Views, dir string) error {
	if err := views.Wait(ctx, i.core.Node.Position()); err != nil {
		return err
	}
	found, err := views.Verify(ctx, projections.VerifyOptions{Dir: dir})
	if err != nil {
		return err
	}
	i.audit.Views = found.Digests
	for _, d := range found.Different {
		i.audit.broken("view %s", d)
	}
	return nil
}

// events reads the core topic: what was decided, in which order, and what it comes to. At no offset do postings sum to anything
// but zero (A5).
func (i *inspection) events(ctx context.Context, partitions int) error {
	facts := fold.NewFacts(true, core.Facts()...)
	for p := range int32(partitions) {
		err := i.read(ctx, log.EventsTopic, p, func(r log.Record) error {
			i.audit.Events++
			e, err := facts.Decode(r)
			if err != nil {
				return err
			}
			if err := accounts.Balanced(postingsOf(e.Fact)); err != nil {
				i.audit.broken("%s/%d offset %d: %v", log.EventsTopic, p, r.Offset, err)
			}
			switch f := e.Fact.(type) {
			case saga.Begun:
				i.begun[f.ID] = f
			case saga.Decided:
				i.noteDecided(e.Key, f)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func postingsOf(f fold.Fact) []accounts.Posting {
	switch f := f.(type) {
	case saga.Decided:
		return f.Postings
	case accounts.Deposited:
		return f.Postings
	case accounts.Withdrawn:
		return f.Postings
	case accounts.Credited:
		return f.Postings
	case accounts.Posted:
		return f.Postings
	}
	return nil
}

func (i *inspection) noteDecided(payer string, f saga.Decided) {
	if f.Partition == nil {
		return
	}
	i.decided[payer] = append(i.decided[payer], f.ID.String())
	i.audit.Paid++
	actions := i.begun[f.ID].Actions
	if len(actions) != 2 {
		i.audit.broken("%s was decided, and began as nothing that moves money", f.ID)
		return
	}
	from, to := actions[0].Order.Account, actions[1].Order.Account
	if f.Kind == payments.KindRefund {
		i.gave[from] += f.Amount
		return
	}
	i.paid[from] += f.Amount
	i.sold[to] += f.Amount
}

// addUp holds what the views say of merchants and consumers against what was decided.
func (i *inspection) addUp(views *projections.Views) error {
	for merchant, want := range i.sold {
		var gross, refunded int64
		err := pages(func(p lists.Page) ([]byte, error) {
			days, next, err := views.MerchantQuery.Summary(merchant, lists.Range{}, p)
			for _, d := range days {
				gross, refunded = gross+d.Gross.Int64(), refunded+d.Refunded.Int64()
			}
			return next, err
		})
		if err != nil {
			return err
		}
		if gross != want || refunded != i.gave[merchant] {
			i.audit.broken("merchant %s was paid %d and gave back %d; its summary says %d and %d", merchant, want, i.gave[merchant], gross, refunded)
		}
	}
	for consumer, want := range i.paid {
		var sum int64
		err := pages(func(p lists.Page) ([]byte, error) {
			records, next, err := views.ConsumerRecords.Records(consumer, consumerrecords.Filter{Kind: consumerrecords.KindPayment, State: consumerrecords.StatePaid}, p)
			for _, r := range records {
				sum += r.Amount
			}
			return next, err
		})
		if err != nil {
			return err
		}
		if sum != want {
			i.audit.broken("consumer %s paid %d; its records say %d", consumer, want, sum)
		}
	}
	return nil
}

// pages reads a list to its end.
func pages(read func(lists.Page) (next []byte, err error)) error {
	const size = 1000
	next, err := read(lists.Page{Size: size})
	for err == nil && next != nil {
		next, err = read(lists.Page{Size: size, Cursor: next})
	}
	return err
}

// messages holds topic payments against the decisions on the core topic (M1).
func (i *inspection) messages(ctx context.Context) error {
	topic, err := i.log.Topic(ctx, log.PaymentsTopic)
	if errors.Is(err, log.ErrUnknownTopic) && i.audit.Paid == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	told := map[string][]string{}
	for p := range int32(topic.Partitions) {
		err := i.read(ctx, log.PaymentsTopic, p, func(r log.Record) error {
			i.audit.Messages++
			e, err := log.ParseRecord(r)
			if err != nil {
				return err
			}
			told[e.Key] = append(told[e.Key], e.Correlation)
			return nil
		})
		if err != nil {
			return err
		}
	}
	for payer, ids := range i.decided {
		if !slices.Equal(ids, told[payer]) {
			i.audit.broken("payer %s: %d were decided, %d are told, or not in the same order: %v and %v", payer, len(ids), len(told[payer]), few(ids), few(told[payer]))
		}
	}
	for payer, ids := range told {
		if i.decided[payer] == nil {
			i.audit.broken("payer %s: %d are told that were never decided", payer, len(ids))
		}
	}
	return nil
}

func few(ids []string) []string { return ids[:min(len(ids), 5)] }

// read reads one partition to its end.
func (i *inspection) read(ctx context.Context, topic string, p int32, take func(log.Record) error) error {
	part := log.Partition{Topic: topic, Index: p}
	at, end, err := i.log.Bounds(ctx, part)
	if err != nil {
		return err
	}
	for at < end {
		records, err := i.log.Read(ctx, part, at, 1<<20)
		if err != nil {
			return err
		}
		for _, r := range records {
			if err := take(r); err != nil {
				return fmt.Errorf("torture: %s/%d offset %d: %w", topic, p, r.Offset, err)
			}
		}
		at = records[len(records)-1].Offset + 1
	}
	return nil
}
