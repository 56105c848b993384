package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/remitlog/remit/cmd/remit/torture"
	"github.com/remitlog/remit/log"
)

// PaymentOptions say how payments are measured.
type PaymentOptions struct {
	Dir      string // a directory of its own
	Server   *torture.Server
	Callers  int // at once; with Batch the batches
	InFlight int // lines of a batch that are not answered, at most
	Rate     float64
	Names    bool // payments by names of the caller's own, else by ids
	Batch    bool // by NDJSON
	OnePayee bool
	Accounts int
	Duration time.Duration // of each side, over all rounds
	Rounds   int
	Say      func(format string, args ...any)
	// Begin and End are called around the load, for a profile.
	Begin, End func()
}

// Lag is how far the views were behind.
type Lag struct {
	// MaxRecords and MaxSeconds are the worst that was seen while the load ran, of any view.
	MaxRecords int64   `json:"maxRecords"`
	MaxSeconds float64 `json:"maxSeconds"`
	// CaughtUpSeconds is how long after the load stopped the last view had all of it, at worst over the rounds.
	CaughtUpSeconds float64 `json:"caughtUpSeconds"`
}

// PaymentReport is what came of it.
type PaymentReport struct {
	How      string  `json:"how"` // single or batch
	With     string  `json:"with"`
	Payees   string  `json:"payees"`
	Callers  int     `json:"callers"`
	InFlight int     `json:"inFlight,omitzero"`
	Rate     float64 `json:"rate"` // 0: closed load
	Payments Figure  `json:"payments"`
	// Ceiling is a bare Pebble that commits the bytes of one payment, with a sync, from as many callers.
	Ceiling Figure  `json:"ceiling"`
	Bytes   int     `json:"bytesPerPayment"`
	Ratio   float64 `json:"ratio"`
	Lag     Lag     `json:"lag"`
	// PeakBytes is the most memory that the server had resident; 0 where it is not known.
	PeakBytes int64 `json:"serverPeakBytes,omitzero"`
	// CPUMicros is the processor time that the server takes for one payment, its views included; it hardly depends on what else runs.
	CPUMicros float64 `json:"serverCpuMicrosPerPayment,omitzero"`
}

// ceilingCallersMax bounds the callers of the ceiling where thousands of payments wait at once.
const ceilingCallersMax = 1024

// Payments measures payments over HTTP, beside the bare commit of the bytes that one puts on the log.
func Payments(ctx context.Context, o PaymentOptions) (report PaymentReport, err error) {
	report = PaymentReport{How: "single", With: "ids", Payees: "many", Callers: o.Callers, Rate: o.Rate}
	writers := o.Callers
	if o.Names {
		report.With = "names"
	}
	if o.OnePayee {
		report.Payees = "one"
	}
	if o.Batch {
		report.How, report.InFlight, writers = "batch", o.InFlight, min(o.Callers*o.InFlight, ceilingCallersMax)
	}
	if report.Bytes, err = bytesOf(ctx, o); err != nil {
		return report, err
	}
	floor, err := openBare(filepath.Join(o.Dir, "bare"), report.Bytes)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, floor.Close()) }()

	p := &payer{PaymentOptions: o, run: strconv.FormatInt(time.Now().UnixNano(), 36)}
	o.Say("opening %d accounts", o.Accounts+1)
	if err := p.open(ctx); err != nil {
		return report, err
	}
	watch := &lagWatch{host: o.Server.HTTP}
	if err := watch.catchUp(ctx); err != nil {
		return report, err
	}
	watch.lag = Lag{}
	ours, theirs := newRecorder(), newRecorder()
	each := o.Duration / time.Duration(o.Rounds)
	var busy time.Duration
	for round := range o.Rounds {
		before := o.Server.CPU()
		o.Begin()
		err := watch.during(ctx, func() error { return p.round(ctx, each, ours) })
		o.End()
		if err == nil {
			err = watch.catchUp(ctx) // and what the server still does does not slow the ceiling
		}
		busy += o.Server.CPU() - before
		if err == nil {
			err = load(ctx, writers, newSchedule(each, 0), theirs, floor.commit)
		}
		if err != nil {
			return report, err
		}
		o.Say("round %d of %d: payments %.0f/s, bare Pebble %.0f/s", round+1, o.Rounds, ours.rounds[round], theirs.rounds[round])
	}
	report.Payments, report.Ceiling = ours.figure("payments"), theirs.figure("bare Pebble")
	report.Ratio = report.Payments.PerSecond / report.Ceiling.PerSecond
	report.Lag = watch.lag
	report.PeakBytes = o.Server.PeakBytes()
	report.CPUMicros = float64(busy.Microseconds()) / float64(max(1, report.Payments.Count))
	return report, nil
}

// payer makes payments.
type payer struct {
	PaymentOptions
	run string // names of one run do not meet those of another
	n   atomic.Int64
}

const onePayee = "bench-payee"

func account(i int) string { return "bench-" + strconv.Itoa(i) }

