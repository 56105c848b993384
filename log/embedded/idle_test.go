package embedded_test

import (
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/embedded"
	"github.com/remitlog/remit/log/logtest"
	"github.com/remitlog/remit/log/store"
)

// mustSend sends a batch and fails unless it stands at an offset.
func mustSend(t *testing.T, l *embedded.Log, b []byte, want log.Offset) {
	t.Helper()
	if at, err := sent(l, b); err != nil || at != want {
		t.Errorf("at %d, %v; want %d", at, err, want)
	}
}

// Idle producers are forgotten, for good; the others are not. A restart changes nothing of how idle they are.
func TestIdleProducers(t *testing.T) {
	mem, clock := vfs.NewMem(), logtest.NewClock(time.Now())
	o := options(t, mem)
	o.Clock, o.RetentionEvery = clock.Now, time.Millisecond
	l := open(t, o)
	restart := func() {
		t.Helper()
		must(t, l.Close())
		l = open(t, o)
	}
	withTopic(t, l, 1)
	old, older, young := wire(1, 0, 0, "v"), wire(2, 0, 0, "v"), wire(3, 0, 0, "v")
	mustSend(t, l, old, 0)
	mustSend(t, l, older, 1)
	clock.Advance(embedded.ProducerIdleMax / 2)
	mustSend(t, l, young, 2)
	clock.Advance(embedded.ProducerIdleMax/2 - time.Minute)
	restart()
	mustSend(t, l, old, 0)
	mustSend(t, l, older, 1)

	clock.Advance(2 * time.Minute)
	for at := log.Offset(0); at == 0; { // until it has been looked at
		var err error
		at, err = sent(l, old)
		must(t, err)
	}
	mustSend(t, l, young, 2)
	o.RetentionEvery = -1
	restart()
	mustSend(t, l, old, 3)
	mustSend(t, l, young, 2)
	mustSend(t, l, older, 4)
	must(t, l.Close())
}

// Of too many producers the longest idle is forgotten at once, in memory and on the disk.
func TestProducersMax(t *testing.T) {
	mem := vfs.NewMem()
	o := options(t, mem)
	o.MemTableBytes, o.RetentionEvery = 0, -1
	l := open(t, o)
	withTopic(t, l, 1)
	const most = embedded.ProducersMax
	var pending []*embedded.RawAppend
	send := func(b []byte) { pending = append(pending, l.AppendRaw(part(0), b)) }
	for id := range int64(most) {
		send(wire(id, 0, 0, "v"))
	}
	send(wire(0, 0, 1, "v")) // 1 is the longest idle now
	send(wire(most, 0, 0, "v"))
	for i, a := range pending {
		if at, err := a.Wait(); err != nil || at != log.Offset(i) {
			t.Fatal(i, at, err)
		}
	}
	for range 2 {
		if known, rows := l.Producers(part(0)); known != most || rows != most {
			t.Errorf("%d are known, of %d rows; want %d", known, rows, most)
		}
		mustSend(t, l, wire(0, 0, 0, "v"), 0)
		mustSend(t, l, wire(2, 0, 0, "v"), 2)
		mustSend(t, l, wire(most, 0, 0, "v"), most+1)
		must(t, l.Close())
		l = open(t, o)
	}
	mustSend(t, l, wire(1, 0, 0, "v"), most+2) // not known any more
	mustSend(t, l, wire(2, 0, 0, "v"), most+3) // forgotten for 1
	must(t, l.Close())
}

// What a start finds of producers that it must not believe, or that are too many, is dropped; on a full disk with the first append.
func TestStaleProducers(t *testing.T) {
	for _, full := range []bool{false, true} {
		mem, clock := vfs.NewMem(), logtest.NewClock(time.Now())
		var free uint64 = 1 << 40
		o := options(t, mem)
		o.MemTableBytes, o.RetentionEvery = 0, -1
		o.Clock, o.Free = clock.Now, func() (uint64, error) { return free, nil }
		l := open(t, o)
		withTopic(t, l, 1)
		_, err := l.Append(ctx, rec(0, "v"))
		must(t, err)
		topic := l.TopicID("t")
		must(t, l.Close())

		s, err := store.Open(o.Dir, store.Options{FS: mem, Fatal: o.Fatal})
		must(t, err)
		b := s.NewBatch()
		put := func(id, seen int64, records int32, base log.Offset) {
			k, v := embedded.ProducerRow(topic, id, seen, records, base)
			must(t, b.Set(k, v, nil))
		}
		const most, surplus = embedded.ProducersMax, 3
		now := clock.Now().UnixMilli()
		for id := range int64(most + surplus) {
			put(1000+id, now-id, 1, 0) // the later ids are the longer idle
		}
		put(7, now, 1, 5) // the log ends before them: it was adopted without
		put(8, now, 2, 0)
		must(t, b.Commit(pebble.Sync))
		must(t, s.Close())

		clock.Advance(time.Minute)
		want := most
		if full {
			free, want = 0, most+surplus+2
		}
		l = open(t, o)
		if known, rows := l.Producers(part(0)); known != most || rows != want {
			t.Errorf("full %t: %d are known, of %d rows; want %d of %d", full, known, rows, most, want)
		}
		free = 1 << 40
		clock.Advance(time.Minute)
		for range 2 {
			mustSend(t, l, wire(7, 0, 0, "v"), 1)
			mustSend(t, l, wire(8, 0, 0, "v", "v"), 2)
			mustSend(t, l, wire(1000, 0, 0, "v"), 0)
			if known, rows := l.Producers(part(0)); known != most || rows != most {
				t.Errorf("full %t: %d are known, of %d rows", full, known, rows)
			}
			must(t, l.Close())
			l = open(t, o)
		}
		if _, vs := readAll(t, l, part(0)); len(vs) != 4 {
			t.Errorf("%d records", len(vs))
		}
		must(t, l.Close())
	}
}
