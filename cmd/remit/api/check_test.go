package api_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/remitlog/remit/cmd/remit/api"
)

// shop is a producer that answers every check alike. "down" is 500.
type shop struct {
	*httptest.Server
	says atomic.Value
}

func newShop(t *testing.T) *shop {
	p := &shop{}
	p.says.Store("down")
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if says := p.says.Load().(string); says == "down" {
			http.Error(w, "the database is away", http.StatusInternalServerError)
		} else {
			_, _ = io.WriteString(w, `{"verdict":"`+says+`","reason":"as it was found"}`)
		}
	}))
	t.Cleanup(p.Close)
	return p
}

// until asks for a message until it stands where it should.
func (w *world) until(id, state string) api.Message {
	w.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		var m api.Message
		w.must(200, "GET", "/v1/messages/"+id, "").into(w.t, &m)
		if m.State == state {
			return m
		}
		select {
		case <-tick.C:
		case <-w.t.Context().Done():
			w.t.Fatalf("message %s stays %s", id, m.State)
		}
	}
}

func types(history []api.Step) (all []string) {
	for _, s := range history {
		all = append(all, strings.TrimSuffix(strings.TrimPrefix(s.Type, "remit.message."), ".v1"))
	}
	return all
}

// impatient is a schedule that parks at once.
const impatient = `"firstAfter":"1ms","interval":"1ms","maxInterval":"5ms","deadline":"5ms"`

