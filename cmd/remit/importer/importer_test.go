package importer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/remitlog/remit/cmd/remit/api"
	"github.com/remitlog/remit/cmd/remit/core"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/embedded"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/saga/accounts"
)

const header = "step,type,amount,nameOrig,oldbalanceOrg,newbalanceOrig,nameDest,oldbalanceDest,newbalanceDest,isFraud,isFlaggedFraud\n"

// world is remit in memory, behind its API.
type world struct {
	t    testing.TB
	core *core.Core
	http *httptest.Server
}

func newWorld(t testing.TB) *world {
	t.Helper()
	fs := vfs.NewMem()
	fatal := func(err error) { t.Errorf("fatal: %v", err) }
	l, err := embedded.Open(embedded.Options{Dir: "log", FS: fs, Fatal: fatal})
	if err != nil {
		t.Fatal(err)
	}
	c, err := core.Open(t.Context(), core.Options{Log: l, FS: fs, Partitions: 4, Fatal: fatal})
	if err != nil {
		t.Fatal(err)
	}
	s, err := api.New(api.Options{Routes: slices.Concat((&api.Payments{Service: c.Payments}).Routes(), (&api.Accounts{Node: c.Node}).Routes())})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t, c, httptest.NewServer(s)}
	t.Cleanup(func() {
		w.http.Close()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// balances returns those of all accounts, and holds the money against what the core promises: nothing is held, and nothing on its way.
func (w *world) balances() map[string]int64 {
	w.t.Helper()
	all := map[string]int64{}
	transit := int64(0)
	for p := range int32(4) {
		err := w.core.Node.Read(p, func(rows fold.Scanner, _ log.Offset) error {
			accounts.All(rows, func(name string, a accounts.Account) bool {
				if a.Held != 0 {
					w.t.Errorf("%s: %d held", name, a.Held)
				}
				all[name] = a.Balance
				return true
			})
			transit += accounts.Internal(rows, accounts.Transit, "USD")
			return nil
		})
		if err != nil {
			w.t.Fatal(err)
		}
	}
	if transit != 0 {
		w.t.Errorf("%d in transit", transit)
	}
	return all
}

// outcomes collects what became of each row.
type outcomes struct {
	mu    sync.Mutex
	rows  map[int]Outcome
	twice []int
}

func (o *outcomes) row(x Outcome) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, ok := o.rows[x.Line]; ok {
		o.twice = append(o.twice, x.Line)
	}
	o.rows[x.Line] = x
}

// run imports a file.
func (w *world) run(file string, change func(*Options)) (Summary, map[int]Outcome, error) {
	w.t.Helper()
	got := outcomes{rows: map[int]Outcome{}}
	o := Options{Server: w.http.URL, Name: "f.csv", In: strings.NewReader(file), Currency: "USD", Listener: Listener{Row: got.row}}
	if change != nil {
		change(&o)
	}
	m, err := New(o)
	if err != nil {
		w.t.Fatal(err)
	}
	s, err := m.Run(w.t.Context())
	if got.twice != nil {
		w.t.Errorf("rows with two outcomes: lines %v", got.twice)
	}
	return s, got.rows, err
}

func (w *world) mustRun(file string, change func(*Options)) (Summary, map[int]Outcome) {
	w.t.Helper()
	s, rows, err := w.run(file, change)
	if err != nil {
		w.t.Fatal(err)
	}
	return s, rows
}

// serial is what remit must come to: the rows one by one.
type serial struct {
	balances             map[string]int64
	rows                 map[int]Kind
	paid, refused        int
	paidSum, depositeSum int64
}

func serially(t testing.TB, file string) *serial {
	t.Helper()
	m := &serial{balances: map[string]int64{}, rows: map[int]Kind{}}
	r, err := newRowReader(strings.NewReader(file), "USD")
	if err != nil {
		t.Fatal(err)
	}
	for {
		x, err := r.next()
		if err != nil {
			break
		}
		for _, o := range x.openings {
			m.balances[o.account] = o.deposit
			m.depositeSum += o.deposit
		}
		if m.balances[x.payer] < x.amount {
			m.rows[x.line] = Refused
			m.refused++
			continue
		}
		m.balances[x.payer] -= x.amount
		m.balances[x.payee] += x.amount
		m.rows[x.line] = Paid
		m.paid++
		m.paidSum += x.amount
	}
	return m
}

func (m *serial) check(t testing.TB, s Summary, rows map[int]Outcome, balances map[string]int64) {
	t.Helper()
	if s.Paid != m.paid || s.RefusedRows() != m.refused || s.Rows != len(m.rows) {
		t.Errorf("%+v, serially %d paid and %d refused of %d", s, m.paid, m.refused, len(m.rows))
	}
	if want := accounts.FormatAmount(m.paidSum, "USD"); s.PaidSum != want {
		t.Errorf("paidSum %s, serially %s", s.PaidSum, want)
	}
	if want := accounts.FormatAmount(m.depositeSum, "USD"); s.DepositedSum != want {
		t.Errorf("depositedSum %s, serially %s", s.DepositedSum, want)
	}
	for line, want := range m.rows {
		if got := rows[line]; got.Kind != want {
			t.Errorf("line %d: %+v, serially %s", line, got, want)
		}
	}
	for name, want := range m.balances {
		if got, ok := balances[name]; !ok || got != want {
			t.Errorf("%s has %d, serially %d", name, got, want)
		}
	}
	if len(balances) != len(m.balances) {
		t.Errorf("%d accounts, serially %d", len(balances), len(m.balances))
	}
}

// chains makes a file of rows over a few accounts: long chains, a few payees that most are paid to, many refusals.
func chains(seed uint64, rows, names int) string {
	rnd := rand.New(rand.NewPCG(seed, 1))
	zipf := rand.NewZipf(rnd, 1.3, 2, uint64(names-1))
	name := func(i int) string {
		if i%5 == 0 {
			return fmt.Sprintf("M%d", i)
		}
		return fmt.Sprintf("C%d", i)
	}
	kinds := []string{"PAYMENT", "TRANSFER", "CASH_OUT", "DEBIT", "CASH_IN"}
	var b strings.Builder
	b.WriteString(header)
	for range rows {
		from, to := rnd.IntN(names), int(zipf.Uint64())
		if from == to {
			to = (to + 1) % names
		}
		fmt.Fprintf(&b, "1,%s,%d.%02d,%s,%d.5,0,%s,%d,0,0,0\n", kinds[rnd.IntN(len(kinds))], rnd.IntN(400), 1+rnd.IntN(99),
			name(from), rnd.IntN(1000), name(to), rnd.IntN(1000))
	}
	return b.String()
}

// I1, I2.
func TestSerial(t *testing.T) {
	file := chains(7, 5000, 50)
	want := serially(t, file)
	if want.refused < 1000 || want.paid < 1000 {
		t.Fatalf("the file is not what it is meant to be: %d paid, %d refused", want.paid, want.refused)
	}
	w := newWorld(t)
	s, rows := w.mustRun(file, nil)
	before := w.balances()
	want.check(t, s, rows, before)
	if s.Replayed != 0 {
		t.Errorf("%d replayed at first", s.Replayed)
	}
	s, rows = w.mustRun(file, nil)
	want.check(t, s, rows, w.balances())
	if s.Replayed != s.Rows {
		t.Errorf("%d of %d replayed", s.Replayed, s.Rows)
	}
}

// I4: however little is in memory at once, the outcome is the same.
func TestSmall(t *testing.T) {
	file := chains(8, 400, 20)
	want := serially(t, file)
	for _, size := range []int{1, 2, 7} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			w := newWorld(t)
			s, rows := w.mustRun(file, func(o *Options) { o.WindowMax, o.InFlightMax, o.Streams, o.Openers = size, size, size, size })
			want.check(t, s, rows, w.balances())
		})
	}
}

