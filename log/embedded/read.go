package embedded

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/store"
)

// Read returns durable records, waiting for the first.
func (l *Log) Read(ctx context.Context, at log.Partition, from log.Offset, maxBytes int) ([]log.Record, error) {
	var records []log.Record
	visit := func(b log.Batch) (int, error) {
		before := len(records)
		var err error
		records, err = b.AppendRecords(records, at, from, maxBytes)
		maxBytes -= len(b)
		if err == nil && len(records) > before && records[len(records)-1].Offset < b.Last() {
			maxBytes = 0
		}
		return maxBytes, err
	}
	maxBytes = max(maxBytes, 1)
	if err := l.waitAndWalk(ctx, at, from, visit); err != nil {
		return nil, err
	}
	return records, nil
}

// ReadBatches is Read without decoding: whole record batches as they go on the wire, one after the other. The first may begin below
// from, as the Kafka protocol has it.
func (l *Log) ReadBatches(ctx context.Context, at log.Partition, from log.Offset, maxBytes int) ([]byte, error) {
	var out []byte
	visit := func(b log.Batch) (int, error) {
		out = append(out, b...)
		maxBytes -= len(b)
		return maxBytes, nil
	}
	if err := l.waitAndWalk(ctx, at, from, visit); err != nil {
		return nil, err
	}
	return out, nil
}

func (l *Log) waitAndWalk(ctx context.Context, at log.Partition, from log.Offset, visit func(log.Batch) (int, error)) error {
	p, err := find(*l.topics.Load(), at)
	if err != nil {
		return err
	}
	end, err := l.wait(ctx, p, from)
	if err != nil {
		return err
	}
	if err := l.enter(); err != nil {
		return err
	}
	defer l.leave()
	err = l.walk(p, from, end, visit)
	if err == nil || errors.Is(err, log.ErrOffsetOutOfRange) || errors.Is(err, log.ErrUnknownTopic) {
		return err
	}
	return l.unreadable(err)
}

// wait returns the durable end of p once it lies beyond from.
func (l *Log) wait(ctx context.Context, p *partition, from log.Offset) (log.Offset, error) {
	for {
		if err := p.inRange(from); err != nil {
			return 0, err
		}
		moved := p.after(from)
		if moved == nil {
			return log.Offset(p.end.Load()), nil
		}
		if p.gone.Load() { // looked at after the channel was taken: a deletion either shows here, or closes it
			return 0, unknownTopic(p.Partition)
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-l.done:
			return 0, fmt.Errorf("embedded: %w", log.ErrClosed)
		case <-l.failed:
			return 0, l.closedBy()
		}
	}
}

func (p *partition) inRange(from log.Offset) error {
	first, end := log.Offset(p.first.Load()), log.Offset(p.end.Load())
	if from < first || from > end {
		return &log.RangeError{Partition: p.Partition, From: from, First: first, End: end}
	}
	return nil
}

// walk gives visit the batches that hold [from, end), in order and in memory that is the caller's, until visit leaves no room.
//
// INVARIANT: end is a durable end, and rows end where durable ends do: a row whose last offset is below it is
// durable as a whole. The upper bound of the iterator keeps all others out.
func (l *Log) walk(p *partition, from, end log.Offset, visit func(log.Batch) (int, error)) error {
	it, err := l.rows(p, from, end)
	if err != nil {
		return err
	}
	defer func() { _ = it.Close() }()
	var own buffer
	next := from
	for it.First(); it.Valid(); it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		r, err := parseRow(it.Key(), value)
		if err != nil {
			return p.corrupt(next, err)
		}
		if r.base() > next || next > from && r.base() != next {
			return p.gap(next, r.base())
		}
		b, _, err := log.ParseBatch(own.copy(r.batch))
		if err != nil {
			return p.corrupt(next, err)
		}
		room, err := visit(b)
		if err != nil {
			return p.corrupt(next, err)
		}
		if next = b.Last() + 1; room <= 0 {
			return it.Error()
		}
	}
	if err := it.Error(); err != nil || next >= end {
		return err
	}
	return p.gap(next, end)
}

// rows iterates over the rows that hold [from, end).
func (l *Log) rows(p *partition, from, end log.Offset) (*pebble.Iterator, error) {
	return rowsOf(l.store, p.topic, p.Index, from, end)
}

func rowsOf(db pebble.Reader, topic uint32, index int32, from, end log.Offset) (*pebble.Iterator, error) {
	return db.NewIter(&pebble.IterOptions{
		KeyTypes:   pebble.IterKeyTypePointsOnly,
		LowerBound: recordsKey(topic, index, from), UpperBound: recordsKey(topic, index, end),
	})
}

// gap: the row that should hold an offset is not there. That is no corruption if a trim or a deletion took it meanwhile.
func (p *partition) gap(at, found log.Offset) error {
	if err := p.inRange(at); err != nil {
		return err
	}
	if p.gone.Load() {
		return unknownTopic(p.Partition)
	}
	return p.corrupt(at, fmt.Errorf("there is no such record; the next is at %d", found))
}

func (p *partition) corrupt(at log.Offset, err error) error {
	return &log.CorruptError{
		File: fmt.Sprintf("%s/%d", p.Topic, p.Index), Byte: -1, Detail: fmt.Sprintf("offset %d: %v", at, err),
		FirstUnreadable: map[log.Partition]log.Offset{p.Partition: at},
	}
}

