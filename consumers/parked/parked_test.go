package parked_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remitlog/remit/consumers"
	"github.com/remitlog/remit/consumers/parked"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/logtest"
)

// bench is a log with things that are parked.
type bench struct {
	*testing.T
	log   *logtest.Mem
	shelf *parked.Shelf
	takes map[string]error                    // why a group takes nothing; one that is not named takes all
	done  map[string]map[consumers.Place]bool // what groups have taken
	asked int                                 // how often Takes was called
}

func newBench(t *testing.T, partitions int) *bench {
	b := &bench{T: t, log: logtest.NewMem(), takes: map[string]error{}, done: map[string]map[consumers.Place]bool{}}
	b.shelf = parked.New(parked.Options{
		Log: b.log,
		Takes: func(_ context.Context, group, topic string) error {
			b.asked++
			if _, err := b.log.Topic(b.Context(), consumers.ReplayTopic(topic)); err != nil {
				t.Errorf("Takes is asked, and %v", err)
			}
			return b.takes[group]
		},
		Committed: func(_ context.Context, group string) (parked.Taken, error) {
			return func(p consumers.Place) bool { return b.done[group][p] }, nil
		},
	})
	for _, topic := range []string{"orders", "orders.parked"} {
		b.must(b.log.CreateTopic(b.Context(), log.TopicConfig{Name: topic, Partitions: partitions}))
	}
	return b
}

func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// park parks a record as of a place.
func (b *bench) park(group, key, id string, from consumers.Place) {
	b.Helper()
	b.append(parkedRecord(group, key, id, from))
}

func parkedRecord(group, key, id string, from consumers.Place) log.Record {
	e := log.Event{ID: id, Source: "/shop", Type: "order.placed.v1", Key: key, DataContentType: log.JSONContentType, Data: []byte(`{}`),
		Extensions: map[string]any{consumers.ParkedGroup: group, consumers.ParkedReason: "no account", consumers.ParkedAttempts: "3", consumers.ParkedAt: "2026-01-02T03:04:05Z",
			consumers.ParkedFrom: from.Topic, consumers.ParkedPartition: fmt.Sprint(from.Index), consumers.ParkedOffset: fmt.Sprint(from.Offset)}}
	return e.Record(log.Partition{Topic: "orders.parked", Index: from.Index})
}

func (b *bench) append(rs ...log.Record) {
	b.Helper()
	_, err := b.log.Append(b.Context(), rs...)
	b.must(err)
}

func at(topic string, index int32, offset log.Offset) consumers.Place {
	return consumers.Place{Partition: log.Partition{Topic: topic, Index: index}, Offset: offset}
}

// pages lists all, so many a page.
func (b *bench) pages(q parked.Query) (ids []string) {
	b.Helper()
	for n := 0; ; n++ {
		page, err := b.shelf.List(b.Context(), q)
		b.must(err)
		for _, r := range page.Records {
			ids = append(ids, idOf(r))
		}
		if page.Next == nil {
			return ids
		}
		if n > 1000 {
			b.Fatal("the pages do not end")
		}
		q.Cursor = page.Next
	}
}

func idOf(r parked.Record) string {
	if r.Event == nil {
		return "no event"
	}
	return r.Event.ID
}

// sent returns what was sent again, partition by partition.
func (b *bench) sent() (all []log.Record) {
	b.Helper()
	c, err := b.log.Topic(b.Context(), "orders.replay")
	b.must(err)
	for i := range c.Partitions {
		p := log.Partition{Topic: "orders.replay", Index: int32(i)}
		_, end, err := b.log.Bounds(b.Context(), p)
		b.must(err)
		if end > 0 {
			rs, err := b.log.Read(b.Context(), p, 0, 1<<30)
			b.must(err)
			all = append(all, rs...)
		}
	}
	return all
}

func (b *bench) sentIDs() (ids []string) {
	b.Helper()
	for _, r := range b.sent() {
		e, err := consumers.Original(r)
		b.must(err)
		ids = append(ids, e.ID)
	}
	return ids
}

func (b *bench) want(what string, got []string, want ...string) {
	b.Helper()
	if !slices.Equal(got, want) {
		b.Errorf("%s: %q, not %q", what, got, want)
	}
}

