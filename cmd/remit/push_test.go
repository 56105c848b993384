package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/remitlog/remit/cmd/remit/api"
	"github.com/remitlog/remit/consumers"
	"github.com/remitlog/remit/consumers/push/pushtest"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/kafka"
)

// pushed is a server, a sink, and a shell.
type pushed struct {
	*testing.T
	url, kafka string
	sink       *pushtest.Sink
	address    string // of the sink
	bad        atomic.Bool
}

const pushSecret = "whsec_c2hvdWxkIGJlIGxvbmcgYW5kIHJhbmRvbQ=="

func newPushed(t *testing.T) *pushed {
	p := &pushed{T: t}
	p.bad.Store(true)
	p.sink = &pushtest.Sink{Origin: "shop.example", Secret: pushSecret, Wrong: func(err error) { t.Error(err) }, Answer: func(d *pushtest.Delivery) int {
		if p.bad.Load() && strings.HasPrefix(d.Event.ID, "bad") {
			return http.StatusUnprocessableEntity
		}
		return http.StatusAccepted
	}}
	web := httptest.NewServer(p.sink)
	t.Cleanup(web.Close)
	p.address = web.URL
	p.url, p.kafka = startConfig(t, Config{Data: t.TempDir(), Partitions: 4, AutoCreateTopics: true, Kafka: "127.0.0.1:0", CallsTo: []string{toLoopback}, Origin: "shop.example"})
	return p
}

// remit runs a command, and returns what it prints.
func (p *pushed) remit(code int, args ...string) (stdout, stderr string) {
	p.Helper()
	var out, talk bytes.Buffer
	a := &app{stdin: strings.NewReader(""), stdout: &out, stderr: &talk, environ: []string{"REMIT_SERVER=" + p.url}, signals: notify, open: open}
	if got := a.run(p.Context(), args); got != code {
		p.Fatalf("remit %s: exit %d, not %d: %s", strings.Join(args, " "), got, code, &talk)
	}
	return out.String(), talk.String()
}

