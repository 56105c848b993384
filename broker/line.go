package broker

import (
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
)

// line is the messages of a topic and key that are committed and not delivered.
//
// INVARIANT: a line is sorted by when its messages are wanted on their topic, and then by their decisions (M1). It is the whole
// order: a delayed message stands in it from its commit on, so that whoever is decided after it is due comes behind it, also
// when its topic is missing then, or its timer late. Only the first of a line is delivered.
type line struct {
	_           struct{} `cbor:",toarray"`
	First, Last log.ID
	FirstAt     int64 // when the first is wanted, Unix ms
}

// waiter is a message's place in its line: a row of its own, so that a long line costs no more than a short one. Who comes in the middle, before those
// that are delayed for longer, is looked for from the end.
type waiter struct {
	_          struct{} `cbor:",toarray"`
	At         int64    // when it is wanted, Unix ms
	Prev, Next []byte   // the ids of its neighbours; empty at the ends
}

var (
	lines   = fold.NewTable[line]('w')               // by topic and key
	waiters = fold.NewTable[waiter]('v').Ascending() // by id
)

func lineKey(m Message) string { return m.Topic + "\x00" + m.Key }

// heldBack reports whether m, decided now, must wait behind another of its key. Mostly nobody waits in the whole topic, and a row that is
// not there is dear to look for: the topic's own is at hand.
func heldBack(rows fold.Reader, m Message) bool {
	if n, _ := uses.Get(rows, m.Topic); n.Waiting == 0 {
		return false
	}
	l, ok := lines.Get(rows, lineKey(m))
	return ok && l.FirstAt <= m.DecidedMs
}

// first reports whether a message that waits is the first of its line.
func first(rows fold.Reader, id log.ID, m Message) bool {
	l, ok := lines.Get(rows, lineKey(m))
	return ok && l.First == id
}

// queue puts a message into its line, and reports whether it is the first there.
func queue(rows fold.Rows, e *fold.Event, id log.ID, m Message) bool {
	at := m.wantedAt()
	l, ok := lines.Get(rows, lineKey(m))
	if !ok {
		lines.Put(rows, lineKey(m), line{First: id, Last: id, FirstAt: at})
		waiters.Put(rows, string(id[:]), waiter{At: at})
		return true
	}
	before := l.Last.Bytes() // the last that is wanted no later
	w := waiterOf(rows, e, before)
	for w.At > at && len(w.Prev) > 0 {
		before = w.Prev
		w = waiterOf(rows, e, before)
	}
	if w.At > at {
		w.Prev = id.Bytes()
		waiters.Put(rows, string(before), w)
		waiters.Put(rows, string(id[:]), waiter{At: at, Next: before})
		l.First, l.FirstAt = id, at
		lines.Put(rows, lineKey(m), l)
		return true
	}
	waiters.Put(rows, string(id[:]), waiter{At: at, Prev: before, Next: w.Next})
	if len(w.Next) == 0 {
		l.Last = id
		lines.Put(rows, lineKey(m), l)
	} else {
		next := waiterOf(rows, e, w.Next)
		next.Prev = id.Bytes()
		waiters.Put(rows, string(w.Next), next)
	}
	w.Next = id.Bytes()
	waiters.Put(rows, string(before), w)
	return false
}

// leave takes the first of a line out, and returns who is the first then, and when that is wanted; false if nobody.
func leave(rows fold.Rows, e *fold.Event, id log.ID, m Message) (next log.ID, at int64, ok bool) {
	l, there := lines.Get(rows, lineKey(m))
	if !there || l.First != id {
		fold.Broken(e, "message %s is %s and is not the first of its line", id, m.State)
	}
	w := waiterOf(rows, e, id.Bytes())
	waiters.Delete(rows, string(id[:]))
	if len(w.Next) == 0 {
		lines.Delete(rows, lineKey(m))
		return next, 0, false
	}
	n := waiterOf(rows, e, w.Next)
	n.Prev = nil
	waiters.Put(rows, string(w.Next), n)
	copy(l.First[:], w.Next)
	l.FirstAt = n.At
	lines.Put(rows, lineKey(m), l)
	return l.First, n.At, true
}

func waiterOf(rows fold.Reader, e *fold.Event, id []byte) waiter {
	w, ok := waiters.Get(rows, string(id))
	if !ok {
		fold.Broken(e, "message %x stands in a line and is not there", id)
	}
	return w
}
