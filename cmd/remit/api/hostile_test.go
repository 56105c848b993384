package api_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/go-json-experiment/json"

	"github.com/remitlog/remit/broker"
	"github.com/remitlog/remit/broker/callout"
	"github.com/remitlog/remit/cmd/remit/api"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
)

// network is one within the test's process, for tests whose clock is not real.
type network struct {
	mu    sync.Mutex
	hosts map[string]*host
	open  sync.WaitGroup
}

// host listens on it.
type host struct {
	name   string
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (h *host) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

func (h *host) Close() error    { h.once.Do(func() { close(h.closed) }); return nil }
func (h *host) Addr() net.Addr  { return h }
func (h *host) Network() string { return "pipe" }
func (h *host) String() string  { return h.name }

func (n *network) listen(name string) *host {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := &host{name: name, conns: make(chan net.Conn), closed: make(chan struct{})}
	n.hosts[name+":80"] = h
	return h
}

func (n *network) dial(ctx context.Context, _, address string) (net.Conn, error) {
	n.mu.Lock()
	h := n.hosts[address]
	n.mu.Unlock()
	if h == nil {
		return nil, errors.New("no such host")
	}
	near, far := net.Pipe()
	select {
	case h.conns <- far:
		return near, nil
	case <-h.closed:
		return nil, errors.New("connection refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// inBubble runs f in a world whose time passes only when nothing moves, on a network of its own.
func inBubble(t *testing.T, f func(*testing.T, *world, *network)) {
	// The log keeps channels in a sync.Pool, and nobody may touch another bubble's: two collections empty it.
	empty := func() { runtime.GC(); runtime.GC() }
	empty()
	defer empty()
	synctest.Test(t, func(t *testing.T) {
		n := &network{hosts: map[string]*host{}}
		w := newWorldIn(t, vfs.NewMem(), "", func(l log.Log) log.Log { return l }, callout.Options{Dial: n.dial})
		_ = w.server.Listener.Close()
		w.server.Listener = n.listen("remit")
		w.server.Start()
		w.server.URL = "http://remit"
		w.server.Client().Transport.(*http.Transport).DialContext = n.dial
		f(t, w, n)
		w.server.Client().CloseIdleConnections()
		w.close()
		for _, h := range n.hosts {
			_ = h.Close()
		}
		n.open.Wait()
	})
}

// serve puts a producer onto the network.
func (n *network) serve(name string, handle http.HandlerFunc) {
	s, h := &http.Server{Handler: handle}, n.listen(name)
	n.open.Go(func() {
		_ = s.Serve(h)
		_ = s.Close()
	})
}

// hostile is a producer that does not answer as it should.
type hostile struct {
	name   string
	answer func(w http.ResponseWriter, r *http.Request)
	// ends is where its messages stand in the end: parked, or delivered. If it is empty, what it says is no answer, and they are stuck.
	ends string
	// dead: it cannot be reached either, since its calls fail as calls.
	dead bool
}

func says(status int, contentType, body string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

const commits = `{"verdict":"commit"}`

var hostiles = []hostile{
	{name: "unknown-for-ever", answer: says(200, "application/json", `{"verdict":"unknown","reason":"I do not know"}`), ends: "parked"},
	{name: "never", dead: true, answer: func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}},
	{name: "500", dead: true, answer: says(500, "application/json", commits)},
	{name: "201", answer: says(201, "application/json", commits)},
	{name: "204", answer: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }},
	{name: "404", answer: says(404, "application/json", commits)},
	{name: "garbage", answer: says(200, "application/json", "\x00\xff<html>commit</html>")},
	{name: "no-object", answer: says(200, "application/json", `"commit"`)},
	{name: "nothing", answer: says(200, "application/json", "")},
	{name: "3MB", answer: says(200, "application/json", `{"verdict":"commit","pad":"`+strings.Repeat("x", 3<<20)+`"}`)},
	{name: "after-30s", dead: true, answer: func(w http.ResponseWriter, _ *http.Request) {
		<-time.After(30 * time.Second)
		_, _ = io.WriteString(w, commits)
	}},
	{name: "drop-by-drop", dead: true, answer: func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `{"verdict":"commit"`)
		for r.Context().Err() == nil {
			if http.NewResponseController(w).Flush() != nil {
				return
			}
			<-time.After(time.Second)
			_, _ = io.WriteString(w, " ")
		}
	}},
	{name: "breaks-off", dead: true, answer: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, commits)
		panic(http.ErrAbortHandler)
	}},
	{name: "redirects", answer: func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/elsewhere" {
			_, _ = io.WriteString(w, commits)
			return
		}
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	}},
	{name: "compressed", answer: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = io.WriteString(w, "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff")
	}},
	{name: "other-letters", answer: says(200, "application/json", `{"verdict":"COMMIT"}`)},
	{name: "other-member", answer: says(200, "application/json", `{"Verdict":"commit"}`)},
	{name: "another-word", answer: says(200, "application/json", `{"verdict":"deliver"}`)},
	{name: "two-verdicts", answer: says(200, "application/json", `{"verdict":"commit","verdict":"rollback"}`)},
	{name: "two-answers", answer: says(200, "application/json", commits+`{"verdict":"rollback"}`)},
	{name: "a-list", answer: says(200, "application/json", `[{"verdict":"commit"},{"verdict":"rollback"}]`)},
	// Only 200 with one of the verdicts is an answer, and that always is, whatever it is called.
	{name: "another-type", answer: says(200, "text/html; charset=utf-16", commits), ends: "delivered"},
	{name: "commit-then-rollback", answer: says(200, "application/json", commits), ends: "delivered"},
}

