package log

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

var batchNow = time.UnixMilli(1_700_000_000_123).UTC()

func someRecords() []Record {
	p := Partition{"remit.events", 3}
	return []Record{
		{Partition: p, Time: batchNow, Key: []byte("alice"), Value: []byte(`{"a":1}`),
			Headers: []Header{{"ce_id", []byte("1")}, {"ce_type", []byte("remit.x.v1")}, {"empty", []byte{}}, {"nil", nil}}},
		{Partition: p, Time: batchNow.Add(-5 * time.Second), Key: nil, Value: nil},
		{Partition: p, Time: batchNow.Add(time.Hour), Key: []byte{}, Value: []byte{}, Headers: []Header{{"ce_id", []byte("2")}, {"ce_id", []byte("3")}}},
		{Partition: p, Time: batchNow, Value: bytes.Repeat([]byte("v"), 70_000)},
	}
}

func encode(base Offset, rs []Record) Batch {
	b := Batch(AppendBatch(nil, batchNow, rs))
	b.SetBase(base)
	return b
}

func TestBatchRoundTrip(t *testing.T) {
	rs := someRecords()
	raw := encode(42, rs)
	if n := BatchLen(batchNow, rs); n != len(raw) {
		t.Fatalf("BatchLen %d, encoded %d", n, len(raw))
	}
	b, rest, err := ParseBatch(append(bytes.Clone(raw), "next"...))
	if err != nil || string(rest) != "next" {
		t.Fatal(err, rest)
	}
	if b.Base() != 42 || b.Last() != 45 || b.Count() != 4 || b.MaxTime() != batchNow.Add(time.Hour).UnixMilli() {
		t.Fatal(b.Base(), b.Last(), b.Count(), b.MaxTime())
	}
	for from := Offset(42); from <= 46; from++ {
		got, err := b.AppendRecords(nil, rs[0].Partition, from, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		want := someRecords()[from-42:]
		for i := range want {
			want[i].Offset = from + Offset(i)
		}
		if len(got) != len(want) || len(got) > 0 && !reflect.DeepEqual(got, want) {
			t.Fatalf("from %d:\n got %v\nwant %v", from, got, want)
		}
	}
	if got, err := b.AppendRecords(nil, rs[0].Partition, 42, 1); err != nil || len(got) != 1 {
		t.Fatal("one record is always returned", len(got), err)
	}
}

func TestBatchZeroTimeIsNow(t *testing.T) {
	b := encode(0, []Record{{Value: []byte("x")}, {Value: []byte("y"), Time: time.UnixMilli(7)}})
	rs, err := b.AppendRecords(nil, Partition{}, 0, 1<<20)
	if err != nil || !rs[0].Time.Equal(batchNow) || rs[1].Time.UnixMilli() != 7 || b.MaxTime() != batchNow.UnixMilli() {
		t.Fatal(rs, err)
	}
}

// What we write, kmsg reads.
func TestBatchKmsgReadsOurs(t *testing.T) {
	rs := someRecords()
	raw := encode(42, rs)
	var k kmsg.RecordBatch
	if err := k.ReadFrom(raw); err != nil {
		t.Fatal(err)
	}
	if k.FirstOffset != 42 || k.NumRecords != 4 || k.ProducerID != -1 || k.ProducerEpoch != -1 || k.FirstSequence != -1 || k.Magic != 2 || k.PartitionLeaderEpoch != -1 {
		t.Fatalf("%+v", k)
	}
	if want := crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)); uint32(k.CRC) != want {
		t.Fatalf("crc %x want %x", uint32(k.CRC), want)
	}
	rest := k.Records
	for i, want := range rs {
		n, w := binary.Varint(rest)
		var r kmsg.Record
		if err := r.ReadFrom(rest[:w+int(n)]); err != nil {
			t.Fatal(i, err)
		}
		rest = rest[w+int(n):]
		if int(r.OffsetDelta) != i || !bytes.Equal(r.Key, want.Key) || !bytes.Equal(r.Value, want.Value) || (r.Value == nil) != (want.Value == nil) ||
			r.TimestampDelta64 != want.Time.UnixMilli()-rs[0].Time.UnixMilli() || len(r.Headers) != len(want.Headers) {
			t.Fatalf("record %d: %+v", i, r)
		}
		for j, h := range r.Headers {
			if h.Key != want.Headers[j].Key || !bytes.Equal(h.Value, want.Headers[j].Value) {
				t.Fatalf("record %d header %d: %+v", i, j, h)
			}
		}
	}
	if len(rest) != 0 {
		t.Fatal(len(rest))
	}
}

