package log

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/bits"
	"time"
)

// A record batch v2 of the Kafka protocol, as it goes on the wire and as it is stored. All
// numbers are big-endian; varints are zigzag.
//
//	 0  int64   base offset            -- outside the checksum: a log gives it after encoding
//	 8  int32   length of what follows
//	12  int32   partition leader epoch -- outside the checksum: -1, or what the log gives
//	16  int8    magic: 2
//	17  uint32  CRC32C of all from 21 on
//	21  int16   attributes: 0-2 compression, 3 time is the log's, 4 transactional, 5 control
//	23  int32   last offset delta
//	27  int64   base timestamp, ms
//	35  int64   max timestamp, ms
//	43  int64   producer id: -1
//	51  int16   producer epoch: -1
//	53  int32   base sequence: -1
//	57  int32   number of records
//	61          records: varint length, int8 attributes, varint timestamp delta, varint
//	            offset delta, varbytes key, varbytes value, varint headers of (varstring, varbytes)
const (
	batchLengthAt     = 8
	batchEpochAt      = 12
	batchMagicAt      = 16
	batchCRCAt        = 17
	batchAttributesAt = 21
	batchLastDeltaAt  = 23
	batchBaseTimeAt   = 27
	batchMaxTimeAt    = 35
	batchProducerAt   = 43
	batchEpoch2At     = 51
	batchSequenceAt   = 53
	batchCountAt      = 57
	batchRecordsAt    = 61

	batchMagic = 2

	compressionMask  = 0x07
	logTimeBit       = 0x08
	transactionalBit = 0x10
	controlBit       = 0x20
)

// BatchOverhead is the length of a batch's header, in bytes.
const BatchOverhead = batchRecordsAt

// ErrBadBatch is returned for bytes that are not a record batch that this package can read. The
// text says what is wrong. From a store it means corruption, from a client a mistake of theirs.
var ErrBadBatch = errors.New("log: bad record batch")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Batch is one encoded record batch, checked by [ParseBatch] or made by [AppendBatch].
type Batch []byte

// BatchLen returns how many bytes AppendBatch will add for records, which must not be empty.
func BatchLen(now time.Time, records []Record) int {
	base, n := stamp(now, &records[0]), batchRecordsAt
	for i := range records {
		body := bodyLen(&records[i], stamp(now, &records[i])-base, i)
		n += varintLen(int64(body)) + body
	}
	return n
}

// AppendBatch appends records, all of one partition and at least one, as one uncompressed batch
// with base offset 0; see [Batch.SetBase]. Records without a time are made now. It allocates
// nothing when dst has room for [BatchLen] bytes.
func AppendBatch(dst []byte, now time.Time, records []Record) []byte {
	start, base := len(dst), stamp(now, &records[0])
	latest := base
	var header [batchRecordsAt]byte
	dst = append(dst, header[:]...)
	for i := range records {
		t := stamp(now, &records[i])
		latest = max(latest, t)
		dst = appendRecord(dst, &records[i], t-base, i)
	}
	putHeader(dst[start:], len(records), base, latest)
	return dst
}

func putHeader(b []byte, count int, base, latest int64) {
	be := binary.BigEndian
	be.PutUint32(b[batchLengthAt:], uint32(len(b)-batchEpochAt))
	be.PutUint32(b[batchEpochAt:], ^uint32(0))
	b[batchMagicAt] = batchMagic
	be.PutUint32(b[batchLastDeltaAt:], uint32(count-1))
	be.PutUint64(b[batchBaseTimeAt:], uint64(base))
	be.PutUint64(b[batchMaxTimeAt:], uint64(latest))
	be.PutUint64(b[batchProducerAt:], ^uint64(0))
	be.PutUint16(b[batchEpoch2At:], ^uint16(0))
	be.PutUint32(b[batchSequenceAt:], ^uint32(0))
	be.PutUint32(b[batchCountAt:], uint32(count))
	be.PutUint32(b[batchCRCAt:], crc32.Checksum(b[batchAttributesAt:], castagnoli))
}

