package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"strconv"
	"strings"
)

// conn is one connection of a client that costs little: the machine that runs the server runs the callers too. One request,
// one answer, in turn; every answer is read whole.
type conn struct {
	net.Conn
	host string
	in   *bufio.Reader
	out  []byte
	body []byte
}

func dial(ctx context.Context, host string) (*conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c, host: host, in: bufio.NewReaderSize(c, 64<<10)}, nil
}

// header begins a request.
func (c *conn) header(method, path, contentType string) {
	c.out = append(append(append(append(c.out[:0], method...), ' '), path...), " HTTP/1.1\r\nHost: "...)
	c.out = append(c.out, c.host...)
	if contentType != "" {
		c.out = append(append(c.out, "\r\nContent-Type: "...), contentType...)
	}
}

// call makes one call and returns the status and the body, which the next call overwrites.
func (c *conn) call(method, path, contentType string, body []byte) (int, []byte, error) {
	c.header(method, path, contentType)
	c.out = append(c.out, "\r\nContent-Length: "...)
	c.out = strconv.AppendInt(c.out, int64(len(body)), 10)
	c.out = append(append(c.out, "\r\n\r\n"...), body...)
	if _, err := c.Write(c.out); err != nil {
		return 0, nil, err
	}
	status, length, err := c.answer()
	if err != nil {
		return status, nil, err
	}
	c.body = c.body[:0]
	if length < 0 {
		var b bytes.Buffer
		if _, err := b.ReadFrom(httputil.NewChunkedReader(c.in)); err != nil {
			return status, nil, err
		}
		c.body = append(c.body, b.Bytes()...)
		_, err := c.in.Discard(len("\r\n")) // after the last chunk; these calls have no trailers
		return status, c.body, err
	}
	if cap(c.body) < length {
		c.body = make([]byte, length)
	}
	c.body = c.body[:length]
	_, err = io.ReadFull(c.in, c.body)
	return status, c.body, err
}

// answer reads the status line and the header; length -1 says that the body is chunked.
func (c *conn) answer() (status, length int, err error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return 0, 0, err
	}
	if len(line) < len("HTTP/1.1 200") || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return 0, 0, fmt.Errorf("answered %q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, 0, fmt.Errorf("answered %q", line)
	}
	chunked := false
	for {
		if line, err = c.in.ReadSlice('\n'); err != nil {
			return 0, 0, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(": "))
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(value)); err != nil {
				return 0, 0, fmt.Errorf("answered a Content-Length of %q", value)
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			chunked = bytes.EqualFold(value, []byte("chunked"))
		}
	}
	if chunked {
		length = -1
	}
	return status, length, nil
}

// expect makes a call, with JSON if with a body, that must be answered with one of the statuses.
func (c *conn) expect(method, path string, body []byte, statuses ...int) ([]byte, error) {
	contentType := ""
	if body != nil {
		contentType = "application/json"
	}
	return c.expectOf(method, path, contentType, body, statuses...)
}

// expectOf is expect for a body of another type.
func (c *conn) expectOf(method, path, contentType string, body []byte, statuses ...int) ([]byte, error) {
	status, answer, err := c.call(method, path, contentType, body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	for _, s := range statuses {
		if s == status {
			return answer, nil
		}
	}
	return nil, fmt.Errorf("%s %s: answered %d %s", method, path, status, strings.TrimSpace(string(answer[:min(len(answer), 400)])))
}

var errShort = errors.New("the batch ended before its answers")
