package log

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// Slots is the number of shares that all keys fall into. Partitions, and later
// units, own slots.
const Slots = 1024

// PartitionsDefault is the number of core partitions of a new log.
const PartitionsDefault = 16

// SlotOf returns the slot of a routing key. The Java client, franz-go and
// kafkajs compute the same murmur2, so that their default partitioner lands where we do.
func SlotOf(key string) int {
	return int(murmur2(key)&0x7fffffff) % Slots
}

// PartitionOf returns the partition of a slot when there are partitions of them, a power of two.
func PartitionOf(slot, partitions int) int32 { return int32(slot % partitions) }

// murmur2 is Kafka's hash of a record key (org.apache.kafka.common.utils.Utils.murmur2, after
// Austin Appleby's MurmurHash2, seed 0x9747b28c).
func murmur2(key string) uint32 {
	const m, r = 0x5bd1e995, 24
	h := uint32(0x9747b28c) ^ uint32(len(key))
	for len(key) >= 4 {
		k := uint32(key[0]) | uint32(key[1])<<8 | uint32(key[2])<<16 | uint32(key[3])<<24
		k *= m
		k ^= k >> r
		k *= m
		h *= m
		h ^= k
		key = key[4:]
	}
	switch len(key) {
	case 3:
		h ^= uint32(key[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(key[1]) << 8
		fallthrough
	case 1:
		h ^= uint32(key[0])
		h *= m
	}
	h ^= h >> 13
	h *= m
	h ^= h >> 15
	return h
}

// ID is what remit calls a thing. It is a UUIDv8 (RFC 9562) that routes itself:
//
//	48 bits  Unix milliseconds
//	 4 bits  version 8
//	12 bits  random
//	 2 bits  variant 2
//	52 bits  random
//	10 bits  slot of the routing key
type ID uuid.UUID

// NewID returns a new id made at t for a routing key.
func NewID(t time.Time, key string) ID { return NewIDInSlot(t, SlotOf(key)) }

// NewIDInSlot returns a new id made at t that routes to a slot.
func NewIDInSlot(t time.Time, slot int) ID {
	var id ID
	_, _ = rand.Read(id[:]) // it cannot fail: it stops the process instead
	return id.at(t, slot)
}

func (id ID) at(t time.Time, slot int) ID {
	ms := uint64(t.UnixMilli())
	binary.BigEndian.PutUint16(id[0:], uint16(ms>>32))
	binary.BigEndian.PutUint32(id[2:], uint32(ms))
	id[6] = 0x80 | id[6]&0x0f
	id[8] = 0x80 | id[8]&0x3f
	id[14] = id[14]&^0x03 | byte(slot>>8)
	id[15] = byte(slot)
	return id
}

// ParseID reads an id in its usual form of 36 characters. It reports false for anything else, also for a
// UUID of another version: that is a name.
func ParseID(s string) (ID, bool) {
	if len(s) != 36 {
		return ID{}, false
	}
	u, err := uuid.Parse(s)
	if err != nil || !ID(u).isID() {
		return ID{}, false
	}
	return ID(u), true
}

func (id ID) isID() bool {
	u := uuid.UUID(id)
	return u.Version() == 8 && u.Variant() == uuid.RFC4122
}

// String returns the usual form, in lower case.
func (id ID) String() string {
	var text [36]byte
	b, _ := id.AppendText(text[:0])
	return string(b)
}

// Slot returns the slot that the id routes to.
func (id ID) Slot() int { return int(binary.BigEndian.Uint16(id[14:]) & (Slots - 1)) }

// Time returns when the id says that it was made.
func (id ID) Time() time.Time {
	ms := uint64(binary.BigEndian.Uint16(id[0:]))<<32 | uint64(binary.BigEndian.Uint32(id[2:]))
	return time.UnixMilli(int64(ms)).UTC()
}

// IsZero reports whether id is no id at all.
func (id ID) IsZero() bool { return id == ID{} }

// AppendText appends the usual form. The error is nil.
func (id ID) AppendText(b []byte) ([]byte, error) {
	b = append(hex.AppendEncode(b, id[:4]), '-')
	b = append(hex.AppendEncode(b, id[4:6]), '-')
	b = append(hex.AppendEncode(b, id[6:8]), '-')
	b = append(hex.AppendEncode(b, id[8:10]), '-')
	return hex.AppendEncode(b, id[10:]), nil
}

// MarshalText makes ids readable in JSON.
func (id ID) MarshalText() ([]byte, error) { return id.AppendText(make([]byte, 0, 36)) }

// UnmarshalText reads what MarshalText wrote.
func (id *ID) UnmarshalText(b []byte) error {
	u, err := uuid.ParseBytes(b)
	parsed := ID(u)
	if err != nil || len(b) != 36 || !parsed.isID() && !parsed.IsZero() {
		return fmt.Errorf("log: %q is no id", b)
	}
	*id = parsed
	return nil
}

// Bytes returns the 16 bytes of an id, in a slice of the caller's own.
func (id ID) Bytes() []byte { return append(make([]byte, 0, len(id)), id[:]...) }

// MarshalBinary keeps ids at 16 bytes in stored rows.
func (id ID) MarshalBinary() ([]byte, error) { return id[:], nil }

// UnmarshalBinary reads what MarshalBinary wrote.
func (id *ID) UnmarshalBinary(b []byte) error { return (*uuid.UUID)(id).UnmarshalBinary(b) }

// NamePattern is what a caller's own name for a thing may be.
const NamePattern = `[A-Za-z0-9._:~-]{1,128}`

// IsName reports whether s is fit to be a name (see NamePattern) and not an id.
func IsName(s string) bool {
	if len(s) == 0 || len(s) > 128 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '.', c == '_', c == ':', c == '~', c == '-':
		default:
			return false
		}
	}
	_, id := ParseID(s)
	return !id
}

// KeyPartition returns the partition of a user's topic that a key falls into: what Kafka's default
// partitioner chooses, whatever the number of partitions.
func KeyPartition(key string, partitions int) int32 {
	return int32(int(murmur2(key)&0x7fffffff) % partitions)
}
