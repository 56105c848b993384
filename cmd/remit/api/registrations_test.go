package api_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/remitlog/remit/cmd/remit/api"
	"github.com/remitlog/remit/log/registry"
	"github.com/remitlog/remit/log/when"
)

// TestProducerRegistrations proves what api.md says of producers, beside what TestTopicsAndProducers does, and of their instances.
func TestProducerRegistrations(t *testing.T) {
	w := newWorld(t)
	const shop, one = "/v1/producers/shop", "/v1/producers/shop/instances/one"
	check := func(rest string) string { return `{"check":{"url":"https://shop.example/check"` + rest + `}}` }
	pre := func(rest string) string { return `{"precheck":{"url":"https://shop.example/pre"` + rest + `}}` }
	run(t, w, []row{
		{name: "all of it", method: "PUT", path: shop, body: `{"check":{"url":"https://shop.example/check","secret":"a","firstAfter":"1s","interval":"2s","maxInterval":"3s","deadline":"1h","when":"remitage > 5","concurrency":4,"rate":100},"precheck":{"url":"https://shop.example/pre","secret":"b","when":"true"}}`, status: 201,
			want: []string{`{"producer":"shop","check":{"url":"https://shop.example/check","secretSet":true,"firstAfter":"1s","interval":"2s","maxInterval":"3s","deadline":"1h","when":"remitage > 5","concurrency":4,"rate":100},"precheck":{"url":"https://shop.example/pre","secretSet":true,"when":"true"}}`}},
		{name: "as it is shown", method: "GET", path: shop, status: 200, want: []string{`"concurrency":4,"rate":100},"precheck":{"url":"https://shop.example/pre","secretSet":true,"when":"true"}}`}},
		{name: "what is not given is taken away, secrets aside", method: "PUT", path: shop, body: `{"check":{"url":"https://shop.example/check"},"precheck":{"url":"https://shop.example/pre"}}`, status: 200,
			want: []string{`"deadline":"24h"},"precheck":{"url":"https://shop.example/pre","secretSet":true}}`}},
		{name: "a pre-check alone", method: "PUT", path: shop, body: pre(`,"secret":""`), status: 200, want: []string{`{"producer":"shop","precheck":{"url":"https://shop.example/pre","secretSet":false}}`}},
		{name: "a check that goes takes its secret along", method: "PUT", path: shop, body: check(""), status: 200, want: []string{`"secretSet":false`}},
		{name: "instances alone", method: "PUT", path: shop, body: `{"check":{"secret":"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}}`, status: 200, want: []string{`"check":{"secretSet":true,"firstAfter":"10s"`}},
		{name: "a secret that is no base64", method: "PUT", path: shop, body: check(`,"secret":"whsec_***"`), status: 400, want: []string{`"field":"check.secret"`, "base64"}},
		{name: "a secret with a line break", method: "PUT", path: shop, body: check(`,"secret":"a\n"`), status: 400, want: []string{`"field":"check.secret"`, "line break"}},
		{name: "too long a secret", method: "PUT", path: shop, body: pre(`,"secret":"` + strings.Repeat("x", api.SecretMax+1) + `"`), status: 400, want: []string{`"field":"precheck.secret"`}},
		{name: "a secret of another type", method: "PUT", path: shop, body: check(`,"secret":7`), status: 400, want: []string{`"field":"check.secret"`}},
		{name: "no concurrency", method: "PUT", path: shop, body: check(`,"concurrency":0`), status: 400, want: []string{`"field":"check.concurrency"`, "1 to 1024"}},
		{name: "too high a rate", method: "PUT", path: shop, body: check(`,"rate":100001`), status: 400, want: []string{`"field":"check.rate"`}},
		{name: "a user in the address", method: "PUT", path: shop, body: `{"check":{"url":"https://me:hidden@shop.example/"}}`, status: 400, want: []string{`"field":"check.url"`, "the secret"}},
		{name: "another scheme", method: "PUT", path: shop, body: `{"precheck":{"url":"ftp://shop.example/"}}`, status: 400, want: []string{`"field":"precheck.url"`}},
		{name: "no host", method: "PUT", path: shop, body: `{"precheck":{"url":"http://:80/"}}`, status: 400, want: []string{`"field":"precheck.url"`}},
		{name: "no address", method: "PUT", path: shop, body: `{"precheck":{}}`, status: 400, want: []string{`"field":"precheck.url"`, "missing"}},
		{name: "too long an address", method: "PUT", path: shop, body: `{"check":{"url":"https://shop.example/` + strings.Repeat("x", api.URLMax) + `"}}`, status: 400, want: []string{`"field":"check.url"`}},
		{name: "too long a condition", method: "PUT", path: shop, body: check(`,"when":"` + strings.Repeat("x", when.TextMax+1) + `"`), status: 400, want: []string{`"field":"check.when"`}},
		{name: "a longest pause of nothing", method: "PUT", path: shop, body: check(`,"interval":"0s"`), status: 400, want: []string{`"field":"check.interval"`}},
		{name: "nothing of it was taken", method: "GET", path: shop, status: 200, want: []string{`"check":{"secretSet":true,"firstAfter":"10s"`}},

		{name: "an instance", method: "PUT", path: one, body: `{"url":"http://10.0.0.1:8080/check"}`, status: 201, want: []string{`{"producer":"shop","instance":"one","url":"http://10.0.0.1:8080/check","lease":"30s"}`}},
		{name: "renewed", method: "PUT", path: one, body: `{"url":"http://10.0.0.1:8080/check","lease":"30s"}`, status: 200},
		{name: "with another address", method: "PUT", path: one, body: `{"url":"http://10.0.0.2:8080/check","lease":"1h"}`, status: 200, want: []string{`"lease":"1h"`}},
		{name: "shown", method: "GET", path: one, status: 200, want: []string{`{"producer":"shop","instance":"one","url":"http://10.0.0.2:8080/check","lease":"1h"}`}},
		{name: "another", method: "PUT", path: "/v1/producers/shop/instances/a.2~b:c", body: `{"url":"http://10.0.0.3/check"}`, status: 201},
		{name: "listed", method: "GET", path: "/v1/producers/shop/instances?pageSize=1", status: 200, want: []string{`"items":[{"producer":"shop","instance":"a.2~b:c"`, `"nextPageToken"`}},
		{name: "too short a lease", method: "PUT", path: one, body: `{"url":"http://10.0.0.1/","lease":"999ms"}`, status: 400, want: []string{`"field":"lease"`, "1s to 24h"}},
		{name: "too long a lease", method: "PUT", path: one, body: `{"url":"http://10.0.0.1/","lease":"25h"}`, status: 400, want: []string{`"field":"lease"`}},
		{name: "no address", method: "PUT", path: one, body: `{}`, status: 400, want: []string{`"field":"url"`}},
		{name: "no body", method: "PUT", path: one, status: 415},
		{name: "no name", method: "PUT", path: "/v1/producers/shop/instances/a%2Fb", body: `{"url":"http://10.0.0.1/"}`, status: 400, want: []string{`"code":"invalid_id"`, `"field":"instance"`}},
		{name: "of nobody", method: "PUT", path: "/v1/producers/nobody/instances/a", body: `{"url":"http://10.0.0.1/"}`, status: 404, want: []string{`"code":"unknown_producer"`}},
		{name: "list of nobody", method: "GET", path: "/v1/producers/nobody/instances", status: 404, want: []string{`"code":"unknown_producer"`}},
		{name: "get of nobody", method: "GET", path: "/v1/producers/nobody/instances/a", status: 404, want: []string{`"code":"unknown_producer"`}},
		{name: "get none", method: "GET", path: "/v1/producers/shop/instances/two", status: 404, want: []string{`"code":"unknown_instance"`}},
		{name: "it leaves", method: "DELETE", path: one, status: 204},
		{name: "it leaves again", method: "DELETE", path: one, status: 404, want: []string{`"code":"unknown_instance"`}},
		{name: "they go with their producer", method: "DELETE", path: shop, status: 204},
		{name: "and so does the list", method: "GET", path: "/v1/producers/shop/instances", status: 404},
		{name: "the producer again", method: "PUT", path: shop, status: 201},
		{name: "has none", method: "GET", path: "/v1/producers/shop/instances", status: 200, want: []string{`{"items":[]}`}},
	})
	for i := range registry.InstancesMax {
		w.must(201, "PUT", fmt.Sprintf("/v1/producers/shop/instances/%d", i), `{"url":"http://10.0.0.1/"}`)
	}
	run(t, w, []row{{name: "one too many", method: "PUT", path: one, body: `{"url":"http://10.0.0.1/"}`, status: 409, want: []string{`"code":"registration_limit"`, `"retryable":false`, fmt.Sprint(registry.InstancesMax, " instances")}}})
}

