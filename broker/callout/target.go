package callout

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"time"

	"github.com/sony/gobreaker/v2"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"golang.org/x/time/rate"
)

// target is what is known of one. Caller.mu guards it.
type target struct {
	name  string
	used  uint64 // Caller.calls at its last call: the smallest is forgotten first
	setup        // of its last call

	queue   list.List // of *call
	held    int       // bytes of bodies, waiting and under way
	working int       // goroutines, each with one call
	limiter *rate.Limiter

	breaker *gobreaker.TwoStepCircuitBreaker[struct{}]
	moved   []gobreaker.State // that the breaker came to, and nobody was told of
	last    error             // why its last call failed
}

// setup is a Target as it is used. A call keeps that with which it was taken.
type setup struct {
	urls, secrets []string
	concurrency   int
	instances     []*instance
	signers       []*standardwebhooks.Webhook
}

// instance is one URL of a target.
type instance struct {
	address  string    // the URL as it was given
	url      *url.URL  // and read
	underWay int       // tries
	failures int       // in a row
	pause    time.Time // until when it is left out, after a failure
	probing  bool      // a call asks it after a pause
}

// call is one on its way.
type call struct {
	ctx     context.Context // ends when it is given up, or cut off
	request Request
	id      string // the request's, as a header
	done    func(Answer, error)
	target  *target
	setup
	since time.Time
}

// newTarget makes what its first call needs.
func (c *Caller) newTarget(name string) *target {
	t := &target{name: name}
	c.newBreaker(t)
	return t
}

// newBreaker gives a target one that is closed.
func (c *Caller) newBreaker(t *target) {
	var b *gobreaker.TwoStepCircuitBreaker[struct{}]
	b = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Timeout:     c.opts.BreakerOpen,
		ReadyToTrip: func(n gobreaker.Counts) bool { return int(n.ConsecutiveFailures) >= c.opts.BreakerFailures },
		IsExcluded:  func(err error) bool { return errors.Is(err, errNobodysFault) },
		// It is called within Allow, State and their like, so with Caller.mu held.
		OnStateChange: func(_ string, _, to gobreaker.State) {
			if b == t.breaker { // a call may still be under way that asked one before
				t.moved = append(t.moved, to)
			}
		},
	})
	t.breaker = b
}

// errNobodysFault is told to a breaker of a call that says nothing about its target.
var errNobodysFault = errors.New("callout: the target was not found sick")

func (t *target) open() bool { return t.breaker.State() == gobreaker.StateOpen }

func (t *target) idle() bool { return t.working == 0 && t.queue.Len() == 0 }

func (s *setup) instance(address string) *instance {
	for _, i := range s.instances {
		if i.address == address {
			return i
		}
	}
	return nil
}

// take puts a call into its target's queue, and sees to it that somebody works there.
func (c *Caller) take(k *call, t Target) error {
	if err := c.checkRequest(k); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	found, err := c.find(t)
	if err != nil {
		return err
	}
	switch {
	case found.open() && !k.request.Insists:
		return &OpenError{Target: t.Name, Last: found.last}
	case found.queue.Len() >= c.opts.QueueMax:
		return fmt.Errorf("%w: target %q has %d of them", ErrBusy, t.Name, found.queue.Len())
	case found.held+len(k.request.Body) > c.opts.HeldBytesMax:
		return fmt.Errorf("%w: those of target %q hold %d bytes", ErrBusy, t.Name, found.held)
	}
	c.calls++
	k.target, k.setup, k.since = found, found.setup, time.Now()
	found.used = c.calls
	found.held += len(k.request.Body)
	found.queue.PushBack(k)
	if found.working < found.concurrency {
		found.working++
		c.working.Add(1)
		go c.work(found)
	}
	return nil
}

// find returns the target, as it is to be now.
func (c *Caller) find(t Target) (*target, error) {
	found := c.targets[t.Name]
	if found == nil {
		found = c.newTarget(t.Name)
	}
	if err := c.setUp(found, t); err != nil {
		return nil, err
	}
	if _, known := c.targets[t.Name]; known {
		return found, nil
	}
	if len(c.targets) >= c.opts.TargetsMax && !c.forget() {
		return nil, fmt.Errorf("%w: %d targets have some", ErrBusy, len(c.targets))
	}
	c.targets[t.Name] = found
	return found, nil
}

// forget drops the target that was idle longest. It reports whether there was one.
func (c *Caller) forget() bool {
	var oldest *target
	for _, t := range c.targets {
		if t.idle() && (oldest == nil || t.used < oldest.used) {
			oldest = t
		}
	}
	if oldest != nil {
		delete(c.targets, oldest.name)
	}
	return oldest != nil
}

// setUp makes a target as t has it. What is known of its instances stays with their URLs. After an error it is as before.
func (c *Caller) setUp(of *target, t Target) error {
	next := of.setup
	if len(of.instances) == 0 || !slices.Equal(t.URLs, of.urls) {
		if err := c.setURLs(&next, t); err != nil {
			return err
		}
	}
	if !slices.Equal(t.Secrets, of.secrets) {
		next.secrets, next.signers = slices.Clone(t.Secrets), nil
		for _, secret := range t.Secrets {
			s, err := newSigner(secret)
			if err != nil {
				return fmt.Errorf("%w: target %q", err, t.Name)
			}
			next.signers = append(next.signers, s)
		}
	}
	next.concurrency = c.opts.ConcurrencyMax
	if t.ConcurrencyMax > 0 {
		next.concurrency = t.ConcurrencyMax
	}
	of.setup = next
	c.setPace(of, t)
	return nil
}

