package consumers

import (
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

// parkedPrefix begins the headers of them all.
const parkedPrefix = "ce_parked"

// ParkedTopic is where records of a topic are set aside for a person.
func ParkedTopic(topic string) string { return topic + ".parked" }

// parkedRecord is the record as it came, with why it was set aside. What an earlier parking has said is replaced.
func parkedRecord(d Delivery, reason string, now time.Time) log.Record {
	r := log.Record{Partition: log.Partition{Topic: ParkedTopic(d.Record.Topic)}, Key: d.Record.Key, Value: d.Record.Value}
	for _, h := range d.Record.Headers {
		if !strings.HasPrefix(h.Key, parkedPrefix) {
			r.Headers = append(r.Headers, h)
		}
	}
	for _, a := range [...]struct{ name, value string }{
		{ParkedReason, reason},
		{ParkedAttempts, strconv.Itoa(d.Attempt)},
		{ParkedAt, now.UTC().Format(time.RFC3339)},
		{ParkedGroup, attributeText(d.Group)},
		{ParkedFrom, d.Record.Topic},
		{ParkedPartition, strconv.Itoa(int(d.Record.Index))},
		{ParkedOffset, strconv.FormatInt(int64(d.Record.Offset), 10)},
	} {
		r.Headers = append(r.Headers, log.Header{Key: "ce_" + a.name, Value: []byte(a.value)})
	}
	return r
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
