package producer_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/remitlog/remit/broker/producer"
	"github.com/remitlog/remit/broker/producer/producertest"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/sqltx"
)

// shop is a service under test: its database, and a remit in memory.
type shop struct {
	t       *testing.T
	db      *sql.DB
	dialect producer.Dialect
	remit   *producertest.Remit
	options producer.Options

	mu   sync.Mutex
	said []string // by listeners
}

func newShop(t *testing.T, db *sql.DB, d producer.Dialect) *shop {
	s := &shop{t: t, db: db, dialect: d, remit: producertest.New()}
	for _, statement := range []string{producer.Schema(d), producer.Schema(d), "CREATE TABLE orders (id VARCHAR(200))"} {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	s.options = producer.Options{
		Server: producertest.URL, Producer: "shop", Client: s.remit.Client(), BackoffMin: time.Millisecond, BackoffMax: 10 * time.Millisecond,
		Listener: producer.Listener{
			Prepared:     func(log.ID, string, time.Duration) { s.say("prepared") },
			Ended:        func(_ log.ID, v producer.Verdict, _ time.Duration) { s.say("ended " + string(v)) },
			Confirmed:    func(_ log.ID, v producer.Verdict, _ int) { s.say("confirmed " + string(v)) },
			Unconfirmed:  func(_ log.ID, v producer.Verdict, _ error) { s.say("unconfirmed " + string(v)) },
			Contradicted: func(_ log.ID, v producer.Verdict, _ error) { s.say("contradicted " + string(v)) },
			Leased:       func(i string, err error) { s.say(fmt.Sprint("leased ", i, " ", err == nil)) },
		},
	}
	register(t, s.remit)
	return s
}

// register makes the shop known to remit.
func register(t *testing.T, r *producertest.Remit) {
	t.Helper()
	p, err := producer.New(newMemory(), producer.Options{Server: producertest.URL, Producer: "shop", Client: r.Client()})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Register(t.Context(), producer.Registration{Check: producer.Check{URL: "http://shop.test/check"}}); err != nil {
		t.Fatal(err)
	}
}

func (s *shop) say(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said = append(s.said, what)
}

func (s *shop) wantSaid(what ...string) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.said, what) {
		s.t.Errorf("listeners were told %q, not %q", s.said, what)
	}
	s.said = nil
}

func (s *shop) producer() *producer.Producer[*sql.Tx] { return s.over(producer.SQL(s.db, s.dialect)) }

// over makes a producer, closed with the test.
func (s *shop) over(db producer.Database[*sql.Tx]) *producer.Producer[*sql.Tx] {
	s.t.Helper()
	p, err := producer.New(db, s.options)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := p.Close(context.WithoutCancel(s.t.Context())); err != nil {
			s.t.Error(err)
		}
	})
	return p
}

// placed is an order's event.
func placed(id string) event.Event {
	e := event.New()
	e.SetID(id)
	e.SetSource("/shop")
	e.SetType("order.placed.v1")
	e.SetExtension("partitionkey", "alice")
	_ = e.SetData(event.ApplicationJSON, map[string]int{"cents": 1250}) // it is JSON
	return e
}

// place is an order's local transaction.
func (s *shop) place(id string) func(*sql.Tx) error {
	return func(tx *sql.Tx) error {
		_, err := tx.ExecContext(s.t.Context(), "INSERT INTO orders (id) VALUES ('"+id+"')")
		return err
	}
}

// wantOrders holds the table, and what was delivered, to ids: what has the row is delivered, and nothing else.
func (s *shop) wantOrders(ids ...string) {
	s.t.Helper()
	if got := s.orders(); !slices.Equal(got, ids) {
		s.t.Errorf("orders are %q, not %q", got, ids)
	}
	var delivered []string
	for _, e := range s.remit.Delivered("orders") {
		delivered = append(delivered, e.ID())
	}
	slices.Sort(delivered)
	if !slices.Equal(delivered, ids) {
		s.t.Errorf("delivered are %q, not %q", delivered, ids)
	}
	for _, m := range s.remit.Messages() {
		if m.State == "prepared" || m.Conflicts > 0 {
			s.t.Errorf("message %s of %s is %s, with %d contradictions", m.ID, m.Event.ID(), m.State, m.Conflicts)
		}
	}
}

