package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/remitlog/remit/broker"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/log/names"
)

// stepsOf returns how many bytes one message of this kind puts on the log with each step that its caller waits for, as rows of its store:
// measured in memory, on as many messages at once as there will be, since what is decided together is written together.
func stepsOf(ctx context.Context, o *MessageOptions) (steps []int, err error) {
	m, err := openMemory(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	if err := m.log.CreateTopic(ctx, log.TopicConfig{Name: benchTopic, Partitions: log.PartitionsDefault}); err != nil {
		return nil, err
	}
	n := max(1000, 2*o.atOnce())
	claims, prepares, commits := make([]ask, n), make([]ask, n), make([]ask, n)
	s := sender{MessageOptions: *o, data: filler(o.Bytes), run: "sample"}
	for i := range n {
		half, err := s.half(m.core.Node.Now())
		if err != nil {
			return nil, err
		}
		named := names.Named{Kind: names.KindMessage, Name: half.Name, ID: half.ID, Key: half.Key, Fingerprint: half.Fingerprint}
		at := m.core.Node.PartitionOfID(half.ID)
		claims[i] = ask{m.core.Node.PartitionOf(names.Route(named.Kind, named.Name)), names.Claim{Named: named}}
		prepares[i] = ask{at, broker.Prepare{Prepared: half}}
		commits[i] = ask{at, broker.Settle{Broker: m.core.Broker, ID: half.ID, Input: broker.InputCommit}}
	}
	all := [][]ask{claims, prepares, commits}
	if !o.Names {
		all = all[1:]
	}
	for _, asks := range all {
		before := m.written.Load()
		if err := m.ask(ctx, asks, o.atOnce()); err != nil {
			return nil, err
		}
		steps = append(steps, int(m.written.Load()-before)/n)
	}
	return steps, nil
}

// ask is a command for a partition.
type ask struct {
	to      int32
	command fold.Command
}

// ask asks all, so many at once, and waits until what follows from them is written too.
func (m *memory) ask(ctx context.Context, asks []ask, atOnce int) error {
	open := make(chan struct{}, atOnce)
	answers := make(chan error, len(asks))
	for _, a := range asks {
		select {
		case open <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := m.core.Node.Submit(a.to, a.command, func(r fold.Result) { <-open; answers <- r.Err }); err != nil {
			return err
		}
	}
	var errs []error
	for range asks {
		errs = append(errs, <-answers)
	}
	return errors.Join(append(errs, m.core.Node.Rest(ctx))...)
}

// half is the half message of the next event, as the door makes it.
func (s *sender) half(now time.Time) (broker.Prepared, error) {
	e, err := log.ParseStructured(s.appendEvent(nil))
	if err != nil {
		return broker.Prepared{}, fmt.Errorf("bench: %w", err)
	}
	delete(e.Extensions, "remitid")
	text, err := e.MarshalStructured()
	if err != nil {
		return broker.Prepared{}, fmt.Errorf("bench: %w", err)
	}
	name := e.Source + " " + e.ID
	return broker.Prepared{
		ID: log.NewID(now, e.Key), Name: name, Fingerprint: log.FingerprintOf(name), Topic: benchTopic, Producer: benchProducer, Key: e.Key, Event: text,
	}, nil
}
