package fold

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/remitlog/remit/log"
)

// View is a fold that only follows: it never decides, and appends nothing.
type View interface {
	// Name is what the view is called.
	Name() string
	// Apply is as in Machine.
	Apply(rows Rows, e *Event)
}

// Followed is a view with the store that it folds into.
type Followed struct {
	View  View
	Store *Store
}

// FollowOptions of a Follower.
type FollowOptions struct {
	Log   log.Log
	Topic string
	Facts Facts
	Views []Followed
	// Linger is how long a follower that has reached the end lets more events gather
	// before it reads again. It bounds how far behind a view is when little happens.
	Linger time.Duration
	// Fatal is told why a view can go on no longer. It must be set, and is expected to stop the process.
	Fatal func(error)
}

// Follower keeps views up with the log: one reader a partition, each event decoded once for all views.
type Follower struct {
	opts   FollowOptions
	ctx    context.Context
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// Follow starts to follow all partitions of a topic, each view from where its store is.
func Follow(ctx context.Context, opts FollowOptions) (*Follower, error) {
	topic, err := opts.Log.Topic(ctx, opts.Topic)
	if err != nil {
		return nil, fmt.Errorf("fold: %w", err)
	}
	if opts.Fatal == nil || len(opts.Views) == 0 {
		return nil, errors.New("fold: FollowOptions need Fatal, and Views")
	}
	f := &Follower{opts: opts}
	f.ctx, f.cancel = context.WithCancel(context.WithoutCancel(ctx))
	for p := range int32(topic.Partitions) {
		if err := f.check(ctx, p); err != nil {
			f.cancel()
			return nil, err
		}
	}
	for p := range int32(topic.Partitions) {
		f.done.Go(func() { f.run(p) })
	}
	return f, nil
}

// check refuses a store that is ahead of the log.
func (f *Follower) check(ctx context.Context, p int32) error {
	part := log.Partition{Topic: f.opts.Topic, Index: p}
	_, end, err := f.opts.Log.Bounds(ctx, part)
	if err != nil {
		return fmt.Errorf("fold: %w", err)
	}
	for _, v := range f.opts.Views {
		if at := v.Store.Offset(p); at > end {
			return fmt.Errorf("%w: view %s has folded %s/%d to offset %d, the log ends at %d", ErrAhead, v.View.Name(), f.opts.Topic, p, at, end)
		}
	}
	return nil
}

func (f *Follower) run(p int32) {
	for f.ctx.Err() == nil {
		if err := f.advance(p); err != nil && f.ctx.Err() == nil {
			f.opts.Fatal(err)
			return
		}
		if f.opts.Linger > 0 {
			select {
			case <-time.After(f.opts.Linger):
			case <-f.ctx.Done():
			}
		}
	}
}

// advance folds one read's worth of events into every view that does not have them.
func (f *Follower) advance(p int32) error {
	from := f.opts.Views[0].Store.Offset(p)
	for _, v := range f.opts.Views[1:] {
		from = min(from, v.Store.Offset(p))
	}
	r := replay{log: f.opts.Log, part: log.Partition{Topic: f.opts.Topic, Index: p}, facts: f.opts.Facts}
	events, err := r.read(f.ctx, from)
	if err != nil {
		return err
	}
	for _, v := range f.opts.Views {
		if err := v.fold(p, events); err != nil {
			return err
		}
	}
	return nil
}

// fold applies those of the events that the view's store does not have.
func (v Followed) fold(p int32, events []Event) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case *InvariantError:
			err = fmt.Errorf("view %s: %w", v.View.Name(), r)
		case *StoreError:
			err = v.Store.doubted(r)
		default:
			panic(r)
		}
	}()
	for at := v.Store.Offset(p); len(events) > 0 && events[0].Offset < at; {
		events = events[1:]
	}
	if len(events) == 0 {
		return nil
	}
	_, err = v.Store.fold(p, events, v.View.Apply)
	return err
}

// Close stops following. It does not close the stores.
func (f *Follower) Close() {
	f.cancel()
	f.done.Wait()
}

// Replay folds a view from the first record of partition p to the offset to, into a store that has not folded that
// partition yet: what a serving store must be equal to (V1).
func Replay(ctx context.Context, l log.Log, topic string, facts Facts, v Followed, p int32, to log.Offset) error {
	r := replay{log: l, part: log.Partition{Topic: topic, Index: p}, facts: facts}
	for at := v.Store.Offset(p); at < to; at = v.Store.Offset(p) {
		events, err := r.read(ctx, at)
		if err != nil {
			return err
		}
		for len(events) > 0 && events[len(events)-1].Offset >= to {
			events = events[:len(events)-1]
		}
		if len(events) == 0 {
			return nil // offsets may have gaps: there is nothing more before to
		}
		if err := v.fold(p, events); err != nil {
			return err
		}
	}
	return nil
}
