package torture_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/remitlog/remit/cmd/remit/importer"
	"github.com/remitlog/remit/cmd/remit/torture"
	"github.com/remitlog/remit/saga/accounts"
)

// TestPaySimTwice: `remit import` of PaySim's rows on `remit dev`, twice. The second run changes nothing, and what the server leaves behind
// adds up: balances, postings at every offset, transits, merchants' summaries, consumers' records, messages.
func TestPaySimTwice(t *testing.T) {
	file := filepath.Join(os.Getenv("REMIT_SHARED"), "data", "paysim.csv")
	if _, err := os.Stat(file); err != nil {
		t.Skipf("the file is taken from $REMIT_SHARED: %v", err)
	}
	binary, data := build(t), filepath.Join(t.TempDir(), "data")
	s, err := torture.Start(t.Context(), torture.Options{Binary: binary, Command: []string{"dev"}, Data: data})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Kill()
	for run := range 2 {
		cmd := exec.CommandContext(t.Context(), binary, "import", file, "--server", s.URL, "-o", "json")
		cmd.Env = append(os.Environ(), "REMIT_SHARED=") // it is no variable of remit's
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		var got importer.Summary
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		want := importer.Summary{Rows: 5000, Paid: 2824, Refused: map[string]int{"insufficient_funds": 2176}, Rejected: got.Rejected,
			PaidSum: "1023148749.95", DepositedSum: "10557628793.46", Replayed: 5000 * run, Seconds: got.Seconds}
		if len(got.Rejected) > 0 || !reflect.DeepEqual(got, want) {
			t.Errorf("run %d: %s", run+1, out)
		}
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	a, err := torture.Inspect(t.Context(), data)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range a.Broken {
		t.Error(b)
	}
	if got := accounts.FormatAmount(a.Balances["USD"], "USD"); a.Messages != 2824 || got != "10557628793.46" {
		t.Errorf("%d messages, %s on all accounts", a.Messages, got)
	}
}
