package logtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/remitlog/remit/log"
)

// patience bounds what should come at once; it is met only by a failure.
const patience = 30 * time.Second

// Exercise holds a Log against the contract of package log. open returns a log without topics of its name; it is closed here.
func Exercise(t *testing.T, open func(*testing.T) log.Log) {
	for _, c := range []struct {
		name string
		run  func(*bench)
	}{
		{"RecordsComeBack", recordsComeBack},
		{"OffsetsInOrder", offsetsInOrder},
		{"ReadWaitsForTheFirst", readWaits},
		{"ReadIsBounded", readIsBounded},
		{"ReadOutOfRange", readOutOfRange},
		{"ReadsAreTheCallers", readsAreTheCallers},
		{"RefusedIsNotWritten", refusedIsNotWritten},
		{"AllOrNoneOverPartitions", allOrNone},
		{"ManyWritersManyReaders", manyWriters},
		{"OffsetAt", offsetAt},
		{"OffsetAtAgainstASimpleOne", offsetAtModel},
		{"Topics", topics},
		{"TopicNames", topicNames},
		{"DeleteStartsAnew", deleteStartsAnew},
		{"DeleteWakesReaders", deleteWakesReaders},
		{"MorePartitions", morePartitions},
		{"Trim", trim},
		{"Size", size},
		{"Close", closes},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := &bench{T: t, Log: open(t)}
			b.gapless = b.Features().GaplessOffsets
			defer func() { _ = b.Log.Close() }()
			c.run(b)
		})
	}
}

// bench is a log under test.
type bench struct {
	*testing.T
	log.Log
	gapless bool
}

func (b *bench) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	b.Cleanup(cancel)
	return ctx
}

func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// topic makes one, of a name of this test's own.
func (b *bench) topic(partitions int) string {
	b.Helper()
	name := strings.Map(func(r rune) rune {
		if r == '/' {
			return '.'
		}
		return r
	}, b.Name())
	b.must(b.CreateTopic(b.ctx(), log.TopicConfig{Name: name, Partitions: partitions}))
	return name
}

func (b *bench) append(rs ...log.Record) []log.Offset {
	b.Helper()
	offsets, err := b.Append(b.ctx(), rs...)
	b.must(err)
	if len(offsets) != len(rs) {
		b.Fatalf("%d offsets for %d records", len(offsets), len(rs))
	}
	return offsets
}

// all reads a partition from first to end.
func (b *bench) all(p log.Partition) []log.Record {
	b.Helper()
	first, end, err := b.Bounds(b.ctx(), p)
	b.must(err)
	var rs []log.Record
	for at := first; at < end; {
		more, err := b.Read(b.ctx(), p, at, 1<<20)
		b.must(err)
		rs = append(rs, more...)
		at = more[len(more)-1].Offset + 1
	}
	return rs
}

func text(p log.Partition, s string) log.Record { return log.Record{Partition: p, Value: []byte(s)} }

func values(rs []log.Record) (s []string) {
	for _, r := range rs {
		s = append(s, string(r.Value))
	}
	return s
}

