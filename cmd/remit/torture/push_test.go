package torture_test

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/remitlog/remit/cmd/remit/torture"
	"github.com/remitlog/remit/consumers/push/pushtest"
	"github.com/remitlog/remit/log"
)

var (
	pushKills = flag.Int("push-kills", 2, "how often TestPushKilled kills the server")
	pushRate  = flag.Int("push-rate", 500, "events that TestPushKilled publishes a second")
)

const (
	pushKeys  = 25
	badKeys   = 8
	pushBatch = 10
	pushWait  = 2 * time.Minute // for anything
)

// TestPushKilled is W1, W2 and W7 over a real server that is killed at random moments under load: each event reaches each subscription at least once and in the order of
// its key, also where a sink fails by chance; what always fails is parked, and what is sent again arrives.
func TestPushKilled(t *testing.T) { newPushKilled(t).run() }

type pushKilled struct {
	*testing.T
	server *torture.Server
	rnd    *rand.Rand
	sinks  map[string]*pushSink // by subscription
	mended atomic.Bool

	published []string // in their order; the producer's alone until it has ended
}

// pushSink keeps what a sink has taken: of each event the first time, by key.
type pushSink struct {
	pushtest.Sink

	mu    sync.Mutex
	seen  map[string]bool
	byKey map[string][]string
	again int
	came  chan struct{} // closed when something has
}

func newPushSink(t *testing.T, name string) *pushSink {
	s := &pushSink{seen: map[string]bool{}, byKey: map[string][]string{}, came: make(chan struct{})}
	s.Secret, s.Wrong, s.Note = "a secret of "+name, func(err error) { t.Error(err) }, s.note
	return s
}

func (s *pushSink) note(d pushtest.Delivery) {
	if d.Status/100 != 2 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen[d.Event.ID] {
		s.again++
		return
	}
	s.seen[d.Event.ID] = true
	s.byKey[d.Event.Key] = append(s.byKey[d.Event.Key], d.Event.ID)
	close(s.came)
	s.came = make(chan struct{})
}

// has returns how many events it has taken, and what is closed when there is another.
func (s *pushSink) has() (events int, came <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.seen), s.came
}

func newPushKilled(t *testing.T) *pushKilled {
	k := &pushKilled{T: t, rnd: rand.New(rand.NewPCG(*seed, 7)), sinks: map[string]*pushSink{}}
	var mu sync.Mutex
	chance := rand.New(rand.NewPCG(*seed, 8))
	mux := http.NewServeMux()
	for _, name := range []string{"all", "some", "flaky"} {
		s := newPushSink(t, name)
		if name == "flaky" {
			s.Answer = func(d *pushtest.Delivery) int {
				mu.Lock()
				luck := chance.IntN(20)
				mu.Unlock()
				switch {
				case !k.mended.Load() && strings.HasPrefix(d.Event.Key, "bad"):
					return http.StatusUnprocessableEntity
				case luck == 0:
					return http.StatusBadGateway
				default:
					return http.StatusOK
				}
			}
		}
		k.sinks[name] = s
		mux.Handle("/"+name, s)
	}
	web := httptest.NewServer(mux)
	t.Cleanup(web.Close)
	var err error
	if k.server, err = torture.Start(t.Context(), torture.Options{Binary: build(t), Command: []string{"dev"}, Data: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.server.Stop(); err != nil {
			t.Error(err)
		}
	})
	k.call(t.Context(), http.MethodPut, "/v1/topics/orders", `{"partitions":4}`, nil)
	for name, more := range map[string]string{"all": "", "some": `,"filter":"id LIKE '%7'"`, "flaky": `,"retry":{"interval":"50ms","maxInterval":"500ms","deadline":"2s"}`} {
		k.call(t.Context(), http.MethodPut, "/v1/subscriptions/"+name, fmt.Sprintf(`{"topic":"orders","sink":"%s/%s","secret":"a secret of %s"%s}`, web.URL, name, name, more), nil)
	}
	return k
}

// call calls the server until it answers as it should.
func (k *pushKilled) call(ctx context.Context, method, path, body string, out any) {
	k.Helper()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	kind := "application/json"
	if strings.HasSuffix(path, "/events") {
		kind = log.BatchContentType
	}
	last := ""
	for end := time.Now().Add(pushWait); time.Now().Before(end) && ctx.Err() == nil; <-again.C {
		req, err := http.NewRequestWithContext(ctx, method, k.server.URL+path, strings.NewReader(body))
		if err != nil {
			k.Error(err)
			return
		}
		req.Header.Set("Content-Type", kind)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			last = err.Error()
			continue // it is being killed
		}
		answer, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err == nil && resp.StatusCode/100 == 2 {
			if out != nil {
				if err := json.Unmarshal(answer, out, json.MatchCaseInsensitiveNames(true)); err != nil {
					k.Error(err)
				}
			}
			return
		}
		last = fmt.Sprint(resp.Status, " ", string(answer))
	}
	if ctx.Err() == nil {
		k.Errorf("%s %s: %s", method, path, last)
	}
}

func (k *pushKilled) run() {
	ctx, stop := context.WithCancel(k.Context())
	var producing sync.WaitGroup
	producing.Go(func() { k.produce(ctx) })
	for range *pushKills {
		k.taken("all", 1+k.rnd.IntN(*pushRate))
		k.restart()
	}
	k.taken("all", *pushRate)
	stop()
	producing.Wait()
	k.done()
	k.audit()

	k.mended.Store(true)
	var res struct{ Replayed int }
	k.call(k.Context(), http.MethodPost, "/v1/parked:replay", `{"topic":"orders","all":true,"reason":"mended"}`, &res)
	k.restart()
	k.done()
	k.audit()
	k.say(res.Replayed)
}

