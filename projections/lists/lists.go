// Package lists pages through the index rows of views: newest first, merged over partitions, with work that is bounded by the page.
//
// An index row's key is
//
//	table | what it is found by | place
//
// and a place is where the thing began, so that keys of one index value are in the order of time:
//
//	place = milliseconds (6 bytes) | offset (6 bytes) | which of that event (1 byte), big endian
//
// Over partitions, things of one millisecond are ordered by partition, then offset: a total order, in which a cursor is one point.
// Paging gives each thing that was there when it began once, whatever is written meanwhile.
package lists

import (
	"container/heap"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"iter"
	"time"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
)

// Limits of a page.
const (
	// PageSizeDefault is the size of a page that says none.
	PageSizeDefault = 50
	// PageSizeMax is the largest page; a larger one is cut to it.
	PageSizeMax = 1000
	// LooksMax is how many things one page looks at. Past it the page ends early, with a cursor to go on from:
	// a filter that no index serves costs no more than this a request.
	LooksMax = 20_000
)

// ErrCursor: the cursor is none that a list gave out. Begin again without one.
var ErrCursor = errors.New("lists: not a cursor of this list")

// Page says which part of a list is wanted.
type Page struct {
	Size int
	// Cursor is what the page before returned; empty for the first.
	Cursor []byte
}

// Limit returns the size that counts.
func (p Page) Limit() int {
	if p.Size <= 0 {
		return PageSizeDefault
	}
	return min(p.Size, PageSizeMax)
}

// Range is a span of time, from <= t < to; a zero time is an open end.
type Range struct{ From, To time.Time }

// Has reports whether t lies within.
func (r Range) Has(t time.Time) bool {
	return (r.From.IsZero() || !t.Before(r.From)) && (r.To.IsZero() || t.Before(r.To))
}

// Place is where on the log a thing began.
type Place struct {
	Ms        int64
	Partition int32
	Offset    log.Offset
	N         uint8 // which of the things that began with one event
}

// PlaceLen is how many bytes a place takes in a key.
const PlaceLen = 13

// Append appends a place to a key. The partition is in every key already.
func Append(key []byte, ms int64, offset log.Offset, n uint8) []byte {
	ms = max(ms, 0)
	key = append(key, byte(ms>>40), byte(ms>>32), byte(ms>>24), byte(ms>>16), byte(ms>>8), byte(ms))
	return append(key, byte(offset>>40), byte(offset>>32), byte(offset>>24), byte(offset>>16), byte(offset>>8), byte(offset), n)
}

// valueMax is the longest value that a key holds as it is.
const valueMax = 96

// Value appends what an index finds by, with its length, so that no two values run into each other. Of a long one its
// hash stands in the key: who loads the thing compares.
func Value(key []byte, s string) []byte {
	if len(s) > valueMax {
		sum := sha256.Sum256([]byte(s))
		return append(append(key, 0xff), sum[:]...)
	}
	return append(append(key, byte(len(s))), s...)
}

func read(partition int32, b string) Place {
	n := func(b string) (v int64) {
		for i := range 6 {
			v = v<<8 | int64(b[i])
		}
		return v
	}
	return Place{Ms: n(b), Partition: partition, Offset: log.Offset(n(b[6:])), N: b[12]}
}

// before reports whether p comes before q in a list: it is newer.
func (p Place) before(q Place) bool {
	switch {
	case p.Ms != q.Ms:
		return p.Ms > q.Ms
	case p.Partition != q.Partition:
		return p.Partition > q.Partition
	case p.Offset != q.Offset:
		return p.Offset > q.Offset
	default:
		return p.N > q.N
	}
}

const cursorLen = PlaceLen + 2

// Cursor returns what goes into the next Page to go on behind a place, as Merge would return it.
func (p Place) Cursor() []byte {
	b := Append(make([]byte, 0, cursorLen), p.Ms, p.Offset, p.N)
	return binary.BigEndian.AppendUint16(b, uint16(p.Partition))
}

func parseCursor(b []byte) (Place, error) {
	if len(b) != cursorLen {
		return Place{}, ErrCursor
	}
	return read(int32(binary.BigEndian.Uint16(b[PlaceLen:])), string(b[:PlaceLen])), nil
}

