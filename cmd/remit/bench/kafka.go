package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/remitlog/remit/log/kafka/kafkatest"
)

// kafkaHeap is what a broker under load is given.
const kafkaHeap = "1g"

// KafkaOptions say how the Kafka API is measured.
type KafkaOptions struct {
	Dir        string // a directory of its own
	Address    string // of remit's Kafka API
	Callers    int
	Bytes      int           // of a record's value
	Partitions []int         // topics of so many are measured, one after the other
	Duration   time.Duration // of each side of each measurement, over all rounds
	Rounds     int
	FetchBytes int // how much is read from the start
	// Say is told what happens.
	Say func(format string, args ...any)
}

// KafkaReport is what came of it.
type KafkaReport struct {
	Callers int `json:"callers"`
	Bytes   int `json:"bytes"`
	// Apache is the release that was measured beside remit; empty if it is not there.
	Apache  string         `json:"apache,omitzero"`
	Produce []KafkaProduce `json:"produce"`
	Tail    []Figure       `json:"tail"`
	Fetch   []KafkaFetch   `json:"fetch"`
}

// KafkaProduce is producing to a topic of so many partitions, by each side; remit is the first.
type KafkaProduce struct {
	Partitions int      `json:"partitions"`
	Sides      []Figure `json:"sides"`
	// Ratio is remit's median over that of Apache Kafka with a flush of each append; 0 without one.
	Ratio float64 `json:"ratio,omitzero"`
}

// KafkaFetch is reading a topic from its start, by one consumer.
type KafkaFetch struct {
	Name string `json:"name"`
	// MegabytesPerSecond are of values, 10^6 bytes; the median over the rounds.
	MegabytesPerSecond float64   `json:"megabytesPerSecond"`
	Rounds             []float64 `json:"rounds"`
}

// side is what is measured: a server, and how its topics are made.
type side struct {
	name, address string
	configs       map[string]*string
}

// Kafka measures remit's Kafka API with franz-go: producing with acks=all, each call waiting for its one record; reading at the tail
// meanwhile; and reading from the start. Where Apache Kafka is there it is measured beside, with a flush of each append, which is what remit
// does, and by its defaults, which sync nothing.
func Kafka(ctx context.Context, o KafkaOptions) (report KafkaReport, err error) {
	report = KafkaReport{Callers: o.Callers, Bytes: o.Bytes}
	sides := []side{{name: "remit", address: o.Address}}
	broker, err := kafkatest.Start(ctx, kafkatest.Options{Dir: o.Dir, Heap: kafkaHeap})
	switch {
	case errors.Is(err, kafkatest.ErrAbsent):
		o.Say("measured alone: %v", err)
	case err != nil:
		return report, fmt.Errorf("bench: %w", err)
	default:
		defer broker.Stop()
		one := "1"
		report.Apache = kafkatest.Version
		sides = append(sides, side{"Apache Kafka, flushed", broker.Addr, map[string]*string{"flush.messages": &one}}, side{"Apache Kafka, default", broker.Addr, nil})
	}
	for _, partitions := range o.Partitions {
		p, err := o.produce(ctx, sides, partitions)
		if err != nil {
			return report, err
		}
		report.Produce = append(report.Produce, p)
	}
	if report.Tail, err = o.tail(ctx, sides); err != nil {
		return report, err
	}
	report.Fetch, err = o.fetch(ctx, sides)
	return report, err
}

// topic makes one, and returns its name.
func (o *KafkaOptions) topic(ctx context.Context, s side, at int, purpose string, partitions int) (string, error) {
	c, err := kgo.NewClient(kgo.SeedBrokers(s.address))
	if err != nil {
		return "", fmt.Errorf("bench: %w", err)
	}
	defer c.Close()
	name := fmt.Sprintf("bench-%s-%d-%d", purpose, partitions, at)
	if _, err := kadm.NewClient(c).CreateTopic(ctx, int32(partitions), 1, s.configs, name); err != nil {
		return "", fmt.Errorf("bench: %s: topic %s: %w", s.name, name, err)
	}
	return name, nil
}

// client is a client as its user would have it, but for compression: the bytes are not to be fewer than they are said to be.
func (s side) client(opts ...kgo.Opt) (*kgo.Client, error) {
	c, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(s.address), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerLinger(0)}, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	return c, nil
}

// noise is bytes that do not compress away, nor beside those of another seed.
func noise(n int, seed uint64) []byte {
	value := make([]byte, 0, n+8)
	for r := rand.NewPCG(seed, 1); len(value) < n; {
		value = binary.LittleEndian.AppendUint64(value, r.Uint64())
	}
	return value[:n]
}

// producer produces one record a call, to partitions in turn.
type producer struct {
	*kgo.Client
	topic      string
	partitions int
	bytes      int
	n          atomic.Int64
}

func (o *KafkaOptions) producer(s side, topic string, partitions int) (*producer, error) {
	c, err := s.client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	return &producer{Client: c, topic: topic, partitions: partitions, bytes: o.Bytes}, err
}

// call produces a record that says when it was, and waits for its acknowledgement.
func (p *producer) call(ctx context.Context, _ int) error {
	n := p.n.Add(1)
	value := noise(p.bytes, uint64(n))
	binary.BigEndian.PutUint64(value, uint64(time.Now().UnixNano()))
	r := &kgo.Record{Topic: p.topic, Partition: int32(n % int64(p.partitions)), Value: value}
	return p.ProduceSync(ctx, r).FirstErr()
}