func recordsComeBack(b *bench) {
	p := log.Partition{Topic: b.topic(2), Index: 1}
	at := time.UnixMilli(1_700_000_000_123).UTC()
	want := []log.Record{
		{Partition: p, Time: at, Key: []byte("k"), Value: []byte("v"), Headers: []log.Header{{Key: "a", Value: []byte("1")}, {Key: "a", Value: []byte("2")}, {Key: "empty", Value: []byte{}}}},
		{Partition: p, Time: at.Add(-time.Hour), Value: nil, Key: []byte("tombstone")},
		{Partition: p, Time: at.Add(time.Hour), Value: []byte{}},
		{Partition: p, Time: at, Value: bytes.Repeat([]byte("x"), 300_000)},
	}
	offsets := b.append(want...)
	before := time.Now()
	b.append(text(p, "no time"))
	got := b.all(p)
	if len(got) != 5 {
		b.Fatal(len(got), "records")
	}
	for i, w := range want {
		g := got[i]
		if g.Offset != offsets[i] || g.Partition != p || !g.Time.Equal(w.Time) || !bytes.Equal(g.Key, w.Key) || !bytes.Equal(g.Value, w.Value) || (g.Value == nil) != (w.Value == nil) || len(g.Headers) != len(w.Headers) {
			b.Fatalf("record %d: %+v", i, g)
		}
		for j, h := range w.Headers {
			if g.Headers[j].Key != h.Key || !bytes.Equal(g.Headers[j].Value, h.Value) {
				b.Fatalf("record %d header %d: %+v", i, j, g.Headers[j])
			}
		}
	}
	if now := got[4].Time; now.Before(before.Add(-time.Hour)) || now.After(time.Now().Add(time.Hour)) || now.Nanosecond()%1e6 != 0 {
		b.Fatal("a record without a time is made now, in whole milliseconds:", now)
	}
}

// G1.
func offsetsInOrder(b *bench) {
	p := log.Partition{Topic: b.topic(1)}
	last, n := log.Offset(-1), 0
	for i := range 20 {
		var rs []log.Record
		for j := range i%3 + 1 {
			rs = append(rs, text(p, fmt.Sprintf("%d.%d", i, j)))
		}
		for _, o := range b.append(rs...) {
			if o <= last || b.gapless && o != last+1 {
				b.Fatal(o, "after", last)
			}
			last = o
			n++
		}
	}
	if _, end, err := b.Bounds(b.ctx(), p); err != nil || end != last+1 {
		b.Fatal(end, last, err)
	}
	if got := b.all(p); len(got) != n || !slices.IsSortedFunc(got, func(a, c log.Record) int { return int(a.Offset - c.Offset) }) {
		b.Fatal(len(got), n)
	}
	if offsets, err := b.Append(b.ctx()); err != nil || len(offsets) != 0 {
		b.Fatal("an empty append does nothing", offsets, err)
	}
}

func readWaits(b *bench) {
	p := log.Partition{Topic: b.topic(1)}
	type answer struct {
		rs  []log.Record
		err error
	}
	got := make(chan answer, 3)
	for range 3 {
		go func() {
			rs, err := b.Read(b.ctx(), p, 0, 100)
			got <- answer{rs, err}
		}()
	}
	b.append(text(p, "first"))
	for range 3 {
		if a := <-got; a.err != nil || len(a.rs) != 1 || string(a.rs[0].Value) != "first" {
			b.Fatal(a)
		}
	}
	ctx, cancel := context.WithCancel(b.ctx())
	go func() {
		rs, err := b.Read(ctx, p, 1, 100)
		got <- answer{rs, err}
	}()
	cancel()
	if a := <-got; !errors.Is(a.err, context.Canceled) {
		b.Fatal(a)
	}
}

func readIsBounded(b *bench) {
	p := log.Partition{Topic: b.topic(1)}
	var rs []log.Record
	for range 40 {
		rs = append(rs, log.Record{Partition: p, Value: make([]byte, 1000)})
	}
	b.append(rs[:20]...)
	for _, r := range rs[20:] {
		b.append(r)
	}
	for _, maxBytes := range []int{-1, 0, 1, 5000, 30_000, 1 << 20} {
		got, err := b.Read(b.ctx(), p, 0, maxBytes)
		b.must(err)
		if len(got) == 0 || len(got) > max(1, maxBytes/1000+1) {
			b.Fatalf("%d records of 1000 bytes for %d", len(got), maxBytes)
		}
	}
	for from := log.Offset(0); from < 40; from++ {
		got, err := b.Read(b.ctx(), p, from, 1)
		b.must(err)
		if len(got) != 1 || got[0].Offset < from || b.gapless && got[0].Offset != from {
			b.Fatal(from, got)
		}
	}
}

