package embedded_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/embedded"
	"github.com/remitlog/remit/log/logtest"
)

func note(k, v string) embedded.Note { return embedded.Note{Key: k, Value: []byte(v)} }

func notesOf(t *testing.T, l *embedded.Log, prefix string) string {
	t.Helper()
	ns, err := l.Notes(prefix)
	must(t, err)
	var b strings.Builder
	for _, n := range ns {
		fmt.Fprintf(&b, "%s=%s ", n.Key, n.Value)
	}
	return strings.TrimSpace(b.String())
}

func TestNotes(t *testing.T) {
	mem := vfs.NewCrashableMem()
	l := open(t, options(t, mem))
	must(t, l.PutNotes(ctx, note("g/b", "1"), note("g/a", ""), note("g", "x"), note("h/a", "2"), note("g/\xff\xff", "3")))
	must(t, l.PutNotes(ctx, note("g/b", "4"), embedded.Note{Key: "g"}, embedded.Note{Key: "never there"}))
	withTopic(t, l, 1)
	must(t, l.DeleteTopic(ctx, "t"))
	const want = "g/a= g/b=4 g/\xff\xff=3"
	check := func() {
		t.Helper()
		if got := notesOf(t, l, "g"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
		if got := notesOf(t, l, ""); got != want+" h/a=2" {
			t.Errorf("all: %q", got)
		}
		if got := notesOf(t, l, "g/\xff"); got != "g/\xff\xff=3" {
			t.Errorf("%q", got)
		}
	}
	check()
	cut := mem.CrashClone(vfs.CrashCloneCfg{})
	must(t, l.Close())
	l = open(t, options(t, cut))
	check()

	for _, n := range []embedded.Note{{Value: []byte("no key")}, note(strings.Repeat("k", embedded.NoteKeyMax+1), ""), note("k", strings.Repeat("v", embedded.NoteMax+1))} {
		if err := l.PutNotes(ctx, note("g/c", "with it"), n); !errors.Is(err, log.ErrTooLarge) {
			t.Errorf("key of %d, value of %d: %v", len(n.Key), len(n.Value), err)
		}
	}
	check() // all or none
	must(t, l.Close())
	if err := l.PutNotes(ctx, note("k", "v")); !errors.Is(err, log.ErrClosed) {
		t.Error(err)
	}
	if _, err := l.Notes(""); !errors.Is(err, log.ErrClosed) {
		t.Error(err)
	}
}

// E2 of notes: what is read is durable, though Pebble shows it before.
func TestNotesReadAreDurable(t *testing.T) {
	disk, mem := &logtest.Disk{}, vfs.NewCrashableMem()
	l := open(t, options(t, disk.FS(mem)))
	arrived, release := disk.HoldSyncs()
	put, read := make(chan error, 1), make(chan int, 1)
	go func() { put <- l.PutNotes(ctx, note("k", "v")) }()
	<-arrived // Pebble has the row, and the disk does not
	go func() {
		ns, err := l.Notes("")
		if err != nil {
			t.Error(err)
		}
		read <- len(ns)
	}()
	for !l.NotesWaited() {
		select {
		case n := <-read:
			t.Fatal("read before the sync:", n)
		default:
			runtime.Gosched()
		}
	}
	select {
	case err := <-put:
		t.Error("put before the sync", err)
	default:
	}
	release()
	must(t, <-put)
	if n := <-read; n != 1 {
		t.Error(n)
	}
	must(t, l.Close())
}

// E1, E3 of notes under power cuts, while records are appended.
func TestNotesPowerCuts(t *testing.T) {
	for seed := range uint64(*seeds) {
		rng := rand.New(rand.NewPCG(seed, 5))
		mem := vfs.NewCrashableMem()
		l := open(t, options(t, mem))
		withTopic(t, l, 1)
		var mu sync.Mutex
		begun, acked := map[string]int{}, map[string]int{}
		stop, enough, many := make(chan struct{}), make(chan struct{}), 20+rng.IntN(100)
		var tasks sync.WaitGroup
		for w := range 4 {
			tasks.Go(func() {
				key := fmt.Sprint("w/", w)
				for i := 1; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					mu.Lock()
					begun[key] = i
					mu.Unlock()
					v := fmt.Sprint(i)
					if err := l.PutNotes(ctx, note(key+"/a", v), note(key+"/b", v)); err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					acked[key] = i
					mu.Unlock()
					if w == 0 && i == many {
						close(enough)
					}
					if _, err := l.Append(ctx, rec(0, v)); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		<-enough
		mu.Lock()
		low := maps.Clone(acked)
		mu.Unlock()
		cut := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
		mu.Lock()
		high := maps.Clone(begun)
		mu.Unlock()
		close(stop)
		tasks.Wait()
		must(t, l.Close())
		l = open(t, options(t, cut))
		for k := range high {
			var a, b int
			if _, err := fmt.Sscanf(strings.NewReplacer(k+"/a=", "", k+"/b=", "").Replace(notesOf(t, l, k+"/")), "%d %d", &a, &b); err != nil && low[k] > 0 {
				t.Fatal(k, err, low[k])
			}
			if a != b || a < low[k] || a > high[k] {
				t.Errorf("seed %d: %s: a=%d b=%d; %d were acknowledged, %d begun", seed, k, a, b, low[k], high[k])
			}
		}
		must(t, l.Close())
	}
}
