package consumers_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/remitlog/remit/cmd/remit/torture"
	"github.com/remitlog/remit/consumers"
	"github.com/remitlog/remit/consumers/dbtest"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/kafka"
	"github.com/remitlog/remit/log/kafka/kafkatest"
)

var (
	kills = flag.Int("kills", 3, "how often TestKilled kills a service")
	// A machine that does other work may keep a service waiting for as long as it likes.
	onTime = flag.Duration("on-time", 0, "how long an effect of a key that does not fail may take in TestKilled, a kill and the end of a session included; 0 does not look")
)

const (
	serviceEnv = "CONSUMERS_TEST_SERVICE" // makes the test's program the service; its configuration
	orders     = "orders"
	partitions = 4
	goodKeys   = 20
	badKey     = "bad"
	badEvents  = 3
	badReason  = "no account of this name"
	everyEvent = 20 * time.Millisecond // is one produced
	session    = 6 * time.Second       // of the group; a broker allows no less
	killedWait = 2 * time.Minute       // for any line of a service
)

func TestMain(m *testing.M) {
	if config := os.Getenv(serviceEnv); config != "" {
		if err := serve(config); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// serviceConfig is what a service is started with.
type serviceConfig struct{ Broker, DSN, Instance string }

// serve is the service: it notes each event in a table. It says what it does, a line each, before it commits.
func serve(config string) error {
	var c serviceConfig
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		return err
	}
	db, err := sql.Open("pgx", c.DSN)
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(8)
	db.SetMaxIdleConns(8)
	reader, err := kafka.NewReader(kafka.ReaderOptions{Brokers: []string{c.Broker}, Instance: c.Instance, Session: session})
	if err != nil {
		return err
	}
	consumer, err := consumers.New(consumers.Options{
		Reader: reader, Group: "shop", Topics: []string{orders},
		AttemptsMax: 5, BackoffMin: 250 * time.Millisecond, BackoffMax: time.Second, CommitEvery: 100 * time.Millisecond,
		Handler: consumers.InTx(db, consumers.PostgreSQL, func(ctx context.Context, tx *sql.Tx, d consumers.Delivery) error {
			_, err := tx.ExecContext(ctx, "INSERT INTO effects (id, key) VALUES ($1, $2)", d.Event.ID(), string(d.Record.Key))
			if string(d.Record.Key) == badKey { // after its effect, which must not stay
				err = errors.Join(err, errors.New(badReason))
			}
			return err
		}),
		Listener: consumers.Listener{
			Handled: func(d consumers.Delivery, _ time.Duration) { fmt.Println("handled", d.Event.ID()) },
			Retried: func(d consumers.Delivery, _ error, _ time.Duration) { fmt.Println("retried", d.Event.ID()) },
			Parked:  func(d consumers.Delivery, _ string) { fmt.Println("parked", d.Event.ID()) },
		},
	})
	if err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(1) // the test is gone
	}()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return consumer.Run(ctx)
}

// TestKilled is U1 to U4 over real logs: of a service that is killed again and again, while one key always fails, each event has its
// effect once, in the order of its key and on time, and what fails is parked with the reason.
func TestKilled(t *testing.T) {
	for _, c := range []struct {
		name  string
		start func(*testing.T) (broker string)
	}{
		{"ApacheKafka", func(t *testing.T) string { return kafkatest.New(t).Addr }},
		{"Embedded", func(t *testing.T) string { return startRemit(t).Kafka }},
	} {
		t.Run(c.name, func(t *testing.T) { newKilled(t, c.start(t)).run() })
	}
}

