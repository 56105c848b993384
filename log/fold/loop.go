package fold

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/remitlog/remit/log"
)

// loop is one partition that this node owns: its goroutine owns all the state, nothing else writes it.
type loop struct {
	n     *Node
	p     int32
	part  log.Partition
	inbox *inbox
	store *Store
	owing atomic.Int64 // effects under way, and things that wait to be asked again

	next     log.Offset // of the next event
	recorded time.Time  // of the last turn; time never goes back
	turn     Turn
	taken    []ask // of the inbox, at the last look
	asks     []ask // those of taken that have not been answered

	// cursor is the last due row that has been looked at: all up to it have been started. nextDue is the
	// time of the first one after it, as far as is known; zero means none. paced is when the next look may be.
	//
	// INVARIANT: no due row lies after cursor with a time before nextDue. So pace is a time of its own: with nextDue put
	// off instead, a turn in between would believe that nothing older waits, and move cursor over it.
	cursor  string
	nextDue time.Time
	paced   time.Time
	again   agains
	waiting map[string]bool // the keys in again, each of which is there once
	behind  bool            // due rows wait that could have been started by now; counted in Node.busy
	whole   bool            // it was stopped between two turns: the rows are what the log says
}

func newLoop(n *Node, p int32) *loop {
	l := &loop{n: n, p: p, part: log.Partition{Topic: n.opts.Topic, Index: p}, store: n.opts.Store, waiting: map[string]bool{}}
	l.inbox = newInbox(n.opts.QueueMax, &n.busy)
	l.behind = true // until it has looked
	n.busy.Add(1)
	l.turn = Turn{core: l.part, rows: newOverlay(l.store.writers[p]), apply: n.apply}
	return l
}

// apply folds one event by all machines.
func (n *Node) apply(rows Rows, e *Event) {
	for _, b := range n.opts.Order {
		n.opts.Machines[b].Apply(rows, e)
	}
}

// guard turns what the fold panics with into an error: a broken invariant, or a store that cannot be read.
func (l *loop) guard(f func() error) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case *InvariantError:
			err = r
		case *StoreError:
			err = l.store.doubted(r)
		default:
			panic(r)
		}
	}()
	return f()
}

// restore reads the log from where the store has come to its end.
func (l *loop) restore(ctx context.Context) error {
	return l.guard(func() error {
		start := time.Now()
		first, end, err := l.n.opts.Log.Bounds(ctx, l.part)
		if err != nil {
			return fmt.Errorf("fold: %w", err)
		}
		from := l.store.Offset(l.p)
		switch {
		case from > end:
			return fmt.Errorf("%w: %s has folded %s/%d to offset %d, the log ends at %d", ErrAhead, l.store.opts.Dir, l.part.Topic, l.p, from, end)
		case from < first:
			return fmt.Errorf("fold: %s/%d begins at offset %d, offset %d is needed", l.part.Topic, l.p, first, from)
		}
		r := replay{log: l.n.opts.Log, part: l.part, facts: l.n.opts.Facts}
		for l.next = from; l.next < end; {
			events, err := r.read(ctx, l.next)
			if err != nil {
				return err
			}
			if l.next, err = l.store.fold(l.p, events, l.n.apply); err != nil {
				return err
			}
		}
		l.recorded = l.store.Recorded(l.p)
		if f := l.n.opts.Listener.Restored; f != nil {
			f(l.p, from, end, time.Since(start))
		}
		return nil
	})
}

// replay reads and decodes a partition of the core topic.
type replay struct {
	log   log.Log
	part  log.Partition
	facts Facts
}

func (r replay) read(ctx context.Context, from log.Offset) ([]Event, error) {
	records, err := r.log.Read(ctx, r.part, from, readBytes)
	if err != nil {
		return nil, fmt.Errorf("fold: %w", err)
	}
	events := make([]Event, len(records))
	for i := range records {
		if events[i], err = r.facts.Decode(records[i]); err != nil {
			return nil, err
		}
	}
	return events, nil
}

// fold applies events, at least one, to the rows of a partition, as one batch, and returns the offset it has come to.
func (s *Store) fold(p int32, events []Event, apply func(Rows, *Event)) (log.Offset, error) {
	if len(events) == 0 {
		return 0, fmt.Errorf("fold: partition %d: the log returned no records and no error", p)
	}
	o, m := s.folding[p], meta{}
	defer o.reset()
	for i := range events {
		apply(o, &events[i])
		m.Offset, m.Recorded = events[i].Offset+1, events[i].Time.UnixMilli()
	}
	return m.Offset, s.commit(p, o, m)
}

