package kafkaapi

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/remitlog/remit/log/kafkaapi/groups"
)

// conn is one connection. One goroutine reads it and answers one request after the other, as Kafka does. Produces alone are not
// waited for: they take their place in line in the order in which they came, and answer in that order when the disk has them.
//
//	read ─┬─ produce: begin (in line) ──▶ read on …
//	      │                     └── finish ── previous answered ── write
//	      └─ others: previous answered ── answer ── write ──▶ read on
type conn struct {
	s      *Server
	nc     net.Conn
	in     *bufio.Reader
	ctx    context.Context
	cancel context.CancelFunc
	last   chan struct{} // closed when the request before is answered
	slots  chan struct{} // of produces in flight
	peeked chan struct{} // closed when the next request begins, or the client has left; nil if nobody looks
}

// readerBytes is the buffer of a connection. Larger requests pass it by.
const readerBytes = 4 << 10

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{s: s, nc: nc, in: bufio.NewReaderSize(nc, readerBytes), last: make(chan struct{}), slots: make(chan struct{}, s.o.InFlightMax)}
	c.ctx, c.cancel = context.WithCancel(s.ctx)
	close(c.last)
	return c
}

// request is one request, read.
type request struct {
	key, version int16
	correlation  int32
	client       string
	body         []byte
	frame        *[]byte // what body lies in, if it is to be used again
	bytes        int64
	began        time.Time
}

// errMalformed is a request that is none.
var errMalformed = errors.New("malformed request")

func (c *conn) serve() {
	defer c.nc.Close()
	defer c.cancel()
	err := c.loop()
	<-c.last
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || c.s.ctx.Err() != nil {
		return
	}
	if f := c.s.o.Listener.Closed; f != nil {
		f(err)
	}
	c.s.o.Logger.Warn("kafka: connection closed", "client", c.nc.RemoteAddr().String(), "error", err)
}

// drain lets the connection end after the request it is at.
func (c *conn) drain() { _ = c.nc.SetReadDeadline(time.Unix(1, 0)) }

func (c *conn) loop() (err error) {
	defer func() {
		if r := recover(); r != nil { // as net/http does: a fault in answering one client must not end all others
			err = fmt.Errorf("kafkaapi: panic: %v\n%s", r, debug.Stack())
		}
	}()
	for {
		r, err := c.read()
		if err != nil {
			return err
		}
		if err := c.answer(r); err != nil {
			return err
		}
	}
}

// read reads one request. io.EOF: the client left between two, or has been idle for long.
func (c *conn) read() (*request, error) {
	if c.s.ctx.Err() != nil {
		return nil, io.EOF
	}
	_ = c.nc.SetReadDeadline(time.Now().Add(IdleMax))
	if c.s.ctx.Err() != nil {
		return nil, io.EOF // Close has set a deadline that was just set anew
	}
	if c.peeked != nil {
		<-c.peeked
		c.peeked = nil
	}
	head, err := c.in.Peek(6)
	if err != nil {
		return nil, ending(err)
	}
	n := int64(int32(binary.BigEndian.Uint32(head)))
	if n < requestLenMin || n > RequestBytesMax {
		return nil, fmt.Errorf("kafkaapi: %w: %d bytes; %d to %d", errMalformed, n, requestLenMin, RequestBytesMax)
	}
	if err := c.s.memory(n).Acquire(c.ctx, n); err != nil {
		return nil, io.EOF
	}
	r := &request{bytes: n, began: time.Now(), key: int16(binary.BigEndian.Uint16(head[4:]))}
	if err := c.readBody(r); err != nil {
		c.release(r)
		return nil, err
	}
	return r, nil
}

// requestLenMin is the length of a header without a client id.
const requestLenMin = 8

// ending turns the end of a connection between two requests into io.EOF.
func ending(err error) error {
	var ne net.Error
	if errors.As(err, &ne) || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		return io.EOF
	}
	return fmt.Errorf("kafkaapi: %w", err)
}

// frames are what produces were read into: nothing of them is kept. Parts of other requests may be.
var frames sync.Pool

// frameBytesMax is the largest frame that is kept to be used again.
const frameBytesMax = 4 << 20

func (c *conn) readBody(r *request) error {
	_, _ = c.in.Discard(4) // it was peeked at
	_ = c.nc.SetReadDeadline(time.Now().Add(BodyTimeout))
	frame, err := c.readFrame(r)
	if err != nil {
		return fmt.Errorf("kafkaapi: a request of %d bytes was cut short: %w", r.bytes, err)
	}
	return r.parseHeader(frame)
}

// growBytes is how much is allocated before any of it has come.
const growBytes = 1 << 20

// readFrame allocates as the bytes come: a length is only a claim.
func (c *conn) readFrame(r *request) ([]byte, error) {
	n := int(r.bytes)
	if r.key == keyProduce {
		if p, ok := frames.Get().(*[]byte); ok {
			r.frame = p
		} else {
			r.frame = new([]byte)
		}
	}
	var b []byte
	if r.frame != nil {
		b = (*r.frame)[:0]
	}
	for len(b) < n {
		step := min(n-len(b), max(growBytes, len(b), cap(b)-len(b)))
		if cap(b)-len(b) < step {
			b = append(make([]byte, 0, len(b)+step), b...)
		}
		at := len(b)
		b = b[:at+step]
		if _, err := io.ReadFull(c.in, b[at:]); err != nil {
			return nil, err
		}
	}
	if r.frame != nil {
		*r.frame = b
	}
	return b, nil
}

