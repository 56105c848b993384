package consumers_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remitlog/remit/consumers"
	"github.com/remitlog/remit/consumers/consumerstest"
	"github.com/remitlog/remit/log"
)

var (
	seeds = flag.Int("seeds", 50, "of TestSim")
	seed  = flag.Uint64("seed", 0, "the one seed of TestSim that is run; 0 runs -seeds of them")
)

// TestSim: members come, stop, are killed and lose their session; commits, parking and handlers fail by chance; producers repeat. At the end each
// event has its effect once or is parked, and the effects of a key came in order (U1, U2, U3).
func TestSim(t *testing.T) {
	first, last := uint64(1), uint64(*seeds)
	if *seed != 0 {
		first, last = *seed, *seed
	}
	for n := first; n <= last; n++ {
		synctest.Test(t, func(t *testing.T) { newSim(t, n).run() })
		if t.Failed() {
			t.Fatalf("go test ./consumers -run '^TestSim$' -seed=%d", n)
		}
	}
}

const simPartitions = 6

type sim struct {
	t       *testing.T
	rnd     *rand.Rand
	broker  *consumerstest.Broker
	members []*member
	next    int

	mu       sync.Mutex
	calm     bool
	chance   *rand.Rand // under mu: handlers ask it
	effects  map[string][]string
	taken    map[string]bool // what Once has noted
	produced map[string]bool
	bad      map[string]bool // events that always fail
}

type member struct {
	reader *consumerstest.Reader
	stop   context.CancelFunc
	ended  chan error
	killed bool
}

func newSim(t *testing.T, seed uint64) *sim {
	return &sim{t: t, rnd: rand.New(rand.NewPCG(seed, 1)), chance: rand.New(rand.NewPCG(seed, 2)), broker: consumerstest.NewBroker(map[string]int{"orders": simPartitions}),
		effects: map[string][]string{}, taken: map[string]bool{}, produced: map[string]bool{}, bad: map[string]bool{}}
}

func (s *sim) run() {
	for range 200 {
		s.step()
		time.Sleep(time.Duration(s.rnd.IntN(2000)) * time.Millisecond)
	}
	s.mu.Lock()
	s.calm = true
	s.mu.Unlock()
	s.join()
	time.Sleep(time.Hour)
	for _, m := range s.members {
		s.end(m)
	}
	s.audit()
}

func (s *sim) step() {
	switch s.rnd.IntN(10) {
	case 0:
		if len(s.members) < 4 {
			s.join()
		}
	case 1, 2, 3:
		if len(s.members) == 0 {
			return
		}
		i := s.rnd.IntN(len(s.members))
		m := s.members[i]
		if s.rnd.IntN(3) == 0 {
			m.reader.Lose()
			return
		}
		s.members = slices.Delete(s.members, i, i+1)
		if m.killed = s.rnd.IntN(2) == 0; m.killed {
			m.reader.Kill()
		}
		s.end(m)
	default:
		for range s.rnd.IntN(20) {
			s.produce()
		}
	}
}

func (s *sim) produce() {
	key := fmt.Sprint("k", s.rnd.IntN(12))
	id := fmt.Sprintf("%s/%05d", key, s.next)
	s.next++
	s.mu.Lock()
	s.produced[id] = true
	s.bad[id] = s.rnd.IntN(25) == 0
	s.mu.Unlock()
	p := log.Partition{Topic: "orders", Index: log.KeyPartition(key, simPartitions)}
	s.broker.Append(record(p, key, id))
	if s.rnd.IntN(5) == 0 {
		s.broker.Append(record(p, key, id)) // a producer that had no answer
	}
}

func (s *sim) join() {
	r := s.broker.Reader()
	r.CommitFails = func(map[log.Partition]log.Offset) error { return s.perhaps(4) }
	r.ProduceFails = func(log.Record) error { return s.perhaps(4) }
	c, err := consumers.New(consumers.Options{Reader: r, Group: "shop", Topics: []string{"orders"}, Handler: s.handle,
		Outage: func(err error) bool { return errors.Is(err, errFails) }, AttemptsMax: 3, HeldMax: 20, WorkersMax: 3, BackoffMax: time.Second, DrainMax: 2 * time.Second})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(s.t.Context())
	m := &member{reader: r, stop: stop, ended: make(chan error, 1)}
	s.members = append(s.members, m)
	go func() { m.ended <- c.Run(ctx) }()
}

func (s *sim) end(m *member) {
	m.stop()
	if err := <-m.ended; err != nil && !m.killed {
		s.t.Error(err)
	}
}

// perhaps fails once in n times, until the calm.
func (s *sim) perhaps(n int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.calm && s.chance.IntN(n) == 0 {
		return errFails
	}
	return nil
}

// handle takes its time, and then makes its effect as a transaction would: with its context alive, and once.
func (s *sim) handle(ctx context.Context, d consumers.Delivery) error {
	s.mu.Lock()
	takes := time.Duration(s.chance.IntN(300)) * time.Millisecond
	if s.chance.IntN(30) == 0 {
		takes = 4 * time.Second // longer than DrainMax
	}
	s.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := s.perhaps(5); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	id := d.Event.ID()
	switch {
	case s.bad[id]:
		return errors.New("this event always fails")
	case s.taken[id]:
		return nil
	}
	s.taken[id] = true
	key, n, _ := strings.Cut(id, "/")
	s.effects[key] = append(s.effects[key], n)
	return nil
}

func (s *sim) audit() {
	parked := map[string]bool{}
	for _, r := range s.broker.Records("orders.parked") {
		e, err := log.ParseRecord(r)
		if err != nil {
			s.t.Error(err)
		}
		parked[e.ID] = true
	}
	for id := range s.produced {
		if s.taken[id] == s.bad[id] || parked[id] != s.bad[id] {
			s.t.Errorf("%s: taken %t, parked %t, always fails %t", id, s.taken[id], parked[id], s.bad[id])
		}
	}
	for key, effects := range s.effects {
		if !slices.IsSorted(effects) {
			s.t.Errorf("effects of %s came in the order %v", key, effects)
		}
	}
	ends := map[log.Partition]log.Offset{}
	for _, r := range s.broker.Records("orders") {
		ends[r.Partition] = r.Offset + 1
	}
	for p, end := range ends {
		if at := s.broker.Committed("shop", p); at != end {
			s.t.Errorf("partition %d is committed up to %d of %d", p.Index, at, end)
		}
	}
	if len(s.produced) < 100 || len(parked) == 0 || len(s.effects) < 5 {
		s.t.Errorf("little happened: %d produced, %d parked, effects of %d keys", len(s.produced), len(parked), len(s.effects))
	}
}
