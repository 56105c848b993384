package fold

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A thing that wants to be looked at again is, at its time, until its due row has gone; Last says when it was looked at before, and
// that nothing is known of that after a restart. Nothing of it is written.
func TestLookAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const pause = 7 * time.Second
		w, a := newWorld(t, 1), newAsked()
		var lasts []time.Duration
		w.machine = toy{owed: func(id string, look Look) []Effect {
			a.note(id)
			if look.Last.IsZero() {
				lasts = append(lasts, -1)
			} else {
				lasts = append(lasts, look.Now.Sub(look.Last))
			}
			return []Effect{{At: look.Now.Add(pause)}}
		}}
		w.open()
		w.do(0, promise{ID: "x"})
		synctest.Wait() // the first look follows the turn
		end := w.node.Position()
		pass(3*pause + pause/2)
		w.close()
		w.open()
		pass(pause + pause/2)
		if now := w.node.Position(); now.String() != end.String() {
			t.Errorf("looking wrote: %s, then %s", end, now)
		}
		w.do(0, keep{"x"})
		pass(10 * pause)
		const ms = time.Millisecond // timers go off within one
		want := []time.Duration{0, pause, 2 * pause, 3 * pause, 3*pause + pause/2, 4*pause + pause/2}
		got := a.of("x")
		if len(got) != len(want) {
			t.Fatalf("looked at %v, want %v", got, want)
		}
		for i := range want {
			if d := got[i] - want[i]; d < 0 || d > 10*ms {
				t.Errorf("look %d at %s, want %s", i, got[i], want[i])
			}
		}
		for i, restarted := range []bool{true, false, false, false, true, false} {
			if (lasts[i] < 0) != restarted || !restarted && (lasts[i] < pause || lasts[i] > pause+10*ms) {
				t.Errorf("look %d: last was %s before", i, lasts[i])
			}
		}
		w.close()
	})
}

// A thing whose next look is due at once, or was due before, is looked at again a moment later, and keeps nobody from being served.
func TestLookAgainAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a := newWorld(t, 1), newAsked()
		w.machine = toy{owed: func(id string, look Look) []Effect { a.note(id); return []Effect{{At: look.Now.Add(-time.Hour)}} }}
		w.open()
		for i := range 3 * PaceMax {
			w.do(0, promise{ID: fmt.Sprint(i)})
		}
		pass(10 * PaceEvery)
		w.do(0, add{name: "served", n: 1})
		looks := 0
		for i := range 3 * PaceMax {
			looks += len(a.of(fmt.Sprint(i)))
		}
		if most := 3*PaceMax + 11*PaceMax/2 + PaceMax; looks > most || looks < 3*PaceMax {
			t.Errorf("%d looks at %d things within %s, at most %d", looks, 3*PaceMax, 10*PaceEvery, most)
		}
		w.close()
	})
}

// A call starts after its turn is durable; what it is answered comes back as a command. One that fails, or whose answer says nothing, is
// not started again by itself, and the doors stay open however many are out.
func TestCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type out struct {
			id   string
			done func(any, error)
		}
		var (
			mu    sync.Mutex
			calls []out
		)
		take := func() []out {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			all := calls
			calls = nil
			return all
		}
		w := newWorld(t, 1)
		w.options = func(o *Options) { o.OpenMax = 8 }
		w.machine = toy{owed: func(id string, look Look) []Effect {
			return []Effect{
				{Call: func(done func(any, error)) {
					mu.Lock()
					defer mu.Unlock()
					calls = append(calls, out{id, done})
				}, Answer: func(r Result) Command {
					if r.Err != nil || r.Answer != "yes" {
						return nil
					}
					return keep{id}
				}},
				{At: look.Now.Add(time.Minute)},
			}
		}}
		w.open()
		for i := range 20 { // more than OpenMax
			w.do(0, promise{ID: fmt.Sprint(i)})
		}
		first := take()
		if len(first) != 20 {
			t.Fatalf("%d calls were started", len(first))
		}
		for i, c := range first {
			switch i % 3 {
			case 0:
				go c.done("yes", nil)
			case 1:
				c.done("who knows", nil)
			default:
				c.done(nil, errNo)
			}
		}
		synctest.Wait()
		for i, c := range first {
			if tr, _ := get(w, 0, transfers, c.id); tr.Kept != (i%3 == 0) {
				t.Errorf("%s after its call: %+v", c.id, tr)
			}
		}
		if again := take(); len(again) > 0 {
			t.Errorf("%d calls were started again by themselves", len(again))
		}
		pass(time.Minute + time.Second)
		second := take()
		var ids []string
		for _, c := range second {
			ids = append(ids, c.id)
			c.done("yes", nil)
		}
		if len(ids) != 13 || slices.Contains(ids, "0") {
			t.Errorf("called again when it was time: %v", ids)
		}
		pass(time.Hour)
		if third := take(); len(third) > 0 {
			t.Errorf("%d calls for what has ended", len(third))
		}
		if n := len(w.loop(0).waiting); n != 0 || len(w.loop(0).again) != 0 {
			t.Errorf("%d things still wait to be looked at", n)
		}
		late := first[0].done
		w.close()
		late("yes", nil) // after the end: nothing happens
	})
}
