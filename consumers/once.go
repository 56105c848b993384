package consumers

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/remitlog/remit/log/sqltx"
)

// Table is where the events that a group has taken are noted. [Schema] makes it.
const Table = "remit_consumed"

// Dialect is the SQL that a database understands.
type Dialect = sqltx.Dialect

// The dialects. MariaDB has MySQL's.
const (
	PostgreSQL = sqltx.PostgreSQL
	MySQL      = sqltx.MySQL
	SQLite     = sqltx.SQLite
)

// statements are what a dialect says differently.
type statements struct{ schema, insert, forget string }

// INVARIANT: insert changes one row when the event is new, and none when it is not; it waits for another transaction that has inserted
// the same and has not ended. The key is a digest, since databases bound the length of what they index, and some compare
// text without its case.
var dialects = map[Dialect]statements{
	PostgreSQL: {
		schema: `CREATE TABLE IF NOT EXISTS ` + Table + ` (
	event_key      BYTEA PRIMARY KEY,
	consumer_group TEXT NOT NULL,
	source         TEXT NOT NULL,
	id             TEXT NOT NULL,
	taken_at       BIGINT NOT NULL
);
CREATE INDEX IF NOT EXISTS ` + Table + `_taken_at ON ` + Table + ` (taken_at);
`,
		insert: `INSERT INTO ` + Table + ` (event_key, consumer_group, source, id, taken_at) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (event_key) DO NOTHING`,
		forget: `DELETE FROM ` + Table + ` WHERE taken_at < $1`,
	},
	MySQL: {
		schema: `CREATE TABLE IF NOT EXISTS ` + Table + ` (
	event_key      BINARY(32) PRIMARY KEY,
	consumer_group TEXT CHARACTER SET utf8mb4 NOT NULL,
	source         TEXT CHARACTER SET utf8mb4 NOT NULL,
	id             TEXT CHARACTER SET utf8mb4 NOT NULL,
	taken_at       BIGINT NOT NULL,
	INDEX ` + Table + `_taken_at (taken_at)
) ENGINE=InnoDB;
`,
		insert: `INSERT IGNORE INTO ` + Table + ` (event_key, consumer_group, source, id, taken_at) VALUES (?, ?, ?, ?, ?)`,
		forget: `DELETE FROM ` + Table + ` WHERE taken_at < ?`,
	},
	SQLite: {
		schema: `CREATE TABLE IF NOT EXISTS ` + Table + ` (
	event_key      BLOB PRIMARY KEY,
	consumer_group TEXT NOT NULL,
	source         TEXT NOT NULL,
	id             TEXT NOT NULL,
	taken_at       INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS ` + Table + `_taken_at ON ` + Table + ` (taken_at);
`,
		insert: `INSERT INTO ` + Table + ` (event_key, consumer_group, source, id, taken_at) VALUES (?, ?, ?, ?, ?) ON CONFLICT (event_key) DO NOTHING`,
		forget: `DELETE FROM ` + Table + ` WHERE taken_at < ?`,
	},
}

// Schema returns the DDL of the table, and panics for a dialect that is none of the three. It can be run again.
func Schema(d Dialect) string { return sqltx.In(dialects, d).schema }

// Tx is the handler's database transaction. [SQL] makes one of a *sql.Tx and [PGX] of a pgx.Tx.
type Tx = sqltx.Tx

// Once notes in tx that the group of d has taken its event, and reports whether it is the first to do so. When it is not, the effect was made by
// a transaction that has committed: the handler returns nil without making it again. It says so after the other transaction has ended,
// when there is one at this moment.
//
// Make the effect in the same transaction. Then both are there, or none.
//
// An event is known by its source and id. A record that is no event is known by its place and time.
func Once(ctx context.Context, tx Tx, d Delivery) (first bool, err error) {
	source, id := d.Event.Source(), d.Event.ID()
	if d.Event.Context == nil {
		source, id = fmt.Sprintf("%s/%d", d.Record.Topic, d.Record.Index), fmt.Sprintf("%d@%d", d.Record.Offset, d.Record.Time.UnixMilli())
	}
	key := eventKey(d.Event.Context != nil, d.Group, source, id)
	changed, err := tx.Exec(ctx, sqltx.In(dialects, tx.Dialect()).insert, key[:], d.Group, source, id, time.Now().Unix())
	if err != nil {
		return false, fmt.Errorf("consumers: noting %s in %s: %w", d, Table, err)
	}
	return changed > 0, nil
}

// eventKey is stored: it never changes. SHA-256 of a byte that says which kind, and of group, source and id, each behind its length.
func eventKey(event bool, group, source, id string) [32]byte {
	b := []byte{0}
	if event {
		b[0] = 1
	}
	for _, s := range [...]string{group, source, id} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	return sha256.Sum256(b)
}

// Forget deletes what was noted before a time, and returns how many rows that were. What is forgotten is taken again if it is delivered
// again: keep it for longer than the topic keeps its records, and a parked record waits to be sent again.
func Forget(ctx context.Context, tx Tx, before time.Time) (int64, error) {
	n, err := tx.Exec(ctx, sqltx.In(dialects, tx.Dialect()).forget, before.Unix())
	if err != nil {
		return 0, fmt.Errorf("consumers: forgetting in %s: %w", Table, err)
	}
	return n, nil
}

// SQL adapts a *sql.Tx (or a *sql.Conn, or a *sql.DB for Forget).
func SQL(tx interface {
	ExecContext(ctx context.Context, statement string, args ...any) (sql.Result, error)
}, d Dialect) Tx {
	return sqltx.SQL(tx, d)
}

// PGX adapts a pgx.Tx (or a *pgx.Conn, or a *pgxpool.Pool for Forget). Tag is pgx's CommandTag, which the compiler finds.
func PGX[Tag sqltx.PGXTag](tx interface {
	Exec(ctx context.Context, statement string, args ...any) (Tag, error)
}) Tx {
	return sqltx.PGX(tx)
}

// InTx is a handler that begins a transaction, asks [Once], makes the effect if it is the first to, and commits. An error of the effect
// rolls all of it back.
func InTx(db *sql.DB, d Dialect, effect func(ctx context.Context, tx *sql.Tx, d Delivery) error) Handler {
	sqltx.In(dialects, d)
	return func(ctx context.Context, delivery Delivery) (err error) {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer func() {
			if undo := tx.Rollback(); undo != nil && !errors.Is(undo, sql.ErrTxDone) {
				err = errors.Join(err, undo)
			}
		}()
		first, err := Once(ctx, SQL(tx, d), delivery)
		if err != nil {
			return err
		}
		if first {
			if err := effect(ctx, tx, delivery); err != nil {
				return err
			}
		}
		return tx.Commit()
	}
}
