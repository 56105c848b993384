package consumers_test

import (
	"database/sql"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/remitlog/remit/consumers"
	"github.com/remitlog/remit/consumers/dbtest"
	"github.com/remitlog/remit/docs/docstest"
)

const page = "../docs/consumers.md"

// TestPage: the service of docs/consumers.md compiles, and reads what remit tells of its payments.
func TestPage(t *testing.T) {
	binary, dsn, server := docstest.Program(t, docstest.Page(t, page)), dbtest.PostgreSQL(t), startRemit(t)
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
	var o consumers.Options
	o.EnsureDefaults()
	docstest.Limits(t, docstest.Page(t, page), map[string]string{
		"WorkersMax": strconv.Itoa(o.WorkersMax), "HeldMax": strconv.Itoa(o.HeldMax), "AheadMax": strconv.Itoa(o.AheadMax),
		"HeldBytesMax": fmt.Sprint(o.HeldBytesMax>>20, " MiB"), "AttemptsMax": strconv.Itoa(o.AttemptsMax),
		"AttemptMax": fmt.Sprint(o.AttemptMax.Minutes(), " minute"), "BackoffMax": fmt.Sprint(o.BackoffMax.Seconds(), " s"),
		"DrainMax": fmt.Sprint(o.DrainMax.Seconds(), " s"), "ReasonMax": fmt.Sprint(consumers.ReasonMax>>10, " KiB"),
	})
}
