package push

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/remitlog/remit/consumers"
	"github.com/remitlog/remit/log"
)

// Headers that a delivery has beside those of its event, and of Standard Webhooks.
const (
	headerSubscription = "Remit-Subscription"
	// headerFilterError says why the filter could not be evaluated: so the event may not be one that matches.
	headerFilterError = "Remit-Filter-Error"
)

// run delivers while the sink consents.
type run struct {
	*life
	ctx    context.Context // ends when nothing more is to be sent
	end    context.CancelCauseFunc
	health *health

	asking chan struct{} // of 1: taken while the sink is asked again, by one for all
	asked  time.Time     // when it was, under asking
}

// lostError: the sink does not consent any more, or does not answer at all.
type lostError struct{ why string }

func (e *lostError) Error() string { return "push: " + e.why }

// goneError: the sink has said that it is gone for good.
type goneError struct{ what string }

func (e *goneError) Error() string { return "push: the sink answered 410 Gone: " + e.what }

// notCounted is a failure that its record is not to blame for.
type notCounted struct{ error }

func (e notCounted) Unwrap() error { return e.error }

// isOutage is consumers.Options.Outage.
func isOutage(err error) bool {
	var n notCounted
	return errors.As(err, &n)
}

// deliver reads the topic and delivers it.
func (l *life) deliver(reader *reader, consent Consent) error {
	ctx, end := context.WithCancelCause(l.ctx)
	defer end(nil)
	r := &run{life: l, ctx: ctx, end: end, asking: make(chan struct{}, 1), health: newHealth(&l.s.opts, &l.of, consent.PerMinute)}
	l.book.begin(r.health)
	defer l.book.end()
	c, err := consumers.New(consumers.Options{
		Reader: reader, Group: Group(l.of.Name), Topics: []string{l.of.Topic}, Replays: true, Handler: r.handle, Outage: isOutage,
		Listener: consumers.Listener{
			Retried: func(d consumers.Delivery, _ error, after time.Duration) { l.book.waits(d, time.Now().Add(after)) },
			Parked:  r.parked,
		},
		WorkersMax: l.s.opts.WorkersMax, HeldMax: l.s.opts.HeldMax, HeldBytesMax: reader.share, RetryMax: l.of.Deadline,
		BackoffMin: l.of.Interval, BackoffMax: l.of.MaxInterval, AttemptMax: attemptMax,
		CommitEvery: l.s.opts.CommitEvery, DrainMax: l.s.opts.DrainMax,
	})
	if err != nil {
		return err
	}
	err = c.Run(ctx)
	if cause := context.Cause(ctx); l.ctx.Err() == nil && cause != nil {
		return cause
	}
	return err
}

// handle makes one attempt.
func (r *run) handle(ctx context.Context, d consumers.Delivery) error {
	ctx, cancel := joined(ctx, r.calls)
	defer cancel()
	began := time.Now()
	e, err := log.FromSDK(d.Event)
	if err != nil {
		return err // what was read is an event
	}
	header := http.Header{headerSubscription: {r.of.Name}}
	if r.filter != nil {
		switch wanted, err := r.filter(&e); {
		case err != nil:
			header.Set(headerFilterError, oneLine(err.Error()))
			r.book.unfiltered(d, err)
		case !wanted:
			r.book.skipped()
			r.s.opts.Listener.Skipped(r.of.Name)
			return nil
		}
	}
	answer, err := r.call(ctx, &e, header)
	if err == nil && answer.Status >= 200 && answer.Status <= 299 {
		r.taken(d, &e, began)
		return nil
	}
	if err != nil && (ctx.Err() != nil || r.ctx.Err() != nil) {
		return notCounted{err} // it was cut off here, or did not begin
	}
	return r.failed(ctx, d, &e, began, answer, err)
}

// joined is a context that ends with either.
func joined(ctx, other context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(other, func() { cancel(context.Cause(other)) })
	return ctx, func() { stop(); cancel(nil) }
}

