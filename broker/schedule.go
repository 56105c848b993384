package broker

import (
	"encoding/binary"
	"time"

	"github.com/remitlog/remit/log"
)

// Schedule says when the producer of a half message is asked what became of it, if it stays silent. It is a function of the time of preparing and of
// the id alone, so no check is written and none is forgotten by a restart: first after FirstAfter, then after pauses that double from
// Interval to MaxInterval, for ever, each with a jitter of at most a tenth. The zero Schedule is [DefaultSchedule].
//
// INVARIANT: it is written with the half message, and what a written one means never changes: due rows rest on it.
type Schedule struct {
	_ struct{} `cbor:",toarray"`
	// All in milliseconds. Past Deadline an answered unknown parks the message.
	FirstAfter  int64 `json:"firstAfter,omitzero"`
	Interval    int64 `json:"interval,omitzero"`
	MaxInterval int64 `json:"maxInterval,omitzero"`
	Deadline    int64 `json:"deadline,omitzero"`
}

// DefaultSchedule is that of a producer that asks for no other.
var DefaultSchedule = Schedule{FirstAfter: 10_000, Interval: 10_000, MaxInterval: 600_000, Deadline: 86_400_000}

// orDefault returns the schedule that s stands for. A forged one has no pause below a millisecond.
func (s Schedule) orDefault() Schedule {
	if s == (Schedule{}) {
		return DefaultSchedule
	}
	s.FirstAfter, s.Interval = max(s.FirstAfter, 1), max(s.Interval, 1)
	s.MaxInterval = max(s.MaxInterval, s.Interval)
	return s
}

// Next returns the first check after a time, counted from 0 on, and when it is. Times are Unix ms; from is when the message was
// prepared, or put back.
func (s Schedule) Next(from int64, id log.ID, after int64) (n int, at int64) {
	s = s.orDefault()
	offset, pause := s.FirstAfter, min(s.FirstAfter, s.Interval) // pause bounds the jitter: no check comes before the one before it
	for next := s.Interval; ; next = min(2*next, s.MaxInterval) {
		if at = from + offset + jitter(id, n, pause); at > after {
			return n, at
		}
		if pause == s.MaxInterval { // they are evenly spaced from here on
			if skip := (after - at) / pause; skip > 1 {
				n += int(skip - 1)
				offset += (skip - 1) * pause
			}
		}
		n, offset, pause = n+1, offset+next, next
	}
}

// jitter returns a time below a tenth of pause that is the same for the same check of the same message.
func jitter(id log.ID, n int, pause int64) int64 {
	tenth := uint64(pause / 10)
	if tenth == 0 {
		return 0
	}
	// Steele, Lea and Flood's SplitMix64, whose output is well mixed for inputs that are not.
	x := binary.BigEndian.Uint64(id[8:]) ^ uint64(binary.BigEndian.Uint16(id[6:])) + 0x9e3779b97f4a7c15*uint64(n+1)
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return int64((x ^ x>>31) % tenth)
}

// checkFrom is when the schedule begins.
func (m Message) checkFrom() int64 { return max(m.PreparedMs, m.ResumedMs) }

// awaits reports whether the producer is asked about m.
func (m Message) awaits() bool { return m.State == StatePrepared }

// Checks returns how many checks of the schedule have come until now, or until m was decided or parked.
func (m Message) Checks(id log.ID, now time.Time) int {
	at := now.UnixMilli()
	for _, end := range [...]int64{m.ParkedMs, m.DecidedMs} {
		if end > 0 {
			at = min(at, end)
		}
	}
	n, _ := m.Schedule.Next(m.checkFrom(), id, at)
	return n
}

// NextCheck returns when the producer is asked next; zero if it is not.
func (m Message) NextCheck(id log.ID, now time.Time) time.Time {
	if !m.awaits() {
		return time.Time{}
	}
	_, at := m.Schedule.Next(m.checkFrom(), id, now.UnixMilli())
	return time.UnixMilli(at).UTC()
}

// NextPrecheck returns when the producer of a committed message is asked next whether it is to be delivered; zero if it is not asked, or not before
// others of its key are gone.
func (m Message) NextPrecheck(id log.ID, now time.Time) time.Time {
	if m.State != StateCommitted || !m.Precheck || m.DueMs == 0 {
		return time.Time{}
	}
	at := m.DueMs
	if ms := now.UnixMilli(); ms >= at {
		_, at = m.precheckSchedule().Next(at, id, ms)
	}
	return time.UnixMilli(at).UTC()
}

// precheckSchedule is that of checks, which counts from when the message is due: that is when it is asked about first.
func (m Message) precheckSchedule() Schedule {
	s := m.Schedule.orDefault()
	s.FirstAfter = s.Interval
	return s
}

// Deadline is from when on an answered unknown parks the message.
func (m Message) Deadline() time.Time {
	return time.UnixMilli(m.checkFrom() + m.Schedule.orDefault().Deadline).UTC()
}

// StuckAfter is how long after the first check past the deadline a producer counts as silent. An answer in time would have parked or
// decided the message.
const StuckAfter = 30 * time.Second

// Stuck reports whether the producer has stayed silent past the deadline.
func (m Message) Stuck(id log.ID, now time.Time) bool {
	return m.awaits() && now.UnixMilli() > m.stuckMs(id)
}

// stuckMs is after when a half message is stuck, if it stays one.
func (m Message) stuckMs(id log.ID) int64 {
	_, first := m.Schedule.Next(m.checkFrom(), id, m.Deadline().UnixMilli()-1)
	return first + StuckAfter.Milliseconds()
}
