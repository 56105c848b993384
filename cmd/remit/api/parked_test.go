package api_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/remitlog/remit/consumers"
	"github.com/remitlog/remit/consumers/push"
	"github.com/remitlog/remit/log"
)

// park parks an event as a group would, as of a place on topic orders.
func (w *world) park(group, key, id string, partition int32, offset int) {
	w.t.Helper()
	e := log.Event{ID: id, Source: "/shop", Type: "order.placed.v1", Key: key, DataContentType: log.JSONContentType, Data: []byte(`{"n":1}`), Extensions: map[string]any{
		consumers.ParkedGroup: group, consumers.ParkedReason: "the sink answered 422", consumers.ParkedAttempts: "7", consumers.ParkedAt: "2026-01-02T03:04:05.000Z",
		consumers.ParkedFrom: "orders", consumers.ParkedPartition: fmt.Sprint(partition), consumers.ParkedOffset: fmt.Sprint(offset)}}
	w.append(e.Record(log.Partition{Topic: "orders.parked", Index: partition}))
}

func (w *world) append(r log.Record) {
	w.t.Helper()
	if _, err := w.log.Append(w.t.Context(), r); err != nil {
		w.t.Fatal(err)
	}
}

// TestParked: what was set aside is listed, shown, and sent again to who has parked it, with a reason.
func TestParked(t *testing.T) {
	w := newWorld(t)
	w.must(201, "PUT", "/v1/topics/orders", "")
	w.must(201, "PUT", "/v1/subscriptions/crm", `{"topic":"orders","sink":"https://crm.example/in"}`)
	run(t, w, []row{
		{name: "nothing is parked", method: "GET", path: "/v1/parked?topic=orders", status: 200, want: []string{`{"items":[]}`}},
		{name: "nothing to send again", path: "/v1/parked:replay", body: `{"topic":"orders","all":true,"reason":"r"}`, status: 200, want: []string{`{"replayed":0,"groups":[],"more":false}`}},
	})
	w.must(201, "PUT", "/v1/topics/orders.parked", "")
	for i := range 4 {
		w.park("remit.push.crm", "k", fmt.Sprint("e", i), 1, i)
	}
	w.park("old", "k", "e4", 0, 4)
	w.append(log.Record{Partition: log.Partition{Topic: "orders.parked"}, Key: []byte("k"), Value: []byte("plain")})
	crm := `{"topic":"orders","partition":1,"offset":3,"parkedAt":"20`
	run(t, w, []row{
		{name: "list", method: "GET", path: "/v1/parked?topic=orders", status: 200, want: []string{crm,
			`"group":"remit.push.crm","subscription":"crm","reason":"the sink answered 422","attempts":7,"from":{"topic":"orders","partition":1,"offset":3},"key":"k","event":{"specversion":"1.0","id":"e3"`,
			`"group":"old","reason"`, `"key":"k","record":{"key":"k","value":"plain","why":"log: not a CloudEvent`}},
		{name: "of a subscription", method: "GET", path: "/v1/parked?subscription=crm&pageSize=1", status: 200, want: []string{crm, `"nextPageToken"`}},
		{name: "of a group", method: "GET", path: "/v1/parked?topic=orders&group=old", status: 200, want: []string{`{"items":[{"topic":"orders","partition":0,"offset":0`}},
		{name: "of both", method: "GET", path: "/v1/parked?subscription=crm&group=old", status: 400, want: []string{`"parameter":"group"`}},
		{name: "of nothing", method: "GET", path: "/v1/parked", status: 400, want: []string{`"parameter":"topic"`}},
		{name: "of a subscription that is not there", method: "GET", path: "/v1/parked?subscription=x", status: 400, want: []string{`"parameter":"topic"`}},
		{name: "of no topic", method: "GET", path: "/v1/parked?topic=x", status: 404, want: []string{`"code":"unknown_topic"`}},
		{name: "not as it should be", method: "GET", path: "/v1/parked?topic=orders&replayed=maybe", status: 400, want: []string{`"parameter":"replayed"`}},
		{name: "another list's page", method: "GET", path: "/v1/parked?topic=orders&pageToken=AAAA", status: 400, want: []string{`"parameter":"pageToken"`}},
		{name: "show", method: "GET", path: "/v1/parked/orders/1/3", status: 200, want: []string{crm}},
		{name: "show what is not there", method: "GET", path: "/v1/parked/orders/1/4", status: 404, want: []string{`"code":"not_found"`}},
		{name: "show no place", method: "GET", path: "/v1/parked/orders/one/4", status: 404},

		{name: "without a reason", path: "/v1/parked:replay", body: `{"topic":"orders","all":true}`, status: 400, want: []string{`"field":"reason"`}},
		{name: "too long a reason", path: "/v1/parked:replay", body: `{"topic":"orders","all":true,"reason":"` + strings.Repeat("r", 1025) + `"}`, status: 400, want: []string{`"field":"reason"`}},
		{name: "without a topic", path: "/v1/parked:replay", body: `{"all":true,"reason":"r"}`, status: 400, want: []string{`"field":"topic"`}},
		{name: "of what", path: "/v1/parked:replay", body: `{"topic":"orders","reason":"r"}`, status: 400, want: []string{`"field":"positions"`}},
		{name: "of both ", path: "/v1/parked:replay", body: `{"topic":"orders","reason":"r","all":true,"positions":[{"partition":1,"offset":0}]}`, status: 400, want: []string{`"field":"all"`}},
		{name: "of too many", path: "/v1/parked:replay", body: `{"topic":"orders","reason":"r","positions":[` + strings.Repeat(`{"partition":1,"offset":0},`, 1000) + `{"partition":1,"offset":0}]}`, status: 400, want: []string{`"field":"positions"`}},
		{name: "of whom", path: "/v1/parked:replay", body: `{"topic":"orders","reason":"r","all":true,"subscription":"crm","group":"old"}`, status: 400, want: []string{`"field":"group"`}},
		{name: "what is not there", path: "/v1/parked:replay", body: `{"topic":"orders","reason":"r","positions":[{"partition":1,"offset":0},{"partition":1,"offset":9}]}`, status: 404},
		{name: "to nobody", path: "/v1/parked:replay", body: `{"topic":"orders","reason":"r","positions":[{"partition":1,"offset":0},{"partition":0,"offset":0}]}`, status: 409, want: []string{`"code":"not_replayable"`, "Options.Replays"}},
		{name: "what is no event", path: "/v1/parked:replay", body: `{"topic":"orders","reason":"r","positions":[{"partition":0,"offset":1}]}`, status: 409, want: []string{`"code":"not_replayable"`}},
		{name: "what it does not know", path: "/v1/parked:replay", body: `{"topic":"orders","reason":"r","everything":true}`, status: 400, want: []string{`"code":"unknown_field"`}},
		{name: "one", path: "/v1/parked:replay", body: `{"topic":"orders","reason":"mended","positions":[{"partition":1,"offset":2}]}`, status: 200,
			want: []string{`{"replayed":1,"groups":[{"group":"remit.push.crm","subscription":"crm","records":1}],"more":false}`}},
		{name: "it is shown", method: "GET", path: "/v1/parked/orders/1/2", status: 200, want: []string{`"replayed":{"at":"20`, `"by":"operator","reason":"mended","done":true}`}},
		{name: "all the others", path: "/v1/parked:replay", body: `{"topic":"orders","reason":"mended","all":true,"subscription":"crm"}`, status: 200,
			want: []string{`{"replayed":3,"groups":[{"group":"remit.push.crm","subscription":"crm","records":3}],"more":false}`}},
		{name: "they wait", method: "GET", path: "/v1/parked/orders/1/1", status: 200, want: []string{`"reason":"mended","done":false}`}},
		{name: "none is left", path: "/v1/parked:replay", body: `{"topic":"orders","reason":"mended","all":true}`, status: 200,
			want: []string{`{"replayed":0,"groups":[],"left":[{"records":1,"why":"parked: it cannot be sent again`, `{"group":"old","records":1,"why":"parked: nobody would take it: group old`}},
		{name: "that were sent again", method: "GET", path: "/v1/parked?topic=orders&replayed=false&group=remit.push.crm", status: 200, want: []string{`{"items":[]}`}},
	})
	ids := []string{}
	records, err := w.log.Read(t.Context(), log.Partition{Topic: "orders.replay", Index: 1}, 0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		e, err := consumers.Original(r)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, e.ID)
	}
	if got := strings.Join(ids, " "); got != "e2 e0 e1 e3" {
		t.Errorf("sent again: %s", got)
	}
}

