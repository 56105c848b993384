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
//
// It is the time of the start in seconds, or one more than the last if that is more. So a log that was restored from a copy has a higher
// one than whatever was written after the copy was made, and a client that has read what is no longer there finds out.
func (l *Log) Epoch() int32 { return l.epoch }

// beginEpoch writes down the epoch of this start. A read-only log has that of the last.
func (l *Log) beginEpoch() error {
	v, err := get(l.store, []byte{kindEpoch}, 4)
	if err != nil {
		return err
	}
	l.epoch = NoEpoch
	if v != nil {
		l.epoch = int32(binary.BigEndian.Uint32(v))
	}
	if l.o.ReadOnly {
		return nil
	}
	l.epoch = max(l.epoch+1, int32(l.o.Clock().Sub(epochBegan)/time.Second))
	b := l.store.NewBatch()
	_ = b.Set([]byte{kindEpoch}, binary.BigEndian.AppendUint32(nil, uint32(l.epoch)), nil)
	return l.commit(b)
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
	switch {
	case epoch < 0 || epoch > l.epoch:
		return NoEpoch, NoEpoch, nil
	case epoch == l.epoch:
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
