package transactions

import (
	"slices"
	"sync"
	"time"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/projections/lists"
)

// Undecided finds the plain message that waits for its decision longest. It remembers how far it has come: what is decided once is never
// undecided again, and what begins later stands behind. So over time each message that waits for its delivery is looked at once, and the
// others not at all. It is safe for concurrent use.
type Undecided struct {
	view *View
	mu   sync.Mutex
	from []string // by partition: no undecided message stands in the index before
}

// Undecided returns one that has seen nothing yet.
func (v *View) Undecided() *Undecided {
	return &Undecided{view: v, from: slices.Repeat([]string{string(indexPrefix(byOpen, string(classMessage)))}, v.partitions)}
}

// Oldest returns when the message began that is undecided longest, parked ones among them; zero if all are decided. It reports false if that is
// not known yet: it looks at lists.LooksMax messages of a partition at most, and goes on with the next call.
func (u *Undecided) Oldest() (began time.Time, known bool, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	known = true
	err = u.view.read(func(s snapshot) error {
		for p := range u.from {
			ms, ok := u.first(s.rows(int32(p)), p)
			known = known && ok
			if at := at(ms); ok && ms > 0 && (began.IsZero() || at.Before(began)) {
				began = at
			}
		}
		return nil
	})
	return began, known && err == nil, err
}

// first moves on to the first undecided message of a partition, and returns when that began; 0 if there is none. It reports false if it has looked
// at lists.LooksMax others.
func (u *Undecided) first(rows fold.Scanner, p int) (ms int64, ok bool) {
	end := string(lists.Append(indexPrefix(byOpen, string(classMessage)), 1<<48-1, log.Offset(1<<48-1), 0xff))
	looks := 0
	for key, id := range index.Scan(rows, u.from[p], end, false) {
		if looks++; looks > lists.LooksMax {
			return 0, false
		}
		u.from[p] = key
		t, ok := things.Get(rows, string(id))
		if !ok {
			panic(&fold.StoreError{Key: string(id), Err: errMissing})
		}
		if t.State == statePrepared || t.State == stateParked {
			return t.BegunMs, true
		}
	}
	return 0, true
}
