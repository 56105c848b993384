package core_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/embedded"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/saga"
	"github.com/remitlog/remit/saga/accounts"
	"github.com/remitlog/remit/saga/payments"
)

// watched is a log that is looked at around every append.
type watched struct {
	*embedded.Log

	mu     sync.Mutex
	before func(records []log.Record) error // an error refuses the append
	after  func(records []log.Record)       // they are durable, and nobody knows yet
}

func (l *watched) Append(ctx context.Context, records ...log.Record) ([]log.Offset, error) {
	l.mu.Lock()
	before, after := l.before, l.after
	l.mu.Unlock()
	if before != nil {
		if err := before(records); err != nil {
			return nil, err
		}
	}
	offsets, err := l.Log.Append(ctx, records...)
	if err == nil && after != nil {
		after(records)
	}
	return offsets, err
}

func (l *watched) watch(before func([]log.Record) error, after func([]log.Record)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.before, l.after = before, after
}

// types are the event types among records.
func types(records []log.Record) map[string]bool {
	all := map[string]bool{}
	for _, r := range records {
		if e, err := log.ParseRecord(r); err == nil {
			all[e.Type] = true
		}
	}
	return all
}

// story is one of everything that may happen to payments, under ids and names that do not change: told twice, it is
// the same story. end is what it comes to, however often it was interrupted.
type story struct {
	*life
	ids map[string]log.ID
}

var storyNow = time.Now()

const storyEnd = "acc-0:360 acc-1:640 acc-2:480 acc-3:520 acc-4:500 acc-5:500 "

func (s *story) id(name, payer string) string {
	id, ok := s.ids[name]
	if !ok {
		id = log.NewID(storyNow, payer)
		s.ids[name] = id
	}
	return id.String()
}

// pay pays, or is told what stands.
func (s *story) pay(r payments.Request) payments.Payment {
	r.Currency = "EUR"
	var a payments.Answer
	s.may("pay", s.again(func() (err error) {
		a, err = s.c.Payments.Pay(s.ended, r, time.Minute)
		return err
	}))
	return a.Payment
}

// again does what a client does whose request was refused for want of room.
func (s *story) again(f func() error) error {
	for {
		if err := f(); !errors.Is(err, log.ErrDiskFull) {
			return err
		}
	}
}

func (s *story) finish(what string, f func(context.Context) error, known ...error) {
	s.may(what, s.again(func() error { return f(s.ended) }), known...)
}

// may fails on an error that is none of those that a repeat may meet.
func (s *story) may(what string, err error, known ...error) {
	var decided *payments.DecidedError
	if err == nil || errors.As(err, &decided) || s.ended.Err() != nil {
		return
	}
	for _, k := range known {
		if errors.Is(err, k) {
			return
		}
	}
	s.Errorf("%s: %s: %v", s.Name(), what, err)
}

func (s *story) tell() {
	open := func(i int) {
		name := account(i)
		for _, c := range []fold.Command{
			accounts.OpenAccount{Account: name, Currency: "EUR"},
			accounts.MoveCash{Order: accounts.Order{Side: accounts.Credit, Account: name, Amount: 500}, Name: "open"},
		} {
			s.change(name, c)
		}
	}
	for i := range lifeAccounts {
		open(i)
	}
	pay := s.c.Payments
	// By name: paid. By id: refused, for ever.
	paid := s.pay(payments.Request{Name: "order-1", Payer: account(0), Payee: account(1), Amount: 200})
	refused := s.pay(payments.Request{ID: s.id("poor", account(4)), Payer: account(4), Payee: account(1), Amount: 501})
	if refused.State != payments.StateRefused && s.ended.Err() == nil {
		s.Errorf("%s: %+v", s.Name(), refused)
	}
	// Held, and captured in part.
	held := s.pay(payments.Request{ID: s.id("held", account(2)), Payer: account(2), Payee: account(3), Amount: 300, Manual: true})
	s.finish("capture", func(ctx context.Context) error {
		_, err := pay.Capture(ctx, held.ID, 20, "test", time.Minute)
		return err
	})
	// Held, and given back.
	void := s.pay(payments.Request{ID: s.id("void", account(2)), Payer: account(2), Payee: account(3), Amount: 400, Manual: true})
	s.finish("void", func(ctx context.Context) error {
		_, err := pay.Void(ctx, void.ID, "test", time.Minute)
		return err
	})
	// Refunded in part, and more than is left.
	s.refund(payments.RefundRequest{Of: paid.ID, Name: "r1", Amount: 60}, payments.StatePaid)
	s.finish("refund of too much", func(ctx context.Context) error {
		_, err := pay.Refund(ctx, payments.RefundRequest{Of: paid.ID, Name: "r2", Amount: 141}, time.Minute)
		if err == nil && ctx.Err() == nil {
			s.Errorf("%s: more was refunded than was paid", s.Name())
		}
		return err
	}, payments.ErrExceedsPaid)
	// A refund that the payee does not cover gives its reservation back: then as much can be refunded again.
	frozen, thawed := accounts.Frozen, accounts.Open
	s.change(account(1), accounts.ChangeAccount{Account: account(1), State: &frozen})
	s.refund(payments.RefundRequest{Of: paid.ID, ID: s.id("r3", account(0)), Amount: 140}, payments.StateRefused)
	s.change(account(1), accounts.ChangeAccount{Account: account(1), State: &thawed})
}

