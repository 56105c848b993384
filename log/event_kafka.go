package log

import (
	"strings"
	"time"
)

// headerPrefix stands before the name of an attribute in a record header; the media type of
// the data has a header of its own.
const (
	headerPrefix      = "ce_"
	contentTypeHeader = "content-type"
)

// recordTimeMax is the last instant that both RFC 3339 and a record's milliseconds can say.
var recordTimeMax = time.Date(9999, 12, 31, 23, 59, 59, 999e6, time.UTC)

// Record returns e as a record of p, in the binary content mode of the CloudEvents Kafka
// protocol binding:
//
//	headers  ce_specversion ce_id ce_source ce_type ce_subject ce_time ce_dataschema
//	         ce_partitionkey ce_correlationid ce_causationid ce_traceparent ce_recordedtime
//	         ce_<other extensions, by name> content-type        (those that are there, in this order)
//	key      e.Key, nil if empty
//	value    e.Data, as it is (not copied)
//	time     e.RecordedTime, else e.Time, in whole milliseconds; zero before 1970
//
// e must have passed [Event.Validate]. Header values and key share one buffer.
//
// BEWARE: an event without data is, as the specification has it, a record without value, and that is a
// tombstone on a compacted topic: compaction drops it, and what its key had before. Give such an
// event data (`{}`) where a topic may be compacted. Data that is empty and not nil is an empty value,
// and no tombstone.
func (e *Event) Record(p Partition) Record {
	var few [8]string
	names := e.names(few[:0])
	w := recordWriter{buf: make([]byte, 0, e.recordLen(names)), headers: make([]Header, 0, e.count()+len(names))}
	return e.write(&w, names, p)
}

// recordLen returns about how many bytes the values of the headers take.
func (e *Event) recordLen(names []string) int {
	return len(specVersion) + len(e.ID) + len(e.Source) + len(e.Type) + len(e.Subject) + len(e.DataSchema) +
		len(e.Key) + len(e.Correlation) + len(e.Causation) + len(e.TraceParent) + len(e.DataContentType) +
		2*len(time.RFC3339Nano) + 24*len(names)
}

func (e *Event) write(w *recordWriter, names []string, p Partition) Record {
	w.text("ce_specversion", specVersion)
	w.text("ce_id", e.ID)
	w.text("ce_source", e.Source)
	w.text("ce_type", e.Type)
	w.text("ce_subject", e.Subject)
	w.time("ce_time", e.Time)
	w.text("ce_dataschema", e.DataSchema)
	key := w.text("ce_partitionkey", e.Key)
	w.text("ce_correlationid", e.Correlation)
	w.text("ce_causationid", e.Causation)
	w.text("ce_traceparent", e.TraceParent)
	w.time("ce_recordedtime", e.RecordedTime)
	for _, name := range names {
		w.always(headerPrefix+name, canonical(name, e.Extensions[name]))
	}
	w.text(contentTypeHeader, e.DataContentType)
	return Record{Partition: p, Time: e.recordTime(), Key: key, Value: e.Data, Headers: w.headers}
}

// count returns how many headers the fields take.
func (e *Event) count() int {
	n := 1
	for _, there := range [...]bool{
		e.ID != "", e.Source != "", e.Type != "", e.Subject != "", !e.Time.IsZero(), e.DataSchema != "", e.Key != "",
		e.Correlation != "", e.Causation != "", e.TraceParent != "", !e.RecordedTime.IsZero(), e.DataContentType != "",
	} {
		if there {
			n++
		}
	}
	return n
}

func (e *Event) recordTime() time.Time {
	t := e.RecordedTime
	if t.IsZero() {
		t = e.Time
	}
	if ms := t.UnixMilli(); ms >= 0 {
		return time.UnixMilli(ms).UTC()
	}
	return time.Time{}
}

// recordWriter collects headers whose values are slices of one buffer. Should the buffer have been
// reckoned too small, it moves, and the values before keep the old one.
type recordWriter struct {
	buf     []byte
	headers []Header
}

// text adds a header, unless value is empty, and returns its value.
func (w *recordWriter) text(key, value string) []byte {
	if value == "" {
		return nil
	}
	return w.always(key, value)
}

func (w *recordWriter) always(key, value string) []byte {
	start := len(w.buf)
	w.buf = append(w.buf, value...)
	return w.add(key, start)
}

func (w *recordWriter) time(key string, t time.Time) {
	if t.IsZero() {
		return
	}
	start := len(w.buf)
	w.buf = appendTime(w.buf, t)
	w.add(key, start)
}

func (w *recordWriter) add(key string, start int) []byte {
	value := w.buf[start:len(w.buf):len(w.buf)]
	w.headers = append(w.headers, Header{Key: key, Value: value})
	return value
}

// ParseRecord reads an event from a record, in binary or in structured (JSON) content mode of the
// CloudEvents Kafka protocol binding. Batches, which that binding does not have, and other
// formats are ErrEventFormat; all else that is no event is ErrNotEvent, both as *[EventError].
//
// In binary mode every extension without a field is a string, its canonical form: the headers
// carry no types. Key is the partitionkey attribute, else the record's key. RecordedTime is the
// attribute, else the record's time. Headers that are not the specification's are passed over.
//
// Data is r.Value, not a copy. The strings share one allocation: strings.Clone what is kept for long.
func ParseRecord(r Record) (Event, error) {
	size, contentType := 0, -1
	for i := range r.Headers {
		h := &r.Headers[i]
		size += len(h.Value)
		if len(h.Key) == len(contentTypeHeader) && strings.EqualFold(h.Key, contentTypeHeader) {
			if contentType >= 0 {
				return Event{}, bad("datacontenttype", "the header content-type is there twice")
			}
			contentType = i
		}
	}
	var e Event
	var err error
	if contentType >= 0 && isCloudEvents(string(r.Headers[contentType].Value)) {
		if err := structuredOnly(string(r.Headers[contentType].Value)); err != nil {
			return Event{}, err
		}
		e, err = ParseStructured(r.Value)
	} else {
		e, err = parseBinary(r, size, contentType)
	}
	if err != nil {
		return Event{}, err
	}
	if e.Key == "" && len(r.Key) > 0 {
		e.Key = string(r.Key)
		if err := checkText("partitionkey", e.Key); err != nil {
			return Event{}, bad("partitionkey", "there is no header ce_partitionkey, and the record's key %q is not fit to be one: UTF-8 without control characters", r.Key)
		}
	}
	if e.RecordedTime.IsZero() && !r.Time.Before(time.Unix(0, 0)) && !r.Time.After(recordTimeMax) {
		e.RecordedTime = r.Time.UTC()
	}
	return e, nil
}

// parseBinary reads headers whose values take size bytes together, the content type being the one at that index.
func parseBinary(r Record, size, contentType int) (Event, error) {
	var in intake
	var text strings.Builder // never grows: so all strings are parts of one
	text.Grow(size)
	for i := range r.Headers {
		h := &r.Headers[i]
		a, name := attrDataContentType, "datacontenttype"
		if i != contentType {
			if !strings.HasPrefix(h.Key, headerPrefix) {
				continue
			}
			name = h.Key[len(headerPrefix):]
			if a = attributeOf(name); a == attrDataContentType {
				return Event{}, bad(name, "in binary mode it is the header content-type")
			}
		}
		start := text.Len()
		text.Write(h.Value)
		if err := in.set(a, name, text.String()[start:]); err != nil {
			return Event{}, err
		}
	}
	in.Data = r.Value
	return in.done()
}
