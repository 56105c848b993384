package fold

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remitlog/remit/log"
)

// pass lets time go by, in a bubble.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// asked notes what is asked of Owed, and when.
type asked struct {
	mu    sync.Mutex
	first time.Time
	at    map[string][]time.Duration
}

func newAsked() *asked { return &asked{first: time.Now(), at: map[string][]time.Duration{}} }

func (a *asked) note(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at[id] = append(a.at[id], time.Since(a.first))
}

func (a *asked) of(id string) []time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.at[id])
}

func (a *asked) things() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.at)
}

// What is owed survives a restart (F3), and is recorded once.
func TestOwedSurvivesRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		to1 := log.Partition{Topic: coreTopic, Index: 1}
		w.mem.before = func(r []log.Record) error {
			if r[0].Partition == to1 {
				return log.ErrDiskFull
			}
			return nil
		}
		w.open()
		for i := range 20 {
			w.do(0, promise{ID: fmt.Sprintf("%04d", i), To: 1, N: 5})
		}
		pass(time.Second)
		w.close()
		w.open()
		pass(time.Second)
		if c, ok := get(w, 1, counters, "all"); ok {
			t.Errorf("credited %+v", c)
		}
		w.close()
		w.mem.told(func() { w.mem.before = nil })
		w.open()
		pass(time.Second)
		if from, _ := get(w, 0, counters, "all"); from.Sum != -100 {
			t.Errorf("payer has %d", from.Sum)
		}
		if to, _ := get(w, 1, counters, "all"); to.Sum != 100 {
			t.Errorf("payee has %d", to.Sum)
		}
		for key := range rowsOf(t, w.store, 0) {
			if key[0] == dueTable {
				t.Errorf("still due: %q", key)
			}
		}
		w.close()
	})
}

// After a restart what is owed is asked again at a bounded pace, all of it, whatever is decided meanwhile.
func TestPaceAfterRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const open = 3*PaceMax + 17
		w := newWorld(t, 1)
		a := newAsked()
		w.machine = toy{owed: func(string, Look) []Effect { return nil }}
		w.open()
		commands := make([]Command, open)
		for i := range commands {
			commands[i] = promise{ID: fmt.Sprintf("%05d", i)}
		}
		w.gather(0, commands...)
		w.close()

		a.first = time.Now()
		w.machine = toy{owed: func(id string, _ Look) []Effect { a.note(id); return nil }}
		w.open()
		for i := 0; a.things() < open; i++ {
			if i > 100 {
				t.Fatalf("%d of %d were asked again", a.things(), open)
			}
			w.do(0, add{name: "a", n: 1})               // a turn in between, with nothing due,
			w.do(0, promise{ID: fmt.Sprint("new-", i)}) // and one with something
			pass(PaceEvery / 5)
		}
		at := map[time.Duration]int{}
		for i := range open {
			asked := a.of(fmt.Sprintf("%05d", i))
			if len(asked) != 1 {
				t.Fatalf("%d was asked at %v", i, asked)
			}
			at[asked[0]]++
		}
		if len(at) != 4 {
			t.Errorf("asked in %d looks", len(at))
		}
		for d, n := range at {
			if n > PaceMax {
				t.Errorf("%d at %v", n, d)
			}
		}
		pass(time.Second)
		for i := range 3 {
			if asked := a.of(fmt.Sprint("new-", i)); len(asked) != 1 {
				t.Errorf("new %d was asked at %v", i, asked)
			}
		}
		w.close()
	})
}

