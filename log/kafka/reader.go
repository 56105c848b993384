package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/remitlog/remit/log"
)

const (
	// fetchMax is how many bytes one fetch from one broker brings at most, but for a batch that is larger.
	fetchMax = 8 << 20
	// fetchPartitionMax is that of one partition.
	fetchPartitionMax = 1 << 20
	// produceMax is the largest batch that is produced: a record of any log, and what parking adds.
	produceMax = log.RecordMax + 64<<10
	// assignMax is how long asking for what was done of new partitions may take.
	assignMax = 10 * time.Second
	// leaveMax is how long leaving the group may take.
	leaveMax = 5 * time.Second
	// metadataMin is how soon the client asks again for what a topic is: after that a topic that was made is found.
	metadataMin = 250 * time.Millisecond
)

const (
	sha512 = "SCRAM-SHA-512"
	sha256 = "SCRAM-SHA-256"
)

// ErrGap: records that the group has not read are not there any more, by retention, or because the log was restored or made anew. Nothing is
// skipped in silence: see what is missing, set the group's offsets (kafka-consumer-groups --reset-offsets), and start again.
var ErrGap = errors.New("kafka: records are gone that the group has not read")

// ReaderOptions say where a Reader reads.
type ReaderOptions struct {
	// Brokers are addresses, HOST:PORT, of some of the cluster.
	Brokers []string
	// ClientID names the service in the brokers' logs.
	ClientID string
	// Instance names this member for good. Who starts again under its name gets its partitions back at once, and while it is away nobody
	// else does until the session ends. Each running process needs its own. Empty for none.
	Instance string
	// Session is how long a member that says nothing is waited for. 45 s.
	Session time.Duration
	// TLS, if set, is used for every connection.
	TLS *tls.Config
	// User and Password, if set, log in by Mechanism: SCRAM-SHA-512, the default, or SCRAM-SHA-256.
	User, Password, Mechanism string
	// Trouble is told of failures that mend themselves, or are waited for: a broker that is not there. It must return soon.
	Trouble func(error)
}

// EnsureDefaults fills in what is zero.
func (o *ReaderOptions) EnsureDefaults() {
	if o.ClientID == "" {
		o.ClientID = "remit-consumers"
	}
	if o.Session == 0 {
		o.Session = 45 * time.Second
	}
	if o.Mechanism == "" {
		o.Mechanism = sha512
	}
	if o.Trouble == nil {
		o.Trouble = func(error) {}
	}
}

// Validate reports the first thing that is wrong.
func (o *ReaderOptions) Validate() error {
	if len(o.Brokers) == 0 {
		return errors.New("kafka: ReaderOptions.Brokers is empty; give HOST:PORT of some of the cluster's brokers")
	}
	for _, b := range o.Brokers {
		if _, _, err := net.SplitHostPort(b); err != nil {
			return fmt.Errorf("kafka: broker %q is not HOST:PORT: %w", b, err)
		}
	}
	if (o.User == "") != (o.Password == "") {
		return errors.New("kafka: ReaderOptions.User and Password come together")
	}
	if o.Mechanism != sha512 && o.Mechanism != sha256 {
		return fmt.Errorf("kafka: mechanism %q; it is %s or %s", o.Mechanism, sha512, sha256)
	}
	if o.Session < 0 {
		return fmt.Errorf("kafka: a session of %s", o.Session)
	}
	return nil
}

// Reader is a member of a consumer group: a consumers.Reader. It reads what is committed of Kafka transactions, and of a group that has not read
// before from the first record on.
type Reader struct {
	opts   ReaderOptions
	client *kgo.Client
	admin  *kadm.Client

	mu       sync.Mutex
	epochs   map[log.Partition]int32  // the leader's, of what was last read: it tells a log that was restored
	progress map[log.Partition]string // as it was when the partition was assigned
	made     map[string]bool          // topics that are known to be there
	failed   error                    // what the next Poll returns
}

// NewReader checks the options. It connects when it joins.
func NewReader(o ReaderOptions) (*Reader, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	return &Reader{opts: o, epochs: map[log.Partition]int32{}, progress: map[log.Partition]string{}, made: map[string]bool{}}, nil
}

