package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// BodyMax is the largest body, and the longest line of NDJSON, in bytes. Above it is 413.
const BodyMax = 1 << 20

// bodyTimeout is how long a client may take to send a body.
const bodyTimeout = 30 * time.Second

// bufferKeepMax is the largest buffer that goes back into the pool.
const bufferKeepMax = 64 << 10

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

func getBuffer() *bytes.Buffer { return buffers.Get().(*bytes.Buffer) }

func putBuffer(b *bytes.Buffer) {
	if b.Cap() <= bufferKeepMax {
		b.Reset()
		buffers.Put(b)
	}
}

// Decode reads the body, one JSON object, into v. It must be sent as application/json. Unknown
// fields, fields given twice, wrong types and what trails are refused with the field named (H1).
// The error is a *[Problem].
func Decode(w http.ResponseWriter, r *http.Request, v any) error {
	return decodeBody(w, r, v, false)
}

// DecodeOptional is Decode for calls that may have no body: then v stays as it is.
func DecodeOptional(w http.ResponseWriter, r *http.Request, v any) error {
	return decodeBody(w, r, v, true)
}

func decodeBody(w http.ResponseWriter, r *http.Request, v any, optional bool) error {
	b := getBuffer()
	defer putBuffer(b)
	if err := readBody(w, r, b); err != nil {
		return err
	}
	if optional && b.Len() == 0 {
		return nil
	}
	// A missing type is refused too: a page of another origin can send one without asking first.
	if err := CheckContentType(r, "application/json"); err != nil {
		return err
	}
	return DecodeJSON(b.Bytes(), v)
}

// readBody reads the whole body, at most BodyMax of it, within bodyTimeout.
func readBody(w http.ResponseWriter, r *http.Request, b *bytes.Buffer) error {
	if err := checkEncoding(w, r); err != nil {
		return err
	}
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(bodyTimeout)) // not every writer can; the body is then read without
	_, err := b.ReadFrom(http.MaxBytesReader(w, r.Body, BodyMax))
	// INVARIANT: the deadline is taken back. While a handler waits, the server reads ahead to
	// notice that the client left, and an expired deadline would look like that.
	_ = rc.SetReadDeadline(time.Time{})
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return NewProblem(CodeTooLarge, "a body is at most %d bytes; send less, or in pieces", BodyMax)
	}
	if a, ok := w.(*answer); ok && err == nil {
		a.unread = false
	}
	if err != nil {
		return NewProblem(CodeInvalidBody, "the body broke off after %d bytes; send it again", b.Len())
	}
	return nil
}

// checkEncoding answers 415 for a body in a content coding, such as gzip: none is undone here.
func checkEncoding(w http.ResponseWriter, r *http.Request) error {
	for _, value := range r.Header.Values("Content-Encoding") {
		for coding := range strings.SplitSeq(value, ",") {
			if coding = strings.TrimSpace(coding); coding != "" && !strings.EqualFold(coding, "identity") {
				w.Header().Set("Accept-Encoding", "identity") // RFC 9110, section 15.5.16
				return NewProblem(CodeUnsupportedMediaType, "send the body as it is; this call was sent with Content-Encoding: %s, and remit takes identity alone", coding)
			}
		}
	}
	return nil
}

// CheckContentType answers 415 unless the request's Content-Type is one of types, in UTF-8: JSON is nothing else.
func CheckContentType(r *http.Request, types ...string) error {
	got := r.Header.Get("Content-Type")
	if slices.Contains(types, got) {
		return nil
	}
	if media, parameters, err := mime.ParseMediaType(got); err == nil && slices.Contains(types, media) {
		if charset, given := parameters["charset"]; given && !strings.EqualFold(charset, "utf-8") {
			return NewProblem(CodeUnsupportedMediaType, "send it in UTF-8; this call was sent with charset %s", charset)
		}
		return nil
	}
	if got == "" {
		got = "nothing"
	}
	return NewProblem(CodeUnsupportedMediaType, "send Content-Type: %s; this call was sent with %s", strings.Join(types, " or "), got)
}

var strict = json.JoinOptions(json.RejectUnknownMembers(true))

// DecodeJSON reads one JSON object into v as strictly as [Decode]. It keeps no part of data.
func DecodeJSON(data []byte, v any) error {
	trimmed := bytes.TrimLeft(data, " \t\r\n")
	if len(trimmed) == 0 {
		return NewProblem(CodeInvalidBody, "there is no body; send a JSON object")
	}
	if bytes.HasPrefix(trimmed, []byte("\xef\xbb\xbf")) {
		return NewProblem(CodeInvalidBody, "send it without a byte order mark; this begins with one")
	}
	if trimmed[0] != '{' {
		return NewProblem(CodeInvalidBody, "send a JSON object; this begins with %q", trimmed[:1])
	}
	err := json.Unmarshal(data, v, strict)
	if err == nil {
		return nil
	}
	return decodeProblem(err)
}

