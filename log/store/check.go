package store

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path"
	"strings"

	"github.com/cockroachdb/errors/oserror"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/wal"

	"github.com/remitlog/remit/log"
)

// Exists reports whether a store was ever finished in dir: whether something may have been acknowledged there. It changes nothing.
func Exists(fs vfs.FS, dir string) (bool, error) {
	if _, err := fs.Stat(dir); oserror.IsNotExist(err) {
		return false, nil
	}
	f, err := peek(fs, dir)
	if err != nil {
		return false, err
	}
	return !f.fresh(), nil
}

// found is what is known of a directory before Pebble looks at it.
type found struct {
	ledger  ledgerState
	noted   bool // there is a ledger, and a slot of it is whole
	damaged bool // a slot of it is not
	exists  bool // Pebble sees a store
	// formatted: a marker says in which format the store is.
	formatted bool
	manifest  string
}

// fresh: no append was ever acknowledged here, so there is nothing to lose.
func (f *found) fresh() bool { return !f.noted && !f.exists || f.noted && !f.ledger.born }

func inspect(fs vfs.FS, dir string) (*found, error) {
	f, err := peek(fs, dir)
	if err != nil {
		return f, err
	}
	return f, f.check(fs, dir)
}

func peek(fs vfs.FS, dir string) (*found, error) {
	var f found
	var err error
	f.ledger, f.noted, f.damaged, err = readLedger(fs, fs.PathJoin(dir, LedgerName))
	if err != nil {
		return nil, err
	}
	desc, err := pebble.Peek(dir, fs)
	if err != nil {
		return &f, fmt.Errorf("store: look at %s: %w", dir, err)
	}
	f.exists, f.formatted, f.manifest = desc.Exists, desc.FormatMajorVersion != pebble.FormatDefault, desc.ManifestFilename
	return &f, nil
}

func (f *found) check(fs vfs.FS, dir string) error {
	switch {
	case f.exists && !f.noted && f.damaged:
		return &log.CorruptError{File: LedgerName, Byte: 0, Detail: "no slot of the witness is whole, so that nothing can be said of the other files; " + putBack}
	case f.exists && !f.noted:
		return &log.CorruptError{File: LedgerName, Byte: -1, Detail: "the witness of what was synced is missing; " + putBack}
	case f.fresh():
		return nil
	case !f.exists:
		return &log.CorruptError{File: "marker.manifest", Byte: -1, Detail: "the store was made here, and nothing says any more which MANIFEST is current; " + putBack}
	case !f.formatted:
		return &log.CorruptError{File: "marker.format-version", Byte: -1, Detail: "the store was made here, and nothing says any more in which format; " + putBack}
	}
	for _, c := range f.ledger.claims {
		if strings.HasPrefix(c.name, "MANIFEST-") && c.name != fs.PathBase(f.manifest) {
			continue // an older one, or one that never became current: nothing depends on it
		}
		if err := c.check(fs, dir); err != nil {
			return err
		}
	}
	return nil
}

// check compares one file with what was synced of it.
func (c *claim) check(fs vfs.FS, dir string) error {
	f, err := fs.Open(fs.PathJoin(dir, c.name), vfs.SequentialReadsOption)
	if oserror.IsNotExist(err) {
		return &log.CorruptError{File: c.name, Byte: 0, Detail: fmt.Sprintf("missing; %d bytes of it were synced; %s", c.length, putBack)}
	}
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	defer func() { _ = f.Close() }()
	sum := crc32.New(castagnoli)
	n, err := io.Copy(sum, io.LimitReader(f, c.length))
	switch {
	case err != nil:
		return &log.CorruptError{File: c.name, Byte: n, Detail: fmt.Sprintf("cannot be read: %v", err)}
	case n < c.length:
		return &log.CorruptError{File: c.name, Byte: n, Detail: fmt.Sprintf("ends here; %d bytes were synced", c.length)}
	case sum.Sum32() != c.crc:
		return c.mismatch(fs, dir)
	}
	return nil
}

func (c *claim) mismatch(fs vfs.FS, dir string) error {
	at := firstDoubt(fs, fs.PathJoin(dir, c.name), c.length)
	return &log.CorruptError{File: c.name, Byte: at, Detail: fmt.Sprintf("the %d bytes that were synced are not those that are there; the record that begins here is the first in doubt", c.length)}
}

// firstDoubt returns where the first record begins that does not hold by its own checksum.
func firstDoubt(fs vfs.FS, name string, limit int64) int64 {
	b, err := readAll(fs, name)
	if err != nil {
		return 0
	}
	r := numbered(record.NewReader, bytes.NewReader(b), logNumber(name))
	good := int64(0)
	for {
		one, err := r.Next()
		if err == nil {
			_, err = io.Copy(io.Discard, one)
		}
		if err != nil || r.Offset() > limit {
			return min(good, limit)
		}
		good = r.Offset()
	}
}

// logNumber is the WAL's number, which is in each of its records; a MANIFEST's records have none.
func logNumber(name string) uint64 {
	num, _, ok := wal.ParseLogFilename(path.Base(name))
	if !ok {
		return 0
	}
	return uint64(num)
}

// numbered calls record.NewReader, whose number is of a type that cannot be named here.
func numbered[N ~uint64](open func(io.Reader, N) *record.Reader, r io.Reader, n uint64) *record.Reader {
	return open(r, N(n))
}

func readAll(fs vfs.FS, name string) ([]byte, error) {
	f, err := fs.Open(name)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(f)
	return b, errors.Join(err, f.Close())
}
