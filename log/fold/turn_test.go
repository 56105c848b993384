package fold

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/remitlog/remit/log"
)

// Commands are decided one after the other, each on the state that the turn's earlier events have made; all events go out
// in one append.
func TestTurnDecidesOnItsEarlierEvents(t *testing.T) {
	w := newWorld(t, 1).open()
	defer w.close()
	commands := make([]Command, 100)
	for i := range commands {
		commands[i] = add{name: "a", n: 1, most: 50}
	}
	commands[60] = sum{"a"}
	results := w.gather(0, commands...)
	for i, r := range results {
		switch {
		case i < 50 && (r.Err != nil || r.Answer != i+1), i == 60 && r.Answer != 50, i >= 50 && i != 60 && !errors.Is(r.Err, errNo):
			t.Errorf("command %d: %+v", i, r)
		case r.End != 51 || r.Partition != 0:
			t.Errorf("command %d ends at %d", i, r.End)
		}
	}
	if n := len(w.mem.appends); n != 2 || len(w.mem.appends[1]) != 50 {
		t.Errorf("%d appends", n)
	}
}

// After an error nothing of a command remains: no event, no delivery, no row, no bytes.
func TestFailedCommandLeavesNothing(t *testing.T) {
	w := newWorld(t, 1)
	w.mem.topics["orders"] = 1
	counted := 0
	w.options = func(o *Options) {
		o.Listener.Turned = func(_ int32, _, _, bytes int, _ time.Duration) { counted += bytes }
	}
	w.open()
	fails := does(func(t *Turn) (any, error) {
		t.Emit(Event{ID: "x", Key: "x", Fact: added{Name: "a", N: 100}})
		t.Emit(Event{ID: "x", Key: "x", Fact: added{Name: "new", N: 100}})
		t.Emit(Event{ID: "x", Key: "x", Fact: added{Name: "a", N: 100}})
		t.Deliver(&log.Event{Data: []byte("no")}, log.Partition{Topic: "orders"}, "x")
		return 7, errNo
	})
	results := w.gather(0, add{name: "a", n: 1}, fails, sum{"a"}, sum{"new"}, add{name: "a", n: 1}, fails)
	for i, want := range []any{1, nil, 1, 0, 2, nil} {
		if results[i].Err == nil && results[i].Answer != want || (results[i].Err != nil) != (want == nil) {
			t.Errorf("command %d: %+v, not %v", i, results[i], want)
		}
	}
	if n := len(w.mem.parts[log.Partition{Topic: "orders"}]); n != 0 {
		t.Errorf("%d records were delivered", n)
	}
	wrote := 0
	for _, records := range w.mem.appends {
		for i := range records {
			wrote += log.RecordLen(&records[i])
		}
	}
	w.close()
	if counted != wrote {
		t.Errorf("turns of %d bytes, %d were written", counted, wrote)
	}
}

// A refused append answers all of the turn with the error; the state is as it was.
func TestRefusedAppend(t *testing.T) {
	core := log.Partition{Topic: coreTopic}
	for _, refusal := range []error{log.ErrDiskFull, log.ErrInvalid, log.ErrTooLarge, &log.TopicError{Partition: core, Err: log.ErrUnknownTopic}} {
		w := newWorld(t, 1).open()
		w.do(0, add{name: "a", n: 1})
		before := rowsOf(t, w.store, 0)
		w.mem.told(func() { w.mem.before = func([]log.Record) error { return refusal } })
		if r, err := w.node.Do(t.Context(), 0, add{name: "a", n: 1}); !errors.Is(err, refusal) || r.End != 1 || r.Answer != nil {
			t.Errorf("%v: %+v, %v", refusal, r, err)
		}
		if after := rowsOf(t, w.store, 0); len(after) != len(before) || w.store.Offset(0) != 1 {
			t.Errorf("%v: rows %q, were %q", refusal, after, before)
		}
		w.mem.told(func() { w.mem.before = nil })
		if got := w.do(0, add{name: "a", n: 1}); got != 2 {
			t.Errorf("%v: then %v", refusal, got)
		}
		w.close()
	}
}

