package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"slices"
	"time"

	"github.com/remitlog/remit/broker/callout"
	"github.com/remitlog/remit/consumers"
	"github.com/remitlog/remit/consumers/parked"
	"github.com/remitlog/remit/consumers/push"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/kafkaapi"
	"github.com/remitlog/remit/log/registry"
	conditions "github.com/remitlog/remit/log/when"
)

// newSinkCaller returns who calls the sinks of subscriptions. It is another one than producers are asked by: its breaker stays shut, since package
// push knows better when it is the sink that fails, and when one record.
func newSinkCaller(config Config, m *metrics) (*callout.Caller, error) {
	return callout.New(callout.Options{
		AllowLoopback: slices.Contains(config.CallsTo, toLoopback), AllowPrivate: slices.Contains(config.CallsTo, toPrivate),
		Origin: originOf(config), TargetsMax: registry.SubscriptionsMax, BreakerFailures: math.MaxInt, BodyMax: sinkAnswerMax,
		ConcurrencyMax: sinkCallsMax + 1, // and the handshake
		Listener:       callout.Listener{Called: func(_, _ string, status int, err error, took time.Duration) { m.called(status, err, took) }},
	})
}

const (
	// sinkCallsMax is how many calls of one subscription are under way at once.
	sinkCallsMax = 16
	// sinkAnswerMax is how much of a sink's answer is read: for people alone.
	sinkAnswerMax = 4 << 10
)

// originOf is the name that sinks are asked for consent under: as it is configured, else this machine's.
func originOf(config Config) string {
	if config.Origin != "" {
		return config.Origin
	}
	if host, err := os.Hostname(); err == nil && host != "" {
		return host
	}
	return "localhost"
}

// servePush begins to deliver subscriptions, AFTER the Kafka API knows what their groups have committed.
func (s *server) servePush() error {
	p, err := push.New(push.Options{
		Log: s.log, Offsets: pushOffsets{s.kafka.Load()}, Registry: pushRegistry{s.core.Registry}, Caller: sinkCaller{s.core.Registry, s.sinks},
		Compile: compileFilter, Origin: originOf(s.config), Logger: s.deps.Logger, Listener: s.watch.push(), WorkersMax: sinkCallsMax,
	})
	if err != nil {
		return err
	}
	s.shelf = parked.New(parked.Options{Log: s.log, Takes: s.takesReplays, Committed: s.groupHasTaken})
	s.push.Store(p)
	s.metrics.MustRegister(newPushGauges(p))
	return nil
}

// closePush finishes the deliveries that are under way.
func (s *server) closePush(ctx context.Context) error {
	if p := s.push.Load(); p != nil {
		return p.Close(ctx)
	}
	return nil
}

// topicDeleted ends what reads a topic that is gone.
func (s *server) topicDeleted(name string) {
	if p := s.push.Load(); p != nil {
		p.TopicDeleted(name)
		s.shelf.Forget(name)
	}
}

// pushRegistry are the registered subscriptions, as package push knows them.
type pushRegistry struct{ *registry.Registry }

func (r pushRegistry) Subscriptions() []push.Subscription {
	all := r.Registry.Subscriptions()
	list := make([]push.Subscription, len(all))
	for i, s := range all {
		ms := func(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
		list[i] = push.Subscription{
			Name: s.Name, Topic: s.Topic, Sink: s.Sink, Filter: s.Filter, Registered: time.UnixMilli(s.Registered),
			Interval: ms(s.Retry.Interval), MaxInterval: ms(s.Retry.MaxInterval), Deadline: ms(s.Retry.Deadline),
		}
		if s.From > 0 {
			list[i].From = time.UnixMilli(s.From)
		}
	}
	return list
}

// sinkCaller calls sinks, signed with what is registered at that moment.
type sinkCaller struct {
	registry *registry.Registry
	caller   *callout.Caller
}

func (c sinkCaller) Call(ctx context.Context, to push.Target, r push.Request) (push.Answer, error) {
	of, _ := c.registry.Subscription(to.Subscription) // one that was removed is not called for long
	a, err := c.caller.Do(ctx, callout.Target{Name: "push/" + to.Subscription, URLs: []string{to.URL}, Secrets: of.Secret.At(time.Now())},
		callout.Request{Method: r.Method, ID: r.ID, Header: r.Header, Body: r.Body})
	return push.Answer{Status: a.Status, Header: a.Header, Body: a.Body, RetryAfter: a.RetryAfter}, err
}

// compileFilter reads a subscription's filter. An attribute that an event does not have matches nothing, as CloudEvents' own filters have it.
func compileFilter(text string) (push.Filter, error) {
	condition, err := conditions.Compile(text)
	if err != nil {
		return nil, err
	}
	return func(e *log.Event) (bool, error) {
		holds, err := condition.Holds(e, nil)
		if conditions.Missing(err) {
			return false, nil
		}
		return holds, err
	}, nil
}

// pushOffsets keep what subscriptions have read among the groups of the Kafka API.
type pushOffsets struct{ *kafkaapi.Server }

func (o pushOffsets) Committed(ctx context.Context, group string) (map[log.Partition]push.Committed, error) {
	at, err := o.Server.Committed(ctx, group)
	all := make(map[log.Partition]push.Committed, len(at))
	for p, c := range at {
		all[p] = push.Committed(c)
	}
	return all, err
}

func (o pushOffsets) Commit(ctx context.Context, group string, at map[log.Partition]push.Committed) error {
	all := make(map[log.Partition]kafkaapi.Committed, len(at))
	for p, c := range at {
		all[p] = kafkaapi.Committed(c)
	}
	return o.Server.Commit(ctx, group, all)
}

// How long a group is given to notice that there is a replay topic, and how often it is looked whether it has.
const (
	replayNoticed = 5 * time.Second
	replayLook    = 100 * time.Millisecond
)

// takesReplays says why a group would not take what is sent again.
func (s *server) takesReplays(ctx context.Context, group, topic string) error {
	if name, ok := push.OfGroup(group); ok {
		of, ok := s.core.Registry.Subscription(name)
		switch {
		case !ok:
			return fmt.Errorf("there is no subscription %s any more; register it with PUT /v1/subscriptions/%s, and ask again", name, name)
		case of.Topic != topic:
			return fmt.Errorf("subscription %s is one of topic %s now; produce the record to a topic that its reader knows", name, of.Topic)
		}
		return nil
	}
	replays := consumers.ReplayTopic(topic)
	ctx, cancel := context.WithTimeout(ctx, replayNoticed)
	defer cancel()
	look := time.NewTicker(replayLook)
	defer look.Stop()
	for !s.kafka.Load().Reads(ctx, group, replays) {
		select {
		case <-look.C:
		case <-ctx.Done():
			return fmt.Errorf("group %s does not read %s: run its service with consumers.Options.Replays and ask again, or produce the record to %s once more, "+
				"where every group reads it", group, replays, topic)
		}
	}
	return nil
}

// groupHasTaken asks what a group is done with.
func (s *server) groupHasTaken(ctx context.Context, group string) (parked.Taken, error) {
	at, err := s.kafka.Load().Committed(ctx, group)
	progress := func(remark string) string { return remark }
	if _, ok := push.OfGroup(group); ok {
		progress = push.Progress
	}
	return func(p consumers.Place) bool {
		c, ok := at[p.Partition]
		return ok && (p.Offset < c.Next || consumers.Done(progress(c.Remark), p.Offset))
	}, err
}
