package clients_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// client is a client in Go, with the verbs of a tool.
type client interface {
	list(broker string) error
	produce(broker, topic string) error
	consume(ctx context.Context, broker, group, topic string, session time.Duration) error
	seek(broker, topic string, millis int64) error
}

var goClients = map[string]client{"sarama": saramaClient{}, "franz-go": franzClient{}}

// runClient is the main of a client in Go.
func runClient(c client, args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	switch verb := args[0]; verb {
	case "list":
		return c.list(args[1])
	case "produce":
		return c.produce(args[1], args[2])
	case "consume":
		session, err := strconv.Atoi(args[4])
		if err != nil {
			return err
		}
		return c.consume(ctx, args[1], args[2], args[3], time.Duration(session)*time.Millisecond)
	case "seek":
		millis, err := strconv.ParseInt(args[3], 10, 64)
		if err != nil {
			return err
		}
		return c.seek(args[1], args[2], millis)
	default:
		return fmt.Errorf("unknown verb %q", verb)
	}
}

// lines yields keys and values of the standard input.
func lines(yield func(key, value string) bool) {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		key, value, _ := strings.Cut(in.Text(), "\t")
		if !yield(key, value) {
			return
		}
	}
}

func say(partition int32, offset int64, key, value []byte) {
	fmt.Printf("%d\t%d\t%s\t%s\n", partition, offset, key, value)
}

type franzClient struct{}

func (franzClient) list(broker string) error {
	c, err := kgo.NewClient(kgo.SeedBrokers(broker))
	if err != nil {
		return err
	}
	defer c.Close()
	topics, err := kadm.NewClient(c).ListTopics(context.Background())
	for _, name := range topics.Names() {
		fmt.Println(name)
	}
	return err
}

func (franzClient) produce(broker, topic string) error {
	c, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.DefaultProduceTopic(topic))
	if err != nil {
		return err
	}
	defer c.Close()
	var failed kgo.FirstErrPromise
	for key, value := range lines {
		c.Produce(context.Background(), kgo.KeyStringRecord(key, value), failed.Promise())
	}
	return failed.Err()
}

func (franzClient) consume(ctx context.Context, broker, group, topic string, session time.Duration) error {
	c, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(), kgo.SessionTimeout(session), kgo.HeartbeatInterval(500*time.Millisecond), kgo.FetchMaxWait(200*time.Millisecond))
	if err != nil {
		return err
	}
	defer c.CloseAllowingRebalance()
	for ctx.Err() == nil {
		fetches := c.PollRecords(ctx, 100)
		fetches.EachRecord(func(r *kgo.Record) { say(r.Partition, r.Offset, r.Key, r.Value) })
		if err := c.CommitRecords(context.Background(), fetches.Records()...); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		c.AllowRebalance()
	}
	return nil
}

func (franzClient) seek(broker, topic string, millis int64) error {
	c, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AfterMilli(millis)))
	if err != nil {
		return err
	}
	defer c.Close()
	admin := kadm.NewClient(c)
	ends, err := admin.ListEndOffsets(context.Background(), topic)
	if err != nil {
		return err
	}
	from, err := admin.ListOffsetsAfterMilli(context.Background(), millis, topic)
	if err != nil {
		return err
	}
	left := map[int32]int64{}
	ends.Each(func(end kadm.ListedOffset) {
		if at, _ := from.Lookup(topic, end.Partition); at.Offset < end.Offset {
			left[end.Partition] = end.Offset
		}
	})
	for len(left) > 0 {
		c.PollFetches(context.Background()).EachRecord(func(r *kgo.Record) {
			say(r.Partition, r.Offset, r.Key, r.Value)
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
		})
	}
	return nil
}

type saramaClient struct{}

func saramaConfig() *sarama.Config {
	c := sarama.NewConfig()
	c.ClientID, c.Version = "sarama", sarama.MaxVersion
	c.Producer.RequiredAcks, c.Producer.Idempotent, c.Producer.Return.Successes = sarama.WaitForAll, true, true
	c.Net.MaxOpenRequests = 1 // it asks for that of whoever wants idempotence
	c.Consumer.Offsets.Initial, c.Consumer.Offsets.AutoCommit.Enable = sarama.OffsetOldest, false
	c.Consumer.Group.Heartbeat.Interval = 500 * time.Millisecond
	c.Consumer.MaxWaitTime = 200 * time.Millisecond
	return c
}

func (saramaClient) list(broker string) error {
	admin, err := sarama.NewClusterAdmin([]string{broker}, saramaConfig())
	if err != nil {
		return err
	}
	defer admin.Close()
	topics, err := admin.ListTopics()
	for name := range topics {
		fmt.Println(name)
	}
	return err
}

func (saramaClient) produce(broker, topic string) error {
	p, err := sarama.NewSyncProducer([]string{broker}, saramaConfig())
	if err != nil {
		return err
	}
	defer p.Close()
	var batch []*sarama.ProducerMessage
	for key, value := range lines {
		batch = append(batch, &sarama.ProducerMessage{Topic: topic, Key: sarama.StringEncoder(key), Value: sarama.StringEncoder(value)})
		if len(batch) == 100 {
			if err := p.SendMessages(batch); err != nil {
				return err
			}
			batch = nil
		}
	}
	return p.SendMessages(batch)
}

func (saramaClient) consume(ctx context.Context, broker, group, topic string, session time.Duration) error {
	config := saramaConfig()
	config.Consumer.Group.Session.Timeout = session
	g, err := sarama.NewConsumerGroup([]string{broker}, group, config)
	if err != nil {
		return err
	}
	defer g.Close()
	for ctx.Err() == nil {
		if err := g.Consume(ctx, []string{topic}, saramaClient{}); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	return nil
}

func (saramaClient) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (saramaClient) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (saramaClient) ConsumeClaim(s sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case m, ok := <-claim.Messages():
			if !ok {
				return nil
			}
			say(m.Partition, m.Offset, m.Key, m.Value)
			s.MarkMessage(m, "")
			if len(claim.Messages()) == 0 {
				s.Commit()
			}
		case <-s.Context().Done():
			s.Commit()
			return nil
		}
	}
}

func (saramaClient) seek(broker, topic string, millis int64) error {
	c, err := sarama.NewClient([]string{broker}, saramaConfig())
	if err != nil {
		return err
	}
	defer c.Close()
	consumer, err := sarama.NewConsumerFromClient(c)
	if err != nil {
		return err
	}
	defer consumer.Close()
	partitions, err := c.Partitions(topic)
	if err != nil {
		return err
	}
	slices.Sort(partitions)
	for _, p := range partitions {
		end, err := c.GetOffset(topic, p, sarama.OffsetNewest)
		if err != nil {
			return err
		}
		at, err := c.GetOffset(topic, p, millis)
		if err != nil {
			return err
		}
		if at < 0 || at >= end {
			continue
		}
		pc, err := consumer.ConsumePartition(topic, p, at)
		if err != nil {
			return err
		}
		for m := range pc.Messages() {
			say(m.Partition, m.Offset, m.Key, m.Value)
			if m.Offset+1 >= end {
				break
			}
		}
		if err := pc.Close(); err != nil {
			return err
		}
	}
	return nil
}
