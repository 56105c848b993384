package groups

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

type topicPartition struct {
	topic     string
	partition int32
}

// offset is what a group has committed of a partition.
type offset struct {
	at          int64
	leaderEpoch int32
	metadata    string
	committed   time.Time
}

const (
	commitNoGroup = 9 // the version of OffsetCommit from which an unknown group is named as such
	fetchGroups   = 8 // the version of OffsetFetch from which it asks for several groups
	noOffset      = -1
)

// mayCommit returns why offsets cannot be committed, nil if they can. Who is no member commits to an empty group only.
func (g *group) mayCommit(req *kmsg.OffsetCommitRequest) *kerr.Error {
	switch {
	case req.Generation < 0 && g.state == StateEmpty:
		return nil
	case req.Generation < 0 && req.MemberID == "" && req.InstanceID == nil:
		return kerr.UnknownMemberID
	}
	if err := g.known(req.MemberID, req.InstanceID); err != nil {
		return err
	}
	switch {
	case req.Generation != g.generation:
		return kerr.IllegalGeneration
	case g.state == StateCompleting: // it has heard of a generation that has no assignment yet
		return kerr.RebalanceInProgress
	}
	return nil
}

// commit takes offsets, AFTER mayCommit. done is told what became of them.
func (g *group) commit(now time.Time, member string, offsets map[topicPartition]offset, done func(*kerr.Error)) {
	if m := g.members[member]; m != nil {
		m.heard(now)
	}
	notes := make([]Note, 0, len(offsets))
	for tp, o := range offsets {
		notes = append(notes, offsetNote(tp, g.id, o))
	}
	g.forgetAt = time.Time{}
	g.later(notes, func(_ time.Time, err error) {
		if err == nil {
			maps.Copy(g.offsets, offsets)
			g.kept = true
		}
		done(unwritten(err))
	})
}

// OffsetCommit answers when the offsets are durable.
func (c *Coordinator) OffsetCommit(ctx context.Context, _ Client, req *kmsg.OffsetCommitRequest) *kmsg.OffsetCommitResponse {
	g, err := c.enter(ctx, req.Group, req.Generation < 0)
	if err != nil {
		if err == errNoGroup && req.Version < commitNoGroup {
			err = kerr.IllegalGeneration
		}
		r, _ := c.weigh(req, err)
		return r
	}
	r, offsets := c.weigh(req, g.mayCommit(req))
	if len(offsets) == 0 {
		c.leave(g)
		return r
	}
	done := make(chan *kerr.Error, 1)
	g.commit(c.o.Now(), req.MemberID, offsets, func(refused *kerr.Error) { done <- refused })
	c.leave(g)
	if refused := await(ctx, done, func() *kerr.Error { return errGone }); refused != nil {
		r, _ = c.weigh(req, refused)
	}
	return r
}

// weigh returns the offsets that can be committed, and the answer if they are. refused stands for all that are not refused for themselves.
func (c *Coordinator) weigh(req *kmsg.OffsetCommitRequest, refused *kerr.Error) (*kmsg.OffsetCommitResponse, map[topicPartition]offset) {
	r := reply[*kmsg.OffsetCommitResponse](req)
	offsets := map[topicPartition]offset{}
	now := c.o.Now()
	for _, t := range req.Topics {
		partitions := int32(c.o.Partitions(t.Topic))
		answer := kmsg.NewOffsetCommitResponseTopic()
		answer.Topic = t.Topic
		for _, p := range t.Partitions {
			to := kmsg.NewOffsetCommitResponseTopicPartition()
			to.Partition = p.Partition
			metadata := ""
			if p.Metadata != nil {
				metadata = *p.Metadata
			}
			switch {
			case p.Partition < 0 || p.Partition >= partitions:
				to.ErrorCode = kerr.UnknownTopicOrPartition.Code
			case refused != nil:
				to.ErrorCode = refused.Code
			case len(metadata) > c.o.OffsetMetadataBytesMax:
				to.ErrorCode = kerr.OffsetMetadataTooLarge.Code
			default:
				offsets[topicPartition{t.Topic, p.Partition}] = offset{p.Offset, p.LeaderEpoch, metadata, now}
			}
			answer.Partitions = append(answer.Partitions, to)
		}
		r.Topics = append(r.Topics, answer)
	}
	return r, offsets
}