func paysim(t *testing.T) string {
	t.Helper()
	shared := os.Getenv("REMIT_SHARED")
	if shared == "" {
		t.Skip("REMIT_SHARED is not set: it is the directory that has data/paysim.csv")
	}
	b, err := os.ReadFile(filepath.Join(shared, "data", "paysim.csv"))
	if err != nil {
		t.Skipf("the file is not there: %v", err)
	}
	return string(b)
}

func TestPaySim(t *testing.T) {
	file := paysim(t)
	w := newWorld(t)
	for i := range 2 {
		s, rows := w.mustRun(file, func(o *Options) { o.Name = "paysim.csv" })
		if s.Rows != 5000 || s.Paid != 2824 || len(s.Refused) != 1 || s.Refused["insufficient_funds"] != 2176 ||
			s.PaidSum != "1023148749.95" || s.DepositedSum != "10557628793.46" || len(s.Rejected) != 0 || s.Replayed != i*5000 {
			t.Errorf("run %d: %+v", i+1, s)
		}
		serially(t, file).check(t, s, rows, w.balances())
	}
}

// Rows that cannot be taken are rejected with their line and why; the rest goes on.
func TestRejected(t *testing.T) {
	const long = "C123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
	for _, c := range []struct{ row, reason string }{
		{"1,PAYMENT,-5,C1,10,0,M1,0,0,0,0", "amount: "},
		{"1,PAYMENT,0,C1,10,0,M1,0,0,0,0", "nothing to pay"},
		{"1,PAYMENT,0.00E5,C1,10,0,M1,0,0,0,0", "nothing to pay"},
		{"1,PAYMENT,1.005,C1,10,0,M1,0,0,0,0", "never rounded"},
		{"1,PAYMENT,1.23456E3,C1,10,0,M1,0,0,0,0", ""},
		{"1,PAYMENT,1.23456E2,C1,10,0,M1,0,0,0,0", "never rounded"},
		{"1,PAYMENT,NaN,C1,10,0,M1,0,0,0,0", "amount: "},
		{"1,PAYMENT,\"1,5\",C1,10,0,M1,0,0,0,0", "amount: "},
		{"1,PAYMENT,1e300,C1,10,0,M1,0,0,0,0", "at most"},
		{"1,PAYMENT,5,C1,-10,0,M1,0,0,0,0", "oldbalanceOrg: "},
		{"1,TRANSFER,5,C1,10,0,C2,x,0,0,0", "oldbalanceDest: "},
		{"1,PAYMENT,5,C1,10,x,M1,x,0,y,0", ""}, // what is not used may be anything
		{"1,LOAN,5,C1,10,0,M1,0,0,0,0", "type: "},
		{"1,,5,C1,10,0,M1,0,0,0,0", "type: "},
		{"1,payment,5,C1,10,0,M1,0,0,0,0", "type: "},
		{"1,PAYMENT,5,C1,10,0,M1,0,0,0", "10 columns"},
		{"1,PAYMENT,5,C1,10,0,M1,0,0,0,0,0", "12 columns"},
		{"1,PAYMENT,5,,10,0,M1,0,0,0,0", "no name"},
		{"1,PAYMENT,5,C 1,10,0,M1,0,0,0,0", "no name"},
		{"1,PAYMENT,5," + long + ",10,0,M1,0,0,0,0", "no name"},
		{"1,PAYMENT,5,C1,10,0,C1,0,0,0,0", "itself"},
		{"1,PAYMENT,\"5,C1,10,0,M1,0,0,0,0", "quote"},
		{"\"1\",\"PAYMENT\",\"5\",C1,10,0,\"M1\",0,0,0,0", ""},
		{"1,PAYMENT,5,C1,10,0,M1,0,0,0,0\r", ""},
		{strings.Repeat("x", lineMax+1), "longer than"},
	} {
		r, err := newRowReader(strings.NewReader(header+"\n"+c.row+"\n1,DEBIT,1,C8,1,0,C9,0,0,0,0\n"), "USD")
		if err != nil {
			t.Fatal(err)
		}
		x, err := r.next()
		switch {
		case c.reason == "" && (err != nil || x.line != 3):
			t.Errorf("%.80s: %+v, %v", c.row, x, err)
		case c.reason != "" && (err == nil || !strings.Contains(err.Error(), "line 3: ") || !strings.Contains(err.Error(), c.reason)):
			t.Errorf("%.80s: %v, not %q", c.row, err, c.reason)
		}
		if x, err = r.next(); err != nil || x.line != 4 || x.payer != "C8" {
			t.Errorf("%.80s: after it %+v, %v", c.row, x, err)
		}
	}
}

