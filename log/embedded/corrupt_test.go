package embedded_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/embedded"
)

// killed makes a store with tables, WALs and MANIFEST, as a kill -9 leaves it.
func killed(t *testing.T) (files map[string][]byte, want [][]string) {
	t.Helper()
	fs := vfs.NewCrashableMem()
	l := open(t, options(t, fs))
	withTopic(t, l, 3)
	rng := rand.New(rand.NewPCG(3, 3))
	want = make([][]string, 3)
	for i := range 1500 {
		b := make([]byte, 150)
		for j := range b {
			b[j] = byte('a' + rng.IntN(26))
		}
		v := fmt.Sprintf("%06d%s", i, b)
		rs := []log.Record{rec(i%3, v)}
		if i%5 == 0 {
			rs = append(rs, rec((i+1)%3, v))
		}
		_, err := l.Append(ctx, rs...)
		must(t, err)
		for _, r := range rs {
			want[r.Index] = append(want[r.Index], v)
		}
	}
	files = snapshot(t, kill(fs))
	must(t, l.Close())
	return files, want
}

// kill is what a kill -9 leaves: all that was written, synced or not.
func kill(fs *vfs.MemFS) *vfs.MemFS {
	return fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
}

func snapshot(t *testing.T, fs vfs.FS) map[string][]byte {
	t.Helper()
	names, err := fs.List("log")
	must(t, err)
	m := map[string][]byte{}
	for _, n := range names {
		if n == "LOCK" {
			continue
		}
		f, err := fs.Open("log/" + n)
		if err != nil {
			continue // deleted meanwhile
		}
		st, err := f.Stat()
		must(t, err)
		b := make([]byte, st.Size())
		if len(b) > 0 {
			_, err = f.ReadAt(b, 0)
			must(t, err)
		}
		must(t, f.Close())
		m[n] = b
	}
	return m
}

func restore(t *testing.T, files map[string][]byte) *vfs.MemFS {
	t.Helper()
	fs := vfs.NewMem()
	must(t, fs.MkdirAll("log", 0o755))
	for n, b := range files {
		f, err := fs.Create("log/"+n, "test")
		must(t, err)
		_, err = f.Write(slices.Clone(b))
		must(t, err)
		must(t, f.Close())
	}
	return fs
}

// E5: one flipped bit in any file of a killed store is named, or harms nothing; never are there fewer records in silence. A
// refused start has deleted nothing that held records.
func TestFlippedBits(t *testing.T) {
	files, want := killed(t)
	named, harmless := 0, 0
	kinds := map[string]int{}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		n := len(files[name])
		step := max(1, n/7)
		if strings.HasSuffix(name, ".log") || strings.HasPrefix(name, "MANIFEST") || strings.HasSuffix(name, ".sst") {
			step = max(1, n/8)
		}
		for at := 0; at < n; at += step {
			if flipped(t, files, want, name, at) {
				named++
				kinds[filepath.Ext(name)]++
			} else {
				harmless++
			}
		}
	}
	t.Log("named", named, kinds, "harmless", harmless)
	if kinds[".log"] < 5 || kinds[".sst"] < 3 || named < 15 {
		t.Fatal("too little was flipped", kinds)
	}
}

// flipped reports whether the flip was named.
func flipped(t *testing.T, files map[string][]byte, want [][]string, name string, at int) bool {
	t.Helper()
	m := maps.Clone(files)
	m[name] = slices.Clone(files[name])
	m[name][at] ^= 1 << (at % 8)
	fs := restore(t, m)
	o := options(t, fs)
	var mu sync.Mutex
	var fatal error
	o.Fatal = func(err error) { mu.Lock(); defer mu.Unlock(); fatal = err }
	l, err := embedded.Open(o)
	if err != nil {
		refused(t, fs, m, want, name, at, err)
		return true
	}
	defer func() { _ = l.Close() }()
	for p := range want {
		_, end, err := l.Bounds(ctx, part(p))
		if err != nil {
			break // a table was found bad in the background: named
		}
		if int(end) < len(want[p]) {
			t.Fatalf("%s flipped at %d: partition %d ends at %d, not %d, in silence", name, at, p, end, len(want[p]))
		}
		for o := log.Offset(0); o < end; {
			rs, err := l.Read(ctx, part(p), o, 1<<20)
			if err != nil {
				if !errors.Is(err, log.ErrCorrupt) && !errors.Is(err, log.ErrClosed) {
					t.Fatalf("%s flipped at %d: %v", name, at, err)
				}
				mu.Lock()
				defer mu.Unlock()
				if fatal == nil {
					t.Fatalf("%s flipped at %d: %v, and no stop", name, at, err)
				}
				return true
			}
			for _, r := range rs {
				if string(r.Value) != want[p][o] {
					t.Fatalf("%s flipped at %d: partition %d offset %d is another", name, at, p, o)
				}
				o++
			}
		}
	}
	mu.Lock()
	defer mu.Unlock()
	return fatal != nil
}