// TestParkedAndAsked proves what api.md says of messages that are set aside, and of what a person does about them.
func TestParkedAndAsked(t *testing.T) {
	w := newWorld(t)
	p := newShop(t)
	w.must(201, "PUT", "/v1/topics/orders", "")
	w.must(201, "PUT", "/v1/producers/hasty", `{"check":{"url":"`+p.URL+`",`+impatient+`}}`)
	w.must(201, "PUT", "/v1/producers/calm", `{"check":{"url":"`+p.URL+`"}}`)
	w.must(201, "PUT", "/v1/producers/mute", "")
	send := func(producer, id, more string) string {
		t.Helper()
		var m api.Message
		w.must(201, "POST", "/v1/topics/orders/messages?producer="+producer, event(id, more), structured).into(t, &m)
		return m.ID.String()
	}
	p.says.Store("unknown")
	one, two := send("hasty", "m1", ""), send("hasty", "m2", "")
	for _, id := range []string{one, two} {
		if m := w.until(id, "parked"); m.DecidedBy != "" || m.Reason != "as it was found" || m.Checks == 0 || !m.NextCheckAt.IsZero() || m.Stuck || m.Unreachable ||
			!slices.Equal(types(m.History), []string{"prepared", "parked"}) || m.History[1].By != "hasty" || m.History[1].Detail != "as it was found" {
			t.Errorf("%+v", m)
		}
	}
	at := w.core.Node.Position().String()
	run(t, w, []row{
		{name: "parked ones", method: "GET", path: "/v1/messages?state=parked&after=" + at, status: 200, want: []string{one, two, `"state":"parked"`}},
		{name: "stuck ones", method: "GET", path: "/v1/messages?stuck=true&after=" + at, status: 200, want: []string{`{"items":[]}`}},
		{name: "parked and not stuck", method: "GET", path: "/v1/messages?stuck=false&state=parked&after=" + at, status: 200, want: []string{one, two}},
		{name: "stuck is yes or no", method: "GET", path: "/v1/messages?stuck=maybe", status: 400, want: []string{`"parameter":"stuck"`}},
		{name: "sent again", path: "/v1/topics/orders/messages?producer=hasty", head: structured, body: event("m1", ""), status: 202, want: []string{`"state":"parked"`}, sent: replayed},

		{name: "check without why", path: "/v1/messages/" + one + "/check", status: 400, want: []string{`"code":"invalid_field"`, `"field":"reason"`}},
		{name: "check for an empty reason", path: "/v1/messages/" + one + "/check", body: `{"reason":" "}`, status: 400, want: []string{`"field":"reason"`}},
		{name: "check with something else", path: "/v1/messages/" + one + "/check", body: `{"reason":"x","by":"me"}`, status: 400, want: []string{`"code":"unknown_field"`}},
		{name: "resume without why", path: "/v1/messages/" + one + "/resume", body: `{}`, status: 400, want: []string{`"field":"reason"`}},
		{name: "check nothing", path: "/v1/messages/" + idFor("k") + "/check", body: `{"reason":"x"}`, status: 404, want: []string{`"code":"not_found"`}},
		{name: "resume by name", path: "/v1/messages/m1/resume", body: `{"reason":"x"}`, status: 400, want: []string{`"code":"invalid_id"`}},

		{name: "check a parked one", path: "/v1/messages/" + one + "/check", body: `{"reason":"is it done?"}`, status: 200, want: []string{`"state":"parked"`, `"check":{"verdict":"unknown","reason":"as it was found"}`}},
	})
	p.says.Store("down")
	run(t, w, []row{
		{name: "it does not answer", path: "/v1/messages/" + one + "/check", body: `{"reason":"and now?"}`, status: 200, want: []string{`"state":"parked"`, `"check":{"error":"broker: the producer's answer is none of the verdicts: status 500`}},
		{name: "why it is parked is what its producer said, whoever asked since", method: "GET", path: "/v1/messages/" + one, status: 200, want: []string{`"state":"parked"`, `"reason":"as it was found"`}},
		{name: "put it back", path: "/v1/messages/" + one + "/resume", body: `{"reason":"mended"}`, status: 200, want: []string{`"state":"prepared"`, `"nextCheckAt":"`}},
		{name: "put it back again", path: "/v1/messages/" + one + "/resume", body: `{"reason":"mended"}`, status: 200, want: []string{`"state":"prepared"`}, sent: replayed},
	})
	m := w.until(one, "prepared")
	if m.DecidedBy != "" || m.Reason != "" || !m.Unreachable || !slices.Equal(types(m.History), []string{"prepared", "parked", "checkasked", "checkasked", "resumed"}) || m.History[4].Detail != "mended" {
		t.Errorf("%+v", m)
	}
	p.says.Store("commit")
	m = w.until(one, "delivered")
	if m.DecidedBy != "hasty" || m.Reason != "as it was found" || m.Unreachable || !m.NextCheckAt.IsZero() || m.DeliveredAt == nil ||
		!slices.Equal(types(m.History), []string{"prepared", "parked", "checkasked", "checkasked", "resumed", "committed"}) {
		t.Errorf("%+v", m)
	}
	p.says.Store("rollback")
	calm, muted := send("calm", "m3", ""), send("mute", "m4", "")
	run(t, w, []row{
		{name: "nobody to ask", path: "/v1/messages/" + muted + "/check", body: `{"reason":"x"}`, status: 200, want: []string{`"state":"prepared"`, `"unreachable":true`, `"check":{"error":"broker: the producer has no address`}},
		{name: "the check decides", path: "/v1/messages/" + calm + "/check", body: `{"reason":"x"}`, status: 200, want: []string{`"state":"rolledback"`, `"decidedBy":"calm"`, `"check":{"verdict":"rollback"`}},
		{name: "check what is decided", path: "/v1/messages/" + calm + "/check", body: `{"reason":"x"}`, status: 409, want: []string{`"code":"already_decided"`, `"recorded":"rolledback"`}},
		{name: "resume what is decided", path: "/v1/messages/" + calm + "/resume", body: `{"reason":"x"}`, status: 409, want: []string{`"code":"already_decided"`, `"recorded":"rolledback"`}},
		{name: "a decision over HTTP is nobody's by name", path: "/v1/messages/" + two + "/commit", body: `{"reason":"checked by hand"}`, status: 200, want: []string{`"state":"delivered"`, `"stuck":false,"reason":"checked by hand"`}},
	})

	w.must(201, "PUT", "/v1/producers/careful", `{"precheck":{"url":"`+p.URL+`"}}`)
	p.says.Store("hold")
	five := send("careful", "m5", "")
	run(t, w, []row{
		{name: "it is waited for where it answers, whoever can be asked about others", path: "/v1/messages/" + five + "/commit", status: 200, want: []string{`"name":"/orders m5"`, `"state":"committed"`, `"nextCheckAt":"`, `"unreachable":false`}},
		{name: "deleted, it can say nothing", method: "DELETE", path: "/v1/producers/careful", status: 204},
		{name: "and so is waited for in vain", method: "GET", path: "/v1/messages/" + five, status: 200, want: []string{`"state":"committed"`, `"unreachable":true`}},
		{name: "checks alone", method: "PUT", path: "/v1/producers/careful", body: `{"check":{"firstAfter":"1m"}}`, status: 201},
		{name: "it is not waited for any more", method: "GET", path: "/v1/messages/" + five, status: 200, want: []string{`"checks":0,"unreachable":false`}},
	})

	w.account("alice", "10")
	w.account("store", "")
	held := idFor("alice")
	w.must(201, "POST", "/v1/payments", `{"id":"`+held+`","payer":"alice","payee":"store","amount":"1","currency":"USD","capture":"manual"}`)
	run(t, w, []row{
		{name: "a payment's message is not asked about", path: "/v1/messages/" + held + "/check", body: `{"reason":"x"}`, status: 409, want: []string{`"code":"not_tried"`}},
		{name: "nor put back", path: "/v1/messages/" + held + "/resume", body: `{"reason":"x"}`, status: 409, want: []string{`"code":"not_tried"`}},
		{name: "it has no checks", method: "GET", path: "/v1/messages/" + held, status: 200, want: []string{`"state":"prepared"`, `"checks":0,"unreachable":false,"stuck":false`}},
	})
}

