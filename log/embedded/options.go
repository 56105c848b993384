package embedded

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/store"
)

const (
	// FreeFloorBytesDefault is room for a flush and a compaction beside what is there.
	FreeFloorBytesDefault = 256 << 20
	// RetentionEveryDefault is how often retention is looked at.
	RetentionEveryDefault = time.Minute
)

// Options say how a log is opened. Only Dir is needed.
type Options struct {
	// Dir holds the log, and nothing else.
	Dir string
	// FS holds the files; nil means the operating system's.
	FS vfs.FS
	// Logger takes what is worth a person's eye. Nil discards it.
	Logger *slog.Logger
	// Fatal is called once, when nothing may be acknowledged any more (E6). It must not call the log. Nil means: log, and exit with code 1.
	Fatal func(error)
	// Listener watches.
	Listener Listener

	// FreeFloorBytes is the free space below which appends are refused; 0 means the default, negative none.
	FreeFloorBytes int64
	// Free returns the free space in bytes; nil asks the file system. An error means that it is not known, and refuses nothing.
	Free func() (uint64, error)
	// BallastBytes are given up when a write meets a full disk all the same; 0 means MemTableBytes, negative none.
	BallastBytes int64

	// Cache is shared with other stores; nil means one of its own.
	Cache *pebble.Cache
	// MemTableBytes is the size of a memtable, and about that of a WAL; 0 means store.MemTableBytesDefault.
	MemTableBytes uint64
	// Clock gives the time of records that have none, and drives retention. Nil means time.Now.
	Clock func() time.Time
	// RetentionEvery is how often retention is looked at; 0 means the default, negative never.
	RetentionEvery time.Duration

	// ReadOnly opens for reading and changes no file. Writing returns ErrClosed.
	ReadOnly bool
	// Adopt takes a store as it stands, with what it has lost. See store.Options.
	Adopt bool
}

// Listener is told what happens. Each function may be nil, is called without locks, and must be quick.
type Listener struct {
	// Appended: records became durable, so many bytes as rows, so long after Append was called.
	Appended func(records, bytes int, took time.Duration)
	// DiskFull: an append was refused, with so many bytes free.
	DiskFull func(free uint64)
	// Trimmed: a partition begins at to now.
	Trimmed func(p log.Partition, to log.Offset)
}

// EnsureDefaults fills in what is not set.
func (o *Options) EnsureDefaults() {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.FreeFloorBytes == 0 {
		o.FreeFloorBytes = FreeFloorBytesDefault
	}
	if o.MemTableBytes == 0 {
		o.MemTableBytes = store.MemTableBytesDefault
	}
	if o.BallastBytes == 0 {
		o.BallastBytes = int64(o.MemTableBytes)
	}
	if o.RetentionEvery == 0 {
		o.RetentionEvery = RetentionEveryDefault
	}
	if o.Free == nil {
		o.Free = o.free
	}
}

func (o *Options) free() (uint64, error) {
	u, err := o.FS.GetDiskUsage(o.Dir)
	return u.AvailBytes, err
}

// Validate returns what is wrong with o.
func (o *Options) Validate() error {
	if o.Dir == "" {
		return errors.New("embedded: Dir is needed")
	}
	return nil
}

// String says what matters for reading a log of operations.
func (o *Options) String() string {
	return fmt.Sprintf("dir=%s floor=%d ballast=%d memtable=%d readonly=%t adopt=%t", o.Dir, o.FreeFloorBytes, o.BallastBytes, o.MemTableBytes, o.ReadOnly, o.Adopt)
}

func (o *Options) store(fatal func(error)) store.Options {
	return store.Options{
		FS: o.FS, Logger: o.Logger, Fatal: fatal,
		Cache: o.Cache, MemTableBytes: o.MemTableBytes, BallastBytes: max(o.BallastBytes, 0),
		ReadOnly: o.ReadOnly, Adopt: o.Adopt, HoldRemovals: true,
	}
}
