package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/log/registry"
)

// ProblemType is the media type of every answer above 399, after RFC 9457.
const ProblemType = "application/problem+json"

// problemDocs is where a code is explained: what `type` points at.
const problemDocs = "https://github.com/remitlog/remit/blob/main/docs/errors.md#"

// retryAfterDefault is the Retry-After of 429 and 503 that do not say another.
const retryAfterDefault = time.Second

// Problem is an answer above 399, and the error that handlers return for one.
type Problem struct {
	Code Code
	// Detail says what was wrong with this call and what to do next.
	Detail string
	// RetryAfter is sent with 429 and 503; zero means a second.
	RetryAfter time.Duration

	members []member
}

type member struct {
	name  string
	value any
}

// NewProblem returns a problem. The detail says what to do next.
func NewProblem(code Code, format string, args ...any) *Problem {
	code.Info() // a code that is not listed shows here, not when it is sent
	if len(args) > 0 {
		format = fmt.Sprintf(format, args...)
	}
	return &Problem{Code: code, Detail: format}
}

// NotFound says what was searched: what ("payment"), by id, and where.
func NotFound(what, id, searched string) *Problem {
	return NewProblem(CodeNotFound, "no %s %q; searched %s", what, id, searched)
}

// With adds an extension member ("field", "payment", "recorded") and returns p.
func (p *Problem) With(name string, value any) *Problem {
	p.members = append(p.members, member{name, value})
	return p
}

// Status is the HTTP status of the code.
func (p *Problem) Status() int { return p.Code.Info().Status }

func (p *Problem) Error() string { return "api: " + string(p.Code) + ": " + p.Detail }

// MarshalJSONTo writes the members of RFC 9457, then remit's own.
func (p *Problem) MarshalJSONTo(enc *jsontext.Encoder) error {
	info := p.Code.Info()
	w := objectWriter{enc: enc}
	w.token(jsontext.BeginObject)
	w.member("type", problemDocs+string(p.Code))
	w.member("title", info.Title)
	w.member("status", info.Status)
	w.member("code", string(p.Code))
	w.member("detail", p.Detail)
	w.member("retryable", info.Retryable)
	for _, m := range p.members {
		w.member(m.name, m.value)
	}
	w.token(jsontext.EndObject)
	return w.err
}

// objectWriter writes one JSON object and keeps the first error.
type objectWriter struct {
	enc *jsontext.Encoder
	err error
}

func (w *objectWriter) token(t jsontext.Token) {
	if w.err == nil {
		w.err = w.enc.WriteToken(t)
	}
}

func (w *objectWriter) member(name string, value any) {
	w.token(jsontext.String(name))
	if w.err != nil {
		return
	}
	switch v := value.(type) {
	case string:
		w.err = w.enc.WriteToken(jsontext.String(v))
	case int:
		w.err = w.enc.WriteToken(jsontext.Int(int64(v)))
	case bool:
		w.err = w.enc.WriteToken(jsontext.Bool(v))
	default:
		w.err = json.MarshalEncode(w.enc, v)
	}
}

// AsProblem turns any error into what the caller is told. It reports false when the error is
// not the caller's to understand: then the problem is 500, and the error is to be logged.
func AsProblem(err error) (*Problem, bool) {
	var p *Problem
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &p):
		return p, true
	case errors.As(err, &tooLarge), errors.Is(err, log.ErrTooLarge):
		return NewProblem(CodeTooLarge, "send at most %d bytes at once", BodyMax), true
	case errors.Is(err, log.ErrDiskFull):
		return NewProblem(CodeDiskFull, "nothing was written; make room on the data directory's disk, then repeat"), true
	case errors.Is(err, log.ErrUnknownTopic):
		return NewProblem(CodeUnknownTopic, "%s; make it with `remit log topics create`", describe(err)), true
	case errors.Is(err, registry.ErrFull):
		return NewProblem(CodeRegistrationLimit, "%s; delete what is no longer needed", words(err, registry.ErrFull)), true
	case errors.Is(err, log.ErrFewerPartitions):
		return NewProblem(CodeFewerPartitions, "%s", describe(err)), true
	case errors.Is(err, log.ErrUnknown):
		return NewProblem(CodeOutcomeUnknown, "repeat with the same id: it is safe, and says how it went"), true
	case errors.Is(err, fold.ErrBusy):
		return NewProblem(CodeTooMany, "more calls wait than remit takes on at once; repeat with the same id after Retry-After"), true
	case errors.Is(err, fold.ErrNotOwned):
		return NewProblem(CodeNotReady, "this node does not serve this key now; repeat with the same id"), true
	case errors.Is(err, log.ErrClosed), errors.Is(err, fold.ErrStopped):
		return NewProblem(CodeNotReady, "remit is stopping; repeat with the same id when it is back"), true
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return NewProblem(CodeNotReady, "the call ended before its answer was there; repeat with the same id"), true
	default:
		return NewProblem(CodeInternal, "a fault of remit's; repeat with the same id, which is safe, and look into remit's own log if it stays"), false
	}
}

// describe names the topic of an error of log, whose own words are for operators.
func describe(err error) string {
	if t, ok := errors.AsType[*log.TopicError](err); ok {
		return fmt.Sprintf("topic %q: %s", t.Partition.Topic, cmp.Or(t.Detail, t.Err.Error()))
	}
	return err.Error()
}

// writeProblem sends p with the id of the request.
func writeProblem(w http.ResponseWriter, r *http.Request, p *Problem) {
	if id := RequestID(r.Context()); id != "" {
		sent := *p // a problem may be a caller's own, sent more than once
		sent.members = append(p.members[:len(p.members):len(p.members)], member{"requestId", id})
		p = &sent
	}
	status := p.Status()
	if status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable {
		after := cmp.Or(p.RetryAfter, retryAfterDefault)
		w.Header().Set("Retry-After", strconv.Itoa(int((after+time.Second-1)/time.Second)))
	}
	// A member that cannot be encoded is a mistake of the handler: the problem goes out without it.
	if err := writeJSON(w, status, ProblemType, p); err != nil {
		_ = writeJSON(w, status, ProblemType, &Problem{Code: p.Code, Detail: p.Detail})
	}
}
