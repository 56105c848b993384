// Package dbtest starts database servers for tests: PostgreSQL, and MariaDB for the dialect of MySQL. They listen on a socket in a scratch
// directory, on no port, and end with the test. Where the programs are not installed the test is skipped; .ci/databases
// installs them.
package dbtest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	// readyMax is how long a server may take until it serves.
	readyMax = time.Minute
	// stopMax is how long it may take to end.
	stopMax = 20 * time.Second
)

// PostgreSQL starts a server and returns how pgx and lib/pq connect to it.
func PostgreSQL(t testing.TB) (dsn string) {
	t.Helper()
	initdb, postgres := program(t, "initdb"), program(t, "postgres")
	s := newServer(t, "postgres")
	data := filepath.Join(s.dir, "data")
	s.do(initdb, "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	// Without fsync: the server is not what is killed.
	s.start("database system is ready to accept connections", syscall.SIGINT,
		postgres, "-D", data, "-k", s.dir, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=200")
	return "host=" + s.dir + " user=postgres database=postgres"
}

// MariaDB starts a server and returns how go-sql-driver/mysql connects to its database test.
func MariaDB(t testing.TB) (dsn string) {
	t.Helper()
	install, mariadbd := program(t, "mariadb-install-db"), program(t, "mariadbd")
	s := newServer(t, "mysql")
	data, socket := filepath.Join(s.dir, "data"), filepath.Join(s.dir, "s")
	s.do(install, "--no-defaults", "--datadir="+data, "--auth-root-authentication-method=normal")
	s.start("ready for connections", syscall.SIGTERM,
		mariadbd, "--no-defaults", "--datadir="+data, "--socket="+socket, "--skip-networking", "--pid-file="+filepath.Join(s.dir, "pid"),
		"--innodb-flush-log-at-trx-commit=0")
	return "root@unix(" + socket + ")/test"
}

// program finds one in the PATH, or where Debian has those of PostgreSQL and of administrators.
func program(t testing.TB, name string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin/", "/usr/sbin/"} {
		if found, _ := filepath.Glob(pattern + name); len(found) > 0 { // the pattern is well-formed
			return found[len(found)-1]
		}
	}
	t.Skipf("%s is not installed; .ci/databases installs it", name)
	return ""
}

// server is a database server under test.
type server struct {
	t   testing.TB
	dir string // also of its socket, whose name must be short
	as  string // the user it runs as, if the test runs as root
}

func newServer(t testing.TB, as string) *server {
	t.Helper()
	dir, err := os.MkdirTemp("", "db")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	s := &server{t: t, dir: dir, as: as}
	if err := own(dir, as); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "HOME="+s.dir)
	attr, err := attributes(s.as)
	if err != nil {
		s.t.Fatal(err)
	}
	cmd.SysProcAttr = attr
	return cmd
}

// do runs a program to its end.
func (s *server) do(name string, args ...string) {
	s.t.Helper()
	if out, err := s.command(name, args...).CombinedOutput(); err != nil {
		s.t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// start starts a server, and waits until it says a word. The signal ends it, with the test.
func (s *server) start(word string, stop syscall.Signal, name string, args ...string) {
	s.t.Helper()
	cmd := s.command(name, args...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ready, ended := make(chan struct{}), make(chan struct{})
	var said bytes.Buffer // until it is ready, or has ended
	go func() {
		defer close(ended)
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			said.WriteString(lines.Text() + "\n")
			if strings.Contains(lines.Text(), word) {
				close(ready)
				break
			}
		}
		_, _ = io.Copy(io.Discard, stderr)
		_ = cmd.Wait()
	}()
	s.t.Cleanup(func() {
		_ = cmd.Process.Signal(stop) // it may have ended by itself
		select {
		case <-ended:
		case <-time.After(stopMax):
			_ = cmd.Process.Kill()
			<-ended
		}
	})
	select {
	case <-ready:
	case <-ended:
		s.t.Fatal(fmt.Errorf("%s ended at its start\n%s", name, said.String()))
	case <-time.After(readyMax):
		s.t.Fatalf("%s is not ready after %s", name, readyMax)
	}
}