// Stream is the rows of one index value in one partition: all keys that are Prefix, a place, and perhaps more.
type Stream[V any] struct {
	Rows      fold.Scanner
	Partition int32
	Table     fold.Table[V]
	Prefix    string
}

// Entry is one row of a stream.
type Entry[V any] struct {
	Place Place
	Key   string // after the place
	Value V
}

// Merge pages through streams. Of each entry, newest first, load makes the thing, or says that it is not wanted. An entry of
// the same place in two streams is looked at once. The cursor returned is nil where the list ends.
func Merge[V, T any](page Page, span Range, streams []Stream[V], load func(Entry[V]) (T, bool)) ([]T, []byte, error) {
	var after *Place
	if len(page.Cursor) > 0 {
		at, err := parseCursor(page.Cursor)
		if err != nil {
			return nil, nil, err
		}
		after = &at
	}
	var heads queue[V]
	defer func() {
		for _, h := range heads {
			h.stop()
		}
	}()
	for _, s := range streams {
		if h := s.open(span, after); h.pull() {
			heads = append(heads, h)
		} else {
			h.stop()
		}
	}
	heap.Init(&heads)
	things, last, looks := make([]T, 0, min(page.Limit(), PageSizeDefault)), Place{Ms: -1}, 0
	for len(heads) > 0 {
		h := heads[0]
		if entry := h.entry; entry.Place != last {
			if len(things) == page.Limit() || looks == LooksMax {
				return things, last.Cursor(), nil
			}
			looks++
			last = entry.Place
			if thing, ok := load(entry); ok {
				things = append(things, thing)
			}
		}
		if h.pull() {
			heap.Fix(&heads, 0)
		} else {
			h.stop()
			heap.Pop(&heads)
		}
	}
	return things, nil, nil
}

// open begins to read what lies in span and behind the cursor.
func (s Stream[V]) open(span Range, after *Place) *head[V] {
	from, to := s.bounds(span, after)
	h := &head[V]{stream: s}
	h.next, h.stop = iter.Pull2(s.Table.Scan(s.Rows, from, to, true))
	return h
}

// bounds returns the scan of what lies in span and behind the cursor.
func (s Stream[V]) bounds(span Range, after *Place) (from, to string) {
	low, high := int64(0), int64(1)<<48-1
	if !span.From.IsZero() {
		low = ceil(span.From)
	}
	if !span.To.IsZero() {
		high = min(high, ceil(span.To))
	}
	key := func(ms int64, offset log.Offset, n uint8) string {
		return string(Append([]byte(s.Prefix), ms, offset, n))
	}
	from, to = key(low, 0, 0), key(high, 0, 0)
	if after != nil {
		cut := key(after.Ms, 0, 0)
		switch {
		case s.Partition < after.Partition:
			cut = key(after.Ms+1, 0, 0)
		case s.Partition == after.Partition:
			cut = key(after.Ms, after.Offset, after.N)
		}
		to = min(to, cut)
	}
	return min(from, to), to
}

// ceil is the first whole millisecond that is not before t.
func ceil(t time.Time) int64 {
	ms := t.UnixMilli()
	if time.UnixMilli(ms).Before(t) {
		ms++
	}
	return min(max(ms, 0), 1<<48-1)
}

// head is the next entry of one stream.
type head[V any] struct {
	stream Stream[V]
	next   func() (string, V, bool)
	stop   func()
	entry  Entry[V]
}

func (h *head[V]) pull() bool {
	key, value, ok := h.next()
	if !ok {
		return false
	}
	rest := key[len(h.stream.Prefix):]
	h.entry = Entry[V]{Place: read(h.stream.Partition, rest), Key: rest[PlaceLen:], Value: value}
	return true
}

// queue is a heap of heads, the newest first.
type queue[V any] []*head[V]

func (q queue[V]) Len() int           { return len(q) }
func (q queue[V]) Less(i, j int) bool { return q[i].entry.Place.before(q[j].entry.Place) }
func (q queue[V]) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *queue[V]) Push(x any)        { *q = append(*q, x.(*head[V])) }
func (q *queue[V]) Pop() any {
	old := *q
	last := old[len(old)-1]
	*q = old[:len(old)-1]
	return last
}
