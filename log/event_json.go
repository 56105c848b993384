package log

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// The media types of the JSON event format and of its batches.
const (
	StructuredContentType = "application/cloudevents+json"
	BatchContentType      = "application/cloudevents-batch+json"
)

// MarshalStructured returns e in the JSON event format, 1.0. e must have passed [Event.Validate].
//
// Data goes where the format has it: JSON (also where no content type is given) as a value under "data", its
// bytes unchanged but for white space around it; text and XML in UTF-8 as a string under "data"; everything else, and what is not
// what its content type says, under "data_base64". So does JSON that cannot stand within other JSON, see embeds. JSON data may bring
// line breaks with it: whoever writes lines compacts it first.
//
// Errors: *[EventError], for an event that Validate refuses.
func (e *Event) MarshalStructured() ([]byte, error) {
	var few [8]string
	names := e.names(few[:0])
	w := jsonWriter{buf: make([]byte, 0, 256+len(e.ID)+len(e.Source)+len(e.Type)+len(e.Key)+len(e.Data)*4/3+64*len(names))}
	w.text("specversion", specVersion)
	w.text("id", e.ID)
	w.text("source", e.Source)
	w.text("type", e.Type)
	w.text("subject", e.Subject)
	w.time("time", e.Time)
	w.text("datacontenttype", e.DataContentType)
	w.text("dataschema", e.DataSchema)
	w.text("partitionkey", e.Key)
	w.text("correlationid", e.Correlation)
	w.text("causationid", e.Causation)
	w.text("traceparent", e.TraceParent)
	w.time("recordedtime", e.RecordedTime)
	for _, name := range names {
		w.extension(name, e.Extensions[name])
	}
	w.data(e.DataContentType, e.Data)
	if w.err != nil {
		return nil, w.err
	}
	return append(w.buf, '}'), nil
}

// MarshalJSON is MarshalStructured, so that an event within other JSON is one there too.
func (e Event) MarshalJSON() ([]byte, error) { return e.MarshalStructured() }

// UnmarshalJSON is ParseStructured.
func (e *Event) UnmarshalJSON(b []byte) error {
	parsed, err := ParseStructured(b)
	if err == nil {
		*e = parsed
	}
	return err
}

type jsonWriter struct {
	buf []byte
	err error // the first
}

func (w *jsonWriter) name(name string) {
	c := byte(',')
	if len(w.buf) == 0 {
		c = '{'
	}
	w.buf = append(append(append(w.buf, c, '"'), name...), '"', ':')
}

func (w *jsonWriter) text(name, value string) {
	if value != "" {
		w.always(name, value)
	}
}

func (w *jsonWriter) always(name, value string) {
	w.name(name)
	b, err := jsontext.AppendQuote(w.buf, value)
	if err != nil && w.err == nil {
		w.err = bad(name, "it is not valid UTF-8")
	}
	w.buf = b
}

func (w *jsonWriter) time(name string, t time.Time) {
	if t.IsZero() {
		return
	}
	w.name(name)
	w.buf = append(appendTime(append(w.buf, '"'), t), '"')
}

func (w *jsonWriter) extension(name string, value any) {
	switch v := value.(type) {
	case bool:
		w.name(name)
		w.buf = strconv.AppendBool(w.buf, v)
	case int32:
		w.name(name)
		w.buf = strconv.AppendInt(w.buf, int64(v), 10)
	default:
		text, err := checkValue(name, value)
		if err != nil && w.err == nil {
			w.err = err
		}
		w.always(name, text)
	}
}

func (w *jsonWriter) data(contentType string, data []byte) {
	if data == nil {
		return
	}
	switch formOf(contentType, data) {
	case dataJSON:
		w.name("data")
		w.buf = append(w.buf, trimJSON(data)...)
	case dataText:
		w.name("data")
		w.buf, _ = jsontext.AppendQuote(w.buf, data) // formOf has seen that it is UTF-8
	case dataBinary:
		w.name("data_base64")
		w.buf = append(base64.StdEncoding.AppendEncode(append(w.buf, '"'), data), '"')
	}
}

// dataForm is how data stands in the JSON format.
type dataForm uint8

const (
	dataJSON   dataForm = iota // a JSON value, under "data"
	dataText                   // a string, under "data"
	dataBinary                 // base64, under "data_base64"
)

// formOf tells how data is written: as its content type has it, if it is what that says.
func formOf(contentType string, data []byte) dataForm {
	form := declared(contentType)
	switch {
	case form == dataJSON && embeds(data):
		return dataJSON
	case form == dataText && utf8.Valid(data):
		return dataText
	default:
		return dataBinary
	}
}

// eventDepthMax is how deep JSON data may be to be written as JSON. Whoever reads it has a limit of its own: 1,000 is common.
const eventDepthMax = 512

// embeds reports whether data is JSON that may stand within other JSON: an answer, a list, an event about this one. RFC 8259
// lets names repeat and values nest as deep as they like, and most who read or write JSON take neither. The data is the
// user's own, and one such event must not spoil the list that it is in; so it is kept as it is, in base64.
func embeds(data []byte) bool {
	return jsontext.Value(data).IsValid() && depthOf(data, eventDepthMax+1) <= eventDepthMax
}

