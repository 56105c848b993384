package core_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/remitlog/remit/broker"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/log/names"
	"github.com/remitlog/remit/saga"
	"github.com/remitlog/remit/saga/accounts"
	"github.com/remitlog/remit/saga/payments"
)

// newLife is a world with accounts of 500 each, on a disk that can lose its power.
func newLife(t *testing.T) *life {
	w := &life{T: t}
	w.ended = t.Context()
	w.start(vfs.NewCrashableMem())
	for i := range lifeAccounts {
		w.must(account(i), accounts.OpenAccount{Account: account(i), Currency: "EUR"})
		w.must(account(i), accounts.MoveCash{Order: accounts.Order{Side: accounts.Credit, Account: account(i), Amount: 500}, Name: "open"})
	}
	return w
}

// powerCut is the same life after a power cut that loses all that was not synced.
func (w *life) powerCut() *life {
	w.Helper()
	next := &life{T: w.T, ended: w.ended}
	fs := w.fs.CrashClone(vfs.CrashCloneCfg{})
	w.stop()
	next.start(fs)
	return next
}

func (w *life) ids(payer int) string { return log.NewID(time.Now(), account(payer)).String() }

func (w *life) pay(r payments.Request) (payments.Answer, error) {
	if r.Currency == "" {
		r.Currency = "EUR"
	}
	return w.c.Payments.Pay(w.ended, r, time.Minute)
}

func (w *life) mustPay(r payments.Request, want payments.State) payments.Payment {
	w.Helper()
	a, err := w.pay(r)
	if err != nil || a.Payment.State != want {
		w.Fatalf("%+v: %+v, %v; want %s", r, a.Payment, err, want)
	}
	return a.Payment
}

func (w *life) balance(i int) accounts.Account { return (&world{w.T, w.l, w.c}).balance(account(i)) }

// mismatched checks that err names a field (D4).
func mismatched(t *testing.T, what string, err error, field string) {
	t.Helper()
	var m *payments.MismatchError
	if !errors.As(err, &m) || m.Field != field {
		t.Errorf("%s: %v; want a mismatch of %q", what, err, field)
	}
}

