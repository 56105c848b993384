package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"sync"

	"github.com/cockroachdb/errors/oserror"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// LedgerName is the witness's file in a store's directory.
const LedgerName = "WITNESS"

// The ledger has three slots. Each holds the whole of what is claimed, at one time:
//
//	 0  8 bytes  "rmtwtns1"
//	 8  uint32   CRC32C of all from 12 on, as long as the length says
//	12  uint32   length of what follows
//	16  uint64   sequence: the highest one that is whole is the claim
//	24  byte     1: the store was made whole and opened twice (born)
//	25           claims: byte length, name, uint64 synced bytes, uint32 CRC32C of them
//
// Numbers are little-endian.
//
// INVARIANT (one is whole): one slot is being written, over and over; a flush moves writing on
// to the next one and then syncs. So while slot k is synced, writers are at k+1 and k-1, synced the
// time before, is not touched; and k-1 is only written once k is known to be on the disk. Whatever a power cut
// tears, one slot is whole and is at least as new as the last flush that returned. With two slots, both could
// be torn: one half synced, the other being written.
//
// INVARIANT (never more): a claim is noted after its sync returned, and files are only appended
// to; so every claim that was ever true stays true until its file is removed, renamed or written anew.
// Before any of these the claim is dropped and the drop is FLUSHED. So a slot that the disk kept, whether older
// or newer than the last flush, claims nothing that was not synced, and no file that may be gone.
const (
	ledgerSlots     = 3
	ledgerSlotBytes = 16 << 10
	ledgerMagic     = "rmtwtns1"
	ledgerHead      = 25
)

// claim: so many bytes of a file were synced, and this was their checksum.
type claim struct {
	name   string
	length int64
	crc    uint32
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ledgerState is what one slot says.
type ledgerState struct {
	sequence uint64
	born     bool
	claims   []claim
	slot     int // that it was read from
}

// ledger is the witness's file. Safe for concurrent use.
//
// Lock order: syncing, then mu.
type ledger struct {
	file    vfs.File
	syncing sync.Mutex // held over a sync of the file

	mu    sync.Mutex // the fields below, and writing to the file
	state ledgerState
	slot  int
	dirty bool
	buf   []byte
}

// readLedger returns the newest whole slot. ok is false if there is none, which is so of a new store; damaged says
// whether there are slots that hold something and are not whole.
func readLedger(fs vfs.FS, path string) (state ledgerState, ok, damaged bool, err error) {
	b, err := readAll(fs, path)
	if oserror.IsNotExist(err) {
		return state, false, false, nil
	}
	if err != nil {
		return state, false, false, fmt.Errorf("store: read %s: %w", path, err)
	}
	for i := range ledgerSlots {
		at := min(i*ledgerSlotBytes, len(b))
		s, whole, empty := decodeSlot(b[at:min(at+ledgerSlotBytes, len(b))])
		damaged = damaged || !whole && !empty
		if whole && (!ok || s.sequence > state.sequence) {
			state, ok = s, true
			state.slot = i
		}
	}
	return state, ok, damaged, nil
}

func decodeSlot(b []byte) (s ledgerState, whole, empty bool) {
	if !slices.ContainsFunc(b, func(c byte) bool { return c != 0 }) {
		return s, false, true
	}
	if len(b) < ledgerHead || string(b[:8]) != ledgerMagic {
		return s, false, false
	}
	n := binary.LittleEndian.Uint32(b[12:])
	if int64(n) < ledgerHead-16 || int64(n) > int64(len(b)-16) || crc32.Checksum(b[12:16+n], castagnoli) != binary.LittleEndian.Uint32(b[8:]) {
		return s, false, false
	}
	s.sequence, s.born = binary.LittleEndian.Uint64(b[16:]), b[24] == 1
	for b = b[ledgerHead : 16+n]; len(b) > 0; {
		w := int(b[0])
		if len(b) < 1+w+12 {
			return s, false, false
		}
		s.claims = append(s.claims, claim{string(b[1 : 1+w]), int64(binary.LittleEndian.Uint64(b[1+w:])), binary.LittleEndian.Uint32(b[9+w:])})
		b = b[13+w:]
	}
	return s, true, false
}

func encodeSlot(b []byte, s *ledgerState) []byte {
	b = append(b[:0], ledgerMagic...)
	b = append(b, make([]byte, 8)...)
	b = binary.LittleEndian.AppendUint64(b, s.sequence)
	b = append(b, 0)
	if s.born {
		b[24] = 1
	}
	for i := range s.claims {
		c := &s.claims[i]
		b = append(append(b, byte(len(c.name))), c.name...)
		b = binary.LittleEndian.AppendUint64(b, uint64(c.length))
		b = binary.LittleEndian.AppendUint32(b, c.crc)
	}
	binary.LittleEndian.PutUint32(b[12:], uint32(len(b)-16))
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b[12:], castagnoli))
	return b
}

