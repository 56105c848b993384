package kafkaapi_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/embedded"
	"github.com/remitlog/remit/log/kafkaapi"
	"github.com/remitlog/remit/log/logtest"
)

// rawConn is a connection whose requests are ours.
type rawConn struct {
	net.Conn
	next int32
}

func dial(t testing.TB, s *served) *rawConn {
	t.Helper()
	c, err := net.Dial("tcp", s.address)
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	must(t, c.SetDeadline(time.Now().Add(30*time.Second)))
	return &rawConn{Conn: c}
}

func (c *rawConn) send(t testing.TB, q kmsg.Request) {
	t.Helper()
	c.next++
	_, err := c.Write(kmsg.NewRequestFormatter(kmsg.FormatterClientID("test")).AppendRequest(nil, q, c.next))
	must(t, err)
}

// frame reads one answer: its correlation id, and the rest.
func (c *rawConn) frame(t testing.TB) (int32, []byte) {
	t.Helper()
	var size [4]byte
	_, err := io.ReadFull(c, size[:])
	must(t, err)
	b := make([]byte, binary.BigEndian.Uint32(size[:]))
	_, err = io.ReadFull(c, b)
	must(t, err)
	return int32(binary.BigEndian.Uint32(b)), b[4:]
}

func (c *rawConn) receive(t testing.TB, q kmsg.Request, version int16) kmsg.Response {
	t.Helper()
	correlation, b := c.frame(t)
	if correlation != c.next {
		t.Fatalf("answer %d, want %d", correlation, c.next)
	}
	r := q.ResponseKind()
	r.SetVersion(version)
	if r.IsFlexible() && q.Key() != 18 {
		b = b[1:]
	}
	must(t, r.ReadFrom(b))
	return r
}

func (c *rawConn) ask(t testing.TB, q kmsg.Request) kmsg.Response {
	t.Helper()
	return c.askAs(t, q, q.GetVersion())
}

func (c *rawConn) askAs(t testing.TB, q kmsg.Request, version int16) kmsg.Response {
	t.Helper()
	c.send(t, q)
	return c.receive(t, q, version)
}

// ended reports whether the server has closed the connection, with nothing more to read.
func (c *rawConn) ended(t testing.TB) bool {
	t.Helper()
	n, err := c.Read(make([]byte, 1))
	return n == 0 && err != nil && !os.IsTimeout(err)
}

func errorCode(r kmsg.Response) int16 {
	return int16(reflect.ValueOf(r).Elem().FieldByName("ErrorCode").Int())
}

// logged is a logger to be looked at.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// K6: what is malformed or too large closes its connection, with a line, and no other.
func TestMalformed(t *testing.T) {
	var lines logged
	s := serve(t, kafkaapi.Options{Logger: slog.New(slog.NewTextHandler(&lines, nil))})
	s.topic(t, "t", 1)
	other := dial(t, s)
	head := func(n int32, key, version int16, rest ...byte) []byte {
		b := binary.BigEndian.AppendUint32(nil, uint32(n))
		b = binary.BigEndian.AppendUint16(b, uint16(key))
		b = binary.BigEndian.AppendUint16(b, uint16(version))
		return append(b, rest...)
	}
	for name, c := range map[string]struct {
		b    []byte
		says string
	}{
		"oversize":   {head(kafkaapi.RequestBytesMax+1, 0, 3), "malformed"},
		"negative":   {head(-1, 0, 3), "malformed"},
		"too short":  {head(4, 0, 3), "malformed"},
		"client id":  {head(12, 3, 1, 0, 0, 0, 1, 0x7f, 0, 0, 0), "malformed"},
		"array":      {head(14, 3, 1, 0, 0, 0, 1, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff), "malformed"},
		"old":        {head(10, 0, 2, 0, 0, 0, 1, 0xff, 0xff), "3 to"},
		"not served": {head(10, 24, 0, 0, 0, 0, 1, 0xff, 0xff), "not served"},
		"no request": {head(10, 9999, 0, 0, 0, 0, 1, 0xff, 0xff), "not served"},
		"http":       {[]byte("GET / HTTP/1.1\r\n\r\n"), "malformed"},
	} {
		c0 := dial(t, s)
		_, err := c0.Write(c.b)
		must(t, err)
		if !c0.ended(t) {
			t.Errorf("%s: the connection lives on", name)
		}
		// The line comes before the end of the connection that the client sees, or right after it.
		for deadline := time.Now().Add(10 * time.Second); !strings.Contains(lines.String(), c0.LocalAddr().String()) && time.Now().Before(deadline); {
			runtime.Gosched()
		}
		if line := lines.String(); !strings.Contains(line, c.says) || !strings.Contains(line, c0.LocalAddr().String()) {
			t.Errorf("%s: %q does not say %q", name, line, c.says)
		}
	}
	other.ask(t, kmsg.NewPtrMetadataRequest())
}

