package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/remitlog/remit/cmd/remit/api"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/log/registry"
)

// runApp runs a command line and returns its exit code and what it printed.
func runApp(t *testing.T, environ []string, args ...string) (int, string, string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	a := &app{stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr, environ: environ, signals: notify, open: open}
	code := a.run(t.Context(), args)
	return code, stdout.String(), stderr.String()
}

func TestCommandLine(t *testing.T) {
	for _, c := range []struct {
		args           string
		code           int
		stdout, stderr string // a part; "" means that nothing is printed there
	}{
		{"", exitUsage, "", "remit needs a command"},
		{"--help", exitOK, "Exit codes: 0 ok", ""},
		{"vesion", exitUsage, "", "did you mean version?"},
		{"nonsense", exitUsage, "", `remit has no command "nonsense"`},
		{"config", exitUsage, "", "remit config needs a command"},
		{"config pirnt", exitUsage, "", "did you mean print?"},
		{"version", exitOK, "platform", ""},
		{"version -o json", exitOK, `{"version":`, ""},
		{"version -o xml", exitUsage, "", `"xml" is not one of table, json, jsonl`},
		{"--version", exitOK, "remit (devel)\n", ""},
		{"payments list --limit -1", exitUsage, "", "below zero"},
		{"payments list --limit x", exitUsage, "", `--limit "x" is not a whole number`},
		{"import f --rate x", exitUsage, "", `--rate "x" is not a number`},
		{"bench append --callers 99999999999999999999", exitUsage, "", "the number is too large"},
		{"version extra", exitUsage, "", "See `remit version --help`"},
		{"version --nope", exitUsage, "", "unknown flag: --nope"},
		{"config print", exitOK, "127.0.0.1:8080  default", ""},
		{"config print --partitions 64 -o jsonl", exitOK, `{"name":"partitions","value":"64","source":"flag --partitions"}` + "\n", ""},
		{"config print -o json", exitOK, `[{"name":"data"`, ""},
		{"config print --partitions x", exitUsage, "", `"x" is not a whole number`},
		{"config print --partitions 3", exitUsage, "partitions", "not a power of two"},
		{"serve --http 0.0.0.0:80", exitUsage, "", "no access control"},
		{"serve --brokers a:9092", exitUsage, "", "the embedded log alone"},
		{"serve --tls-cert /not/there --tls-key /not/there", exitUsage, "", "--tls-cert"},
		{"completion bash", exitOK, "bash completion", ""},
		{"completion", exitUsage, "", "remit completion needs a command"},
		{"completion tcsh", exitUsage, "", `remit completion has no command "tcsh"`},
		{"completion tcsh", exitUsage, "", "See `remit completion --help`"},
		{"help nonsense", exitUsage, "", `remit has no command "nonsense"`},
		{"help payments pya", exitUsage, "", "did you mean pay?"},
		{"help payments pay", exitOK, "--payer", ""},
		{"help", exitOK, "Exit codes: 0 ok", ""},
	} {
		code, stdout, stderr := runApp(t, nil, strings.Fields(c.args)...)
		if code != c.code {
			t.Errorf("remit %s: exit %d, want %d", c.args, code, c.code)
		}
		for _, out := range [][2]string{{stdout, c.stdout}, {stderr, c.stderr}} {
			if !strings.Contains(out[0], out[1]) || out[1] == "" && out[0] != "" {
				t.Errorf("remit %s: printed %q, want %q", c.args, out[0], out[1])
			}
		}
	}
}

// An argument that is empty is one that a script forgot: it is not left out of what is asked for.
func TestEmptyArgument(t *testing.T) {
	if code, _, stderr := runApp(t, nil, "payments", "get", ""); code != exitUsage || !strings.Contains(stderr, "an argument is empty") {
		t.Errorf("%d: %s", code, stderr)
	}
}

// TestCompletion: a shell offers what a flag takes, and files only where a file is taken.
func TestCompletion(t *testing.T) {
	const noFiles, files = ":4\n", ":0\n"
	for _, c := range []struct{ line, want string }{
		{"payments list --state", "pending\nheld\npaid\nrefused\nvoided\n" + noFiles},
		{"accounts set alice --state", "open\nfrozen\nclosed\n" + noFiles},
		{"views query records alice --kind", "payment\nreceipt\nrefund\ngiveback\ndeposit\nwithdrawal\n" + noFiles},
		{"serve --log-level", "debug\ninfo\nwarn\nerror\n" + noFiles},
		{"bench payments --payees", "many\none\n" + noFiles},
		{"payments get", noFiles},
		{"story", noFiles},
		{"import", files},
		{"serve --config", files},
	} {
		_, stdout, _ := runApp(t, nil, append(append([]string{"__complete"}, strings.Fields(c.line)...), "")...)
		if stdout != c.want {
			t.Errorf("remit %s: %q, want %q", c.line, stdout, c.want)
		}
	}
}

