package log

import "time"

// Event is a CloudEvent 1.0: a fact, in the past tense. Attributes that are empty are absent.
//
// It is a plain value rather than cloudevents/sdk-go's event.Event because the core makes
// and reads tens of thousands of them a second; [FromSDK] and [Event.SDK] convert.
type Event struct {
	ID      string
	Source  string
	Type    string // remit.<package>.<fact>.v1 for remit's own
	Subject string
	Time    time.Time

	DataContentType string // absent means application/json, as the specification has it
	DataSchema      string

	// The extensions in use.
	Key          string // partitionkey: the routing key, which is the record's key
	Correlation  string // correlationid: the transaction or activity
	Causation    string // causationid
	TraceParent  string
	RecordedTime time.Time

	// Extensions are all others: string, bool, int32, []byte, time.Time (the SDK's own types).
	Extensions map[string]any

	// Data is the payload; nil means that the event has none.
	Data []byte
}