// A failed effect is started again after a growing delay; several failed ones of one thing do not multiply.
func TestFailedEffectIsStartedAgain(t *testing.T) {
	for _, effects := range []int{1, 3} {
		t.Run(fmt.Sprint(effects, " of a thing"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 1)
				a := newAsked()
				var fails atomic.Bool
				fails.Store(true)
				w.machine = toy{owed: func(id string, _ Look) []Effect {
					a.note(id)
					e := Effect{ToSelf: true, Command: does(func(*Turn) (any, error) {
						if fails.Load() {
							return nil, errNo
						}
						return nil, nil
					}), Answer: func(r Result) Command {
						if r.Err != nil {
							return nil
						}
						return keep{id}
					}}
					return slices.Repeat([]Effect{e}, effects)
				}}
				w.open()
				w.do(0, promise{ID: "x"})
				want, delay, at := []time.Duration{0}, RetryMin, time.Duration(0)
				for at < 5*time.Minute {
					at += delay
					want = append(want, at)
					delay = min(2*delay, RetryMax)
				}
				pass(at + time.Second)
				got := a.of("x")
				if len(got) != len(want) {
					t.Fatalf("asked %d times, not %d: %v", len(got), len(want), got)
				}
				for i := range got {
					late := got[i] - want[i]
					if late < 0 || late > time.Duration(i+1)*2*time.Millisecond {
						t.Errorf("asked at %v, not %v", got[i], want[i])
					}
				}
				fails.Store(false)
				pass(RetryMax)
				if tr, _ := get(w, 0, transfers, "x"); !tr.Kept || len(w.loop(0).again) != 0 {
					t.Errorf("%+v, %d wait", tr, len(w.loop(0).again))
				}
				pass(time.Minute)
				if n := len(a.of("x")); n != len(want)+1 {
					t.Errorf("asked %d times after it was kept", n-len(want)-1)
				}
				w.close()
			})
		})
	}
}

// An answer that cannot be recorded leaves the thing owed.
func TestAnswerRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		a := newAsked()
		landed := 0
		w.machine = toy{owed: func(id string, _ Look) []Effect {
			a.note(id)
			return []Effect{{ToSelf: true, Command: nothing{}, Answer: func(Result) Command { return keep{id} }, Landed: func(Result) { landed++ }}}
		}}
		w.open()
		w.mem.told(func() {
			w.mem.before = func(r []log.Record) error {
				if e, _ := log.ParseRecord(r[0]); e.Type == (kept{}).EventType() {
					return log.ErrDiskFull
				}
				return nil
			}
		})
		w.do(0, promise{ID: "x"})
		pass(time.Second)
		if n := len(a.of("x")); n < 3 || landed != 0 {
			t.Errorf("asked %d times, landed %d", n, landed)
		}
		w.mem.told(func() { w.mem.before = nil })
		pass(RetryMax)
		if tr, _ := get(w, 0, transfers, "x"); !tr.Kept || landed != 1 {
			t.Errorf("%+v, landed %d", tr, landed)
		}
		w.close()
	})
}

// The news of a failure is told once, also when the turn that brings it is decided twice.
func TestFailureInATurnDecidedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		failed, decided, answer := 0, 0, make(chan struct{})
		w.machine = toy{owed: func(string, Look) []Effect {
			return []Effect{{To: 1, Command: does(func(*Turn) (any, error) { <-answer; return nil, errNo })}}
		}}
		w.options = func(o *Options) {
			o.Listener.Failed = func(int32, string, error, time.Duration) { failed++ }
		}
		w.open()
		w.do(0, promise{ID: "x"})
		arrived, release := w.mem.hold()
		w.submit(0, add{name: "a", n: 1}, nil)
		<-arrived
		w.submit(0, tell{"gone", &decided}, nil)
		close(answer) // the news comes into the same turn
		synctest.Wait()
		release()
		synctest.Wait()
		if decided != 2 || failed != 1 || len(w.loop(0).again) != 1 {
			t.Errorf("decided %d times; %d failures, %d wait", decided, failed, len(w.loop(0).again))
		}
		w.close()
	})
}

// What is due in the future starts when it is due and not before; what was cleared does not start; what was due already starts at
// once.
func TestDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(1, 2))
		w := newWorld(t, 1)
		a := newAsked()
		w.machine = toy{owed: func(id string, _ Look) []Effect { a.note(id); return nil }}
		w.open()
		start := w.node.Now()
		want := map[string]time.Duration{}
		for i := range 400 {
			id := fmt.Sprintf("%04d", i)
			in := time.Duration(rng.IntN(20_000)-5_000) * time.Millisecond
			cleared := rng.IntN(4) == 0
			set := w.node.Now().Sub(start)
			w.do(0, promise{ID: id, At: w.node.Now().Add(in).UnixMilli()})
			switch {
			case cleared && in > 0:
				w.do(0, keep{id})
			default:
				want[id] = set + max(in, 0)
			}
			if rng.IntN(3) == 0 {
				pass(time.Duration(rng.IntN(100)) * time.Millisecond)
			}
		}
		pass(time.Minute)
		for i := range 400 {
			id := fmt.Sprintf("%04d", i)
			at, owed := want[id]
			got := a.of(id)
			switch {
			case owed && len(got) != 1, !owed && len(got) != 0:
				t.Errorf("%s was asked at %v; owed %t", id, got, owed)
			case owed && (got[0] < at || got[0] > at+2*time.Millisecond):
				t.Errorf("%s was asked at %v, due at %v", id, got[0], at)
			}
		}
		w.close()
	})
}

