package callout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestNextInstance: what fails at one instance is asked of the next within the same call, each once and TriesMax at most.
func TestNextInstance(t *testing.T) {
	var good atomic.Int64
	answering := serve(t, counted(&good, status(200)))
	dead := "http://127.0.0.1:1"
	for name, bad := range map[string]string{
		"refuses": dead, "500": serve(t, status(500)), "503": serve(t, status(503)), "429": serve(t, status(429)),
	} {
		t.Run(name, func(t *testing.T) {
			for range 6 { // whichever comes first
				c := open(t, Options{})
				if a := do(t, c, orders(bad, answering), request); a.Status != 200 || a.URL != answering {
					t.Fatalf("answered %d by %s", a.Status, a.URL)
				}
			}
		})
	}
	t.Run("silent", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { // a time-out is no question of how fast the machine is
			for range 6 {
				c, closeAll := openPipes(t, Options{}, map[string]http.HandlerFunc{"silent": silence, "answering": status(200)})
				if a := do(t, c, orders("http://silent", "http://answering"), request); a.Status != 200 || a.URL != "http://answering" {
					t.Errorf("answered %d by %s", a.Status, a.URL)
				}
				closeAll()
			}
		})
	})
	for _, code := range []int{200, 204, 301, 400, 401, 404, 409, 422} {
		var asked atomic.Int64
		url := serve(t, counted(&asked, status(code)))
		if a := do(t, open(t, Options{}), orders(url, url+"/b"), request); a.Status != code || asked.Load() != 1 {
			t.Errorf("%d is an answer; %d were asked", code, asked.Load())
		}
	}

	var asked atomic.Int64
	failing := serve(t, counted(&asked, status(502)))
	var urls []string
	for n := range 10 {
		urls = append(urls, fmt.Sprint(failing, "/", n))
	}
	if a := do(t, open(t, Options{}), orders(urls...), request); a.Status != 502 || asked.Load() != 3 {
		t.Errorf("answered %d after %d tries", a.Status, asked.Load())
	}
	// An answer that says no is better than none; without one the error says how many were asked.
	if a := do(t, open(t, Options{}), orders(dead, failing, dead+"1"), request); a.Status != 502 {
		t.Errorf("answered %d", a.Status)
	}
	err := fail(t, open(t, Options{}), orders(dead, dead+"/b"), request, errAny)
	if failed, ok := errors.AsType[*CallError](err); !ok || failed.Tries != 2 || failed.Target != "orders/check" {
		t.Errorf("%v", err)
	}
}

// TestLeastOfTwo: calls go where fewer are under way.
func TestLeastOfTwo(t *testing.T) {
	left := make(chan struct{})
	var slow, fast atomic.Int64
	busy := serve(t, counted(&slow, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "PUT" {
			<-left
		}
	}))
	free := serve(t, counted(&fast, status(200)))
	c := open(t, Options{})
	var done sync.WaitGroup
	for range 8 { // keep one of them busy
		done.Add(1)
		if err := c.Go(orders(busy), Request{ID: "1", Method: "PUT"}, func(Answer, error) { done.Done() }); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all are under way", func() bool { return slow.Load() == 8 })
	for range 200 {
		do(t, c, orders(busy, free), request)
	}
	close(left)
	done.Wait()
	// Two random ones are the busy one twice in a quarter of all cases.
	if share := slow.Load() - 8; share < 20 || share > 90 {
		t.Errorf("%d of 200 went where 8 were under way", share)
	}
}

