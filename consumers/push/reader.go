package push

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/remitlog/remit/consumers"
	"github.com/remitlog/remit/log"
)

var (
	// errNoTopic: the topic is not there. It is waited for.
	errNoTopic = errors.New("push: there is no such topic")
	// errTopicGone: a topic was deleted while it was read. What comes under its name is another.
	errTopicGone = errors.New("push: the topic was deleted")
	errClosed    = errors.New("push: the reader is closed")
)

// reader is the one member of a subscription's group: a consumers.Reader over a log in this process. It owns all partitions from the start, so
// none is ever taken away.
type reader struct {
	log     log.Log
	offsets Offsets
	of      Subscription
	group   string
	topic   *tail // of the subscription's topic
	replays *tail // and of what is sent again
	// awaited says that a topic was not there when the subscription was: it is read from its first record on.
	awaited map[string]bool
	share   int64 // how many bytes of records may be held
	bytes   int   // that one read brings at most: less, since what is held is not only the record
	// missed is told of records that are gone, BEFORE what follows them is returned.
	missed func(ctx context.Context, p log.Partition, from, to log.Offset) error

	// committing is held for reading while something is committed. Who holds it for writing has seen the last commit.
	committing sync.RWMutex
	gone       bool // under committing: a topic was deleted

	// mu guards what follows, and is held alone.
	mu        sync.Mutex
	parts     []*part // in the order in which they are read next
	known     map[log.Partition]*part
	committed map[log.Partition]log.Offset
	woken     chan struct{} // closed when a partition was resumed, or all is over
	closed    bool
}

// part is a partition that is read.
type part struct {
	id       log.Partition
	next     log.Offset
	progress string // as it was when it was taken
	paused   bool
}

// Join implements consumers.Reader.
func (r *reader) Join(_ string, _ []string, _ func([]log.Partition, bool)) error { return r.begin() }

// begin takes all partitions. Where a new subscription begins is durable when it returns nil, and does not change any more.
func (r *reader) begin() error {
	ctx, cancel := context.WithTimeout(context.Background(), offsetsWait)
	defer cancel()
	if _, err := r.log.Topic(ctx, r.of.Topic); errors.Is(err, log.ErrUnknownTopic) {
		return errNoTopic
	}
	r.mu.Lock()
	r.parts, r.known, r.committed, r.woken = nil, map[log.Partition]*part{}, map[log.Partition]log.Offset{}, make(chan struct{})
	r.mu.Unlock()
	return errors.Join(r.take(ctx, r.topic), r.take(ctx, r.replays))
}

// offsetsWait is how long looking up and noting offsets may take.
const offsetsWait = 10 * time.Second

// take takes the partitions of a topic that are not taken.
func (r *reader) take(ctx context.Context, t *tail) error {
	c, err := r.log.Topic(ctx, t.topic)
	if errors.Is(err, log.ErrUnknownTopic) {
		r.awaited[t.topic] = true
		return nil
	}
	if err != nil {
		return err
	}
	parts, err := r.assign(ctx, c)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range parts {
		r.parts = append(r.parts, p)
		r.known[p.id], r.committed[p.id] = p, p.next
	}
	return nil
}

// assign says where the partitions begin that are not taken, and commits it for those of which nothing is committed.
func (r *reader) assign(ctx context.Context, c log.TopicConfig) (parts []*part, err error) {
	committed, err := r.offsets.Committed(ctx, r.group)
	if err != nil {
		return nil, err
	}
	begun := r.awaited[c.Name]
	for i := range c.Partitions {
		if _, ok := r.own(committed[log.Partition{Topic: c.Name, Index: int32(i)}]); ok {
			begun = true // a partition without an offset was added since
		}
	}
	starts := map[log.Partition]Committed{}
	for i := range c.Partitions {
		p := &part{id: log.Partition{Topic: c.Name, Index: int32(i)}}
		if r.isKnown(p.id) {
			continue
		}
		at, isThere := committed[p.id]
		progress, ok := r.own(at)
		if p.next, p.progress = at.Next, progress; !isThere || !ok {
			if p.next, err = r.start(ctx, p.id, begun); err != nil {
				return nil, err
			}
			p.progress = ""
			starts[p.id] = r.noted(p.next, "")
		}
		parts = append(parts, p)
	}
	if len(starts) > 0 {
		err = r.keep(ctx, starts)
	}
	return parts, err
}

func (r *reader) isKnown(p log.Partition) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.known[p] != nil
}

