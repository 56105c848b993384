package logtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/remitlog/remit/log"
)

// Mem is a Log in memory. It knows no disk, starts no goroutine, and shares nothing with another: so it lives in a bubble of testing/synctest. Records of
// one Append become readable together.
type Mem struct {
	mu      sync.Mutex
	topics  map[string]*memTopic
	changed chan struct{} // closed when anything was
	closed  bool
	refuse  func([]log.Record) error
}

type memTopic struct {
	config log.TopicConfig
	parts  []memPartition
}

type memPartition struct {
	first   log.Offset
	records []log.Record // from first on
}

func (p *memPartition) end() log.Offset { return p.first + log.Offset(len(p.records)) }

// NewMem returns a log without topics.
func NewMem() *Mem {
	return &Mem{topics: map[string]*memTopic{}, changed: make(chan struct{})}
}

// Refuse makes Append return what f returns, if that is an error. Nil takes that back.
func (m *Mem) Refuse(f func([]log.Record) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refuse = f
}

// with runs f on what is there, unless the log is closed.
func (m *Mem) with(ctx context.Context, f func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return fmt.Errorf("logtest: %w", log.ErrClosed)
	}
	return f()
}

// change is with, and tells who waits.
func (m *Mem) change(ctx context.Context, f func() error) error {
	return m.with(ctx, func() error {
		if err := f(); err != nil {
			return err
		}
		close(m.changed)
		m.changed = make(chan struct{})
		return nil
	})
}

func (m *Mem) topic(name string) (*memTopic, error) {
	t := m.topics[name]
	if t == nil {
		return nil, &log.TopicError{Partition: log.Partition{Topic: name}, Err: log.ErrUnknownTopic}
	}
	return t, nil
}

func (m *Mem) partition(p log.Partition) (*memPartition, error) {
	t, err := m.topic(p.Topic)
	if err != nil {
		return nil, err
	}
	if p.Index < 0 || int(p.Index) >= len(t.parts) {
		return nil, &log.TopicError{Partition: p, Err: log.ErrUnknownPartition}
	}
	return &t.parts[p.Index], nil
}

// Append implements log.Log.
func (m *Mem) Append(ctx context.Context, records ...log.Record) (offsets []log.Offset, err error) {
	if err := log.CheckRecords(records); err != nil {
		return nil, err
	}
	err = m.change(ctx, func() error {
		for i := range records {
			if _, err := m.partition(records[i].Partition); err != nil {
				return err
			}
		}
		if m.refuse != nil {
			if err := m.refuse(records); err != nil {
				return err
			}
		}
		for _, r := range records {
			p, _ := m.partition(r.Partition)
			if r.Time.IsZero() {
				r.Time = time.Now()
			}
			r.Offset, r.Time = p.end(), r.Time.Truncate(time.Millisecond).UTC()
			p.records = append(p.records, r.Clone())
			offsets = append(offsets, r.Offset)
		}
		return nil
	})
	return offsets, err
}