func (s *shop) orders() (ids []string) {
	s.t.Helper()
	rows, err := s.db.QueryContext(s.t.Context(), "SELECT id FROM orders ORDER BY id")
	if err != nil {
		s.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			s.t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if err := rows.Err(); err != nil {
		s.t.Fatal(err)
	}
	return ids
}

var errFails = errors.New("fails")

// TestSend is T1 on each database, as long as nothing is lost: committed and delivered, or neither.
func TestSend(t *testing.T) {
	onEach(t, func(t *testing.T, s *shop) {
		p := s.producer()
		fails := func(id string) func(*sql.Tx) error {
			return func(tx *sql.Tx) error { return errors.Join(s.place(id)(tx), errFails) }
		}
		if err := p.Send(t.Context(), "orders", placed("1"), s.place("1")); err != nil {
			t.Error(err)
		}
		s.wantOrders("1")
		s.wantSaid("prepared", "ended commit", "confirmed commit")

		failed := fails("2")
		if err := p.Send(t.Context(), "orders", placed("2"), failed); !errors.Is(err, errFails) {
			t.Error(err)
		}
		s.wantSaid("prepared", "ended rollback", "confirmed rollback")
		if v := panics(func() {
			_ = p.Send(t.Context(), "orders", placed("3"), func(tx *sql.Tx) error { panic(fails("3")(tx)) })
		}); v == nil {
			t.Error("the panic has ended in Send")
		}
		s.wantSaid("prepared", "ended rollback", "confirmed rollback")
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = p.Send(t.Context(), "orders", placed("4"), func(tx *sql.Tx) error {
				_ = s.place("4")(tx)
				runtime.Goexit() // as t.FailNow does
				return nil
			})
		}()
		<-ended
		s.wantSaid("prepared", "ended rollback", "confirmed rollback")
		s.wantOrders("1")

		two := []producer.Message{{"orders", placed("5")}, {"orders", placed("6")}}
		if err := p.SendAll(t.Context(), two, func(tx *sql.Tx) error { return errors.Join(s.place("5")(tx), s.place("6")(tx)) }); err != nil {
			t.Error(err)
		}
		two = []producer.Message{{"orders", placed("7")}, {"orders", placed("8")}}
		if err := p.SendAll(t.Context(), two, fails("7")); err == nil {
			t.Error("no error")
		}
		s.wantOrders("1", "5", "6")
	})
}

func panics(f func()) (v any) {
	defer func() { v = recover() }()
	f()
	return nil
}

// TestDelivered: what is delivered is the event as it was given, with its key, and without what is for remit.
func TestDelivered(t *testing.T) {
	s := onSQLite(t)
	e := placed("1")
	e.SetExtension("checkafter", "20s")
	e.SetExtension("retry", 3)
	if err := s.producer().Send(t.Context(), "orders", e, s.place("1")); err != nil {
		t.Fatal(err)
	}
	got := s.remit.Delivered("orders")[0]
	want := map[string]any{"partitionkey": "alice", "retry": int32(3)}
	if fmt.Sprint(got.Extensions()) != fmt.Sprint(want) || string(got.Data()) != `{"cents":1250}` || got.ID() != "1" || got.Source() != "/shop" {
		t.Errorf("%s", got)
	}
	if id := s.remit.Messages()[0].ID; id.Slot() != log.SlotOf("alice") {
		t.Errorf("%s is not in alice's slot", id)
	}
	keyless := event.New()
	keyless.SetID("2")
	keyless.SetSource("/shop")
	keyless.SetType("order.placed.v1")
	if err := s.producer().Send(t.Context(), "orders", keyless, s.place("2")); err != nil {
		t.Error(err)
	}
	if id := s.remit.Messages()[1].ID; id.Slot() != log.SlotOf("2") {
		t.Errorf("%s is not in the slot of its event's id", id)
	}
}

