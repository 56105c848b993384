package broker_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/remitlog/remit/broker"
	"github.com/remitlog/remit/broker/callout"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/registry"
)

// registered are the registrations of a test.
type registered struct {
	producers map[string]registry.Producer
	instances map[string][]registry.Instance
}

func (r registered) Producer(name string) (registry.Producer, bool) {
	p, ok := r.producers[name]
	return p, ok
}
func (r registered) Instances(name string) []registry.Instance { return r.instances[name] }

// called is a Caller that keeps its calls until they are answered.
type called struct {
	calls   []call
	refuses error
	failing int
}

type call struct {
	callout.Target
	callout.Request
	done func(callout.Answer, error)
}

func (c *called) Go(t callout.Target, r callout.Request, done func(callout.Answer, error)) error {
	if c.refuses != nil {
		return c.refuses
	}
	c.calls = append(c.calls, call{t, r, done})
	return nil
}

func (c *called) Answering(t callout.Target) int { return len(t.URLs) - c.failing }

func (c *called) take() []call {
	all := c.calls
	c.calls = nil
	return all
}

func question(t *testing.T, producer string) broker.Question {
	t.Helper()
	e := log.Event{ID: "o-1", Source: "/shop", Type: "order", Subject: "cart", Key: "alice", DataContentType: log.JSONContentType, Data: []byte(`{"n":1}`)}
	b, err := e.MarshalStructured()
	if err != nil {
		t.Fatal(err)
	}
	now := time.UnixMilli(1_800_000_000_000).UTC()
	return broker.Question{ID: log.NewID(now, "alice"), Now: now, Attempt: 3, Message: broker.Message{
		State: broker.StatePrepared, PreparedMs: now.Add(-time.Minute).UnixMilli(), Topic: "orders", Producer: producer, Key: "alice", Event: b,
	}}
}

// What a producer is asked: one structured event, under an id that is the same for each repetition, at its instances and its own address,
// signed with its secrets.
func TestQuestion(t *testing.T) {
	r := registered{
		producers: map[string]registry.Producer{"shop": {
			Name: "shop", Check: registry.Check{URL: "http://shop/check", Secret: registry.Secret{Now: "new", Before: "old", BeforeUntil: 1_900_000_000_000}},
			Precheck: registry.Call{URL: "http://shop/precheck"}, ConcurrencyMax: 5, RatePerSecond: 7,
		}},
		instances: map[string][]registry.Instance{"shop": {{Producer: "shop", Name: "a", URL: "http://a/check"}}},
	}
	c := &called{}
	p := broker.NewProducers(r, c, broker.ProducersListener{})
	q := question(t, "shop")
	p.Check(q, func(any, error) {})
	p.Check(q, func(any, error) {})
	q.Attempt = 0
	p.Check(q, func(any, error) {})
	q.Message.State = broker.StateCommitted
	q.Attempt = 1
	p.Precheck(q, func(any, error) {})
	calls := c.take()
	first := calls[0]
	if first.Name != "shop/check" || !slices.Equal(first.URLs, []string{"http://a/check", "http://shop/check"}) || !slices.Equal(first.Secrets, []string{"new", "old"}) ||
		first.ConcurrencyMax != 5 || first.RatePerSecond != 7 {
		t.Errorf("target %+v", first.Target)
	}
	if again := calls[1]; again.ID != first.ID || string(again.Body) != string(first.Body) {
		t.Error("the same check has another id, or another body, when it is sent again")
	}
	if calls[2].ID == first.ID || calls[3].ID == first.ID || calls[3].URLs[0] != "http://shop/precheck" {
		t.Error("another question has the same id, or goes to the same address")
	}
	if first.Insists || !calls[2].Insists || calls[3].Insists {
		t.Error("a producer that is left alone is called for a person, and for nobody else")
	}
	e, err := log.ParseStructured(first.Body)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf(`{"messageId":"%s","name":"/shop o-1","topic":"orders","producer":"shop","attempt":3,"event":%s}`, q.ID, q.Message.Event)
	if e.Type != broker.CheckType || e.Key != "alice" || e.ID != first.ID || string(e.Data) != want {
		t.Errorf("asked with %s %s %s\n%s\nwant\n%s", e.Type, e.Key, e.ID, e.Data, want)
	}
	if first.Method != http.MethodPost || first.ContentType != log.StructuredContentType {
		t.Errorf("%s %s", first.Method, first.ContentType)
	}
}

