package clients_test

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
)

// TestCloudEvents: a payment's message is read by CloudEvents' own SDKs for other languages.
func TestCloudEvents(t *testing.T) {
	readers := []struct {
		tool
		file string
	}{{tools[2], "read_event.py"}, {tools[1], "read_event.mjs"}}
	s := dev(t)
	call(t, http.MethodPut, s.URL+"/v1/accounts/alice", `{"currency":"EUR"}`)
	call(t, http.MethodPut, s.URL+"/v1/accounts/bakery", `{"currency":"EUR"}`)
	call(t, http.MethodPost, s.URL+"/v1/accounts/alice/deposits", `{"id":"first","amount":"100.00"}`)
	said := call(t, http.MethodPost, s.URL+"/v1/payments", `{"id":"order-1","payer":"alice","payee":"bakery","amount":"12.50","currency":"EUR"}`)
	var payment struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(said, &payment); err != nil {
		t.Fatal(err)
	}
	for _, r := range readers {
		t.Run(r.name, func(t *testing.T) {
			if why := r.absent(); why != "" {
				t.Skip(why)
			}
			interpreter := "node"
			if strings.HasSuffix(r.file, ".py") {
				interpreter = filepath.Join(clientsDir(), "python", "bin", "python3")
			}
			cmd := exec.Command(interpreter, filepath.Join("testdata", r.file), s.Kafka, "payments")
			cmd.Env = append(os.Environ(), "REMIT_CLIENTS="+clientsDir(), "PYTHONDONTWRITEBYTECODE=1", "NODE_NO_WARNINGS=1")
			var event struct {
				Attributes map[string]any `json:"attributes"`
				Data       map[string]any `json:"data"`
			}
			out := run(t, cmd, "")
			if err := json.Unmarshal([]byte(out), &event); err != nil {
				t.Fatal(err, out)
			}
			for name, want := range map[string]any{"specversion": "1.0", "type": "remit.payment.paid.v1", "correlationid": payment.ID, "partitionkey": "alice"} {
				if got := event.Attributes[name]; got != want {
					t.Errorf("%s is %v, want %v", name, got, want)
				}
			}
			for name, want := range map[string]any{"payer": "alice", "payee": "bakery", "amount": "12.50", "currency": "EUR"} {
				if got := event.Data[name]; got != want {
					t.Errorf("data: %s is %v, want %v", name, got, want)
				}
			}
			if t.Failed() {
				t.Log(out)
			}
		})
	}
}

func call(t *testing.T, method, url, body string) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 300 {
		t.Fatal(url, resp.Status, err, string(bytes.TrimSpace(said)))
	}
	return said
}
