package fold

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"iter"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// Reader reads the rows of one partition, through a [Table].
type Reader interface {
	// get returns a row, nil if there is none.
	get(key string, how lookup) *row
}

// Rows reads and writes the rows of one partition, through a [Table].
type Rows interface {
	Reader
	set(key string, r *row)
}

// Scanner reads rows in key order too. Only what is durable and folded can be scanned, not a turn's overlay.
type Scanner interface {
	Reader
	// scan yields the rows with from <= key < to, backwards if told.
	scan(from, to string, backwards bool) iter.Seq2[string, []byte]
}

// lookup says what is known of a table's keys, so that a row that is not there costs little.
type lookup uint8

const (
	// anyKey: nothing is known.
	anyKey lookup = iota
	// mostlyAbsent: filters are asked first.
	mostlyAbsent
	// ascending: new keys are mostly greater than all there are; a key beyond them costs nothing.
	ascending
)

// row is a row's value: decoded, encoded, or both. It is encoded when it reaches the store, and decoded when it is first asked for.
type row struct {
	bytes []byte
	value any
	gone  bool // deleted
	once  bool // of a WriteOnly table
	over  bool // hardly anything more happens to it; see Until
}

// encoded returns the row as the store has it.
func (r *row) encoded() []byte {
	if r.bytes != nil {
		return r.bytes
	}
	return bytes.Clone(r.encodedIn(new(bytes.Buffer)))
}

// encodedIn is encoded, with a buffer to use. The bytes are good until the buffer's next use.
func (r *row) encodedIn(b *bytes.Buffer) []byte {
	if r.bytes != nil {
		return r.bytes
	}
	b.Reset()
	if err := encMode.MarshalToBuffer(r.value, b); err != nil {
		panic(&InvariantError{Detail: fmt.Sprintf("a row of %T cannot be encoded: %v", r.value, err)})
	}
	return b.Bytes()
}

// Table is the typed face of the rows whose keys begin with one byte. Rows are CBOR in its
// core deterministic encoding (RFC 8949 section 4.2), so that equal rows have equal bytes and a
// digest over them means something.
type Table[V any] struct {
	prefix string
	how    lookup
	once   bool
	over   func(*V) bool // nil: of no row
}

// NewTable returns the table of a byte, which no other table of the same store may use. The bytes 0 and
// dueTable are the runtime's own; 0xff has no byte after it, to which a table is scanned.
func NewTable[V any](prefix byte) Table[V] {
	if prefix == 0 || prefix == dueTable || prefix == 0xff {
		panic(fmt.Sprintf("fold: table byte %q is the runtime's", prefix))
	}
	return Table[V]{prefix: string([]byte{prefix})}
}

// MostlyAbsent returns the same table, whose rows are mostly asked for in vain.
func (t Table[V]) MostlyAbsent() Table[V] { t.how = mostlyAbsent; return t }

// Ascending returns the same table, whose keys begin with an id: in time order, so that a new one lies beyond
// the old.
func (t Table[V]) Ascending() Table[V] { t.how = ascending; return t }

// WriteOnly returns the same table, whose rows the fold writes and never reads, such as an index for
// queries: they are not kept at hand.
func (t Table[V]) WriteOnly() Table[V] { t.once = true; return t }

// Until returns the same table, of which rows are not kept at hand once over is true of them: they are hardly read again, or changed. What
// is done to them all the same is as right, and dearer.
func (t Table[V]) Until(over func(*V) bool) Table[V] { t.over = over; return t }

// Get returns the row of a key. INVARIANT: rows are values: whatever a row points to, its slices too, is shared with
// later readers and MUST NOT be changed.
func (t Table[V]) Get(r Reader, key string) (v V, ok bool) {
	if t.once {
		if _, ok := r.(storeReader); !ok { // what is at hand may be older than the store
			panic(fmt.Sprintf("fold: table %q is write-only, and is read by the fold", t.prefix))
		}
	}
	w := r.get(t.prefix+key, t.how)
	if w == nil || w.gone {
		return v, false
	}
	if p, ok := w.value.(*V); ok {
		return *p, true
	}
	return *t.decode(key, w), true
}

