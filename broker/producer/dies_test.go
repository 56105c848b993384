package producer_test

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/remitlog/remit/broker/producer"
	"github.com/remitlog/remit/broker/producer/producertest"
	"github.com/remitlog/remit/cmd/remit/torture"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/embedded"
	"github.com/remitlog/remit/log/sqltx"
)

var deaths = flag.Int("deaths", 1, "how often TestDies lets the producer die at each line")

const (
	serviceEnv = "PRODUCER_TEST_SERVICE" // makes the test's program the service; its configuration
	diesWait   = 2 * time.Minute         // for anything
)

func TestMain(m *testing.M) {
	if config := os.Getenv(serviceEnv); config != "" {
		if err := serve(config); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	status := m.Run()
	postgres.stop()
	mariaDB.stop()
	if built != "" {
		_ = os.RemoveAll(built)
	}
	os.Exit(status)
}

// lines are those of a Send at which its process dies, in their order. Those with a dash are in the midst of what goes over a socket: a part of it is
// written, or all of it and the answer is not read.
var lines = []struct {
	step  string
	fails bool   // its local transaction does
	rows  string // "none" or "one", or "either" where it is the database that decides
}{
	{"prepare", false, "none"}, {"prepare-part", false, "none"}, {"prepare-whole", false, "none"}, {"prepared", false, "none"}, {"told prepared", false, "none"},
	{"begin", false, "none"}, {"begun", false, "none"}, {"note", false, "none"}, {"noted", false, "none"},
	{"local", false, "none"}, {"worked", false, "none"},
	{"commit", false, "none"}, {"commit-part", false, "none"}, {"commit-whole", false, "either"}, {"committed", false, "one"}, {"told commit", false, "one"},
	{"confirm", false, "one"}, {"confirm-part", false, "one"}, {"confirm-whole", false, "one"}, {"confirmed", false, "one"}, {"told confirmed", false, "one"},
	{"returned", false, "one"},
	{"worked", true, "none"}, {"rollback", true, "none"}, {"rollback-part", true, "none"}, {"rollback-whole", true, "none"}, {"rolledback", true, "none"},
	{"told rollback", true, "none"}, {"takeback", true, "none"}, {"takeback-part", true, "none"}, {"takeback-whole", true, "none"}, {"takenback", true, "none"},
	{"returned", true, "none"},
}

// serviceConfig is what a service is started with.
type serviceConfig struct {
	Remit, DSN, Listen string
	// Event is what it sends, Step where it dies; without one it sends nothing, and answers back-checks until its input ends.
	Event, Step string
	Fails       bool
}

// serve is the service: it places an order, and answers back-checks.
func serve(config string) error {
	var c serviceConfig
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		return err
	}
	ctx := context.Background()
	m := mortal{die: c.Step}
	db, err := m.open(c.DSN)
	if err != nil {
		return err
	}
	defer db.Close()
	told := func(what string) { m.at("told " + what) }
	p, err := producer.New(stepped[*sql.Tx]{producer.SQL(db, producer.PostgreSQL), m.at}, producer.Options{
		Server: c.Remit, Producer: "shop", Client: &http.Client{Transport: steppedTransport{m.transport(), m.at}},
		Listener: producer.Listener{
			Prepared:  func(log.ID, string, time.Duration) { told("prepared") },
			Ended:     func(_ log.ID, v producer.Verdict, _ time.Duration) { told(string(v)) },
			Confirmed: func(_ log.ID, v producer.Verdict, _ int) { told("confirmed") },
		},
	})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return err
	}
	go func() { _ = http.Serve(l, p.CheckHandler()) }() // until the process ends
	fmt.Println("ready")
	if c.Step == "" {
		_, err := io.Copy(io.Discard, os.Stdin)
		return err
	}
	m.armed = true
	err = p.Send(ctx, "orders", placed(c.Event), func(tx *sql.Tx) error {
		m.at("local")
		if _, err := tx.ExecContext(ctx, "INSERT INTO orders (id) VALUES ('"+c.Event+"')"); err != nil {
			return err
		}
		m.at("worked")
		if c.Fails {
			return errFails
		}
		return nil
	})
	m.at("returned")
	return fmt.Errorf("it has not died at %q; it has sent: %w", c.Step, err)
}