// OffsetFetch returns what groups have committed, after what was taken before has become durable. A group that is not there has committed
// nothing.
func (c *Coordinator) OffsetFetch(ctx context.Context, _ Client, req *kmsg.OffsetFetchRequest) *kmsg.OffsetFetchResponse {
	r := reply[*kmsg.OffsetFetchResponse](req)
	if req.Version >= fetchGroups {
		for i := range req.Groups {
			r.Groups = append(r.Groups, c.fetch(ctx, &req.Groups[i]))
		}
		return r
	}
	one := kmsg.NewOffsetFetchRequestGroup()
	one.Group = req.Group
	if req.Topics != nil {
		one.Topics = []kmsg.OffsetFetchRequestGroupTopic{}
	}
	for _, t := range req.Topics {
		one.Topics = append(one.Topics, kmsg.OffsetFetchRequestGroupTopic{Topic: t.Topic, Partitions: t.Partitions})
	}
	of := c.fetch(ctx, &one)
	r.ErrorCode = of.ErrorCode
	for _, t := range of.Topics {
		topic := kmsg.NewOffsetFetchResponseTopic()
		topic.Topic = t.Topic
		for _, p := range t.Partitions {
			to := kmsg.NewOffsetFetchResponseTopicPartition()
			to.Partition, to.Offset, to.LeaderEpoch, to.Metadata, to.ErrorCode = p.Partition, p.Offset, p.LeaderEpoch, p.Metadata, p.ErrorCode
			topic.Partitions = append(topic.Partitions, to)
		}
		r.Topics = append(r.Topics, topic)
	}
	return r
}

func (c *Coordinator) fetch(ctx context.Context, req *kmsg.OffsetFetchRequestGroup) kmsg.OffsetFetchResponseGroup {
	r := kmsg.NewOffsetFetchResponseGroup()
	r.Group = req.Group
	g, err := c.enter(ctx, req.Group, false)
	switch {
	case err == errNoGroup:
		r.Topics = fetched(nil, req.Topics)
		return r
	case err != nil:
		r.ErrorCode = err.Code
		return r
	}
	answer := make(chan []kmsg.OffsetFetchResponseGroupTopic, 1)
	g.settled(func() { answer <- fetched(g.offsets, req.Topics) })
	c.leave(g)
	select {
	case r.Topics = <-answer:
	case <-ctx.Done():
		r.ErrorCode = errGone.Code
	}
	return r
}

// fetched returns the offsets that are asked for, all if topics is nil.
func fetched(offsets map[topicPartition]offset, topics []kmsg.OffsetFetchRequestGroupTopic) (answers []kmsg.OffsetFetchResponseGroupTopic) {
	if topics == nil {
		topics = topicsOf(offsets)
	}
	for _, t := range topics {
		answer := kmsg.NewOffsetFetchResponseGroupTopic()
		answer.Topic = t.Topic
		for _, p := range t.Partitions {
			to := kmsg.NewOffsetFetchResponseGroupTopicPartition()
			o, ok := offsets[topicPartition{t.Topic, p}]
			if !ok {
				o = offset{at: noOffset, leaderEpoch: -1}
			}
			to.Partition, to.Offset, to.LeaderEpoch, to.Metadata = p, o.at, o.leaderEpoch, &o.metadata
			answer.Partitions = append(answer.Partitions, to)
		}
		answers = append(answers, answer)
	}
	return answers
}

func topicsOf(offsets map[topicPartition]offset) (topics []kmsg.OffsetFetchRequestGroupTopic) {
	sorted := slices.SortedFunc(maps.Keys(offsets), func(a, b topicPartition) int {
		return cmp.Or(strings.Compare(a.topic, b.topic), cmp.Compare(a.partition, b.partition))
	})
	for _, tp := range sorted {
		if n := len(topics); n == 0 || topics[n-1].Topic != tp.topic {
			topics = append(topics, kmsg.OffsetFetchRequestGroupTopic{Topic: tp.topic})
		}
		t := &topics[len(topics)-1]
		t.Partitions = append(t.Partitions, tp.partition)
	}
	return topics
}