// decode is apart from Get so that what Get returns need not be on the heap.
func (t Table[V]) decode(key string, w *row) *V {
	v := new(V)
	if err := cbor.Unmarshal(w.encoded(), v); err != nil {
		panic(&StoreError{Key: t.prefix + key, Err: err})
	}
	if w.value == nil {
		w.value = v
	}
	return v
}

// Put sets the row of a key.
func (t Table[V]) Put(r Rows, key string, v V) {
	both := &struct { // one allocation
		row
		v V
	}{v: v}
	both.row = row{value: &both.v, once: t.once, over: t.over != nil && t.over(&both.v)}
	r.set(t.prefix+key, &both.row)
}

// Delete drops the row of a key.
func (t Table[V]) Delete(r Rows, key string) { r.set(t.prefix+key, &row{gone: true, once: t.once}) }

// Scan yields the rows with from <= key < to; an empty to means the end of the table.
func (t Table[V]) Scan(s Scanner, from, to string, backwards bool) iter.Seq2[string, V] {
	end := t.prefix + to
	if to == "" {
		end = string([]byte{t.prefix[0] + 1})
	}
	return func(yield func(string, V) bool) {
		for key, b := range s.scan(t.prefix+from, end, backwards) {
			var v V
			if err := cbor.Unmarshal(b, &v); err != nil {
				panic(&StoreError{Key: key, Err: err})
			}
			if !yield(key[len(t.prefix):], v) {
				return
			}
		}
	}
}

var encMode = func() cbor.UserBufferEncMode {
	o := cbor.CoreDetEncOptions()
	// JSON does not tell nil from empty, so that a fact read from the log may differ in it from the one that was emitted. Rows
	// of both must be equal.
	o.NilContainers = cbor.NilContainerAsEmpty
	m, err := o.UserBufferEncMode()
	if err != nil {
		panic(err)
	}
	return m
}()

// StoreError reports a store that cannot be read: it is in doubt, and is made again from the log at the
// next start.
type StoreError struct {
	Key string
	Err error
}

func (e *StoreError) Error() string {
	if e.Key == "" {
		return e.Err.Error()
	}
	return fmt.Sprintf("fold: row %q: %v", e.Key, e.Err)
}

func (e *StoreError) Unwrap() error { return e.Err }

// dueTable holds the due rows: byte, 8 bytes of milliseconds, machine's byte, id.
const dueTable = 0x01

// Due says that the thing id of a machine owes something from a time on. Machines set it where they fold
// the fact that makes it so, and clear it (with the same time) where they fold the fact that ends it. What is due is found
// in time order: it costs what is due.
type Due struct{ machine byte }

// DueOf returns the due rows of the machine registered under a byte.
func DueOf(machine byte) Due { return Due{machine} }

// Set adds a due row.
func (d Due) Set(r Rows, at time.Time, id string) {
	r.set(dueKey(at, d.machine, id), &row{bytes: []byte{}})
}

// Clear drops a due row; nothing happens if it is not there.
func (d Due) Clear(r Rows, at time.Time, id string) {
	r.set(dueKey(at, d.machine, id), &row{gone: true})
}

const dueKeyHead = 1 + 8 + 1

func dueKey(at time.Time, machine byte, id string) string {
	b := make([]byte, dueKeyHead, dueKeyHead+len(id))
	b[0] = dueTable
	binary.BigEndian.PutUint64(b[1:], uint64(max(at.UnixMilli(), 0)))
	b[9] = machine
	return string(append(b, id...))
}

// dueEnd is the key after every due row with a time up to at.
func dueEnd(at time.Time) string { return dueKey(at.Add(time.Millisecond), 0, "") }

func parseDue(key string) (at time.Time, machine byte, id string) {
	return time.UnixMilli(int64(binary.BigEndian.Uint64([]byte(key[1:9])))), key[9], key[dueKeyHead:]
}
