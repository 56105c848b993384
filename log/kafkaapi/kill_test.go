package kafkaapi_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/remitlog/remit/log/embedded"
	"github.com/remitlog/remit/log/kafkaapi"
)

var kills = flag.Int("kills", 4, "how often the server is killed under load")

// childDir and childAddress tell this program that it is a server to be killed.
const (
	childDir     = "REMIT_KAFKAAPI_CHILD_DIR"
	childAddress = "REMIT_KAFKAAPI_CHILD_ADDRESS"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := child(dir, os.Getenv(childAddress)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// child serves until it is killed, or its parent ends.
func child(dir, address string) error {
	l, err := embedded.Open(embedded.Options{Dir: dir, MemTableBytes: 1 << 20, Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))})
	if err != nil {
		return err
	}
	s, err := kafkaapi.New(kafkaapi.Options{Log: l})
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	go func() { _, _ = os.Stdin.Read(make([]byte, 1)); os.Exit(0) }() // the parent is gone
	return s.Serve(listener)
}

// victim is a server that is killed and started again in the same place.
type victim struct {
	dir, address string
	cmd          *exec.Cmd
}

func (v *victim) start(t *testing.T) {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	v.cmd = exec.Command(self)
	v.cmd.Env = append(os.Environ(), childDir+"="+v.dir, childAddress+"="+v.address)
	v.cmd.Stderr = os.Stderr
	_, err = v.cmd.StdinPipe()
	must(t, err)
	out, err := v.cmd.StdoutPipe()
	must(t, err)
	must(t, v.cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal("the server did not come up:", err)
	}
	v.address = strings.TrimSpace(line)
}

func (v *victim) kill(t *testing.T) {
	t.Helper()
	must(t, v.cmd.Process.Kill())
	_ = v.cmd.Wait()
}

// K1, K3 under kill -9: an idempotent producer goes on through every kill; each record is there once, those of one producer in their
// order, offsets have no gap, and committed offsets never fall back.
func TestKilledUnderLoad(t *testing.T) {
	const partitions, producers = 3, 3
	v := &victim{dir: t.TempDir(), address: "127.0.0.1:0"}
	v.start(t)
	t.Cleanup(func() { v.kill(t) })
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second+time.Duration(*kills)*10*time.Second)
	defer cancel()
	client := func(opts ...kgo.Opt) *kgo.Client {
		c, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(v.address), kgo.MetadataMinAge(20 * time.Millisecond),
			kgo.RetryBackoffFn(func(int) time.Duration { return 20 * time.Millisecond }), kgo.RequestRetries(1000), kgo.UnknownTopicRetries(-1)}, opts...)...)
		must(t, err)
		t.Cleanup(c.Close)
		return c
	}
	admin := kadm.NewClient(client())
	_, err := admin.CreateTopic(ctx, partitions, 1, nil, "t")
	must(t, err)

	acked := make([][]kgo.Record, producers)
	stop := make(chan struct{})
	var tasks sync.WaitGroup
	var mu sync.Mutex
	for p := range producers {
		c := client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0))
		tasks.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					must2(t, c.Flush(ctx))
					return
				default:
				}
				r := &kgo.Record{Topic: "t", Partition: int32(i % partitions), Value: []byte(fmt.Sprintf("%d.%d", p, i))}
				c.Produce(ctx, r, func(r *kgo.Record, err error) {
					if err != nil {
						t.Errorf("produce %s: %v", r.Value, err)
						return
					}
					mu.Lock()
					acked[p] = append(acked[p], *r)
					mu.Unlock()
				})
				if i%20 == 0 {
					must2(t, c.Flush(ctx))
				}
			}
		})
	}
	tasks.Go(func() { commits(ctx, t, admin, stop) })
	tasks.Go(func() { reads(ctx, t, client(kgo.ConsumeTopics("t")), stop) })

	rng := rand.New(rand.NewPCG(uint64(*kills), 3))
	for range *kills {
		time.Sleep(time.Duration(50+rng.IntN(250)) * time.Millisecond) // load, for a while
		v.kill(t)
		v.start(t)
	}
	time.Sleep(50 * time.Millisecond)
	close(stop)
	tasks.Wait()
	if t.Failed() {
		return
	}
	audit(ctx, t, client, acked)
}

