package producer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/remitlog/remit/log"
)

// Errors of Send. They come within an *[Error].
var (
	// ErrRolledBack: a back-check came before the local transaction, found nothing, and rolled the message back. Nothing was committed. Send
	// the event again.
	ErrRolledBack = errors.New("a back-check came first and rolled it back; nothing was committed")
	// ErrAlreadySent: the event was sent before, and its local transaction has committed. Nothing was done this time. Whoever repeats
	// after an error has what he wanted.
	ErrAlreadySent = errors.New("the event was sent before, with its local transaction")
	// ErrOutcomeUnknown: the database was lost at COMMIT, and could not be asked since. The message is delivered if, and only if, the local transaction
	// has committed: the back-check settles it. To know, send the event again: either that is ErrAlreadySent, or it is sent now.
	ErrOutcomeUnknown = errors.New("whether the local transaction has committed is not known; the back-check settles it")
	// ErrContradicted: the local transaction has committed, and remit has recorded that the message is rolled back, or has no such message: a
	// person has decided it, or one of the two was restored from an older copy. Do not send it again; a person must look.
	ErrContradicted = errors.New("the local transaction has committed, and remit says otherwise")
	// ErrClosed: Close was called.
	ErrClosed = errors.New("producer: closed")
)

// Error says which message an error is about. What it says of the local transaction:
//
//	ErrRolledBack       not committed
//	ErrAlreadySent      committed, by an earlier Send of the same event
//	ErrOutcomeUnknown   not known
//	ErrContradicted     committed
//	anything else       not committed
//
// What local returned, and ErrClosed, are no *Error: nothing is committed either.
type Error struct {
	ID            log.ID // remit's
	Topic         string
	Source, Event string // the event's source and id
	Err           error
}

func (e *Error) Error() string {
	return fmt.Sprintf("producer: message %s (topic %s, event %s of %s): %v", e.ID, e.Topic, e.Event, e.Source, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

func (h *half) error(err error) error {
	return &Error{ID: h.id, Topic: h.topic, Source: h.event.Source, Event: h.event.ID, Err: err}
}

// AnswerError is an answer of remit's that is not what was asked for.
type AnswerError struct {
	Call   string // method and path
	Status int
	// Code and Detail are those of remit's problem, see docs/errors.md; empty if something else has answered.
	Code, Detail string
	// Recorded is what stands where a decision contradicts it.
	Recorded string
	// Retryable: the same call may succeed later. RetryAfter is when, if it was said.
	Retryable  bool
	RetryAfter time.Duration
}

func (e *AnswerError) Error() string {
	if e.Code == "" {
		return fmt.Sprintf("%s: %d %s: %s", e.Call, e.Status, http.StatusText(e.Status), e.Detail)
	}
	return fmt.Sprintf("%s: %d %s: %s", e.Call, e.Status, e.Code, e.Detail)
}

// UndecidedError: a message from before the time that is to be forgotten is not decided.
type UndecidedError struct {
	ID    log.ID
	State string // prepared, or parked
}

func (e *UndecidedError) Error() string {
	return fmt.Sprintf("message %s is %s: what became of it is still to be asked here; decide it first", e.ID, e.State)
}

// IsRetryable reports whether the same Send, or other call, may succeed later with nothing changed by the caller.
func IsRetryable(err error) bool {
	var answer *AnswerError
	var transport *url.Error
	switch {
	case errors.Is(err, ErrRolledBack): // the next one has another id, which nobody has asked about
		return true
	case errors.Is(err, ErrOutcomeUnknown): // the next one waits for what is left of this one, and says what became of it
		return true
	case errors.Is(err, ErrAlreadySent), errors.Is(err, ErrContradicted), errors.Is(err, ErrClosed): // it stays so
		return false
	case errors.Is(err, context.Canceled): // the caller has ended it
		return false
	case errors.As(err, &answer): // remit says so
		return answer.Retryable
	case errors.Is(err, context.DeadlineExceeded): // remit or the database was slow
		return true
	case errors.As(err, &transport): // nobody answers, now
		return true
	default: // the caller's own, the database's, or an event that is not one: who made it knows better
		return false
	}
}
