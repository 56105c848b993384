package core_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"path"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/remitlog/remit/broker"
	"github.com/remitlog/remit/cmd/remit/core"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/embedded"
	"github.com/remitlog/remit/log/registry"
	"github.com/remitlog/remit/projections"
	"github.com/remitlog/remit/saga/payments"
)

var flipStep = flag.Int("flip-step", 40_000, "TestFlippedBits flips a bit of every so manieth byte")

const flipPayments = 300

// flipped is one start of a killed store with one bit flipped.
type flipped struct {
	fs    vfs.FS
	l     *embedded.Log
	c     *core.Core
	v     *projections.Views
	fatal atomic.Pointer[error]
	asker broker.Asker
}

func (f *flipped) fail(err error) { f.fatal.CompareAndSwap(nil, &err) }

// open starts as the server does. Whatever refuses the start is the error.
func (f *flipped) open() (err error) {
	f.fatal.Store(nil)
	if f.l, err = embedded.Open(embedded.Options{Dir: "log", FS: f.fs, Fatal: f.fail, BallastBytes: -1, FreeFloorBytes: -1}); err != nil {
		return fmt.Errorf("log: %w", err)
	}
	f.c, err = core.Open(context.Background(), core.Options{
		Log: f.l, Dir: "", FS: f.fs, Partitions: lifePartitions, Fatal: f.fail, Asker: func(*registry.Registry) broker.Asker { return f.asker },
	})
	if err != nil {
		return err
	}
	f.v, err = projections.Follow(context.Background(), projections.Options{Log: f.l, Dir: "d", FS: f.fs, Partitions: lifePartitions, Fatal: f.fail})
	return err
}

func (f *flipped) close() {
	if f.v != nil {
		_ = f.v.Close()
	}
	if f.c != nil {
		_ = f.c.Close()
	}
	if f.l != nil {
		_ = f.l.Close()
	}
	f.l, f.c, f.v = nil, nil, nil
}

// proof is what every start must say again: each record of the log, and a digest of everything that is made of it.
func (f *flipped) proof(ids []log.ID) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := f.c.Node.Rest(ctx); err != nil {
		return "", err
	}
	var b strings.Builder
	for _, topic := range []string{log.EventsTopic, log.PaymentsTopic} {
		for p := range int32(lifePartitions) {
			part := log.Partition{Topic: topic, Index: p}
			_, end, err := f.l.Bounds(ctx, part)
			if err != nil {
				return "", err
			}
			sum := log.FingerprintOf()
			for at := log.Offset(0); at < end; {
				records, err := f.l.Read(ctx, part, at, 1<<20)
				if err != nil {
					return "", err
				}
				for _, r := range records {
					sum = log.FingerprintOf(string(sum[:]), string(r.Value))
				}
				at = records[len(records)-1].Offset + 1
			}
			fmt.Fprintf(&b, "%s/%d %d %x\n", topic, p, end, sum)
		}
	}
	for _, id := range ids {
		a, err := f.c.Payments.Find(id.String(), "")
		if err != nil {
			return "", err
		}
		fmt.Fprintln(&b, id, a.Payment.State, a.Payment.Settled)
	}
	for p := range int32(lifePartitions) {
		sum, at, err := f.c.Store().Digest(p)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "core/%d %d %x\n", p, at, sum)
	}
	if err := f.v.Wait(ctx, f.c.Store().Position()); err != nil {
		return "", err
	}
	digests, err := f.v.Digests()
	if err != nil {
		return "", err
	}
	fmt.Fprint(&b, digests)
	return b.String(), nil
}

// TestFlippedBits flips bits of a killed store of 300 payments, one at a time (L2). The log's own store: named, or
// harmless; never fewer records in silence, and no file deleted by a start that is refused. The state's and the views' stores: named,
// harmless, or made again from the log.
func TestFlippedBits(t *testing.T) {
	mem := vfs.NewCrashableMem()
	f := &flipped{fs: mem}
	if err := f.open(); err != nil {
		t.Fatal(err)
	}
	ids := flipWorld(t, f)
	want, err := f.proof(ids)
	if err != nil {
		t.Fatal(err)
	}
	for _, flush := range []bool{false, true} { // rows in memtables alone, and in tables
		if flush {
			if err := f.c.Store().Flush(); err != nil {
				t.Fatal(err)
			}
		}
		killed := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
		flipAll(t, killed, ids, want)
	}
	f.close()
	flipAll(t, mem, ids, want) // and after a stop, with everything in tables
}

