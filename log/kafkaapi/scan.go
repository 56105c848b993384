package kafkaapi

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ElementsMax is how many elements all arrays of one request may have together, tags included. kmsg makes a struct of each, of up to a few
// hundred bytes: this bounds what a request of few bytes can take. Past it the connection is closed.
const ElementsMax = 50_000

var errShort = errors.New("it ends in the middle")

// scan walks the body of a request without allocating. What it passes, kmsg decodes within bounds: kmsg allocates arrays by the
// length that is claimed, and counts tags by the number that is.
func scan(body []byte, s *shape, version int16) error {
	w := &scanner{rest: body, version: version, flexible: version >= s.flexible, tag1: s.key == keyFetch}
	w.fields(s.fields, true)
	return w.err
}

type scanner struct {
	rest     []byte
	version  int16
	flexible bool
	tag1     bool // tag 1 of the request itself is refused: it is a struct, which only brokers send
	elements int
	err      error
}

func (w *scanner) fail(err error) {
	if w.err == nil {
		w.err = err
	}
	w.rest = nil
}

// fields walks a struct, with its tags.
func (w *scanner) fields(fs []field, top bool) {
	for i := range fs {
		if w.err == nil && w.version >= fs[i].from && w.version <= fs[i].to {
			w.field(&fs[i])
		}
	}
	if w.flexible && w.err == nil {
		w.tags(top)
	}
}

func (w *scanner) field(f *field) {
	switch f.kind {
	case 'b':
		w.skip(1)
	case 'h':
		w.skip(2)
	case 'i':
		w.skip(4)
	case 'l':
		w.skip(8)
	case 'u':
		w.skip(16)
	case 's', 'S':
		w.text(w.length(2), f.kind == 'S')
	case 'y', 'Y':
		w.text(w.length(4), f.kind == 'Y')
	default:
		w.array(f)
	}
}

func (w *scanner) text(n int64, nullable bool) {
	if n < 0 && (!nullable || n != -1) {
		w.fail(fmt.Errorf("a length of %d", n))
		return
	}
	w.skip(max(n, 0))
}

func (w *scanner) array(f *field) {
	n := w.length(4)
	if n < -1 {
		w.fail(fmt.Errorf("an array of %d", n))
	}
	w.count(n)
	for ; n > 0 && w.err == nil; n-- {
		if f.kind == '[' {
			w.fields(f.of, false)
		} else {
			w.field(&f.of[0])
		}
	}
}

// count adds elements, before anything is done for them. Each has a byte at least.
func (w *scanner) count(n int64) {
	if n > int64(len(w.rest)) {
		w.fail(errShort)
		return
	}
	if w.elements += int(max(n, 0)); w.elements > ElementsMax {
		w.fail(fmt.Errorf("more than %d elements; ask for fewer at once", ElementsMax))
	}
}

// tags walks the tags of a struct: number, then id, length and bytes of each.
func (w *scanner) tags(top bool) {
	n := w.uvarint()
	w.count(n)
	for ; n > 0 && w.err == nil; n-- {
		id := w.uvarint()
		if top && w.tag1 && id == 1 {
			w.fail(errors.New("it says that a broker sent it"))
		}
		w.skip(w.uvarint())
	}
}

// length reads a length of so many bytes, or a compact one, which is one more than it says.
func (w *scanner) length(bytes int) int64 {
	if w.flexible {
		return w.uvarint() - 1
	}
	b := w.take(int64(bytes))
	switch {
	case b == nil:
		return 0
	case bytes == 2:
		return int64(int16(binary.BigEndian.Uint16(b)))
	default:
		return int64(int32(binary.BigEndian.Uint32(b)))
	}
}

// uvarint reads at most 31 bits: no length has more.
func (w *scanner) uvarint() int64 {
	v, n := binary.Uvarint(w.rest)
	if n <= 0 || n > 5 || v > 1<<31-1 {
		w.fail(errShort)
		return 0
	}
	w.rest = w.rest[n:]
	return int64(v)
}

func (w *scanner) skip(n int64) { w.take(n) }

func (w *scanner) take(n int64) []byte {
	if n > int64(len(w.rest)) {
		w.fail(errShort)
		return nil
	}
	b := w.rest[:n:n]
	w.rest = w.rest[n:]
	return b
}
