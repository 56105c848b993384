package broker_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remitlog/remit/broker"
	"github.com/remitlog/remit/log"
)

// TestLine: whatever the delays of the messages of one key, they stand on their topic in the order of when they were wanted, and then of their
// decisions (M1), each once, also over restarts.
func TestLine(t *testing.T) {
	for seed := range uint64(6) {
		bubble(t, func(s *script) {
			t := s.t
			rng := rand.New(rand.NewPCG(seed, 7))
			if err := s.l.CreateTopic(t.Context(), log.TopicConfig{Name: "orders", Partitions: 1}); err != nil {
				t.Fatal(err)
			}
			type wanted struct {
				id string
				at int64
			}
			var want []wanted
			for i := range 150 {
				name := fmt.Sprintf("m%d", i)
				after := time.Duration(max(0, rng.IntN(40)-20)) * time.Second
				s.ask(broker.Prepare{Prepared: s.half(name, "k", after)})
				o := s.outcome(broker.Settle{Broker: s.b, ID: s.ids[name], Input: broker.InputCommit})
				want = append(want, wanted{name, o.Message.DecidedMs + after.Milliseconds()})
				<-time.After(time.Duration(rng.IntN(3)) * 400 * time.Millisecond)
				if rng.IntN(25) == 0 {
					s.close()
					s.open()
				}
			}
			<-time.After(time.Minute)
			synctest.Wait()
			slices.SortStableFunc(want, func(a, b wanted) int { return cmp.Compare(a.at, b.at) })
			var got []string
			for _, r := range s.records(log.Partition{Topic: "orders"}) {
				e, err := log.ParseRecord(r)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, e.ID)
			}
			if len(got) != len(want) {
				t.Fatalf("seed %d: %d of %d were delivered", seed, len(got), len(want))
			}
			for i := range want {
				if got[i] != want[i].id {
					t.Fatalf("seed %d: at %d stands %s, want %s", seed, i, got[i], want[i].id)
				}
			}
		})
	}
}
