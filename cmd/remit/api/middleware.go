package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/remitlog/remit/log"
)

// RequestIDHeader carries the id of a call. A caller's own is kept if it is fit to be a name.
const RequestIDHeader = "X-Request-Id"

// unreadMax is how long the rest of a body is waited for that nobody reads: net/http takes it in before it answers, and knows no end to it.
const unreadMax = time.Second

// answerTimeout is how long a call may take from its first byte to the last of its answer, beyond the longest wait.
const answerTimeout = WaitMax + time.Minute

// call is what the server knows of the call that a context belongs to.
type call struct {
	server *Server
	route  string
	id     string
}

type callKey struct{}

func callOf(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}

// RequestID returns the id of the call that ctx belongs to, "" if it belongs to none.
func RequestID(ctx context.Context) string {
	if c := callOf(ctx); c != nil {
		return c.id
	}
	return ""
}

// noSniff is shared by all answers.
var noSniff = []string{"nosniff"}

// handle wraps a route in what every call has: an id, a problem for whatever goes wrong, one line in the log, one observation.
func (s *Server) handle(route Route) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		start := time.Now()
		c := &call{server: s, route: route.Name, id: requestID(r)}
		r = r.WithContext(context.WithValue(r.Context(), callKey{}, c))
		w := &answer{ResponseWriter: rw, unread: r.ContentLength != 0 && r.ProtoMajor == 1, streams: route.Streams}
		w.Header().Set(RequestIDHeader, c.id)
		w.Header()["X-Content-Type-Options"] = noSniff
		s.setWriteDeadline(rw, route, start)

		err := s.guarded(route, w, r)
		if err != nil {
			s.fail(w, r, err)
		}
		took := time.Since(start)
		s.metrics.observe(route.Name, r.Method, w.status, took)
		s.logCall(r, c, w, took, err)
		if w.broken {
			panic(http.ErrAbortHandler) // part of an answer went out: the client must see that it is not whole
		}
	})
}

// setWriteDeadline sets it anew for every call: net/http leaves the last call's on the connection.
func (s *Server) setWriteDeadline(w http.ResponseWriter, route Route, start time.Time) {
	deadline := start.Add(answerTimeout)
	if route.Streams {
		deadline = time.Time{}
	}
	_ = http.NewResponseController(w).SetWriteDeadline(deadline) // a test's recorder has none
}

func requestID(r *http.Request) string {
	if id := r.Header.Get(RequestIDHeader); id != "" {
		if _, isID := log.ParseID(id); isID || log.IsName(id) {
			return id
		}
	}
	return uuid.NewString()
}

// panicError is a handler's panic with where it happened.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return "api: a handler panicked" }

// guarded runs the handler; a panic becomes an error.
func (s *Server) guarded(route Route, w http.ResponseWriter, r *http.Request) (err error) {
	defer func() {
		if v := recover(); v != nil {
			if v == http.ErrAbortHandler {
				panic(v)
			}
			err = &panicError{value: v, stack: debug.Stack()}
		}
	}()
	if err := s.origins.Check(r); err != nil {
		return NewProblem(CodeForbidden, "a page of another origin may not call remit; call it from a program, or from a page that remit's own address serves")
	}
	if s.LoopbackOnly && !loopback(r.Host) {
		return NewProblem(CodeForbidden, "remit is called here by its loopback address alone, not as %q; a page that has rebound its name may be behind it", r.Host)
	}
	return route.Handler(w, r)
}

// loopback reports whether a Host header names this machine's loopback.
func loopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// fail answers for a handler's error.
func (s *Server) fail(w *answer, r *http.Request, err error) {
	if w.status != 0 {
		w.broken = true
		return
	}
	w.streams = false // it has not begun
	p, _ := AsProblem(err)
	writeProblem(w, r, p)
}

// logCall writes one line: what was answered is talk for debugging, what is remit's own fault is an error with
// everything that is known of it, which the caller is not told.
func (s *Server) logCall(r *http.Request, c *call, w *answer, took time.Duration, err error) {
	level := slog.LevelDebug
	if err != nil {
		if _, known := AsProblem(err); !known || w.broken {
			level = slog.LevelError
		}
	}
	if !s.Logger.Enabled(r.Context(), level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.String("route", c.route),
		slog.Int("status", w.status), slog.Int64("bytes", w.bytes), slog.Duration("took", took), slog.String("requestId", c.id),
	}
	if err != nil {
		attrs = append(attrs, slog.String("error", err.Error()))
	}
	if p, ok := errors.AsType[*panicError](err); ok {
		attrs = append(attrs, slog.Any("panic", p.value), slog.String("stack", string(p.stack)))
	}
	s.Logger.LogAttrs(r.Context(), level, "http call", attrs...)
}

// answer notes what was sent. http.ResponseController finds the writer below by Unwrap.
type answer struct {
	http.ResponseWriter
	status int
	bytes  int64
	broken bool
	// unread: the call's body, or a part of it, in HTTP/1.1.
	unread bool
	// streams: the body is read while it is answered.
	streams bool
}

// begin is called before anything is sent.
func (w *answer) begin(status int) {
	w.status = status
	if w.unread && !w.streams { // net/http sets the deadline anew for the next call
		_ = http.NewResponseController(w.ResponseWriter).SetReadDeadline(time.Now().Add(unreadMax))
	}
}

func (w *answer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *answer) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.begin(status)
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *answer) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.begin(http.StatusOK)
	}
	n, err := w.ResponseWriter.Write(b)
	w.bytes += int64(n)
	return n, err
}

// metrics are those of the HTTP face.
type metrics struct {
	calls *prometheus.HistogramVec
	lines *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		calls: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "remit_http_request_duration_seconds",
			Help:    "How long calls took, by route, method and status.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 60},
		}, []string{"route", "method", "status"}),
		lines: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "remit_http_stream_lines_total",
			Help: "Lines of NDJSON answered, by route and status.",
		}, []string{"route", "status"}),
	}
	reg.MustRegister(m.calls, m.lines)
	return m
}

func (m *metrics) observe(route, method string, status int, took time.Duration) {
	switch method {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE":
	default:
		method = "other" // a label that callers choose would grow without end
	}
	if status == 0 {
		status = http.StatusOK // the handler wrote nothing: net/http says 200
	}
	m.calls.WithLabelValues(route, method, strconv.Itoa(status)).Observe(took.Seconds())
}
