package consumers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"time"

	"github.com/remitlog/remit/log"
)

const (
	// pollMax is how many records one Poll returns at most.
	pollMax = 256
	// leaveMax is how long a handler may go on after its context has ended, until it is left behind.
	leaveMax = time.Second
	// commitMax is how long one commit may take.
	commitMax = 10 * time.Second
)

// errGone ends the context of a handler whose partition must be let go.
var errGone = errors.New("consumers: the partition is let go")

// Consumer reads topics in a group, and hands what it reads to a handler.
type Consumer struct{ opts Options }

// New checks the options.
func New(o Options) (*Consumer, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o.Topics = slices.Clone(o.Topics)
	o.Listener.ensureDefaults()
	return &Consumer{opts: o}, nil
}

// Run reads until ctx ends, finishes what is under way (U5), closes the Reader and returns nil; or it does so when the Reader
// fails, and returns that error. It is called once: a new Consumer has a new Reader.
func (c *Consumer) Run(ctx context.Context) error {
	r := &run{
		Options: &c.opts, base: context.WithoutCancel(ctx),
		state:       state{opts: &c.opts, parts: map[log.Partition]*partition{}},
		cancels:     map[*item]context.CancelCauseFunc{},
		replays:     c.opts.replays(),
		results:     make(chan result, c.opts.WorkersMax), // so that a handler that was left behind ends all the same
		polls:       make(chan polled, 1),
		commits:     make(chan committed, 1),
		revocations: make(chan revocation),
		over:        make(chan struct{}),
	}
	defer c.opts.Reader.Close()
	defer close(r.over) // before Close, which may call revoked
	topics := slices.Concat(c.opts.Topics, slices.Sorted(maps.Keys(r.replays)))
	if err := c.opts.Reader.Join(c.opts.Group, topics, r.revoked); err != nil {
		return fmt.Errorf("consumers: group %q: %w", c.opts.Group, err)
	}
	if err := r.loop(ctx); err != nil {
		return fmt.Errorf("consumers: group %q: %w", c.opts.Group, err)
	}
	return nil
}

// run is one Run. Its loop owns everything; polls, commits and handlers are goroutines that send it what came of them.
type run struct {
	*Options
	state
	base       context.Context // of handlers: the values of Run's, and not its end
	replays    map[string]bool // topics whose records were parked before
	stopPoll   context.CancelFunc
	cancels    map[*item]context.CancelCauseFunc // of what is out
	handovers  []*handover
	polling    bool
	committing bool
	commitAt   time.Time // when the next commit of the usual is due; zero while nothing has changed
	draining   bool
	err        error // why it drains, if not for its context

	results     chan result
	polls       chan polled
	commits     chan committed
	revocations chan revocation
	over        chan struct{}
}

type result struct {
	it    *item
	d     Delivery
	err   error
	began time.Time
}

type polled struct {
	items []*item
	err   error
}

type committed struct {
	what map[*partition]commitment
	next map[log.Partition]log.Offset // the same, for others
	of   *handover                    // nil for a commit of the usual
	err  error
}

type revocation struct {
	parts []log.Partition
	lost  bool
	done  chan struct{}
}

// handover is of partitions that are let go: first what is held of them is done, then they are committed.
type handover struct {
	revocation
	held     []*partition
	cancelAt time.Time // when the contexts of what is out end
	leaveAt  time.Time // when it is left behind
	left     int
	settled  bool
}

// revoked is called by the Reader, and returns when the partitions are let go.
func (r *run) revoked(parts []log.Partition, lost bool) {
	v := revocation{parts: parts, lost: lost, done: make(chan struct{})}
	select {
	case r.revocations <- v:
	case <-r.over:
		return
	}
	<-v.done
}

