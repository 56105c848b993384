package embedded

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/remitlog/remit/log"
)

// RawMax is the largest record batch that [Log.AppendRaw] takes, in bytes as it goes on the wire.
const RawMax = 4 << 20

// RawAppend is a batch on its way. Wait says what became of it.
type RawAppend struct {
	l     *Log
	r     *request
	p     *partition
	count int
	bytes int
	began time.Time
	err   error // known at once
}

// AppendRaw takes a record batch as a client sent it, from log.ParseBatch, checks it, and gives it its place in line: of two calls, one
// after the other, the first comes first in the partition. It is written as it is, but for what the checksum does not cover and a
// latest time that is wrong. It does not wait. It may change b, and keeps nothing of it.
//
// A batch of an idempotent producer that was stored before is not stored again: Wait answers with the place that it has.
func (l *Log) AppendRaw(at log.Partition, b log.Batch) *RawAppend {
	a := &RawAppend{l: l, began: l.o.Clock()}
	if len(b) > RawMax {
		a.err = fmt.Errorf("embedded: %w: a batch of %d bytes, at most %d", log.ErrTooLarge, len(b), RawMax)
		return a
	}
	b.SetBase(0)
	if err := b.CheckClient(a.began); err != nil {
		a.err = fmt.Errorf("embedded: %s/%d: %w", at.Topic, at.Index, err)
		return a
	}
	if a.err = l.enterWriting(); a.err != nil {
		return a
	}
	if a.err = a.begin(at, b); a.err != nil {
		l.leave()
	}
	return a
}

// begin puts the batch in line. From then on the line leaves the log, not the caller.
func (a *RawAppend) begin(at log.Partition, batch log.Batch) error {
	p, err := find(*a.l.topics.Load(), at)
	if err != nil {
		return err
	}
	r := requests.Get().(*request)
	r.batch = a.l.store.NewBatch()
	if err := r.encodeRaw(p, batch, producerOf(batch, a.began)); err != nil {
		r.free()
		return err
	}
	a.p, a.r, a.count, a.bytes = p, r, batch.Count(), r.batch.Len()
	if err := a.l.floor.take(a.bytes, a.began); err != nil {
		r.free()
		return err
	}
	r.behind = true
	if a.l.line.join(r) {
		a.l.startLead()
	}
	return nil
}

// encodeRaw is encode for a batch that is encoded, with the row of its producer.
func (r *request) encodeRaw(p *partition, batch log.Batch, made *produced) error {
	r.few[0] = share{partition: p, count: batch.Count(), valueN: rowHeadLen + len(batch)}
	r.shares, r.made = r.few[:1], made
	s := &r.shares[0]
	op := r.batch.SetDeferred(recordsKeyLen, s.valueN)
	putRecordsKey(op.Key, p.topic, p.Index, 0)
	copy(op.Value[rowHeadLen:], batch)
	if err := op.Finish(); err != nil {
		return fmt.Errorf("embedded: %w", err)
	}
	s.valueAt = r.batch.Len() - s.valueN
	if made == nil {
		return nil
	}
	op = r.batch.SetDeferred(producerKeyLen, producerRowLen)
	copy(op.Key, producerKey(p.topic, p.Index, made.id))
	clear(op.Value)
	if err := op.Finish(); err != nil {
		return fmt.Errorf("embedded: %w", err)
	}
	made.rowAt = r.batch.Len() - producerRowLen
	return nil
}

// Wait returns the offset of the batch's first record once it is durable. It is called once.
//
// Errors: as of Append, and log.ErrBadBatch, log.ErrTime, log.ErrTransactional, [ErrOutOfOrderSequence], [ErrProducerFenced]: nothing was
// written.
func (a *RawAppend) Wait() (log.Offset, error) {
	if a.err != nil {
		return 0, a.err
	}
	<-a.r.leads
	base, made, err := a.r.shares[0].base, a.r.made, a.r.err
	a.r.free()
	if errors.Is(err, errRepeated) {
		return made.repeated, a.l.durable(a.p, made.repeated+log.Offset(a.count))
	}
	if err != nil {
		return 0, err
	}
	if f := a.l.o.Listener.Appended; f != nil {
		f(a.count, a.bytes, a.l.o.Clock().Sub(a.began))
	}
	return base, nil
}

// durable returns once all below end is: what a repeated batch waits for, whose first sending may still be under way.
func (l *Log) durable(p *partition, end log.Offset) error {
	moved := p.after(end - 1)
	for ; moved != nil; moved = p.after(end - 1) {
		if p.gone.Load() {
			return unknownTopic(p.Partition)
		}
		select {
		case <-moved:
		case <-l.done:
			return fmt.Errorf("embedded: %w", log.ErrUnknown)
		case <-l.failed:
			return fmt.Errorf("embedded: %w: it failed: %v", log.ErrUnknown, l.cause)
		}
	}
	return nil
}