func readOutOfRange(b *bench) {
	p := log.Partition{Topic: b.topic(1)}
	offsets := b.append(text(p, "a"), text(p, "b"))
	b.must(b.Trim(b.ctx(), p, offsets[1]))
	for _, from := range []log.Offset{-1, offsets[1] - 1, offsets[1] + 2, 1 << 60} {
		_, err := b.Read(b.ctx(), p, from, 100)
		var r *log.RangeError
		if !errors.As(err, &r) || r.First != offsets[1] || r.End != offsets[1]+1 || r.From != from || r.Partition != p {
			b.Fatal(from, err)
		}
	}
}

func readsAreTheCallers(b *bench) {
	p := log.Partition{Topic: b.topic(1)}
	mine := []byte("mine")
	b.append(log.Record{Partition: p, Key: mine, Value: mine})
	copy(mine, "gone")
	got := b.all(p)
	if string(got[0].Value) != "mine" {
		b.Fatal(got)
	}
	copy(got[0].Value, "xxxx")
	copy(got[0].Key, "yyyy")
	if again := b.all(p); string(again[0].Value) != "mine" || string(again[0].Key) != "mine" {
		b.Fatal(again)
	}
}

func refusedIsNotWritten(b *bench) {
	p := log.Partition{Topic: b.topic(1)}
	good := text(p, "good")
	gone, cancel := context.WithCancel(b.ctx())
	cancel()
	for name, c := range map[string]struct {
		ctx  context.Context
		rs   []log.Record
		want error
	}{
		"unknown topic":      {b.ctx(), []log.Record{good, text(log.Partition{Topic: "nowhere"}, "x")}, log.ErrUnknownTopic},
		"unknown partition":  {b.ctx(), []log.Record{good, text(log.Partition{Topic: p.Topic, Index: 1}, "x")}, log.ErrUnknownPartition},
		"negative partition": {b.ctx(), []log.Record{good, text(log.Partition{Topic: p.Topic, Index: -1}, "x")}, log.ErrUnknownPartition},
		"too large":          {b.ctx(), []log.Record{good, {Partition: p, Value: make([]byte, log.RecordMax+1)}}, log.ErrTooLarge},
		"cancelled":          {gone, []log.Record{good}, context.Canceled},
	} {
		if _, err := b.Append(c.ctx, c.rs...); !errors.Is(err, c.want) {
			b.Errorf("%s: %v", name, err)
		}
	}
	if _, err := b.Read(b.ctx(), log.Partition{Topic: "nowhere"}, 0, 1); !errors.Is(err, log.ErrUnknownTopic) {
		b.Error(err)
	}
	if _, _, err := b.Bounds(b.ctx(), log.Partition{Topic: p.Topic, Index: 7}); !errors.Is(err, log.ErrUnknownPartition) {
		b.Error(err)
	}
	if rs := b.all(p); len(rs) != 0 {
		b.Fatal("written all the same:", values(rs))
	}
	if offsets := b.append(good); b.gapless && offsets[0] != 0 {
		b.Fatal(offsets)
	}
}

// G3. Every append writes the same value to two partitions, in whichever order.
func allOrNone(b *bench) {
	topic := b.topic(4)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 1))
			for i := range 25 {
				v := fmt.Sprintf("%d-%d", w, i)
				x, y := int32(rng.IntN(4)), int32(rng.IntN(4))
				rs := []log.Record{text(log.Partition{Topic: topic, Index: x}, v), text(log.Partition{Topic: topic, Index: y}, v)}
				offsets, err := b.Append(context.Background(), rs...)
				if err != nil || len(offsets) != 2 || x == y && offsets[1] <= offsets[0] {
					b.Error(offsets, err)
				}
			}
		})
	}
	wg.Wait()
	seen := map[string]int{}
	for i := range int32(4) {
		for _, v := range values(b.all(log.Partition{Topic: topic, Index: i})) {
			seen[v]++
		}
	}
	for v, n := range seen {
		if n != 2 {
			b.Error(v, n)
		}
	}
	if len(seen) != 200 {
		b.Fatal(len(seen))
	}
}

