package parked

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/remitlog/remit/consumers"
	"github.com/remitlog/remit/log"
)

// Request asks for records of one topic to be sent again.
type Request struct {
	Topic string
	// Places are on the parked topic. All stands for those that were never sent again.
	Places []consumers.Place
	All    bool
	Group  string // only what this group has parked; empty for all
	By     string
	Reason string
}

// Result says what was done.
type Result struct {
	// Sent is how many records were sent again, by the group that is given them.
	Sent map[string]int
	// Left are those that were not, of All, and why.
	Left []Left
	// More says that there are more than ReplayMax. Ask again.
	More bool
}

// Left are records that nobody would take, or that cannot be sent again.
type Left struct {
	Group   string
	Records int
	Why     string
}

// Total is how many records were sent again.
func (r Result) Total() (n int) {
	for _, m := range r.Sent {
		n += m
	}
	return n
}

// candidate is a record that is to be sent again, without its bytes.
type candidate struct {
	at, from spot
	group    string
}

// Replay sends records again. What it has sent is durable when it returns, also when that is an error: then some may have been.
//
// Errors: ErrNotParked, ErrNotSendable and ErrNobody, before anything was sent, of Places; ErrTooMany; those of the log.
func (s *Shelf) Replay(ctx context.Context, r Request) (Result, error) {
	a := s.topic(r.Topic)
	select {
	case a.sending <- struct{}{}:
		defer func() { <-a.sending }()
	case <-ctx.Done():
		return Result{}, ctx.Err()
	}
	if err := a.read(ctx, s.opts.Log); err != nil {
		return Result{}, err
	}
	res := Result{Sent: map[string]int{}}
	var them []candidate
	var err error
	if r.All {
		them, res.Left, err = s.all(ctx, a, &r)
	} else {
		them, err = s.named(ctx, &r)
	}
	if err != nil || len(them) == 0 {
		return res, err
	}
	// INVARIANT: what is sent first stood first. So what More leaves to the next call comes after it, key by key.
	slices.SortFunc(them, func(x, y candidate) int {
		return cmp.Or(cmp.Compare(x.from.index, y.from.index), cmp.Compare(x.from.offset, y.from.offset), cmp.Compare(x.at.offset, y.at.offset))
	})
	if len(them) > ReplayMax {
		them, res.More = them[:ReplayMax], true
	}
	return res, s.send(ctx, &r, them, &res)
}

// named are the records at the places; each is to be there, and to be taken by somebody.
func (s *Shelf) named(ctx context.Context, r *Request) (them []candidate, err error) {
	seen, takes := map[spot]bool{}, s.takes(ctx, r.Topic)
	for _, at := range r.Places {
		found, err := s.get(ctx, at)
		if err != nil {
			return nil, err
		}
		if err := found.Sendable(); err != nil {
			return nil, err
		}
		if r.Group != "" && found.Parked.Group != r.Group {
			return nil, fmt.Errorf("%w: %s was parked by group %s, and not by %s", ErrNotSendable, name(at), found.Parked.Group, r.Group)
		}
		if err := takes(found.Parked.Group); err != nil {
			return nil, err
		}
		if !seen[spotOf(at)] {
			seen[spotOf(at)] = true
			them = append(them, candidateOf(&found))
		}
	}
	return them, nil
}

func candidateOf(r *Record) candidate {
	return candidate{at: spotOf(r.At), from: spotOf(r.Parked.From), group: r.Parked.Group}
}

// takes asks once for each group; the error is ErrNobody.
func (s *Shelf) takes(ctx context.Context, topic string) func(group string) error {
	known, ready := map[string]error{}, false
	return func(group string) error {
		err, ok := known[group]
		if ok {
			return err
		}
		if !ready {
			if _, err := s.ensure(ctx, topic); err != nil {
				return err
			}
			ready = true
		}
		if err = s.opts.Takes(ctx, group, topic); err != nil {
			err = fmt.Errorf("%w: %w", ErrNobody, err)
		}
		known[group] = err
		return err
	}
}

