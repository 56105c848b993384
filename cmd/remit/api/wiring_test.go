package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/remitlog/remit/broker"
	"github.com/remitlog/remit/broker/callout"
	"github.com/remitlog/remit/cmd/remit/api"
	"github.com/remitlog/remit/cmd/remit/core"
	"github.com/remitlog/remit/consumers"
	"github.com/remitlog/remit/consumers/parked"
	"github.com/remitlog/remit/consumers/push"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/embedded"
	"github.com/remitlog/remit/log/registry"
	"github.com/remitlog/remit/projections"
)

// world is remit as it is wired, on a disk in memory, behind HTTP.
type world struct {
	t      testing.TB
	core   *core.Core
	views  *projections.Views
	log    *embedded.Log
	caller *callout.Caller
	server *httptest.Server
	push   deliveries
}

func newWorld(t testing.TB) *world { return newWorldOn(t, vfs.NewMem(), "") }

func newWorldOn(t testing.TB, fs vfs.FS, dir string) *world {
	t.Helper()
	return newWorldOver(t, fs, dir, func(l log.Log) log.Log { return l })
}

// newWorldOver has the core write to what over makes of the log.
func newWorldOver(t testing.TB, fs vfs.FS, dir string, over func(log.Log) log.Log) *world {
	t.Helper()
	w := newWorldIn(t, fs, dir, over, callout.Options{AllowLoopback: true, BreakerOpen: 50 * time.Millisecond})
	w.server.Start()
	t.Cleanup(w.close)
	return w
}

// newWorldIn has producers asked as calls say. Its server is not started.
func newWorldIn(t testing.TB, fs vfs.FS, dir string, over func(log.Log) log.Log, calls callout.Options) *world {
	t.Helper()
	fatal := func(err error) { t.Errorf("fatal: %v", err) }
	l, err := embedded.Open(embedded.Options{Dir: fs.PathJoin(dir, "log"), FS: fs, Fatal: fatal})
	if err != nil {
		t.Fatal(err)
	}
	caller, err := callout.New(calls)
	if err != nil {
		t.Fatal(err)
	}
	var asker *broker.Producers
	c, err := core.Open(t.Context(), core.Options{Log: over(l), Dir: dir, FS: fs, Partitions: 4, Fatal: fatal, Asker: func(r *registry.Registry) broker.Asker {
		asker = broker.NewProducers(r, caller, broker.ProducersListener{})
		return asker
	}})
	if err != nil {
		t.Fatal(err)
	}
	v, err := projections.Follow(t.Context(), projections.Options{Log: l, Dir: fs.PathJoin(dir, "v"), FS: fs, Partitions: 4, Fatal: fatal, Linger: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	d := deliveries{}
	nouns := api.Nouns{Log: l, Node: c.Node, Registry: c.Registry, Broker: c.Broker, Payments: c.Payments, Views: v, TopicPartitions: 2, Answering: asker.Answering,
		Push: d, Parked: parked.New(parked.Options{Log: l, Takes: d.takes, Committed: d.committed})}
	s, err := api.New(api.Options{Routes: nouns.Routes(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return &world{t, c, v, l, caller, httptest.NewUnstartedServer(s), d}
}

// deliveries stand for package push: subscriptions by name, as they stand.
type deliveries map[string]push.Status

func (d deliveries) Status(name string) (push.Status, bool) { st, ok := d[name]; return st, ok }

func (d deliveries) Resume(name string) bool {
	st, ok := d[name]
	st.State, st.Why = push.StateAsking, ""
	d[name] = st
	return ok
}

// takes has groups take all, but for one.
func (d deliveries) takes(_ context.Context, group, _ string) error {
	if group == "old" {
		return errors.New("group old does not read orders.replay: run its service with consumers.Options.Replays")
	}
	return nil
}

// committed has groups be done with what is first in its partition.
func (d deliveries) committed(context.Context, string) (parked.Taken, error) {
	return func(p consumers.Place) bool { return p.Offset == 0 }, nil
}

func (w *world) close() {
	w.server.Close()
	if err := w.views.Close(); err != nil {
		w.t.Error(err)
	}
	if err := w.core.Close(); err != nil {
		w.t.Error(err)
	}
	ctx, cut := context.WithCancel(context.Background())
	cut() // what is still asked is not waited for
	_ = w.caller.Close(ctx)
	if err := w.log.Close(); err != nil {
		w.t.Error(err)
	}
}

// answer is what came.
type answer struct {
	status int
	header http.Header
	body   string
}

// call sends one call. head is further header lines.
func (w *world) call(method, path, body string, head ...string) answer {
	w.t.Helper()
	req, err := http.NewRequest(method, w.server.URL+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	given := http.Header{}
	for _, line := range head {
		if name, value, ok := strings.Cut(line, ": "); ok {
			given.Add(name, value)
		}
	}
	maps.Copy(req.Header, given)
	resp, err := w.server.Client().Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	for name, values := range resp.Trailer {
		resp.Header[name] = values
	}
	return answer{resp.StatusCode, resp.Header, string(b)}
}

// must is call for what a test stands on.
func (w *world) must(status int, method, path, body string, head ...string) answer {
	w.t.Helper()
	a := w.call(method, path, body, head...)
	if a.status != status {
		w.t.Fatalf("%s %s %s: %d, want %d: %s", method, path, body, a.status, status, a.body)
	}
	return a
}

// into reads the body.
func (a answer) into(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.body), v); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
}

// account opens an account in USD with so much on it.
func (w *world) account(name, amount string) {
	w.t.Helper()
	w.must(201, "PUT", "/v1/accounts/"+name, `{"currency":"USD"}`)
	if amount != "" {
		w.must(201, "POST", "/v1/accounts/"+name+"/deposits", `{"id":"open","amount":"`+amount+`"}`)
	}
}
