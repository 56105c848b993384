package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/remitlog/remit/consumers/parked"
	"github.com/remitlog/remit/consumers/push"
	"github.com/remitlog/remit/docs/docstest"
	"github.com/remitlog/remit/log/registry"
)

// TestPushPage runs docs/push.md: its sink in Python takes what is published, signed; what it refuses is parked, and taken when it was mended and sent again.
func TestPushPage(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("python3 is not there")
	}
	page := docstest.Page(t, "../../docs/push.md")
	url, _ := startConfig(t, Config{Data: t.TempDir(), Partitions: 4, AutoCreateTopics: true, Kafka: "127.0.0.1:0", CallsTo: []string{toLoopback}})
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(dir, "remit")); err != nil {
		t.Fatal(err)
	}
	_, sink, _ := strings.Cut(page, "```python\n")
	sink, _, _ = strings.Cut(sink, "```")
	if err := os.WriteFile(filepath.Join(dir, "sink.py"), []byte(sink), 0o600); err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	shell := func(script string) *exec.Cmd {
		script = strings.NewReplacer("localhost:8080", strings.TrimPrefix(url, "http://"), "9009", port).Replace(script)
		c := exec.CommandContext(t.Context(), "sh", "-ec", script)
		c.Dir = dir
		c.Env = append(os.Environ(), beRemit+"=1", "REMIT_SERVER="+url, "PATH="+dir+":"+os.Getenv("PATH"))
		return c
	}
	blocks := shellBlock.FindAllStringSubmatch(page, -1)
	if len(blocks) != 7 {
		t.Fatalf("the page has %d blocks of commands", len(blocks))
	}
	// The first starts the sink in the background. Here it is a child of the test.
	secret, start, _ := strings.Cut(blocks[0][1], "\n")
	started := shell(secret + "\nexec " + strings.TrimSuffix(strings.TrimSpace(start), "&"))
	if err := started.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = started.Process.Kill() // it ends by nothing else
		_ = started.Wait()
	})
	await(t, "the sink listens", func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	taken := func(want string) func() bool {
		return func() bool {
			b, err := os.ReadFile(filepath.Join(dir, "taken"))
			return err == nil && strings.Contains(string(b), want)
		}
	}
	prints := func(want, script string) func() bool {
		return func() bool {
			out, err := shell(script).Output()
			return err == nil && strings.Contains(string(out), want)
		}
	}
	after := map[int]func() bool{
		1: taken(`order-1 {"total":"12.50"}`), 3: prints("delivering", blocks[3][1]), 4: prints("order-2", blocks[5][1]), 6: taken("order-2 {}"),
	}
	for i, b := range blocks[1:] {
		if out, err := shell(b[1]).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", b[1], err, out)
		}
		if so := after[i+1]; so != nil {
			await(t, fmt.Sprintf("what follows from %q", b[1]), so)
		}
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// await waits until something is so.
func await(t *testing.T, what string, so func() bool) {
	t.Helper()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for end := time.Now().Add(time.Minute); !so(); <-look.C {
		if time.Now().After(end) {
			t.Fatalf("%s: it never comes", what)
		}
	}
}

// TestPushPageLimits: what the page says of limits and defaults is so.
func TestPushPageLimits(t *testing.T) {
	page := docstest.Page(t, "../../docs/push.md")
	var o push.Options
	o.EnsureDefaults()
	docstest.Limits(t, page, map[string]string{
		"WorkersMax": strconv.Itoa(o.WorkersMax), "HeldMax": strconv.Itoa(o.HeldMax), "HeldBytesMax": fmt.Sprint(o.HeldBytesMax>>20, " MiB"),
		"OutageMax": strconv.Itoa(o.OutageMax), "AskingMax": strconv.Itoa(o.AskingMax), "FailingMax": strconv.Itoa(push.FailingMax),
		"ReplayMax": strconv.Itoa(parked.ReplayMax), "ScanMax": strconv.Itoa(parked.ScanMax), "AgainMax": strconv.Itoa(parked.AgainMax),
	})
	for _, want := range []string{
		fmt.Sprintf("| subscriptions | %s |", regexp.MustCompile(`(\d)(\d{3})$`).ReplaceAllString(strconv.Itoa(registry.SubscriptionsMax), "$1,$2")),
		fmt.Sprintf("but %d KiB to each", o.HeldBytesMin>>10), fmt.Sprintf("| what a crash repeats | %d ms |", o.CommitEvery.Milliseconds()),
		fmt.Sprintf("| calls under way when remit stops | %.0f s |", o.DrainMax.Seconds()), fmt.Sprintf("`RetryAfterMax` %.0f hour |", push.RetryAfterMax.Hours()),
		fmt.Sprintf("has %s to finish", map[time.Duration]string{time.Second: "a second"}[o.ChangeMax]), fmt.Sprintf("%d keys or more have failed", o.OutageMax),
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %q", want)
		}
	}
}
