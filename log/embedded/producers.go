package embedded

import (
	"cmp"
	"container/list"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/remitlog/remit/log"
)

// Limits of idempotent producers. At them the longest idle is forgotten, and may then begin with any sequence: Kafka's rule.
const (
	// ProducerBatchesMax is how many batches of a producer are remembered; a client has as many on their way.
	ProducerBatchesMax = 5
	// ProducerIdleMax is how long a producer is remembered after its last batch.
	ProducerIdleMax = 24 * time.Hour
	// ProducersMax is how many are remembered of a partition.
	ProducersMax = 16 << 10
)

// Errors of idempotent producers.
var (
	// ErrOutOfOrderSequence: a batch before this one is missing. Send that first, or begin anew with a new producer.
	ErrOutOfOrderSequence = errors.New("embedded: sequence out of order")
	// ErrProducerFenced: the same producer went on with a higher epoch. This one must stop.
	ErrProducerFenced = errors.New("embedded: producer epoch is not the latest")

	// errRepeated: the batch is there, or is being written. Wait answers with its place.
	errRepeated = errors.New("embedded: repeated batch")
)

// producers of one partition, at most ProducersMax. Guarded by Log.giving.
//
// INVARIANT: what is here was given to Pebble in the batch of the records themselves. So after a kill the two are of one mind,
// and a batch that was stored is known to be.
type producers struct {
	byID map[int64]*producer
	idle list.List // of *producer, the longest idle first
}

type producer struct {
	id    int64
	place *list.Element
	epoch int16
	seen  int64       // ms, by the log's clock
	last  []sentBatch // the newest first, at most ProducerBatchesMax
}

// add takes up a producer that is not known, as the one that was idle the least.
func (ps *producers) add(p *producer) {
	if ps.byID == nil {
		ps.byID = map[int64]*producer{}
	}
	ps.byID[p.id], p.place = p, ps.idle.PushBack(p)
}

func (ps *producers) forget(p *producer) {
	delete(ps.byID, p.id)
	ps.idle.Remove(p.place)
}

// surplus forgets the longest idle of too many and returns it, nil if there are not.
func (ps *producers) surplus() *producer {
	if len(ps.byID) <= ProducersMax {
		return nil
	}
	p := ps.idle.Front().Value.(*producer)
	ps.forget(p)
	return p
}

// sentBatch is where a batch of a producer stands. Sequences wrap from the highest int32 to 0.
type sentBatch struct {
	first, last int32
	base        log.Offset
}

// produced is a batch of an idempotent producer on its way.
type produced struct {
	id       int64
	epoch    int16
	first    int32
	last     int32
	now      int64 // ms
	rowAt    int   // of the producer's row in the Pebble batch
	repeated log.Offset
}

// producerOf returns nil if no idempotent producer made b.
func producerOf(b log.Batch, now time.Time) *produced {
	id, epoch, sequence := b.Producer()
	if id < 0 {
		return nil
	}
	last := int32((int64(sequence) + int64(b.Last()-b.Base())) & math.MaxInt32)
	return &produced{id: id, epoch: epoch, first: sequence, last: last, now: now.UnixMilli()}
}

// refused says why the batch is not to be written, in the order in which Kafka looks at it.
func (m *produced) refused(p *partition) error {
	was := p.producers.byID[m.id]
	if was == nil {
		return nil // not known, or no longer: any sequence will do
	}
	if m.epoch < was.epoch {
		return fmt.Errorf("%w: producer %d has epoch %d, the batch %d", ErrProducerFenced, m.id, was.epoch, m.epoch)
	}
	if m.epoch > was.epoch {
		if m.first != 0 {
			return fmt.Errorf("%w: producer %d begins epoch %d with %d, not 0", ErrOutOfOrderSequence, m.id, m.epoch, m.first)
		}
		return nil
	}
	for _, b := range was.last {
		if b.first == m.first && b.last == m.last {
			m.repeated = b.base
			return errRepeated
		}
	}
	if next := (was.last[0].last + 1) & math.MaxInt32; m.first != next {
		return fmt.Errorf("%w: producer %d sent %d, %d is next", ErrOutOfOrderSequence, m.id, m.first, next)
	}
	return nil
}

// give remembers the batch and writes the producer's row into repr. It returns who is forgotten for it, nil if nobody is.
func (m *produced) give(s *share, repr []byte) (forgotten *producer) {
	was := s.producers.byID[m.id]
	if was == nil {
		was = &producer{id: m.id}
		s.producers.add(was)
		forgotten = s.producers.surplus()
	} else {
		s.producers.idle.MoveToBack(was.place)
	}
	if was.epoch != m.epoch {
		was.epoch, was.last = m.epoch, nil
	}
	was.seen = m.now
	was.last = slices.Insert(was.last, 0, sentBatch{m.first, m.last, s.base})
	was.last = was.last[:min(len(was.last), ProducerBatchesMax)]
	was.put(repr[m.rowAt:][:producerRowLen])
	return forgotten
}

// The row of a producer: epoch:2 batches:1 ms:8 and ProducerBatchesMax times first:4 last:4 base:8.
const (
	producerHeadLen = 11
	sentBatchLen    = 16
	producerRowLen  = producerHeadLen + ProducerBatchesMax*sentBatchLen
	producerKeyLen  = 17
)