// G1, G2: what each writer wrote comes in its order to every reader, with no record twice, at the offset that was given.
func manyWriters(b *bench) {
	p := log.Partition{Topic: b.topic(1)}
	const writers, each = 8, 40
	var given sync.Map
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				v := fmt.Sprintf("%d %d", w, i)
				offsets, err := b.Append(context.Background(), text(p, v))
				if err != nil {
					b.Error(err)
					return
				}
				given.Store(offsets[0], v)
			}
		})
	}
	reads := make([][]log.Record, 4)
	for r := range reads {
		wg.Go(func() {
			for at := log.Offset(0); len(reads[r]) < writers*each; {
				rs, err := b.Read(b.ctx(), p, at, 500*(r+1))
				if err != nil {
					b.Error(err)
					return
				}
				reads[r] = append(reads[r], rs...)
				at = rs[len(rs)-1].Offset + 1
			}
		})
	}
	wg.Wait()
	for _, rs := range reads {
		next := [writers]int{}
		for _, r := range rs {
			var w, i int
			if _, err := fmt.Sscan(string(r.Value), &w, &i); err != nil || next[w] != i {
				b.Fatalf("writer %d: %d, want %d", w, i, next[w])
			}
			next[w]++
			if v, ok := given.Load(r.Offset); !ok || v != string(r.Value) {
				b.Fatal(r.Offset, v, string(r.Value))
			}
		}
	}
}

func offsetAt(b *bench) {
	p := log.Partition{Topic: b.topic(1)}
	at := time.UnixMilli(1_700_000_000_000)
	find := func(t time.Time) log.Offset {
		b.Helper()
		o, err := b.OffsetAt(b.ctx(), p, t)
		b.must(err)
		return o
	}
	if o := find(at); o != 0 {
		b.Fatal("empty:", o)
	}
	var offsets []log.Offset
	for i := range 10 {
		offsets = append(offsets, b.append(
			log.Record{Partition: p, Time: at.Add(time.Duration(2*i) * time.Second)},
			log.Record{Partition: p, Time: at.Add(time.Duration(2*i+1) * time.Second)})...)
	}
	for i, o := range offsets {
		if got := find(at.Add(time.Duration(i) * time.Second)); got != o {
			b.Fatal(i, got, o)
		}
		if got := find(at.Add(time.Duration(i)*time.Second - time.Microsecond)); got != o {
			b.Fatal(i, got, o)
		}
	}
	if _, end, _ := b.Bounds(b.ctx(), p); find(at.Add(time.Hour)) != end {
		b.Fatal("none is so young: the end")
	}
	b.must(b.Trim(b.ctx(), p, offsets[5]))
	if got := find(at); got != offsets[5] {
		b.Fatal("trimmed:", got, offsets[5])
	}
}

// offsetAtModel: times in any order, against a simple search.
func offsetAtModel(b *bench) {
	p := log.Partition{Topic: b.topic(1)}
	rng := rand.New(rand.NewPCG(4, 4))
	for range 40 {
		var rs []log.Record
		for range 1 + rng.IntN(3) {
			rs = append(rs, log.Record{Partition: p, Time: time.UnixMilli(1_700_000_000_000 + rng.Int64N(60))})
		}
		b.append(rs...)
	}
	for _, to := range []int{0, 7, 30} {
		all := b.all(p)
		b.must(b.Trim(b.ctx(), p, all[to].Offset))
		all = b.all(p)
		_, end, err := b.Bounds(b.ctx(), p)
		b.must(err)
		for ms := int64(1_700_000_000_000 - 1); ms < 1_700_000_000_062; ms++ {
			want := end
			if i := slices.IndexFunc(all, func(r log.Record) bool { return r.Time.UnixMilli() >= ms }); i >= 0 {
				want = all[i].Offset
			}
			if got, err := b.OffsetAt(b.ctx(), p, time.UnixMilli(ms)); err != nil || got != want {
				b.Fatal(to, ms, got, want, err)
			}
		}
	}
}

