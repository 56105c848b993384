package bench

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
)

// Histograms hold microseconds, from 1 to latencyMax, to 3 digits.
const latencyMax = 120 * time.Second

func newHistogram() *hdr.Histogram { return hdr.New(1, latencyMax.Microseconds(), 3) }

// Latency is a distribution of times, in milliseconds.
type Latency struct {
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}

func latencyOf(h *hdr.Histogram) Latency {
	ms := func(q float64) float64 { return float64(h.ValueAtQuantile(q)) / 1000 }
	return Latency{ms(50), ms(90), ms(99), ms(99.9), float64(h.Max()) / 1000}
}

// Figure is one thing measured, over all rounds.
type Figure struct {
	Name string `json:"name"`
	// PerSecond is the median over the rounds.
	PerSecond float64   `json:"perSecond"`
	Rounds    []float64 `json:"rounds"`
	Count     int64     `json:"count"`
	Latency   Latency   `json:"latencyMs"`
}

// recorder counts what was done, from many goroutines at once.
type recorder struct {
	stripes []stripe
	rounds  []float64
	count   int64
}

type stripe struct {
	mu   sync.Mutex
	h    *hdr.Histogram
	done int64
	_    [64]byte // stripes do not share cache lines
}

func newRecorder() *recorder {
	r := &recorder{stripes: make([]stripe, 16)}
	for i := range r.stripes {
		r.stripes[i].h = newHistogram()
	}
	return r
}

func (r *recorder) record(caller int, took time.Duration) {
	s := &r.stripes[caller%len(r.stripes)]
	s.mu.Lock()
	_ = s.h.RecordValue(min(max(took, time.Microsecond), latencyMax).Microseconds()) // it is within the range
	s.done++
	s.mu.Unlock()
}

// endRound closes a round that took so long.
func (r *recorder) endRound(took time.Duration) {
	var all int64
	for i := range r.stripes {
		all += r.stripes[i].done
	}
	r.rounds = append(r.rounds, float64(all-r.count)/took.Seconds())
	r.count = all
}

func (r *recorder) figure(name string) Figure {
	h := newHistogram()
	for i := range r.stripes {
		h.Merge(r.stripes[i].h)
	}
	return Figure{Name: name, PerSecond: median(r.rounds), Rounds: slices.Clone(r.rounds), Count: r.count, Latency: latencyOf(h)}
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// schedule says when calls are due. Closed: at once. Open: one every 1/rate seconds, however long those before take.
type schedule struct {
	start, end time.Time
	every      time.Duration // 0 is closed
	next       atomic.Int64
}

func newSchedule(d time.Duration, rate float64) *schedule {
	now := time.Now()
	s := &schedule{start: now, end: now.Add(d)}
	if rate > 0 {
		s.every = time.Duration(float64(time.Second) / rate)
	}
	return s
}

// due waits until the next call is to be made, and returns the time it counts from; false when there is none any more.
// hold is called before it waits.
func (s *schedule) due(ctx context.Context, hold func()) (time.Time, bool) {
	now := time.Now()
	if s.every == 0 {
		return now, now.Before(s.end) && ctx.Err() == nil
	}
	due := s.start.Add(time.Duration(s.next.Add(1)-1) * s.every)
	if !due.Before(s.end) {
		return due, false
	}
	if wait := due.Sub(now); wait > 0 {
		hold()
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return due, false
		}
	}
	return due, ctx.Err() == nil
}

// load makes calls from callers at once for a round, and records them.
func load(ctx context.Context, callers int, s *schedule, r *recorder, call func(ctx context.Context, caller int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	for caller := range callers {
		all.Go(func() {
			for {
				from, ok := s.due(ctx, func() {})
				if !ok {
					return
				}
				if err := call(ctx, caller); err != nil {
					cancel(err)
					return
				}
				r.record(caller, time.Since(from))
			}
		})
	}
	all.Wait()
	r.endRound(time.Since(s.start))
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	return nil
}
