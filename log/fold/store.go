package fold

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
	"log/slog"
	"sync"
	"time"

	"github.com/cockroachdb/errors/oserror"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/fxamacker/cbor/v2"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/store"
)

// StoreOptions say where a fold keeps its rows.
type StoreOptions struct {
	Dir string
	// Version names the rules that make the rows. A store made by another version is made again.
	Version    string
	Partitions int
	// FS is where Dir is; the operating system's by default.
	FS vfs.FS
	// Cache may be shared by several stores.
	Cache *pebble.Cache
	// MemTableBytes bounds what is not flushed, together with FlushEvery.
	MemTableBytes uint64
	// FlushEvery bounds in time what a restart must read again.
	FlushEvery time.Duration
	// Doubt is told why a store is deleted and made again from the log.
	Doubt func(dir string, why error)
	// Fatal is told of what nothing can be folded after. The default stops the process.
	Fatal  func(error)
	Logger *slog.Logger
}

// EnsureDefaults fills in what was left out.
func (o *StoreOptions) EnsureDefaults() {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.MemTableBytes == 0 {
		o.MemTableBytes = 32 << 20
	}
	if o.FlushEvery == 0 {
		o.FlushEvery = 10 * time.Second
	}
	if o.Doubt == nil {
		o.Doubt = func(string, error) {}
	}
	if o.Fatal == nil {
		o.Fatal = exit
	}
}

// damage is told by the store below of whatever it cannot go on after.
type damage struct {
	opts   *StoreOptions
	mu     sync.Mutex
	opened bool
	err    error // while it was being opened
}

// fatal marks a damaged store BEFORE the process ends: else the next start would open it again, and meet the same damage. One
// that is only being opened is made again at once, and is no reason to end.
func (d *damage) fatal(err error) {
	if errors.Is(err, log.ErrCorrupt) || pebble.IsCorruptionError(err) {
		d.mu.Lock()
		opening := !d.opened
		if opening {
			d.err = err
		}
		d.mu.Unlock()
		if opening {
			return
		}
		err = &StoreError{Err: d.opts.doubted(err)}
	}
	d.opts.Fatal(err)
}

// end is called when the store is open. It returns what was found meanwhile.
func (d *damage) end() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.opened = true
	return d.err
}

// Store keeps the rows of a fold in a Pebble without a write-ahead log. Each batch holds rows and the
// partition's offset, so that whatever has been flushed is a consistent prefix of the fold.
//
//	key   = partition (2 bytes, big endian) | table (1 byte) | rest
//	value = as the table has it; table 0 is the partition's own row: [offset, recorded ms]
//
// INVARIANT: rows and offset of one batch of events are committed together.
type Store struct {
	opts StoreOptions
	db   *store.Store
	stop chan struct{}
	done sync.WaitGroup

	// writers are what folds read through; each is touched by the goroutine that writes its partition alone.
	writers []*recent
	// folding is what fold folds into, above writers.
	folding []*overlay

	mu      sync.Mutex
	folded  []meta
	changed chan struct{} // closed when folded moves; nil if nobody waits
	closed  bool
	reading sync.WaitGroup // of snapshots; added to under mu, while not closed
}

// meta is a partition's own row.
type meta struct {
	_        struct{} `cbor:",toarray"`
	Offset   log.Offset
	Recorded int64 // ms of the last event
}

const doubtFile = "DOUBT"

// OpenStore opens a store, or makes it. One that is in doubt, damaged, or of another version is
// deleted first: the log has all of it.
func OpenStore(opts StoreOptions) (*Store, error) {
	opts.EnsureDefaults()
	if f, err := opts.FS.Open(doubt(opts)); err == nil {
		_ = f.Close()
		opts.Doubt(opts.Dir, errors.New("marked as in doubt by the last run"))
		if err := opts.FS.RemoveAll(opts.Dir); err != nil {
			return nil, fmt.Errorf("fold: store %s: %w", opts.Dir, err)
		}
	}
	s, err := openStore(opts)
	if err == nil || !inDoubt(err) {
		return s, err
	}
	opts.Doubt(opts.Dir, err)
	if err := opts.FS.RemoveAll(opts.Dir); err != nil {
		return nil, fmt.Errorf("fold: store %s: %w", opts.Dir, err)
	}
	return openStore(opts)
}

