package accounts_test

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/embedded"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/saga/accounts"
)

// bank is one partition of accounts, on an embedded log.
type bank struct {
	*testing.T
	fs    vfs.FS
	l     *embedded.Log
	store *fold.Store
	node  *fold.Node
}

func newBank(t *testing.T) *bank {
	b := &bank{T: t, fs: vfs.NewMem()}
	if err := b.open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.close() })
	return b
}

func (b *bank) open() (err error) {
	fatal := func(err error) { b.Errorf("fatal: %v", err) }
	if b.l, err = embedded.Open(embedded.Options{Dir: "log", FS: b.fs, Fatal: fatal, BallastBytes: -1, FreeFloorBytes: -1}); err != nil {
		return err
	}
	if err := b.l.CreateTopic(context.Background(), log.TopicConfig{Name: log.EventsTopic, Partitions: 1}); err != nil {
		return err
	}
	if b.store, err = fold.OpenStore(fold.StoreOptions{Dir: "state", Version: "bank", Partitions: 1, FS: b.fs, Fatal: fatal}); err != nil {
		return err
	}
	b.node, err = fold.Open(context.Background(), fold.Options{
		Log: b.l, Topic: log.EventsTopic, Owner: fold.All(1), Store: b.store, Facts: fold.NewFacts(true, accounts.Facts()...),
		Machines: map[byte]fold.Machine{'a': accounts.Machine{}}, Order: []byte{'a'}, Fatal: fatal,
	})
	return err
}

func (b *bank) close() {
	if b.node != nil {
		_ = b.node.Close()
	}
	_ = b.store.Close()
	_ = b.l.Close()
}

func (b *bank) do(c fold.Command) (any, error) {
	r, err := b.node.Do(context.Background(), 0, c)
	return r.Answer, err
}

func (b *bank) must(c fold.Command) any {
	b.Helper()
	a, err := b.do(c)
	if err != nil {
		b.Fatalf("%+v: %v", c, err)
	}
	return a
}

func (b *bank) rows(f func(rows fold.Scanner)) {
	b.Helper()
	err := b.node.Read(0, func(rows fold.Scanner, _ log.Offset) error { f(rows); return nil })
	if err != nil {
		b.Fatal(err)
	}
}

func (b *bank) account(name string) (a accounts.Account) {
	b.Helper()
	b.rows(func(rows fold.Scanner) { a, _ = accounts.Get(rows, name) })
	return a
}

func (b *bank) end() log.Offset {
	b.Helper()
	_, end, err := b.l.Bounds(context.Background(), log.Partition{Topic: log.EventsTopic})
	if err != nil {
		b.Fatal(err)
	}
	return end
}

func (b *bank) opened(name string, deposit int64) {
	b.Helper()
	b.must(accounts.OpenAccount{Account: name, Currency: "EUR"})
	if deposit > 0 {
		b.must(cash(accounts.Credit, name, "open", deposit))
	}
}

func (b *bank) change(name string, s accounts.State) {
	b.Helper()
	b.must(accounts.ChangeAccount{Account: name, State: &s})
}

func cash(side accounts.Side, account, name string, amount int64) accounts.MoveCash {
	return accounts.MoveCash{Order: accounts.Order{Side: side, Account: account, Amount: amount}, Name: name}
}

