package embedded

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/remitlog/remit/log"
)

// epochBegan is when leader epochs count their seconds from.
var epochBegan = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// NoEpoch is the epoch of records that were written before epochs were, and the answer where none is known.
const NoEpoch = -1

// Epoch returns the leader epoch of this start. Every batch that it writes carries it, and each start has a higher one than all before it.
// A start that finds the disk full writes its epoch down with its first append; until then it is that of the start before.
//
// It is the time of the start in seconds, or one more than the last if that is more. So a log that was restored from a copy has a higher
// one than whatever was written after the copy was made, and a client that has read what is no longer there finds out.
//
// INVARIANT: it is durable. Of one that is not, the next start knows nothing, and might take it again.
func (l *Log) Epoch() int32 { return l.epoch.Load() }

// OwnEpoch returns the epoch that this start has and no other, and writes it down before, if a full disk has kept the start from it.
//
// Errors: as of Append.
func (l *Log) OwnEpoch() (int32, error) {
	if l.Epoch() == l.own {
		return l.own, nil
	}
	if err := l.enterWriting(); err != nil {
		return 0, err
	}
	defer l.leave()
	r := requests.Get().(*request)
	defer r.free()
	r.batch = l.store.NewBatch()
	putEpoch(r.batch, l.own) // again, beside what is owed: that may have gone to Pebble already, and its sync is to be waited for
	if err := l.floor.take(r.batch.Len(), l.o.Clock()); err != nil {
		return 0, err
	}
	return l.own, l.inLine(r)
}

func putEpoch(b *pebble.Batch, epoch int32) {
	_ = b.Set([]byte{kindEpoch}, binary.BigEndian.AppendUint32(nil, uint32(epoch)), nil) // setting in a batch of one's own does not fail
}

// beginEpoch writes what a start writes: its epoch, and deletions of stale rows. When there is no room it stays owed, and goes with the first
// append. A read-only log has the epoch of the last start.
func (l *Log) beginEpoch(stale [][]byte) error {
	v, err := get(l.store, []byte{kindEpoch}, 4)
	if err != nil {
		return err
	}
	l.own = NoEpoch
	if v != nil {
		l.own = int32(binary.BigEndian.Uint32(v))
	}
	l.epoch.Store(l.own)
	if l.o.ReadOnly {
		return nil
	}
	now := l.o.Clock()
	l.own = max(l.own+1, int32(now.Sub(epochBegan)/time.Second))
	b := l.store.NewBatch()
	for _, key := range stale {
		_ = b.Delete(key, nil)
	}
	putEpoch(b, l.own)
	if free, ok := l.floor.try(int64(b.Len()), now); !ok {
		l.floor.say(now, free, false)
		l.owed = b
		return nil
	}
	if err := l.unlessFailed(func() error { return l.commit(b) }); err != nil {
		return err
	}
	l.epoch.Store(l.own)
	return nil
}

// EpochEnd returns the highest epoch of a partition that is not above epoch, and where its records end: the first offset that a later
// start wrote, or the durable end. Kafka's rules: epoch is answered with itself where only later ones are there, and with
// [NoEpoch] where none is as high.
func (l *Log) EpochEnd(_ context.Context, at log.Partition, epoch int32) (found int32, end log.Offset, err error) {
	if err := l.enter(); err != nil {
		return 0, 0, err
	}
	defer l.leave()
	p, err := find(*l.topics.Load(), at)
	if err != nil {
		return 0, 0, err
	}
	first, durable := log.Offset(p.first.Load()), log.Offset(p.end.Load())
	now := l.Epoch() // AFTER the end: whatever lies below that was written in this epoch or before
	switch {
	case epoch < 0 || epoch > now:
		return NoEpoch, NoEpoch, nil
	case epoch == now:
		return epoch, durable, nil
	}
	end, err = l.bisect(p, first, durable, func(r row) bool { return r.batch.Epoch() > epoch })
	if err != nil {
		return 0, 0, l.unreadable(err)
	}
	if found, err = l.epochBefore(p, first, end); err != nil {
		return 0, 0, l.unreadable(err)
	}
	if found == NoEpoch {
		found = epoch
	}
	return found, end, nil
}

// epochBefore returns the epoch of the last row of [first, end), NoEpoch if there is none.
func (l *Log) epochBefore(p *partition, first, end log.Offset) (int32, error) {
	it, err := l.rows(p, first, end)
	if err != nil {
		return 0, err
	}
	defer func() { _ = it.Close() }()
	return lastEpoch(it)
}

func lastEpoch(it *pebble.Iterator) (int32, error) {
	if !it.Last() {
		return NoEpoch, it.Error()
	}
	r, err := rowAt(it)
	if err != nil {
		return 0, err
	}
	return r.batch.Epoch(), nil
}