// stamp is the record's time in milliseconds.
func stamp(now time.Time, r *Record) int64 {
	if r.Time.IsZero() {
		return now.UnixMilli()
	}
	return r.Time.UnixMilli()
}

func bodyLen(r *Record, timeDelta int64, offsetDelta int) int {
	n := 1 + varintLen(timeDelta) + varintLen(int64(offsetDelta)) + varbytesLen(r.Key) + varbytesLen(r.Value)
	n += varintLen(int64(len(r.Headers)))
	for i := range r.Headers {
		h := &r.Headers[i]
		n += varintLen(int64(len(h.Key))) + len(h.Key) + varbytesLen(h.Value)
	}
	return n
}

func appendRecord(dst []byte, r *Record, timeDelta int64, offsetDelta int) []byte {
	dst = binary.AppendVarint(dst, int64(bodyLen(r, timeDelta, offsetDelta)))
	dst = append(dst, 0)
	dst = binary.AppendVarint(dst, timeDelta)
	dst = binary.AppendVarint(dst, int64(offsetDelta))
	dst = appendVarbytes(dst, r.Key)
	dst = appendVarbytes(dst, r.Value)
	dst = binary.AppendVarint(dst, int64(len(r.Headers)))
	for i := range r.Headers {
		h := &r.Headers[i]
		dst = binary.AppendVarint(dst, int64(len(h.Key)))
		dst = append(dst, h.Key...)
		dst = appendVarbytes(dst, h.Value)
	}
	return dst
}

// appendVarbytes keeps nil and empty apart: a nil value is a tombstone.
func appendVarbytes(dst, b []byte) []byte {
	if b == nil {
		return append(dst, 1) // zigzag of -1
	}
	return append(binary.AppendVarint(dst, int64(len(b))), b...)
}

func varbytesLen(b []byte) int {
	if b == nil {
		return 1
	}
	return varintLen(int64(len(b))) + len(b)
}

// varintLen is the length of v as a zigzag varint.
func varintLen(v int64) int {
	u := uint64(v)<<1 ^ uint64(v>>63)
	return (bits.Len64(u|1) + 6) / 7
}

// ParseBatch checks the batch that b begins with, its checksum too, and returns it with what
// follows it. It copies nothing. Errors match [ErrBadBatch].
func ParseBatch(b []byte) (Batch, []byte, error) {
	if len(b) < batchRecordsAt {
		return nil, nil, fmt.Errorf("%w: %d bytes, a header has %d", ErrBadBatch, len(b), batchRecordsAt)
	}
	if m := b[batchMagicAt]; m != batchMagic {
		return nil, nil, fmt.Errorf("%w: magic %d, want %d", ErrBadBatch, m, batchMagic)
	}
	n := int64(int32(binary.BigEndian.Uint32(b[batchLengthAt:]))) + batchEpochAt
	if n < batchRecordsAt || n > int64(len(b)) {
		return nil, nil, fmt.Errorf("%w: says %d bytes, there are %d", ErrBadBatch, n, len(b))
	}
	batch := Batch(b[:n:n])
	return batch, b[n:], batch.check()
}

func (b Batch) check() error {
	if want, got := binary.BigEndian.Uint32(b[batchCRCAt:]), crc32.Checksum(b[batchAttributesAt:], castagnoli); want != got {
		return fmt.Errorf("%w: offset %d: checksum %08x, want %08x", ErrBadBatch, b.Base(), got, want)
	}
	count, last := b.Count(), int(b.Last()-b.Base())
	if b.Base() < 0 || last < 0 || count < 1 || count > last+1 || !b.compressed() && count > len(b)-batchRecordsAt {
		return fmt.Errorf("%w: offset %d: %d records over %d offsets in %d bytes", ErrBadBatch, b.Base(), count, last+1, len(b))
	}
	return nil
}

// Base returns the offset of the first record.
func (b Batch) Base() Offset { return Offset(binary.BigEndian.Uint64(b)) }

// SetBase gives the batch its place; the checksum does not cover it.
func (b Batch) SetBase(o Offset) { binary.BigEndian.PutUint64(b, uint64(o)) }

// Epoch returns the leader epoch that the log gave, -1 if none.
func (b Batch) Epoch() int32 { return int32(binary.BigEndian.Uint32(b[batchEpochAt:])) }