// often is what a hostile producer does, and how often it was asked. It can be mended.
type often struct {
	mu     sync.Mutex
	answer func(http.ResponseWriter, *http.Request)
	asked  int
}

func (o *often) handle(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	o.asked++
	answer := o.answer
	o.mu.Unlock()
	answer(w, r)
}

// mend has it answer properly, and returns how often it was asked so far.
func (o *often) mend() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.answer = says(200, "application/json", commits)
	return o.asked
}

func (o *often) times() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.asked
}

// patient is the schedule of this test's producers, as it is registered.
var patient = broker.Schedule{FirstAfter: 10_000, Interval: 10_000, MaxInterval: 60_000, Deadline: 120_000}

const patientJSON = `"firstAfter":"10s","interval":"10s","maxInterval":"1m","deadline":"2m"`

// sound is a producer that answers as it should: unknown at first, and then what was decided.
type sound struct {
	mu    sync.Mutex
	asked map[log.ID][]time.Time
}

// soundChecks is how often it does not know yet. The one after it comes before the deadline.
const soundChecks = 3

func (p *sound) handle(w http.ResponseWriter, r *http.Request) {
	var e struct {
		Data struct {
			ID log.ID `json:"messageId"`
		} `json:"data"`
	}
	if json.UnmarshalRead(r.Body, &e) != nil {
		w.WriteHeader(400)
		return
	}
	p.mu.Lock()
	p.asked[e.Data.ID] = append(p.asked[e.Data.ID], time.Now())
	n := len(p.asked[e.Data.ID])
	p.mu.Unlock()
	verdict := "unknown"
	if n > soundChecks {
		verdict = "commit"
	}
	_, _ = io.WriteString(w, `{"verdict":"`+verdict+`"}`)
}

// onTime holds the times at which it was asked against the schedule.
func (p *sound) onTime(t *testing.T, prepared map[log.ID]time.Time) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	latest := time.Duration(0)
	for id, since := range prepared {
		if len(p.asked[id]) != soundChecks+1 {
			t.Errorf("a sound producer was asked %d times, want %d", len(p.asked[id]), soundChecks+1)
		}
		at := since.UnixMilli()
		for n, came := range p.asked[id] {
			_, at = patient.Next(since.UnixMilli(), id, at)
			late := came.Sub(time.UnixMilli(at))
			if late < 0 || late > time.Second {
				t.Errorf("check %d of a sound producer came %s after its time", n+1, late)
			}
			latest = max(latest, late)
		}
	}
	t.Logf("%d checks of %d messages of sound producers came at most %s after their time", len(prepared)*(soundChecks+1), len(prepared), latest)
}

