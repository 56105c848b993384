package demo

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/remitlog/remit/cmd/remit/api"
	"github.com/remitlog/remit/cmd/remit/torture"
	"github.com/remitlog/remit/saga/accounts"
)

const (
	// PaymentsDefault is a few thousand.
	PaymentsDefault = 3000
	callers         = 32
	callTimeout     = 30 * time.Second // of one try
	answerMax       = 2 * time.Minute  // of all tries of one call
	pause           = 20 * time.Millisecond
	caughtUpMax     = 30 * time.Second
)

// Options of a demo.
type Options struct {
	Dir      string // scratch, and empty
	Seed     uint64
	Payments int
	// Say tells a stage, Progress how far one is.
	Say      func(format string, args ...any)
	Progress func(done, all int)
	// Show shows a payment, and what the views say of a consumer and a merchant, while the server runs.
	Show func(ctx context.Context, s Shown) error
	// Server overrides what is run; Data is set by the demo.
	Server torture.Options
}

// Shown is what is to be shown.
type Shown struct{ URL, Payment, Consumer, Merchant string }

// Report is what came of it.
type Report struct {
	Payments int `json:"payments"`
	Paid     int `json:"paid"`
	Refused  int `json:"refused"`
	Voided   int `json:"voided"`
	Refunds  int `json:"refunds"`
	Repeated int `json:"repeated"` // asked for twice, answered the same
	Resent   int `json:"resent"`   // calls that the kill left without an answer
	Messages int `json:"messages"` // on topic payments
	Events   int `json:"events"`
	Accounts int `json:"accounts"`
	// Deposited is what all balances come to.
	Deposited string  `json:"deposited"`
	Seconds   float64 `json:"seconds"`
}

// BrokenError says which invariants do not hold.
type BrokenError struct{ Broken []string }

func (e *BrokenError) Error() string {
	return "demo: what must always hold does not:\n" + strings.Join(e.Broken, "\n")
}

// Run runs the demo; a *BrokenError says that remit did not keep what it promises.
func Run(ctx context.Context, o Options) (r Report, err error) {
	start := time.Now()
	d := &demo{Options: o, plan: newPlan(o.Seed, o.Payments), http: newHTTP(), fate: map[string]api.Payment{}}
	o.Server.Data = filepath.Join(o.Dir, "data")
	o.Say("starting a server, with its data in %s", o.Server.Data)
	server, err := torture.Start(ctx, o.Server)
	if err != nil {
		return r, err
	}
	d.server = server
	d.up(server.URL)
	stopped := false
	defer func() {
		if !stopped {
			server.Kill()
		}
	}()
	if err := d.run(ctx); err != nil {
		return d.report, err
	}
	o.Say("stopping the server, and holding what it left against what must be")
	stopped = true
	if err := server.Stop(); err != nil {
		return d.report, err
	}
	err = d.inspect(ctx, o.Server.Data)
	d.report.Seconds = time.Since(start).Round(time.Millisecond).Seconds()
	return d.report, err
}

type demo struct {
	Options
	plan   plan
	server *torture.Server
	http   *http.Client
	report Report
	done   atomic.Int64
	resent atomic.Int64

	mu     sync.Mutex
	url    string        // "" while the server is down
	back   chan struct{} // closed when it is up again
	fate   map[string]api.Payment
	refund int
	broken []string
}

func newHTTP() *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConns, t.MaxIdleConnsPerHost = 0, callers
	return &http.Client{Transport: t, Timeout: callTimeout}
}

func (d *demo) brokenf(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.broken = append(d.broken, fmt.Sprintf(format, args...))
}

// up and down say whether there is a server to call.
func (d *demo) up(url string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.url = url
	if d.back != nil {
		close(d.back)
		d.back = nil
	}
}

func (d *demo) down() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.url, d.back = "", make(chan struct{})
}