// call waits for the sink's leave, and sends the event.
func (r *run) call(ctx context.Context, e *log.Event, more http.Header) (Answer, error) {
	until, cancel := joined(ctx, r.ctx) // no call begins when nothing more is to be sent
	defer cancel()
	if err := r.health.enter(until); err != nil {
		return Answer{}, err
	}
	defer r.health.leave()
	header, body := e.HTTP()
	for name, values := range more {
		header[name] = values
	}
	return r.s.opts.Caller.Call(ctx, target(&r.of), Request{Method: http.MethodPost, ID: messageID(r.of.Name, e.Source, e.ID), Header: header, Body: body})
}

// messageID is the webhook-id: the same for each attempt, and for each time that the event is sent again. It is known to sinks, and never changes.
func messageID(subscription, source, id string) string {
	h := sha256.New()
	for _, s := range [...]string{subscription, source, id} {
		_, _ = h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(s)))) // a hash does not fail
		_, _ = h.Write([]byte(s))
	}
	return "msg_" + hex.EncodeToString(h.Sum(nil)[:16])
}

func (r *run) taken(d consumers.Delivery, e *log.Event, began time.Time) {
	now := time.Now()
	r.health.took(now)
	r.book.delivered(d)
	r.s.opts.Listener.Delivered(r.of.Name, now.Sub(began), max(now.Sub(e.RecordedTime), 0))
}

// failed says whose fault it is. The error is notCounted unless it is the record's.
func (r *run) failed(ctx context.Context, d consumers.Delivery, e *log.Event, began time.Time, answer Answer, err error) error {
	now := time.Now()
	what := err
	if err == nil {
		what = errors.New(describe(answer))
	}
	r.s.opts.Listener.Failed(r.of.Name, answer.Status)
	f := failure{key: keyOf(d, e), since: r.book.failed(d, e, began, now, what.Error()), answered: err == nil, refused: refuses(answer.Status)}
	if f.answered && (answer.Status == http.StatusTooManyRequests || answer.Status == http.StatusServiceUnavailable) {
		f.busy, f.retryAfter = answer.Header.Get("Retry-After") != "", answer.RetryAfter
	}
	if answer.Status == http.StatusGone {
		r.end(&goneError{describe(answer)})
		return notCounted{what}
	}
	switch v := r.health.failed(now, f); {
	case v == records, v == unclear && r.stillConsents(ctx, now):
		return what
	default:
		return notCounted{what}
	}
}

// refuses reports whether an answer says that the sink has looked at what was sent and does not want it. Whatever else it may answer can be for the
// sink's own reasons, or for those of what stands before it.
func refuses(status int) bool {
	switch status {
	case http.StatusBadRequest, http.StatusNotAcceptable, http.StatusConflict, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType,
		http.StatusUnprocessableEntity, http.StatusRequestHeaderFieldsTooLarge:
		return true
	default:
		return false
	}
}

// stillConsents asks the sink, unless it was asked since. If it does not consent, nothing more is sent.
func (r *run) stillConsents(ctx context.Context, since time.Time) bool {
	select {
	case r.asking <- struct{}{}:
		defer func() { <-r.asking }()
	case <-ctx.Done():
		return false
	}
	if r.asked.After(since) {
		return r.ctx.Err() == nil
	}
	c := ask(ctx, r.s.opts.Caller, r.s.opts.Origin, &r.of)
	r.asked = time.Now()
	if !c.Granted {
		r.end(&lostError{c.Why})
	}
	return c.Granted
}

func (r *run) parked(d consumers.Delivery, _ string) {
	r.book.parked(d)
	r.s.opts.Listener.Parked(r.of.Name)
}

// keyOf is what a delivery is in order with; one without a key has its place.
func keyOf(d consumers.Delivery, e *log.Event) string {
	if e.Key == "" {
		return d.String()
	}
	return "key " + e.Key
}

// describe says for people what a sink answered.
func describe(a Answer) string {
	text := "the sink answered " + status(a.Status)
	if body := bytes.TrimSpace(a.Body[:min(len(a.Body), AnswerMax)]); len(body) > 0 {
		text += fmt.Sprintf(": %q", body)
	}
	return text
}

// oneLine makes text fit for a header.
func oneLine(s string) string {
	b := []byte(s[:min(len(s), AnswerMax)])
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = ' '
		}
	}
	return string(b)
}