// An append whose outcome is not known, or that fails as no log may fail, stops the node; the restart knows.
func TestUnknownOutcomeStops(t *testing.T) {
	for _, outcome := range []error{log.ErrUnknown, log.ErrClosed, errors.New("something new")} {
		for _, written := range []bool{false, true} {
			w := newWorld(t, 1).open()
			w.do(0, add{name: "a", n: 1})
			fail := func([]log.Record) error { return outcome }
			if written {
				w.mem.after = fail
			} else {
				w.mem.before = fail
			}
			answered := make(chan Result, 2)
			w.submit(0, add{name: "a", n: 1}, func(r Result) { answered <- r })
			if r := <-answered; !errors.Is(r.Err, ErrStopped) {
				t.Errorf("%v: %+v", outcome, r)
			}
			if err := <-w.fatal; !errors.Is(err, outcome) || !errors.Is(w.node.Err(), outcome) {
				t.Errorf("%v: %v", outcome, err)
			}
			if err := w.node.Submit(0, sum{"a"}, nil); !errors.Is(err, ErrStopped) {
				t.Errorf("%v: then %v", outcome, err)
			}
			w.kill()
			w.mem.before, w.mem.after = nil, nil
			w.open()
			want := 1
			if written {
				want = 2
			}
			if got := w.do(0, sum{"a"}); got != want {
				t.Errorf("%v, written %t: after the restart %v", outcome, written, got)
			}
			w.close()
			if len(answered) != 0 {
				t.Errorf("%v: answered twice", outcome)
			}
		}
	}
}

// An append that is refused for a missing topic is decided again without it.
func TestMissingTopic(t *testing.T) {
	w := newWorld(t, 1)
	w.mem.topics["there"] = 1
	var placed []Placed
	w.options = func(o *Options) {
		o.Placed = func(p []Placed) Command { placed = append(placed, p...); return nothing{} }
	}
	w.open()
	var a, b, there int
	results := w.gather(0, add{name: "a", n: 1}, tell{"gone", &a}, tell{"there", &there}, tell{"gone too", &b}, sum{"a"})
	if results[1].Answer != true || results[2].Answer != false || results[3].Answer != true || results[4].Answer != 1 {
		t.Errorf("%+v", results)
	}
	if a != 3 || b != 3 || there != 3 {
		t.Errorf("decided %d, %d, %d times", a, b, there)
	}
	if n := len(w.mem.parts[log.Partition{Topic: "there"}]); n != 1 {
		t.Errorf("%d records are there", n)
	}
	w.mem.told(func() { w.mem.topics["gone"] = 1 })
	if w.do(0, tell{"gone", &a}) != false {
		t.Error("the topic is back, and is missed")
	}
	w.close()
	if len(placed) != 2 || placed[0].ID != "told" || placed[0].Partition.Topic != "there" || placed[1].Partition.Topic != "gone" {
		t.Errorf("placed %v", placed)
	}
}

// The offsets of a log may have gaps: events are folded again at the offsets that they really got.
func TestGappyOffsets(t *testing.T) {
	w := newWorld(t, 1)
	w.mem.gapless = false
	n := log.Offset(0)
	w.mem.gap = func() log.Offset { n++; return n % 4 }
	w.open()
	for range 10 {
		r, err := w.node.Do(t.Context(), 0, add{name: "a", n: 1})
		if err != nil {
			t.Fatal(err)
		}
		c, _ := get(w, 0, counters, "a")
		if last := w.mem.appends[len(w.mem.appends)-1][0]; r.End != c.Last+1 || c.Last != w.mem.parts[last.Partition][len(w.mem.appends)-1].Offset {
			t.Fatalf("ended at %d, row of %d", r.End, c.Last)
		}
	}
	w.gather(0, add{name: "a", n: 1}, add{name: "b", n: 1}, add{name: "a", n: 1})
	w.close()
	w.open()
	if got := w.do(0, sum{"a"}); got != 12 {
		t.Errorf("after the restart %v", got)
	}
	w.close()
}

