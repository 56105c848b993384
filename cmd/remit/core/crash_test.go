package core_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/remitlog/remit/cmd/remit/core"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/embedded"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/saga/accounts"
	"github.com/remitlog/remit/saga/payments"
)

var (
	seeds = flag.Int("seeds", 40, "how many crashes TestPowerCut takes")
	seed  = flag.Uint64("seed", 0, "the one seed to repeat; 0 runs many")
)

// TestPowerCut loses what was not synced at a random moment of a random life, and holds what comes back
// against what was answered and read before (D1, D4, A5, P1, P2, P3, L1, V1 of the core's own rows). To repeat a failure:
//
//	go test ./cmd/remit/core -run TestPowerCut -seed N
func TestPowerCut(t *testing.T) {
	first, last := *seed, *seed
	if *seed == 0 {
		first, last = 1, uint64(*seeds)
	}
	for n := first; n <= last; n++ {
		t.Run(fmt.Sprint("seed=", n), func(t *testing.T) { powerCut(t, n) })
	}
}

const (
	lifePartitions = 4
	lifeAccounts   = 6
	lifeOps        = 60
	lifeClients    = 4
)

// life is a world under load, and all that was said by it.
type life struct {
	*testing.T
	seed  uint64
	fs    *vfs.MemFS
	l     *embedded.Log
	c     *core.Core
	ended context.Context
	end   context.CancelFunc

	mu   sync.Mutex
	acks []ack
	seen map[log.Partition][]log.Record
}

// ack is an answer that a caller has.
type ack struct {
	req    payments.Request
	answer payments.Answer
	refund payments.RefundRequest
}

func (w *life) start(fs *vfs.MemFS) {
	w.Helper()
	w.fs = fs
	fatal := func(err error) { w.Errorf("seed %d: fatal: %v", w.seed, err) }
	var err error
	w.l, err = embedded.Open(embedded.Options{Dir: "log", FS: fs, Fatal: fatal, MemTableBytes: 256 << 10, BallastBytes: -1, FreeFloorBytes: -1})
	if err != nil {
		w.Fatalf("seed %d: %v", w.seed, err)
	}
	w.c, err = core.Open(context.Background(), core.Options{
		Log: w.l, Dir: "", FS: fs, Partitions: lifePartitions, Fatal: fatal, MemTableBytes: 256 << 10, FlushEvery: 20 * time.Millisecond,
	})
	if err != nil {
		w.Fatalf("seed %d: %v", w.seed, err)
	}
}

func (w *life) stop() {
	if err := errors.Join(w.c.Close(), w.l.Close()); err != nil {
		w.Errorf("seed %d: close: %v", w.seed, err)
	}
}

func account(i int) string { return fmt.Sprint("acc-", i) }

func powerCut(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 7))
	w := &life{T: t, seed: seed, seen: map[log.Partition][]log.Record{}}
	w.start(vfs.NewCrashableMem())
	for i := range lifeAccounts {
		w.must(account(i), accounts.OpenAccount{Account: account(i), Currency: "EUR"})
		w.must(account(i), accounts.MoveCash{Order: accounts.Order{Side: accounts.Credit, Account: account(i), Amount: 500}, Name: "open"})
	}
	w.ended, w.end = context.WithCancel(t.Context())
	var readers, clients sync.WaitGroup
	for _, topic := range []string{log.EventsTopic, log.PaymentsTopic} {
		for p := range int32(lifePartitions) {
			readers.Go(func() { w.read(log.Partition{Topic: topic, Index: p}) })
		}
	}
	cutAt := rng.IntN(lifeOps * lifeClients)
	cut := make(chan *vfs.MemFS, 1)
	var acked []ack
	var seen map[log.Partition][]log.Record
	done := 0
	for c := range lifeClients {
		crng := rand.New(rand.NewPCG(seed, uint64(c)))
		clients.Go(func() {
			for i := range lifeOps {
				w.op(crng, c, i)
				w.mu.Lock()
				if done++; done == cutAt+1 {
					// What was said until here must be there after the cut.
					acked, seen = slices.Clone(w.acks), map[log.Partition][]log.Record{}
					for p, r := range w.seen {
						seen[p] = slices.Clone(r)
					}
					cut <- w.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
				}
				w.mu.Unlock()
			}
		})
	}
	clients.Wait()
	w.end()
	readers.Wait()
	w.stop()

	after := &life{T: t, seed: seed}
	after.start(<-cut)
	after.sawAll(seen)
	after.keptAll(acked)
	after.settle()
	after.audit()
	after.stop()
}

func (w *life) must(key string, c fold.Command) {
	w.Helper()
	if _, err := w.c.Node.Do(context.Background(), w.c.Node.PartitionOf(key), c); err != nil {
		w.Fatalf("seed %d: %T: %v", w.seed, c, err)
	}
}

// read notes everything that a reader of p sees.
func (w *life) read(p log.Partition) {
	for at := log.Offset(0); ; {
		records, err := w.l.Read(w.ended, p, at, 1<<20)
		if err != nil {
			return
		}
		w.mu.Lock()
		w.seen[p] = append(w.seen[p], records...)
		w.mu.Unlock()
		at = records[len(records)-1].Offset + 1
	}
}

