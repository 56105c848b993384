package consumers_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"

	"github.com/remitlog/remit/consumers"
	"github.com/remitlog/remit/consumers/dbtest"
	"github.com/remitlog/remit/log"
)

// databases are those that a test runs on.
var databases = []struct {
	dialect consumers.Dialect
	driver  string
	start   func(testing.TB) string
}{
	{consumers.PostgreSQL, "pgx", dbtest.PostgreSQL},
	{consumers.MySQL, "mysql", dbtest.MariaDB},
	{consumers.SQLite, "sqlite", func(t testing.TB) string {
		return "file:" + filepath.Join(t.TempDir(), "db") + "?_pragma=busy_timeout(10000)&_txlock=immediate"
	}},
}

// onEach runs a test on every database that is there, with the table made, twice.
func onEach(t *testing.T, test func(t *testing.T, db *sql.DB, d consumers.Dialect)) {
	for _, d := range databases {
		t.Run(string(d.dialect), func(t *testing.T) {
			db, err := sql.Open(d.driver, d.start(t))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { db.Close() })
			statements := []string{consumers.Schema(d.dialect), consumers.Schema(d.dialect), "CREATE TABLE effects (id VARCHAR(200))"}
			for _, s := range statements {
				if _, err := db.ExecContext(t.Context(), s); err != nil {
					t.Fatalf("%s: %v", s, err)
				}
			}
			test(t, db, d.dialect)
		})
	}
}

// delivery is one of an event.
func delivery(group, source, id string) consumers.Delivery {
	e := log.Event{ID: id, Source: source, Type: "t", Data: []byte(`{}`)}
	return consumers.Delivery{Event: e.SDK(), Record: e.Record(p0), Group: group, Attempt: 1}
}

func count(t *testing.T, db *sql.DB, table string) (n int) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM "+table).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// effect is a handler's, in the transaction.
func effect(ctx context.Context, tx *sql.Tx, d consumers.Delivery) error {
	_, err := tx.ExecContext(ctx, "INSERT INTO effects (id) VALUES ('x')")
	return err
}

// TestOnce is U2 on each database: the first delivery of an event in a group has its effect, no later one has, and one that failed leaves
// nothing.
func TestOnce(t *testing.T) {
	onEach(t, func(t *testing.T, db *sql.DB, d consumers.Dialect) {
		handle := consumers.InTx(db, d, effect)
		fail := consumers.InTx(db, d, func(ctx context.Context, tx *sql.Tx, dl consumers.Delivery) error {
			return errors.Join(effect(ctx, tx, dl), errFails)
		})
		place := func(offset log.Offset, at int64) consumers.Delivery {
			return consumers.Delivery{Group: "g", Record: log.Record{Partition: p0, Offset: offset, Time: time.UnixMilli(at)}}
		}
		long := strings.Repeat("ü", 4000)
		for _, c := range []struct {
			what    string
			handler consumers.Handler
			d       consumers.Delivery
			effects int
		}{
			{"one that fails", fail, delivery("g", "/s", "1"), 0},
			{"the first", handle, delivery("g", "/s", "1"), 1},
			{"a repetition", handle, delivery("g", "/s", "1"), 1},
			{"a repetition, of a handler that would fail", fail, delivery("g", "/s", "1"), 1},
			{"another id", handle, delivery("g", "/s", "2"), 2},
			{"another source", handle, delivery("g", "/S", "1"), 3},
			{"another group", handle, delivery("G", "/s", "1"), 4},
			{"the same letters, cut elsewhere", handle, delivery("g", "/s1", "1"), 5},
			{"a long id", handle, delivery("g", "/s", long+"a"), 6},
			{"another long id", handle, delivery("g", "/s", long+"b"), 7},
			{"the long id again", handle, delivery("g", "/s", long+"a"), 7},
			{"no event", handle, place(1, 1), 8},
			{"no event, elsewhere", handle, place(2, 1), 9},
			{"no event, there again in a topic that was made anew", handle, place(1, 2), 10},
			{"no event, again", handle, place(1, 1), 10},
		} {
			if err := c.handler(t.Context(), c.d); err != nil && !errors.Is(err, errFails) {
				t.Fatalf("%s: %v", c.what, err)
			}
			if n := count(t, db, "effects"); n != c.effects {
				t.Fatalf("%s: %d effects, not %d", c.what, n, c.effects)
			}
		}
	})
}

