package torture

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/go-json-experiment/json"
)

// ReadyMax is how long a server may take until it is ready.
const ReadyMax = time.Minute

// stderrMax is how much of what a server said last is kept for an error.
const stderrMax = 8 << 10

// Options say what is run.
type Options struct {
	// Binary is remit; by default the program that runs.
	Binary string
	// Command is what it is asked for: by default "serve".
	Command []string
	// Data is its directory.
	Data string
	// HTTP is where it listens; by default a port that is free, the same one after a restart.
	HTTP string
	// Args are further arguments.
	Args []string
	// Log also takes what the server says; nil for nobody.
	Log io.Writer
}

// Server is a remit that runs in a process of its own. It is one goroutine's.
type Server struct {
	Options
	// URL is where it listens, and Kafka where it does over the Kafka protocol; empty if it does not.
	URL, Kafka string
	// Stdin is the server's.
	Stdin io.WriteCloser

	cmd    *exec.Cmd
	stderr *tail
	ended  chan struct{} // closed when the process has ended
	err    error         // how it ended
}

// Start starts a server and waits until it is ready.
func Start(ctx context.Context, o Options) (*Server, error) {
	if o.Binary == "" {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("torture: %w", err)
		}
		o.Binary = self
	}
	if o.Command == nil {
		o.Command = []string{"serve"}
	}
	if o.HTTP == "" {
		o.HTTP = "127.0.0.1:0"
	}
	s := &Server{Options: o}
	return s, s.Start(ctx)
}

// Start starts it again after Kill or Stop, on the same address, and waits until it is ready.
func (s *Server) Start(ctx context.Context) error {
	args := append(append([]string{}, s.Command...), "-o", "json", "--data", s.Data, "--http", s.HTTP, "--kafka", "127.0.0.1:0", "--log-level", "warn")
	s.cmd = exec.Command(s.Binary, append(args, s.Args...)...) // not of ctx: it is stopped by its methods
	s.cmd.Env = cleanEnv()
	s.stderr = &tail{also: s.Log}
	s.cmd.Stderr = s.stderr
	s.cmd.SysProcAttr = childAttr()
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("torture: %w", err)
	}
	if s.Stdin, err = s.cmd.StdinPipe(); err != nil {
		return fmt.Errorf("torture: %w", err)
	}
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("torture: %w", err)
	}
	first := make(chan []byte, 1)
	s.ended = make(chan struct{})
	go func() {
		line, _ := bufio.NewReader(stdout).ReadBytes('\n')
		first <- line
		_, _ = io.Copy(io.Discard, stdout)
		s.err = s.cmd.Wait()
		close(s.ended)
	}()
	timer := time.NewTimer(ReadyMax)
	defer timer.Stop()
	select {
	case line := <-first:
		return s.ready(line)
	case <-timer.C:
		err = fmt.Errorf("not ready after %s", ReadyMax)
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.Kill()
	return s.failed(err)
}

// ready takes the line that says where the server listens.
func (s *Server) ready(line []byte) error {
	var at struct {
		HTTP  string `json:"http"`
		Kafka string `json:"kafka"`
	}
	if err := json.Unmarshal(line, &at); err != nil || at.HTTP == "" {
		s.Kill()
		return s.failed(fmt.Errorf("it did not say that it is ready, but %q", bytes.TrimSpace(line)))
	}
	s.HTTP, s.URL, s.Kafka = at.HTTP, "http://"+at.HTTP, at.Kafka
	return nil
}

func (s *Server) failed(err error) error {
	return fmt.Errorf("torture: server on %s: %w\n%s", s.Data, err, s.stderr)
}

// Pid is its process.
func (s *Server) Pid() int { return s.cmd.Process.Pid }

// Kill ends it as a power cut would end it, but for what the operating system holds.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill() // it may have ended by itself
	<-s.ended
}

// Stop ends it in order; the error says what went wrong, or that it had ended by itself.
func (s *Server) Stop() error {
	select {
	case <-s.ended:
		return s.failed(fmt.Errorf("it had ended by itself: %w", errors.Join(s.err, errEnded)))
	default:
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return s.failed(err)
	}
	<-s.ended
	if s.err != nil {
		return s.failed(s.err)
	}
	return nil
}

var errEnded = errors.New("process ended")

// cleanEnv is the environment without what would configure the server otherwise.
func cleanEnv() (env []string) {
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "REMIT_") {
			env = append(env, kv)
		}
	}
	return env
}

// tail keeps the last of what is written.
type tail struct {
	mu   sync.Mutex
	last []byte
	also io.Writer
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = append(t.last, b...)
	if more := len(t.last) - stderrMax; more > 0 {
		t.last = append(t.last[:0], t.last[more:]...)
	}
	if t.also != nil {
		_, _ = t.also.Write(b)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.last)
}
