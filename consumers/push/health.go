package push

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// health is what is known of a sink, and says who may call it when. It is lost with the run that made it: a new one knows nothing, and finds out.
type health struct {
	outageMax int
	interval  time.Duration // the first distance between calls in an outage; it doubles
	longest   time.Duration
	limiter   *rate.Limiter // as the sink has allowed

	mu      sync.Mutex
	taken   time.Time            // when it has taken something last
	failing map[string]time.Time // keys that failed since, up to outageMax of them, and when first
	until   time.Time            // before which nothing is sent
	pause   time.Duration        // the last distance in an outage; 0 outside of one
	out     int                  // calls under way
	waiting int
	moved   chan struct{} // closed when any of it has changed, for those who wait
}

func newHealth(o *Options, s *Subscription, perMinute int) *health {
	h := &health{outageMax: o.OutageMax, interval: s.Interval, longest: s.MaxInterval, failing: map[string]time.Time{}, moved: make(chan struct{})}
	if perMinute > 0 {
		h.limiter = rate.NewLimiter(rate.Limit(float64(perMinute)/60), 1)
	}
	return h
}

// enter waits until the sink may be called; leave is to be called after. An error is the context's.
func (h *health) enter(ctx context.Context) error {
	h.mu.Lock()
	for {
		wait, ok := h.mayCall(time.Now())
		if ok {
			break
		}
		moved := h.moved
		h.waiting++
		h.mu.Unlock()
		err := sleep(ctx, wait, moved)
		h.mu.Lock()
		h.waiting--
		if err != nil {
			h.mu.Unlock()
			return err
		}
	}
	h.out++
	h.mu.Unlock()
	if h.limiter == nil {
		return nil
	}
	if err := h.limiter.Wait(ctx); err != nil {
		h.leave()
		return err
	}
	return nil
}

// forever is a wait that something else ends.
const forever = time.Duration(1<<63 - 1)

// mayCall says whether a call may begin, and if not when to look again.
func (h *health) mayCall(now time.Time) (wait time.Duration, ok bool) {
	switch {
	case h.until.After(now):
		return h.until.Sub(now), false
	case h.outage() && h.out > 0:
		return forever, false // for the one that is under way
	default:
		return 0, true
	}
}

func (h *health) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.out--
	h.wake()
}

func (h *health) wake() {
	if h.waiting > 0 {
		close(h.moved)
		h.moved = make(chan struct{})
	}
}

func (h *health) outage() bool { return len(h.failing) >= h.outageMax }

// took: the sink has taken something. An outage is over.
func (h *health) took(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.taken, h.pause = now, 0
	clear(h.failing)
	h.wake()
}

// verdict is what is made of a failure.
type verdict int

const (
	sinks   verdict = iota // the sink is to blame: it does not count
	records                // the record is
	unclear                // the record is, if the sink answers the handshake
)

// failed: a delivery was not taken. See Outages in the package comment.
func (h *health) failed(now time.Time, f failure) verdict {
	if f.refused {
		return records
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	defer h.wake()
	if _, ok := h.failing[f.key]; !ok && !h.outage() {
		h.failing[f.key] = now
	}
	alone := h.until.After(now) // it is left alone already: those that fail together make one pause
	if f.busy {
		h.hold(now.Add(min(f.retryAfter, RetryAfterMax)))
	}
	if h.outage() && !alone {
		h.pause = min(max(h.interval, 2*h.pause), h.longest)
		h.hold(now.Add(h.pause))
	}
	switch {
	case h.taken.After(f.since):
		return records
	case h.outage() || f.busy:
		return sinks
	case f.answered:
		return records
	default:
		return unclear
	}
}

// failure is one of a delivery.
type failure struct {
	key        string
	since      time.Time     // when the record was tried before, or this attempt began
	answered   bool          // the sink said something
	refused    bool          // it has looked at the record, and refuses it
	busy       bool          // and asked to be left alone
	retryAfter time.Duration // for so long
}

func (h *health) hold(until time.Time) {
	if until.After(h.until) {
		h.until = until
	}
}

// down is since when all fail, zero while they do not.
func (h *health) down() (since time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.outage() {
		return time.Time{}
	}
	for _, at := range h.failing {
		if since.IsZero() || at.Before(since) {
			since = at
		}
	}
	return since
}

// sleep waits for a while, or until something is closed.
func sleep(ctx context.Context, d time.Duration, or <-chan struct{}) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-or:
	case <-ctx.Done():
	}
	return ctx.Err()
}