func must2(t *testing.T, err error) {
	if err != nil {
		t.Error(err)
	}
}

// commits commits ever higher offsets, and looks whether they are there.
func commits(ctx context.Context, t *testing.T, admin *kadm.Client, stop <-chan struct{}) {
	committed := int64(0)
	for at := int64(1); ; at++ {
		select {
		case <-stop:
			t.Logf("%d commits", committed)
			return
		default:
		}
		offsets := kadm.Offsets{}
		offsets.Add(kadm.Offset{Topic: "t", Partition: 0, At: at, LeaderEpoch: -1})
		if r, err := admin.CommitOffsets(ctx, "g", offsets); err == nil && r.Error() == nil {
			committed = at
		}
		got, err := admin.FetchOffsets(ctx, "g")
		if o, ok := got.Lookup("t", 0); err == nil && (ok && o.Err == nil && o.At < committed || !ok && committed > 0) {
			t.Errorf("offset %d was committed, %d is there", committed, o.At)
			return
		}
	}
}

// reads reads on through the kills: offsets of a partition come one after the other, and what was read stays.
func reads(ctx context.Context, t *testing.T, c *kgo.Client, stop <-chan struct{}) {
	next := map[int32]int64{}
	for {
		select {
		case <-stop:
			return
		default:
		}
		ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		fs := c.PollFetches(ctx)
		cancel()
		for _, e := range fs.Errors() {
			var loss *kgo.ErrDataLoss
			if errors.As(e.Err, &loss) || errors.Is(e.Err, kerr.OffsetOutOfRange) {
				t.Errorf("what was read is gone: %v", e.Err)
				return
			}
		}
		fs.EachRecord(func(r *kgo.Record) {
			if want, ok := next[r.Partition]; ok && r.Offset != want {
				t.Errorf("partition %d: %d after %d", r.Partition, r.Offset, want-1)
			}
			next[r.Partition] = r.Offset + 1
		})
	}
}

// audit reads everything: each record once, at the place that was acknowledged.
func audit(ctx context.Context, t *testing.T, client func(...kgo.Opt) *kgo.Client, acked [][]kgo.Record) {
	t.Helper()
	c := client(kgo.ConsumeTopics("t"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	ends, err := kadm.NewClient(c).ListEndOffsets(ctx, "t")
	must(t, err)
	total := int64(0)
	ends.Each(func(o kadm.ListedOffset) { total += o.Offset })
	type place struct {
		partition int32
		offset    int64
	}
	found, next := map[string]place{}, map[int32]int64{}
	for n := int64(0); n < total; {
		fs := c.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			t.Fatal(err)
		}
		fs.EachRecord(func(r *kgo.Record) {
			n++
			if r.Offset != next[r.Partition] {
				t.Errorf("partition %d: offset %d, want %d", r.Partition, r.Offset, next[r.Partition])
			}
			next[r.Partition] = r.Offset + 1
			if was, ok := found[string(r.Value)]; ok {
				t.Errorf("%s is there twice: at %v and %d/%d", r.Value, was, r.Partition, r.Offset)
			}
			found[string(r.Value)] = place{r.Partition, r.Offset}
		})
	}
	n := 0
	for p := range acked {
		last := map[int32]int64{}
		for _, r := range acked[p] {
			n++
			if at, ok := found[string(r.Value)]; !ok || at != (place{r.Partition, r.Offset}) {
				t.Errorf("%s was acknowledged at %d/%d, and is at %v (%t)", r.Value, r.Partition, r.Offset, at, ok)
			}
			if was, ok := last[r.Partition]; ok && r.Offset <= was {
				t.Errorf("producer %d: %s at %d comes after %d", p, r.Value, r.Offset, was)
			}
			last[r.Partition] = r.Offset
		}
	}
	t.Logf("%d records acknowledged, %d there, %d kills", n, total, *kills)
	if n == 0 {
		t.Error("nothing was acknowledged")
	}
}
