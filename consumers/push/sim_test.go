package push_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remitlog/remit/consumers/push"
	"github.com/remitlog/remit/log"
)

var (
	seeds = flag.Int("seeds", 12, "of TestSim")
	seed  = flag.Uint64("seed", 0, "the one seed of TestSim that is run; 0 runs -seeds of them")
)

// TestSim: remit is killed and stopped, sinks fail in every way, take their time, lie, refuse consent and are exchanged; some events always fail. At the end each
// event was taken by the sink or is parked, only those that always fail are parked, and each key's came in order (W1, W2, W3, W4).
func TestSim(t *testing.T) {
	first, last := uint64(1), uint64(*seeds)
	if *seed != 0 {
		first, last = *seed, *seed
	}
	for n := first; n <= last; n++ {
		synctest.Test(t, func(t *testing.T) { newSim(t, n).run() })
		if t.Failed() {
			t.Fatalf("go test ./consumers/push -run '^TestSim$' -seed=%d", n)
		}
	}
}

const simPartitions = 3

type sim struct {
	*world
	rnd      *rand.Rand
	chance   *rand.Rand // under mu: sinks ask it
	mood     string     // of all sinks
	of       push.Subscription
	produced map[string][]string // by key
	bad      map[string]bool     // events that always fail
	took     map[string][]string // by key, in the order in which sinks took them
	next     int
}

func newSim(t *testing.T, seed uint64) *sim {
	s := &sim{world: newWorld(t), rnd: rand.New(rand.NewPCG(seed, 1)), chance: rand.New(rand.NewPCG(seed, 2)),
		produced: map[string][]string{}, bad: map[string]bool{}, took: map[string][]string{}}
	s.Options.WorkersMax, s.Options.HeldMax, s.Options.OutageMax = 4, 30, 5
	s.topic("orders", simPartitions)
	for i := range 3 {
		k := s.world.sink(fmt.Sprintf("https://sink%d.example", i))
		k.post, k.options = s.post, s.consents
	}
	s.of = push.Subscription{Name: "shop", Topic: "orders", Sink: "https://sink0.example", Registered: time.Now(),
		Interval: 500 * time.Millisecond, MaxInterval: 20 * time.Second, Deadline: 10 * time.Minute}
	s.subscribe(s.of)
	s.start()
	return s
}

func (s *sim) run() {
	for range 150 {
		s.step()
		time.Sleep(time.Duration(s.rnd.IntN(20_000)) * time.Millisecond)
	}
	s.setMood("calm")
	if s.push == nil {
		s.start()
	}
	time.Sleep(12 * time.Hour)
	s.stop()
	s.audit()
}

func (s *sim) setMood(to string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mood = to
}

func (s *sim) step() {
	switch s.rnd.IntN(12) {
	case 0:
		if s.push == nil {
			s.start()
		} else {
			s.kill()
		}
	case 1:
		if s.push == nil {
			s.start()
		} else {
			s.stop()
		}
	case 2, 3:
		moods := []string{"calm", "flaky", "flaky", "down", "hangs", "500", "busy", "no consent"}
		s.setMood(moods[s.rnd.IntN(len(moods))])
	case 4:
		s.of.Sink = fmt.Sprintf("https://sink%d.example", s.rnd.IntN(3))
		s.subscribe(s.of)
	default:
		for range s.rnd.IntN(15) {
			s.produce()
		}
	}
}

func (s *sim) produce() {
	key := fmt.Sprint("k", s.rnd.IntN(12))
	id := fmt.Sprintf("%s/%05d", key, s.next)
	s.next++
	s.mu.Lock()
	s.produced[key] = append(s.produced[key], id)
	s.bad[id] = s.rnd.IntN(40) == 0
	s.mu.Unlock()
	s.event("orders", key, id)
}

func (s *sim) consents() (push.Answer, error) {
	s.mu.Lock()
	mood := s.mood
	s.mu.Unlock()
	switch mood {
	case "down":
		return push.Answer{}, errRefused
	case "hangs":
		time.Sleep(10 * time.Second)
		return push.Answer{}, errRefused
	case "no consent":
		return answered(403)
	default:
		return consents()
	}
}

func (s *sim) post(ctx context.Context, e *log.Event, _ push.Request) (push.Answer, error) {
	s.mu.Lock()
	mood, luck, takes := s.mood, s.chance.IntN(6), time.Duration(s.chance.IntN(400))*time.Millisecond
	bad := s.bad[e.ID]
	s.mu.Unlock()
	silent := func(after time.Duration) (push.Answer, error) {
		select {
		case <-time.After(after):
		case <-ctx.Done():
		}
		return push.Answer{}, errRefused
	}
	switch {
	case mood == "down":
		return silent(0)
	case mood == "hangs":
		return silent(10 * time.Second)
	case mood == "500":
		return answered(500)
	case mood == "busy":
		return answered(503, "Retry-After", "7")
	case mood == "flaky" && luck == 0:
		return silent(3 * time.Second)
	case mood == "flaky" && luck == 1:
		return answered(502)
	}
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return push.Answer{}, ctx.Err()
	}
	switch {
	case bad && (e.Key == "k0" || e.Key == "k1"): // of fewer keys than OutageMax
		return answered(500)
	case bad:
		return answered(422)
	}
	s.mu.Lock()
	s.took[e.Key] = append(s.took[e.Key], e.ID)
	s.mu.Unlock()
	if mood == "flaky" && luck == 2 {
		return silent(0) // taken, and the answer is lost
	}
	return answered(200)
}

func (s *sim) audit() {
	parked := map[string]bool{}
	for _, text := range s.parked("orders") {
		id, _, _ := strings.Cut(text, ":")
		parked[id] = true
	}
	n, bad := 0, 0
	for key, ids := range s.produced {
		var first []string // of each, the first time
		for _, id := range s.took[key] {
			if !slices.Contains(first, id) {
				first = append(first, id)
			}
		}
		var want []string
		for _, id := range ids {
			n++
			if parked[id] != s.bad[id] {
				s.t.Errorf("%s always fails: %t; it is parked: %t", id, s.bad[id], parked[id])
			}
			if s.bad[id] {
				bad++
			} else {
				want = append(want, id)
			}
		}
		if !slices.Equal(first, want) {
			s.t.Errorf("of %s were taken %v, not %v", key, first, want)
		}
	}
	for i := range simPartitions {
		p := log.Partition{Topic: "orders", Index: int32(i)}
		if _, end, err := s.log.Bounds(s.t.Context(), p); err != nil || s.next1(p) != end {
			s.t.Errorf("partition %d is noted up to %d of %d, %v", i, s.next1(p), end, err)
		}
	}
	if n < 300 || bad == 0 {
		s.t.Errorf("little happened: %d events, of which %d always fail", n, bad)
	}
}

func (s *sim) next1(p log.Partition) log.Offset { return s.world.next("shop", p) }
