package parked

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/remitlog/remit/consumers"
	"github.com/remitlog/remit/log"
)

// Limits.
const (
	// ScanMax is how many records one page looks at; then it ends, whatever it has found, and the next goes on.
	ScanMax = 10_000
	// PageBytesMax is how many bytes of records one page has, but one record at least.
	PageBytesMax = 8 << 20
	// ReplayMax is how many records one Replay sends again; when there are more, it says so.
	ReplayMax = 10_000
	// AgainMax is how many records of one topic that were sent again are remembered, and how many may wait for it. Past it ErrTooMany.
	AgainMax = 1 << 20
	// batchMax and batchBytesMax are how much one append sends again.
	batchMax, batchBytesMax = 1000, 4 << 20
)

var (
	// ErrNotParked: there is no such record. It may have been removed by retention.
	ErrNotParked = errors.New("parked: there is no such record")
	// ErrNotSendable: what stands there cannot be sent again. The error says why.
	ErrNotSendable = errors.New("parked: it cannot be sent again")
	// ErrNobody: nobody would take it. The error says who should, and what to do.
	ErrNobody = errors.New("parked: nobody would take it")
	// ErrTooMany: more than AgainMax. Ask for less, by group or by place; or trim the topic of what was sent again.
	ErrTooMany = errors.New("parked: too many records")
)

// Options say where records are parked, and who takes them when they are sent again.
type Options struct {
	Log log.Log
	// Takes says why a group would not take records that are sent again on a topic: an error that says what to do. Nil error: it would. The replay
	// topic is there when it is asked, but perhaps only just; it may wait until the group has noticed.
	Takes func(ctx context.Context, group, topic string) error
	// Committed returns the next offset that a group reads of a partition, and whether it has taken a record at or beyond it.
	Committed func(ctx context.Context, group string) (Taken, error)
}

// Taken reports whether a group is done with a record.
type Taken func(consumers.Place) bool

// Shelf knows what is parked.
type Shelf struct {
	opts Options

	mu     sync.Mutex // held alone
	topics map[string]*again
}

// New returns a Shelf. It reads when it is asked.
func New(o Options) *Shelf { return &Shelf{opts: o, topics: map[string]*again{}} }

// Record is one that is parked.
type Record struct {
	At   consumers.Place // on the parked topic
	Time time.Time
	// Parked says why; it is zero where somebody else has written to the parked topic.
	Parked consumers.Parked
	// Event is as it was before; nil when the record is no event.
	Event *log.Event
	// Record is as it stands there.
	Record log.Record
	// Again says that it was sent again, at last; nil if it was not.
	Again *Again
}

// Again says when a record was sent again, by whom and why.
type Again struct {
	consumers.Replayed
	// At is where it stands on the replay topic, Done whether its group has taken or parked it.
	Place consumers.Place
	Done  bool
}

// Sendable reports whether it can be sent again.
func (r *Record) Sendable() error {
	switch {
	case r.Parked.Group == "":
		return fmt.Errorf("%w: %s was not parked by a consumer, and nobody waits for it", ErrNotSendable, name(r.At))
	case consumers.ParkedTopic(r.Parked.From.Topic) != r.At.Topic:
		return fmt.Errorf("%w: %s was parked of topic %s; somebody has put it here", ErrNotSendable, name(r.At), r.Parked.From.Topic)
	case r.Event != nil && r.Event.Type == missedType:
		return fmt.Errorf("%w: %s tells of records that are gone", ErrNotSendable, name(r.At))
	default:
		return nil
	}
}

// missedType is that of push.Missed.
const missedType = "remit.subscription.missed.v1"

func name(p consumers.Place) string { return fmt.Sprintf("%s/%d/%d", p.Topic, p.Index, p.Offset) }

// Query is one page of what is parked of a topic, the newest first.
type Query struct {
	Topic string // of which it was parked, without .parked
	Group string // only what this group has parked; empty for all
	// Again is whether it was sent again; nil for both.
	Again *bool
	// From and To are times: From <= parked < To; zero is open.
	From, To time.Time
	Size     int
	Cursor   []byte // of the page before
}

// Page is one, with the cursor of the next; nil when there is none.
type Page struct {
	Records []Record
	Next    []byte
}

// List returns a page. A topic of which nothing is parked has none.
func (s *Shelf) List(ctx context.Context, q Query) (Page, error) {
	w, err := s.walk(ctx, q)
	if errors.Is(err, log.ErrUnknownTopic) {
		return Page{}, nil
	}
	if err != nil {
		return Page{}, err
	}
	a, err := s.again(ctx, q.Topic)
	if err != nil {
		return Page{}, err
	}
	page, taken, size := Page{}, s.taken(ctx), 0
	for looked := 0; ; looked++ {
		at, ok := w.newest()
		if !ok {
			return page, nil
		}
		if len(page.Records) == q.Size || looked == ScanMax || size > 0 && size+log.RecordLen(w.heads[at]) > PageBytesMax {
			page.Next = w.cursor()
			return page, nil
		}
		r := read(*w.heads[at])
		if err := w.back(ctx, at); err != nil {
			return Page{}, err
		}
		if !q.wants(&r, a) {
			continue
		}
		if err := s.tell(ctx, &r, a, taken); err != nil {
			return Page{}, err
		}
		page.Records, size = append(page.Records, r), size+log.RecordLen(&r.Record)
	}
}

// wants reports whether a query is about a record.
func (q *Query) wants(r *Record, a *again) bool {
	switch {
	case q.Group != "" && r.Parked.Group != q.Group,
		!q.From.IsZero() && r.Time.Before(q.From),
		!q.To.IsZero() && !r.Time.Before(q.To):
		return false
	default:
		return q.Again == nil || *q.Again == a.has(r.At)
	}
}

