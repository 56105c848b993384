package saga

import (
	"testing"
	"time"

	"github.com/remitlog/remit/log"
)

// Deadlines of activities that began together are looked at one after the other, never early, and by a bounded time late.
func TestSpread(t *testing.T) {
	began := time.UnixMilli(1_700_000_000_000)
	for _, c := range []struct{ holdFor, late time.Duration }{
		{time.Millisecond, 0}, {64 * time.Second, time.Second}, {30 * time.Second, 468 * time.Millisecond}, {720 * time.Hour, spreadMax},
	} {
		seen := map[time.Time]bool{}
		deadline := began.Add(c.holdFor)
		for range 1000 {
			at := spread(began.UnixMilli(), deadline.UnixMilli(), log.NewIDInSlot(began, 7))
			if at.Before(deadline) || at.Sub(deadline) > c.late {
				t.Fatalf("%s: %s late", c.holdFor, at.Sub(deadline))
			}
			seen[at] = true
		}
		if most := int(c.late/time.Millisecond) + 1; len(seen) < min(most, 1000)/4 {
			t.Errorf("%s: 1000 deadlines fall on %d times of %d", c.holdFor, len(seen), most)
		}
	}
}
