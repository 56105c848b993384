package push_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remitlog/remit/consumers"
	"github.com/remitlog/remit/consumers/push"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/logtest"
)

const origin = "remit.example"

// world is a log, subscriptions and sinks, and a Service that is started and killed. It lives in a bubble of synctest.
type world struct {
	t    *testing.T
	log  *logtest.Mem
	push *push.Service
	push.Options
	wrap func(log.Log) log.Log // what the Service sees of the log

	mu        sync.Mutex
	subs      []push.Subscription
	changed   chan struct{}
	committed map[string]map[log.Partition]push.Committed
	commits   int
	cutOff    chan struct{} // closed by kill: what the process still does reaches nobody
	sinks     map[string]*sink
	told      map[string]int // what the listener was told
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, log: logtest.NewMem(), changed: make(chan struct{}), committed: map[string]map[log.Partition]push.Committed{}, sinks: map[string]*sink{}, told: map[string]int{}}
	t.Cleanup(func() {
		if w.push != nil {
			w.stop()
		}
		if err := w.log.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) topic(name string, partitions int) {
	w.t.Helper()
	w.must(w.log.CreateTopic(w.t.Context(), log.TopicConfig{Name: name, Partitions: partitions}))
}

// event appends an event of a key, to the key's partition.
func (w *world) event(topic, key, id string) {
	w.t.Helper()
	c, err := w.log.Topic(w.t.Context(), topic)
	w.must(err)
	p := log.Partition{Topic: topic}
	if key != "" {
		p.Index = log.KeyPartition(key, c.Partitions)
	}
	e := log.Event{ID: id, Source: "/shop", Type: "order.placed.v1", Key: key, DataContentType: log.JSONContentType, Data: []byte(`{"id":"` + id + `"}`)}
	_, err = w.log.Append(w.t.Context(), e.Record(p))
	w.must(err)
}

// records returns what a topic has, partition by partition.
func (w *world) records(topic string) (all []log.Record) {
	w.t.Helper()
	c, err := w.log.Topic(w.t.Context(), topic)
	if errors.Is(err, log.ErrUnknownTopic) {
		return nil
	}
	w.must(err)
	for i := range c.Partitions {
		p := log.Partition{Topic: topic, Index: int32(i)}
		first, end, err := w.log.Bounds(w.t.Context(), p)
		w.must(err)
		for first < end {
			rs, err := w.log.Read(w.t.Context(), p, first, 1<<20)
			w.must(err)
			all = append(all, rs...)
			first = rs[len(rs)-1].Offset + 1
		}
	}
	return all
}

// parked returns the ids that are parked, and why.
func (w *world) parked(topic string) (ids []string) {
	for _, r := range w.records(consumers.ParkedTopic(topic)) {
		e, err := log.ParseRecord(r)
		w.must(err)
		p, err := consumers.ParseParked(r)
		w.must(err)
		ids = append(ids, e.ID+": "+p.Reason)
	}
	slices.Sort(ids)
	return ids
}

// subscribe registers a subscription, or changes it.
func (w *world) subscribe(s push.Subscription) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.Registered.IsZero() {
		s.Registered = time.Now()
	}
	if s.Interval == 0 {
		s.Interval, s.MaxInterval, s.Deadline = time.Second, time.Minute, time.Hour
	}
	w.subs = slices.DeleteFunc(w.subs, func(o push.Subscription) bool { return o.Name == s.Name })
	w.subs = append(w.subs, s)
	w.wake()
}

func (w *world) unsubscribe(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.subs = slices.DeleteFunc(w.subs, func(o push.Subscription) bool { return o.Name == name })
	w.wake()
}

func (w *world) wake() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// start starts the Service.
func (w *world) start() {
	w.t.Helper()
	o := w.Options
	w.cutOff = make(chan struct{})
	p := &process{world: w, cutOff: w.cutOff}
	var l log.Log = w.log
	if w.wrap != nil {
		l = w.wrap(l)
	}
	o.Log, o.Offsets, o.Registry, o.Caller, o.Origin = l, p, w, p, origin
	if o.Compile == nil {
		o.Compile = compile
	}
	count := func(what string) { w.mu.Lock(); w.told[what]++; w.mu.Unlock() }
	o.Listener = push.Listener{
		Delivered: func(s string, _, _ time.Duration) { count("delivered " + s) },
		Failed:    func(s string, status int) { count(fmt.Sprint("failed ", s, " ", status)) },
		Skipped:   func(s string) { count("skipped " + s) }, Parked: func(s string) { count("parked " + s) },
		Missed: func(s string, _ int64) { count("missed " + s) }, Removed: func(s string) { count("removed " + s) },
	}
	var err error
	w.push, err = push.New(o)
	w.must(err)
	synctest.Wait()
}

// stop stops it in order.
func (w *world) stop() {
	w.t.Helper()
	w.must(w.push.Close(context.Background()))
	w.push = nil
}

// kill ends it as kill -9 would: nothing that it does from now on reaches anybody.
func (w *world) kill() {
	w.t.Helper()
	close(w.cutOff)
	w.stop()
}

// process is what a Service that may be killed sees of the world.
type process struct {
	*world
	cutOff chan struct{}
}

var errKilled = errors.New("the process is killed")

func (p *process) killed() bool {
	select {
	case <-p.cutOff:
		return true
	default:
		return false
	}
}

// Subscriptions implements push.Registry.
func (w *world) Subscriptions() []push.Subscription {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.subs)
}

// Changed implements push.Registry.
func (w *world) Changed() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changed
}

