package torture_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/remitlog/remit/cmd/remit/torture"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/embedded"
)

var (
	messagesRate = flag.Int("messages-rate", 500, "half messages a second that TestMessagesKilled sends")
	messagesFor  = flag.Duration("messages-for", 5*time.Second, "for how long it sends them")
	messagesKill = flag.Duration("messages-kill", 1500*time.Millisecond, "the mean time between two kills")
)

// shop is a producer whose database is a map: what it holds is what it has committed. It forgets to decide some of its messages, and is asked.
type shop struct {
	*httptest.Server
	mu       sync.Mutex
	rows     map[log.ID]bool // true: committed, false: rolled back
	checks   atomic.Int64
	received map[string][]string // by key: the events that its subscription was sent, in order
	pushes   atomic.Int64
}

func newShop(t *testing.T) *shop {
	p := &shop{rows: map[log.ID]bool{}, received: map[string][]string{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /check", p.check)
	mux.HandleFunc("POST /sink", p.sink)
	mux.HandleFunc("OPTIONS /sink", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("WebHook-Allowed-Origin", r.Header.Get("WebHook-Request-Origin"))
	})
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	return p
}

// check answers by the database. Now and then it does not know yet, is down, or says something else.
func (p *shop) check(w http.ResponseWriter, r *http.Request) {
	n := p.checks.Add(1)
	var e struct {
		Data struct {
			ID log.ID `json:"messageId"`
		} `json:"data"`
	}
	err := json.UnmarshalRead(r.Body, &e)
	p.mu.Lock()
	committed, known := p.rows[e.Data.ID]
	p.mu.Unlock()
	switch {
	case err != nil || n%7 == 0:
		http.Error(w, "down", http.StatusInternalServerError)
	case n%11 == 0:
		_, _ = io.WriteString(w, `{"verdict":"perhaps"}`)
	case !known || n%5 == 0:
		_, _ = io.WriteString(w, `{"verdict":"unknown"}`)
	case committed:
		_, _ = io.WriteString(w, `{"verdict":"commit"}`)
	default:
		_, _ = io.WriteString(w, `{"verdict":"rollback"}`)
	}
}

// sink takes what its subscription is sent, and fails now and then.
func (p *shop) sink(w http.ResponseWriter, r *http.Request) {
	if p.pushes.Add(1)%23 == 0 {
		http.Error(w, "later", http.StatusServiceUnavailable)
		return
	}
	key, id := r.Header.Get("ce-partitionkey"), r.Header.Get("ce-id")
	p.mu.Lock()
	defer p.mu.Unlock()
	if got := p.received[key]; len(got) == 0 || got[len(got)-1] != id { // a repeat at once is one
		p.received[key] = append(got, id)
	}
}

// errGone: the server was killed while it was asked.
var errGone = errors.New("no answer")

// call asks until there is an answer below 500.
func call(ctx context.Context, method, url, body string) (int, string, error) {
	for {
		status, said, err := callOnce(ctx, method, url, body)
		if err == nil && status < 500 {
			return status, said, nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return 0, "", ctx.Err()
		}
	}
}

func callOnce(ctx context.Context, method, url, body string) (int, string, error) {
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
		if strings.Contains(body, `"specversion"`) {
			r.Header.Set("Content-Type", "application/cloudevents+json")
		}
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, "", fmt.Errorf("%w: %w", errGone, err)
	}
	defer answer.Body.Close()
	said, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(said), err
}

// line is one key and what became of its messages. One goroutine sends them, one after the other.
type line struct {
	key       string
	committed []string // in the order in which the commits were answered
	forgotten []string // committed in the database, and never told: a check decides
	rolled    []string
}

