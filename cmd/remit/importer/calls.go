package importer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/remitlog/remit/saga/accounts"
)

// callTimeout is how long one call may take.
const callTimeout = 75 * time.Second

// answerMax bounds the body of an answer to one call.
const answerMax = 1 << 20

// problem is what remit answers above 399. It is an error.
type problem struct {
	Status    int      `json:"status"`
	Code      string   `json:"code"`
	Detail    string   `json:"detail"`
	Retryable bool     `json:"retryable"`
	Reason    string   `json:"reason"`
	Payment   *payment `json:"payment"`
}

func (p *problem) Error() string { return fmt.Sprintf("%s (%s, %d)", p.Detail, p.Code, p.Status) }

// payment is what is looked at in a payment.
type payment struct {
	State     string    `json:"state"`
	Settled   bool      `json:"settled"`
	Reason    string    `json:"reason"`
	CreatedAt time.Time `json:"createdAt"`
}

// readProblem reads an answer above 399, also one that something between here and remit made.
func readProblem(resp *http.Response) *problem {
	p := &problem{}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, answerMax)) // what came of it has to do
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if media != "application/problem+json" || json.Unmarshal(body, p) != nil {
		*p = problem{Code: "no problem document", Detail: fmt.Sprintf("%s answered %q", resp.Request.URL.Host, brief(body)),
			Retryable: resp.StatusCode >= 502 && resp.StatusCode <= 504}
	}
	p.Status = resp.StatusCode
	return p
}

func brief(b []byte) []byte { return b[:min(len(b), 200)] }

// greet waits until remit is ready.
func (m *Import) greet(ctx context.Context) error {
	return m.try(ctx, func(ctx context.Context) error { return m.call(ctx, "GET", "/readyz", nil) })
}

// try calls f until it is answered with something that will not change, or remit has been away for too long.
func (m *Import) try(ctx context.Context, f func(context.Context) error) error {
	var b backoff
	for {
		err := f(ctx)
		p, answered := errors.AsType[*problem](err)
		switch {
		case err == nil, answered && !p.Retryable:
			m.away.back()
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case answered && p.Status == http.StatusTooManyRequests: // it is there, and busy
		default:
			if err := m.away.note(err); err != nil {
				return err
			}
		}
		if err := b.pause(ctx); err != nil {
			return err
		}
	}
}

// call makes one call whose answer does not matter beyond its status. What remit refuses is a *problem.
func (m *Import) call(ctx context.Context, method, path string, body any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, m.Server+path, in)
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := m.http.Do(req)
	if err != nil {
		return plainURLError(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 400 {
		return readProblem(resp)
	}
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, answerMax)) // the connection is used again
	return err
}

// plainURLError leaves out method and address, which are the same all along.
func plainURLError(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// openAll does openings until there are none, or ctx ends.
func (m *Import) openAll(ctx context.Context) {
	for o := range m.opens {
		if ctx.Err() != nil {
			continue // drained, so that nobody waits to put one in
		}
		err := m.open(ctx, o)
		p, answered := errors.AsType[*problem](err)
		switch {
		case err == nil:
			m.graph.opened(o.row, "", false)
		// What may pass says nothing of the row: it is not rejected, and the import has not done it.
		case answered && !p.Retryable:
			m.graph.opened(o.row, fmt.Sprintf("account %s: %v", o.account, p), isMismatch(*p))
		default:
			m.fail(err)
		}
	}
}

type openBody struct {
	Currency accounts.Currency `json:"currency"`
}

type depositBody struct {
	ID     string `json:"id"`
	Amount string `json:"amount"`
}

// open opens an account and deposits what it is to begin with. Both may be repeated.
func (m *Import) open(ctx context.Context, o open) error {
	path := "/v1/accounts/" + url.PathEscape(o.account)
	err := m.try(ctx, func(ctx context.Context) error { return m.call(ctx, "PUT", path, openBody{m.Currency}) })
	if err != nil || o.deposit == 0 {
		return err
	}
	body := depositBody{ID: m.id(o.row.line) + ":open", Amount: accounts.FormatAmount(o.deposit, m.Currency)}
	err = m.try(ctx, func(ctx context.Context) error { return m.call(ctx, "POST", path+"/deposits", body) })
	if err == nil {
		m.tally.deposit(o.deposit)
	}
	return err
}
