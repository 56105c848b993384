package log

import (
	"errors"
	"fmt"
	"mime"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/cloudevents/sdk-go/v2/types"
)

// Event is a CloudEvent 1.0: a fact, in the past tense. Attributes that are empty are absent.
//
// It is a plain value rather than cloudevents/sdk-go's event.Event because the core makes
// and reads tens of thousands of them a second; [FromSDK] and [Event.SDK] convert.
//
// The files event*.go are the one place that knows how an event becomes bytes: [Event.Record] and
// [ParseRecord] for Kafka, [Event.MarshalStructured], [ParseStructured] and [ParseStructuredBatch] for JSON,
// [Event.HTTP] and [ParseHTTP] for HTTP. What a Parse function returns keeps the rules of the
// specification; [Event.Validate] also holds it to remit's limits, and is for the doors.
type Event struct {
	ID      string
	Source  string
	Type    string // remit.<package>.<fact>.v1 for remit's own
	Subject string
	Time    time.Time

	// DataContentType absent means application/json, as the specification has it, if the data is JSON at all.
	// It is never added in writing: whoever wants the header content-type on the wire sets it (JSONContentType).
	DataContentType string
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

// Limits of an event, checked by [Event.Validate]. Together they keep its record below [RecordMax].
const (
	// EventAttributeMax is the longest value of one attribute, in bytes of its canonical string.
	EventAttributeMax = 8 << 10
	// EventAttributesMax is the most bytes of all attributes together, names and values.
	EventAttributesMax = 64 << 10
	// EventExtensionsMax is the most attributes in Extensions.
	EventExtensionsMax = 64
	// EventNameMax is the longest attribute name, in bytes. The specification asks for at most 20
	// and does not insist.
	EventNameMax = 64
	// EventDataMax is the most bytes of Data. It leaves room for an event of 1 MiB inside an event,
	// also as base64.
	EventDataMax = 3 << 19
)

// JSONContentType is the media type of the data of remit's own events.
const JSONContentType = "application/json"

var (
	// ErrNotEvent: what came is not a CloudEvent 1.0. The [EventError] around it names the
	// attribute; the sender must correct it.
	ErrNotEvent = errors.New("log: not a CloudEvent")
	// ErrEventFormat: a CloudEvent in a format or mode that is not read here. Send the JSON
	// format, or binary mode.
	ErrEventFormat = errors.New("log: event format not supported")
)

// EventError says what is wrong with an event.
type EventError struct {
	Attribute string // as the specification names it; "data" for the payload; empty for the whole
	Detail    string // what was wrong, and what would be right
	Index     int    // within a batch, from 0 on; -1 outside of one
	Err       error  // ErrNotEvent, ErrEventFormat or ErrTooLarge
}

func (e *EventError) Error() string {
	var b strings.Builder
	b.WriteString(e.Err.Error())
	if e.Index >= 0 {
		fmt.Fprintf(&b, ": event %d of the batch", e.Index)
	}
	if e.Attribute != "" {
		fmt.Fprintf(&b, ": attribute %q", e.Attribute)
	}
	return b.String() + ": " + e.Detail
}

func (e *EventError) Unwrap() error { return e.Err }

// bad is an EventError about one attribute.
func bad(attribute, format string, args ...any) error {
	return &EventError{Attribute: attribute, Detail: fmt.Sprintf(format, args...), Index: -1, Err: ErrNotEvent}
}

func tooLarge(attribute, format string, args ...any) error {
	return &EventError{Attribute: attribute, Detail: fmt.Sprintf(format, args...), Index: -1, Err: ErrTooLarge}
}

func badFormat(format string, args ...any) error {
	return &EventError{Detail: fmt.Sprintf(format, args...), Index: -1, Err: ErrEventFormat}
}

// Validate reports the first thing that keeps e from being sent: a rule of the specification
// that is broken, or a limit of remit that is passed (Event…Max; those match ErrTooLarge). The
// encoders do not look: an event that does not pass is not to be given to them.
//
// Errors: *[EventError].
func (e *Event) Validate() error {
	if err := e.complete(); err != nil {
		return err
	}
	size := 0
	for _, a := range [...]struct{ name, value string }{
		{"id", e.ID}, {"source", e.Source}, {"type", e.Type}, {"subject", e.Subject},
		{"datacontenttype", e.DataContentType}, {"dataschema", e.DataSchema}, {"partitionkey", e.Key},
		{"correlationid", e.Correlation}, {"causationid", e.Causation}, {"traceparent", e.TraceParent},
	} {
		if err := validText(a.name, a.value); err != nil {
			return err
		}
		size += len(a.name) + len(a.value)
	}
	if err := e.validateForms(); err != nil {
		return err
	}
	more, err := e.validateExtensions()
	if err != nil {
		return err
	}
	if size += more; size > EventAttributesMax {
		return tooLarge("", "the attributes take %d bytes together, at most %d are taken; move some of it into the data", size, EventAttributesMax)
	}
	if len(e.Data) > EventDataMax {
		return tooLarge("data", "%d bytes, at most %d are taken; send a reference to it (dataref) instead", len(e.Data), EventDataMax)
	}
	return nil
}

// validateForms checks the attributes that are more than strings.
func (e *Event) validateForms() error {
	if !plainPath(e.Source) {
		if _, err := parseURI(e.Source); err != nil {
			return bad("source", "%q is not a URI-reference (RFC 3986)", e.Source)
		}
	}
	if e.DataSchema != "" {
		if u, err := parseURI(e.DataSchema); err != nil || !u.IsAbs() {
			return bad("dataschema", "%q is not an absolute URI (RFC 3986)", e.DataSchema)
		}
	}
	if err := checkContentType(e.DataContentType); err != nil {
		return err
	}
	if e.DataContentType != "" && e.DataContentType != JSONContentType { // which most are
		if _, _, err := mime.ParseMediaType(e.DataContentType); err != nil {
			return bad("datacontenttype", "%q is not a media type (RFC 2046)", e.DataContentType)
		}
	}
	if err := checkTime("time", e.Time); err != nil {
		return err
	}
	return checkTime("recordedtime", e.RecordedTime)
}

// plainPath reports whether s is a path of letters, digits and dashes, as most sources are: a URI-reference at a glance.
func plainPath(s string) bool {
	if len(s) < 2 || s[0] != '/' || s[1] == '/' { // two slashes begin a host
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '/', c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	return true
}

var errURI = errors.New("log: not a URI-reference")

// parseURI is url.Parse for a URI-reference of RFC 3986, section 2, alone: url.Parse takes spaces and what is not ASCII.
func parseURI(s string) (*url.URL, error) {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-._~:/?#[]@!$&'()*+,;=", c) >= 0:
		case c == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]):
		default:
			return nil, errURI
		}
	}
	return url.Parse(s)
}

