package fold_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
)

// said is a fact for tests.
type said struct {
	Word string `json:"word"`
}

func (said) EventType() string { return "test.said.v1" }

var (
	counts = fold.NewTable[int]('c')
	words  = fold.NewTable[string]('w').WriteOnly()
)

// tally counts events in a row that it reads, and keeps each in one that it does not.
type tally struct{}

func (tally) Name() string { return "tally" }

func (tally) Apply(rows fold.Rows, e *fold.Event) {
	n, _ := counts.Get(rows, "n")
	counts.Put(rows, "n", n+1)
	words.Put(rows, fmt.Sprint(e.Offset), e.Fact.(said).Word)
}

// written is a log of two partitions that was written beforehand.
type written struct {
	log.Log
	records [2][]log.Record
}

func (w *written) Read(_ context.Context, p log.Partition, from log.Offset, _ int) ([]log.Record, error) {
	return w.records[p.Index][from : from+1], nil
}

// TestReadAllIsOneSnapshot: what is folded while it runs is not seen, in no partition, and the position says so.
func TestReadAllIsOneSnapshot(t *testing.T) {
	l := &written{}
	for i := range 6 {
		e := fold.Event{Partition: int32(i % 2), ID: fmt.Sprint(i), Key: "k", Time: time.UnixMilli(int64(i)), Fact: said{fmt.Sprint("word", i)}}
		r, err := fold.Record(e, "topic")
		if err != nil {
			t.Fatal(err)
		}
		r.Offset = log.Offset(i / 2)
		l.records[i%2] = append(l.records[i%2], r)
	}
	s, err := fold.OpenStore(fold.StoreOptions{Dir: "s", FS: vfs.NewMem(), Version: "1", Partitions: 2})
	if err != nil {
		t.Fatal(err)
	}
	replay := func(p int32, to log.Offset) {
		t.Helper()
		facts := fold.NewFacts(true, fold.FactOf[said]())
		if err := fold.Replay(t.Context(), l, "topic", facts, fold.Followed{View: tally{}, Store: s}, p, to); err != nil {
			t.Fatal(err)
		}
	}
	replay(0, 2)
	replay(1, 1)
	err = s.ReadAll(func(rows func(p int32) fold.Scanner, at log.Position) error {
		replay(0, 3)
		replay(1, 3)
		for p, want := range []int{2, 1} {
			r := rows(int32(p))
			n, _ := counts.Get(r, "n")
			kept := 0
			for key, word := range words.Scan(r, "", "", false) {
				if want := fmt.Sprint("word", 2*kept+p); word != want || key != fmt.Sprint(kept) {
					t.Errorf("partition %d: %q under %q", p, word, key)
				}
				kept++
			}
			if n != want || kept != want || at[int32(p)] != log.Offset(want) {
				t.Errorf("partition %d: %d counted, %d kept, at %d, want %d", p, n, kept, at[int32(p)], want)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
