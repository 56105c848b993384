package callout

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// Target is who is called.
type Target struct {
	Name string   // by which queue, pace, breaker and health go
	URLs []string // of its instances: http or https
	// Secrets are what its calls are signed with, the newest first: whsec_ and base64, or any other text. Without one calls are not signed.
	Secrets []string
	// ConcurrencyMax and RatePerSecond are its own; 0 is what Options say.
	ConcurrencyMax, RatePerSecond int
}

// Request is what it is called with. The Caller does not change it, and neither may anybody else until the call is done.
type Request struct {
	Method      string // POST
	ID          string // the webhook-id, the same for each repetition; what a header may not have, and the full stop, are sent as %XX
	ContentType string
	Header      http.Header
	Body        []byte
	Timeout     time.Duration // of one try; 0 is what Options say, and TimeoutMax the most
	// Insists: it is made also while the target is left alone; if it is answered the target is called again as before. For a person, who
	// may know that it is well again.
	Insists bool
}

// Answer is what it answered.
type Answer struct {
	Status     int
	Header     http.Header
	Body       []byte        // at most BodyMax
	Truncated  bool          // it went on
	RetryAfter time.Duration // as its Retry-After has it, at most RetryAfterMax; 0 if it has none
	URL        string        // of the instance, without what follows a question mark
}

// RetryAfterMax is the longest Retry-After; a longer one is taken for it.
const RetryAfterMax = 24 * time.Hour

// Health is what is known of a target.
type Health struct {
	Open      bool // the breaker is: its calls end with ErrOpen
	Queued    int  // calls that wait
	UnderWay  int
	Instances []Instance // in the order of the last call's URLs
}

// Answering is how many instances are not known to fail.
func (h Health) Answering() int {
	n := 0
	for _, i := range h.Instances {
		if i.Failures == 0 {
			n++
		}
	}
	return n
}

// Instance is what is known of one instance.
type Instance struct {
	URL      string
	Failures int // in a row; 0 when it answered last, or was never asked
	UnderWay int
}

// Caller makes calls. There is one a process.
type Caller struct {
	opts      Options
	transport *http.Transport
	base      context.Context // ends with ErrClosed when calls are cut off
	cut       context.CancelCauseFunc
	working   sync.WaitGroup // a target's goroutine each; added to under mu, and not after closed

	// mu guards what follows, targets and all that is in them. It is never held over I/O, a listener or a done.
	mu      sync.Mutex
	closed  bool
	targets map[string]*target
	calls   uint64 // that were taken, ever
}

// New returns a Caller. Close ends it.
func New(opts Options) (*Caller, error) {
	opts.EnsureDefaults()
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	d := &dialer{
		guard:  guard{loopback: opts.AllowLoopback, private: opts.AllowPrivate},
		Dialer: net.Dialer{Timeout: opts.ConnectMax, Resolver: opts.Resolver},
	}
	dial := d.dial
	if opts.Dial != nil {
		dial = opts.Dial
	}
	c := &Caller{opts: opts, transport: newTransport(&opts, dial), targets: map[string]*target{}}
	c.base, c.cut = context.WithCancelCause(context.Background())
	return c, nil
}

// Go begins a call and returns. It never blocks. done is told what came of it, exactly once, if and only if Go returns nil; see the package
// comment, O5. done should not block for long.
//
// Errors: [ErrBusy], [ErrOpen], [ErrClosed], [ErrTooLarge], [ErrBadTarget], [ErrBadRequest]. done gets those and *[CallError].
func (c *Caller) Go(t Target, r Request, done func(Answer, error)) error {
	return c.take(&call{ctx: c.base, request: r, done: done}, t)
}

// Do makes a call and returns its answer. It gives the call up when ctx ends.
func (c *Caller) Do(ctx context.Context, t Target, r Request) (Answer, error) {
	if err := ctx.Err(); err != nil {
		return Answer{}, err
	}
	type result struct {
		Answer
		error
	}
	merged, end := context.WithCancelCause(ctx)
	defer end(nil)
	defer context.AfterFunc(c.base, func() { end(ErrClosed) })()
	came := make(chan result, 1)
	if err := c.take(&call{ctx: merged, request: r, done: func(a Answer, err error) { came <- result{a, err} }}, t); err != nil {
		return Answer{}, err
	}
	select {
	case r := <-came:
		return r.Answer, r.error
	case <-ctx.Done():
		return Answer{}, ctx.Err()
	}
}

// Health returns what is known of a target; nothing of one that was not called, or long ago.
func (c *Caller) Health(name string) Health {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.targets[name]
	if t == nil {
		return Health{}
	}
	h := Health{Open: t.open(), Queued: t.queue.Len(), UnderWay: t.working}
	for _, i := range t.instances {
		h.Instances = append(h.Instances, Instance{URL: i.address, Failures: i.failures, UnderWay: i.underWay})
	}
	return h
}

// Answering returns how many of a target's URLs are not known to fail; one that was never asked is not.
func (c *Caller) Answering(t Target) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(t.URLs)
	known := c.targets[t.Name]
	if known == nil {
		return n
	}
	for _, url := range t.URLs {
		if i := known.instance(url); i != nil && i.failures > 0 {
			n--
		}
	}
	return n
}

// Close takes no more calls, ends those that wait with ErrClosed, and lets those under way finish until ctx ends; then it cuts them off. It returns when
// every done has returned. The error is ctx's, if calls were cut off.
func (c *Caller) Close(ctx context.Context) error {
	c.mu.Lock()
	c.closed = true
	var waiting []*call
	for _, t := range c.targets {
		waiting = append(waiting, t.drop()...)
	}
	c.mu.Unlock()
	for _, k := range waiting {
		k.done(Answer{}, &CallError{Target: k.target.name, Err: ErrClosed})
	}
	defer c.transport.CloseIdleConnections()
	done := make(chan struct{})
	go func() { c.working.Wait(); close(done) }()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = fmt.Errorf("callout: calls were cut off: %w", ctx.Err())
	}
	c.cut(ErrClosed)
	<-done
	return err
}