// Rows are counted where they belong, and what was rejected opens nothing.
func TestRejectedGoesOn(t *testing.T) {
	w := newWorld(t)
	s, rows := w.mustRun(header+
		"1,PAYMENT,-1,C1,99,0,M1,0,0,0,0\n"+
		"1,PAYMENT,1.5E1,C1,2e1,0,M1,7,0,0,0\n"+
		"nonsense\n"+
		"1,PAYMENT,15,C1,5,0,M1,0,0,0,0\n"+
		"1,CASH_IN,3,C2,0,0,M1,7,0,0,0\n", nil)
	want := Summary{Rows: 5, Paid: 2, Refused: map[string]int{"insufficient_funds": 1}, PaidSum: "18.00", DepositedSum: "20.00", RejectedRows: 2}
	if s.Rows != want.Rows || s.Paid != want.Paid || s.RefusedRows() != 1 || s.PaidSum != want.PaidSum || s.DepositedSum != want.DepositedSum ||
		len(s.Rejected) != 2 || s.Rejected[0].Line != 2 || s.Rejected[1].Line != 4 {
		t.Errorf("%+v", s)
	}
	if rows[5].Reason != "insufficient_funds" {
		t.Errorf("%+v", rows)
	}
	if b := w.balances(); b["C1"] != 500 || b["M1"] != 1200 || b["C2"] != 300 {
		t.Errorf("%v", b)
	}
}