// The reasons are looked at in their documented order: of two that hold, the earlier is said.
func TestRefusesInOrder(t *testing.T) {
	b := newBank(t)
	b.opened("open", 100)
	b.opened("frozen", 100)
	b.opened("closed", 0)
	b.opened("full", 0)
	b.change("frozen", accounts.Frozen)
	b.change("closed", accounts.Closed)
	for i := range accounts.BalanceMax / accounts.AmountMax {
		b.must(cash(accounts.Credit, "full", fmt.Sprint(i), accounts.AmountMax))
	}
	for _, c := range []struct {
		side     accounts.Side
		account  string
		currency accounts.Currency
		amount   int64
		want     accounts.Reason
	}{
		{accounts.Debit, "nobody", "USD", 1, accounts.UnknownAccount},
		{accounts.Credit, "nobody", "EUR", 1, accounts.UnknownAccount},
		{accounts.Debit, "closed", "USD", 1, accounts.AccountClosed},
		{accounts.Credit, "closed", "EUR", 1, accounts.AccountClosed},
		{accounts.Debit, "frozen", "USD", 1000, accounts.AccountFrozen},
		{accounts.Credit, "frozen", "EUR", 1, accounts.AccountFrozen},
		{accounts.Debit, "open", "USD", 1000, accounts.CurrencyMismatch},
		{accounts.Credit, "full", "USD", accounts.AmountMax, accounts.CurrencyMismatch},
		{accounts.Debit, "open", "EUR", 101, accounts.InsufficientFunds},
		{accounts.Debit, "open", "EUR", 100, ""},
		{accounts.Credit, "full", "EUR", accounts.AmountMax, accounts.BalanceLimit},
		{accounts.Credit, "open", "EUR", accounts.AmountMax, ""},
	} {
		b.rows(func(rows fold.Scanner) {
			got := accounts.Refuses(rows, accounts.Order{Side: c.side, Account: c.account, Currency: c.currency, Amount: c.amount})
			if got != c.want {
				t.Errorf("%s %d %s on %s: %q, want %q", c.side, c.amount, c.currency, c.account, got, c.want)
			}
		})
	}
}

// TestActSquare walks every verb from every state of an action: what is answered, what of the account moves, and that a
// repeat writes nothing (B2, A3).
func TestActSquare(t *testing.T) {
	const held, taken, given = "held", "taken", "given" // what an action can do to the account
	square := []struct {
		state   string
		by      []accounts.Verb // how it comes about
		poor    bool            // there is nothing on the account
		answers map[accounts.Verb]string
	}{
		{"none", nil, false, map[accounts.Verb]string{"hold": "done " + held, "post": "conflict", "void": "done", "credit": "done " + given}},
		{"held", []accounts.Verb{"hold"}, false, map[accounts.Verb]string{"hold": "done " + held, "post": "done " + taken, "void": "done", "credit": "conflict " + held}},
		{"declined", []accounts.Verb{"hold"}, true, map[accounts.Verb]string{
			"hold": "declined insufficient_funds", "post": "conflict", "void": "done", "credit": "conflict",
		}},
		{"posted", []accounts.Verb{"hold", "post"}, false, map[accounts.Verb]string{"hold": "done " + taken, "post": "done " + taken, "void": "conflict " + taken, "credit": "conflict " + taken}},
		{"voided", []accounts.Verb{"hold", "void"}, false, map[accounts.Verb]string{"hold": "declined cancelled", "post": "conflict", "void": "done", "credit": "conflict"}},
		{"shut", []accounts.Verb{"void"}, false, map[accounts.Verb]string{"hold": "declined cancelled", "post": "conflict", "void": "done", "credit": "conflict"}},
		{"credited", []accounts.Verb{"credit"}, false, map[accounts.Verb]string{"hold": "done " + given, "post": "conflict " + given, "void": "conflict " + given, "credit": "done " + given}},
	}
	b := newBank(t)
	n := 0
	for _, row := range square {
		for verb, want := range row.answers {
			name := fmt.Sprint("a", n)
			n++
			deposit := int64(100)
			if row.poor {
				deposit = 10
			}
			b.opened(name, deposit)
			act := accounts.Act{Activity: log.NewIDInSlot(time.Now(), 0), Action: "x", Order: accounts.Order{Side: accounts.Debit, Account: name, Currency: "EUR", Amount: 60}}
			for _, v := range row.by {
				act.Verb = v
				b.must(act)
			}
			act.Verb = verb
			got := b.said(act, deposit)
			if got != want {
				t.Errorf("%s in state %s: %q, want %q", verb, row.state, got, want)
			}
			end := b.end()
			if again := b.said(act, deposit); again != got || b.end() != end {
				t.Errorf("%s in state %s, again: %q, was %q, wrote %d", verb, row.state, again, got, b.end()-end)
			}
		}
	}
}