// Where offsets have no gaps, one that was not expected means that somebody else has written.
func TestSomebodyElseHasWritten(t *testing.T) {
	w := newWorld(t, 1).open()
	w.do(0, add{name: "a", n: 1})
	w.mem.write([]log.Record{w.mem.appends[0][0]})
	_, err := w.node.Do(t.Context(), 0, add{name: "a", n: 1})
	var broken *InvariantError
	if fatal := <-w.fatal; !errors.Is(err, ErrStopped) || !errors.As(fatal, &broken) || broken.Offset != 1 || !strings.Contains(fatal.Error(), coreTopic) {
		t.Errorf("%v, %v", err, fatal)
	}
	w.kill()
	w.open()
	if got := w.do(0, sum{"a"}); got != 3 {
		t.Errorf("after the restart %v", got)
	}
	w.close()
}

// What the log would not take fails alone, and not with all of its turn.
func TestUnfitRecordFailsAlone(t *testing.T) {
	w := newWorld(t, 1)
	w.mem.topics["orders"] = 1
	w.open()
	large := strings.Repeat("x", log.RecordMax)
	many := does(func(t *Turn) (any, error) {
		for range 40 {
			t.Emit(Event{ID: "x", Key: "x", Fact: added{Name: "a", N: 1, Pad: large[:1<<20]}})
		}
		return nil, nil
	})
	deliver := does(func(t *Turn) (any, error) {
		t.Emit(Event{ID: "x", Key: "x", Fact: added{Name: "a", N: 1}})
		t.Deliver(&log.Event{Data: []byte(large + "x")}, log.Partition{Topic: "orders"}, "x")
		return nil, nil
	})
	results := w.gather(0, add{name: "a", n: 1}, add{name: "a", n: 1, pad: large}, add{name: "a\xff", n: 1}, many, deliver, add{name: "a", n: 1})
	for i, r := range results {
		switch {
		case (i == 0 || i == 5) && r.Err != nil, i == 5 && r.Answer != 2:
			t.Errorf("command %d: %+v", i, r)
		case (i == 1 || i == 3 || i == 4) && !errors.Is(r.Err, log.ErrTooLarge), i == 2 && r.Err == nil:
			t.Errorf("command %d: %+v", i, r)
		}
	}
	w.close()
}

// Whatever fails after a turn has landed, its callers are answered once.
func TestAnsweredOnce(t *testing.T) {
	w := newWorld(t, 1)
	w.machine = toy{owed: func(string, Look) []Effect { panic(&InvariantError{Detail: "owed"}) }}
	w.open()
	var answers [3]atomic.Int32
	arrived, release := w.mem.hold()
	w.submit(0, add{name: "a", n: 1}, nil)
	<-arrived
	for i := range answers {
		w.submit(0, promise{ID: string(rune('a' + i)), N: 1}, func(Result) { answers[i].Add(1) })
	}
	release()
	var broken *InvariantError
	if err := <-w.fatal; !errors.As(err, &broken) {
		t.Error(err)
	}
	w.kill()
	for i := range answers {
		if n := answers[i].Load(); n != 1 {
			t.Errorf("command %d was answered %d times", i, n)
		}
	}
}

// A broken invariant stops the node before anything is appended.
func TestBrokenInvariantStops(t *testing.T) {
	w := newWorld(t, 1).open()
	_, err := w.node.Do(t.Context(), 0, add{name: "broken", n: 1})
	var broken *InvariantError
	if fatal := <-w.fatal; !errors.Is(err, ErrStopped) || !errors.As(fatal, &broken) || len(w.mem.appends) != 0 {
		t.Errorf("%v, %v, %d appends", err, fatal, len(w.mem.appends))
	}
	w.kill()
}

// A turn ends when it has bytes enough, and leaves the rest to the next.
func TestTurnBytes(t *testing.T) {
	w := newWorld(t, 1).open()
	commands := make([]Command, 10)
	for i := range commands {
		commands[i] = add{name: "a", n: 1, pad: strings.Repeat("x", 1<<20)}
	}
	for i, r := range w.gather(0, commands...) {
		if r.Err != nil || r.Answer != i+1 {
			t.Errorf("command %d: %v", i, r)
		}
	}
	if n := len(w.mem.appends); n != 4 { // 1, 4, 4, 2
		t.Errorf("%d appends", n)
	}
	w.close()
}

