package log

import (
	"net/url"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/cloudevents/sdk-go/v2/types"
)

// FromSDK returns an event of cloudevents/sdk-go as one of remit's. Timestamps among the extensions
// become time.Time; the rest keeps its type. The data is not copied.
//
// Errors: *[EventError], also for version 0.3.
func FromSDK(s event.Event) (Event, error) {
	if s.Context == nil {
		return Event{}, bad("specversion", "missing; make events with event.New()")
	}
	var in intake
	for _, a := range [...]struct {
		attribute
		value string
	}{
		{attrSpecVersion, s.SpecVersion()}, {attrID, s.ID()}, {attrSource, s.Source()}, {attrType, s.Type()},
		{attrSubject, s.Subject()}, {attrDataContentType, s.DataContentType()}, {attrDataSchema, s.DataSchema()},
	} {
		if err := in.set(a.attribute, a.String(), a.value); err != nil {
			return Event{}, err
		}
	}
	in.Time = s.Time().UTC()
	if err := checkTime("time", in.Time); err != nil {
		return Event{}, err
	}
	for name, value := range s.Extensions() {
		if err := in.fromSDK(name, value); err != nil {
			return Event{}, err
		}
	}
	in.Data = s.Data()
	return in.done()
}

func (in *intake) fromSDK(name string, value any) error {
	value, err := types.Validate(value)
	if err != nil {
		return bad(name, "%v", err)
	}
	if t, ok := value.(types.Timestamp); ok {
		value = t.UTC()
	}
	text, err := checkValue(name, value)
	if err != nil {
		return err
	}
	if a := attributeOf(name); a != extension {
		return in.set(a, name, text)
	}
	if err := checkText(name, text); err != nil {
		return err
	}
	return in.extend(name, value)
}

// SDK returns e as an event of cloudevents/sdk-go. e must have passed [Event.Validate]; what the SDK
// does not take stands in the FieldErrors of the result. The data is not copied.
func (e *Event) SDK() event.Event {
	c := &event.EventContextV1{ID: e.ID, Source: types.URIRef{URL: asURL(e.Source)}, Type: e.Type}
	if e.Subject != "" {
		c.Subject = &e.Subject
	}
	if e.DataContentType != "" {
		c.DataContentType = &e.DataContentType
	}
	if e.DataSchema != "" {
		c.DataSchema = &types.URI{URL: asURL(e.DataSchema)}
	}
	if !e.Time.IsZero() {
		c.Time = &types.Timestamp{Time: e.Time.UTC()}
	}
	s := event.Event{Context: c}
	for name, value := range e.Extensions {
		s.SetExtension(name, value)
	}
	for _, x := range [...]struct{ name, value string }{
		{"partitionkey", e.Key}, {"correlationid", e.Correlation}, {"causationid", e.Causation}, {"traceparent", e.TraceParent},
	} {
		if x.value != "" {
			s.SetExtension(x.name, x.value)
		}
	}
	if !e.RecordedTime.IsZero() {
		s.SetExtension("recordedtime", e.RecordedTime.In(time.UTC))
	}
	if e.Data != nil {
		s.DataEncoded, s.DataBase64 = e.Data, !sdkInline(s.DataMediaType(), formOf(e.DataContentType, e.Data))
	}
	return s
}

// sdkInline reports whether the SDK's JSON format would write data under "data" as it should. It takes
// fewer media types for JSON than the specification does, and quotes the others.
func sdkInline(media string, form dataForm) bool {
	return form == dataText || form == dataJSON && (media == "" || media == event.ApplicationJSON || media == event.TextJSON)
}

// asURL returns a URL that prints as s, to the byte: source and id together are what an event
// is known by, and url.Parse alone rewrites some.
func asURL(s string) url.URL {
	u, err := url.Parse(s)
	if err != nil || u.String() != s {
		return url.URL{Opaque: s}
	}
	return *u
}
