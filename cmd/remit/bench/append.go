package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/embedded"
	"github.com/remitlog/remit/log/store"
)

// AppendOptions say how the log is measured.
type AppendOptions struct {
	Dir        string // a directory of its own
	Callers    int
	Bytes      int // of a record's value
	Partitions int
	Rate       float64       // appends a second; 0 is closed load
	Duration   time.Duration // of each side, over all rounds
	Rounds     int
	// Say is told what happens.
	Say func(format string, args ...any)
}

// AppendReport is what came of it.
type AppendReport struct {
	Callers int     `json:"callers"`
	Bytes   int     `json:"bytes"`
	Rate    float64 `json:"rate"` // 0: closed load
	Log     Figure  `json:"log"`
	Ceiling Figure  `json:"ceiling"`
	// Ratio is the log's median over the ceiling's.
	Ratio float64 `json:"ratio"`
}

// Append measures the embedded log beside a bare Pebble that commits the same bytes, from the same callers, each with a sync.
func Append(ctx context.Context, o AppendOptions) (report AppendReport, err error) {
	report = AppendReport{Callers: o.Callers, Bytes: o.Bytes, Rate: o.Rate}
	l, err := embedded.Open(embedded.Options{Dir: filepath.Join(o.Dir, "log"), FreeFloorBytes: -1})
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if err := l.CreateTopic(ctx, log.TopicConfig{Name: "bench", Partitions: o.Partitions}); err != nil {
		return report, err
	}
	bare, err := openBare(filepath.Join(o.Dir, "bare"), o.Bytes)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, bare.Close()) }()

	value := filler(o.Bytes)
	var n atomic.Int64
	appendOne := func(ctx context.Context, _ int) error {
		_, err := l.Append(ctx, log.Record{Partition: log.Partition{Topic: "bench", Index: int32(n.Add(1) % int64(o.Partitions))}, Value: value})
		return err
	}
	ours, theirs := newRecorder(), newRecorder()
	each := o.Duration / time.Duration(o.Rounds)
	for round := range o.Rounds {
		if err := load(ctx, o.Callers, newSchedule(each, o.Rate), ours, appendOne); err != nil {
			return report, err
		}
		if err := load(ctx, o.Callers, newSchedule(each, o.Rate), theirs, bare.commit); err != nil {
			return report, err
		}
		o.Say("round %d of %d: log %.0f/s, bare Pebble %.0f/s", round+1, o.Rounds, ours.rounds[round], theirs.rounds[round])
	}
	report.Log, report.Ceiling = ours.figure("embedded log"), theirs.figure("bare Pebble")
	report.Ratio = report.Log.PerSecond / report.Ceiling.PerSecond
	return report, nil
}

// bare is a Pebble that does nothing but commit.
type bare struct {
	*pebble.DB
	values [][]byte
	n      atomic.Uint64
}

// openBare opens one for things of so many bytes, committed in as many steps.
func openBare(dir string, steps ...int) (*bare, error) {
	db, err := pebble.Open(dir, &pebble.Options{MemTableSize: store.MemTableBytesDefault, FormatMajorVersion: store.Format, Logger: quiet{}})
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	b := &bare{DB: db}
	for _, bytes := range steps {
		b.values = append(b.values, filler(bytes))
	}
	return b, nil
}

// commit puts one thing down: a row with a sync for each step, one after the other.
func (b *bare) commit(context.Context, int) error {
	for _, value := range b.values {
		if err := b.put(value); err != nil {
			return err
		}
	}
	return nil
}

func (b *bare) put(value []byte) error {
	batch := b.NewBatch()
	defer batch.Close()
	if err := batch.Set(binary.BigEndian.AppendUint64(nil, b.n.Add(1)), value, nil); err != nil {
		return err
	}
	return batch.Commit(pebble.Sync)
}

// filler is bytes that do not compress away.
func filler(n int) []byte {
	value := make([]byte, n)
	for i, x := 0, uint32(1); i < n; i++ {
		x = x*1664525 + 1013904223
		value[i] = byte(x >> 24)
	}
	return value
}

// quiet is Pebble's logger; what is fatal to a store is not to be passed over.
type quiet struct{}

func (quiet) Infof(string, ...any)           {}
func (quiet) Errorf(string, ...any)          {}
func (quiet) Fatalf(format string, a ...any) { panic(fmt.Sprintf(format, a...)) }