func producerKey(topic uint32, index int32, id int64) []byte {
	k := binary.BigEndian.AppendUint32(topicKey(kindMade, topic), uint32(index))
	return binary.BigEndian.AppendUint64(k, uint64(id))
}

func (p *producer) put(b []byte) {
	be := binary.BigEndian
	be.PutUint16(b, uint16(p.epoch))
	b[2] = byte(len(p.last))
	be.PutUint64(b[3:], uint64(p.seen))
	for i, s := range p.last {
		at := b[producerHeadLen+i*sentBatchLen:]
		be.PutUint32(at, uint32(s.first))
		be.PutUint32(at[4:], uint32(s.last))
		be.PutUint64(at[8:], uint64(s.base))
	}
}

func parseProducer(b []byte) (*producer, bool) {
	be := binary.BigEndian
	if len(b) != producerRowLen || b[2] == 0 || b[2] > ProducerBatchesMax {
		return nil, false
	}
	p := &producer{epoch: int16(be.Uint16(b)), seen: int64(be.Uint64(b[3:]))}
	for i := range int(b[2]) {
		at := b[producerHeadLen+i*sentBatchLen:]
		p.last = append(p.last, sentBatch{int32(be.Uint32(at)), int32(be.Uint32(at[4:])), log.Offset(be.Uint64(at[8:]))})
	}
	return p, true
}

// end is where the records of the newest batch end.
func (p *producer) end() log.Offset {
	b := p.last[0]
	return b.base + log.Offset((b.last-b.first)&math.MaxInt32) + 1
}

// loadProducers finds the producers of all partitions, and keys of rows that are to be deleted: of too many, and of those whose records are
// lost. There are such in a store that was adopted: a batch that is sent again must be stored again then.
func loadProducers(db pebble.Reader, topics map[string]*topic) (stale [][]byte, err error) {
	found, stale, err := readProducers(db, topics)
	if err != nil {
		return nil, err
	}
	for p, made := range found {
		slices.SortFunc(made, func(a, b *producer) int { return cmp.Or(cmp.Compare(a.seen, b.seen), cmp.Compare(a.id, b.id)) })
		for _, m := range made {
			p.producers.add(m)
			if old := p.producers.surplus(); old != nil {
				stale = append(stale, producerKey(p.topic, p.Index, old.id))
			}
		}
	}
	return stale, nil
}

func readProducers(db pebble.Reader, topics map[string]*topic) (found map[*partition][]*producer, stale [][]byte, err error) {
	found = map[*partition][]*producer{}
	byID := map[uint32]*topic{}
	for _, t := range topics {
		byID[t.id] = t
	}
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte{kindMade}, UpperBound: []byte{kindMade + 1}})
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for it.First(); it.Valid(); it.Next() {
		key, be := it.Key(), binary.BigEndian
		value, err := it.ValueAndErr()
		if err != nil {
			return nil, nil, err
		}
		made, ok := parseProducer(value)
		if !ok || len(key) != producerKeyLen {
			return nil, nil, &log.CorruptError{File: fmt.Sprintf("row %x", key), Byte: -1, Detail: "not a producer; a newer version wrote it, or it is corrupt"}
		}
		t, index := byID[be.Uint32(key[1:])], int(be.Uint32(key[5:]))
		if t == nil || index >= len(t.partitions) {
			continue
		}
		p := t.partitions[index]
		if made.id = int64(be.Uint64(key[9:])); made.end() > p.next {
			stale = append(stale, slices.Clone(key))
			continue
		}
		found[p] = append(found[p], made)
	}
	return found, stale, it.Error()
}

// forgetProducers drops those that have been idle for long.
func (l *Log) forgetProducers(now time.Time) {
	for _, t := range *l.topics.Load() {
		for _, p := range t.partitions {
			if err := l.forgetOf(p, now.Add(-ProducerIdleMax).UnixMilli()); err != nil && !l.hasFailed() {
				l.o.Logger.Warn("embedded: producers", "topic", p.Topic, "partition", p.Index, "error", err)
			}
		}
	}
}

func (l *Log) forgetOf(p *partition, before int64) error {
	return l.change(context.Background(), func(map[string]*topic) error {
		b, err := l.dropIdle(p, before)
		if err != nil || b == nil {
			return err
		}
		if err := b.SyncWait(); err != nil {
			l.fail(fmt.Errorf("embedded: sync: %w", err))
			return err
		}
		return b.Close()
	})
}

// dropIdle gives the deletions to Pebble in the order of appends: under the lock of those.
func (l *Log) dropIdle(p *partition, before int64) (*pebble.Batch, error) {
	l.giving.Lock()
	defer l.giving.Unlock()
	if p.gone.Load() || l.hasFailed() {
		return nil, nil
	}
	b := l.store.NewBatch()
	for e := p.producers.idle.Front(); e != nil && e.Value.(*producer).seen < before; e = p.producers.idle.Front() {
		made := e.Value.(*producer)
		p.producers.forget(made)
		_ = b.Delete(producerKey(p.topic, p.Index, made.id), nil)
	}
	if b.Empty() {
		return nil, b.Close()
	}
	if err := l.apply(b); err != nil {
		l.fail(err)
		return nil, err
	}
	return b, nil
}
