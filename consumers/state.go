package consumers

import (
	"container/heap"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"github.com/remitlog/remit/log"
)

// state is what is held of the assigned partitions, and what is to be done next. It has no goroutine, no clock and no I/O: the
// run drives it.
//
// A key's records wait in a lane. A lane is in one of these places:
//
//	ready    in state.ready: take hands its first record out
//	running  its first record is out; done, failed or dropped brings it back
//	waiting  in state.waiting, until it is due; wake makes it ready
type state struct {
	opts    *Options
	parts   map[log.Partition]*partition
	ready   []*lane // in the order in which they became so
	waiting dueLanes
	bytes   int64
}

// partition is one that is assigned, and that a record came from.
type partition struct {
	id    log.Partition
	lanes map[laneKey]*lane
	// window has a place for each record from the lowest unfinished one on, in the order of offsets, which may have gaps.
	window    []place
	next      log.Offset // one past the last record that came
	before    progress   // what was done when it was assigned
	committed commitment // what the group has, as far as we know
	held      int        // records that wait or are out
	paused    bool
	leaving   bool // let go: only what is out is still held
	gone      bool // another's: what is still out does not count
}

type place struct {
	offset log.Offset
	done   bool
	failed failed
}

// failed is what is kept of a record's failures, over restarts too.
type failed struct {
	times int
	// spent is how long it has been tried: attempts, and the waits between them, of which each failure that counts adds what passed since the
	// attempt before. What an outage took is not in it, and not what passed while nobody ran.
	spent time.Duration
}

// commitment is what is committed of a partition.
type commitment struct {
	next     log.Offset
	progress string
}

// laneKey is a record's key; a record without one has a lane of its own.
type laneKey struct {
	key     string
	keyless log.Offset // its offset; -1 for a key
}

type lane struct {
	part  *partition
	key   laneKey
	queue []*item // the first one is out while the lane is running
	out   bool    // running
	due   time.Time
}

// item is one record that is held.
type item struct {
	lane   *lane
	record log.Record
	event  log.Event
	cause  error     // why it is no event
	replay bool      // it was parked before, and is sent again
	other  bool      // it is sent again to another group
	reason string    // why it is to be parked; empty while it is not
	tries  int       // attempts of the handler
	failed failed    // those that count
	since  time.Time // when the last attempt ended, or the first began
	parks  int       // attempts to park
	size   int64
}

// newItem reads a record.
func newItem(r log.Record, group string, replay bool) *item {
	const overhead = 512 // what an item takes beside its bytes, about
	it := &item{record: r, replay: replay, size: int64(overhead + len(r.Key) + 2*len(r.Value))}
	for _, h := range r.Headers {
		it.size += int64(len(h.Key) + 2*len(h.Value)) // at most: once in the record, once in the event
	}
	if !replay {
		it.event, it.cause = log.ParseRecord(r)
		return it
	}
	it.event, it.cause = Original(r)
	it.other = !replayFor(r, group)
	return it
}

func (it *item) laneKey() laneKey {
	key := string(it.record.Key)
	if it.cause == nil {
		key = it.event.Key
	}
	if key == "" {
		return laneKey{keyless: it.record.Offset}
	}
	return laneKey{key: key, keyless: -1}
}

// add takes what was polled; before tells what was done of a partition that is new. A record at or below the last one of its partition is held
// already, or done.
func (s *state) add(items []*item, before func(log.Partition) string) {
	for _, it := range items {
		p := s.parts[it.record.Partition]
		if p == nil {
			p = &partition{id: it.record.Partition, lanes: map[laneKey]*lane{}, next: it.record.Offset}
			text := before(p.id)
			p.before, p.committed = parseProgress(text), commitment{it.record.Offset, text}
			s.parts[p.id] = p
		}
		if it.record.Offset < p.next {
			continue
		}
		p.next = it.record.Offset + 1
		done, failed := p.before.done(it.record.Offset)
		done = done || it.other
		p.window = append(p.window, place{offset: it.record.Offset, done: done, failed: failed})
		if done {
			p.trim()
			continue
		}
		it.tries, it.failed = failed.times, failed
		p.held++
		s.bytes += it.size
		s.queue(p, it)
	}
}

