package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// The times of a server.
const (
	// drainMax is how long calls that run have to end after the first signal.
	drainMax = 10 * time.Second
	// headerTimeout is how long a client may take to send a request's header. Bodies have their
	// own (api.Decode), and streams none.
	headerTimeout = 10 * time.Second
	// idleTimeout is how long a connection without calls is kept.
	idleTimeout = 2 * time.Minute
	// headerBytesMax is the largest header of a request.
	headerBytesMax = 64 << 10
	// sameSignal is how soon after the first a second signal is the same one: what sends it to a process and to its group, as timeout(1) and
	// some runners do, asks once.
	sameSignal = 250 * time.Millisecond
	// readyPoll is how often a node that starts is asked whether it is ready.
	readyPoll = 20 * time.Millisecond
	// readyTalk is how often a start that takes long says what it waits for.
	readyTalk = 5 * time.Second
)

// errForced: a second signal came while calls were still running.
var errForced = errors.New("stopped at once, by a second signal; calls that ran were cut off, what was acknowledged is durable")

// errStoppedEarly: it was stopped before it was ready.
var errStoppedEarly = errors.New("stopped before it was ready")

// serve runs a node until it is told to stop:
//
//	validate -> listen -> open -> serve -> ready -> (signal | fault) -> drain -> close
//
// What can be refused is, before any data is touched.
func (a *app) serve(ctx context.Context, name string, config Config) error {
	if err := config.Validate(); err != nil {
		return err
	}
	logger := newLogger(config, a)
	tlsConfig, err := loadTLS(config)
	if err != nil {
		return err
	}
	signals, release := a.signals()
	defer release()

	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", config.HTTP)
	if err != nil {
		return listenError("http", config.HTTP, "another remit", err)
	}
	defer listener.Close()

	failed := make(chan error, 1)
	fail := func(err error) {
		select {
		case failed <- err:
		default: // the first fault counts
		}
	}
	n, err := a.openNode(ctx, config, nodeDeps{Logger: logger, Fail: fail}, signals)
	if errors.Is(err, errStoppedEarly) {
		a.say("remit: %v", err)
		return nil // as it was told
	}
	if err != nil {
		return err
	}
	r := &running{app: a, name: name, config: config, node: n, listener: listener, secure: tlsConfig != nil,
		signals: signals, failed: failed, logger: logger, server: newHTTPServer(n, tlsConfig, logger)}
	go func() {
		if err := r.serveHTTP(); !errors.Is(err, http.ErrServerClosed) {
			fail(fmt.Errorf("http: %w", err))
		}
	}()
	return r.untilStopped(ctx)
}

// listenError says what to do about an address that cannot be listened on.
func listenError(flag, address, who string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return &codedError{exitUnavailable, fmt.Errorf("--%s %s: %w\nIs %s running? Stop it, or give another address; port 0 picks a free one", flag, address, err, who)}
	case errors.Is(err, os.ErrPermission):
		return usageErrorf("--%s %s: %w\nPorts below 1024 are the system's: give one above, or the program the right to it", flag, address, err)
	default:
		return usageErrorf("--%s %s: %w\nGive an address that this machine has, such as 127.0.0.1:0", flag, address, err)
	}
}

// openNode opens the node. A signal meanwhile gives up: the first by ending the context, the second at once.
func (a *app) openNode(ctx context.Context, config Config, deps nodeDeps, signals <-chan os.Signal) (node, error) {
	ctx, giveUp := context.WithCancel(ctx)
	defer giveUp()
	type result struct {
		node node
		err  error
	}
	opened := make(chan result, 1)
	go func() {
		n, err := a.open(ctx, config, deps)
		opened <- result{n, err}
	}()
	select {
	case r := <-opened:
		return r.node, r.err
	case <-signals:
		giveUp()
	}
	select {
	case r := <-opened:
		if r.err == nil {
			r.err = r.node.Close(ctx)
		}
		if r.err == nil || errors.Is(r.err, context.Canceled) {
			r.err = errStoppedEarly
		}
		return nil, r.err
	case <-signals:
		return nil, errForced
	}
}

func newHTTPServer(n node, tlsConfig *tls.Config, logger *slog.Logger) *http.Server {
	s := &http.Server{
		Handler:           n.Handler(),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    headerBytesMax,
		TLSConfig:         tlsConfig,
		Protocols:         new(http.Protocols),
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug), // scanners and clients that break off; faults of remit's own come from api
	}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetHTTP2(true)
	s.Protocols.SetUnencryptedHTTP2(tlsConfig == nil)
	s.RegisterOnShutdown(n.Drain)
	silent := &silentConns{}
	s.ConnState = silent.note
	s.RegisterOnShutdown(silent.close)
	return s
}

// silentConns are the connections that have not yet asked for anything: a client opens some ahead of need. http.Server.Shutdown waits five
// seconds for each to say something.
type silentConns struct {
	mu    sync.Mutex
	conns map[net.Conn]struct{}
	ended bool
}

func (s *silentConns) note(c net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case state != http.StateNew:
		delete(s.conns, c)
	case s.ended:
		_ = c.Close()
	case s.conns == nil:
		s.conns = map[net.Conn]struct{}{c: {}}
	default:
		s.conns[c] = struct{}{}
	}
}

func (s *silentConns) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	for c := range s.conns {
		_ = c.Close()
	}
}

