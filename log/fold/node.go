package fold

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/remitlog/remit/log"
)

// Limits of a Node, unless Options say otherwise.
const (
	// QueueMax is how many commands of the doors may wait at one partition; past it ErrBusy.
	QueueMax = 16384
	// LazyMax is how long what nobody waits for waits for a turn that others make: where a delivery went, and that what was
	// decided has been done. It saves an append of its own.
	LazyMax = 10 * time.Millisecond
	// OpenMax is about how many effects a partition may have under way, or waiting to be started again, while it takes
	// commands of the doors; past it ErrBusy. It bounds what partitions ask of one another, which is not bounded otherwise.
	OpenMax = 65536
	// TurnMax is how many commands one turn decides.
	TurnMax = 2048
	// TurnBytesMax is about how many bytes one turn appends before it leaves the rest to the next.
	TurnBytesMax = 4 << 20
	// PaceMax is how many due things one look at the due rows starts; between two looks
	// with more to come lies PaceEvery. It bounds what a restart asks at once.
	PaceMax   = 512
	PaceEvery = 50 * time.Millisecond
	// RetryMin and RetryMax bound the delay before a failed effect is started again.
	RetryMin = 100 * time.Millisecond
	RetryMax = 30 * time.Second
	// ClockBehindMax is how far the wall clock may be behind the log at the start.
	ClockBehindMax = time.Minute
	// ClockLookEvery is how often the wall clock is compared with the node's time, and ClockJumpMin by how much it must have moved between
	// two looks to be said to have jumped.
	ClockLookEvery = 10 * time.Second
	ClockJumpMin   = time.Second
	// readBytes is how much of the log is read at once.
	readBytes = 1 << 20
)

// Owner says which partitions of the topic a node owns. On one machine it owns all.
type Owner interface {
	Owned() []int32
}

// All owns the partitions 0 to n-1.
type All int

// Owned returns all of them.
func (n All) Owned() []int32 {
	all := make([]int32, n)
	for i := range all {
		all[i] = int32(i)
	}
	return all
}

// Options of a Node.
type Options struct {
	Log   log.Log
	Topic string
	Owner Owner
	Store *Store
	Facts Facts
	// Machines are the machines by their byte, which their due rows carry. Each event is folded by all of
	// them, in the order of Order.
	Machines map[byte]Machine
	Order    []byte
	// Placed makes the command that records where deliveries of a turn went; nil records nothing.
	Placed func([]Placed) Command
	// Now is the wall clock, read once at the start; from then on time is monotonic. It is read again only to say that it has jumped.
	Now func() time.Time
	// ClockBehindAllowed starts even if the wall clock is far behind the log.
	ClockBehindAllowed bool
	// Fatal is told why the node can go on no longer. The default stops the process.
	Fatal    func(error)
	Listener Listener
	QueueMax int
	OpenMax  int
	// Ready is called when all is restored, before the first command is decided and the first effect started.
	Ready func(*Node)
	// Folded is told of the events of each turn when its rows have become the state, before its callers are answered: what is kept
	// beside the rows may follow it. It runs on the partition's goroutine, MUST NOT block, and must not keep the slice. It may be nil. What Ready
	// finds restored is not told again.
	Folded func(partition int32, events []Event)
}

// Listener watches a node. Functions may be nil; they run on the partition's goroutine and must not block.
type Listener struct {
	// Restored is called when a partition has read its log to the end.
	Restored func(partition int32, from, to log.Offset, took time.Duration)
	// Turned is called after each turn that appended.
	Turned func(partition int32, commands, events, bytes int, append time.Duration)
	// Failed is called when an effect failed and will be started again.
	Failed func(partition int32, id string, err error, again time.Duration)
	// ClockJumped is called, on a goroutine of its own, when the wall clock has been set, or the machine has slept: it is that much further
	// than the node's time than it was. It changes nothing until the next start.
	ClockJumped func(by time.Duration)
}

// EnsureDefaults fills in what was left out.
func (o *Options) EnsureDefaults() {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Fatal == nil {
		o.Fatal = exit
	}
	if o.QueueMax == 0 {
		o.QueueMax = QueueMax
	}
	if o.OpenMax == 0 {
		o.OpenMax = OpenMax
	}
}

func exit(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(6)
}