// A file of the same name with other content does not become a mixture in silence.
func TestOtherContent(t *testing.T) {
	w := newWorld(t)
	w.mustRun(header+"1,PAYMENT,5,C1,10,0,M1,0,0,0,0\n", nil)
	s, _ := w.mustRun(header+"1,PAYMENT,6,C1,10,0,M1,0,0,0,0\n", nil)
	if s.Conflicts != 1 || len(s.Rejected) != 1 || !strings.Contains(s.Rejected[0].Reason, "content_mismatch") {
		t.Errorf("%+v", s)
	}
	s, _ = w.mustRun(header+"1,PAYMENT,5,C1,11,0,M1,0,0,0,0\n", nil)
	if s.Conflicts != 1 || !strings.Contains(s.Rejected[0].Reason, "account C1") {
		t.Errorf("%+v", s)
	}
	if b := w.balances(); b["C1"] != 500 || b["M1"] != 500 {
		t.Errorf("%v", b)
	}
}

func TestHeader(t *testing.T) {
	for _, file := range []string{"", "a,b\n1,2\n", "1,PAYMENT,5,C1,10,0,M1,0,0,0,0\n", strings.Repeat("x", 1<<20)} {
		if _, err := newRowReader(strings.NewReader(file), "USD"); !errors.Is(err, ErrHeader) || !strings.Contains(err.Error(), "line 1") && file != "" {
			t.Errorf("%q: %v", file, err)
		}
	}
	r, err := newRowReader(strings.NewReader("\xef\xbb\xbfnameDest,nameOrig,amount,type,oldbalanceDest,oldbalanceOrg\r\nM1,C1,5,PAYMENT,0,10"), "USD")
	if err != nil {
		t.Fatal(err)
	}
	if x, err := r.next(); err != nil || x.payer != "C1" || x.payee != "M1" || x.amount != 500 {
		t.Errorf("%+v %v", x, err)
	}
}

