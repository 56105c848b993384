package producer

import (
	"context"
	"fmt"
	"time"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/sqltx"
)

// Table is where decisions are noted. [Schema] makes it.
const Table = "remit_decisions"

// statements are what a dialect says differently.
type statements struct{ schema, note, find, forget string }

// INVARIANT: note changes one row when neither the id nor the event is there, and none when one of them is; it waits for another transaction that
// has inserted the same and has not ended. A row is never changed after it was committed: that makes a check's answer final.
//
// A rollback has no event: nulls are all different, so that the same event may be sent again.
var dialects = map[Dialect]statements{
	PostgreSQL: {
		schema: `CREATE TABLE IF NOT EXISTS ` + Table + ` (
	id         UUID PRIMARY KEY,
	event_key  BYTEA UNIQUE,
	verdict    TEXT NOT NULL,
	decided_at BIGINT NOT NULL
);
CREATE INDEX IF NOT EXISTS ` + Table + `_decided_at ON ` + Table + ` (decided_at);
`,
		note:   `INSERT INTO ` + Table + ` (id, event_key, verdict, decided_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
		find:   `SELECT coalesce(max(verdict), '') FROM ` + Table + ` WHERE id = $1`,
		forget: `DELETE FROM ` + Table + ` WHERE decided_at < $1`,
	},
	MySQL: {
		schema: `CREATE TABLE IF NOT EXISTS ` + Table + ` (
	id         CHAR(36) CHARACTER SET ascii COLLATE ascii_bin PRIMARY KEY,
	event_key  BINARY(16) UNIQUE,
	verdict    VARCHAR(16) CHARACTER SET ascii NOT NULL,
	decided_at BIGINT NOT NULL,
	INDEX ` + Table + `_decided_at (decided_at)
) ENGINE=InnoDB;
`,
		note:   `INSERT IGNORE INTO ` + Table + ` (id, event_key, verdict, decided_at) VALUES (?, ?, ?, ?)`,
		find:   `SELECT coalesce(max(verdict), '') FROM ` + Table + ` WHERE id = ? LOCK IN SHARE MODE`, // else READ UNCOMMITTED would see what may be undone
		forget: `DELETE FROM ` + Table + ` WHERE decided_at < ?`,
	},
	SQLite: {
		schema: `CREATE TABLE IF NOT EXISTS ` + Table + ` (
	id         TEXT PRIMARY KEY,
	event_key  BLOB UNIQUE,
	verdict    TEXT NOT NULL,
	decided_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS ` + Table + `_decided_at ON ` + Table + ` (decided_at);
`,
		note:   `INSERT INTO ` + Table + ` (id, event_key, verdict, decided_at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING`,
		find:   `SELECT coalesce(max(verdict), '') FROM ` + Table + ` WHERE id = ?`,
		forget: `DELETE FROM ` + Table + ` WHERE decided_at < ?`,
	},
}

// Schema returns the DDL of the table, and panics for a dialect that is none of the three. It can be run again.
func Schema(d Dialect) string { return sqltx.In(dialects, d).schema }

// Verdict is what a service says of a message. Commit and Rollback are stored, and all are what remit is answered: the words never change.
type Verdict string

// The verdicts.
const (
	// Commit and Rollback: so the local transaction has ended.
	Commit   Verdict = "commit"
	Rollback Verdict = "rollback"
	// Unknown: it still runs, or nobody could say.
	Unknown Verdict = "unknown"

	// Deliver, Hold and Drop answer pre-checks: now, ask again, never.
	Deliver Verdict = "deliver"
	Hold    Verdict = "hold"
	Drop    Verdict = "drop"
)

// eventKey is stored: it never changes. An event is known by its source and id, on each topic.
func eventKey(topic string, e *log.Event) log.Fingerprint {
	return log.FingerprintOf("event", topic, e.Source, e.ID)
}

// note writes that the halves are committed, in the transaction that commits them. It returns the first that has a row already.
func (p *Producer[T]) note(ctx context.Context, tx sqltx.Tx, halves []half) (taken *half, err error) {
	for i := range halves {
		h := &halves[i]
		changed, err := tx.Exec(ctx, p.texts.note, h.id.String(), h.key[:], string(Commit), time.Now().Unix())
		if err != nil {
			return nil, err
		}
		if changed == 0 {
			return h, nil
		}
	}
	return nil, nil
}

// find returns what stands in a message's row; empty if there is none.
func (p *Producer[T]) find(ctx context.Context, id log.ID) (Verdict, error) {
	text, err := p.db.Text(ctx, p.texts.find, id.String())
	switch v := Verdict(text); {
	case err != nil:
		return "", err
	case v == "", v == Commit, v == Rollback:
		return v, nil
	default:
		return "", fmt.Errorf("message %s has %q in %s: newer version, or corruption", id, text, Table)
	}
}

// verdict returns what became of a message's local transaction, for good. Where there is no row it writes one that says rollback: a local
// transaction that comes late then finds it, and fails (T2).
func (p *Producer[T]) verdict(ctx context.Context, id log.ID) (Verdict, error) {
	if v, err := p.find(ctx, id); err != nil || v != "" {
		return v, err
	}
	changed, err := p.db.Exec(ctx, p.texts.note, id.String(), nil, string(Rollback), time.Now().Unix())
	if err != nil {
		return "", err
	}
	if changed > 0 {
		return Rollback, nil
	}
	v, err := p.find(ctx, id)
	if err == nil && v == "" {
		err = fmt.Errorf("the row of message %s was there, and is gone: somebody deletes from %s", id, Table)
	}
	return v, err
}

// settle is verdict, tried until SettleMax is over. A connection that broke may be back by then, and a transaction that was left ended.
func (p *Producer[T]) settle(ctx context.Context, id log.ID) (Verdict, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.opts.SettleMax)
	defer cancel()
	for n := 1; ; n++ {
		v, err := p.verdict(ctx, id)
		if err == nil {
			return v, nil
		}
		if !pause(ctx, p.opts.backoff(n, err)) {
			return Unknown, err
		}
	}
}

// clocksMax is by how much the clock of the service may differ from remit's.
const clocksMax = time.Hour

// Forget deletes the rows of what was decided before a time, and returns how many those were. It deletes nothing, and returns an
// *[UndecidedError], while remit has not decided every message of the producer from before that time: their rows are the answers to back-checks.
//
// With its row, an event is forgotten: sent again, it is sent. Keep rows for longer than anybody may repeat.
func (p *Producer[T]) Forget(ctx context.Context, before time.Time) (int64, error) {
	if err := p.remit.decided(ctx, before.Add(clocksMax)); err != nil {
		return 0, fmt.Errorf("producer: forgetting in %s: %w", Table, err)
	}
	n, err := p.db.Exec(ctx, p.texts.forget, before.Unix())
	if err != nil {
		return 0, fmt.Errorf("producer: forgetting in %s: %w", Table, err)
	}
	return n, nil
}
