package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/remitlog/remit/cmd/remit/api"
)

// clientTimeout is how long a command waits for an answer, streams aside: above the longest wait.
const clientTimeout = api.WaitMax + 15*time.Second

// answerBytesMax bounds an answer that is read as a whole.
const answerBytesMax = 64 << 20

// client calls the server.
type client struct {
	base string
	http *http.Client
}

// client returns one for --server.
func (a *app) client() (*client, error) {
	if err := checkEnv(options, a.environ); err != nil {
		return nil, usageErrorf("%w", err)
	}
	base := a.serverURL()
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, usageErrorf("--server %q is not an address such as %s", base, serverDefault)
	}
	return &client{base: base, http: &http.Client{}}, nil
}

// call sends in (nil for none) as JSON and reads the answer into out (nil for none). path is below the
// server, escaped: see url.PathEscape. It returns the answer's header. What the server refuses is an [apiError].
func (c *client) call(ctx context.Context, method, path string, in, out any) (http.Header, error) {
	ctx, cancel := context.WithTimeout(ctx, clientTimeout)
	defer cancel()
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("encode %T: %w", in, err)
		}
		body = bytes.NewReader(b)
	}
	resp, err := c.send(ctx, method, path, "application/json", body)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if out == nil {
		return resp.Header, nil
	}
	if err := json.UnmarshalRead(io.LimitReader(resp.Body, answerBytesMax), out); err != nil {
		return nil, fmt.Errorf("%s %s: the answer cannot be read: %w", method, path, err)
	}
	return resp.Header, nil
}

// send returns the answer as it comes, for streams; the caller closes its body. body nil is none.
func (c *client) send(ctx context.Context, method, path, contentType string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, usageErrorf("%w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", contentType)
	}
	req.Header.Set("User-Agent", "remit/"+api.ReadBuild().Version)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	if resp.StatusCode >= 400 {
		defer resp.Body.Close()
		return nil, readProblem(resp)
	}
	return resp, nil
}

func (c *client) unreachable(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("given up: %w", err)
	}
	if inner := (*url.Error)(nil); errors.As(err, &inner) {
		err = inner.Err // without method and address, which are said here
	}
	if distrusted := (*tls.CertificateVerificationError)(nil); errors.As(err, &distrusted) {
		return &codedError{exitUnavailable, fmt.Errorf("%s shows a certificate that is not trusted here: %w\nIf it is one of your own, SSL_CERT_FILE names the file, PEM, of the CA that made it", c.base, distrusted.Err)}
	}
	return &codedError{exitUnavailable, fmt.Errorf("no answer from %s: %w\nIs it running? Start one with `remit dev`, or say where it is with --server or REMIT_SERVER", c.base, err)}
}

// apiError is what the server answered above 399.
type apiError struct {
	Status    int    `json:"status"`
	Code      string `json:"code"`
	Title     string `json:"title"`
	Detail    string `json:"detail"`
	Retryable bool   `json:"retryable"`
	RequestID string `json:"requestId"`
	// Payment and Refund are what was refused, with 402.
	Payment jsontext.Value `json:"payment"`
	Refund  jsontext.Value `json:"refund"`
}

// Error says what was wrong and what to do, then how to find it again.
func (e *apiError) Error() string {
	s := e.Detail
	if s == "" {
		s = e.Title
	}
	s += fmt.Sprintf("\n(%s, %d, request %s", e.Code, e.Status, e.RequestID)
	if e.Retryable {
		s += ", the same again may succeed"
	}
	return s + ")"
}

// readProblem reads an answer above 399, also one that a proxy in between made.
func readProblem(resp *http.Response) error {
	e := &apiError{RequestID: resp.Header.Get(api.RequestIDHeader)}
	b, _ := io.ReadAll(io.LimitReader(resp.Body, api.BodyMax)) // what came of it has to do
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if media == api.ProblemType && json.Unmarshal(b, e) == nil {
		e.Status = resp.StatusCode
		return e
	}
	e.Status, e.Code = resp.StatusCode, "no problem document"
	e.Detail = fmt.Sprintf("%s answered %s, not as remit does; is this its address?", resp.Request.URL.Host, resp.Status)
	if text := strings.TrimSpace(string(b)); text != "" {
		e.Detail += "\n" + text[:min(len(text), 500)]
	}
	return e
}
