package api

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
)

// NDJSONType is the media type of a stream of lines.
const NDJSONType = "application/x-ndjson"

// The bounds of one [Stream].
const (
	// AnswersMax is how many answers wait to be read by the client. At it the stream
	// reads no further line until one was taken: so a client may send this many first and read after.
	AnswersMax = 10_000
	// streamBytesMax bounds what the lines that are begun and the answers that wait
	// hold together. At it the stream reads no further line, as at AnswersMax.
	streamBytesMax = 64 << 20
	// stallMax is how long a client may leave its answers unread once nothing more fits on the way to it.
	stallMax = 10 * time.Minute
	// chunkSize is what is read at once; lines are slices of a chunk.
	chunkSize = 64 << 10
)

// Stream reads NDJSON and answers it line by line, both ways at once. begin is called for every line,
// in their order, and answers it with [Line.Answer] or [Line.Fail], then or later, from any goroutine.
// So what must keep its order is started in begin, and what takes long is not waited for there. Answers go out in the
// order of the lines, as
//
//	{"line":1,"status":201,"<member>":{…}}
//	{"line":2,"status":402,"problem":{…}}
//
// Empty lines are skipped, and counted. A line above [BodyMax] answers 413 for itself and is never given to begin; a
// panic of begin answers 500 for its line. A line that was cut off, by a client that left in the middle of it, is not
// begun. Stream returns when every line that was begun is answered; the error is a *[Problem], before anything is sent.
func Stream(w http.ResponseWriter, r *http.Request, member string, begin func(*Line)) error {
	if err := CheckContentType(r, NDJSONType); err != nil {
		return err
	}
	if err := checkEncoding(w, r); err != nil {
		return err
	}
	s := newStream(w, r, member, begin)
	defer s.cancel()
	defer s.stopOnDrain()()

	w.Header().Set("Content-Type", NDJSONType)
	w.Header().Set("X-Accel-Buffering", "no") // a proxy in between that collects answers would hold up a client that waits for them
	if r.Header.Get("Expect") == "" {         // else 100 Continue comes first, with the first read
		w.WriteHeader(http.StatusOK)
		_ = s.rc.Flush() // a client that is gone is noticed at its first line
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		s.writeAnswers()
	}()
	s.readLines(r.Body)
	close(s.lines)
	<-written
	return nil
}

// stream is one call of Stream. readLines runs on the handler's goroutine, writeAnswers on its own, answers come from
// anywhere. lines carries the order from one to the other, and is what AnswersMax bounds.
type stream struct {
	ctx    context.Context
	cancel context.CancelFunc
	rc     *http.ResponseController
	out    *bufio.Writer
	member string
	begin  func(*Line)
	call   *call

	lines chan *Line
	// wake is sent to by the answer of the one line that writeAnswers waits for.
	wake chan struct{}

	room  sync.Cond // guards bytes
	bytes int

	broken bool // a write failed: answers are thrown away. Of writeAnswers alone.
}

func newStream(w http.ResponseWriter, r *http.Request, member string, begin func(*Line)) *stream {
	s := &stream{
		rc:     http.NewResponseController(w),
		out:    bufio.NewWriterSize(w, chunkSize),
		member: member,
		begin:  begin,
		call:   callOf(r.Context()),
		lines:  make(chan *Line, AnswersMax-1), // and the one that writeAnswers holds
		wake:   make(chan struct{}, 1),
		room:   sync.Cond{L: new(sync.Mutex)},
	}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(r.Context()))
	context.AfterFunc(r.Context(), s.clientLeft)
	_ = s.rc.EnableFullDuplex()                                        // HTTP/2 always is, and a test's recorder never
	_ = s.rc.SetWriteDeadline(time.Time{})                             // see flush
	context.AfterFunc(s.ctx, func() { s.grow(0); s.room.Broadcast() }) // a reader that waits for room need not wait any more
	return s
}

// stopOnDrain ends the reading when the server is about to stop.
func (s *stream) stopOnDrain() (done func() bool) {
	if s.call == nil {
		return func() bool { return true }
	}
	return context.AfterFunc(s.call.server.drained, s.stopReading)
}

// clientLeft ends the stream, unless it is the server that stops: to net/http a read that stopReading has cut off is a client that
// left. What was begun is then answered as it ends; should the client be gone after all, the next write says so.
func (s *stream) clientLeft() {
	if s.call == nil || s.call.server.drained.Err() == nil {
		s.cancel()
	}
}

func (s *stream) stopReading() {
	_ = s.rc.SetReadDeadline(time.Now()) // what cannot be interrupted ends with its connection
}