// TestExitCodes: an error, wrapped, keeps its exit code.
func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, exitOK},
		{errors.New("x"), exitError},
		{usageErrorf("x"), exitUsage},
		{brokenErrorf("x"), exitBroken},
		{fmt.Errorf("node: %w", &fold.InvariantError{Detail: "x"}), exitBroken},
		{&fold.StoreError{Err: &log.CorruptError{File: "f"}}, exitUnavailable},
		{&log.CorruptError{File: "f"}, exitBroken},
		{registry.ErrPartitions, exitUsage},
		{log.ErrLocked, exitConflict},
		{log.ErrDiskFull, exitUnavailable},
		{fmt.Errorf("store: write failed: %w", &os.PathError{Op: "write", Path: "f", Err: syscall.ENOSPC}), exitUnavailable},
		{&apiError{Status: 400}, exitUsage},
		{&apiError{Status: 402}, exitError},
		{&apiError{Status: 404}, exitNotFound},
		{&apiError{Status: 409}, exitConflict},
		{&apiError{Status: 429}, exitUnavailable},
		{&apiError{Status: 500}, exitError},
		{&apiError{Status: 503}, exitUnavailable},
	} {
		err := c.err
		if err != nil {
			err = fmt.Errorf("while: %w", err)
		}
		if got := exitCode(err); got != c.want {
			t.Errorf("%v: %d, want %d", err, got, c.want)
		}
	}
}

// TestClient: what the server answers is read, or is an error with its exit code and what to do next.
func TestClient(t *testing.T) {
	problem := func(p *api.Problem) api.Handler {
		return func(http.ResponseWriter, *http.Request) error { return p }
	}
	server, err := api.New(api.Options{Routes: []api.Route{
		{Method: "GET", Pattern: "/missing", Name: "a", Handler: problem(api.NotFound("payment", "p-1", "payments"))},
		{Method: "GET", Pattern: "/busy", Name: "b", Handler: problem(api.NewProblem(api.CodeTooMany, "wait"))},
		{Method: "POST", Pattern: "/echo", Name: "c", Handler: func(w http.ResponseWriter, r *http.Request) error {
			var body struct {
				A string `json:"a"`
			}
			if err := api.Decode(w, r, &body); err != nil {
				return err
			}
			api.SetPosition(w, log.Position{1: 2})
			return api.WriteJSON(w, http.StatusCreated, body)
		}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(server)
	defer web.Close()
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadGateway)
		_, _ = io.WriteString(w, "a proxy's page")
	}))
	defer other.Close()

	newClient := func(args ...string) *client {
		a := &app{environ: []string{"REMIT_SERVER=" + strings.TrimPrefix(web.URL, "http://")}}
		if len(args) > 0 {
			a.server = args[0]
		}
		c, err := a.client()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	var out map[string]string
	header, err := newClient().call(t.Context(), "POST", "/echo", map[string]string{"a": "b"}, &out)
	if err != nil || out["a"] != "b" || header.Get(api.PositionHeader) == "" {
		t.Errorf("%v %v %v", out, header, err)
	}
	gone := httptest.NewServer(nil)
	gone.Close()
	for _, c := range []struct {
		server, path string
		code         int
		want         []string
	}{
		{web.URL, "/missing", exitNotFound, []string{`no payment "p-1"; searched payments`, "not_found, 404, request "}},
		{web.URL + "/", "/busy", exitUnavailable, []string{"wait", "the same again may succeed"}},
		{other.URL, "/busy", exitUnavailable, []string{"is this its address?", "a proxy's page"}},
		{gone.URL, "/busy", exitUnavailable, []string{"no answer from " + gone.URL, "remit dev", "--server"}},
	} {
		_, err := newClient(c.server).call(t.Context(), "GET", c.path, nil, nil)
		if exitCode(err) != c.code {
			t.Errorf("%s%s: exit %d, want %d", c.server, c.path, exitCode(err), c.code)
		}
		for _, want := range c.want {
			if !strings.Contains(fmt.Sprint(err), want) {
				t.Errorf("%v\nhas no %q", err, want)
			}
		}
	}
	secure := httptest.NewTLSServer(server)
	defer secure.Close()
	_, err = newClient(secure.URL).call(t.Context(), "GET", "/busy", nil, nil)
	if exitCode(err) != exitUnavailable || !strings.Contains(fmt.Sprint(err), "SSL_CERT_FILE") || strings.Contains(fmt.Sprint(err), "Is it running") {
		t.Errorf("a certificate of one's own: %v", err)
	}
	for _, bad := range []string{"ftp://x", "http://", "http://a b"} {
		if _, err := (&app{server: bad}).client(); exitCode(err) != exitUsage {
			t.Errorf("%s: %v", bad, err)
		}
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := newClient().call(canceled, "GET", "/busy", nil, nil); exitCode(err) != exitError {
		t.Errorf("given up: %v", err)
	}
}

// TestTableIsPlain: what others wrote cannot steer a terminal, nor break a row.
func TestTableIsPlain(t *testing.T) {
	var out bytes.Buffer
	a := &app{stdout: &out, format: "table"}
	if err := printList(a, []string{"a\x1b[31mb\tc\nd\u202ee"}, column[string]{"reference", func(s string) string { return s }}); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), "REFERENCE\na�[31mb c d�e\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
