package kafkaapi_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/embedded"
	"github.com/remitlog/remit/log/kafkaapi"
)

var ctx = context.Background()

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// bounded ends with the test, or when it has clearly hung.
func bounded(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// served is a log, served.
type served struct {
	*embedded.Log
	server  *kafkaapi.Server
	address string
}

func openLog(t testing.TB, fs vfs.FS) *embedded.Log {
	t.Helper()
	return openLogAt(t, fs, 0)
}

// openLogAt opens it when that much time has passed.
func openLogAt(t testing.TB, fs vfs.FS, later time.Duration) *embedded.Log {
	t.Helper()
	l, err := embedded.Open(embedded.Options{Dir: "log", FS: fs, MemTableBytes: 1 << 20, Fatal: func(err error) { t.Errorf("fatal: %v", err) },
		Clock: func() time.Time { return time.Now().Add(later) }})
	must(t, err)
	return l
}

// serve serves a log until the test ends, or close is called.
func serve(t testing.TB, o kafkaapi.Options) *served {
	t.Helper()
	if o.Log == nil {
		o.Log = openLog(t, vfs.NewMem())
	}
	s, err := kafkaapi.New(o)
	must(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	v := &served{Log: o.Log, server: s, address: l.Addr().String()}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		v.close(t)
		if err := <-done; !errors.Is(err, kafkaapi.ErrServerClosed) {
			t.Error(err)
		}
	})
	return v
}

func (s *served) close(t testing.TB) {
	t.Helper()
	must(t, s.server.Close(bounded(t)))
	must(t, s.Log.Close())
}

func (s *served) topic(t testing.TB, name string, partitions int) {
	t.Helper()
	must(t, s.CreateTopic(ctx, log.TopicConfig{Name: name, Partitions: partitions}))
}

func (s *served) client(t testing.TB, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	c, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(s.address), kgo.MetadataMinAge(20 * time.Millisecond)}, opts...)...)
	must(t, err)
	t.Cleanup(c.Close)
	return c
}

// values polls until there are n records.
func values(t testing.TB, c *kgo.Client, n int) (vs []string) {
	t.Helper()
	ctx := bounded(t)
	for len(vs) < n {
		fs := c.PollFetches(ctx)
		for _, e := range fs.Errors() {
			t.Fatalf("%s/%d: %v", e.Topic, e.Partition, e.Err)
		}
		fs.EachRecord(func(r *kgo.Record) { vs = append(vs, string(r.Value)) })
	}
	return vs
}

func TestProduceAndFetch(t *testing.T) {
	s := serve(t, kafkaapi.Options{})
	s.topic(t, "t", 1)
	for name, opts := range map[string][]kgo.Opt{
		"idempotent": nil,
		"plain":      {kgo.DisableIdempotentWrite(), kgo.RequiredAcks(kgo.LeaderAck())},
		"gzip":       {kgo.ProducerBatchCompression(kgo.GzipCompression())},
		"snappy":     {kgo.ProducerBatchCompression(kgo.SnappyCompression())},
		"lz4":        {kgo.ProducerBatchCompression(kgo.Lz4Compression())},
		"zstd":       {kgo.ProducerBatchCompression(kgo.ZstdCompression())},
	} {
		_, from, err := s.Bounds(ctx, log.Partition{Topic: "t"})
		must(t, err)
		p := s.client(t, opts...)
		var want []string
		var rs []*kgo.Record
		for i := range 100 {
			want = append(want, fmt.Sprint(name, i))
			rs = append(rs, &kgo.Record{Topic: "t", Key: []byte("k"), Value: []byte(want[i]), Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("v")}}})
		}
		must(t, p.ProduceSync(bounded(t), rs...).FirstErr())
		c := s.client(t, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"t": {0: kgo.NewOffset().At(int64(from))}}))
		if got := values(t, c, len(want)); !slices.Equal(got, want) {
			t.Errorf("%s: %v", name, got)
		}
		// What remit reads itself is the same.
		own, err := s.Read(ctx, log.Partition{Topic: "t"}, from, 1<<20)
		must(t, err)
		for i, r := range own {
			if string(r.Value) != want[i] || string(r.Key) != "k" || len(r.Headers) != 1 || r.Offset != from+log.Offset(i) {
				t.Errorf("%s: %d: %v", name, i, r)
			}
		}
		if len(own) != len(want) {
			t.Errorf("%s: %d of %d records are read", name, len(own), len(want))
		}
	}
}
