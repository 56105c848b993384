package consumers_test

import (
	"database/sql"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/remitlog/remit/consumers"
	"github.com/remitlog/remit/consumers/dbtest"
)

func page(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../docs/consumers.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// program builds the service of docs/consumers.md.
func program(t *testing.T) (binary string) {
	t.Helper()
	_, text, ok := strings.Cut(page(t), "```go\n")
	text, _, closed := strings.Cut(text, "```")
	if !ok || !closed {
		t.Fatal("there is no program on the page")
	}
	dir := t.TempDir()
	file, binary := filepath.Join(dir, "main.go"), filepath.Join(dir, "turnover")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"gofmt", "-l", file}, {"go", "vet", file}, {"go", "build", "-o", binary, file}} {
		if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil || len(out) > 0 {
			t.Fatalf("%s: %v\n%s", args, err, out)
		}
	}
	return binary
}

// TestPage: the service of docs/consumers.md compiles, and reads what remit tells of its payments.
func TestPage(t *testing.T) {
	binary, dsn, server := program(t), dbtest.PostgreSQL(t), startRemit(t)
	for _, call := range []struct{ method, path, body string }{
		{"PUT", "/v1/accounts/alice", `{"currency":"EUR"}`},
		{"PUT", "/v1/accounts/bakery", `{"currency":"EUR"}`},
		{"POST", "/v1/accounts/alice/deposits", `{"id":"first","amount":"100.00"}`},
		{"POST", "/v1/payments", `{"id":"order-1","payer":"alice","payee":"bakery","amount":"12.50","currency":"EUR"}`},
		{"POST", "/v1/payments", `{"id":"order-2","payer":"alice","payee":"bakery","amount":"7.50","currency":"EUR"}`},
		{"POST", "/v1/payments/order-1/refunds", `{"id":"back-1","amount":"2.50"}`},
	} {
		req, err := http.NewRequestWithContext(t.Context(), call.method, server.URL+call.path, strings.NewReader(call.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		answer, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode > 299 {
			t.Fatalf("%s %s: %s", call.method, call.path, answer)
		}
	}
	cmd := exec.Command(binary)
	cmd.Env = append(os.Environ(), "DATABASE_URL="+dsn, "BROKER="+server.Kafka)
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // unless it has ended
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	look, deadline := time.NewTicker(50*time.Millisecond), time.Now().Add(time.Minute)
	defer look.Stop()
	for amount := ""; amount != "17.50"; <-look.C {
		err := db.QueryRowContext(t.Context(), "SELECT amount FROM turnover WHERE payee = 'bakery' AND currency = 'EUR'").Scan(&amount)
		if time.Now().After(deadline) {
			t.Fatalf("bakery's turnover is %q, not 17.50; %v\n%s", amount, err, said.String())
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("%v\n%s", err, said.String())
	}
}

// TestPageLimits: the limits that the page names are the defaults.
func TestPageLimits(t *testing.T) {
	said := map[string]string{}
	for _, m := range regexp.MustCompile("`([A-Za-z]+Max)` ([0-9,]+( s| minute| MiB| KiB)?)").FindAllStringSubmatch(page(t), -1) {
		said[m[1]] = strings.ReplaceAll(m[2], ",", "")
	}
	var o consumers.Options
	o.EnsureDefaults()
	for name, want := range map[string]string{
		"WorkersMax": strconv.Itoa(o.WorkersMax), "HeldMax": strconv.Itoa(o.HeldMax), "AheadMax": strconv.Itoa(o.AheadMax),
		"HeldBytesMax": fmt.Sprint(o.HeldBytesMax>>20, " MiB"), "AttemptsMax": strconv.Itoa(o.AttemptsMax),
		"AttemptMax": fmt.Sprint(o.AttemptMax.Minutes(), " minute"), "BackoffMax": fmt.Sprint(o.BackoffMax.Seconds(), " s"),
		"DrainMax": fmt.Sprint(o.DrainMax.Seconds(), " s"), "ReasonMax": fmt.Sprint(consumers.ReasonMax>>10, " KiB"),
	} {
		if said[name] != want {
			t.Errorf("the page says that %s is %q; it is %q", name, said[name], want)
		}
	}
}