func (s *state) queue(p *partition, it *item) {
	key := it.laneKey()
	l := p.lanes[key]
	if l == nil {
		l = &lane{part: p, key: key}
		p.lanes[key] = l
		s.ready = append(s.ready, l)
	}
	it.lane = l
	l.queue = append(l.queue, it)
	if it.cause != nil && s.opts.NotEvent == nil {
		it.reason = attributeText(it.cause.Error())
	}
}

// take hands out the next record, nil if there is none.
func (s *state) take(now time.Time) *item {
	for len(s.ready) > 0 {
		l := s.ready[0]
		s.ready[0] = nil
		s.ready = s.ready[1:]
		if len(l.queue) == 0 {
			continue // its partition was let go
		}
		it := l.queue[0]
		l.out = true
		if it.since.IsZero() {
			it.since = now
		}
		if it.reason == "" {
			it.tries++
		} else {
			it.parks++
		}
		return it
	}
	return nil
}

// done: it was handled, or stands on the parked topic. The next of its key is ready.
func (s *state) done(it *item) {
	l := it.lane
	l.out = false
	l.part.finish(it.record.Offset)
	s.drop(l, 0, 1)
	if len(l.queue) > 0 {
		s.ready = append(s.ready, l)
	}
}

// dropped: it was not finished, and its partition is leaving. Its next owner has it again, and what follows it.
func (s *state) dropped(it *item) {
	it.lane.out = false
	s.drop(it.lane, 0, len(it.lane.queue))
}

// drop takes records out of a lane, from the one at an index to before another.
func (s *state) drop(l *lane, from, to int) {
	for _, it := range l.queue[from:to] {
		s.bytes -= it.size
		l.part.held--
	}
	l.queue = slices.Delete(l.queue, from, to)
	if len(l.queue) == 0 {
		delete(l.part.lanes, l.key)
	}
}

// failed: the attempt was in vain. Its key waits, for as long as is returned; or it is to be parked, at once.
func (s *state) failed(now time.Time, it *item, err error) (after time.Duration, park bool) {
	it.lane.out = false
	since := it.since
	it.since = now
	var refused *refusal
	switch {
	case it.reason != "": // the parked topic did not take it
		return s.wait(now, it, it.parks), false
	case errors.As(err, &refused):
		it.reason = attributeText(refused.Error())
	case s.opts.Outage(err):
		return s.wait(now, it, it.tries), false
	default:
		it.failed.times++
		it.failed.spent += now.Sub(since)
		it.lane.part.place(it.record.Offset).failed = it.failed
		if left, ok := s.patience(it.failed); ok {
			return s.waitAtMost(now, it, it.tries, left), false
		}
		it.reason = attributeText(err.Error())
	}
	s.ready = append(s.ready, it.lane)
	return 0, true
}

// patience is how long a delivery with such failures may still wait; not ok is no longer.
func (s *state) patience(f failed) (left time.Duration, ok bool) {
	switch {
	case f.times >= s.opts.AttemptsMax:
		return 0, false
	case s.opts.RetryMax == 0:
		return s.opts.BackoffMax, true
	default:
		return s.opts.RetryMax - f.spent, f.spent < s.opts.RetryMax
	}
}

func (s *state) wait(now time.Time, it *item, tries int) time.Duration {
	return s.waitAtMost(now, it, tries, s.opts.BackoffMax)
}

func (s *state) waitAtMost(now time.Time, it *item, tries int, most time.Duration) time.Duration {
	after := min(s.backoff(it, tries), most)
	it.lane.due = now.Add(after)
	heap.Push(&s.waiting, it.lane)
	return after
}

// backoff doubles from BackoffMin to BackoffMax. The upper half of it is jitter, from the record's place and the attempt: members that began to
// fail together do not go on together.
func (s *state) backoff(it *item, tries int) time.Duration {
	d := s.opts.BackoffMin
	for range tries - 1 {
		if d *= 2; d >= s.opts.BackoffMax {
			d = s.opts.BackoffMax
			break
		}
	}
	h := fnv.New32a()
	fmt.Fprintf(h, "%s/%d/%d/%d", it.record.Topic, it.record.Index, it.record.Offset, tries)
	half := d / 2
	return d - time.Duration(float64(half)*float64(h.Sum32())/(1<<32))
}

