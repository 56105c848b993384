package log

import (
	"mime"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"
)

// httpPrefix stands before the name of an attribute in an HTTP header, in canonical form.
const httpPrefix = "Ce-"

// HTTP returns e in the binary content mode of the CloudEvents HTTP protocol binding: a header an attribute, values
// percent-encoded, and the data as the body. e must have passed [Event.Validate]. An event
// without data, and one with empty data, have no body.
func (e *Event) HTTP() (http.Header, []byte) {
	h := make(http.Header, e.count()+len(e.Extensions))
	text := func(key, value string) {
		if value != "" {
			h[key] = []string{percentEncode(value)}
		}
	}
	clock := func(key string, t time.Time) {
		if !t.IsZero() {
			h[key] = []string{string(appendTime(nil, t))}
		}
	}
	text("Ce-Specversion", specVersion)
	text("Ce-Id", e.ID)
	text("Ce-Source", e.Source)
	text("Ce-Type", e.Type)
	text("Ce-Subject", e.Subject)
	clock("Ce-Time", e.Time)
	text("Ce-Dataschema", e.DataSchema)
	text("Ce-Partitionkey", e.Key)
	text("Ce-Correlationid", e.Correlation)
	text("Ce-Causationid", e.Causation)
	text("Ce-Traceparent", e.TraceParent)
	clock("Ce-Recordedtime", e.RecordedTime)
	for name, value := range e.Extensions {
		h[http.CanonicalHeaderKey(httpPrefix+name)] = []string{percentEncode(canonical(name, value))}
	}
	if e.DataContentType != "" {
		h["Content-Type"] = []string{e.DataContentType}
	}
	return h, e.Data
}

// ParseHTTP reads the events of an HTTP message: one in binary or structured content mode, any
// number in batched mode. The Content-Type says which, as the CloudEvents HTTP protocol binding has it.
//
// In binary mode every extension without a field is a string, and an empty body is no data. Data may
// be body itself, not a copy.
//
// Errors: *[EventError], with ErrEventFormat for a format other than JSON, else ErrNotEvent.
func ParseHTTP(h http.Header, body []byte) ([]Event, error) {
	contentType, err := contentTypeOf(h)
	if err != nil {
		return nil, err
	}
	if contentType == StructuredContentType { // as most send it
		return one(ParseStructured(body))
	}
	if !isCloudEvents(contentType) {
		return one(parseHTTPBinary(h, contentType, body))
	}
	if media, _, err := mime.ParseMediaType(contentType); err == nil && media == BatchContentType && isUTF8(contentType) {
		return ParseStructuredBatch(body)
	}
	if err := structuredOnly(contentType); err != nil {
		return nil, err
	}
	return one(ParseStructured(body))
}

func one(e Event, err error) ([]Event, error) {
	if err != nil {
		return nil, err
	}
	return []Event{e}, nil
}

func contentTypeOf(h http.Header) (string, error) {
	switch values := h.Values("Content-Type"); len(values) {
	case 0:
		return "", nil
	case 1:
		return values[0], nil
	default:
		return "", bad("datacontenttype", "the header Content-Type is there %d times", len(values))
	}
}

func parseHTTPBinary(h http.Header, contentType string, body []byte) (Event, error) {
	var in intake
	for key, values := range h {
		if len(key) < len(httpPrefix) || !strings.EqualFold(key[:len(httpPrefix)], httpPrefix) {
			continue
		}
		if err := in.header(strings.ToLower(key[len(httpPrefix):]), values); err != nil {
			return Event{}, err
		}
	}
	if err := in.set(attrDataContentType, "datacontenttype", contentType); err != nil {
		return Event{}, err
	}
	if len(body) > 0 {
		in.Data = body
	}
	return in.done()
}

func (in *intake) header(name string, values []string) error {
	a := attributeOf(name)
	switch {
	case a == attrDataContentType:
		return bad(name, "in binary mode it is the header Content-Type")
	case len(values) != 1:
		return bad(name, "the header is there %d times", len(values))
	}
	value, detail := headerValue(values[0])
	if detail != "" {
		return bad(name, "%s", detail)
	}
	return in.set(a, name, value)
}

// headerValue decodes the value of an HTTP header as section 3.1.3.2 has it: quoted strings, which older
// senders use, are unescaped, and then percent-encoding is undone, once. A detail is returned
// if the value is not well-formed.
func headerValue(s string) (value, detail string) {
	if len(s) > 0 && s[0] == '"' {
		var ok bool
		if s, ok = unescape(s[1:]); !ok {
			return "", "a quoted value that does not end where it should (RFC 7230, section 3.2.6)"
		}
	}
	if strings.IndexByte(s, '%') < 0 {
		return s, ""
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b = append(b, s[i])
			continue
		}
		if i+2 >= len(s) || !isHex(s[i+1]) || !isHex(s[i+2]) {
			return "", "a % that no two hexadecimal digits follow; a % itself is sent as %25"
		}
		b = append(b, unhex(s[i+1])<<4|unhex(s[i+2]))
		i += 2
	}
	if !utf8.Valid(b) {
		return "", "what is percent-encoded is not valid UTF-8"
	}
	return string(b), ""
}

// unescape returns the inside of a quoted string from after its first quote.
func unescape(s string) (string, bool) {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			return string(b), i == len(s)-1
		case '\\':
			if i++; i == len(s) {
				return "", false
			}
		}
		b = append(b, s[i])
	}
	return "", false
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c <= 'F':
		return c - 'A' + 10
	default:
		return c - 'a' + 10
	}
}

// percentEncode encodes space, double quote, percent and all that is not printable ASCII.
func percentEncode(s string) string {
	const digits = "0123456789ABCDEF"
	for i := range len(s) {
		if !plain(s[i]) {
			b := make([]byte, 0, len(s)+16)
			for i := range len(s) {
				if c := s[i]; plain(c) {
					b = append(b, c)
				} else {
					b = append(b, '%', digits[c>>4], digits[c&15])
				}
			}
			return string(b)
		}
	}
	return s
}

func plain(c byte) bool { return ' ' < c && c < 0x7f && c != '"' && c != '%' }
