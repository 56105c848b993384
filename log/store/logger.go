package store

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// stopper calls Fatal for the first cause, once.
type stopper struct {
	once  sync.Once
	fatal func(error)

	holding sync.Once
	held    chan struct{} // closed when the first goroutine is held
	why     error         // once held is closed
}

func newStopper(fatal func(error)) *stopper {
	return &stopper{fatal: fatal, held: make(chan struct{})}
}

func (s *stopper) stop(err error) { s.once.Do(func() { s.fatal(err) }) }

// hold stops, and never returns.
func (s *stopper) hold(err error) {
	s.stop(err)
	s.holding.Do(func() {
		s.why = err
		close(s.held)
	})
	select {} // Fatal did not end the process; nothing more comes from this goroutine
}

// unlessHeld returns what f returns. When a goroutine is held already f is not called. When one is held meanwhile, f may wait for it for
// ever, and is left to itself. The error is a *heldError in both cases.
func (s *stopper) unlessHeld(f func() error) error {
	select {
	case <-s.held:
		return &heldError{s.why}
	default:
	}
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-s.held:
		return &heldError{s.why}
	}
}

// heldError: a goroutine is held, with Pebble's locks, and others of Pebble may still run. Nothing that they use may be closed or given
// free.
type heldError struct{ error }

func (e *heldError) Unwrap() error { return e.error }

func isHeld(err error) bool {
	held := (*heldError)(nil)
	return errors.As(err, &held)
}

// logger gives Pebble's words to slog. Pebble's information is for who debugs Pebble.
type logger struct {
	*slog.Logger
	stop *stopper
}

// often lets through one of many: a full disk says the same thing with every try.
type often struct{ last atomic.Int64 }

// oftenEvery is how often the same thing is said.
const oftenEvery = 10 * time.Second

func (o *often) may() bool {
	now, last := time.Now().UnixNano(), o.last.Load()
	return now-last > int64(oftenEvery) && o.last.CompareAndSwap(last, now)
}

func (l *logger) Infof(format string, args ...any) {
	l.Debug("pebble: " + fmt.Sprintf(format, args...))
}
func (l *logger) Errorf(format string, args ...any) {
	l.Warn("pebble: " + fmt.Sprintf(format, args...))
}

// Fatalf never returns: Pebble's state is undefined behind it.
func (l *logger) Fatalf(format string, args ...any) {
	l.stop.hold(fmt.Errorf("store: "+format, args...))
}

// listener turns what Pebble notices about durability into a stop.
func listener(l *slog.Logger, stop *stopper) pebble.EventListener {
	full := &often{}
	return pebble.EventListener{
		BackgroundError: func(err error) { backgroundError(l, stop, full, err) },
		DataCorruption: func(info pebble.DataCorruptionInfo) {
			stop.stop(corruptFile(info.Path, info.Details))
		},
		WriteStallBegin: func(info pebble.WriteStallBeginInfo) {
			l.Warn("store: writes wait for flushes or compactions", "reason", info.Reason)
		},
		WriteStallEnd: func() { l.Info("store: writes go on") },
	}
}

// backgroundError judges a flush or compaction that failed. A full disk is not fatal: nothing is lost, Pebble tries
// again, and appends are refused meanwhile by their own check. All else is: a table that could not be
// synced today is a table that cannot be trusted.
func backgroundError(l *slog.Logger, stop *stopper, full *often, err error) {
	switch {
	case errors.Is(err, pebble.ErrCancelledCompaction):
	case vfs.IsNoSpaceError(err):
		if full.may() {
			l.Error("store: the disk is full; make room", "error", err.Error())
		}
	default:
		stop.stop(fmt.Errorf("store: background error: %w", err))
	}
}
