package producer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/remitlog/remit/log"
)

// answerMax is how much of an answer is read: a message has its event in it.
const answerMax = 4 << 20

// problemType is the media type of every answer of remit's above 399.
const problemType = "application/problem+json"

// client calls remit over HTTP. Every call may be repeated: messages by their ids, and the rest says how a thing is to be.
type client struct{ opts *Options }

// request is one call.
type request struct {
	method, path string // the path is escaped, and has the query
	contentType  string
	body         []byte
	want         []int // statuses that are an answer
	into         any   // what its body is read into; nil if it is not
}

func (r *request) String() string {
	path, _, _ := strings.Cut(r.path, "?")
	return r.method + " " + path
}

// do makes a call once.
func (c client) do(ctx context.Context, r request) (header http.Header, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.CallMax)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, r.method, c.opts.Server+r.path, bytes.NewReader(r.body))
	if err != nil {
		return nil, err
	}
	if r.contentType != "" {
		req.Header.Set("Content-Type", r.contentType)
	}
	if c.opts.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.opts.Token)
	}
	resp, err := c.opts.Client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, answerMax))
	if err != nil {
		return nil, &url.Error{Op: r.method, URL: c.opts.Server + r.path, Err: err} // as the client says it
	}
	for _, status := range r.want {
		if resp.StatusCode != status {
			continue
		}
		if r.into != nil {
			if err := json.Unmarshal(body, r.into); err != nil {
				return nil, &AnswerError{Call: r.String(), Status: status, Detail: fmt.Sprintf("it is not remit's: %v", err)}
			}
		}
		return resp.Header, nil
	}
	return nil, refused(r.String(), resp, body)
}

// refused makes the error of an answer that is none of those wanted.
func refused(call string, resp *http.Response, body []byte) *AnswerError {
	e := &AnswerError{Call: call, Status: resp.StatusCode, Retryable: resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500}
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 {
		e.RetryAfter = time.Duration(min(seconds, 3600)) * time.Second
	}
	var problem struct {
		Code      string `json:"code"`
		Detail    string `json:"detail"`
		Recorded  string `json:"recorded"`
		Retryable bool   `json:"retryable"`
	}
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if media != problemType || json.Unmarshal(body, &problem) != nil {
		const most = 200
		e.Detail = fmt.Sprintf("it is not remit's: %.*q", most, body)
		return e
	}
	e.Code, e.Detail, e.Recorded, e.Retryable = problem.Code, problem.Detail, problem.Recorded, problem.Retryable
	return e
}

// again makes a call until it succeeds, its error does not mend, or it was made AttemptsMax times.
func (c client) again(ctx context.Context, r request) (header http.Header, err error) {
	for n := 1; ; n++ {
		if header, err = c.do(ctx, r); err == nil {
			return header, nil
		}
		if n >= c.opts.AttemptsMax || !IsRetryable(err) || ctx.Err() != nil {
			return nil, err
		}
		after := c.opts.backoff(n, err)
		c.opts.Listener.Retried(r.String(), err, after)
		if !pause(ctx, after) {
			return nil, err
		}
	}
}

// pause waits; false if ctx ends before.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// answered is what is looked at of a message.
type answered struct {
	ID    log.ID `json:"id"`
	State string `json:"state"`
}

// prepare stores a half message.
func (c client) prepare(ctx context.Context, h half) error {
	r := request{
		method: http.MethodPost, path: "/v1/topics/" + url.PathEscape(h.topic) + "/messages?producer=" + url.QueryEscape(c.opts.Producer),
		contentType: log.StructuredContentType, body: h.body,
		want: []int{http.StatusCreated, http.StatusAccepted, http.StatusOK}, // the latter two if an answer was lost
	}
	state, err := c.message(ctx, c.again, h.id, r)
	if err == nil && state == stateRolledBack { // the answer that was lost came long ago
		return ErrRolledBack
	}
	return err
}

const stateRolledBack = "rolledback"

// decide tells remit, once, what became of a local transaction.
func (c client) decide(ctx context.Context, id log.ID, v Verdict) error {
	_, err := c.message(ctx, c.do, id, request{
		method: http.MethodPost, path: "/v1/messages/" + id.String() + "/" + string(v), want: []int{http.StatusOK},
	})
	return err
}

// message makes a call that is answered with a message, and returns its state. An answer that has not its id comes from somebody else.
func (c client) message(ctx context.Context, call func(context.Context, request) (http.Header, error), id log.ID, r request) (state string, err error) {
	var got answered
	r.into = &got
	if _, err := call(ctx, r); err != nil {
		return "", err
	}
	if got.ID != id {
		return "", &AnswerError{Call: r.String(), Status: http.StatusOK, Detail: "it is not remit's: it has not the message's id"}
	}
	return got.State, nil
}

// decided reports whether every message of the producer from before a time is: nil, an *UndecidedError, or that it could not be asked.
func (c client) decided(ctx context.Context, before time.Time) error {
	of := "/v1/producers/" + url.PathEscape(c.opts.Producer)
	header, err := c.again(ctx, request{method: http.MethodGet, path: of, want: []int{http.StatusOK}})
	if err != nil {
		return err
	}
	for _, state := range [...]string{"prepared", "parked"} {
		var list struct {
			Items []answered `json:"items"`
		}
		q := url.Values{
			"producer": {c.opts.Producer}, "state": {state}, "to": {before.UTC().Format(time.RFC3339)}, "pageSize": {"1"},
			"after": {header.Get("Remit-Position")}, // the list is a view: it may be behind what was answered
		}
		_, err := c.again(ctx, request{method: http.MethodGet, path: "/v1/messages?" + q.Encode(), want: []int{http.StatusOK}, into: &list})
		if err != nil {
			return err
		}
		if len(list.Items) > 0 {
			return &UndecidedError{ID: list.Items[0].ID, State: list.Items[0].State}
		}
	}
	return nil
}

// contradicts reports whether remit's answer to a decision says that something else stands, for good.
func contradicts(err error) bool {
	var answer *AnswerError
	return errors.As(err, &answer) && (answer.Code == "already_decided" || answer.Code == "not_found")
}