// Only 200 with one of the verdicts is an answer; everything else is silence (line 3).
func TestVerdicts(t *testing.T) {
	r := registered{producers: map[string]registry.Producer{"shop": {Name: "shop", Check: registry.Check{URL: "http://x"}, Precheck: registry.Call{URL: "http://x"}}}}
	for _, test := range []struct {
		status   int
		body     string
		check    broker.Verdict // "" is silence
		precheck broker.Verdict
	}{
		{200, `{"verdict":"commit"}`, "commit", ""},
		{200, `{"verdict":"rollback","reason":"no stock"}`, "rollback", ""},
		{200, ` { "verdict" : "unknown", "more": [1,2] } `, "unknown", ""},
		{200, `{"verdict":"deliver"}`, "", "deliver"},
		{200, `{"verdict":"hold"}`, "", "hold"},
		{200, `{"verdict":"drop"}`, "", "drop"},
		{200, `{"verdict":"Commit"}`, "", ""},
		{200, `{"verdict":"COMMIT"}`, "", ""},
		{200, `{"verdict":" commit"}`, "", ""},
		{200, `{"Verdict":"commit"}`, "", ""},
		{200, `{"verdict":["commit"]}`, "", ""},
		{200, `{"verdict":null}`, "", ""},
		{200, `{"verdict":"commit","verdict":"rollback"}`, "", ""},
		{200, `{"verdict":"commit"}{"verdict":"rollback"}`, "", ""},
		{200, `{"verdict":"commit"} garbage`, "", ""},
		{200, `"commit"`, "", ""},
		{200, `commit`, "", ""},
		{200, `[{"verdict":"commit"}]`, "", ""},
		{200, "{\"verdict\":\"commit\",\"reason\":\"\xff\"}", "", ""},
		{200, ``, "", ""},
		{200, `{}`, "", ""},
		{201, `{"verdict":"commit"}`, "", ""},
		{202, `{"verdict":"commit"}`, "", ""},
		{204, ``, "", ""},
		{302, `{"verdict":"commit"}`, "", ""},
		{404, `{"verdict":"rollback"}`, "", ""},
		{500, `{"verdict":"rollback"}`, "", ""},
	} {
		c := &called{}
		p := broker.NewProducers(r, c, broker.ProducersListener{})
		for kind, want := range map[string]broker.Verdict{"check": test.check, "precheck": test.precheck} {
			ask := p.Check
			if kind == "precheck" {
				ask = p.Precheck
			}
			told := 0
			ask(question(t, "shop"), func(answer any, err error) {
				told++
				said := answer.(broker.Said)
				switch {
				case want == "" && (err == nil || said.Verdict != ""):
					t.Errorf("%s: %d %s is taken for %q", kind, test.status, test.body, said.Verdict)
				case want == "" && !errors.Is(err, broker.ErrNoAnswer):
					t.Errorf("%s: %d %s: %v", kind, test.status, test.body, err)
				case want != "" && (err != nil || said.Verdict != want):
					t.Errorf("%s: %d %s is %q, %v", kind, test.status, test.body, said.Verdict, err)
				}
			})
			c.take()[0].done(callout.Answer{Status: test.status, Body: []byte(test.body), URL: "http://x"}, nil)
			if told != 1 {
				t.Errorf("%s: told %d times", kind, told)
			}
		}
	}
	c := &called{}
	p := broker.NewProducers(r, c, broker.ProducersListener{})
	var said broker.Said
	var err error
	note := func(answer any, e error) { said, err = answer.(broker.Said), e }
	p.Check(question(t, "shop"), note)
	c.take()[0].done(callout.Answer{Status: 200, Truncated: true, Body: []byte(`{"verdict":"commit"}`)}, nil)
	if !errors.Is(err, broker.ErrNoAnswer) || said.Verdict != "" {
		t.Errorf("what was cut short is taken for %q, %v", said.Verdict, err)
	}
	p.Check(question(t, "shop"), note)
	c.take()[0].done(callout.Answer{Status: 200, Body: []byte(`{"verdict":"rollback","reason":"` + strings.Repeat("ü", 2000) + `"}`)}, nil)
	if len(said.Reason) != broker.SaidReasonMax || !strings.HasPrefix(said.Reason, "üü") {
		t.Errorf("a reason of %d bytes is kept", len(said.Reason))
	}
	c.refuses = callout.ErrBusy
	if p.Check(question(t, "shop"), note); !errors.Is(err, callout.ErrBusy) {
		t.Errorf("a call that is refused: %v", err)
	}
	if p.Check(question(t, "nobody"), note); !errors.Is(err, broker.ErrNoProducer) {
		t.Errorf("a producer that is not registered: %v", err)
	}
}

