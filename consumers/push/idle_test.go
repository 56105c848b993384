package push_test

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/remitlog/remit/consumers/push"
	"github.com/remitlog/remit/log"
)

// TestIdle: a thousand subscriptions that have nothing to do cost three goroutines each, and do nothing: neither calls, nor commits, nor looks at the log beyond
// those at their topics, however many read them (W6).
func TestIdle(t *testing.T) {
	const subscriptions = 1000
	bubble(t, func(t *testing.T, w *world) {
		looks := &lookedAt{}
		w.wrap = func(l log.Log) log.Log { looks.Log = l; return looks }
		w.topic("orders", 16)
		s := w.sink(shop.Sink)
		w.mu.Lock()
		for i := range subscriptions {
			w.subs = append(w.subs, push.Subscription{Name: fmt.Sprint("shop", i), Topic: "orders", Sink: s.url, Registered: time.Now(),
				Interval: time.Second, MaxInterval: time.Minute, Deadline: time.Hour})
		}
		w.mu.Unlock()
		before := runtime.NumGoroutine()
		w.start()
		pass(5 * time.Second)
		if n := (runtime.NumGoroutine() - before); n > 3*subscriptions+50 {
			t.Errorf("%d goroutines for %d subscriptions", n, subscriptions)
		}
		commits, calls := w.commits, s.now().asked
		looks.n.Store(0)
		pass(time.Hour)
		if n := looks.n.Load(); n > 3*3600 { // once a second at each of the topic and its replay topic
			t.Errorf("the log was looked at %d times in an idle hour", n)
		}
		if w.commits != commits || s.now().asked != calls {
			t.Errorf("%d commits, %d calls in an idle hour", w.commits-commits, s.now().asked-calls)
		}
		w.event("orders", "a", "a1")
		pass(time.Second)
		if len(s.now().got) != subscriptions {
			t.Errorf("%d of %d got it", len(s.now().got), subscriptions)
		}
	})
}

// lookedAt counts calls of a Log.
type lookedAt struct {
	log.Log
	n atomic.Int64
}

func (l *lookedAt) Topic(ctx context.Context, name string) (log.TopicConfig, error) {
	l.n.Add(1)
	return l.Log.Topic(ctx, name)
}

func (l *lookedAt) Bounds(ctx context.Context, p log.Partition) (first, end log.Offset, err error) {
	l.n.Add(1)
	return l.Log.Bounds(ctx, p)
}

func (l *lookedAt) Read(ctx context.Context, p log.Partition, from log.Offset, maxBytes int) ([]log.Record, error) {
	l.n.Add(1)
	return l.Log.Read(ctx, p, from, maxBytes)
}