// TestList: the newest first over all partitions, page by page, whatever the size; and only what is asked for.
func TestList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 3)
		var times []time.Time
		var want []string
		for i := range 20 {
			group := []string{"shop", "remit.push.mail"}[i%2]
			b.park(group, fmt.Sprint("k", i), fmt.Sprint("e", i), at("orders", int32(i%3), log.Offset(i)))
			times = append(times, time.Now())
			want = append([]string{fmt.Sprint("e", i)}, want...)
			time.Sleep(time.Second)
		}
		for _, size := range []int{1, 3, 7, 20, 100} {
			b.want(fmt.Sprint("pages of ", size), b.pages(parked.Query{Topic: "orders", Size: size}), want...)
		}
		b.want("of a group", b.pages(parked.Query{Topic: "orders", Size: 4, Group: "shop", From: times[10], To: times[16]}), "e14", "e12", "e10")
		b.want("of another topic", b.pages(parked.Query{Topic: "others", Size: 4}))

		page, err := b.shelf.List(t.Context(), parked.Query{Topic: "orders", Size: 2})
		b.must(err)
		r := page.Records[0]
		if r.Parked.Reason != "no account" || r.Parked.Attempts != 3 || r.Parked.Group != "remit.push.mail" || r.Parked.From != at("orders", 1, 19) ||
			!r.Parked.At.Equal(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)) || len(r.Event.Extensions) > 0 || r.At != at("orders.parked", 1, 6) || r.Again != nil {
			t.Errorf("%+v, %+v", r, r.Event)
		}
		b.append(log.Record{Partition: log.Partition{Topic: "orders.parked"}, Value: []byte("somebody's")})
		b.want("after a new one", b.pages(parked.Query{Topic: "orders", Size: 3, Cursor: page.Next}), want[2:]...)
		b.must(b.log.Trim(t.Context(), log.Partition{Topic: "orders.parked", Index: 1}, 7))
		if got := b.pages(parked.Query{Topic: "orders", Size: 3}); len(got) != 14 || got[0] != "no event" {
			t.Errorf("after a trim: %q", got)
		}
		if _, err := b.shelf.List(t.Context(), parked.Query{Topic: "orders", Size: 3, Cursor: []byte{200, 1, 0, 0}}); !errors.Is(err, parked.ErrCursor) {
			t.Error(err)
		}
	})
}

// TestPageBounds: a page is bounded by what it looks at, and by what it has; the next goes on.
func TestPageBounds(t *testing.T) {
	b := newBench(t, 1)
	var all []log.Record
	for i := range parked.ScanMax + 10 {
		group := "many"
		if i == 0 {
			group = "one"
		}
		all = append(all, parkedRecord(group, "k", fmt.Sprint(i), at("orders", 0, log.Offset(i))))
	}
	b.append(all...)
	page, err := b.shelf.List(t.Context(), parked.Query{Topic: "orders", Group: "one", Size: 10})
	if err != nil || len(page.Records) != 0 || page.Next == nil {
		t.Errorf("%d records, %v", len(page.Records), err)
	}
	b.want("in the end", b.pages(parked.Query{Topic: "orders", Group: "one", Size: 10}), "0")
	for range 12 {
		b.append(log.Record{Partition: log.Partition{Topic: "orders.parked"}, Value: make([]byte, 1<<20)})
	}
	page, err = b.shelf.List(t.Context(), parked.Query{Topic: "orders", Size: 12})
	if err != nil || len(page.Records) != 8 {
		t.Errorf("%d records of 1 MiB, %v", len(page.Records), err)
	}
}

// TestNamed: what is named is sent again in the order of its topic, to the group that has parked it, with who asked and why; it is shown so (Y1, Y2).
func TestNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 2)
		for i := range 6 { // parked in an order of its own
			b.park("shop", "k", fmt.Sprint("e", i), at("orders", 1, log.Offset(10-i)))
		}
		res, err := b.shelf.Replay(t.Context(), parked.Request{Topic: "orders", By: "carol", Reason: "mended\n",
			Places: []consumers.Place{at("orders.parked", 1, 0), at("orders.parked", 1, 5), at("orders.parked", 1, 2), at("orders.parked", 1, 5)}})
		if err != nil || res.Total() != 3 || res.Sent["shop"] != 3 || res.More || b.asked != 1 {
			t.Errorf("%+v, %v, asked %d times", res, err, b.asked)
		}
		b.want("sent again", b.sentIDs(), "e5", "e2", "e0")
		r := b.sent()[0]
		said, err := consumers.ParseReplayed(r)
		if err != nil || said.By != "carol" || said.Reason != "mended " || said.Parked != at("orders.parked", 1, 5) || r.Index != 1 {
			t.Errorf("%+v, %v, in partition %d", said, err, r.Index)
		}
		b.done["shop"] = map[consumers.Place]bool{at("orders.replay", 1, 0): true}
		for offset, want := range map[log.Offset]string{5: "done", 2: "waits", 1: "no"} {
			r, err := b.shelf.Get(t.Context(), at("orders.parked", 1, offset))
			b.must(err)
			got := "no"
			if r.Again != nil && r.Again.By == "carol" && r.Again.Reason == "mended " && r.Again.At.Equal(time.Now()) {
				got = map[bool]string{true: "done", false: "waits"}[r.Again.Done]
			}
			if got != want {
				t.Errorf("%d is shown as %s, not %s: %+v", offset, got, want, r.Again)
			}
		}
		yes, no := true, false
		b.want("that were sent again", b.pages(parked.Query{Topic: "orders", Size: 10, Again: &yes}), "e5", "e2", "e0")
		b.want("that were not", b.pages(parked.Query{Topic: "orders", Size: 10, Again: &no}), "e4", "e3", "e1")
	})
}