// Validate says what is missing.
func (o *Options) Validate() error {
	switch {
	case o.Log == nil, o.Topic == "", o.Owner == nil, o.Store == nil:
		return errors.New("fold: Options need Log, Topic, Owner and Store")
	case len(o.Order) != len(o.Machines):
		return errors.New("fold: Options.Order must name every machine once")
	}
	for i, b := range o.Order {
		if o.Machines[b] == nil || slices.Contains(o.Order[:i], b) {
			return fmt.Errorf("fold: Options.Order names %q, which is no machine, or is named twice", b)
		}
	}
	return nil
}

// Node runs the machines over the partitions that it owns.
type Node struct {
	opts  Options
	loops []*loop // by partition; nil where not owned
	clock clock

	ctx    context.Context // of the log's reads; ends at Close
	cancel context.CancelFunc
	done   sync.WaitGroup
	busy   atomic.Int64 // commands that wait, and partitions that have due rows to start; see Rest
	failed atomic.Pointer[error]
}

// clock starts where the wall clock or the log is, whichever is later, and is monotonic from then on: jumps of the wall clock
// change nothing.
type clock struct {
	base  time.Time
	start time.Time // with its monotonic reading
}

func (c clock) now() time.Time {
	return c.base.Add(time.Since(c.start)).UTC().Truncate(time.Millisecond)
}

// Open restores all partitions that the node owns, and starts to decide. It returns once every one has read its log to the
// end.
func Open(ctx context.Context, opts Options) (*Node, error) {
	opts.EnsureDefaults()
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	topic, err := opts.Log.Topic(ctx, opts.Topic)
	if err != nil {
		return nil, fmt.Errorf("fold: %w", err)
	}
	n := &Node{opts: opts, loops: make([]*loop, topic.Partitions)}
	n.ctx, n.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if opts.Store.opts.Partitions < topic.Partitions {
		return nil, fmt.Errorf("fold: store %s has %d partitions, %s has %d", opts.Store.opts.Dir, opts.Store.opts.Partitions, opts.Topic, topic.Partitions)
	}
	for _, p := range opts.Owner.Owned() {
		if p < 0 || int(p) >= topic.Partitions {
			return nil, fmt.Errorf("fold: partition %d is owned, %s has %d", p, opts.Topic, topic.Partitions)
		}
		n.loops[p] = newLoop(n, p)
	}
	if err := n.restore(ctx); err != nil {
		n.cancel()
		return nil, err
	}
	if err := n.startClock(); err != nil {
		n.cancel()
		return nil, err
	}
	if opts.Ready != nil {
		opts.Ready(n)
	}
	if opts.Listener.ClockJumped != nil {
		n.done.Go(n.watchClock)
	}
	for _, l := range n.loops {
		if l != nil {
			n.done.Go(l.run)
		}
	}
	return n, nil
}

// restore reads the logs of all partitions to their ends, side by side.
func (n *Node) restore(ctx context.Context) error {
	var (
		wait sync.WaitGroup
		errs = make([]error, len(n.loops))
	)
	for i, l := range n.loops {
		if l != nil {
			wait.Go(func() { errs[i] = l.restore(ctx) })
		}
	}
	wait.Wait()
	return errors.Join(errs...)
}

func (n *Node) startClock() error {
	wall, last := n.opts.Now(), time.Time{}
	for _, l := range n.loops {
		if l != nil {
			last = later(last, n.opts.Store.Recorded(l.p))
		}
	}
	if behind := last.Sub(wall); behind > ClockBehindMax && !n.opts.ClockBehindAllowed {
		return fmt.Errorf("%w: by %s (log: %s, clock: %s); set the clock right, or allow it with --allow-clock-behind",
			ErrClockBehind, behind.Round(time.Second), last.UTC().Format(time.RFC3339), wall.UTC().Format(time.RFC3339))
	}
	n.clock = clock{base: later(wall, last), start: time.Now()}
	return nil
}

