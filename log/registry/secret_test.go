package registry_test

import (
	"bytes"
	stdjson "encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/log/registry"
)

// set registers the producer shop with secrets; "keep" keeps one.
func (w *world) set(check, precheck string) registry.Producer {
	w.t.Helper()
	p := registry.Producer{Name: "shop"}
	p.Check.Secret.Now, p.Precheck.Secret.Now = check, precheck
	now, _, err := w.Register(w.t.Context(), registry.Register{Producer: p, KeepCheckSecret: check == "keep", KeepPrecheckSecret: precheck == "keep"})
	if err != nil {
		w.t.Fatal(err)
	}
	if shown, _ := w.Producer("shop"); shown != now {
		w.t.Errorf("registered %v, shown %v", now, shown)
	}
	return now
}

// A secret that changes signs beside the one before for SecretOverlap from the event's time, also over a restart (R4).
func TestSecretRotates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorldOn(t, newGated())
		defer func() { w.end() }()
		expect := func(what string, p registry.Producer, check, precheck string) {
			t.Helper()
			now := time.Now()
			if got := strings.Join(p.Check.Secret.At(now), " "); got != check {
				t.Errorf("%s: checks are signed with %q, want %q", what, got, check)
			}
			if got := strings.Join(p.PrecheckSecret().At(now), " "); got != precheck {
				t.Errorf("%s: pre-checks are signed with %q, want %q", what, got, precheck)
			}
		}
		expect("the first", w.set("a", ""), "a", "a") // the checks' own signs pre-checks too
		expect("kept", w.set("keep", "x"), "a", "x")
		expect("changed", w.set("b", "keep"), "b a", "x")
		time.Sleep(registry.SecretOverlap - time.Minute)
		was := w.log.(*gated).end()
		expect("the same", w.set("b", "x"), "b a", "x")
		if now := w.log.(*gated).end(); now != was {
			t.Errorf("what changes nothing is written: %d, then %d", was, now)
		}
		w.close()
		w.open()
		p, _ := w.Producer("shop")
		expect("after a restart", p, "b a", "x")
		time.Sleep(time.Minute)
		expect("a day later", p, "b", "x")
		expect("changed twice", w.set("c", "y"), "c b", "y x")
		expect("changed back", w.set("b", "z"), "b c", "z y")
		expect("taken away", w.set("", "keep"), "", "z y")
		expect("given again", w.set("c", ""), "c", "c")

		s := registry.Subscribe{Subscription: registry.Subscription{Name: "crm", Topic: "orders", Secret: registry.Secret{Now: "a"}}}
		for _, now := range []string{"a", "b", "keep"} {
			s.Secret.Now, s.KeepSecret = now, now == "keep"
			if _, _, err := w.Subscribe(t.Context(), s); err != nil {
				t.Fatal(err)
			}
		}
		if sub, _ := w.Subscription("crm"); !slices.Equal(sub.Secret.At(time.Now()), []string{"b", "a"}) {
			t.Errorf("deliveries are signed with %q", sub.Secret.At(time.Now()))
		}
	})
}

