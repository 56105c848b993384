package core_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/remitlog/remit/broker"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/log/names"
	"github.com/remitlog/remit/log/registry"
	"github.com/remitlog/remit/saga/accounts"
)

// answers is who is asked in a golden life: all producers answer checks alike, and the one called "dropper" is asked before delivery.
type answers struct{ verdict atomic.Value }

func (a *answers) say(v broker.Verdict) { a.verdict.Store(v) }

func (*answers) Wants(broker.Question) bool                          { return true }
func (*answers) Prechecks(q broker.Question) bool                    { return q.Message.Producer == "dropper" }
func (*answers) Waits(q broker.Question) bool                        { return q.Message.Producer == "dropper" }
func (*answers) Landed(broker.Question, broker.Said, broker.Outcome) {}
func (*answers) Precheck(_ broker.Question, done func(answer any, e error)) {
	go done(broker.Said{Verdict: broker.VerdictDrop, Reason: "sold out"}, nil)
}

func (a *answers) Check(_ broker.Question, done func(answer any, err error)) {
	v := a.verdict.Load().(broker.Verdict)
	if v == "" {
		go done(nil, errors.New("silence"))
		return
	}
	go done(broker.Said{Verdict: v, Reason: "says " + string(v)}, nil)
}

// goldenMessages lives a life with messages.
type goldenMessages struct {
	*world
	answers *answers
	f       *flipped
}

// liveByMessages has something of everything that messages, their producers and their subscriptions come to, and what payments had not. It leaves
// nothing behind that moves on by itself: what is still open waits for producers, and nobody asks them when the log is replayed.
func liveByMessages(t *testing.T, f *flipped) {
	t.Helper()
	a := &answers{}
	a.say("")
	f.asker = a
	if err := f.open(); err != nil {
		t.Fatal(err)
	}
	g := &goldenMessages{&world{t, f.l, f.c}, a, f}
	if err := f.l.CreateTopic(t.Context(), log.TopicConfig{Name: "orders", Partitions: 2}); err != nil {
		t.Fatal(err)
	}
	g.registrations()
	g.messages()
	g.rest()
}

func (g *goldenMessages) registrations() {
	g.t.Helper()
	ctx, r := g.t.Context(), g.f.c.Registry
	check := registry.Check{URL: "http://127.0.0.1:1/check", Secret: registry.Secret{Now: "one"}, FirstAfter: 10_000, Interval: 5000, MaxInterval: 60_000, Deadline: 3_600_000, When: "type = 'order'"}
	for _, do := range []func() error{
		func() error {
			_, _, err := r.Register(ctx, registry.Register{Producer: registry.Producer{Name: "shop", Check: check, ConcurrencyMax: 4, RatePerSecond: 100}})
			return err
		},
		func() error {
			check.Secret.Now = "two"
			_, _, err := r.Register(ctx, registry.Register{Producer: registry.Producer{Name: "shop", Check: check}})
			return err
		},
		func() error {
			_, _, err := r.Register(ctx, registry.Register{Producer: registry.Producer{Name: "gone"}})
			return err
		},
		func() error { return r.Remove(ctx, "gone") },
		func() error {
			_, err := r.Enlist(ctx, registry.Instance{Producer: "shop", Name: "a", URL: "http://127.0.0.1:1/a", Lease: 1000 * 3_600_000})
			return err
		},
		func() error {
			_, err := r.Enlist(ctx, registry.Instance{Producer: "shop", Name: "b", URL: "http://127.0.0.1:1/b", Lease: 3_600_000})
			return err
		},
		func() error { return r.Leave(ctx, "shop", "b") },
		func() error {
			_, err := r.Enlist(ctx, registry.Instance{Producer: "shop", Name: "c", URL: "http://127.0.0.1:1/c", Lease: 1})
			return err
		},
		func() error {
			_, _, err := r.Subscribe(ctx, registry.Subscribe{Subscription: registry.Subscription{Name: "s", Topic: "orders", Sink: "http://127.0.0.1:1/s"}})
			return err
		},
		func() error {
			_, _, err := r.Subscribe(ctx, registry.Subscribe{Subscription: registry.Subscription{Name: "t", Topic: "orders", Sink: "http://127.0.0.1:1/t"}})
			return err
		},
		func() error { return r.Resume(ctx, registry.Resume{Name: "s", By: "golden", Reason: "served again"}) },
		func() error { return r.Unsubscribe(ctx, "t") },
	} {
		if err := do(); err != nil {
			g.t.Fatal(err)
		}
	}
	g.until(func() bool { _, there := r.Instance("shop", "c"); return !there })
}

