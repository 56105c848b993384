package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/remitlog/remit/consumers"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/kafka"
)

const patience = 30 * time.Second

// cluster is a broker in this process, with topic orders.
type cluster struct {
	t      *testing.T
	fake   *kfake.Cluster
	client *kgo.Client
	admin  *kadm.Client
}

func newCluster(t *testing.T, partitions int32) *cluster {
	t.Helper()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, "orders"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	client, err := kgo.NewClient(kgo.SeedBrokers(fake.ListenAddrs()...), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return &cluster{t: t, fake: fake, client: client, admin: kadm.NewClient(client)}
}

// produce appends events n, of ten keys.
func (c *cluster) produce(from, to int) (ids []string) {
	c.t.Helper()
	var records []*kgo.Record
	for i := from; i < to; i++ {
		id := fmt.Sprintf("%05d", i)
		e := log.Event{ID: id, Source: "/shop", Type: "order.placed.v1", Key: fmt.Sprint("k", i%10), Data: []byte(`{}`)}
		r := e.Record(log.Partition{})
		k := &kgo.Record{Topic: "orders", Key: r.Key, Value: r.Value}
		for _, h := range r.Headers {
			k.Headers = append(k.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
		}
		records = append(records, k)
		ids = append(ids, id)
	}
	if err := c.client.ProduceSync(c.t.Context(), records...).FirstErr(); err != nil {
		c.t.Fatal(err)
	}
	return ids
}

// member is a running Consumer.
type member struct {
	t     *testing.T
	stop  context.CancelFunc
	ended chan error
}

func (c *cluster) join(o consumers.Options) *member {
	c.t.Helper()
	o.Group, o.Topics, o.CommitEvery = "shop", []string{"orders"}, 50*time.Millisecond
	return run(c.t, kafka.ReaderOptions{Brokers: c.fake.ListenAddrs()}, o)
}

func run(t *testing.T, ro kafka.ReaderOptions, o consumers.Options) *member {
	t.Helper()
	var err error
	if o.Reader, err = kafka.NewReader(ro); err != nil {
		t.Fatal(err)
	}
	consumer, err := consumers.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	m := &member{t: t, stop: cancel, ended: make(chan error, 1)}
	go func() { m.ended <- consumer.Run(ctx) }()
	return m
}

// leave ends it in order.
func (m *member) leave() {
	m.t.Helper()
	m.stop()
	if err := m.end(); err != nil {
		m.t.Error(err)
	}
}

func (m *member) end() error {
	m.t.Helper()
	select {
	case err := <-m.ended:
		return err
	case <-time.After(patience):
		m.t.Fatal("Run does not return")
		return nil
	}
}

// until waits for one of what comes.
func until[T any](t *testing.T, what string, from <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-from:
	case <-time.After(patience):
		t.Fatalf("waited in vain for %s", what)
	}
	return v
}

// committed returns the sum of what the group has committed.
func (c *cluster) committed() (sum int64) {
	c.t.Helper()
	offsets, err := c.admin.FetchOffsets(c.t.Context(), "shop")
	if err != nil {
		c.t.Fatal(err)
	}
	offsets.Each(func(o kadm.OffsetResponse) { sum += o.At })
	return sum
}

// TestMembers: a member joins while another works, the first leaves; every record is handled once, in order, and committed.
func TestMembers(t *testing.T) {
	c := newCluster(t, 4)
	var mu sync.Mutex
	handled, byKey := map[string]int{}, map[string]string{}
	seen := make(chan string, 10_000)
	o := consumers.Options{Handler: func(_ context.Context, d consumers.Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		id, key := d.Event.ID(), string(d.Record.Key)
		handled[id]++
		if id <= byKey[key] {
			t.Errorf("%s came after %s", id, byKey[key])
		}
		byKey[key] = id
		seen <- id
		return nil
	}}
	revoked := make(chan int, 100)
	first := o
	first.Listener.Revoked = func(p []log.Partition, lost bool, _ int) {
		if lost {
			t.Error("partitions were lost")
		}
		revoked <- len(p)
	}
	a := c.join(first)
	want := c.produce(0, 500)
	for range 100 {
		until(t, "the first member", seen)
	}
	b := c.join(o)
	if n := until(t, "a hand-over", revoked); n != 2 {
		t.Errorf("%d of 4 partitions were handed over", n)
	}
	want = append(want, c.produce(500, 1000)...)
	a.leave()
	want = append(want, c.produce(1000, 1500)...)
	for range len(want) - 100 {
		until(t, "all", seen)
	}
	b.leave()
	for _, id := range want {
		if handled[id] != 1 {
			t.Errorf("%s was handled %d times", id, handled[id])
		}
	}
	if sum := c.committed(); sum != int64(len(want)) {
		t.Errorf("%d of %d are committed", sum, len(want))
	}
}

// TestParks: the parked topic is made, and has the record with the reason, in the CloudEvents form.
func TestParks(t *testing.T) {
	c := newCluster(t, 1)
	c.produce(0, 3)
	parked, handled := make(chan string, 10), make(chan string, 10)
	m := c.join(consumers.Options{
		Handler: func(_ context.Context, d consumers.Delivery) error {
			if d.Event.ID() == "00001" {
				return consumers.Refuse(errors.New("no such order"))
			}
			return nil
		},
		Listener: consumers.Listener{
			Parked:  func(_ consumers.Delivery, reason string) { parked <- reason },
			Handled: func(d consumers.Delivery, _ time.Duration) { handled <- d.Event.ID() },
			Retried: func(_ consumers.Delivery, err error, _ time.Duration) { t.Error(err) },
		},
	})
	if reason := until(t, "parking", parked); reason != "no such order" {
		t.Errorf("reason %q", reason)
	}
	until(t, "the others", handled)
	until(t, "the others", handled)
	m.leave()
	if n := c.committed(); n != 3 {
		t.Errorf("%d of 3 are committed", n)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(c.fake.ListenAddrs()...), kgo.ConsumeTopics("orders.parked"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	got := client.PollRecords(ctx, 10).Records()
	if len(got) != 1 {
		t.Fatalf("%d records are parked", len(got))
	}
	r := log.Record{Key: got[0].Key, Value: got[0].Value}
	for _, h := range got[0].Headers {
		r.Headers = append(r.Headers, log.Header{Key: h.Key, Value: h.Value})
	}
	e, err := log.ParseRecord(r)
	if err != nil || e.ID != "00001" || e.Key != "k1" || e.Extensions[consumers.ParkedReason] != "no such order" {
		t.Errorf("parked as %+v, %v", e, err)
	}
}

// TestGap: records that were deleted before the group read them are not skipped in silence.
func TestGap(t *testing.T) {
	c := newCluster(t, 1)
	c.produce(0, 10)
	handled := make(chan string, 100)
	o := consumers.Options{Handler: func(_ context.Context, d consumers.Delivery) error { handled <- d.Event.ID(); return nil }}
	m := c.join(o)
	for range 10 {
		until(t, "records", handled)
	}
	m.leave()
	c.produce(10, 20)
	var to kadm.Offsets = kadm.Offsets{}
	to.AddOffset("orders", 0, 15, -1)
	if _, err := c.admin.DeleteRecords(t.Context(), to); err != nil {
		t.Fatal(err)
	}
	if err := c.join(o).end(); !errors.Is(err, kafka.ErrGap) || !strings.Contains(err.Error(), "orders/0") {
		t.Errorf("Run returned %v", err)
	}
	if len(handled) > 0 {
		t.Errorf("it went on with %s", <-handled)
	}
}

// TestCommitFails: a commit that the broker refuses is told, and made again.
func TestCommitFails(t *testing.T) {
	c := newCluster(t, 1)
	c.fake.ControlKey(int16(kmsg.OffsetCommit), func(req kmsg.Request) (kmsg.Response, error, bool) { // once, then it is gone
		resp := req.ResponseKind().(*kmsg.OffsetCommitResponse)
		for _, asked := range req.(*kmsg.OffsetCommitRequest).Topics {
			topic := kmsg.NewOffsetCommitResponseTopic()
			topic.Topic, topic.TopicID = asked.Topic, asked.TopicID
			for _, p := range asked.Partitions {
				partition := kmsg.NewOffsetCommitResponseTopicPartition()
				partition.Partition, partition.ErrorCode = p.Partition, kerr.OffsetMetadataTooLarge.Code
				topic.Partitions = append(topic.Partitions, partition)
			}
			resp.Topics = append(resp.Topics, topic)
		}
		return resp, nil, true
	})
	failed, committed := make(chan error, 100), make(chan log.Offset, 100)
	m := c.join(consumers.Options{
		Handler: func(context.Context, consumers.Delivery) error { return nil },
		Listener: consumers.Listener{
			NotCommitted: func(_ map[log.Partition]log.Offset, err error) { failed <- err },
			Committed:    func(next map[log.Partition]log.Offset) { committed <- next[log.Partition{Topic: "orders"}] },
		},
	})
	c.produce(0, 5)
	if err := until(t, "a commit that fails", failed); !errors.Is(err, kerr.OffsetMetadataTooLarge) {
		t.Error(err)
	}
	until(t, "a commit", committed)
	m.leave()
	if n := c.committed(); n != 5 {
		t.Errorf("%d of 5 are committed", n)
	}
}

// TestPaused: a partition at its limit is not read further, and then it is, with nothing left out.
func TestPaused(t *testing.T) {
	c := newCluster(t, 1)
	want := c.produce(0, 3000)
	gate, paused := make(chan struct{}), make(chan log.Partition, 100)
	var mu sync.Mutex
	var handled []string
	seen := make(chan string, len(want))
	m := c.join(consumers.Options{
		HeldMax: 100,
		Handler: func(_ context.Context, d consumers.Delivery) error {
			<-gate
			mu.Lock()
			defer mu.Unlock()
			handled = append(handled, d.Event.ID())
			seen <- d.Event.ID()
			return nil
		},
		Listener: consumers.Listener{Paused: func(p log.Partition) { paused <- p }},
	})
	until(t, "a pause", paused)
	close(gate)
	for range want {
		until(t, "records", seen)
	}
	m.leave()
	if slices.Sort(handled); !slices.Equal(handled, want) {
		t.Errorf("%d were handled, not %d", len(handled), len(want))
	}
}

// TestPausedElsewhere: a partition that is let go while it is paused is read when it comes back.
func TestPausedElsewhere(t *testing.T) {
	c := newCluster(t, 2)
	want := c.produce(0, 1000)
	gate, paused, revoked, back := make(chan struct{}), make(chan log.Partition, 100), make(chan int, 100), make(chan struct{}, 10_000)
	var mu sync.Mutex
	handled := map[string]bool{}
	o := consumers.Options{
		HeldMax: 50, DrainMax: 10 * time.Millisecond,
		Handler: func(ctx context.Context, d consumers.Delivery) error {
			select {
			case <-gate:
			case <-ctx.Done():
				return ctx.Err()
			}
			mu.Lock()
			defer mu.Unlock()
			handled[d.Event.ID()] = true
			if len(handled) == len(want) {
				close(back)
			}
			return nil
		},
	}
	first := o
	first.Listener = consumers.Listener{
		Paused:  func(p log.Partition) { paused <- p },
		Revoked: func(p []log.Partition, _ bool, _ int) { revoked <- len(p) },
	}
	a := c.join(first)
	until(t, "a pause", paused)
	until(t, "a pause of the other partition", paused)
	b := c.join(o)
	if n := until(t, "a hand-over", revoked); n != 1 {
		t.Errorf("%d partitions were handed over", n)
	}
	b.leave()
	close(gate)
	until(t, "all records", back)
	a.leave()
	if sum := c.committed(); sum != int64(len(want)) {
		t.Errorf("%d of %d are committed", sum, len(want))
	}
}

// TestNoBroker: brokers that are not there are waited for, and told of; Run ends when it is asked to.
func TestNoBroker(t *testing.T) {
	trouble := make(chan error, 1000)
	m := run(t, kafka.ReaderOptions{Brokers: []string{"127.0.0.1:1"}, Trouble: func(err error) { trouble <- err }},
		consumers.Options{Group: "shop", Topics: []string{"orders"}, Handler: func(context.Context, consumers.Delivery) error { return nil }})
	until(t, "trouble", trouble)
	m.leave()
}

// TestOptions: what is wrong is said before anything is read.
func TestOptions(t *testing.T) {
	for _, o := range []kafka.ReaderOptions{{}, {Brokers: []string{"localhost"}}, {Brokers: []string{"localhost:9092"}, Session: -1},
		{Brokers: []string{"localhost:9092"}, User: "alice"},
		{Brokers: []string{"localhost:9092"}, User: "alice", Password: "secret", Mechanism: "PLAIN"}} {
		if _, err := kafka.NewReader(o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}

// TestSecure: over TLS and with a password, of either kind. With a wrong one nothing is read, and it is told.
func TestSecure(t *testing.T) {
	web := httptest.NewUnstartedServer(nil)
	web.StartTLS() // for its certificate
	defer web.Close()
	trust := web.Client().Transport.(*http.Transport).TLSClientConfig
	auth := scram.Auth{User: "alice", Pass: "secret"}
	for name, mechanism := range map[string]sasl.Mechanism{"": auth.AsSha512Mechanism(), "SCRAM-SHA-256": auth.AsSha256Mechanism()} {
		fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "orders"), kfake.TLS(web.TLS), kfake.EnableSASL(), kfake.Superuser(mechanism.Name(), "alice", "secret"))
		if err != nil {
			t.Fatal(err)
		}
		defer fake.Close()
		client, err := kgo.NewClient(kgo.SeedBrokers(fake.ListenAddrs()...), kgo.DialTLSConfig(trust), kgo.SASL(mechanism))
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		c := &cluster{t: t, fake: fake, client: client, admin: kadm.NewClient(client)}
		c.produce(0, 1)
		handled := make(chan string, 1)
		o := consumers.Options{Group: "shop", Topics: []string{"orders"}, Handler: func(_ context.Context, d consumers.Delivery) error {
			handled <- d.Event.ID()
			return nil
		}}
		m := run(t, kafka.ReaderOptions{Brokers: fake.ListenAddrs(), TLS: trust, User: "alice", Password: "secret", Mechanism: name}, o)
		until(t, "a record", handled)
		m.leave()
		trouble := make(chan error, 1000)
		m = run(t, kafka.ReaderOptions{Brokers: fake.ListenAddrs(), TLS: trust, User: "alice", Password: "guess", Mechanism: name,
			Trouble: func(err error) { trouble <- err }}, o)
		until(t, "a refusal", trouble)
		m.leave()
		if len(handled) > 0 {
			t.Errorf("%s: the wrong password will do", mechanism.Name())
		}
	}
}
