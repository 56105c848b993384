package log

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"time"
)

// The topics that remit alone writes. See [Reserved].
const (
	// EventsTopic is the core topic: a partition of it is the whole story of its slots.
	EventsTopic = "remit.events"
	// RegistryTopic has one partition, folded by every node. Its first record fixes
	// the number of core partitions.
	RegistryTopic = "remit.registry"
	// AnswersTopic takes the answers of participants that are driven over the log. It
	// is the one topic under remit. that others may write.
	AnswersTopic = "remit.answers"
	// PaymentsTopic carries what the built-in payment tells the world.
	PaymentsTopic = "payments"
)

// Limits of every log. A caller that meets one gets an error that names it.
const (
	// TopicNameMax is the longest topic name, in bytes; Kafka's own limit.
	TopicNameMax = 249
	// PartitionsMax is the most partitions a topic may have: one a slot.
	PartitionsMax = Slots
	// RecordMax is the largest record, key, value and headers together, in bytes.
	RecordMax = 2 << 20
	// AppendMax is the most bytes one Append takes.
	AppendMax = 32 << 20
)

// Offset is the place of a record within its partition, from 0 on.
type Offset int64

// Partition names one partition of one topic.
type Partition struct {
	Topic string
	Index int32
}

// Header is one record header. Keys may repeat; their order is kept.
type Header struct {
	Key   string
	Value []byte
}

// Record is one entry of a partition.
type Record struct {
	Partition
	// Offset is given by Append, and is set in what Read returns.
	Offset Offset
	// Time is when the record was made, in whole milliseconds. Zero in an Append means now.
	Time time.Time
	// Key routes; nil means none.
	Key []byte
	// Value is the payload; nil (not merely empty) is a tombstone.
	Value   []byte
	Headers []Header
}

// Clone returns a record that shares no bytes with r: for who keeps what Append was given.
func (r Record) Clone() Record {
	r.Key, r.Value, r.Headers = bytes.Clone(r.Key), bytes.Clone(r.Value), slices.Clone(r.Headers)
	for i := range r.Headers {
		r.Headers[i].Value = bytes.Clone(r.Headers[i].Value)
	}
	return r
}

// Log is a partitioned commit log. All methods are safe for concurrent use.
//
// A Log that fails stops the process (see the Fatal option of the implementation):
// after a failed sync nothing is acknowledged any more.
type Log interface {
	// Append makes records durable before it returns, all of them or none, over all
	// their partitions, and returns their offsets in the order given. Records of one
	// partition become readable in their order, and only once they are durable. The records, and the bytes in them,
	// are the caller's again when it returns.
	//
	// Errors: *[TopicError] (ErrUnknownTopic, ErrUnknownPartition), ErrTooLarge, ErrDiskFull,
	// ErrClosed: nothing was written. ErrUnknown: read to know. The context is looked at
	// before anything is written and not after: an append that has begun is waited for.
	Append(ctx context.Context, records ...Record) ([]Offset, error)

	// Read returns records of one partition from offset from on, at most about maxBytes
	// of them but at least one, waiting for the first until ctx ends. It never returns what is not durable.
	// The byte slices returned are the caller's.
	//
	// Errors: *[RangeError] when from lies below the first or above the end; *[TopicError];
	// ErrClosed; the context's own error when nothing came.
	Read(ctx context.Context, p Partition, from Offset, maxBytes int) ([]Record, error)

	// Bounds returns the first offset of a partition and its end: the offset that the
	// next durable record will have, which no reader can yet read.
	Bounds(ctx context.Context, p Partition) (first, end Offset, err error)

	// OffsetAt returns the first offset whose record time is not before t, and the end
	// if there is none.
	OffsetAt(ctx context.Context, p Partition, t time.Time) (Offset, error)

	// CreateTopic makes a topic, durably. ErrTopicExists if there is one of that name, unless
	// it has the same configuration: then nothing happens.
	CreateTopic(ctx context.Context, t TopicConfig) error
	// ConfigureTopic changes retention, or adds partitions; ErrFewerPartitions if it would take some away.
	ConfigureTopic(ctx context.Context, t TopicConfig) error
	// DeleteTopic removes a topic and all its records. A topic of the same name made
	// later starts at offset 0.
	DeleteTopic(ctx context.Context, name string) error
	// Topics lists all topics, by name.
	Topics(ctx context.Context) ([]TopicConfig, error)
	// Topic describes one; *[TopicError] if it is not there.
	Topic(ctx context.Context, name string) (TopicConfig, error)
	// Trim drops the records of a partition below the offset to. Offsets are never handed out again.
	Trim(ctx context.Context, p Partition, to Offset) error
	// Size returns about how many bytes a partition takes.
	Size(ctx context.Context, p Partition) (int64, error)

	// Features says where this implementation may differ from the other.
	Features() Features
	// Close waits for appends that have begun, notes what is durable, and closes. Reads that wait end
	// with ErrClosed.
	Close() error
}

// TopicConfig is what a topic is made with.
type TopicConfig struct {
	Name       string
	Partitions int
	// Retention is how long records are kept at least; 0 means for ever.
	Retention time.Duration
	// RetentionBytes is how many bytes a partition keeps at least; 0 means without limit.
	RetentionBytes int64
}

// Features says what a Log promises beyond the contract, for log/logtest.
type Features struct {
	// GaplessOffsets: offsets of a partition run 0, 1, 2, …
	GaplessOffsets bool
}

// Reserved reports whether a topic is written by remit alone, over every door:
// produce, delete, trim, compact and repartition are refused to others.
func Reserved(topic string) bool {
	const own = "remit."
	return topic == PaymentsTopic || topic != AnswersTopic && len(topic) >= len(own) && topic[:len(own)] == own
}

// Hidden reports whether a topic is not read by others, over any door: it holds the secrets that remit signs its calls with.
func Hidden(topic string) bool { return topic == RegistryTopic }

// ReservedGroup reports whether remit itself reads in a consumer group. Others may look at such a group, and neither join it nor change what it
// has committed.
func ReservedGroup(group string) bool { return strings.HasPrefix(group, "remit.") }
