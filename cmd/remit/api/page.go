package api

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/remitlog/remit/log"
)

// The bounds of ?pageSize=.
const (
	PageSizeDefault = 50
	PageSizeMax     = 1000
)

// Query reads the query parameters of a call. It keeps the first problem, as a scanner does:
// read everything, then ask [Query.Done], which also refuses what nobody read.
type Query struct {
	path    string
	values  url.Values
	read    map[string]bool
	problem *Problem
}

// ParseQuery begins to read.
func ParseQuery(r *http.Request) *Query {
	q := &Query{path: r.URL.Path, read: map[string]bool{}}
	if r.URL.RawQuery == "" {
		return q
	}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		q.problem = NewProblem(CodeInvalidParameter, "the query cannot be read: %v", err)
	}
	q.values = values
	return q
}

// String returns a parameter, "" if it is not given. Given empty, or twice, is 400.
func (q *Query) String(name string) string {
	q.read[name] = true
	values, ok := q.values[name]
	switch {
	case !ok:
		return ""
	case len(values) > 1:
		q.fail(name, "give it once, not %d times", len(values))
	case values[0] == "":
		q.fail(name, "it is empty; leave it out, or give it a value")
	}
	return values[0]
}

// OneOf is String for a parameter whose words are known.
func (q *Query) OneOf(name string, words ...string) string {
	s := q.String(name)
	if s != "" && !slices.Contains(words, s) {
		q.fail(name, "%q is not one of %s", s, strings.Join(words, ", "))
	}
	return s
}

// Duration reads a duration of at most longest.
func (q *Query) Duration(name string, ifAbsent, longest time.Duration) time.Duration {
	s := q.String(name)
	if s == "" {
		return ifAbsent
	}
	d, err := ParseDuration(s)
	if err != nil {
		q.fail(name, "%s", err.(*Problem).Detail)
	} else if d > longest {
		q.fail(name, "%s is above the longest, %s", s, Duration(longest))
	}
	return d
}

// Wait reads ?wait= of a write.
func (q *Query) Wait() time.Duration { return q.Duration("wait", WriteWaitDefault, WaitMax) }

// After reads ?after=&wait= of a read: the position to wait for, and how long. A nil position
// waits for nothing.
func (q *Query) After() (log.Position, time.Duration) {
	wait := q.Duration("wait", AfterWaitDefault, WaitMax)
	s := q.String("after")
	if s == "" {
		return nil, wait
	}
	p, err := log.ParsePosition(s)
	if err != nil {
		q.fail("after", "%q is not a position; pass on what a %s header said, unchanged", s, PositionHeader)
	}
	return p, wait
}

// Range reads ?from=&to=: from <= t < to. Zero times are open ends.
func (q *Query) Range() (from, to time.Time) {
	from, to = q.time("from"), q.time("to")
	if !from.IsZero() && !to.IsZero() && !from.Before(to) {
		q.fail("to", "it is not after from; the range is from <= t < to")
	}
	return from, to
}

func (q *Query) time(name string) time.Time {
	s := q.String(name)
	if s == "" {
		return time.Time{}
	}
	t, err := ParseTime(s)
	if err != nil {
		q.fail(name, "%s", err.(*Problem).Detail)
	}
	return t
}

// Page is one page of a list.
type Page struct {
	Size int
	// Cursor is what the list put into [Query.NextPageToken] for the page before; nil for the first page.
	Cursor []byte
}

// List is the answer of every list, newest first. An empty NextPageToken is left out: there is no more.
type List[T any] struct {
	Items         []T    `json:"items"`
	NextPageToken string `json:"nextPageToken,omitzero"`
}

// Page reads ?pageSize=&pageToken=.
func (q *Query) Page() Page {
	page := Page{Size: PageSizeDefault}
	if s := q.String("pageSize"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > PageSizeMax {
			q.fail("pageSize", "%q is not a number from 1 to %d", s, PageSizeMax)
		}
		page.Size = n
	}
	if s := q.String("pageToken"); s != "" {
		b, err := base64.RawURLEncoding.DecodeString(s)
		if err != nil || len(b) < 4 || binary.BigEndian.Uint32(b) != q.sum(b[4:]) {
			q.fail("pageToken", "it is not a token of this list; pass on nextPageToken unchanged, with the same parameters")
			return page
		}
		page.Cursor = b[4:]
	}
	return page
}

// NextPageToken makes the token of the page that begins at cursor. It holds for this path and these
// parameters alone, so that a token never turns up in the middle of another list.
func (q *Query) NextPageToken(cursor []byte) string {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(cursor)), q.sum(cursor))
	return base64.RawURLEncoding.EncodeToString(append(b, cursor...))
}

// sum is a checksum over the cursor, the path and the parameters that say what is listed.
func (q *Query) sum(cursor []byte) uint32 {
	h := crc32.NewIEEE()
	write := func(s string) { _, _ = h.Write(append([]byte(s), 0)) } // a hash cannot fail
	write(q.path)
	for _, name := range slices.Sorted(maps.Keys(q.values)) {
		switch name {
		case "pageSize", "pageToken", "after", "wait":
		default:
			write(name)
			write(q.values.Get(name))
		}
	}
	_, _ = h.Write(cursor)
	return h.Sum32()
}

// Fail notes that a parameter cannot be; the first one is what Done returns.
func (q *Query) Fail(name, format string, args ...any) { q.fail(name, format, args...) }

func (q *Query) fail(name, format string, args ...any) {
	if q.problem == nil {
		q.problem = NewProblem(CodeInvalidParameter, "%s: %s", name, fmt.Sprintf(format, args...)).With("parameter", name)
	}
}

// Done returns the first problem, 400, also when there is a parameter that nobody has read.
func (q *Query) Done() error {
	var unread []string
	for name := range q.values {
		if !q.read[name] {
			unread = append(unread, name)
		}
	}
	slices.Sort(unread)
	for _, name := range unread {
		known := slices.Sorted(maps.Keys(q.read))
		switch near := Nearest(name, known); {
		case near != "":
			q.fail(name, "this call has no such parameter; did you mean %s?", near)
		case len(known) > 0:
			q.fail(name, "this call has no such parameter; it knows %s", strings.Join(known, ", "))
		default:
			q.fail(name, "this call has no parameters")
		}
	}
	if q.problem != nil {
		return q.problem
	}
	return nil
}
