package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/remitlog/remit/cmd/remit/api"
	"github.com/remitlog/remit/cmd/remit/demo"
	"github.com/remitlog/remit/cmd/remit/torture"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/saga/payments"
)

// heard is an event as it is read from a topic.
type heard struct {
	*log.Event
	topic string
	data  map[string]any
}

// TestEventsKeepTheirSchemas lives a small life over HTTP, reads every event of every topic, and holds each that remit tells the world
// against the schema that is served for it.
func TestEventsKeepTheirSchemas(t *testing.T) {
	client, err := (&app{server: startServer(t)}).client()
	if err != nil {
		t.Fatal(err)
	}
	live(t, client)
	if orders := keepSchemas(t, client); orders != 1 {
		t.Errorf("%d messages, want the committed one", orders)
	}
}

// TestDemoKeepsItsSchemas does the same with every event that a demo delivers.
func TestDemoKeepsItsSchemas(t *testing.T) {
	t.Setenv(beRemit, "1")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	shown := false
	_, err = demo.Run(t.Context(), demo.Options{
		Dir: t.TempDir(), Seed: 4, Payments: 300, Say: t.Logf, Progress: func(int, int) {}, Server: torture.Options{Binary: self},
		Show: func(_ context.Context, s demo.Shown) error {
			client, err := (&app{server: s.URL}).client()
			if err == nil {
				shown = true
				keepSchemas(t, client)
			}
			return err
		},
	})
	if err != nil || !shown {
		t.Error(err, shown)
	}
}

// beRemit makes the test's program remit.
const beRemit = "TEST_IS_REMIT"

