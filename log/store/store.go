package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/errors/oserror"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/remitlog/remit/log"
)

// witnessEvery is how often the ledger is fsynced: the window in which a power cut and a flipped bit together
// go unseen.
const witnessEvery = time.Second

// Store is an open Pebble. Close it with its own Close.
type Store struct {
	*pebble.DB
	stop   *stopper
	lock   io.Closer
	ledger *ledger    // nil if read-only
	fs     *witnessFS // likewise
	guard  *guardFS   // likewise

	done   chan struct{}
	ending sync.WaitGroup
}

// Open opens or makes the store in dir.
//
// Errors: log.ErrLocked; *log.CorruptError, and then no file of Pebble's has changed; others as
// the file system has them.
func Open(dir string, o Options) (*Store, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if !o.ReadOnly {
		if err := makeDir(o.FS, dir); err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
	}
	lock, err := lockDir(o.FS, dir)
	if err != nil {
		return nil, err
	}
	s := &Store{lock: lock, stop: newStopper(o.Fatal), done: make(chan struct{})}
	err = s.open(dir, &o, lock)
	switch {
	case isHeld(err):
		return nil, fmt.Errorf("store: open %s: %w", dir, err)
	case err != nil:
		return nil, errors.Join(err, s.release())
	}
	if s.guard != nil {
		s.guard.open.Store(true)
	}
	return s, nil
}

// open: the check comes BEFORE anything is opened; Pebble, given the chance, deletes what it does not know.
func (s *Store) open(dir string, o *Options, lock *pebble.Lock) error {
	found, err := inspect(o.FS, dir)
	if c := (*log.CorruptError)(nil); o.Adopt && errors.As(err, &c) {
		o.Logger.Warn("store: adopted as it stands", "dir", dir, "error", err)
		found.ledger.claims, found.ledger.born = nil, false
		err = setAside(o.FS, dir, c)
	}
	if err != nil {
		return err
	}
	fs := o.FS
	if !o.ReadOnly {
		if fs, err = s.witness(dir, o, found); err != nil {
			return err
		}
	}
	if s.DB, err = s.openTwice(dir, o, fs, lock, !o.ReadOnly && !(found.noted && found.ledger.born)); err != nil {
		return err
	}
	s.begin()
	return nil
}

// witness puts the file systems on one another: what was given, the ballast, the witness, the guard.
func (s *Store) witness(dir string, o *Options, found *found) (vfs.FS, error) {
	fs := withBallast(o.FS, dir, o.BallastBytes, o.Logger)
	state := found.ledger
	if found.fresh() {
		state.claims = nil // of a store that was never finished
	}
	var err error
	if s.ledger, err = openLedger(fs, dir, state, !found.noted); err != nil {
		return nil, err
	}
	s.fs = &witnessFS{FS: fs, ledger: s.ledger, stop: s.stop}
	if o.HoldRemovals {
		s.fs.held = &removals{}
	}
	s.guard = &guardFS{FS: s.fs, stop: s.stop}
	return s.guard, nil
}

func (s *Store) openTwice(dir string, o *Options, fs vfs.FS, lock *pebble.Lock, twice bool) (*pebble.DB, error) {
	open := func() (*pebble.DB, error) {
		po := o.pebble(fs, s.stop)
		po.Lock = lock
		return openPebble(dir, po, s.stop)
	}
	db, err := open()
	if err != nil || !twice {
		return db, err
	}
	if err := s.stop.unlessHeld(db.Close); err != nil {
		return nil, fmt.Errorf("store: close %s, just made: %w", dir, err)
	}
	if db, err = open(); err != nil {
		return nil, err
	}
	if err := s.ledger.bear(); err != nil {
		return nil, errors.Join(err, s.stop.unlessHeld(db.Close))
	}
	return db, nil
}

// openPebble opens, and returns also when Pebble stops within: its goroutine is then held for ever.
func openPebble(dir string, po *pebble.Options, stop *stopper) (*pebble.DB, error) {
	opened := make(chan *pebble.DB, 1)
	err := stop.unlessHeld(func() (err error) {
		defer func() {
			if r := recover(); r != nil {
				err = fmt.Errorf("%w: pebble: %v", log.ErrCorrupt, r)
			}
		}()
		db, err := pebble.Open(dir, po)
		opened <- db
		return err
	})
	if err != nil {
		return nil, openError(dir, po, err)
	}
	return <-opened, nil
}

// begin starts the ledger's clock.
func (s *Store) begin() {
	if s.ledger == nil {
		return
	}
	s.ending.Go(func() {
		t := time.NewTicker(witnessEvery)
		defer t.Stop()
		for {
			select {
			case <-s.done:
				return
			case <-t.C:
				_ = s.flushWitness() // Fatal was told
			}
		}
	})
}

func (s *Store) flushWitness() error {
	err := s.ledger.flush()
	if err != nil {
		err = fmt.Errorf("store: sync of %s failed: %w", LedgerName, err)
		s.stop.stop(err)
	}
	return err
}

// Trust says that what was opened is whole: what Options.HoldRemovals has held back is removed now.
func (s *Store) Trust() error {
	if s.fs == nil {
		return nil
	}
	return s.fs.trust()
}

// Stop says that something was found after which nothing may be acknowledged. It calls Fatal, once.
func (s *Store) Stop(err error) { s.stop.stop(err) }

// Flush makes everything written so far durable in tables. A store that has stopped returns an error, and does not wait.
func (s *Store) Flush() error { return s.stop.unlessHeld(s.DB.Flush) }

// Close closes Pebble, notes what is synced, and gives the directory free. A store that a failed sync has stopped is left as it
// is, and stays locked: what Pebble holds cannot be waited for.
func (s *Store) Close() error {
	close(s.done)
	s.ending.Wait()
	err := s.stop.unlessHeld(s.DB.Close)
	if isHeld(err) {
		return fmt.Errorf("store: not closed: %w", err)
	}
	if s.ledger != nil {
		err = errors.Join(err, s.flushWitness())
	}
	return errors.Join(err, s.release())
}

// release undoes what Open did beside Pebble.
func (s *Store) release() error {
	var err error
	if s.ledger != nil {
		err = s.ledger.close()
	}
	return errors.Join(err, s.lock.Close())
}

// makeDir makes dir, and its place in every directory above it durable. What it makes is its user's alone: in a log are payments, and the
// secrets that calls are signed with.
func makeDir(fs vfs.FS, dir string) error {
	var made []string
	for d := dir; ; d = fs.PathDir(d) {
		_, err := fs.Stat(d)
		if err == nil || d == fs.PathDir(d) {
			break
		}
		if !oserror.IsNotExist(err) {
			return err
		}
		made = append(made, fs.PathDir(d))
	}
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, d := range made {
		if err := syncDir(fs, d); err != nil {
			return err
		}
	}
	return nil
}

func lockDir(fs vfs.FS, dir string) (*pebble.Lock, error) {
	lock, err := pebble.LockDirectory(dir, fs)
	switch {
	case err == nil:
		return lock, nil
	case held(err):
		return nil, fmt.Errorf("store: %w: %s", log.ErrLocked, dir)
	default:
		return nil, fmt.Errorf("store: lock %s: %w", dir, err)
	}
}

// held: fcntl says EAGAIN or EACCES, as they are (a PathError is of the file, not of the lock); within this process,
// Pebble says so in words.
func held(err error) bool {
	var p *os.PathError
	if errors.As(err, &p) {
		return false
	}
	return errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES) || err.Error() == "lock held by current process"
}