// loadTLS returns nil when there is none. With a client CA every client must show a certificate of it.
func loadTLS(config Config) (*tls.Config, error) {
	if config.TLSCert == "" {
		return nil, nil
	}
	cert, err := tls.LoadX509KeyPair(config.TLSCert, config.TLSKey)
	if err != nil {
		return nil, usageErrorf("--tls-cert, --tls-key: %w", err)
	}
	c := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	if config.TLSClientCA == "" {
		return c, nil
	}
	pem, err := os.ReadFile(config.TLSClientCA)
	if err != nil {
		return nil, usageErrorf("--tls-client-ca: %w", err)
	}
	c.ClientCAs, c.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
	if !c.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, usageErrorf("--tls-client-ca %s holds no certificate in PEM", config.TLSClientCA)
	}
	return c, nil
}

func newLogger(config Config, a *app) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(config.LogLevel)) // Validate has seen it
	o := &slog.HandlerOptions{Level: level}
	if config.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(a.stderr, o))
	}
	return slog.New(slog.NewTextHandler(a.stderr, o))
}

// running is a server from its listening to its end.
type running struct {
	app      *app
	name     string
	config   Config
	node     node
	server   *http.Server
	listener net.Listener
	secure   bool
	signals  <-chan os.Signal
	failed   <-chan error
	logger   *slog.Logger
}

func (r *running) serveHTTP() error {
	if r.secure {
		return r.server.ServeTLS(r.listener, "", "") // the certificate is in TLSConfig
	}
	return r.server.Serve(r.listener)
}

// untilStopped says when it is ready, and returns when it has stopped.
func (r *running) untilStopped(ctx context.Context) error {
	poll := time.NewTicker(readyPoll)
	defer poll.Stop()
	tick, talked := poll.C, time.Now()
	for {
		switch err := r.node.Ready(); {
		case tick == nil: // it was said
		case err == nil:
			tick = nil
			if err := r.announce(); err != nil {
				return errors.Join(fmt.Errorf("stdout: %w", err), r.stop(ctx))
			}
		case time.Since(talked) > readyTalk:
			talked = time.Now()
			r.app.say("remit: not ready yet: %v", err)
		}
		select {
		case <-tick:
		case <-r.signals:
			return r.stop(ctx)
		case <-ctx.Done():
			return r.stop(ctx)
		case err := <-r.failed:
			// INVARIANT: after a fault nothing is acknowledged any more, so calls that run are cut off, not drained.
			_ = r.server.Close()
			return err
		}
	}
}

// stop drains: no new calls, drainMax for those that run, then the node is closed.
func (r *running) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainMax)
	defer cancel()
	r.logger.Info("stopping", "drain", drainMax)
	stopped := make(chan error, 1)
	go func() {
		err := r.server.Shutdown(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			r.logger.Warn("calls that still ran were cut off", "after", drainMax)
			err = r.server.Close()
		}
		stopped <- errors.Join(err, r.node.Close(ctx))
	}()
	for first := time.Now(); ; {
		select {
		case err := <-stopped:
			return err
		case err := <-r.failed:
			_ = r.server.Close()
			return err
		case <-r.signals:
			if time.Since(first) < sameSignal {
				continue
			}
			_ = r.server.Close()
			return errForced
		}
	}
}

// ready is the one line of -o json.
type ready struct {
	HTTP  string `json:"http"`
	Kafka string `json:"kafka"`
	Data  string `json:"data"`
}

// announce says once that the server is ready.
func (r *running) announce() error {
	about, address := r.node.About(), r.listener.Addr().String()
	if r.app.format != "table" {
		return r.app.printLine(ready{HTTP: address, Kafka: about.Kafka, Data: r.config.dataDir()})
	}
	_, err := r.app.stdout.Write([]byte(r.banner(about, address)))
	return err
}

// calledAs is how this program is called from the same shell: commands to try are there to be pasted. arg0 is what it was called as.
func calledAs(arg0 string, lookPath func(string) (string, error)) string {
	if strings.Contains(arg0, string(filepath.Separator)+"go-build") { // go run, which deletes it in the end
		return "go run ./cmd/remit"
	}
	if found, err := lookPath("remit"); err == nil && filepath.Base(arg0) == "remit" && (arg0 == "remit" || found == arg0) {
		return "remit"
	}
	return arg0
}

func (r *running) banner(about about, address string) string {
	url := "http://" + address
	if r.secure {
		url = "https://" + address
	}
	var b strings.Builder
	fmt.Fprintf(&b, "remit %s is ready.\n\n", r.name)
	fmt.Fprintf(&b, "  HTTP API    %s\n", url)
	if about.Kafka != "" {
		fmt.Fprintf(&b, "  Kafka API   %s\n", about.Kafka)
	}
	fmt.Fprintf(&b, "  data        %s\n", r.config.dataDir())
	fmt.Fprintf(&b, "  durability  %s\n", about.Durability)
	if len(about.Try) > 0 {
		b.WriteString("\nTry next:\n\n")
	}
	if len(about.Try) > 0 && url != serverDefault {
		fmt.Fprintf(&b, "  export REMIT_SERVER=%s\n", url)
	}
	for _, line := range about.Try {
		fmt.Fprintf(&b, "  %s\n", strings.NewReplacer("{http}", url, "{kafka}", about.Kafka, "{remit}", calledAs(os.Args[0], exec.LookPath)).Replace(line))
	}
	b.WriteString("\nStop it with Ctrl-C.\n")
	return b.String()
}
