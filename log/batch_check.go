package log

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
)

// TimeAheadMax is how far ahead of the log's clock a client may date a record: retention and searches by time go by what records say.
const TimeAheadMax = time.Hour

// BatchRecordsMax is the most records of a batch that a client made; none of Kafka's clients sends more. Compressed, many more would
// fit into few bytes.
const BatchRecordsMax = 1_000_000

// noTime is the time of a record that has none.
const noTime = -1

// Errors of a batch that a client made.
var (
	// ErrTime: the batch dates its records as only a log may, too far ahead, or before 1970. Correct the client's clock.
	ErrTime = errors.New("log: bad record time")
	// ErrTransactional: the batch belongs to a Kafka transaction. Send it without one.
	ErrTransactional = errors.New("log: Kafka transactions are not supported")
)

// CheckClient checks a batch that a client made, record by record, so that whatever is stored can be read: [ParseBatch] has looked at its
// frame alone. It corrects the latest time in the header.
//
// Errors: [ErrBadBatch], ErrTooLarge, ErrTime, ErrTransactional.
func (b Batch) CheckClient(now time.Time) error {
	a := b.attributes()
	switch {
	case a&controlBit != 0:
		return fmt.Errorf("%w: a client sends no control batches", ErrBadBatch)
	case a&transactionalBit != 0:
		return ErrTransactional
	case a&logTimeBit != 0:
		return fmt.Errorf("%w: the batch says that the log dated it", ErrTime)
	case b.Count() > BatchRecordsMax:
		return fmt.Errorf("%w: a batch of %d records, at most %d", ErrTooLarge, b.Count(), BatchRecordsMax)
	case b.Count() != int(b.Last()-b.Base())+1:
		return fmt.Errorf("%w: %d records over %d offsets", ErrBadBatch, b.Count(), b.Last()-b.Base()+1)
	}
	if id, epoch, sequence := b.Producer(); id >= 0 && (epoch < 0 || sequence < 0) {
		return fmt.Errorf("%w: producer %d with epoch %d and sequence %d", ErrBadBatch, id, epoch, sequence)
	}
	latest, err := b.checkRecords()
	if err != nil {
		return err
	}
	if limit := now.Add(TimeAheadMax).UnixMilli(); latest > limit {
		return fmt.Errorf("%w: %s is more than %s ahead of this machine's clock", ErrTime, time.UnixMilli(latest).UTC().Format(time.RFC3339), TimeAheadMax)
	}
	b.setMaxTime(latest)
	return nil
}

// checkRecords walks the records and returns the latest time.
func (b Batch) checkRecords() (latest int64, err error) {
	d, err := b.reader()
	if err != nil {
		return 0, err
	}
	base := b.baseTime()
	for first := true; d.left > 0; first = false {
		before := len(d.rest)
		delta, err := d.skip()
		if err != nil {
			return 0, err
		}
		if n := before - len(d.rest); n > RecordMax {
			return 0, fmt.Errorf("%w: a record of %d bytes, at most %d", ErrTooLarge, n, RecordMax)
		}
		t := base + delta
		if t < noTime {
			return 0, fmt.Errorf("%w: %d ms is before 1970", ErrTime, t)
		}
		if first || t > latest {
			latest = t
		}
	}
	return latest, d.end()
}

// FirstAt returns the offset of the first record at offset from or after that is not older than ms, in Unix milliseconds; ok is false if
// there is none. It makes no records. Errors match [ErrBadBatch].
func (b Batch) FirstAt(from Offset, ms int64) (o Offset, ok bool, err error) {
	d, err := b.reader()
	if err != nil {
		return 0, false, err
	}
	for d.left > 0 {
		delta, err := d.skip()
		if err != nil {
			return 0, false, err
		}
		if o = b.Base() + Offset(d.previous); o >= from && b.timeAt(delta) >= ms {
			return o, true, nil
		}
	}
	return 0, false, d.end()
}

// skip checks the next record without making one of it, and returns how long after the batch's first time it is.
func (d *recordReader) skip() (timeDelta int64, err error) {
	n := d.varint()
	if d.bad || n < 0 || n > int64(len(d.rest)) {
		return 0, d.fail("its length")
	}
	after := d.rest[n:]
	d.rest = d.rest[:n:n]
	_ = d.take(1)
	timeDelta, delta := d.varint(), d.varint()
	if d.bad || delta <= d.previous || delta > int64(d.batch.Last()-d.batch.Base()) {
		return 0, d.fail("its offset")
	}
	_, _ = d.varbytes(), d.varbytes()
	headers := d.varint()
	if headers < 0 || headers > int64(len(d.rest)/2) {
		d.bad = true
	}
	for ; headers > 0 && !d.bad; headers-- {
		if n := d.varint(); n < 0 {
			d.bad = true
		} else {
			_ = d.take(n)
		}
		_ = d.varbytes()
	}
	if d.bad || len(d.rest) > 0 {
		return 0, d.fail("its key, value or headers")
	}
	d.previous, d.rest = delta, after
	d.left--
	return timeDelta, nil
}

// setMaxTime corrects the header, which the checksum covers.
func (b Batch) setMaxTime(ms int64) {
	if b.MaxTime() == ms {
		return
	}
	binary.BigEndian.PutUint64(b[batchMaxTimeAt:], uint64(ms))
	binary.BigEndian.PutUint32(b[batchCRCAt:], crc32.Checksum(b[batchAttributesAt:], castagnoli))
}