// Get returns the record at a place; ErrNotParked.
func (s *Shelf) Get(ctx context.Context, at consumers.Place) (Record, error) {
	r, err := s.get(ctx, at)
	if err != nil {
		return r, err
	}
	a, err := s.again(ctx, strings.TrimSuffix(at.Topic, suffix))
	if err != nil {
		return r, err
	}
	return r, s.tell(ctx, &r, a, s.taken(ctx))
}

var suffix = consumers.ParkedTopic("")

func (s *Shelf) get(ctx context.Context, at consumers.Place) (Record, error) {
	first, end, err := s.opts.Log.Bounds(ctx, at.Partition)
	switch {
	case errors.Is(err, log.ErrUnknownTopic), errors.Is(err, log.ErrUnknownPartition), err == nil && (at.Offset < first || at.Offset >= end):
		return Record{}, fmt.Errorf("%w: %s", ErrNotParked, name(at))
	case err != nil:
		return Record{}, err
	}
	rs, err := s.opts.Log.Read(ctx, at.Partition, at.Offset, 1)
	if err != nil {
		return Record{}, err
	}
	return read(rs[0]), nil
}

// read reads a record of a parked topic.
func read(r log.Record) Record {
	out := Record{At: consumers.Place{Partition: r.Partition, Offset: r.Offset}, Time: r.Time, Record: r}
	if p, err := consumers.ParseParked(r); err == nil {
		out.Parked = p
	}
	if e, err := consumers.Original(r); err == nil {
		out.Event = &e
	}
	return out
}

// tell adds whether a record was sent again.
func (s *Shelf) tell(ctx context.Context, r *Record, a *again, taken func(string) (Taken, error)) error {
	at, ok := a.at(r.At)
	if !ok {
		return nil
	}
	rs, err := s.opts.Log.Read(ctx, at.Partition, at.Offset, 1)
	if errors.Is(err, log.ErrOffsetOutOfRange) || errors.Is(err, log.ErrUnknownTopic) {
		r.Again = &Again{Place: at, Done: true} // retention has taken it
		return nil
	}
	if err != nil {
		return err
	}
	said, err := consumers.ParseReplayed(rs[0])
	if err != nil {
		return err
	}
	is, err := taken(r.Parked.Group)
	if err != nil {
		return err
	}
	r.Again = &Again{Replayed: said, Place: at, Done: is(at)}
	return nil
}

// taken asks for what a group has taken once.
func (s *Shelf) taken(ctx context.Context) func(group string) (Taken, error) {
	known := map[string]Taken{}
	return func(group string) (Taken, error) {
		if t := known[group]; t != nil {
			return t, nil
		}
		t, err := s.opts.Committed(ctx, group)
		known[group] = t
		return t, err
	}
}

// walk goes over the partitions of a parked topic, from the newest record to the oldest.
type walk struct {
	log   log.Log
	parts []span
	heads []*log.Record // the newest of each that was not passed; nil when there is none
}

// span is what is left of a partition: from first on, and below end.
type span struct {
	log.Partition
	first, end log.Offset
}

func (s *Shelf) walk(ctx context.Context, q Query) (*walk, error) {
	topic := consumers.ParkedTopic(q.Topic)
	c, err := s.opts.Log.Topic(ctx, topic)
	if err != nil {
		return nil, err
	}
	w := &walk{log: s.opts.Log, heads: make([]*log.Record, c.Partitions)}
	for i := range c.Partitions {
		p := span{Partition: log.Partition{Topic: topic, Index: int32(i)}}
		if p.first, p.end, err = w.log.Bounds(ctx, p.Partition); err != nil {
			return nil, err
		}
		w.parts = append(w.parts, p)
	}
	if err := w.resume(q.Cursor); err != nil {
		return nil, err
	}
	for i := range w.parts {
		if err := w.load(ctx, i); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// ErrCursor: it is not that of a page of this list.
var ErrCursor = errors.New("parked: not a cursor of this list")

// resume goes on where a page has ended. Partitions that came since are new from their ends on.
func (w *walk) resume(cursor []byte) error {
	for i := 0; len(cursor) > 0; i++ {
		end, n := binary.Uvarint(cursor)
		if n <= 0 || i == len(w.parts) || log.Offset(end) > w.parts[i].end {
			return ErrCursor
		}
		w.parts[i].end = log.Offset(end)
		cursor = cursor[n:]
	}
	return nil
}

func (w *walk) cursor() (b []byte) {
	for i := range w.parts {
		b = binary.AppendUvarint(b, uint64(w.parts[i].end))
	}
	return b
}

// load reads the newest record that is left of a partition.
func (w *walk) load(ctx context.Context, i int) error {
	w.heads[i] = nil
	p := &w.parts[i]
	if p.end <= p.first {
		return nil
	}
	rs, err := w.log.Read(ctx, p.Partition, p.end-1, 1)
	if errors.Is(err, log.ErrOffsetOutOfRange) {
		p.first = p.end // retention has come so far
		return nil
	}
	if err != nil {
		return err
	}
	w.heads[i] = &rs[0]
	return nil
}

// newest is the partition with the newest record; not ok when none is left.
func (w *walk) newest() (at int, ok bool) {
	for i, r := range w.heads {
		if r != nil && (!ok || r.Time.After(w.heads[at].Time)) {
			at, ok = i, true
		}
	}
	return at, ok
}

// back passes the newest record of a partition.
func (w *walk) back(ctx context.Context, i int) error {
	w.parts[i].end--
	return w.load(ctx, i)
}