func (r *run) loop(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	stop := ctx.Done()
	for {
		r.wake(time.Now())
		r.start()
		r.limit()
		r.settle(time.Now())
		r.commit(time.Now())
		r.poll()
		if r.draining && len(r.handovers) == 0 && !r.committing && !r.polling {
			return r.err
		}
		if at, ok := r.next(); ok {
			timer.Reset(time.Until(at))
		}
		select {
		case <-stop:
			stop = nil
			r.drain(nil)
		case p := <-r.polls:
			r.polled(p)
		case res := <-r.results:
			r.finished(res)
		case v := <-r.revocations:
			r.letGo(v)
		case c := <-r.commits:
			r.committed(c)
		case <-timer.C:
		}
	}
}

// next is when there is something to do that no channel tells of.
func (r *run) next() (at time.Time, ok bool) {
	at, ok = r.due()
	if t := r.commitAt; !t.IsZero() && !r.committing && (!ok || t.Before(at)) {
		at, ok = t, true
	}
	for _, h := range r.handovers {
		if h.settled {
			continue
		}
		t := h.cancelAt
		if t.IsZero() {
			t = h.leaveAt
		}
		if !ok || t.Before(at) {
			at, ok = t, true
		}
	}
	return at, ok
}

// start gives work to whoever is free.
func (r *run) start() {
	for len(r.cancels) < r.WorkersMax {
		it := r.take(time.Now())
		if it == nil {
			return
		}
		ctx, cancel := context.WithCancelCause(r.base)
		r.cancels[it] = cancel
		go r.work(ctx, it)
	}
}

// work makes one attempt.
func (r *run) work(ctx context.Context, it *item) {
	res := result{it: it, d: Delivery{Record: it.record, Group: r.Group, Attempt: it.tries, Replay: it.replay}, began: time.Now()}
	ended := false
	defer func() {
		if v := recover(); v != nil {
			res.err = &PanicError{Value: v, Stack: debug.Stack()}
		} else if !ended {
			res.err = errors.New("consumers: the handler ended its goroutine")
		}
		r.results <- res
	}()
	ctx, cancel := context.WithTimeout(ctx, r.AttemptMax)
	defer cancel()
	handler := r.Handler
	if it.cause == nil {
		res.d.Event = it.event.SDK()
	} else {
		handler = r.NotEvent
	}
	if it.reason != "" {
		res.err = r.Reader.Produce(ctx, parkedRecord(res.d, it.reason, time.Now()))
	} else {
		r.Listener.Started(res.d)
		res.err = handler(ctx, res.d)
	}
	ended = true
}

// finished takes what came of an attempt.
func (r *run) finished(res result) {
	it := res.it
	r.cancels[it](nil)
	delete(r.cancels, it)
	r.changed()
	p := it.lane.part
	switch {
	case p.gone:
	case res.err == nil && it.reason != "":
		r.done(it)
		r.Listener.Parked(res.d, it.reason)
	case res.err == nil:
		r.done(it)
		r.Listener.Handled(res.d, time.Since(res.began))
	case p.leaving:
		r.dropped(it)
	default:
		if after, park := r.failed(time.Now(), it, res.err); !park {
			r.Listener.Retried(res.d, res.err, after)
		}
	}
}

// limit pauses what has come to a limit.
func (r *run) limit() {
	pause, resume := r.flow()
	if len(pause) > 0 {
		r.Reader.Pause(pause...)
	}
	if len(resume) > 0 {
		r.Reader.Resume(resume...)
	}
	for _, p := range pause {
		r.Listener.Paused(p)
	}
	for _, p := range resume {
		r.Listener.Resumed(p)
	}
}

func (r *run) poll() {
	if r.polling || r.draining {
		return
	}
	var ctx context.Context
	ctx, r.stopPoll = context.WithCancel(r.base)
	r.polling = true
	go func() {
		records, err := r.Reader.Poll(ctx, pollMax)
		p := polled{err: err, items: make([]*item, len(records))}
		for i, rec := range records {
			p.items[i] = newItem(rec, r.Group, r.replays[rec.Topic])
		}
		r.polls <- p
	}()
}

func (r *run) polled(p polled) {
	r.stopPoll()
	r.polling = false
	if r.draining {
		return // the next owner reads them
	}
	if len(p.items) > 0 {
		r.changed() // what of them was done before
	}
	r.add(p.items, r.Reader.Progress)
	if p.err != nil {
		r.drain(p.err)
	}
}

