package broker_test

import (
	"fmt"
	"time"

	"github.com/remitlog/remit/broker"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
)

var allMessages = fold.NewTable[broker.Row](broker.Table)

// tally returns how many messages stand where, and holds it against a count of all rows: scripts do so after every command.
func (s *script) tally() (t broker.Tally) {
	var counted broker.Tally
	err := s.node.Read(0, func(rows fold.Scanner, _ log.Offset) error {
		now := s.node.Now()
		t = broker.TallyOf(rows, now)
		before, any := broker.StuckBefore(rows, now)
		if any != (t.Prepared > 0) {
			s.t.Errorf("%+v, and %t is said of those that may be stuck", t, any)
		}
		for key, r := range allMessages.Scan(rows, "", "", false) {
			switch r.Message.State {
			case broker.StatePrepared:
				counted.Prepared++
				if r.Message.Stuck(log.ID([]byte(key)), now) && r.Message.PreparedMs > before.UnixMilli() {
					s.t.Errorf("a message that was prepared after %s is stuck", before)
				}
				if r.Message.Stuck(log.ID([]byte(key)), now.Truncate(time.Minute)) {
					counted.Stuck++
				}
			case broker.StateParked:
				counted.Parked++
			case broker.StateCommitted:
				counted.Committed++
			}
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	if t != counted {
		s.t.Errorf("the tally is %+v, and there are %+v", t, counted)
	}
	return t
}

func (s *script) showTally() string {
	t := s.tally()
	return fmt.Sprintf("prepared %d, of which stuck %d; parked %d, waiting %d\n", t.Prepared, t.Stuck, t.Parked, t.Committed)
}
