package store

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Format is the on-disk format of every store. It is raised by hand, never by an update of Pebble.
// It has WAL sync chunks, and a checksum in the footer of tables.
const Format = pebble.FormatValueSeparation

// Limits and defaults, in bytes.
const (
	MemTableBytesDefault = 64 << 20
	MemTableBytesMin     = 256 << 10
	MemTableBytesMax     = 1 << 30
	CacheBytesDefault    = 64 << 20
	BlockBytesDefault    = 32 << 10
)

// Options say how a store is opened. The zero value is a store with a WAL on the operating system's files.
type Options struct {
	// FS holds the files; nil means the operating system's.
	FS vfs.FS
	// Logger takes what Pebble says. Nil discards it.
	Logger *slog.Logger
	// Fatal is called once, when nothing may be acknowledged any more. It should end the process and not return; if it
	// returns, the goroutine that failed is held for ever, and the directory stays locked. Pebble may hold locks meanwhile: Fatal must not
	// call the store. Nil means: log, and exit with code 1.
	Fatal func(error)

	// DisableWAL is for stores that another log can rebuild.
	DisableWAL bool
	// Filters gives every table, also those of the last level, a bloom filter over whole keys, for stores that look
	// keys up: with SeekPrefixGE and IterOptions.UseL6Filters, since Get skips the last level's. A store that
	// was made with it must be opened with it.
	Filters bool

	// Cache is shared between stores. Nil means one of CacheBytes for this store.
	Cache      *pebble.Cache
	CacheBytes int64
	// MemTableBytes is the size of a memtable; two of them may be held at a time.
	MemTableBytes uint64
	// BlockBytes is the size of a table's blocks before compression.
	BlockBytes int
	// BallastBytes of disk are held back, and given up when a write meets a full disk; 0 means none.
	BallastBytes int64

	// ReadOnly opens without changing or deleting any file.
	ReadOnly bool
	// HoldRemovals keeps every file that Pebble would delete until [Store.Trust]: a start that is refused after all has
	// deleted nothing.
	HoldRemovals bool
	// Adopt takes a store as it stands: a mismatch or a missing witness is passed over, and a new witness is begun. A WAL
	// that does not match is cut before its first byte in doubt; it and those after it stay beside as *.doubt. It is for a
	// person who has decided to go on with what is left.
	Adopt bool
	// Tune may change what is left of Pebble's options; what this package fixes is set after it.
	Tune func(*pebble.Options)
}

// EnsureDefaults fills in what is not set.
func (o *Options) EnsureDefaults() {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Fatal == nil {
		o.Fatal = exit(o.Logger)
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = CacheBytesDefault
	}
	if o.MemTableBytes == 0 {
		o.MemTableBytes = MemTableBytesDefault
	}
	if o.BlockBytes == 0 {
		o.BlockBytes = BlockBytesDefault
	}
}

func exit(l *slog.Logger) func(error) {
	return func(err error) {
		l.Error("store: stopping: nothing can be acknowledged any more", "error", err)
		fmt.Fprintf(os.Stderr, "store: stopping: %v\n", err) // the logger may discard
		os.Exit(1)
	}
}

// Validate returns all that is wrong with o.
func (o *Options) Validate() error {
	var errs []error
	if o.MemTableBytes < MemTableBytesMin || o.MemTableBytes > MemTableBytesMax {
		errs = append(errs, fmt.Errorf("store: MemTableBytes %d is not within [%d, %d]", o.MemTableBytes, MemTableBytesMin, MemTableBytesMax))
	}
	if o.BlockBytes < 1<<10 || o.BlockBytes > 1<<20 {
		errs = append(errs, fmt.Errorf("store: BlockBytes %d is not within [1024, 1048576]", o.BlockBytes))
	}
	if o.BallastBytes < 0 || o.CacheBytes < 0 {
		errs = append(errs, errors.New("store: BallastBytes and CacheBytes cannot be negative"))
	}
	if o.ReadOnly && o.Adopt {
		errs = append(errs, errors.New("store: Adopt begins a new witness, which ReadOnly forbids"))
	}
	return errors.Join(errs...)
}

// String says what matters for reading a log of operations.
func (o *Options) String() string {
	return fmt.Sprintf("wal=%t filters=%t memtable=%d block=%d ballast=%d readonly=%t adopt=%t", !o.DisableWAL, o.Filters, o.MemTableBytes, o.BlockBytes, o.BallastBytes, o.ReadOnly, o.Adopt)
}

// wholeKey is the bytewise order with the whole key as prefix, so that bloom filters hold whole keys. It has a name
// of its own because the filters of tables depend on it: Pebble refuses to open a store under another.
var wholeKey = func() *pebble.Comparer {
	c := *pebble.DefaultComparer
	c.Split = func(key []byte) int { return len(key) }
	c.Name = "remit.WholeKey.v1"
	return &c
}()

// pebble makes Pebble's options. WAL failover stays off: the durable end relies on one WAL being synced in order.
func (o *Options) pebble(fs vfs.FS, stop *stopper) *pebble.Options {
	po := &pebble.Options{}
	for i := range po.Levels {
		po.Levels[i].BlockSize = o.BlockBytes
		po.Levels[i].IndexBlockSize = 256 << 10
		if o.Filters {
			po.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		}
	}
	// The processor is the limit, not the disk: a bigger last level is rewritten less often, and nothing is compressed.
	po.LBaseMaxBytes, po.L0CompactionThreshold, po.L0StopWritesThreshold = 256<<20, 8, 24
	po.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionNone })
	if o.Tune != nil {
		o.Tune(po)
	}
	po.FS, po.FormatMajorVersion = fs, Format
	po.Cache, po.CacheSize = o.Cache, o.CacheBytes
	po.MemTableSize, po.DisableWAL, po.ReadOnly = o.MemTableBytes, o.DisableWAL, o.ReadOnly
	po.Logger, po.WALFailover = &logger{o.Logger, stop}, nil
	po.AddEventListener(listener(o.Logger, stop))
	if o.Filters {
		po.Comparer = wholeKey
	}
	return po
}
