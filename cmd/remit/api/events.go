package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/remitlog/remit/log"
)

// readBytesMax bounds what one read of a topic takes from the log.
const readBytesMax = 4 << 20

// EventPlace is where an event stands.
type EventPlace struct {
	Topic     string     `json:"topic"`
	Partition int32      `json:"partition"`
	Offset    log.Offset `json:"offset"`
}

// Published answers what was published.
type Published struct {
	Positions []EventPlace `json:"positions"`
}

// The options of a message, which are extension attributes and are not delivered.
const (
	optionID           = "remitid"
	optionDeliverAt    = "deliverat"
	optionDeliverAfter = "deliverafter"
	optionCheckAfter   = "checkafter"
)

func (t *Topics) publish(w http.ResponseWriter, r *http.Request) error {
	name, err := t.writable(r)
	if err != nil {
		return err
	}
	if err := ParseQuery(r).Done(); err != nil {
		return err
	}
	events, err := readEvents(w, r)
	if err != nil {
		return err
	}
	if len(events) == 0 {
		return NewProblem(CodeInvalidBody, "the batch is empty; send at least one event")
	}
	if err := checkPublished(events); err != nil {
		return err
	}
	if err := t.ensure(r.Context(), name); err != nil {
		return err
	}
	topic, err := t.Log.Topic(r.Context(), name)
	if err != nil {
		return err
	}
	records, now := make([]log.Record, len(events)), t.Node.Now()
	for i := range events {
		e := &events[i]
		e.Key, e.RecordedTime = cmp.Or(e.Key, e.ID), now
		records[i] = e.Record(log.Partition{Topic: name, Index: log.KeyPartition(e.Key, topic.Partitions)})
	}
	offsets, err := t.Log.Append(r.Context(), records...)
	if err != nil {
		return err
	}
	answer := Published{Positions: make([]EventPlace, len(records))}
	for i, at := range offsets {
		answer.Positions[i] = EventPlace{name, records[i].Index, at}
	}
	SetPosition(w, t.Node.Position())
	return WriteJSON(w, http.StatusCreated, answer)
}

// readEvents reads the body as events, in any mode.
func readEvents(w http.ResponseWriter, r *http.Request) ([]log.Event, error) {
	b := getBuffer()
	defer putBuffer(b)
	if err := readBody(w, r, b); err != nil {
		return nil, err
	}
	body := append([]byte(nil), b.Bytes()...) // the data of a binary event is the body itself
	events, err := log.ParseHTTP(r.Header, body)
	if err != nil {
		return nil, eventProblem(err)
	}
	return events, nil
}

// checkPublished holds events against the limits, and against options that go with messages alone.
func checkPublished(events []log.Event) error {
	for i := range events {
		for _, option := range []string{optionID, optionDeliverAt, optionDeliverAfter, optionCheckAfter} {
			if _, ok := events[i].Extensions[option]; ok {
				return invalidField(option, "it goes with a message, not with an event that is published at once; POST it to …/messages, or leave it out")
			}
		}
		if err := events[i].Validate(); err != nil {
			return eventProblem(err)
		}
	}
	return nil
}

// eventProblem says what is wrong with an event.
func eventProblem(err error) error {
	e, ok := errors.AsType[*log.EventError](err)
	if !ok {
		return err
	}
	detail := e.Detail
	if e.Attribute != "" {
		detail = e.Attribute + ": " + detail
	}
	if e.Index >= 0 {
		detail = "event " + strconv.Itoa(e.Index+1) + " of the batch: " + detail
	}
	p := &Problem{Code: CodeInvalidBody, Detail: detail}
	switch {
	case errors.Is(err, log.ErrEventFormat):
		p.Code = CodeUnsupportedMediaType
	case errors.Is(err, log.ErrTooLarge):
		p.Code = CodeTooLarge
	case e.Attribute != "":
		p.Code = CodeInvalidField
	}
	if e.Attribute == "specversion" {
		p.Detail += "; send a CloudEvent: headers Ce-Id, Ce-Source, Ce-Type and Ce-Specversion: 1.0, or Content-Type: " + log.StructuredContentType
	}
	if e.Attribute != "" {
		p.With("field", e.Attribute)
	}
	return p
}

// TopicEvents is a part of one partition of a topic, in the order of its offsets.
type TopicEvents struct {
	Topic     string       `json:"topic"`
	Partition int32        `json:"partition"`
	Items     []TopicEvent `json:"items"`
	// Next is where to go on: the next from.
	Next log.Offset `json:"next"`
	End  log.Offset `json:"end"`
}

// TopicEvent is one record of a topic. What is not a CloudEvent has Record in place of Event.
type TopicEvent struct {
	Offset log.Offset `json:"offset"`
	Time   Time       `json:"time"`
	Event  *log.Event `json:"event,omitzero"`
	Record *RawRecord `json:"record,omitzero"`
}

