package api_test

import (
	"bufio"
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/remitlog/remit/log"
)

// benchEvent appends a half message of the size of an order, with an id of remit's if told.
func benchEvent(b []byte, n int64, withID bool) (line []byte, id string) {
	key := fmt.Sprint("customer-", n%1000)
	id = log.NewID(time.Now(), key).String()
	b = fmt.Appendf(b, `{"specversion":"1.0","id":"order-%d","source":"/bench","type":"com.example.order.placed.v1","datacontenttype":"application/json","partitionkey":%q`, n, key)
	if withID {
		b = fmt.Appendf(b, `,"remitid":%q`, id)
	}
	return fmt.Appendf(b, `,"data":{"order":%d,"total":"12.50","currency":"EUR","note":"%s"}}`, n, strings.Repeat("x", 140)), id
}

// BenchmarkMessages prepares and commits by calls from 256 callers, without the connections: what a message costs behind them.
func BenchmarkMessages(b *testing.B) {
	for _, named := range []bool{false, true} {
		b.Run(fmt.Sprintf("named=%t", named), func(b *testing.B) {
			w := benchWorld(b)
			handler := w.server.Config.Handler
			var n atomic.Int64
			b.ReportAllocs()
			b.SetParallelism(128)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				call := func(want int, path, contentType string, body []byte) string {
					r := httptest.NewRequest("POST", path, bytes.NewReader(body))
					r.Header.Set("Content-Type", contentType)
					a := httptest.NewRecorder()
					if handler.ServeHTTP(a, r); a.Code != want {
						b.Errorf("%s: %d %s", path, a.Code, a.Body)
					}
					return a.Body.String()
				}
				for pb.Next() {
					event, _ := benchEvent(nil, n.Add(1), !named)
					id := call(201, "http://127.0.0.1/v1/topics/orders/messages?producer=shop", log.StructuredContentType, event)[len(`{"id":"`):][:36]
					if a := call(200, "http://127.0.0.1/v1/messages/"+id+"/commit", "application/json", nil); !strings.Contains(a, `"state":"delivered"`) {
						b.Errorf("%s", a)
					}
				}
			})
		})
	}
}

// BenchmarkMessageLines prepares and commits by NDJSON, each commit right behind its event.
func BenchmarkMessageLines(b *testing.B) {
	w := benchWorld(b)
	var body bytes.Buffer
	for i := range b.N {
		line, id := benchEvent(nil, int64(i), true)
		fmt.Fprintf(&body, "%s\n{\"commit\":%q}\n", line, id)
	}
	b.ReportAllocs()
	b.ResetTimer()
	resp, err := w.server.Client().Post(w.server.URL+"/v1/topics/orders/messages:batch?producer=shop", "application/x-ndjson", &body)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	delivered := 0
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if strings.Contains(lines.Text(), `"state":"delivered"`) {
			delivered++
		}
	}
	b.StopTimer()
	if resp.StatusCode != http.StatusOK || delivered != b.N {
		b.Fatalf("%s: %d delivered of %d", resp.Status, delivered, b.N)
	}
}

func benchWorld(b *testing.B) *world {
	w := newWorld(b)
	w.must(201, "PUT", "/v1/topics/orders", `{"partitions":16}`)
	w.must(201, "PUT", "/v1/producers/shop", `{"check":{"url":"http://127.0.0.1:1/check","firstAfter":"1h","deadline":"24h"}}`)
	return w
}
