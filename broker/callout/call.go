package callout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/time/rate"
)

// newTransport returns one whose every answer is bounded. There is one for all targets: it has no limit a host that one target could use up
// for another.
func newTransport(o *Options, dial func(context.Context, string, string) (net.Conn, error)) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	tls := o.TLS
	if tls != nil {
		tls = tls.Clone() // it is changed for HTTP/2
	}
	return &http.Transport{
		Proxy:                  nil, // a proxy would look names up itself, and connect to what it likes
		DialContext:            dial,
		TLSClientConfig:        tls,
		TLSHandshakeTimeout:    o.ConnectMax,
		DisableCompression:     true, // what is packed may be any length unpacked
		MaxResponseHeaderBytes: int64(o.HeaderMax),
		MaxIdleConns:           o.IdleMax,
		MaxIdleConnsPerHost:    o.ConcurrencyMax,
		IdleConnTimeout:        o.IdleTimeout,
		Protocols:              protocols,
		HTTP2: &http.HTTP2Config{
			// What a stream may send before it is read. The default is 4 MiB for each.
			MaxReceiveBufferPerStream: max(o.BodyMax, 64<<10),
			// A connection whose other end is gone would be used for as long as its calls time out.
			SendPingTimeout:  o.Timeout / 2,
			PingTimeout:      o.Timeout / 2,
			WriteByteTimeout: o.TimeoutMax,
		},
	}
}

// checkRequest refuses what could be sent nowhere, and fills in what was left out.
func (c *Caller) checkRequest(k *call) error {
	r := &k.request
	if r.Method == "" {
		r.Method = http.MethodPost
	}
	if r.Timeout == 0 {
		r.Timeout = c.opts.Timeout
	}
	k.id = webhookID(r.ID)
	const idMax = 1024 // of the header
	switch {
	case r.ID == "" || len(k.id) > idMax:
		return fmt.Errorf("%w: an id of %d bytes", ErrBadRequest, len(r.ID))
	case !httpguts.ValidHeaderFieldName(r.Method): // both are tokens
		return fmt.Errorf("%w: method %q", ErrBadRequest, r.Method)
	case !httpguts.ValidHeaderFieldValue(r.ContentType):
		return fmt.Errorf("%w: content type %q", ErrBadRequest, r.ContentType)
	case r.Timeout < 0 || r.Timeout > c.opts.TimeoutMax:
		return fmt.Errorf("%w: a timeout of %s; at most %s may be asked for", ErrBadRequest, r.Timeout, c.opts.TimeoutMax)
	case len(r.Body) > c.opts.RequestMax:
		return fmt.Errorf("%w: %d bytes, at most %d are sent", ErrTooLarge, len(r.Body), c.opts.RequestMax)
	}
	for name, values := range r.Header {
		if !httpguts.ValidHeaderFieldName(name) || slices.ContainsFunc(values, func(v string) bool { return !httpguts.ValidHeaderFieldValue(v) }) {
			return fmt.Errorf("%w: header %q", ErrBadRequest, name)
		}
	}
	return nil
}

// work makes calls of one target, one after the other, until none waits.
func (c *Caller) work(t *target) {
	defer c.working.Done()
	for {
		k, limiter := c.next(t)
		if k == nil {
			return
		}
		answer, err := c.make(k, limiter)
		c.mu.Lock()
		t.held -= len(k.request.Body)
		c.mu.Unlock()
		k.done(answer, err)
	}
}

// make waits for the pace, asks the breaker and then the instances.
func (c *Caller) make(k *call, limiter *rate.Limiter) (Answer, error) {
	if err := c.await(k, limiter); err != nil {
		return Answer{}, &CallError{Target: k.target.name, Err: err}
	}
	report, err := c.allow(k)
	if err != nil {
		return Answer{}, err
	}
	answer, err := c.ask(k)
	report(verdict(k, answer, err))
	return answer, err
}

// verdict is what a breaker is told of a call. A forbidden address costs the target nothing, and whoever asks should hear of it each time.
func verdict(k *call, a Answer, err error) error {
	switch {
	case k.ctx.Err() != nil, errors.Is(err, ErrForbiddenAddress), errors.Is(err, ErrBadRequest):
		return errNobodysFault
	case err != nil:
		return err
	case failed(a.Status):
		return statusError(a.Status)
	default:
		return nil
	}
}

// failed reports whether an answer says that another instance should be asked.
func failed(status int) bool { return status >= 500 || status == http.StatusTooManyRequests }

// await returns when the call may begin, at most WaitMax after it was taken.
func (c *Caller) await(k *call, limiter *rate.Limiter) error {
	ctx, end := context.WithDeadline(k.ctx, k.since.Add(c.opts.WaitMax))
	defer end()
	switch {
	case k.ctx.Err() != nil:
		return context.Cause(k.ctx)
	case ctx.Err() != nil:
		return fmt.Errorf("%w: this one since %s", ErrBusy, time.Since(k.since).Round(time.Millisecond))
	case limiter == nil:
		return nil
	}
	if err := limiter.Wait(ctx); err != nil {
		if k.ctx.Err() != nil {
			return context.Cause(k.ctx)
		}
		return fmt.Errorf("%w: at %v a second this one would not come within %s", ErrBusy, limiter.Limit(), c.opts.WaitMax)
	}
	return nil
}

