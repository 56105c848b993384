package embedded

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/store"
)

// Log is the embedded log. It implements [log.Log].
//
// Lock order: noting, admin, giving, partition.moving; life and line.mu are held alone.
type Log struct {
	o     Options
	store *store.Store
	floor floor

	life   sync.RWMutex // guards closed
	closed bool
	users  sync.WaitGroup // who uses the store; nobody new once it is closed
	done   chan struct{}  // closed when Close begins: waiting reads end
	ending sync.Once
	tasks  sync.WaitGroup

	opened  atomic.Bool
	failing sync.Once
	cause   error         // why, once failed is closed
	failed  chan struct{} // closed when nothing may be acknowledged any more

	line   line         // of appends
	noting sync.RWMutex // read: notes are being put; write: they are read
	giving sync.Mutex   // offsets, until Pebble has the batch
	admin  sync.Mutex   // changes of topics, and trims
	nextID uint32
	own    int32                             // leader epoch of this start
	epoch  atomic.Int32                      // the highest that is durable: own, or that of the start before
	owed   *pebble.Batch                     // what a full disk kept the start from writing; guarded by giving
	topics atomic.Pointer[map[string]*topic] // never changed in place
}

var _ log.Log = (*Log)(nil)

// Open opens or makes the log in o.Dir.
//
// Errors: log.ErrLocked; *log.CorruptError, with the first unreadable offset of each partition where that can be had.
func Open(o Options) (*Log, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	l := &Log{o: o, done: make(chan struct{}), failed: make(chan struct{})}
	l.line.idle = make(chan struct{})
	l.floor.init(&l.o)
	s, err := store.Open(o.Dir, o.store(l.fail))
	if err != nil {
		return nil, openError(&o, err)
	}
	l.store = s
	if err := l.begin(); err != nil {
		closed := s.Close() // first: what is said of it is read from the files
		if l.hasFailed() {
			closed = nil // for the same cause
		}
		return nil, errors.Join(openError(&o, err), closed)
	}
	if o.RetentionEvery > 0 && !o.ReadOnly {
		l.tasks.Go(l.keepRetention)
	}
	return l, nil
}

// begin loads and begins an epoch, and returns also what failed in the background meanwhile.
func (l *Log) begin() error {
	stale, err := l.load()
	if err == nil {
		err = l.beginEpoch(stale)
	}
	if err == nil {
		err = l.store.Trust()
	}
	l.opened.Store(err == nil)
	if l.hasFailed() {
		err = l.cause
	}
	return err
}

// fail stops acknowledging, then calls Fatal; as long as the log is being opened, Open says it instead. Only the first
// cause counts.
//
// INVARIANT: failed is closed BEFORE Fatal is called and before the append that failed returns; publish looks at
// it before it moves a durable end.
func (l *Log) fail(cause error) {
	l.failing.Do(func() {
		l.cause = cause
		close(l.failed)
		if l.opened.Load() {
			l.fatal(cause)
		}
	})
}

func (l *Log) fatal(cause error) {
	if l.o.Fatal != nil {
		l.o.Fatal(cause)
		return
	}
	l.o.Logger.Error("embedded: stopping: nothing can be acknowledged any more", "dir", l.o.Dir, "error", cause)
	fmt.Fprintf(os.Stderr, "embedded: stopping: %s: %v\n", l.o.Dir, cause) // the logger may discard
	os.Exit(1)
}

func (l *Log) closedBy() error {
	return fmt.Errorf("embedded: %w: it failed: %v", log.ErrClosed, l.cause)
}

func (l *Log) hasFailed() bool {
	select {
	case <-l.failed:
		return true
	default:
		return false
	}
}

// unlessFailed returns what f returns. Once the log has failed f may wait for a sync for ever, and is left to itself.
func (l *Log) unlessFailed(f func() error) error {
	if l.hasFailed() {
		return l.closedBy()
	}
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-l.failed:
		return l.closedBy()
	}
}

// enter keeps the store open until leave. ErrClosed if it is not, or has failed.
func (l *Log) enter() error {
	if l.hasFailed() {
		return l.closedBy()
	}
	l.life.RLock()
	defer l.life.RUnlock()
	if l.closed {
		return fmt.Errorf("embedded: %w", log.ErrClosed)
	}
	l.users.Add(1)
	return nil
}

func (l *Log) leave() { l.users.Done() }

// enterWriting is enter for what writes.
func (l *Log) enterWriting() error {
	if l.o.ReadOnly {
		return fmt.Errorf("embedded: %w for writing: opened read-only", log.ErrClosed)
	}
	return l.enter()
}

// Features reports gapless offsets.
func (l *Log) Features() log.Features { return log.Features{GaplessOffsets: true} }

// Close waits for appends that have begun and closes. A log that has failed, before or meanwhile, is left as it is, since appends may never
// return: its process is to end, and the next start takes what was synced.
func (l *Log) Close() error {
	var err error
	l.ending.Do(func() { err = l.end() })
	return err
}

func (l *Log) end() error {
	close(l.done)
	l.life.Lock()
	l.closed = true
	l.life.Unlock()
	err := l.unlessFailed(func() error {
		l.users.Wait()
		l.tasks.Wait()
		return nil
	})
	if err != nil {
		return err
	}
	if err := l.store.Close(); err != nil {
		return fmt.Errorf("embedded: close %s: %w", l.o.Dir, err)
	}
	if l.hasFailed() { // meanwhile
		return l.closedBy()
	}
	return nil
}
