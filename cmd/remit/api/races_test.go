package api_test

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/remitlog/remit/cmd/remit/api"
	"github.com/remitlog/remit/log"
)

var messageRaces = flag.Int("message-races", 200, "messages that two clients of TestMessageRaces decide at once")

// asked is a producer that counts what it is asked about: how often in all, and how often after it was told that a message is decided.
type asked struct {
	*httptest.Server
	verdict string

	mu      sync.Mutex
	checks  map[log.ID]int
	decided map[log.ID]bool
	late    map[log.ID]int
	change  chan struct{} // closed at the next check
}

func newAsked(t *testing.T, verdict string) *asked {
	p := &asked{verdict: verdict, checks: map[log.ID]int{}, decided: map[log.ID]bool{}, late: map[log.ID]int{}, change: make(chan struct{})}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var e struct {
			Data struct {
				ID log.ID `json:"messageId"`
			} `json:"data"`
		}
		if err := json.UnmarshalRead(r.Body, &e); err != nil {
			t.Error(err)
		}
		p.mu.Lock()
		p.checks[e.Data.ID]++
		if p.decided[e.Data.ID] {
			p.late[e.Data.ID]++
		}
		close(p.change)
		p.change = make(chan struct{})
		p.mu.Unlock()
		_, _ = io.WriteString(w, `{"verdict":"`+p.verdict+`"}`)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *asked) settled(id log.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.decided[id] = true
}

// until returns when a message was asked about so often.
func (p *asked) until(t *testing.T, id log.ID, times int) {
	t.Helper()
	for {
		p.mu.Lock()
		n, change := p.checks[id], p.change
		p.mu.Unlock()
		if n >= times {
			return
		}
		select {
		case <-change:
		case <-t.Context().Done():
			t.Fatalf("asked about %s %d times, want %d", id, n, times)
		}
	}
}

// client is one of several that call at once, each over connections of its own.
type client struct {
	w    *world
	http *http.Client
}

// told is what a client was answered about a message.
type told struct {
	status   int
	replayed bool
	state    string // or, with 409, what was recorded
}

func (c client) post(path, body string, head ...string) told {
	req, err := http.NewRequest("POST", c.w.server.URL+path, strings.NewReader(body))
	if err != nil {
		c.w.t.Error(err)
		return told{}
	}
	req.Header.Set("Content-Type", "application/json")
	for _, line := range head {
		name, value, _ := strings.Cut(line, ": ")
		req.Header.Set(name, value)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		c.w.t.Error(err)
		return told{}
	}
	defer resp.Body.Close()
	var a struct {
		State    string `json:"state"`
		Recorded string `json:"recorded"`
	}
	if err := json.UnmarshalRead(resp.Body, &a); err != nil {
		c.w.t.Error(err)
	}
	return told{resp.StatusCode, resp.Header.Get(api.ReplayedHeader) == "true", a.State + a.Recorded}
}

// race is a message, and what two clients do to it at once.
type race struct {
	name     string
	producer string
	first    string // done before, by one
	parked   bool   // it is set aside before
	verbs    [2]string
}

var races = []race{
	{name: "two commits", producer: "slow", verbs: [2]string{"commit", "commit"}},
	{name: "a commit and a rollback", producer: "slow", verbs: [2]string{"commit", "rollback"}},
	{name: "commits after a rollback", producer: "slow", first: "rollback", verbs: [2]string{"commit", "commit"}},
	{name: "a commit and a verdict", producer: "contrary", verbs: [2]string{"commit", "commit"}},
	{name: "a commit and a check", producer: "agreeing", verbs: [2]string{"commit", "check"}},
	{name: "a rollback and a check", producer: "agreeing", verbs: [2]string{"rollback", "check"}},
	{name: "parked, two commits", producer: "hasty", parked: true, verbs: [2]string{"commit", "commit"}},
	{name: "parked, a commit and a rollback", producer: "hasty", parked: true, verbs: [2]string{"commit", "rollback"}},
	{name: "parked, a commit and put back", producer: "hasty", parked: true, verbs: [2]string{"commit", "resume"}},
}