// mortal dies at a step. What it calls is called by one goroutine at a time.
type mortal struct {
	die   string
	armed bool

	mu  sync.Mutex
	now string // the latest step
}

func (m *mortal) at(step string) {
	m.mu.Lock()
	m.now = step
	m.mu.Unlock()
	if m.armed && step == m.die {
		m.end()
	}
}

// end is kill -9.
func (*mortal) end() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// conn is a connection on which it may die in the midst of a step.
type mortalConn struct {
	net.Conn
	m *mortal
}

func (c mortalConn) Write(b []byte) (int, error) {
	c.m.mu.Lock()
	now := c.m.now
	c.m.mu.Unlock()
	if c.m.armed && now+"-part" == c.m.die {
		_, _ = c.Conn.Write(b[:len(b)/2])
		c.m.end()
	}
	n, err := c.Conn.Write(b)
	if c.m.armed && now+"-whole" == c.m.die {
		c.m.end()
	}
	return n, err
}

// open opens the database.
func (m *mortal) open(dsn string) (*sql.DB, error) {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	dial := config.DialFunc
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		return mortalConn{conn, m}, err
	}
	return stdlib.OpenDB(*config), nil
}

// transport calls remit. It keeps no connection, so that what is written at a step is the step's.
func (m *mortal) transport() http.RoundTripper {
	t := &http.Transport{DisableKeepAlives: true}
	t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		return mortalConn{conn, m}, err
	}
	return t
}

// TestDies is line 2 of what transactional messages must hold: the producer dies at each line of Send, against PostgreSQL and a remit in a process of its
// own. Once it is back and was asked, a message is delivered if, and only if, the database has the row (T1), and nobody was contradicted (T2).
func TestDies(t *testing.T) {
	d := newDies(t)
	for round := range *deaths {
		recovered := d.start(serviceConfig{Listen: d.listen})
		for n, line := range lines {
			if n == len(lines)/2 && round%2 == 1 { // now and then nobody is there who could be asked, until it is back
				recovered.stop()
				recovered = nil
			}
			id := fmt.Sprintf("%03d/%s/%t", round, line.step, line.fails)
			for !d.start(serviceConfig{Event: id, Step: line.step, Fails: line.fails, Listen: "127.0.0.1:0"}).died(line.step) {
				d.expect[id] = "none"
				id += "/again"
			}
			d.expect[id] = line.rows
		}
		if recovered == nil {
			recovered = d.start(serviceConfig{Listen: d.listen})
		}
		d.awaitDecided()
		recovered.stop()
	}
	d.audit()
	t.Logf("%d deaths at each of %d lines", *deaths, len(lines))
}

type dies struct {
	t      *testing.T
	dsn    string
	db     *sql.DB
	remit  *torture.Server
	data   string
	listen string            // where the service that has come back answers
	expect map[string]string // by event: the rows of its line
}

func newDies(t *testing.T) *dies {
	t.Helper()
	d := &dies{t: t, dsn: postgreSQL(t), data: t.TempDir(), expect: map[string]string{}}
	var err error
	if d.db, err = sql.Open("pgx", d.dsn); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.db.Close() })
	if _, err := d.db.ExecContext(t.Context(), producer.Schema(producer.PostgreSQL)+"CREATE TABLE orders (id TEXT PRIMARY KEY)"); err != nil {
		t.Fatal(err)
	}
	d.remit = startRemit(t, d.data)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d.listen = free.Addr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	d.register()
	return d
}

var built string // the directory that remitBinary made

// remitBinary builds remit, once.
var remitBinary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "remit-producer-")
	if err != nil {
		return "", err
	}
	built = dir
	return torture.Build(filepath.Join(dir, "remit"))
})

// startRemit starts remit in a process of its own.
func startRemit(t *testing.T, data string) *torture.Server {
	t.Helper()
	binary, err := remitBinary()
	if err != nil {
		t.Fatal(err)
	}
	s, err := torture.Start(t.Context(), torture.Options{Binary: binary, Command: []string{"dev"}, Data: data})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill) // unless it was stopped
	return s
}

