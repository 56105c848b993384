package logtest

import (
	"errors"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// ErrInjected is what a sync that was told to fail fails with.
var ErrInjected = errors.New("logtest: injected")

// Disk is a disk that can be told to fail, to be full and to be slow. The zero value is a good disk. It implements
// errorfs.Injector.
type Disk struct {
	mu      sync.Mutex
	failIn  int // syncs until the one that fails; 0: none does
	failed  bool
	fullIn  int64 // writes until the disk is full; 0: it is not
	full    bool
	gate    chan struct{} // open or nil: syncs pass
	arrived chan struct{}
}

// FS puts the disk's faults on fs.
func (d *Disk) FS(fs vfs.FS) vfs.FS { return errorfs.Wrap(fs, d) }

// FailSync makes the n-th sync from now on, and all after it, fail with ErrInjected.
func (d *Disk) FailSync(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failIn = n
}

// Failed reports whether a sync has failed.
func (d *Disk) Failed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failed
}

// FillUp makes the n-th write or creation from now on, and all after it, fail with ENOSPC.
func (d *Disk) FillUp(n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fullIn = n
}

// MakeRoom ends what FillUp began.
func (d *Disk) MakeRoom() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fullIn, d.full = 0, false
}

// HoldSyncs holds every sync of a WAL until release is called. Each that arrives is told on arrived.
func (d *Disk) HoldSyncs() (arrived <-chan struct{}, release func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	gate := make(chan struct{})
	d.gate, d.arrived = gate, make(chan struct{}, 1024)
	return d.arrived, sync.OnceFunc(func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.gate = nil
		close(gate)
	})
}

// String names the injector.
func (d *Disk) String() string { return "logtest.Disk" }

// MaybeError is called by errorfs ahead of every operation.
func (d *Disk) MaybeError(op errorfs.Op) error {
	switch op.Kind {
	case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
		d.hold(op.Path)
		return d.sync()
	case errorfs.OpCreate, errorfs.OpFileWrite, errorfs.OpFileWriteAt, errorfs.OpFilePreallocate:
		return d.write()
	default:
		return nil
	}
}

func (d *Disk) hold(path string) {
	d.mu.Lock()
	gate, arrived := d.gate, d.arrived
	d.mu.Unlock()
	if gate == nil || !strings.HasSuffix(path, ".log") {
		return
	}
	select {
	case arrived <- struct{}{}:
	default:
	}
	<-gate
}

func (d *Disk) sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failIn > 0 {
		d.failIn--
		d.failed = d.failed || d.failIn == 0
	}
	if d.failed {
		return ErrInjected
	}
	return nil
}

func (d *Disk) write() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fullIn > 0 {
		d.fullIn--
		d.full = d.full || d.fullIn == 0
	}
	if d.full {
		return syscall.ENOSPC
	}
	return nil
}

// Clock is a clock that stands still until it is moved.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// NewClock returns a clock that says t.
func NewClock(t time.Time) *Clock { return &Clock{now: t} }

// Now returns what the clock says.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the clock, back if d is negative.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}