// TestScheduleOfAMessage: it is its producer's as it was registered when the message was prepared, or what checkafter says, and no part of what a repeat
// must have.
func TestScheduleOfAMessage(t *testing.T) {
	w := newWorld(t)
	w.must(201, "PUT", "/v1/topics/orders", "")
	register := func(status int, schedule string) {
		w.must(status, "PUT", "/v1/producers/shop", `{"check":{"url":"https://shop.example/check"`+schedule+`}}`)
	}
	first := func(status int, id, more string) time.Duration {
		t.Helper()
		var m api.Message
		w.must(status, "POST", "/v1/topics/orders/messages?producer=shop", event(id, more), structured).into(t, &m)
		return time.Time(m.NextCheckAt).Sub(time.Time(m.PreparedAt))
	}
	within := func(what string, got, least, spare time.Duration) {
		t.Helper()
		if got < least || got > least+spare {
			t.Errorf("%s: asked first after %s, want %s", what, got, least)
		}
	}
	register(201, "")
	within("the default", first(201, "m1", ""), 10*time.Second, time.Second)
	register(200, `,"firstAfter":"2h","interval":"1h","maxInterval":"3h","deadline":"24h"`)
	within("the registered one", first(201, "m2", ""), 2*time.Hour, 6*time.Minute)
	within("a repeat, of what was prepared before", first(202, "m1", ""), 10*time.Second, time.Second)
	within("its own", first(201, "m3", `,"checkafter":"5h"`), 5*time.Hour, 6*time.Minute)
	lines := event("m4", "") + "\n" + event("m5", `,"checkafter":"30m"`)
	a := w.must(200, "POST", "/v1/topics/orders/messages:batch?producer=shop", lines, "Content-Type: application/x-ndjson")
	for i, line := range strings.Split(strings.TrimSpace(a.body), "\n") {
		var l struct{ Message api.Message }
		answer{body: line}.into(t, &l)
		within("in a batch", time.Time(l.Message.NextCheckAt).Sub(time.Time(l.Message.PreparedAt)), []time.Duration{2 * time.Hour, 30 * time.Minute}[i], 6*time.Minute)
	}
}