// Read implements log.Log.
func (m *Mem) Read(ctx context.Context, at log.Partition, from log.Offset, maxBytes int) (records []log.Record, err error) {
	was := false
	for {
		var changed chan struct{}
		err := m.with(ctx, func() error {
			p, err := m.partition(at)
			if err != nil {
				return err
			}
			if from < p.first || from > p.end() {
				return &log.RangeError{Partition: at, From: from, First: p.first, End: p.end()}
			}
			for i := int(from - p.first); i < len(p.records) && (len(records) == 0 || maxBytes > 0); i++ {
				records = append(records, p.records[i].Clone())
				maxBytes -= log.RecordLen(&p.records[i])
			}
			changed = m.changed
			return nil
		})
		if was && errors.Is(err, log.ErrOffsetOutOfRange) { // another topic of this name
			err = &log.TopicError{Partition: at, Err: log.ErrUnknownTopic}
		}
		if err != nil || len(records) > 0 {
			return records, err
		}
		was = true
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Bounds implements log.Log.
func (m *Mem) Bounds(ctx context.Context, at log.Partition) (first, end log.Offset, err error) {
	err = m.with(ctx, func() error {
		p, err := m.partition(at)
		if err == nil {
			first, end = p.first, p.end()
		}
		return err
	})
	return first, end, err
}

// OffsetAt implements log.Log.
func (m *Mem) OffsetAt(ctx context.Context, at log.Partition, t time.Time) (o log.Offset, err error) {
	err = m.with(ctx, func() error {
		p, err := m.partition(at)
		if err != nil {
			return err
		}
		o = p.end()
		if i := slices.IndexFunc(p.records, func(r log.Record) bool { return !r.Time.Before(t) }); i >= 0 {
			o = p.first + log.Offset(i)
		}
		return nil
	})
	return o, err
}

// CreateTopic implements log.Log.
func (m *Mem) CreateTopic(ctx context.Context, c log.TopicConfig) error {
	if err := checkTopic(c); err != nil {
		return err
	}
	return m.change(ctx, func() error {
		if was := m.topics[c.Name]; was != nil {
			if was.config == c {
				return nil
			}
			return &log.TopicError{Partition: log.Partition{Topic: c.Name}, Err: log.ErrTopicExists}
		}
		m.topics[c.Name] = &memTopic{c, make([]memPartition, c.Partitions)}
		return nil
	})
}

func checkTopic(c log.TopicConfig) error {
	plain := func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("._-", r)
	}
	switch {
	case c.Name == "", c.Name == ".", c.Name == "..", len(c.Name) > log.TopicNameMax, strings.ContainsFunc(c.Name, func(r rune) bool { return !plain(r) }),
		c.Partitions < 1, c.Partitions > log.PartitionsMax, c.Retention < 0, c.RetentionBytes < 0:
		return &log.TopicError{Partition: log.Partition{Topic: c.Name}, Err: log.ErrInvalid}
	default:
		return nil
	}
}

// ConfigureTopic implements log.Log. Nothing is removed for want of retention.
func (m *Mem) ConfigureTopic(ctx context.Context, c log.TopicConfig) error {
	if err := checkTopic(c); err != nil {
		return err
	}
	return m.change(ctx, func() error {
		t, err := m.topic(c.Name)
		if err != nil {
			return err
		}
		if c.Partitions < len(t.parts) {
			return &log.TopicError{Partition: log.Partition{Topic: c.Name}, Err: log.ErrFewerPartitions}
		}
		t.config, t.parts = c, append(t.parts, make([]memPartition, c.Partitions-len(t.parts))...)
		return nil
	})
}

// DeleteTopic implements log.Log.
func (m *Mem) DeleteTopic(ctx context.Context, name string) error {
	return m.change(ctx, func() error {
		_, err := m.topic(name)
		delete(m.topics, name)
		return err
	})
}

// Topics implements log.Log.
func (m *Mem) Topics(ctx context.Context) (all []log.TopicConfig, err error) {
	err = m.with(ctx, func() error {
		for _, name := range slices.Sorted(maps.Keys(m.topics)) {
			all = append(all, m.topics[name].config)
		}
		return nil
	})
	return all, err
}

// Topic implements log.Log.
func (m *Mem) Topic(ctx context.Context, name string) (c log.TopicConfig, err error) {
	err = m.with(ctx, func() error {
		t, err := m.topic(name)
		if err == nil {
			c = t.config
		}
		return err
	})
	return c, err
}

// Trim implements log.Log.
func (m *Mem) Trim(ctx context.Context, at log.Partition, to log.Offset) error {
	return m.change(ctx, func() error {
		p, err := m.partition(at)
		if err != nil {
			return err
		}
		if to > p.end() {
			return &log.RangeError{Partition: at, From: to, First: p.first, End: p.end()}
		}
		if to > p.first {
			p.records, p.first = slices.Clone(p.records[to-p.first:]), to
		}
		return nil
	})
}

// Size implements log.Log.
func (m *Mem) Size(ctx context.Context, at log.Partition) (n int64, err error) {
	err = m.with(ctx, func() error {
		p, err := m.partition(at)
		if err != nil {
			return err
		}
		for i := range p.records {
			n += int64(log.RecordLen(&p.records[i]))
		}
		return nil
	})
	return n, err
}

// Features implements log.Log.
func (m *Mem) Features() log.Features { return log.Features{GaplessOffsets: true} }

// Close implements log.Log.
func (m *Mem) Close() error {
	err := m.change(context.Background(), func() error {
		m.closed = true
		return nil
	})
	if errors.Is(err, log.ErrClosed) {
		return nil
	}
	return err
}
