package api_test

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
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

// BenchmarkSingle pays by single calls of 64 callers on a real disk, with own ids. The callers allocate nothing a call.
func BenchmarkSingle(b *testing.B) {
	const accounts, callers = 1000, 64
	w := newWorldOn(b, vfs.Default, b.TempDir())
	for i := range accounts {
		w.account(fmt.Sprint("a", i), "1000000.00")
	}
	requests := make([][]byte, b.N)
	for i := range requests {
		payer := fmt.Sprint("a", i%accounts)
		body := fmt.Sprintf(`{"id":%q,"payer":%q,"payee":"a%d","amount":"1.00","currency":"USD"}`, idFor(payer), payer, (i+1+i%7)%accounts)
		requests[i] = fmt.Appendf(nil, "POST /v1/payments HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	}
	var conns []net.Conn
	for range callers {
		c, err := net.Dial("tcp", w.server.Listener.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
	}
	b.ReportAllocs()
	b.ResetTimer()
	var next atomic.Int64
	var all sync.WaitGroup
	for _, c := range conns {
		in := bufio.NewReader(c)
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(b.N); i = next.Add(1) - 1 {
				if _, err := c.Write(requests[i]); err != nil {
					b.Error(err)
					return
				}
				if err := paid(in); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "payments/s")
}

// paid reads one answer, of 201.
func paid(in *bufio.Reader) error {
	length, created := 0, false
	for n := 0; ; n++ {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if n == 0 {
			created = bytes.HasPrefix(line, []byte("HTTP/1.1 201"))
		}
		if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			for _, c := range bytes.TrimSpace(value) {
				length = 10*length + int(c-'0')
			}
		}
		if len(line) == len("\r\n") {
			break
		}
	}
	body, err := in.Peek(length)
	if err == nil && !created {
		err = fmt.Errorf("answered %s", strconv.Quote(string(body)))
	}
	if err != nil {
		return err
	}
	_, err = in.Discard(length)
	return err
}
