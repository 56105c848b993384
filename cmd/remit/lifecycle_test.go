package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/remitlog/remit/log"
)

// testNode is a node whose calls end when the test says so.
type testNode struct {
	handler http.Handler
	ready   atomic.Pointer[error]
	drained chan struct{}
	closed  atomic.Bool
	deps    nodeDeps
}

func (n *testNode) Handler() http.Handler { return n.handler }
func (n *testNode) Drain()                { close(n.drained) }
func (n *testNode) About() about {
	return about{Kafka: "127.0.0.1:1", Durability: "none", Try: []string{"curl {http}/x"}}
}

func (n *testNode) Ready() error {
	if err := n.ready.Load(); err != nil {
		return *err
	}
	return nil
}

func (n *testNode) Close(context.Context) error {
	n.closed.Store(true)
	return nil
}

// started is a server that runs in the test's process.
type started struct {
	node    *testNode
	signals chan os.Signal
	stdout  *bufio.Reader
	stderr  lockedBuffer
	code    chan int
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// start runs a command line. The node's own fields are set by prepare before it is opened.
func start(t *testing.T, n *testNode, args ...string) *started {
	t.Helper()
	r, w := io.Pipe()
	s := &started{node: n, signals: make(chan os.Signal, 2), stdout: bufio.NewReader(r), code: make(chan int, 1)}
	n.drained = make(chan struct{})
	a := &app{stdout: w, stderr: &s.stderr,
		signals: func() (<-chan os.Signal, func()) { return s.signals, func() {} },
		open: func(_ context.Context, _ Config, deps nodeDeps) (node, error) {
			n.deps = deps
			return n, nil
		}}
	go func() {
		code := a.run(t.Context(), append(args, "--http", "127.0.0.1:0", "--data", t.TempDir()))
		_ = w.Close()
		s.code <- code
	}()
	return s
}

// readReady reads the one line of -o json.
func (s *started) readReady(t *testing.T) ready {
	t.Helper()
	line, err := s.stdout.ReadString('\n')
	if err != nil {
		t.Fatalf("%v: %s", err, s.stderr.String())
	}
	var got ready
	if err := json.Unmarshal([]byte(line), &got); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	return got
}

func (s *started) wantExit(t *testing.T, want int) {
	t.Helper()
	if rest, _ := io.ReadAll(s.stdout); len(rest) > 0 {
		t.Errorf("and then on stdout: %s", rest)
	}
	if got := <-s.code; got != want {
		t.Errorf("exit %d, want %d: %s", got, want, s.stderr.String())
	}
}

func okHandler(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }

// TestServe: ready line, both protocols, a signal, a clean end.
func TestServe(t *testing.T) {
	s := start(t, &testNode{handler: http.HandlerFunc(okHandler)}, "serve", "-o", "json")
	got := s.readReady(t)
	if got.Kafka != "127.0.0.1:1" || !filepath.IsAbs(got.Data) || strings.HasSuffix(got.HTTP, ":0") {
		t.Errorf("%+v", got)
	}
	for proto, set := range map[string]func(*http.Protocols){
		"HTTP/1.1": func(p *http.Protocols) { p.SetHTTP1(true) },
		"HTTP/2.0": func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) },
	} {
		p := new(http.Protocols)
		set(p)
		transport := &http.Transport{Protocols: p}
		if b := get(t, &http.Client{Transport: transport}, "http://"+got.HTTP); b != proto {
			t.Errorf("%s: %s", proto, b)
		}
		transport.CloseIdleConnections()
	}
	s.signals <- syscall.SIGTERM
	s.wantExit(t, exitOK)
	if !s.node.closed.Load() {
		t.Error("the node was not closed")
	}
}