func (c *Caller) setURLs(s *setup, t Target) error {
	if len(t.URLs) == 0 || len(t.URLs) > c.opts.URLsMax {
		return fmt.Errorf("%w: target %q has %d URLs, between 1 and %d are taken", ErrBadTarget, t.Name, len(t.URLs), c.opts.URLsMax)
	}
	var instances []*instance
	for n, address := range t.URLs {
		if slices.Contains(t.URLs[:n], address) {
			continue // given twice
		}
		i := s.instance(address)
		if i == nil {
			u, err := url.Parse(address)
			if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
				return fmt.Errorf("%w: target %q: %.200q is not an address such as https://orders.example/check", ErrBadTarget, t.Name, address)
			}
			u.Fragment, u.RawFragment = "", ""
			i = &instance{address: address, url: u}
		}
		instances = append(instances, i)
	}
	s.urls, s.instances = slices.Clone(t.URLs), instances
	return nil
}

// setPace keeps the limiter while nothing changes: it knows what was called a moment ago.
func (c *Caller) setPace(of *target, t Target) {
	limit, burst := c.opts.RatePerSecond, c.opts.Burst
	if t.RatePerSecond > 0 {
		limit, burst = t.RatePerSecond, t.RatePerSecond
	}
	switch {
	case limit == 0:
		of.limiter = nil
	case of.limiter == nil:
		of.limiter = rate.NewLimiter(rate.Limit(limit), burst)
	case of.limiter.Limit() != rate.Limit(limit):
		of.limiter.SetLimit(rate.Limit(limit))
		of.limiter.SetBurst(burst)
	}
}

// next returns the call that waited longest. Without one, or when there are more workers than there should be, the worker has to go.
func (c *Caller) next(t *target) (*call, *rate.Limiter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := t.queue.Front()
	if first == nil || t.working > t.concurrency {
		t.working--
		return nil, nil
	}
	return t.queue.Remove(first).(*call), t.limiter
}

// drop empties the queue.
func (t *target) drop() []*call {
	var all []*call
	for e := t.queue.Front(); e != nil; e = e.Next() {
		all = append(all, e.Value.(*call))
		t.held -= len(e.Value.(*call).request.Body)
	}
	t.queue.Init()
	return all
}

// allow asks the breaker. report is told what came of the call: nil, errNobodysFault, or why it failed.
func (c *Caller) allow(k *call) (report func(error), err error) {
	t := k.target
	defer c.tell(t)
	c.mu.Lock()
	defer c.mu.Unlock()
	count, err := t.breaker.Allow()
	switch {
	case err != nil && k.request.Insists:
		count = func(err error) { c.insisted(t, err) }
	case err != nil:
		return nil, &OpenError{Target: t.name, Last: t.last}
	}
	return func(err error) {
		defer c.tell(t)
		c.mu.Lock()
		defer c.mu.Unlock()
		if err != nil && !errors.Is(err, errNobodysFault) {
			t.last = err
		}
		count(err)
	}, nil
}

// insisted notes what came of a call that was made although the target is left alone. One that failed changes nothing.
func (c *Caller) insisted(t *target, err error) {
	if err == nil && t.breaker.State() != gobreaker.StateClosed {
		c.newBreaker(t)
		t.moved = append(t.moved, gobreaker.StateClosed)
	}
}

// tell passes on what the breaker came to.
func (c *Caller) tell(t *target) {
	c.mu.Lock()
	moved, last := t.moved, t.last
	t.moved = nil
	c.mu.Unlock()
	for _, to := range moved {
		switch to {
		case gobreaker.StateOpen:
			c.opts.Listener.Opened(t.name, last)
		case gobreaker.StateClosed:
			c.opts.Listener.Closed(t.name)
		case gobreaker.StateHalfOpen: // one call is let through; it will be closed or open again
		}
	}
}

// pick chooses the instance to ask next, which is not among those tried, and counts it as under way: one whose pause has just ended; else of two
// random healthy ones the one with less to do; else, since something must be asked, the one whose pause ends first.
func (c *Caller) pick(k *call, tried []*instance) *instance {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	var healthy []*instance
	var due, resting *instance
	for _, i := range k.instances {
		switch {
		case slices.Contains(tried, i):
		case i.failures == 0:
			healthy = append(healthy, i)
		case !i.probing && !now.Before(i.pause):
			due = i
		case resting == nil || i.pause.Before(resting.pause):
			resting = i
		}
	}
	var chosen *instance
	switch {
	case due != nil:
		chosen, due.probing = due, true
	case len(healthy) > 0:
		chosen = healthy[rand.IntN(len(healthy))]
		if other := healthy[rand.IntN(len(healthy))]; other.underWay < chosen.underWay {
			chosen = other
		}
	case resting != nil:
		chosen = resting
	default:
		return nil // all were tried
	}
	chosen.underWay++
	return chosen
}

// seen notes what came of a try. A failed instance is left out for a while: longer each time, and as long as it says, up to PauseMax.
func (c *Caller) seen(i *instance, failed bool, retryAfter time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i.underWay--
	i.probing = false
	if !failed {
		i.failures, i.pause = 0, time.Time{}
		return
	}
	i.failures++
	pause := c.opts.PauseMin
	for n := 1; n < i.failures && pause < c.opts.PauseMax; n++ {
		pause *= 2
	}
	pause = min(pause, c.opts.PauseMax)
	pause -= rand.N(pause/4 + 1) // so that those who failed together do not come back together
	i.pause = time.Now().Add(max(pause, min(retryAfter, c.opts.PauseMax)))
}

// unseen takes a try back that says nothing about the instance.
func (c *Caller) unseen(i *instance) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i.underWay--
	i.probing = false
}
