// Package registry keeps what every node must know: how the log was made, and who produces. It is the
// fold of remit.registry, which has one partition.
//
// # Guarantees
//
// R1: the number of core partitions is fixed by the first record of the log, and checked at every start. R2: a
// registration is answered after it is durable.
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

// Errors of the registry.
var (
	// ErrPartitions: the log was made with another number of partitions. Start with that number.
	ErrPartitions = errors.New("registry: the log was made with another number of partitions")
	// ErrUnknownProducer: no such producer. Register it first.
	ErrUnknownProducer = errors.New("registry: unknown producer")
)

// Created is the first record of a log.
type Created struct {
	Cluster    uuid.UUID `json:"cluster"` // names this log
	Partitions int       `json:"partitions"`
}

// Producer is a registered producer of half messages. Durations are milliseconds.
type Producer struct {
	_        struct{} `cbor:",toarray"`
	Name     string   `json:"name"`
	Check    Check    `json:"check,omitzero"`
	Precheck Call     `json:"precheck,omitzero"`
}

// Check is how a producer is back-checked.
type Check struct {
	_           struct{} `cbor:",toarray"`
	URL         string   `json:"url,omitzero"`
	Secret      string   `json:"secret,omitzero"` // written, never answered
	FirstAfter  int64    `json:"firstAfter,omitzero"`
	Interval    int64    `json:"interval,omitzero"`
	MaxInterval int64    `json:"maxInterval,omitzero"`
	Deadline    int64    `json:"deadline,omitzero"`
	When        string   `json:"when,omitzero"` // CloudEvents SQL
}

// Call is a URL that is asked under a condition.
type Call struct {
	_    struct{} `cbor:",toarray"`
	URL  string   `json:"url,omitzero"`
	When string   `json:"when,omitzero"`
}

// Registered is the fact that a producer was registered, or registered anew.
type Registered struct{ Producer }

// Removed is the fact that a producer was removed.
type Removed struct {
	Name string `json:"name"`
}

// EventType is the type on the log.
func (Created) EventType() string { return "remit.log.created.v1" }

// EventType is the type on the log.
func (Registered) EventType() string { return "remit.producer.registered.v1" }

// EventType is the type on the log.
func (Removed) EventType() string { return "remit.producer.removed.v1" }

// Facts lists the facts of this package.
func Facts() []fold.FactType {
	return []fold.FactType{fold.FactOf[Created](), fold.FactOf[Registered](), fold.FactOf[Removed]()}
}

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

var (
	producers = fold.NewTable[Producer]('p')
	// changes counts what was registered and removed under a name.
	changes = fold.NewTable[int64]('c')
)

// Machine folds the registry.
type Machine struct{}

// Owed returns nothing.
func (Machine) Owed(fold.Reader, string, fold.Look) []fold.Effect { return nil }

// Apply folds one event.
func (Machine) Apply(rows fold.Rows, e *fold.Event) {
	switch f := e.Fact.(type) {
	case Registered:
		producers.Put(rows, f.Name, f.Producer)
		changed(rows, f.Name)
	case Removed:
		producers.Delete(rows, f.Name)
		changed(rows, f.Name)
	}
}

func changed(rows fold.Rows, name string) {
	n, _ := changes.Get(rows, name)
	changes.Put(rows, name, n+1)
}

// eventID returns an id that no other event has: two changes of one producer may share a millisecond.
func eventID(rows fold.Reader, name, fact string) string {
	n, _ := changes.Get(rows, name)
	return fmt.Sprintf("%s/%s/%d", name, fact, n+1)
}

// Register registers a producer. The answer is whether it is new (bool).
type Register struct{ Producer }

// Decide implements fold.Command.
func (c Register) Decide(t *fold.Turn) (any, error) {
	was, ok := producers.Get(t.Rows(), c.Name)
	if ok && was == c.Producer {
		return false, nil
	}
	t.Emit(fold.Event{ID: eventID(t.Rows(), c.Name, "registered"), Key: c.Name, Fact: Registered(c)})
	return !ok, nil
}

// Remove removes a producer; ErrUnknownProducer if it is not there.
type Remove struct{ Name string }

// Decide implements fold.Command.
func (c Remove) Decide(t *fold.Turn) (any, error) {
	if _, ok := producers.Get(t.Rows(), c.Name); !ok {
		return nil, ErrUnknownProducer
	}
	t.Emit(fold.Event{ID: eventID(t.Rows(), c.Name, "removed"), Key: c.Name, Fact: Removed(c)})
	return nil, nil
}

// Registry reads and writes the registry through its node.
type Registry struct{ node *fold.Node }

// New returns the registry of a node that runs Machine on remit.registry.
func New(n *fold.Node) *Registry { return &Registry{n} }

// Producer returns a registered producer.
func (r *Registry) Producer(name string) (p Producer, ok bool, err error) {
	err = r.node.Read(0, func(rows fold.Scanner, _ log.Offset) error {
		p, ok = producers.Get(rows, name)
		return nil
	})
	return p, ok, err
}

// Producers lists the producers by name.
func (r *Registry) Producers() (all []Producer, err error) {
	err = r.node.Read(0, func(rows fold.Scanner, _ log.Offset) error {
		for _, p := range producers.Scan(rows, "", "", false) {
			all = append(all, p)
		}
		return nil
	})
	return all, err
}

// Register registers a producer and reports whether it is new.
func (r *Registry) Register(ctx context.Context, p Producer) (added bool, err error) {
	res, err := r.node.Do(ctx, 0, Register{p})
	if err != nil {
		return false, err
	}
	return res.Answer.(bool), nil
}

// Remove removes a producer; ErrUnknownProducer if it is not there.
func (r *Registry) Remove(ctx context.Context, name string) error {
	_, err := r.node.Do(ctx, 0, Remove{name})
	return err
}
