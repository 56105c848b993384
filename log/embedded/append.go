package embedded

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/remitlog/remit/log"
)

// partition is one partition in memory.
type partition struct {
	log.Partition
	topic uint32

	// mu orders appends: it is held from giving offsets until Pebble has the batch, so that the order of offsets is
	// that of the WAL. It is NOT held over the sync.
	mu     sync.Mutex
	next   log.Offset // to give
	latest int64      // of all rows given out
	total  uint64
	gone   bool // the topic was deleted

	first atomic.Int64
	end   atomic.Int64 // durable: every reader stops here

	moving sync.Mutex // the end moves, or a reader begins to wait for it
	moved  chan struct{}
}

func newPartition(p log.Partition, topic uint32) *partition {
	return &partition{Partition: p, topic: topic, latest: math.MinInt64}
}

// advance moves the durable end to at least end, and wakes who waits for it.
func (p *partition) advance(end log.Offset) {
	p.moving.Lock()
	defer p.moving.Unlock()
	if int64(end) > p.end.Load() {
		p.end.Store(int64(end))
		p.wake()
	}
}

func (p *partition) wake() {
	if p.moved != nil {
		close(p.moved)
		p.moved = nil
	}
}

// after returns a channel that is closed when the end has moved beyond from; nil if it has.
func (p *partition) after(from log.Offset) <-chan struct{} {
	p.moving.Lock()
	defer p.moving.Unlock()
	if log.Offset(p.end.Load()) > from {
		return nil
	}
	if p.moved == nil {
		p.moved = make(chan struct{})
	}
	return p.moved
}

// share is what one Append has for one partition.
type share struct {
	*partition
	records []log.Record
	places  []int // of the records in the Append; nil: all, in order
	valueAt int   // in the Pebble batch
	valueN  int
	maxTime int64
	base    log.Offset
}

// Append writes records as one row a partition, in one synced Pebble batch.
func (l *Log) Append(ctx context.Context, records ...log.Record) ([]log.Offset, error) {
	if err := errors.Join(ctx.Err(), log.CheckRecords(records)); err != nil {
		return nil, fmt.Errorf("embedded: append: %w", err)
	}
	if err := l.enterWriting(); err != nil {
		return nil, err
	}
	defer l.leave()
	if len(records) == 0 {
		return nil, nil
	}
	now := l.o.Clock()
	shares, err := l.split(records)
	if err != nil {
		return nil, err
	}
	return l.write(now, shares, len(records))
}

func (l *Log) write(now time.Time, shares []share, records int) ([]log.Offset, error) {
	b := l.store.NewBatch()
	defer func() { _ = b.Close() }()
	if err := encode(b, now, shares); err != nil {
		return nil, err
	}
	if err := l.floor.take(b.Len(), now); err != nil {
		return nil, err
	}
	bytes := b.Len()
	if err := l.enqueue(b, shares); err != nil {
		return nil, err
	}
	if err := b.SyncWait(); err != nil {
		l.fail(fmt.Errorf("embedded: sync: %w", err))
		return nil, fmt.Errorf("embedded: %w: sync failed: %v", log.ErrUnknown, err)
	}
	offsets, err := l.publish(shares, records)
	if f := l.o.Listener.Appended; f != nil && err == nil {
		f(records, bytes, l.o.Clock().Sub(now))
	}
	return offsets, err
}

// split sorts records by partition, in the order in which the partitions are locked.
func (l *Log) split(records []log.Record) ([]share, error) {
	topics := *l.topics.Load()
	same := true
	for i := range records {
		same = same && records[i].Partition == records[0].Partition
	}
	if same {
		p, err := find(topics, records[0].Partition)
		return []share{{partition: p, records: records}}, err
	}
	at := map[log.Partition]int{}
	var shares []share
	for i := range records {
		s, ok := at[records[i].Partition]
		if !ok {
			p, err := find(topics, records[i].Partition)
			if err != nil {
				return nil, err
			}
			s = len(shares)
			at[records[i].Partition] = s
			shares = append(shares, share{partition: p})
		}
		shares[s].records = append(shares[s].records, records[i])
		shares[s].places = append(shares[s].places, i)
	}
	slices.SortFunc(shares, func(a, b share) int {
		return cmp.Or(cmp.Compare(a.topic, b.topic), cmp.Compare(a.Index, b.Index))
	})
	return shares, nil
}