// Join implements consumers.Reader. Brokers that are not there yet are waited for.
func (r *Reader) Join(group string, topics []string, revoked func(partitions []log.Partition, lost bool)) error {
	told := func(lost bool) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
			if parts := partitions(gone); len(parts) > 0 {
				revoked(parts, lost)
			}
		}
	}
	opts := []kgo.Opt{
		kgo.SeedBrokers(r.opts.Brokers...),
		kgo.ClientID(r.opts.ClientID),
		kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(topics...),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()), // a gap is an error
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxBytes(fetchMax),
		kgo.FetchMaxPartitionBytes(fetchPartitionMax),
		kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(), // so that revoked is called within Poll
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.SessionTimeout(r.opts.Session),
		kgo.HeartbeatInterval(min(3*time.Second, r.opts.Session/3)),
		kgo.OnPartitionsAssigned(func(ctx context.Context, client *kgo.Client, added map[string][]int32) {
			if parts := partitions(added); len(parts) > 0 {
				r.assigned(ctx, kadm.NewClient(client), group, parts)
			}
		}),
		kgo.OnPartitionsRevoked(told(false)),
		kgo.OnPartitionsLost(told(true)),
		kgo.ProducerBatchMaxBytes(produceMax),
		kgo.MetadataMinAge(metadataMin),
		kgo.WithHooks(connects{r.opts.Trouble}),
	}
	if r.opts.Instance != "" {
		opts = append(opts, kgo.InstanceID(r.opts.Instance))
	}
	if r.opts.User != "" {
		auth := scram.Auth{User: r.opts.User, Pass: r.opts.Password}
		mechanism := auth.AsSha512Mechanism()
		if r.opts.Mechanism == sha256 {
			mechanism = auth.AsSha256Mechanism()
		}
		opts = append(opts, kgo.SASL(mechanism))
	}
	if r.opts.TLS != nil {
		opts = append(opts, kgo.DialTLSConfig(r.opts.TLS))
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return fmt.Errorf("kafka: %w", err)
	}
	r.client, r.admin = client, kadm.NewClient(client)
	return nil
}

// connects tells of brokers that cannot be reached.
type connects struct{ trouble func(error) }

func (c connects) OnBrokerConnect(b kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	if err != nil {
		c.trouble(fmt.Errorf("kafka: connecting to %s:%d: %w", b.Host, b.Port, err))
	}
}

// Poll implements consumers.Reader.
//
// INVARIANT: rebalances are allowed here and nowhere else, before anything is read. So revoked is called while Poll runs, and what it returns
// is this member's until the next Poll.
func (r *Reader) Poll(ctx context.Context, most int) ([]log.Record, error) {
	for {
		if err := r.takeFailed(); err != nil {
			return nil, err
		}
		r.client.AllowRebalance()
		fetches := r.client.PollRecords(ctx, most)
		if err := ctx.Err(); err != nil {
			return nil, err // what came with it is read again by whoever has the partition next
		}
		fetches.EachError(r.look)
		if records := r.records(fetches); len(records) > 0 {
			return records, nil
		}
	}
}

func (r *Reader) takeFailed() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

// look sees whether an error mends itself. One that does not is returned by the next Poll, after what was read before it.
func (r *Reader) look(topic string, partition int32, err error) {
	if topic != "" {
		err = fmt.Errorf("kafka: reading %s/%d: %w", topic, partition, err)
	} else {
		err = fmt.Errorf("kafka: %w", err)
	}
	var loss *kgo.ErrDataLoss
	if errors.As(err, &loss) || errors.Is(err, kerr.OffsetOutOfRange) {
		err = fmt.Errorf("%w: %w", ErrGap, err)
	} else if IsRetryable(err) {
		r.opts.Trouble(err)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed == nil {
		r.failed = err
	}
}

// IsRetryable reports whether what failed may succeed by itself, later.
func IsRetryable(err error) bool {
	var answer *kerr.Error
	switch {
	case errors.Is(err, kgo.ErrClientClosed):
		return false
	case errors.Is(err, kerr.UnknownMemberID), errors.Is(err, kerr.IllegalGeneration), errors.Is(err, kerr.RebalanceInProgress):
		return true // the member joins again
	case errors.As(err, &answer):
		return answer.Retriable // the broker's own verdict
	default:
		var session *kgo.ErrGroupSession
		var network net.Error
		return errors.As(err, &session) || errors.As(err, &network) || kgo.IsRetryableBrokerErr(err) // the rest is a record that cannot be read
	}
}

// records copies what was fetched: a record of franz-go keeps the whole batch that it came in.
func (r *Reader) records(fetches kgo.Fetches) []log.Record {
	records := make([]log.Record, 0, fetches.NumRecords())
	fetches.EachRecord(func(k *kgo.Record) { records = append(records, record(k)) })
	r.mu.Lock()
	defer r.mu.Unlock()
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		if n := len(p.Records); n > 0 {
			r.epochs[log.Partition{Topic: p.Topic, Index: p.Partition}] = p.Records[n-1].LeaderEpoch
		}
	})
	return records
}

func record(k *kgo.Record) log.Record {
	size := len(k.Key) + len(k.Value)
	for _, h := range k.Headers {
		size += len(h.Value)
	}
	buf := make([]byte, 0, size)
	own := func(b []byte) []byte {
		if b == nil {
			return nil
		}
		start := len(buf)
		buf = append(buf, b...)
		return buf[start:len(buf):len(buf)]
	}
	rec := log.Record{
		Partition: log.Partition{Topic: k.Topic, Index: k.Partition}, Offset: log.Offset(k.Offset), Time: k.Timestamp.UTC(),
		Key: own(k.Key), Value: own(k.Value),
	}
	if len(k.Headers) > 0 {
		rec.Headers = make([]log.Header, len(k.Headers))
	}
	for i, h := range k.Headers {
		rec.Headers[i] = log.Header{Key: h.Key, Value: own(h.Value)}
	}
	return rec
}