// TestOnceAtOnce: of many transactions at once for one event, one makes the effect, also when some roll back.
func TestOnceAtOnce(t *testing.T) {
	onEach(t, func(t *testing.T, db *sql.DB, d consumers.Dialect) {
		for round := range 10 {
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					handle := consumers.InTx(db, d, func(ctx context.Context, tx *sql.Tx, dl consumers.Delivery) error {
						err := effect(ctx, tx, dl)
						if i%4 == 0 {
							err = errors.Join(err, errFails)
						}
						return err
					})
					for handle(t.Context(), delivery("g", "/s", fmt.Sprint(round))) != nil && i%4 != 0 { // a deadlock, or busy: again
					}
				})
			}
			wg.Wait()
			if n := count(t, db, "effects"); n != round+1 {
				t.Fatalf("%d effects of %d events", n, round+1)
			}
		}
	})
}

// TestForget: old notes go, young ones stay.
func TestForget(t *testing.T) {
	onEach(t, func(t *testing.T, db *sql.DB, d consumers.Dialect) {
		handle := consumers.InTx(db, d, effect)
		for i := range 3 {
			if err := handle(t.Context(), delivery("g", "/s", fmt.Sprint(i))); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range []struct {
			after time.Duration
			want  int64
		}{{-time.Hour, 0}, {time.Hour, 3}} {
			if n, err := consumers.Forget(t.Context(), consumers.SQL(db, d), time.Now().Add(c.after)); n != c.want || err != nil {
				t.Errorf("forgot %d of before %s, not %d; %v", n, c.after, c.want, err)
			}
		}
		if n := count(t, db, consumers.Table); n != 0 {
			t.Errorf("%d notes are left", n)
		}
	})
}

// TestPGX: pgx's own transactions fit, and are not imported to do so.
func TestPGX(t *testing.T) {
	ctx := t.Context()
	conn, err := pgx.Connect(ctx, dbtest.PostgreSQL(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, consumers.Schema(consumers.PostgreSQL)); err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, false} {
		err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			first, err := consumers.Once(ctx, consumers.PGX(tx), delivery("g", "/s", "1"))
			if first != want {
				t.Errorf("delivery %d: first is %t", i, first)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if n, err := consumers.Forget(ctx, consumers.PGX(conn), time.Now().Add(time.Hour)); n != 1 || err != nil {
		t.Errorf("forgot %d, %v", n, err)
	}
}

// TestOnceFails: without the table the handler fails, and says where.
func TestOnceFails(t *testing.T) {
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = consumers.InTx(db, consumers.SQLite, effect)(t.Context(), delivery("g", "/s", "1"))
	if err == nil || !strings.Contains(err.Error(), "orders/0/0") || !strings.Contains(err.Error(), consumers.Table) {
		t.Error(err)
	}
}

// TestIsOutage: a server that is down is no delivery's fault; what it says of a statement is.
func TestIsOutage(t *testing.T) {
	_, refused := net.Dial("unix", filepath.Join(t.TempDir(), "nobody"))
	for _, c := range []struct {
		err  error
		want bool
	}{
		{driver.ErrBadConn, true},
		{fmt.Errorf("x: %w", refused), true},
		{&pgconn.PgError{Code: "57P03"}, true},
		{&pgconn.PgError{Code: "08006"}, true},
		{&pgconn.PgError{Code: "53100"}, true},
		{&pgconn.PgError{Code: "25006"}, true},
		{&pgconn.PgError{Code: "23505"}, false},
		{&pgconn.PgError{Code: "40001"}, false},
		{context.DeadlineExceeded, false},
		{errFails, false},
	} {
		if got := consumers.IsOutage(c.err); got != c.want {
			t.Errorf("%v: %t", c.err, got)
		}
	}
}
