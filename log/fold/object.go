package fold

import (
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/remitlog/remit/log"
)

// Object writes JSON member by member, for [Appender]s. Its methods are named after what a member's value is; those that end in If leave out
// what is zero. Texts are UTF-8: the doors take nothing else.
type Object struct{ b []byte }

// ObjectIn returns an object that is appended to b.
func ObjectIn(b []byte) Object { return Object{append(b, '{')} }

// End ends the object, and returns what it was appended to.
func (o *Object) End() []byte { return append(o.b, '}') }

// name begins a member. Names are plain words. Without one it begins an element.
func (o *Object) name(name string) {
	if last := o.b[len(o.b)-1]; last != '{' && last != '[' {
		o.b = append(o.b, ',')
	}
	if name != "" {
		o.b = append(append(append(o.b, '"'), name...), '"', ':')
	}
}

// Open begins a member that is an array, '[', or an object, '{'. In an array it has no name.
func (o *Object) Open(name string, bracket byte) {
	o.name(name)
	o.b = append(o.b, bracket)
}

// Close ends what Open began, with its own bracket.
func (o *Object) Close(bracket byte) { o.b = append(o.b, bracket) }

// Text is a member that is a string.
func (o *Object) Text(name, value string) {
	o.name(name)
	if isPlain(value) {
		o.b = append(append(append(o.b, '"'), value...), '"')
		return
	}
	o.b, _ = jsontext.AppendQuote(o.b, value)
}

// isPlain reports whether a string stands in JSON as it is.
func isPlain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// TextIf is Text, unless it is empty.
func (o *Object) TextIf(name, value string) {
	if value != "" {
		o.Text(name, value)
	}
}

// Number is a member that is a whole number.
func (o *Object) Number(name string, value int64) {
	o.name(name)
	o.b = strconv.AppendInt(o.b, value, 10)
}

// NumberIf is Number, unless it is 0.
func (o *Object) NumberIf(name string, value int64) {
	if value != 0 {
		o.Number(name, value)
	}
}

// TrueIf is a member that is true, unless it is false.
func (o *Object) TrueIf(name string, value bool) {
	if value {
		o.name(name)
		o.b = append(o.b, "true"...)
	}
}

// ID is a member that is an id.
func (o *Object) ID(name string, id log.ID) {
	o.name(name)
	b, _ := id.AppendText(append(o.b, '"')) // it never fails
	o.b = append(b, '"')
}

// IDIf is ID, unless it is zero.
func (o *Object) IDIf(name string, id log.ID) {
	if !id.IsZero() {
		o.ID(name, id)
	}
}

// Fingerprint is a member that is a fingerprint.
func (o *Object) Fingerprint(name string, f log.Fingerprint) {
	o.name(name)
	b, _ := f.AppendText(append(o.b, '"')) // it never fails
	o.b = append(b, '"')
}

// JSON is a member that is JSON already, byte for byte; none is null.
func (o *Object) JSON(name string, value []byte) {
	if o.name(name); value == nil {
		value = []byte("null")
	}
	o.b = append(o.b, value...)
}

// Time is a member that is a time.
func (o *Object) Time(name string, t time.Time) {
	o.name(name)
	o.b = append(t.AppendFormat(append(o.b, '"'), time.RFC3339Nano), '"')
}
