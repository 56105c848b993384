package core_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/go-json-experiment/json"

	"github.com/remitlog/remit/cmd/remit/core"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/embedded"
	"github.com/remitlog/remit/log/registry"
	"github.com/remitlog/remit/saga/payments"
)

var (
	updateDigests = flag.Bool("update-digests", false, "TestGoldenLogs records what the folds of this version make of the logs")
	updateGolden  = flag.String("update-golden", "", "TestGoldenLogs records this log anew, and its digests; a released one is never recorded anew")
)

// golden is a log that an earlier build has written, and what this one makes of it.
type golden struct {
	name    string
	log     string
	digests string
	// record lives a small life whose log it is.
	record func(*testing.T, *flipped)
}

// goldens are all of them. A new fact comes with a new one.
var goldens = []golden{
	{"payments", "testdata/golden/log.jsonl", "testdata/golden/digests.txt", liveByPayments},
	{"messages", "testdata/golden/messages.jsonl", "testdata/golden/messages.digests.txt", liveByMessages},
}

// TestGoldenLogs replays logs that earlier builds have written, and holds the digests of the core and of every view against
// those that they had then: Apply is for ever. A row that looks otherwise now needs another fold version (core.FoldVersion, or the
// view's), since stores that are kept would disagree with stores that are made again; then the digests are recorded anew, and
// the logs never.
func TestGoldenLogs(t *testing.T) {
	for _, g := range goldens {
		t.Run(g.name, func(t *testing.T) {
			if *updateGolden == g.name {
				g.update(t)
			}
			g.replay(t)
		})
	}
}

// TestGoldenLogsHaveEveryFact: whatever the core writes stands in one of them.
func TestGoldenLogsHaveEveryFact(t *testing.T) {
	there := map[string]bool{}
	for _, g := range goldens {
		for _, r := range g.records(t) {
			e, err := log.ParseRecord(r)
			if err != nil {
				t.Fatal(err)
			}
			there[e.Type] = true
		}
	}
	for _, f := range append(core.Facts(), registry.Facts()...) {
		if !there[f.Type] {
			t.Errorf("no golden log has a %s", f.Type)
		}
	}
}

func (g golden) replay(t *testing.T) {
	t.Helper()
	want, err := os.ReadFile(g.digests)
	if err != nil {
		t.Fatal(err)
	}
	f := &flipped{fs: vfs.NewMem()}
	l, err := embedded.Open(embedded.Options{Dir: "log", FS: f.fs, BallastBytes: -1, FreeFloorBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range g.records(t) {
		partitions := lifePartitions
		if r.Topic == log.RegistryTopic {
			partitions = 1
		}
		if err := l.CreateTopic(t.Context(), log.TopicConfig{Name: r.Topic, Partitions: partitions}); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Append(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.open(); err != nil {
		t.Fatal(err)
	}
	defer f.close()
	got := goldenSums(t, f)
	if *updateDigests {
		if err := os.WriteFile(g.digests, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != string(want) {
		t.Errorf("the golden log folds to something else:\n%s", differing(string(want), got))
	}
}

// goldenSums says what all folds have made of the log, under the versions of their rules.
func goldenSums(t *testing.T, f *flipped) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintln(&b, core.FoldVersion)
	for p := range int32(lifePartitions) {
		sum, at, err := f.c.Store().Digest(p)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "core/%d %d %x\n", p, at, sum)
	}
	sum, at, err := f.c.RegistryStore().Digest(0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&b, "registry/0 %d %x\n", at, sum)
	if err := f.v.Wait(t.Context(), f.c.Store().Position()); err != nil {
		t.Fatal(err)
	}
	digests, err := f.v.Digests()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range digests {
		fmt.Fprintln(&b, d)
	}
	return b.String()
}

func (g golden) records(t *testing.T) (all []log.Record) {
	t.Helper()
	b, err := os.ReadFile(g.log)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r log.Record
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// update lives the life, and writes down its log and what was made of it.
func (g golden) update(t *testing.T) {
	t.Helper()
	f := &flipped{fs: vfs.NewMem()}
	g.record(t, f)
	var b bytes.Buffer
	for _, topic := range []string{log.RegistryTopic, log.EventsTopic, log.PaymentsTopic} {
		for p := range int32(lifePartitions) {
			writeGolden(t, &b, f.l, log.Partition{Topic: topic, Index: p})
		}
	}
	if err := errors.Join(os.MkdirAll("testdata/golden", 0o755), os.WriteFile(g.log, b.Bytes(), 0o644),
		os.WriteFile(g.digests, []byte(goldenSums(t, f)), 0o644)); err != nil {
		t.Fatal(err)
	}
	f.close()
}

// liveByPayments has something of everything that payments came to in the first release.
func liveByPayments(t *testing.T, f *flipped) {
	t.Helper()
	if err := f.open(); err != nil {
		t.Fatal(err)
	}
	w := &world{t, f.l, f.c}
	for i := range lifeAccounts {
		w.account(account(i), 10_000)
	}
	for i := range 24 {
		r := payments.Request{Name: fmt.Sprint("golden-", i), Payer: account(i % lifeAccounts), Payee: account((i + 1) % lifeAccounts), Amount: int64(100 * i * i), Currency: "USD", Manual: i%4 == 3}
		if i == 0 {
			r.Amount = 1
		}
		a, err := f.c.Payments.Pay(t.Context(), r, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case a.Payment.State == payments.StateHeld && i%8 == 3:
			_, err = f.c.Payments.Capture(t.Context(), a.Payment.ID, r.Amount/2, "golden", time.Minute)
		case a.Payment.State == payments.StateHeld:
			_, err = f.c.Payments.Void(t.Context(), a.Payment.ID, "golden", time.Minute)
		case a.Payment.State == payments.StatePaid && i%3 == 0:
			_, err = f.c.Payments.Refund(t.Context(), payments.RefundRequest{Of: a.Payment.ID, Name: "back", Amount: 1}, time.Minute)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	(&life{T: t, l: f.l, c: f.c}).settle()
}

func writeGolden(t *testing.T, b *bytes.Buffer, l *embedded.Log, p log.Partition) {
	t.Helper()
	_, end, err := l.Bounds(t.Context(), p)
	if errors.Is(err, log.ErrUnknownPartition) {
		return
	}
	for at := log.Offset(0); at < end; {
		records, err := l.Read(context.Background(), p, at, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			line, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			b.Write(append(line, '\n'))
			at = r.Offset + 1
		}
	}
}