// Reads reports whether a group reads a topic: a member is subscribed to it, or something of it is committed.
func (c *Coordinator) Reads(ctx context.Context, id, topic string) bool {
	g, err := c.enter(ctx, id, false)
	if err != nil {
		return false
	}
	defer c.leave(g)
	for tp := range g.offsets {
		if tp.topic == topic {
			return true
		}
	}
	return len(g.members) > 0 && g.subscribed(topic)
}

// OffsetDelete drops offsets of topics that no member of the group reads.
func (c *Coordinator) OffsetDelete(ctx context.Context, _ Client, req *kmsg.OffsetDeleteRequest) *kmsg.OffsetDeleteResponse {
	r := reply[*kmsg.OffsetDeleteResponse](req)
	g, err := c.enter(ctx, req.Group, false)
	if err != nil {
		r.ErrorCode = err.Code
		return r
	}
	if g.state != StateEmpty && g.kind != "consumer" {
		c.leave(g)
		r.ErrorCode = kerr.NonEmptyGroup.Code
		return r
	}
	var drop []topicPartition
	for _, t := range req.Topics {
		partitions := int32(c.o.Partitions(t.Topic))
		answer := kmsg.NewOffsetDeleteResponseTopic()
		answer.Topic = t.Topic
		for _, p := range t.Partitions {
			to := kmsg.NewOffsetDeleteResponseTopicPartition()
			to.Partition = p.Partition
			switch {
			case p.Partition < 0 || p.Partition >= partitions:
				to.ErrorCode = kerr.UnknownTopicOrPartition.Code
			case g.state != StateEmpty && g.subscribed(t.Topic):
				to.ErrorCode = kerr.GroupSubscribedToTopic.Code
			default:
				drop = append(drop, topicPartition{t.Topic, p.Partition})
			}
			answer.Partitions = append(answer.Partitions, to)
		}
		r.Topics = append(r.Topics, answer)
	}
	done := make(chan *kerr.Error, 1)
	g.dropOffsets(drop, func(refused *kerr.Error) { done <- refused })
	c.leave(g)
	if refused := await(ctx, done, func() *kerr.Error { return errGone }); refused != nil {
		r.ErrorCode, r.Topics = refused.Code, nil
	}
	return r
}

// dropOffsets drops offsets. Of those that are not there the notes are dropped too: a commit may be on its way.
func (g *group) dropOffsets(drop []topicPartition, done func(*kerr.Error)) {
	notes := make([]Note, len(drop))
	for i, tp := range drop {
		notes[i].Key = offsetKey(tp, g.id)
	}
	g.later(notes, func(_ time.Time, err error) {
		if err == nil {
			for _, tp := range drop {
				delete(g.offsets, tp)
			}
		}
		done(unwritten(err))
	})
}

// TopicDeleted drops all offsets of a topic, durably. It is called AFTER the topic is gone, so that nobody commits to it any more; a topic of
// the same name may be made once it has returned. What it does not come to is done by the next New.
//
// Errors: of the store, or ctx's own.
func (c *Coordinator) TopicDeleted(ctx context.Context, topic string) error {
	c.mu.Lock()
	gs := slices.Collect(maps.Values(c.groups))
	c.mu.Unlock()
	done := make(chan *kerr.Error, len(gs))
	for _, g := range gs {
		g.mu.Lock()
		g.settled(func() { // commits that were taken while the topic was there are done
			var drop []topicPartition
			for tp := range g.offsets {
				if tp.topic == topic {
					drop = append(drop, tp)
				}
			}
			if len(drop) == 0 {
				done <- nil
				return
			}
			g.dropOffsets(drop, func(refused *kerr.Error) { done <- refused })
		})
		c.leave(g)
	}
	for range gs {
		select {
		case refused := <-done:
			if refused != nil {
				return refused
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
