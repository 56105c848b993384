package embedded_test

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/embedded"
	"github.com/remitlog/remit/log/logtest"
	"github.com/remitlog/remit/log/store"
)

var updateGolden = flag.Bool("update-golden", false, "TestGoldenRows records rows anew; those of a released version never are")

const goldenRows = "testdata/rows.txt"

// dump returns all rows of a closed log: key and value in hex, a row a line.
func dump(t *testing.T, o embedded.Options) string {
	t.Helper()
	s, err := store.Open(o.Dir, store.Options{FS: o.FS, Fatal: o.Fatal})
	must(t, err)
	it, err := s.NewIter(nil)
	must(t, err)
	var b strings.Builder
	for it.First(); it.Valid(); it.Next() {
		fmt.Fprintf(&b, "%x %x\n", it.Key(), it.Value())
	}
	must(t, it.Close())
	must(t, s.Close())
	return b.String()
}

// Every kind of row is for ever: what is written looks as it always did, and what was written is read.
func TestGoldenRows(t *testing.T) {
	clock := logtest.NewClock(time.UnixMilli(1_800_000_000_123))
	o := options(t, vfs.NewMem())
	o.Clock, o.RetentionEvery = clock.Now, -1
	l := open(t, o)
	must(t, l.CreateTopic(ctx, log.TopicConfig{Name: "t", Partitions: 2, Retention: time.Hour, RetentionBytes: 1 << 30}))
	must(t, l.CreateTopic(ctx, log.TopicConfig{Name: "u", Partitions: 1}))
	_, err := l.Append(ctx, log.Record{Partition: part(1), Key: []byte("k"), Value: []byte("trimmed")}, rec(0, "a"))
	must(t, err)
	_, err = l.Append(ctx, log.Record{Partition: part(1), Time: clock.Now().Add(-time.Minute), Value: []byte("b"), Headers: []log.Header{{Key: "h", Value: []byte("v")}}})
	must(t, err)
	must(t, l.Trim(ctx, part(1), 1))
	for i := range int32(2) {
		b := log.AppendBatch(nil, clock.Now(), []log.Record{{Value: []byte("c")}, {}})
		mustSend(t, l, produced(b, 0x0102030405060708, 9, 2*i), log.Offset(1+2*i))
	}
	must(t, l.PutNotes(ctx, note("a note", "its value")))
	must(t, l.Close())
	got := dump(t, o)
	if *updateGolden {
		must(t, os.WriteFile(goldenRows, []byte(got), 0o644))
	}
	want, err := os.ReadFile(goldenRows)
	must(t, err)
	if got != string(want) {
		t.Errorf("rows are\n%swere\n%s", got, want)
	}

	o.FS = vfs.NewMem()
	s, err := store.Open(o.Dir, store.Options{FS: o.FS, Fatal: o.Fatal})
	must(t, err)
	kinds := map[byte]bool{}
	for line := range bytes.Lines(want) {
		k, v, _ := bytes.Cut(bytes.TrimSpace(line), []byte(" "))
		key, err := hex.DecodeString(string(k))
		must(t, err)
		value, err := hex.DecodeString(string(v))
		must(t, err)
		kinds[key[0]] = true
		must(t, s.Set(key, value, pebble.Sync))
	}
	must(t, s.Close())
	if len(kinds) != 7 {
		t.Error("not of every kind:", kinds)
	}
	epoch := int32(clock.Now().Unix() - time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Unix())
	l = open(t, o) // in the same second
	if l.Epoch() != epoch+1 {
		t.Errorf("epoch %d after %d", l.Epoch(), epoch)
	}
	topics, err := l.Topics(ctx)
	must(t, err)
	if fmt.Sprint(topics) != "[{t 2 1h0m0s 1073741824} {u 1 0s 0}]" {
		t.Error(topics)
	}
	if first, vs := readAll(t, l, part(0)); first != 0 || fmt.Sprint(vs) != "[a c  c ]" {
		t.Error(first, vs)
	}
	rs, err := l.Read(ctx, part(1), 1, 1)
	must(t, err)
	if want := (log.Record{Partition: part(1), Offset: 1, Time: clock.Now().Add(-time.Minute).UTC(), Value: []byte("b"), Headers: []log.Header{{Key: "h", Value: []byte("v")}}}); fmt.Sprint(rs) != fmt.Sprint([]log.Record{want}) {
		t.Errorf("%v, want %v", rs, want)
	}
	if _, err := l.Read(ctx, part(1), 0, 1); err == nil {
		t.Error("what was trimmed is there")
	}
	if o, err := l.OffsetAt(ctx, part(0), clock.Now()); err != nil || o != 0 {
		t.Error(o, err)
	}
	b := log.AppendBatch(nil, clock.Now(), []log.Record{{Value: []byte("c")}, {}})
	mustSend(t, l, produced(b, 0x0102030405060708, 9, 0), 1)
	mustSend(t, l, produced(b, 0x0102030405060708, 9, 2), 3)
	if got := notesOf(t, l, ""); got != "a note=its value" {
		t.Error(got)
	}
	must(t, l.CreateTopic(ctx, log.TopicConfig{Name: "w", Partitions: 1}))
	if id := l.TopicID("w"); id != 3 {
		t.Error("topic", id)
	}
	must(t, l.Close())
}