func (p *pushed) publish(topic string, ids ...string) {
	p.Helper()
	var events []string
	for _, id := range ids {
		key, _, _ := strings.Cut(id, "-")
		events = append(events, fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"/shop","type":"order.placed","partitionkey":%q,"datacontenttype":"application/json","data":{"id":%q}}`, id, key, id))
	}
	resp, err := http.Post(p.url+"/v1/topics/"+topic+"/events", log.BatchContentType, strings.NewReader("["+strings.Join(events, ",")+"]"))
	if err != nil {
		p.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		p.Fatalf("published: %s", resp.Status)
	}
}

// until waits until something is so.
func (p *pushed) until(what string, so func() bool) {
	p.Helper()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for end := time.Now().Add(30 * time.Second); !so(); <-look.C {
		if time.Now().After(end) {
			out, _ := p.remit(exitOK, "subscriptions", "list", "-o", "json")
			p.Fatalf("%s: it never is; taken: %q; %s", what, p.sink.Taken(), out)
		}
	}
}

func (p *pushed) subscription(name string) (s api.Subscription) {
	p.Helper()
	out, _ := p.remit(exitOK, "subscriptions", "show", name, "-o", "json")
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		p.Fatal(err)
	}
	return s
}

// TestPush: a subscription that is registered is asked for consent and delivered to, signed; any Kafka tool sees how far it is; what its sink refuses is parked, listed
// and, when a person asks, sent again to it alone.
func TestPush(t *testing.T) {
	p := newPushed(t)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(pushSecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.remit(exitOK, "log", "topics", "create", "orders", "--partitions", "3")
	p.publish("orders", "k1-0")
	p.remit(exitOK, "subscriptions", "put", "crm", "--topic", "orders", "--sink", p.address, "--secret-file", secret, "--filter", "id NOT LIKE '%skip%'",
		"--retry-interval", "50ms", "--retry-max-interval", "100ms", "--retry-deadline", "300ms")
	p.publish("orders", "k1-1", "k2-1", "bad-1", "bad-2", "k1-skip", "k1-2", "k2-2", "bad-3")
	p.until("all is done", func() bool {
		s := p.subscription("crm").Status
		return s != nil && s.State == "delivering" && s.Lag == 0 && s.Counts.Parked == 3
	})
	taken := p.sink.Taken()
	slices.Sort(taken)
	if want := []string{"k1-1", "k1-2", "k2-1", "k2-2"}; !slices.Equal(taken, want) {
		t.Errorf("taken: %q", taken)
	}
	if s := p.subscription("crm").Status; s.Counts.Delivered != 4 || s.Counts.Filtered != 1 || s.Consent == nil || !s.Consent.Granted || s.LastError == nil || !strings.Contains(s.LastError.Error, "422") {
		t.Errorf("%+v", s)
	}
	lags, err := kadm.NewClient(kafkaClient(t, kgo.SeedBrokers(p.kafka))).Lag(t.Context(), "remit.push.crm")
	if lag := lags["remit.push.crm"]; err != nil || lag.Error() != nil || lag.Lag.Total() != 0 || len(lag.Lag["orders"]) != 3 {
		t.Errorf("Kafka tools see %+v, %v", lag, err)
	}

	out, _ := p.remit(exitOK, "parked", "list")
	for _, want := range []string{"PLACE", "orders/", "subscription crm", "bad-1", "bad-3", "422"} {
		if !strings.Contains(out, want) {
			t.Errorf("`parked list` has no %q:\n%s", want, out)
		}
	}
	p.bad.Store(false)
	p.sink.Forget()
	var all []api.ParkedRecord
	out, _ = p.remit(exitOK, "parked", "list", "--topic", "orders", "-o", "json")
	if err := json.Unmarshal([]byte(out), &all); err != nil || len(all) != 3 {
		t.Fatalf("%d are listed, %v", len(all), err)
	}
	second := fmt.Sprintf("orders/%d/%d", all[1].Partition, all[1].Offset)
	p.remit(exitUsage, "parked", "replay", second)
	p.remit(exitUsage, "parked", "replay", "--reason", "r")
	p.remit(exitUsage, "parked", "replay", "--all", "--reason", "r")
	p.remit(exitUsage, "parked", "replay", "orders", "--reason", "r")
	p.remit(exitNotFound, "parked", "replay", "orders/0/99", "--reason", "r")
	if out, _ = p.remit(exitOK, "parked", "replay", second, "--reason", "the account is open now"); !strings.Contains(out, "sent again  1") || !strings.Contains(out, "crm (1)") {
		t.Errorf("`parked replay`: %s", out)
	}
	p.until("one was sent again", func() bool { return slices.Equal(p.sink.Taken(), []string{"bad-2"}) })
	p.remit(exitOK, "parked", "replay", "--all", "--topic", "orders", "--reason", "the account is open now")
	p.until("all were sent again", func() bool { return slices.Equal(p.sink.Taken(), []string{"bad-2", "bad-1", "bad-3"}) })
	p.until("it is known", func() bool {
		out, _ := p.remit(exitOK, "parked", "show", second)
		return strings.Contains(out, ", done") && strings.Contains(out, "operator: the account is open now") && strings.Contains(out, `"id":"bad-2"`)
	})
	ids := map[string]string{} // a repeat has the same webhook-id
	for _, d := range p.sink.Deliveries() {
		ids[d.Event.ID] = d.ID
		if d.Event.Extensions[consumers.ParkedReason] != nil || d.Event.Extensions[consumers.ReplayBy] != nil {
			t.Errorf("sent again with what it was parked with: %+v", d.Event)
		}
	}
	if len(ids) != 3 || ids["bad-1"] == ids["bad-2"] {
		t.Errorf("webhook-ids %v", ids)
	}
	if out, talk := p.remit(exitOK, "parked", "replay", "--all", "--topic", "orders", "--reason", "r"); !strings.Contains(out, "sent again  0") || talk != "" {
		t.Errorf("all again: %s%s", out, talk)
	}
	if out, _ := p.remit(exitOK, "parked", "list", "--replayed", "false", "--subscription", "crm"); strings.Contains(out, "bad") {
		t.Errorf("that were not sent again: %s", out)
	}
	out, _ = p.remit(exitOK, "log", "topics", "get", "orders", "-o", "json")
	if !strings.Contains(out, `"records":9`) {
		t.Errorf("something was added to the topic: %s", out)
	}
	p.remit(exitOK, "subscriptions", "delete", "crm")
	p.until("its group is gone", func() bool {
		groups, err := kadm.NewClient(kafkaClient(t, kgo.SeedBrokers(p.kafka))).ListGroups(t.Context())
		return err == nil && len(groups) == 0
	})
}

// TestPushResume: a sink that says that it is gone is left alone until a person says why it is to be called again.
func TestPushResume(t *testing.T) {
	p := newPushed(t)
	gone := atomic.Bool{}
	gone.Store(true)
	p.sink.Secret, p.sink.Answer = "", func(*pushtest.Delivery) int {
		if gone.Load() {
			return http.StatusGone
		}
		return http.StatusOK
	}
	p.remit(exitOK, "log", "topics", "create", "orders")
	p.remit(exitOK, "subscriptions", "put", "crm", "--topic", "orders", "--sink", p.address)
	p.publish("orders", "k1-1", "k1-2")
	p.until("it is paused", func() bool { return p.subscription("crm").Status.State == "paused" })
	gone.Store(false)
	p.remit(exitUsage, "subscriptions", "resume", "crm")
	p.remit(exitNotFound, "subscriptions", "resume", "other", "--reason", "r")
	out, _ := p.remit(exitOK, "subscriptions", "show", "crm")
	if !strings.Contains(out, "resume it") {
		t.Errorf("`subscriptions show` does not say what to do: %s", out)
	}
	p.remit(exitOK, "subscriptions", "resume", "crm", "--reason", "it is served again")
	p.until("it goes on", func() bool { return slices.Equal(p.sink.Taken(), []string{"k1-1", "k1-2"}) })
}

// A person's commands about a message, and the story of its name, which begins with a slash.
func TestMessageByHand(t *testing.T) {
	p := newPushed(t)
	p.remit(exitOK, "log", "topics", "create", "orders")
	p.remit(exitOK, "producers", "put", "shop")
	var ids []string
	for _, key := range []string{"k1", "k2"} {
		id := log.NewID(time.Now(), key).String()
		p.remit(exitOK, "messages", "send", "orders", "--producer", "shop", "--source", "/shop/2026", "--id", "order ä of "+key, "--key", key, "--type", "order.placed", "--remit-id", id)
		ids = append(ids, id)
	}
	for _, does := range []string{"commit", "rollback", "check", "resume"} {
		p.remit(exitUsage, "messages", does, ids[0])
		if _, talk := p.remit(exitUsage, "messages", does, ids[0], "--reason", " "); !strings.Contains(talk, "--reason") {
			t.Errorf("%s without a reason: %s", does, talk)
		}
	}
	p.remit(exitOK, "messages", "commit", ids[0], "--reason", "the database has it")
	p.remit(exitConflict, "messages", "rollback", ids[0], "--reason", "no")
	p.remit(exitOK, "messages", "rollback", ids[1], "--reason", "the database has it not")
	if out, _ := p.remit(exitOK, "story", "/shop/2026 order ä of k1"); !strings.Contains(out, ids[0]) || !strings.Contains(out, "the database has it") || strings.Contains(out, ids[1]) {
		t.Errorf("the story of a message's name: %s", out)
	}
	p.remit(exitNotFound, "story", "/shop order ä of k1")
}

// TestPushTopicAnew: a topic that is deleted and made anew is delivered from its first record.
func TestPushTopicAnew(t *testing.T) {
	p := newPushed(t)
	p.sink.Secret = ""
	p.remit(exitOK, "log", "topics", "create", "orders")
	p.remit(exitOK, "subscriptions", "put", "crm", "--topic", "orders", "--sink", p.address)
	for round := range 3 {
		p.publish("orders", fmt.Sprint("k1-", round))
		p.until("it is delivered", func() bool { return len(p.sink.Taken()) == round+1 })
		p.remit(exitOK, "log", "topics", "delete", "orders")
		p.remit(exitOK, "log", "topics", "create", "orders")
	}
}

// TestReplayToGroup: what a service with package consumers has parked is sent again to it, if it reads what is sent again; if it does not, nothing is sent, and what
// to do is said.
func TestReplayToGroup(t *testing.T) {
	p := newPushed(t)
	p.remit(exitOK, "log", "topics", "create", "orders")
	var mended atomic.Bool
	handled := make(chan string, 100)
	run := func(group string, replays bool) (stop func()) {
		reader, err := kafka.NewReader(kafka.ReaderOptions{Brokers: []string{p.kafka}})
		if err != nil {
			t.Fatal(err)
		}
		c, err := consumers.New(consumers.Options{Reader: reader, Group: group, Topics: []string{"orders"}, Replays: replays, AttemptsMax: 1, CommitEvery: 50 * time.Millisecond,
			Handler: func(_ context.Context, d consumers.Delivery) error {
				if !mended.Load() {
					return errors.New("no account")
				}
				handled <- fmt.Sprint(d.Event.ID(), " ", d.Replay)
				return nil
			}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- c.Run(ctx) }()
		return func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}
	stop := run("billing", false)
	p.publish("orders", "k1-1", "k1-2")
	p.until("both are parked", func() bool {
		out, _ := p.remit(exitOK, "parked", "list", "--group", "billing")
		return strings.Contains(out, "k1-1") && strings.Contains(out, "k1-2")
	})
	mended.Store(true)
	_, talk := p.remit(exitOK, "parked", "replay", "--all", "--topic", "orders", "--reason", "mended")
	if !strings.Contains(talk, "2 of billing were left where they are") || !strings.Contains(talk, "consumers.Options.Replays") {
		t.Errorf("to a group that does not read it: %s", talk)
	}
	stop()
	comes := func(ids ...string) {
		t.Helper()
		for _, id := range ids {
			select {
			case got := <-handled:
				if got != id+" true" {
					t.Errorf("handled %s, not %s again", got, id)
				}
			case <-time.After(30 * time.Second):
				t.Fatal("what was sent again does not come")
			}
		}
	}
	stop = run("billing", true)
	p.remit(exitOK, "parked", "replay", "--all", "--topic", "orders", "--reason", "mended")
	comes("k1-1", "k1-2")
	p.until("it is known", func() bool {
		out, _ := p.remit(exitOK, "parked", "list", "--topic", "orders")
		return strings.Count(out, ", done") == 2
	})
	stop()

	mended.Store(false) // one that has run with Replays from the start, before there was a replay topic
	p.remit(exitOK, "log", "topics", "delete", "orders.replay")
	stop = run("audit", true)
	defer stop()
	p.until("both are parked", func() bool {
		out, _ := p.remit(exitOK, "parked", "list", "--topic", "orders", "--group", "audit")
		return strings.Contains(out, "k1-1") && strings.Contains(out, "k1-2")
	})
	mended.Store(true)
	if _, talk := p.remit(exitOK, "parked", "replay", "--all", "--topic", "orders", "--group", "audit", "--reason", "mended"); talk != "" {
		t.Errorf("to a group that waits for it: %s", talk)
	}
	comes("k1-1", "k1-2")
}