// The bytes of facts are for ever; a secret is a string as long as there is nothing but itself.
func TestFactsGolden(t *testing.T) {
	one, two := registry.Secret{Now: "s1"}, registry.Secret{Now: "s2", Before: "s1", BeforeUntil: 1764201600000}
	check := registry.Check{URL: "https://shop.example/check", FirstAfter: 10000, Interval: 10000, MaxInterval: 600000, Deadline: 86400000, When: "remitage > 5"}
	with := func(c registry.Check, s registry.Secret) registry.Check { c.Secret = s; return c }
	const checked = `"check":{"url":"https://shop.example/check","secret":%s,"firstAfter":10000,"interval":10000,"maxInterval":600000,"deadline":86400000,"when":"remitage > 5"}`
	for _, c := range []struct {
		fact fold.Fact
		want string
	}{
		{registry.Registered{Producer: registry.Producer{Name: "shop"}}, `{"name":"shop"}`},
		{registry.Registered{Producer: registry.Producer{Name: "shop", Check: with(check, one)}}, `{"name":"shop",` + fmt.Sprintf(checked, `"s1"`) + `}`},
		{registry.Registered{Producer: registry.Producer{Name: "shop", Check: with(check, two), Precheck: registry.Call{URL: "https://shop.example/pre", Secret: one, When: "true"}, ConcurrencyMax: 4, RatePerSecond: 100}},
			`{"name":"shop",` + fmt.Sprintf(checked, `{"now":"s2","before":"s1","beforeUntil":1764201600000}`) +
				`,"precheck":{"url":"https://shop.example/pre","secret":"s1","when":"true"},"concurrencyMax":4,"ratePerSecond":100}`},
		{registry.Removed{Name: "shop"}, `{"name":"shop"}`},
		{registry.InstanceRegistered{Instance: registry.Instance{Producer: "shop", Name: "a", URL: "http://10.0.0.1/check", Lease: 30000}}, `{"producer":"shop","name":"a","url":"http://10.0.0.1/check","lease":30000}`},
		{registry.InstanceExpired{Producer: "shop", Name: "a"}, `{"producer":"shop","name":"a"}`},
		{registry.InstanceLeft{Producer: "shop", Name: "a"}, `{"producer":"shop","name":"a"}`},
		{registry.SubscriptionRegistered{Subscription: registry.Subscription{Name: "crm", Topic: "orders", Sink: "https://crm.example/in", Registered: 5}},
			`{"name":"crm","topic":"orders","sink":"https://crm.example/in","from":0,"registered":5}`},
		{registry.SubscriptionRegistered{Subscription: registry.Subscription{Name: "crm", Topic: "orders", Sink: "https://crm.example/in", Secret: two, Filter: "true", Retry: registry.Retry{Interval: 1, MaxInterval: 2, Deadline: 3}, From: 5, Registered: 5}},
			`{"name":"crm","topic":"orders","sink":"https://crm.example/in","secret":{"now":"s2","before":"s1","beforeUntil":1764201600000},"filter":"true","retry":{"interval":1,"maxInterval":2,"deadline":3},"from":5,"registered":5}`},
		{registry.SubscriptionRemoved{Name: "crm"}, `{"name":"crm"}`},
	} {
		r, err := fold.Record(fold.Event{ID: "1", Key: "k", Time: time.UnixMilli(1), Fact: c.fact}, log.RegistryTopic)
		if err != nil || string(r.Value) != c.want {
			t.Errorf("%s %v: %s\nwant %s", c.fact.EventType(), err, r.Value, c.want)
		}
		if e, err := fold.NewFacts(true, registry.Facts()...).Decode(r); err != nil || e.Fact != c.fact {
			t.Errorf("%s is read as %#v, %v", r.Value, e.Fact, err)
		}
	}
	// As it was written when there were producers alone, members of later versions among it.
	old := registry.Registered{}
	err := json.Unmarshal([]byte(`{"name":"shop",`+fmt.Sprintf(checked, `"s1"`)+`,"precheck":{"url":"https://shop.example/pre"},"later":{"more":1}}`), &old)
	if want := (registry.Producer{Name: "shop", Check: with(check, one), Precheck: registry.Call{URL: "https://shop.example/pre"}}); err != nil || old.Producer != want {
		t.Errorf("%#v, %v", old, err)
	}
	for _, bad := range []string{`1`, `[]`, `{"now":1}`, `true`} {
		if err := json.Unmarshal([]byte(`{"name":"shop","check":{"secret":`+bad+`}}`), &registry.Registered{}); err == nil {
			t.Errorf("%s is read as a secret", bad)
		}
	}
}

// Whatever prints or logs a registration prints no secret (R4).
func TestSecretIsNotPrinted(t *testing.T) {
	secret := registry.Secret{Now: "hidden-new", Before: "hidden-old", BeforeUntil: 1 << 50}
	p := registry.Producer{Name: "shop", Check: registry.Check{URL: "http://a", Secret: secret}, Precheck: registry.Call{Secret: secret}}
	s := registry.Subscription{Name: "crm", Secret: secret}
	var b bytes.Buffer
	for _, v := range []any{
		secret, &secret, p, &p, s, []registry.Producer{p}, map[string]registry.Subscription{"x": s}, registry.Registered{Producer: p},
		registry.SubscriptionRegistered{Subscription: s}, registry.Register{Producer: p}, registry.Subscribe{Subscription: s},
		registry.Put[registry.Producer]{Now: p}, fold.Event{Fact: registry.Registered{Producer: p}},
	} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			fmt.Fprintf(&b, verb+"\n", v)
		}
		for _, h := range []slog.Handler{slog.NewTextHandler(&b, nil), slog.NewJSONHandler(&b, nil)} {
			slog.New(h).Info("registered", "what", v)
		}
		j, _ := stdjson.Marshal(v)
		b.Write(j)
	}
	hex := fmt.Sprintf("%x", "hidden")
	for _, leak := range []string{"hidden", hex, strings.ToUpper(hex)} {
		if i := strings.Index(b.String(), leak); i >= 0 {
			t.Errorf("%q is printed: …%s…", leak, b.String()[max(0, i-100):min(i+50, b.Len())])
		}
	}
	if !strings.Contains(b.String(), "(secret)") || (registry.Secret{}).String() != "(none)" {
		t.Error("it is not said whether there is one")
	}
}