// SetEpoch says under which leader epoch the batch was written; the checksum does not cover it.
func (b Batch) SetEpoch(e int32) { binary.BigEndian.PutUint32(b[batchEpochAt:], uint32(e)) }

// Producer returns who made the batch, and the sequence of its first record; -1, -1 and -1 if no idempotent producer did.
func (b Batch) Producer() (id int64, epoch int16, sequence int32) {
	be := binary.BigEndian
	return int64(be.Uint64(b[batchProducerAt:])), int16(be.Uint16(b[batchEpoch2At:])), int32(be.Uint32(b[batchSequenceAt:]))
}

// Last returns the offset of the last record.
func (b Batch) Last() Offset {
	return b.Base() + Offset(int32(binary.BigEndian.Uint32(b[batchLastDeltaAt:])))
}

// Count returns the number of records.
func (b Batch) Count() int { return int(int32(binary.BigEndian.Uint32(b[batchCountAt:]))) }

// MaxTime returns the latest record time in Unix milliseconds.
func (b Batch) MaxTime() int64 { return int64(binary.BigEndian.Uint64(b[batchMaxTimeAt:])) }

func (b Batch) baseTime() int64 { return int64(binary.BigEndian.Uint64(b[batchBaseTimeAt:])) }

// timeAt is the time of a record in Unix milliseconds, by its timestamp delta.
func (b Batch) timeAt(delta int64) int64 {
	if b.attributes()&logTimeBit != 0 {
		return b.MaxTime()
	}
	return b.baseTime() + delta
}

func (b Batch) attributes() uint16 { return binary.BigEndian.Uint16(b[batchAttributesAt:]) }

// AppendRecords decodes the records of b at offset from and after, as records of partition p, to dst.
// They alias b: who calls must own it. It stops after the record with which the records
// decoded here exceed maxBytes. Errors match [ErrBadBatch].
func (b Batch) AppendRecords(dst []Record, p Partition, from Offset, maxBytes int) ([]Record, error) {
	d, err := b.reader()
	if err != nil {
		return dst, err
	}
	if len(dst) == 0 {
		dst = growFor(dst, min(b.Count(), int(b.Last()-from)+1, maxBytes/recordLenMin+1))
	}
	for d.left > 0 && maxBytes > 0 {
		before := len(d.rest)
		r, err := d.next(from)
		if err != nil {
			return dst, err
		}
		if r.Offset >= from {
			r.Partition = p
			dst = append(dst, r)
			maxBytes -= before - len(d.rest)
		}
	}
	return dst, d.end()
}

func growFor(dst []Record, n int) []Record {
	if cap(dst) >= n || n <= 0 {
		return dst
	}
	return make([]Record, 0, n)
}

// recordLenMin is the length of a record with nothing in it.
const recordLenMin = 7

// reader returns a reader of the records of b, which it decompresses.
func (b Batch) reader() (*recordReader, error) {
	if b.attributes()&controlBit != 0 {
		return nil, fmt.Errorf("%w: offset %d: a control batch carries no records", ErrBadBatch, b.Base())
	}
	records, err := b.decompress()
	if err != nil {
		return nil, fmt.Errorf("%w: offset %d: %v", ErrBadBatch, b.Base(), err)
	}
	if b.Count() > len(records)/recordLenMin {
		return nil, fmt.Errorf("%w: offset %d: %d records in %d bytes", ErrBadBatch, b.Base(), b.Count(), len(records))
	}
	return &recordReader{batch: b, size: len(records), rest: records, left: b.Count(), previous: -1}, nil
}

// recordReader walks the records of one batch.
type recordReader struct {
	batch    Batch
	size     int // of all records
	rest     []byte
	left     int
	previous int64 // offset delta of the record before
	headers  []Header
	names    []Header // the headers of the record before: names repeat, and need not be allocated again
	bad      bool
}