func get(t *testing.T, client *http.Client, url string) string {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestBanner: the banner says what is there, and not what is not.
func TestBanner(t *testing.T) {
	for kafka, want := range map[string]string{"": "", "127.0.0.1:9092": "  Kafka API   127.0.0.1:9092\n"} {
		r := &running{name: "dev", config: Config{Data: "/d"}}
		got := r.banner(about{Kafka: kafka, Durability: "one disk, one copy", Try: []string{"curl {http}/readyz"}}, "127.0.0.1:8080")
		full := "remit dev is ready.\n\n  HTTP API    http://127.0.0.1:8080\n" + want +
			"  data        /d\n  durability  one disk, one copy\n\nTry next:\n\n  curl http://127.0.0.1:8080/readyz\n\nStop it with Ctrl-C.\n"
		if got != full {
			t.Errorf("%s\nwant\n%s", got, full)
		}
	}
}

// TestCalledAs: what is to be tried next is called as the server was.
func TestCalledAs(t *testing.T) {
	inPath := func(string) (string, error) { return "/usr/bin/remit", nil }
	nowhere := func(string) (string, error) { return "", exec.ErrNotFound }
	for _, c := range []struct {
		arg0 string
		look func(string) (string, error)
		want string
	}{
		{"remit", inPath, "remit"},
		{"/usr/bin/remit", inPath, "remit"},
		{"./remit", inPath, "./remit"},
		{"./remit", nowhere, "./remit"},
		{"/opt/remit-2", inPath, "/opt/remit-2"},
		{"/tmp/go-build123/b001/exe/remit", nowhere, "go run ./cmd/remit"},
		{"/root/.cache/go-build/ab/remit", inPath, "go run ./cmd/remit"},
	} {
		if got := calledAs(c.arg0, c.look); got != c.want {
			t.Errorf("%s: %s, want %s", c.arg0, got, c.want)
		}
	}
}

// TestReadyLine: nothing is said before the node is ready; stopped before that is a clean end.
func TestReadyLine(t *testing.T) {
	n := &testNode{handler: http.HandlerFunc(okHandler)}
	notReady := errors.New("replaying")
	n.ready.Store(&notReady)
	s := start(t, n, "dev", "-o", "json")
	s.signals <- syscall.SIGINT // before it ever was ready
	s.wantExit(t, exitOK)

	n = &testNode{handler: http.HandlerFunc(okHandler)}
	n.ready.Store(&notReady)
	s = start(t, n, "dev")
	n.ready.Store(nil)
	if line, err := s.stdout.ReadString('\n'); err != nil || line != "remit dev is ready.\n" {
		t.Errorf("%q %v", line, err)
	}
	s.signals <- syscall.SIGINT
	_, _ = io.Copy(io.Discard, s.stdout)
	s.wantExit(t, exitOK)
}

// TestDrain: after a signal a call that runs ends as it should.
func TestDrain(t *testing.T) {
	n := &testNode{}
	running := make(chan struct{})
	n.handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(running)
		<-n.drained
		_, _ = io.WriteString(w, "whole")
	})
	s := start(t, n, "serve", "-o", "json")
	address := s.readReady(t).HTTP
	answer := make(chan string, 1)
	go func() { answer <- get(t, http.DefaultClient, "http://"+address) }()
	<-running
	s.signals <- syscall.SIGTERM
	if got := <-answer; got != "whole" {
		t.Errorf("%q", got)
	}
	s.wantExit(t, exitOK)
}

// pipeListener is a listener of connections within the process.
type pipeListener chan net.Conn

func (l pipeListener) Accept() (net.Conn, error) {
	c, ok := <-l
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (l pipeListener) Close() error   { close(l); return nil }
func (l pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// TestSilentConnections: one that never asked for anything holds up no stop. net/http gives each five seconds.
func TestSilentConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newHTTPServer(&testNode{handler: http.HandlerFunc(okHandler), drained: make(chan struct{})}, nil, slog.New(slog.DiscardHandler))
		l := make(pipeListener)
		go func() { _ = s.Serve(l) }()
		silent, there := net.Pipe()
		defer silent.Close()
		l <- there
		synctest.Wait()
		begin := time.Now()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took > time.Second {
			t.Errorf("the stop took %s", took)
		}
	})
}

