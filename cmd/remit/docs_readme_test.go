package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
)

var readmeBlock = regexp.MustCompile("(?ms)^```(sh|json)\n(.*?)^```$")

// TestReadmeTour makes the calls of the README, one after the other, on a server as `remit dev` runs it, and compares
// what is answered with what the README shows: all but ids and times.
func TestReadmeTour(t *testing.T) {
	calls, shown := tour(t, "../../README.md")
	if calls < 5 || shown < 2 {
		t.Errorf("the README has %d calls and shows %d answers", calls, shown)
	}
}

// TestMessagesPage does the same with docs/messages.md.
func TestMessagesPage(t *testing.T) {
	if calls, _ := tour(t, "../../docs/messages.md"); calls < 5 {
		t.Errorf("the page has %d calls", calls)
	}
}

// tour makes the calls of a page.
func tour(t *testing.T, path string) (calls, shown int) {
	t.Helper()
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	url, kafka := startNode(t)
	var last answered
	for _, m := range readmeBlock.FindAllStringSubmatch(string(page), -1) {
		if m[1] == "json" {
			shown++
			last.compare(t, m[2])
			continue
		}
		for _, words := range split(strings.ReplaceAll(m[2], "\\\n", " ")) {
			switch words[0] {
			case "curl":
				calls++
				last = ask(t, url, words)
			case "kcat":
				calls++
				consume(t, kafka, words)
			}
		}
	}
	return calls, shown
}

// printed is what the events of a topic have in them.
var printed = map[string]string{"payments": `"payer":"alice"`, "orders": `"total":"12.50"`}

// consume runs kcat where it is there: it must print events.
func consume(t *testing.T, kafka string, words []string) {
	t.Helper()
	if _, err := exec.LookPath("kcat"); err != nil {
		t.Log("kcat is not there, and its call was not made")
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	call := strings.ReplaceAll(strings.Join(words, " "), "localhost:9092", kafka)
	args := strings.Fields(call)
	out, err := exec.CommandContext(ctx, args[0], append(args[1:], "-q")...).Output()
	want := printed[words[slices.Index(words, "-t")+1]]
	if err != nil || want == "" || !strings.Contains(string(out), want) {
		t.Errorf("%s: %v\n%s", call, err, out)
	}
}

// TestKafkaPage runs what docs/kafka-api.md shows, where kcat is there: what is written is read.
func TestKafkaPage(t *testing.T) {
	if _, err := exec.LookPath("kcat"); err != nil {
		t.Skip("kcat is not there")
	}
	page, err := os.ReadFile("../../docs/kafka-api.md")
	if err != nil {
		t.Fatal(err)
	}
	_, kafka := startNode(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var all strings.Builder
	for _, m := range shellBlock.FindAllStringSubmatch(string(page), -1) {
		c := exec.CommandContext(ctx, "sh", "-ec", strings.ReplaceAll(m[1], "127.0.0.1:9092", kafka))
		c.Stdout = &all
		if err := c.Run(); err != nil {
			t.Errorf("%s: %v", m[1], err)
		}
	}
	lines := strings.Fields(all.String())
	slices.Sort(lines)
	if !slices.Equal(lines, strings.Fields("1 2 3 4 5 6 7 8 9")) {
		t.Errorf("%q", all.String())
	}
}

// startNode runs a node of the default configuration in a directory of its own, on ports of its own, and returns where it listens.
func startNode(t *testing.T) (url, kafka string) {
	t.Helper()
	return startConfig(t, Config{Data: t.TempDir(), Partitions: 4, AutoCreateTopics: true, Kafka: "127.0.0.1:0"})
}

func startConfig(t *testing.T, config Config) (url, kafka string) {
	t.Helper()
	config.EnsureDefaults(options)
	n, err := open(t.Context(), config, nodeDeps{Logger: slog.New(slog.DiscardHandler), Fail: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), drainMax) // t.Context has ended by now
		defer cancel()
		if err := n.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	poll := time.NewTicker(readyPoll)
	defer poll.Stop()
	for until := time.Now().Add(30 * time.Second); n.Ready() != nil; <-poll.C {
		if time.Now().After(until) {
			t.Fatal(n.Ready())
		}
	}
	s := httptest.NewServer(n.Handler())
	t.Cleanup(s.Close)
	return s.URL, n.About().Kafka
}

// answered is what a call was answered with.
type answered struct {
	call string
	body []byte
}

func ask(t *testing.T, url string, words []string) answered {
	t.Helper()
	c, err := parseCurl(words[1:])
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), c.method, url+c.path, strings.NewReader(c.body))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range c.header {
		r.Header.Set(h[0], h[1])
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := answered{strings.Join(words, " "), body}
	switch res.StatusCode {
	case http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusUnsupportedMediaType:
		t.Errorf("%s: %d %s", a.call, res.StatusCode, body)
	}
	if res.StatusCode >= http.StatusInternalServerError {
		t.Errorf("%s: %d %s", a.call, res.StatusCode, body)
	}
	return a
}

func (a answered) compare(t *testing.T, shown string) {
	t.Helper()
	var want, got any
	if err := json.Unmarshal([]byte(shown), &want); err != nil {
		t.Fatalf("%v in\n%s", err, shown)
	}
	if err := json.Unmarshal(a.body, &got); err != nil {
		t.Fatalf("%s: %v in %s", a.call, err, a.body)
	}
	if want, got := alike(want), alike(got); !reflect.DeepEqual(want, got) {
		t.Errorf("%s\nshown    %v\nanswered %v", a.call, want, got)
	}
}

var (
	anID   = regexp.MustCompile(`[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}`)
	aTime  = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`)
	unlike = []string{"endedAt"} // it may be there or not: whether the fact was on the log when the answer was made
)

// alike makes two answers that say the same thing equal: ids and times are not.
func alike(v any) any {
	switch v := v.(type) {
	case map[string]any:
		m := map[string]any{}
		for k, e := range v {
			m[k] = alike(e)
		}
		for _, k := range unlike {
			delete(m, k)
		}
		return m
	case []any:
		for i := range v {
			v[i] = alike(v[i])
		}
		return v
	case string:
		return aTime.ReplaceAllString(anID.ReplaceAllString(v, "ID"), "TIME")
	}
	return fmt.Sprint(v)
}
