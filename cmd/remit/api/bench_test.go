package api_test

import (
	"bufio"
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// BenchmarkBatch pays by NDJSON on a real disk: a line a payment, over 1000 accounts, by own ids and by names.
func BenchmarkBatch(b *testing.B) {
	for _, named := range []bool{false, true} {
		b.Run(fmt.Sprintf("named=%t", named), func(b *testing.B) { benchmarkBatch(b, named) })
	}
}

func benchmarkBatch(b *testing.B, named bool) {
	const accounts = 1000
	w := newWorldOn(b, vfs.Default, b.TempDir())
	for i := range accounts {
		w.account(fmt.Sprint("a", i), "1000000.00")
	}
	var body bytes.Buffer
	for i := range b.N {
		payer := fmt.Sprint("a", i%accounts)
		id := fmt.Sprint("order-", i)
		if !named {
			id = idFor(payer)
		}
		fmt.Fprintf(&body, `{"id":%q,"payer":%q,"payee":"a%d","amount":"1.00","currency":"USD"}`+"\n", id, payer, (i*7+1)%accounts)
	}
	b.ReportAllocs()
	b.ResetTimer()
	resp, err := w.server.Client().Post(w.server.URL+"/v1/payments:batch?wait=60s", "application/x-ndjson", &body)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b.Fatal(resp.Status)
	}
	lines, n := bufio.NewScanner(resp.Body), 0
	for lines.Scan() {
		if n++; !strings.Contains(lines.Text(), `"status":201`) && !strings.Contains(lines.Text(), `"status":400`) { // a payer may be its payee
			b.Fatal(lines.Text())
		}
	}
	b.StopTimer()
	if n != b.N {
		b.Fatalf("%d answers of %d", n, b.N)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lines/s")
}