func TestMain(m *testing.M) {
	if os.Getenv(beRemit) != "" {
		os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// keepSchemas holds all that a server's topics have against the schemas, and returns how many messages there are on topic orders.
func keepSchemas(t *testing.T, client *client) (orders int) {
	t.Helper()
	types := map[string]heard{}
	for _, e := range readAll(t, client) {
		what := fmt.Sprintf("%s: %s %s with the schema %q: %v", e.topic, e.Type, e.ID, e.DataSchema, e.data)
		switch e.topic {
		case log.EventsTopic: // remit's own story does not leave it
			if e.DataSchema != "" {
				t.Errorf("%s: it needs none", what)
			}
		case "orders": // as it was sent
			orders++
			if e.Type != "com.example.order" || e.DataSchema != "" || e.data["n"] != 1.0 {
				t.Errorf("%s: that was not sent", what)
			}
		default:
			types[e.Type] = e
			if e.DataSchema != api.SchemaPath(e.Type) {
				t.Errorf("%s: it is %s", what, api.SchemaPath(e.Type))
			} else if err := schemaOf(t, client, e).Validate(e.data); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	var want []string
	for _, f := range payments.Told() {
		want = append(want, f.Type)
	}
	if got := slices.Sorted(maps.Keys(types)); !slices.Equal(got, slices.Sorted(slices.Values(want))) {
		t.Errorf("remit told of %v, not of all of %v", got, want)
	}
	for _, e := range types {
		schemaBites(t, schemaOf(t, client, e), e)
	}
	return orders
}

// live does one of everything: paid, refused, captured, voided and refunded, by name and by id, and messages.
func live(t *testing.T, client *client) {
	t.Helper()
	call := func(status int, method, path, contentType, body string) {
		t.Helper()
		resp, err := client.send(t.Context(), method, path, contentType, strings.NewReader(body))
		if refused, ok := errors.AsType[*apiError](err); ok && refused.Status == status {
			return
		}
		if err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != status {
			t.Fatalf("%s %s: %d, want %d", method, path, resp.StatusCode, status)
		}
	}
	post := func(status int, path, body string) { call(status, "POST", path, "application/json", body) }
	pay := func(status int, id, amount, rest string) {
		post(status, "/v1/payments", fmt.Sprintf(`{"id":%q,"payer":"alice","payee":"shop","amount":%q,"currency":"EUR"%s}`, id, amount, rest))
	}
	for _, account := range []string{"alice", "shop"} {
		call(201, "PUT", "/v1/accounts/"+account, "application/json", `{"currency":"EUR"}`)
	}
	post(201, "/v1/accounts/alice/deposits", `{"id":"d1","amount":"100"}`)
	pay(201, "p1", "12.50", `,"reference":"cart"`)
	pay(201, log.NewID(time.Now(), "alice").String(), "1", "")
	pay(402, "r1", "1000", "")
	pay(201, "h1", "5", `,"capture":"manual"`)
	post(200, "/v1/payments/h1/capture", `{"amount":"3"}`)
	pay(201, "h2", "5", `,"capture":"manual"`)
	post(200, "/v1/payments/h2/void", `{}`)
	post(201, "/v1/payments/p1/refunds", `{"id":"f1","amount":"2.50"}`)
	post(201, "/v1/accounts/shop/withdrawals", `{"id":"w1","amount":"14"}`)
	post(402, "/v1/payments/p1/refunds", `{"id":"f2","amount":"10"}`)

	call(201, "PUT", "/v1/producers/shop", "application/json", `{}`)
	event := func(id string) string {
		return `{"specversion":"1.0","type":"com.example.order","source":"/orders","id":"` + id + `","data":{"n":1}}`
	}
	message := log.NewID(time.Now(), "m1").String()
	own := strings.Replace(event("m1"), `"id"`, `"remitid":"`+message+`","id"`, 1)
	call(201, "POST", "/v1/topics/orders/messages?producer=shop", log.StructuredContentType, own)
	post(200, "/v1/messages/"+message+"/commit", `{}`)
	call(201, "POST", "/v1/topics/orders/messages?producer=shop", log.StructuredContentType, event("m2"))
}

// readAll reads every topic that is read over HTTP, to its end.
func readAll(t *testing.T, client *client) (all []heard) {
	t.Helper()
	get := func(path string, out any) {
		t.Helper()
		if _, err := client.call(t.Context(), "GET", path, nil, out); err != nil {
			t.Fatal(err)
		}
	}
	var topics api.List[api.Topic]
	get("/v1/topics?pageSize=1000", &topics)
	for _, topic := range topics.Items {
		if topic.Topic == log.RegistryTopic { // it is not read: it holds secrets
			continue
		}
		for p := range topic.Partitions {
			path := fmt.Sprintf("/v1/topics/%s/events?partition=%d&pageSize=1000", topic.Topic, p)
			var events api.TopicEvents
			for get(path, &events); len(events.Items) > 0; get(fmt.Sprintf("%s&from=%d", path, events.Next), &events) {
				for _, item := range events.Items {
					all = append(all, heardOf(t, topic.Topic, item))
				}
				events = api.TopicEvents{Next: events.Next}
			}
		}
	}
	return all
}

func heardOf(t *testing.T, topic string, item api.TopicEvent) heard {
	t.Helper()
	if item.Event == nil {
		t.Fatalf("%s: no event: %+v", topic, item)
	}
	e := heard{Event: item.Event, topic: topic}
	if err := json.Unmarshal(e.Data, &e.data); err != nil {
		t.Fatalf("%s: %+v: %v", topic, e.Event, err)
	}
	return e
}

// schemaOf fetches the schema that an event names.
func schemaOf(t *testing.T, client *client, e heard) *jsonschema.Resolved {
	t.Helper()
	resp, err := client.send(t.Context(), http.MethodGet, e.DataSchema, "", nil)
	if err != nil {
		t.Fatalf("%s: %v", e.Type, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var schema jsonschema.Schema
	if err := json.Unmarshal(b, &schema); err != nil {
		t.Fatalf("%s: %v in %s", e.Type, err, b)
	}
	resolved, err := schema.Resolve(nil)
	if err != nil {
		t.Fatalf("%s: %v in %s", e.Type, err, b)
	}
	return resolved
}

// schemaBites: an event without a field that it must have, or with one of another kind, is not taken.
func schemaBites(t *testing.T, schema *jsonschema.Resolved, e heard) {
	t.Helper()
	for field := range e.data {
		other := maps.Clone(e.data)
		if other[field] = 1.0; schema.Validate(other) == nil {
			t.Errorf("%s: a number is taken for %s", e.Type, field)
		}
		delete(other, field)
		if optional := field == "name" || field == "reference"; (schema.Validate(other) == nil) != optional {
			t.Errorf("%s without %s: %v", e.Type, field, schema.Validate(other))
		}
	}
}
