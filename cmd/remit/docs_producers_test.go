package main

import (
	"bufio"
	"bytes"
	"database/sql"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	_ "modernc.org/sqlite"

	"github.com/remitlog/remit/cmd/remit/api"
	"github.com/remitlog/remit/log"
)

const producersDir = "../../docs/producers"

// scriptLinesMax is what a stranger is asked to read.
const scriptLinesMax = 99

// TestProducerScripts runs the producers of docs/producers against a server as `remit dev` runs it, and has them die, and wait, between
// any two steps: an order's event is on the topic, once, if and only if its row is in SQLite. What a script that died did not say, the
// back-check of another one decides.
func TestProducerScripts(t *testing.T) {
	for name, s := range map[string]*script{
		"node":   {argv: []string{"node", "orders.mjs"}, dir: "node"},
		"python": {argv: []string{"python3", "orders.py"}, dir: "python"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s.install(t)
			s.server, _ = startConfig(t, Config{Data: t.TempDir(), Partitions: 4, AutoCreateTopics: true, Kafka: "127.0.0.1:0", CallsTo: []string{toLoopback}})
			s.lives(t)
		})
	}
}

// script is a producer of docs/producers.
type script struct {
	argv    []string
	dir     string // in docs/producers, and then a copy of it
	server  string
	checkAt string // where it answers back-checks
}

// install copies the script to where it may leave files, and skips the test where it cannot run.
func (s *script) install(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath(s.argv[0]); err != nil {
		t.Skipf("%s is not there", s.argv[0])
	}
	from := filepath.Join(producersDir, s.dir)
	s.dir = t.TempDir()
	if err := os.CopyFS(s.dir, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(s.dir, s.argv[1]))
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(text, []byte("\n")); n > scriptLinesMax {
		t.Errorf("%s has %d lines, more than %d", s.argv[1], n, scriptLinesMax)
	}
	if s.argv[0] == "node" && exec.CommandContext(t.Context(), "node", "-e", `require("node:sqlite")`).Run() != nil {
		s.linkModules(t)
	}
}

// linkModules gives the script the SQLite that .ci/producers has installed.
func (s *script) linkModules(t *testing.T) {
	t.Helper()
	installed := os.Getenv("REMIT_PRODUCERS")
	if installed == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		installed = filepath.Join(cache, "remit", "producers")
	}
	modules := filepath.Join(installed, "node_modules")
	if _, err := os.Stat(filepath.Join(modules, "better-sqlite3")); err != nil {
		t.Skipf("this Node.js has no node:sqlite, and better-sqlite3 is not installed; .ci/producers installs it: %v", err)
	}
	if err := os.Symlink(modules, filepath.Join(s.dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
}

// testSecret is base64 of "a key for the test of a page only".
const testSecret = "whsec_YSBrZXkgZm9yIHRoZSB0ZXN0IG9mIGEgcGFnZSBvbmx5"

// command is the script with arguments; at is where it is to die or wait.
func (s *script) command(t *testing.T, at string, args ...string) *exec.Cmd {
	c := exec.CommandContext(t.Context(), s.argv[0], append(s.argv[1:2:2], args...)...)
	c.Dir = s.dir
	c.Env = append(os.Environ(), "REMIT_SERVER="+s.server, "CHECK_SECRET="+testSecret, "CHECK_AFTER=10m", at)
	return c
}

// serve starts the script to answer back-checks, and returns how to end it.
func (s *script) serve(t *testing.T) (stop func()) {
	t.Helper()
	c := s.command(t, "", "serve")
	c.Stderr = t.Output()
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	stop = func() {
		_ = c.Process.Kill()
		_ = c.Wait() // it was killed
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	_, address, ok := strings.Cut(strings.TrimSpace(line), "answering back-checks at ")
	if err != nil || !ok {
		stop()
		t.Fatalf("%q %v", line, err)
	}
	s.checkAt = address
	return stop
}

// send sends an order, and reports whether the script says that it did.
func (s *script) send(t *testing.T, order string) bool {
	t.Helper()
	out, err := s.command(t, "", "send", order, "1250").CombinedOutput()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatalf("%v %s", err, out)
	}
	if err != nil {
		t.Logf("%s: %s", order, out)
	}
	return err == nil
}

// sendAndDie has the script killed at a point.
func (s *script) sendAndDie(t *testing.T, at, order string) {
	t.Helper()
	out, err := s.command(t, "DIE_AT="+at, "send", order, "1250").CombinedOutput()
	if e, ok := errors.AsType[*exec.ExitError](err); !ok || e.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("it did not die at %q: %v %s", at, err, out)
	}
}

// sendAndWait has the script wait at a point until its message is decided, and reports whether it then says that the order was sent. With a row it
// is there once the order has one.
func (s *script) sendAndWait(t *testing.T, at, order, state string, row bool) bool {
	t.Helper()
	c := s.command(t, "WAIT_AT="+at, "send", order, "1250")
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if row {
		s.until(t, "the row of "+order, func() bool { return s.rows(t)[order] > 0 })
	}
	s.await(t, order, state)
	_, err = io.WriteString(in, "\n")
	return errors.Join(err, c.Wait()) == nil
}

