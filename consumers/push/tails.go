package push

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/remitlog/remit/log"
)

// tails knows where the topics end that somebody reads. It has a goroutine for each partition of a topic, however many subscriptions read it: one that waits
// costs no goroutine per partition of its own.
type tails struct {
	log   log.Log
	every time.Duration

	mu     sync.Mutex
	topics map[string]*tail
	tasks  sync.WaitGroup
}

// tail is one topic's.
type tail struct {
	topic string
	stop  context.CancelFunc
	users int // under tails.mu

	mu      sync.Mutex
	ends    []log.Offset  // of its partitions; none while it is not there
	changed chan struct{} // closed when an end has moved, or their number
}

func newTails(l log.Log, every time.Duration) *tails {
	return &tails{log: l, every: every, topics: map[string]*tail{}}
}

// follow returns the tail of a topic, which need not be there. Each is to be released.
func (t *tails) follow(topic string) *tail {
	t.mu.Lock()
	defer t.mu.Unlock()
	found := t.topics[topic]
	if found == nil {
		ctx, stop := context.WithCancel(context.Background())
		found = &tail{topic: topic, stop: stop, changed: make(chan struct{})}
		t.topics[topic] = found
		t.tasks.Go(func() { t.watch(ctx, found) })
	}
	found.users++
	return found
}

func (t *tails) release(done *tail) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if done.users--; done.users == 0 {
		done.stop()
		delete(t.topics, done.topic)
	}
}

// wait returns when nobody watches any more, AFTER all are released.
func (t *tails) wait() { t.tasks.Wait() }

// seen returns the ends, and what is closed when they change. The ends are the caller's.
func (t *tail) seen() (ends []log.Offset, changed <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append(ends, t.ends...), t.changed
}

// set notes an end; the partitions below index are there too.
func (t *tail) set(index int, end log.Offset) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if index < len(t.ends) && t.ends[index] == end {
		return
	}
	for len(t.ends) <= index {
		t.ends = append(t.ends, 0)
	}
	t.ends[index] = end
	t.wake()
}

func (t *tail) clear() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ends != nil {
		t.ends = nil
		t.wake()
	}
}

func (t *tail) wake() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// watch follows a topic until ctx ends: while it is there its partitions, and again when it was made anew.
func (t *tails) watch(ctx context.Context, of *tail) {
	look := time.NewTicker(t.every)
	defer look.Stop()
	for ctx.Err() == nil {
		t.watchOne(ctx, of, look.C)
		of.clear()
		select {
		case <-look.C:
		case <-ctx.Done():
		}
	}
}

// watchOne follows a topic until it is gone. A topic of the same name that was made since is another.
func (t *tails) watchOne(ctx context.Context, of *tail, look <-chan time.Time) {
	ctx, gone := context.WithCancel(ctx)
	var parts sync.WaitGroup
	defer parts.Wait()
	defer gone()
	for n := 0; ; {
		c, err := t.log.Topic(ctx, of.topic)
		if err != nil {
			return // it is looked for again, or the log is closed
		}
		for ; n < c.Partitions; n++ {
			p := log.Partition{Topic: of.topic, Index: int32(n)}
			parts.Go(func() {
				defer gone()
				t.watchPartition(ctx, of, p)
			})
		}
		select {
		case <-look:
		case <-ctx.Done():
			return
		}
	}
}

// watchPartition follows the end of a partition until it cannot be read.
func (t *tails) watchPartition(ctx context.Context, of *tail, p log.Partition) {
	for {
		_, end, err := t.log.Bounds(ctx, p)
		if err != nil {
			return
		}
		of.set(int(p.Index), end)
		if _, err = t.log.Read(ctx, p, end, 1); err != nil && !errors.Is(err, log.ErrOffsetOutOfRange) {
			return
		}
	}
}
