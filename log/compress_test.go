package log

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/twmb/franz-go/pkg/kgo"
)

var codecs = map[string]kgo.CompressionCodec{
	"gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
}

// compress packs the records of a batch as franz-go does.
func compress(t testing.TB, b Batch, codec kgo.CompressionCodec) Batch {
	t.Helper()
	c, err := kgo.DefaultCompressor(codec)
	if err != nil {
		t.Fatal(err)
	}
	packed, kind := c.Compress(new(bytes.Buffer), b[batchRecordsAt:])
	return repack(b, packed, uint16(kind))
}

// repack returns b with other bytes in place of its records, and with attributes.
func repack(b Batch, records []byte, attributes uint16) Batch {
	b = append(append(Batch(nil), b[:batchRecordsAt]...), records...)
	binary.BigEndian.PutUint16(b[batchAttributesAt:], attributes)
	return seal(b)
}

// seal makes length and checksum true.
func seal(b Batch) Batch {
	binary.BigEndian.PutUint32(b[batchLengthAt:], uint32(len(b)-batchEpochAt))
	binary.BigEndian.PutUint32(b[batchCRCAt:], crc32.Checksum(b[batchAttributesAt:], castagnoli))
	return b
}

func TestCompressedBatches(t *testing.T) {
	rs := someRecords()
	plain := Batch(encode(7, rs))
	for i := range rs {
		rs[i].Offset = 7 + Offset(i)
	}
	for name, codec := range codecs {
		raw := compress(t, plain, codec)
		b, _, err := ParseBatch(raw)
		if err != nil {
			t.Fatal(name, err)
		}
		if !b.compressed() {
			t.Fatal(name, "is not compressed")
		}
		got, err := b.AppendRecords(nil, rs[0].Partition, 0, 1<<30)
		if err != nil || !reflect.DeepEqual(got, rs) {
			t.Errorf("%s: %v %v", name, err, got)
		}
		if err := b.CheckClient(batchNow.Add(time.Hour)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The Java client frames snappy.
func TestXerial(t *testing.T) {
	plain := Batch(encode(0, someRecords()))
	records := plain[batchRecordsAt:]
	framed := append(bytes.Clone(xerial), 0, 0, 0, 1, 0, 0, 0, 1)
	for _, part := range [][]byte{records[:20], records[20:]} {
		block := s2.EncodeSnappy(nil, part)
		framed = append(binary.BigEndian.AppendUint32(framed, uint32(len(block))), block...)
	}
	got, err := repack(plain, framed, codecSnappy).decompress()
	if err != nil || !bytes.Equal(got, records) {
		t.Fatal(err)
	}
	for n := len(xerial); n < len(framed); n++ {
		if got, err := repack(plain, framed[:n], codecSnappy).decompress(); err == nil && bytes.Equal(got, records) {
			t.Fatal("cut at", n)
		}
	}
}

// Few bytes that become many are refused before they have.
func TestDecompressedMax(t *testing.T) {
	plain := Batch(encode(0, []Record{{Value: make([]byte, 100)}}))
	bomb := repack(plain, make([]byte, DecompressedMax+1), 0)
	for name, codec := range codecs {
		b := compress(t, bomb, codec)
		if _, err := b.decompress(); err == nil || !strings.Contains(err.Error(), "more than") {
			t.Errorf("%s: %d bytes: %v", name, len(b), err)
		}
	}
	lie := binary.AppendUvarint(nil, DecompressedMax)
	if _, err := repack(plain, append(lie, 1, 2, 3), codecSnappy).decompress(); err == nil || !strings.Contains(err.Error(), "cannot hold") {
		t.Error(err)
	}
}

func TestCheckClient(t *testing.T) {
	good := func() Batch { return bytes.Clone(encode(0, someRecords())) }
	put := func(at int, v ...byte) Batch {
		b := good()
		copy(b[at:], v)
		return seal(b)
	}
	if err := good().CheckClient(batchNow); err != nil {
		t.Fatal(err)
	}
	counted := func(n uint32) Batch {
		b := good()
		binary.BigEndian.PutUint32(b[batchLastDeltaAt:], n-1)
		binary.BigEndian.PutUint32(b[batchCountAt:], n)
		return seal(b)
	}
	big := Batch(encode(0, []Record{{Value: make([]byte, RecordMax+1)}}))
	late := Batch(encode(0, []Record{{Value: []byte("x"), Time: batchNow.Add(TimeAheadMax + time.Second)}}))
	for name, c := range map[string]struct {
		b    Batch
		want error
	}{
		"control":       {put(batchAttributesAt, 0, controlBit), ErrBadBatch},
		"transactional": {put(batchAttributesAt, 0, transactionalBit), ErrTransactional},
		"log time":      {put(batchAttributesAt, 0, logTimeBit), ErrTime},
		"gap":           {put(batchLastDeltaAt, 0, 0, 1, 0), ErrBadBatch},
		"no sequence":   {put(batchProducerAt, 0, 0, 0, 0, 0, 0, 0, 1), ErrBadBatch},
		"cut":           {seal(good()[:len(good())-1]), ErrBadBatch},
		"more":          {seal(append(good(), 0)), ErrBadBatch},
		"large":         {big, ErrTooLarge},
		"many":          {counted(BatchRecordsMax + 1), ErrTooLarge},
		"not so many":   {counted(BatchRecordsMax), ErrBadBatch}, // they are not there
		"late":          {late, ErrTime},
		"early":         {Batch(encode(0, []Record{{Value: []byte("x"), Time: time.UnixMilli(-2)}})), ErrTime},
		"unpackable":    {put(batchAttributesAt, 0, codecZstd), ErrBadBatch},
	} {
		if err := c.b.CheckClient(batchNow); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if err := Batch(encode(0, []Record{{Value: []byte("x"), Time: time.UnixMilli(-1)}})).CheckClient(batchNow); err != nil {
		t.Errorf("a record without a time: %v", err)
	}
	wrong := put(batchMaxTimeAt, 0, 0, 0, 0, 0, 0, 0, 1)
	if err := wrong.CheckClient(batchNow); err != nil || !bytes.Equal(wrong, good()) {
		t.Errorf("the latest time was not corrected: %v", err)
	}
	// Every byte of some records, changed: it is refused, or read.
	small := encode(0, someRecords()[:3])
	for at := batchRecordsAt; at < len(small); at++ {
		b := Batch(bytes.Clone(small))
		b[at] ^= 0x21
		seal(b)
		if b.CheckClient(batchNow) != nil {
			continue
		}
		if _, err := b.AppendRecords(nil, Partition{}, 0, math.MaxInt); err != nil {
			t.Errorf("byte %d: passes, and is not read: %v", at, err)
		}
	}
}
