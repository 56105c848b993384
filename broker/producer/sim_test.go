package producer_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remitlog/remit/broker/producer"
	"github.com/remitlog/remit/broker/producer/producertest"
	"github.com/remitlog/remit/log/sqltx"
)

var (
	seeds = flag.Int("seeds", 50, "of TestSim")
	seed  = flag.Uint64("seed", 0, "the one seed of TestSim that is run; 0 runs -seeds of them")
)

// TestSim: processes of a service come and die, while their calls and the database's answers are slow or lost, local transactions fail, panic and are
// cancelled, back-checks cross all of it, and who got an error sends again. At the end each event is delivered if, and only if, its local transaction
// has committed, once (T1, T4); nobody was contradicted (T2); and each Send has said the truth (T3).
func TestSim(t *testing.T) {
	first, last := uint64(1), uint64(*seeds)
	if *seed != 0 {
		first, last = *seed, *seed
	}
	sent := map[string]int{}
	for n := first; n <= last; n++ {
		synctest.Test(t, func(t *testing.T) { newSim(t, n, sent).run() })
		if t.Failed() {
			t.Fatalf("go test ./broker/producer -run '^TestSim$' -seed=%d", n)
		}
	}
	if *seed != 0 {
		return
	}
	t.Logf("%v", sent)
	for _, what := range []string{"nil", "rolled back", "already sent", "unknown", "died"} {
		if sent[what] == 0 {
			t.Errorf("no Send has ended %q: the simulation does not reach it", what)
		}
	}
}

type sim struct {
	t     *testing.T
	db    *memory
	remit *producertest.Remit
	sent  map[string]int // how Sends ended

	mu      sync.Mutex
	rnd     *rand.Rand
	calm    bool
	alive   *process // sends; it is killed again and again
	other   *process // only answers
	results []result
}

// result is how one Send ended.
type result struct {
	event, work string
	err         error
}

func newSim(t *testing.T, seed uint64, sent map[string]int) *sim {
	return &sim{t: t, db: newMemory(), remit: producertest.New(), sent: sent, rnd: rand.New(rand.NewPCG(seed, 1))}
}

// chance is one in n, while it is not calm.
func (s *sim) chance(n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.calm && s.rnd.IntN(n) == 0
}

// slow takes a while, now and then a long one.
func (s *sim) slow() {
	s.mu.Lock()
	d := time.Duration(s.rnd.IntN(20)) * time.Millisecond
	if s.rnd.IntN(20) == 0 && !s.calm {
		d = time.Duration(s.rnd.IntN(8000)) * time.Millisecond
	}
	s.mu.Unlock()
	time.Sleep(d)
}

// process is one of the service's. What it asks for once it is dead is not done; what was on its way may be.
type process struct {
	*sim
	producer *producer.Producer[*memoryTx]
	dead     chan struct{}
	once     sync.Once
	away     time.Time // the database, until then; under mu
}

var errDead = errors.New("the process is dead")

func (s *sim) newProcess() *process {
	p := &process{sim: s, dead: make(chan struct{})}
	made, err := producer.New[*memoryTx](p, producer.Options{Server: producertest.URL, Producer: "shop", Client: &http.Client{Transport: p}, SettleMax: 200 * time.Millisecond})
	if err != nil {
		s.t.Fatal(err)
	}
	p.producer = made
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.alive != nil {
		s.alive.kill()
	}
	s.alive = p
	return p
}

// living is the process that lives now.
func (s *sim) living() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.alive
}

func (p *process) kill() {
	p.once.Do(func() {
		close(p.dead)
		over, cancel := context.WithCancel(p.t.Context())
		cancel()
		_ = p.producer.Close(over) // nothing of it goes on
	})
}

func (p *process) isDead() bool {
	select {
	case <-p.dead:
		return true
	default:
		return false
	}
}

