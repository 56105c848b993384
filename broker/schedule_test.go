package broker

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/remitlog/remit/log"
)

// A schedule is walked check by check: pauses double from one bound to the other, each check lies within its tenth, and asking for the
// next one from anywhere gives the same answer as walking.
func TestSchedule(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	schedules := []Schedule{
		{}, DefaultSchedule,
		{FirstAfter: 1, Interval: 1, MaxInterval: 1, Deadline: 3},
		{FirstAfter: 3_600_000, Interval: 10_000, MaxInterval: 600_000, Deadline: 86_400_000},
		{FirstAfter: 100, Interval: 7_000, MaxInterval: 7_000, Deadline: 86_400_000},
		{FirstAfter: 5_000, Interval: 1_000, MaxInterval: 3_153_600_000_000, Deadline: 3_153_600_000_000},
	}
	for i, s := range schedules {
		id, from := log.NewID(time.Now(), "k"), int64(1_700_000_000_000)
		d := s.orDefault()
		offset, pause, spare := d.FirstAfter, d.FirstAfter, min(d.FirstAfter, d.Interval)
		last := from - 1
		for n := range 300 {
			if offset > 400*365*86_400_000 {
				break
			}
			gotN, at := s.Next(from, id, last)
			if gotN != n {
				t.Fatalf("schedule %d: after check %d comes %d", i, n-1, gotN)
			}
			if early, late := at < from+offset, at > from+offset+spare/10; early || late || at <= last {
				t.Fatalf("schedule %d: check %d at %d, wanted at %d, the one before at %d", i, n, at-from, offset, last-from)
			}
			for range 5 { // from anywhere in between
				between := last + rng.Int64N(at-last)
				if k, again := s.Next(from, id, between); k != n || again != at {
					t.Fatalf("schedule %d: from %d: check %d at %d, want %d at %d", i, between-from, k, again-from, n, at-from)
				}
			}
			last = at
			if n == 0 {
				pause = d.Interval
			} else {
				pause = min(2*pause, d.MaxInterval)
			}
			offset, spare = offset+pause, pause
		}
	}
}

// A year later the next check is found as well, and at once.
func TestScheduleFar(t *testing.T) {
	id, from := log.NewID(time.Now(), "k"), int64(1_700_000_000_000)
	s := Schedule{FirstAfter: 1, Interval: 1, MaxInterval: 1, Deadline: 10}
	year := int64(365 * 86_400_000)
	if n, at := s.Next(from, id, from+year); at != from+year+1 || n != int(year) {
		t.Errorf("check %d at %d", n, at-from)
	}
	n, at := DefaultSchedule.Next(from, id, from+year)
	if at <= from+year || at > from+year+660_000 || n < 52_000 || n > 53_000 {
		t.Errorf("check %d at %d", n, at-from-year)
	}
}

// Messages that were prepared at once are not asked about at once.
func TestScheduleSpread(t *testing.T) {
	from, at := int64(1_700_000_000_000), map[int64]int{}
	for range 10_000 {
		_, ms := DefaultSchedule.Next(from, log.NewID(time.Now(), "k"), from)
		at[ms/100]++
	}
	if len(at) < 10 {
		t.Errorf("all within %d tenths of a second", len(at))
	}
	for ms, n := range at {
		if n > 2_000 {
			t.Errorf("%d of 10,000 within the tenth of a second at %d", n, ms*100-from)
		}
	}
}

// A committed message whose producer is asked first says when that is, or is again; neither one that waits behind others of its key does, nor one
// that is not asked about.
func TestNextPrecheck(t *testing.T) {
	id := log.NewID(time.Now(), "k")
	m := Message{State: StateCommitted, Precheck: true, DueMs: 1_700_000_000_000, Schedule: Schedule{FirstAfter: 9000, Interval: 1000, MaxInterval: 4000, Deadline: 60_000}}
	at := func(ms int64) time.Time { return time.UnixMilli(m.DueMs + ms) }
	for now, least := range map[int64]int64{-3_600_000: 0, 0: 1000, 500: 1000, 1200: 2000, 100_000: 100_001} {
		if next := m.NextPrecheck(id, at(now)); next.Before(at(least)) || next.After(at(max(least, now)+4400)) {
			t.Errorf("%d ms after it was due: %s after", now, next.Sub(at(0)))
		}
	}
	if n := m.NextPrecheck(id, at(-3_600_000)); !n.Equal(at(0)) {
		t.Errorf("one that is due in an hour is asked about first at %s", n)
	}
	for what, m := range map[string]Message{
		"behind another": {State: StateCommitted, Precheck: true}, "not asked about": {State: StateCommitted, DueMs: m.DueMs}, "dropped": {State: StateDropped, Precheck: true, DueMs: m.DueMs},
	} {
		if n := m.NextPrecheck(id, at(0)); !n.IsZero() {
			t.Errorf("%s: %s", what, n)
		}
	}
}

func TestStuck(t *testing.T) {
	id := log.NewID(time.Now(), "k")
	m := Message{State: StatePrepared, PreparedMs: 1_700_000_000_000, Schedule: Schedule{FirstAfter: 1000, Interval: 1000, MaxInterval: 4000, Deadline: 20_000}}
	at := func(s int64) time.Time { return time.UnixMilli(m.PreparedMs + s*1000) }
	for s, want := range map[int64]bool{0: false, 20: false, 21: false, 49: false, 60: true, 1 << 20: true} {
		if m.Stuck(id, at(s)) != want {
			t.Errorf("after %d s: %t", s, !want)
		}
	}
	m.ResumedMs = at(55).UnixMilli()
	if m.Stuck(id, at(60)) || m.Checks(id, at(55)) != 0 {
		t.Error("a message that was put back begins anew")
	}
	m.State, m.DecidedMs = StateRolledBack, at(58).UnixMilli()
	if m.Stuck(id, at(1000)) || !m.NextCheck(id, at(1000)).IsZero() || m.Checks(id, at(1000)) != 2 {
		t.Errorf("decided: %d checks", m.Checks(id, at(1000)))
	}
}