// startRemit starts remit, with its log behind the Kafka protocol.
func startRemit(t *testing.T) *torture.Server {
	t.Helper()
	binary, err := torture.Build(filepath.Join(t.TempDir(), "remit"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := torture.Start(t.Context(), torture.Options{Binary: binary, Command: []string{"dev"}, Data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

type killed struct {
	t      *testing.T
	broker string
	dsn    string
	db     *sql.DB
	client *kgo.Client
	admin  *kadm.Client
	rnd    *rand.Rand
	lines  chan line // that services say

	produced []string // ids; those of the bad key too
	handled  map[string]bool
	parked   map[string]bool
	times    int             // how often anything was handled
	failing  map[string]bool // the events that have failed and are not parked
	beside   int             // how often an event of their partition was handled meanwhile
}

func newKilled(t *testing.T, broker string) *killed {
	t.Helper()
	k := &killed{t: t, broker: broker, dsn: dbtest.PostgreSQL(t), rnd: rand.New(rand.NewPCG(uint64(*kills), 1)),
		lines: make(chan line, 1024), handled: map[string]bool{}, parked: map[string]bool{}, failing: map[string]bool{}}
	var err error
	if k.db, err = sql.Open("pgx", k.dsn); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.db.Close() })
	for _, s := range []string{
		consumers.Schema(consumers.PostgreSQL),
		"CREATE TABLE effects (n BIGSERIAL, id TEXT NOT NULL, key TEXT NOT NULL, at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp())",
	} {
		if _, err := k.db.ExecContext(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	if k.client, err = kgo.NewClient(kgo.SeedBrokers(broker), kgo.MetadataMinAge(100*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.client.Close)
	k.admin = kadm.NewClient(k.client)
	if _, err := k.admin.CreateTopic(t.Context(), partitions, 1, nil, orders); err != nil {
		t.Fatal(err)
	}
	return k
}

func (k *killed) run() {
	ids, stopped := make(chan string, 1<<20), make(chan struct{})
	ctx, stop := context.WithCancel(k.t.Context())
	go func() {
		defer close(stopped)
		k.produce(ctx, ids)
	}()
	defer stop()

	first, second := k.start("first"), k.start("")
	for n := range *kills {
		if n%3 == 0 { // else the next kills would only measure what these have left behind
			k.caughtUp(first)
			k.caughtUp(second)
		}
		switch n % 3 {
		case 2: // one without a name of its own: the group waits for its session
			k.after(second, 1+k.rnd.IntN(60))
			second.kill()
			second = k.start("")
			k.after(second, 1)
		case 1: // ended in order, it hands its partitions over
			k.after(second, 1+k.rnd.IntN(60))
			second.stop()
			k.ended(second)
			second = k.start("")
			fallthrough
		default:
			k.after(first, k.rnd.IntN(60))
			first.kill()
			first = k.start("first")
		}
	}
	k.after(first, 50)
	k.after(second, 50)
	stop()
	<-stopped
	close(ids)
	for id := range ids {
		k.produced = append(k.produced, id)
	}
	for !k.all() {
		k.line()
	}
	first.stop()
	second.stop()
	k.ended(first)
	k.ended(second)
	k.audit()
}

// produce sends an event every few milliseconds, some of them twice. Those of the bad key come first.
func (k *killed) produce(ctx context.Context, ids chan<- string) {
	tick := time.NewTicker(everyEvent)
	defer tick.Stop()
	for n := 0; ; n++ {
		key := fmt.Sprint("k", n%goodKeys)
		if n < badEvents {
			key = badKey
		}
		id := fmt.Sprintf("%s/%d/%d", key, n, time.Now().UnixMilli())
		r := record(log.Partition{}, key, id)
		times := 1
		if n%10 == 0 {
			times = 2
		}
		for range times {
			rec := &kgo.Record{Topic: orders, Key: r.Key, Value: r.Value}
			for _, h := range r.Headers {
				rec.Headers = append(rec.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
			}
			k.client.Produce(context.WithoutCancel(ctx), rec, func(_ *kgo.Record, err error) {
				if err != nil {
					k.t.Error(err)
				}
			})
		}
		ids <- id
		select {
		case <-tick.C:
		case <-ctx.Done():
			if err := k.client.Flush(context.WithoutCancel(ctx)); err != nil {
				k.t.Error(err)
			}
			return
		}
	}
}

// process is a running service.
type process struct {
	t       *testing.T
	cmd     *exec.Cmd
	ended   chan error
	handled int
	latest  int64 // when the latest that it handled was produced, in ms
}

type line struct {
	from *process
	text string
}

func (k *killed) start(instance string) *process {
	k.t.Helper()
	config, err := json.Marshal(serviceConfig{Broker: k.broker, DSN: k.dsn, Instance: instance})
	if err != nil {
		k.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		k.t.Fatal(err)
	}
	p := &process{t: k.t, cmd: exec.Command(self), ended: make(chan error, 1)}
	p.cmd.Env = append(os.Environ(), serviceEnv+"="+string(config))
	p.cmd.Stderr = os.Stderr
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		k.t.Fatal(err)
	}
	if _, err := p.cmd.StdinPipe(); err != nil { // it ends when this is closed, at the latest with this process
		k.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(func() { _ = p.cmd.Process.Kill() }) // unless it has ended
	go func() {
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			select {
			case k.lines <- line{p, lines.Text()}:
			case <-k.t.Context().Done():
				return
			}
		}
		p.ended <- p.cmd.Wait()
	}()
	return p
}

// kill is kill -9.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // if it had ended by itself, others see that nothing goes on
}

// stop ends it in order.
func (p *process) stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
}

// ended waits for a service that was stopped.
func (k *killed) ended(p *process) {
	k.t.Helper()
	for {
		select {
		case err := <-p.ended:
			if err != nil {
				k.t.Errorf("a service that was asked to stop: %v", err)
			}
			return
		case l := <-k.lines:
			k.note(l)
		case <-time.After(killedWait):
			k.t.Fatal("a service does not stop")
		}
	}
}

// line takes one line of any service.
func (k *killed) line() {
	k.t.Helper()
	select {
	case l := <-k.lines:
		k.note(l)
	case <-time.After(killedWait):
		k.t.Fatalf("nothing was said for %s; %d events are handled, %d parked", killedWait, len(k.handled), len(k.parked))
	}
}

func (k *killed) note(l line) {
	what, id, _ := strings.Cut(l.text, " ")
	switch what {
	case "handled":
		k.handled[id] = true
		k.times++
		l.from.handled++
		_, at := parts(id)
		l.from.latest = max(l.from.latest, at)
		if key, _, _ := strings.Cut(id, "/"); len(k.failing) > 0 && log.KeyPartition(key, partitions) == log.KeyPartition(badKey, partitions) {
			k.beside++
		}
	case "retried":
		if !k.parked[id] {
			k.failing[id] = true
		}
	case "parked":
		k.parked[id] = true
		delete(k.failing, id)
	}
}

// after waits until a service has handled so many deliveries since it was started.
func (k *killed) after(p *process, n int) {
	k.t.Helper()
	for p.handled < n {
		k.line()
	}
}

// caughtUp waits until a service handles what is produced from now on.
func (k *killed) caughtUp(p *process) {
	k.t.Helper()
	for now := time.Now().UnixMilli(); p.latest < now; {
		k.line()
	}
}

// parts are an id's: the number of its event, and when it was produced.
func parts(id string) (n int, ms int64) {
	p := strings.Split(id, "/")
	n, _ = strconv.Atoi(p[1])
	ms, _ = strconv.ParseInt(p[2], 10, 64) // both are ours
	return n, ms
}

// all reports whether everything that was produced was handled, or parked.
func (k *killed) all() bool { return len(k.handled)+len(k.parked) == len(k.produced) }

func (k *killed) audit() {
	slowest := k.effects()
	again, ends := k.parkedRecords(), k.committed()
	k.t.Logf("%d kills; %d events, %d records, %d deliveries; the slowest effect of a key that does not fail after %s; %d of its partition beside one that fails; %d of %d parked again",
		*kills, len(k.produced), ends, k.times, slowest, k.beside, again, badEvents)
}

// effects holds the table to what was produced, and returns how long the slowest took.
func (k *killed) effects() (slowest time.Duration) {
	rows, err := k.db.QueryContext(k.t.Context(), "SELECT id, key, at FROM effects ORDER BY n")
	if err != nil {
		k.t.Fatal(err)
	}
	defer rows.Close()
	times, last := map[string]int{}, map[string]int{}
	for rows.Next() {
		var id, key string
		var at time.Time
		if err := rows.Scan(&id, &key, &at); err != nil {
			k.t.Fatal(err)
		}
		times[id]++
		n, ms := parts(id)
		if n <= last[key] {
			k.t.Errorf("key %s: event %d had its effect after event %d", key, n, last[key])
		}
		last[key] = n
		slowest = max(slowest, at.Sub(time.UnixMilli(ms)))
	}
	if err := rows.Err(); err != nil {
		k.t.Fatal(err)
	}
	for _, id := range k.produced {
		want := 1
		if strings.HasPrefix(id, badKey) {
			want = 0
		}
		if times[id] != want {
			k.t.Errorf("%s had its effect %d times, not %d", id, times[id], want)
		}
	}
	if k.beside == 0 {
		k.t.Error("while a key failed nothing else of its partition was handled")
	}
	if *onTime > 0 && slowest > *onTime {
		k.t.Errorf("the slowest effect came after %s, more than %s", slowest, *onTime)
	}
	return slowest
}

// parkedRecords holds the parked topic to the events that fail, and returns how many stand there more than once.
func (k *killed) parkedRecords() (again int) {
	ends, err := k.admin.ListEndOffsets(k.t.Context(), consumers.ParkedTopic(orders))
	if err != nil {
		k.t.Fatal(err)
	}
	want := int64(0)
	ends.Each(func(o kadm.ListedOffset) { want += o.Offset })
	client, err := kgo.NewClient(kgo.SeedBrokers(k.broker), kgo.ConsumeTopics(consumers.ParkedTopic(orders)))
	if err != nil {
		k.t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(k.t.Context(), killedWait)
	defer cancel()
	times := map[string]int{}
	for n := int64(0); n < want && ctx.Err() == nil; {
		fetches := client.PollFetches(ctx)
		n += int64(fetches.NumRecords())
		fetches.EachRecord(func(f *kgo.Record) {
			r := log.Record{Key: f.Key, Value: f.Value, Time: f.Timestamp}
			for _, h := range f.Headers {
				r.Headers = append(r.Headers, log.Header{Key: h.Key, Value: h.Value})
			}
			e, err := log.ParseRecord(r)
			if err != nil || e.Key != badKey || e.Extensions[consumers.ParkedReason] != badReason {
				k.t.Errorf("parked: %+v, %v", e, err)
			}
			times[e.ID]++
		})
	}
	for _, id := range k.produced {
		if strings.HasPrefix(id, badKey) && times[id] == 0 {
			k.t.Errorf("%s is not parked", id)
		}
		again += max(0, times[id]-1)
	}
	return again
}

// committed holds what the group has committed to the ends of the topic, and returns how many records there are.
func (k *killed) committed() (records int64) {
	ends, err := k.admin.ListEndOffsets(k.t.Context(), orders)
	if err != nil {
		k.t.Fatal(err)
	}
	offsets, err := k.admin.FetchOffsets(k.t.Context(), "shop")
	if err != nil {
		k.t.Fatal(err)
	}
	ends.Each(func(end kadm.ListedOffset) {
		records += end.Offset
		if o, _ := offsets.Lookup(orders, end.Partition); o.At != end.Offset && end.Offset > 0 {
			k.t.Errorf("partition %d is committed up to %d of %d", end.Partition, o.At, end.Offset)
		}
	})
	return records
}