// TestMessageRaces is line 1 over HTTP: two clients decide a message at once, many times. Whoever is told 200 has decided it, the other is told what stands; what
// is committed is on its topic once, what is rolled back is not there; and from the decision on its producer is asked no more, but for the check that was
// under way.
func TestMessageRaces(t *testing.T) {
	w := newWorld(t)
	w.must(201, "PUT", "/v1/topics/orders", `{"partitions":4}`)
	producers := map[string]*asked{}
	for name, verdict := range map[string]string{"slow": "unknown", "contrary": "rollback", "agreeing": "commit", "hasty": "unknown"} {
		producers[name] = newAsked(t, verdict)
		deadline := map[bool]string{true: "5ms", false: "24h"}[name == "hasty"]
		w.must(201, "PUT", "/v1/producers/"+name, fmt.Sprintf(`{"check":{"url":%q,"firstAfter":"1ms","interval":"1ms","maxInterval":"5ms","deadline":%q}}`, producers[name].URL, deadline))
	}
	witness := log.NewID(w.core.Node.Now(), "witness") // nobody decides it
	w.must(201, "POST", "/v1/topics/orders/messages?producer=slow", event("witness", `,"partitionkey":"witness","remitid":"`+witness.String()+`"`), structured)

	clients := [2]client{}
	for i := range clients {
		clients[i] = client{w, &http.Client{Transport: &http.Transport{}}}
		defer clients[i].http.CloseIdleConnections()
	}
	stands := map[string]string{} // what was decided, by the id of the event
	var both [2]atomic.Int64      // how often each was the first
	for n := range *messageRaces {
		r := races[n%len(races)]
		name := fmt.Sprintf("m%d", n)
		id := log.NewID(w.core.Node.Now(), name)
		path := "/v1/messages/" + id.String() + "/"
		// What needs no check is not asked about while it races.
		after := ""
		if r.producer == "slow" && n%2 == 0 || r.producer == "agreeing" {
			after = `,"checkafter":"1h"`
		}
		w.must(201, "POST", "/v1/topics/orders/messages?producer="+r.producer, event(name, `,"partitionkey":"`+name+`","remitid":"`+id.String()+`"`+after), structured)
		if r.first != "" {
			w.must(200, "POST", path+r.first, `{"reason":"first"}`)
		}
		if r.parked {
			w.until(id.String(), "parked")
		}
		if r.producer == "contrary" && n%2 == 0 { // the verdict is on its way; otherwise the commit may always be the first
			producers[r.producer].until(t, id, 1)
		}
		var answers [2]told
		var wait sync.WaitGroup
		for i, c := range clients {
			wait.Go(func() {
				answers[i] = c.post(path+r.verbs[i], `{"reason":"race"}`)
				if r.verbs[i] != "resume" {
					producers[r.producer].settled(id)
				}
			})
		}
		wait.Wait()
		var m api.Message
		w.must(200, "GET", "/v1/messages/"+id.String(), "").into(t, &m)
		stands[name] = m.State
		r.judge(t, name, m, answers)
		for i := range answers {
			if answers[i].status == 200 && !answers[i].replayed {
				both[i].Add(1)
			}
		}
	}
	if both[0].Load() == 0 || both[1].Load() == 0 {
		t.Errorf("one client was always the first: %d and %d; nothing raced", both[0].Load(), both[1].Load())
	}
	w.onTopic(stands)
	checksStop(t, producers, witness)
}

// judge holds what two clients were told against how the message stands.
func (r race) judge(t *testing.T, name string, m api.Message, answers [2]told) {
	t.Helper()
	means := map[string]string{"commit": "delivered", "rollback": "rolledback", "check": "delivered"} // the check by what the producer says
	decided := 0
	for i, a := range answers {
		verb := r.verbs[i]
		switch {
		case verb == "resume" && a.status == 200: // it was put back, and then committed
			continue
		case a.status == 200 && a.state == m.State && m.State == means[verb]:
		case a.status == 409 && a.state == m.State && (m.State != means[verb] || verb == "check"): // what is decided is not asked about
		default:
			t.Errorf("%s, %s: %s is told %d %s, and the message is %s", name, r.name, verb, a.status, a.state, m.State)
		}
		if a.status == 200 && !a.replayed && verb != "check" {
			decided++
		}
	}
	want := map[bool]int{true: 1, false: 0}[r.first == ""]
	if decided > want || decided < want && (r.producer == "slow" || r.producer == "hasty") { // else its producer may have decided it
		t.Errorf("%s, %s: %d decided it: %+v", name, r.name, decided, answers)
	}
}

// onTopic holds what is on the topic against what was decided.
func (w *world) onTopic(stands map[string]string) {
	w.t.Helper()
	there := map[string]int{}
	topic, err := w.log.Topic(w.t.Context(), "orders")
	if err != nil {
		w.t.Fatal(err)
	}
	for p := range int32(topic.Partitions) {
		part := log.Partition{Topic: "orders", Index: p}
		_, end, err := w.log.Bounds(w.t.Context(), part)
		if err != nil {
			w.t.Fatal(err)
		}
		for at := log.Offset(0); at < end; {
			records, err := w.log.Read(w.t.Context(), part, at, 1<<20)
			if err != nil {
				w.t.Fatal(err)
			}
			for _, r := range records {
				e, err := log.ParseRecord(r)
				if err != nil {
					w.t.Fatal(err)
				}
				there[e.ID]++
			}
			at = records[len(records)-1].Offset + 1
		}
	}
	delivered := 0
	for name, state := range stands {
		want := 0
		if state == "delivered" {
			want = 1
			delivered++
		}
		if there[name] != want {
			w.t.Errorf("%s is %s, and is on its topic %d times", name, state, there[name])
		}
		delete(there, name)
	}
	if len(there) > 0 || delivered == 0 || delivered == len(stands) {
		w.t.Errorf("of %d messages %d were delivered; beside them there are %v", len(stands), delivered, there)
	}
}

// checksStop waits until a message that nobody decides was asked about many times more, and holds that no other was since its decision, but for the check that
// was under way.
func checksStop(t *testing.T, producers map[string]*asked, witness log.ID) {
	t.Helper()
	slow := producers["slow"]
	slow.mu.Lock()
	n := slow.checks[witness]
	slow.mu.Unlock()
	slow.until(t, witness, n+20)
	for name, p := range producers {
		p.mu.Lock()
		for id, times := range p.late {
			if times > 1 {
				t.Errorf("%s was asked about %s %d times after it was decided", name, id, times)
			}
		}
		if len(p.checks) == 0 {
			t.Errorf("%s was never asked", name)
		}
		p.mu.Unlock()
	}
}