// TestAddressesAtTheDoor: what can never be called is refused where it is registered; what a name leads to, and whether this machine and private
// networks are called, is another matter.
func TestAddressesAtTheDoor(t *testing.T) {
	w := newWorld(t)
	w.must(201, "PUT", "/v1/topics/orders", "")
	w.must(201, "PUT", "/v1/producers/shop", "")
	doors := []struct{ field, path, body string }{
		{"check.url", "/v1/producers/shop", `{"check":{"url":%q}}`},
		{"precheck.url", "/v1/producers/shop", `{"precheck":{"url":%q}}`},
		{"url", "/v1/producers/shop/instances/one", `{"url":%q}`},
		{"sink", "/v1/subscriptions/crm", `{"topic":"orders","sink":%q}`},
	}
	for _, c := range []struct{ address, says string }{
		{"http://shop.example:0/", "1 to 65535"}, {"http://shop.example:65536/", "1 to 65535"}, {"http://shop.example:99999999999999999999/", "1 to 65535"},
		{"http://shop.example:http/", "not an address"}, {"http://shop.example:-1/", "not an address"}, {"http://shop.example:1", ""}, {"http://shop.example:65535", ""}, {"http://shop.example:/", ""},
		{"http:///check", "not an address"}, {"http://:80/", "not an address"}, {"http:shop.example", "not an address"}, {"shop.example:80", "not an address"}, {"//shop.example/", "not an address"},
		{"ws://shop.example/", "not an address"}, {"file:///etc/passwd", "not an address"}, {"HTTPS://shop.example/", ""},
		{"http://me@shop.example/", "a user in it"}, {"http://shop.example/#", ""}, {"http://me:hidden@shop.example:http/", "not an address"}, {"http://shop.example/#in", "fragment"}, {"http://shop.example/%23in?a=b", ""},
		{"http://0.0.0.0/", "never called"}, {"http://[::]:80/", "never called"}, {"http://224.0.0.1/", "never called"}, {"http://[ff02::1]/", "never called"}, {"http://255.255.255.255/", "never called"},
		{"http://169.254.169.254/", "never called"}, {"http://[fe80::1]/", "never called"}, {"http://[fe80::1%25eth0]/", "never called"}, {"http://[::ffff:0.0.0.0]/", "never called"}, {"http://100.100.100.200/", "metadata"},
		{"http://127.0.0.1:7000/", ""}, {"http://[::1]/", ""}, {"http://10.0.0.1/", ""}, {"http://192.168.1.1/", ""}, {"http://[fd00::1]/", ""}, {"http://localhost/", ""}, {"http://1.1.1.1/", ""},
	} {
		for _, d := range doors {
			r := row{name: d.field + " " + c.address, method: "PUT", path: d.path, body: fmt.Sprintf(d.body, c.address), status: 400}
			r.want = []string{`"code":"invalid_field"`, `"field":"` + d.field + `"`, c.says}
			if c.says != "" {
				r.run(t, w)
			} else if a := w.call(r.method, r.path, r.body); a.status >= 300 {
				t.Errorf("%s: %d %s", r.name, a.status, a.body)
			}
		}
	}
}