func (d *dies) register() {
	d.t.Helper()
	p, err := producer.New(producer.SQL(d.db, producer.PostgreSQL), producer.Options{Server: d.remit.URL, Producer: "shop"})
	if err != nil {
		d.t.Fatal(err)
	}
	err = p.Register(d.t.Context(), producer.Registration{Check: producer.Check{
		URL: "http://" + d.listen + "/", FirstAfter: time.Second, Interval: time.Second, MaxInterval: time.Second, Deadline: time.Hour,
	}})
	if err != nil {
		d.t.Fatal(err)
	}
}

// service is a running one.
type service struct {
	*dies
	cmd    *exec.Cmd
	stdin  io.Closer
	stderr bytes.Buffer
	ended  chan error
}

// start starts a service, and waits until it answers.
func (d *dies) start(c serviceConfig) *service {
	d.t.Helper()
	c.Remit, c.DSN = d.remit.URL, d.dsn
	config, err := json.Marshal(c)
	if err != nil {
		d.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		d.t.Fatal(err)
	}
	s := &service{dies: d, cmd: exec.Command(self), ended: make(chan error, 1)}
	s.cmd.Env = append(os.Environ(), serviceEnv+"="+string(config))
	s.cmd.Stderr = &s.stderr
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if s.stdin, err = s.cmd.StdinPipe(); err != nil { // it ends when this is closed, at the latest with this process
		d.t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = s.cmd.Process.Kill() }) // unless it has ended
	ready := make(chan struct{})
	go func() {
		_, _ = bufio.NewReader(stdout).ReadString('\n')
		close(ready)
		_, _ = io.Copy(io.Discard, stdout)
		s.ended <- s.cmd.Wait()
	}()
	select {
	case <-ready:
	case <-time.After(diesWait):
		d.t.Fatal("a service does not start")
	}
	return s
}

// died holds a service to having been killed at its line. It was not if a back-check came before: on a machine that is slow one may.
func (s *service) died(step string) bool {
	s.t.Helper()
	select {
	case err := <-s.ended:
		if strings.Contains(s.stderr.String(), producer.ErrRolledBack.Error()) {
			return false
		}
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			s.t.Fatalf("%s: %v\n%s", step, err, s.stderr.String())
		}
	case <-time.After(diesWait):
		s.t.Fatalf("%s: the service does not die", step)
	}
	return true
}

func (s *service) stop() {
	s.t.Helper()
	if err := s.stdin.Close(); err != nil {
		s.t.Fatal(err)
	}
	select {
	case err := <-s.ended:
		if err != nil {
			s.t.Errorf("%v\n%s", err, s.stderr.String())
		}
	case <-time.After(diesWait):
		s.t.Fatal("a service does not stop")
	}
}

// message is one as remit lists it.
type message struct {
	ID          log.ID `json:"id"`
	Name        string `json:"name"`
	State       string `json:"state"`
	Checks      int    `json:"checks"`
	NextCheckAt string `json:"nextCheckAt"`
	Unreachable bool   `json:"unreachable"`
}

// awaitDecided waits until remit has asked about all that it has not heard of.
func (d *dies) awaitDecided() {
	d.t.Helper()
	look, deadline := time.NewTicker(50*time.Millisecond), time.Now().Add(diesWait)
	defer look.Stop()
	for undecided := d.list("prepared"); len(undecided) > 0; undecided = d.list("prepared") {
		if time.Now().After(deadline) {
			d.t.Fatalf("after %s %d messages are not decided: %+v", diesWait, len(undecided), undecided[0])
		}
		<-look.C
	}
	if parked := d.list("parked"); len(parked) > 0 {
		d.t.Errorf("%d messages are parked: %v", len(parked), parked[0])
	}
}

// list returns messages in a state, as of now.
func (d *dies) list(state string) (items []message) {
	d.t.Helper()
	header := d.call(http.MethodGet, "/v1/producers/shop", nil)
	q := url.Values{"producer": {"shop"}, "state": {state}, "pageSize": {"1000"}, "wait": {"10s"}, "after": {header.Get("Remit-Position")}}
	var page struct {
		Items []message `json:"items"`
	}
	d.call(http.MethodGet, "/v1/messages?"+q.Encode(), &page)
	return page.Items
}

