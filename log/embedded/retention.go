package embedded

import (
	"context"
	"time"

	"github.com/remitlog/remit/log"
)

// Trim drops the rows below to. The first offset is a row of its own, so that a partition that is trimmed to empty still
// knows, after a kill, where its offsets go on.
func (l *Log) Trim(ctx context.Context, at log.Partition, to log.Offset) error {
	return l.change(ctx, func(topics map[string]*topic) error {
		p, err := find(topics, at)
		if err != nil {
			return err
		}
		return l.trim(p, to)
	})
}

// trim: the first offset moves BEFORE the rows go, so that a reader who misses a row finds out why. l.admin is held.
func (l *Log) trim(p *partition, to log.Offset) error {
	first, end := log.Offset(p.first.Load()), log.Offset(p.end.Load())
	if to > end || to < 0 {
		return &log.RangeError{Partition: p.Partition, From: to, First: first, End: end}
	}
	if to <= first {
		return nil
	}
	p.first.Store(int64(to))
	b := l.store.NewBatch()
	_ = b.Set(firstKey(p.topic, p.Index), offsetRow(to), nil)
	_ = b.DeleteRange(recordsKey(p.topic, p.Index, 0), recordsKey(p.topic, p.Index, to), nil)
	if err := l.commit(b); err != nil {
		return err
	}
	if f := l.o.Listener.Trimmed; f != nil {
		f(p.Partition, to)
	}
	return nil
}

func (l *Log) keepRetention() {
	t := time.NewTicker(l.o.RetentionEvery)
	defer t.Stop()
	for {
		select {
		case <-l.done:
			return
		case <-l.failed:
			return
		case <-t.C:
			l.retain(l.o.Clock())
			l.forgetProducers(l.o.Clock())
		}
	}
}

// retain trims every topic by its retention; remit's own topics are kept for ever.
func (l *Log) retain(now time.Time) {
	for name, t := range *l.topics.Load() {
		if log.Reserved(name) || t.config.Retention == 0 && t.config.RetentionBytes == 0 {
			continue
		}
		for _, p := range t.partitions {
			if err := l.retainPartition(p, t.config, now); err != nil && !l.hasFailed() {
				l.o.Logger.Warn("embedded: retention", "topic", p.Topic, "partition", p.Index, "error", err)
			}
		}
	}
}

// retainPartition trims what is older than is to be kept, or more; either suffices, as with Kafka.
func (l *Log) retainPartition(p *partition, c log.TopicConfig, now time.Time) error {
	return l.change(context.Background(), func(map[string]*topic) error {
		if p.gone.Load() {
			return nil
		}
		var to log.Offset
		switch byAge, err := l.tooOld(p, c.Retention, now); {
		case err != nil:
			return l.unreadable(err)
		case c.RetentionBytes == 0:
			to = byAge
		default:
			bySize, err := l.tooMuch(p, c.RetentionBytes)
			if err != nil {
				return l.unreadable(err)
			}
			to = max(byAge, bySize)
		}
		return l.trim(p, to)
	})
}

// tooOld returns where the records begin that are within retention.
func (l *Log) tooOld(p *partition, retention time.Duration, now time.Time) (log.Offset, error) {
	if retention == 0 {
		return log.Offset(p.first.Load()), nil
	}
	return l.offsetAt(p, millisCeil(now.Add(-retention)))
}

// tooMuch returns where the last so many bytes begin, at least.
func (l *Log) tooMuch(p *partition, keep int64) (log.Offset, error) {
	_, newest, ok, err := l.outer(p)
	first, end := log.Offset(p.first.Load()), log.Offset(p.end.Load())
	if err != nil || !ok || newest.total <= uint64(keep) {
		return first, err
	}
	surplus := newest.total - uint64(keep)
	return l.bisect(p, first, end, func(r row) bool { return r.total > surplus })
}