// TestNotSent: what cannot be sent is refused before anything is done.
func TestNotSent(t *testing.T) {
	s := onSQLite(t)
	p := s.producer()
	withID, noID, large := placed("1"), placed(""), placed("1")
	withID.SetExtension("remitid", "x")
	_ = large.SetData(event.ApplicationJSON, strings.Repeat("x", log.EventDataMax)) // it is JSON
	never := func(*sql.Tx) error { t.Error("the local transaction ran"); return nil }
	many := make([]producer.Message, producer.MessagesMax+1)
	for i := range many {
		many[i] = producer.Message{Topic: "orders", Event: placed(fmt.Sprint(i))}
	}
	for what, messages := range map[string][]producer.Message{
		"an id of its own": {{"orders", withID}}, "no id": {{"orders", noID}}, "too large": {{"orders", large}}, "no topic": {{"", placed("1")}},
		"no event": {{"orders", event.Event{}}}, "none": {}, "twice": {{"orders", placed("1")}, {"orders", placed("1")}}, "too many": many,
	} {
		if err := p.SendAll(t.Context(), messages, never); err == nil || !strings.HasPrefix(err.Error(), "producer: ") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if n := len(s.remit.Messages()); n > 0 {
		t.Errorf("remit has %d messages", n)
	}
}

// TestCancelled: a context that ends before COMMIT rolls back, wherever it ends.
func TestCancelled(t *testing.T) {
	onEach(t, func(t *testing.T, s *shop) {
		for i, step := range []string{"prepare", "prepared", "begun", "noted", "local"} {
			ctx, cancel := context.WithCancel(t.Context())
			at := func(now string) {
				if now == step {
					cancel()
				}
			}
			s.options.Client.Transport = steppedTransport{s.remit.Client().Transport, at}
			p := s.over(stepped[*sql.Tx]{producer.SQL(s.db, s.dialect), at})
			err := p.Send(ctx, "orders", placed(fmt.Sprint(i)), func(tx *sql.Tx) error {
				at("local")
				return s.place("x")(tx)
			})
			if err == nil || ctx.Err() == nil {
				t.Errorf("%s: %v", step, err)
			}
			if err := p.Close(t.Context()); err != nil {
				t.Error(err)
			}
			if err := s.remit.Check(t.Context(), p.CheckHandler()); err != nil {
				t.Errorf("%s: %v", step, err)
			}
			s.wantOrders()
		}
	})
}

// TestCancelledLate: COMMIT is not sent under a context that has ended, whatever the driver would make of it.
func TestCancelledLate(t *testing.T) {
	remit, db := producertest.New(), newMemory()
	register(t, remit)
	p, err := producer.New(db, producer.Options{Server: producertest.URL, Producer: "shop", Client: remit.Client()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = p.Send(ctx, "orders", placed("1"), func(tx *memoryTx) error { cancel(); return tx.write("1") })
	if !errors.Is(err, context.Canceled) || db.has("1") {
		t.Errorf("%v; committed: %t", err, db.has("1"))
	}
}

// stepped says what Send does with the database.
type stepped[T any] struct {
	producer.Database[T]
	at func(step string)
}

func (s stepped[T]) Begin(ctx context.Context) (sqltx.Transaction[T], error) {
	s.at("begin")
	tx, err := s.Database.Begin(ctx)
	s.at("begun")
	tx.Tx = steppedTx{tx.Tx, s.at}
	commit, rollback := tx.Commit, tx.Rollback
	tx.Commit = func(ctx context.Context) error {
		s.at("commit")
		err := commit(ctx)
		s.at("committed")
		return err
	}
	tx.Rollback = func(ctx context.Context) error {
		s.at("rollback")
		err := rollback(ctx)
		s.at("rolledback")
		return err
	}
	return tx, err
}

type steppedTx struct {
	sqltx.Tx
	at func(step string)
}

func (s steppedTx) Exec(ctx context.Context, statement string, args ...any) (int64, error) {
	s.at("note")
	n, err := s.Tx.Exec(ctx, statement, args...)
	s.at("noted")
	return n, err
}

// steppedTransport says what Send asks remit for.
type steppedTransport struct {
	http.RoundTripper
	at func(step string)
}

func (s steppedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	before, after := "confirm", "confirmed"
	switch {
	case strings.HasSuffix(req.URL.Path, "/messages"):
		before, after = "prepare", "prepared"
	case strings.HasSuffix(req.URL.Path, "/rollback"):
		before, after = "takeback", "takenback"
	}
	s.at(before)
	resp, err := s.RoundTripper.RoundTrip(req)
	s.at(after)
	return resp, err
}

// TestCheckCrosses is T2 on each database: a back-check that another process answers, at each point of a Send. Whichever comes first stands, and
// what remit was told is what the database has.
func TestCheckCrosses(t *testing.T) {
	onEach(t, func(t *testing.T, s *shop) {
		s.options.CheckMax = time.Minute
		other := s.producer() // another process has nothing of this one but the database
		for i, c := range []struct {
			step    string
			fails   bool
			verdict string
			err     error
		}{
			{"prepared", false, "rollback", producer.ErrRolledBack},
			{"begun", false, "rollback", producer.ErrRolledBack},
			{"note", false, "rollback", producer.ErrRolledBack},
			{"noted", false, "commit", nil}, // it waits
			{"local", false, "commit", nil},
			{"commit", false, "commit", nil},
			{"committed", false, "commit", nil},
			{"confirm", false, "commit", nil},
			{"confirmed", false, "commit", nil},
			{"noted", true, "rollback", errFails},
			{"local", true, "rollback", errFails},
			{"rollback", true, "rollback", errFails},
			{"rolledback", true, "rollback", errFails},
			{"takeback", true, "rollback", errFails},
			{"takenback", true, "rollback", errFails},
		} {
			if s.dialect == producer.SQLite && c.step == "note" {
				continue // its one writer is the transaction that has begun, if it has to wait at all
			}
			id, asked := fmt.Sprintf("%02d", i), make(chan struct{})
			var once sync.Once
			at := func(now string) {
				if now != c.step {
					return
				}
				once.Do(func() {
					messages := s.remit.Messages()
					message := messages[len(messages)-1].ID
					waits := slices.Contains([]string{"noted", "local", "commit", "rollback"}, now)
					go func() {
						defer close(asked)
						if v, err := s.remit.CheckOne(t.Context(), other.CheckHandler(), message); v != c.verdict || err != nil {
							t.Errorf("%s: the check is answered %q, not %q; %v", c.step, v, c.verdict, err)
						}
					}()
					if !waits {
						<-asked
					}
				})
			}
			s.options.Client.Transport = steppedTransport{s.remit.Client().Transport, at}
			p := s.over(stepped[*sql.Tx]{producer.SQL(s.db, s.dialect), at})
			before := s.orders()
			err := p.Send(t.Context(), "orders", placed(id), func(tx *sql.Tx) error {
				at("local")
				err := s.place(id)(tx)
				if c.fails {
					err = errors.Join(err, errFails)
				}
				return err
			})
			<-asked
			if !errors.Is(err, c.err) {
				t.Errorf("%s: %v, not %v", c.step, err, c.err)
			}
			if c.verdict == "commit" {
				before = append(before, id)
			}
			s.wantOrders(before...)
		}
	})
}

// TestCheckOfItself: a process is not rolled back by its own slow transaction: it answers unknown, or waits for it.
func TestCheckOfItself(t *testing.T) {
	s := onSQLite(t)
	s.options.CheckMax = time.Millisecond
	p := s.producer()
	err := p.Send(t.Context(), "orders", placed("1"), func(tx *sql.Tx) error {
		if v, err := s.remit.CheckOne(t.Context(), p.CheckHandler(), last(s).ID); v != "unknown" || err != nil {
			t.Errorf("%q, %v", v, err)
		}
		return s.place("1")(tx)
	})
	if err != nil {
		t.Error(err)
	}
	s.wantOrders("1")

	s.options.CheckMax = time.Minute
	p = s.producer()
	said := make(chan string)
	err = p.Send(t.Context(), "orders", placed("2"), func(tx *sql.Tx) error {
		go func() {
			v, _ := s.remit.CheckOne(t.Context(), p.CheckHandler(), last(s).ID)
			said <- v
		}()
		return s.place("2")(tx)
	})
	if v := <-said; v != "commit" || err != nil {
		t.Errorf("%q, %v", v, err)
	}
	s.wantOrders("1", "2")
}

// TestRepeat is T4 on each database: what a caller does who got an error is to send the event again, and it is never committed twice.
func TestRepeat(t *testing.T) {
	onEach(t, func(t *testing.T, s *shop) {
		p := s.producer()
		if err := p.Send(t.Context(), "orders", placed("1"), func(*sql.Tx) error { return errFails }); !errors.Is(err, errFails) {
			t.Error(err)
		}
		for i, want := range []error{nil, producer.ErrAlreadySent, producer.ErrAlreadySent} {
			ran := false
			err := p.Send(t.Context(), "orders", placed("1"), func(tx *sql.Tx) error { ran = true; return s.place("1")(tx) })
			if !errors.Is(err, want) || ran != (want == nil) {
				t.Errorf("time %d: %v; it ran: %t", i, err, ran)
			}
		}
		s.wantOrders("1")
		// Another topic, source or id is another event.
		other := placed("1")
		other.SetSource("/Shop")
		for _, m := range []producer.Message{{"others", placed("1")}, {"orders", other}, {"orders", placed("2")}} {
			if err := p.Send(t.Context(), m.Topic, m.Event, s.place(m.Event.ID())); err != nil {
				t.Error(err)
			}
		}
		// Several of one transaction are all sent, or none.
		err := p.SendAll(t.Context(), []producer.Message{{"orders", placed("3")}, {"orders", placed("2")}}, s.place("3"))
		if e, ok := errors.AsType[*producer.Error](err); !ok || e.Event != "2" || !errors.Is(err, producer.ErrAlreadySent) {
			t.Error(err)
		}
		if got := s.orders(); !slices.Equal(got, []string{"1", "1", "1", "2"}) {
			t.Errorf("orders are %q", got)
		}
	})
}

// TestAtOnce: of many who send one event at once, one does, also when some roll back.
func TestAtOnce(t *testing.T) {
	onEach(t, func(t *testing.T, s *shop) {
		p := s.producer()
		for round := range 5 {
			id := fmt.Sprint(round)
			sent := make(chan bool, 8)
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					err := errFails
					for err != nil && !errors.Is(err, producer.ErrAlreadySent) { // a deadlock, or busy: again
						err = p.Send(t.Context(), "orders", placed(id), func(tx *sql.Tx) error {
							if err := s.place(id)(tx); err != nil || i%4 > 0 {
								return err
							}
							return errFails
						})
						if i%4 == 0 && errors.Is(err, errFails) {
							return
						}
					}
					sent <- err == nil
				})
			}
			wg.Wait()
			close(sent)
			n := 0
			for first := range sent {
				if first {
					n++
				}
			}
			if n != 1 {
				t.Errorf("%d have sent event %s", n, id)
			}
		}
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if err := s.remit.Check(t.Context(), p.CheckHandler()); err != nil {
			t.Error(err)
		}
		s.wantOrders("0", "1", "2", "3", "4")
	})
}