// send sends one message: it stores the half message, runs the transaction, and decides; or dies before it decides.
func (l *line) send(ctx context.Context, server string, p *shop, rng *rand.Rand, n int) error {
	name := fmt.Sprintf("%s-%d", l.key, n)
	id := log.NewID(time.Now(), l.key)
	event := fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"/shop","type":"order","partitionkey":%q,"remitid":%q,"datacontenttype":"application/json","data":{"n":%d}}`, name, l.key, id, n)
	status, said, err := call(ctx, http.MethodPost, server+"/v1/topics/orders/messages?producer=shop", event)
	if err != nil {
		return err
	}
	if status != http.StatusCreated && status != http.StatusOK && status != http.StatusAccepted {
		return fmt.Errorf("preparing %s: %d %s", name, status, said)
	}
	commit := rng.IntN(10) > 0
	p.mu.Lock()
	p.rows[id] = commit
	p.mu.Unlock()
	if rng.IntN(8) == 0 { // it dies here
		if commit {
			l.forgotten = append(l.forgotten, name)
		} else {
			l.rolled = append(l.rolled, name)
		}
		return nil
	}
	verb := "commit"
	if !commit {
		verb = "rollback"
	}
	status, said, err = call(ctx, http.MethodPost, server+"/v1/messages/"+id.String()+"/"+verb, "")
	switch {
	case err != nil:
		return err
	case status != http.StatusOK:
		return fmt.Errorf("%s of %s: %d %s", verb, name, status, said)
	case commit:
		l.committed = append(l.committed, name)
	default:
		l.rolled = append(l.rolled, name)
	}
	return nil
}

// TestMessagesKilled (line 4): kill -9 at random under load, with checks and a subscription on. No committed message is lost, or delivered twice on
// the topic; per key they stand in the order of their decisions; subscribers see each at least once, and per key in the order of the topic.
func TestMessagesKilled(t *testing.T) {
	p := newShop(t)
	data := filepath.Join(t.TempDir(), "data")
	s, err := torture.Start(t.Context(), torture.Options{Binary: build(t), Data: data, Command: []string{"dev"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { s.Kill() }()
	put(t, s.URL+"/v1/topics/orders", `{"partitions":4}`)
	put(t, s.URL+"/v1/producers/shop", fmt.Sprintf(
		`{"check":{"url":%q,"firstAfter":"1s","interval":"1s","maxInterval":"2s","deadline":"24h"}}`, p.URL+"/check"))
	put(t, s.URL+"/v1/subscriptions/shop", fmt.Sprintf(`{"topic":"orders","sink":%q,"retry":{"interval":"100ms","maxInterval":"1s","deadline":"24h"}}`, p.URL+"/sink"))

	// One goroutine a key: each sends one message after the other, at its share of the rate.
	const keys = 64
	began, server := time.Now(), s.URL // the same after a restart
	ctx, stop := context.WithTimeout(t.Context(), *messagesFor)
	defer stop()
	lines := make([]*line, keys)
	var sending sync.WaitGroup
	var total atomic.Int64
	for k := range keys {
		l := &line{key: fmt.Sprintf("key%d", k)}
		lines[k] = l
		rng := rand.New(rand.NewPCG(*seed, uint64(k)))
		sending.Go(func() {
			every := time.Duration(float64(time.Second) * keys / float64(*messagesRate))
			tick := time.NewTicker(every)
			defer tick.Stop()
			for n := 0; ; n++ {
				select {
				case <-tick.C:
				case <-ctx.Done():
					return
				}
				if err := l.send(t.Context(), server, p, rng, n); err != nil {
					t.Error(err)
					return
				}
				total.Add(1)
			}
		})
	}
	kills := killing(t, ctx, s)
	sending.Wait()
	t.Logf("%d messages in %.1f s, %.0f/s, while it was killed %d times", total.Load(), time.Since(began).Seconds(), float64(total.Load())/time.Since(began).Seconds(), <-kills)

	settled(t, s, p, lines)
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	t.Logf("the producer was asked %d times, and sent %d", p.checks.Load(), p.pushes.Load())
	audit(t, data, p, lines)
}

// killing kills the server now and then until ctx ends, and says how often.
func killing(t *testing.T, ctx context.Context, s *torture.Server) <-chan int {
	done := make(chan int, 1)
	rng := rand.New(rand.NewPCG(*seed, 99))
	go func() {
		n := 0
		defer func() { done <- n }()
		for {
			pause := time.NewTimer(*messagesKill/2 + time.Duration(rng.Int64N(int64(*messagesKill))))
			select {
			case <-pause.C:
			case <-ctx.Done():
				pause.Stop()
				return
			}
			s.Kill()
			n++
			if err := s.Start(t.Context()); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	return done
}

// settled waits until every message is decided, and the subscription has been sent all that it must.
func settled(t *testing.T, s *torture.Server, p *shop, lines []*line) {
	t.Helper()
	want := 0
	for _, l := range lines {
		want += len(l.committed) + len(l.forgotten)
	}
	deadline := time.Now().Add(2 * time.Minute)
	for {
		var list struct {
			Items []struct{} `json:"items"`
		}
		undecided := 0
		for _, state := range []string{"prepared", "committed", "parked"} {
			_, said, err := call(t.Context(), http.MethodGet, s.URL+"/v1/messages?pageSize=1000&state="+state, "")
			if err == nil {
				err = json.Unmarshal([]byte(said), &list)
			}
			if err != nil {
				t.Fatal(err)
			}
			undecided += len(list.Items)
		}
		sent := 0
		p.mu.Lock()
		for _, got := range p.received {
			sent += len(slices.Compact(slices.Sorted(slices.Values(got))))
		}
		p.mu.Unlock()
		if undecided == 0 && sent == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after two minutes %d messages are not at their end, and the subscription was sent %d of %d", undecided, sent, want)
		}
		<-time.After(200 * time.Millisecond)
	}
}

// audit holds what stands on the topic, and what the subscription was sent, against what was answered.
func audit(t *testing.T, data string, p *shop, lines []*line) {
	t.Helper()
	l, err := embedded.Open(embedded.Options{Dir: filepath.Join(data, "log"), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	onTopic := map[string][]string{}
	for i := range int32(4) {
		at := log.Partition{Topic: "orders", Index: i}
		from, end, err := l.Bounds(t.Context(), at)
		if err != nil {
			t.Fatal(err)
		}
		for from < end {
			records, err := l.Read(t.Context(), at, from, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range records {
				e, err := log.ParseRecord(r)
				if err != nil {
					t.Fatal(err)
				}
				onTopic[e.Key] = append(onTopic[e.Key], e.ID)
				if !bytes.Contains(e.Data, []byte(`"n"`)) {
					t.Fatalf("%s has lost its data: %s", e.ID, e.Data)
				}
			}
			from = records[len(records)-1].Offset + 1
		}
	}
	for _, l := range lines {
		got := onTopic[l.key]
		delete(onTopic, l.key)
		want := append(slices.Clone(l.committed), l.forgotten...)
		if a, b := slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want)); !slices.Equal(a, b) {
			t.Errorf("%s: %d messages stand on the topic, %d were committed: %v", l.key, len(got), len(want), difference(a, b))
			continue
		}
		inOrder := slices.DeleteFunc(slices.Clone(got), func(id string) bool { return !slices.Contains(l.committed, id) })
		if !slices.Equal(inOrder, l.committed) {
			t.Errorf("%s: the order on the topic is not that of the decisions", l.key)
		}
		// A subscriber may be sent some again, from an earlier one on; each for the first time in the order of the topic.
		var first []string
		seen := map[string]bool{}
		for _, id := range p.received[l.key] {
			if !seen[id] {
				seen[id] = true
				first = append(first, id)
			}
		}
		if !slices.Equal(first, got) {
			t.Errorf("%s: the subscription was sent %d, in another order than that of the topic, or others: %v", l.key, len(first), difference(first, got))
		}
	}
	if len(onTopic) > 0 {
		t.Errorf("keys on the topic that nobody has sent: %d", len(onTopic))
	}
}

// difference returns some of what is in one and not in the other.
func difference(a, b []string) (diff []string) {
	for _, id := range a {
		if !slices.Contains(b, id) {
			diff = append(diff, "+"+id)
		}
	}
	for _, id := range b {
		if !slices.Contains(a, id) {
			diff = append(diff, "-"+id)
		}
	}
	return diff[:min(len(diff), 10)]
}