// TestSecondSignal: it stops at once though a call runs.
func TestSecondSignal(t *testing.T) {
	running, end := make(chan struct{}), make(chan struct{})
	defer close(end)
	n := &testNode{handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(running)
		<-end
	})}
	s := start(t, n, "serve", "-o", "json")
	address := s.readReady(t).HTTP
	go func() {
		if resp, err := http.Get("http://" + address); err == nil {
			_ = resp.Body.Close()
		}
	}()
	<-running
	s.signals <- syscall.SIGTERM
	begin := time.Now()
	s.signals <- syscall.SIGTERM // at once: it is the same one
	<-n.drained
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for stopped := false; !stopped; {
		select {
		case code := <-s.code:
			s.code <- code
			stopped = true
		case <-again.C:
			select {
			case s.signals <- syscall.SIGTERM:
			default:
			}
		}
	}
	if took := time.Since(begin); took < sameSignal {
		t.Errorf("stopped by a signal that came twice, after %s", took)
	}
	s.wantExit(t, exitError)
	if !strings.Contains(s.stderr.String(), "second signal") {
		t.Error(s.stderr.String())
	}
}

// TestFault: a node that must not go on stops the process, with the exit code of its error.
func TestFault(t *testing.T) {
	s := start(t, &testNode{handler: http.HandlerFunc(okHandler)}, "serve", "-o", "json")
	s.readReady(t)
	s.node.deps.Fail(brokenErrorf("postings of payment p-1 do not sum to zero"))
	s.node.deps.Fail(errors.New("a later one"))
	s.wantExit(t, exitBroken)
	if !strings.Contains(s.stderr.String(), "sum to zero") {
		t.Error(s.stderr.String())
	}
}

// TestOpenFails: the error of opening is the exit code.
func TestOpenFails(t *testing.T) {
	var stderr bytes.Buffer
	a := &app{stdout: io.Discard, stderr: &stderr, signals: notify,
		open: func(context.Context, Config, nodeDeps) (node, error) { return nil, log.ErrLocked }}
	if code := a.run(t.Context(), []string{"serve", "--http", "127.0.0.1:0"}); code != exitConflict || !strings.Contains(stderr.String(), "in use by another process") {
		t.Errorf("%d: %s", code, stderr.String())
	}
}

// TestOpenGivenUp: a signal while the node opens gives up.
func TestOpenGivenUp(t *testing.T) {
	signals := make(chan os.Signal, 2)
	a := &app{stdout: io.Discard, stderr: io.Discard,
		signals: func() (<-chan os.Signal, func()) { return signals, func() {} },
		open: func(ctx context.Context, _ Config, _ nodeDeps) (node, error) {
			signals <- syscall.SIGINT
			<-ctx.Done()
			return nil, ctx.Err()
		}}
	if code := a.run(t.Context(), []string{"serve", "--http", "127.0.0.1:0"}); code != exitOK {
		t.Errorf("%d", code)
	}
}

// TestAddressTaken: it is said before any data is touched.
func TestAddressTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var stderr bytes.Buffer
	a := &app{stdout: io.Discard, stderr: &stderr, signals: notify,
		open: func(context.Context, Config, nodeDeps) (node, error) { panic("data was touched") }}
	if code := a.run(t.Context(), []string{"serve", "--http", l.Addr().String()}); code != exitUnavailable || !strings.Contains(stderr.String(), "another remit") {
		t.Errorf("%d: %s", code, stderr.String())
	}
}

