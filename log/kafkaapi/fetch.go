package kafkaapi

import (
	"context"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/semaphore"

	"github.com/remitlog/remit/log"
)

// fetched is an answer to a fetch, with the memory that it lies in.
type fetched struct {
	*kmsg.FetchResponse
	buffer *[]byte
	held   int64
	from   *semaphore.Weighted // what held was taken from; nil if nothing was
}

func (f *fetched) free() {
	if f.buffer != nil && cap(*f.buffer) <= answerBytesMax {
		fetchBuffers.Put(f.buffer)
	}
	f.buffer = nil
	f.giveBack(f.held)
}

func (f *fetched) giveBack(n int64) {
	if n > 0 {
		f.from.Release(n)
		f.held -= n
	}
}

// fetchBuffers are what records are read into.
var fetchBuffers = sync.Pool{New: func() any { return new([]byte) }}

// fetching is a fetch under way.
type fetching struct {
	s     *Server
	q     *kmsg.FetchRequest
	r     *fetched
	parts []fetchPart
	limit int  // of the answer
	bytes int  // read so far
	error bool // a partition is answered with an error: that is not held back
	full  bool // there is no memory for more
}

// fetchPart is one partition of a fetch.
type fetchPart struct {
	at   log.Partition
	r    *kmsg.FetchResponseTopicPartition
	next log.Offset
	left int // bytes that it may have
	done bool
}

// fetch waits until MinBytes are there, for MaxWait at most, and copies them as they are stored.
func (s *Server) fetch(ctx context.Context, c *conn, q *kmsg.FetchRequest) kmsg.Response {
	f := &fetching{s: s, q: q, r: &fetched{FetchResponse: kmsg.NewPtrFetchResponse()}, limit: FetchBytesMax}
	f.r.Version = q.Version
	if q.SessionID != 0 { // none is ever given
		f.r.ErrorCode = kerr.FetchSessionIDNotFound.Code
		return f.r
	}
	f.prepare()
	if !f.wait(ctx, c) {
		f.r.free()
		return nil
	}
	return f.r
}

// prepare makes the answer, and finds what cannot be read.
func (f *fetching) prepare() {
	n := 0
	for i := range f.q.Topics {
		t := &f.q.Topics[i]
		rt := kmsg.NewFetchResponseTopic()
		rt.Topic, rt.TopicID = t.Topic, t.TopicID
		rt.Partitions = make([]kmsg.FetchResponseTopicPartition, len(t.Partitions))
		n += len(t.Partitions)
		f.r.Topics = append(f.r.Topics, rt)
	}
	f.parts = make([]fetchPart, 0, n)
	for i := range f.q.Topics {
		t := &f.q.Topics[i]
		name, err := f.s.nameOf(t.Topic, t.TopicID, f.q.Version >= 13)
		if err == nil && log.Hidden(name) {
			err = hiddenError(name)
		}
		for j := range t.Partitions {
			f.parts = append(f.parts, f.part(name, err, &t.Partitions[j], &f.r.Topics[i].Partitions[j]))
		}
	}
}

func (f *fetching) part(topic string, err error, q *kmsg.FetchRequestTopicPartition, r *kmsg.FetchResponseTopicPartition) fetchPart {
	*r = kmsg.NewFetchResponseTopicPartition()
	r.Partition, r.HighWatermark, r.LastStableOffset, r.LogStartOffset = q.Partition, -1, -1, -1
	r.RecordBatches = []byte{}
	p := fetchPart{at: log.Partition{Topic: topic, Index: q.Partition}, r: r, next: log.Offset(q.FetchOffset), left: int(q.PartitionMaxBytes)}
	if err == nil {
		err = f.s.checkEpoch(q.CurrentLeaderEpoch)
	}
	if err != nil {
		f.refuse(&p, err)
	}
	return p
}

func (f *fetching) refuse(p *fetchPart, err error) {
	p.r.ErrorCode, _ = answer(err)
	p.r.HighWatermark, p.r.LastStableOffset, p.r.LogStartOffset = -1, -1, -1
	p.done, f.error = true, true
}

