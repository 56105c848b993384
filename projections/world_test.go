package projections_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/remitlog/remit/broker"
	"github.com/remitlog/remit/cmd/remit/core"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/embedded"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/log/registry"
	"github.com/remitlog/remit/projections"
	"github.com/remitlog/remit/projections/lists"
	"github.com/remitlog/remit/saga/accounts"
	"github.com/remitlog/remit/saga/payments"
)

const partitions = 4

// world is remit on an embedded log in memory, with the views behind it.
type world struct {
	t      *testing.T
	l      *embedded.Log
	c      *core.Core
	v      *projections.Views
	oracle *oracle
}

func open(t *testing.T, fs vfs.FS) *world {
	t.Helper()
	fatal := func(err error) {
		if !errors.Is(err, log.ErrClosed) {
			t.Errorf("fatal: %v", err)
		}
	}
	l, err := embedded.Open(embedded.Options{Dir: "log", FS: fs, Fatal: fatal})
	if err != nil {
		t.Fatal(err)
	}
	o := &oracle{prechecks: map[string]broker.Said{
		"dropper": {Verdict: broker.VerdictDrop, Reason: "too late"}, "holder": {Verdict: broker.VerdictHold},
	}}
	asker := func(*registry.Registry) broker.Asker { return o }
	c, err := core.Open(t.Context(), core.Options{Log: l, FS: fs, Partitions: partitions, Fatal: fatal, Asker: asker})
	if err != nil {
		t.Fatal(err)
	}
	return &world{t, l, c, follow(t, l, fs), o}
}