// watchClock tells of jumps of the wall clock.
func (n *Node) watchClock() {
	ahead := func() time.Duration { return n.opts.Now().Sub(n.clock.now()) }
	tick := time.NewTicker(ClockLookEvery)
	defer tick.Stop()
	for was := ahead(); ; {
		select {
		case <-n.ctx.Done():
			return
		case <-tick.C:
		}
		is := ahead()
		if by := is - was; by.Abs() >= ClockJumpMin {
			n.opts.Listener.ClockJumped(by)
		}
		was = is
	}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Now returns the node's time.
func (n *Node) Now() time.Time { return n.clock.now() }

// Partitions returns how many partitions the topic has.
func (n *Node) Partitions() int { return len(n.loops) }

// PartitionOf returns the partition that owns a routing key.
func (n *Node) PartitionOf(key string) int32 { return log.PartitionOf(log.SlotOf(key), len(n.loops)) }

// PartitionOfID returns the partition that an id routes to.
func (n *Node) PartitionOfID(id log.ID) int32 { return log.PartitionOf(id.Slot(), len(n.loops)) }

// Submit asks partition p, as a door, and returns at once: ErrBusy if too many wait there, ErrStopped, ErrNotOwned. Otherwise
// done is called exactly once, on the partition's goroutine, after what the answer rests on is durable; it MUST NOT block.
// Commands submitted by one goroutine to one partition are decided in that order.
func (n *Node) Submit(p int32, c Command, done func(Result)) error {
	if p >= 0 && int(p) < len(n.loops) && n.loops[p] != nil && n.loops[p].owing.Load() >= int64(n.opts.OpenMax) {
		return ErrBusy
	}
	return n.submit(p, ask{command: c, done: done, door: true})
}

func (n *Node) submit(p int32, a ask) error {
	if p < 0 || int(p) >= len(n.loops) || n.loops[p] == nil {
		return ErrNotOwned
	}
	return n.loops[p].inbox.put(a)
}

// Do asks partition p and waits for the result, or for ctx. When ctx ends first, the command may still be decided.
func (n *Node) Do(ctx context.Context, p int32, c Command) (Result, error) {
	got := make(chan Result, 1)
	if err := n.Submit(p, c, func(r Result) { got <- r }); err != nil {
		return Result{}, err
	}
	select {
	case r := <-got:
		return r, r.Err
	case <-ctx.Done():
		return Result{}, ctx.Err()
	}
}

// Read runs f over the rows of partition p as they are now: everything in them is durable on the log. The offset tells
// which events they reflect.
func (n *Node) Read(p int32, f func(rows Scanner, at log.Offset) error) error {
	return n.reading(p, func() error { return n.opts.Store.Read(p, f) })
}

// Peek is Read without a snapshot: each row is as it stands when it is looked at. It is enough where one row answers.
func (n *Node) Peek(p int32, f func(rows Reader)) error {
	return n.reading(p, func() error { return n.opts.Store.Peek(p, f) })
}

func (n *Node) reading(p int32, read func() error) error {
	if p < 0 || int(p) >= len(n.loops) || n.loops[p] == nil {
		return ErrNotOwned // it has no rows here, which is not to say that there are none
	}
	err := read()
	if broken := (*StoreError)(nil); errors.As(err, &broken) {
		n.fail(err)
	}
	return err
}

// Wait returns when Read sees everything up to pos, or with ctx's error.
func (n *Node) Wait(ctx context.Context, pos log.Position) error { return n.opts.Store.Wait(ctx, pos) }

// Position returns how far the rows of all partitions have come.
func (n *Node) Position() log.Position { return n.opts.Store.Position() }

// Rest returns when nothing waits to be decided, nothing that has been decided waits to be done, and nothing is due; or with the
// error of ctx, or why the node has failed. What is due later, or waits to be tried again, is not waited for, and may well be
// decided right after. It is for audits, which compare states.
func (n *Node) Rest(ctx context.Context) error {
	tick := time.NewTicker(LazyMax / 4)
	defer tick.Stop()
	for n.busy.Load() > 0 && n.Err() == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-n.ctx.Done():
			return ErrStopped
		}
	}
	return n.Err()
}

// Err returns why the node has failed, or nil.
func (n *Node) Err() error {
	if err := n.failed.Load(); err != nil {
		return *err
	}
	return nil
}

func (n *Node) fail(err error) {
	if n.failed.CompareAndSwap(nil, &err) {
		n.opts.Fatal(err)
	}
}

// Close stops deciding: turns that have begun are ended, what waits gets ErrStopped. It does not close the store.
func (n *Node) Close() error {
	n.cancel()
	n.done.Wait()
	return n.Err()
}