// said is the answer to act, and what the account has of it.
func (b *bank) said(act accounts.Act, deposit int64) string {
	b.Helper()
	answer := b.must(act).(accounts.Answer)
	got := strings.TrimSpace(string(answer.Result) + " " + string(answer.Reason))
	switch a := b.account(act.Order.Account); {
	case a.Held == 60 && a.Balance == deposit:
		got += " held"
	case a.Held == 0 && a.Balance == deposit-60:
		got += " taken"
	case a.Held == 0 && a.Balance == deposit+60:
		got += " given"
	case a.Held != 0 || a.Balance != deposit:
		b.Errorf("%+v left %+v", act, a)
	}
	return got
}

// Deposits and withdrawals are named under their account (D4).
func TestCash(t *testing.T) {
	b := newBank(t)
	b.opened("a", 0)
	b.opened("ab", 0)
	for _, name := range []string{"d", "b:c", "opened", "changed"} {
		b.must(cash(accounts.Credit, "a", name, 10))
	}
	first := b.must(cash(accounts.Credit, "a", "e", 10)).(accounts.Outcome[accounts.CashMoved])
	b.must(cash(accounts.Credit, "a", "f", 10))
	again := b.must(cash(accounts.Credit, "a", "e", 10)).(accounts.Outcome[accounts.CashMoved])
	if !again.Replayed || again.Value != first.Value {
		t.Errorf("again: %+v, first was %+v", again, first)
	}
	if other := b.must(cash(accounts.Credit, "ab", "e", 7)).(accounts.Outcome[accounts.CashMoved]); other.Replayed {
		t.Error("a name of another account was met")
	}
	var mismatch *accounts.MismatchError
	for _, c := range []accounts.MoveCash{cash(accounts.Credit, "a", "e", 11), cash(accounts.Debit, "a", "e", 10)} {
		if _, err := b.do(c); !errors.As(err, &mismatch) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	for _, amount := range []int64{0, -5, accounts.AmountMax + 1} {
		if _, err := b.do(cash(accounts.Credit, "a", fmt.Sprint("n", amount), amount)); !errors.Is(err, accounts.ErrAmount) {
			t.Errorf("%d: %v", amount, err)
		}
	}
	var refused *accounts.RefusedError
	if _, err := b.do(cash(accounts.Debit, "a", "w", 61)); !errors.As(err, &refused) || refused.Reason != accounts.InsufficientFunds {
		t.Error(err)
	}
	b.must(cash(accounts.Debit, "a", "w", 60)) // nothing was recorded of the refusal
	if a := b.account("a"); a.Balance != 0 {
		t.Errorf("%+v", a)
	}
}

// However much comes in, nothing is counted beyond int64, and no deposit stops the process: Outside, which has no owner who
// could be asked, is asked about too.
func TestMoreThanCanBeCounted(t *testing.T) {
	b := newBank(t)
	const each = 4000
	var wait sync.WaitGroup
	var mu sync.Mutex
	limited, taken := 0, int64(0)
	for i := range 3 {
		name := fmt.Sprint("rich-", i)
		b.opened(name, 0)
		for j := range each {
			wait.Add(1)
			err := b.node.Submit(0, cash(accounts.Credit, name, fmt.Sprint(j), accounts.AmountMax), func(r fold.Result) {
				defer wait.Done()
				mu.Lock()
				defer mu.Unlock()
				var refused *accounts.RefusedError
				switch {
				case r.Err == nil:
					taken += accounts.AmountMax
				case errors.As(r.Err, &refused) && refused.Reason == accounts.BalanceLimit:
					limited++
				default:
					t.Error(r.Err)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	wait.Wait()
	if limited == 0 {
		t.Error("nothing was refused")
	}
	b.rows(func(rows fold.Scanner) {
		if got := accounts.Internal(rows, accounts.Outside, "EUR"); got != -taken {
			t.Errorf("outside has %d, %d came from there", got, taken)
		}
	})
}

// A credit that is decided is taken whatever the account has become meanwhile; only where it cannot be counted does it stay owed,
// until there is room.
func TestCreditIsNeverRefused(t *testing.T) {
	b := newBank(t)
	credit := func(account string, amount int64) accounts.Act {
		return accounts.Act{
			Verb: accounts.VerbCredit, Activity: log.NewIDInSlot(time.Now(), 0), Action: "credit",
			Order: accounts.Order{Side: accounts.Credit, Account: account, Currency: "EUR", Amount: amount},
		}
	}
	b.opened("gone", 0)
	b.change("gone", accounts.Closed)
	b.must(credit("gone", 5))
	if a := b.account("gone"); a.Balance != 5 || a.State != accounts.Closed {
		t.Errorf("%+v", a)
	}
	b.opened("full", 0)
	var last accounts.Act
	var err error
	for err == nil {
		last = credit("full", accounts.BalanceMax/4)
		_, err = b.do(last)
	}
	if !errors.Is(err, accounts.ErrOverflow) {
		t.Fatal(err)
	}
	b.must(credit("gone", 1)) // nobody else is kept waiting
}

// An account is opened once; what it was opened with tells a repeat, also after it was changed (D4).
func TestOpenAndChange(t *testing.T) {
	b := newBank(t)
	open := accounts.OpenAccount{Account: "a", Currency: "EUR", CreditLimit: 50}
	b.must(open)
	b.must(cash(accounts.Debit, "a", "w", 30))
	lower := int64(10)
	b.must(accounts.ChangeAccount{Account: "a", CreditLimit: &lower})
	if a := b.account("a"); a.Available() != -20 {
		t.Errorf("%+v", a)
	}
	if _, err := b.do(cash(accounts.Debit, "a", "w2", 1)); err == nil {
		t.Error("more was taken than the lowered limit allows (B1)")
	}
	if r := b.must(open).(accounts.Outcome[accounts.Account]); !r.Replayed || r.Value.CreditLimit != 10 {
		t.Errorf("%+v", r)
	}
	var mismatch *accounts.MismatchError
	for _, c := range []accounts.OpenAccount{{Account: "a", Currency: "USD", CreditLimit: 50}, {Account: "a", Currency: "EUR", CreditLimit: 10}} {
		if _, err := b.do(c); !errors.As(err, &mismatch) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	closed := accounts.Closed
	if _, err := b.do(accounts.ChangeAccount{Account: "a", State: &closed}); !errors.Is(err, accounts.ErrNotEmpty) {
		t.Error(err)
	}
	if _, err := b.do(accounts.ChangeAccount{Account: "b", State: &closed}); !errors.Is(err, accounts.ErrUnknown) {
		t.Error(err)
	}
}

// Events have ids of their own, however many fall into one millisecond.
func TestEventIDs(t *testing.T) {
	b := newBank(t)
	b.opened("a", 0)
	var wait sync.WaitGroup
	for i := range 100 {
		s := []accounts.State{accounts.Frozen, accounts.Open}[i%2]
		wait.Add(1)
		if err := b.node.Submit(0, accounts.ChangeAccount{Account: "a", State: &s}, func(fold.Result) { wait.Done() }); err != nil {
			t.Fatal(err)
		}
	}
	wait.Wait()
	ids, n := map[string]bool{}, 0
	facts := fold.NewFacts(true, accounts.Facts()...)
	for at := log.Offset(0); at < b.end(); {
		records, err := b.l.Read(t.Context(), log.Partition{Topic: log.EventsTopic}, at, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			e, err := facts.Decode(r)
			if err != nil {
				t.Fatal(err)
			}
			ids[e.ID] = true
			n++
		}
		at = records[len(records)-1].Offset + 1
	}
	if len(ids) != n || n != 101 {
		t.Errorf("%d events have %d ids", n, len(ids))
	}
}

// Balanced is exact addition per currency (A5).
func TestBalancedIsExact(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	currencies := []accounts.Currency{"EUR", "USD", "JPY"}
	for range 20000 {
		var postings []accounts.Posting
		for range rng.IntN(5) {
			amount := rng.Int64N(9) - 4
			if rng.IntN(50) == 0 {
				amount = rng.Int64() // two of them may overflow
			}
			p := accounts.Posting{Account: fmt.Sprint(rng.IntN(3)), Currency: currencies[rng.IntN(3)], Amount: amount}
			if postings = append(postings, p); rng.IntN(2) == 0 {
				p.Account, p.Amount = "x", -p.Amount
				postings = append(postings, p)
			}
		}
		sums := map[accounts.Currency]*big.Int{}
		for _, p := range postings {
			if sums[p.Currency] == nil {
				sums[p.Currency] = new(big.Int)
			}
			sums[p.Currency].Add(sums[p.Currency], big.NewInt(p.Amount))
		}
		zero := true
		for _, sum := range sums {
			zero = zero && sum.Sign() == 0
		}
		err := accounts.Balanced(postings)
		if zero != (err == nil) && !errors.Is(err, accounts.ErrOverflow) {
			t.Fatalf("%v: %v", postings, err)
		}
	}
}

// What no command emits stops the fold, if it stands on the log all the same (B1, B2, A5).
func TestForgedEventsStop(t *testing.T) {
	id := log.NewIDInSlot(time.Now(), 0)
	done := accounts.Done{Activity: id, Action: "x", Account: "a", Currency: "EUR", Amount: 10}
	with := func(postings ...accounts.Posting) accounts.Done {
		d := done
		d.Postings = postings
		return d
	}
	minus, plus := accounts.Posting{Account: "a", Currency: "EUR", Amount: -10}, accounts.Posting{Account: accounts.Transit, Currency: "EUR", Amount: 10}
	voided := done
	voided.Amount = 0
	for name, events := range map[string][]fold.Fact{
		"opened twice":        {accounts.Opened{Account: "a", Currency: "EUR"}},
		"unknown account":     {accounts.Changed{Account: "b", State: accounts.Open}},
		"not to zero":         {accounts.Deposited{Cash: accounts.Cash{Account: "a", Name: "d", Postings: []accounts.Posting{minus}}}},
		"other currency":      {accounts.Credited{Done: with(accounts.Posting{Account: "a", Currency: "USD", Amount: -10}, accounts.Posting{Account: accounts.Transit, Currency: "USD", Amount: 10})}},
		"posted, never held":  {accounts.Posted{Done: with(minus, plus)}},
		"held twice":          {accounts.Held{Done: done}, accounts.Held{Done: done}},
		"posted twice":        {accounts.Held{Done: done}, accounts.Posted{Done: with(minus, plus)}, accounts.Posted{Done: with(minus, plus)}},
		"credited twice":      {accounts.Credited{Done: with(minus, plus)}, accounts.Credited{Done: with(minus, plus)}},
		"held after void":     {accounts.Voided{Done: voided}, accounts.Held{Done: done}},
		"held is kept":        {accounts.Held{Done: done}, accounts.Voided{Done: voided}},
		"deposit twice":       {accounts.Deposited{Cash: accounts.Cash{Account: "a", Name: "open"}}},
		"hold of less than 0": {accounts.Held{Done: accounts.Done{Activity: id, Action: "x", Account: "a", Amount: -1}}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBank(t)
			b.opened("a", 100)
			for _, f := range events {
				r, err := fold.Record(fold.Event{ID: "forged", Key: "a", Time: time.Now(), Fact: f}, log.EventsTopic)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := b.l.Append(t.Context(), r); err != nil {
					t.Fatal(err)
				}
			}
			b.close()
			var broken *fold.InvariantError
			if err := b.open(); !errors.As(err, &broken) {
				t.Errorf("it opens: %v", err)
			}
		})
	}
}
