package names_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/embedded"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/log/names"
)

const partitions = 4

// open opens a node that keeps names, on the files of fs.
func open(t *testing.T, fs vfs.FS) (n *fold.Node, l *embedded.Log, stop func(), err error) {
	t.Helper()
	fatal := func(err error) { t.Errorf("fatal: %v", err) }
	if l, err = embedded.Open(embedded.Options{Dir: "log", FS: fs, Fatal: fatal, BallastBytes: -1, FreeFloorBytes: -1}); err != nil {
		t.Fatal(err)
	}
	if err := l.CreateTopic(t.Context(), log.TopicConfig{Name: log.EventsTopic, Partitions: partitions}); err != nil {
		t.Fatal(err)
	}
	s, err := fold.OpenStore(fold.StoreOptions{Dir: "state", Version: "names", Partitions: partitions, FS: fs, Fatal: fatal})
	if err != nil {
		t.Fatal(err)
	}
	n, err = fold.Open(t.Context(), fold.Options{
		Log: l, Topic: log.EventsTopic, Owner: fold.All(partitions), Store: s, Facts: fold.NewFacts(true, names.Facts()...),
		Machines: map[byte]fold.Machine{'n': names.Machine{}}, Order: []byte{'n'}, Fatal: fatal,
	})
	return n, l, func() {
		if n != nil {
			_ = n.Close()
		}
		_ = s.Close()
		_ = l.Close()
	}, err
}

func claim(t *testing.T, n *fold.Node, kind names.Kind, name, key, meaning string) (names.Named, error) {
	t.Helper()
	c := names.Claim{Named: names.Named{Kind: kind, Name: name, ID: log.NewID(time.Now(), key), Key: key, Fingerprint: log.FingerprintOf(meaning)}}
	r, err := n.Do(t.Context(), n.PartitionOf(names.Route(kind, name)), c)
	if err != nil {
		return names.Named{}, err
	}
	return r.Answer.(names.Named), nil
}

// The first claim wins, whoever comes with the name again, also after a restart (N1, N2).
func TestFirstWins(t *testing.T) {
	fs := vfs.NewMem()
	n, _, stop, err := open(t, fs)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	ids := map[log.ID]int{}
	refused := 0
	var wait sync.WaitGroup
	for i := range 64 {
		wait.Go(func() {
			named, err := claim(t, n, names.KindPayment, "order", fmt.Sprint("payer-", i%2), fmt.Sprint("meaning-", i%2))
			mu.Lock()
			defer mu.Unlock()
			var mismatch *names.MismatchError
			switch {
			case err == nil:
				ids[named.ID]++
			case errors.As(err, &mismatch):
				refused++
			default:
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if len(ids) != 1 || refused != 32 {
		t.Errorf("%v won, %d were refused", ids, refused)
	}
	other, err := claim(t, n, names.KindMessage, "order", "k", "x")
	if err != nil || ids[other.ID] > 0 {
		t.Errorf("names of two kinds meet: %+v %v", other, err)
	}
	stop()
	n, _, stop, err = open(t, fs)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	named, ok, err := names.Lookup(n, names.KindPayment, "order")
	if err != nil || !ok || ids[named.ID] != 32 || named.Key == "" {
		t.Errorf("%+v %t %v", named, ok, err)
	}
	if log.SlotOf(named.Key) != named.ID.Slot() {
		t.Error("the id that was claimed is not in the slot of its key")
	}
	if _, ok, err := names.Lookup(n, names.KindPayment, "nobody's"); ok || err != nil {
		t.Errorf("%t %v", ok, err)
	}
	var mismatch *names.MismatchError
	if _, err := claim(t, n, names.KindPayment, "order", named.Key, "other"); !errors.As(err, &mismatch) || mismatch.Named.ID != named.ID {
		t.Error(err)
	}
}

// A name that is claimed twice on the log stops the fold.
func TestClaimedTwiceStops(t *testing.T) {
	fs := vfs.NewMem()
	n, _, stop, err := open(t, fs)
	if err != nil {
		t.Fatal(err)
	}
	first, err := claim(t, n, names.KindPayment, "order", "a", "x")
	if err != nil {
		t.Fatal(err)
	}
	e := fold.Event{ID: "forged", Partition: n.PartitionOf(names.Route(first.Kind, first.Name)), Time: time.Now(), Fact: first}
	r, err := fold.Record(e, log.EventsTopic)
	if err != nil {
		t.Fatal(err)
	}
	stop()
	l, err := embedded.Open(embedded.Options{Dir: "log", FS: fs, BallastBytes: -1, FreeFloorBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, _, stop, err = open(t, fs)
	defer stop()
	var broken *fold.InvariantError
	if !errors.As(err, &broken) {
		t.Errorf("it opens: %v", err)
	}
}