// TestListenError: what to do goes by why an address cannot be had.
func TestListenError(t *testing.T) {
	for errno, want := range map[syscall.Errno]struct {
		code int
		hint string
	}{
		syscall.EADDRINUSE:    {exitUnavailable, "another remit running"},
		syscall.EACCES:        {exitUsage, "below 1024"},
		syscall.EADDRNOTAVAIL: {exitUsage, "an address that this machine has"},
	} {
		err := listenError("http", "127.0.0.1:80", "another remit", &net.OpError{Op: "listen", Err: os.NewSyscallError("bind", errno)})
		if exitCode(err) != want.code || !strings.Contains(err.Error(), want.hint) || !errors.Is(err, errno) {
			t.Errorf("%v: exit %d", err, exitCode(err))
		}
	}
}

// TestTLS: with a client CA, a client that shows a certificate of it is served, over HTTP/2, and one that shows none is not.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	cert, pool := writeCertificate(t, dir)
	file := func(name string) string { return filepath.Join(dir, name) }
	s := start(t, &testNode{handler: http.HandlerFunc(okHandler)}, "serve", "-o", "json",
		"--tls-cert", file("cert.pem"), "--tls-key", file("key.pem"), "--tls-client-ca", file("cert.pem"))
	address := s.readReady(t).HTTP
	with := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{cert}}, ForceAttemptHTTP2: true}
	if got := get(t, &http.Client{Transport: with}, "https://"+address); got != "HTTP/2.0" {
		t.Errorf("%q", got)
	}
	with.CloseIdleConnections()
	without := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	if resp, err := without.Get("https://" + address); err == nil {
		_ = resp.Body.Close()
		t.Error("a client without a certificate was served")
	}
	s.signals <- syscall.SIGTERM
	s.wantExit(t, exitOK)
}

// writeCertificate makes one that is its own CA, for 127.0.0.1.
func writeCertificate(t *testing.T, dir string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	for name, b := range map[string][]byte{"cert.pem": certPEM, "key.pem": keyPEM} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return cert, pool
}

// TestOpen: a node becomes ready on an empty directory, and closes.
func TestOpen(t *testing.T) {
	if err := openOnce(t, t.TempDir()); err != nil {
		t.Fatal(err)
	}
}

func openOnce(t *testing.T, dir string) error {
	t.Helper()
	ready := make(chan error, 1)
	n, err := open(t.Context(), Config{Data: dir, Partitions: 2}, nodeDeps{Logger: slog.New(slog.DiscardHandler), Fail: func(err error) { ready <- err }})
	if err != nil {
		return err
	}
	go func() {
		for n.Ready() != nil {
			runtime.Gosched()
		}
		ready <- nil
	}()
	return errors.Join(<-ready, n.Close(t.Context()))
}

// TestLogIsGone proves L2 for a log that is not there at all: nobody begins a new one beside what was made from the old (the state may have
// flushed nothing yet, and would not miss it).
func TestLogIsGone(t *testing.T) {
	dir := t.TempDir()
	if err := openOnce(t, dir); err != nil {
		t.Fatal(err)
	}
	logDir := filepath.Join(dir, "log")
	for _, empty := range []bool{false, true} {
		if err := os.RemoveAll(logDir); err != nil {
			t.Fatal(err)
		}
		if empty { // as a file system that is not mounted
			if err := os.Mkdir(logDir, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		err := openOnce(t, dir)
		if !errors.Is(err, log.ErrCorrupt) || exitCode(err) != exitBroken || !strings.Contains(err.Error(), "put it back") {
			t.Errorf("empty %v: %v", empty, err)
		}
		if left, err := os.ReadDir(logDir); len(left) > 0 {
			t.Errorf("empty %v: a log was begun: %v, %v", empty, left, err)
		}
	}
	for _, made := range []string{"state", "registry"} {
		if err := os.RemoveAll(filepath.Join(dir, made)); err != nil {
			t.Fatal(err)
		}
	}
	if err := openOnce(t, dir); err != nil {
		t.Errorf("with nothing that was made from it: %v", err)
	}
}