// TestPauses: an instance that failed is left out for a growing while, then asked by one call.
func TestPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sick, hangs atomic.Bool
		sick.Store(true)
		hold := make(chan struct{})
		var bad atomic.Int64
		c, closeAll := openPipes(t, Options{PauseMin: time.Second, PauseMax: 8 * time.Second}, map[string]http.HandlerFunc{
			"a": counted(&bad, func(w http.ResponseWriter, r *http.Request) {
				if hangs.Load() {
					<-hold
				}
				if sick.Load() {
					w.WriteHeader(500)
				}
			}),
			"b": status(200),
		})
		defer closeAll()
		to := orders("http://a", "http://b")
		for bad.Load() == 0 {
			do(t, c, to, request)
		}
		// A call every 10 ms for a minute: the sick one is asked when a pause ends, and no call fails for it.
		var asked []time.Duration
		start := time.Now()
		for time.Since(start) < time.Minute {
			before := bad.Load()
			if a := do(t, c, to, request); a.Status != 200 {
				t.Fatalf("answered %d", a.Status)
			}
			if bad.Load() > before {
				asked = append(asked, time.Since(start))
			}
			time.Sleep(10 * time.Millisecond)
		}
		// Pauses of 1, 2, 4, 8, 8, … seconds, a quarter of each at most less.
		if len(asked) < 9 || len(asked) > 12 {
			t.Fatalf("it was asked %d times, at %v", len(asked), asked)
		}
		if last := asked[len(asked)-1] - asked[len(asked)-2]; last < 6*time.Second || last > 8100*time.Millisecond {
			t.Errorf("the last pause was %s: %v", last, asked)
		}
		if n := c.Answering(to); n != 1 {
			t.Errorf("%d are said to answer", n)
		}
		if n := c.Answering(orders("http://b", "http://new")); n != 2 {
			t.Errorf("%d are said to answer; who was never asked counts", n)
		}
		// One call asks it after its pause. While that waits, no other does.
		time.Sleep(9 * time.Second)
		hangs.Store(true)
		before := bad.Load()
		asks := func() {
			if err := c.Go(to, request, func(a Answer, err error) {
				if err != nil || a.Status != 200 {
					t.Errorf("answered %d, %v", a.Status, err)
				}
			}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		for range 10 {
			asks()
		}
		if n := bad.Load() - before; n != 1 || c.Health(to.Name).UnderWay != 1 {
			t.Errorf("%d calls ask what was sick: %+v", n, c.Health(to.Name))
		}
		close(hold)
		synctest.Wait()
		hangs.Store(false)
		sick.Store(false)
		time.Sleep(9 * time.Second)
		do(t, c, to, request)
		if h := c.Health(to.Name); h.Answering() != 2 || c.Answering(to) != 2 || h.Instances[0].URL != "http://a" {
			t.Errorf("it answered again: %+v", h)
		}
		before = bad.Load()
		for range 100 {
			do(t, c, to, request)
		}
		if share := bad.Load() - before; share < 25 || share > 75 {
			t.Errorf("%d of 100 went to it", share)
		}
	})
}

// TestRetryAfterPauses: an instance that says how long it wants to be left alone is.
func TestRetryAfterPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		c, closeAll := openPipes(t, Options{}, map[string]http.HandlerFunc{
			"a": counted(&asked, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Retry-After", "30")
				w.WriteHeader(429)
			}),
			"b": status(200),
		})
		defer closeAll()
		for asked.Load() == 0 {
			do(t, c, orders("http://a", "http://b"), request)
		}
		start := time.Now()
		for asked.Load() == 1 {
			do(t, c, orders("http://a", "http://b"), request)
			time.Sleep(100 * time.Millisecond)
		}
		if pause := time.Since(start); pause < 29*time.Second || pause > 31*time.Second {
			t.Errorf("it was asked again after %s", pause)
		}
	})
}

// told writes down what a Listener is told.
type told struct {
	mu     sync.Mutex
	opened []string
	closed []string
	called []string
}

func (w *told) listener() Listener {
	return Listener{
		Called: func(target, url string, status int, err error, took time.Duration) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.called = append(w.called, fmt.Sprintf("%s %s %d %v", target, url, status, err != nil))
		},
		Opened: func(target string, last error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.opened = append(w.opened, fmt.Sprintf("%s: %v", target, last))
		},
		Closed: func(target string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.closed = append(w.closed, target)
		},
	}
}

