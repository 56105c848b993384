// Package sqltx is how remit keeps rows of its own beside a service's data, in the service's own database transactions, whatever driver the
// service has: database/sql, pgx, or another behind two small types.
//
// It has no table and no statement. Who uses it has those, one a [Dialect], and calls them through [Tx] and [Database]; so a
// service links no driver but its own.
package sqltx

import (
	"context"
	"database/sql"
	"fmt"
)

// Dialect is the SQL that a database understands.
type Dialect string

// The dialects. MariaDB has MySQL's.
const (
	PostgreSQL Dialect = "postgresql"
	MySQL      Dialect = "mysql"
	SQLite     Dialect = "sqlite"
)

// In returns what a dialect says differently, and panics for a dialect that is not there: it is a mistake in the program.
func In[S any](texts map[Dialect]S, d Dialect) S {
	s, ok := texts[d]
	if !ok {
		panic(fmt.Sprintf("sqltx: dialect %q; it is PostgreSQL, MySQL or SQLite", string(d)))
	}
	return s
}

// Tx runs statements: in a transaction, or each in one of its own.
type Tx interface {
	// Exec runs a statement and returns how many rows it changed.
	Exec(ctx context.Context, statement string, args ...any) (changed int64, err error)
	// Dialect says how statements are written.
	Dialect() Dialect
}

// Database begins transactions of type T. Its own statements are a transaction each.
type Database[T any] interface {
	Tx
	// Text runs a query that answers one row of one text.
	Text(ctx context.Context, query string, args ...any) (string, error)
	// Begin begins a transaction. When ctx ends before Commit, it is rolled back.
	Begin(ctx context.Context) (Transaction[T], error)
}

// Transaction is one that is open.
type Transaction[T any] struct {
	Tx
	// Own is the transaction as the driver has it.
	Own T
	// Commit and Rollback end it. An error of Commit leaves open whether it has committed.
	Commit, Rollback func(context.Context) error
}

// SQL adapts a *sql.Tx, a *sql.Conn or a *sql.DB.
func SQL(tx interface {
	ExecContext(ctx context.Context, statement string, args ...any) (sql.Result, error)
}, d Dialect) Tx {
	return execer{d, func(ctx context.Context, statement string, args ...any) (int64, error) {
		res, err := tx.ExecContext(ctx, statement, args...)
		if err != nil {
			return 0, err
		}
		return res.RowsAffected()
	}}
}

// PGX adapts a pgx.Tx, a *pgx.Conn or a *pgxpool.Pool. Tag is pgx's CommandTag, which the compiler finds.
func PGX[Tag PGXTag](tx interface {
	Exec(ctx context.Context, statement string, args ...any) (Tag, error)
}) Tx {
	return execer{PostgreSQL, func(ctx context.Context, statement string, args ...any) (int64, error) {
		tag, err := tx.Exec(ctx, statement, args...)
		if err != nil {
			return 0, err
		}
		return tag.RowsAffected(), nil
	}}
}

// execer is a Tx of what it runs statements with.
type execer struct {
	dialect Dialect
	exec    func(ctx context.Context, statement string, args ...any) (int64, error)
}

func (e execer) Dialect() Dialect { return e.dialect }

func (e execer) Exec(ctx context.Context, statement string, args ...any) (int64, error) {
	return e.exec(ctx, statement, args...)
}

// Conns is what is used of a *sql.DB.
type Conns interface {
	BeginTx(ctx context.Context, opts *sql.TxOptions) (*sql.Tx, error)
	ExecContext(ctx context.Context, statement string, args ...any) (sql.Result, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// DB adapts a *sql.DB. For another isolation, wrap it: its BeginTx is called without options.
func DB(db Conns, d Dialect) Database[*sql.Tx] {
	return database[*sql.Tx]{
		Tx: SQL(db, d),
		row: func(ctx context.Context, query string, args []any) Row {
			return db.QueryRowContext(ctx, query, args...)
		},
		begin: func(ctx context.Context) (Transaction[*sql.Tx], error) {
			tx, err := db.BeginTx(ctx, nil)
			if err != nil {
				return Transaction[*sql.Tx]{}, err
			}
			return Transaction[*sql.Tx]{
				Tx: SQL(tx, d), Own: tx,
				Commit: func(context.Context) error { return tx.Commit() }, Rollback: func(context.Context) error { return tx.Rollback() },
			}, nil
		},
	}
}

// Row is one that was queried.
type Row interface{ Scan(to ...any) error }

// PGXTag, PGXTx and PGXPool are what is used of pgx's CommandTag, Tx and *pgxpool.Pool.
type (
	PGXTag            interface{ RowsAffected() int64 }
	PGXTx[Tag PGXTag] interface {
		Exec(ctx context.Context, statement string, args ...any) (Tag, error)
		Commit(context.Context) error
		Rollback(context.Context) error
	}
	PGXPool[T PGXTx[Tag], Tag PGXTag, R Row] interface {
		Begin(context.Context) (T, error)
		Exec(ctx context.Context, statement string, args ...any) (Tag, error)
		QueryRow(ctx context.Context, query string, args ...any) R
	}
)

// Pool adapts a *pgxpool.Pool. The compiler finds T, Tag and R. For another isolation, wrap it: its Begin is called.
func Pool[T PGXTx[Tag], Tag PGXTag, R Row](pool PGXPool[T, Tag, R]) Database[T] {
	return database[T]{
		Tx:  PGX(pool),
		row: func(ctx context.Context, query string, args []any) Row { return pool.QueryRow(ctx, query, args...) },
		begin: func(ctx context.Context) (Transaction[T], error) {
			tx, err := pool.Begin(ctx)
			if err != nil {
				return Transaction[T]{}, err
			}
			return Transaction[T]{Tx: PGX(tx), Own: tx, Commit: tx.Commit, Rollback: tx.Rollback}, nil
		},
	}
}

// database is a Database of what it begins and asks with.
type database[T any] struct {
	Tx
	row   func(ctx context.Context, query string, args []any) Row
	begin func(context.Context) (Transaction[T], error)
}

func (db database[T]) Text(ctx context.Context, query string, args ...any) (text string, err error) {
	err = db.row(ctx, query, args).Scan(&text)
	return text, err
}

func (db database[T]) Begin(ctx context.Context) (Transaction[T], error) { return db.begin(ctx) }