// RoundTrip calls remit.
func (p *process) RoundTrip(req *http.Request) (*http.Response, error) {
	if p.isDead() || p.chance(10) {
		return nil, producertest.ErrLost
	}
	p.slow()
	resp, err := p.remit.Client().Transport.RoundTrip(req.WithContext(context.WithoutCancel(req.Context()))) // what is on its way arrives
	p.slow()
	switch {
	case p.isDead() || p.chance(10):
		return nil, producertest.ErrLost
	case req.Context().Err() != nil:
		return nil, req.Context().Err()
	}
	return resp, err
}

// noDatabase reports whether it does not answer now.
func (p *process) noDatabase() bool {
	p.mu.Lock()
	away := time.Now().Before(p.away)
	p.mu.Unlock()
	return away || p.isDead() || p.chance(20)
}

func (p *process) Dialect() producer.Dialect { return p.db.Dialect() }

func (p *process) Text(ctx context.Context, query string, args ...any) (string, error) {
	p.slow()
	if p.noDatabase() {
		return "", errDead
	}
	return p.db.Text(ctx, query, args...)
}

func (p *process) Exec(ctx context.Context, statement string, args ...any) (int64, error) {
	return p.exec(ctx, p.db, statement, args)
}

func (p *process) exec(ctx context.Context, on sqltx.Tx, statement string, args []any) (int64, error) {
	if p.noDatabase() {
		return 0, errDead
	}
	p.slow()
	n, err := on.Exec(ctx, statement, args...)
	p.slow()
	if p.isDead() || p.chance(20) {
		return 0, errDead
	}
	return n, err
}

func (p *process) Begin(ctx context.Context) (sqltx.Transaction[*memoryTx], error) {
	p.slow()
	if p.isDead() || p.chance(30) {
		return sqltx.Transaction[*memoryTx]{}, errDead
	}
	tx, err := p.db.Begin(ctx)
	if err != nil {
		return tx, err
	}
	own := tx.Own
	go func() { // the server notices that its client is gone, later
		select {
		case <-own.done:
		case <-p.dead:
			p.slow()
			_ = own.end(false) // unless it has committed
		}
	}()
	tx.Tx = inProcess{tx.Tx, p}
	tx.Commit = func(context.Context) error { return p.end(own, true) }
	tx.Rollback = func(context.Context) error { return p.end(own, false) }
	return tx, nil
}

type inProcess struct {
	sqltx.Tx
	p *process
}

func (i inProcess) Exec(ctx context.Context, statement string, args ...any) (int64, error) {
	return i.p.exec(ctx, i.Tx, statement, args)
}

// end ends a transaction. When the connection is lost the server may have heard it, hears it later, or rolls back.
func (p *process) end(tx *memoryTx, commit bool) error {
	if p.isDead() {
		return errDead
	}
	if p.chance(10) {
		if p.chance(2) { // and it does not come back soon
			p.mu.Lock()
			p.away = time.Now().Add(time.Second)
			p.mu.Unlock()
		}
		go func() {
			p.slow()
			_ = tx.end(commit && p.chance(2))
		}()
		p.slow()
		return errDead
	}
	p.slow()
	return tx.end(commit) // what was sent arrives, also when the process is dead by now
}

func (s *sim) run() {
	const clients, rounds = 6, 8
	register(s.t, s.remit)
	s.other, s.alive = s.newProcess(), nil
	s.newProcess()
	ctx, stop := context.WithCancel(s.t.Context())
	var all, checks sync.WaitGroup
	checks.Go(func() { s.check(ctx) })
	checks.Go(func() { s.disturb(ctx) })
	for c := range clients {
		all.Go(func() {
			for n := range rounds {
				s.client(fmt.Sprintf("%d/%d", c, n))
			}
		})
	}
	all.Wait()
	s.mu.Lock()
	s.calm = true
	s.mu.Unlock()
	if err := s.newProcess().producer.Close(s.t.Context()); err != nil { // its handler goes on
		s.t.Error(err)
	}
	for s.undecided() {
		time.Sleep(time.Second)
	}
	stop()
	checks.Wait()
	s.alive.kill()
	s.other.kill()
	time.Sleep(time.Minute) // what was on its way has come
	s.audit()
}