// flaky is a way to a server on which every connection breaks after some bytes of its answers, or before any.
func flaky(t *testing.T, server string, seed uint64) (address string) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	rnd := rand.New(rand.NewPCG(seed, 2))
	all.Go(func() {
		for {
			here, err := l.Accept()
			if err != nil {
				return
			}
			there, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(server, "http://"))
			if err != nil {
				t.Error(err)
				return
			}
			budget := int64(100 + rnd.IntN(40_000))
			mute := rnd.IntN(4) == 0 // it ends before there is any answer
			hangUp := func() { _, _ = here.Close(), there.Close() }
			all.Go(func() {
				if mute {
					_, _ = here.Read(make([]byte, 4<<10)) // something of the request
				} else {
					_, _ = io.Copy(there, here)
				}
				hangUp()
			})
			all.Go(func() {
				_, _ = io.CopyN(here, there, budget)
				hangUp()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	return "http://" + l.Addr().String()
}

// I1 holds where connections break all the time.
func TestFlaky(t *testing.T) {
	file := chains(9, 1500, 40)
	want := serially(t, file)
	w := newWorld(t)
	transport := &http.Transport{}
	var away atomic.Int64
	s, rows := w.mustRun(file, func(o *Options) {
		o.Server, o.Transport, o.RetryFor, o.RetryFirst, o.InFlightMax = flaky(t, w.http.URL, 5), transport, time.Hour, true, 32
		o.Listener.Away = func(error, time.Duration) { away.Add(1) }
	})
	want.check(t, s, rows, w.balances())
	if away.Load() == 0 {
		t.Error("nothing broke")
	}
}

func TestAway(t *testing.T) {
	w := newWorld(t)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	_, _, err := w.run(chains(1, 5, 5), func(o *Options) { o.Server, o.RetryFor = gone.URL, 1<<40 })
	if e := (*UnavailableError)(nil); !asUnavailable(err, &e) {
		t.Errorf("%v", err)
	}
}

// TestNotTaken: a server that is there and can take nothing, its disk being full, rejects no row. The import ends, and says why.
func TestNotTaken(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		name string
		full func(*http.Request) bool
	}{
		{"openings", func(r *http.Request) bool { return r.Method == "PUT" }},
		{"deposits", func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/deposits") }},
		{"payments", func(r *http.Request) bool { return r.URL.Path == "/v1/payments:batch" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			full := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if !c.full(r) {
					w.http.Config.Handler.ServeHTTP(rw, r)
					return
				}
				rw.Header().Set("Content-Type", "application/problem+json")
				rw.Header().Set("Connection", "close") // net/http would wait for the rest of the rows first
				rw.WriteHeader(503)
				_, _ = rw.Write([]byte(`{"status":503,"code":"disk_full","detail":"nothing was written","retryable":true}`))
			}))
			defer full.Close()
			s, rows, err := w.run(chains(1, 50, 10), func(o *Options) { o.Server, o.Name, o.RetryFor = full.URL, c.name, 1 })
			if e := (*UnavailableError)(nil); !asUnavailable(err, &e) || !e.Answered() || !strings.Contains(err.Error(), "disk_full") {
				t.Errorf("%v", err)
			}
			if s.RejectedRows != 0 || s.Rows != 0 {
				t.Errorf("%d rows, %d rejected: %v", s.Rows, s.RejectedRows, rows)
			}
		})
	}
}

// It ends when it is told to, at any moment.
func TestCancel(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	rows := 0
	var mu sync.Mutex
	m, err := New(Options{Server: w.http.URL, Name: "f", In: bytes.NewReader([]byte(chains(3, 2000, 50))), Currency: "USD", WindowMax: 64,
		Listener: Listener{Row: func(Outcome) {
			mu.Lock()
			defer mu.Unlock()
			if rows++; rows == 100 {
				cancel()
			}
		}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Run(ctx); err != context.Canceled {
		t.Errorf("%v", err)
	}
}

func asUnavailable(err error, e **UnavailableError) bool {
	got, ok := err.(*UnavailableError)
	*e = got
	return ok
}

func TestName(t *testing.T) {
	for _, name := range []string{"", "my file.csv", "ä.csv", strings.Repeat("x", 120)} {
		if _, err := New(Options{Name: name, Currency: "USD"}); err == nil {
			t.Errorf("%q is taken", name)
		}
	}
}