// Pause implements consumers.Reader.
func (r *Reader) Pause(parts ...log.Partition) { r.client.PauseFetchPartitions(byTopic(parts)) }

// Resume implements consumers.Reader.
func (r *Reader) Resume(parts ...log.Partition) { r.client.ResumeFetchPartitions(byTopic(parts)) }

// Commit implements consumers.Reader. The error is the first of any partition's; others may have been noted.
func (r *Reader) Commit(ctx context.Context, next map[log.Partition]log.Offset, progress map[log.Partition]string) error {
	var last []*kgo.Record // a record's commit is the offset after it
	r.mu.Lock()
	for p, at := range next {
		epoch, ok := r.epochs[p]
		if !ok {
			epoch = -1
		}
		last = append(last, &kgo.Record{Topic: p.Topic, Partition: p.Index, Offset: int64(at) - 1, LeaderEpoch: epoch})
	}
	r.mu.Unlock()
	ctx = kgo.PreCommitFnContext(ctx, func(req *kmsg.OffsetCommitRequest) error {
		for _, t := range req.Topics {
			for i := range t.Partitions {
				text := progress[log.Partition{Topic: t.Topic, Index: t.Partitions[i].Partition}]
				t.Partitions[i].Metadata = &text
			}
		}
		return nil
	})
	if err := r.client.CommitRecords(ctx, last...); err != nil {
		return fmt.Errorf("kafka: committing: %w", err)
	}
	return nil
}

// assigned asks what is committed beside the offsets of new partitions. Who had them before has let them go. Without an answer nothing is
// known, and more is delivered again.
func (r *Reader) assigned(ctx context.Context, admin *kadm.Client, group string, parts []log.Partition) {
	topics := map[string]bool{}
	for _, p := range parts {
		topics[p.Topic] = true
	}
	ctx, cancel := context.WithTimeout(ctx, assignMax)
	defer cancel()
	offsets, err := admin.FetchOffsetsForTopics(ctx, group, slices.Collect(maps.Keys(topics))...)
	if err != nil {
		r.opts.Trouble(fmt.Errorf("kafka: asking what is committed: %w", err))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range parts {
		o, _ := offsets.Lookup(p.Topic, p.Index)
		r.progress[p] = o.Metadata
	}
}

// Progress implements consumers.Reader.
func (r *Reader) Progress(p log.Partition) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.progress[p]
}

// Produce implements consumers.Reader. A topic that is not there is made, with the cluster's own settings.
func (r *Reader) Produce(ctx context.Context, rec log.Record) error {
	makeErr := r.ensure(ctx, rec.Topic)
	k := &kgo.Record{Topic: rec.Topic, Key: rec.Key, Value: rec.Value}
	for _, h := range rec.Headers {
		k.Headers = append(k.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
	}
	if err := r.client.ProduceSync(ctx, k).FirstErr(); err != nil {
		return fmt.Errorf("kafka: producing to %s: %w", rec.Topic, errors.Join(err, makeErr))
	}
	return nil
}

// ensure makes a topic. Who may not make topics may still write to one that is there: so its error is said only when that fails, too.
func (r *Reader) ensure(ctx context.Context, topic string) error {
	r.mu.Lock()
	made := r.made[topic]
	r.mu.Unlock()
	if made {
		return nil
	}
	const clusters = -1 // partitions and replicas as the cluster has them by default
	if _, err := r.admin.CreateTopic(ctx, clusters, clusters, nil, topic); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("kafka: making %s: %w", topic, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.made[topic] = true
	return nil
}

// Close implements consumers.Reader. A member with an Instance does not leave: it is expected back.
func (r *Reader) Close() {
	if r.client == nil {
		return
	}
	r.client.AllowRebalance()
	ctx, cancel := context.WithTimeout(context.Background(), leaveMax)
	defer cancel()
	if err := r.client.LeaveGroupContext(ctx); err != nil {
		r.opts.Trouble(fmt.Errorf("kafka: leaving the group: %w", err)) // it ends with the session
	}
	r.client.Close()
}

func partitions(byTopic map[string][]int32) (parts []log.Partition) {
	for topic, indexes := range byTopic {
		for _, i := range indexes {
			parts = append(parts, log.Partition{Topic: topic, Index: i})
		}
	}
	return parts
}

func byTopic(parts []log.Partition) map[string][]int32 {
	m := map[string][]int32{}
	for _, p := range parts {
		m[p.Topic] = append(m[p.Topic], p.Index)
	}
	return m
}