// client sends an event until it is sent, or gives up.
func (s *sim) client(id string) {
	for attempt := range 5 {
		p := s.living()
		work := fmt.Sprintf("%s#%d", id, attempt)
		err, ended := s.send(p, id, work)
		switch {
		case !ended, p.isDead(): // nobody heard how it ended
			s.note("died", result{})
			continue
		case err == nil:
			s.note("nil", result{id, work, err})
		case errors.Is(err, producer.ErrAlreadySent):
			s.note("already sent", result{id, work, err})
		case errors.Is(err, producer.ErrRolledBack):
			s.note("rolled back", result{id, work, err})
		case errors.Is(err, producer.ErrOutcomeUnknown):
			s.note("unknown", result{id, work, err})
		default:
			s.note("failed", result{id, work, err})
		}
		if (err == nil || errors.Is(err, producer.ErrAlreadySent)) && !s.chance(4) {
			return // else it repeats although it need not
		}
	}
}

func (s *sim) note(how string, r result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent[how]++
	if r.event != "" {
		s.results = append(s.results, r)
	}
}

// send is one Send, whose local transaction may fail, panic, be cancelled, or be slow.
func (s *sim) send(p *process, id, work string) (err error, ended bool) {
	ctx, cancel := context.WithCancel(s.t.Context())
	defer cancel()
	if s.chance(10) {
		go func() { s.slow(); cancel() }()
	}
	defer func() {
		if v := recover(); v != nil {
			err, ended = errFails, true
		}
	}()
	err = p.producer.Send(ctx, "orders", placed(id), func(tx *memoryTx) error {
		s.slow()
		if err := tx.write(work); err != nil {
			return err
		}
		switch {
		case s.chance(10):
			return errFails
		case s.chance(20):
			panic("in the local transaction")
		}
		s.slow()
		return nil
	})
	return err, true
}

// check asks living processes about what is not decided.
func (s *sim) check(ctx context.Context) {
	for ctx.Err() == nil {
		for _, m := range s.remit.Messages() {
			p := s.living()
			if s.chance(2) {
				p = s.other
			}
			if m.State != "prepared" || s.chance(2) {
				continue
			}
			go func() {
				s.slow()
				_, _ = s.remit.CheckOne(ctx, p.producer.CheckHandler(), m.ID) // it is asked again
			}()
		}
		s.slow()
		time.Sleep(time.Duration(50+len(s.remit.Messages())) * time.Millisecond)
	}
}

// disturb kills processes and starts others.
func (s *sim) disturb(ctx context.Context) {
	for ctx.Err() == nil {
		s.slow()
		time.Sleep(500 * time.Millisecond)
		if s.chance(3) {
			s.newProcess()
		}
	}
}

func (s *sim) undecided() bool {
	for _, m := range s.remit.Messages() {
		if m.State == "prepared" {
			return true
		}
	}
	return false
}

func (s *sim) audit() {
	committed, delivered := map[string]int{}, map[string]int{}
	for _, work := range s.db.committed() {
		event, _, _ := strings.Cut(work, "#")
		committed[event]++
	}
	for _, e := range s.remit.Delivered("orders") {
		delivered[e.ID()]++
	}
	for _, m := range s.remit.Messages() {
		if m.Conflicts > 0 {
			s.t.Errorf("message %s of %s was decided otherwise %d times", m.ID, m.Event.ID(), m.Conflicts)
		}
		if id := m.Event.ID(); committed[id] != delivered[id] || committed[id] > 1 {
			s.t.Errorf("event %s was committed %d times and delivered %d times", id, committed[id], delivered[id])
		}
	}
	for _, r := range s.results {
		has := s.db.has(r.work)
		switch {
		case r.err == nil && !has, errors.Is(r.err, producer.ErrAlreadySent) && (has || committed[r.event] == 0):
			s.t.Errorf("%s ended with %v, and is not committed", r.work, r.err)
		case errors.Is(r.err, producer.ErrContradicted):
			s.t.Errorf("%s was contradicted: %v", r.work, r.err)
		case r.err != nil && !errors.Is(r.err, producer.ErrOutcomeUnknown) && has:
			s.t.Errorf("%s ended with %v, and is committed", r.work, r.err)
		}
	}
}