// A length that is a lie takes no memory.
func TestLyingLength(t *testing.T) {
	s := serve(t, kafkaapi.Options{})
	before := heap()
	for range 4 {
		c := dial(t, s)
		b := binary.BigEndian.AppendUint32(nil, kafkaapi.RequestBytesMax)
		_, err := c.Write(append(b, 0, 1, 0, 4, 0, 0, 0, 1))
		must(t, err)
	}
	dial(t, s).ask(t, kmsg.NewPtrMetadataRequest())
	if grown := heap() - before; grown > 16<<20 {
		t.Errorf("%d bytes", grown)
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestConnectionsMax(t *testing.T) {
	s := serve(t, kafkaapi.Options{ConnectionsMax: 2})
	a, b := dial(t, s), dial(t, s)
	a.ask(t, kmsg.NewPtrMetadataRequest())
	b.ask(t, kmsg.NewPtrMetadataRequest())
	if c := dial(t, s); !c.ended(t) {
		t.Error("a third connection is served")
	}
	must(t, a.Close())
	for { // until the server has seen it
		c := dial(t, s)
		c.next++
		_, _ = c.Write(kmsg.NewRequestFormatter().AppendRequest(nil, kmsg.NewPtrMetadataRequest(), c.next))
		if n, _ := c.Read(make([]byte, 1)); n == 1 {
			break
		}
	}
}

func produceRequest(topic string, b []byte) *kmsg.ProduceRequest {
	q := kmsg.NewPtrProduceRequest()
	q.Version, q.Acks, q.TimeoutMillis = 7, -1, 1000
	t, p := kmsg.NewProduceRequestTopic(), kmsg.NewProduceRequestTopicPartition()
	p.Records = b
	t.Topic, t.Partitions = topic, append(t.Partitions, p)
	q.Topics = append(q.Topics, t)
	return q
}

func batch(value string) []byte {
	return log.AppendBatch(nil, time.Now(), []log.Record{{Value: []byte(value)}})
}

// K1, K2: while the disk has not synced, produces are not answered and fetches see nothing. Those that were sent one after the other on
// one connection share a sync, and are answered in their order; what comes behind them waits its turn.
func TestPipelinedProduces(t *testing.T) {
	disk := &logtest.Disk{}
	s := serve(t, kafkaapi.Options{Log: openLog(t, disk.FS(vfs.NewMem())), InFlightMax: 64})
	s.topic(t, "t", 1)
	c := dial(t, s)
	arrived, release := disk.HoldSyncs()
	const n = 20
	for i := range n {
		c.send(t, produceRequest("t", batch(strconv.Itoa(i))))
	}
	c.send(t, kmsg.NewPtrMetadataRequest())
	<-arrived
	q := kmsg.NewPtrListOffsetsRequest()
	q.Version = 1
	topic, part := kmsg.NewListOffsetsRequestTopic(), kmsg.NewListOffsetsRequestTopicPartition()
	part.Timestamp = -1
	topic.Topic, topic.Partitions = "t", append(topic.Partitions, part)
	q.Topics = append(q.Topics, topic)
	if r := dial(t, s).ask(t, q).(*kmsg.ListOffsetsResponse); r.Topics[0].Partitions[0].Offset != 0 {
		t.Error("the end moved before the sync")
	}
	release()
	for i := range n {
		correlation, b := c.frame(t)
		r := kmsg.NewPtrProduceResponse()
		r.Version = 7
		must(t, r.ReadFrom(b))
		if p := r.Topics[0].Partitions[0]; correlation != int32(i+1) || p.ErrorCode != 0 || p.BaseOffset != int64(i) {
			t.Fatalf("answer %d: %d %+v", i, correlation, p)
		}
	}
	if correlation, _ := c.frame(t); correlation != n+1 {
		t.Error(correlation)
	}
}

// acks=0 is durable too, and not answered; what is refused ends the connection.
func TestNoAcks(t *testing.T) {
	s := serve(t, kafkaapi.Options{})
	s.topic(t, "t", 1)
	c := dial(t, s)
	q := produceRequest("t", batch("v"))
	q.Acks = 0
	c.send(t, q)
	c.ask(t, kmsg.NewPtrMetadataRequest())
	if _, end, err := s.Bounds(ctx, log.Partition{Topic: "t"}); err != nil || end != 1 {
		t.Error(end, err)
	}
	q = produceRequest("none", batch("v"))
	q.Acks = 0
	c.send(t, q)
	if !c.ended(t) {
		t.Error("what was refused is not told")
	}
}

func TestProduceRefuses(t *testing.T) {
	s := serve(t, kafkaapi.Options{})
	s.topic(t, "t", 1)
	c := dial(t, s)
	good := batch("v")
	flipped := bytes.Clone(good)
	flipped[len(flipped)-1] ^= 1
	old := bytes.Clone(good)
	old[16] = 1
	late := log.AppendBatch(nil, time.Now(), []log.Record{{Value: []byte("v"), Time: time.Now().Add(2 * log.TimeAheadMax)}})
	large := log.AppendBatch(nil, time.Now(), []log.Record{{Value: make([]byte, embedded.RawMax)}})
	tx := produceRequest("t", good)
	tx.TransactionID = kmsg.StringPtr("tx")
	acks := produceRequest("t", good)
	acks.Acks = 2
	for name, x := range map[string]struct {
		q    *kmsg.ProduceRequest
		want int16
	}{
		"good":        {produceRequest("t", good), 0},
		"corrupt":     {produceRequest("t", flipped), 2},
		"empty":       {produceRequest("t", nil), 2},
		"two":         {produceRequest("t", append(bytes.Clone(good), good...)), 87},
		"format":      {produceRequest("t", old), 87},
		"late":        {produceRequest("t", late), 32},
		"large":       {produceRequest("t", large), 10},
		"topic":       {produceRequest("none", good), 3},
		"transaction": {tx, 53},
		"acks":        {acks, 21},
	} {
		r := c.ask(t, x.q).(*kmsg.ProduceResponse)
		if p := r.Topics[0].Partitions[0]; p.ErrorCode != x.want {
			t.Errorf("%s: %d, want %d", name, p.ErrorCode, x.want)
		}
	}
	if _, end, err := s.Bounds(ctx, log.Partition{Topic: "t"}); err != nil || end != 1 {
		t.Error(end, err)
	}
}

// A consumer that waits is answered when the server stops, and what it was sent is whole.
func TestCloseAnswers(t *testing.T) {
	s := serve(t, kafkaapi.Options{})
	s.topic(t, "t", 1)
	c := dial(t, s)
	q := kmsg.NewPtrFetchRequest()
	q.Version, q.MaxWaitMillis, q.MinBytes, q.MaxBytes = 4, 30_000, 1, math.MaxInt32
	topic, part := kmsg.NewFetchRequestTopic(), kmsg.NewFetchRequestTopicPartition()
	part.PartitionMaxBytes = 1 << 20
	topic.Topic, topic.Partitions = "t", append(topic.Partitions, part)
	q.Topics = append(q.Topics, topic)
	c.send(t, q)
	k := s.client(t, kgo.ConsumeTopics("t"))
	_ = k
	began := time.Now()
	must(t, s.server.Close(bounded(t)))
	if took := time.Since(began); took > 10*time.Second {
		t.Error("closing took", took)
	}
}

// With a full disk produces are refused so that clients try again, fetches go on, and produces come back with room.
func TestDiskFull(t *testing.T) {
	var free atomic.Uint64
	free.Store(1 << 40)
	clock := logtest.NewClock(time.Now())
	l, err := embedded.Open(embedded.Options{Dir: "log", FS: vfs.NewMem(), FreeFloorBytes: 1 << 20, Clock: clock.Now,
		Free: func() (uint64, error) { return free.Load(), nil }})
	must(t, err)
	s := serve(t, kafkaapi.Options{Log: l})
	s.topic(t, "t", 1)
	c := dial(t, s)
	produce := func(want int16) {
		t.Helper()
		clock.Advance(time.Second) // what is known of the free space is that old
		r := c.ask(t, produceRequest("t", batch("v"))).(*kmsg.ProduceResponse)
		if p := r.Topics[0].Partitions[0]; p.ErrorCode != want {
			t.Errorf("%d, want %d", p.ErrorCode, want)
		}
	}
	produce(0)
	free.Store(1 << 10)
	produce(kerr.KafkaStorageError.Code)
	if !kerr.IsRetriable(kerr.KafkaStorageError) {
		t.Error("clients do not try again")
	}
	reader := s.client(t, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"t": {0: kgo.NewOffset().AtStart()}}))
	if got := values(t, reader, 1); got[0] != "v" {
		t.Error(got)
	}
	free.Store(1 << 40)
	produce(0)
}