func flipWorld(t *testing.T, f *flipped) (ids []log.ID) {
	w := &life{T: t, l: f.l, c: f.c}
	wd := &world{t, f.l, f.c}
	for i := range lifeAccounts {
		wd.account(account(i), 1_000_000)
	}
	for i := range flipPayments {
		r := payments.Request{Name: fmt.Sprint("flip-", i), Payer: account(i % lifeAccounts), Payee: account((i + 1) % lifeAccounts), Amount: 10, Currency: "USD"}
		a, err := f.c.Payments.Pay(t.Context(), r, time.Minute)
		if err != nil || a.Payment.State != payments.StatePaid {
			t.Fatal(a, err)
		}
		ids = append(ids, a.Payment.ID)
	}
	w.settle()
	return ids
}

func flipAll(t *testing.T, killed vfs.FS, ids []log.ID, want string) {
	t.Helper()
	named, harmless, rebuilt := 0, 0, 0
	for _, file := range walk(t, killed, "") {
		data := slurp(t, killed, file)
		for at := len(file) * 97 % min(*flipStep, max(len(data), 1)); at < len(data); at += *flipStep {
			fs := vfs.NewMem()
			if _, err := vfs.Clone(killed, fs, "", ""); err != nil {
				t.Fatal(err)
			}
			flip(t, fs, file, at)
			before := walk(t, fs, "log")
			f := &flipped{fs: fs}
			got, err := f.start(ids)
			where := fmt.Sprintf("%s byte %d of %d", file, at, len(data))
			switch {
			case err == nil && got != want:
				t.Errorf("%s: opened in silence with something else:\n%s", where, differing(want, got))
			case err == nil:
				harmless++
			case strings.HasPrefix(file, "log/"):
				if !errors.Is(err, log.ErrCorrupt) {
					t.Errorf("%s: refused, but not named: %v", where, err)
				}
				if after := walk(t, fs, "log"); !contains(after, before) {
					t.Errorf("%s: the refused start deleted files:\nbefore %v\nafter  %v", where, before, after)
				}
				named++
			default: // named; the next start makes the store again
				if got, err := f.start(ids); err != nil || got != want {
					t.Errorf("%s: %v; and again: %s", where, err, differing(want, got))
				}
				rebuilt++
			}
		}
	}
	t.Logf("flips: %d named, %d harmless or mended at once, %d made again by the next start", named, harmless, rebuilt)
}

// start opens and proves; a fault that the running server would stop at is the error.
func (f *flipped) start(ids []log.ID) (got string, err error) {
	defer f.close()
	if err := f.open(); err != nil {
		return "", err
	}
	got, err = f.proof(ids)
	if fatal := f.fatal.Load(); fatal != nil {
		return "", *fatal
	}
	return got, err
}

func contains(all, some []string) bool {
	have := map[string]bool{}
	for _, s := range all {
		have[s] = true
	}
	for _, s := range some {
		if !have[s] {
			return false
		}
	}
	return true
}

func differing(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(w), len(g)) {
		if w[i] != g[i] {
			return fmt.Sprintf("want %s\ngot  %s", w[i], g[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(g), len(w))
}

func walk(t *testing.T, fs vfs.FS, dir string) (files []string) {
	t.Helper()
	list, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range list {
		full := path.Join(dir, name)
		info, err := fs.Stat(full)
		if err != nil {
			t.Fatal(err)
		}
		if info.IsDir() {
			files = append(files, walk(t, fs, full)...)
		} else {
			files = append(files, full)
		}
	}
	return files
}

func slurp(t *testing.T, fs vfs.FS, name string) []byte {
	t.Helper()
	file, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	b, err := io.ReadAll(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func flip(t *testing.T, fs vfs.FS, name string, at int) {
	t.Helper()
	b := slurp(t, fs, name)
	b[at] ^= 4
	file, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		t.Fatal(err)
	}
}