// readLines begins every line of the body.
func (s *stream) readLines(body io.Reader) {
	in := lineReader{r: body}
	for n := 1; ; n++ {
		text, err := in.next()
		if err != nil && !errors.Is(err, errLineTooLong) {
			return // the end; or the client left, and what it did not finish is not begun
		}
		if err == nil && len(text) == 0 {
			continue
		}
		l := &Line{N: n, Text: text, stream: s}
		if !s.take(len(text)) {
			return
		}
		select {
		case s.lines <- l:
		case <-s.ctx.Done():
			return
		}
		if err != nil {
			l.Fail(NewProblem(CodeTooLarge, "a line is at most %d bytes; this one was skipped, the others are answered", BodyMax))
			continue
		}
		s.beginLine(l)
	}
}

// take waits until n more bytes fit. It reports false when the stream has ended.
func (s *stream) take(n int) bool {
	s.room.L.Lock()
	defer s.room.L.Unlock()
	for s.bytes > streamBytesMax && s.ctx.Err() == nil {
		s.room.Wait()
	}
	s.bytes += n
	return s.ctx.Err() == nil
}

// grow adds n bytes, or gives them back; an answer never waits for room, since only answers make some.
func (s *stream) grow(n int) {
	s.room.L.Lock()
	s.bytes += n
	s.room.L.Unlock()
	if n < 0 {
		s.room.Signal() // there is one reader
	}
}

// beginLine calls begin; its panic is the answer of this line alone.
func (s *stream) beginLine(l *Line) {
	defer func() {
		if v := recover(); v != nil {
			l.Fail(&panicError{value: v, stack: debug.Stack()})
		}
	}()
	s.begin(l)
}

// writeAnswers writes the answers in the order of their lines, and flushes whenever it has to wait.
func (s *stream) writeAnswers() {
	for {
		var l *Line
		var open bool
		select {
		case l, open = <-s.lines:
		default:
			s.flush()
			l, open = <-s.lines
		}
		if !open {
			s.flush()
			return
		}
		if l.state.CompareAndSwap(linePending, lineAwaited) {
			s.flush()
			<-s.wake
		}
		s.write(l)
	}
}

func (s *stream) write(l *Line) {
	if !s.broken {
		if s.out.Available() < l.out.Len() {
			s.allowStall()
		}
		_, err := s.out.Write(l.out.Bytes())
		s.noteWrite(err)
	}
	s.grow(-l.out.Len())
	putBuffer(l.out)
	l.out = nil
}

func (s *stream) flush() {
	if s.broken || s.out.Buffered() == 0 {
		return
	}
	s.allowStall()
	err := s.out.Flush()
	if err == nil {
		err = s.rc.Flush()
	}
	if errors.Is(err, http.ErrNotSupported) {
		err = nil
	}
	s.noteWrite(err)
}

func (s *stream) allowStall() { _ = s.rc.SetWriteDeadline(time.Now().Add(stallMax)) }

// noteWrite ends the stream when the client is gone: nothing more is read, and what is begun is
// still waited for.
func (s *stream) noteWrite(err error) {
	if err != nil {
		s.broken = true
		s.cancel()
		s.stopReading()
	}
}

// The states of a line. The answerer moves it to lineReady; writeAnswers, when it has to wait for the line, to lineAwaited.
const (
	linePending = iota
	lineAwaited
	lineReady
)

// Line is one line of a [Stream], to be answered once.
type Line struct {
	// N counts from 1.
	N int
	// Replayed is set before the answer when the id was used before, with the same content: a line's Idempotent-Replayed. The
	// answer then has "replayed":true behind its status.
	Replayed bool
	// Text is the line without its end. It is the stream's: nothing may keep it beyond the answer.
	Text []byte

	stream   *stream
	out      *bytes.Buffer
	answered atomic.Bool
	state    atomic.Int32
}

// Context ends when the client has left. What was begun is then still answered, by giving up waiting.
func (l *Line) Context() context.Context { return l.stream.ctx }

// Decode reads the line, one JSON object, into v, as strictly as [Decode].
func (l *Line) Decode(v any) error { return DecodeJSON(l.Text, v) }

// Answer answers the line with v under the stream's member. The first answer of a line is the one that counts.
func (l *Line) Answer(status int, v any) { l.answer(status, l.stream.member, v, nil) }

// Fail answers the line with a problem, as [Server] does for a call.
func (l *Line) Fail(err error) {
	p, known := AsProblem(err)
	if known {
		err = nil
	}
	l.answer(p.Status(), "problem", p, err)
}