// Doors are bounded; what remit owes itself is not.
func TestBusy(t *testing.T) {
	w := newWorld(t, 1)
	w.options = func(o *Options) { o.QueueMax = 4 }
	w.open()
	arrived, release := w.mem.hold()
	var all sync.WaitGroup
	all.Add(1 + 4 + 100 + 4)
	done := func(Result) { all.Done() }
	w.submit(0, add{name: "a", n: 1}, done)
	<-arrived
	for range 4 {
		w.submit(0, add{name: "a", n: 1}, done)
	}
	if err := w.node.Submit(0, add{name: "a", n: 1}, done); !errors.Is(err, ErrBusy) {
		t.Errorf("a fifth: %v", err)
	}
	for range 100 {
		if err := w.node.submit(0, ask{command: add{name: "b", n: 1}, done: done}); err != nil {
			t.Error(err)
		}
	}
	w.mem.told(func() { w.mem.before = nil })
	release()
	for range 4 {
		for w.node.Submit(0, add{name: "a", n: 1}, done) != nil { // until the turn has begun
			w.do2(t)
		}
	}
	all.Wait()
	if a, b := w.do(0, sum{"a"}), w.do(0, sum{"b"}); a != 9 || b != 100 {
		t.Errorf("a %v, b %v", a, b)
	}
	w.close()
}

// do2 waits for a turn, through no door.
func (w *world) do2(t *testing.T) {
	t.Helper()
	turned := make(chan struct{})
	if err := w.node.submit(0, ask{command: nothing{}, done: func(Result) { close(turned) }}); err != nil {
		t.Fatal(err)
	}
	<-turned
}

func TestNotOwned(t *testing.T) {
	w := newWorld(t, 4)
	w.options = func(o *Options) { o.Owner = owns{1, 3} }
	w.open()
	for p, want := range map[int32]error{-1: ErrNotOwned, 0: ErrNotOwned, 1: nil, 2: ErrNotOwned, 3: nil, 4: ErrNotOwned} {
		if _, err := w.node.Do(t.Context(), p, add{name: "a", n: 1}); !errors.Is(err, want) {
			t.Errorf("partition %d: %v", p, err)
		}
		if err := w.node.Read(p, func(Scanner, log.Offset) error { return nil }); !errors.Is(err, want) {
			t.Errorf("read of partition %d: %v", p, err)
		}
	}
	w.close()
	w.options = func(o *Options) { o.Owner = owns{4} }
	if err := w.tryOpen(); err == nil {
		t.Error("it owns what is not there")
	}
	w.options = func(o *Options) { o.Order = []byte{toyByte, toyByte}; o.Machines['u'] = toy{} }
	if err := w.tryOpen(); err == nil {
		t.Error("a machine is named twice")
	}
}

type owns []int32

func (o owns) Owned() []int32 { return o }

// Close answers all that waits, once, whoever still submits.
func TestCloseAnswersAll(t *testing.T) {
	w := newWorld(t, 4)
	w.options = func(o *Options) { o.QueueMax = 64 }
	w.open()
	var submitters sync.WaitGroup
	var accepted, answered, decided atomic.Int64
	begun := make(chan struct{}, 8)
	for g := range 8 {
		submitters.Go(func() {
			for i := 0; ; i++ {
				err := w.node.Submit(int32((g+i)%4), add{name: "a", n: 1}, func(r Result) {
					answered.Add(1)
					switch {
					case r.Err == nil:
						decided.Add(1)
					case !errors.Is(r.Err, ErrStopped):
						t.Error(r.Err)
					}
				})
				switch {
				case errors.Is(err, ErrStopped):
					return
				case err == nil:
					accepted.Add(1)
				}
				if i == 100 {
					begun <- struct{}{}
				}
			}
		})
	}
	for range 8 {
		<-begun
	}
	w.close()
	submitters.Wait()
	if accepted.Load() != answered.Load() {
		t.Errorf("%d were accepted, %d answered", accepted.Load(), answered.Load())
	}
	on := 0
	for _, records := range w.mem.parts {
		on += len(records)
	}
	if int64(on) != decided.Load() {
		t.Errorf("%d are on the log, %d were told so", on, decided.Load())
	}
}

