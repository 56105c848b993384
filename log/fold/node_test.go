package fold

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/embedded"
)

// openEmbedded opens a real log with the toy's topic.
func openEmbedded(t testing.TB, fs vfs.FS, partitions int) *embedded.Log {
	t.Helper()
	l, err := embedded.Open(embedded.Options{Dir: "log", FS: fs, MemTableBytes: 1 << 20, BallastBytes: -1, FreeFloorBytes: -1,
		Fatal: func(err error) { t.Error("log:", err) }})
	must(t, err)
	must(t, l.CreateTopic(context.Background(), log.TopicConfig{Name: coreTopic, Partitions: partitions}))
	return l
}

// Sixteen partitions that owe one another, on a real log, with a restart in the midst: nothing is lost or made, and
// what was answered is there.
func TestPartitionsOweOneAnother(t *testing.T) {
	const partitions, clients, each = 16, 8, 60
	fs := vfs.NewMem()
	w := &world{TB: t, fs: fs, partitions: partitions, machine: toy{}}
	for round := range 2 {
		w.log = openEmbedded(t, fs, partitions)
		w.open()
		var all sync.WaitGroup
		for c := range clients {
			all.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(round), uint64(c)))
				for i := range each {
					from, to := rng.Int32N(partitions), rng.Int32N(partitions)
					id := fmt.Sprintf("%d-%d-%03d", round, c, i)
					if _, err := w.node.Do(t.Context(), from, promise{ID: id, To: to, N: 1 + rng.IntN(9)}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		if round == 0 { // in the midst
			must(t, w.node.Close())
			w.equalsReplay()
			must(t, errors.Join(w.store.Close(), w.log.Close()))
		}
	}
	settle(w)
	sum, kept := 0, 0
	for p := range int32(partitions) {
		c, _ := get(w, p, counters, "all")
		sum += c.Sum
		must(t, w.node.Read(p, func(rows Scanner, _ log.Offset) error {
			for id, tr := range transfers.Scan(rows, "", "", false) {
				if !tr.Kept {
					t.Errorf("%s is open", id)
				}
				kept++
			}
			return nil
		}))
	}
	if sum != 0 || kept != 2*clients*each {
		t.Errorf("the sum is %d, %d transfers", sum, kept)
	}
	w.close()
	must(t, w.log.Close())
}

// settle waits until nothing is due any more.
func settle(w *world) {
	w.Helper()
	for {
		open := 0
		for p := range int32(w.partitions) {
			must(w, w.node.Read(p, func(rows Scanner, _ log.Offset) error {
				for range rows.scan(string([]byte{dueTable}), string([]byte{dueTable + 1}), false) {
					open++
				}
				return nil
			}))
		}
		if open == 0 {
			return
		}
		next := make(chan error, 1)
		if err := w.node.submit(0, ask{command: nothing{}, done: func(r Result) { next <- r.Err }}); err != nil {
			w.Fatal(err)
		}
		must(w, <-next)
	}
}

// Commands of one goroutine for one partition are decided in their order.
func TestOrderOfOneSubmitter(t *testing.T) {
	w := newWorld(t, 1).open()
	var submitters, answers sync.WaitGroup
	for g := range 4 {
		name := fmt.Sprint(g)
		submitters.Go(func() {
			for i := range 300 {
				answers.Add(1)
				w.submit(0, add{name: name, n: 1}, func(r Result) {
					if r.Answer != i+1 {
						t.Errorf("%s: command %d was answered %v", name, i, r.Answer)
					}
					answers.Done()
				})
			}
		})
	}
	submitters.Wait()
	answers.Wait()
	w.close()
}

// Views at different offsets of one log are brought to its end, each from its own; what they have is the machine's.
func TestFollower(t *testing.T) {
	for _, gaps := range []bool{false, true} {
		l := newMemLog(2)
		if gaps {
			rng := rand.New(rand.NewPCG(1, 1))
			l.gapless, l.gap = false, func() log.Offset { return log.Offset(rng.IntN(3)) }
		}
		write(t, l, rand.New(rand.NewPCG(4, 4)), 300)
		var views []Followed
		for i := range 3 {
			s := openTestStore(t, vfs.NewMem(), 2)
			v := Followed{machineView{toy{}}, s}
			for p := range int32(2) {
				all := events(t, l, p)
				if n := i * len(all) / 3; n > 0 {
					must(t, v.fold(p, all[:n]))
				}
			}
			views = append(views, v)
		}
		f, err := Follow(t.Context(), FollowOptions{Log: l, Topic: coreTopic, Facts: toyFacts(), Views: views, Fatal: func(err error) { t.Error(err) }})
		must(t, err)
		write := func(p int32, n int) {
			r, err := Record(Event{Partition: p, ID: "x", Key: "x", Fact: added{Name: "live", N: n}}, coreTopic)
			must(t, err)
			l.write([]log.Record{r})
		}
		for n := range 20 {
			write(int32(n%2), n)
		}
		for p := range int32(2) {
			_, end, err := l.Bounds(t.Context(), log.Partition{Topic: coreTopic, Index: p})
			must(t, err)
			want := replayed(t, l, p, 2, end)
			for i, v := range views {
				must(t, v.Store.Wait(t.Context(), log.Position{p: end}))
				if got, at, err := v.Store.Digest(p); err != nil || at != end || got != want {
					t.Errorf("gaps %t: view %d, partition %d: at %d of %d, %v", gaps, i, p, at, end, err)
				}
			}
		}
		f.Close()
		for _, v := range views {
			closeStore(t, v.Store)
		}
	}
}

// A view that meets what cannot be stops, and says which it is; a replay ends where nothing more comes before its end.
func TestFollowerStops(t *testing.T) {
	l := newMemLog(1)
	l.gapless = false
	r, err := Record(Event{ID: "x", Key: "x", Fact: kept{"never promised"}}, coreTopic)
	must(t, err)
	good, err := Record(Event{ID: "x", Key: "x", Fact: added{Name: "a", N: 1}}, coreTopic)
	must(t, err)
	l.write([]log.Record{good})
	l.ends[good.Partition] += 5
	l.write([]log.Record{r})
	s := openTestStore(t, vfs.NewMem(), 1)
	defer closeStore(t, s)
	view := Followed{machineView{toy{}}, s}
	must(t, Replay(t.Context(), l, coreTopic, toyFacts(), view, 0, 4)) // within the gap
	if at := s.Offset(0); at != 1 {
		t.Errorf("replayed to %d", at)
	}
	fatal := make(chan error, 1)
	f, err := Follow(t.Context(), FollowOptions{Log: l, Topic: coreTopic, Facts: toyFacts(), Views: []Followed{view}, Fatal: func(err error) { fatal <- err }})
	must(t, err)
	var broken *InvariantError
	if err := <-fatal; !errors.As(err, &broken) || broken.Offset != 6 || s.Offset(0) != 1 {
		t.Errorf("%v, at %d", err, s.Offset(0))
	}
	f.Close()
	if _, err := Follow(t.Context(), FollowOptions{Log: l, Topic: coreTopic, Facts: toyFacts(), Fatal: func(error) {}}); err == nil {
		t.Error("it follows for nobody")
	}
}