// start is where a partition begins of which nothing is committed.
func (r *reader) start(ctx context.Context, p log.Partition, begun bool) (log.Offset, error) {
	from := r.of.From
	if p.Topic == r.replays.topic {
		from = r.of.Registered // what was sent again to one of its name is not for this one
	}
	if begun || from.IsZero() {
		first, _, err := r.log.Bounds(ctx, p)
		return first, err
	}
	return r.log.OffsetAt(ctx, p, from)
}

// What is committed beside an offset begins with when the subscription was registered, in ms, and a semicolon. What one of the same name has left behind
// that was removed does not count.
func (r *reader) noted(next log.Offset, progress string) Committed {
	return Committed{next, strconv.FormatInt(r.of.Registered.UnixMilli(), 10) + ";" + progress}
}

// Progress returns the part of a remark beside an offset that package consumers has written.
func Progress(remark string) string {
	_, progress, _ := strings.Cut(remark, ";")
	return progress
}

func (r *reader) own(c Committed) (progress string, ok bool) {
	registered, progress, ok := strings.Cut(c.Remark, ";")
	return progress, ok && registered == strconv.FormatInt(r.of.Registered.UnixMilli(), 10)
}

// keep commits, unless a topic is gone: then it might be another's of the same name.
func (r *reader) keep(ctx context.Context, at map[log.Partition]Committed) error {
	r.committing.RLock()
	defer r.committing.RUnlock()
	if r.gone {
		return errTopicGone
	}
	return r.offsets.Commit(ctx, r.group, at)
}

// topicDeleted ends the reader. When it has returned, nothing more is committed.
func (r *reader) topicDeleted() {
	r.committing.Lock()
	r.gone = true
	r.committing.Unlock()
	r.wake()
}

func (r *reader) isGone() bool {
	r.committing.RLock()
	defer r.committing.RUnlock()
	return r.gone
}

// Poll implements consumers.Reader.
func (r *reader) Poll(ctx context.Context, most int) ([]log.Record, error) {
	for {
		ends, moved := r.topic.seen()
		again, replayed := r.replays.seen()
		if err := errors.Join(r.stillThere(ctx, r.topic, ends), r.stillThere(ctx, r.replays, again), r.grow(ctx, ends, again)); err != nil {
			return nil, err
		}
		p, woken, err := r.next(ends, again)
		switch {
		case err != nil:
			return nil, err
		case p != nil:
			if records, err := r.read(ctx, p, most); len(records) > 0 || err != nil {
				return records, err
			}
			continue
		}
		select {
		case <-moved:
		case <-replayed:
		case <-woken:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// stillThere is an error when a topic that was taken is gone. Its tail has no ends then; or not yet.
func (r *reader) stillThere(ctx context.Context, t *tail, ends []log.Offset) error {
	if len(ends) > 0 || !r.isKnown(log.Partition{Topic: t.topic}) {
		return nil
	}
	if _, err := r.log.Topic(ctx, t.topic); errors.Is(err, log.ErrUnknownTopic) {
		return errTopicGone
	}
	return nil
}

// grow takes partitions that came since.
func (r *reader) grow(ctx context.Context, ends, again []log.Offset) error {
	r.mu.Lock()
	known := len(r.known)
	r.mu.Unlock()
	if len(ends)+len(again) <= known {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), offsetsWait)
	defer cancel()
	return errors.Join(r.take(ctx, r.topic), r.take(ctx, r.replays))
}

// next returns a partition that has something to read, nil if none has; then woken is closed when that may have changed. Partitions take turns.
func (r *reader) next(ends, again []log.Offset) (p *part, woken <-chan struct{}, err error) {
	if r.isGone() {
		return nil, nil, errTopicGone
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, nil, errClosed
	}
	for i, p := range r.parts {
		ends := ends
		if p.id.Topic == r.replays.topic {
			ends = again
		}
		if !p.paused && int(p.id.Index) < len(ends) && p.next < ends[p.id.Index] {
			r.parts = append(append(r.parts[:i:i], r.parts[i+1:]...), p)
			return p, nil, nil
		}
	}
	return nil, r.woken, nil
}

// read reads a partition on. The records are copies: one of a failing key would else hold the batch that it came in.
func (r *reader) read(ctx context.Context, p *part, most int) ([]log.Record, error) {
	found, err := r.log.Read(ctx, p.id, p.next, r.bytes)
	var outside *log.RangeError
	switch {
	case errors.As(err, &outside) && outside.From < outside.First:
		if err := r.missed(ctx, p.id, p.next, outside.First); err != nil {
			return nil, err
		}
		p.next = outside.First
		return nil, nil
	case errors.Is(err, log.ErrUnknownTopic), errors.As(err, &outside):
		return nil, errTopicGone // it ends before what was read of it
	case err != nil:
		return nil, err
	}
	found = found[:min(len(found), most)]
	for i := range found {
		found[i] = cloned(found[i])
	}
	p.next = found[len(found)-1].Offset + 1
	return found, nil
}

// cloned copies a record into memory of its own.
func cloned(r log.Record) log.Record {
	buf := make([]byte, 0, log.RecordLen(&r))
	own := func(b []byte) []byte {
		if b == nil {
			return nil
		}
		at := len(buf)
		buf = append(buf, b...)
		return buf[at:len(buf):len(buf)]
	}
	r.Key, r.Value = own(r.Key), own(r.Value)
	headers := make([]log.Header, len(r.Headers))
	for i, h := range r.Headers {
		headers[i] = log.Header{Key: h.Key, Value: own(h.Value)}
	}
	r.Headers = headers
	return r
}

// Pause implements consumers.Reader.
func (r *reader) Pause(parts ...log.Partition) { r.pause(parts, true) }

// Resume implements consumers.Reader.
func (r *reader) Resume(parts ...log.Partition) { r.pause(parts, false) }

func (r *reader) pause(parts []log.Partition, paused bool) {
	r.mu.Lock()
	for _, id := range parts {
		r.known[id].paused = paused
	}
	r.mu.Unlock()
	r.wake()
}

// wake makes Poll look again.
func (r *reader) wake() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.woken != nil {
		close(r.woken)
		r.woken = make(chan struct{})
	}
}

// Commit implements consumers.Reader.
func (r *reader) Commit(ctx context.Context, next map[log.Partition]log.Offset, progress map[log.Partition]string) error {
	at := map[log.Partition]Committed{}
	for p, offset := range next {
		at[p] = r.noted(offset, progress[p])
	}
	if err := r.keep(ctx, at); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for p, offset := range next {
		r.committed[p] = offset
	}
	return nil
}

// Progress implements consumers.Reader.
func (r *reader) Progress(p log.Partition) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.known[p].progress
}

