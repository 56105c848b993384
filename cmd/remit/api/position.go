package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/remitlog/remit/log"
)

// PositionHeader carries what an answer reflects, or what a write has written.
const PositionHeader = "Remit-Position"

// The bounds of ?wait=.
const (
	// AfterWaitDefault is how long a read waits for ?after=.
	AfterWaitDefault = 2 * time.Second
	// WriteWaitDefault is how long a write waits to be settled.
	WriteWaitDefault = 5 * time.Second
	// WaitMax is the longest wait of any call; above it is 400.
	WaitMax = time.Minute
)

// SetPosition says which position the answer reflects. It is called before the answer is written.
func SetPosition(w http.ResponseWriter, p log.Position) {
	w.Header().Set(PositionHeader, p.String())
}

// NotCaughtUp is the answer of a view that has not come to ?after= within wait.
func NotCaughtUp(view string, wait time.Duration) *Problem {
	return NewProblem(CodeNotCaughtUp, "%s did not come to the position that after asks for within %s; repeat, or give it longer with wait (at most %s)",
		view, Duration(wait), Duration(WaitMax)).With("view", view)
}

// waiter is what a read waits for: a view, or the core itself.
type waiter interface {
	Wait(ctx context.Context, pos log.Position) error
}

// waitFor waits until what is read has come to after; nil waits for nothing. 503 not_caught_up otherwise.
func waitFor(r *http.Request, what string, at waiter, after log.Position, wait time.Duration) error {
	if after == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	defer cancel()
	err := at.Wait(ctx, after)
	if errors.Is(err, context.DeadlineExceeded) {
		return NotCaughtUp(what, wait)
	}
	return err
}
