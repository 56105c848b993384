package importer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/remitlog/remit/saga/accounts"
)

// flushBytes is when lines are sent although more could be added.
const flushBytes = 32 << 10

// takeMax is how many rows one stream takes at once, so that the others get some.
const takeMax = 64

// send sends rows in batches, one after the other, until all rows are finished.
func (m *Import) send(ctx context.Context) error {
	var b backoff
	for {
		// A batch is begun when there is something for it, and not before.
		rows := m.graph.take(takeMax, true, never)
		if rows == nil {
			return nil
		}
		s := &stream{m: m, slots: make(chan struct{}, m.InFlightMax)}
		err := s.run(ctx, rows)
		if len(s.sent) == 0 {
			b = backoff{}
			continue // it ended with everything answered: remit is stopping, or all is done, or nothing happened for long
		}
		for _, r := range s.sent {
			r.sent = true
		}
		m.graph.again(s.sent...)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			err = errors.New("the batch ended before its answers")
		}
		if s.answers > 0 {
			b = backoff{}
		}
		if err := m.away.note(err); err != nil {
			return err
		}
		if err := b.pause(ctx); err != nil {
			return nil // whoever ended it has said why
		}
	}
}

func never() bool { return false }

// stream is one call of payments:batch.
type stream struct {
	m      *Import
	slots  chan struct{} // as many as there are rows that wait for their answer
	ended  atomic.Bool   // no answer comes any more
	buf    []byte
	answer answer

	stall *time.Timer // ends a batch that is not answered

	mu      sync.Mutex
	sent    []*row // in the order of their lines, from the first that is not answered on
	answers int    // lines answered
}

// answer is one line of what comes back.
type answer struct {
	Line     int      `json:"line"`
	Status   int      `json:"status"`
	Replayed bool     `json:"replayed"`
	Payment  *payment `json:"payment"`
	Problem  *problem `json:"problem"`
}

// run sends rows, and all others that become ready, and takes in the answers. When it returns, sent has what was not answered.
func (s *stream) run(ctx context.Context, rows []*row) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.stall = time.AfterFunc(callTimeout, cancel)
	defer s.stall.Stop()
	s.sent = slices.Clone(rows) // write still reads rows
	for range rows {
		s.slots <- struct{}{}
	}
	r, w := io.Pipe()
	written := make(chan struct{})
	go func() {
		defer close(written)
		s.write(ctx, w, rows)
	}()
	t := s.m.Transport.Clone()
	t.DialContext = watched(t.DialContext, func() { _ = r.CloseWithError(errGone) })
	defer t.CloseIdleConnections()
	err := s.read(ctx, &http.Client{Transport: t}, r)
	s.ended.Store(true)
	cancel()
	_ = r.Close() // what write still has to say goes nowhere
	s.m.graph.wake()
	<-written
	return err
}

// errGone ends a request's body when its connection has ended.
var errGone = errors.New("the connection ended")

// watched is a dialler that tells when its connection can be read no longer. net/http does not give up a request whose connection
// ended before the answer began until it has read the next piece of the body; and the next row may wait for this very answer.
func watched(dial func(context.Context, string, string) (net.Conn, error), gone func()) func(context.Context, string, string) (net.Conn, error) {
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &watchedConn{c, gone}, nil
	}
}

type watchedConn struct {
	net.Conn
	gone func()
}

func (c *watchedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		c.gone()
	}
	return n, err
}