// refund refunds, and is answered with one state whenever it asks.
func (s *story) refund(r payments.RefundRequest, want payments.State) {
	s.finish("refund", func(ctx context.Context) error {
		a, err := s.c.Payments.Refund(ctx, r, time.Minute)
		if err == nil && ctx.Err() == nil && (a.Payment.State != want || a.Payment.Settled != (want == payments.StatePaid)) {
			s.Errorf("%s: refund %s%s: %+v, want %s", s.Name(), r.Name, r.ID, a.Payment, want)
		}
		return err
	})
}

func (s *story) change(name string, c fold.Command) {
	s.finish("change", func(ctx context.Context) error {
		_, err := s.c.Node.Do(ctx, s.c.Node.PartitionOf(name), c)
		return err
	})
}

func (s *story) end() string {
	s.settle()
	said := ""
	for i := range lifeAccounts {
		a := (&world{s.T, s.l, s.c}).balance(account(i))
		if a.Held != 0 {
			s.Errorf("%s: %s still holds %d", s.Name(), account(i), a.Held)
		}
		said += fmt.Sprintf("%s:%d ", account(i), a.Balance)
	}
	return said
}

// TestKilledAtEachArrow cuts the power after each append of a story, before anybody is answered, and tells the story
// again: it comes to the same end (D1, D4, A1, P1, P2). What is refused, refunded, captured and voided is so once.
func TestKilledAtEachArrow(t *testing.T) {
	for arrow := 0; ; arrow++ {
		over := false
		t.Run(fmt.Sprint("arrow=", arrow), func(t *testing.T) {
			ids := map[string]log.ID{}
			clone, types := untilArrow(t, ids, arrow)
			if over = clone == nil; over {
				return
			}
			s := &story{life: &life{T: t}, ids: ids}
			s.ended = t.Context()
			s.life.start(clone)
			s.tell()
			if got := s.end(); got != storyEnd {
				t.Errorf("killed after %v: it ends with %s, want %s", types, got, storyEnd)
			}
			s.audit()
			s.life.stop()
		})
		if over || t.Failed() {
			return
		}
	}
}

// untilArrow tells the story until so many appends are durable, and returns what the disk has then; nil if the story
// is over before.
func untilArrow(t *testing.T, ids map[string]log.ID, arrow int) (clone *vfs.MemFS, at map[string]bool) {
	s := &story{life: &life{T: t}, ids: ids}
	var cut context.CancelFunc
	s.ended, cut = context.WithCancel(t.Context())
	defer cut()
	n := 0
	var mu sync.Mutex
	s.life.watch = func(l *watched) {
		l.watch(nil, func(records []log.Record) {
			mu.Lock()
			defer mu.Unlock()
			if n++; n == arrow+1 {
				clone, at = s.fs.CrashClone(vfs.CrashCloneCfg{}), types(records)
				cut()
			}
		})
	}
	s.life.start(vfs.NewCrashableMem())
	s.tell()
	if s.ended.Err() == nil {
		if got := s.end(); got != storyEnd {
			t.Errorf("the story ends with %s, want %s", got, storyEnd)
		}
		s.audit()
		if n < 25 {
			t.Errorf("the story has %d arrows", n)
		}
	}
	s.life.stop()
	mu.Lock()
	defer mu.Unlock()
	return clone, at
}

// What was refused for want of room is done when there is room, without a restart: each fact of a payment and of a
// refund is refused once as it is to be appended.
func TestRefusedAtEachArrow(t *testing.T) {
	for _, typ := range []string{
		saga.Begun{}.EventType(), saga.Decided{}.EventType(), saga.Ended{}.EventType(),
		accounts.Credited{}.EventType(), accounts.Held{}.EventType(), accounts.Posted{}.EventType(),
		accounts.Declined{}.EventType(),
	} {
		t.Run(typ, func(t *testing.T) {
			s := &story{life: &life{T: t}, ids: map[string]log.ID{}}
			s.ended = t.Context()
			var refused atomic.Bool
			s.life.watch = func(l *watched) {
				l.watch(func(records []log.Record) error {
					if types(records)[typ] && refused.CompareAndSwap(false, true) {
						return log.ErrDiskFull
					}
					return nil
				}, nil)
			}
			s.life.start(vfs.NewCrashableMem())
			s.tell()
			if got := s.end(); got != storyEnd {
				t.Errorf("it ends with %s, want %s", got, storyEnd)
			}
			if !refused.Load() {
				t.Error("nothing was refused")
			}
			s.audit()
			s.life.stop()
		})
	}
}
