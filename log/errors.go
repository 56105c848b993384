package log

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Errors of a Log. Those that carry coordinates come as *TopicError, *RangeError or
// *CorruptError, which match these with errors.Is.
var (
	// ErrUnknown means that the outcome of an Append is not known. It is resolved by
	// reading, never reported as failed.
	ErrUnknown = errors.New("log: outcome unknown; read to know")
	// ErrUnknownTopic: no such topic. Create it, or correct the name.
	ErrUnknownTopic = errors.New("log: unknown topic")
	// ErrUnknownPartition: the topic has no such partition.
	ErrUnknownPartition = errors.New("log: unknown partition")
	// ErrTopicExists: a topic of that name exists with another configuration.
	ErrTopicExists = errors.New("log: topic exists")
	// ErrFewerPartitions: a topic never loses partitions. Delete it and make a new one.
	ErrFewerPartitions = errors.New("log: a topic cannot lose partitions")
	// ErrOffsetOutOfRange: the offset was trimmed away, or lies past the end.
	ErrOffsetOutOfRange = errors.New("log: offset out of range")
	// ErrTooLarge: a record above RecordMax, or an append above AppendMax. Send less.
	ErrTooLarge = errors.New("log: too large")
	// ErrInvalid: a configuration or a record that no log takes. Correct it.
	ErrInvalid = errors.New("log: invalid")
	// ErrDiskFull: below the floor of free space. Nothing was written; make room, and try again.
	ErrDiskFull = errors.New("log: disk full")
	// ErrClosed: the log is closed, or has failed.
	ErrClosed = errors.New("log: closed")
	// ErrLocked: another process holds the directory. Stop it, or use another directory.
	ErrLocked = errors.New("log: directory is in use by another process")
	// ErrCorrupt: what was acknowledged is not what stands on the disk. Restore a copy.
	ErrCorrupt = errors.New("log: corrupt")
)

// TopicError carries where ErrUnknownTopic, ErrUnknownPartition, ErrTopicExists, ErrFewerPartitions
// or ErrInvalid happened.
type TopicError struct {
	Partition Partition
	Detail    string // what to do, or what was wrong; may be empty
	Err       error
}

func (e *TopicError) Error() string {
	s := fmt.Sprintf("%v: %q", e.Err, e.Partition.Topic)
	if errors.Is(e.Err, ErrUnknownPartition) {
		s += fmt.Sprintf(" partition %d", e.Partition.Index)
	}
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

func (e *TopicError) Unwrap() error { return e.Err }

// RangeError is an ErrOffsetOutOfRange with what there is to read.
type RangeError struct {
	Partition  Partition
	From       Offset
	First, End Offset
}

func (e *RangeError) Error() string {
	return fmt.Sprintf("%v: %s/%d offset %d, readable is [%d, %d)", ErrOffsetOutOfRange, e.Partition.Topic, e.Partition.Index, e.From, e.First, e.End)
}

func (e *RangeError) Unwrap() error { return ErrOffsetOutOfRange }

// CorruptError says where a store is not what was acknowledged.
type CorruptError struct {
	File   string // as in the store's directory
	Byte   int64  // the first byte in doubt; -1 if not known
	Detail string
	// FirstUnreadable is, of each partition that a read-only open could reach, the first offset that cannot be read.
	FirstUnreadable map[Partition]Offset
}

func (e *CorruptError) Error() string {
	s := fmt.Sprintf("%v: %s", ErrCorrupt, e.File)
	if e.Byte >= 0 {
		s += fmt.Sprintf(" at byte %d", e.Byte)
	}
	s += ": " + e.Detail
	for _, p := range slices.SortedFunc(maps.Keys(e.FirstUnreadable), comparePartitions) {
		s += fmt.Sprintf("\n  %s/%d cannot be read from offset %d on", p.Topic, p.Index, e.FirstUnreadable[p])
	}
	return s
}

func comparePartitions(a, b Partition) int {
	return cmp.Or(strings.Compare(a.Topic, b.Topic), cmp.Compare(a.Index, b.Index))
}

func (e *CorruptError) Unwrap() error { return ErrCorrupt }

// IsRetryable reports whether the same call may succeed later with nothing changed by
// the caller.
func IsRetryable(err error) bool {
	switch {
	case errors.Is(err, ErrDiskFull): // room may be made
		return true
	case errors.Is(err, context.DeadlineExceeded): // nothing was written: Append looks at the context before it writes
		return true
	case errors.Is(err, ErrUnknownTopic): // the topic may be made
		return true
	default: // the rest is wrong in itself, or needs a person
		return false
	}
}
