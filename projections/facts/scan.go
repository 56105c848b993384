package facts

import (
	"bytes"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
)

// The facts of a payment and of a message are read by a scanner that knows their fields: they are most of what a view decodes, and reflection was
// most of that. It takes JSON as remit writes it: objects whose strings have no escapes and whose numbers are integers. Whatever else
// it meets, it gives up, and package json reads the whole.

// scanner reads one JSON text. Once failed is set, what it returns means nothing.
type scanner struct {
	b      []byte
	i      int
	failed bool
}

// read returns the fact type T, read by scan where it can be.
func read[T fold.Fact](scan func(*scanner, *T)) fold.FactType {
	return fold.FactRead(func(b []byte) (v T, err error) {
		s := scanner{b: b}
		if scan(&s, &v); s.end() {
			return v, nil
		}
		var whole T
		err = json.Unmarshal(b, &whole)
		return whole, err
	})
}

// end reports whether all has been read, and well.
func (s *scanner) end() bool {
	s.space()
	return !s.failed && s.i == len(s.b)
}

func (s *scanner) space() {
	for s.i < len(s.b) && (s.b[s.i] == ' ' || s.b[s.i] == '\n' || s.b[s.i] == '\t' || s.b[s.i] == '\r') {
		s.i++
	}
}

// take reads one byte, if it is c.
func (s *scanner) take(c byte) bool {
	s.space()
	if s.i < len(s.b) && s.b[s.i] == c {
		s.i++
		return true
	}
	return false
}

func (s *scanner) fail() { s.failed, s.i = true, len(s.b) }

func (s *scanner) must(c byte) {
	if !s.take(c) {
		s.fail()
	}
}

// more reports whether another member of an object or array follows; n counts them.
func (s *scanner) more(n *int, end byte) bool {
	if s.failed || s.take(end) {
		return false
	}
	if *n > 0 {
		s.must(',')
	}
	*n++
	return !s.failed
}

// name reads the name of an object's next member; false at the end of the object.
func (s *scanner) name(n *int) ([]byte, bool) {
	if !s.more(n, '}') {
		return nil, false
	}
	name := s.text()
	s.must(':')
	return name, !s.failed
}

// text reads a string without escapes.
func (s *scanner) text() []byte {
	s.must('"')
	from := s.i
	for ; s.i < len(s.b); s.i++ {
		switch c := s.b[s.i]; {
		case c == '"':
			s.i++
			return s.b[from : s.i-1]
		case c == '\\', c < 0x20, c >= 0x80:
			s.fail()
			return nil
		}
	}
	s.fail()
	return nil
}

// words are the strings that come again and again.
var words = func() map[string]string {
	m := map[string]string{}
	for _, w := range []string{
		"", KindPayment, KindRefund, Debit, Credit, Confirm, Cancel, "accounts", "remit", "@transit", "@outside", "USD", "EUR", "GBP", "JPY", "CNY",
	} {
		m[w] = w
	}
	return m
}()

func (s *scanner) string() string {
	b := s.text()
	if w, ok := words[string(b)]; ok {
		return w
	}
	return string(b)
}

// account is string for one that was perhaps read already.
func (s *scanner) account(known string) string {
	if b := s.text(); string(b) != known {
		s.i -= len(b) + 1
		s.i--
		return s.string()
	}
	return known
}

func (s *scanner) int() int64 {
	s.space()
	from, negative := s.i, false
	if s.i < len(s.b) && s.b[s.i] == '-' {
		negative = true
		s.i++
		from++
	}
	var v int64
	for s.i < len(s.b) && '0' <= s.b[s.i] && s.b[s.i] <= '9' {
		v = 10*v + int64(s.b[s.i]-'0')
		s.i++
	}
	digits := s.i - from
	if digits == 0 || digits > 18 || digits > 1 && s.b[from] == '0' || s.i < len(s.b) && (s.b[s.i] == '.' || s.b[s.i]|0x20 == 'e') {
		s.fail()
	}
	if negative {
		return -v
	}
	return v
}

func (s *scanner) bool() bool {
	s.space()
	switch rest := s.b[s.i:]; {
	case len(rest) >= 4 && string(rest[:4]) == "true":
		s.i += 4
		return true
	case len(rest) >= 5 && string(rest[:5]) == "false":
		s.i += 5
		return false
	}
	s.fail()
	return false
}

func (s *scanner) id() log.ID {
	var id log.ID
	if id.UnmarshalText(s.text()) != nil {
		s.fail()
	}
	return id
}

