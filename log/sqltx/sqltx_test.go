package sqltx_test

import (
	"context"
	"database/sql"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "modernc.org/sqlite"

	"github.com/remitlog/remit/consumers/dbtest"
	"github.com/remitlog/remit/log/sqltx"
)

// TestDB: a *sql.DB begins transactions that are all or nothing, and its own statements are one each.
func TestDB(t *testing.T) {
	db, err := sql.Open("sqlite", filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	contract(t, sqltx.DB(db, sqltx.SQLite), func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO words VALUES ('own')")
		return err
	})
}

// TestPool: so does a *pgxpool.Pool, which the package does not import.
func TestPool(t *testing.T) {
	pool, err := pgxpool.New(t.Context(), dbtest.PostgreSQL(t))
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	contract(t, sqltx.Pool(pool), func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "INSERT INTO words VALUES ('own')")
		return err
	})
}

func contract[T any](t *testing.T, db sqltx.Database[T], own func(context.Context, T) error) {
	t.Helper()
	ctx := t.Context()
	if _, err := db.Exec(ctx, "CREATE TABLE words (word TEXT)"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what string
		end  func(sqltx.Transaction[T]) func(context.Context) error
		want string // how many there are after it
	}{
		{"rolled back", func(tx sqltx.Transaction[T]) func(context.Context) error { return tx.Rollback }, "0"},
		{"committed", func(tx sqltx.Transaction[T]) func(context.Context) error { return tx.Commit }, "2"},
	} {
		tx, err := db.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if tx.Dialect() != db.Dialect() {
			t.Errorf("a transaction of %s is of %s", db.Dialect(), tx.Dialect())
		}
		if n, err := tx.Exec(ctx, "INSERT INTO words VALUES ('ours')"); n != 1 || err != nil {
			t.Errorf("%s: %d rows, %v", c.what, n, err)
		}
		if err := own(ctx, tx.Own); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		if err := c.end(tx)(ctx); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		if n, err := db.Text(ctx, "SELECT CAST(count(*) AS TEXT) FROM words"); n != c.want || err != nil {
			t.Errorf("%s: %s words, not %s; %v", c.what, n, c.want, err)
		}
	}
	if n, err := db.Exec(ctx, "DELETE FROM words"); n != 2 || err != nil {
		t.Errorf("%d were deleted, %v", n, err)
	}
	if _, err := db.Exec(ctx, "INSERT INTO nowhere VALUES (1)"); err == nil {
		t.Error("a statement that is wrong is no error")
	}
	over, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := db.Begin(over); err == nil {
		t.Error("a transaction was begun under a context that had ended")
	}
}

// TestIn: a dialect that is not there is a mistake in the program.
func TestIn(t *testing.T) {
	texts := map[sqltx.Dialect]string{sqltx.MySQL: "x"}
	if sqltx.In(texts, sqltx.MySQL) != "x" {
		t.Error("not the text that is there")
	}
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	sqltx.In(texts, "oracle")
}