// ask tries instances until one answers, each once and at most TriesMax. If none does, an answer that says so is better than none.
func (c *Caller) ask(k *call) (Answer, error) {
	var tried []*instance
	var answered Answer
	var last error
	for len(tried) < c.opts.TriesMax {
		i := c.pick(k, tried)
		if i == nil {
			break
		}
		tried = append(tried, i)
		began := time.Now()
		answer, err := c.try(k, i)
		if k.ctx.Err() != nil { // given up, or cut off: the instance is not to blame
			c.unseen(i)
			return Answer{}, &CallError{Target: k.target.name, URL: shown(i), Tries: len(tried), Err: context.Cause(k.ctx)}
		}
		bad := err != nil || failed(answer.Status)
		c.seen(i, bad, answer.RetryAfter)
		c.opts.Listener.Called(k.target.name, shown(i), answer.Status, err, time.Since(began))
		if !bad {
			return answer, nil
		}
		if err == nil {
			answered = answer
		} else {
			last = &CallError{Target: k.target.name, URL: shown(i), Tries: len(tried), Err: err}
		}
	}
	if answered.Status != 0 {
		return answered, nil
	}
	return Answer{}, last
}

// shown is an instance's URL for people: what follows the question mark may be a secret.
func shown(i *instance) string {
	u := *i.url
	u.RawQuery, u.ForceQuery = "", false
	return u.String()
}

// try asks one instance, within the request's timeout. An answer without a status comes with an error, and only that.
func (c *Caller) try(k *call, i *instance) (Answer, error) {
	ctx, end := context.WithTimeoutCause(k.ctx, k.request.Timeout, ErrTimeout)
	defer end()
	answer, err := c.exchange(ctx, k, i)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	var late net.Error
	switch {
	case err == nil:
		return answer, nil
	case errors.Is(err, ErrTimeout):
		return Answer{}, fmt.Errorf("%w: %s", ErrTimeout, k.request.Timeout)
	case errors.As(err, &late) && late.Timeout(): // of DNS, connecting or TLS
		return Answer{}, fmt.Errorf("%w: %w", ErrTimeout, err)
	default:
		return Answer{}, err
	}
}

// exchange sends the request and reads the answer, at most BodyMax of it.
func (c *Caller) exchange(ctx context.Context, k *call, i *instance) (Answer, error) {
	request, err := c.request(ctx, k, i)
	if err != nil {
		return Answer{}, fmt.Errorf("%w: %w", ErrBadRequest, err)
	}
	// RoundTrip follows no redirects and keeps no cookies: an http.Client would have to be told so.
	response, err := c.transport.RoundTrip(request)
	if err != nil {
		return Answer{}, err
	}
	// What is left unread is not drained: that would take as long as the target likes.
	defer response.Body.Close()
	now := c.opts.Now()
	answer := Answer{Status: response.StatusCode, Header: response.Header, URL: shown(i), RetryAfter: retryAfter(response.Header, now)}
	if answer.Status == http.StatusSwitchingProtocols {
		return answer, nil // its body is the connection, and ends with no context
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, int64(c.opts.BodyMax)+1))
	if err != nil {
		return Answer{}, fmt.Errorf("callout: %d, and then the body broke off: %w", answer.Status, err)
	}
	if answer.Truncated = len(body) > c.opts.BodyMax; answer.Truncated {
		body = body[:c.opts.BodyMax]
	}
	answer.Body = body
	return answer, nil
}

// request makes the HTTP request, signed as of now.
func (c *Caller) request(ctx context.Context, k *call, i *instance) (*http.Request, error) {
	r := &k.request
	request, err := http.NewRequestWithContext(ctx, r.Method, i.url.String(), bytes.NewReader(r.Body))
	if err != nil {
		return nil, err
	}
	h := request.Header
	for name, values := range r.Header {
		h[http.CanonicalHeaderKey(name)] = values
	}
	if r.ContentType != "" {
		h.Set("Content-Type", r.ContentType)
	}
	h.Set("User-Agent", "remit")
	if c.opts.Origin != "" {
		h.Set("User-Agent", "remit ("+c.opts.Origin+")")
		if r.Method == http.MethodOptions {
			h.Set("WebHook-Request-Origin", c.opts.Origin)
		}
	}
	// A name without a value is not sent. It tells the Transport that the request may be repeated when a kept connection turns out to be closed.
	h["Idempotency-Key"] = nil
	now := c.opts.Now()
	h.Set("Webhook-Id", k.id)
	h.Set("Webhook-Timestamp", strconv.FormatInt(now.Unix(), 10))
	h.Del("Webhook-Signature")
	if len(k.signers) > 0 {
		s, err := signature(k.signers, k.id, now, r.Body)
		if err != nil {
			return nil, err
		}
		h.Set("Webhook-Signature", s)
	}
	return request, nil
}

// retryAfter reads Retry-After, seconds or a date (RFC 9110, 10.2.3). A date is held against the answer's own Date: the two clocks may differ.
func retryAfter(h http.Header, now time.Time) time.Duration {
	text := h.Get("Retry-After")
	if text == "" {
		return 0
	}
	if seconds, err := strconv.ParseUint(text, 10, 64); err == nil {
		return time.Duration(min(seconds, uint64(RetryAfterMax/time.Second))) * time.Second
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date
	}
	return min(max(at.Sub(now), 0), RetryAfterMax)
}