// TestBreaker: after some failures in a row a target is left alone, then asked once, then as before.
func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var code atomic.Int64
		code.Store(503)
		var asked atomic.Int64
		hold := make(chan struct{})
		var w told
		c, closeAll := openPipes(t, Options{BreakerFailures: 3, BreakerOpen: 10 * time.Second, Listener: w.listener()}, map[string]http.HandlerFunc{
			"a": counted(&asked, func(w http.ResponseWriter, r *http.Request) {
				if code.Load() == 0 {
					<-hold
				}
				w.WriteHeader(int(max(code.Load(), 200)))
			}),
		})
		defer closeAll()
		to := orders("http://a/?secret")
		for range 3 {
			if a := do(t, c, to, request); a.Status != 503 {
				t.Fatalf("answered %d", a.Status)
			}
		}
		synctest.Wait()
		if len(w.opened) != 1 || w.opened[0] != "orders/check: it answered 503" || !c.Health(to.Name).Open {
			t.Fatalf("opened: %v", w.opened)
		}
		// Go itself says so: nothing waits, and done is not called.
		err := c.Go(to, request, func(Answer, error) { t.Error("done was called") })
		if !errors.Is(err, ErrOpen) || asked.Load() != 3 {
			t.Errorf("%v", err)
		}
		// Half open: one is let through, and the others are told the same as before.
		time.Sleep(10*time.Second + time.Millisecond)
		code.Store(0)
		var results []error
		var mu sync.Mutex
		for range 10 {
			if err := c.Go(to, request, func(_ Answer, err error) {
				mu.Lock()
				defer mu.Unlock()
				results = append(results, err)
			}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		mu.Lock()
		if len(results) != 9 || slices.ContainsFunc(results, func(err error) bool { return !errors.Is(err, ErrOpen) }) || asked.Load() != 4 {
			t.Fatalf("%d calls let through; %v", asked.Load()-3, results)
		}
		mu.Unlock()
		close(hold)
		synctest.Wait()
		if len(w.closed) != 1 || c.Health(to.Name).Open || results[9] != nil {
			t.Errorf("closed: %v; %v", w.closed, results)
		}
		// A failure in between does not open it; nor does what the target is not to blame for.
		for range 5 {
			code.Store(500)
			do(t, c, to, request)
			do(t, c, to, request)
			code.Store(404)
			do(t, c, to, request)
		}
		code.Store(0)
		hold = make(chan struct{})
		for range 5 {
			given, give := context.WithTimeout(ctx, time.Second)
			if _, err := c.Do(given, to, request); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v", err)
			}
			give()
		}
		synctest.Wait()
		close(hold)
		if len(w.opened) != 1 || c.Health(to.Name).Open || c.Answering(to) != 1 {
			t.Errorf("opened: %v", w.opened)
		}
		if w.called[0] != "orders/check http://a/ 503 false" {
			t.Errorf("called: %q", w.called[0])
		}
	})
}

// TestInsists: a call that insists is made although its target is left alone. If it fails all is as before; once it is answered all calls are made again.
func TestInsists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var code, asked atomic.Int64
		code.Store(503)
		var w told
		c, closeAll := openPipes(t, Options{BreakerFailures: 3, BreakerOpen: time.Hour, Listener: w.listener()}, map[string]http.HandlerFunc{
			"a": counted(&asked, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(code.Load())) }),
		})
		defer closeAll()
		to, insists := orders("http://a/"), request
		insists.Insists = true
		for range 3 {
			do(t, c, to, request)
		}
		if a := do(t, c, to, insists); a.Status != 503 || asked.Load() != 4 || !c.Health(to.Name).Open {
			t.Errorf("a call that insists: %d, %d calls", a.Status, asked.Load())
		}
		if _, err := c.Do(t.Context(), to, request); !errors.Is(err, ErrOpen) || asked.Load() != 4 {
			t.Errorf("a call after one that failed: %v", err)
		}
		code.Store(200)
		if a := do(t, c, to, insists); a.Status != 200 || c.Health(to.Name).Open {
			t.Errorf("a call that insists: %d", a.Status)
		}
		if a := do(t, c, to, request); a.Status != 200 {
			t.Errorf("a call after one that was answered: %d", a.Status)
		}
		synctest.Wait()
		if len(w.opened) != 1 || len(w.closed) != 1 {
			t.Errorf("opened %v, closed %v", w.opened, w.closed)
		}
		code.Store(503) // and the new breaker opens as the old one did
		for range 3 {
			do(t, c, to, request)
		}
		synctest.Wait()
		if len(w.opened) != 2 || !c.Health(to.Name).Open {
			t.Errorf("opened: %v", w.opened)
		}
	})
}

