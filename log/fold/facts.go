package fold

import (
	"bytes"
	"fmt"
	"sync"

	"github.com/go-json-experiment/json"

	"github.com/remitlog/remit/log"
)

// Source is the CloudEvents source of the core's own events.
const Source = "remit"

// Appender is a fact of which there are many: AppendJSON appends what json.Marshal would, but for white space, faster.
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
func Record(e Event, topic string) (log.Record, error) { return encode(&e, topic) }

func encode(e *Event, topic string) (log.Record, error) {
	data, err := marshal(e.Fact)
	if err != nil {
		return log.Record{}, fmt.Errorf("fold: %s: %w", e.Fact.EventType(), err)
	}
	le := log.Event{
		ID: e.ID, Source: Source, Type: e.Fact.EventType(), Time: e.Time, DataContentType: "application/json",
		Key: e.Key, Correlation: e.Correlation, Causation: e.Causation, TraceParent: e.TraceParent, Data: data,
	}
	r := le.Record(log.Partition{Topic: topic, Index: e.Partition})
	r.Time = e.Time
	return r, nil
}

func marshal(f Fact) ([]byte, error) {
	a, ok := f.(Appender)
	if !ok {
		return json.Marshal(f)
	}
	b := scratch.Get().(*[]byte)
	defer scratch.Put(b)
	*b = a.AppendJSON((*b)[:0])
	data := bytes.Clone(*b)
	if cap(*b) > scratchMax {
		*b = nil
	}
	return data, nil
}

// scratch are buffers that facts are written into, up to scratchMax bytes.
var scratch = sync.Pool{New: func() any { return new([]byte) }}

const scratchMax = 64 << 10
