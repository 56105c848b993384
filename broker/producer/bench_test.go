package producer_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/remitlog/remit/broker/producer"
	"github.com/remitlog/remit/broker/producer/producertest"
)

// BenchmarkSend is what the package itself takes for a message: database and remit are in memory.
func BenchmarkSend(b *testing.B) {
	remit := producertest.New()
	p, err := producer.New(newMemory(), producer.Options{Server: producertest.URL, Producer: "shop", Client: remit.Client()})
	if err != nil {
		b.Fatal(err)
	}
	if err := p.Register(b.Context(), producer.Registration{}); err != nil {
		b.Fatal(err)
	}
	var n atomic.Int64
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := p.Send(b.Context(), "orders", placed(fmt.Sprint(n.Add(1))), func(*memoryTx) error { return nil }); err != nil {
				b.Error(err)
			}
		}
	})
}
