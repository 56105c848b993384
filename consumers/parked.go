package consumers

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/remitlog/remit/log"
)

// ReasonMax is how many bytes of a reason are kept on a parked record.
const ReasonMax = 1 << 10

// The extension attributes that a parked record has beside its own, as headers ce_…, also where the event is in structured mode.
const (
	ParkedReason    = "parkedreason"    // the last error
	ParkedAttempts  = "parkedattempts"  // how often it was tried
	ParkedAt        = "parkedat"        // when, RFC 3339
	ParkedGroup     = "parkedgroup"     // by whom
	ParkedFrom      = "parkedfrom"      // the topic that it was read from
	ParkedPartition = "parkedpartition" // and where in it
	ParkedOffset    = "parkedoffset"
)

// recordedTime is the attribute that an event without it takes from its record. A parked record is another: so it is written down.
const recordedTime = "recordedtime"

// headerPrefix begins the header of an attribute.
const headerPrefix = "ce_"

// ParkedTopic is where records of a topic are set aside for a person.
func ParkedTopic(topic string) string { return topic + ".parked" }

// Place is where a record stands.
type Place struct {
	log.Partition
	Offset log.Offset
}

// Parked is what a record on a ParkedTopic says of itself.
type Parked struct {
	Group    string
	Reason   string
	Attempts int
	At       time.Time
	// From is where the record was first read: on its topic, also when it has been parked, sent again, and parked again.
	From Place
}

// ParseParked reads it. An error says that no Consumer has parked the record.
func ParseParked(r log.Record) (Parked, error) {
	a := attributesOf(r)
	from, err := a.place(ParkedFrom, ParkedPartition, ParkedOffset)
	if err == nil && a[ParkedGroup] == "" {
		err = fmt.Errorf("%s is missing", ParkedGroup)
	}
	if err != nil {
		return Parked{}, fmt.Errorf("consumers: %s/%d/%d was not parked by a consumer: %w", r.Topic, r.Index, r.Offset, err)
	}
	p := Parked{Group: a[ParkedGroup], Reason: a[ParkedReason], From: from}
	p.Attempts, _ = strconv.Atoi(a[ParkedAttempts]) // both are for people
	p.At, _ = time.Parse(time.RFC3339, a[ParkedAt])
	return p, nil
}

// Original returns the event of a parked record, or of one that is sent again, as it was before.
func Original(r log.Record) (log.Event, error) {
	e, err := log.ParseRecord(r)
	for _, name := range setAside {
		delete(e.Extensions, name)
	}
	return e, err
}

// parkedRecord is the record as it came, with when it was recorded, and why it was set aside. What an earlier parking has said is replaced, but for where it was read first.
func parkedRecord(d Delivery, reason string, now time.Time) log.Record {
	from := Place{d.Record.Partition, d.Record.Offset}
	if d.Replay {
		if before, err := ParseParked(d.Record); err == nil {
			from = before.From
		}
	}
	r := log.Record{Partition: log.Partition{Topic: ParkedTopic(from.Topic)}, Key: d.Record.Key, Value: d.Record.Value}
	for _, h := range d.Record.Headers {
		if !named(h.Key, setAside[:]...) {
			r.Headers = append(r.Headers, h)
		}
	}
	if !slices.ContainsFunc(r.Headers, func(h log.Header) bool { return named(h.Key, recordedTime) }) {
		r.Headers = append(r.Headers, attributes([]attribute{{recordedTime, d.Record.Time.UTC().Format(time.RFC3339Nano)}})...)
	}
	r.Headers = append(r.Headers, attributes([]attribute{
		{ParkedReason, reason},
		{ParkedAttempts, strconv.Itoa(d.Attempt)},
		{ParkedAt, now.UTC().Format(time.RFC3339)},
		{ParkedGroup, attributeText(d.Group)},
		{ParkedFrom, from.Topic},
		{ParkedPartition, strconv.Itoa(int(from.Index))},
		{ParkedOffset, strconv.FormatInt(int64(from.Offset), 10)},
	})...)
	return r
}

// attribute is an extension attribute, and its text.
type attribute struct{ name, value string }

// attributes are headers of them.
func attributes(all []attribute) (headers []log.Header) {
	for _, a := range all {
		headers = append(headers, log.Header{Key: headerPrefix + a.name, Value: []byte(a.value)})
	}
	return headers
}

// named reports whether a header is that of one of some attributes.
func named(header string, names ...string) bool {
	name, ok := strings.CutPrefix(header, headerPrefix)
	return ok && slices.Contains(names, name)
}

// attributeTexts are what a record's headers say of parking and of sending again.
type attributeTexts map[string]string

func attributesOf(r log.Record) attributeTexts {
	a := attributeTexts{}
	for _, h := range r.Headers {
		if named(h.Key, setAside[:]...) {
			a[h.Key[len(headerPrefix):]] = string(h.Value)
		}
	}
	return a
}

// place reads one from three attributes.
func (a attributeTexts) place(topic, partition, offset string) (Place, error) {
	p := Place{Partition: log.Partition{Topic: a[topic]}}
	if p.Topic == "" {
		return p, fmt.Errorf("%s is missing", topic)
	}
	index, err := strconv.ParseInt(a[partition], 10, 32)
	at, err2 := strconv.ParseInt(a[offset], 10, 64)
	if err = cmp.Or(err, err2); err != nil {
		return p, err
	}
	if index < 0 || at < 0 {
		return p, fmt.Errorf("%s/%d/%d is no place", p.Topic, index, at)
	}
	p.Index, p.Offset = int32(index), log.Offset(at)
	return p, nil
}

// attributeText makes a CloudEvents String of any text: UTF-8 without control characters and noncharacters, and not longer than
// ReasonMax.
func attributeText(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsControl(r):
			return ' '
		case r&0xfffe == 0xfffe, r >= 0xfdd0 && r <= 0xfdef:
			return utf8.RuneError
		default:
			return r
		}
	}, strings.ToValidUTF8(s, string(utf8.RuneError)))
	if len(s) > ReasonMax {
		s = s[:ReasonMax]
		for !utf8.ValidString(s) {
			s = s[:len(s)-1]
		}
	}
	if s == "" {
		return "unknown" // an attribute that is empty is absent
	}
	return s
}