// kmsgBatch encodes with kmsg alone.
func kmsgBatch(rs []Record, attributes int16) []byte {
	var body []byte
	for i := range rs {
		r := kmsg.Record{OffsetDelta: int32(i), Key: rs[i].Key, Value: rs[i].Value, TimestampDelta64: rs[i].Time.UnixMilli() - rs[0].Time.UnixMilli()}
		for _, h := range rs[i].Headers {
			r.Headers = append(r.Headers, kmsg.Header{Key: h.Key, Value: h.Value})
		}
		one := r.AppendTo(nil) // begins with Length, which is 0 here: one byte
		r.Length = int32(len(one) - 1)
		body = r.AppendTo(body)
	}
	k := kmsg.RecordBatch{FirstOffset: 7, PartitionLeaderEpoch: -1, Magic: 2, Attributes: attributes, LastOffsetDelta: int32(len(rs) - 1), ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1,
		NumRecords: int32(len(rs)), Records: body, FirstTimestamp: rs[0].Time.UnixMilli(), MaxTimestamp: rs[0].Time.UnixMilli()}
	for _, r := range rs {
		k.MaxTimestamp = max(k.MaxTimestamp, r.Time.UnixMilli())
	}
	raw := k.AppendTo(nil)
	k.Length = int32(len(raw) - 12)
	k.CRC = int32(crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	return k.AppendTo(nil)
}

// What kmsg writes, we read; and it is the same bytes.
func TestBatchReadsKmsg(t *testing.T) {
	rs := someRecords()
	raw := kmsgBatch(rs, 0)
	if ours := encode(7, rs); !bytes.Equal(ours, raw) {
		t.Fatalf("not the same bytes:\nours %x\nkmsg %x", ours[:100], raw[:100])
	}
	b, _, err := ParseBatch(raw)
	if err != nil {
		t.Fatal(err)
	}
	got, err := b.AppendRecords(nil, rs[0].Partition, 0, 1<<30)
	for i := range rs {
		rs[i].Offset = 7 + Offset(i)
	}
	if err != nil || !reflect.DeepEqual(got, rs) {
		t.Fatal(err, got)
	}
}

func TestBatchRefuses(t *testing.T) {
	rs := someRecords()
	good := encode(5, rs)
	for name, c := range map[string]struct {
		raw  []byte
		says string
	}{
		"empty":   {nil, "0 bytes"},
		"short":   {good[:60], "60 bytes"},
		"cut":     {good[:len(good)-1], "says"},
		"magic":   {flip(good, 16), "magic"},
		"flipped": {flip(good, len(good)-1), "checksum"},
		"length":  {flip(good, 8), "says"},
		"snappy":  {kmsgBatch(rs, 2), "snappy"},
		"codec":   {kmsgBatch(rs, 5), "codec 5 is not known"},
		"control": {kmsgBatch(rs, 0x20), "control"},
	} {
		b, _, err := ParseBatch(c.raw)
		if err == nil {
			_, err = b.AppendRecords(nil, Partition{}, 0, 1<<30)
		}
		if !errors.Is(err, ErrBadBatch) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want it to say %q", name, err, c.says)
		}
	}
}

func flip(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 0x40
	return b
}

func TestCheckRecords(t *testing.T) {
	big := Record{Value: make([]byte, RecordMax)}
	if err := CheckRecords([]Record{big}); err != nil {
		t.Fatal(err)
	}
	big.Key = []byte("k")
	if err := CheckRecords([]Record{big}); !errors.Is(err, ErrTooLarge) {
		t.Fatal(err)
	}
	big.Key = nil
	many := make([]Record, AppendMax/RecordMax+1)
	for i := range many {
		many[i] = big
	}
	if err := CheckRecords(many); !errors.Is(err, ErrTooLarge) {
		t.Fatal(err)
	}
}

// What is read of a batch goes by what was asked for, not by what the batch holds.
func TestLittleOfMany(t *testing.T) {
	const many, little = 200_000, 256 << 10
	for name, r := range map[string]Record{"empty": {}, "with a header": {Headers: []Header{{"h", nil}}}} {
		rs := make([]Record, many)
		for i := range rs {
			rs[i] = r
			rs[i].Time = batchNow.Add(time.Duration(i) * time.Millisecond)
		}
		b := encode(5, rs)
		n := allocated(func() {
			if got, err := b.AppendRecords(nil, Partition{}, 5, 1<<10); err != nil || len(got) < 50 || len(got) > (1<<10)/recordLenMin+1 {
				t.Errorf("%s: %d records, %v", name, len(got), err)
			}
		})
		if n > little {
			t.Errorf("%s: reading 1 KiB allocated %d bytes", name, n)
		}
		n = allocated(func() {
			if o, ok, err := b.FirstAt(5, batchNow.UnixMilli()+many-1); o != 5+many-1 || !ok || err != nil {
				t.Errorf("%s: %d %t %v", name, o, ok, err)
			}
		})
		if n > little {
			t.Errorf("%s: looking for a time allocated %d bytes", name, n)
		}
	}
}