// TestPGX: pgx's own pool fits, and is not imported to do so.
func TestPGX(t *testing.T) {
	dsn := postgreSQL(t)
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s := newShop(t, db, producer.PostgreSQL)
	pool, err := pgxpool.New(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	p, err := producer.New(producer.PGX(pool), s.options)
	if err != nil {
		t.Fatal(err)
	}
	place := func(id string) func(pgx.Tx) error {
		return func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), "INSERT INTO orders (id) VALUES ($1)", id)
			return err
		}
	}
	if err := p.Send(t.Context(), "orders", placed("1"), place("1")); err != nil {
		t.Error(err)
	}
	if err := p.Send(t.Context(), "orders", placed("1"), place("1")); !errors.Is(err, producer.ErrAlreadySent) {
		t.Error(err)
	}
	// A statement that failed makes of COMMIT a rollback.
	err = p.Send(t.Context(), "orders", placed("2"), func(tx pgx.Tx) error {
		_ = place("2")(tx)
		_, err := tx.Exec(t.Context(), "SELECT nonsense")
		if err == nil {
			t.Error("nonsense was selected")
		}
		return nil
	})
	if !errors.Is(err, pgx.ErrTxCommitRollback) {
		t.Error(err)
	}
	// A transaction that local has committed itself is committed.
	if err := p.Send(t.Context(), "orders", placed("3"), func(tx pgx.Tx) error { return errors.Join(place("3")(tx), tx.Commit(t.Context())) }); err != nil {
		t.Error(err)
	}
	if err := p.Send(t.Context(), "orders", placed("4"), func(tx pgx.Tx) error {
		return errors.Join(place("4")(tx), tx.Commit(t.Context()), errFails)
	}); !errors.Is(err, errFails) {
		t.Error(err)
	}
	if err := s.remit.Check(t.Context(), p.CheckHandler()); err != nil {
		t.Error(err)
	}
	s.wantOrders("1", "3", "4")
	if n, err := p.Forget(t.Context(), time.Now().Add(time.Hour)); n != 4 || err != nil { // 2 has a row that says rollback
		t.Errorf("forgot %d, %v", n, err)
	}
}

