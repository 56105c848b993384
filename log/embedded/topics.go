package embedded

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/remitlog/remit/log"
)

// topic is never changed in place; a new configuration is a new topic that shares the partitions.
type topic struct {
	id         uint32
	config     log.TopicConfig
	partitions []*partition
}

func unknownTopic(p log.Partition) error {
	return &log.TopicError{Partition: p, Err: log.ErrUnknownTopic}
}

func find(topics map[string]*topic, at log.Partition) (*partition, error) {
	t, ok := topics[at.Topic]
	if !ok {
		return nil, unknownTopic(at)
	}
	if at.Index < 0 || int(at.Index) >= len(t.partitions) {
		return nil, &log.TopicError{Partition: at, Err: log.ErrUnknownPartition, Detail: fmt.Sprintf("it has %d", len(t.partitions))}
	}
	return t.partitions[at.Index], nil
}

// resized returns t with a configuration, and with partitions for it.
func (t *topic) resized(c log.TopicConfig) *topic {
	n := &topic{id: t.id, config: c, partitions: slices.Clone(t.partitions)}
	for i := len(n.partitions); i < c.Partitions; i++ {
		n.partitions = append(n.partitions, newPartition(log.Partition{Topic: c.Name, Index: int32(i)}, t.id))
	}
	return n
}

// replace swaps the map of topics for one in which name is t, or is not if t is nil.
func (l *Log) replace(name string, t *topic) {
	m := maps.Clone(*l.topics.Load())
	if m[name] = t; t == nil {
		delete(m, name)
	}
	l.topics.Store(&m)
}

// change runs f under the lock for changes of topics.
func (l *Log) change(ctx context.Context, f func(topics map[string]*topic) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := l.enterWriting(); err != nil {
		return err
	}
	defer l.leave()
	l.admin.Lock()
	defer l.admin.Unlock()
	return f(*l.topics.Load())
}

// commit writes b and syncs. A failure leaves unknown what is there, so it stops the log.
func (l *Log) commit(b *pebble.Batch) error {
	err := l.apply(b)
	if err == nil {
		err = b.SyncWait()
	}
	if err != nil {
		l.fail(fmt.Errorf("embedded: sync: %w", err))
		return fmt.Errorf("embedded: %w: %v", log.ErrUnknown, err)
	}
	return b.Close()
}

// topicBytes is about what the rows of a topic take.
const topicBytes = 1 << 10

// CreateTopic makes a topic under an id that no topic ever had.
func (l *Log) CreateTopic(ctx context.Context, c log.TopicConfig) error {
	if err := CheckTopic(c); err != nil {
		return err
	}
	return l.change(ctx, func(topics map[string]*topic) error {
		if t, ok := topics[c.Name]; ok && t.config == c {
			return nil
		} else if ok {
			return &log.TopicError{Partition: log.Partition{Topic: c.Name}, Err: log.ErrTopicExists, Detail: fmt.Sprintf("it has %d partitions", t.config.Partitions)}
		}
		if err := l.floor.take(topicBytes, l.o.Clock()); err != nil {
			return err
		}
		t := (&topic{id: l.nextID}).resized(c)
		b := l.store.NewBatch()
		_ = b.Set(topicKey(kindTopic, t.id), encodeTopic(c), nil) // setting in a batch of one's own does not fail
		_ = b.Set([]byte{kindNext}, binary.BigEndian.AppendUint32(nil, t.id+1), nil)
		if err := l.commit(b); err != nil {
			return err
		}
		l.nextID++
		l.replace(c.Name, t)
		return nil
	})
}

