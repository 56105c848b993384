package importer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// The pauses between two tries.
const (
	pauseFirst = 25 * time.Millisecond
	pauseMax   = time.Second
)

// UnavailableError says that remit did not answer, or could not do what was asked, for longer than was allowed. What it
// was asked for may or may not be done: import again.
type UnavailableError struct {
	Err   error
	Since time.Duration
}

func (e *UnavailableError) Error() string {
	what := "no answer"
	if e.Answered() {
		what = "not taken"
	}
	if e.Since < time.Second {
		return fmt.Sprintf("importer: %s: %v", what, e.Err)
	}
	return fmt.Sprintf("importer: %s for %s: %v", what, e.Since.Round(time.Second), e.Err)
}

func (e *UnavailableError) Unwrap() error { return e.Err }

// Answered reports whether remit was there all the same, and answered that it cannot do it now: its disk is full, for instance.
func (e *UnavailableError) Answered() bool {
	_, ok := errors.AsType[*problem](e.Err)
	return ok
}

// away is whether remit answers, as all that call it have seen.
type away struct {
	first bool          // it may be away before it ever answered
	most  time.Duration // how long it may be away
	told  func(error, time.Duration)

	mu       sync.Mutex
	answered bool
	since    time.Time // of the first failure after the last answer
}

// back notes an answer.
func (a *away) back() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answered, a.since = true, time.Time{}
}

// note notes a failure; the error says that it has been too long.
func (a *away) note(err error) error {
	a.mu.Lock()
	if a.since.IsZero() {
		a.since = time.Now()
	}
	since := time.Since(a.since)
	most := a.most
	if !a.answered && !a.first {
		most = 0
	}
	a.mu.Unlock()
	if since >= most {
		return &UnavailableError{err, since}
	}
	a.told(err, since)
	return nil
}

// backoff is the pauses of one that tries again.
type backoff struct{ last time.Duration }

func (b *backoff) next() time.Duration {
	b.last = min(max(2*b.last, pauseFirst), pauseMax)
	return b.last
}

func (b *backoff) pause(ctx context.Context) error { return pause(ctx, b.next()) }

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// failing is a row that remit has answered with something that may pass.
type failing struct {
	backoff
	since time.Time
}

// pace lets so many through a second. What it was held up by is caught up on only a little.
type pace struct {
	every time.Duration
	next  time.Time
}

// paceBurst is how much is caught up on.
const paceBurst = 100 * time.Millisecond

func newPace(rate float64) *pace {
	p := &pace{next: time.Now()}
	if rate > 0 {
		p.every = time.Duration(float64(time.Second) / rate)
	}
	return p
}

func (p *pace) wait(ctx context.Context) error {
	if p.every == 0 {
		return nil
	}
	now := time.Now()
	if oldest := now.Add(-paceBurst); p.next.Before(oldest) {
		p.next = oldest
	}
	due := p.next
	p.next = due.Add(p.every)
	if due.After(now) {
		return pause(ctx, due.Sub(now))
	}
	return nil
}