// TestLostAnswers: what remit did not hear, or was not heard to say, changes nothing.
func TestLostAnswers(t *testing.T) {
	const all = 1 << 20
	for _, c := range []struct {
		what, path string
		loss       producertest.Loss
		times      int
		err        bool
		said       []string
	}{
		{"prepare never came", "/messages", producertest.Request, 2, false, []string{"prepared", "ended commit", "confirmed commit"}},
		{"its answers were lost", "/messages", producertest.Answer, 2, false, []string{"prepared", "ended commit", "confirmed commit"}},
		{"remit is away", "/messages", producertest.Request, all, true, nil},
		{"remit hears and is not heard", "/messages", producertest.Answer, all, true, nil},
		{"commit never came", "/commit", producertest.Request, 3, false, []string{"prepared", "ended commit", "confirmed commit"}},
		{"the answers to commit were lost", "/commit", producertest.Answer, 3, false, []string{"prepared", "ended commit", "confirmed commit"}},
		{"remit went away", "/commit", producertest.Request, all, false, []string{"prepared", "ended commit", "unconfirmed commit"}},
		{"remit hears and was not heard", "/commit", producertest.Answer, all, false, []string{"prepared", "ended commit", "unconfirmed commit"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			s := onSQLite(t)
			left := c.times
			s.remit.Lose = func(r *http.Request) producertest.Loss {
				s.mu.Lock()
				defer s.mu.Unlock()
				if strings.HasSuffix(r.URL.Path, c.path) && left > 0 {
					left--
					return c.loss
				}
				return producertest.Nothing
			}
			p := s.producer()
			err := p.Send(t.Context(), "orders", placed("1"), s.place("1"))
			if (err != nil) != c.err || err != nil && !producer.IsRetryable(err) {
				t.Error(err)
			}
			if err := p.Close(t.Context()); err != nil {
				t.Error(err)
			}
			s.wantSaid(c.said...)
			if err := s.remit.Check(t.Context(), p.CheckHandler()); err != nil {
				t.Error(err)
			}
			if c.err {
				s.wantOrders()
			} else {
				s.wantOrders("1")
			}
		})
	}
}