// ConfigureTopic changes retention, or adds partitions.
func (l *Log) ConfigureTopic(ctx context.Context, c log.TopicConfig) error {
	if err := CheckTopic(c); err != nil {
		return err
	}
	return l.change(ctx, func(topics map[string]*topic) error {
		t, ok := topics[c.Name]
		if !ok {
			return unknownTopic(log.Partition{Topic: c.Name})
		}
		if c.Partitions < t.config.Partitions {
			return &log.TopicError{Partition: log.Partition{Topic: c.Name}, Err: log.ErrFewerPartitions, Detail: fmt.Sprintf("it has %d", t.config.Partitions)}
		}
		if err := l.floor.take(topicBytes, l.o.Clock()); err != nil {
			return err
		}
		b := l.store.NewBatch()
		_ = b.Set(topicKey(kindTopic, t.id), encodeTopic(c), nil)
		if err := l.commit(b); err != nil {
			return err
		}
		l.replace(c.Name, t.resized(c))
		return nil
	})
}

// DeleteTopic removes a topic. First nothing more can be appended, then the rows go: what was appended before lies before
// the deletion in the WAL, and goes with it.
func (l *Log) DeleteTopic(ctx context.Context, name string) error {
	return l.change(ctx, func(topics map[string]*topic) error {
		t, ok := topics[name]
		if !ok {
			return unknownTopic(log.Partition{Topic: name})
		}
		l.replace(name, nil)
		for _, p := range t.partitions {
			l.remove(p)
		}
		b := l.store.NewBatch()
		_ = b.Delete(topicKey(kindTopic, t.id), nil)
		for _, kind := range []byte{kindRecords, kindFirst, kindMade} {
			_ = b.DeleteRange(topicKey(kind, t.id), topicKey(kind, t.id+1), nil)
		}
		return l.commit(b)
	})
}

func (l *Log) remove(p *partition) {
	l.giving.Lock() // appends look at it under this lock
	p.gone.Store(true)
	l.giving.Unlock()
	p.moving.Lock()
	defer p.moving.Unlock()
	p.wake()
}

// Topics lists all topics, by name.
func (l *Log) Topics(context.Context) ([]log.TopicConfig, error) {
	if err := l.enter(); err != nil {
		return nil, err
	}
	defer l.leave()
	var cs []log.TopicConfig
	for _, t := range *l.topics.Load() {
		cs = append(cs, t.config)
	}
	slices.SortFunc(cs, func(a, b log.TopicConfig) int { return strings.Compare(a.Name, b.Name) })
	return cs, nil
}

// Topic describes one.
func (l *Log) Topic(_ context.Context, name string) (log.TopicConfig, error) {
	if err := l.enter(); err != nil {
		return log.TopicConfig{}, err
	}
	defer l.leave()
	t, ok := (*l.topics.Load())[name]
	if !ok {
		return log.TopicConfig{}, unknownTopic(log.Partition{Topic: name})
	}
	return t.config, nil
}

// TopicID returns a number that no other topic of this log has or had, 0 if there is no such topic.
func (l *Log) TopicID(name string) uint32 {
	if t, ok := (*l.topics.Load())[name]; ok {
		return t.id
	}
	return 0
}

// TopicOf returns the name of the topic with an id, "" if there is none.
func (l *Log) TopicOf(id uint32) string {
	for name, t := range *l.topics.Load() {
		if t.id == id {
			return name
		}
	}
	return ""
}

// CheckTopic holds a configuration against the rules that Kafka's topics have too.
func CheckTopic(c log.TopicConfig) error {
	var wrong string
	switch {
	case len(c.Name) == 0 || len(c.Name) > log.TopicNameMax:
		wrong = fmt.Sprintf("a name has 1 to %d bytes", log.TopicNameMax)
	case c.Name == "." || c.Name == ".." || strings.ContainsFunc(c.Name, notInName):
		wrong = "a name is made of letters, digits, '.', '_' and '-'"
	case c.Partitions < 1 || c.Partitions > log.PartitionsMax:
		wrong = fmt.Sprintf("%d partitions; 1 to %d", c.Partitions, log.PartitionsMax)
	case c.Retention < 0 || c.RetentionBytes < 0:
		wrong = "retention cannot be negative"
	default:
		return nil
	}
	return &log.TopicError{Partition: log.Partition{Topic: c.Name}, Err: log.ErrInvalid, Detail: wrong}
}

func notInName(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '_' && r != '-'
}
