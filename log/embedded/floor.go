package embedded

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/remitlog/remit/log"
)

// freeEvery is how long an answer about free space is believed, unless appends have used up what it left.
const freeEvery = 100 * time.Millisecond

// fullTalk is how often it is said at most that the disk is full: one that others fill and empty would be a line ten times a second.
const fullTalk = time.Minute

// floor refuses appends before the disk is full. Pebble does not survive a full disk well: flushes fail first, then a
// WAL write does, which ends the process.
type floor struct {
	o *Options

	mu    sync.Mutex
	free  uint64
	room  int64     // above the floor, less what was appended since asked
	asked time.Time // zero: never

	full atomic.Bool // it was said, and not yet that there is room again
	said time.Time   // when it was
}

func (f *floor) init(o *Options) { f.o = o }

// take asks for n bytes. If it cannot have them it returns ErrDiskFull, and tells the listener once it holds no lock.
func (f *floor) take(n int, now time.Time) error {
	free, ok := f.try(int64(n), now)
	if !ok || f.full.Load() {
		f.say(now, free, ok)
	}
	if ok {
		return nil
	}
	if tell := f.o.Listener.DiskFull; tell != nil {
		tell(free)
	}
	return fmt.Errorf("embedded: %w: %s has %d bytes free, the floor is %d", log.ErrDiskFull, f.o.Dir, free, f.o.FreeFloorBytes)
}

// say logs when appends begin to be refused, and when they are taken again.
func (f *floor) say(now time.Time, free uint64, ok bool) {
	f.mu.Lock()
	changed := f.full.Load() == ok && (ok || f.said.IsZero() || now.Sub(f.said) >= fullTalk)
	if changed {
		f.full.Store(!ok)
	}
	if changed && !ok {
		f.said = now
	}
	f.mu.Unlock()
	switch {
	case !changed:
	case ok:
		f.o.Logger.Info("embedded: there is room on the disk again", "dir", f.o.Dir, "free", free)
	default:
		f.o.Logger.Warn(saidFull, "dir", f.o.Dir, "free", free, "floor", f.o.FreeFloorBytes)
	}
}

const saidFull = "embedded: the disk is full; nothing can be appended until there is room"

func (f *floor) try(n int64, now time.Time) (free uint64, ok bool) {
	if f.o.FreeFloorBytes < 0 {
		return 0, true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	// What is appended is written twice before long: to the WAL, and to a table.
	n *= 2
	if age := now.Sub(f.asked); age < 0 || age >= freeEvery || f.room >= 0 && f.room < n {
		f.ask(now)
	}
	if f.room < n {
		return f.free, false
	}
	f.room -= n
	return f.free, true
}

func (f *floor) ask(now time.Time) {
	free, err := f.o.Free()
	if err != nil {
		free = 1 << 62 // not known
	}
	f.free, f.asked = free, now
	f.room = int64(min(free, 1<<62)) - f.o.FreeFloorBytes
	if f.room < 0 {
		f.room = -1 // refused until asked again
	}
}