// TestDecidedBefore: a message that was rolled back while the answer to its storing was lost is not begun, whoever has done it.
func TestDecidedBefore(t *testing.T) {
	s := onSQLite(t)
	first := true
	s.options.Client.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
		resp, err := s.remit.Client().Transport.RoundTrip(r)
		if strings.HasSuffix(r.URL.Path, "/messages") && first {
			first = false
			s.remit.Decide(last(s).ID, "rollback") // a person
			return nil, producertest.ErrLost
		}
		return resp, err
	})
	err := s.producer().Send(t.Context(), "orders", placed("1"), func(*sql.Tx) error { t.Error("it was begun"); return nil })
	if !errors.Is(err, producer.ErrRolledBack) {
		t.Error(err)
	}
	s.wantOrders()
}

// doubtful is a database that is lost at COMMIT.
type doubtful struct {
	producer.Database[*sql.Tx]
	commits bool // before it is lost
	down    *bool
}

var errLost = errors.New("connection lost")

func (d doubtful) Begin(ctx context.Context) (sqltx.Transaction[*sql.Tx], error) {
	tx, err := d.Database.Begin(ctx)
	commit, rollback := tx.Commit, tx.Rollback
	tx.Commit = func(ctx context.Context) error {
		end := rollback
		if d.commits {
			end = commit
		}
		return errors.Join(end(ctx), errLost)
	}
	return tx, err
}

func (d doubtful) Text(ctx context.Context, query string, args ...any) (string, error) {
	if *d.down {
		return "", errLost
	}
	return d.Database.Text(ctx, query, args...)
}

// TestDoubtfulCommit: a COMMIT that fails may have committed. The row says whether it has; where that cannot be read, the error says so, the
// back-check settles it, and the repeat tells.
func TestDoubtfulCommit(t *testing.T) {
	onEach(t, func(t *testing.T, s *shop) {
		down := false
		lost, committed := doubtful{producer.SQL(s.db, s.dialect), false, &down}, doubtful{producer.SQL(s.db, s.dialect), true, &down}
		if err := s.over(committed).Send(t.Context(), "orders", placed("1"), s.place("1")); err != nil {
			t.Error(err)
		}
		if err := s.over(lost).Send(t.Context(), "orders", placed("2"), s.place("2")); !errors.Is(err, errLost) || errors.Is(err, producer.ErrOutcomeUnknown) {
			t.Error(err)
		}
		s.wantOrders("1")
		down, s.options.SettleMax = true, 20*time.Millisecond
		for id, db := range map[string]doubtful{"3": committed, "4": lost} {
			err := s.over(db).Send(t.Context(), "orders", placed(id), s.place(id))
			if !errors.Is(err, producer.ErrOutcomeUnknown) || !errors.Is(err, errLost) || !producer.IsRetryable(err) {
				t.Error(err)
			}
			if v, err := s.remit.CheckOne(t.Context(), s.over(db).CheckHandler(), last(s).ID); err == nil || !strings.Contains(err.Error(), "503") {
				t.Errorf("%q, %v", v, err)
			}
		}
		down, s.options.SettleMax = false, 0
		p := s.producer()
		if err := s.remit.Check(t.Context(), p.CheckHandler()); err != nil {
			t.Error(err)
		}
		s.wantOrders("1", "3")
		for id, want := range map[string]error{"3": producer.ErrAlreadySent, "4": nil} {
			if err := p.Send(t.Context(), "orders", placed(id), s.place(id)); !errors.Is(err, want) {
				t.Errorf("%s: %v, not %v", id, err, want)
			}
		}
		s.wantOrders("1", "3", "4")
	})
}

func last(s *shop) producertest.Message {
	all := s.remit.Messages()
	return all[len(all)-1]
}