func (l *Line) answer(status int, member string, v any, fault error) {
	if l.answered.Swap(true) {
		return
	}
	b := getBuffer()
	if err := l.encode(b, status, member, v); err != nil {
		fault = err
		p, _ := AsProblem(err)
		status = p.Status()
		b.Reset()
		_ = l.encode(b, status, "problem", p) // without members of others it always can be
	}
	l.stream.note(l.N, status, fault)
	l.stream.grow(b.Len() - len(l.Text))
	l.Text, l.out = nil, b
	if l.state.Swap(lineReady) == lineAwaited {
		l.stream.wake <- struct{}{}
	}
}

func (l *Line) encode(b *bytes.Buffer, status int, member string, v any) error {
	b.WriteString(`{"line":`)
	b.Write(strconv.AppendInt(b.AvailableBuffer(), int64(l.N), 10))
	b.WriteString(`,"status":`)
	b.Write(strconv.AppendInt(b.AvailableBuffer(), int64(status), 10))
	if l.Replayed {
		b.WriteString(`,"replayed":true`)
	}
	b.WriteString(`,"`)
	b.WriteString(member)
	b.WriteString(`":`)
	if fast := appenderOf(v); fast != nil {
		b.Write(fast.AppendJSON(b.AvailableBuffer()))
	} else if err := json.MarshalWrite(b, v); err != nil {
		return err
	}
	b.WriteString("}\n")
	return nil
}

// note counts an answer, and logs a fault of remit's own.
func (s *stream) note(line, status int, fault error) {
	if s.call == nil {
		return
	}
	s.call.server.metrics.lines.WithLabelValues(s.call.route, strconv.Itoa(status)).Inc()
	if fault == nil {
		return
	}
	attrs := []slog.Attr{slog.String("route", s.call.route), slog.Int("line", line), slog.Int("status", status),
		slog.String("requestId", s.call.id), slog.String("error", fault.Error())}
	if p, ok := errors.AsType[*panicError](fault); ok {
		attrs = append(attrs, slog.Any("panic", p.value), slog.String("stack", string(p.stack)))
	}
	s.call.server.Logger.LogAttrs(s.ctx, slog.LevelError, "http line", attrs...)
}

// errLineTooLong: the line was above BodyMax and is skipped; the next call gives the line after it.
var errLineTooLong = errors.New("api: line too long")

// lineReader cuts a body into lines. A line is a slice of the chunk that it was read into, which is never
// written again: chunks are left to the garbage collector once all of their lines are done.
type lineReader struct {
	r       io.Reader
	chunk   []byte // what is read; chunk[pos:] is not yet given out
	pos     int
	scanned int // chunk[pos:scanned] has no newline
	err     error
}

// next returns the next line without its end; the last one needs none. At the end io.EOF, and
// whatever the reader said when it broke off: what was read of a line then is dropped.
func (l *lineReader) next() ([]byte, error) {
	for {
		if i := bytes.IndexByte(l.chunk[l.scanned:], '\n'); i >= 0 {
			end := l.scanned + i
			text := l.chunk[l.pos:end:end]
			l.pos, l.scanned = end+1, end+1
			return checkLine(text)
		}
		l.scanned = len(l.chunk)
		if len(l.chunk)-l.pos > BodyMax+1 { // and one for a \r
			return nil, l.skipLine()
		}
		if l.err == nil {
			l.fill()
			continue
		}
		if l.err == io.EOF && l.pos < len(l.chunk) {
			text := l.chunk[l.pos:]
			l.pos = len(l.chunk)
			return checkLine(text)
		}
		return nil, l.err
	}
}

func checkLine(text []byte) ([]byte, error) {
	text = bytes.TrimSuffix(text, []byte("\r"))
	if len(text) > BodyMax {
		return nil, errLineTooLong
	}
	return text, nil
}

// fill reads once, into a new chunk when this one is full.
func (l *lineReader) fill() {
	if len(l.chunk) == cap(l.chunk) {
		rest := l.chunk[l.pos:]
		next := make([]byte, len(rest), max(chunkSize, 2*len(rest)))
		copy(next, rest)
		l.chunk, l.pos, l.scanned = next, 0, len(rest)
	}
	n, err := l.r.Read(l.chunk[len(l.chunk):cap(l.chunk)])
	l.chunk, l.err = l.chunk[:len(l.chunk)+n], err
}

// skipLine drops what is left of a line without keeping it.
func (l *lineReader) skipLine() error {
	l.chunk, l.pos, l.scanned = make([]byte, 0, chunkSize), 0, 0
	for l.err == nil {
		l.chunk = l.chunk[:0] // nothing of it was given out
		l.fill()
		if i := bytes.IndexByte(l.chunk, '\n'); i >= 0 {
			l.pos, l.scanned = i+1, i+1
			return errLineTooLong
		}
	}
	if l.err != io.EOF {
		return l.err
	}
	l.chunk = l.chunk[:0]
	return errLineTooLong
}
