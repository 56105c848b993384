package main

import (
	"bufio"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"
)

// gauges returns what /metrics says of messages.
func gauges(t *testing.T, server string) map[string]float64 {
	t.Helper()
	resp, err := http.Get(server + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	all := map[string]float64{}
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if short, ok := strings.CutPrefix(name, "remit_message"); ok {
			if all[short], err = strconv.ParseFloat(value, 64); err != nil {
				t.Fatal(lines.Text())
			}
		}
	}
	return all
}

// What /metrics says of messages is what there is: by state, the oldest, what was asked, and whose answer came too late.
func TestMessageMetrics(t *testing.T) {
	producer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"verdict":"unknown"}`)
	}))
	defer producer.Close()
	server := startServer(t)
	run := func(args string) string {
		t.Helper()
		code, stdout, stderr := runApp(t, []string{"REMIT_SERVER=" + server}, strings.Fields(args)...)
		if code != exitOK {
			t.Fatalf("remit %s: exit %d: %s", args, code, stderr)
		}
		return stdout
	}
	// until scrapes until a gauge has come to what it is to be.
	until := func(name string, want float64) map[string]float64 {
		t.Helper()
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			got := gauges(t, server)
			if got[name] == want {
				return got
			}
			select {
			case <-tick.C:
			case <-t.Context().Done():
				t.Fatalf("%s is %v, want %v", name, got[name], want)
			}
		}
	}
	if got := gauges(t, server); len(got) == 0 || got["s_undecided_oldest_seconds"] != 0 || got[`s_undecided{state="prepared"}`] != 0 {
		t.Errorf("before the first message: %v", got)
	}
	run("producers put shop --check-url " + producer.URL)
	run("producers put hasty --check-first-after 1ms --check-interval 1ms --check-max-interval 5ms --check-deadline 5ms --check-url " + producer.URL)
	var undecided []string
	for id, producer := range map[string]string{"m1": "shop", "m2": "shop", "m3": "shop", "m4": "hasty"} {
		answer := run("messages send orders --type order --producer " + producer + " --id " + id + " -o jsonl")
		undecided = append(undecided, strings.TrimPrefix(answer[:strings.Index(answer, `",`)], `{"id":"`))
	}
	run("messages send orders --type order --producer shop --id m5 --deliver-after 1h --commit")
	got := until(`s_undecided{state="parked"}`, 1)
	if got[`s_undecided{state="prepared"}`] != 3 || got["s_waiting"] != 1 || got["s_stuck"] != 0 || got[`_checks_total{result="unknown"}`] < 1 ||
		got["s_undecided_oldest_seconds"] <= 0 {
		t.Errorf("%v", got)
	}
	for _, id := range undecided {
		run("messages rollback --reason test " + id)
	}
	got = until("s_undecided_oldest_seconds", 0) // the view has them a moment later
	if got[`s_undecided{state="prepared"}`] != 0 || got[`s_undecided{state="parked"}`] != 0 || got["s_waiting"] != 1 {
		t.Errorf("%v", got)
	}
}