// lives is the life of a shop.
func (s *script) lives(t *testing.T) {
	stop := s.serve(t)
	if !s.send(t, "fine") {
		t.Error("a plain order was not sent")
	}
	if s.send(t, "fine") {
		t.Error("an order was sent twice")
	}
	s.refusesForged(t)
	stop()
	for at, order := range map[string]string{"prepared": "dead-before", "open": "dead-within", "decided": "dead-behind"} {
		s.sendAndDie(t, at, order)
	}
	defer s.serve(t)() // another process, at another address
	s.await(t, "dead-before", "rolledback")
	s.await(t, "dead-within", "rolledback")
	s.await(t, "dead-behind", "delivered")
	if s.sendAndWait(t, "prepared", "late", "rolledback", false) {
		t.Error("a local transaction that came after the back-check's answer was committed")
	}
	if !s.sendAndWait(t, "decided", "asked", "delivered", true) {
		t.Error("an order that the back-check had committed was not sent")
	}
	want := map[string]int{"fine": 1, "dead-behind": 1, "asked": 1}
	if rows := s.rows(t); !maps.Equal(rows, want) {
		t.Errorf("rows of %v, want %v", rows, want)
	}
	if events := s.events(t); !maps.Equal(events, want) {
		t.Errorf("events of %v, want %v", events, want)
	}
}

// refusesForged asks as remit does, without its signature. A script that answered would leave a row.
func (s *script) refusesForged(t *testing.T) {
	t.Helper()
	const forged = `{"specversion":"1.0","id":"x","source":"remit","type":"remit.message.check.v1","data":{"producer":"shop","event":{"id":"forged"}}}`
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.checkAt, strings.NewReader(forged))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = http.Header{"Content-Type": {"application/cloudevents+json"}, "Webhook-Id": {"x"}, "Webhook-Timestamp": {"1"}, "Webhook-Signature": {"v1,AAAA"}}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusUnauthorized {
		t.Errorf("a back-check that nobody signed is answered with %d", res.StatusCode)
	}
	if n := s.count(t, `SELECT event, 1 FROM decisions WHERE event = 'forged'`); len(n) > 0 {
		t.Error("a back-check that nobody signed left a row")
	}
}

// await waits until the message of an order is in a state. As long as it is undecided a person has its producer asked, which the schedule would do
// in ten minutes: when that is, is no question of how fast the machine is.
func (s *script) await(t *testing.T, order, state string) {
	t.Helper()
	var list api.List[api.Message]
	asked := time.Time{}
	s.until(t, "the message of "+order, func() bool {
		s.get(t, "/v1/messages?topic=orders&key="+url.QueryEscape(order), &list)
		if len(list.Items) > 0 && list.Items[0].State == "prepared" && time.Since(asked) > time.Second { // an answer may be late
			asked = time.Now()
			s.check(t, list.Items[0].ID)
		}
		return len(list.Items) > 0 && list.Items[0].State != "prepared"
	})
	if list.Items[0].State != state {
		t.Fatalf("the message of %s is not %s: %+v", order, state, list.Items)
	}
}

// check has the producer of a message asked now.
func (s *script) check(t *testing.T, id log.ID) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.server+"/v1/messages/"+id.String()+"/check", strings.NewReader(`{"reason":"a test"}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusConflict { // it was decided meanwhile
		t.Errorf("check: %s", res.Status)
	}
}

// until waits until something is so.
func (s *script) until(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for until := time.Now().Add(2 * time.Minute); !is(); <-tick.C {
		if time.Now().After(until) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func (s *script) get(t *testing.T, path string, v any) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.server+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if err := json.UnmarshalRead(res.Body, v); err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d %v", path, res.StatusCode, err)
	}
}

// rows counts the rows of each order.
func (s *script) rows(t *testing.T) map[string]int {
	t.Helper()
	return s.count(t, `SELECT id, count(*) FROM orders GROUP BY id`)
}

func (s *script) count(t *testing.T, query string) map[string]int {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(s.dir, "orders.db")+"?_pragma=busy_timeout(60000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.QueryContext(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	counts := map[string]int{}
	for rows.Next() {
		var key string
		var n int
		if err := rows.Scan(&key, &n); err != nil {
			t.Fatal(err)
		}
		counts[key] = n
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return counts
}

// events counts the events of each order on the topic.
func (s *script) events(t *testing.T) map[string]int {
	t.Helper()
	var topic api.Topic
	s.get(t, "/v1/topics/orders", &topic)
	counts := map[string]int{}
	for _, end := range topic.Ends {
		var got api.TopicEvents
		s.get(t, "/v1/topics/orders/events?partition="+strconv.Itoa(int(end.Partition)), &got)
		for _, item := range got.Items {
			var data struct {
				Order string `json:"order"`
				Cents int    `json:"cents"`
			}
			if err := json.Unmarshal(item.Event.Data, &data); err != nil || data.Cents != 1250 {
				t.Errorf("event %s: %s %v", item.Event.ID, item.Event.Data, err)
			}
			counts[data.Order]++
		}
	}
	return counts
}