// inDoubt reports whether err says that the store itself is not what it should be. A full disk, too many open files or a wrong
// option are no reason to make it again: that would take hours, and fail as well.
func inDoubt(err error) bool {
	var row *StoreError
	return errors.Is(err, log.ErrCorrupt) || pebble.IsCorruptionError(err) || errors.Is(err, errVersion) || errors.As(err, &row) ||
		oserror.IsNotExist(err) // a file of it is missing
}

var errVersion = errors.New("fold: another version")

func doubt(o StoreOptions) string { return o.FS.PathJoin(o.Dir, doubtFile) }

var versionKey = []byte{0xff, 0xff, 0}

func openStore(opts StoreOptions) (*Store, error) {
	d := damage{opts: &opts}
	db, err := store.Open(opts.Dir, store.Options{
		FS: opts.FS, Cache: opts.Cache, MemTableBytes: opts.MemTableBytes, DisableWAL: true, Filters: true,
		Logger: opts.Logger, Fatal: d.fatal,
	})
	if err != nil {
		return nil, err
	}
	s := &Store{opts: opts, db: db, stop: make(chan struct{}), folded: make([]meta, opts.Partitions)}
	if err := cmp.Or(s.restore(), d.end()); err != nil {
		_ = db.Close()
		return nil, err
	}
	for p := range int32(opts.Partitions) {
		s.writers = append(s.writers, newRecent(storeReader{db, p}))
		s.folding = append(s.folding, newFinal(s.writers[p]))
	}
	s.done.Go(s.flushing)
	return s, nil
}

// restore reads how far each partition has come.
func (s *Store) restore() error {
	version := s.opts.Version + "/" + fmt.Sprint(s.opts.Partitions)
	was, err := s.get(versionKey)
	switch {
	case err != nil:
		return err
	case was == nil:
		return s.db.Set(versionKey, []byte(version), pebble.NoSync)
	case string(was) != version:
		return fmt.Errorf("%w: store %s was made by %q, this is %q", errVersion, s.opts.Dir, was, version)
	}
	for p := range s.folded {
		b, err := s.get(rowKey(int32(p), metaKey))
		if err != nil {
			return err
		}
		if b == nil {
			continue
		}
		if err := cbor.Unmarshal(b, &s.folded[p]); err != nil {
			return fmt.Errorf("fold: store %s partition %d: %w", s.opts.Dir, p, &StoreError{Key: metaKey, Err: err})
		}
	}
	return nil
}

const metaKey = "\x00"

// partitionLen is how many bytes of a key are the partition's.
const partitionLen = 2

func rowKey(p int32, key string) []byte {
	b := make([]byte, 0, partitionLen+len(key))
	b = binary.BigEndian.AppendUint16(b, uint16(p))
	return append(b, key...)
}

func (s *Store) get(key []byte) ([]byte, error) {
	v, c, err := s.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	return append(make([]byte, 0, len(v)), v...), nil
}

// flushing bounds in time what is not flushed.
func (s *Store) flushing() {
	tick := time.NewTicker(s.opts.FlushEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
			_, _ = s.db.AsyncFlush() // it fails only when the store is closed
		}
	}
}

// Offset returns the offset of the next event that a partition's rows do not have yet.
func (s *Store) Offset(p int32) log.Offset {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.folded[p].Offset
}

// Recorded returns the time of the last event that a partition's rows have.
func (s *Store) Recorded(p int32) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.UnixMilli(s.folded[p].Recorded)
}

// Position returns how far all partitions have come.
func (s *Store) Position() log.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.position()
}

func (s *Store) position() log.Position {
	pos := make(log.Position, len(s.folded))
	for p, m := range s.folded {
		pos[int32(p)] = m.Offset
	}
	return pos
}