// parseHeader reads key, version, correlation and client id, and tags where the version has them.
func (r *request) parseHeader(b []byte) error {
	be := binary.BigEndian
	r.version, r.correlation = int16(be.Uint16(b[2:])), int32(be.Uint32(b[4:]))
	sh := shapes[r.key]
	w := scanner{rest: b[requestLenMin:]}
	at := w.rest
	if n := w.length(2); n >= 0 {
		w.skip(n)
		if w.err == nil {
			r.client = string(at[2 : 2+n])
		}
	}
	if sh != nil && r.version >= sh.flexible {
		w.flexible = true
		w.tags(false)
	}
	if w.err != nil {
		return fmt.Errorf("kafkaapi: %w: header: %w", errMalformed, w.err)
	}
	r.body = w.rest
	return nil
}

func (c *conn) release(r *request) {
	if r.frame != nil && cap(*r.frame) <= frameBytesMax {
		frames.Put(r.frame)
	}
	r.frame, r.body = nil, nil
	c.s.memory(r.bytes).Release(r.bytes)
}

// answer answers r, or, if it is a produce, begins to.
func (c *conn) answer(r *request) error {
	q, refused, err := c.decode(r)
	switch {
	case err != nil:
		c.release(r)
		return err
	case r.key == keyProduce && refused == nil:
		c.produce(r, q.(*kmsg.ProduceRequest))
		return nil
	}
	defer c.release(r)
	<-c.last
	answer := refused
	if answer == nil {
		answer = c.s.answer(c, r, q)
	}
	if answer == nil { // there is nothing to be said any more
		return io.EOF
	}
	err = c.write(r, answer)
	if f, ok := answer.(*fetched); ok {
		f.free()
	}
	return err
}

// decode returns the request, or the answer that refuses it. An error closes the connection.
func (c *conn) decode(r *request) (q kmsg.Request, refused kmsg.Response, err error) {
	v, served := c.s.versions[r.key]
	switch {
	case r.key == keyApiVersions && (r.version < v.min || r.version > v.max):
		return nil, c.s.otherApiVersions(), nil
	case !served:
		if refused = refusal(r.key, r.version); refused == nil {
			err = fmt.Errorf("kafkaapi: request %d (%s) version %d is not served", r.key, kmsg.NameForKey(r.key), r.version)
		}
		return nil, refused, err
	case r.version < v.min || r.version > v.max:
		return nil, nil, fmt.Errorf("kafkaapi: %s version %d; %d to %d are served", kmsg.NameForKey(r.key), r.version, v.min, v.max)
	}
	if err := scan(r.body, shapes[r.key], r.version); err != nil {
		return nil, nil, fmt.Errorf("kafkaapi: %w: %s version %d: %w", errMalformed, kmsg.NameForKey(r.key), r.version, err)
	}
	q = kmsg.RequestForKey(r.key)
	q.SetVersion(r.version)
	if err := q.ReadFrom(r.body); err != nil {
		return nil, nil, fmt.Errorf("kafkaapi: %w: %s version %d: %w", errMalformed, kmsg.NameForKey(r.key), r.version, err)
	}
	return q, nil, nil
}

// answer finds who answers. Nil: the connection is to be closed.
func (s *Server) answer(c *conn, r *request, q kmsg.Request) kmsg.Response {
	if a, ok := apis[r.key]; ok {
		return a.serve(s, c.ctx, c, q)
	}
	ctx := c.ctx
	if r.key == keyJoinGroup || r.key == keySyncGroup {
		var stop context.CancelFunc
		ctx, stop = c.untilLeft()
		defer stop()
	}
	host, _, _ := net.SplitHostPort(c.nc.RemoteAddr().String())
	return s.group(ctx, groups.Client{ID: r.client, Host: "/" + host}, q)
}

// untilLeft returns a context that ends when the client has left. Who waits for long waits with it.
func (c *conn) untilLeft() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(c.ctx)
	if c.peeked != nil {
		return ctx, cancel
	}
	peeked := make(chan struct{})
	c.peeked = peeked
	_ = c.nc.SetReadDeadline(time.Time{})
	if c.s.ctx.Err() != nil {
		c.drain()
	}
	go func() {
		defer close(peeked)
		if _, err := c.in.Peek(1); err != nil {
			cancel()
		}
	}()
	return ctx, cancel
}

// produce begins r in the order in which it came, and answers it behind.
func (c *conn) produce(r *request, q *kmsg.ProduceRequest) {
	c.slots <- struct{}{}
	p := c.s.beginProduce(q)
	before, done := c.last, make(chan struct{})
	c.last = done
	go func() {
		defer func() { <-c.slots }()
		defer close(done)
		defer c.release(r)
		answer, err := p.finish()
		<-before
		if err == nil && answer != nil {
			err = c.write(r, answer)
		}
		if err != nil {
			if c.s.ctx.Err() == nil {
				c.s.o.Logger.Debug("kafka: produce", "client", c.nc.RemoteAddr().String(), "error", err)
			}
			_ = c.nc.Close() // the reader ends
		}
	}()
}

// answers are what answers are encoded into.
var answers = sync.Pool{New: func() any { return new([]byte) }}

// answerBytesMax is the largest that is kept to be used again.
const answerBytesMax = 2 * FetchBytesMax

// write sends one answer.
func (c *conn) write(r *request, answer kmsg.Response) error {
	p := answers.Get().(*[]byte)
	b := append((*p)[:0], 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(r.correlation))
	if answer.IsFlexible() && r.key != keyApiVersions {
		b = append(b, 0) // no tags
	}
	b = answer.AppendTo(b)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	_ = c.nc.SetWriteDeadline(time.Now().Add(WriteTimeout))
	_, err := c.nc.Write(b)
	if cap(b) <= answerBytesMax {
		*p = b
		answers.Put(p)
	}
	if err != nil {
		return ending(err)
	}
	if f := c.s.o.Listener.Answered; f != nil {
		f(kmsg.NameForKey(r.key), time.Since(r.began))
	}
	return nil
}
