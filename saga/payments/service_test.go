package payments

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/saga"
	"github.com/remitlog/remit/saga/accounts"
)

// Who waits no longer is forgotten at once, and who waits still is woken, once.
func TestWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewService(nil)
		id, other := log.NewID(time.Now(), "a"), log.NewID(time.Now(), "b")
		woken := 0
		wake := func(log.Position) { woken++ }
		for range 100 {
			patience, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			s.await(patience, id, wake)
			s.await(patience, other, wake)
		}
		s.await(context.Background(), id, wake)
		<-time.After(time.Minute)
		synctest.Wait()
		if len(s.waiters[id]) != 1 || len(s.waiters) != 1 {
			t.Errorf("%d wait for one, %d are waited for", len(s.waiters[id]), len(s.waiters))
		}
		s.Answered(id, accounts.VerbHold, accounts.Answer{}, nil)
		if woken != 0 {
			t.Error("a hold's answer is no decision")
		}
		s.Answered(id, accounts.VerbCredit, accounts.Answer{}, nil)
		s.Answered(id, "", accounts.Answer{}, nil)
		if woken != 1 || len(s.waiters) != 0 {
			t.Errorf("%d woken, %d are waited for", woken, len(s.waiters))
		}
	})
}

// Who began a payment waits for it as long as the patience that Claim was given, and no longer.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewService(nil)
		id := log.NewID(time.Now(), "a")
		ctx, leave := context.WithCancel(t.Context())
		r := Request{ID: id.String(), Payer: "a", Payee: "b", Amount: 1, Currency: "EUR"}
		s.Claim(ctx, r, func(c Claimed) {
			reply := saga.Reply{Row: saga.Row{ID: id}}
			reply.Activity.Phase = saga.PhaseConfirming // paid, and not settled
			s.begun(c, fold.Result{Answer: reply}, func(a Answer, err error) { t.Errorf("settled: %+v, %v", a, err) })
		})
		if len(s.waiters[id]) != 1 {
			t.Fatalf("%d wait", len(s.waiters[id]))
		}
		leave()
		synctest.Wait()
		if len(s.waiters) != 0 {
			t.Error("it is waited for after the caller has left")
		}
	})
}

// The fingerprint is the meaning: whatever is asked for changes it, and nothing else does.
func TestFingerprint(t *testing.T) {
	r := Request{ID: "x", Payer: "a", Payee: "b", Amount: 1, Currency: "EUR", Reference: "r"}
	same := r
	same.ID, same.Name = "", "n"
	if r.fingerprint() != same.fingerprint() {
		t.Error("an id or a name is no part of the meaning")
	}
	byDefault, spelled := r, r
	byDefault.Manual, spelled.Manual, spelled.HoldFor = true, true, HoldForDefault
	if byDefault.fingerprint() != spelled.fingerprint() {
		t.Error("a default means what it stands for")
	}
	seen := map[log.Fingerprint]int{r.fingerprint(): -1, byDefault.fingerprint(): -2}
	for i, change := range []func(*Request){
		func(r *Request) { r.Payer, r.Payee = "b", "a" }, func(r *Request) { r.Payee = "c" }, func(r *Request) { r.Amount = 10 },
		func(r *Request) { r.Currency = "USD" }, func(r *Request) { r.Reference = "" }, func(r *Request) { r.Manual, r.HoldFor = true, time.Hour },
	} {
		other := r
		change(&other)
		if was, ok := seen[other.fingerprint()]; ok {
			t.Errorf("%d looks like %d", i, was)
		}
		seen[other.fingerprint()] = i
	}
	of := log.NewID(time.Now(), "a")
	if (RefundRequest{Of: of, Name: "n", Amount: 1}).fingerprint() == (RefundRequest{Of: of, Name: "n", Amount: 2}).fingerprint() {
		t.Error("two amounts look alike")
	}
}
