package producer

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/sqltx"
)

// Dialect is the SQL that a database understands.
type Dialect = sqltx.Dialect

// The dialects. MariaDB has MySQL's.
const (
	PostgreSQL = sqltx.PostgreSQL
	MySQL      = sqltx.MySQL
	SQLite     = sqltx.SQLite
)

// Database is where the service keeps its data; T is the type of its transactions. [SQL] and [PGX] make one.
type Database[T any] = sqltx.Database[T]

// SQL adapts a *sql.DB, of any driver. For another isolation than the database's own, wrap it: its BeginTx is called without options.
func SQL(db sqltx.Conns, d Dialect) Database[*sql.Tx] { return sqltx.DB(db, d) }

// PGX adapts a *pgxpool.Pool. T is pgx.Tx; the compiler finds it, Tag and R. For another isolation wrap it: its Begin is called.
func PGX[T sqltx.PGXTx[Tag], Tag sqltx.PGXTag, R sqltx.Row](pool sqltx.PGXPool[T, Tag, R]) Database[T] {
	return sqltx.Pool(pool)
}

// Producer sends transactional messages, and answers remit's back-checks. All methods are safe for concurrent use.
type Producer[T any] struct {
	opts  Options
	db    Database[T]
	texts statements
	remit client
	under underway

	// stop ends when Close gives up waiting; closing is closed when it begins to wait.
	stop    context.Context
	giveUp  context.CancelFunc
	closing chan struct{}
	places  chan struct{} // of confirmations that are repeated: see Options.ConfirmsMax

	mu     sync.Mutex
	closed bool
	// work counts what Close waits for. INVARIANT: it is added to under mu while closed is false, or by who is counted already.
	work sync.WaitGroup
}

// New checks the options. It does not call remit.
func New[T any](db Database[T], o Options) (*Producer[T], error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if db == nil {
		return nil, errors.New("producer: there is no Database; SQL or PGX makes one")
	}
	p := &Producer[T]{
		opts: o, db: db, texts: sqltx.In(dialects, db.Dialect()), under: underway{ends: map[log.ID]chan struct{}{}},
		closing: make(chan struct{}), places: make(chan struct{}, o.ConfirmsMax),
	}
	p.remit = client{&p.opts}
	p.stop, p.giveUp = context.WithCancel(context.Background())
	return p, nil
}

// MessagesMax is how many messages one SendAll takes.
const MessagesMax = 100

// Message is an event on its way to a topic.
type Message struct {
	Topic string
	// Event has its routing key in the extension partitionkey; without one its id is the key. The extensions deliverat, deliverafter and
	// checkafter are options of remit's, and are not delivered.
	Event event.Event
}

// Send runs local in a database transaction, and delivers e to a topic if, and only if, that commits (T1).
//
// local makes the caller's changes in the transaction that it is given, and leaves committing to Send. When it returns an error everything is rolled
// back, and the error is returned as it is. When it panics everything is rolled back, and the panic goes on.
//
// nil says that the transaction has committed. The message is on its topic then, or, when remit could not be told, will be: it is told
// again, and asks if it hears nothing. After any error the same event may be sent again; what the error says of this time, see [Error].
// An event that was sent is never sent twice: the repeat is [ErrAlreadySent] (T4).
func (p *Producer[T]) Send(ctx context.Context, topic string, e event.Event, local func(tx T) error) error {
	return p.SendAll(ctx, []Message{{topic, e}}, local)
}

// SendAll is Send for several messages of one transaction: each of them is delivered if, and only if, it commits.
func (p *Producer[T]) SendAll(ctx context.Context, messages []Message, local func(tx T) error) (err error) {
	halves, err := newHalves(messages)
	if err != nil {
		return err
	}
	if err := p.enter(); err != nil {
		return err
	}
	defer p.work.Done()
	s := &sending{halves: halves, verdict: Unknown}
	defer func() { // also when local panics, or ends its goroutine
		if told := p.tell(ctx, s); err == nil {
			err = told
		}
	}()
	defer p.under.add(halves)() // INVARIANT: before remit is told, so that a check that crosses finds the row
	if err := p.prepare(ctx, halves); err != nil {
		return err
	}
	return p.transact(ctx, s, local)
}

// enter counts what Close must wait for.
func (p *Producer[T]) enter() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	p.work.Add(1)
	return nil
}

// half is a message with the id that it was given.
type half struct {
	id    log.ID
	topic string
	event log.Event
	key   log.Fingerprint // what it is known by in the table
	body  []byte          // as it is stored
}

const optionID = "remitid"

func newHalves(messages []Message) ([]half, error) {
	if n := len(messages); n < 1 || n > MessagesMax {
		return nil, fmt.Errorf("producer: %d messages; at least 1 and at most %d are sent at once", n, MessagesMax)
	}
	halves, seen := make([]half, 0, len(messages)), map[log.Fingerprint]bool{}
	for _, m := range messages {
		h, err := newHalf(m)
		if err != nil {
			return nil, err
		}
		if seen[h.key] {
			return nil, h.error(errors.New("it is there twice"))
		}
		seen[h.key] = true
		halves = append(halves, h)
	}
	return halves, nil
}

