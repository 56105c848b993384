package fold

import (
	"fmt"

	"github.com/go-json-experiment/json"

	"github.com/remitlog/remit/log"
)

// Source is the CloudEvents source of the core's own events.
const Source = "remit"

// Appender is a fact of which there are many: AppendJSON appends what json.Marshal would, but for white space, faster. See [Object].
//
// A type that embeds one has its method too, and members that the method knows nothing of: only types that nobody embeds may have it.
type Appender interface {
	Fact
	AppendJSON([]byte) []byte
}

// FactType knows how to read one type of fact.
type FactType struct {
	Type string
	// Zero is an empty value of the Go type, from which its JSON Schema is made.
	Zero   Fact
	decode func([]byte) (Fact, error)
}

// FactOf describes the fact type T.
func FactOf[T Fact]() FactType {
	var zero T
	return FactType{Type: zero.EventType(), Zero: zero, decode: func(b []byte) (Fact, error) {
		var v T
		err := json.Unmarshal(b, &v)
		return v, err
	}}
}

// FactRead is FactOf with a reader of its own, for facts of which there are many. It must take all that json.Unmarshal takes, and
// take it for the same.
func FactRead[T Fact](read func([]byte) (T, error)) FactType {
	t := FactOf[T]()
	t.decode = func(b []byte) (Fact, error) { return read(b) }
	return t
}

// Facts are the fact types that a fold reads.
type Facts struct {
	byType map[string]FactType
	strict bool
}

// NewFacts returns the given types. Strict facts refuse every other type of event: the core must
// know all of its log. A view folds what it needs and passes over the rest.
func NewFacts(strict bool, types ...FactType) Facts {
	f := Facts{byType: make(map[string]FactType, len(types)), strict: strict}
	for _, t := range types {
		f.byType[t.Type] = t
	}
	return f
}

// Decode reads a core record.
func (f Facts) Decode(r log.Record) (Event, error) {
	le, err := log.ParseRecord(r)
	if err != nil {
		return Event{}, fmt.Errorf("fold: %s/%d offset %d: %w", r.Topic, r.Index, r.Offset, err)
	}
	e := Event{
		Partition: r.Index, Offset: r.Offset, Time: r.Time,
		ID: le.ID, Key: le.Key, Correlation: le.Correlation, Causation: le.Causation, TraceParent: le.TraceParent,
	}
	t, ok := f.byType[le.Type]
	if !ok {
		if f.strict {
			return e, fmt.Errorf("fold: %s/%d offset %d: type %q is not known: written by a newer version, or corruption", r.Topic, r.Index, r.Offset, le.Type)
		}
		return e, nil
	}
	if e.Fact, err = t.decode(le.Data); err != nil {
		return e, fmt.Errorf("fold: %s/%d offset %d: %s: %w", r.Topic, r.Index, r.Offset, le.Type, err)
	}
	return e, nil
}

// Record is Decode's other half: the record of an event, for those few that are written before any partition is folded.
func Record(e Event, topic string) (log.Record, error) { return encode(new(log.Scratch), &e, topic) }

// dataBytes is what most facts fit in that are told.
const dataBytes = 256

// Data returns the JSON of a fact.
func Data(f Fact) ([]byte, error) {
	if fast, ok := f.(Appender); ok {
		return fast.AppendJSON(make([]byte, 0, dataBytes)), nil
	}
	return json.Marshal(f)
}

func encode(s *log.Scratch, e *Event, topic string) (log.Record, error) {
	var data []byte
	var err error
	if fast, ok := e.Fact.(Appender); ok {
		data = s.Bytes(fast.AppendJSON)
	} else {
		data, err = json.Marshal(e.Fact)
	}
	if err != nil {
		return log.Record{}, fmt.Errorf("fold: %s: %w", e.Fact.EventType(), err)
	}
	le := log.Event{
		ID: e.ID, Source: Source, Type: e.Fact.EventType(), Time: e.Time, DataContentType: "application/json",
		Key: e.Key, Correlation: e.Correlation, Causation: e.Causation, TraceParent: e.TraceParent, Data: data,
	}
	r := s.Record(&le, log.Partition{Topic: topic, Index: e.Partition})
	r.Time = e.Time
	return r, nil
}