// open opens the accounts, with more than the load can take from them.
func (p *payer) open(ctx context.Context) error {
	const at = 32
	var next atomic.Int64
	errs := make([]error, at)
	var all sync.WaitGroup
	for i := range at {
		all.Go(func() { errs[i] = p.openSome(ctx, &next) })
	}
	all.Wait()
	return errors.Join(errs...)
}

func (p *payer) openSome(ctx context.Context, next *atomic.Int64) error {
	c, err := dial(ctx, p.Server.HTTP)
	if err != nil {
		return err
	}
	defer c.Close()
	for {
		i := int(next.Add(1) - 1)
		if i > p.Accounts || ctx.Err() != nil {
			return ctx.Err()
		}
		name := account(i)
		if i == p.Accounts {
			name = onePayee
		}
		if _, err := c.expect("PUT", "/v1/accounts/"+name, []byte(`{"currency":"USD"}`), 200, 201); err != nil {
			return err
		}
		if _, err := c.expect("POST", "/v1/accounts/"+name+"/deposits", []byte(`{"id":"open","amount":"1000000000.00"}`), 200, 201); err != nil {
			return err
		}
	}
}

// appendBody appends the body of the next payment: one dollar from any account to any other, or to the one.
func (p *payer) appendBody(b []byte) []byte {
	from := rand.IntN(p.Accounts)
	payer := account(from)
	payee := onePayee
	if !p.OnePayee {
		payee = account((from + 1 + rand.IntN(p.Accounts-1)) % p.Accounts)
	}
	b = append(b, `{"id":"`...)
	if p.Names {
		b = append(append(b, p.run...), '-')
		b = strconv.AppendInt(b, p.n.Add(1), 10)
	} else {
		b = append(b, log.NewID(time.Now(), payer).String()...)
	}
	b = append(append(b, `","payer":"`...), payer...)
	b = append(append(b, `","payee":"`...), payee...)
	return append(b, `","amount":"1.00","currency":"USD"}`...)
}

func (p *payer) round(ctx context.Context, d time.Duration, r *recorder) error {
	if p.Batch {
		return p.batches(ctx, newSchedule(d, p.Rate), r)
	}
	callers := make([]*conn, p.Callers)
	for i := range callers {
		c, err := dial(ctx, p.Server.HTTP)
		if err != nil {
			return fmt.Errorf("bench: %w", err)
		}
		defer c.Close()
		callers[i] = c
	}
	bodies := make([][]byte, p.Callers)
	return load(ctx, p.Callers, newSchedule(d, p.Rate), r, func(_ context.Context, caller int) error {
		bodies[caller] = p.appendBody(bodies[caller][:0])
		_, err := callers[caller].expect("POST", "/v1/payments", bodies[caller], 201)
		return err
	})
}

// lagWatch asks how far the views are behind.
type lagWatch struct {
	host string
	lag  Lag
}

// lagEvery is how often it is asked.
const lagEvery = 100 * time.Millisecond

type viewsAnswer struct {
	Items []struct {
		LagRecords int64   `json:"lagRecords"`
		LagSeconds float64 `json:"lagSeconds"`
	} `json:"items"`
}

// ask returns the worst of all views.
func (w *lagWatch) ask(c *conn) (records int64, seconds float64, err error) {
	body, err := c.expect("GET", "/v1/views?digest=false", nil, 200)
	if err != nil {
		return 0, 0, err
	}
	var a viewsAnswer
	if err := json.Unmarshal(body, &a); err != nil {
		return 0, 0, fmt.Errorf("GET /v1/views: %w", err)
	}
	for _, v := range a.Items {
		records, seconds = max(records, v.LagRecords), max(seconds, v.LagSeconds)
	}
	return records, seconds, nil
}

// during watches while f runs.
func (w *lagWatch) during(ctx context.Context, f func() error) error {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- w.watch(ctx) }()
	err := f()
	cancel()
	return errors.Join(err, <-done)
}

func (w *lagWatch) watch(ctx context.Context) error {
	c, err := dial(context.WithoutCancel(ctx), w.host)
	if err != nil {
		return err
	}
	defer c.Close()
	tick := time.NewTicker(lagEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		records, seconds, err := w.ask(c)
		if err != nil {
			return err
		}
		w.lag.MaxRecords, w.lag.MaxSeconds = max(w.lag.MaxRecords, records), max(w.lag.MaxSeconds, seconds)
	}
}

// catchUpMax is how long views may take to catch up before it is an error.
const catchUpMax = 10 * time.Minute

// catchUp waits until no view is behind.
func (w *lagWatch) catchUp(ctx context.Context) error {
	c, err := dial(ctx, w.host)
	if err != nil {
		return err
	}
	defer c.Close()
	start := time.Now()
	tick := time.NewTicker(lagEvery / 10)
	defer tick.Stop()
	for {
		records, _, err := w.ask(c)
		took := time.Since(start)
		switch {
		case err != nil:
			return err
		case records == 0:
			w.lag.CaughtUpSeconds = max(w.lag.CaughtUpSeconds, took.Seconds())
			return nil
		case took > catchUpMax:
			return fmt.Errorf("bench: views are still %d records behind after %s", records, catchUpMax)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