// run decides until the node is closed, or fails.
func (l *loop) run() {
	defer l.drain()
	timer := time.NewTimer(0)
	defer timer.Stop()
	if err := l.guard(func() error { l.lookAhead(); l.rest(0); return nil }); err != nil {
		l.n.fail(err)
		return
	}
	for {
		timer.Reset(l.untilDue())
		select {
		case <-l.n.ctx.Done():
			l.whole = true
			return
		case <-l.inbox.wake:
		case <-timer.C:
		}
		if err := l.guard(l.step); err != nil {
			if l.n.ctx.Err() == nil || !errors.Is(err, log.ErrClosed) {
				l.n.fail(err)
			}
			return
		}
	}
}

// drain answers what still waits. What is lazy is decided first, unless something has failed.
func (l *loop) drain() {
	rest := append(l.asks, l.inbox.close()...)
	l.asks = nil
	if l.whole && l.n.Err() == nil {
		for _, a := range rest {
			if a.lazy {
				l.asks = append(l.asks, a)
			}
		}
		rest = slices.DeleteFunc(rest, func(a ask) bool { return a.lazy })
		err := l.guard(func() error {
			for len(l.asks) > 0 {
				if err := l.decide(); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil && !errors.Is(err, log.ErrClosed) {
			l.n.fail(err)
		}
	}
	for _, a := range append(l.asks, rest...) {
		l.answer(a, Result{Err: ErrStopped})
	}
	l.asks = nil
}

func (l *loop) answer(a ask, r Result) {
	r.Partition, r.End = l.p, l.next
	if a.done != nil {
		a.done(r)
	}
}

// step takes one turn, and starts what is due.
func (l *loop) step() error {
	runtime.Gosched() // who is about to ask takes part in this turn
	clear(l.taken)
	l.taken = l.inbox.take(l.taken[:0], TurnMax)
	l.asks = l.taken
	for len(l.asks) > 0 {
		if err := l.decide(); err != nil {
			return err
		}
	}
	err := l.startDue()
	l.rest(len(l.taken))
	return err
}

// rest counts asks as done with, now that all that follows from them has been asked.
func (l *loop) rest(asks int) {
	was := l.behind
	l.behind = !l.nextDue.IsZero() && !l.nextDue.After(l.n.clock.now())
	if was && !l.behind {
		asks++
	} else if l.behind && !was {
		asks--
	}
	l.n.busy.Add(int64(-asks))
}

// decide takes one turn over as many asks as its bytes allow.
func (l *loop) decide() error {
	t := &l.turn
	t.missing = nil
	for {
		results := l.decideAll(t, l.asks)
		if len(t.records) == 0 && len(t.delivery) == 0 {
			l.answerAll(results)
			return nil
		}
		began := time.Now()
		offsets, err := l.n.opts.Log.Append(context.WithoutCancel(l.n.ctx), t.all()...)
		var topic *log.TopicError
		switch {
		case err == nil:
			if f := l.n.opts.Listener.Turned; f != nil {
				f(l.p, len(results), len(t.records), t.bytes, time.Since(began))
			}
			return l.landed(t, results, offsets)
		case errors.As(err, &topic) && topic.Partition.Topic != l.part.Topic && !t.missing[topic.Partition.Topic]:
			if t.missing == nil {
				t.missing = map[string]bool{}
			}
			t.missing[topic.Partition.Topic] = true // decide again, without it
		case refused(err):
			for i := range results {
				results[i] = Result{Err: err}
			}
			l.answerAll(results)
			return nil
		default:
			return fmt.Errorf("fold: %s: %w", t, err) // only a restart, which reads, can tell
		}
	}
}

// refused reports whether err says that nothing was written, and that the next append may be taken. Whatever the contract of
// [log.Log] does not name may have been written all the same: ErrUnknown, and what nobody has thought of.
func refused(err error) bool {
	var topic *log.TopicError
	switch {
	case errors.Is(err, log.ErrUnknown), errors.Is(err, log.ErrClosed):
		return false
	case errors.As(err, &topic): // looked up before anything is written
		return true
	case errors.Is(err, log.ErrTooLarge), errors.Is(err, log.ErrInvalid): // checked before
		return true
	case errors.Is(err, log.ErrDiskFull): // below the floor, which is looked at before
		return true
	default:
		return false
	}
}

// decideAll runs commands on a fresh overlay until the turn is full.
func (l *loop) decideAll(t *Turn, asks []ask) []Result {
	t.rows.reset()
	t.scratch.Reset() // of the turn before, whose append has returned
	t.Now = later(l.n.clock.now(), l.recorded)
	t.next, t.bytes = l.next, 0
	clear(t.records)
	clear(t.delivery)
	t.records, t.events, t.delivery = t.records[:0], t.events[:0], t.delivery[:0]
	results := make([]Result, 0, len(asks))
	for _, a := range asks {
		answer, err := t.decide(a.command)
		results = append(results, Result{Answer: answer, Err: err})
		if t.bytes >= TurnBytesMax {
			break
		}
	}
	return results
}

// landed makes the turn the state, and only then answers and starts effects.
func (l *loop) landed(t *Turn, results []Result, offsets []log.Offset) error {
	n := len(t.events)
	if n > 0 && offsets[0] != l.next && l.n.opts.Log.Features().GaplessOffsets {
		panic(&InvariantError{Topic: l.part.Topic, Partition: l.p, Offset: l.next,
			Detail: fmt.Sprintf("appended at offset %d: somebody else has written to this partition", offsets[0])})
	}
	for i := range t.events {
		if t.events[i].Offset != offsets[i] {
			t.moved(offsets)
			break
		}
	}
	if n > 0 {
		l.next = offsets[n-1] + 1
		l.recorded = t.Now
	}
	if err := l.store.commit(l.p, t.rows, meta{Offset: l.next, Recorded: l.recorded.UnixMilli()}); err != nil {
		return fmt.Errorf("fold: store %s: %w", l.store.opts.Dir, err)
	}
	if f := l.n.opts.Folded; f != nil && n > 0 {
		f(l.p, t.events)
	}
	l.answerAll(results)
	l.place(t, offsets[n:])
	l.startNew(t)
	return nil
}

// answerAll answers the first asks that wait. INVARIANT: who is answered waits no more, so that whatever fails
// after it, drain does not answer again.
func (l *loop) answerAll(results []Result) {
	for i := range results {
		a := l.asks[0]
		l.asks = l.asks[1:]
		l.answer(a, results[i])
	}
}

// place has the next turn record where deliveries went.
func (l *loop) place(t *Turn, offsets []log.Offset) {
	if len(offsets) == 0 || l.n.opts.Placed == nil {
		return
	}
	placed := make([]Placed, len(offsets))
	for i, d := range t.delivery {
		placed[i] = Placed{ID: d.id, Partition: d.record.Partition, Offset: offsets[i]}
	}
	_ = l.inbox.put(ask{command: l.n.opts.Placed(placed), lazy: true}) // refused only when stopping
}

// startNew starts what the turn has made due by now, and notes what will be due.
func (l *loop) startNew(t *Turn) {
	caughtUp := l.nextDue.IsZero() || l.nextDue.After(t.Now)
	end := dueEnd(t.Now)
	for key, r := range t.rows.rows {
		if key[0] != dueTable || r.gone {
			continue
		}
		switch at, _, _ := parseDue(key); {
		case key <= l.cursor, caughtUp && key < end:
			l.start(again{key: key})
		default:
			l.expect(at)
		}
	}
	if caughtUp && end > l.cursor {
		l.cursor = end
	}
}

func (l *loop) expect(at time.Time) {
	if l.nextDue.IsZero() || at.Before(l.nextDue) {
		l.nextDue = at
	}
}

// lookAhead finds when the first due row after the cursor is due.
func (l *loop) lookAhead() {
	l.nextDue = time.Time{}
	for key := range l.store.scanner(l.p).scan(max(l.cursor, string([]byte{dueTable})), string([]byte{dueTable + 1}), false) {
		if key <= l.cursor {
			continue
		}
		l.nextDue, _, _ = parseDue(key)
		return
	}
}

func (l *loop) untilDue() time.Duration {
	next := l.nextDue
	if len(l.again) > 0 {
		if at := time.UnixMilli(l.again[0].at); next.IsZero() || at.Before(next) {
			next = at
		}
	}
	if next.IsZero() {
		return time.Hour
	}
	return min(max(later(next, l.paced).Sub(l.n.clock.now()), 0), time.Hour) + time.Millisecond
}

// startDue starts what has become due, at a bounded pace, and what has failed and is to be started again.
func (l *loop) startDue() error {
	now := l.n.clock.now()
	if l.paced.After(now) {
		return nil
	}
	started := 0
	for len(l.again) > 0 && l.again[0].at <= now.UnixMilli() {
		if started == PaceMax/2 { // the other half is for what has not been started at all
			l.paced = now.Add(PaceEvery)
			break
		}
		r := heap.Pop(&l.again).(again)
		delete(l.waiting, r.key)
		if r.attempt > 0 {
			l.owing.Add(-1)
		}
		if l.store.scanner(l.p).get(r.key, anyKey) != nil {
			l.start(r)
			started++
		}
	}
	if l.nextDue.IsZero() || l.nextDue.After(now) {
		return nil
	}
	for key := range l.store.scanner(l.p).scan(max(l.cursor, string([]byte{dueTable})), dueEnd(now), false) {
		if key <= l.cursor {
			continue
		}
		if started >= PaceMax {
			l.nextDue, _, _ = parseDue(key)
			l.paced = now.Add(PaceEvery)
			return nil
		}
		l.start(again{key: key})
		l.cursor = key
		started++
	}
	l.cursor = max(l.cursor, dueEnd(now))
	l.lookAhead()
	return nil
}

// start asks the machine what the thing that is due owes, and sends it on its way.
func (l *loop) start(due again) {
	_, machine, id := parseDue(due.key)
	m := l.n.opts.Machines[machine]
	if m == nil {
		panic(&InvariantError{Partition: l.p, Detail: fmt.Sprintf("due row of machine %q, which is not known: written by a newer version, or corruption", machine)})
	}
	look := Look{Now: l.n.clock.now()}
	if due.last > 0 {
		look.Last = time.UnixMilli(due.last).UTC()
	}
	for _, e := range m.Owed(l.store.writers[l.p], id, look) {
		switch {
		case !e.At.IsZero():
			l.lookAt(again{at: max(e.At.UnixMilli(), look.Now.UnixMilli()+1), last: look.Now.UnixMilli(), key: due.key})
		case e.Call != nil:
			l.call(e)
		default:
			l.send(e, due.key, int(due.attempt))
		}
	}
}

// call starts a call to the outside. It is not counted as owing: a producer that does not answer closes nobody's door.
func (l *loop) call(e Effect) {
	e.Call(func(answer any, err error) {
		if e.Answer == nil {
			return
		}
		back := e.Answer(Result{Answer: answer, Err: err, Partition: l.p})
		if back == nil {
			return
		}
		_ = l.inbox.put(ask{command: back, lazy: e.Lazy, done: func(r Result) { // refused only when stopping
			if r.Err == nil && e.Landed != nil {
				e.Landed(r)
			}
		}})
	})
}

func (l *loop) send(e Effect, key string, attempt int) {
	if e.ToSelf {
		e.To = l.p
	}
	l.owing.Add(1)
	done := func(r Result) {
		var back Command
		if e.Answer != nil {
			back = e.Answer(r)
		}
		switch {
		case back != nil:
			_ = l.inbox.put(ask{command: back, lazy: e.Lazy, done: func(r Result) {
				l.owing.Add(-1)
				if r.Err != nil {
					l.later(key, attempt, r.Err)
				} else if e.Landed != nil {
					e.Landed(r)
				}
			}})
		case r.Err != nil:
			_ = l.inbox.put(ask{command: nothing{}, done: func(Result) {
				l.owing.Add(-1)
				l.later(key, attempt, r.Err)
			}})
		default:
			l.owing.Add(-1)
		}
	}
	if err := l.n.submit(e.To, ask{command: e.Command, done: done}); err != nil {
		l.owing.Add(-1)
		l.later(key, attempt, err)
	}
}

// nothing decides nothing: its done is called on the goroutine of the partition.
type nothing struct{}

func (nothing) Decide(*Turn) (any, error) { return nil, nil }

// later has the due row looked at again. It runs on the partition's goroutine.
//
// INVARIANT: a due row waits once. It is looked at as a whole: were it to wait for each of its effects that
// failed, each of these would start all of them again, and they would be more with every round.
func (l *loop) later(key string, attempt int, err error) {
	delay := min(RetryMin<<min(attempt, 16), RetryMax)
	if l.lookAt(again{at: l.n.clock.now().Add(delay).UnixMilli(), key: key, attempt: int32(attempt + 1)}) {
		l.owing.Add(1)
	}
	if f := l.n.opts.Listener.Failed; f != nil {
		_, _, id := parseDue(key)
		f(l.p, id, err, delay)
	}
}

// lookAt notes when a due row is looked at again, unless it waits already.
func (l *loop) lookAt(a again) bool {
	if l.waiting[a.key] {
		return false
	}
	l.waiting[a.key] = true
	heap.Push(&l.again, a)
	return true
}

// again is a due row that is looked at again: its effects have failed, or wanted it. There may be a million of them.
type again struct {
	at, last int64 // Unix ms; last is that of Look.Last, 0 for none
	key      string
	attempt  int32 // how often effects have failed; 0 if it was wanted
}

// agains is a heap by time.
type agains []again

func (h agains) Len() int           { return len(h) }
func (h agains) Less(i, j int) bool { return h[i].at < h[j].at }
func (h agains) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *agains) Push(x any)        { *h = append(*h, x.(again)) }
func (h *agains) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = again{} // its key is no longer held
	*h = old[:len(old)-1]
	return last
}