func topics(b *bench) {
	name := b.topic(3)
	same := log.TopicConfig{Name: name, Partitions: 3}
	b.must(b.CreateTopic(b.ctx(), same))
	other := log.TopicConfig{Name: name, Partitions: 4}
	if err := b.CreateTopic(b.ctx(), other); !errors.Is(err, log.ErrTopicExists) {
		b.Fatal(err)
	}
	b.must(b.CreateTopic(b.ctx(), log.TopicConfig{Name: name + ".b", Partitions: 1, Retention: time.Hour}))
	got, err := b.Topic(b.ctx(), name)
	if err != nil || got != same {
		b.Fatal(got, err)
	}
	all, err := b.Topics(b.ctx())
	b.must(err)
	if !slices.Contains(all, same) || !slices.Contains(all, log.TopicConfig{Name: name + ".b", Partitions: 1, Retention: time.Hour}) ||
		!slices.IsSortedFunc(all, func(x, y log.TopicConfig) int { return strings.Compare(x.Name, y.Name) }) {
		b.Fatal(all)
	}
	kept := log.TopicConfig{Name: name, Partitions: 3, Retention: time.Hour, RetentionBytes: 1 << 20}
	b.must(b.ConfigureTopic(b.ctx(), kept))
	if got, err = b.Topic(b.ctx(), name); err != nil || got != kept {
		b.Fatal(got, err)
	}
	if err := b.ConfigureTopic(b.ctx(), log.TopicConfig{Name: name, Partitions: 2}); !errors.Is(err, log.ErrFewerPartitions) {
		b.Fatal(err)
	}
	for _, err := range []error{b.ConfigureTopic(b.ctx(), log.TopicConfig{Name: "nowhere", Partitions: 1}), b.DeleteTopic(b.ctx(), "nowhere"), b.Trim(b.ctx(), log.Partition{Topic: "nowhere"}, 0)} {
		if !errors.Is(err, log.ErrUnknownTopic) {
			b.Fatal(err)
		}
	}
	if _, err := b.Topic(b.ctx(), "nowhere"); !errors.Is(err, log.ErrUnknownTopic) {
		b.Fatal(err)
	}
}

func topicNames(b *bench) {
	for _, c := range []log.TopicConfig{
		{Partitions: 1}, {Name: "a b", Partitions: 1}, {Name: "..", Partitions: 1}, {Name: "a/b", Partitions: 1}, {Name: strings.Repeat("a", log.TopicNameMax+1), Partitions: 1},
		{Name: "a"}, {Name: "a", Partitions: log.PartitionsMax + 1}, {Name: "a", Partitions: 1, Retention: -1},
	} {
		if err := b.CreateTopic(b.ctx(), c); !errors.Is(err, log.ErrInvalid) {
			b.Errorf("%+v: %v", c, err)
		}
	}
}

func deleteStartsAnew(b *bench) {
	p := log.Partition{Topic: b.topic(2), Index: 1}
	b.append(text(p, "old"), text(p, "old"), text(p, "old"))
	b.must(b.Trim(b.ctx(), p, 2))
	b.must(b.DeleteTopic(b.ctx(), p.Topic))
	if _, err := b.Append(b.ctx(), text(p, "x")); !errors.Is(err, log.ErrUnknownTopic) {
		b.Fatal(err)
	}
	b.must(b.CreateTopic(b.ctx(), log.TopicConfig{Name: p.Topic, Partitions: 2}))
	if first, end, err := b.Bounds(b.ctx(), p); err != nil || first != 0 || end != 0 {
		b.Fatal(first, end, err)
	}
	b.append(text(p, "new"))
	if got := values(b.all(p)); !slices.Equal(got, []string{"new"}) {
		b.Fatal(got)
	}
}

