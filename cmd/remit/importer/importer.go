package importer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/saga/accounts"
)

// What an import is made of unless Options say otherwise.
const (
	// WindowMaxDefault is how many rows are in memory at once: a row that far behind one that waits is not looked at.
	WindowMaxDefault = 16 << 10
	// StreamsDefault is how many batches run side by side.
	StreamsDefault = 4
	// InFlightMaxDefault is how many rows of one batch wait for their answer.
	InFlightMaxDefault = 512
	// OpenersDefault is how many accounts are opened at once.
	OpenersDefault = 256
	// RejectedMax is how many rejected rows are named in the summary.
	RejectedMax = 10_000
)

// Options of an import.
type Options struct {
	// Server is where remit listens: "http://127.0.0.1:8080".
	Server string
	// Transport makes the connections. Default: http.DefaultTransport's.
	Transport *http.Transport
	// Name is the base name of the file; ids begin with it.
	Name string
	// In is the file.
	In io.Reader
	// Currency of all amounts.
	Currency accounts.Currency
	// Rate is how many rows start a second; 0 is as many as can.
	Rate float64
	// RetryFor is how long remit may be away once the import has begun; 0 gives up at once. What is unanswered is asked again.
	RetryFor time.Duration
	// RetryFirst allows the same before the first answer.
	RetryFirst bool

	WindowMax, Streams, InFlightMax, Openers int

	Listener Listener
}

// Listener watches an import. Functions may be nil; they are called without locks and from any goroutine, and must be quick.
type Listener struct {
	// Row: a row has its outcome.
	Row func(Outcome)
	// Away: remit does not answer since so long, and is tried again.
	Away func(err error, since time.Duration)
}

// Outcome is what became of a row.
type Outcome struct {
	Line     int
	Kind     Kind
	Reason   string // of refused and rejected rows
	Replayed bool   // an earlier import had done it
}

// Kind is what became of a row.
type Kind string

// The kinds.
const (
	Paid     Kind = "paid"
	Refused  Kind = "refused"
	Rejected Kind = "rejected"
)

// EnsureDefaults fills in what is not set.
func (o *Options) EnsureDefaults() {
	setDefault(&o.WindowMax, WindowMaxDefault)
	setDefault(&o.Streams, StreamsDefault)
	setDefault(&o.InFlightMax, InFlightMaxDefault)
	setDefault(&o.Openers, OpenersDefault)
	if o.Transport == nil {
		o.Transport = http.DefaultTransport.(*http.Transport)
	}
	if o.Listener.Row == nil {
		o.Listener.Row = func(Outcome) {}
	}
	if o.Listener.Away == nil {
		o.Listener.Away = func(error, time.Duration) {}
	}
}

func setDefault(n *int, to int) {
	if *n == 0 {
		*n = to
	}
}

// ErrName: the file's name cannot begin an id. Rename the file, or give another name.
var ErrName = errors.New("importer: the name of the file cannot be part of an id")

// Validate returns what is wrong with o.
func (o *Options) Validate() error {
	const longest = ":1000000000000:open"
	switch {
	case !log.IsName(o.Name) || !log.IsName(o.Name+longest):
		return fmt.Errorf("%w: %q; ids are made of %s", ErrName, o.Name, log.NamePattern)
	case o.Rate < 0:
		return errors.New("importer: Rate is below zero")
	case min(o.WindowMax, o.Streams, o.InFlightMax, o.Openers) < 1:
		return errors.New("importer: WindowMax, Streams, InFlightMax and Openers are at least 1")
	}
	_, err := accounts.ParseCurrency(string(o.Currency))
	return err
}

// Import is an import that runs, or has run.
type Import struct {
	Options
	http   *http.Client // of all calls but batches
	graph  *graph
	away   away
	opens  chan open
	tally  tally
	cancel context.CancelCauseFunc
}

// open is one opening to be done.
type open struct {
	row *row
	opening
}

// New checks the options.
func New(o Options) (*Import, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	m := &Import{Options: o, opens: make(chan open, o.Openers)}
	t := o.Transport.Clone()
	t.MaxIdleConns, t.MaxIdleConnsPerHost, t.ResponseHeaderTimeout = 0, o.Openers, callTimeout
	m.http = &http.Client{Transport: t}
	m.graph = newGraph(o.WindowMax, m.rejected)
	m.away = away{first: o.RetryFirst, most: o.RetryFor, told: o.Listener.Away}
	m.tally.init(o.Currency)
	return m, nil
}

// Run imports. The summary is of what was done so far, whether or not there is an error: an [UnavailableError], one of
// the file ([ErrHeader]), or the context's.
func (m *Import) Run(ctx context.Context) (Summary, error) {
	start := time.Now()
	defer m.http.CloseIdleConnections()
	file, err := newRowReader(m.In, m.Currency)
	if err != nil {
		return m.summary(start), err
	}
	ctx, m.cancel = context.WithCancelCause(ctx)
	defer m.cancel(nil)
	defer context.AfterFunc(ctx, m.graph.stop)()
	if err := m.greet(ctx); err != nil {
		return m.summary(start), err
	}

	var all sync.WaitGroup
	for range m.Openers {
		all.Go(func() { m.openAll(ctx) })
	}
	for range m.Streams {
		all.Go(func() { m.fail(m.send(ctx)) })
	}
	m.fail(m.read(ctx, file))
	close(m.opens)
	m.graph.end()
	all.Wait()
	return m.summary(start), context.Cause(ctx)
}

// fail ends the import, unless err is nil; the first error counts.
func (m *Import) fail(err error) {
	if err != nil {
		m.cancel(err)
	}
}

// read puts the file's rows into the graph.
func (m *Import) read(ctx context.Context, file *rowReader) error {
	p := newPace(m.Rate)
	for {
		r, err := file.next()
		if e, ok := errors.AsType[*rowError](err); ok {
			m.done(&row{line: e.line}, Outcome{Line: e.line, Kind: Rejected, Reason: e.reason})
			continue
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("importer: line %d: %w", file.line, err)
		}
		if err := p.wait(ctx); err != nil {
			return err
		}
		m.tally.readTo(file.read)
		if !m.graph.add(r) {
			return nil // whoever stopped it has said why
		}
		for _, o := range r.openings {
			select {
			case m.opens <- open{r, o}:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// done notes what became of a row.
func (m *Import) done(r *row, o Outcome) {
	o.Line = r.line
	m.tally.add(r, o)
	m.Listener.Row(o)
}

// rejected notes a row that could not start.
func (m *Import) rejected(r *row) {
	if r.conflict {
		m.tally.conflict()
	}
	m.done(r, Outcome{Kind: Rejected, Reason: r.rejected})
}

func (m *Import) id(line int) string { return fmt.Sprintf("%s:%d", m.Name, line) }

// isMismatch reports whether a rejection says that remit has something else under the row's id.
func isMismatch(p problem) bool { return strings.HasSuffix(p.Code, "_mismatch") }