func (d *recordReader) next(from Offset) (Record, error) {
	n := d.varint()
	if d.bad || n < 0 || n > int64(len(d.rest)) {
		return Record{}, d.fail("its length")
	}
	after := d.rest[n:]
	d.rest = d.rest[:n:n]
	_ = d.take(1) // attributes, unused in version 2
	timeDelta, delta := d.varint(), d.varint()
	if d.bad || delta <= d.previous || delta > int64(d.batch.Last()-d.batch.Base()) {
		return Record{}, d.fail("its offset")
	}
	r := Record{Offset: d.batch.Base() + Offset(delta), Time: d.time(timeDelta)}
	if r.Offset >= from {
		d.body(&r)
		if d.bad || len(d.rest) > 0 {
			return Record{}, d.fail("its key, value or headers")
		}
	}
	d.previous, d.rest = delta, after
	d.left--
	return r, nil
}

// end: after the last record there is nothing.
func (d *recordReader) end() error {
	if d.left == 0 && len(d.rest) > 0 {
		return fmt.Errorf("%w: offset %d: %d bytes after the last record", ErrBadBatch, d.batch.Base(), len(d.rest))
	}
	return nil
}

func (d *recordReader) body(r *Record) {
	r.Key, r.Value = d.varbytes(), d.varbytes()
	n := d.varint()
	if n < 0 || n > int64(len(d.rest)/2) { // a header takes two bytes at least
		d.bad = true
		return
	}
	if n == 0 {
		return
	}
	hs := d.room(int(n))
	for i := range hs {
		hs[i].Key = d.name(i)
		hs[i].Value = d.varbytes()
	}
	r.Headers, d.names = hs, hs
}

// headersAtOnce bounds the room that is made for headers of records that may not be read.
const headersAtOnce = 4096

// room returns space for n headers, from one allocation for many records.
func (d *recordReader) room(n int) []Header {
	if cap(d.headers)-len(d.headers) < n {
		d.headers = make([]Header, 0, max(n, min(n*d.left, d.size/2, headersAtOnce)))
	}
	at := len(d.headers)
	d.headers = d.headers[:at+n]
	return d.headers[at : at+n : at+n]
}

// name reads a header's key, sharing the string with the record before where it is the same.
func (d *recordReader) name(i int) string {
	n := d.varint()
	if n < 0 {
		d.bad = true
		return ""
	}
	b := d.take(n)
	if i < len(d.names) && d.names[i].Key == string(b) {
		return d.names[i].Key
	}
	return string(b)
}

func (d *recordReader) time(delta int64) time.Time {
	return time.UnixMilli(d.batch.timeAt(delta)).UTC()
}

func (d *recordReader) varint() int64 {
	v, n := binary.Varint(d.rest)
	if n <= 0 {
		d.bad = true
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *recordReader) varbytes() []byte {
	n := d.varint()
	if n < 0 {
		d.bad = d.bad || n != -1
		return nil
	}
	return d.take(n)
}

func (d *recordReader) take(n int64) []byte {
	if d.bad || n > int64(len(d.rest)) {
		d.bad = true
		return nil
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}

func (d *recordReader) fail(what string) error {
	return fmt.Errorf("%w: offset %d: record %d of %d: %s", ErrBadBatch, d.batch.Base(), d.batch.Count()-d.left+1, d.batch.Count(), what)
}

// RecordLen returns the bytes of a record's key, value and headers, which RecordMax bounds.
func RecordLen(r *Record) int {
	n := len(r.Key) + len(r.Value)
	for i := range r.Headers {
		n += len(r.Headers[i].Key) + len(r.Headers[i].Value)
	}
	return n
}

// CheckRecords returns ErrTooLarge, with what is and where, if a record exceeds RecordMax or all together exceed
// AppendMax. Every Log calls it before it writes.
func CheckRecords(records []Record) error {
	total := 0
	for i := range records {
		n := RecordLen(&records[i])
		if n > RecordMax {
			return fmt.Errorf("%w: record %d for %s/%d has %d bytes, at most %d", ErrTooLarge, i, records[i].Topic, records[i].Index, n, RecordMax)
		}
		total += n
	}
	if total > AppendMax {
		return fmt.Errorf("%w: append of %d bytes, at most %d", ErrTooLarge, total, AppendMax)
	}
	return nil
}