func (g *goldenMessages) messages() {
	g.t.Helper()
	impatient := broker.Schedule{FirstAfter: 1, Interval: 1, MaxInterval: 5, Deadline: 1}
	person := func(id log.ID) broker.Decision { return broker.Decision{ID: id, By: "ann", Reason: "because"} }
	settle := func(id log.ID, key string, in broker.Input) {
		g.do(key, broker.Settle{Broker: g.c.Broker, ID: id, Input: in, By: "shop", Reason: "paid"})
	}
	ask := func(id log.ID) {
		if _, _, err := g.c.Broker.Ask(g.t.Context(), g.c.Node, person(id)); err != nil {
			g.t.Fatal(err)
		}
	}
	g.prepare("open", broker.Prepared{})
	settle(g.prepare("committed", broker.Prepared{}), "committed", broker.InputCommit)
	settle(g.prepare("rolledback", broker.Prepared{CheckAfter: 60_000}), "rolledback", broker.InputRollback)
	conflicted := g.prepare("conflicted", broker.Prepared{})
	settle(conflicted, "conflicted", broker.InputRollback)
	settle(conflicted, "conflicted", broker.InputCommit)
	delayed := g.prepare("delayed", broker.Prepared{DeliverAfter: 2})
	settle(delayed, "delayed", broker.InputCommit)
	g.untilState(delayed, broker.StateDelivered)
	dropped := g.prepare("dropped", broker.Prepared{Producer: "dropper"})
	settle(dropped, "dropped", broker.InputCommit)
	g.untilState(dropped, broker.StateDropped)

	g.answers.say(broker.VerdictUnknown)
	ids := map[string]log.ID{}
	for _, key := range []string{"parked", "resumed", "parked-committed"} {
		ids[key] = g.prepare(key, broker.Prepared{Schedule: impatient})
		g.untilState(ids[key], broker.StateParked)
	}
	settle(ids["parked-committed"], "parked-committed", broker.InputCommit)
	ask(ids["parked"])
	g.answers.say("")
	g.do("resumed", broker.Resume{Decision: person(ids["resumed"])})
	g.answers.say(broker.VerdictCommit)
	ask(g.prepare("asked", broker.Prepared{}))
	g.answers.say("")

	// What the life of payments had not.
	g.account("carl", 100)
	frozen := accounts.Frozen
	g.do("carl", accounts.MoveCash{Order: accounts.Order{Side: accounts.Debit, Account: "carl", Amount: 1}, Name: "out"})
	g.do("carl", accounts.Act{Verb: accounts.VerbVoid, Activity: log.NewID(time.Now(), "x"), Action: "debit", Order: accounts.Order{Side: accounts.Debit, Account: "carl", Amount: 1, Currency: "USD"}})
	g.do("carl", accounts.Act{Verb: accounts.VerbHold, Activity: log.NewID(time.Now(), "y"), Action: "debit", Order: accounts.Order{Side: accounts.Debit, Account: "carl", Amount: 1000, Currency: "USD"}})
	g.do("carl", accounts.ChangeAccount{Account: "carl", State: &frozen})
}

// prepare claims the name of a message and stores it. Its key is its name.
func (g *goldenMessages) prepare(key string, p broker.Prepared) log.ID {
	g.t.Helper()
	e := log.Event{ID: key, Source: "/golden", Type: "order", Subject: "s", Key: key, DataContentType: log.JSONContentType, Data: []byte(`{"n":1}`)}
	b, err := e.MarshalStructured()
	if err != nil {
		g.t.Fatal(err)
	}
	p.ID, p.Name, p.Topic, p.Key, p.Event = log.NewID(time.Now(), key), "/golden "+key, "orders", key, b
	if p.Producer == "" {
		p.Producer = "shop"
	}
	p.Fingerprint = log.FingerprintOf(key)
	g.do(names.Route(names.KindMessage, p.Name), names.Claim{Named: names.Named{Kind: names.KindMessage, Name: p.Name, ID: p.ID, Key: key, Fingerprint: p.Fingerprint}})
	g.do(key, broker.Prepare{Prepared: p})
	return p.ID
}

func (g *goldenMessages) untilState(id log.ID, want broker.State) {
	g.t.Helper()
	g.until(func() bool {
		var m broker.Message
		if err := g.c.Node.Peek(g.c.Node.PartitionOfID(id), func(rows fold.Reader) { m, _, _ = broker.Get(rows, id) }); err != nil {
			g.t.Fatal(err)
		}
		return m.State == want
	})
}

func (g *goldenMessages) until(done func() bool) {
	g.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-g.t.Context().Done():
			g.t.Fatal("it does not come")
		}
	}
}

func (g *goldenMessages) rest() {
	g.t.Helper()
	if err := g.c.Node.Rest(g.t.Context()); err != nil {
		g.t.Fatal(err)
	}
}
