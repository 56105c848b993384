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

// flushBytes is when lines are sent although more could be added.
const flushBytes = 32 << 10

// batches runs a round over batches.
func (p *payer) batches(ctx context.Context, s *schedule, r *recorder) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	for caller := range p.Callers {
		all.Go(func() {
			if err := p.batch(ctx, caller, s, r); err != nil {
				cancel(err)
			}
		})
	}
	all.Wait()
	r.endRound(time.Since(s.start))
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	return nil
}

// batch sends one batch for as long as the round is, and reads its answers.
func (p *payer) batch(ctx context.Context, caller int, s *schedule, r *recorder) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c, err := dial(ctx, p.Server.HTTP)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	w := &window{slots: make(chan struct{}, p.InFlight), from: make(chan time.Time, p.InFlight)}
	wrote := make(chan error, 1)
	go func() { wrote <- p.write(ctx, c, s, w) }()
	err = readAnswers(c, caller, w, r)
	if err != nil {
		cancel() // whoever writes stops
	}
	if failed := <-wrote; err == nil {
		err = failed
	}
	return err
}

// window is the lines of a batch that are not answered.
type window struct {
	slots chan struct{}  // as many as there are lines
	from  chan time.Time // when each counts from; closed before the end is sent
	once  sync.Once
}

// write sends lines when they are due and fewer than InFlight wait.
func (p *payer) write(ctx context.Context, c *conn, s *schedule, w *window) error {
	defer w.end()
	c.header("POST", "/v1/payments:batch?wait=1m", "application/x-ndjson")
	c.out = append(c.out, "\r\nTransfer-Encoding: chunked\r\n\r\n"...)
	if _, err := c.Write(c.out); err != nil {
		return err
	}
	var failed error
	var lines []byte
	flush := func() {
		if len(lines) == 0 || failed != nil {
			return
		}
		c.out = strconv.AppendInt(c.out[:0], int64(len(lines)), 16)
		c.out = append(append(append(c.out, "\r\n"...), lines...), "\r\n"...)
		_, failed = c.Write(c.out)
		lines = lines[:0]
	}
	for failed == nil {
		from, ok := s.due(ctx, flush)
		if !ok {
			break
		}
		select {
		case w.slots <- struct{}{}:
		default:
			flush()
			select {
			case w.slots <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
			if s.every == 0 {
				from = time.Now() // it is made when there is room for it
			}
		}
		w.from <- from
		lines = append(p.appendBody(lines), '\n')
		if len(lines) >= flushBytes {
			flush()
		}
	}
	flush()
	w.end()
	if failed == nil {
		_, failed = io.WriteString(c, "0\r\n\r\n")
	}
	return failed
}

// end says that no line follows. It may be called again.
func (w *window) end() { w.once.Do(func() { close(w.from) }) }

// readAnswers reads one answer for each line that was sent.
func readAnswers(c *conn, caller int, w *window, r *recorder) error {
	status, length, err := c.answer()
	if err != nil {
		return err
	}
	if status != 200 || length >= 0 {
		return fmt.Errorf("POST /v1/payments:batch: answered %d", status)
	}
	in := bufio.NewReaderSize(httputil.NewChunkedReader(c.in), 1<<20)
	for n := 1; ; n++ {
		line, err := in.ReadSlice('\n')
		if err == io.EOF && len(line) == 0 {
			select {
			case _, more := <-w.from:
				if !more {
					return nil
				}
			default:
			}
			return errShort
		}
		if err != nil {
			return err
		}
		if want := strconv.AppendInt([]byte(`{"line":`), int64(n), 10); !bytes.HasPrefix(line, want) || !bytes.HasPrefix(line[len(want):], []byte(`,"status":201,`)) {
			return fmt.Errorf("POST /v1/payments:batch: line %d was answered %s", n, bytes.TrimSpace(line[:min(len(line), 400)]))
		}
		r.record(caller, time.Since(<-w.from))
		<-w.slots
	}
}