func (d *dies) call(method, path string, into any) http.Header {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), method, d.remit.URL+path, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode > 299 {
		d.t.Fatalf("%s %s: %s; %v", method, path, body, err)
	}
	if into != nil {
		if err := json.Unmarshal(body, into, json.MatchCaseInsensitiveNames(true)); err != nil {
			d.t.Fatal(err)
		}
	}
	return resp.Header
}

// audit stops remit and holds what it has delivered to what the database has.
func (d *dies) audit() {
	if err := d.remit.Stop(); err != nil {
		d.t.Fatal(err)
	}
	l, err := embedded.Open(embedded.Options{Dir: filepath.Join(d.data, "log"), Fatal: func(err error) { d.t.Error(err) }})
	if err != nil {
		d.t.Fatal(err)
	}
	defer l.Close()
	delivered, prepared, decided := map[string]int{}, 0, map[string]int{}
	d.read(l, "orders", func(e log.Event) { delivered[e.ID]++ })
	d.read(l, log.EventsTopic, func(e log.Event) {
		switch e.Type {
		case "remit.message.prepared.v1":
			prepared++
		case "remit.message.conflicted.v1":
			d.t.Errorf("message %s: somebody wanted to decide otherwise than was decided", e.Correlation)
		case "remit.message.committed.v1", "remit.message.rolledback.v1":
			decided[e.Type]++
		}
	})
	rows := d.rows()
	for id := range delivered {
		if delivered[id] != 1 || !slices.Contains(rows, id) {
			d.t.Errorf("event %s is delivered %d times, and its row is there: %t", id, delivered[id], slices.Contains(rows, id))
		}
	}
	for _, id := range rows {
		if delivered[id] == 0 {
			d.t.Errorf("event %s has its row, and is not delivered", id)
		}
	}
	for id, want := range d.expect { // each line was reached, and only what follows COMMIT has committed
		if has := slices.Contains(rows, id); want == "none" && has || want == "one" && !has {
			d.t.Errorf("%s: its row is there: %t; it should be %s", id, has, want)
		}
	}
	d.t.Logf("%d half messages, %d committed, %d rolled back; %d rows, %d delivered", prepared,
		decided["remit.message.committed.v1"], decided["remit.message.rolledback.v1"], len(rows), len(delivered))
}