// TestHostileProducers is line 3: whatever a producer does, only 200 with one of the verdicts is an answer. Only an answered unknown past the deadline parks a message; silence
// past it is stuck, and is asked on. Other producers feel nothing: their checks come within a second of their time, and their calls are answered at once.
func TestHostileProducers(t *testing.T) {
	const each, sounds, ofEach = 20, 6, 16
	inBubble(t, func(t *testing.T, w *world, n *network) {
		w.must(201, "PUT", "/v1/topics/orders", `{"partitions":2}`)
		send := func(producer, name string) api.Message {
			t.Helper()
			var m api.Message
			began := time.Now()
			w.must(201, "POST", "/v1/topics/orders/messages?producer="+producer, event(name, ""), structured).into(t, &m)
			if took := time.Since(began); took > time.Second {
				t.Errorf("a message was stored within %s", took)
			}
			return m
		}
		bad, good := map[string]*often{}, &sound{asked: map[log.ID][]time.Time{}}
		stands := map[string]string{} // of events, in the end
		for _, h := range hostiles {
			bad[h.name] = &often{answer: h.answer}
			n.serve(h.name, bad[h.name].handle)
			w.must(201, "PUT", "/v1/producers/"+h.name, `{"check":{"url":"http://`+h.name+`/check",`+patientJSON+`}}`)
		}
		n.serve("sound", good.handle)
		prepared := map[log.ID]time.Time{}
		for i := range sounds {
			w.must(201, "PUT", fmt.Sprint("/v1/producers/sound-", i), `{"check":{"url":"http://sound/check",`+patientJSON+`}}`)
		}
		for k := range each { // in turn, so that those of the sound ones are among them
			for _, h := range hostiles {
				send(h.name, fmt.Sprint(h.name, "-", k))
			}
			if k < ofEach {
				for i := range sounds {
					m := send(fmt.Sprint("sound-", i), fmt.Sprint("sound-", i, "-", k))
					prepared[m.ID] = time.Time(m.PreparedAt)
					stands[fmt.Sprint("sound-", i, "-", k)] = "delivered"
				}
			}
			<-time.After(700 * time.Millisecond)
		}

		// While the hostile ones are asked, others decide themselves.
		for k := range 20 {
			name := fmt.Sprint("own-", k)
			m := send("sound-0", name)
			began := time.Now()
			w.must(200, "POST", "/v1/messages/"+m.ID.String()+"/commit", "")
			if took := time.Since(began); took > time.Second {
				t.Errorf("a message was committed within %s", took)
			}
			stands[name] = "delivered"
			<-time.After(13 * time.Second)
		}
		good.onTime(t, prepared)

		list := func(query string) (all []api.Message) {
			t.Helper()
			var page api.List[api.Message]
			w.must(200, "GET", "/v1/messages?pageSize=1000&after="+w.core.Node.Position().String()+"&"+query, "").into(t, &page)
			return page.Items
		}
		stuck := 0
		for _, h := range hostiles {
			found := list("producer=" + h.name)
			if len(found) != each {
				t.Fatalf("%s has %d messages", h.name, len(found))
			}
			for _, m := range found {
				want := h.ends
				if want == "" {
					want = "prepared"
				}
				if m.State != want || m.Stuck != (h.ends == "") || m.Stuck == m.NextCheckAt.IsZero() || m.Unreachable != h.dead {
					t.Errorf("%s: a message is %s, stuck %t, unreachable %t, asked next at %s after %d checks", h.name, m.State, m.Stuck, m.Unreachable, m.NextCheckAt, m.Checks)
					break
				}
			}
			if h.ends == "" {
				stuck += each
				if got := list("stuck=true&producer=" + h.name); len(got) != each {
					t.Errorf("%s: %d are listed as stuck", h.name, len(got))
				}
			}
		}
		for _, m := range list("state=parked") { // the answered unknown came past the deadline, and nothing else parks
			var whole api.Message
			w.must(200, "GET", "/v1/messages/"+m.ID.String(), "").into(t, &whole)
			if parked := whole.History[len(whole.History)-1]; m.Producer != "unknown-for-ever" || time.Time(parked.At).Sub(time.Time(m.PreparedAt)) < 2*time.Minute || parked.Detail != "I do not know" {
				t.Errorf("%s is parked: %+v", m.Name, parked)
			}
		}
		if got := w.tally(); got != (broker.Tally{Prepared: int64(stuck), Parked: each, Stuck: int64(stuck)}) {
			t.Errorf("the tally is %+v, and %d are stuck", got, stuck)
		}
		for _, m := range list("producer=commit-then-rollback") {
			w.must(409, "POST", "/v1/messages/"+m.ID.String()+"/rollback", "")
		}

		// Silent ones are asked on, for ever; parked and decided ones are not.
		before := map[string]int{}
		for _, h := range hostiles {
			before[h.name] = bad[h.name].times()
		}
		<-time.After(time.Hour)
		for _, h := range hostiles {
			if more := bad[h.name].times() - before[h.name]; (more > 0) != (h.ends == "") {
				t.Errorf("%s: asked %d times more", h.name, more)
			}
			bad[h.name].mend()
		}
		<-time.After(10 * time.Minute) // they are mended: the next check of each decides it
		for _, h := range hostiles {
			for k := range each {
				stands[fmt.Sprint(h.name, "-", k)] = "delivered"
			}
		}
		for k := range each {
			stands[fmt.Sprint("unknown-for-ever-", k)] = "parked"
		}
		w.onTopic(stands)
		if left := list("state=prepared"); len(left) > 0 {
			t.Errorf("%d are not decided, though their producers are mended: %s", len(left), left[0].Producer)
		}
	})
}

// tally counts the messages that have not ended.
func (w *world) tally() (sum broker.Tally) {
	w.t.Helper()
	for p := range int32(w.core.Node.Partitions()) {
		err := w.core.Node.Read(p, func(rows fold.Scanner, _ log.Offset) error {
			sum.Add(broker.TallyOf(rows, w.core.Node.Now()))
			return nil
		})
		if err != nil {
			w.t.Fatal(err)
		}
	}
	return sum
}