// ReadRaw appends whole record batches to dst as they go on the wire, from the one that holds offset from on, at most maxBytes, and
// returns the offset after them. With one, it appends one at least, however large. It does not wait: at the durable end it appends nothing.
// The first batch may begin below from, as the Kafka protocol has it.
func (l *Log) ReadRaw(dst []byte, at log.Partition, from log.Offset, maxBytes int, one bool) ([]byte, log.Offset, error) {
	p, err := find(*l.topics.Load(), at)
	if err != nil {
		return dst, from, err
	}
	if err := p.inRange(from); err != nil {
		return dst, from, err
	}
	end := log.Offset(p.end.Load())
	if from == end {
		return dst, from, nil
	}
	if err := l.enter(); err != nil {
		return dst, from, err
	}
	defer l.leave()
	dst, next, err := l.readRaw(dst, p, from, end, maxBytes, one)
	if err == nil || errors.Is(err, log.ErrOffsetOutOfRange) || errors.Is(err, log.ErrUnknownTopic) {
		return dst, next, err
	}
	return dst, next, l.unreadable(err)
}

// readRaw is walk without copies between the store and dst.
func (l *Log) readRaw(dst []byte, p *partition, from, end log.Offset, maxBytes int, one bool) ([]byte, log.Offset, error) {
	it, err := l.rows(p, from, end)
	if err != nil {
		return dst, from, err
	}
	defer func() { _ = it.Close() }()
	next, began := from, len(dst)
	for it.First(); it.Valid(); it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return dst, next, err
		}
		r, err := parseRow(it.Key(), value)
		if err != nil {
			return dst, next, p.corrupt(next, err)
		}
		if r.base() > next || next > from && r.base() != next {
			return dst, next, p.gap(next, r.base())
		}
		if len(dst)-began+len(r.batch) > maxBytes && (len(dst) > began || !one) {
			return dst, next, nil
		}
		if _, _, err := log.ParseBatch(r.batch); err != nil {
			return dst, next, p.corrupt(next, err)
		}
		dst, next = append(dst, r.batch...), r.last()+1
	}
	if err := it.Error(); err != nil || next >= end {
		return dst, next, err
	}
	return dst, next, p.gap(next, end)
}

// Latest returns the first record of the latest time, and that time; ok is false if there is none.
func (l *Log) Latest(_ context.Context, at log.Partition) (o log.Offset, t time.Time, ok bool, err error) {
	if err := l.enter(); err != nil {
		return 0, t, false, err
	}
	defer l.leave()
	p, err := find(*l.topics.Load(), at)
	if err != nil {
		return 0, t, false, err
	}
	_, newest, ok, err := l.outer(p)
	if err != nil || !ok {
		return 0, t, false, l.unreadableIf(err)
	}
	o, err = l.offsetAt(p, newest.latest)
	if err != nil {
		return 0, t, false, l.unreadable(err)
	}
	// A record that was trimmed may have had a later time than all that are left.
	return o, time.UnixMilli(newest.latest).UTC(), o < log.Offset(p.end.Load()), nil
}

func (l *Log) unreadableIf(err error) error {
	if err == nil {
		return nil
	}
	return l.unreadable(err)
}

// Watch tells when one of many partitions has moved. Close it.
type Watch struct {
	// C gets a value when a partition's durable end has moved, or it was deleted, since the last was taken.
	C chan struct{}

	closing    sync.Once
	partitions []*partition
}

// Watch watches those of the partitions that are there. What moved before it returned is not told of: look after it.
func (l *Log) Watch(ps []log.Partition) *Watch {
	w := &Watch{C: make(chan struct{}, 1)}
	topics := *l.topics.Load()
	for _, at := range ps {
		p, err := find(topics, at)
		if err != nil {
			continue
		}
		w.partitions = append(w.partitions, p)
		p.moving.Lock()
		if p.watches == nil {
			p.watches = map[*Watch]struct{}{}
		}
		p.watches[w] = struct{}{}
		p.moving.Unlock()
	}
	return w
}

// wake is called under the lock of a partition, and does not block.
func (w *Watch) wake() {
	select {
	case w.C <- struct{}{}:
	default:
	}
}

// Close ends it. More calls than one do nothing.
func (w *Watch) Close() {
	w.closing.Do(func() {
		for _, p := range w.partitions {
			p.moving.Lock()
			delete(p.watches, w)
			p.moving.Unlock()
		}
	})
}