// Committed implements push.Offsets.
func (p *process) Committed(_ context.Context, group string) (map[log.Partition]push.Committed, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.committed[group]), nil
}

// Commit implements push.Offsets.
func (p *process) Commit(_ context.Context, group string, at map[log.Partition]push.Committed) error {
	if p.killed() {
		return errKilled
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.commits++
	if p.committed[group] == nil {
		p.committed[group] = map[log.Partition]push.Committed{}
	}
	maps.Copy(p.committed[group], at)
	return nil
}

// ForgetGroup implements push.Offsets.
func (p *process) ForgetGroup(_ context.Context, group string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.committed, group)
	return nil
}

// Groups implements push.Offsets.
func (p *process) Groups(_ context.Context, prefix string) (names []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name := range p.committed {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	return names
}

// next returns what a subscription's group has committed of a partition.
func (w *world) next(subscription string, p log.Partition) log.Offset {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.committed[push.Group(subscription)][p].Next
}

// sink is one that is called.
type sink struct {
	world *world
	url   string

	// options answers the handshake; nil consents.
	options func() (push.Answer, error)
	// post answers a delivery; nil takes it. It may sleep.
	post func(ctx context.Context, e *log.Event, r push.Request) (push.Answer, error)

	mu sync.Mutex
	calls
}

// calls is what came to a sink.
type calls struct {
	asked   int
	got     []string // ids that it has taken, in their order
	tries   []string // ids of all calls
	times   []time.Time
	last    push.Request
	to      push.Target
	open    int
	openMax int
}

// now returns what came until now. A test reads it so, also when all is still: nothing else orders its reading before the next call's writing.
func (s *sink) now() calls {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.calls
	c.got, c.tries, c.times = slices.Clone(c.got), slices.Clone(c.tries), slices.Clone(c.times)
	return c
}

func (w *world) sink(url string) *sink {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := &sink{world: w, url: url}
	w.sinks[url] = s
	return s
}

var errRefused = errors.New("connection refused")

// Call implements push.Caller.
func (p *process) Call(ctx context.Context, to push.Target, r push.Request) (push.Answer, error) {
	if p.killed() {
		return push.Answer{}, errKilled
	}
	p.mu.Lock()
	s := p.sinks[to.URL]
	p.mu.Unlock()
	if s == nil {
		return push.Answer{}, errRefused
	}
	a, err := s.call(ctx, to, r)
	switch {
	case ctx.Err() != nil:
		return push.Answer{}, ctx.Err()
	case p.killed():
		return push.Answer{}, errKilled // whatever the sink has done
	}
	return a, err
}

func answered(status int, headers ...string) (push.Answer, error) {
	a := push.Answer{Status: status, Header: http.Header{}}
	for i := 0; i < len(headers); i += 2 {
		a.Header.Set(headers[i], headers[i+1])
	}
	if after := a.Header.Get("Retry-After"); after != "" {
		a.RetryAfter, _ = time.ParseDuration(after + "s")
	}
	return a, nil
}

func consents() (push.Answer, error) { return answered(200, "WebHook-Allowed-Origin", origin) }

func (s *sink) call(ctx context.Context, to push.Target, r push.Request) (push.Answer, error) {
	if r.Method == http.MethodOptions {
		s.mu.Lock()
		s.asked++
		options := s.options
		s.mu.Unlock()
		if options == nil {
			return consents()
		}
		return options()
	}
	es, err := log.ParseHTTP(r.Header, r.Body)
	if err != nil || len(es) != 1 || r.Method != http.MethodPost {
		s.world.t.Errorf("%s %v is no delivery: %v", r.Method, r.Header, err)
		return answered(400)
	}
	s.mu.Lock()
	s.tries, s.times = append(s.tries, es[0].ID), append(s.times, time.Now())
	s.last, s.to = r, to
	s.open++
	s.openMax = max(s.openMax, s.open)
	s.mu.Unlock()
	a, err := answered(204)
	if s.post != nil {
		a, err = s.post(ctx, &es[0], r)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open--
	if err == nil && a.Status/100 == 2 {
		s.got = append(s.got, es[0].ID)
	}
	return a, err
}

// answersOptions says how it answers the handshake from now on.
func (s *sink) answersOptions(options func() (push.Answer, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.options = options
}

func (s *sink) wantGot(ids ...string) {
	s.world.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.got, ids) {
		s.world.t.Errorf("%s got %q, not %q", s.url, s.got, ids)
	}
}

// reset forgets what came.
func (s *sink) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = calls{open: s.open, openMax: s.openMax}
}

func (w *world) wantStatus(name string, state push.State, why string) push.Status {
	w.t.Helper()
	st, ok := w.push.Status(name)
	if !ok || st.State != state || !strings.Contains(st.Why, why) {
		w.t.Errorf("%s is %q, since %q: not %q, since %q", name, st.State, st.Why, state, why)
	}
	return st
}

func (w *world) wantTold(what string, times int) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.told[what] != times {
		w.t.Errorf("%q was told %d times, not %d: %v", what, w.told[what], times, w.told)
	}
}

// compile reads the filters of these tests: a word that the id has.
func compile(text string) (push.Filter, error) {
	if text == "(" {
		return nil, errors.New("a parenthesis is not closed")
	}
	return func(e *log.Event) (bool, error) {
		if strings.Contains(e.ID, "strange") {
			return false, errors.New("it is strange\n")
		}
		return strings.Contains(e.ID, text), nil
	}, nil
}

// bubble runs a test with a time of its own.
func bubble(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newWorld(t)) })
}

// pass lets time go by.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