// A start that finds the disk full gives no ids of producers until its epoch is written down: they would be given twice.
func TestProducerIDsOnFullDisk(t *testing.T) {
	var free atomic.Uint64
	clock, mem := logtest.NewClock(time.Now()), vfs.NewMem()
	given := map[int64]bool{}
	for i, full := range []bool{false, true, false, true} { // all but in one second
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			free.Store(1 << 40)
			if full {
				free.Store(0)
			}
			l, err := embedded.Open(embedded.Options{Dir: "log", FS: mem, Clock: clock.Now, Free: func() (uint64, error) { return free.Load(), nil }})
			must(t, err)
			c := dial(t, serve(t, kafkaapi.Options{Log: l}))
			ask := func() *kmsg.InitProducerIDResponse {
				return c.ask(t, kmsg.NewPtrInitProducerIDRequest()).(*kmsg.InitProducerIDResponse)
			}
			if full {
				if r := ask(); r.ErrorCode != kerr.CoordinatorLoadInProgress.Code || r.ProducerID != -1 {
					t.Errorf("%+v", r)
				}
				free.Store(1 << 40)
				clock.Advance(time.Second)
			}
			r := ask()
			if r.ErrorCode != 0 || given[r.ProducerID] {
				t.Errorf("%+v, given are %v", r, given)
			}
			given[r.ProducerID] = true
		})
	}
}

// Clients that ask for much and do not read it do not keep others from reading.
func TestClientsThatDoNotRead(t *testing.T) {
	s := serve(t, kafkaapi.Options{FetchMemoryMax: 2 * kafkaapi.FetchBytesMax})
	s.topic(t, "t", 1)
	const records = 40
	for range records {
		_, err := s.Append(ctx, log.Record{Partition: log.Partition{Topic: "t"}, Value: make([]byte, 1<<20)})
		must(t, err)
	}
	for range 4 {
		q := kmsg.NewPtrFetchRequest()
		q.Version, q.MinBytes, q.MaxBytes = 4, 1, math.MaxInt32
		topic, part := kmsg.NewFetchRequestTopic(), kmsg.NewFetchRequestTopicPartition()
		part.PartitionMaxBytes = math.MaxInt32
		topic.Topic, topic.Partitions = "t", append(topic.Partitions, part)
		q.Topics = append(q.Topics, topic)
		dial(t, s).send(t, q)
	}
	c := s.client(t, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"t": {0: kgo.NewOffset().AtStart()}}), kgo.FetchMaxBytes(50<<20))
	if got := values(t, c, records); len(got) != records {
		t.Error(len(got))
	}
}