func (s *stream) read(ctx context.Context, client *http.Client, body io.Reader) error {
	req, err := http.NewRequestWithContext(ctx, "POST", s.m.Server+"/v1/payments:batch?wait=1m", body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	resp, err := client.Do(req)
	if err != nil {
		return plainURLError(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 400 {
		p := readProblem(resp)
		if !p.Retryable {
			s.m.fail(p) // remit does not take batches: nothing will come of a repeat
		}
		return p
	}
	in := bufio.NewReaderSize(resp.Body, answerMax)
	for {
		text, err := in.ReadSlice('\n')
		if err == io.EOF && len(text) == 0 {
			return nil
		}
		if err != nil {
			return plainURLError(err)
		}
		if err := s.take(ctx, text); err != nil {
			return err
		}
	}
}

// take takes in one answer.
func (s *stream) take(ctx context.Context, text []byte) error {
	s.stall.Reset(callTimeout)
	a := &s.answer
	*a = answer{}
	if err := json.Unmarshal(text, a); err != nil {
		return fmt.Errorf("an answer cannot be read: %w", err)
	}
	s.mu.Lock()
	if a.Line != s.answers+1 || len(s.sent) == 0 {
		s.mu.Unlock()
		return fmt.Errorf("line %d was answered after line %d", a.Line, s.answers)
	}
	r := s.sent[0]
	s.sent[0], s.sent = nil, s.sent[1:]
	s.answers++
	s.mu.Unlock()
	<-s.slots
	s.m.answered(ctx, r, a)
	return nil
}

// write sends lines until there are none, or nobody reads any more.
func (s *stream) write(ctx context.Context, w *io.PipeWriter, rows []*row) {
	defer w.Close()
	for rows != nil {
		for _, r := range rows {
			s.buf = s.m.appendLine(s.buf, r)
		}
		if len(s.buf) >= flushBytes && !s.flush(w) {
			return
		}
		rows = s.next(ctx, w)
	}
	s.flush(w)
}

// next waits for rows, and for room for their answers; it sends what there is before it waits.
func (s *stream) next(ctx context.Context, w io.Writer) []*row {
	room := 0
	for room < takeMax {
		select {
		case s.slots <- struct{}{}:
			room++
			continue
		default:
		}
		if room > 0 {
			break
		}
		if !s.flush(w) {
			return nil
		}
		select {
		case s.slots <- struct{}{}:
			room++
		case <-ctx.Done():
			return nil
		}
	}
	rows := s.m.graph.take(room, false, s.ended.Load)
	if len(rows) == 0 {
		if !s.flush(w) {
			return nil
		}
		rows = s.m.graph.take(room, true, s.ended.Load)
	}
	for range room - len(rows) {
		<-s.slots
	}
	s.mu.Lock()
	s.sent = append(s.sent, rows...)
	s.mu.Unlock()
	return rows
}

func (s *stream) flush(w io.Writer) bool {
	if len(s.buf) == 0 {
		return true
	}
	_, err := w.Write(s.buf)
	s.buf = s.buf[:0]
	return err == nil
}

// appendLine appends the line of a row. Names need no quoting: see log.NamePattern.
func (m *Import) appendLine(b []byte, r *row) []byte {
	b = append(b, `{"id":`...)
	b, _ = jsontext.AppendQuote(b, m.id(r.line))
	b = append(append(b, `,"payer":"`...), r.payer...)
	b = append(append(b, `","payee":"`...), r.payee...)
	b = append(append(b, `","amount":"`...), accounts.FormatAmount(r.amount, m.Currency)...)
	return append(append(append(b, `","currency":"`...), m.Currency...), '"', '}', '\n')
}

// The words of a payment's state that are looked at.
const statePaid = "paid"

// answered takes in what remit says of a row.
func (m *Import) answered(ctx context.Context, r *row, a *answer) {
	p := a.Problem
	switch {
	case a.Status < 300 && a.Payment != nil && a.Payment.State == statePaid && a.Payment.Settled:
		m.finish(r, Outcome{Kind: Paid, Replayed: m.replayed(r, a, a.Payment)})
	case a.Status < 300 && a.Payment != nil:
		m.later(ctx, r) // it has begun, and is not settled yet: to ask again is to wait again
	case a.Status == http.StatusPaymentRequired && p != nil && p.Payment != nil:
		m.finish(r, Outcome{Kind: Refused, Reason: p.Payment.Reason, Replayed: m.replayed(r, a, p.Payment)})
	case p == nil:
		m.fail(fmt.Errorf("importer: line %d: remit answered %d without payment or problem; is it a newer version?", r.line, a.Status))
	case p.Status == http.StatusTooManyRequests:
		m.later(ctx, r)
	case p.Retryable:
		m.stumbled(ctx, r, p)
	default:
		r.rejected, r.conflict = p.Error(), isMismatch(*p)
		m.away.back()
		m.graph.finish(r)
		m.rejected(r)
	}
}

// replayed reports whether an earlier run had done what is answered.
func (m *Import) replayed(r *row, a *answer, p *payment) bool {
	return !r.sent && (a.Replayed || a.Status == http.StatusOK)
}

func (m *Import) finish(r *row, o Outcome) {
	m.away.back()
	m.graph.finish(r)
	m.done(r, o)
}

// later asks for a row again in a while.
func (m *Import) later(ctx context.Context, r *row) {
	r.sent = true
	time.AfterFunc(r.fails.next(), func() { m.graph.again(r) })
}

// stumbled is later for a row that remit could not take, as long as that may pass.
func (m *Import) stumbled(ctx context.Context, r *row, p *problem) {
	if r.fails.since.IsZero() {
		r.fails.since = time.Now()
	}
	if since := time.Since(r.fails.since); since >= m.RetryFor {
		m.fail(&UnavailableError{fmt.Errorf("line %d: %w", r.line, p), since})
		return
	}
	m.later(ctx, r)
}
