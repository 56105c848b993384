package parked

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/remitlog/remit/consumers"
	"github.com/remitlog/remit/log"
)

// readMax is how many bytes of a topic are read at once.
const readMax = 1 << 20

// again is what was sent again of one topic: the fold of its replay topic.
type again struct {
	topic string

	sending chan struct{} // of 1: taken over a Replay. Of two, the second sees what the first has sent
	// mu guards what follows, and is held over reading: who comes second finds it read.
	mu   sync.Mutex
	next []log.Offset // to be read of the replay topic, by partition
	sent map[spot]spot
}

// spot is a place of which the topic is known.
type spot struct {
	index  int32
	offset log.Offset
}

func spotOf(p consumers.Place) spot { return spot{p.Index, p.Offset} }

// again returns what was sent again of a topic, up to now.
func (s *Shelf) again(ctx context.Context, topic string) (*again, error) {
	a := s.topic(topic)
	return a, a.read(ctx, s.opts.Log)
}

func (s *Shelf) topic(name string) *again {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.topics[name]
	if a == nil {
		a = &again{topic: name, sending: make(chan struct{}, 1), sent: map[spot]spot{}}
		s.topics[name] = a
	}
	return a
}

// Forget forgets what it knows of a topic that was deleted, or whose parked or replay topic was.
func (s *Shelf) Forget(topic string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, of := range []string{topic, base(topic, consumers.ParkedTopic("")), base(topic, consumers.ReplayTopic(""))} {
		delete(s.topics, of)
	}
}

func base(topic, suffix string) string {
	if len(topic) > len(suffix) && topic[len(topic)-len(suffix):] == suffix {
		return topic[:len(topic)-len(suffix)]
	}
	return topic
}

// read reads the replay topic on.
func (a *again) read(ctx context.Context, l log.Log) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	topic := consumers.ReplayTopic(a.topic)
	c, err := l.Topic(ctx, topic)
	if errors.Is(err, log.ErrUnknownTopic) {
		a.next = nil
		clear(a.sent)
		return nil
	}
	if err != nil {
		return err
	}
	for len(a.next) < c.Partitions {
		a.next = append(a.next, 0)
	}
	for i := range a.next {
		if err := a.readPartition(ctx, l, log.Partition{Topic: topic, Index: int32(i)}); err != nil {
			return err
		}
	}
	return nil
}

func (a *again) readPartition(ctx context.Context, l log.Log, p log.Partition) error {
	next := &a.next[p.Index]
	first, end, err := l.Bounds(ctx, p)
	if err != nil {
		return err
	}
	if *next > end { // another topic of this name
		*next = 0
		clear(a.sent)
	}
	for *next = max(*next, first); *next < end; {
		rs, err := l.Read(ctx, p, *next, readMax)
		if err != nil {
			return err
		}
		for _, r := range rs {
			if err := a.note(r); err != nil {
				return err
			}
			*next = r.Offset + 1
		}
	}
	return nil
}

func (a *again) note(r log.Record) error {
	said, err := consumers.ParseReplayed(r)
	if err != nil || said.Parked.Topic != consumers.ParkedTopic(a.topic) {
		return nil // somebody else's
	}
	at := spotOf(said.Parked)
	if _, ok := a.sent[at]; !ok && len(a.sent) >= AgainMax {
		return fmt.Errorf("%w: %d of %s were sent again and are remembered; trim %s", ErrTooMany, len(a.sent), a.topic, r.Topic)
	}
	a.sent[at] = spot{r.Index, r.Offset}
	return nil
}

// at returns where a parked record was sent again last.
func (a *again) at(p consumers.Place) (consumers.Place, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	to, ok := a.sent[spotOf(p)]
	return consumers.Place{Partition: log.Partition{Topic: consumers.ReplayTopic(a.topic), Index: to.index}, Offset: to.offset}, ok
}

func (a *again) has(p consumers.Place) bool {
	_, ok := a.at(p)
	return ok
}