// op does one thing that a client may do, and notes the answer.
func (w *life) op(rng *rand.Rand, client, i int) {
	payer, payee := account(rng.IntN(lifeAccounts)), account(rng.IntN(lifeAccounts))
	if payer == payee {
		return
	}
	r := payments.Request{Payer: payer, Payee: payee, Amount: 1 + rng.Int64N(200), Currency: "EUR", Manual: rng.IntN(4) == 0}
	if rng.IntN(2) == 0 {
		r.ID = log.NewID(time.Now(), payer).String()
	} else {
		r.Name = fmt.Sprintf("order-%d", rng.IntN(lifeOps)) // names meet
	}
	ctx := context.Background()
	a, err := w.c.Payments.Pay(ctx, r, time.Minute)
	var mismatch *payments.MismatchError
	switch {
	case errors.As(err, &mismatch):
		return
	case err != nil:
		w.Errorf("seed %d: pay: %v", w.seed, err)
		return
	}
	w.note(ack{req: r, answer: a})
	switch {
	case a.Payment.State == payments.StateHeld && rng.IntN(2) == 0:
		a, err = w.c.Payments.Capture(ctx, a.Payment.ID, 1+rng.Int64N(r.Amount), "test", time.Minute)
	case a.Payment.State == payments.StateHeld && rng.IntN(2) == 0:
		a, err = w.c.Payments.Void(ctx, a.Payment.ID, "test", time.Minute)
	case a.Payment.State == payments.StatePaid && rng.IntN(3) == 0:
		of := payments.RefundRequest{Of: a.Payment.ID, Name: fmt.Sprint("refund-", rng.IntN(2)), Amount: 1 + rng.Int64N(r.Amount)}
		a, err = w.c.Payments.Refund(ctx, of, time.Minute)
		if err == nil {
			w.note(ack{refund: of, answer: a})
		}
		if errors.Is(err, payments.ErrExceedsPaid) || errors.As(err, &mismatch) {
			err = nil
		}
		if err != nil {
			w.Errorf("seed %d: refund: %v", w.seed, err)
		}
		return
	default:
		return
	}
	var decided *payments.DecidedError
	if errors.As(err, &decided) || errors.As(err, &mismatch) {
		return
	}
	if err != nil {
		w.Errorf("seed %d: finish: %v", w.seed, err)
		return
	}
	w.note(ack{req: r, answer: a})
}

func (w *life) note(a ack) {
	w.mu.Lock()
	w.acks = append(w.acks, a)
	w.mu.Unlock()
}

// sawAll holds the log against what readers saw before the cut (L1).
func (w *life) sawAll(seen map[log.Partition][]log.Record) {
	w.Helper()
	for p, records := range seen {
		if len(records) == 0 {
			continue
		}
		var again []log.Record
		for len(again) < len(records) {
			more, err := w.l.Read(w.done(), p, log.Offset(len(again)), 1<<20)
			if err != nil {
				w.Fatalf("seed %d: %v: %d records were seen, %d are there: %v", w.seed, p, len(records), len(again), err)
			}
			again = append(again, more...)
		}
		for i, r := range records {
			if r.Offset != again[i].Offset || !bytes.Equal(r.Value, again[i].Value) {
				w.Fatalf("seed %d: %v offset %d is not what was seen", w.seed, p, r.Offset)
			}
		}
	}
}

func (w *life) done() context.Context {
	ctx, cancel := context.WithTimeout(w.Context(), 10*time.Second)
	w.Cleanup(cancel)
	return ctx
}

// keptAll holds the core's rows against what callers were told (D1, P1), and asks again: nothing is paid twice (D4).
func (w *life) keptAll(acks []ack) {
	w.Helper()
	rank := map[payments.State]int{payments.StateHeld: 1, payments.StatePaid: 2, payments.StateVoided: 2, payments.StateRefused: 2}
	for _, a := range acks {
		was := a.answer.Payment
		now, err := w.c.Payments.Find(was.ID.String(), "")
		if err != nil {
			w.Fatalf("seed %d: %s was answered %s and is gone: %v", w.seed, was.ID, was.State, err)
		}
		got := now.Payment
		if rank[got.State] < rank[was.State] || rank[was.State] == 2 && got.State != was.State || was.Captured > 0 && got.Captured != was.Captured {
			w.Fatalf("seed %d: %s was answered %+v and is %+v", w.seed, was.ID, was, got)
		}
		if a.req.Payer == "" {
			continue
		}
		again, err := w.c.Payments.Pay(context.Background(), a.req, time.Minute)
		if err != nil || again.Payment.ID != was.ID || !again.Replayed {
			w.Fatalf("seed %d: %s asked again: %+v, %v", w.seed, was.ID, again, err)
		}
	}
}

// settle voids what is held, and waits until nothing is open.
func (w *life) settle() {
	w.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		open := 0
		for id, phase := range w.activities() {
			if phase.Final() {
				continue
			}
			open++
			_, err := w.c.Payments.Void(context.Background(), id, "test", time.Minute)
			if errors.Is(err, payments.ErrNotManual) || err == nil {
				continue
			}
			var decided *payments.DecidedError
			if !errors.As(err, &decided) {
				w.Fatalf("seed %d: void: %v", w.seed, err)
			}
		}
		if open == 0 {
			return
		}
		if time.Now().After(deadline) {
			w.Fatalf("seed %d: %d activities stay open", w.seed, open)
		}
	}
}