// TestSubscriptionStatus: how a subscription stands is shown and listed; one that is paused goes on when a person says why.
func TestSubscriptionStatus(t *testing.T) {
	w := newWorld(t)
	w.must(201, "PUT", "/v1/topics/orders", "")
	a := w.must(201, "PUT", "/v1/subscriptions/crm", `{"topic":"orders","sink":"https://crm.example/in"}`)
	if strings.Contains(a.body, `"status"`) {
		t.Errorf("what was just put stands already: %s", a.body)
	}
	const path = "/v1/subscriptions/crm"
	run(t, w, []row{{name: "not known yet", method: "GET", path: path, status: 200, want: []string{`"status":{"state":"asking","lag":0,"replaysWaiting":0,"counts":{"delivered":0,"failures":0,"filtered":0,"unfiltered":0,"parked":0,"missed":0},"failingKeys":0}}`}}})
	at := time.Date(2026, 1, 2, 3, 4, 5, 999_999, time.UTC)
	w.push["crm"] = push.Status{State: push.StatePaused, Since: at, Why: "410", Consent: push.Consent{Granted: true, PerMinute: 60}, ConsentAt: at, Lag: 5, Replays: 2,
		Delivered: 1, Failed: 2, Skipped: 3, Unfiltered: 4, Parked: 5, Missed: 6, LastError: "the sink answered 410 Gone", LastErrorAt: at, FailingKeys: 1,
		Failing: []push.Failing{{Key: "k", At: log.Partition{Topic: "orders", Index: 1}, Offset: 7, EventID: "e", Attempts: 3, Since: at, Error: "no"}}}
	const status = `"status":{"state":"paused","since":"2026-01-02T03:04:05.000Z","why":"410","consent":{"granted":true,"at":"2026-01-02T03:04:05.000Z","ratePerMinute":60},"lag":5,"replaysWaiting":2,` +
		`"counts":{"delivered":1,"failures":2,"filtered":3,"unfiltered":4,"parked":5,"missed":6},"lastError":{"at":"2026-01-02T03:04:05.000Z","error":"the sink answered 410 Gone"},"failingKeys":1,` +
		`"failing":[{"key":"k","topic":"orders","partition":1,"offset":7,"eventId":"e","attempts":3,"since":"2026-01-02T03:04:05.000Z","error":"no"}]}`
	run(t, w, []row{
		{name: "show", method: "GET", path: path, status: 200, want: []string{status}},
		{name: "list", method: "GET", path: "/v1/subscriptions", status: 200, want: []string{status}},
		{name: "resume without a reason", path: path + "/resume", body: `{"reason":" "}`, status: 400, want: []string{`"field":"reason"`}},
		{name: "too long a reason", path: path + "/resume", body: `{"reason":"` + strings.Repeat("r", 1025) + `"}`, status: 400, want: []string{`"field":"reason"`}},
		{name: "resume nothing", path: "/v1/subscriptions/x/resume", body: `{"reason":"r"}`, status: 404, want: []string{`"code":"unknown_subscription"`}},
		{name: "resume", path: path + "/resume", body: `{"reason":"it is served again"}`, status: 200, want: []string{`"state":"asking"`}},
	})
	_, end, err := w.log.Bounds(t.Context(), log.Partition{Topic: log.RegistryTopic})
	if err != nil {
		t.Fatal(err)
	}
	records, err := w.log.Read(t.Context(), log.Partition{Topic: log.RegistryTopic}, end-1, 1)
	if err != nil {
		t.Fatal(err)
	}
	if e, err := log.ParseRecord(records[0]); err != nil || e.Type != "remit.subscription.resumed.v1" || string(e.Data) != `{"name":"crm","by":"operator","reason":"it is served again"}` {
		t.Errorf("%+v %s, %v", e, e.Data, err)
	}
}
