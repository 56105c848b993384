package embedded

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/store"
)

// Log is the embedded log. It implements [log.Log].
//
// Lock order: life, noting, admin, giving, partition.moving; line.mu is held alone.
type Log struct {
	o     Options
	store *store.Store
	floor floor

	life   sync.RWMutex // read: the store is in use; write: it is being closed
	closed bool
	done   chan struct{} // closed when Close begins: waiting reads end
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
	epoch  int32                             // leader epoch of this start
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
		return nil, errors.Join(openError(&o, err), closed)
	}
	if err := s.Trust(); err != nil {
		return nil, errors.Join(fmt.Errorf("embedded: %s: %w", o.Dir, err), s.Close())
	}
	if o.RetentionEvery > 0 && !o.ReadOnly {
		l.tasks.Go(l.keepRetention)
	}
	return l, nil
}

// begin loads, and returns also what failed in the background meanwhile.
func (l *Log) begin() error {
	err := l.load()
	if err == nil {
		err = l.beginEpoch()
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

// enter keeps the store open until leave. ErrClosed if it is not, or has failed.
func (l *Log) enter() error {
	if l.hasFailed() {
		return l.closedBy()
	}
	l.life.RLock()
	if l.closed {
		l.life.RUnlock()
		return fmt.Errorf("embedded: %w", log.ErrClosed)
	}
	return nil
}

func (l *Log) leave() { l.life.RUnlock() }

// enterWriting is enter for what writes.
func (l *Log) enterWriting() error {
	if l.o.ReadOnly {
		return fmt.Errorf("embedded: %w for writing: opened read-only", log.ErrClosed)
	}
	return l.enter()
}

// Features reports gapless offsets.
func (l *Log) Features() log.Features { return log.Features{GaplessOffsets: true} }

// Close waits for appends that have begun and closes. A log that has failed is left as it is, since appends may never return: its
// process is to end, and the next start takes what was synced.
func (l *Log) Close() error {
	var err error
	l.ending.Do(func() { err = l.end() })
	return err
}

func (l *Log) end() error {
	close(l.done)
	if l.hasFailed() {
		return l.closedBy()
	}
	l.life.Lock()
	l.closed = true
	l.life.Unlock()
	l.tasks.Wait()
	if err := l.store.Close(); err != nil {
		return fmt.Errorf("embedded: close %s: %w", l.o.Dir, err)
	}
	return nil
}
