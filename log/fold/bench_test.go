package fold

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/remitlog/remit/log"
)

// nowhere is a log that takes everything and keeps nothing: what remains is the runtime itself.
type nowhere struct {
	*memLog
	end log.Offset
}

func (l *nowhere) Append(_ context.Context, records ...log.Record) ([]log.Offset, error) {
	offsets := make([]log.Offset, len(records))
	for i := range offsets {
		offsets[i] = l.end
		l.end++
	}
	return offsets, nil
}

// BenchmarkTurn is the runtime's own share: one partition, turns of what 512 callers ask, a log that costs nothing.
func BenchmarkTurn(b *testing.B) {
	names, ids := make([]string, 1000), make([]string, 1<<20)
	for i := range names {
		names[i] = fmt.Sprint("counter-", i)
	}
	for i := range ids {
		ids[i] = log.NewIDInSlot(time.UnixMilli(int64(i)), 0).String()
	}
	for _, c := range []struct {
		name    string
		command func(i int) Command
	}{
		{"read", func(i int) Command { return sum{names[i%len(names)]} }},              // no event
		{"event", func(i int) Command { return add{name: names[i%len(names)], n: 1} }}, // an event, two rows
		{"owed", func(i int) Command { return promise{ID: ids[i%len(ids)], N: 1} }},    // promised and kept: two events, and an effect
	} {
		b.Run(c.name, func(b *testing.B) {
			w := newWorld(b, 1)
			w.log = &nowhere{memLog: w.mem}
			w.memTable = 64 << 20
			turns := 0
			w.options = func(o *Options) { o.Listener.Turned = func(int32, int, int, int, time.Duration) { turns++ } }
			w.machine = toy{owed: func(id string, _ Look) []Effect {
				return []Effect{{ToSelf: true, Command: keep{id}}}
			}}
			w.open()
			defer w.kill()
			var all sync.WaitGroup
			window := make(chan struct{}, 512)
			done := func(Result) { <-window; all.Done() }
			b.ReportAllocs()
			for i := range b.N {
				all.Add(1)
				window <- struct{}{}
				if err := w.node.Submit(0, c.command(i), done); err != nil {
					b.Fatal(err)
				}
			}
			all.Wait()
			b.ReportMetric(float64(b.N)/float64(max(turns, 1)), "commands/turn")
		})
	}
}
