package torture_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/remitlog/remit/cmd/remit/torture"
)

// TestFullDisk: a server on a small disk that fills. Writes are refused, what was paid is answered and read, writes come back when room is
// made, nothing is lost, and the process never ends.
func TestFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small tmpfs needs root")
	}
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=340m"); err != nil { // of which 256 are the floor, and 32 the ballast
		t.Skip("no tmpfs here:", err)
	}
	defer func() { _ = syscall.Unmount(disk, syscall.MNT_DETACH) }()
	data := filepath.Join(disk, "data")
	s, err := torture.Start(t.Context(), torture.Options{Binary: build(t), Command: []string{"dev"}, Data: data})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Kill()
	call := func(method, path, contentType, body string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", contentType)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err) // an answer comes, whatever the disk does
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	must := func(want int, method, path, body string) string {
		t.Helper()
		status, answer := call(method, path, "application/json", body)
		if status != want {
			t.Fatalf("%s %s: %d, want %d: %s", method, path, status, want, answer)
		}
		return answer
	}
	pay := func(n int) string {
		return fmt.Sprintf(`{"id":"order-%d","payer":"alice","payee":"shop","amount":"1.00","currency":"EUR"}`, n)
	}
	must(201, "PUT", "/v1/accounts/alice", `{"currency":"EUR"}`)
	must(201, "PUT", "/v1/accounts/shop", `{"currency":"EUR"}`)
	must(201, "POST", "/v1/accounts/alice/deposits", `{"id":"open","amount":"1000.00"}`)
	paid := 0
	for ; paid < 50; paid++ {
		must(201, "POST", "/v1/payments", pay(paid))
	}
	event := `{"specversion":"1.0","id":"1","source":"/filler","type":"filler","data":"` + strings.Repeat("x", 900<<10) + `"}`
	published := 0
	for {
		status, answer := call("POST", "/v1/topics/filler/events", "application/cloudevents+json", event)
		if status == 503 && strings.Contains(answer, `"code":"disk_full"`) {
			break
		}
		if status != 201 || published > 400 {
			t.Fatalf("event %d: %d %s", published, status, answer)
		}
		published++
	}
	if answer := must(503, "POST", "/v1/payments", pay(paid)); !strings.Contains(answer, `"code":"disk_full"`) || !strings.Contains(answer, `"retryable":true`) {
		t.Error(answer)
	}
	for _, path := range []string{"/v1/payments/order-7", "/v1/accounts/alice", "/v1/stories/order-7", "/v1/views/merchants/shop/summary", "/readyz"} {
		must(200, "GET", path, "")
	}
	must(200, "POST", "/v1/payments", pay(7)) // a repeat needs no room

	if err := syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_REMOUNT, "size=512m"); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	for status := 0; status != 201; { // what is known of the free space is a moment old
		var answer string
		if status, answer = call("POST", "/v1/payments", "application/json", pay(paid)); status != 201 && status != 200 && (status != 503 || time.Now().After(deadline)) {
			t.Fatalf("with room again: %d %s", status, answer)
		}
		if status == 200 {
			break // it was taken, and its answer was late
		}
	}
	paid++
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
	if a.Messages != paid || a.Balances["EUR"] != 1000_00 {
		t.Errorf("%d messages of %d, %d on all accounts", a.Messages, paid, a.Balances["EUR"])
	}
}