func deleteWakesReaders(b *bench) {
	p := log.Partition{Topic: b.topic(1)}
	got := make(chan error, 1)
	go func() {
		_, err := b.Read(b.ctx(), p, 0, 1)
		got <- err
	}()
	b.must(b.DeleteTopic(b.ctx(), p.Topic))
	if err := <-got; !errors.Is(err, log.ErrUnknownTopic) {
		b.Fatal(err)
	}
}

func morePartitions(b *bench) {
	p := log.Partition{Topic: b.topic(1)}
	b.append(text(p, "a"))
	b.must(b.ConfigureTopic(b.ctx(), log.TopicConfig{Name: p.Topic, Partitions: 3}))
	q := log.Partition{Topic: p.Topic, Index: 2}
	b.append(text(q, "c"), text(p, "b"))
	if x, y := values(b.all(p)), values(b.all(q)); !slices.Equal(x, []string{"a", "b"}) || !slices.Equal(y, []string{"c"}) {
		b.Fatal(x, y)
	}
}

func trim(b *bench) {
	p := log.Partition{Topic: b.topic(2)}
	offsets := b.append(text(p, "a"), text(p, "b"), text(p, "c"))
	offsets = append(offsets, b.append(text(p, "d"))...)
	other := log.Partition{Topic: p.Topic, Index: 1}
	b.append(text(other, "x"))
	b.must(b.Trim(b.ctx(), p, offsets[1])) // in the middle of an append
	if got := values(b.all(p)); !slices.Equal(got, []string{"b", "c", "d"}) {
		b.Fatal(got)
	}
	b.must(b.Trim(b.ctx(), p, offsets[0])) // nothing to do
	if first, _, err := b.Bounds(b.ctx(), p); err != nil || first != offsets[1] {
		b.Fatal(first, err)
	}
	_, end, err := b.Bounds(b.ctx(), p)
	b.must(err)
	if err := b.Trim(b.ctx(), p, end+1); !errors.Is(err, log.ErrOffsetOutOfRange) {
		b.Fatal(err)
	}
	b.must(b.Trim(b.ctx(), p, end))
	if first, e, err := b.Bounds(b.ctx(), p); err != nil || first != end || e != end {
		b.Fatal(first, e, err)
	}
	if o := b.append(text(p, "e")); o[0] < end || b.gapless && o[0] != end {
		b.Fatal("offsets are not given again:", o, end)
	}
	if got := values(b.all(other)); !slices.Equal(got, []string{"x"}) {
		b.Fatal(got)
	}
}

func size(b *bench) {
	p := log.Partition{Topic: b.topic(1)}
	if n, err := b.Size(b.ctx(), p); err != nil || n != 0 {
		b.Fatal(n, err)
	}
	var offsets []log.Offset
	for range 10 {
		offsets = append(offsets, b.append(log.Record{Partition: p, Value: make([]byte, 10_000)})...)
	}
	full, err := b.Size(b.ctx(), p)
	if err != nil || full < 1000 {
		b.Fatal(full, err)
	}
	b.must(b.Trim(b.ctx(), p, offsets[9]))
	if n, err := b.Size(b.ctx(), p); err != nil || n > full {
		b.Fatal(n, full, err)
	}
}

func closes(b *bench) {
	p := log.Partition{Topic: b.topic(1)}
	got := make(chan error, 1)
	go func() {
		_, err := b.Read(context.Background(), p, 0, 1)
		got <- err
	}()
	b.must(b.Close())
	if err := <-got; !errors.Is(err, log.ErrClosed) {
		b.Fatal(err)
	}
	_, err := b.Append(b.ctx(), text(p, "x"))
	if !errors.Is(err, log.ErrClosed) {
		b.Fatal(err)
	}
	if err := b.CreateTopic(b.ctx(), log.TopicConfig{Name: "x", Partitions: 1}); !errors.Is(err, log.ErrClosed) {
		b.Fatal(err)
	}
	if _, err := b.Topics(b.ctx()); !errors.Is(err, log.ErrClosed) {
		b.Fatal(err)
	}
}