// encode writes the rows into b, all but what is only known under the locks: offsets, latest and total.
func encode(b *pebble.Batch, now time.Time, shares []share) error {
	for i := range shares {
		s := &shares[i]
		s.valueN = rowHeadLen + log.BatchLen(now, s.records)
		op := b.SetDeferred(recordsKeyLen, s.valueN)
		putRecordsKey(op.Key, s.topic, s.Index, 0)
		if got := log.AppendBatch(op.Value[:rowHeadLen], now, s.records); len(got) != s.valueN {
			return fmt.Errorf("embedded: %s/%d: a batch of %d bytes, %d were reckoned", s.Topic, s.Index, len(got), s.valueN)
		}
		if err := op.Finish(); err != nil {
			return fmt.Errorf("embedded: %w", err)
		}
		s.valueAt = b.Len() - s.valueN
	}
	return nil
}

// enqueue gives offsets and hands b to Pebble. Partitions are locked in order and free again when Pebble has put b
// into its WAL's queue; the sync is waited for elsewhere.
func (l *Log) enqueue(b *pebble.Batch, shares []share) error {
	for i := range shares {
		shares[i].mu.Lock()
		defer shares[i].mu.Unlock()
		if shares[i].gone {
			return unknownTopic(shares[i].Partition)
		}
	}
	if l.hasFailed() {
		return fmt.Errorf("embedded: %w: it failed: %v", log.ErrClosed, l.cause)
	}
	// INVARIANT: Pebble has read nothing of the batch yet, not even for an index: it has none. So it may still be written to.
	repr := b.Repr()
	for i := range shares {
		shares[i].place(repr)
	}
	if err := l.apply(b); err != nil {
		l.fail(err)
		return fmt.Errorf("embedded: %w: %v", log.ErrUnknown, err)
	}
	for i := range shares {
		shares[i].given()
	}
	return nil
}

// place patches the row with its place; the record batch's checksum covers none of it.
func (s *share) place(repr []byte) {
	s.base = s.next
	value := repr[s.valueAt : s.valueAt+s.valueN]
	key := repr[s.valueAt-uvarintLen(s.valueN)-recordsKeyLen:][:recordsKeyLen]
	batch := log.Batch(value[rowHeadLen:])
	batch.SetBase(s.base)
	s.maxTime = batch.MaxTime()
	putRowHead(value, max(s.latest, s.maxTime), s.total+uint64(s.valueN))
	putRecordsKey(key, s.topic, s.Index, s.base+log.Offset(len(s.records)-1))
}

// given moves what the next append begins with.
func (s *share) given() {
	s.next = s.base + log.Offset(len(s.records))
	s.latest = max(s.latest, s.maxTime)
	s.total += uint64(s.valueN)
}

// apply: Pebble panics when its WAL has failed before.
func (l *Log) apply(b *pebble.Batch) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("embedded: write: %v", r)
		}
	}()
	if err := l.store.ApplyNoSyncWait(b, pebble.Sync); err != nil {
		return fmt.Errorf("embedded: write: %w", err)
	}
	return nil
}

// publish moves the durable ends. An append that was synced was synced with all before it in the WAL, and so with all before
// it in its partitions: an end may move over appends that have not returned yet.
func (l *Log) publish(shares []share, records int) ([]log.Offset, error) {
	if l.hasFailed() {
		return nil, fmt.Errorf("embedded: %w: it failed: %v", log.ErrUnknown, l.cause)
	}
	offsets := make([]log.Offset, records)
	for i := range shares {
		s := &shares[i]
		s.advance(s.base + log.Offset(len(s.records)))
		for j := range s.records {
			at := j
			if s.places != nil {
				at = s.places[j]
			}
			offsets[at] = s.base + log.Offset(j)
		}
	}
	return offsets, nil
}