// Every state of api.md, the repeat of each, and every field that may differ in a repeat: by id and by name, before and after
// a power cut (P1, D3, D4).
func TestStatesAndRepeats(t *testing.T) {
	w := newLife(t)
	frozen := accounts.Frozen
	w.must(account(5), accounts.ChangeAccount{Account: account(5), State: &frozen})
	type want struct {
		state   payments.State
		reason  string
		settled bool
	}
	cases := map[string]struct {
		r payments.Request
		want
	}{
		"paid":      {payments.Request{Payer: account(0), Payee: account(1), Amount: 100, Reference: "r"}, want{payments.StatePaid, "", true}},
		"held":      {payments.Request{Payer: account(0), Payee: account(1), Amount: 100, Manual: true, HoldFor: time.Hour}, want{payments.StateHeld, "", false}},
		"poor":      {payments.Request{Payer: account(2), Payee: account(1), Amount: 501}, want{payments.StateRefused, "insufficient_funds", false}},
		"poor held": {payments.Request{Payer: account(2), Payee: account(1), Amount: 501, Manual: true}, want{payments.StateRefused, "insufficient_funds", false}},
		"no payee":  {payments.Request{Payer: account(2), Payee: "nobody", Amount: 1}, want{payments.StateRefused, "unknown_account", false}},
		"no payer":  {payments.Request{Payer: "nobody", Payee: account(2), Amount: 1}, want{payments.StateRefused, "unknown_account", false}},
		"frozen":    {payments.Request{Payer: account(2), Payee: account(5), Amount: 1}, want{payments.StateRefused, "account_frozen", false}},
		"currency":  {payments.Request{Payer: account(2), Payee: account(1), Amount: 1, Currency: "USD"}, want{payments.StateRefused, "currency_mismatch", false}},
	}
	seen := map[string]payments.Payment{}
	check := func(name string, r payments.Request, x want, replayed bool) {
		t.Helper()
		a, err := w.pay(r)
		p := a.Payment
		if err != nil || p.State != x.state || p.Reason != x.reason || p.Settled != x.settled || a.Replayed != replayed {
			t.Errorf("%s: %+v, %v; want %+v", name, a, err, x)
		}
		if found, err := w.c.Payments.Find(p.ID.String(), ""); err != nil || found.Payment.Settled != p.Settled {
			t.Errorf("%s: answered with settled %v, then found with %v, %v", name, p.Settled, found.Payment.Settled, err)
		}
		if was, ok := seen[name]; ok && (p.ID != was.ID || p.CreatedAt != was.CreatedAt || p.DecidedAt != was.DecidedAt) {
			t.Errorf("%s: it is %+v, and was %+v", name, p, was)
		}
		seen[name] = p
	}
	requests := map[string]payments.Request{}
	for name, c := range cases {
		byID, byName := c.r, c.r
		if byID.ID = log.NewID(time.Now(), c.r.Payer).String(); byName.Name == "" {
			byName.Name = "name-of-" + fmt.Sprint(len(requests))
		}
		requests[name+" by id"], requests[name+" by name"] = byID, byName
		check(name+" by id", byID, c.want, false)
		check(name+" by name", byName, c.want, false)
	}
	// What was refused stays so, whatever has changed since.
	thawed := accounts.Open
	w.must(account(5), accounts.ChangeAccount{Account: account(5), State: &thawed})
	w.must(account(2), accounts.MoveCash{Order: accounts.Order{Side: accounts.Credit, Account: account(2), Amount: 1000}, Name: "more"})
	for range 2 {
		for name, c := range cases {
			check(name+" by id", requests[name+" by id"], c.want, true)
			check(name+" by name", requests[name+" by name"], c.want, true)
		}
		w = w.powerCut()
	}
	for _, by := range []string{" by id", " by name"} {
		r := requests["held"+by]
		for field, change := range map[string]func(*payments.Request){
			"payee":     func(r *payments.Request) { r.Payee = account(3) },
			"currency":  func(r *payments.Request) { r.Currency = "USD" },
			"amount":    func(r *payments.Request) { r.Amount++ },
			"reference": func(r *payments.Request) { r.Reference = "other" },
			"capture":   func(r *payments.Request) { r.Manual, r.HoldFor = false, 0 },
			"holdFor":   func(r *payments.Request) { r.HoldFor++; r.HoldFor *= 2 },
		} {
			other := r
			change(&other)
			_, err := w.pay(other)
			mismatched(t, field+by, err, field)
		}
		if by == " by name" {
			r.Payer = account(4)
			_, err := w.pay(r)
			mismatched(t, "payer", err, "payer")
		}
	}
	w.stop()
}

