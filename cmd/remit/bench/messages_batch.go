package bench

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http/httputil"
	"strconv"
	"sync"
	"time"
)

// batches runs a round over batches.
func (s *sender) batches(ctx context.Context, due *schedule, r *recorder) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	for caller := range s.Callers {
		all.Go(func() {
			if err := s.batch(ctx, caller, due, r); err != nil {
				cancel(err)
			}
		})
	}
	all.Wait()
	r.endRound(time.Since(due.start))
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	return nil
}

// messageBatch is one call: half messages go out while there is room for them, and each answer to one brings the commit of it, on
// the same call.
//
//	feed ──due──▶ write ──lines──▶ read
//	  ▲             ▲────commits────┘ │
//	  └───────────room────────────────┘
type messageBatch struct {
	*sender
	conn   *conn
	caller int
	// room has a place for each message that may be under way.
	room chan struct{}
	// due are the times that messages count from; it is closed when there are no more.
	due chan time.Time
	// commits are what was prepared. A message under way has one line that waits at most, so that neither this nor lines is ever full.
	commits chan openMessage
	// lines are what was sent, in order; it is closed when no more will be.
	lines chan messageLine
}

// openMessage is one that was prepared.
type openMessage struct {
	id   [36]byte
	from time.Time
}

// messageLine is a line that waits for its answer.
type messageLine struct {
	from    time.Time // of the message
	commits bool
}

// batch sends messages on one call for as long as the round is.
func (s *sender) batch(ctx context.Context, caller int, due *schedule, r *recorder) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c, err := dial(ctx, s.Server.HTTP)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	b := &messageBatch{sender: s, conn: c, caller: caller, room: make(chan struct{}, s.InFlight), due: make(chan time.Time, s.InFlight),
		commits: make(chan openMessage, s.InFlight), lines: make(chan messageLine, s.InFlight)}
	go b.feed(ctx, due)
	wrote := make(chan error, 1)
	go func() { wrote <- b.write(ctx) }()
	err = b.read(r)
	if err != nil {
		cancel() // whoever writes stops
	}
	if failed := <-wrote; err == nil {
		err = failed
	}
	return err
}

// feed says when messages are to be sent.
func (b *messageBatch) feed(ctx context.Context, due *schedule) {
	defer close(b.due)
	for {
		from, ok := due.due(ctx, func() {})
		if !ok {
			return
		}
		select {
		case b.room <- struct{}{}:
		case <-ctx.Done():
			return
		}
		if due.every == 0 {
			from = time.Now() // it is made when there is room for it
		}
		b.due <- from
	}
}

// write sends lines until every message that was begun has its commit.
func (b *messageBatch) write(ctx context.Context) error {
	defer close(b.lines)
	b.conn.header("POST", batchPath, "application/x-ndjson")
	b.conn.out = append(b.conn.out, "\r\nTransfer-Encoding: chunked\r\n\r\n"...)
	if _, err := b.conn.Write(b.conn.out); err != nil {
		return err
	}
	var text []byte
	due, begun := b.due, 0 // due is nil when there are no more
	for due != nil || begun > 0 {
		var m openMessage
		var from time.Time
		commits, more := false, true
		select { // what is there
		case m = <-b.commits:
			commits = true
		case from, more = <-due:
		default:
			if err := b.flush(text); err != nil {
				return err
			}
			text = text[:0]
			select {
			case m = <-b.commits:
				commits = true
			case from, more = <-due:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		switch {
		case commits:
			begun--
			b.lines <- messageLine{from: m.from, commits: true}
			text = append(append(append(text, `{"commit":"`...), m.id[:]...), "\"}\n"...)
		case more:
			begun++
			b.lines <- messageLine{from: from}
			text = append(b.appendEvent(text), '\n')
		default:
			due = nil
		}
		if len(text) >= flushBytes {
			if err := b.flush(text); err != nil {
				return err
			}
			text = text[:0]
		}
	}
	if err := b.flush(text); err != nil {
		return err
	}
	_, err := io.WriteString(b.conn, "0\r\n\r\n")
	return err
}

// flush sends text as a chunk.
func (b *messageBatch) flush(text []byte) error {
	if len(text) == 0 {
		return nil
	}
	c := b.conn
	c.out = strconv.AppendInt(c.out[:0], int64(len(text)), 16)
	c.out = append(append(append(c.out, "\r\n"...), text...), "\r\n"...)
	_, err := c.Write(c.out)
	return err
}

// read reads one answer for each line that was sent.
func (b *messageBatch) read(r *recorder) error {
	status, length, err := b.conn.answer()
	if err != nil {
		return err
	}
	if status != 200 || length >= 0 {
		return fmt.Errorf("POST %s: answered %d", batchPath, status)
	}
	in := bufio.NewReaderSize(httputil.NewChunkedReader(b.conn.in), 1<<20)
	for n := 1; ; n++ {
		text, err := in.ReadSlice('\n')
		if err == io.EOF && len(text) == 0 {
			if _, more := <-b.lines; more {
				return errShort
			}
			return nil
		}
		if err != nil {
			return err
		}
		line, ok := <-b.lines
		if !ok {
			return fmt.Errorf("POST %s: answered a line more than was sent: %.400s", batchPath, text)
		}
		if err := b.answered(line, n, text, r); err != nil {
			return err
		}
	}
}

// answered takes the answer to a line.
func (b *messageBatch) answered(line messageLine, n int, text []byte, r *recorder) error {
	status := 201
	if line.commits {
		status = 200
	}
	head := strconv.AppendInt([]byte(`{"line":`), int64(n), 10)
	head = append(strconv.AppendInt(append(head, `,"status":`...), int64(status), 10), `,"message":`...)
	message, ok := bytes.CutPrefix(text, head)
	if !ok || line.commits && !bytes.Contains(message, delivered) {
		return fmt.Errorf("POST %s: line %d was answered %s", batchPath, n, bytes.TrimSpace(text[:min(len(text), 400)]))
	}
	if line.commits {
		r.record(b.caller, time.Since(line.from))
		<-b.room
		return nil
	}
	id, err := idOf(message)
	if err != nil {
		return err
	}
	b.commits <- openMessage{id: [36]byte(id), from: line.from}
	return nil
}