// TestIsolation: a healthy target beside many sick ones, each with all the calls that it may have, feels nothing of them (O3).
func TestIsolation(t *testing.T) {
	const sick = 200
	hang := serve(t, silence)
	endless := serve(t, func(w http.ResponseWriter, r *http.Request) {
		for {
			if _, err := w.Write(make([]byte, 4<<10)); err != nil {
				return
			}
		}
	})
	healthy := serve(t, status(200))
	c := open(t, Options{Timeout: 30 * time.Second, ConcurrencyMax: 2, QueueMax: 50, BodyMax: 1000, BreakerOpen: time.Hour})
	before := runtime.NumGoroutine()
	var over atomic.Int64
	kind := func(n int) string {
		switch {
		case n%20 == 0:
			return endless
		case n%2 == 0:
			return "http://127.0.0.1:1"
		default:
			return hang
		}
	}
	targets := make([]Target, sick)
	for n := range targets {
		targets[n] = Target{Name: fmt.Sprint("sick ", n), URLs: []string{kind(n)}}
		for range 10 {
			if err := c.Go(targets[n], request, func(Answer, error) { over.Add(1) }); errors.Is(err, ErrOpen) {
				over.Add(1)
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	for n := 1; n < sick; n += 2 { // those that hang have two under way, and are filled up
		for {
			err := c.Go(targets[n], request, func(Answer, error) { over.Add(1) })
			if errors.Is(err, ErrBusy) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	var took []time.Duration
	for range 200 {
		began := time.Now()
		do(t, c, Target{Name: "healthy", URLs: []string{healthy}}, request)
		took = append(took, time.Since(began))
	}
	eventually(t, "those that do not hang are through", func() bool { return over.Load() >= 10*sick/2 })
	for n := range targets {
		switch h := c.Health(targets[n].Name); kind(n) {
		case endless: // it answers
		case hang:
			if h.UnderWay != 2 || h.Queued < 48 {
				t.Errorf("what hangs does not: %+v", h)
			}
		default:
			if !h.Open {
				t.Errorf("nobody listens, and its breaker is closed: %+v", h)
			}
		}
	}
	// Goroutines: one a call that is under way, and those of its connection, here and in the servers of this test.
	if n := runtime.NumGoroutine() - before; n > sick*2*8 {
		t.Errorf("%d goroutines for %d targets with 2 calls each", n, sick)
	}
	slices.Sort(took)
	t.Logf("a healthy target beside %d sick ones: median %s, 99%% %s", sick, took[100], took[198])
	if took[100] > time.Second {
		t.Errorf("the median call of a healthy target took %s", took[100])
	}
}

// TestQueue: what does not fit is refused at once, and what waits too long is given up (O2).
func TestQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		var under, most atomic.Int64
		c, closeAll := openPipes(t, Options{QueueMax: 5, ConcurrencyMax: 2, HeldBytesMax: 1000, RequestMax: 900, WaitMax: 5 * time.Second}, map[string]http.HandlerFunc{
			"a": func(w http.ResponseWriter, r *http.Request) {
				most.Store(max(most.Load(), under.Add(1)))
				<-hold
				under.Add(-1)
			},
		})
		defer closeAll()
		var answered, waited atomic.Int64
		done := func(_ Answer, err error) {
			switch {
			case err == nil:
				answered.Add(1)
			case errors.Is(err, ErrBusy):
				waited.Add(1)
			default:
				t.Error(err)
			}
		}
		to := orders("http://a")
		start := func() error {
			defer synctest.Wait() // the workers have taken what they can
			return c.Go(to, request, done)
		}
		for n := range 7 {
			if err := start(); err != nil {
				t.Fatalf("call %d: %v", n, err)
			}
		}
		if h := c.Health(to.Name); h.Queued != 5 || h.UnderWay != 2 {
			t.Errorf("%+v", h)
		}
		if err := start(); !errors.Is(err, ErrBusy) {
			t.Errorf("the queue is full: %v", err)
		}
		time.Sleep(6 * time.Second)
		close(hold)
		synctest.Wait()
		if answered.Load() != 2 || waited.Load() != 5 || most.Load() != 2 {
			t.Errorf("%d answered, %d waited too long, %d at once", answered.Load(), waited.Load(), most.Load())
		}
		if h := c.Health(to.Name); h.Queued != 0 || h.UnderWay != 0 || c.targets[to.Name].held != 0 {
			t.Errorf("%+v, %d bytes", h, c.targets[to.Name].held)
		}
		hold = make(chan struct{})
		large := Request{ID: "1", Body: make([]byte, 900)}
		if err := c.Go(to, large, done); err != nil {
			t.Fatal(err)
		}
		if err := c.Go(to, Request{ID: "1", Body: make([]byte, 101)}, done); !errors.Is(err, ErrBusy) {
			t.Errorf("bytes are held: %v", err)
		}
		if err := c.Go(Target{Name: "other", URLs: to.URLs}, large, done); err != nil {
			t.Errorf("another target's: %v", err)
		}
		// A target's own concurrency.
		own := Target{Name: "own", URLs: to.URLs, ConcurrencyMax: 4}
		for range 6 {
			if err := c.Go(own, request, done); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if h := c.Health("own"); h.UnderWay != 4 || h.Queued != 2 {
			t.Errorf("%+v", h)
		}
		close(hold)
		synctest.Wait()
	})
}

// TestPace: calls of a target begin at its pace, and others do not wait for it.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slow, own atomic.Int64
		c, closeAll := openPipes(t, Options{RatePerSecond: 10, Burst: 5, WaitMax: 10 * time.Second}, map[string]http.HandlerFunc{
			"a": counted(&slow, status(200)), "b": counted(&own, status(200)),
		})
		defer closeAll()
		var refused atomic.Int64
		for range 200 {
			err := c.Go(orders("http://a"), request, func(_ Answer, err error) {
				if errors.Is(err, ErrBusy) {
					refused.Add(1)
				} else if err != nil {
					t.Error(err)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		for range 100 {
			if err := c.Go(Target{Name: "b", URLs: []string{"http://b"}, RatePerSecond: 100}, request, func(Answer, error) {}); err != nil {
				t.Fatal(err)
			}
		}
		at := func(after time.Duration, want int64) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			if got := slow.Load(); got < want-1 || got > want+1 {
				t.Errorf("%d calls began, not %d", got, want)
			}
		}
		at(0, 5)
		if got := own.Load(); got != 100 {
			t.Errorf("%d calls of the other target", got)
		}
		at(time.Second, 15)
		at(4*time.Second, 55)
		at(20*time.Second, 105) // and the rest waited too long
		if n := refused.Load() + slow.Load(); n != 200 {
			t.Errorf("%d of 200 were told", n)
		}
	})
}

// TestTargetsMax: the target that was idle longest is forgotten; one with calls is not.
func TestTargetsMax(t *testing.T) {
	hold := make(chan struct{})
	var held atomic.Int64
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "PUT" {
			held.Add(1)
			<-hold
		}
	})
	c := open(t, Options{TargetsMax: 3})
	named := func(name string) Target { return Target{Name: name, URLs: []string{url}} }
	var done sync.WaitGroup
	busy := func(name string) error {
		done.Add(1)
		err := c.Go(named(name), Request{ID: "1", Method: "PUT"}, func(Answer, error) { done.Done() })
		if err != nil {
			done.Done()
		}
		return err
	}
	if err := busy("busy"); err != nil {
		t.Fatal(err)
	}
	idle := func(name string) {
		do(t, c, named(name), request)
		eventually(t, "it is idle", func() bool { return c.Health(name).UnderWay == 0 })
	}
	for n := range 1000 {
		idle(fmt.Sprint(n))
	}
	idle("998")
	idle("new")
	known := func(name string) bool { return len(c.Health(name).Instances) > 0 }
	if len(c.targets) != 3 || !known("busy") || !known("998") || !known("new") || known("999") {
		t.Errorf("%d targets are known", len(c.targets))
	}
	for _, name := range []string{"998", "new"} {
		if err := busy(name); err != nil {
			t.Fatal(err)
		}
	}
	if err := busy("one more"); !errors.Is(err, ErrBusy) {
		t.Errorf("all have calls: %v", err)
	}
	close(hold)
	done.Wait()
}

// TestURLsChange: what is known of an instance stays with it when the target's URLs change.
func TestURLsChange(t *testing.T) {
	a, b := serve(t, status(200)), "http://127.0.0.1:1"
	c := open(t, Options{})
	for c.Answering(orders(a, b)) == 2 {
		do(t, c, orders(a, b), request)
	}
	do(t, c, orders(b, a, a, "http://127.0.0.1:2"), request)
	h := c.Health("orders/check")
	if len(h.Instances) != 3 || h.Instances[0].Failures == 0 || h.Instances[1].Failures != 0 || h.Instances[1].URL != a {
		t.Errorf("%+v", h)
	}
	// A registration that cannot be called changes nothing.
	fail(t, c, orders(a, "ftp://x"), request, ErrBadTarget)
	if after := c.Health("orders/check"); len(after.Instances) != 3 {
		t.Errorf("%+v", after)
	}
}

// TestClose: what waits is refused, what is under way is finished or cut off, and each is told once (O5).
func TestClose(t *testing.T) {
	for _, patient := range []bool{true, false} {
		t.Run(fmt.Sprint("patient ", patient), func(t *testing.T) {
			hold := make(chan struct{})
			var came atomic.Int64
			url := serve(t, counted(&came, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body) // only then it is noticed that a client has gone
				select {
				case <-hold:
				case <-r.Context().Done():
				}
			}))
			c := open(t, Options{ConcurrencyMax: 4})
			var answered, refused, times atomic.Int64
			for range 20 {
				if err := c.Go(orders(url), request, func(_ Answer, err error) {
					times.Add(1)
					if err == nil {
						answered.Add(1)
					} else if errors.Is(err, ErrClosed) {
						refused.Add(1)
					}
				}); err != nil {
					t.Fatal(err)
				}
			}
			eventually(t, "four are under way", func() bool { return came.Load() == 4 })
			closing, end := context.WithCancel(ctx)
			ended := make(chan error)
			go func() { ended <- c.Close(closing) }()
			eventually(t, "those that wait are refused", func() bool { return refused.Load() == 16 })
			if err := c.Go(orders(url), request, func(Answer, error) { times.Add(1) }); !errors.Is(err, ErrClosed) {
				t.Errorf("closed: %v", err)
			}
			if patient {
				close(hold)
				if err := <-ended; err != nil || answered.Load() != 4 {
					t.Errorf("%d were answered, %v", answered.Load(), err)
				}
				end()
			} else {
				end()
				if err := <-ended; !errors.Is(err, context.Canceled) || refused.Load() != 20 {
					t.Errorf("%d were cut off, %v", refused.Load()-16, err)
				}
				if h := c.Health("orders/check"); h.Answering() != 1 {
					t.Errorf("the instance is blamed: %+v", h)
				}
			}
			if times.Load() != 20 {
				t.Errorf("20 calls were told %d times", times.Load())
			}
		})
	}
}