func follow(t *testing.T, l log.Log, fs vfs.FS) *projections.Views {
	t.Helper()
	v, err := projections.Follow(t.Context(), projections.Options{
		Log: l, Dir: "data", FS: fs, Partitions: partitions, Linger: time.Millisecond,
		Fatal: func(err error) { t.Errorf("fatal: %v", err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (w *world) close() {
	w.t.Helper()
	for _, err := range []error{w.v.Close(), w.c.Close(), w.l.Close()} {
		if err != nil {
			w.t.Error(err)
		}
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

// rest waits until the core has written all that follows from what it was asked, and the views have it.
func (w *world) rest() {
	w.t.Helper()
	if err := w.c.Node.Rest(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	if err := w.v.Wait(w.t.Context(), w.c.Node.Position()); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) account(name string, deposit int64) {
	w.t.Helper()
	w.do(name, accounts.OpenAccount{Account: name, Currency: "USD"})
	if deposit > 0 {
		w.do(name, accounts.MoveCash{Order: accounts.Order{Side: accounts.Credit, Account: name, Amount: deposit}, Name: "open"})
	}
}

func (w *world) pay(r payments.Request) payments.Payment {
	w.t.Helper()
	r.Currency = "USD"
	a, err := w.c.Payments.Pay(w.t.Context(), r, time.Minute)
	if err != nil {
		w.t.Fatal(err)
	}
	return a.Payment
}

func (w *world) refund(of log.ID, name string, amount int64) payments.Payment {
	w.t.Helper()
	a, err := w.c.Payments.Refund(w.t.Context(), payments.RefundRequest{Of: of, Name: name, Amount: amount}, time.Minute)
	if err != nil {
		w.t.Fatal(err)
	}
	return a.Payment
}

// prepare stores a half message of a source, and returns its id.
func (w *world) prepare(topic, producer, key, eventID, subject string) log.ID {
	w.t.Helper()
	return w.prepareFor(topic, producer, key, eventID, subject, broker.Schedule{})
}

// prepareFor is prepare with a schedule.
func (w *world) prepareFor(topic, producer, key, eventID, subject string, s broker.Schedule) log.ID {
	w.t.Helper()
	e := log.Event{
		ID: eventID, Source: "shop/orders", Type: "order.placed", Subject: subject, Key: key,
		DataContentType: log.JSONContentType, Data: []byte(`{"n":1}`),
	}
	b, err := e.MarshalStructured()
	if err != nil {
		w.t.Fatal(err)
	}
	id := log.NewID(time.Now(), key)
	w.do(key, broker.Prepare{Prepared: broker.Prepared{
		ID: id, Name: "shop/orders " + eventID, Topic: topic, Producer: producer, Key: key, Event: b, Schedule: s,
	}})
	return id
}

func (w *world) settle(id log.ID, key string, in broker.Input, by string) {
	w.t.Helper()
	w.do(key, broker.Settle{Broker: w.c.Broker, ID: id, Input: in, By: by, Reason: "because"})
}

func (w *world) topic(name string) {
	w.t.Helper()
	if err := w.l.CreateTopic(w.t.Context(), log.TopicConfig{Name: name, Partitions: 2}); err != nil {
		w.t.Fatal(err)
	}
}

// every pages through a list, a few at a time.
func every[T any](t *testing.T, get func(lists.Page) ([]T, []byte, error)) []T {
	t.Helper()
	var all []T
	page := lists.Page{Size: 3}
	for {
		some, next, err := get(page)
		if err != nil {
			t.Fatal(err)
		}
		if len(some) > page.Size {
			t.Fatalf("a page of %d, asked for %d", len(some), page.Size)
		}
		if all = append(all, some...); next == nil {
			return all
		}
		page.Cursor = next
	}
}

func listed[T any](all []T, name func(T) string) string {
	got := make([]string, len(all))
	for i := range all {
		got[i] = name(all[i])
	}
	return fmt.Sprint(got)
}

// populate drives every kind of fact through the core: it returns the payments by name.
func (w *world) populate() map[string]payments.Payment {
	w.t.Helper()
	w.topic("orders")
	for _, name := range []string{"alice", "bob", "carol"} {
		w.account(name, 10_000)
	}
	w.account("shop", 0)
	w.account("kiosk", 0)
	all := map[string]payments.Payment{}
	one := func(name string, r payments.Request) {
		r.Name = name
		all[name] = w.pay(r)
	}
	one("p1", payments.Request{Payer: "alice", Payee: "shop", Amount: 300, Reference: "cart-1"})
	one("p2", payments.Request{Payer: "bob", Payee: "shop", Amount: 250, Reference: "cart-1"})
	one("p3", payments.Request{Payer: "alice", Payee: "kiosk", Amount: 20_000})
	one("p4", payments.Request{Payer: "alice", Payee: "nobody", Amount: 1})
	one("h1", payments.Request{Payer: "carol", Payee: "shop", Amount: 500, Manual: true})
	one("h2", payments.Request{Payer: "carol", Payee: "shop", Amount: 600, Manual: true})
	one("h3", payments.Request{Payer: "carol", Payee: "kiosk", Amount: 700, Manual: true})
	if _, err := w.c.Payments.Capture(w.t.Context(), all["h1"].ID, 400, "teller", time.Minute); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.c.Payments.Void(w.t.Context(), all["h2"].ID, "teller", time.Minute); err != nil {
		w.t.Fatal(err)
	}
	all["r1"] = w.refund(all["p1"].ID, "r1", 100)
	one("p5", payments.Request{Payer: "shop", Payee: "bob", Amount: 800}) // leaves the shop with 50
	all["r2"] = w.refund(all["p2"].ID, "r2", 200)                         // which it cannot give
	w.do("alice", accounts.MoveCash{Order: accounts.Order{Side: accounts.Debit, Account: "alice", Amount: 50}, Name: "atm"})
	return all
}

func TestQueriesOfPayments(t *testing.T) {
	w := open(t, vfs.NewMem())
	defer w.close()
	want := w.populate()
	w.rest()
	v := w.v.Transactions
	for name, p := range want {
		got, ok, err := v.Payment(p.ID)
		if err != nil || !ok {
			t.Fatalf("%s: %t %v", name, ok, err)
		}
		now, err := w.c.Payments.Find(p.ID.String(), "")
		if err != nil {
			t.Fatal(err)
		}
		c := now.Payment
		if got.State != string(c.State) || got.Settled != c.Settled || got.Payer != c.Payer || got.Payee != c.Payee ||
			got.Amount != c.Amount || got.Refunded != c.Refunded || got.Reason != c.Reason || got.Of != c.Of || got.Manual != c.Manual ||
			!got.CreatedAt.Equal(c.CreatedAt) || !got.DecidedAt.Equal(c.DecidedAt) || !got.EndedAt.Equal(c.EndedAt) || got.Name != name {
			t.Errorf("%s:\n view %+v\n core %+v", name, got, c)
		}
		if delivered := got.DeliveredAt != nil && got.DeliveredAt.Offset >= 0; delivered != (got.State == "paid") {
			t.Errorf("%s: %s, delivered at %+v", name, got.State, got.DeliveredAt)
		}
	}
	for _, test := range []struct {
		f    func(*filter)
		want string
	}{
		{func(f *filter) {}, "[p5 h3 h2 h1 p4 p3 p2 p1]"},
		{func(f *filter) { f.Payer = "alice" }, "[p4 p3 p1]"},
		{func(f *filter) { f.Payee = "shop" }, "[h2 h1 p2 p1]"},
		{func(f *filter) { f.Payer, f.Payee = "carol", "shop" }, "[h2 h1]"},
		{func(f *filter) { f.Reference = "cart-1" }, "[p2 p1]"},
		{func(f *filter) { f.Reference, f.Payer = "cart-1", "bob" }, "[p2]"},
		{func(f *filter) { f.State = "paid" }, "[p5 h1 p2 p1]"},
		{func(f *filter) { f.State = "refused" }, "[p4 p3]"},
		{func(f *filter) { f.State = "voided" }, "[h2]"},
		{func(f *filter) { f.State = "held" }, "[h3]"},
		{func(f *filter) { f.State = "pending" }, "[]"},
		{func(f *filter) { f.Payer = "nobody" }, "[]"},
		{func(f *filter) { f.From = want["p5"].CreatedAt.Add(time.Millisecond) }, "[]"},
		{func(f *filter) { f.To = want["p1"].CreatedAt }, "[]"},
	} {
		var f filter
		test.f(&f)
		got := every(t, func(page lists.Page) ([]tx, []byte, error) { return v.Payments(f, page) })
		if !sameOrder(listed(got, func(p tx) string { return p.Name }), test.want, got) {
			t.Errorf("%+v: %s, want %s", f, listed(got, func(p tx) string { return p.Name }), test.want)
		}
	}
	refunds := every(t, func(page lists.Page) ([]tx, []byte, error) { return v.Refunds(want["p1"].ID, page) })
	if got := listed(refunds, func(p tx) string { return p.Name + " " + p.Payer + " " + p.Payee }); got != "[r1 alice shop]" {
		t.Error(got)
	}
	if p, _, _ := v.Payment(want["h1"].ID); p.Captured != 400 || len(p.History) != 4 || p.History[1].By != "teller" {
		t.Errorf("%+v", p)
	}
}

// sameOrder compares lists whose things may share a millisecond, within which the order is the partitions'.
func sameOrder(got, want string, all []tx) bool {
	for i := 1; i < len(all); i++ {
		if all[i].CreatedAt.After(all[i-1].CreatedAt) {
			return false
		}
	}
	return sorted(got) == sorted(want)
}

func sorted(list string) string {
	words := slices.Sorted(slices.Values(fields(list)))
	return fmt.Sprint(words)
}

func TestStories(t *testing.T) {
	w := open(t, vfs.NewMem())
	defer w.close()
	want := w.populate()
	id := w.prepare("orders", "checkout", "alice", "o-1", "")
	w.settle(id, "alice", broker.InputCommit, "checkout")
	w.settle(id, "alice", broker.InputRollback, "someone")
	w.rest()
	const (
		named, begun, decided, ended = "log.named", "activity.begun", "activity.decided", "activity.ended"
		paid, credited               = "payment.paid", "account.credited"
	)
	p1 := []string{
		named, begun, decided, paid, credited, ended,
		begun, "account.held", decided, "payment.refunded", "account.posted", ended,
	}
	p2 := []string{named, begun, decided, paid, credited, ended, begun, "account.declined", decided, ended}
	for _, test := range []struct {
		of   string
		want []string
	}{
		{"p1", p1},
		{want["p1"].ID.String(), p1},
		{want["p1"].ID.String() + "/credit/credited", p1},
		{want["r1"].ID.String(), p1},
		{"r1", p1},
		{"r2", p2},
		{"p2", p2},
		{"cart-1", append(slices.Clone(p1), p2...)},
		{"p3", []string{named, begun, decided}},
		{"h2", []string{named, begun, decided}},
		{"h1", []string{named, begun, decided, paid, credited, ended}},
		{"o-1", []string{"message.prepared", "message.committed", "order.placed", "message.conflicted"}},
		{"shop/orders o-1", []string{"message.prepared", "message.committed", "order.placed", "message.conflicted"}},
		{"shop/carts o-1", nil},
		{"alice/open/deposited", []string{"account.deposited"}},
		{"alice/atm", []string{"account.withdrawn"}},
		{"nothing", nil},
	} {
		story, ok, err := w.v.Transactions.Story(t.Context(), test.of)
		if err != nil || ok != (test.want != nil) {
			t.Fatalf("%s: %t %v", test.of, ok, err)
		}
		var got []string
		for _, e := range story.Events {
			got = append(got, short(e.Type))
			if e.Event == nil {
				t.Errorf("%s: %s/%d@%d has no event", test.of, e.Topic, e.Partition, e.Offset)
			}
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s:\n got %v\nwant %v", test.of, got, test.want)
		}
	}
}

func TestQueriesOfMessages(t *testing.T) {
	w := open(t, vfs.NewMem())
	defer w.close()
	w.populate()
	a := w.prepare("orders", "checkout", "alice", "o-1", "cart")
	b := w.prepare("orders", "checkout", "o-2", "o-2", "")
	w.prepare("orders", "web", "alice", "o-3", "cart")
	w.prepare("elsewhere", "web", "carl", "o-4", "")
	w.settle(a, "alice", broker.InputCommit, "checkout")
	w.settle(b, "o-2", broker.InputRollback, "checkout")
	w.rest()
	v := w.v.Transactions
	for _, test := range []struct {
		f    func(*mfilter)
		want string
	}{
		{func(f *mfilter) { f.Producer = "checkout" }, "[o-2 o-1]"},
		{func(f *mfilter) { f.Topic = "orders" }, "[o-3 o-2 o-1]"},
		{func(f *mfilter) { f.Topic, f.State = "orders", "prepared" }, "[o-3]"},
		{func(f *mfilter) { f.State, f.Source = "prepared", "shop/orders" }, "[o-4 o-3]"},
		{func(f *mfilter) { f.State, f.Producer = "rolledback", "checkout" }, "[o-2]"},
		{func(f *mfilter) { f.Source, f.EventID = "shop/orders", "o-3" }, "[o-3]"},
		{func(f *mfilter) { f.Source, f.EventID = "shop/other", "o-3" }, "[]"},
		{func(f *mfilter) { f.Subject = "cart" }, "[o-3 o-1]"},
		{func(f *mfilter) { f.Key = "o-2" }, "[o-2]"},
		{func(f *mfilter) { f.Key, f.Topic = "alice", "orders" }, "[o-3 o-1]"},
		{func(f *mfilter) { f.Key = "alice" }, "[o-3 o-1 p1 p3 p4 r1]"},
		{func(f *mfilter) { f.Topic, f.State = "payments", "prepared" }, "[h3]"},
		{func(f *mfilter) { f.Topic, f.State = "payments", "rolledback" }, "[h2 p3 p4 r2]"},
		{func(f *mfilter) { f.Topic, f.State = "payments", "delivered" }, "[p1 p2 h1 r1 p5]"},
	} {
		var f mfilter
		test.f(&f)
		got := every(t, func(page lists.Page) ([]msg, []byte, error) { return v.Messages(t.Context(), f, page) })
		list := listed(got, func(m msg) string { return last(m.Name) })
		if sorted(list) != sorted(test.want) {
			t.Errorf("%+v: %s, want %s", f, list, test.want)
		}
		for _, m := range got {
			if (m.Event != nil) != (!m.Activity || m.State == "delivered") {
				t.Errorf("%s %s: event %s", m.Name, m.State, m.Event)
			}
		}
	}
	m, ok, err := v.Message(t.Context(), a)
	if err != nil || !ok || m.State != "delivered" || m.DeliveredAt == nil || m.DeliveredAt.Offset != 0 || m.DecidedBy != "checkout" || len(m.History) != 2 {
		t.Errorf("%+v %t %v", m, ok, err)
	}
}

func TestQueriesOfActivities(t *testing.T) {
	w := open(t, vfs.NewMem())
	defer w.close()
	want := w.populate()
	w.rest()
	v := w.v.Transactions
	for _, test := range []struct{ state, participant, want string }{
		{"", "", "[p5 h3 h2 h1 p4 p3 p2 p1 r1 r2]"},
		{"", "accounts", "[p5 h3 h2 h1 p4 p3 p2 p1 r1 r2]"},
		{"", "hotel", "[]"},
		{"trying", "", "[h3]"},
		{"confirmed", "", "[p5 h1 p2 p1 r1]"},
		{"cancelled", "", "[h2 p4 p3 r2]"},
		{"cancelling", "", "[]"},
	} {
		f := afilter{State: test.state, Participant: test.participant}
		got := every(t, func(page lists.Page) ([]act, []byte, error) { return v.Activities(f, page) })
		list := listed(got, func(a act) string { return a.Name })
		if sorted(list) != sorted(test.want) {
			t.Errorf("%+v: %s, want %s", f, list, test.want)
		}
	}
	for name, want2 := range map[string]string{
		"p1": "[confirmed confirmed]", "p3": "[refused cancelled]", "h3": "[tried pending]", "h2": "[cancelled cancelled]",
		"r1": "[confirmed confirmed]", "r2": "[refused cancelled]",
	} {
		a, ok, err := v.Activity(want[name].ID)
		if got := listed(a.Actions, func(a action) string { return a.State }); err != nil || !ok || got != want2 {
			t.Errorf("%s: %s, want %s (%t %v)", name, got, want2, ok, err)
		}
	}
}

func TestQueriesOfAccounts(t *testing.T) {
	w := open(t, vfs.NewMem())
	defer w.close()
	w.populate()
	w.rest()
	v := w.v.Transactions
	all := every(t, func(page lists.Page) ([]acc, []byte, error) { return v.Accounts(acfilter{}, page) })
	if got := sorted(listed(all, func(a acc) string { return a.Account })); got != "[alice bob carol kiosk shop]" {
		t.Error(got)
	}
	var sum int64
	for _, a := range all {
		var core accounts.Account
		err := w.c.Node.Read(w.c.Node.PartitionOf(a.Account), func(rows fold.Scanner, _ log.Offset) error {
			core, _ = accounts.Get(rows, a.Account)
			return nil
		})
		if err != nil || a.Balance != core.Balance || a.Held != core.Held || a.Available != core.Available() || a.State != string(core.State) {
			t.Errorf("%+v, the core has %+v (%v)", a, core, err)
		}
		entries := every(t, func(page lists.Page) ([]ent, []byte, error) { return v.Entries(a.Account, lists.Range{}, page) })
		var running int64
		for i := len(entries) - 1; i >= 0; i-- {
			if running += entries[i].Amount; running != entries[i].Balance {
				t.Errorf("%s: balance %d after %+v", a.Account, running, entries[i])
			}
		}
		if running != a.Balance {
			t.Errorf("%s: entries sum to %d, balance %d", a.Account, running, a.Balance)
		}
		sum += a.Balance
	}
	if sum != 30_000-50 {
		t.Errorf("balances sum to %d", sum)
	}
	entries := every(t, func(page lists.Page) ([]ent, []byte, error) { return v.Entries("alice", lists.Range{}, page) })
	got := listed(entries, func(e ent) string { return fmt.Sprintf("%s:%s%s:%d", e.Kind, e.Name, e.Counterparty, e.Amount) })
	if got != "[withdrawal:atm:-50 refund:r1shop:100 payment:p1shop:-300 deposit:open:10000]" {
		t.Error(got)
	}
}

func TestRecordsAndSummaries(t *testing.T) {
	w := open(t, vfs.NewMem())
	defer w.close()
	w.populate()
	w.rest()
	records := func(consumer, kind string) []rec {
		return every(t, func(page lists.Page) ([]rec, []byte, error) {
			return w.v.ConsumerRecords.Records(consumer, rfilter{Kind: kind}, page)
		})
	}
	for consumer, want := range map[string]string{
		"alice": "[withdrawal:50:paid refund:100:paid payment:1:refused payment:20000:refused payment:300:paid deposit:10000:paid]",
		"carol": "[payment:600:voided payment:400:paid deposit:10000:paid]",
		"bob":   "[refund:200:refused receipt:800:paid payment:250:paid deposit:10000:paid]",
		"shop":  "[payment:800:paid giveback:100:paid receipt:400:paid receipt:250:paid receipt:300:paid]",
	} {
		got := listed(records(consumer, ""), func(r rec) string { return fmt.Sprintf("%s:%d:%s", r.Kind, r.Amount, r.State) })
		if got != want {
			t.Errorf("%s: %s, want %s", consumer, got, want)
		}
	}
	if got := records("alice", "refund"); len(got) != 1 || got[0].Counterparty != "shop" {
		t.Errorf("%+v", got)
	}
	days := every(t, func(page lists.Page) ([]day, []byte, error) {
		return w.v.MerchantQuery.Summary("shop", lists.Range{}, page)
	})
	var gross, refunded, net int64
	for _, d := range days {
		gross, refunded, net = gross+d.Gross.Int64(), refunded+d.Refunded.Int64(), net+d.Net.Int64()
	}
	if gross != 950 || refunded != 100 || net != 850 {
		t.Errorf("%+v", days)
	}
	for _, test := range []struct {
		f    qfilter
		want string
	}{
		{qfilter{}, "[400 100 250 300]"},
		{qfilter{State: "paid"}, "[400 250 300]"},
		{qfilter{State: "refunded"}, "[100]"},
		{qfilter{MinAmount: 250, MaxAmount: 300}, "[250 300]"},
	} {
		got := listed(every(t, func(page lists.Page) ([]mtx, []byte, error) {
			return w.v.MerchantQuery.Transactions("shop", test.f, page)
		}), func(m mtx) string { return fmt.Sprint(m.Amount) })
		if sorted(got) != sorted(test.want) {
			t.Errorf("%+v: %s, want %s", test.f, got, test.want)
		}
	}
}

func TestViewsEqualTheirReplay(t *testing.T) { // V1
	fs := vfs.NewMem()
	w := open(t, fs)
	w.populate()
	w.populateAsked()
	w.rest()
	before, err := w.v.Digests()
	if err != nil {
		t.Fatal(err)
	}
	verify := func(w *world) {
		t.Helper()
		found, err := w.v.Verify(t.Context(), projections.VerifyOptions{Dir: "scratch"})
		if err != nil || len(found.Different) > 0 || len(found.Digests) != 3*partitions {
			t.Fatalf("%v %v", found.Different, err)
		}
	}
	verify(w)
	w.close()
	w = open(t, fs) // the stores were closed well
	w.rest()
	after, err := w.v.Digests()
	if err != nil || !slices.Equal(before, after) {
		t.Errorf("before %v\nafter %v (%v)", before, after, err)
	}
	w.pay(payments.Request{Name: "late", Payer: "alice", Payee: "bob", Amount: 1})
	w.rest()
	verify(w)
	status, err := w.v.Status(t.Context(), time.Now())
	if err != nil || len(status) != 3 || status[0].Lag != 0 {
		t.Errorf("%+v %v", status, err)
	}
	w.close()
	if err := fs.RemoveAll("data/views/transactions"); err != nil { // a rebuild
		t.Fatal(err)
	}
	w = open(t, fs)
	w.rest()
	verify(w)
	w.close()
}

func TestKilledStoresCatchUp(t *testing.T) {
	fs := vfs.NewCrashableMem()
	w := open(t, fs)
	want := w.populate()
	w.rest()
	digests, err := w.v.Digests()
	if err != nil {
		t.Fatal(err)
	}
	crashed := fs.CrashClone(vfs.CrashCloneCfg{})
	w.close()
	w = open(t, crashed)
	defer w.close()
	w.rest()
	again, err := w.v.Digests()
	if err != nil || !slices.Equal(digests, again) {
		t.Errorf("before %v\nafter %v (%v)", digests, again, err)
	}
	if _, ok, err := w.v.Transactions.Payment(want["p1"].ID); !ok || err != nil {
		t.Error(ok, err)
	}
}

// TestPagingUnderWrites pages while payments are made: what was there when it began comes once.
func TestPagingUnderWrites(t *testing.T) {
	w := open(t, vfs.NewMem())
	defer w.close()
	for i := range 8 {
		w.account(fmt.Sprint("a", i), 1_000_000)
	}
	pay := func(i int) log.ID {
		return w.pay(payments.Request{Name: fmt.Sprint("n", i), Payer: fmt.Sprint("a", i%7), Payee: "a7", Amount: 1}).ID
	}
	there := map[log.ID]int{}
	for i := range 40 {
		there[pay(i)] = 0
	}
	w.rest()
	ctx, stop := context.WithCancel(t.Context())
	writing := make(chan struct{})
	go func() {
		defer close(writing)
		for i := 40; ctx.Err() == nil; i++ {
			pay(i)
		}
	}()
	for _, f := range []filter{{}, {Payee: "a7"}} {
		for id := range there {
			there[id] = 0
		}
		seen := map[log.ID]bool{}
		for _, p := range every(t, func(page lists.Page) ([]tx, []byte, error) { return w.v.Transactions.Payments(f, page) }) {
			if seen[p.ID] {
				t.Errorf("%s twice", p.ID)
			}
			seen[p.ID] = true
			if n, ok := there[p.ID]; ok {
				there[p.ID] = n + 1
			}
		}
		for id, n := range there {
			if n != 1 {
				t.Errorf("%s came %d times", id, n)
			}
		}
	}
	stop()
	<-writing
	if _, _, err := w.v.Transactions.Payments(filter{}, lists.Page{Cursor: []byte("x")}); !errors.Is(err, lists.ErrCursor) {
		t.Error(err)
	}
}