// unreadable stops the log if what could not be read is corrupt.
func (l *Log) unreadable(err error) error {
	err = store.AsCorrupt(err)
	if errors.Is(err, log.ErrCorrupt) {
		l.fail(err)
	}
	return fmt.Errorf("embedded: read: %w", err)
}

// buffer copies many small things with few allocations, that grow with what is read.
type buffer struct {
	free []byte
	size int
}

func (b *buffer) copy(v []byte) []byte {
	if len(b.free) < len(v) {
		b.size = max(len(v), min(2*b.size, 64<<10))
		b.free = make([]byte, b.size)
	}
	n := copy(b.free, v)
	own := b.free[:n:n]
	b.free = b.free[n:]
	return own
}

// Bounds returns the first offset and the durable end.
func (l *Log) Bounds(_ context.Context, at log.Partition) (first, end log.Offset, err error) {
	if err := l.enter(); err != nil {
		return 0, 0, err
	}
	defer l.leave()
	p, err := find(*l.topics.Load(), at)
	if err != nil {
		return 0, 0, err
	}
	return log.Offset(p.first.Load()), log.Offset(p.end.Load()), nil
}

// OffsetAt finds the first record that is not older than t, whatever order the times are in. It bisects, unless records that
// are older than ones already trimmed make it walk.
func (l *Log) OffsetAt(_ context.Context, at log.Partition, t time.Time) (log.Offset, error) {
	if err := l.enter(); err != nil {
		return 0, err
	}
	defer l.leave()
	p, err := find(*l.topics.Load(), at)
	if err != nil {
		return 0, err
	}
	o, err := l.offsetAt(p, millisCeil(t))
	if err != nil {
		return 0, l.unreadable(err)
	}
	return o, nil
}

// millisCeil is the first whole millisecond that is not before t.
func millisCeil(t time.Time) int64 {
	ms := t.UnixMilli()
	if time.UnixMilli(ms).Before(t) {
		ms++
	}
	return ms
}

func (l *Log) offsetAt(p *partition, ms int64) (log.Offset, error) {
	first, end := log.Offset(p.first.Load()), log.Offset(p.end.Load())
	from, err := l.bisect(p, first, end, func(r row) bool { return r.latest >= ms })
	if err != nil || from >= end {
		return end, err
	}
	found := end
	err = l.walk(p, max(from, first), end, func(b log.Batch) (int, error) {
		if b.MaxTime() < ms {
			return 1, nil
		}
		o, ok, err := b.FirstAt(max(from, first), ms)
		if !ok {
			return 1, err
		}
		found = o
		return 0, nil
	})
	if errors.Is(err, log.ErrOffsetOutOfRange) { // trimmed meanwhile: whatever was found is gone
		return log.Offset(p.first.Load()), nil
	}
	return found, err
}

// bisect returns the base of the first row within [first, end) that is so, and end if none is. Once a row is, all after it must be.
func (l *Log) bisect(p *partition, first, end log.Offset, is func(row) bool) (log.Offset, error) {
	it, err := l.rows(p, first, end)
	if err != nil {
		return 0, err
	}
	defer func() { _ = it.Close() }()
	low, high := first, end
	for low < high {
		if !it.SeekGE(recordsKey(p.topic, p.Index, low+(high-low)/2)) {
			high = low + (high-low)/2 // only a trim takes rows away
			if err := it.Error(); err != nil {
				return 0, err
			}
			continue
		}
		r, err := rowAt(it)
		switch {
		case err != nil:
			return 0, err
		case is(r):
			high = max(r.base(), low)
			if r.base() <= low {
				return low, nil
			}
		default:
			low = r.last() + 1
		}
	}
	return low, nil
}

func rowAt(it *pebble.Iterator) (row, error) {
	value, err := it.ValueAndErr()
	if err != nil {
		return row{}, err
	}
	r, err := parseRow(it.Key(), value)
	if err != nil {
		return row{}, &log.CorruptError{File: fmt.Sprintf("row %x", it.Key()), Byte: -1, Detail: err.Error()}
	}
	return r, nil
}

// Size returns the bytes of a partition's rows before compression.
func (l *Log) Size(_ context.Context, at log.Partition) (int64, error) {
	if err := l.enter(); err != nil {
		return 0, err
	}
	defer l.leave()
	p, err := find(*l.topics.Load(), at)
	if err != nil {
		return 0, err
	}
	oldest, newest, ok, err := l.outer(p)
	if err != nil {
		return 0, l.unreadable(err)
	}
	if !ok {
		return 0, nil
	}
	return int64(newest.total-oldest.total) + int64(len(oldest.batch)+rowHeadLen), nil
}

// outer returns the oldest and newest durable rows; ok is false if there is none.
func (l *Log) outer(p *partition) (oldest, newest row, ok bool, err error) {
	it, err := l.rows(p, log.Offset(p.first.Load()), log.Offset(p.end.Load()))
	if err != nil {
		return row{}, row{}, false, err
	}
	defer func() { _ = it.Close() }()
	if !it.First() {
		return row{}, row{}, false, it.Error()
	}
	if oldest, err = rowAt(it); err != nil {
		return row{}, row{}, false, err
	}
	oldest.batch = append(log.Batch(nil), oldest.batch...)
	if !it.Last() {
		return row{}, row{}, false, it.Error()
	}
	newest, err = rowAt(it)
	newest.batch = nil // it is not ours
	return oldest, newest, err == nil, err
}