// wake makes ready what is due.
func (s *state) wake(now time.Time) {
	for len(s.waiting) > 0 && !s.waiting[0].due.After(now) {
		s.ready = append(s.ready, heap.Pop(&s.waiting).(*lane))
	}
}

// due is when the next lane wakes.
func (s *state) due() (t time.Time, ok bool) {
	if len(s.waiting) == 0 {
		return t, false
	}
	return s.waiting[0].due, true
}

// flow returns the partitions that have come to a limit, and those that are well below it again.
func (s *state) flow() (pause, resume []log.Partition) {
	for id, p := range s.parts {
		switch {
		case !p.paused && (p.held >= s.opts.HeldMax || len(p.window) >= s.opts.AheadMax || s.bytes >= s.opts.HeldBytesMax):
			p.paused = true
			pause = append(pause, id)
		case p.paused && p.held <= s.opts.HeldMax/2 && len(p.window) <= s.opts.AheadMax/2 && s.bytes <= s.opts.HeldBytesMax/2:
			p.paused = false
			resume = append(resume, id)
		}
	}
	return pause, resume
}

// release lets partitions go, and returns those that a record came from. What is out stays; what waits is dropped.
func (s *state) release(ids []log.Partition) (parts []*partition) {
	for _, id := range ids {
		p := s.parts[id]
		if p == nil {
			continue
		}
		delete(s.parts, id)
		p.leaving = true
		parts = append(parts, p)
		for _, l := range p.lanes {
			keep := 0
			if l.out {
				keep = 1
			}
			s.drop(l, keep, len(l.queue))
		}
	}
	s.waiting = slices.DeleteFunc(s.waiting, func(l *lane) bool { return l.part.leaving })
	heap.Init(&s.waiting)
	return parts
}

// abandon gives up what is still out, and returns how much that is.
func (s *state) abandon(p *partition) int {
	left := p.held
	for _, l := range p.lanes {
		s.drop(l, 0, 1)
	}
	p.gone = true
	return left
}

// commitments returns where partitions have come to, of those whose group does not know it.
func commitments(parts []*partition) map[*partition]commitment {
	c := map[*partition]commitment{}
	for _, p := range parts {
		if at := (commitment{p.position(), p.progress()}); at != p.committed {
			c[p] = at
		}
	}
	return c
}

// position is the lowest offset that is not finished.
func (p *partition) position() log.Offset {
	if len(p.window) > 0 {
		return p.window[0].offset
	}
	return p.next
}

// finish marks a record.
//
// INVARIANT: every record below position was done. So the window shrinks only from its low end.
func (p *partition) finish(offset log.Offset) {
	at := p.place(offset)
	if at.done {
		panic(fmt.Sprintf("consumers: %s/%d/%d was finished twice", p.id.Topic, p.id.Index, offset))
	}
	at.done = true
	p.trim()
}

func (p *partition) trim() {
	for len(p.window) > 0 && p.window[0].done {
		p.window = p.window[1:]
	}
}

// place is that of a record that is not done.
func (p *partition) place(offset log.Offset) *place {
	i, found := slices.BinarySearchFunc(p.window, offset, func(a place, offset log.Offset) int { return int(a.offset - offset) })
	if !found {
		panic(fmt.Sprintf("consumers: %s/%d/%d is not held", p.id.Topic, p.id.Index, offset))
	}
	return &p.window[i]
}

// dueLanes is a heap.
type dueLanes []*lane

func (d dueLanes) Len() int           { return len(d) }
func (d dueLanes) Less(i, j int) bool { return d[i].due.Before(d[j].due) }
func (d dueLanes) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }
func (d *dueLanes) Push(l any)        { *d = append(*d, l.(*lane)) }
func (d *dueLanes) Pop() any {
	last := len(*d) - 1
	l := (*d)[last]
	(*d)[last] = nil
	*d = (*d)[:last]
	return l
}