// RawRecord is a record that is not a CloudEvent: text as it is, other bytes as base64.
type RawRecord struct {
	Key         string `json:"key,omitzero"`
	Value       string `json:"value,omitzero"`
	ValueBase64 []byte `json:"valueBase64,omitempty"`
	Why         string `json:"why"`
}

func (t *Topics) read(w http.ResponseWriter, r *http.Request) error {
	name, err := topicOf(r)
	if err != nil {
		return err
	}
	if log.Hidden(name) {
		return NewProblem(CodeForbidden, "%s holds the secrets of registrations, which are never answered; read /v1/producers and /v1/subscriptions instead", name).With("topic", name)
	}
	q := ParseQuery(r)
	at := log.Partition{Topic: name, Index: int32(q.whole("partition", 0, log.PartitionsMax-1))}
	from, wait, page := q.String("from"), q.Duration("wait", 0, WaitMax), q.Page()
	if page.Cursor != nil {
		q.Fail("pageToken", "this list has none; go on with from=<next>")
	}
	if err := q.Done(); err != nil {
		return err
	}
	first, end, err := t.bounds(r.Context(), at)
	if err != nil {
		return err
	}
	start, err := t.start(r.Context(), at, from, first, end)
	if err != nil {
		return err
	}
	records, err := t.waitAndRead(r.Context(), at, start, wait, page.Size)
	if err != nil {
		return err
	}
	answer := TopicEvents{Topic: name, Partition: at.Index, Items: make([]TopicEvent, len(records)), Next: start, End: end}
	for i := range records {
		answer.Items[i] = topicEvent(&records[i])
		answer.Next = records[i].Offset + 1
	}
	answer.End = max(end, answer.Next)
	SetPosition(w, t.Node.Position())
	return WriteJSON(w, http.StatusOK, answer)
}

// whole reads a whole number from least to most; absent is least.
func (q *Query) whole(name string, least, most int64) int64 {
	s := q.String(name)
	if s == "" {
		return least
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < least || n > most {
		q.fail(name, "%q is not a number from %d to %d", s, least, most)
	}
	return n
}

func (t *Topics) bounds(ctx context.Context, at log.Partition) (first, end log.Offset, err error) {
	first, end, err = t.Log.Bounds(ctx, at)
	switch {
	case errors.Is(err, log.ErrUnknownTopic):
		err = unknownTopic(at.Topic)
	case errors.Is(err, log.ErrUnknownPartition):
		err = NewProblem(CodeNotFound, "topic %s has no partition %d; GET /v1/topics/%s lists them", at.Topic, at.Index, at.Topic)
	}
	return first, end, err
}

// start is the offset that ?from= means: a number, a time, "end", or nothing, which is the first there is.
func (t *Topics) start(ctx context.Context, at log.Partition, from string, first, end log.Offset) (log.Offset, error) {
	switch from {
	case "":
		return first, nil
	case "end":
		return end, nil
	}
	if n, err := strconv.ParseInt(from, 10, 64); err == nil {
		if log.Offset(n) >= first && log.Offset(n) <= end {
			return log.Offset(n), nil
		}
		there := fmt.Sprintf("there are %d to %d", first, end-1)
		if first == end {
			there = "there are none"
		}
		return 0, NewProblem(CodeInvalidParameter, "from: offset %d of %s/%d cannot be read; %s, and %d is where the next will be", n, at.Topic, at.Index, there, end).
			With("parameter", "from").With("first", int(first)).With("end", int(end))
	}
	when, err := ParseTime(from)
	if err != nil {
		return 0, NewProblem(CodeInvalidParameter, "from: %q is neither an offset, nor a time, nor end", from).With("parameter", "from")
	}
	return t.Log.OffsetAt(ctx, at, when)
}

// waitAndRead waits at most so long for the first record, and returns at most most of them.
func (t *Topics) waitAndRead(ctx context.Context, at log.Partition, from log.Offset, wait time.Duration, most int) ([]log.Record, error) {
	_, end, err := t.Log.Bounds(ctx, at)
	if err != nil || from >= end && wait == 0 {
		return nil, err
	}
	if from < end {
		wait = WaitMax // it does not wait
	}
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if c := callOf(ctx); c != nil { // who follows a topic has nothing begun that a stop is to wait for
		defer context.AfterFunc(c.server.drained, cancel)()
	}
	records, err := t.Log.Read(waiting, at, from, readBytesMax)
	if err != nil && waiting.Err() != nil && ctx.Err() == nil {
		return nil, nil // nothing came
	}
	return records[:min(len(records), most)], err
}

func topicEvent(r *log.Record) TopicEvent {
	item := TopicEvent{Offset: r.Offset, Time: Time(r.Time)}
	e, err := log.ParseRecord(*r)
	if err == nil {
		item.Event = &e
		return item
	}
	item.Record = &RawRecord{Key: string(r.Key), Why: err.Error()}
	if !utf8.Valid(r.Key) {
		item.Record.Key = strconv.Quote(string(r.Key))
	}
	if utf8.Valid(r.Value) {
		item.Record.Value = string(r.Value)
	} else {
		item.Record.ValueBase64 = r.Value
	}
	return item
}
