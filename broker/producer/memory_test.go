package producer_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/remitlog/remit/broker/producer"
	"github.com/remitlog/remit/log/sqltx"
)

// memory is a database in memory, for tests under synctest: of decisions as INSERT … ON CONFLICT DO NOTHING keeps them, and of what local transactions have
// written. An insert waits for another transaction that holds the same.
type memory struct {
	mu        sync.Mutex
	decisions map[string]producer.Verdict // by id, committed
	events    map[string]bool             // event keys, committed
	work      []string                    // committed
	open      map[*memoryTx]bool
}

func newMemory() *memory {
	return &memory{decisions: map[string]producer.Verdict{}, events: map[string]bool{}, open: map[*memoryTx]bool{}}
}

// memoryTx is an open transaction.
type memoryTx struct {
	db     *memory
	ids    map[string]producer.Verdict
	events map[string]bool
	work   []string
	done   chan struct{} // closed when it has ended
	ended  bool
}

var errEnded = errors.New("the transaction has ended")

func (*memory) Dialect() producer.Dialect { return producer.SQLite }

func (m *memory) Text(_ context.Context, _ string, args ...any) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return string(m.decisions[args[0].(string)]), nil
}

func (m *memory) Exec(ctx context.Context, statement string, args ...any) (int64, error) {
	tx := m.begin()
	n, err := tx.Exec(ctx, statement, args...)
	return n, errors.Join(err, tx.end(err == nil))
}

func (m *memory) begin() *memoryTx {
	tx := &memoryTx{db: m, ids: map[string]producer.Verdict{}, events: map[string]bool{}, done: make(chan struct{})}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open[tx] = true
	return tx
}

func (m *memory) Begin(ctx context.Context) (sqltx.Transaction[*memoryTx], error) {
	if err := ctx.Err(); err != nil {
		return sqltx.Transaction[*memoryTx]{}, err
	}
	tx := m.begin()
	return sqltx.Transaction[*memoryTx]{Tx: tx, Own: tx,
		Commit: func(context.Context) error { return tx.end(true) }, Rollback: func(context.Context) error { return tx.end(false) }}, nil
}

func (*memoryTx) Dialect() producer.Dialect { return producer.SQLite }

// Exec notes a decision.
func (tx *memoryTx) Exec(ctx context.Context, statement string, args ...any) (int64, error) {
	if !strings.HasPrefix(statement, "INSERT") {
		return 0, errors.New("memory: it knows no other statement")
	}
	id, event := args[0].(string), ""
	if key, ok := args[1].([]byte); ok {
		event = string(key)
	}
	for {
		other, there, err := tx.insert(id, event, producer.Verdict(args[2].(string)))
		switch {
		case err != nil:
			return 0, err
		case there:
			return 0, nil
		case other == nil:
			return 1, nil
		}
		select {
		case <-other.done:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// insert returns a transaction that must be waited for, or whether it is there already.
func (tx *memoryTx) insert(id, event string, v producer.Verdict) (other *memoryTx, there bool, err error) {
	m := tx.db
	m.mu.Lock()
	defer m.mu.Unlock()
	if tx.ended {
		return nil, false, errEnded
	}
	if m.decisions[id] != "" || event != "" && m.events[event] {
		return nil, true, nil
	}
	for other := range m.open {
		if other.ids[id] != "" || event != "" && other.events[event] {
			return other, other == tx, nil
		}
	}
	tx.ids[id] = v
	if event != "" {
		tx.events[event] = true
	}
	return nil, false, nil
}

// write is what a local transaction does.
func (tx *memoryTx) write(work string) error {
	tx.db.mu.Lock()
	defer tx.db.mu.Unlock()
	if tx.ended {
		return errEnded
	}
	tx.work = append(tx.work, work)
	return nil
}

func (tx *memoryTx) end(commit bool) error {
	m := tx.db
	m.mu.Lock()
	defer m.mu.Unlock()
	if tx.ended {
		return errEnded
	}
	tx.ended = true
	delete(m.open, tx)
	close(tx.done)
	if !commit {
		return nil
	}
	for id, v := range tx.ids {
		m.decisions[id] = v
	}
	for event := range tx.events {
		m.events[event] = true
	}
	m.work = append(m.work, tx.work...)
	return nil
}

// committed is what local transactions have written.
func (m *memory) committed() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.work)
}

func (m *memory) has(work string) bool { return slices.Contains(m.committed(), work) }