// depthOf tells how deep the arrays and objects of valid JSON are nested, or enough once it is that deep.
func depthOf(data []byte, enough int) int {
	if bytes.Count(data, []byte("["))+bytes.Count(data, []byte("{")) < enough { // as nearly all
		return 0
	}
	dec := jsontext.NewDecoder(bytes.NewReader(data))
	deepest := 0
	for deepest < enough {
		if _, err := dec.ReadToken(); err != nil {
			break
		}
		deepest = max(deepest, dec.StackDepth())
	}
	return deepest
}

// declared tells what a content type says of the data: JSON (also if there is none), text in UTF-8, or neither.
func declared(contentType string) dataForm {
	if contentType == "" || contentType == JSONContentType {
		return dataJSON
	}
	media, _, _ := strings.Cut(contentType, ";")
	media = strings.ToLower(strings.TrimSpace(media))
	_, subtype, _ := strings.Cut(media, "/")
	switch {
	case subtype == "json", strings.HasSuffix(subtype, "+json"):
		return dataJSON
	case strings.HasPrefix(media, "text/"), subtype == "xml", strings.HasSuffix(subtype, "+xml"):
		if isUTF8(contentType) {
			return dataText
		}
	}
	return dataBinary
}

// isUTF8 reports whether a media type names no charset but UTF-8 and its part, US-ASCII.
func isUTF8(contentType string) bool {
	_, parameters, err := mime.ParseMediaType(contentType)
	if err != nil {
		return false
	}
	charset, given := parameters["charset"]
	return !given || strings.EqualFold(charset, "utf-8") || strings.EqualFold(charset, "us-ascii")
}

func trimJSON(data []byte) []byte { return bytes.Trim(data, " \t\r\n") }

// decoders are kept because a new one is larger than a usual event.
var decoders = sync.Pool{New: func() any { return new(jsonDecoder) }}

// jsonDecoder is a decoder with what it reads from.
type jsonDecoder struct {
	jsontext.Decoder
	src bytes.Buffer
}

func (d *jsonDecoder) read(src []byte) {
	d.src = *bytes.NewBuffer(src)
	d.Reset(&d.src, decoderOptions)
}

// Names in the data may repeat: it is the user's own, and goes through unchanged. The
// attributes are checked by intake.
var decoderOptions = jsontext.AllowDuplicateNames(true)

// ParseStructured reads one event in the JSON event format, 1.0. An attribute that is null is absent.
// Extensions without a field are string, bool or int32, as the JSON has them.
//
// Where there is "data" and no datacontenttype, the event gets the application/json that is meant,
// as the specification advises; with "data_base64" it stays without. Nothing that is returned shares
// memory with b.
//
// Errors: *[EventError] with ErrNotEvent.
func ParseStructured(b []byte) (Event, error) {
	p := newJSONReader(b)
	defer p.close()
	e, err := p.event()
	if err == nil {
		err = p.end()
	}
	if err != nil {
		return Event{}, err
	}
	return e, nil
}

// ParseStructuredBatch reads the JSON batch format, 1.0: an array of events, perhaps an empty one.
//
// Errors: *[EventError] with ErrNotEvent, and the Index of the event at fault.
func ParseStructuredBatch(b []byte) ([]Event, error) {
	p := newJSONReader(b)
	defer p.close()
	if kind := p.dec.PeekKind(); kind != '[' {
		return nil, p.expected("a JSON array of events", kind)
	}
	if _, err := p.dec.ReadToken(); err != nil {
		return nil, badJSON(err)
	}
	events := []Event{}
	for kind := p.dec.PeekKind(); kind != ']'; kind = p.dec.PeekKind() {
		e, err := p.event()
		if err != nil {
			if at := (*EventError)(nil); errors.As(err, &at) {
				at.Index = len(events)
			}
			return nil, err
		}
		events = append(events, e)
	}
	if _, err := p.dec.ReadToken(); err != nil {
		return nil, badJSON(err)
	}
	if err := p.end(); err != nil {
		return nil, err
	}
	return events, nil
}

func badJSON(err error) error { return bad("", "%v", err) }

// jsonReader reads events from src.
type jsonReader struct {
	src []byte
	dec *jsonDecoder
}

func newJSONReader(src []byte) jsonReader {
	dec := decoders.Get().(*jsonDecoder)
	dec.read(src)
	return jsonReader{src: src, dec: dec}
}

func (p *jsonReader) close() {
	p.dec.read(nil) // let go of src
	decoders.Put(p.dec)
}

// end checks that nothing follows.
func (p *jsonReader) end() error {
	switch _, err := p.dec.ReadToken(); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return badJSON(err)
	default:
		return bad("", "something follows the JSON value")
	}
}

func (p *jsonReader) expected(what string, kind jsontext.Kind) error {
	if kind == 0 { // no JSON at all: the decoder says it better
		if _, err := p.dec.ReadToken(); err != nil {
			return badJSON(err)
		}
	}
	return bad("", "%s is expected, not %v", what, kind)
}