// An id of another kind, or in use, is refused by name on every verb; nothing that a client may bring stops the process (D4).
func TestIDsOfAnotherKind(t *testing.T) {
	w := newLife(t)
	paid := w.mustPay(payments.Request{ID: w.ids(0), Payer: account(0), Payee: account(1), Amount: 100}, payments.StatePaid)
	other := w.mustPay(payments.Request{ID: w.ids(0), Payer: account(0), Payee: account(1), Amount: 100}, payments.StatePaid)
	messageID := log.NewID(time.Now(), account(0))
	message := broker.Prepare{Prepared: broker.Prepared{
		ID: messageID, Topic: "orders", Key: account(0), Event: []byte(`{}`), Fingerprint: log.FingerprintOf("m"),
	}}
	w.must(account(0), message)
	refund := func(of log.ID, id, name string, amount int64) (payments.Answer, error) {
		return w.c.Payments.Refund(w.ended, payments.RefundRequest{Of: of, ID: id, Name: name, Amount: amount}, time.Minute)
	}
	named, err := refund(paid.ID, "", "all", 100)
	if err != nil || named.Payment.State != payments.StatePaid || !named.Payment.Settled {
		t.Fatalf("%+v %v", named, err)
	}
	brought := w.ids(0)
	given, err := refund(other.ID, brought, "", 30)
	if err != nil || given.Payment.ID.String() != brought {
		t.Fatalf("%+v %v", given, err)
	}
	for range 2 {
		pay := func(id string) error {
			_, err := w.pay(payments.Request{ID: id, Payer: account(0), Payee: account(1), Amount: 7})
			return err
		}
		mismatched(t, "a message's id for a payment", pay(messageID.String()), "id")
		mismatched(t, "a refund's id for a payment", pay(brought), "id")
		_, err = refund(other.ID, messageID.String(), "", 5)
		mismatched(t, "a message's id for a refund", err, "id")
		_, err = refund(other.ID, paid.ID.String(), "", 5)
		mismatched(t, "a payment's id for a refund", err, "id")
		_, err = refund(paid.ID, brought, "", 30)
		mismatched(t, "another payment's refund", err, "payment")
		_, err = refund(other.ID, brought, "", 31)
		mismatched(t, "another amount", err, "amount")
		_, err = refund(paid.ID, "", "all", 99)
		mismatched(t, "another amount by name", err, "amount")
		// A refund is the same by the name that it was asked for and by the id that it got, also when nothing is left.
		for _, again := range []struct{ id, name string }{{"", "all"}, {named.Payment.ID.String(), ""}} {
			if a, err := refund(paid.ID, again.id, again.name, 100); err != nil || a.Payment.ID != named.Payment.ID || !a.Replayed {
				t.Errorf("%+v: %+v %v", again, a, err)
			}
		}
		if _, err := refund(paid.ID, "", "more", 1); !errors.Is(err, payments.ErrExceedsPaid) {
			t.Errorf("more than was paid: %v", err)
		}
		for what, of := range map[string]log.ID{"a refund": named.Payment.ID, "a message": messageID, "nothing": log.NewID(time.Now(), account(0))} {
			if _, err := refund(of, "", "x", 1); !errors.Is(err, payments.ErrUnknownPayment) {
				t.Errorf("refund of %s: %v", what, err)
			}
			_, capture := w.c.Payments.Capture(w.ended, of, 1, "", time.Minute)
			_, void := w.c.Payments.Void(w.ended, of, "", 0)
			unknown := payments.ErrUnknownPayment
			if what == "a refund" {
				unknown = payments.ErrNotManual
			}
			if !errors.Is(capture, unknown) || !errors.Is(void, unknown) {
				t.Errorf("capture and void of %s: %v, %v", what, capture, void)
			}
		}
		prepare := message
		prepare.ID = paid.ID
		var mismatch *broker.MismatchError
		if _, err := w.do(prepare.ID, prepare); !errors.As(err, &mismatch) {
			t.Errorf("a payment's id for a message: %v", err)
		}
		if _, err := w.do(paid.ID, broker.Settle{Broker: w.c.Broker, ID: paid.ID, Input: broker.InputRollback}); !errors.Is(err, broker.ErrNotTried) {
			t.Errorf("a payment's message decided from elsewhere: %v", err)
		}
		w = w.powerCut()
	}
	if err := w.c.Err(); err != nil {
		t.Error(err)
	}
	w.stop()
}

func (w *life) do(id log.ID, c fold.Command) (any, error) {
	r, err := w.c.Node.Do(w.ended, w.c.Node.PartitionOfID(id), c)
	return r.Answer, err
}