// TestNamedRefused: one that cannot be sent again keeps all that are named with it.
func TestNamedRefused(t *testing.T) {
	b := newBench(t, 1)
	b.park("shop", "k", "e0", at("orders", 0, 0))
	b.park("gone", "k", "e1", at("orders", 0, 1))
	b.append(log.Record{Partition: log.Partition{Topic: "orders.parked"}, Value: []byte("somebody's")})
	missed := log.Event{ID: "m", Source: "remit", Type: "remit.subscription.missed.v1", Extensions: map[string]any{consumers.ParkedGroup: "shop",
		consumers.ParkedFrom: "orders", consumers.ParkedPartition: "0", consumers.ParkedOffset: "0"}}
	b.append(missed.Record(log.Partition{Topic: "orders.parked"}))
	b.append(parkedRecord("shop", "k", "e4", at("others", 0, 0)))
	b.takes["gone"] = errors.New("there is no subscription gone; register it")
	for offset, want := range map[log.Offset]error{1: parked.ErrNobody, 2: parked.ErrNotSendable, 3: parked.ErrNotSendable, 4: parked.ErrNotSendable, 5: parked.ErrNotParked, -1: parked.ErrNotParked} {
		res, err := b.shelf.Replay(t.Context(), parked.Request{Topic: "orders", Places: []consumers.Place{at("orders.parked", 0, 0), at("orders.parked", 0, offset)}})
		if !errors.Is(err, want) || res.Total() > 0 {
			t.Errorf("with %d: %+v, %v", offset, res, err)
		}
	}
	if _, err := b.shelf.Replay(t.Context(), parked.Request{Topic: "orders", Group: "other", Places: []consumers.Place{at("orders.parked", 0, 0)}}); !errors.Is(err, parked.ErrNotSendable) {
		t.Error(err)
	}
	if _, err := b.shelf.Replay(t.Context(), parked.Request{Topic: "none", Places: []consumers.Place{at("none.parked", 0, 0)}}); !errors.Is(err, parked.ErrNotParked) {
		t.Error(err)
	}
	if n := len(b.sent()); n > 0 {
		t.Errorf("%d were sent again", n)
	}
	res, err := b.shelf.Replay(t.Context(), parked.Request{Topic: "orders", All: true})
	if err != nil || res.Total() != 1 || len(res.Left) != 3 || res.Left[1].Group != "gone" || !strings.Contains(res.Left[1].Why, "register it") || res.Left[0].Records != 1 {
		t.Errorf("%+v, %v", res, err)
	}
}

// TestAll: all are sent once, so many at a time, each key in its order over all calls, also when the log fails in between (Y1, Y3).
func TestAll(t *testing.T) {
	const n, keys = parked.ReplayMax + 2000, 40
	b := newBench(t, 4)
	var all []log.Record
	for i := range n {
		key := i % keys
		group := "shop"
		if key == 7 {
			group = "other"
		}
		all = append(all, parkedRecord(group, fmt.Sprint("k", key), fmt.Sprintf("k%d-%05d", key, n-i), at("orders", int32(key%4), log.Offset(n-i)))) // the latest first
	}
	b.append(all...)
	fails, appends := 0, 0
	b.log.Refuse(func(rs []log.Record) error {
		if appends++; appends%4 == 0 {
			fails++
			return log.ErrDiskFull
		}
		return nil
	})
	total, calls := 0, 0
	for more := true; more; calls++ {
		res, err := b.shelf.Replay(t.Context(), parked.Request{Topic: "orders", All: true, Group: "shop"})
		if err != nil && !errors.Is(err, log.ErrDiskFull) || calls > 100 {
			t.Fatal(err)
		}
		total += res.Total()
		more = res.More || err != nil
	}
	b.log.Refuse(nil)
	if want := n - n/keys; total != want || fails < 3 {
		t.Errorf("%d were sent again, not %d, in %d calls with %d failures", total, want, calls, fails)
	}
	times, last := map[string]int{}, map[string]string{}
	for _, id := range b.sentIDs() {
		key, number, _ := strings.Cut(id, "-")
		if times[id]++; times[id] > 1 || number <= last[key] || key == "k7" {
			t.Fatalf("%s was sent again %d times, after %s", id, times[id], last[key])
		}
		last[key] = number
	}
	if res, err := b.shelf.Replay(t.Context(), parked.Request{Topic: "orders", All: true, Group: "shop"}); err != nil || res.Total() > 0 {
		t.Errorf("again: %+v, %v", res, err)
	}
}

// TestForgotten: what is known of a topic goes with it.
func TestForgotten(t *testing.T) {
	b := newBench(t, 1)
	for range 2 {
		b.park("shop", "k", "e0", at("orders", 0, 0))
		b.park("shop", "k", "e1", at("orders", 0, 1))
		if res, err := b.shelf.Replay(t.Context(), parked.Request{Topic: "orders", All: true}); err != nil || res.Total() != 2 {
			t.Errorf("%+v, %v", res, err)
		}
		for _, topic := range []string{"orders.parked", "orders.replay"} {
			b.must(b.log.DeleteTopic(t.Context(), topic))
			b.shelf.Forget(topic)
		}
		b.must(b.log.CreateTopic(t.Context(), log.TopicConfig{Name: "orders.parked", Partitions: 1}))
	}
}