// openLedger goes on with state. A file that is not there is made in its full size, so that noting a sync never
// needs space, and it and its place in the directory are durable before it returns.
func openLedger(fs vfs.FS, dir string, state ledgerState, anew bool) (*ledger, error) {
	path := fs.PathJoin(dir, LedgerName)
	if anew {
		if err := makeLedger(fs, dir, path); err != nil {
			return nil, fmt.Errorf("store: make %s: %w", path, err)
		}
	}
	f, err := fs.OpenReadWrite(path, "remit-witness")
	if err != nil {
		return nil, fmt.Errorf("store: open %s: %w", path, err)
	}
	l := &ledger{file: f, state: state, slot: (state.slot + 1) % ledgerSlots}
	// The others may be torn or old. Write each in turn, the one that was read last; each is synced before the next is
	// touched, so one is whole throughout.
	for range ledgerSlots {
		if err := errors.Join(l.rewrite(), l.flush()); err != nil {
			return nil, errors.Join(fmt.Errorf("store: write %s: %w", path, err), f.Close())
		}
	}
	return l, nil
}

func makeLedger(fs vfs.FS, dir, path string) error {
	f, err := fs.Create(path, "remit-witness")
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, ledgerSlots*ledgerSlotBytes))
	return errors.Join(err, f.Sync(), f.Close(), syncDir(fs, dir))
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (l *ledger) rewrite() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.write()
}

// write puts the state into the current slot. It reaches the disk with the next flush. l.mu is held.
func (l *ledger) write() error {
	l.state.sequence++
	l.buf = encodeSlot(l.buf, &l.state)
	if len(l.buf) > ledgerSlotBytes {
		return fmt.Errorf("store: %d files are watched, more than %s holds", len(l.state.claims), LedgerName)
	}
	l.dirty = true
	_, err := l.file.WriteAt(l.buf, int64(l.slot)*ledgerSlotBytes)
	return err
}

// note says that the first n bytes of a file are on the disk. Call it AFTER the sync has returned.
func (l *ledger) note(name string, n int64, crc uint32) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := claim{name, n, crc}
	if i := l.find(name); i >= 0 {
		l.state.claims[i] = c
	} else {
		l.state.claims = append(l.state.claims, c)
	}
	return l.write()
}

func (l *ledger) find(name string) int {
	return slices.IndexFunc(l.state.claims, func(c claim) bool { return c.name == name })
}

// drop takes a claim back, durably. Call it BEFORE the file is removed, renamed or written anew.
func (l *ledger) drop(names ...string) error {
	dropped, err := l.forget(names)
	if err != nil || !dropped {
		return err
	}
	return l.flush()
}

func (l *ledger) forget(names []string) (dropped bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := len(l.state.claims)
	l.state.claims = slices.DeleteFunc(l.state.claims, func(c claim) bool { return slices.Contains(names, c.name) })
	if len(l.state.claims) == before {
		return false, nil
	}
	return true, l.write()
}

// bear notes, durably, that the store is whole.
func (l *ledger) bear() error {
	l.mu.Lock()
	l.state.born = true
	err := l.write()
	l.mu.Unlock()
	return errors.Join(err, l.flush())
}

// flush syncs what was noted.
func (l *ledger) flush() error {
	l.syncing.Lock()
	defer l.syncing.Unlock()
	l.mu.Lock()
	dirty := l.dirty
	if dirty {
		l.dirty, l.slot = false, (l.slot+1)%ledgerSlots
	}
	l.mu.Unlock()
	if !dirty {
		return nil
	}
	return l.file.SyncData()
}

func (l *ledger) close() error { return errors.Join(l.flush(), l.file.Close()) }