// skip passes over a string, which is all that is not read of these facts.
func (s *scanner) skip() { s.text() }

// decoder is one with what it reads from.
type decoder struct {
	jsontext.Decoder
	src bytes.Buffer
}

var decoders = sync.Pool{New: func() any { return new(decoder) }}

func (d *decoder) read(src []byte) {
	d.src = *bytes.NewBuffer(src)
	d.Reset(&d.src)
}

// value reads a value of any kind, checked as package json would. It is a part of what is scanned.
func (s *scanner) value() []byte {
	s.space()
	dec := decoders.Get().(*decoder)
	defer decoders.Put(dec)
	dec.read(s.b[s.i:])
	if _, err := dec.ReadValue(); err != nil {
		s.fail()
		return nil
	}
	from := s.i
	s.i += int(dec.InputOffset())
	dec.read(nil) // let go of it
	return s.b[from:s.i:s.i]
}

// pass passes over a value of any kind in JSON that is known to be valid.
func (s *scanner) pass() {
	s.space()
	for depth, quoted := 0, false; s.i < len(s.b); s.i++ {
		switch c := s.b[s.i]; {
		case quoted && c == '\\':
			s.i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{', c == '[':
			depth++
		case c == '}', c == ']':
			if depth == 0 {
				return // of what is around it
			}
			depth--
		case c == ',' && depth == 0:
			return
		}
	}
}

func (s *scanner) named(f *Named) {
	n := 0
	s.must('{')
	for name, ok := s.name(&n); ok; name, ok = s.name(&n) {
		switch string(name) {
		case "kind":
			f.Kind = s.string()
		case "name":
			f.Name = s.string()
		case "id":
			f.ID = s.id()
		default:
			s.skip()
		}
	}
}

func (s *scanner) begun(f *Begun) {
	n := 0
	s.must('{')
	for name, ok := s.name(&n); ok; name, ok = s.name(&n) {
		switch string(name) {
		case "id":
			f.ID = s.id()
		case "kind":
			f.Kind = s.string()
		case "name":
			f.Name = s.string()
		case "key":
			f.Key = s.string()
		case "parent":
			f.Parent = s.id()
		case "reference":
			f.Reference = s.string()
		case "manual":
			f.Manual = s.bool()
		case "deadline":
			f.Deadline = s.int()
		case "refused":
			f.Refused = s.string()
		case "actions":
			f.Actions = s.actions(f.Key)
		default:
			s.skip()
		}
	}
}

func (s *scanner) actions(key string) []Action {
	all, n := make([]Action, 0, 2), 0
	s.must('[')
	for s.more(&n, ']') {
		var a Action
		m := 0
		s.must('{')
		for name, ok := s.name(&m); ok; name, ok = s.name(&m) {
			switch string(name) {
			case "name":
				a.Name = s.string()
			case "participant":
				a.Participant = s.string()
			case "order":
				s.order(&a.Order, key)
			default:
				s.skip()
			}
		}
		all = append(all, a)
	}
	return all
}

func (s *scanner) order(o *Order, key string) {
	n := 0
	s.must('{')
	for name, ok := s.name(&n); ok; name, ok = s.name(&n) {
		switch string(name) {
		case "side":
			o.Side = s.string()
		case "account":
			o.Account = s.account(key)
		case "currency":
			o.Currency = s.string()
		case "amount":
			o.Amount = s.int()
		default:
			s.skip()
		}
	}
}

func (s *scanner) postings(known string) []Posting {
	all, n := make([]Posting, 0, 2), 0
	s.must('[')
	for s.more(&n, ']') {
		var p Posting
		m := 0
		s.must('{')
		for name, ok := s.name(&m); ok; name, ok = s.name(&m) {
			switch string(name) {
			case "account":
				p.Account = s.account(known)
			case "currency":
				p.Currency = s.string()
			case "amount":
				p.Amount = s.int()
			default:
				s.skip()
			}
		}
		all = append(all, p)
	}
	return all
}

func (s *scanner) decided(f *Decided) {
	n := 0
	s.must('{')
	for name, ok := s.name(&n); ok; name, ok = s.name(&n) {
		switch string(name) {
		case "id":
			f.ID = s.id()
		case "kind":
			f.Kind = s.string()
		case "parent":
			f.Parent = s.id()
		case "outcome":
			f.Outcome = s.string()
		case "by":
			f.By = s.string()
		case "reason":
			f.Reason = s.string()
		case "amount":
			f.Amount = s.int()
		case "postings":
			f.Postings = s.postings("")
		case "partition":
			p := int32(s.small())
			f.Partition = &p
		default:
			s.skip()
		}
	}
}

// small reads a number that fits into 31 bits.
func (s *scanner) small() int64 {
	v := s.int()
	if v < 0 || v > 1<<31-1 {
		s.fail()
	}
	return v
}

func (s *scanner) ended(f *Ended) {
	n := 0
	s.must('{')
	for name, ok := s.name(&n); ok; name, ok = s.name(&n) {
		if string(name) == "id" {
			f.ID = s.id()
		} else {
			s.skip()
		}
	}
}

func (s *scanner) done(f *Done) {
	n := 0
	s.must('{')
	for name, ok := s.name(&n); ok; name, ok = s.name(&n) {
		switch string(name) {
		case "activity":
			f.Activity = s.id()
		case "action":
			f.Action = s.string()
		case "account":
			f.Account = s.string()
		case "currency":
			f.Currency = s.string()
		case "amount":
			f.Amount = s.int()
		case "context":
			s.context(&f.Context)
		case "postings":
			f.Postings = s.postings(f.Account)
		default:
			s.skip()
		}
	}
}

func (s *scanner) context(c *Context) {
	n := 0
	s.must('{')
	for name, ok := s.name(&n); ok; name, ok = s.name(&n) {
		switch string(name) {
		case "kind":
			c.Kind = s.string()
		case "name":
			c.Name = s.string()
		case "of":
			c.Of = s.string()
		case "from":
			c.From = s.string()
		case "reference":
			c.Reference = s.string()
		case "at":
			c.At = s.int()
		default:
			s.skip()
		}
	}
}

func (s *scanner) credited(f *Credited) { s.done(&f.Done) }

func (s *scanner) placedAll(f *PlacedAll) {
	n := 0
	s.must('{')
	for name, ok := s.name(&n); ok; name, ok = s.name(&n) {
		if string(name) != "places" {
			s.skip()
			continue
		}
		m := 0
		s.must('[')
		f.Places = make([]Place, 0, 16)
		for s.more(&m, ']') {
			f.Places = append(f.Places, s.place())
		}
	}
}

func (s *scanner) place() (p Place) {
	n := 0
	s.must('{')
	for name, ok := s.name(&n); ok; name, ok = s.name(&n) {
		switch string(name) {
		case "id":
			p.ID = s.id()
		case "partition":
			p.Partition = int32(s.small())
		case "offset":
			p.Offset = log.Offset(s.int())
		default:
			s.skip()
		}
	}
	return p
}

// prepared leaves the event where it is, in what is scanned.
func (s *scanner) prepared(f *Prepared) {
	n := 0
	s.must('{')
	for name, ok := s.name(&n); ok; name, ok = s.name(&n) {
		switch string(name) {
		case "id":
			f.ID = s.id()
		case "name":
			f.Name = s.string()
		case "topic":
			f.Topic = s.string()
		case "producer":
			f.Producer = s.string()
		case "key":
			f.Key = s.string()
		case "event":
			f.Event = s.value()
		case "deliverAt":
			f.DeliverAt = s.int()
		case "deliverAfter":
			f.DeliverAfter = s.int()
		default:
			s.value()
		}
	}
}

func (s *scanner) committed(f *Committed) {
	n := 0
	s.must('{')
	for name, ok := s.name(&n); ok; name, ok = s.name(&n) {
		switch string(name) {
		case "id":
			f.ID = s.id()
		case "by":
			f.By = s.string()
		case "reason":
			f.Reason = s.string()
		case "partition":
			p := int32(s.small())
			f.Partition = &p
		default:
			s.value()
		}
	}
}

// Head is what a view keeps of a message's event; the rest is read from the log.
type Head struct {
	ID      string `json:"id"`
	Source  string `json:"source"`
	Subject string `json:"subject"`
}

// Head reads it.
func (f *Prepared) Head() (h Head, err error) {
	s := scanner{b: f.Event}
	if s.head(&h); s.end() {
		return h, nil
	}
	h = Head{}
	err = json.Unmarshal(f.Event, &h)
	return h, err
}

// head reads from an event that is valid JSON.
func (s *scanner) head(h *Head) {
	n := 0
	s.must('{')
	for name, ok := s.name(&n); ok; name, ok = s.name(&n) {
		switch string(name) {
		case "id":
			h.ID = s.string()
		case "source":
			h.Source = s.string()
		case "subject":
			h.Subject = s.string()
		default:
			s.pass()
		}
	}
}