// Wait returns when the rows have everything up to pos, or with ctx's error.
func (s *Store) Wait(ctx context.Context, pos log.Position) error {
	for {
		s.mu.Lock()
		reached, closed := s.covers(pos), s.closed
		if s.changed == nil {
			s.changed = make(chan struct{})
		}
		changed := s.changed
		s.mu.Unlock()
		switch {
		case reached:
			return nil
		case closed:
			return ErrStopped
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

func (s *Store) covers(pos log.Position) bool {
	for p, end := range pos {
		if p < 0 || int(p) >= len(s.folded) || s.folded[p].Offset < end {
			return false
		}
	}
	return true
}

// commit makes an overlay the state of a partition that has come to offset.
func (s *Store) commit(p int32, o *overlay, m meta) error {
	b := s.db.NewBatch()
	defer func() { _ = b.Close() }()
	full := rowKey(p, "")
	var value bytes.Buffer
	for _, key := range o.sorted() { // in order, since each row is then put where the last one was
		r, err := o.rows[key], error(nil)
		full = append(full[:partitionLen], key...)
		if r.gone {
			err = b.Delete(full, nil)
		} else {
			err = b.Set(full, r.encodedIn(&value), nil)
		}
		if err != nil {
			return err
		}
	}
	row, err := encMode.Marshal(m)
	if err != nil {
		return err
	}
	if err := b.Set(rowKey(p, metaKey), row, nil); err != nil {
		return err
	}
	if err := b.Commit(pebble.NoSync); err != nil {
		return err
	}
	s.writers[p].landed(o)
	s.mu.Lock()
	s.folded[p] = m
	s.wake()
	s.mu.Unlock()
	return nil
}

// wake lets those look again who wait. The caller holds mu.
func (s *Store) wake() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// scanner returns the rows of a partition as they are folded so far. It panics with *StoreError when the store cannot be
// read.
func (s *Store) scanner(p int32) Scanner { return storeReader{s.db, p} }

// Read runs f over a snapshot of a partition's rows, which reflects exactly the events below the
// offset given.
func (s *Store) Read(p int32, f func(rows Scanner, at log.Offset) error) error {
	return s.snapshot(func(snap *pebble.Snapshot) error {
		rows := storeReader{snap, p}
		m, err := rows.meta()
		if err != nil {
			return err
		}
		return f(rows, m.Offset)
	})
}

// ReadAll is Read over all partitions at once. at says how far each has come in the snapshot.
func (s *Store) ReadAll(f func(rows func(p int32) Scanner, at log.Position) error) error {
	return s.snapshot(func(snap *pebble.Snapshot) error {
		at := make(log.Position, len(s.folded))
		for p := range int32(len(s.folded)) {
			m, err := storeReader{snap, p}.meta()
			if err != nil {
				return err
			}
			at[p] = m.Offset
		}
		return f(func(p int32) Scanner { return storeReader{snap, p} }, at)
	})
}

// Peek is Read without a snapshot: each row is as it stands when it is looked at. It costs less, and is
// enough where one row answers.
func (s *Store) Peek(p int32, f func(rows Reader)) error {
	return s.guard(func() error {
		f(storeReader{s.db, p})
		return nil
	})
}

// snapshot runs f over one.
func (s *Store) snapshot(f func(*pebble.Snapshot) error) error {
	return s.guard(func() error {
		snap := s.db.NewSnapshot()
		defer func() { _ = snap.Close() }()
		return f(snap)
	})
}

// guard keeps the store open while f reads, and turns what readers panic with into an error.
func (s *Store) guard(f func() error) (err error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrStopped
	}
	s.reading.Add(1)
	s.mu.Unlock()
	defer s.reading.Done()
	defer func() {
		if r := recover(); r != nil {
			broken, ok := r.(*StoreError)
			if !ok {
				panic(r)
			}
			err = s.doubted(broken)
		}
	}()
	if err = f(); err != nil {
		if broken := (*StoreError)(nil); errors.As(err, &broken) {
			err = s.doubted(err)
		}
	}
	return err
}

// doubted marks the store, so that the next start makes it again.
func (s *Store) doubted(why error) error { return s.opts.doubted(why) }

func (o *StoreOptions) doubted(why error) error {
	f, err := o.FS.Create(doubt(*o), vfs.WriteCategoryUnspecified)
	if err == nil {
		_, _ = io.WriteString(f, why.Error())
		err = errors.Join(f.Sync(), f.Close())
	}
	return errors.Join(fmt.Errorf("fold: store %s is damaged; it is made again from the log at the next start: %w", o.Dir, why), err)
}

// storeReader reads one partition of a store or of a snapshot of it.
type storeReader struct {
	db pebble.Reader
	p  int32
}

func (r storeReader) get(key string, how lookup) *row {
	b := r.bytes(key, how)
	if b == nil {
		return nil
	}
	return &row{bytes: b}
}

// meta returns the partition's own row.
func (r storeReader) meta() (m meta, err error) {
	if b := r.bytes(metaKey, anyKey); b != nil {
		if err := cbor.Unmarshal(b, &m); err != nil {
			return m, &StoreError{Key: metaKey, Err: err}
		}
	}
	return m, nil
}

func (r storeReader) bytes(key string, how lookup) []byte {
	full := rowKey(r.p, key)
	if how != anyKey {
		return r.seek(full)
	}
	v, c, err := r.db.Get(full)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil
	}
	if err != nil {
		panic(&StoreError{Key: key, Err: err})
	}
	out := append(make([]byte, 0, len(v)), v...)
	_ = c.Close()
	return out
}

// seek is a Get that asks the filters of all levels: Get itself skips them in the last one.
func (r storeReader) seek(full []byte) []byte {
	it, err := r.db.NewIter(&pebble.IterOptions{UseL6Filters: true})
	if err != nil {
		panic(&StoreError{Key: string(full), Err: err})
	}
	var out []byte
	if it.SeekPrefixGE(full) {
		v, verr := it.ValueAndErr()
		if err = verr; err == nil {
			out = append(make([]byte, 0, len(v)), v...)
		}
	}
	if err = errors.Join(err, it.Error(), it.Close()); err != nil {
		panic(&StoreError{Key: string(full), Err: err})
	}
	return out
}

func (r storeReader) scan(from, to string, backwards bool) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		it, err := r.db.NewIter(&pebble.IterOptions{LowerBound: rowKey(r.p, from), UpperBound: rowKey(r.p, to)})
		if err != nil {
			panic(&StoreError{Key: from, Err: err})
		}
		defer func() { _ = it.Close() }()
		first, next := it.First, it.Next
		if backwards {
			first, next = it.Last, it.Prev
		}
		for ok := first(); ok; ok = next() {
			v, err := it.ValueAndErr()
			if err != nil {
				panic(&StoreError{Key: from, Err: err})
			}
			if !yield(string(it.Key()[2:]), append(make([]byte, 0, len(v)), v...)) {
				return
			}
		}
		if err := it.Error(); err != nil {
			panic(&StoreError{Key: from, Err: err})
		}
	}
}

