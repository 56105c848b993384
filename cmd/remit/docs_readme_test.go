package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
)

var readmeBlock = regexp.MustCompile("(?ms)^```(sh|json)\n(.*?)^```$")

// TestReadmeTour makes the calls of the README, one after the other, on a server as `remit dev` runs it, and compares
// what is answered with what the README shows: all but ids and times.
func TestReadmeTour(t *testing.T) {
	page, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	url := startNode(t)
	var last answered
	calls, shown := 0, 0
	for _, m := range readmeBlock.FindAllStringSubmatch(string(page), -1) {
		if m[1] == "json" {
			shown++
			last.compare(t, m[2])
			continue
		}
		for _, words := range split(strings.ReplaceAll(m[2], "\\\n", " ")) {
			if words[0] == "curl" {
				calls++
				last = ask(t, url, words)
			}
		}
	}
	if calls < 5 || shown < 2 {
		t.Errorf("the README has %d calls and shows %d answers", calls, shown)
	}
}

// startNode runs a node of the default configuration in a directory of its own, and returns where it listens.
func startNode(t *testing.T) (url string) {
	t.Helper()
	config := Config{Data: t.TempDir(), Partitions: 4, AutoCreateTopics: true}
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
	return s.URL
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
	if c.body != "" {
		r.Header.Set("Content-Type", "application/json")
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