// validateExtensions returns how many bytes they take.
func (e *Event) validateExtensions() (size int, err error) {
	if n := len(e.Extensions); n > EventExtensionsMax {
		return 0, tooLarge("", "%d extension attributes, at most %d are taken", n, EventExtensionsMax)
	}
	for name, value := range e.Extensions {
		if err := checkName(name); err != nil {
			return 0, err
		}
		if len(name) > EventNameMax {
			return 0, tooLarge(name, "a name of %d bytes, at most %d are taken", len(name), EventNameMax)
		}
		if attributeOf(name) != extension {
			return 0, bad(name, "it has a field of its own in Event and is no other extension")
		}
		text, err := checkValue(name, value)
		if err != nil {
			return 0, err
		}
		if err := validText(name, text); err != nil {
			return 0, err
		}
		size += len(name) + len(text)
	}
	return size, nil
}

func validText(name, value string) error {
	if len(value) > EventAttributeMax {
		return tooLarge(name, "%d bytes, at most %d are taken", len(value), EventAttributeMax)
	}
	return checkText(name, value)
}

// complete checks that the required attributes are there.
func (e *Event) complete() error {
	switch {
	case e.ID == "":
		return bad("id", "missing; every event has one, unique within its source")
	case e.Source == "":
		return bad("source", "missing; every event has one, a URI-reference")
	case e.Type == "":
		return bad("type", "missing; every event has one")
	default:
		return nil
	}
}

// attribute is an attribute that Event has a field for.
type attribute uint8

