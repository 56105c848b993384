package groups

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/remitlog/remit/log/embedded"
)

// Defaults of what Options leave open.
const (
	GroupsMaxDefault              = 10_000
	MembersMaxDefault             = 1_000
	MemberBytesMaxDefault         = 256 << 10
	OffsetMetadataBytesMaxDefault = 4 << 10 // Kafka's offset.metadata.max.bytes
	SessionTimeoutMinDefault      = 6 * time.Second
	SessionTimeoutMaxDefault      = 30 * time.Minute
	// InitialDelayDefault is shorter than Kafka's three seconds: on one machine the members of a group come up together.
	InitialDelayDefault = 500 * time.Millisecond
	ForgetAfterDefault  = 10 * time.Minute
)

const (
	// GroupIDMax is the longest name of a group, in bytes. Longer: INVALID_GROUP_ID.
	GroupIDMax = 1 << 10
	// GroupBytesMax is the most that the members of a group are, stored: what they sent when they joined, and their assignments. An assignment
	// that would be more is refused with POLICY_VIOLATION, and the members join again.
	GroupBytesMax = 3 << 20
	// NewMemberTimeout is how long a member that has just come waits for the others. Nobody hears of it meanwhile, so it has no session yet.
	NewMemberTimeout = 5 * time.Minute
	// WriteBytesMax is about how much is written at once.
	WriteBytesMax = 1 << 20
)

// Note is a small row that survives.
type Note = embedded.Note

// Store keeps notes. An embedded log is one.
type Store interface {
	// PutNotes makes notes durable before it returns, all of them or none; of two with one key the later counts.
	PutNotes(ctx context.Context, notes ...Note) error
	// Notes returns the notes whose keys begin with prefix.
	Notes(prefix string) ([]Note, error)
}

// Options say how groups are kept. Only Store and Partitions are needed.
type Options struct {
	// Store keeps groups and offsets.
	Store Store
	// Partitions returns how many partitions a topic has, 0 if there is none.
	Partitions func(topic string) int
	// Logger takes what is worth a person's eye. Nil discards it.
	Logger *slog.Logger
	// Now is the time. Nil means time.Now.
	Now func() time.Time

	// GroupsMax is the most groups there may be; 0 means the default. Past it what would make one is refused with POLICY_VIOLATION.
	GroupsMax int
	// MembersMax is the most members of one group; 0 means the default. Past it a join is refused with GROUP_MAX_SIZE_REACHED.
	MembersMax int
	// MemberBytesMax is the most that a member may say of itself when it joins; 0 means the default. More: POLICY_VIOLATION.
	MemberBytesMax int
	// OffsetMetadataBytesMax is the longest remark beside a committed offset; 0 means the default. More: OFFSET_METADATA_TOO_LARGE.
	OffsetMetadataBytesMax int

	// SessionTimeoutMin and SessionTimeoutMax bound what members ask for; 0 means the default. Outside: INVALID_SESSION_TIMEOUT.
	SessionTimeoutMin, SessionTimeoutMax time.Duration
	// InitialDelay is how long an empty group waits for more members after the first; 0 means the default, negative none. It waits on as
	// long as members come, at most for their rebalance timeout.
	InitialDelay time.Duration
	// ForgetAfter is how long a group without members and without offsets is kept; 0 means the default. Offsets do not expire.
	ForgetAfter time.Duration
}

// EnsureDefaults fills in what is not set.
func (o *Options) EnsureDefaults() {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	set(&o.GroupsMax, GroupsMaxDefault)
	set(&o.MembersMax, MembersMaxDefault)
	set(&o.MemberBytesMax, MemberBytesMaxDefault)
	set(&o.OffsetMetadataBytesMax, OffsetMetadataBytesMaxDefault)
	set(&o.SessionTimeoutMin, SessionTimeoutMinDefault)
	set(&o.SessionTimeoutMax, SessionTimeoutMaxDefault)
	set(&o.InitialDelay, InitialDelayDefault)
	set(&o.ForgetAfter, ForgetAfterDefault)
}

func set[T int | time.Duration](v *T, otherwise T) {
	if *v == 0 {
		*v = otherwise
	}
}

// Validate returns what is wrong with o.
func (o *Options) Validate() error {
	switch {
	case o.Store == nil || o.Partitions == nil:
		return errors.New("groups: Store and Partitions are needed")
	case o.GroupsMax < 0 || o.MembersMax < 0 || o.MemberBytesMax < 0 || o.OffsetMetadataBytesMax < 0 || o.ForgetAfter < 0:
		return errors.New("groups: a limit is negative; 0 means the default")
	case o.SessionTimeoutMin < 0 || o.SessionTimeoutMin > o.SessionTimeoutMax:
		return fmt.Errorf("groups: session timeouts from %s to %s", o.SessionTimeoutMin, o.SessionTimeoutMax)
	}
	return nil
}

// String says what matters for reading a log of operations.
func (o *Options) String() string {
	return fmt.Sprintf("groups=%d members=%d session=%s..%s delay=%s", o.GroupsMax, o.MembersMax, o.SessionTimeoutMin, o.SessionTimeoutMax, o.InitialDelay)
}
