package consumers_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/remitlog/remit/consumers"
	"github.com/remitlog/remit/consumers/consumerstest"
	"github.com/remitlog/remit/log"
)

// BenchmarkConsume is what the package itself takes for a delivery: 16 partitions, 1,000 keys, a handler that does nothing.
func BenchmarkConsume(b *testing.B) {
	const partitions = 16
	broker := consumerstest.NewBroker(map[string]int{"orders": partitions})
	for i := range b.N {
		key := fmt.Sprint("k", i%1000)
		broker.Append(record(log.Partition{Topic: "orders", Index: log.KeyPartition(key, partitions)}, key, fmt.Sprint(i)))
	}
	ctx, stop := context.WithCancel(b.Context())
	n := 0
	consumer, err := consumers.New(consumers.Options{
		Reader: broker.Reader(), Group: "shop", Topics: []string{"orders"},
		Handler: func(context.Context, consumers.Delivery) error { return nil },
		Listener: consumers.Listener{Committed: func(next map[log.Partition]log.Offset) {
			n = 0
			for i := range int32(partitions) {
				n += int(broker.Committed("shop", log.Partition{Topic: "orders", Index: i}))
			}
			if n == b.N {
				stop()
			}
		}},
		CommitEvery: 1e6,
	})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	if err := consumer.Run(ctx); err != nil {
		b.Fatal(err)
	}
}