// address waits until there is a server.
func (d *demo) address(ctx context.Context) (string, error) {
	for {
		d.mu.Lock()
		url, back := d.url, d.back
		d.mu.Unlock()
		if url != "" {
			return url, nil
		}
		select {
		case <-back:
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

func (d *demo) run(ctx context.Context) error {
	d.Say("opening %d consumers with deposits, and %d merchants", len(d.plan.consumers), len(d.plan.merchants))
	all := append(append([]account{}, d.plan.consumers...), d.plan.merchants...)
	if err := d.each(ctx, len(all), func(ctx context.Context, i int) error { return d.open(ctx, all[i]) }); err != nil {
		return err
	}
	n := len(d.plan.payments)
	d.Say("making %d payments from %d callers; half way the server is killed with SIGKILL, and started again", n, callers)
	killed := make(chan error, 1)
	half := make(chan struct{})
	go func() { killed <- d.killAt(ctx, half) }()
	err := d.each(ctx, n, func(ctx context.Context, i int) error {
		if err := d.pay(ctx, d.plan.payments[i]); err != nil {
			return err
		}
		done := d.done.Add(1)
		if done == int64(n/2) {
			close(half)
		}
		d.Progress(int(done), n)
		return nil
	})
	if err != nil {
		return err
	}
	if err := <-killed; err != nil {
		return err
	}
	d.count()
	d.Say("%d paid, %d refused, %d voided, %d refunded; %d asked for twice; %d calls had no answer and were sent again",
		d.report.Paid, d.report.Refused, d.report.Voided, d.report.Refunds, d.report.Repeated, d.report.Resent)
	if err := d.caughtUp(ctx); err != nil {
		return err
	}
	return d.show(ctx)
}

// killAt kills the server when half is closed, and starts it again.
func (d *demo) killAt(ctx context.Context, half <-chan struct{}) error {
	select {
	case <-half:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	d.down()
	d.server.Kill()
	start := time.Now()
	if err := d.server.Start(ctx); err != nil {
		return err
	}
	d.up(d.server.URL)
	d.Say("killed and started again: ready after %s", time.Since(start).Round(time.Millisecond))
	return nil
}

// each does n things, callers at a time. The first error ends it.
func (d *demo) each(ctx context.Context, n int, do func(context.Context, int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(n) && ctx.Err() == nil; i = next.Add(1) - 1 {
				if err := do(ctx, int(i)); err != nil {
					cancel(err)
				}
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

// call makes one call, again and again until it is answered: every call here may be repeated.
func (d *demo) call(ctx context.Context, method, path string, in, out any) (status int, err error) {
	body, err := json.Marshal(in)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerMax)
	defer cancel()
	for again := false; ; again = true {
		url, err := d.address(ctx)
		if err != nil {
			return 0, fmt.Errorf("demo: %s %s: no server: %w", method, path, err)
		}
		if again {
			d.resent.Add(1)
		}
		status, got, err := d.once(ctx, method, url+path, body)
		if err == nil && status < 500 && status != http.StatusTooManyRequests {
			if err := json.Unmarshal(got, out); err != nil {
				return status, fmt.Errorf("demo: %s %s was answered %d %s: %w", method, path, status, got, err)
			}
			return status, nil
		}
		if err == nil {
			err = fmt.Errorf("answered %d", status)
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("demo: %s %s: %w", method, path, err)
		case <-time.After(pause): // it is stopping, or starting
		}
	}
}

func (d *demo) once(ctx context.Context, method, url string, body []byte) (status int, got []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if method != http.MethodGet {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := d.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	got, err = io.ReadAll(resp.Body)
	return resp.StatusCode, got, err
}

func unexpected(what string, status int, answer any) error {
	b, _ := json.Marshal(answer)
	return fmt.Errorf("demo: %s was answered %d: %s", what, status, b)
}

func (d *demo) open(ctx context.Context, a account) error {
	var got jsontext.Value
	path := "/v1/accounts/" + a.name
	status, err := d.call(ctx, "PUT", path, api.OpenAccount{Currency: string(currency)}, &got)
	if err == nil && status < 300 && a.deposit > 0 {
		status, err = d.call(ctx, "POST", path+"/deposits", api.CashRequest{ID: "salary", Amount: accounts.FormatAmount(a.deposit, currency)}, &got)
	}
	if err == nil && status >= 300 {
		err = unexpected(a.name, status, got)
	}
	return err
}

// answer is a payment, or a problem that has it.
type answer struct {
	api.Payment
	Code    string       `json:"code"`
	Detail  string       `json:"detail"`
	Refused *api.Payment `json:"payment"`
}

// now is the payment as it was answered.
func (a answer) now() api.Payment {
	if a.Refused != nil {
		return *a.Refused
	}
	return a.Payment
}