// What ends while the node closes is not passed over, if it is more than a closed log.
func TestFailureWhileClosing(t *testing.T) {
	w := newWorld(t, 1).open()
	w.mem.told(func() {
		w.mem.before = func([]log.Record) error {
			w.node.cancel()
			return log.ErrUnknown
		}
	})
	if _, err := w.node.Do(t.Context(), 0, add{name: "a", n: 1}); !errors.Is(err, ErrStopped) {
		t.Error(err)
	}
	if err := w.node.Close(); !errors.Is(err, log.ErrUnknown) {
		t.Errorf("closed with %v", err)
	}
	w.kill()
}

// Do gives up with its context, and the command may be decided all the same.
func TestDoGivesUp(t *testing.T) {
	w := newWorld(t, 1).open()
	arrived, release := w.mem.hold()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	if _, err := w.node.Do(ctx, 0, add{name: "a", n: 1}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	release()
	if got := w.do(0, sum{"a"}); got != 1 {
		t.Errorf("then %v", got)
	}
	w.close()
}

// Nobody is answered, and Read shows nothing, before the append has returned (D1).
func TestNothingBeforeTheAppend(t *testing.T) {
	w := newWorld(t, 1).open()
	arrived, release := w.mem.hold()
	early := atomic.Bool{}
	early.Store(true)
	answered := make(chan bool, 1)
	w.submit(0, add{name: "a", n: 1}, func(Result) { answered <- early.Load() })
	<-arrived
	if c, ok := get(w, 0, counters, "a"); ok {
		t.Errorf("read %+v", c)
	}
	early.Store(false)
	release()
	if <-answered {
		t.Error("answered before the append")
	}
	if c, _ := get(w, 0, counters, "a"); c.Sum != 1 {
		t.Errorf("then read %+v", c)
	}
	w.close()
}

// Folded is told of a turn's events when they are on the log and their rows are the state, before anybody is answered; of what was refused, or was
// there at the start, it is not told.
func TestFolded(t *testing.T) {
	w := newWorld(t, 1)
	var heard []string // on the partition's goroutine, and read when it has answered
	w.options = func(o *Options) {
		o.Folded = func(p int32, events []Event) {
			for _, e := range events {
				c, _ := get(w, p, counters, "a")
				_, end, _ := w.mem.Bounds(t.Context(), log.Partition{Topic: coreTopic, Index: p})
				heard = append(heard, fmt.Sprint(e.Offset, " of ", end, " sum ", c.Sum))
			}
		}
	}
	w.open()
	expect := func(want ...string) {
		t.Helper()
		if !slices.Equal(heard, want) {
			t.Errorf("%q, want %q", heard, want)
		}
		heard = nil
	}
	arrived, release := w.mem.hold()
	answered := make(chan Result, 1)
	w.submit(0, add{name: "a", n: 1}, func(r Result) { answered <- r })
	<-arrived
	expect() // not before it is durable
	release()
	<-answered
	expect("0 of 1 sum 1")
	w.do(0, sum{"a"})
	expect() // nothing was appended
	w.mem.told(func() { w.mem.before = func([]log.Record) error { return log.ErrDiskFull } })
	if _, err := w.node.Do(t.Context(), 0, add{name: "a", n: 1}); !errors.Is(err, log.ErrDiskFull) {
		t.Error(err)
	}
	expect()
	w.mem.told(func() { w.mem.before = nil })
	w.gather(0, add{name: "a", n: 1}, does(func(*Turn) (any, error) { return nil, errNo }), add{name: "a", n: 1})
	expect("1 of 2 sum 1", "2 of 4 sum 3", "3 of 4 sum 3") // gather's own, and then a turn
	w.close()
	w.open()
	expect()
	w.close()
}