// TestSubscriptions proves what api.md says of subscriptions, as far as that is registering them.
func TestSubscriptions(t *testing.T) {
	w := newWorld(t)
	w.must(201, "PUT", "/v1/topics/orders", "")
	const crm = "/v1/subscriptions/crm"
	sub := func(rest string) string { return `{"topic":"orders","sink":"https://crm.example/in"` + rest + `}` }
	run(t, w, []row{
		{name: "none", method: "GET", path: "/v1/subscriptions", status: 200, want: []string{`{"items":[]}`}},
		{name: "of no topic", method: "PUT", path: crm, body: strings.Replace(sub(""), "orders", "nothing", 1), status: 404, want: []string{`"code":"unknown_topic"`, `"field":"topic"`, "remit log topics create"}},
		{name: "register", method: "PUT", path: crm, body: sub(""), status: 201, want: []string{`{"subscription":"crm","topic":"orders","sink":"https://crm.example/in","secretSet":false,"from":"latest","retry":{"interval":"1s","maxInterval":"10m","deadline":"24h"},"registeredAt":"20`}},
		{name: "register again", method: "PUT", path: crm, body: sub(`,"from":"latest"`), status: 200},
		{name: "register anew", method: "PUT", path: crm, body: sub(`,"secret":"s","filter":"type = 'x'","retry":{"interval":"100ms","maxInterval":"1s","deadline":"1m"}`), status: 200, want: []string{`"secretSet":true,"filter":"type = 'x'"`, `"retry":{"interval":"100ms","maxInterval":"1s","deadline":"1m"}`}},
		{name: "the secret stays", method: "PUT", path: crm, body: sub(""), status: 200, want: []string{`"secretSet":true,"from"`}},
		{name: "the secret goes", method: "PUT", path: crm, body: sub(`,"secret":""`), status: 200, want: []string{`"secretSet":false`}},
		{name: "another topic", method: "PUT", path: crm, body: strings.Replace(sub(""), "orders", "payments", 1), status: 409, want: []string{`"code":"content_mismatch"`, `"field":"topic"`, `"recorded":"orders"`, "register another one"}},
		{name: "another beginning", method: "PUT", path: crm, body: sub(`,"from":"earliest"`), status: 409, want: []string{`"field":"from"`, `"recorded":"latest"`}},
		{name: "from the beginning", method: "PUT", path: "/v1/subscriptions/all", body: `{"topic":"payments","sink":"http://127.0.0.1/","from":"earliest"}`, status: 201, want: []string{`"from":"earliest"`}},
		{name: "from the middle", method: "PUT", path: crm, body: sub(`,"from":"middle"`), status: 400, want: []string{`"field":"from"`}},
		{name: "remit's own story", method: "PUT", path: "/v1/subscriptions/own", body: strings.Replace(sub(""), "orders", "remit.events", 1), status: 403, want: []string{`"code":"forbidden"`, `"field":"topic"`}},
		{name: "remit's secrets", method: "PUT", path: "/v1/subscriptions/own", body: strings.Replace(sub(""), "orders", "remit.registry", 1), status: 403},
		{name: "no topic", method: "PUT", path: crm, body: `{"sink":"https://crm.example/in"}`, status: 400, want: []string{`"field":"topic"`}},
		{name: "no sink", method: "PUT", path: crm, body: `{"topic":"orders"}`, status: 400, want: []string{`"field":"sink"`}},
		{name: "no address", method: "PUT", path: crm, body: `{"topic":"orders","sink":"crm"}`, status: 400, want: []string{`"field":"sink"`}},
		{name: "intervals crossed", method: "PUT", path: crm, body: sub(`,"retry":{"interval":"2s","maxInterval":"1s"}`), status: 400, want: []string{`"field":"retry.maxInterval"`}},
		{name: "no condition", method: "PUT", path: crm, body: sub(`,"filter":"type = "`), status: 400, want: []string{`"field":"filter"`, "character 8"}},
		{name: "no second try", method: "PUT", path: crm, body: sub(`,"retry":{"interval":"2s","deadline":"1s"}`), status: 400, want: []string{`"field":"retry.deadline"`}},
		{name: "no pause", method: "PUT", path: crm, body: sub(`,"retry":{"interval":"0s"}`), status: 400, want: []string{`"field":"retry.interval"`}},
		{name: "no name", method: "PUT", path: "/v1/subscriptions/a%20b", body: sub(""), status: 400, want: []string{`"code":"invalid_id"`, `"field":"subscription"`}},
		{name: "what it does not know", method: "PUT", path: crm, body: sub(`,"url":"x"`), status: 400, want: []string{`"code":"unknown_field"`}},
		{name: "no body", method: "PUT", path: crm, status: 415},
		{name: "show", method: "GET", path: crm, status: 200, want: []string{`"secretSet":false,"from":"latest"`}},
		{name: "show nothing", method: "GET", path: "/v1/subscriptions/x", status: 404, want: []string{`"code":"unknown_subscription"`}},
		{name: "list", method: "GET", path: "/v1/subscriptions?pageSize=1", status: 200, want: []string{`"items":[{"subscription":"all"`, `"nextPageToken"`}},
		{name: "its topic goes", method: "DELETE", path: "/v1/topics/orders", status: 204},
		{name: "it may still be changed", method: "PUT", path: crm, body: sub(`,"filter":"true"`), status: 200},
		{name: "remove", method: "DELETE", path: crm, status: 204},
		{name: "remove again", method: "DELETE", path: crm, status: 404, want: []string{`"code":"unknown_subscription"`}},
		{name: "now it is a new one", method: "PUT", path: crm, body: `{"topic":"payments","sink":"https://crm.example/in"}`, status: 201},
	})
}