// wait reads until there is enough. False: nothing can be answered any more.
func (f *fetching) wait(ctx context.Context, c *conn) bool {
	if !f.read(ctx) {
		return false
	}
	most := min(time.Duration(f.q.MaxWaitMillis)*time.Millisecond, FetchWaitMax)
	if f.enough() || most <= 0 {
		return true
	}
	timer := time.NewTimer(most)
	defer timer.Stop()
	ctx, stop := c.untilLeft()
	defer stop()
	w := f.s.o.Log.Watch(f.partitions())
	defer w.Close()
	for {
		if !f.read(ctx) {
			return false
		}
		if f.enough() {
			return true
		}
		select {
		case <-w.C:
		case <-timer.C:
			return true
		case <-ctx.Done():
			return f.s.ctx.Err() != nil // if it is the server that stops, what there is is answered
		}
	}
}

func (f *fetching) enough() bool {
	return f.error || f.full || f.bytes >= max(1, int(f.q.MinBytes)) || f.bytes >= f.most() || len(f.parts) == 0
}

// most is how many bytes the answer may have.
func (f *fetching) most() int { return min(max(int(f.q.MaxBytes), 1), f.limit) }

func (f *fetching) partitions() []log.Partition {
	ps := make([]log.Partition, 0, len(f.parts))
	for i := range f.parts {
		if !f.parts[i].done {
			ps = append(ps, f.parts[i].at)
		}
	}
	return ps
}

// read reads what has come since it was last called. One batch is read however large it is: else nobody could ever read it.
func (f *fetching) read(ctx context.Context) bool {
	for i := range f.parts {
		if p := &f.parts[i]; !p.done && !f.readPart(ctx, p) {
			return false
		}
	}
	f.keep()
	return true
}

func (f *fetching) readPart(ctx context.Context, p *fetchPart) bool {
	first, end, err := f.s.o.Log.Bounds(ctx, p.at)
	if err == nil && (p.next < first || p.next > end) {
		err = &log.RangeError{Partition: p.at, From: p.next, First: first, End: end}
	}
	if err != nil {
		return f.stop(p, err)
	}
	p.r.HighWatermark, p.r.LastStableOffset, p.r.LogStartOffset = int64(end), int64(end), int64(first)
	if p.next == end || p.left <= 0 && f.bytes > 0 || f.bytes >= f.most() || f.full {
		return true
	}
	if !f.hold(ctx) {
		return f.full
	}
	// What goes on after bytes that were read before must lie beside them. All others share a buffer.
	dst := p.r.RecordBatches
	if len(dst) == 0 {
		dst = (*f.r.buffer)[len(*f.r.buffer):]
	}
	had := len(dst)
	dst, p.next, err = f.s.o.Log.ReadRaw(dst, p.at, p.next, min(p.left, f.most()-f.bytes), f.bytes == 0)
	n := len(dst) - had
	if had == 0 && n > 0 {
		*f.r.buffer, dst = dst, dst[:n:n]
	}
	if n > 0 {
		p.r.RecordBatches, p.left = dst, p.left-n
		f.bytes += n
	}
	return f.stop(p, err)
}

// stop answers a partition that cannot be read, or that ends with what was read of it. False: nothing can be answered any more.
func (f *fetching) stop(p *fetchPart, err error) bool {
	switch {
	case err == nil:
		return true
	case ends(err):
		return false
	case len(p.r.RecordBatches) > 0: // they are told when they come back for more
		p.done = true
	default:
		f.refuse(p, err)
	}
	return true
}

// hold takes the memory for the answer before a byte of it is read. A large answer is not waited for: clients that do not read theirs
// would keep all others waiting. A small one is, as long as nothing is held: two that hold and wait could wait for each other.
func (f *fetching) hold(ctx context.Context) bool {
	if f.r.from == nil && !f.begin(ctx) {
		return false
	}
	if more := int64(f.most()) - f.r.held; more > 0 {
		if !f.r.from.TryAcquire(more) {
			f.full = true // what there is is answered
			return false
		}
		f.r.held += more
	}
	return true
}

// begin takes the memory for an answer of which nothing is read yet.
func (f *fetching) begin(ctx context.Context) bool {
	f.r.from = f.s.fetches
	if n := int64(f.most()); f.r.from.TryAcquire(n) {
		f.r.held = n
	} else {
		f.r.from, f.limit = f.s.crumbs, FetchSmallBytes
		n = int64(f.most())
		if f.r.from.Acquire(ctx, n) != nil {
			return false
		}
		f.r.held = n
	}
	f.r.buffer = fetchBuffers.Get().(*[]byte)
	*f.r.buffer = (*f.r.buffer)[:0]
	return true
}

// keep gives back the memory that was not needed. One batch larger than the answer may be is there all the same, and is not counted.
func (f *fetching) keep() { f.r.giveBack(f.r.held - int64(f.bytes)) }
