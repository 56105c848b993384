package embedded

import (
	"context"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/store"
)

// 256 callers, records of 300 bytes, a sync each: the log over 16 partitions, and bare Pebble doing the same.
func BenchmarkAppend256(b *testing.B) {
	value := make([]byte, 300)
	for i := range value {
		value[i] = byte(i * 7)
	}
	b.Run("log", func(b *testing.B) {
		l, err := Open(Options{Dir: b.TempDir(), FreeFloorBytes: -1})
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		if err := l.CreateTopic(context.Background(), log.TopicConfig{Name: "t", Partitions: 16}); err != nil {
			b.Fatal(err)
		}
		callers(b, 256, func(i int) error {
			_, err := l.Append(context.Background(), log.Record{Partition: log.Partition{Topic: "t", Index: int32(i % 16)}, Value: value})
			return err
		})
	})
	b.Run("pebble", func(b *testing.B) {
		db, err := pebble.Open(b.TempDir(), &pebble.Options{MemTableSize: store.MemTableBytesDefault, FormatMajorVersion: store.Format, Logger: quiet{}})
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = db.Close() }()
		callers(b, 256, func(i int) error {
			batch := db.NewBatch()
			_ = batch.Set(binary.BigEndian.AppendUint64(nil, uint64(i)), value, nil)
			err := batch.Commit(pebble.Sync)
			_ = batch.Close()
			return err
		})
	})
}

func callers(b *testing.B, n int, f func(int) error) {
	b.ReportAllocs()
	b.ResetTimer()
	var i atomic.Int64
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			for {
				at := i.Add(1)
				if at > int64(b.N) {
					return
				}
				if err := f(int(at)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "appends/s")
}

type quiet struct{}

func (quiet) Infof(string, ...any)      {}
func (quiet) Errorf(string, ...any)     {}
func (quiet) Fatalf(f string, a ...any) { panic(f) }
