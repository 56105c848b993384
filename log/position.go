package log

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"slices"
)

// Position is how far a reader has come, or a writer has written: of each core
// partition the offset after the last record. Partitions that are not in it are
// not spoken of. The zero Position is covered by every other.
type Position map[int32]Offset

// ErrBadPosition is returned for a string that no Position made.
var ErrBadPosition = errors.New("log: not a position; pass on what a Remit-Position header said, unchanged")

// With returns p, made if need be, that has come at least to end in a partition.
func (p Position) With(partition int32, end Offset) Position {
	if p == nil {
		p = Position{}
	}
	p[partition] = max(p[partition], end)
	return p
}

// Merge returns p with all that q says.
func (p Position) Merge(q Position) Position {
	for partition, end := range q {
		p = p.With(partition, end)
	}
	return p
}

// Covers reports whether p has come at least as far as q in every partition of q.
func (p Position) Covers(q Position) bool {
	for partition, end := range q {
		if p[partition] < end {
			return false
		}
	}
	return true
}

// String returns the opaque form: base64url of pairs of uvarints (partition step, end), by partition.
func (p Position) String() string {
	var few [8]int32 // a write's has one or two
	partitions := few[:0]
	for partition := range p {
		partitions = append(partitions, partition)
	}
	slices.Sort(partitions)
	b := make([]byte, 0, 4*len(p)+1)
	last := int32(0)
	for _, partition := range partitions {
		b = binary.AppendUvarint(b, uint64(partition-last))
		b = binary.AppendUvarint(b, uint64(p[partition]))
		last = partition
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// ParsePosition reads what String wrote; ErrBadPosition otherwise.
func ParsePosition(s string) (Position, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return nil, ErrBadPosition
	}
	p, partition := Position{}, uint64(0)
	for first := true; len(b) > 0; first = false {
		step, n := binary.Uvarint(b)
		if n <= 0 || step > Slots || step == 0 && !first {
			return nil, ErrBadPosition
		}
		end, m := binary.Uvarint(b[n:])
		partition += step
		if m <= 0 || partition >= Slots || int64(end) < 0 {
			return nil, ErrBadPosition
		}
		p[int32(partition)], b = Offset(end), b[n+m:]
	}
	return p, nil
}