// TestContradicted: where a person has decided otherwise, whoever sent is told, and nothing is made of it.
func TestContradicted(t *testing.T) {
	s := onSQLite(t)
	p := s.producer()
	person := func(verdict string) { s.remit.Decide(last(s).ID, verdict) }
	err := p.Send(t.Context(), "orders", placed("1"), func(tx *sql.Tx) error {
		person("rollback")
		return s.place("1")(tx)
	})
	answer, ok := errors.AsType[*producer.AnswerError](err)
	if !errors.Is(err, producer.ErrContradicted) || producer.IsRetryable(err) || !ok || answer.Recorded != "rolledback" {
		t.Error(err)
	}
	s.wantSaid("prepared", "ended commit", "contradicted commit")
	err = p.Send(t.Context(), "orders", placed("2"), func(*sql.Tx) error { person("commit"); return errFails })
	if err != errFails {
		t.Error(err)
	}
	s.wantSaid("prepared", "ended rollback", "contradicted rollback")
}

// TestClose: Close waits for what is under way and for what remit is still to be told, and no longer than it may.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shop{t: t, remit: producertest.New()}
		away := true
		s.remit.Lose = func(r *http.Request) producertest.Loss {
			s.mu.Lock()
			defer s.mu.Unlock()
			if away && strings.HasSuffix(r.URL.Path, "/commit") {
				return producertest.Request
			}
			return producertest.Nothing
		}
		s.options = producer.Options{Server: producertest.URL, Producer: "shop", Client: s.remit.Client(), BackoffMax: time.Hour, ConfirmsMax: 2, ConfirmAttemptsMax: 1000,
			Listener: producer.Listener{Unconfirmed: func(_ log.ID, v producer.Verdict, err error) { s.say(fmt.Sprint(err)) }}}
		db := newMemory()
		p, err := producer.New(db, s.options)
		if err != nil {
			t.Fatal(err)
		}
		register(t, s.remit)
		for i := range 3 {
			if err := p.Send(t.Context(), "orders", placed(fmt.Sprint(i)), func(*memoryTx) error { return nil }); err != nil {
				t.Error(err)
			}
		}
		s.mu.Lock()
		if len(s.said) != 1 || !strings.Contains(s.said[0], "too many") {
			t.Errorf("%q; two places were there for three", s.said)
		}
		s.mu.Unlock()
		closed := make(chan error)
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			closed <- p.Close(ctx)
		}()
		synctest.Wait()
		if err := p.Send(t.Context(), "orders", placed("x"), nil); !errors.Is(err, producer.ErrClosed) {
			t.Error(err)
		}
		if err := <-closed; !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "2 decisions") {
			t.Error(err)
		}
		synctest.Wait() // the rest is given up

		p, err = producer.New(db, s.options)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Send(t.Context(), "orders", placed("4"), func(*memoryTx) error { return nil }); err != nil {
			t.Error(err)
		}
		go func() { closed <- p.Close(t.Context()) }()
		synctest.Wait()
		s.mu.Lock()
		away = false
		s.mu.Unlock()
		if err := <-closed; err != nil {
			t.Error(err)
		}
		if got := s.remit.Delivered("orders"); len(got) != 1 {
			t.Errorf("%d are delivered", len(got))
		}
	})
}

// TestLease: an instance is registered until Close.
func TestLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		remit := producertest.New()
		var mu sync.Mutex
		away, renewed, failed := false, 0, 0
		remit.Lose = func(r *http.Request) producertest.Loss {
			mu.Lock()
			defer mu.Unlock()
			if away {
				return producertest.Request
			}
			return producertest.Nothing
		}
		p, err := producer.New(newMemory(), producer.Options{Server: producertest.URL, Producer: "shop", Client: remit.Client(),
			Listener: producer.Listener{Leased: func(_ string, err error) {
				if err != nil {
					failed++
				} else {
					renewed++
				}
			}}})
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range []producer.Instance{{}, {Name: "a"}, {Name: "a", URL: "http://a.test", Lease: time.Millisecond}} {
			if err := p.Lease(t.Context(), i); err == nil {
				t.Errorf("%+v is an instance", i)
			}
		}
		if err := p.Lease(t.Context(), producer.Instance{Name: "a/1", URL: "http://a.test/check", Lease: 30 * time.Second}); err != nil {
			t.Fatal(err)
		}
		if got := remit.Instances()["a/1"]; got != "http://a.test/check" {
			t.Errorf("%q is registered", got)
		}
		time.Sleep(95 * time.Second)
		mu.Lock()
		away = true
		mu.Unlock()
		time.Sleep(10 * time.Second)
		mu.Lock()
		away = false
		mu.Unlock()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if renewed != 10 || failed != 1 {
			t.Errorf("renewed %d times, and %d times not", renewed, failed)
		}
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if n := len(remit.Instances()); n != 0 {
			t.Errorf("%d instances are left", n)
		}
		if err := p.Lease(t.Context(), producer.Instance{Name: "b", URL: "http://b.test"}); !errors.Is(err, producer.ErrClosed) {
			t.Error(err)
		}
	})
}