// decodeProblem says in the caller's words what the JSON package found.
func decodeProblem(err error) *Problem {
	var p *Problem
	if errors.As(err, &p) { // from a type's own UnmarshalText or UnmarshalJSONFrom
		if sem, ok := errors.AsType[*json.SemanticError](err); ok {
			return (&Problem{Code: p.Code, Detail: fieldName(sem.JSONPointer) + ": " + p.Detail}).With("field", fieldName(sem.JSONPointer))
		}
		return p
	}
	if syn, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		return syntaxProblem(syn)
	}
	if sem, ok := errors.AsType[*json.SemanticError](err); ok {
		return semanticProblem(sem)
	}
	return NewProblem(CodeInvalidBody, "the body cannot be read: %v", err)
}

func syntaxProblem(err *jsontext.SyntacticError) *Problem {
	field := fieldName(err.JSONPointer)
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		return NewProblem(CodeInvalidBody, "%s is given twice; give it once", field).With("field", field)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return NewProblem(CodeInvalidBody, "the JSON breaks off at byte %d", err.ByteOffset)
	default:
		return NewProblem(CodeInvalidBody, "not JSON at byte %d: %v", err.ByteOffset, err.Err)
	}
}

func semanticProblem(err *json.SemanticError) *Problem {
	field := fieldName(err.JSONPointer)
	if errors.Is(err, json.ErrUnknownName) {
		known := fieldsOf(err.GoType)
		detail := fmt.Sprintf("%s is not a field of this call", field)
		if near := Nearest(err.JSONPointer.LastToken(), known); near != "" {
			detail += fmt.Sprintf("; did you mean %s?", near)
		} else if len(known) > 0 {
			detail += "; it knows " + strings.Join(known, ", ")
		}
		return NewProblem(CodeUnknownField, "%s", detail).With("field", field)
	}
	if field == "" {
		field = "body"
	}
	want := wantOf(err.GoType)
	switch got := kindName(err.JSONKind); {
	case got != "" && want != "" && got != want:
		return NewProblem(CodeInvalidField, "%s: give %s, not %s", field, article(want), article(got)).With("field", field)
	case got == "number" && errors.Is(err.Err, strconv.ErrSyntax):
		return NewProblem(CodeInvalidField, "%s: give a whole number", field).With("field", field)
	case got == "number" && errors.Is(err.Err, strconv.ErrRange):
		return NewProblem(CodeInvalidField, "%s: the number is too large", field).With("field", field)
	case err.Err != nil:
		return NewProblem(CodeInvalidField, "%s: %v", field, err.Err).With("field", field)
	default:
		return NewProblem(CodeInvalidField, "%s: this value cannot be", field).With("field", field)
	}
}

// fieldName turns a JSON pointer into how a person writes it: /actions/0/name is actions[0].name.
func fieldName(p jsontext.Pointer) string {
	var b strings.Builder
	for token := range p.Tokens() {
		if _, err := strconv.Atoi(token); err == nil && b.Len() > 0 {
			b.WriteString("[" + token + "]")
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(token)
	}
	return b.String()
}

// fieldsOf returns the JSON names of a struct's fields.
func fieldsOf(t reflect.Type) []string {
	if t == nil || t.Kind() != reflect.Struct {
		return nil
	}
	var names []string
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.IsExported() && name != "" && name != "-" {
			names = append(names, name)
		}
	}
	return names
}

func kindName(k jsontext.Kind) string {
	switch k {
	case '"':
		return "string"
	case '0':
		return "number"
	case 't', 'f':
		return "boolean"
	case '{':
		return "object"
	case '[':
		return "array"
	case 'n':
		return "null"
	default:
		return ""
	}
}

// wantOf returns the JSON kind that a Go type is read from, as far as its kind tells.
func wantOf(t reflect.Type) string {
	if t == nil {
		return ""
	}
	if reflect.PointerTo(t).Implements(textUnmarshaler) {
		return "string"
	}
	switch t.Kind() {
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "boolean"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Float32, reflect.Float64:
		return "number"
	case reflect.Struct, reflect.Map:
		return "object"
	case reflect.Slice, reflect.Array:
		return "array"
	default:
		return ""
	}
}

func article(kind string) string {
	switch kind {
	case "null":
		return kind
	case "object", "array":
		return "an " + kind
	default:
		return "a " + kind
	}
}

// WriteJSON answers with v. An error is the handler's mistake: nothing was sent yet, return it.
func WriteJSON(w http.ResponseWriter, status int, v any) error {
	return writeJSON(w, status, "application/json", v)
}

// jsonAppender is an answer that is written many thousand times a second: AppendJSON writes what json.Marshal would.
type jsonAppender interface{ AppendJSON([]byte) []byte }

// appenderOf returns v as one, nil if it is none. It goes by the type itself: a struct that embeds one has its method, and members that
// the method knows nothing of.
func appenderOf(v any) jsonAppender {
	switch v := v.(type) {
	case Payment:
		return v
	case Message:
		return v
	}
	return nil
}

func writeJSON(w http.ResponseWriter, status int, contentType string, v any) error {
	b := getBuffer()
	defer putBuffer(b)
	if fast := appenderOf(v); fast != nil {
		b.Write(fast.AppendJSON(b.AvailableBuffer()))
	} else if err := json.MarshalWrite(b, v, json.Deterministic(true)); err != nil {
		return fmt.Errorf("api: encode %T: %w", v, err)
	}
	b.WriteByte('\n')
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // the client is gone: nobody is left to be told
	return nil
}