func (o *KafkaOptions) produce(ctx context.Context, sides []side, partitions int) (KafkaProduce, error) {
	result := KafkaProduce{Partitions: partitions}
	producers, recorders := make([]*producer, len(sides)), make([]*recorder, len(sides))
	for i, s := range sides {
		topic, err := o.topic(ctx, s, i, "produce", partitions)
		if err != nil {
			return result, err
		}
		if producers[i], err = o.producer(s, topic, partitions); err != nil {
			return result, err
		}
		defer producers[i].Close()
		recorders[i] = newRecorder()
		if err := load(ctx, o.Callers, newSchedule(o.each()/2, 0), newRecorder(), producers[i].call); err != nil { // warm: a JVM has to compile
			return result, err
		}
	}
	for round := range o.Rounds {
		said := ""
		for i := range sides {
			if err := load(ctx, o.Callers, newSchedule(o.each(), 0), recorders[i], producers[i].call); err != nil {
				return result, fmt.Errorf("%s: %w", sides[i].name, err)
			}
			said += fmt.Sprintf("; %s %.0f/s", sides[i].name, recorders[i].rounds[round])
		}
		o.Say("produce, %d partitions, round %d of %d%s", partitions, round+1, o.Rounds, said)
	}
	for i := range sides {
		result.Sides = append(result.Sides, recorders[i].figure(sides[i].name))
	}
	if len(sides) > 1 {
		result.Ratio = result.Sides[0].PerSecond / result.Sides[1].PerSecond
	}
	return result, nil
}

func (o *KafkaOptions) each() time.Duration { return o.Duration / time.Duration(o.Rounds) }

// tail measures how long a record takes from the call that produces it to a consumer that waits for it.
func (o *KafkaOptions) tail(ctx context.Context, sides []side) (figures []Figure, err error) {
	for i, s := range sides {
		topic, err := o.topic(ctx, s, i, "tail", 1)
		if err != nil {
			return nil, err
		}
		r, err := o.tailOf(ctx, s, topic)
		if err != nil {
			return nil, err
		}
		figures = append(figures, r.figure(s.name))
		o.Say("tail: %s %.0f/s", s.name, r.rounds[0])
	}
	return figures, nil
}

func (o *KafkaOptions) tailOf(ctx context.Context, s side, topic string) (*recorder, error) {
	p, err := o.producer(s, topic, 1)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	c, err := s.client(kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	r := newRecorder()
	began := time.Now()
	produced := make(chan struct{})
	var failed error
	var tasks sync.WaitGroup
	tasks.Go(func() {
		defer close(produced)
		failed = load(ctx, o.Callers, newSchedule(o.each(), 0), newRecorder(), p.call)
	})
	for n := int64(0); ; {
		select {
		case <-produced:
			if n >= p.n.Load() || failed != nil {
				tasks.Wait()
				r.endRound(time.Since(began))
				return r, failed
			}
		default:
		}
		wait, cancel := context.WithTimeout(ctx, 50*time.Millisecond) // to look whether there is more to come
		fs := c.PollFetches(wait)
		cancel()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		now := time.Now().UnixNano()
		fs.EachRecord(func(k *kgo.Record) {
			n++
			r.record(0, time.Duration(now-int64(binary.BigEndian.Uint64(k.Value))))
		})
	}
}

// fetch reads what was written before, from the start, with one consumer. Both servers have it in the operating system's cache.
func (o *KafkaOptions) fetch(ctx context.Context, sides []side) ([]KafkaFetch, error) {
	if len(sides) > 2 {
		sides = []side{sides[0], sides[2]} // how it was written is no matter
	}
	results := make([]KafkaFetch, len(sides))
	topics := make([]string, len(sides))
	for i, s := range sides {
		var err error
		if topics[i], err = o.topic(ctx, s, i, "fetch", 1); err != nil {
			return nil, err
		}
		results[i].Name = "remit"
		if i > 0 {
			results[i].Name = "Apache Kafka"
		}
		if err := o.fill(ctx, s, topics[i]); err != nil {
			return nil, err
		}
	}
	for round := range o.Rounds {
		said := ""
		for i, s := range sides {
			mbs, err := o.readAll(ctx, s, topics[i])
			if err != nil {
				return nil, err
			}
			results[i].Rounds = append(results[i].Rounds, mbs)
			said += fmt.Sprintf("; %s %.0f MB/s", results[i].Name, mbs)
		}
		o.Say("fetch from the start, round %d of %d%s", round+1, o.Rounds, said)
	}
	for i := range results {
		results[i].MegabytesPerSecond = median(results[i].Rounds)
	}
	return results, nil
}

func (o *KafkaOptions) fill(ctx context.Context, s side, topic string) error {
	c, err := s.client(kgo.DefaultProduceTopic(topic))
	if err != nil {
		return err
	}
	defer c.Close()
	var first atomic.Pointer[error]
	for i := range o.FetchBytes / o.Bytes {
		c.Produce(ctx, &kgo.Record{Value: noise(o.Bytes, uint64(i))}, func(_ *kgo.Record, err error) {
			if err != nil {
				first.CompareAndSwap(nil, &err)
			}
		})
	}
	if err := c.Flush(ctx); err != nil {
		return fmt.Errorf("bench: %s: %w", s.name, err)
	}
	if err := first.Load(); err != nil {
		return fmt.Errorf("bench: %s: %w", s.name, *err)
	}
	return nil
}

func (o *KafkaOptions) readAll(ctx context.Context, s side, topic string) (megabytesPerSecond float64, err error) {
	c, err := s.client(kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	want := o.FetchBytes / o.Bytes
	began := time.Now()
	for n := 0; n < want; {
		fs := c.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			return 0, fmt.Errorf("bench: %s: %w", s.name, err)
		}
		n += fs.NumRecords()
	}
	return float64(want*o.Bytes) / 1e6 / time.Since(began).Seconds(), nil
}