// TestToldOnce: in a throng of targets, faults, callers that give up and a close, each call is told once, and what is refused never (O5).
func TestToldOnce(t *testing.T) {
	before := runtime.NumGoroutine()
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		switch rand.IntN(6) {
		case 0:
			w.WriteHeader(500)
		case 1:
			panic(http.ErrAbortHandler)
		case 2:
			<-r.Context().Done()
		}
	})
	c := open(t, Options{Timeout: 20 * time.Millisecond, TimeoutMax: time.Second, ConcurrencyMax: 3, QueueMax: 20, TargetsMax: 8, BreakerFailures: 4, BreakerOpen: 10 * time.Millisecond,
		PauseMin: time.Millisecond, PauseMax: 5 * time.Millisecond, WaitMax: 50 * time.Millisecond})
	const calls = 2000
	var times [calls]atomic.Int32
	var taken [calls]bool
	var wait sync.WaitGroup
	for w := range 4 {
		wait.Go(func() {
			for n := w; n < calls; n += 4 {
				to := Target{Name: fmt.Sprint(rand.IntN(12)), URLs: []string{url, url + "/b", "http://127.0.0.1:1"}[:1+rand.IntN(3)]}
				if n%10 == 0 {
					given, give := context.WithTimeout(ctx, 5*time.Millisecond)
					_, _ = c.Do(given, to, request)
					give()
					continue
				}
				eventually(t, "it is taken", func() bool {
					err := c.Go(to, request, func(Answer, error) { times[n].Add(1) })
					taken[n] = err == nil
					return taken[n] || errors.Is(err, ErrClosed)
				})
				if n == calls*3/4 {
					closing, end := context.WithTimeout(ctx, 10*time.Millisecond)
					_ = c.Close(closing)
					end()
				}
			}
		})
	}
	wait.Wait()
	_ = c.Close(ctx)
	accepted := 0
	for n := range calls {
		want := int32(0)
		if taken[n] {
			want = 1
			accepted++
		}
		if got := times[n].Load(); got != want {
			t.Errorf("call %d was told %d times; taken: %t", n, got, taken[n])
		}
	}
	t.Logf("%d of %d calls were taken", accepted, calls)
	if accepted < calls/20 {
		t.Errorf("only %d were taken: this shows nothing", accepted)
	}
	eventually(t, "its goroutines have ended", func() bool { return runtime.NumGoroutine() <= before+20 })
}

// TestOptions: defaults are valid; what cannot work is refused.
func TestOptions(t *testing.T) {
	for name, o := range map[string]Options{
		"a negative limit":   {QueueMax: -1},
		"a negative time":    {Timeout: -1},
		"a negative rate":    {RatePerSecond: -1},
		"timeouts crossed":   {Timeout: 2, TimeoutMax: 1},
		"pauses crossed":     {PauseMin: 2, PauseMax: 1},
		"too little is held": {HeldBytesMax: 1},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	var o Options
	o.EnsureDefaults()
	if err := o.Validate(); err != nil || o.String() == "" {
		t.Error(err)
	}
}

func BenchmarkCalls(b *testing.B) {
	url := serve(b, status(200))
	c := open(b, Options{ConcurrencyMax: 64})
	to := Target{Name: "orders/check", URLs: []string{url}, Secrets: []string{"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "old"}}
	r := Request{ID: "0191a0de-aaaa-8bbb-8ccc-000000000001", ContentType: "application/cloudevents+json", Body: make([]byte, 1000)}
	b.ReportAllocs()
	b.SetParallelism(32)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if _, err := c.Do(ctx, to, r); err != nil {
				b.Error(err)
			}
		}
	})
}