// Who is asked, and when: nobody twice at once about the same, nor one producer about too many; a condition is about the event and what is known of
// the message, and one that cannot be evaluated does not hold.
func TestWants(t *testing.T) {
	r := registered{producers: map[string]registry.Producer{
		"shop": {Name: "shop", Check: registry.Check{URL: "http://x"}},
		"mute": {Name: "mute"},
	}}
	conditioned := 0
	c := &called{}
	p := broker.NewProducers(r, c, broker.ProducersListener{Conditioned: func(string, string, error) { conditioned++ }})
	q := question(t, "shop")
	if !p.Wants(q) || p.Wants(question(t, "mute")) || p.Wants(question(t, "nobody")) {
		t.Error("who has an address is asked, and nobody else")
	}
	p.Check(q, func(any, error) {})
	if p.Wants(q) || !p.Wants(question(t, "shop")) {
		t.Error("nobody is asked twice at once about the same message")
	}
	for range broker.AskingMax - 1 {
		p.Check(question(t, "shop"), func(any, error) {})
	}
	if p.Wants(question(t, "shop")) {
		t.Errorf("a producer is asked about more than %d messages at once", broker.AskingMax)
	}
	for _, x := range c.take() {
		x.done(callout.Answer{}, errors.New("no"))
	}
	if !p.Wants(q) {
		t.Error("who has not answered is asked again")
	}
	for condition, want := range map[string]bool{
		"type = 'order'": true, "type = 'refund'": false, "remitage >= 60": true, "remitage > 60": false,
		"remitchecks = 2": true, "remitproducers = 1": true, "subject LIKE 'ca%' AND source = '/shop'": true,
	} {
		r.producers["shop"] = registry.Producer{Name: "shop", Check: registry.Check{URL: "http://x", When: condition}, Precheck: registry.Call{URL: "http://y", When: condition}}
		if p.Wants(q) != want || p.Prechecks(q) != want {
			t.Errorf("%s: wants %t, prechecks %t", condition, p.Wants(q), p.Prechecks(q))
		}
	}
	const fails = "1 / (remitchecks - 2) = 1"                  // it cannot be evaluated, and nothing is missing
	for _, condition := range []string{"missing = 1", fails} { // to ask can be taken back, to deliver cannot
		r.producers["shop"] = registry.Producer{Name: "shop", Check: registry.Check{URL: "http://x", When: condition}, Precheck: registry.Call{URL: "http://y", When: condition}}
		if p.Wants(q) || !p.Prechecks(q) {
			t.Errorf("%s: wants %t, prechecks %t", condition, p.Wants(q), p.Prechecks(q))
		}
	}
	if conditioned == 0 {
		t.Error("a condition that cannot be evaluated is not told")
	}
}

// A message that waits for its producer's word goes on waiting while the producer is not registered, and no longer once it asks for no
// pre-check.
func TestWaits(t *testing.T) {
	r := registered{producers: map[string]registry.Producer{"shop": {Name: "shop"}, "asks": {Name: "asks", Precheck: registry.Call{URL: "http://x", When: "false"}}}}
	p := broker.NewProducers(r, &called{}, broker.ProducersListener{})
	for producer, want := range map[string]bool{"shop": false, "asks": true, "nobody": true} {
		if p.Waits(question(t, producer)) != want {
			t.Errorf("%s: %t", producer, !want)
		}
	}
	if p.Prechecks(question(t, "shop")) || p.Prechecks(question(t, "nobody")) {
		t.Error("a message waits for the word of a producer that gives none")
	}
}