// drain lets all partitions go, and then ends the loop.
func (r *run) drain(err error) {
	if r.draining {
		return
	}
	r.draining, r.err = true, err
	if r.polling {
		r.stopPoll()
	}
	r.letGo(revocation{parts: slices.Collect(maps.Keys(r.parts)), done: make(chan struct{})})
}

// letGo begins a hand-over. What was lost is given up at once.
func (r *run) letGo(v revocation) {
	var paused []log.Partition
	for _, id := range v.parts {
		if p := r.parts[id]; p != nil && p.paused {
			paused = append(paused, id)
		}
	}
	if len(paused) > 0 {
		r.Reader.Resume(paused...) // it would still be paused when it comes back
	}
	now := time.Now()
	h := &handover{revocation: v, held: r.release(v.parts), cancelAt: now.Add(r.DrainMax), leaveAt: now.Add(r.DrainMax + leaveMax)}
	if v.lost {
		r.cancel(h)
		r.leave(h)
		r.handedOver(h)
		return
	}
	r.handovers = append(r.handovers, h)
}

// settle sees which hand-overs hold nothing any more, and ends the patience with the others when it is time.
func (r *run) settle(now time.Time) {
	for _, h := range r.handovers {
		switch {
		case h.settled:
			continue
		case !now.Before(h.leaveAt):
			r.leave(h)
		case !h.cancelAt.IsZero() && !now.Before(h.cancelAt):
			r.cancel(h)
		}
		h.settled = !slices.ContainsFunc(h.held, func(p *partition) bool { return p.held > 0 })
	}
}

func (r *run) cancel(h *handover) {
	h.cancelAt = time.Time{}
	for it, cancel := range r.cancels {
		if slices.Contains(h.held, it.lane.part) {
			cancel(errGone)
		}
	}
}

// leave gives up what is still out.
func (r *run) leave(h *handover) {
	for _, p := range h.held {
		h.left += r.abandon(p)
	}
}

// changed says that there may be something to commit. So a run that has nothing to do does nothing.
func (r *run) changed() {
	if r.commitAt.IsZero() {
		r.commitAt = time.Now().Add(r.CommitEvery)
	}
}

// commit begins the next commit, one at a time: of two of one partition the older must not come last. Hand-overs go first.
func (r *run) commit(now time.Time) {
	for !r.committing {
		i := slices.IndexFunc(r.handovers, func(h *handover) bool { return h.settled })
		if i < 0 {
			break
		}
		h := r.handovers[i]
		if what := commitments(h.held); len(what) > 0 {
			r.send(committed{what: what, of: h})
		} else {
			r.handedOver(h)
		}
	}
	if r.commitAt.IsZero() || now.Before(r.commitAt) || r.committing {
		return
	}
	r.commitAt = time.Time{}
	if what := commitments(slices.Collect(maps.Values(r.parts))); len(what) > 0 {
		r.send(committed{what: what})
	}
}

func (r *run) send(c committed) {
	r.committing = true
	c.next = map[log.Partition]log.Offset{}
	progress := map[log.Partition]string{}
	for p, at := range c.what {
		c.next[p.id], progress[p.id] = at.next, at.progress
	}
	go func() {
		ctx, cancel := context.WithTimeout(r.base, commitMax)
		defer cancel()
		c.err = r.Reader.Commit(ctx, c.next, progress)
		r.commits <- c
	}()
}

func (r *run) committed(c committed) {
	r.committing = false
	if c.err != nil {
		r.changed()
		r.Listener.NotCommitted(c.next, c.err)
	} else {
		for p, at := range c.what {
			p.committed = at
		}
		r.Listener.Committed(c.next)
	}
	if c.of != nil {
		r.handedOver(c.of)
	}
}

func (r *run) handedOver(h *handover) {
	r.handovers = slices.DeleteFunc(r.handovers, func(o *handover) bool { return o == h })
	if len(h.parts) > 0 {
		r.Listener.Revoked(h.parts, h.lost, h.left)
	}
	close(h.done)
}