// Produce implements consumers.Reader: it parks. The parked topic has as many partitions as the topic.
func (r *reader) Produce(ctx context.Context, rec log.Record) error {
	return appendBeside(ctx, r.log, r.of.Topic, rec)
}

// Close implements consumers.Reader.
func (r *reader) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.wake()
}

// behind is how many records of the topic, and of what is sent again, are not committed.
func (r *reader) behind() (records, replays int64) {
	ends, _ := r.topic.seen()
	again, _ := r.replays.seen()
	r.mu.Lock()
	defer r.mu.Unlock()
	for p, at := range r.committed {
		switch {
		case p.Topic == r.replays.topic && int(p.Index) < len(again):
			replays += int64(again[p.Index] - at)
		case p.Topic == r.topic.topic && int(p.Index) < len(ends):
			records += int64(ends[p.Index] - at)
		}
	}
	return records, replays
}

// appendBeside appends a parked record to a topic that stands beside another. The topic is made if it is not there, with as many
// partitions.
func appendBeside(ctx context.Context, l log.Log, topic string, rec log.Record) error {
	n, err := ensureBeside(ctx, l, topic, rec.Topic)
	if err != nil {
		return err
	}
	place(&rec, n)
	_, err = l.Append(ctx, rec)
	return err
}

// ensureBeside makes a topic, if it is not there, with as many partitions as another, and returns how many it has.
func ensureBeside(ctx context.Context, l log.Log, topic, beside string) (partitions int, err error) {
	c, err := l.Topic(ctx, beside)
	if !errors.Is(err, log.ErrUnknownTopic) {
		return c.Partitions, err
	}
	like, err := l.Topic(ctx, topic)
	if err != nil {
		return 0, err
	}
	c = log.TopicConfig{Name: beside, Partitions: like.Partitions}
	if err := l.CreateTopic(ctx, c); err != nil && !errors.Is(err, log.ErrTopicExists) {
		return 0, fmt.Errorf("push: making %s: %w", beside, err)
	}
	c, err = l.Topic(ctx, beside) // somebody else may have made it
	return c.Partitions, err
}

// place puts a parked record into the partition with the number of that which it came from. By its key would not do: a foreign producer may have put
// records of one partitionkey, with other record keys, into one partition, and they have an order.
func place(rec *log.Record, partitions int) {
	if p, err := consumers.ParseParked(*rec); err == nil {
		rec.Index = p.From.Index % int32(partitions)
	}
}