const (
	extension attribute = iota // any other
	attrSpecVersion
	attrID
	attrSource
	attrType
	attrSubject
	attrTime
	attrDataContentType
	attrDataSchema
	attrKey
	attrCorrelation
	attrCausation
	attrTraceParent
	attrRecordedTime
)

func attributeOf(name string) attribute {
	switch name {
	case "specversion":
		return attrSpecVersion
	case "id":
		return attrID
	case "source":
		return attrSource
	case "type":
		return attrType
	case "subject":
		return attrSubject
	case "time":
		return attrTime
	case "datacontenttype":
		return attrDataContentType
	case "dataschema":
		return attrDataSchema
	case "partitionkey":
		return attrKey
	case "correlationid":
		return attrCorrelation
	case "causationid":
		return attrCausation
	case "traceparent":
		return attrTraceParent
	case "recordedtime":
		return attrRecordedTime
	default:
		return extension
	}
}

// String returns the attribute's name; empty for an extension.
func (a attribute) String() string {
	return [...]string{"", "specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema",
		"partitionkey", "correlationid", "causationid", "traceparent", "recordedtime"}[a]
}

// intake fills an event attribute by attribute, in any order, and refuses what comes twice.
type intake struct {
	Event
	seen    uint16   // a bit an attribute
	version bool     // specversion said what it should
	nulls   []string // extensions that were named, and absent
}

const specVersion = "1.0"

// set takes one attribute in its canonical string form. An optional one that is empty is absent.
func (in *intake) set(a attribute, name, value string) error {
	if a == extension {
		return in.extend(name, value)
	}
	if err := in.see(a, name); err != nil {
		return err
	}
	if err := checkText(name, value); err != nil {
		return err
	}
	var err error
	switch a {
	case attrSpecVersion:
		if in.version = value == specVersion; !in.version {
			err = bad(name, "%q; only version %s is read", value, specVersion)
		}
	case attrID:
		in.ID = value
	case attrSource:
		in.Source = value
	case attrType:
		in.Type = value
	case attrSubject:
		in.Subject = value
	case attrTime:
		in.Time, err = parseTime(name, value)
	case attrDataContentType:
		in.DataContentType, err = value, checkContentType(value)
	case attrDataSchema:
		in.DataSchema = value
	case attrKey:
		in.Key = value
	case attrCorrelation:
		in.Correlation = value
	case attrCausation:
		in.Causation = value
	case attrTraceParent:
		in.TraceParent = value
	case attrRecordedTime:
		in.RecordedTime, err = parseTime(name, value)
	}
	return err
}

func (in *intake) see(a attribute, name string) error {
	if in.seen&(1<<a) != 0 {
		return bad(name, "given twice")
	}
	in.seen |= 1 << a
	return nil
}

// null takes an attribute that is named, and absent.
func (in *intake) null(a attribute, name string) error {
	if a != extension {
		return in.see(a, name)
	}
	if err := in.extend(name, nil); err != nil {
		return err
	}
	delete(in.Extensions, name)
	in.nulls = append(in.nulls, name)
	return nil
}

// extend takes one extension attribute that Event has no field for: a string, bool or int32.
func (in *intake) extend(name string, value any) error {
	if err := checkName(name); err != nil {
		return err
	}
	if _, twice := in.Extensions[name]; twice || in.nulls != nil && slices.Contains(in.nulls, name) {
		return bad(name, "given twice")
	}
	if text, ok := value.(string); ok {
		if err := checkText(name, text); err != nil {
			return err
		}
	}
	if in.Extensions == nil {
		in.Extensions = make(map[string]any)
	}
	in.Extensions[name] = value
	return nil
}

// done returns the event once all has been taken.
func (in *intake) done() (Event, error) {
	if len(in.Extensions) == 0 {
		in.Extensions = nil
	}
	if !in.version {
		return Event{}, bad("specversion", "missing; every event has one, and it is %s", specVersion)
	}
	if err := in.complete(); err != nil {
		return Event{}, err
	}
	return in.Event, nil
}

// checkName holds an attribute name to the specification's naming conventions.
func checkName(name string) error {
	if name == "" {
		return bad(name, "the name is empty")
	}
	if name == "data" {
		return bad(name, "the name is reserved for the payload")
	}
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return bad(name, "a name is made of the lower-case letters a to z and the digits 0 to 9")
		}
	}
	return nil
}