// Digest returns the SHA-256 of all rows of a partition, and the offset they reflect. Equal folds of equal
// logs have equal digests (V1).
func (s *Store) Digest(p int32) (sum [sha256.Size]byte, at log.Offset, err error) {
	err = s.Read(p, func(rows Scanner, offset log.Offset) error {
		h := sha256.New()
		for key, value := range rows.scan("\x01", "\xff", false) {
			hashRow(h, key, value)
		}
		at = offset
		h.Sum(sum[:0])
		return nil
	})
	return sum, at, err
}

func hashRow(h hash.Hash, key string, value []byte) {
	var n [8]byte
	binary.BigEndian.PutUint32(n[:4], uint32(len(key)))
	binary.BigEndian.PutUint32(n[4:], uint32(len(value)))
	h.Write(n[:])
	io.WriteString(h, key)
	h.Write(value)
}

// Durable returns the offset that a partition's rows would have after a power cut now: it alone counts for
// restart, trim and reports.
func (s *Store) Durable(p int32) (log.Offset, error) {
	it, err := s.db.NewIter(&pebble.IterOptions{OnlyReadGuaranteedDurable: true})
	if err != nil {
		return 0, err
	}
	defer func() { _ = it.Close() }()
	key := rowKey(p, metaKey)
	if !it.SeekGE(key) || string(it.Key()) != string(key) {
		return 0, it.Error()
	}
	var m meta
	v, err := it.ValueAndErr()
	if err == nil {
		err = cbor.Unmarshal(v, &m)
	}
	return m.Offset, err
}

// Flush makes everything folded so far durable.
func (s *Store) Flush() error { return s.db.Flush() }

// Close waits for those who read, flushes and closes. Nothing may be folded into the store any more.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.wake()
	s.mu.Unlock()
	close(s.stop)
	s.done.Wait()
	s.reading.Wait()
	return errors.Join(s.db.Flush(), s.db.Close())
}