// TestSecretsAreNotAnswered: no answer and no line of remit's own log has a secret in it, whatever is asked and however it fails.
func TestSecretsAreNotAnswered(t *testing.T) {
	w := newWorld(t)
	var logged bytes.Buffer // written by one call after the other
	nouns := api.Nouns{Log: w.log, Node: w.core.Node, Registry: w.core.Registry, Broker: w.core.Broker, Payments: w.core.Payments, Views: w.views, TopicPartitions: 2}
	s, err := api.New(api.Options{Routes: nouns.Routes(), Logger: slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	w.server.Close()
	w.server = httptest.NewServer(s)
	w.must(201, "PUT", "/v1/topics/orders", "")
	var answers strings.Builder
	ask := func(method, path, body string) {
		a := w.call(method, path, body)
		fmt.Fprintln(&answers, method, path, a.status, a.header, a.body)
	}
	for _, secret := range []string{`"hidden-1"`, `"hidden-2"`, `"whsec_hidden"`, `"hidden\n"`, `"hidden` + strings.Repeat("x", api.SecretMax) + `"`, `{"hidden":1}`, `"hidden`, `["hidden"]`} {
		for _, rest := range []string{``, `,"url":"hidden"`, `,"url":7`, `,"nosuch":1`, `,"secret":"hidden"`} {
			ask("PUT", "/v1/producers/shop", `{"check":{"url":"http://127.0.0.1/","secret":`+secret+rest+`}}`)
			ask("PUT", "/v1/producers/shop", `{"precheck":{"url":"http://127.0.0.1/","secret":`+secret+rest+`}}`)
			ask("PUT", "/v1/producers/shop", `{"check":{"secret":`+secret+`},"precheck":{"url":"http://127.0.0.1/","secret":`+secret+rest+`}}`)
			ask("PUT", "/v1/subscriptions/crm", `{"topic":"orders","sink":"http://127.0.0.1/","secret":`+secret+rest+`}`)
		}
		ask("PUT", "/v1/subscriptions/crm", `{"topic":"payments","sink":"http://127.0.0.1/","secret":`+secret+`}`)
	}
	w.must(200, "PUT", "/v1/producers/shop", `{"check":{"url":"http://127.0.0.1/","secret":"hidden-3"},"precheck":{"url":"http://127.0.0.1/","secret":"hidden-3"}}`)
	for _, r := range nouns.Routes() {
		if r.Method == "GET" {
			ask("GET", strings.NewReplacer("{producer}", "shop", "{subscription}", "crm", "{topic}", "remit.registry", "{any...}", "shop", "{id}", idFor("shop")).Replace(r.Pattern), "")
		}
	}
	ask("DELETE", "/v1/producers/shop", "")
	ask("DELETE", "/v1/subscriptions/crm", "")
	for what, text := range map[string]string{"answered": answers.String(), "logged": logged.String()} {
		for line := range strings.Lines(text) {
			if strings.Contains(strings.ReplaceAll(line, `\"hidden\" is not an address`, ""), "hidden") { // of a url, which is no secret
				t.Errorf("%s: %s", what, line)
			}
		}
	}
	if !strings.Contains(answers.String(), `"secretSet":true`) || logged.Len() == 0 {
		t.Errorf("nothing was answered, or logged: %d bytes", logged.Len())
	}
}

// TestUnreachable: messages of a producer that is removed stay as they are, are listed, and say that nobody can be asked.
func TestUnreachable(t *testing.T) {
	w := newWorld(t)
	w.must(201, "PUT", "/v1/topics/orders", "")
	const bare, checked, instances = "", `{"check":{"url":"http://127.0.0.1:1/"}}`, `{"check":{"firstAfter":"1h"}}`
	ids := map[string]string{}
	for name, body := range map[string]string{"bare": bare, "checked": checked, "instances": instances} {
		w.must(201, "PUT", "/v1/producers/"+name, body)
		ids[name] = idFor(name)
		w.must(201, "POST", "/v1/topics/orders/messages?producer="+name, event(name, `,"partitionkey":"`+name+`","remitid":"`+ids[name]+`"`), structured)
	}
	w.must(201, "PUT", "/v1/producers/instances/instances/a", `{"url":"http://127.0.0.1:1/"}`)
	expect := func(when string, want map[string]bool) {
		t.Helper()
		for name, unreachable := range want {
			text := fmt.Sprintf(`"unreachable":%t`, unreachable)
			one := w.must(200, "GET", "/v1/messages/"+ids[name], "")
			list := w.must(200, "GET", "/v1/messages?wait=10s&state=prepared&producer="+name+"&after="+one.header.Get(api.PositionHeader), "")
			for _, a := range []answer{one, list} {
				if !strings.Contains(a.body, text) || !strings.Contains(a.body, `"state":"prepared"`) {
					t.Errorf("%s: %s has no %s: %s", when, name, text, a.body)
				}
			}
		}
	}
	expect("at first", map[string]bool{"bare": true, "checked": false, "instances": false})
	w.must(204, "DELETE", "/v1/producers/checked", "")
	w.must(204, "DELETE", "/v1/producers/instances", "")
	expect("removed", map[string]bool{"checked": true, "instances": true})
	w.must(201, "PUT", "/v1/producers/checked", checked)
	w.must(201, "PUT", "/v1/producers/instances", instances)
	expect("registered again", map[string]bool{"checked": false, "instances": true})
	w.must(204, "DELETE", "/v1/producers/checked", "")
	w.must(200, "POST", "/v1/messages/"+ids["checked"]+"/commit", "")
	if a := w.must(200, "GET", "/v1/messages/"+ids["checked"], ""); !strings.Contains(a.body, `"unreachable":false`) {
		t.Errorf("one that has ended: %s", a.body)
	}
}

// TestLeaseOverHTTP: a lease that is not renewed ends, and its instance is not there any more.
func TestLeaseOverHTTP(t *testing.T) {
	w := newWorld(t)
	w.must(201, "PUT", "/v1/producers/shop", "")
	w.must(201, "PUT", "/v1/producers/shop/instances/a", `{"url":"http://127.0.0.1:1/","lease":"1s"}`)
	timeout := time.After(time.Minute)
	for {
		changed := w.core.Registry.Changed()
		if len(w.core.Registry.Instances("shop")) == 0 {
			break
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatal("a lease of a second has not ended within a minute")
		}
	}
	w.must(404, "GET", "/v1/producers/shop/instances/a", "")
	w.must(201, "PUT", "/v1/producers/shop/instances/a", `{"url":"http://127.0.0.1:1/","lease":"1s"}`)
}