// What no door lets through corrupts nothing, and does not stop the process.
func TestNoDoor(t *testing.T) {
	w := newLife(t)
	good := payments.Request{Payer: account(0), Payee: account(1), Amount: 1, Currency: "EUR"}
	for what, change := range map[string]func(*payments.Request){
		"no id":          func(r *payments.Request) {},
		"both":           func(r *payments.Request) { r.ID, r.Name = w.ids(0), "n" },
		"no uuid":        func(r *payments.Request) { r.ID = "n" },
		"slot":           func(r *payments.Request) { r.ID = w.ids(1) },
		"to oneself":     func(r *payments.Request) { r.Name, r.Payee = "n", account(0) },
		"nothing":        func(r *payments.Request) { r.Name, r.Amount = "n", 0 },
		"negative":       func(r *payments.Request) { r.Name, r.Amount = "n", -1 },
		"too much":       func(r *payments.Request) { r.Name, r.Amount = "n", accounts.AmountMax+1 },
		"no currency":    func(r *payments.Request) { r.Name, r.Currency = "n", "XAU" },
		"held too long":  func(r *payments.Request) { r.Name, r.Manual, r.HoldFor = "n", true, payments.HoldForMax+1 },
		"held, not held": func(r *payments.Request) { r.Name, r.HoldFor = "n", time.Hour },
	} {
		r := good
		change(&r)
		if _, err := w.c.Payments.Pay(w.ended, r, time.Minute); !errors.Is(err, payments.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	id := log.NewID(time.Now(), account(0))
	wrong := (w.c.Node.PartitionOfID(id) + 1) % lifePartitions
	if _, err := w.c.Node.Do(w.ended, wrong, saga.Begin{Saga: w.c.Saga, Begun: saga.Begun{ID: id}}); !errors.Is(err, saga.ErrMisrouted) {
		t.Errorf("another partition: %v", err)
	}
	paid := w.mustPay(payments.Request{ID: w.ids(0), Payer: account(0), Payee: account(1), Amount: 10}, payments.StatePaid)
	for _, r := range []payments.RefundRequest{
		{Of: paid.ID, Name: "r", Amount: -5}, {Of: paid.ID, Name: "r"}, {Of: paid.ID, Amount: 1}, {Of: paid.ID, ID: w.ids(0), Name: "r", Amount: 1},
		{Of: paid.ID, ID: log.NewIDInSlot(time.Now(), paid.ID.Slot()^1).String(), Amount: 1},
	} {
		if _, err := w.c.Payments.Refund(w.ended, r, time.Minute); !errors.Is(err, payments.ErrInvalid) {
			t.Errorf("%+v: %v", r, err)
		}
	}
	held := w.mustPay(payments.Request{ID: w.ids(0), Payer: account(0), Payee: account(1), Amount: 10, Manual: true}, payments.StateHeld)
	for _, amount := range []int64{-1, 11} {
		if _, err := w.c.Payments.Capture(w.ended, held.ID, amount, "", time.Minute); !errors.Is(err, saga.ErrTooMuch) {
			t.Errorf("capture of %d: %v", amount, err)
		}
	}
	w.settle()
	w.audit()
	w.stop()
}

// Who waits no longer is answered as it stands, and never with what stands for somebody else (D2, D4). Nobody is kept in memory.
func TestShortWaits(t *testing.T) {
	w := newLife(t)
	r := payments.Request{Name: "order", Payer: account(0), Payee: account(1), Amount: 100}
	first := w.mustPay(r, payments.StatePaid)
	over, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	look := func(r payments.Request) (payments.Answer, error) {
		r.Currency = "EUR"
		return w.c.Payments.Pay(over, r, 0)
	}
	for range 20 { // which of the two is first, the answer or the end of the wait, is chance
		if a, err := look(r); err != nil || a.Payment.ID != first.ID || a.Payment.State != payments.StatePaid {
			t.Errorf("%+v %v", a, err)
		}
		thief := r
		thief.Payer = account(2)
		_, err := look(thief)
		mismatched(t, "another payer", err, "payer")
		_, err = look(payments.Request{ID: first.ID.String(), Payer: account(0), Payee: account(1), Amount: 99})
		mismatched(t, "another amount", err, "amount")
	}
	held := w.mustPay(payments.Request{Name: "held", Payer: account(0), Payee: account(1), Amount: 50, Manual: true}, payments.StateHeld)
	if _, err := w.c.Payments.Void(over, held.ID, "test", time.Minute); err != nil {
		t.Fatal(err)
	}
	captured := w.mustPay(payments.Request{Name: "captured", Payer: account(0), Payee: account(1), Amount: 50, Manual: true}, payments.StateHeld)
	if _, err := w.c.Payments.Capture(over, captured.ID, 20, "test", time.Minute); err != nil {
		t.Fatal(err)
	}
	if _, err := w.c.Payments.Refund(over, payments.RefundRequest{Of: first.ID, Name: "back", Amount: 10}, time.Minute); err != nil {
		t.Fatal(err)
	}
	for _, wait := range []time.Duration{0, time.Minute} {
		var decided *payments.DecidedError
		if _, err := w.c.Payments.Capture(over, held.ID, 0, "test", wait); !errors.As(err, &decided) {
			t.Errorf("capture of what is void: %v", err)
		}
		if _, err := w.c.Payments.Void(over, captured.ID, "test", wait); !errors.As(err, &decided) {
			t.Errorf("void of what is captured: %v", err)
		}
		for _, amount := range []int64{0, 50, 19} { // all of it is not what was captured, either
			_, err := w.c.Payments.Capture(over, captured.ID, amount, "test", wait)
			mismatched(t, "capture of another amount", err, "amount")
		}
		if a, err := w.c.Payments.Capture(over, captured.ID, 20, "test", wait); err != nil || a.Payment.Captured != 20 {
			t.Errorf("%+v %v", a, err)
		}
		_, err := w.c.Payments.Refund(over, payments.RefundRequest{Of: first.ID, Name: "back", Amount: 11}, wait)
		mismatched(t, "refund of another amount", err, "amount")
		if a, err := w.c.Payments.Refund(over, payments.RefundRequest{Of: first.ID, Name: "back", Amount: 10}, wait); err != nil || a.Payment.State != payments.StatePaid {
			t.Errorf("%+v %v", a, err)
		}
	}
	conflicts := 0
	for p := range int32(lifePartitions) {
		for _, e := range w.events(p) {
			if _, ok := e.Fact.(broker.Conflicted); ok {
				conflicts++
			}
		}
	}
	if conflicts < 2 {
		t.Errorf("contradictions left %d events (D2)", conflicts)
	}
	w.settle()
	w.audit()
	w.stop()
}

// A hold lasts as long as was asked, and its deadline gives it back.
func TestHoldExpires(t *testing.T) {
	w := newLife(t)
	held, err := w.pay(payments.Request{Name: "brief", Payer: account(0), Payee: account(1), Amount: 50, Manual: true, HoldFor: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	for held.Payment.State == payments.StateHeld {
		if held, err = w.c.Payments.Find(held.Payment.ID.String(), ""); err != nil {
			t.Fatal(err)
		}
	}
	if held.Payment.State != payments.StateVoided || held.Payment.Reason != saga.ReasonDeadline || w.balance(0).Held != 0 {
		t.Errorf("%+v, %+v", held.Payment, w.balance(0))
	}
	w.stop()
}

// nothing decides nothing.
type nothing struct{}

func (nothing) Decide(*fold.Turn) (any, error) { return nil, nil }

// busy keeps a partition from deciding, once it has begun, until it is let.
type busy struct{ begun, let chan struct{} }

func (b busy) Decide(*fold.Turn) (any, error) {
	close(b.begun)
	<-b.let
	return nil, nil
}

// Two holds that together exceed the balance, decided in one turn: one is refused.
func TestTwoHoldsInOneTurn(t *testing.T) {
	w := newLife(t)
	gate := busy{begun: make(chan struct{}), let: make(chan struct{})}
	if err := w.c.Node.Submit(w.c.Node.PartitionOf(account(0)), gate, nil); err != nil {
		t.Fatal(err)
	}
	<-gate.begun // what is asked from now on is decided in the next turn
	got := make(chan payments.Answer, 2)
	for range 2 {
		w.c.Payments.Start(payments.Request{ID: w.ids(0), Payer: account(0), Payee: account(1), Amount: 300, Currency: "EUR", Manual: true}, nil,
			func(a payments.Answer, err error) {
				if err != nil {
					t.Error(err)
				}
				got <- a
			})
	}
	close(gate.let)
	a, b := <-got, <-got
	if a.Position.String() != b.Position.String() {
		t.Errorf("two turns: %s and %s", a.Position, b.Position)
	}
	if a.Payment.State != payments.StateHeld || b.Payment.State != payments.StateRefused || b.Payment.Reason != "insufficient_funds" {
		t.Errorf("%+v\n%+v", a.Payment, b.Payment)
	}
	if x := w.balance(0); x.Held != 300 {
		t.Errorf("%+v", x)
	}
	w.settle()
	w.audit()
	w.stop()
}

// A payment that begins and ends between two flushes of the store is answered after a power cut, and not paid again.
func TestEndedBetweenFlushes(t *testing.T) {
	w := newLife(t)
	requests := []payments.Request{
		{Name: "by-name", Payer: account(0), Payee: account(1), Amount: 100},
		{ID: w.ids(0), Payer: account(0), Payee: account(1), Amount: 100},
		{ID: w.ids(2), Payer: account(2), Payee: account(1), Amount: 501},
	}
	if err := w.c.Store().Flush(); err != nil {
		t.Fatal(err)
	}
	var was []payments.Payment
	for _, r := range requests {
		a, err := w.pay(r)
		if err != nil {
			t.Fatal(err)
		}
		was = append(was, a.Payment)
	}
	refund := payments.RefundRequest{Of: was[0].ID, Name: "back", Amount: 40}
	back, err := w.c.Payments.Refund(w.ended, refund, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		w = w.powerCut()
		for i, r := range requests {
			a, err := w.pay(r)
			if err != nil || !a.Replayed || a.Payment.ID != was[i].ID || a.Payment.State != was[i].State {
				t.Errorf("%+v %v, was %+v", a, err, was[i])
			}
		}
		if a, err := w.c.Payments.Refund(w.ended, refund, time.Minute); err != nil || !a.Replayed || a.Payment.ID != back.Payment.ID {
			t.Errorf("%+v %v", a, err)
		}
	}
	if x := w.balance(0); x.Balance != 340 {
		t.Errorf("%+v", x)
	}
	w.audit()
	w.stop()
}

// Capture, void and refund by 64 clients at once: one decision, never more than was held, never more than was paid (P2).
func TestRaces(t *testing.T) {
	w := newLife(t)
	const clients = 64
	for round := range 10 {
		held := w.mustPay(payments.Request{ID: w.ids(0), Payer: account(0), Payee: account(1), Amount: 40, Manual: true}, payments.StateHeld)
		var wait sync.WaitGroup
		var captured, voided atomic.Int64
		for c := range clients {
			wait.Go(func() {
				var a payments.Answer
				var err error
				switch amount := int64(1 + c%40); {
				case c%2 == round%2:
					a, err = w.c.Payments.Void(w.ended, held.ID, "test", time.Minute)
				default:
					a, err = w.c.Payments.Capture(w.ended, held.ID, amount, "test", time.Minute)
				}
				var decided *payments.DecidedError
				var mismatch *payments.MismatchError
				switch {
				case errors.As(err, &decided), errors.As(err, &mismatch):
				case err != nil:
					t.Error(err)
				case a.Payment.State == payments.StateVoided:
					voided.Add(1)
				default:
					captured.Store(a.Payment.Captured)
					wait.Go(func() {
						for i := range int64(8) { // together more than there is
							_, err := w.c.Payments.Refund(w.ended, payments.RefundRequest{Of: held.ID, Name: fmt.Sprint(c, i), Amount: 1 + i}, time.Minute)
							if err != nil && !errors.Is(err, payments.ErrExceedsPaid) {
								t.Error(err)
							}
						}
					})
				}
			})
		}
		wait.Wait()
		if (captured.Load() > 0) == (voided.Load() > 0) {
			t.Errorf("round %d: %d captured, %d voids", round, captured.Load(), voided.Load())
		}
	}
	w.settle()
	w.audit()
	w.stop()
}

var namesCount = flag.Int("names", 50, "how many names TestOneNameManyPayers takes")

// One name with two payers, 64 clients at once, and the power cut in between: one is paid, once; the others are refused, by the
// field in which they differ as far as it is known (N1, P1, D4).
func TestOneNameManyPayers(t *testing.T) {
	w := newLife(t)
	const clients = 64
	for n := range *namesCount {
		name := fmt.Sprint("order-", n)
		var clone atomic.Pointer[vfs.MemFS]
		var ids sync.Map
		round := func(cut bool) *[2]atomic.Int64 {
			var paid [2]atomic.Int64
			var wait sync.WaitGroup
			for c := range clients {
				wait.Go(func() {
					payer := c % 2
					a, err := w.pay(payments.Request{Name: name, Payer: account(payer), Payee: account(2), Amount: 1})
					var mismatch *payments.MismatchError
					switch {
					case err == nil && a.Payment.State == payments.StatePaid && a.Payment.Payer == account(payer):
						paid[payer].Add(1)
						ids.Store(a.Payment.ID, true)
					case errors.As(err, &mismatch) && (mismatch.Field == "payer" || mismatch.Field == ""):
					default:
						t.Errorf("%s: %+v %v", name, a, err)
					}
					if cut && clone.Load() == nil {
						clone.CompareAndSwap(nil, w.fs.CrashClone(vfs.CrashCloneCfg{}))
					}
				})
			}
			wait.Wait()
			return &paid
		}
		cut := n%5 == 0
		paid := round(cut)
		winner := 0
		if paid[1].Load() > 0 {
			winner = 1
		}
		if paid[winner].Load() != clients/2 || paid[1-winner].Load() != 0 {
			t.Fatalf("%s: %d and %d were paid", name, paid[0].Load(), paid[1].Load())
		}
		if cut { // as the power was cut when the first was answered
			w.stop()
			next := &life{T: t, ended: w.ended}
			next.start(clone.Load())
			w = next
			again := round(false)
			if again[winner].Load() != clients/2 || again[1-winner].Load() != 0 {
				t.Fatalf("%s, after the cut: %d and %d were paid; before it %d won", name, again[0].Load(), again[1].Load(), winner)
			}
		}
		count := 0
		ids.Range(func(_, _ any) bool { count++; return true })
		if count != 1 {
			t.Fatalf("%s stands for %d payments", name, count)
		}
		if got := w.balance(2).Balance; got != 501 {
			t.Fatalf("%s paid %d", name, got-500)
		}
		w.mustPay(payments.Request{ID: w.ids(2), Payer: account(2), Payee: account(winner), Amount: 1}, payments.StatePaid) // for the next
	}
	w.settle()
	w.audit()
	w.stop()
}

// A claim whose payment never began is taken up by the repeat, and by nobody else (N2).
func TestClaimThatNeverBegan(t *testing.T) {
	w := newLife(t)
	r := payments.Request{Name: "order", Payer: account(0), Payee: account(1), Amount: 10, Currency: "EUR"}
	claimed := make(chan payments.Claimed, 1)
	w.c.Payments.Claim(t.Context(), r, func(c payments.Claimed) { claimed <- c })
	<-claimed
	w = w.powerCut()
	named, ok, err := names.Lookup(w.c.Node, names.KindPayment, "order")
	if err != nil || !ok {
		t.Fatal(err)
	}
	if _, err := w.c.Payments.Find("", "order"); !errors.Is(err, payments.ErrUnknownPayment) {
		t.Error(err)
	}
	thief := r
	thief.Payer = account(2)
	_, err = w.pay(thief)
	mismatched(t, "another payer", err, "") // a claim alone knows no field
	if p := w.mustPay(r, payments.StatePaid); p.ID != named.ID {
		t.Errorf("paid under %s, claimed was %s", p.ID, named.ID)
	}
	_, err = w.pay(thief)
	mismatched(t, "another payer", err, "payer")
	w.stop()
}

// A repeat that is decided after the payee has answered and before that is on the log of the payer is answered as well.
func TestRepeatBetweenAnswerAndEnd(t *testing.T) {
	w := newLife(t)
	payer := w.c.Node.PartitionOf(account(0))
	payee := 1
	for w.c.Node.PartitionOf(account(payee)) == payer {
		payee++
	}
	r := payments.Request{ID: w.ids(0), Payer: account(0), Payee: account(payee), Amount: 10, Currency: "EUR"}
	again := make(chan payments.Answer, 1)
	first := make(chan payments.Answer, 1)
	w.c.Payments.Start(r, nil, func(a payments.Answer, err error) {
		// The payee's goroutine tells it; the payer's has not heard of it.
		w.c.Payments.Start(r, nil, func(a payments.Answer, err error) {
			if err != nil {
				t.Error(err)
			}
			again <- a
		})
		if _, err := w.c.Node.Do(t.Context(), payer, nothing{}); err != nil { // until the repeat is decided
			t.Error(err)
		}
		first <- a
	})
	a := <-first
	b := <-again
	if !b.Replayed || !b.Payment.Settled || b.Payment.ID != a.Payment.ID {
		t.Errorf("%+v\n%+v", a, b)
	}
	w.stop()
}
