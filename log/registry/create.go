package registry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
)

// ErrPartitions: the log was made with another number of partitions. Start with that number.
var ErrPartitions = errors.New("registry: the log was made with another number of partitions")

var partition = log.Partition{Topic: log.RegistryTopic}

// Create makes the topics of a new log, or checks those of an old one, and returns how it was made. ErrPartitions, or
// log.ErrInvalid for a number that no log is made with.
func Create(ctx context.Context, l log.Log, partitions int, now time.Time) (Created, error) {
	if partitions < 1 || partitions > log.PartitionsMax || partitions&(partitions-1) != 0 { // before the log is made so for ever
		return Created{}, fmt.Errorf("registry: %w: %d partitions; a power of two, at most %d", log.ErrInvalid, partitions, log.PartitionsMax)
	}
	if err := l.CreateTopic(ctx, log.TopicConfig{Name: log.RegistryTopic, Partitions: 1}); err != nil {
		return Created{}, fmt.Errorf("registry: %w", err)
	}
	c, err := created(ctx, l, partitions, now)
	if err != nil {
		return c, err
	}
	if c.Partitions != partitions {
		return c, fmt.Errorf("%w: %d, not %d; start with --partitions %d", ErrPartitions, c.Partitions, partitions, c.Partitions)
	}
	for _, topic := range []string{log.EventsTopic, log.PaymentsTopic} {
		if err := l.CreateTopic(ctx, log.TopicConfig{Name: topic, Partitions: partitions}); err != nil {
			return c, fmt.Errorf("registry: %w", err)
		}
	}
	return c, nil
}

// created reads the first record, or writes it.
func created(ctx context.Context, l log.Log, partitions int, now time.Time) (Created, error) {
	_, end, err := l.Bounds(ctx, partition)
	if err != nil {
		return Created{}, fmt.Errorf("registry: %w", err)
	}
	if end == 0 {
		c := Created{Cluster: uuid.New(), Partitions: partitions}
		r, err := fold.Record(fold.Event{ID: c.Cluster.String() + "/created", Key: "log", Time: now.UTC().Truncate(time.Millisecond), Fact: c}, log.RegistryTopic)
		if err != nil {
			return c, err
		}
		_, err = l.Append(ctx, r)
		return c, err
	}
	records, err := l.Read(ctx, partition, 0, 1)
	if err != nil {
		return Created{}, fmt.Errorf("registry: %w", err)
	}
	e, err := fold.NewFacts(true, Facts()...).Decode(records[0])
	if err != nil {
		return Created{}, err
	}
	c, ok := e.Fact.(Created)
	if !ok {
		return c, fmt.Errorf("registry: %s does not begin with %s: corruption, or not remit's log", log.RegistryTopic, Created{}.EventType())
	}
	return c, nil
}
