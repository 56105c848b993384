package registry_test

import (
	"context"
	"errors"
	"sync"

	"github.com/remitlog/remit/log"
)

// gated is a log in memory, of one partition, whose appends wait while its gate is held, and may then be refused. The embedded log does not
// live in a bubble of synctest: it keeps channels for the next caller.
type gated struct {
	log.Log // for what is not asked
	mu      sync.Mutex
	records []log.Record
	gate    chan struct{} // of the last hold; nil: there was none
	err     error
}

func newGated() *gated { return &gated{} }

// hold lets nothing through until it is released; from then on appends are refused with its error.
func (l *gated) hold() (release func(error)) {
	gate := make(chan struct{})
	l.set(gate, nil)
	return func(err error) { l.set(gate, err); close(gate) }
}

func (l *gated) set(gate chan struct{}, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gate, l.err = gate, err
}

func (l *gated) waits() chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.gate
}

func (l *gated) Append(ctx context.Context, records ...log.Record) ([]log.Offset, error) {
	if gate := l.waits(); gate != nil {
		<-gate
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := errors.Join(l.err, ctx.Err(), log.CheckRecords(records)); err != nil {
		return nil, err
	}
	offsets := make([]log.Offset, len(records))
	for i, r := range records {
		r.Offset = log.Offset(len(l.records))
		offsets[i] = r.Offset
		l.records = append(l.records, r)
	}
	return offsets, nil
}

func (l *gated) end() log.Offset {
	l.mu.Lock()
	defer l.mu.Unlock()
	return log.Offset(len(l.records))
}

func (l *gated) Bounds(context.Context, log.Partition) (first, end log.Offset, err error) {
	return 0, l.end(), nil
}

func (l *gated) Read(_ context.Context, _ log.Partition, from log.Offset, _ int) ([]log.Record, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.records[from:], nil
}

func (l *gated) Topic(_ context.Context, name string) (log.TopicConfig, error) {
	return log.TopicConfig{Name: name, Partitions: 1}, nil
}

func (l *gated) CreateTopic(context.Context, log.TopicConfig) error { return nil }

func (l *gated) Features() log.Features { return log.Features{GaplessOffsets: true} }

func (l *gated) Close() error { return nil }