// ensure makes the replay topic, with as many partitions as the topic, or as the parked one if that is gone.
func (s *Shelf) ensure(ctx context.Context, topic string) (partitions int, err error) {
	to := consumers.ReplayTopic(topic)
	for _, like := range []string{to, topic, consumers.ParkedTopic(topic)} {
		c, err := s.opts.Log.Topic(ctx, like)
		switch {
		case errors.Is(err, log.ErrUnknownTopic):
			continue
		case err != nil || like == to:
			return c.Partitions, err
		}
		err = s.opts.Log.CreateTopic(ctx, log.TopicConfig{Name: to, Partitions: c.Partitions})
		if errors.Is(err, log.ErrTopicExists) {
			return s.ensure(ctx, topic)
		}
		return c.Partitions, err
	}
	return 0, fmt.Errorf("%w: there is no topic %s", ErrNotParked, topic)
}

// all are the records that were never sent again, and those that are left where they are.
func (s *Shelf) all(ctx context.Context, a *again, r *Request) (them []candidate, left []Left, err error) {
	takes, why := s.takes(ctx, r.Topic), map[string]*Left{}
	err = s.each(ctx, consumers.ParkedTopic(r.Topic), func(found *Record) error {
		group := found.Parked.Group
		if a.has(found.At) || r.Group != "" && group != r.Group {
			return nil
		}
		err := found.Sendable()
		if err == nil {
			err = takes(group)
		}
		switch {
		case errors.Is(err, ErrNobody), errors.Is(err, ErrNotSendable):
			if why[group] == nil {
				why[group] = &Left{Group: group, Why: err.Error()}
			}
			why[group].Records++
			return nil
		case err != nil:
			return err
		case len(them) == AgainMax:
			return fmt.Errorf("%w: more than %d of %s wait to be sent again; name a group, or places", ErrTooMany, AgainMax, r.Topic)
		}
		them = append(them, candidateOf(found))
		return nil
	})
	for _, group := range slices.Sorted(maps.Keys(why)) {
		left = append(left, *why[group])
	}
	return them, left, err
}

// each visits the records of a topic, partition by partition; of one that is not there none.
func (s *Shelf) each(ctx context.Context, topic string, visit func(*Record) error) error {
	c, err := s.opts.Log.Topic(ctx, topic)
	if errors.Is(err, log.ErrUnknownTopic) {
		return nil
	}
	if err != nil {
		return err
	}
	for i := range c.Partitions {
		p := log.Partition{Topic: topic, Index: int32(i)}
		at, end, err := s.opts.Log.Bounds(ctx, p)
		for ; err == nil && at < end; err = ctx.Err() {
			var rs []log.Record
			if rs, err = s.opts.Log.Read(ctx, p, at, readMax); err != nil {
				return err
			}
			for _, r := range rs {
				found := read(r)
				if err := visit(&found); err != nil {
					return err
				}
				at = r.Offset + 1
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// send appends records to the replay topic, in their order.
func (s *Shelf) send(ctx context.Context, r *Request, them []candidate, res *Result) error {
	partitions, err := s.ensure(ctx, r.Topic)
	if err != nil {
		return err
	}
	var batch []log.Record
	var groups []string
	size := 0
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		if _, err := s.opts.Log.Append(ctx, batch...); err != nil {
			return err
		}
		for _, g := range groups {
			res.Sent[g]++
		}
		batch, groups, size = batch[:0], groups[:0], 0
		return nil
	}
	for _, c := range them {
		found, err := s.get(ctx, consumers.Place{Partition: log.Partition{Topic: consumers.ParkedTopic(r.Topic), Index: c.at.index}, Offset: c.at.offset})
		if err != nil {
			return errors.Join(flush(), err)
		}
		replay, err := consumers.Replay(found.Record, r.By, r.Reason, time.Now())
		if err != nil {
			return errors.Join(flush(), err)
		}
		// As the record's own partition: those of one key have an order in it, and in no other.
		replay.Index = c.from.index % int32(partitions)
		if n := log.RecordLen(&replay); len(batch) == batchMax || size+n > batchBytesMax {
			if err := flush(); err != nil {
				return err
			}
		}
		batch, groups, size = append(batch, replay), append(groups, c.group), size+log.RecordLen(&replay)
	}
	return flush()
}