// restart kills the server and starts it again.
func (k *pushKilled) restart() {
	k.Helper()
	k.server.Kill()
	if err := k.server.Start(k.Context()); err != nil {
		k.Fatal(err)
	}
}

// produce publishes batches, each until it is answered: so an event may stand on the topic twice, and never before one of its key that came before.
func (k *pushKilled) produce(ctx context.Context) {
	tick := time.NewTicker(time.Second * pushBatch / time.Duration(*pushRate))
	defer tick.Stop()
	for n := 0; ctx.Err() == nil; n += pushBatch {
		var events []string
		for i := n; i < n+pushBatch; i++ {
			key := fmt.Sprint("k", i%pushKeys)
			if i%(badKeys*pushKeys) == 0 {
				key = fmt.Sprint("bad", i/(badKeys*pushKeys)%badKeys)
			}
			id := fmt.Sprintf("%s-%08d", key, i)
			k.published = append(k.published, id)
			events = append(events, fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"/shop","type":"order.placed","partitionkey":%q,"data":{"n":%d}}`, id, key, i))
		}
		k.call(context.WithoutCancel(ctx), http.MethodPost, "/v1/topics/orders/events", "["+strings.Join(events, ",")+"]", nil)
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// taken waits until a subscription's sink has taken so many events that are new to it.
func (k *pushKilled) taken(name string, more int) {
	k.Helper()
	had, came := k.sinks[name].has()
	for has := had; has < had+more; {
		select {
		case <-came:
		case <-time.After(pushWait):
			k.Fatalf("%s: nothing new came for %s; it has taken %d events", name, pushWait, has)
		}
		has, came = k.sinks[name].has()
	}
}

// done waits until nothing is owed to any subscription.
func (k *pushKilled) done() {
	k.Helper()
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	for end := time.Now().Add(pushWait); ; <-look.C {
		var list struct {
			Items []struct {
				Subscription string
				Status       struct {
					State               string
					Lag, ReplaysWaiting int64
					FailingKeys         int
				}
			}
		}
		k.call(k.Context(), http.MethodGet, "/v1/subscriptions", "", &list)
		owed := false
		for _, s := range list.Items {
			owed = owed || s.Status.State != "delivering" || s.Status.Lag > 0 || s.Status.ReplaysWaiting > 0
		}
		if !owed && len(list.Items) == len(k.sinks) {
			return
		}
		if time.Now().After(end) {
			k.Fatalf("after %s something is still owed: %+v", pushWait, list.Items)
		}
	}
}

func (k *pushKilled) audit() {
	k.Helper()
	for name, s := range k.sinks {
		var want []string
		for _, id := range k.published {
			if name == "some" && !strings.HasSuffix(id, "7") || name == "flaky" && !k.mended.Load() && strings.HasPrefix(id, "bad") {
				continue
			}
			want = append(want, id)
		}
		k.inOrder(name, s, want)
	}
	if parked := k.parked(); !k.mended.Load() {
		for _, id := range k.published {
			if strings.HasPrefix(id, "bad") != parked[id] {
				k.Errorf("%s is parked: %t", id, parked[id])
			}
		}
	}
}

// inOrder: each event was taken, and of each key the first times are in order.
func (k *pushKilled) inOrder(name string, s *pushSink, want []string) {
	k.Helper()
	byKey := map[string][]string{}
	for _, id := range want {
		key, _, _ := strings.Cut(id, "-")
		byKey[key] = append(byKey[key], id)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	got := s.byKey
	for key, ids := range byKey {
		if !slices.Equal(got[key], ids) {
			i := 0
			for i < min(len(ids), len(got[key])) && ids[i] == got[key][i] {
				i++
			}
			k.Errorf("%s: of key %s %d of %d were taken; the first that differs is %d: %q, not %q", name, key, len(got[key]), len(ids), i, at(got[key], i), at(ids, i))
		}
	}
}

func at(ids []string, i int) string {
	if i < len(ids) {
		return ids[i]
	}
	return "none"
}

// parked are the ids that are parked.
func (k *pushKilled) parked() map[string]bool {
	k.Helper()
	parked := map[string]bool{}
	for token := ""; ; {
		var page struct {
			Items []struct {
				Subscription string
				Event        struct{ ID string }
			}
			NextPageToken string
		}
		k.call(k.Context(), http.MethodGet, "/v1/parked?topic=orders&pageSize=1000"+token, "", &page)
		for _, p := range page.Items {
			if p.Subscription != "flaky" {
				k.Errorf("%s has parked %s", p.Subscription, p.Event.ID)
			}
			parked[p.Event.ID] = true
		}
		if page.NextPageToken == "" {
			return parked
		}
		token = "&pageToken=" + page.NextPageToken
	}
}

func (k *pushKilled) say(replayed int) {
	again := map[string]int{}
	for name, s := range k.sinks {
		s.mu.Lock()
		again[name] = s.again
		s.mu.Unlock()
	}
	if replayed == 0 {
		k.Error("nothing was parked")
	}
	k.Logf("%d kills; %d events; taken again: all %d, some %d, flaky %d; %d parked records sent again", *pushKills+1, len(k.published), again["all"], again["some"], again["flaky"], replayed)
}
