package projections_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/remitlog/remit/broker"
	"github.com/remitlog/remit/cmd/remit/core"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/projections"
	"github.com/remitlog/remit/projections/consumerrecords"
	"github.com/remitlog/remit/projections/facts"
	"github.com/remitlog/remit/projections/merchantquery"
	"github.com/remitlog/remit/projections/transactions"
	"github.com/remitlog/remit/saga/accounts"
)

// torn is a log whose reads return some records, whatever was asked for.
type torn struct {
	log.Log
	random *rand.Rand
}

func (l torn) Read(ctx context.Context, at log.Partition, from log.Offset, maxBytes int) ([]log.Record, error) {
	records, err := l.Log.Read(ctx, at, from, maxBytes)
	if err == nil {
		records = records[:1+l.random.IntN(min(len(records), 1+l.random.IntN(40)))]
	}
	return records, err
}

// TestRowsAreIndependentOfBatching (V1): however the events are split, the digests are the same.
func TestRowsAreIndependentOfBatching(t *testing.T) {
	w := open(t, vfs.NewMem())
	w.populate()
	for i, key := range []string{"alice", "bob", "x"} {
		id := w.prepare("orders", "checkout", key, "o-"+key, "")
		w.settle(id, key, []broker.Input{broker.InputCommit, broker.InputRollback, broker.InputCommit}[i], "checkout")
	}
	w.populateAsked()
	w.rest()
	end := w.v.Position()
	want := digests(t, w.l, end)
	for seed := range uint64(20) {
		if got := digests(t, torn{w.l, rand.New(rand.NewPCG(seed, 0))}, end); !reflect.DeepEqual(got, want) {
			t.Fatalf("seed %d: the digests differ", seed)
		}
	}
	w.close()
	book := payBook(t, partitions, 500, 20, 50)
	end = book.end()
	want = digests(t, book, end)
	for seed := range uint64(5) {
		if got := digests(t, torn{book, rand.New(rand.NewPCG(seed, 0))}, end); !reflect.DeepEqual(got, want) {
			t.Fatalf("book, seed %d: the digests differ", seed)
		}
	}
}

// digests replays all views from a log into stores of their own.
func digests(t *testing.T, l log.Log, end log.Position) (sums [][sha256.Size]byte) {
	t.Helper()
	for _, name := range []string{transactions.Name, consumerrecords.Name, merchantquery.Name} {
		s, err := fold.OpenStore(fold.StoreOptions{Dir: name, FS: vfs.NewMem(), Version: "1", Partitions: partitions})
		if err != nil {
			t.Fatal(err)
		}
		view := map[string]fold.View{
			transactions.Name:    transactions.New(s, l, partitions),
			consumerrecords.Name: consumerrecords.New(s, partitions),
			merchantquery.Name:   merchantquery.New(s, partitions),
		}[name]
		for p, to := range end {
			if err := fold.Replay(t.Context(), l, log.EventsTopic, projections.Facts(), fold.Followed{View: view, Store: s}, p, to); err != nil {
				t.Fatal(err)
			}
		}
		for p := range int32(partitions) {
			sum, at, err := s.Digest(p)
			if err != nil || at != end[p] {
				t.Fatal(at, err)
			}
			sums = append(sums, sum)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return sums
}

// TestVerifyFindsADifference: a store whose rows are not the log's is named, with its partition.
func TestVerifyFindsADifference(t *testing.T) {
	fs := vfs.NewMem()
	s, err := fold.OpenStore(fold.StoreOptions{Dir: "data/views/" + merchantquery.Name, FS: fs, Version: merchantquery.Version, Partitions: partitions})
	if err != nil {
		t.Fatal(err)
	}
	other, book := payBook(t, partitions, 300, 10, 50), payBook(t, partitions, 300, 10, 30)
	const p = 1 // of this partition the store has folded another log
	view := fold.Followed{View: merchantquery.New(s, partitions), Store: s}
	if err := fold.Replay(t.Context(), other, log.EventsTopic, projections.Facts(), view, p, other.end()[p]/2); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	v := follow(t, book, fs)
	if err := v.Wait(t.Context(), book.end()); err != nil {
		t.Fatal(err)
	}
	found, err := v.Verify(t.Context(), projections.VerifyOptions{Dir: "scratch"})
	if err != nil || len(found.Different) != 1 || found.Different[0].Serving.Partition != p || found.Different[0].Serving.View != merchantquery.Name {
		t.Errorf("%v %v", found.Different, err)
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
}

// TestUnbalancedPostingsStopTheView (A5).
func TestUnbalancedPostingsStopTheView(t *testing.T) {
	a := &author{tb: t, paper: newPaper(1), now: time.Now()}
	a.open("alice")
	a.write(fold.Event{ID: "x", Key: "alice", Fact: accounts.Deposited{Cash: accounts.Cash{Account: "alice", Name: "x", Postings: []accounts.Posting{
		{Account: "alice", Currency: "USD", Amount: 5}, {Account: accounts.Outside, Currency: "USD", Amount: -4},
	}}}})
	stopped := make(chan error, 1)
	v, err := projections.Follow(t.Context(), projections.Options{
		Log: a.paper, Dir: "d", FS: vfs.NewMem(), Partitions: 1, Fatal: func(err error) { stopped <- err },
	})
	if err != nil {
		t.Fatal(err)
	}
	var broken *fold.InvariantError
	if err := <-stopped; !errors.As(err, &broken) || broken.Offset != 2 || !strings.Contains(err.Error(), "sum to 1") {
		t.Error(err)
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
}

// TestFactsAreTheCores holds what the views declare against what the core writes: every field that a view reads is written, under
// the same name and in the same form.
func TestFactsAreTheCores(t *testing.T) {
	written := map[string]reflect.Type{}
	for _, f := range core.Facts() {
		written[f.Type] = reflect.TypeOf(f.Zero)
	}
	for _, f := range facts.Types() {
		is, ok := written[f.Type]
		if !ok {
			t.Errorf("nobody writes %s", f.Type)
			continue
		}
		hold(t, f.Type, reflect.TypeOf(f.Zero), is)
		delete(written, f.Type)
	}
	for name := range written {
		t.Errorf("no view folds %s", name)
	}
}

func hold(t *testing.T, path string, want, is reflect.Type) {
	t.Helper()
	if want == is {
		return
	}
	if want.Kind() != is.Kind() {
		t.Errorf("%s: a view reads %s, the core writes %s", path, want, is)
		return
	}
	switch want.Kind() {
	case reflect.Pointer, reflect.Slice:
		hold(t, path+"[]", want.Elem(), is.Elem())
	case reflect.Struct:
		have := jsonFields(is)
		for name, field := range jsonFields(want) {
			if other, ok := have[name]; ok {
				hold(t, path+"."+name, field, other)
			} else {
				t.Errorf("%s: a view reads %q, which the core does not write", path, name)
			}
		}
	}
}

func jsonFields(t reflect.Type) map[string]reflect.Type {
	all := map[string]reflect.Type{}
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			for name, inner := range jsonFields(f.Type) {
				all[name] = inner
			}
			continue
		}
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
			all[name] = f.Type
		}
	}
	return all
}
