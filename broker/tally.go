package broker

import (
	"encoding/binary"
	"time"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
)

// tallies count the messages of a partition that have not ended, so that nobody has to look at a million rows to say how many there
// are. Parked ones and those that wait for their delivery are counted by their state. Half messages are counted by the minute from which on
// they are stuck, and by the day that it lies in: who is stuck now is the sum of past days and of the past minutes of today. And they are counted by how
// long their producers have.
var tallies = fold.NewTable[int64]('t')

// The first bytes of the keys of tallies.
const (
	tallyMinute = 'm' // then the minute since 1970, 8 bytes
	tallyDay    = 'd' // then the day since 1970, 8 bytes
	tallyState  = 's' // then the state
	tallyLength = 'l' // then the deadline of the schedule, in ms, 8 bytes
)

const (
	minuteMs      = 60_000
	minutesOfADay = 24 * 60
)

func tallyKey(kind byte, n int64) string {
	return string(binary.BigEndian.AppendUint64([]byte{kind}, uint64(n)))
}

// count counts a message in (1), or out (-1), as it stands.
func count(rows fold.Rows, id log.ID, m Message, by int64) {
	switch m.State {
	case StatePrepared:
		minute := m.stuckMs(id)/minuteMs + 1 // it is stuck in all of that minute
		tally(rows, tallyKey(tallyMinute, minute), by)
		tally(rows, tallyKey(tallyDay, minute/minutesOfADay), by)
		tally(rows, tallyKey(tallyLength, m.Schedule.orDefault().Deadline), by)
	case StateParked, StateCommitted:
		tally(rows, string([]byte{tallyState, byte(m.State)}), by)
	case StateDelivered, StateRolledBack, StateDropped: // it has ended
	}
}

func tally(rows fold.Rows, key string, by int64) {
	n, _ := tallies.Get(rows, key)
	if n += by; n == 0 {
		tallies.Delete(rows, key)
		return
	}
	tallies.Put(rows, key, n)
}

// Tally is how many plain messages have not ended, by their state.
type Tally struct {
	Prepared  int64
	Parked    int64
	Committed int64 // that wait for their delivery
	// Stuck are those of Prepared that were stuck when the minute began.
	Stuck int64
}

// Add adds another partition's.
func (t *Tally) Add(o Tally) {
	t.Prepared += o.Prepared
	t.Parked += o.Parked
	t.Committed += o.Committed
	t.Stuck += o.Stuck
}

// TallyOf counts the messages of a partition that have not ended. It reads a row for each day in which some of them are stuck, or will be, and
// one for each minute of today in which some are.
func TallyOf(rows fold.Scanner, now time.Time) (t Tally) {
	minute := now.UnixMilli() / minuteMs
	today := tallyKey(tallyDay, minute/minutesOfADay)
	for key, n := range tallies.Scan(rows, string([]byte{tallyDay}), string([]byte{tallyDay + 1}), false) {
		t.Prepared += n
		if key < today {
			t.Stuck += n
		}
	}
	from, to := tallyKey(tallyMinute, minute/minutesOfADay*minutesOfADay), tallyKey(tallyMinute, minute+1)
	for _, n := range tallies.Scan(rows, from, to, false) {
		t.Stuck += n
	}
	t.Parked, _ = tallies.Get(rows, string([]byte{tallyState, byte(StateParked)}))
	t.Committed, _ = tallies.Get(rows, string([]byte{tallyState, byte(StateCommitted)}))
	return t
}

// StuckBefore returns when a half message of a partition must have been prepared at the latest to be stuck now: whoever looks for those that are need not look
// at later ones. It reports false if none can be.
func StuckBefore(rows fold.Scanner, now time.Time) (time.Time, bool) {
	for key := range tallies.Scan(rows, string([]byte{tallyLength}), string([]byte{tallyLength + 1}), false) {
		shortest := time.Duration(binary.BigEndian.Uint64([]byte(key[1:]))) * time.Millisecond
		return now.Add(-shortest - StuckAfter), true
	}
	return time.Time{}, false
}
