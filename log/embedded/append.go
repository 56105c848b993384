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

	// Guarded by Log.giving.
	next      log.Offset // to give
	latest    int64      // of all rows given out
	total     uint64
	producers producers

	gone  atomic.Bool // the topic was deleted
	first atomic.Int64
	end   atomic.Int64 // durable: every reader stops here

	moving  sync.Mutex // the end moves, or a reader begins to wait for it
	moved   chan struct{}
	watches map[*Watch]struct{}
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
	for w := range p.watches {
		w.wake()
	}
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
	count   int   // of records
	places  []int // of the records in the Append; nil: all, in order
	valueAt int   // in the Pebble batch
	valueN  int
	base    log.Offset
}

// Append writes records as one row a partition, in one synced Pebble batch that it may share with other appends.
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
	r := requests.Get().(*request)
	defer r.free()
	return l.write(r, records)
}

func (l *Log) write(r *request, records []log.Record) ([]log.Offset, error) {
	now := l.o.Clock()
	if err := r.split(*l.topics.Load(), records); err != nil {
		return nil, err
	}
	r.batch = l.store.NewBatch()
	if err := r.encode(now); err != nil {
		return nil, err
	}
	bytes := r.batch.Len()
	if err := l.floor.take(bytes, now); err != nil {
		return nil, err
	}
	if err := l.inLine(r); err != nil {
		return nil, err
	}
	if f := l.o.Listener.Appended; f != nil {
		f(len(records), bytes, l.o.Clock().Sub(now))
	}
	return r.offsets(len(records)), nil
}

// request is one Append on its way.
type request struct {
	batch  *pebble.Batch
	shares []share
	few    [4]share  // most appends have one, or a few
	made   *produced // by an idempotent producer; nil if not
	behind bool      // nobody waits on leads to be given the lead
	leads  chan bool // true: lead the next group; false: done, with err
	err    error
}

var requests = sync.Pool{New: func() any { return &request{leads: make(chan bool, 1)} }}

func (r *request) free() {
	if r.batch != nil {
		_ = r.batch.Close()
	}
	*r = request{leads: r.leads}
	requests.Put(r)
}

// split sorts records by partition, in the order of keys.
func (r *request) split(topics map[string]*topic, records []log.Record) error {
	same := true
	for i := range records {
		same = same && records[i].Partition == records[0].Partition
	}
	if same {
		p, err := find(topics, records[0].Partition)
		r.few[0] = share{partition: p, records: records}
		r.shares = r.few[:1]
		return err
	}
	order, sorted, shares := make([]int, len(records)), make([]log.Record, len(records)), r.few[:0]
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		a1, b1 := &records[a].Partition, &records[b].Partition
		return cmp.Or(cmp.Compare(a1.Topic, b1.Topic), cmp.Compare(a1.Index, b1.Index))
	})
	for i, place := range order {
		sorted[i] = records[place]
		if i == 0 || sorted[i].Partition != sorted[i-1].Partition {
			p, err := find(topics, sorted[i].Partition)
			if err != nil {
				return err
			}
			shares = append(shares, share{partition: p, records: sorted[i:i], places: order[i:i]})
		}
		s := &shares[len(shares)-1]
		s.records, s.places = s.records[:len(s.records)+1], s.places[:len(s.places)+1]
	}
	slices.SortFunc(shares, func(a, b share) int {
		return cmp.Or(cmp.Compare(a.topic, b.topic), cmp.Compare(a.Index, b.Index))
	})
	r.shares = shares
	return nil
}

// encode writes the rows, all but what is only known when offsets are given: those, latest and total.
func (r *request) encode(now time.Time) error {
	for i := range r.shares {
		s := &r.shares[i]
		s.count = len(s.records)
		s.valueN = rowHeadLen + log.BatchLen(now, s.records)
		op := r.batch.SetDeferred(recordsKeyLen, s.valueN)
		putRecordsKey(op.Key, s.topic, s.Index, 0)
		if got := log.AppendBatch(op.Value[:rowHeadLen], now, s.records); len(got) != s.valueN {
			return fmt.Errorf("embedded: %s/%d: a batch of %d bytes, %d were reckoned", s.Topic, s.Index, len(got), s.valueN)
		}
		if err := op.Finish(); err != nil {
			return fmt.Errorf("embedded: %w", err)
		}
		s.valueAt = r.batch.Len() - s.valueN
	}
	return nil
}

// give patches the rows of r with their places; the record batches' checksums cover none of it.
func (r *request) give(epoch int32) {
	// INVARIANT: Pebble has read nothing of the batch yet, not even for an index: it has none. So it may still be written to.
	repr := r.batch.Repr()
	for i := range r.shares {
		r.shares[i].give(repr, epoch)
	}
	if r.made == nil {
		return
	}
	p := r.shares[0].partition
	if old := r.made.give(&r.shares[0], repr); old != nil {
		_ = r.batch.Delete(producerKey(p.topic, p.Index, old.id), nil) // AFTER all that is written into repr, which may move
	}
}

func (s *share) give(repr []byte, epoch int32) {
	value := repr[s.valueAt : s.valueAt+s.valueN]
	key := repr[s.valueAt-uvarintLen(s.valueN)-recordsKeyLen:][:recordsKeyLen]
	batch := log.Batch(value[rowHeadLen:])
	s.base = s.next
	s.next += log.Offset(s.count)
	s.latest = max(s.latest, batch.MaxTime())
	s.total += uint64(s.valueN)
	batch.SetBase(s.base)
	batch.SetEpoch(epoch)
	putRowHead(value, s.latest, s.total)
	putRecordsKey(key, s.topic, s.Index, s.next-1)
}

func (r *request) offsets(n int) []log.Offset {
	offsets := make([]log.Offset, n)
	for i := range r.shares {
		s := &r.shares[i]
		for j := range s.records {
			at := j
			if s.places != nil {
				at = s.places[j]
			}
			offsets[at] = s.base + log.Offset(j)
		}
	}
	return offsets
}
