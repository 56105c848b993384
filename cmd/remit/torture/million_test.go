package torture_test

import (
	"bufio"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/remitlog/remit/cmd/remit/importer"
	"github.com/remitlog/remit/cmd/remit/torture"
)

var millionRows = flag.Int("million-rows", fewRows, "rows that TestMillion imports")

// What a server may take, however much it has taken in. The default's few rows fill no cache: after so little it has far less.
const (
	residentMax    = 1 << 30
	residentFewMax = 400 << 20 // of at most fewRows; measured: 172 MiB
	fewRows        = 5000
	restartMax     = 10 * time.Second
)

// Who is in the generated file. Some are there far more often than others: the first of the merchants 60 times as often as the last.
const (
	millionConsumers = 100_000
	millionMerchants = 2_000
	skew, flat       = 1.1, 100 // of rand.NewZipf
)

// generate writes a file of so many rows with PaySim's columns.
func generate(path string, rows int) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	b := bufio.NewWriter(f)
	rnd := rand.New(rand.NewPCG(*seed, 3))
	consumers, merchants := rand.NewZipf(rnd, skew, flat, millionConsumers-1), rand.NewZipf(rnd, skew, flat, millionMerchants-1)
	fmt.Fprintln(b, "step,type,amount,nameOrig,oldbalanceOrg,newbalanceOrig,nameDest,oldbalanceDest,newbalanceDest,isFraud,isFlaggedFraud")
	for i := range rows {
		from := consumers.Uint64()
		to, typ := fmt.Sprint("M", merchants.Uint64()), "PAYMENT"
		switch n := rnd.IntN(10); {
		case n == 0:
			typ, to = "TRANSFER", fmt.Sprint("C", (from+1+rnd.Uint64N(millionConsumers-1))%millionConsumers)
		case n < 4:
			typ = "CASH_OUT"
		}
		fmt.Fprintf(b, "%d,%s,%d.%02d,C%d,%d,0,%s,%d,0,0,0\n", i/1000, typ, rnd.IntN(200), 1+rnd.IntN(99), from, rnd.IntN(20_000), to, rnd.IntN(20_000))
	}
	if err := b.Flush(); err != nil {
		return err
	}
	return f.Close()
}

// importRows generates a file and imports it. A shorter one begins as a longer one does.
func importRows(t *testing.T, s *torture.Server, rows int) importer.Summary {
	t.Helper()
	path := filepath.Join(t.TempDir(), "million.csv")
	if err := generate(path, rows); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := importer.New(importer.Options{Server: s.URL, Name: filepath.Base(path), In: f, Currency: "USD"})
	if err != nil {
		t.Fatal(err)
	}
	sum, err := m.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// However much is imported: the server's memory is bounded, and after kill -9 it is soon back, with all of it.
func TestMillion(t *testing.T) {
	s, err := torture.Start(t.Context(), torture.Options{Binary: build(t), Data: filepath.Join(t.TempDir(), "data")})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Kill()
	sum := importRows(t, s, *millionRows)
	if sum.Rows != *millionRows || sum.RejectedRows != 0 || sum.Replayed != 0 || sum.Paid < sum.Rows/2 {
		t.Errorf("%d rows, %d paid, refused %v, rejected %v, replayed %d", sum.Rows, sum.Paid, sum.Refused, sum.Rejected, sum.Replayed)
	}
	t.Logf("%d rows in %.1f s, %.0f/s: %d paid, refused %v", sum.Rows, sum.Seconds, float64(sum.Rows)/sum.Seconds, sum.Paid, sum.Refused)
	bounded(t, s, "while it imported")

	s.Kill()
	killed := time.Now()
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	took := time.Since(killed)
	t.Logf("ready %.1f s after kill -9", took.Seconds())
	if took > restartMax {
		t.Errorf("it was ready after %s, more than %s", took, restartMax)
	}
	again := importRows(t, s, min(*millionRows, 1000))
	if again.Replayed != again.Rows || again.Rows == 0 {
		t.Errorf("of %d rows imported again %d were known", again.Rows, again.Replayed)
	}
	bounded(t, s, "after the restart")
}

// bounded fails if the server has had more memory than it may.
func bounded(t *testing.T, s *torture.Server, when string) {
	t.Helper()
	peak := s.PeakBytes()
	if peak == 0 && runtime.GOOS == "linux" {
		t.Fatal("no VmHWM in /proc")
	}
	t.Logf("%d MiB resident at most %s", peak>>20, when)
	most := int64(residentMax)
	if *millionRows <= fewRows {
		most = residentFewMax
	}
	if peak > most {
		t.Errorf("%d MiB resident %s, more than %d", peak>>20, when, most>>20)
	}
}
