package consumers

import (
	"fmt"
	"strconv"
	"time"

	"github.com/remitlog/remit/log"
)

// The extension attributes that a record which is sent again has beside those that it was parked with.
const (
	ReplayBy        = "replayby"        // who asked for it
	ReplayReason    = "replayreason"    // and why
	ReplayAt        = "replayat"        // when, RFC 3339
	ReplayFrom      = "replayfrom"      // the parked topic
	ReplayPartition = "replaypartition" // and where it stands there
	ReplayOffset    = "replayoffset"
)

// setAside are the attributes of parking and of sending again. A handler sees the event without them.
var setAside = [...]string{
	ParkedReason, ParkedAttempts, ParkedAt, ParkedGroup, ParkedFrom, ParkedPartition, ParkedOffset,
	ReplayBy, ReplayReason, ReplayAt, ReplayFrom, ReplayPartition, ReplayOffset,
}

// ReplayTopic is where parked records of a topic are sent again, each to the group that has parked it. They do not go to the topic itself: its other
// readers have had them.
func ReplayTopic(topic string) string { return topic + ".replay" }

// replays are the replay topics that are read.
func (o *Options) replays() map[string]bool {
	topics := map[string]bool{}
	if o.Replays {
		for _, t := range o.Topics {
			topics[ReplayTopic(t)] = true
		}
	}
	return topics
}

// Replay returns the record that sends a parked one again, to its group and to nobody else. It goes to the ReplayTopic, in a partition
// of its key's. An error says that it was not parked by a Consumer.
func Replay(parked log.Record, by, reason string, now time.Time) (log.Record, error) {
	p, err := ParseParked(parked)
	if err != nil {
		return log.Record{}, err
	}
	r := log.Record{Partition: log.Partition{Topic: ReplayTopic(p.From.Topic)}, Key: parked.Key, Value: parked.Value}
	for _, h := range parked.Headers {
		if !named(h.Key, ReplayBy, ReplayReason, ReplayAt, ReplayFrom, ReplayPartition, ReplayOffset) {
			r.Headers = append(r.Headers, h)
		}
	}
	r.Headers = append(r.Headers, attributes([]attribute{
		{ReplayBy, attributeText(by)},
		{ReplayReason, attributeText(reason)},
		{ReplayAt, now.UTC().Format(time.RFC3339)},
		{ReplayFrom, parked.Topic},
		{ReplayPartition, strconv.Itoa(int(parked.Index))},
		{ReplayOffset, strconv.FormatInt(int64(parked.Offset), 10)},
	})...)
	return r, nil
}

// Replayed is what a record on a ReplayTopic says of itself.
type Replayed struct {
	By, Reason string
	At         time.Time
	// Parked is where the record stands that it sends again.
	Parked Place
}

// ParseReplayed reads it.
func ParseReplayed(r log.Record) (Replayed, error) {
	a := attributesOf(r)
	place, err := a.place(ReplayFrom, ReplayPartition, ReplayOffset)
	if err != nil {
		return Replayed{}, fmt.Errorf("consumers: %s/%d/%d was not sent again by remit: %w", r.Topic, r.Index, r.Offset, err)
	}
	at, _ := time.Parse(time.RFC3339, a[ReplayAt]) // for people
	return Replayed{By: a[ReplayBy], Reason: a[ReplayReason], At: at, Parked: place}, nil
}

// replayFor reports whether a record is sent again to a group.
func replayFor(r log.Record, group string) bool {
	return attributesOf(r)[ParkedGroup] == attributeText(group)
}