func (d *dies) rows() (ids []string) {
	rows, err := d.db.QueryContext(d.t.Context(), "SELECT id FROM orders")
	if err != nil {
		d.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			d.t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if err := rows.Err(); err != nil {
		d.t.Fatal(err)
	}
	return ids
}

// read reads all of a topic.
func (d *dies) read(l *embedded.Log, topic string, take func(log.Event)) {
	d.t.Helper()
	config, err := l.Topic(d.t.Context(), topic)
	if err != nil {
		d.t.Fatal(err)
	}
	for i := range int32(config.Partitions) {
		p := log.Partition{Topic: topic, Index: i}
		at, end, err := l.Bounds(d.t.Context(), p)
		if err != nil {
			d.t.Fatal(err)
		}
		for at < end {
			records, err := l.Read(d.t.Context(), p, at, 1<<20)
			if err != nil {
				d.t.Fatal(err)
			}
			for _, r := range records {
				e, err := log.ParseRecord(r)
				if err != nil {
					d.t.Fatal(err)
				}
				take(e)
				at = r.Offset + 1
			}
		}
	}
}

// TestRemit is what TestDies does not reach of the calls, against a remit in a process of its own: what is registered stands there, leases are kept and given back,
// and rows are forgotten when remit has decided.
func TestRemit(t *testing.T) {
	d := newDies(t)
	p, err := producer.New(producer.SQL(d.db, producer.PostgreSQL), producer.Options{Server: d.remit.URL, Producer: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	all := producer.Registration{
		Check: producer.Check{
			URL: "http://" + d.listen + "/check", Secret: "s3cret", FirstAfter: time.Minute, Interval: 2 * time.Minute, MaxInterval: time.Hour, Deadline: 48 * time.Hour,
			When: "remitage > 5", Concurrency: 2, Rate: 3,
		},
		Precheck: producer.Precheck{URL: "http://" + d.listen + "/precheck", Secret: "s3cret", When: "type = 'order.cancelled.v1'"},
	}
	for range 2 {
		if err := p.Register(ctx, all); err != nil {
			t.Fatal(err)
		}
	}
	var registered struct {
		Check struct {
			URL                                         string
			SecretSet                                   bool
			FirstAfter, Interval, MaxInterval, Deadline string
			When                                        string
			Concurrency, Rate                           int
		}
		Precheck struct {
			URL       string
			SecretSet bool
			When      string
		}
	}
	d.call(http.MethodGet, "/v1/producers/shop", &registered)
	if got, want := fmt.Sprint(registered), fmt.Sprintf("{{http://%[1]s/check true 1m 2m 1h 48h remitage > 5 2 3} {http://%[1]s/precheck true type = 'order.cancelled.v1'}}", d.listen); got != want {
		t.Errorf("%s\nnot\n%s", got, want)
	}
	if err := p.Register(ctx, producer.Registration{Check: producer.Check{URL: "http://" + d.listen, When: "no ("}}); err == nil || producer.IsRetryable(err) {
		t.Errorf("a condition that is none: %v", err)
	}

	if err := p.Lease(ctx, producer.Instance{Name: "a", URL: "http://" + d.listen + "/a"}); err != nil {
		t.Fatal(err)
	}
	var instances struct {
		Items []struct{ Instance, URL string }
	}
	d.call(http.MethodGet, "/v1/producers/shop/instances", &instances)
	if len(instances.Items) != 1 || instances.Items[0].Instance != "a" {
		t.Errorf("%+v", instances)
	}

	place := func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO orders VALUES ('1')")
		return err
	}
	if err := p.Send(ctx, "orders", placed("1"), place); err != nil {
		t.Error(err)
	}
	half, later := d.prepare("2"), time.Now().Add(time.Minute)
	undecided := (*producer.UndecidedError)(nil)
	if n, err := p.Forget(ctx, later); n != 0 || !errors.As(err, &undecided) || undecided.ID.String() != half {
		t.Errorf("forgot %d, %v", n, err)
	}
	d.call(http.MethodPost, "/v1/messages/"+half+"/rollback", nil)
	if n, err := p.Forget(ctx, later); n != 1 || err != nil {
		t.Errorf("forgot %d, %v", n, err)
	}
	if err := p.Close(ctx); err != nil {
		t.Error(err)
	}
	d.call(http.MethodGet, "/v1/producers/shop/instances", &instances)
	if len(instances.Items) != 0 {
		t.Errorf("%+v are left", instances)
	}
}

// TestRemitAway: the answers of a real remit are lost, and it is killed between the half message and the decision. It has each message once.
func TestRemitAway(t *testing.T) {
	d := newDies(t)
	lost := map[string]int{"prepared": 2, "confirmed": 2} // answers of each
	var mu sync.Mutex
	unreliable := roundTrip(func(r *http.Request) (*http.Response, error) {
		resp, err := http.DefaultTransport.RoundTrip(r)
		what := "confirmed"
		if strings.HasSuffix(r.URL.Path, "/messages") {
			what = "prepared"
		}
		mu.Lock()
		defer mu.Unlock()
		if lost[what]--; lost[what] >= 0 && err == nil {
			resp.Body.Close()
			return nil, producertest.ErrLost
		}
		return resp, err
	})
	var confirmed []int // attempts
	p, err := producer.New(producer.SQL(d.db, producer.PostgreSQL), producer.Options{
		Server: d.remit.URL, Producer: "shop", Client: &http.Client{Transport: unreliable}, ConfirmAttemptsMax: 1000,
		Listener: producer.Listener{Confirmed: func(_ log.ID, _ producer.Verdict, attempt int) {
			mu.Lock()
			defer mu.Unlock()
			confirmed = append(confirmed, attempt)
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	place := func(id string) func(*sql.Tx) error {
		return func(tx *sql.Tx) error {
			_, err := tx.ExecContext(t.Context(), "INSERT INTO orders VALUES ('"+id+"')")
			return err
		}
	}
	if err := p.Send(t.Context(), "orders", placed("1"), place("1")); err != nil {
		t.Error(err)
	}
	err = p.Send(t.Context(), "orders", placed("2"), func(tx *sql.Tx) error {
		d.remit.Kill()
		return place("2")(tx)
	})
	if err != nil {
		t.Error(err)
	}
	if err := d.remit.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if len(confirmed) != 2 || min(confirmed[0], confirmed[1]) < 2 {
		t.Errorf("remit was told at attempts %d", confirmed)
	}
	d.expect = map[string]string{"1": "one", "2": "one"}
	d.audit()
}

// TestDiesInProcess is the same logic on each database, in one process: from a step on nothing that the producer asks for is done, and its open transaction is
// rolled back, as a server does when its client is gone.
func TestDiesInProcess(t *testing.T) {
	onEach(t, func(t *testing.T, s *shop) {
		s.options.SettleMax = 10 * time.Millisecond
		var want []string
		for n, line := range lines {
			if strings.Contains(line.step, "-") || strings.HasPrefix(line.step, "told") {
				continue // of a socket, or at the same place as another
			}
			id := fmt.Sprintf("%02d", n)
			g := &ghost{Database: producer.SQL(s.db, s.dialect), RoundTripper: s.remit.Client().Transport}
			at := func(step string) {
				if step == line.step {
					g.die()
				}
			}
			s.options.Client = &http.Client{Transport: steppedTransport{g, at}}
			p := s.over(stepped[*sql.Tx]{g, at})
			_ = p.Send(t.Context(), "orders", placed(id), func(tx *sql.Tx) error { // nobody hears how it ends
				at("local")
				err := s.place(id)(tx)
				at("worked")
				if line.fails {
					err = errors.Join(err, errFails)
				}
				return err
			})
			at("returned")
			over, cancel := context.WithCancel(t.Context())
			cancel()
			_ = p.Close(over) // nothing of it goes on
			s.options.Client = s.remit.Client()
			if err := s.remit.Check(t.Context(), s.producer().CheckHandler()); err != nil {
				t.Errorf("%s: %v", line.step, err)
			}
			if line.rows == "one" {
				want = append(want, id)
			}
			s.wantOrders(want...)
		}
	})
}

// ghost is a process that may be dead.
type ghost struct {
	producer.Database[*sql.Tx]
	http.RoundTripper

	mu   sync.Mutex
	dead bool
	open []*sql.Tx
}

func (g *ghost) die() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dead = true
	for _, tx := range g.open {
		_ = tx.Rollback() // unless it has ended
	}
}

func (g *ghost) isDead() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.dead
}

func (g *ghost) RoundTrip(req *http.Request) (*http.Response, error) {
	if g.isDead() {
		return nil, producertest.ErrLost
	}
	return g.RoundTripper.RoundTrip(req)
}

func (g *ghost) Text(ctx context.Context, query string, args ...any) (string, error) {
	if g.isDead() {
		return "", errDead
	}
	return g.Database.Text(ctx, query, args...)
}

func (g *ghost) Exec(ctx context.Context, statement string, args ...any) (int64, error) {
	if g.isDead() {
		return 0, errDead
	}
	return g.Database.Exec(ctx, statement, args...)
}

func (g *ghost) Begin(ctx context.Context) (sqltx.Transaction[*sql.Tx], error) {
	if g.isDead() {
		return sqltx.Transaction[*sql.Tx]{}, errDead
	}
	tx, err := g.Database.Begin(ctx)
	if err != nil {
		return tx, err
	}
	g.mu.Lock()
	g.open = append(g.open, tx.Own)
	g.mu.Unlock()
	for _, end := range []*func(context.Context) error{&tx.Commit, &tx.Rollback} {
		do := *end
		*end = func(ctx context.Context) error {
			if g.isDead() {
				return errDead
			}
			return do(ctx)
		}
	}
	return tx, nil
}
