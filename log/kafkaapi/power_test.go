package kafkaapi_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/kafkaapi"
)

var cuts = flag.Int("cuts", 8, "power cuts to try")

// K1, K2: a power cut at any moment, with whatever part of the unsynced data the disk kept, takes back nothing that a producer was
// answered or a consumer has read.
func TestPowerCutsUnderLoad(t *testing.T) {
	for seed := range uint64(*cuts) {
		rng := rand.New(rand.NewPCG(seed, 17))
		mem := vfs.NewCrashableMem()
		s := serve(t, kafkaapi.Options{Log: openLog(t, mem)})
		s.topic(t, "t", 2)
		stop, cancel := context.WithCancel(bounded(t))
		var mu sync.Mutex
		known := map[string]int64{} // "partition value" -> offset, of what was acknowledged or read
		note := func(r *kgo.Record) {
			mu.Lock()
			defer mu.Unlock()
			known[fmt.Sprint(r.Partition, " ", string(r.Value))] = r.Offset
		}
		enough, many := make(chan struct{}), 20+rng.IntN(300)
		var tasks sync.WaitGroup
		for p := range 3 {
			c := s.client(t, kgo.RecordPartitioner(kgo.ManualPartitioner()))
			tasks.Go(func() {
				for i := 0; stop.Err() == nil; i++ {
					r := &kgo.Record{Topic: "t", Partition: int32(i % 2), Value: []byte(fmt.Sprintf("%d.%d", p, i))}
					if err := c.ProduceSync(stop, r).FirstErr(); err == nil {
						note(r)
					}
					if p == 0 && i == many {
						close(enough)
					}
				}
			})
		}
		reader := s.client(t, kgo.ConsumeTopics("t"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
		tasks.Go(func() {
			for stop.Err() == nil {
				reader.PollFetches(stop).EachRecord(note)
			}
		})
		<-enough
		// INVARIANT of the test: what is known for sure is looked at before the cut, and more may be true by then.
		mu.Lock()
		sure := maps.Clone(known)
		cut := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
		mu.Unlock()
		cancel()
		tasks.Wait()
		s.close(t)

		l := openLog(t, cut)
		there := map[string]int64{}
		for p := range int32(2) {
			for _, r := range all(t, l, log.Partition{Topic: "t", Index: p}) {
				there[fmt.Sprint(p, " ", string(r.Value))] = int64(r.Offset)
			}
		}
		for k, at := range sure {
			if got, ok := there[k]; !ok || got != at {
				t.Errorf("seed %d: %s was known at %d, and is at %d (%t) after the cut", seed, k, at, got, ok)
			}
		}
		must(t, l.Close())
	}
}

// all reads a partition to its end.
func all(t testing.TB, l log.Log, p log.Partition) (rs []log.Record) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	at, end, err := l.Bounds(ctx, p)
	for err == nil && at < end {
		var more []log.Record
		more, err = l.Read(ctx, p, at, 1<<20)
		rs = append(rs, more...)
		at += log.Offset(len(more))
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	return rs
}