func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// FirstAt finds what reading all would.
func TestFirstAt(t *testing.T) {
	rnd := rand.New(rand.NewPCG(4, 4))
	for range 200 {
		rs := make([]Record, 1+rnd.IntN(20))
		for i := range rs {
			rs[i].Time = batchNow.Add(time.Duration(rnd.IntN(10)) * time.Millisecond)
		}
		b := encode(7, rs)
		if rnd.IntN(4) == 0 {
			b[batchAttributesAt+1] |= logTimeBit
			seal(b)
		}
		from, ms := Offset(5+rnd.IntN(len(rs)+3)), batchNow.UnixMilli()+int64(rnd.IntN(12))-1
		all, err := b.AppendRecords(nil, Partition{}, from, math.MaxInt)
		if err != nil {
			t.Fatal(err)
		}
		if b.attributes()&logTimeBit != 0 && len(all) > 0 && all[0].Time.UnixMilli() != b.MaxTime() {
			t.Errorf("a record of %v in a batch that the log dated %d", all[0].Time, b.MaxTime())
		}
		at := slices.IndexFunc(all, func(r Record) bool { return r.Time.UnixMilli() >= ms })
		o, ok, err := b.FirstAt(from, ms)
		if err != nil || ok != (at >= 0) || ok && o != all[at].Offset {
			t.Errorf("from %d, %d: %d %t %v; of %v", from, ms, o, ok, err, all)
		}
	}
	if _, _, err := seal(encode(0, someRecords())[:100]).FirstAt(0, math.MaxInt64); !errors.Is(err, ErrBadBatch) {
		t.Error(err)
	}
}

// Whatever the bytes: no panic, and what is read is written again and read the same.
func FuzzBatch(f *testing.F) {
	f.Add([]byte(encode(3, someRecords()[:3])))
	f.Add([]byte(encode(0, []Record{{Value: []byte("x")}})))
	f.Add(kmsgBatch(someRecords()[:2], 8))
	for _, codec := range codecs {
		f.Add([]byte(compress(f, encode(0, someRecords()), codec)))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) >= batchRecordsAt { // let the fuzzer past the checksum and the length
			raw = bytes.Clone(raw)
			binary.BigEndian.PutUint32(raw[batchLengthAt:], uint32(len(raw)-batchEpochAt))
			binary.BigEndian.PutUint32(raw[batchCRCAt:], crc32.Checksum(raw[batchAttributesAt:], castagnoli))
		}
		b, _, err := ParseBatch(raw)
		if err != nil {
			return
		}
		checked := Batch(bytes.Clone(b)).CheckClient(batchNow)
		rs, err := b.AppendRecords(nil, Partition{"t", 0}, 0, 1<<30)
		if err != nil && checked == nil {
			t.Fatal("a batch that passes the check is not read:", err)
		}
		if err != nil || len(rs) != b.Count() || len(rs) != int(b.Last()-b.Base())+1 || tooFar(rs) {
			return
		}
		again := Batch(AppendBatch(nil, batchNow, rs))
		again.SetBase(b.Base())
		rs2, err := again.AppendRecords(nil, Partition{"t", 0}, 0, 1<<30)
		if err != nil || fmt.Sprint(rs) != fmt.Sprint(rs2) {
			t.Fatalf("%v\n%v\n%v", err, rs, rs2)
		}
	})
}

// tooFar: times whose distance, or whose year, an int64 of milliseconds or a time.Time does not hold.
func tooFar(rs []Record) bool {
	for _, r := range rs {
		if ms := r.Time.UnixMilli(); ms > 1<<48 || ms < -(1<<48) || r.Time.IsZero() {
			return true
		}
	}
	return false
}

func BenchmarkBatch(b *testing.B) {
	rs := make([]Record, 16)
	for i := range rs {
		rs[i] = Record{Key: []byte("payer-1"), Value: make([]byte, 300), Headers: []Header{{"ce_id", []byte("0123456789")}, {"ce_type", []byte("remit.x.y.v1")}}}
	}
	raw := encode(0, rs)
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(raw)))
		dst := make([]byte, 0, len(raw))
		for b.Loop() {
			dst = AppendBatch(dst[:0], batchNow, rs)
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(raw)))
		for b.Loop() {
			p, _, _ := ParseBatch(raw)
			_, _ = p.AppendRecords(nil, Partition{}, 0, 1<<30)
		}
	})
}