func newHalf(m Message) (half, error) {
	e, err := log.FromSDK(m.Event)
	if err != nil {
		return half{}, fmt.Errorf("producer: topic %q: %w", m.Topic, err)
	}
	if e.Key == "" {
		e.Key = e.ID
	}
	h := half{id: log.NewID(time.Now(), e.Key), topic: m.Topic, event: e, key: eventKey(m.Topic, &e)}
	if _, given := e.Extensions[optionID]; given {
		return h, h.error(fmt.Errorf("the extension %s is the producer's to set: an id is one Send's alone", optionID))
	}
	if m.Topic == "" {
		return h, h.error(errors.New("the topic is missing"))
	}
	stored := e
	stored.Extensions = map[string]any{optionID: h.id.String()}
	for name, value := range e.Extensions {
		stored.Extensions[name] = value
	}
	if err := stored.Validate(); err != nil {
		return h, h.error(err)
	}
	if h.body, err = stored.MarshalStructured(); err != nil {
		return h, h.error(err)
	}
	return h, nil
}

// prepare stores the half messages. What it stored before it failed is found by back-checks, and rolled back.
func (p *Producer[T]) prepare(ctx context.Context, halves []half) error {
	return each(halves, func(h half) error {
		began := time.Now()
		if err := p.remit.prepare(ctx, h); err != nil {
			return h.error(err)
		}
		p.opts.Listener.Prepared(h.id, h.topic, time.Since(began))
		return nil
	})
}

// sending is a SendAll under way.
type sending struct {
	halves  []half
	verdict Verdict // how the local transaction has ended; Unknown until that is certain
}

// transact runs the local transaction, and leaves in s how it has ended.
func (p *Producer[T]) transact(ctx context.Context, s *sending, local func(T) error) error {
	began := time.Now()
	defer func() {
		for _, h := range s.halves {
			p.opts.Listener.Ended(h.id, s.verdict, time.Since(began))
		}
	}()
	tx, err := p.db.Begin(ctx)
	if err != nil {
		s.verdict = Rollback
		return s.failed("the local transaction did not begin", err)
	}
	ended := false
	defer func() { // also when local panics, or ends its goroutine
		if !ended {
			p.undo(ctx, s, tx)
		}
	}()
	// INVARIANT: the rows come first. A check that crosses waits for them, and so for the transaction; with the rows last it would come
	// between, and each transaction that is slow would fail at its end.
	if taken, err := p.note(ctx, tx, s.halves); err != nil {
		return s.failed("the decision could not be noted", err)
	} else if taken != nil {
		ended = true
		p.undo(ctx, s, tx)
		return p.taken(ctx, *taken)
	}
	if err := local(tx.Own); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return s.failed("the local transaction was not committed", err)
	}
	ended = true
	if err := tx.Commit(ctx); err != nil {
		return p.doubt(ctx, s, err)
	}
	s.verdict = Commit
	return nil
}

// undo rolls the local transaction back. When that fails the connection is gone, ctx has ended it, or local has ended it itself: the row says how.
func (p *Producer[T]) undo(ctx context.Context, s *sending, tx sqltx.Transaction[T]) {
	rolling, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.opts.SettleMax)
	defer cancel()
	if err := tx.Rollback(rolling); err == nil {
		s.verdict = Rollback
		return
	}
	s.verdict, _ = p.settle(ctx, s.halves[0].id) // Unknown if it cannot be settled; the back-check does
}

// doubt finds out what became of a commit that returned an error.
func (p *Producer[T]) doubt(ctx context.Context, s *sending, cause error) (err error) {
	switch s.verdict, err = p.settle(ctx, s.halves[0].id); {
	case err != nil:
		return s.halves[0].error(fmt.Errorf("%w: %w; and then: %w", ErrOutcomeUnknown, cause, err))
	case s.verdict == Commit:
		return nil
	default:
		return s.failed("the local transaction did not commit", cause)
	}
}

// taken says why a half message could not be noted.
func (p *Producer[T]) taken(ctx context.Context, h half) error {
	found, err := p.find(ctx, h.id)
	switch {
	case err != nil:
		return h.error(fmt.Errorf("it has a row in %s already, which cannot be read: %w", Table, err))
	case found == Rollback:
		return h.error(ErrRolledBack)
	default:
		return h.error(ErrAlreadySent)
	}
}

// failed makes the error of what failed for all halves; the first is named.
func (s *sending) failed(what string, err error) error {
	return s.halves[0].error(fmt.Errorf("%s: %w", what, err))
}

// each calls do for each half, side by side, and returns the first error there is, in their order.
func each(halves []half, do func(half) error) error {
	if len(halves) == 1 {
		return do(halves[0])
	}
	errs := make([]error, len(halves))
	var all sync.WaitGroup
	for i, h := range halves {
		all.Go(func() { errs[i] = do(h) })
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// underway are the messages whose local transaction has not ended in this process.
type underway struct {
	mu   sync.Mutex
	ends map[log.ID]chan struct{} // closed when it has
}

// add notes halves, until the function that it returns is called.
func (u *underway) add(halves []half) (over func()) {
	end := make(chan struct{})
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, h := range halves {
		u.ends[h.id] = end
	}
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		for _, h := range halves {
			delete(u.ends, h.id)
		}
		close(end)
	}
}

// wait waits until a message is not under way; false if ctx ends before.
func (u *underway) wait(ctx context.Context, id log.ID) bool {
	u.mu.Lock()
	end, ok := u.ends[id]
	u.mu.Unlock()
	if !ok {
		return true
	}
	select {
	case <-end:
		return true
	case <-ctx.Done():
		return false
	}
}
