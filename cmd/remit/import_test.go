package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
)

// TestImportGivenUp: an import that is stopped by a signal says how far it came, and that it may be run again.
func TestImportGivenUp(t *testing.T) {
	asked := make(chan struct{}, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/readyz" {
			return
		}
		select {
		case asked <- struct{}{}:
		default:
		}
		_, _ = io.Copy(io.Discard, r.Body) // a client that leaves is noticed behind it
		<-r.Context().Done()
	}))
	defer server.Close()
	signals, released := make(chan os.Signal), make(chan struct{})
	var stderr bytes.Buffer
	a := &app{stdout: &bytes.Buffer{}, stderr: &stderr, signals: func() (<-chan os.Signal, func()) {
		first := true
		return signals, func() {
			if first {
				close(released) // a second signal ends the process
			}
			first = false
		}
	}, stdin: strings.NewReader("type,amount,nameOrig,oldbalanceOrg,nameDest,oldbalanceDest\nPAYMENT,5,C1,10,M1,0\n")}
	code := make(chan int)
	go func() { code <- a.run(t.Context(), []string{"import", "--as", "f.csv", "-", "--server", server.URL}) }()
	<-asked
	signals <- syscall.SIGINT
	<-released
	if got := <-code; got != exitError || !strings.Contains(stderr.String(), "given up; 0 rows were done. Run the same command again") {
		t.Errorf("exit %d: %s", got, stderr.String())
	}
}