// checkText holds a value to the specification's String: UTF-8 without control characters
// and noncharacters.
func checkText(name, value string) error {
	for i := range len(value) {
		if c := value[i]; c < 0x20 || c >= 0x7f {
			return checkRunes(name, value)
		}
	}
	return nil
}

func checkRunes(name, value string) error {
	for i, r := range value {
		switch {
		case r == utf8.RuneError:
			if _, n := utf8.DecodeRuneInString(value[i:]); n == 1 {
				return bad(name, "it is not valid UTF-8")
			}
		case r < 0x20, 0x7f <= r && r <= 0x9f:
			return bad(name, "it holds the control character %U", r)
		case r&0xfffe == 0xfffe, 0xfdd0 <= r && r <= 0xfdef:
			return bad(name, "it holds the noncharacter %U", r)
		}
	}
	return nil
}

// checkContentType refuses an event as the data of an event: in binary mode it could not be
// told from structured mode.
func checkContentType(value string) error {
	if isCloudEvents(value) {
		return bad("datacontenttype", "%q says that the data is itself a CloudEvent, which binary mode cannot carry; use application/json", value)
	}
	return nil
}

// isCloudEvents reports whether a content type begins with application/cloudevents: structured mode or a batch.
func isCloudEvents(contentType string) bool {
	const prefix = "application/cloudevents"
	contentType = strings.TrimSpace(contentType)
	return len(contentType) >= len(prefix) && strings.EqualFold(contentType[:len(prefix)], prefix)
}

// parseTime reads an RFC 3339 timestamp, in UTC; empty is the zero time.
func parseTime(name, value string) (time.Time, error) {
	if value == "" {
		return time.Time{}, nil
	}
	var t time.Time
	if err := t.UnmarshalText([]byte(value)); err != nil || !strictTime(value) {
		return time.Time{}, bad(name, "%q is not an RFC 3339 timestamp like 2018-04-05T17:31:00Z", value)
	}
	t = t.UTC()
	return t, checkTime(name, t)
}

// strictTime refuses what package time takes beyond RFC 3339 (go.dev/issue/54580): hours of one digit,
// a comma before the fraction, zones of a day and more. The rest of value has been parsed.
func strictTime(value string) bool {
	const hour, fraction = len("2006-01-02T"), len("2006-01-02T15:04:05")
	if value[hour+1] == ':' || value[fraction] == ',' {
		return false
	}
	zone := value[len(value)-len("15:04"):]
	return value[len(value)-1] == 'Z' || zone[:2] < "24" && zone[3:] < "60"
}

// checkTime refuses times that RFC 3339 cannot write.
func checkTime(name string, t time.Time) error {
	if y := t.UTC().Year(); y < 0 || y > 9999 {
		return bad(name, "the year %d; RFC 3339 has 0 to 9999", y)
	}
	return nil
}

func appendTime(b []byte, t time.Time) []byte { return t.UTC().AppendFormat(b, time.RFC3339Nano) }

// checkValue returns the canonical string of an extension's value.
func checkValue(name string, value any) (string, error) {
	switch v := value.(type) {
	case string:
		return v, nil
	case bool, int32, []byte, types.URI, types.URIRef:
	case time.Time:
		if err := checkTime(name, v); err != nil {
			return "", err
		}
	case types.Timestamp:
		if err := checkTime(name, v.Time); err != nil {
			return "", err
		}
	default:
		return "", bad(name, "a value of the Go type %T; string, bool, int32, []byte and time.Time are taken", value)
	}
	text, err := types.Format(value)
	if err != nil {
		return "", bad(name, "%v", err)
	}
	return text, nil
}

// canonical is checkValue for the encoders, behind Validate.
func canonical(name string, value any) string {
	text, err := checkValue(name, value)
	if err != nil {
		panic(fmt.Sprintf("%v (an event that was not validated reached an encoder)", err))
	}
	return text
}

// names appends the names of the extensions without a field, in order.
func (e *Event) names(to []string) []string {
	for name := range e.Extensions {
		to = append(to, name)
	}
	slices.Sort(to)
	return to
}
