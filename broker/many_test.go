package broker_test

import (
	"errors"
	"flag"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remitlog/remit/broker"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
)

var manyMessages = flag.Int("many", 10_000, "how many undecided messages TestManyUndecided has")

// sheet is an Asker that notes when it was asked about what, and has no answer.
type sheet struct {
	scriptAsker
	mu    sync.Mutex
	asked map[log.ID][]time.Time
}

func (a *sheet) Wants(broker.Question) bool     { return true }
func (a *sheet) Prechecks(broker.Question) bool { return false }
func (a *sheet) Check(q broker.Question, done func(any, error)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked[q.ID] = append(a.asked[q.ID], time.Now())
	done(nil, errors.New("silence"))
}

// of returns when it was asked about a message.
func (a *sheet) of(id log.ID) []time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.asked[id])
}

// messages returns how many it was asked about.
func (a *sheet) messages() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.asked)
}

// forget forgets all of it.
func (a *sheet) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.asked)
}

// perSecond returns how many were asked about in the fullest second.
func (a *sheet) perSecond() (most int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	in := map[int64]int{}
	for _, all := range a.asked {
		for _, at := range all {
			in[at.Unix()]++
			most = max(most, in[at.Unix()])
		}
	}
	return most
}

// TestManyUndecided (line 5): of many undecided messages of which 500 fall due in a second, each is asked about within a second of its time, once for
// each time of its schedule; nothing of it is written; and what a node that was down has missed is spread, not asked at once.
func TestManyUndecided(t *testing.T) {
	const perSecond = 500
	bubble(t, func(s *script) {
		t := s.t
		a := &sheet{asked: map[log.ID][]time.Time{}}
		s.use(a)
		if err := s.l.CreateTopic(t.Context(), log.TopicConfig{Name: "orders", Partitions: 1}); err != nil {
			t.Fatal(err)
		}
		n := *manyMessages
		began, prepared := time.Now(), make(map[log.ID]broker.Message, n)
		for i := range n {
			c := s.half(fmt.Sprint("m", i), fmt.Sprint("k", i), 0)
			c.Schedule = broker.Schedule{Interval: 60_000, MaxInterval: 3_600_000, Deadline: 86_400_000} // a jitter of 6 s
			c.Schedule.FirstAfter = 3_600_000 + int64(i)*1000/perSecond - time.Since(began).Milliseconds()
			prepared[c.ID] = s.outcome(broker.Prepare{Prepared: c}).Message
		}
		end := s.node.Position()
		<-time.After(2 * time.Hour)
		synctest.Wait()
		late, checks := time.Duration(0), 0
		for id, m := range prepared {
			at := m.NextCheck(id, began)
			for _, asked := range a.of(id) {
				d := asked.Sub(at)
				if d < 0 || d > time.Second {
					t.Fatalf("%s was asked about %s after its time", id, d)
				}
				late, at = max(late, d), m.NextCheck(id, at)
				checks++
			}
			if !at.After(time.Now()) {
				t.Fatalf("%s was not asked about at %s", id, at)
			}
		}
		t.Logf("%d messages, %d checks: the latest came %s after its time, at most %d in a second", n, checks, late, a.perSecond())
		if now := s.node.Position(); now.String() != end.String() {
			t.Errorf("checks were written: %s, then %s", end, now)
		}

		s.close()
		<-time.After(24 * time.Hour) // each has missed many
		a.forget()
		began = time.Now()
		s.open()
		<-time.After(10 * time.Second)
		synctest.Wait()
		soon := a.messages()
		<-time.After(broker.SpreadMax + time.Duration(n/fold.PaceMax)*fold.PaceEvery) // after the last has been looked at
		synctest.Wait()
		if a.messages() != n {
			t.Fatalf("after a restart %d of %d were asked about within %s", a.messages(), n, time.Since(began))
		}
		if share := n * 10 / 60; soon > share*2 {
			t.Errorf("%d of %d were asked about within ten seconds of a restart, %d are their share", soon, n, share)
		}
		if most := a.perSecond(); most > n/20 {
			t.Errorf("%d of %d were asked about in one second", most, n)
		}
	})
}

// TestClockJumps (line 6): whatever the wall clock says, nothing is decided or parked early, and producers are asked no more often than their schedules
// say.
func TestClockJumps(t *testing.T) {
	for _, jump := range []time.Duration{time.Hour, -time.Hour} {
		bubble(t, func(s *script) {
			t := s.t
			a := &sheet{asked: map[log.ID][]time.Time{}}
			s.use(a)
			const n = 200
			var ids []log.ID
			for i := range n {
				c := s.half(fmt.Sprint("m", i), fmt.Sprint("k", i), 0)
				c.Schedule = broker.Schedule{FirstAfter: 60_000, Interval: 60_000, MaxInterval: 600_000, Deadline: 1_800_000}
				s.outcome(broker.Prepare{Prepared: c})
				ids = append(ids, c.ID)
			}
			<-time.After(10 * time.Second)
			s.jump = jump // while it runs: time is monotonic, and nothing changes
			<-time.After(40 * time.Second)
			synctest.Wait()
			if a.messages() != 0 {
				t.Errorf("a jump of %s had producers asked: %d", jump, a.messages())
			}
			s.close() // and over a restart, which reads the wall clock
			s.open()
			<-time.After(broker.SpreadMax + time.Minute + 10*time.Second)
			synctest.Wait()
			for _, id := range ids {
				if got := len(a.of(id)); got < 1 || got > 3 {
					t.Errorf("jump of %s: %s was asked about %d times", jump, id, got)
				}
			}
			if most := a.perSecond(); most > n/3 {
				t.Errorf("jump of %s: %d of %d were asked about in one second", jump, most, n)
			}
			for _, id := range ids {
				if o := s.outcome(broker.Resume{Decision: broker.Decision{ID: id}}); o.Message.State != broker.StatePrepared {
					t.Fatalf("jump of %s: %s is %s", jump, id, o.Message.State)
				}
			}
		})
	}
}
