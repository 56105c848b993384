package embedded

import (
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/remitlog/remit/log"
)

// leadYields is how often, and leadYieldMax about how long at most, who leads lets others run before it takes those who wait: whatever is about to
// append by then shares its sync. Where nobody else can run it costs microseconds; where the processor is the limit it makes groups larger, and so
// syncs, turns and wakes fewer. Payments by single calls of 64 callers: 1.4 times as many a second, side by side; a pause of 500 µs between syncs does
// the same for them, but takes two thirds from a lone caller.
const (
	leadYields   = 10
	leadYieldMax = 5 * time.Millisecond
)

// groupBytesMax bounds what one group writes; a single append may be larger, up to log.AppendMax.
const groupBytesMax = 1 << 20

// line is where appends wait to be given offsets. One of them leads: it takes all that wait, gives them offsets, hands
// them to Pebble as one batch, passes the lead on to the first who has come meanwhile, and only then waits
// for the sync. The others of its group sleep until they are done.
//
//	append A ── encode ──┐
//	append B ── encode ──┼── line ── leader: offsets, one batch ── WAL ── sync ── durable ends ── all answered
//	append C ── encode ──┘              └─ passes the lead on here
//
// A lock a partition, held over Pebble's commit, would do for the order; measured at 256 callers it is a third as fast,
// since each append then waits for its turn at the lock, and wakes for it alone.
type line struct {
	mu      sync.Mutex
	waiting []*request
	led     bool
	idle    chan struct{} // taken from by goroutines that have led, and lead again
}

// join reports whether r leads at once.
func (q *line) join(r *request) (lead bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = append(q.waiting, r)
	lead = !q.led
	q.led = true
	return lead
}

// take fills group with those who wait, from the first on, up to so many bytes but at least one.
func (q *line) take(group []*request, bytesMax int) []*request {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, bytes := 0, 0
	for n < len(q.waiting) && (n == 0 || bytes+q.waiting[n].batch.Len() <= bytesMax) {
		bytes += q.waiting[n].batch.Len()
		n++
	}
	group = append(group, q.waiting[:n]...)
	rest := copy(q.waiting, q.waiting[n:])
	clear(q.waiting[rest:])
	q.waiting = q.waiting[:rest]
	return group
}

// pass gives the lead to the first who waits.
func (l *Log) pass() {
	q := &l.line
	q.mu.Lock()
	defer q.mu.Unlock()
	q.led = len(q.waiting) > 0
	switch {
	case !q.led:
	case q.waiting[0].behind:
		l.startLead()
	default:
		q.waiting[0].leads <- true
	}
}

// startLead gives the lead to a goroutine that has led before, or to a new one, whose stack must grow first.
func (l *Log) startLead() {
	select {
	case l.line.idle <- struct{}{}:
	default:
		go l.leading()
	}
}

func (l *Log) leading() {
	for {
		l.lead()
		select {
		case <-l.line.idle:
		case <-l.done:
			return
		}
	}
}

// inLine returns when r is durable, or has failed.
func (l *Log) inLine(r *request) error {
	if l.line.join(r) || <-r.leads {
		l.lead()
		<-r.leads // who leads is in the group
	}
	return r.err
}

// lead writes one group. Offsets are given and handed to Pebble under one lock, so their order is that of the WAL.
func (l *Log) lead() {
	for i, began := 0, time.Now(); i < leadYields && time.Since(began) < leadYieldMax; i++ {
		runtime.Gosched()
	}
	group := l.line.take(nil, min(groupBytesMax, int(l.o.MemTableBytes/8)))
	b, err := l.enqueue(group)
	gathered := b != group[0].batch
	l.pass()
	if b != nil && err == nil {
		if err = b.SyncWait(); err != nil {
			l.fail(fmt.Errorf("embedded: sync: %w", err))
			err = fmt.Errorf("embedded: %w: sync failed: %v", log.ErrUnknown, err)
		} else if l.epoch.Load() != l.own {
			l.epoch.Store(l.own) // what is owed lies before b in the WAL, or in it
		}
	}
	l.publish(group, err)
	if b != nil && gathered {
		_ = b.Close()
	}
}

// enqueue gives offsets to those of the group whose topics are still there. It returns nil if that is nobody.
func (l *Log) enqueue(group []*request) (*pebble.Batch, error) {
	l.giving.Lock()
	defer l.giving.Unlock()
	if l.hasFailed() {
		return nil, l.closedBy()
	}
	b, err := l.gather(group)
	if err != nil || b == nil {
		return nil, err
	}
	if err := l.apply(b); err != nil {
		l.fail(err)
		return nil, fmt.Errorf("embedded: %w: %v", log.ErrUnknown, err)
	}
	return b, nil
}

// gather makes one batch of many, and of what is still owed. That comes first: rows of producers that it deletes may be written anew.
func (l *Log) gather(group []*request) (*pebble.Batch, error) {
	if len(group) == 1 && l.owed == nil {
		if group[0].refused() {
			return nil, nil
		}
		group[0].give(l.own)
		return group[0].batch, nil
	}
	b := l.store.NewBatch()
	if l.owed != nil {
		b, l.owed = l.owed, nil
	}
	for _, r := range group {
		if r.refused() {
			continue
		}
		r.give(l.own)
		if err := b.Apply(r.batch, nil); err != nil { // it is a copy; offsets are given all the same, so there is no going on
			l.fail(fmt.Errorf("embedded: gather: %w", err))
			return nil, l.closedBy()
		}
	}
	if b.Empty() {
		_ = b.Close()
		return nil, nil
	}
	return b, nil
}

// refused reports whether a topic was deleted since r was split, or its producer may not, and says so in r.
func (r *request) refused() bool {
	for i := range r.shares {
		if r.shares[i].gone.Load() {
			r.err = unknownTopic(r.shares[i].Partition)
			return true
		}
	}
	if r.made != nil {
		r.err = r.made.refused(r.shares[0].partition)
	}
	return r.err != nil
}

// apply: Pebble panics at what it does not expect.
func (l *Log) apply(b *pebble.Batch) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("embedded: write: %v", r)
		}
	}()
	if err := l.store.ApplyNoSyncWait(b, pebble.Sync); err != nil {
		return fmt.Errorf("embedded: write: %w", err)
	}
	return nil
}

// publish moves the durable ends and lets everybody go; the group's requests are not ours any more when it returns. What was synced was synced with all before it in the WAL, and so
// with all before it in its partitions: an end may move over appends that have not returned yet.
func (l *Log) publish(group []*request, err error) {
	if err == nil && l.hasFailed() {
		err = fmt.Errorf("embedded: %w: it failed: %v", log.ErrUnknown, l.cause)
	}
	for _, r := range group {
		switch {
		case r.err != nil: // refused
		case err != nil:
			r.err = err
		default:
			for i := range r.shares {
				s := &r.shares[i]
				s.advance(s.base + log.Offset(s.count))
			}
		}
	}
	for _, r := range group {
		if r.behind {
			l.leave()
		}
		r.leads <- false // r is its Append's again
	}
}
