package push

import (
	"fmt"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/remitlog/remit/consumers"
	"github.com/remitlog/remit/log"
)

// Missed is the fact that records were gone, by retention or because somebody deleted them, before they were delivered to a subscription.
type Missed struct {
	Subscription string `json:"subscription"`
	Topic        string `json:"topic"`
	Partition    int32  `json:"partition"`
	From         int64  `json:"from"` // the first offset that was not delivered
	To           int64  `json:"to"`   // the first that was there again
}

// EventType is the type on the log.
func (Missed) EventType() string { return "remit.subscription.missed.v1" }

// source is that of the core's own events.
const source = "remit"

// gapRecord is that fact, as a parked record.
func gapRecord(s *Subscription, p log.Partition, from, to log.Offset) log.Record {
	m := Missed{Subscription: s.Name, Topic: p.Topic, Partition: p.Index, From: int64(from), To: int64(to)}
	data, err := json.Marshal(m)
	if err != nil {
		panic(err) // strings and numbers
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	reason := fmt.Sprintf("records %d to %d of %s/%d were gone before they were delivered: its retention is too short for this subscription's lag", from, to-1, p.Topic, p.Index)
	e := log.Event{
		ID: fmt.Sprintf("%s/%d/%s/%d/%d-%d", s.Name, s.Registered.UnixMilli(), p.Topic, p.Index, from, to), Source: source, Type: m.EventType(), Time: now,
		DataContentType: log.JSONContentType, DataSchema: "/schemas/" + m.EventType() + ".json", RecordedTime: now, Data: data,
		Extensions: map[string]any{
			consumers.ParkedReason: reason, consumers.ParkedAttempts: "0", consumers.ParkedAt: now.Format(time.RFC3339), consumers.ParkedGroup: Group(s.Name),
			consumers.ParkedFrom: p.Topic, consumers.ParkedPartition: strconv.Itoa(int(p.Index)), consumers.ParkedOffset: strconv.FormatInt(int64(from), 10),
		},
	}
	return e.Record(log.Partition{Topic: consumers.ParkedTopic(p.Topic)})
}