// A due row in the far future does not keep the loop awake.
func TestFarFuture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1).open()
		w.do(0, promise{ID: "x", At: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()})
		synctest.Wait()
		if d := w.loop(0).untilDue(); d < time.Hour {
			t.Errorf("looks again in %v", d)
		}
		w.close()
	})
}

// The wall clock is read at the start, and never again.
func TestClockJumps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		wall, reads := time.Now().Add(time.Hour), 0
		w.options = func(o *Options) { o.Now = func() time.Time { reads++; return wall } }
		w.open()
		began := w.node.Now()
		pass(3 * time.Second)
		wall = wall.Add(-24 * time.Hour)
		w.do(0, add{name: "a", n: 1})
		if now := w.node.Now(); now.Sub(began) != 3*time.Second || reads != 1 {
			t.Errorf("%v after %v; read %d times", now, began, reads)
		}
		w.close()

		// Time starts where the log is.
		wall = began.Add(3*time.Second - ClockBehindMax)
		w.open()
		if now := w.node.Now(); !now.Equal(began.Add(3 * time.Second)) {
			t.Errorf("starts at %v, the log ends at %v", now, began.Add(3*time.Second))
		}
		w.close()
	})
}

// That the wall clock has jumped is said, once, and changes nothing. That it goes a little slower or faster is not.
func TestClockJumpsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		var off atomic.Int64
		var told []time.Duration
		w.options = func(o *Options) {
			o.Now = func() time.Time { return time.Now().Add(time.Duration(off.Load())) }
			o.Listener.ClockJumped = func(by time.Duration) { told = append(told, by.Round(time.Second)) }
		}
		w.open()
		began, start := w.node.Now(), time.Now()
		for _, by := range []time.Duration{0, time.Hour, ClockJumpMin / 2, -2 * time.Hour, -ClockJumpMin / 2, 0} {
			off.Add(int64(by))
			pass(3 * ClockLookEvery)
		}
		if want := []time.Duration{time.Hour, -2 * time.Hour}; !slices.Equal(told, want) {
			t.Errorf("told of %v, want %v", told, want)
		}
		if now := w.node.Now(); now.Sub(began) != time.Since(start) {
			t.Errorf("%s have passed, the node's time has moved by %s", time.Since(start), now.Sub(began))
		}
		w.close()
	})
}

func TestClockBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2).open()
		w.do(1, add{name: "a", n: 1})
		last := w.node.Now()
		w.close()
		allowed := false
		w.options = func(o *Options) {
			o.Now, o.ClockBehindAllowed = func() time.Time { return last.Add(-ClockBehindMax - time.Second) }, allowed
		}
		if err := w.tryOpen(); !errors.Is(err, ErrClockBehind) {
			t.Fatal(err)
		}
		allowed = true
		w.open()
		if got := w.do(1, does(func(t *Turn) (any, error) { return t.Now, nil })).(time.Time); got.Before(last) {
			t.Errorf("a turn at %v, the log ends at %v", got, last)
		}
		w.close()
	})
}

// Ready comes after the restore and before the first effect.
func TestReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		w.machine = toy{owed: func(string, Look) []Effect { return nil }}
		w.open()
		w.do(0, promise{ID: "x"})
		w.close()
		order := make(chan string, 10)
		w.machine = toy{owed: func(string, Look) []Effect { order <- "owed"; return nil }}
		w.options = func(o *Options) {
			o.Listener.Restored = func(p int32, from, to log.Offset, _ time.Duration) {
				order <- fmt.Sprint("restored ", p, " from ", from, " to ", to)
			}
			o.Ready = func(n *Node) { order <- "ready" }
		}
		w.open()
		pass(time.Second)
		got := []string{<-order, <-order, <-order, <-order}
		slices.Sort(got[:2])
		if !slices.Equal(got, []string{"restored 0 from 1 to 1", "restored 1 from 0 to 0", "ready", "owed"}) {
			t.Errorf("%q", got)
		}
		w.close()
	})
}

