package main

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/remitlog/remit/cmd/remit/api"
	"github.com/remitlog/remit/log"
)

// startServer runs remit in a directory of its own, and returns its address.
func startServer(t *testing.T) string { return startServerIn(t, t.TempDir()) }

func startServerIn(t *testing.T, data string) string {
	t.Helper()
	config := Config{Data: data, Partitions: 4, AutoCreateTopics: true, CallsTo: []string{toLoopback}}
	n, err := open(t.Context(), config, nodeDeps{Logger: slog.New(slog.DiscardHandler), Fail: func(err error) { t.Errorf("failed: %v", err) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for n.Ready() != nil {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal(n.Ready())
		}
	}
	web := httptest.NewServer(n.Handler())
	t.Cleanup(web.Close)
	return web.URL
}

// TestNouns runs each command against a server: what it prints, and how it exits.
func TestNouns(t *testing.T) {
	environ := []string{"REMIT_SERVER=" + startServer(t)}
	for _, c := range []struct {
		args           string
		code           int
		stdout, stderr string // parts, parted by |
	}{
		{"accounts open alice --currency EUR", exitOK, "account       alice|balance       0.00", ""},
		{"accounts open alice --currency USD", exitConflict, "", "content_mismatch, 409"},
		{"accounts open", exitUsage, "", "accepts 1 arg(s)"},
		{"accounts open bob", exitUsage, "", `required flag(s) "currency" not set`},
		{"accounts open bob --currency euro", exitUsage, "", "invalid_field, 400"},
		{"accounts open shop --currency EUR -o json", exitOK, `{"account":"shop","currency":"EUR"`, ""},
		{"accounts deposit alice --id d1 --amount 100.00", exitOK, "balance  100.00", ""},
		{"accounts deposit alice --amount 1", exitOK, "balance  101.00", "give it as --id"},
		{"accounts withdraw alice --id w1 --amount 1", exitOK, "balance  100.00", ""},
		{"accounts withdraw alice --id w2 --amount 1000", exitError, "", "insufficient_funds, 402"},
		{"accounts get alice -o jsonl", exitOK, `"balance":"100.00"`, ""},
		{"accounts get nobody", exitNotFound, "", `no account "nobody"`},
		{"accounts set alice --credit-limit 5", exitOK, "credit limit  5.00", ""},
		{"accounts set alice", exitUsage, "", "at least one of the flags"},
		{"payments pay --id order-1 --payer alice --payee shop --amount 12.50 --currency EUR --reference cart", exitOK, "name       order-1|state      paid|settled    yes|amount     12.50 EUR", ""},
		{"payments pay --payer alice --payee shop --amount 1 --currency EUR", exitOK, "state     paid", "the id is"},
		{"payments pay --id order-1 --payer alice --payee shop --amount 13 --currency EUR", exitConflict, "", "content_mismatch"},
		{"payments pay --id order-2 --payer alice --payee shop --amount 1000 --currency EUR", exitError, "", "does not have that much|refused, 402"},
		{"payments pay --id order-2 --payer alice --payee shop --amount 1000 --currency EUR -o json", exitError, `{"id":"|"name":"order-2","state":"refused"|"reason":"insufficient_funds"|}` + "\n", "refused, 402"},
		{"payments pay --payer alice", exitUsage, "", "required flag(s)"},
		{"payments pay --id h1 --payer alice --payee shop --amount 5 --currency EUR --capture manual --hold-for 1h", exitOK, "held", ""},
		{"payments pay --id h2 --payer alice --payee shop --amount 5 --currency EUR --capture manual", exitOK, "held", ""},
		{"payments pay --id h3 --payer alice --payee shop --amount 5 --currency EUR --hold-for soon", exitUsage, "", "not a duration"},
		{"payments capture h1 --amount 3", exitOK, "captured  3.00", ""},
		{"payments void h2", exitOK, "voided", ""},
		{"payments capture h2", exitConflict, "", "already_decided"},
		{"payments refund order-1 --id f1 --amount 2.50", exitOK, "amount   2.50 EUR", ""},
		{"accounts withdraw shop --id w1 --amount 14", exitOK, "balance  0.00", ""},
		{"payments refund order-1 --id f2 --amount 5 -o jsonl", exitError, `{"id":"|"name":"f2"|"state":"refused"|"reason":"insufficient_funds"`, "insufficient_funds, 402"},
		{"accounts deposit shop --id d1 --amount 14", exitOK, "balance  14.00", ""},
		{"payments refunds order-1", exitOK, "f1|2.50 EUR", ""},
		{"payments get order-1", exitOK, "refunded   2.50|reference  cart", ""},
		{"payments get order-9", exitNotFound, "", "not_found, 404"},
		{"story order-1", exitOK, "order-1  |└─ |log named payment order-1|activity begun payment debit alice 12.50 EUR credit shop 12.50 EUR cart|activity decided confirm|payment paid alice and shop: 12.50 EUR|activity begun refund", ""}, // it waits for the view
		{"payments list --payer alice --limit 2 -o jsonl", exitOK, `"name":"h2"`, "--limit 0 prints all"},
		{"payments list --state refused", exitOK, "ID|order-2|insufficient_funds", ""},
		{"accounts entries alice", exitOK, "COUNTERPARTY|deposit|-12.50|EUR", ""},
		{"accounts list", exitOK, "ACCOUNT|alice|shop", ""},
		{"story cart -o json", exitOK, `"type":"remit.activity.begun.v1"`, ""},
		{"story alice/d1", exitOK, "account deposited", ""},
		{"story nothing", exitNotFound, "", "nothing is called"},
		{"activities get order-1", exitOK, "kind     payment|confirmed", ""},
		{"activities list --state cancelled", exitOK, "order-2", ""},
		{"views status", exitOK, "POSITION\n|transactions|consumerrecords|merchantquery", ""},
		{"views status --digest", exitOK, "DIGEST\n|transactions", ""},
		{"views status --digest -o json", exitOK, `"digest":"`, ""},
		{"views query transaction order-1", exitOK, "state      paid|WHAT|remit.activity.decided.v1", ""},
		{"views query records alice --kind payment", exitOK, "payment|shop|12.50 EUR", ""},
		{"views query merchant shop --min-amount 12", exitOK, "12.50 EUR", ""},
		{"views query summary shop", exitOK, "GROSS|16.50|2.50|14.00", ""},
		{"log topics create orders --partitions 2 --retention 24h", exitOK, "retention   24h", ""},
		{"log topics create orders --partitions 1", exitConflict, "", "fewer_partitions"},
		{"log topics create remit.x", exitError, "", "forbidden, 403"},
		{"log topics list", exitOK, "TOPIC|orders|remit alone", ""},
		{"log topics get orders", exitOK, "0:[0,0) 1:[0,0)", ""},
		{"producers put shop --check-url http://127.0.0.1:1/check", exitOK, "after 10s, then 10s to 10m, until 24h", ""},
		{`messages send orders --producer shop --type order.placed --id m1 --key k --data {"n":1} --commit`, exitOK, "event      /remit-cli m1|state      delivered|delivered  partition ", ""},
		{"messages send orders --producer shop --type order.placed --deliver-at 2027-01-01T00:00:00Z --deliver-after 1s", exitUsage, "", "deliver-at deliver-after"},
		{`messages send orders --producer shop --type order.placed --id m2 --key k`, exitOK, "state       prepared|checks      0|next check  2", ""},
		{"messages send orders --producer nobody --type order.placed", exitNotFound, "", "unknown_producer"},
		{"story m2", exitOK, "message prepared for orders", ""}, // it waits for the view
		{"messages list --state prepared -o jsonl", exitOK, "/remit-cli m2", ""},
		{"messages send fresh --producer shop --type order.placed --id m3", exitOK, "topic       fresh", ""}, // made by being written to
		{"messages commit m2 --reason paid", exitUsage, "", "invalid_id"},
		{"log topics delete orders", exitConflict, "", "topic_in_use"},
		{"log tail orders --key k", exitOK, `order.placed  k  m1  {"n":1}`, ""},
		{"log tail orders --from end", exitOK, "", ""},
		{"log tail payments -o jsonl", exitOK, `"type":"remit.payment.paid.v1"`, ""},
		{"log tail nothing", exitNotFound, "", "unknown_topic"},
	} {
		code, stdout, stderr := runApp(t, environ, strings.Fields(c.args)...)
		if code != c.code {
			t.Errorf("remit %s: exit %d, want %d: %s", c.args, code, c.code, stderr)
		}
		for _, out := range [][2]string{{stdout, c.stdout}, {stderr, c.stderr}} {
			for want := range strings.SplitSeq(out[1], "|") {
				if !strings.Contains(out[0], want) || out[1] == "" && out[0] != "" {
					t.Errorf("remit %s: printed\n%s\nwant %q", c.args, out[0], want)
				}
			}
		}
	}
}

// What a person does about messages: each needs its reason, says what came of it, and exits by it.
func TestMessageCommands(t *testing.T) {
	producer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"verdict":"unknown","reason":"busy"}`)
	}))
	defer producer.Close()
	environ := []string{"REMIT_SERVER=" + startServer(t)}
	run := func(code int, args string, want ...string) string {
		t.Helper()
		got, stdout, stderr := runApp(t, environ, strings.Fields(args)...)
		if got != code {
			t.Errorf("remit %s: exit %d, want %d: %s", args, got, code, stderr)
		}
		for _, w := range want {
			if !strings.Contains(stdout+stderr, w) {
				t.Errorf("remit %s: printed\n%s%s\nwant %q", args, stdout, stderr, w)
			}
		}
		return stdout
	}
	send := func(id, producer string) string {
		t.Helper()
		var m api.Message
		if err := json.Unmarshal([]byte(run(exitOK, "messages send orders --type order --producer "+producer+" --id "+id+" -o json")), &m); err != nil {
			t.Fatal(err)
		}
		return m.ID.String()
	}
	run(exitOK, "producers put shop --check-url "+producer.URL)
	run(exitOK, "producers put mute")
	one, two := send("m1", "shop"), send("m2", "mute")

	for _, verb := range []string{"commit", "rollback", "check", "resume"} {
		run(exitUsage, "messages "+verb+" "+one, `required flag(s) "reason" not set`)
	}
	run(exitOK, "messages check "+one+" --reason late", "state       prepared", "heard       unknown: busy")
	run(exitOK, "messages check "+one+" --reason late -o json", `"check":{"verdict":"unknown","reason":"busy"}`)
	run(exitOK, "messages check "+two+" --reason late", "attention   unreachable", "heard       no answer: broker: the producer has no address")
	run(exitOK, "messages resume "+one+" --reason mended", "state       prepared") // it is not parked
	run(exitOK, "messages show "+one, "content", "WHAT", "remit.message.prepared.v1", "remit.message.checkasked.v1", "late")
	run(exitOK, "messages get "+one+" -o json", `"type":"remit.message.checkasked.v1"`)
	run(exitOK, "messages list", "CHECKS", "NEXT CHECK", "ATTENTION", "unreachable")
	if out := run(exitOK, "messages list --stuck -o json"); out != "[]\n" {
		t.Errorf("nobody is stuck: %s", out)
	}
	run(exitOK, "messages commit "+one+" --reason paid", "state      delivered", "reason     paid")
	run(exitOK, "messages rollback "+two+" --reason forgotten", "state     rolledback")
	run(exitConflict, "messages rollback "+one+" --reason no", "already_decided, 409", "is delivered, and that stands")
	run(exitConflict, "messages check "+one+" --reason why", "already_decided, 409")
	run(exitConflict, "messages resume "+two+" --reason why", "already_decided, 409")
	run(exitUsage, "messages check m1 --reason why", "invalid_id")
	run(exitNotFound, "messages check "+log.NewID(time.Now(), "k").String()+" --reason why", "not_found, 404")
}

// The number of partitions of a log never changes: another one is a mistake of the command line.
func TestOtherPartitions(t *testing.T) {
	data := t.TempDir()
	t.Run("made with 4", func(t *testing.T) { startServerIn(t, data) })
	code, stdout, stderr := runApp(t, nil, "serve", "--data", data, "--partitions", "8", "--http", "127.0.0.1:0", "--kafka", "127.0.0.1:0")
	if code != exitUsage || stdout != "" || !strings.Contains(stderr, "start with --partitions 4") {
		t.Errorf("exit %d: %s%s", code, stdout, stderr)
	}
}

// A name that paths know as something else goes through them unharmed.
func TestEscapeStep(t *testing.T) {
	for name, want := range map[string]string{".": "%2E", "..": "%2E%2E", "a.b": "a.b", "a/b": "a%2Fb", "...": "..."} {
		if got := escapeStep(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}
