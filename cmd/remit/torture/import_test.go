package torture_test

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/remitlog/remit/cmd/remit/importer"
	"github.com/remitlog/remit/cmd/remit/torture"
	"github.com/remitlog/remit/saga/accounts"
)

var (
	kills = flag.Int("kills", 3, "imports, each with a server that is killed while it runs")
	rows  = flag.Int("rows", 300, "rows of the file that is made; 0 takes data/paysim.csv under $REMIT_SHARED")
	rate  = flag.Float64("rate", 500, "rows a second")
	seed  = flag.Uint64("seed", 1, "of the moments")
)

// built is remit, built once for all tests.
var built struct {
	once   sync.Once
	dir    string
	binary string
	err    error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// build builds remit.
func build(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "remit-torture-"); built.err != nil {
			return
		}
		built.binary, built.err = torture.Build(filepath.Join(built.dir, "remit"))
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.binary
}

// file is what is imported.
func file(t *testing.T) string {
	t.Helper()
	if *rows == 0 {
		b, err := os.ReadFile(filepath.Join(os.Getenv("REMIT_SHARED"), "data", "paysim.csv"))
		if err != nil {
			t.Skipf("-rows 0 takes the file from $REMIT_SHARED: %v", err)
		}
		return string(b)
	}
	rnd := rand.New(rand.NewPCG(*seed, 1))
	var b strings.Builder
	b.WriteString("step,type,amount,nameOrig,oldbalanceOrg,newbalanceOrig,nameDest,oldbalanceDest,newbalanceDest,isFraud,isFlaggedFraud\n")
	for range *rows {
		from, to := rnd.IntN(200), rnd.IntN(20)
		fmt.Fprintf(&b, "1,PAYMENT,%d.%02d,C%d,%d,0,M%d,0,0,0,0\n", rnd.IntN(300), 1+rnd.IntN(99), from, rnd.IntN(500), to)
		if from%3 == 0 {
			fmt.Fprintf(&b, "1,TRANSFER,%d,C%d,%d,0,C%d,%d,0,0,0\n", 1+rnd.IntN(200), from, rnd.IntN(500), (from+1+to)%200, rnd.IntN(500))
		}
	}
	return b.String()
}

// run imports once; row is told the rows that have their outcome.
func run(t *testing.T, s *torture.Server, file string, row func(int64)) (importer.Summary, error) {
	t.Helper()
	var n atomic.Int64
	m, err := importer.New(importer.Options{
		Server: s.URL, Name: "f.csv", In: strings.NewReader(file), Currency: "USD", Rate: *rate,
		Listener: importer.Listener{Row: func(importer.Outcome) { row(n.Add(1)) }},
	})
	if err != nil {
		t.Fatal(err)
	}
	sum, err := m.Run(t.Context())
	sum.Seconds, sum.Replayed = 0, 0
	return sum, err
}

// imported imports until it is done; before each of the moments, counted in rows of one run, the server is killed.
func imported(t *testing.T, s *torture.Server, file string, moments []int64) importer.Summary {
	t.Helper()
	for {
		moment := int64(-1)
		if len(moments) > 0 {
			moment, moments = moments[0], moments[1:]
		}
		now := make(chan struct{})
		killed := make(chan struct{})
		go func() {
			defer close(killed)
			select {
			case <-now:
				s.Kill()
			case <-t.Context().Done():
			}
		}()
		sum, err := run(t, s, file, func(n int64) {
			if n == moment {
				close(now)
			}
		})
		if moment < 0 {
			if err != nil {
				t.Fatal(err)
			}
			return sum
		}
		unavailable := (*importer.UnavailableError)(nil)
		if err != nil && !errors.As(err, &unavailable) {
			t.Fatal(err)
		}
		<-killed
		if err := s.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// Whatever is killed when, and however often it is imported again: the same figures, nothing doubled, each payment told once.
func TestImportKilled(t *testing.T) {
	binary, file := build(t), file(t)
	lines := int64(strings.Count(file, "\n") - 1)
	one := func(t *testing.T, moments []int64) importer.Summary {
		t.Helper()
		data := filepath.Join(t.TempDir(), "data")
		s, err := torture.Start(t.Context(), torture.Options{Binary: binary, Data: data})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Kill()
		sum := imported(t, s, file, moments)
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
		a, err := torture.Inspect(t.Context(), data)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range a.Broken {
			t.Error(b)
		}
		if a.Messages != sum.Paid || accounts.FormatAmount(a.Balances["USD"], "USD") != sum.DepositedSum {
			t.Errorf("%d messages, %d on all accounts: %+v", a.Messages, a.Balances["USD"], sum)
		}
		return sum
	}
	want := one(t, nil)
	if int64(want.Rows) != lines || want.Paid == 0 || want.RefusedRows() == 0 {
		t.Fatalf("%+v of %d lines", want, lines)
	}
	t.Logf("figures: %+v", want)
	rnd := rand.New(rand.NewPCG(*seed, 2))
	for k := range *kills {
		t.Run(fmt.Sprint(k), func(t *testing.T) {
			moments := []int64{1 + rnd.Int64N(lines)}
			for rnd.IntN(2) == 0 {
				moments = append(moments, 1+rnd.Int64N(lines))
			}
			if got := one(t, moments); !reflect.DeepEqual(got, want) {
				t.Errorf("killed at rows %v: %+v, not %+v", moments, got, want)
			}
		})
	}
}