// Doors are shut while too much is owed, and open again when it is done.
func TestOpenMax(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		var fails atomic.Bool
		fails.Store(true)
		w.options = func(o *Options) { o.OpenMax = 3 }
		w.machine = toy{owed: func(id string, _ Look) []Effect {
			return []Effect{{ToSelf: true, Command: does(func(*Turn) (any, error) {
				if fails.Load() {
					return nil, errNo
				}
				return nil, nil
			}), Answer: func(r Result) Command {
				if r.Err != nil {
					return nil
				}
				return keep{id}
			}}}
		}}
		w.open()
		for i := range 3 {
			w.do(0, promise{ID: fmt.Sprint(i)})
			synctest.Wait()
		}
		submit := func() error { return w.node.Submit(0, promise{ID: "more"}, func(Result) {}) }
		if err := submit(); !errors.Is(err, ErrBusy) {
			t.Errorf("with three owed: %v", err)
		}
		fails.Store(false)
		pass(RetryMax)
		if err := submit(); err != nil {
			t.Errorf("with nothing owed: %v", err)
		}
		pass(RetryMax)
		if n := w.loop(0).owing.Load(); n != 0 {
			t.Errorf("%d are owed at rest", n)
		}
		w.close()
	})
}

// What nobody waits for takes part in the next turn that others make; in one of its own after LazyMax; and in one at Close. Rest
// waits for it.
func TestLazy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.machine = toy{owed: func(id string, look Look) []Effect {
			effects := toy{}.Owed(w.store.writers[0], id, look)
			for i := range effects {
				effects[i].Lazy = true
			}
			return effects
		}}
		w.open()
		isKept := func(id string) bool { tr, _ := get(w, 0, transfers, id); return tr.Kept }
		began := time.Now()

		w.do(0, promise{ID: "with others", N: 1})
		synctest.Wait()
		if isKept("with others") {
			t.Error("a lazy command made a turn of its own at once")
		}
		w.do(0, add{name: "x", n: 1})
		if !isKept("with others") {
			t.Error("a lazy command did not take part in the turn of another")
		}
		if now := time.Since(began); now != 0 {
			t.Errorf("that took %s", now)
		}

		pass(LazyMax) // the time that the first has set
		w.do(0, promise{ID: "alone", N: 1})
		pass(LazyMax - time.Millisecond)
		if isKept("alone") {
			t.Errorf("a lazy command did not wait %s", LazyMax)
		}
		pass(time.Millisecond)
		if !isKept("alone") {
			t.Errorf("a lazy command still waits after %s", LazyMax)
		}

		w.do(0, promise{ID: "rest", N: 1})
		if err := w.node.Rest(t.Context()); err != nil || !isKept("rest") {
			t.Errorf("Rest: %v, kept: %v", err, isKept("rest"))
		}

		w.do(0, promise{ID: "close", N: 1})
		synctest.Wait()
		if isKept("close") {
			t.Error("a lazy command made a turn of its own at once")
		}
		w.close()
		w.open()
		if !isKept("close") {
			t.Error("a lazy command was given up by Close")
		}
		w.close()
	})
}

// Rest waits for what is due now, however much it is, and not for what is due later, or is to be tried again.
func TestRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const open = 2*PaceMax + 17
		w := newWorld(t, 1)
		w.machine = toy{owed: func(string, Look) []Effect { return nil }}
		w.open()
		for i := range open {
			w.do(0, promise{ID: fmt.Sprintf("%04d", i), N: 1})
		}
		w.do(0, promise{ID: "later", N: 1, At: time.Now().Add(time.Hour).UnixMilli()})
		w.close()

		w.machine = toy{owed: func(id string, look Look) []Effect {
			if id == "0007" {
				return []Effect{{ToSelf: true, Command: does(func(*Turn) (any, error) { return nil, errNo })}}
			}
			return toy{}.Owed(w.store.writers[0], id, look)
		}}
		w.open()
		if err := w.node.Rest(t.Context()); err != nil {
			t.Fatal(err)
		}
		end := w.node.Position()
		for i := range open {
			id := fmt.Sprintf("%04d", i)
			if tr, _ := get(w, 0, transfers, id); tr.Kept != (i != 7) {
				t.Errorf("%s at rest: %+v", id, tr)
			}
		}
		pass(time.Minute)
		if now := w.node.Position(); now.String() != end.String() {
			t.Errorf("at rest the log ended at %s, and then at %s", end, now)
		}
		w.close()
	})
}