// payload is what the members data and data_base64 said, as parts of src; nil if they were not there.
type payload struct{ data, base64 []byte }

func (p *jsonReader) event() (Event, error) {
	if kind := p.dec.PeekKind(); kind != '{' {
		return Event{}, p.expected("a JSON object", kind)
	}
	if _, err := p.dec.ReadToken(); err != nil {
		return Event{}, badJSON(err)
	}
	var in intake
	var data payload
	for p.dec.PeekKind() != '}' {
		if err := p.member(&in, &data); err != nil {
			return Event{}, err
		}
	}
	if _, err := p.dec.ReadToken(); err != nil {
		return Event{}, badJSON(err)
	}
	if err := in.payload(data); err != nil {
		return Event{}, err
	}
	return in.done()
}

// member takes one member of the event's object.
func (p *jsonReader) member(in *intake, data *payload) error {
	raw, err := p.dec.ReadValue()
	if err != nil {
		return badJSON(err)
	}
	var few [32]byte
	unquoted, _ := jsontext.AppendUnquote(few[:0], raw) // the decoder has checked it
	a := attributeOf(string(unquoted))
	var name string
	switch a {
	case extension:
		name = string(unquoted)
	default:
		name = a.String()
	}
	if raw, err = p.dec.ReadValue(); err != nil {
		return badJSON(err)
	}
	switch name {
	case "data":
		return once(name, &data.data, p.last(raw))
	case "data_base64":
		return once(name, &data.base64, p.last(raw))
	default:
		return in.member(a, name, raw)
	}
}

// last returns what the decoder has just read as a part of src, which outlives the next read.
func (p *jsonReader) last(raw jsontext.Value) []byte {
	end := int(p.dec.InputOffset())
	return p.src[end-len(raw) : end]
}

func once(name string, to *[]byte, raw []byte) error {
	if *to != nil {
		return bad(name, "given twice")
	}
	*to = raw
	return nil
}

// member takes one attribute as a JSON value.
func (in *intake) member(a attribute, name string, raw jsontext.Value) error {
	switch kind := raw.Kind(); {
	case kind == '"':
		return in.set(a, name, unquote(raw))
	case kind == 'n':
		return in.null(a, name)
	case a != extension:
		return bad(name, "a JSON string is expected, not %v", kind)
	case kind == 't', kind == 'f':
		return in.extend(name, kind == 't')
	case kind == '0':
		n, err := strconv.ParseInt(string(raw), 10, 32)
		if err != nil {
			return bad(name, "%s is not a whole number of 32 bits", raw)
		}
		return in.extend(name, int32(n))
	default:
		return bad(name, "%v; an attribute is a string, a boolean or a whole number", kind)
	}
}

// payload takes the data, once the content type is known.
func (in *intake) payload(p payload) error {
	if jsontext.Value(p.base64).Kind() == 'n' {
		p.base64 = nil
	}
	switch {
	case p.data != nil && p.base64 != nil:
		return bad("data", "both data and data_base64 are there; send one")
	case p.base64 != nil:
		return in.binary(p.base64)
	case p.data == nil:
		return nil
	}
	if in.DataContentType == "" {
		in.DataContentType = JSONContentType
	}
	switch kind := jsontext.Value(p.data).Kind(); {
	case declared(in.DataContentType) == dataJSON:
		in.Data = bytes.Clone(p.data)
	case kind == 'n':
	case kind != '"':
		return bad("data", "with datacontenttype %q it must be a JSON string, not %v", in.DataContentType, kind)
	case !isUTF8(in.DataContentType):
		return bad("data", "a string cannot be turned into the charset of %q; use data_base64", in.DataContentType)
	default:
		in.Data, _ = jsontext.AppendUnquote([]byte{}, p.data)
	}
	return nil
}

func (in *intake) binary(raw jsontext.Value) error {
	if raw.Kind() != '"' {
		return bad("data_base64", "a JSON string is expected, not %v", raw.Kind())
	}
	text, _ := jsontext.AppendUnquote(nil, raw)
	data, err := base64.StdEncoding.AppendDecode(make([]byte, 0, base64.StdEncoding.DecodedLen(len(text))), text)
	if err != nil {
		return bad("data_base64", "not base64 (RFC 4648): %v", err)
	}
	in.Data = data
	return nil
}

// unquote returns what a JSON string says; the decoder has checked it.
func unquote(raw jsontext.Value) string {
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1])
	}
	b, _ := jsontext.AppendUnquote(nil, raw)
	return string(b)
}

// structuredOnly refuses the CloudEvents media types other than the JSON format's.
func structuredOnly(contentType string) error {
	media, _, err := mime.ParseMediaType(contentType)
	switch {
	case err != nil:
		return badFormat("the content type %q is not a media type: %v", contentType, err)
	case strings.HasPrefix(media, "application/cloudevents-batch"):
		return badFormat("%s holds several events; send each as one of %s", media, StructuredContentType)
	case media != StructuredContentType:
		return badFormat("%s; send %s", media, StructuredContentType)
	case !isUTF8(contentType):
		return badFormat("%s; JSON is sent in UTF-8", contentType)
	default:
		return nil
	}
}