func refused(t *testing.T, fs vfs.FS, m map[string][]byte, want [][]string, name string, at int, err error) {
	t.Helper()
	var c *log.CorruptError
	if !errors.As(err, &c) {
		if strings.HasPrefix(name, "OPTIONS") {
			return // Pebble cannot parse it, and says so with its name
		}
		t.Fatalf("%s flipped at %d: %v", name, at, err)
	}
	watched := strings.HasSuffix(name, ".log") || strings.HasPrefix(name, "MANIFEST")
	after := snapshot(t, fs)
	for n := range m {
		if watched && string(after[n]) != string(m[n]) {
			t.Fatalf("%s flipped at %d: the failed start changed or deleted %s", name, at, n)
		}
	}
	// With the bit turned back all is there: nothing was deleted that was needed.
	if after[name] == nil {
		t.Fatalf("%s flipped at %d: it is deleted", name, at)
	}
	after[name][at] ^= 1 << (at % 8)
	l := open(t, options(t, restore(t, after)))
	for p := range want {
		if _, vs := readAll(t, l, part(p)); !slices.Equal(vs, want[p]) {
			t.Fatalf("%s flipped at %d and back: %d of %d", name, at, len(vs), len(want[p]))
		}
	}
	must(t, l.Close())
	if !watched {
		return
	}
	if c.File != name || c.Byte < 0 || c.Byte > int64(at) {
		t.Fatalf("%s flipped at %d: named %s at %d", name, at, c.File, c.Byte)
	}
	if strings.HasSuffix(name, ".log") && len(c.FirstUnreadable) != len(want) {
		t.Fatalf("%s flipped at %d: %v", name, at, c.FirstUnreadable)
	}
	for p, o := range c.FirstUnreadable {
		if o < 0 || int(o) > len(want[p.Index]) {
			t.Fatal(p, o)
		}
	}
}

// E5: a table that is missing is named at the start, and nothing is deleted. Put back, it is all there.
func TestMissingTables(t *testing.T) {
	mem := vfs.NewMem()
	const rounds, records = 3, 20
	for round := range rounds + 1 { // each start puts into a table what the one before has left in its WAL
		l := open(t, options(t, mem))
		withTopic(t, l, 2)
		for i := range records {
			if round < rounds {
				_, err := l.Append(ctx, rec(0, fmt.Sprint(i)), rec(1, fmt.Sprint(i)))
				must(t, err)
			}
		}
		must(t, l.Close())
	}
	files := snapshot(t, mem)
	missing := 0
	for name := range files {
		if !strings.HasSuffix(name, ".sst") {
			continue
		}
		without := maps.Clone(files)
		delete(without, name)
		fs := restore(t, without)
		_, err := embedded.Open(options(t, fs))
		var c *log.CorruptError
		if !errors.As(err, &c) || c.File != name || !strings.Contains(err.Error(), "log: corrupt: "+name+": missing; put it back, or restore a copy") {
			t.Fatal(err)
		}
		missing++
		after := snapshot(t, fs)
		for n := range without {
			if after[n] == nil {
				t.Error("deleted:", n)
			}
		}
		after[name] = files[name]
		l := open(t, options(t, restore(t, after)))
		for p := range 2 {
			if _, vs := readAll(t, l, part(p)); len(vs) != rounds*records {
				t.Errorf("%s put back: %d of %d", name, len(vs), rounds*records)
			}
		}
		must(t, l.Close())
	}
	if missing < 2 {
		t.Fatal("too few tables:", missing)
	}
}

// E5: what FirstUnreadable says is exact for the live WAL: the records before are there, and it is the first that is not.
func TestFirstUnreadable(t *testing.T) {
	fs := vfs.NewCrashableMem()
	o := options(t, fs)
	o.MemTableBytes = 4 << 20
	l := open(t, o)
	withTopic(t, l, 2)
	for i := range 300 {
		_, err := l.Append(ctx, rec(i%2, fmt.Sprintf("%04d", i)))
		must(t, err)
	}
	files := snapshot(t, kill(fs))
	must(t, l.Close())
	for name, b := range files {
		at := strings.Index(string(b), "0200")
		if !strings.HasSuffix(name, ".log") || at < 0 {
			continue
		}
		b[at] ^= 1
		o := options(t, restore(t, files))
		_, err := embedded.Open(o)
		var c *log.CorruptError
		if !errors.As(err, &c) || c.File != name || c.FirstUnreadable[part(0)] != 100 || c.FirstUnreadable[part(1)] != 100 {
			t.Fatal(err, c.FirstUnreadable)
		}
		o.Adopt = true // a person decides to go on with what is left
		l := open(t, o)
		if _, vs := readAll(t, l, part(0)); len(vs) != 100 {
			t.Fatal(len(vs))
		}
		must(t, l.Close())
		o.Adopt = false
		must(t, open(t, o).Close())
		return
	}
	t.Fatal("the record is in no WAL")
}

func TestReadOnly(t *testing.T) {
	files, want := killed(t)
	fs := restore(t, files)
	o := options(t, fs)
	o.ReadOnly = true
	l := open(t, o)
	if _, vs := readAll(t, l, part(1)); !slices.Equal(vs, want[1]) {
		t.Fatal(len(vs))
	}
	if _, err := l.Append(ctx, rec(0, "x")); !errors.Is(err, log.ErrClosed) {
		t.Fatal(err)
	}
	must(t, l.Close())
	after := snapshot(t, fs)
	for n, b := range files {
		if string(after[n]) != string(b) {
			t.Fatal("changed:", n)
		}
	}
}