// TestRegister: what is registered is said as api.md has it.
func TestRegister(t *testing.T) {
	var got bytes.Buffer
	status := http.StatusCreated
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got.Reset()
		fmt.Fprintf(&got, "%s %s %s ", r.Method, r.URL.EscapedPath(), r.Header.Get("Authorization"))
		_, _ = got.ReadFrom(r.Body)
		w.WriteHeader(status)
	}))
	defer server.Close()
	p, err := producer.New(newMemory(), producer.Options{Server: server.URL + "/", Producer: "web shop", Token: "t0k3n", BackoffMin: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		r    producer.Registration
		want string
	}{
		{producer.Registration{}, `{}`},
		{producer.Registration{Check: producer.Check{URL: "http://a/check", Secret: "s", FirstAfter: 1500 * time.Millisecond, Interval: time.Second, MaxInterval: time.Minute, Deadline: time.Hour, When: "remitage > 5", Concurrency: 2, Rate: 3},
			Precheck: producer.Precheck{URL: "http://a/pre", Secret: "p", When: "TRUE"}},
			`{"check":{"url":"http://a/check","secret":"s","firstAfter":"1500ms","interval":"1000ms","maxInterval":"60000ms","deadline":"3600000ms","when":"remitage > 5","concurrency":2,"rate":3},"precheck":{"url":"http://a/pre","secret":"p","when":"TRUE"}}`},
	} {
		if err := p.Register(t.Context(), c.r); err != nil {
			t.Error(err)
		}
		if want := "PUT /v1/producers/web%20shop Bearer t0k3n " + c.want; got.String() != want {
			t.Errorf("%s\nnot\n%s", &got, want)
		}
	}
	status = http.StatusUnauthorized
	if err := p.Register(t.Context(), producer.Registration{}); err == nil || producer.IsRetryable(err) || !strings.Contains(err.Error(), "401") {
		t.Error(err)
	}
	status = http.StatusBadGateway
	if err := p.Register(t.Context(), producer.Registration{}); err == nil || !producer.IsRetryable(err) {
		t.Error(err)
	}
}

// TestForget: nothing is forgotten that remit may still ask about.
func TestForget(t *testing.T) {
	onEach(t, func(t *testing.T, s *shop) {
		p := s.producer()
		if err := p.Send(t.Context(), "orders", placed("1"), s.place("1")); err != nil {
			t.Fatal(err)
		}
		s.remit.Lose = func(r *http.Request) producertest.Loss {
			if strings.HasSuffix(r.URL.Path, "/commit") {
				return producertest.Request
			}
			return producertest.Nothing
		}
		if err := p.Send(t.Context(), "orders", placed("2"), s.place("2")); err != nil {
			t.Fatal(err)
		}
		if err := p.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		later := time.Now().Add(time.Minute)
		undecided := (*producer.UndecidedError)(nil)
		if n, err := p.Forget(t.Context(), later); n != 0 || !errors.As(err, &undecided) || undecided.ID != last(s).ID {
			t.Errorf("forgot %d, %v", n, err)
		}
		if err := s.remit.Check(t.Context(), p.CheckHandler()); err != nil {
			t.Error(err)
		}
		s.wantOrders("1", "2")
		if n, err := p.Forget(t.Context(), time.Now().Add(-time.Hour)); n != 0 || err != nil {
			t.Errorf("forgot %d of an hour ago, %v", n, err)
		}
		if n, err := p.Forget(t.Context(), later); n != 2 || err != nil {
			t.Errorf("forgot %d, %v", n, err)
		}
		s.remit.Lose = func(*http.Request) producertest.Loss { return producertest.Request }
		if _, err := p.Forget(t.Context(), later); !errors.Is(err, producertest.ErrLost) {
			t.Errorf("remit cannot be asked: %v", err)
		}
	})
}

// TestWithoutTable: without the table nothing is sent, and the error says what is missing.
func TestWithoutTable(t *testing.T) {
	s := onSQLite(t)
	if _, err := s.db.ExecContext(t.Context(), "DROP TABLE "+producer.Table); err != nil {
		t.Fatal(err)
	}
	err := s.producer().Send(t.Context(), "orders", placed("1"), s.place("1"))
	if err == nil || !strings.Contains(err.Error(), producer.Table) {
		t.Error(err)
	}
	s.wantOrders()
}
