package kafkaapi

import (
	"context"
	"fmt"
	"math"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/embedded"
)

func (s *Server) createTopics(ctx context.Context, _ *conn, q *kmsg.CreateTopicsRequest) *kmsg.CreateTopicsResponse {
	r := kmsg.NewPtrCreateTopicsResponse()
	r.Version = q.Version
	named := map[string]int{}
	for i := range q.Topics {
		named[q.Topics[i].Topic]++
	}
	for i := range q.Topics {
		t := &q.Topics[i]
		rt := kmsg.NewCreateTopicsResponseTopic()
		rt.Topic, rt.NumPartitions, rt.ReplicationFactor = t.Topic, -1, -1
		c, err := s.asked(t)
		switch {
		case named[t.Topic] > 1:
			err = refuse(kerr.InvalidRequest, t.Topic+" is there more than once; name each topic once")
		case err == nil && q.ValidateOnly:
			err = s.creatable(ctx, c)
		case err == nil:
			_, err = s.create(ctx, c)
		}
		if err == nil {
			rt.TopicID, rt.NumPartitions, rt.ReplicationFactor = s.topicID(c.Name), int32(c.Partitions), 1
			rt.Configs = createdConfigs(c)
		}
		rt.ErrorCode, rt.ErrorMessage = answer(err)
		r.Topics = append(r.Topics, rt)
	}
	return r
}

// asked is the configuration that a request asks for.
func (s *Server) asked(t *kmsg.CreateTopicsRequestTopic) (log.TopicConfig, error) {
	c := log.TopicConfig{Name: t.Topic, Partitions: int(t.NumPartitions)}
	switch {
	case log.Reserved(t.Topic):
		return c, reservedError(t.Topic)
	case len(t.ReplicaAssignment) > 0 && (t.NumPartitions != -1 || t.ReplicationFactor != -1):
		return c, refuse(kerr.InvalidRequest, "both numbers and an assignment of replicas; give one of them")
	case len(t.ReplicaAssignment) > 0:
		c.Partitions = len(t.ReplicaAssignment)
		if err := ownAssignment(t.ReplicaAssignment); err != nil {
			return c, err
		}
	case t.ReplicationFactor != -1 && t.ReplicationFactor != 1:
		return c, refuse(kerr.InvalidReplicationFactor, fmt.Sprintf("replication factor %d; there is one node: 1 or -1", t.ReplicationFactor))
	case t.NumPartitions == -1:
		c.Partitions = s.o.Partitions
	}
	if c.Partitions < 1 || c.Partitions > log.PartitionsMax {
		return c, refuse(kerr.InvalidPartitions, fmt.Sprintf("%d partitions; 1 to %d", c.Partitions, log.PartitionsMax))
	}
	for _, set := range t.Configs {
		var err error
		if c, err = configure(c, set.Name, set.Value); err != nil {
			return c, err
		}
	}
	return c, nil
}

func ownAssignment(as []kmsg.CreateTopicsRequestTopicReplicaAssignment) error {
	seen := map[int32]bool{}
	for i := range as {
		p := as[i].Partition
		if seen[p] || p < 0 || int(p) >= len(as) || len(as[i].Replicas) != 1 || as[i].Replicas[0] != NodeID {
			return refuse(kerr.InvalidReplicaAssignment, fmt.Sprintf("partition %d on %v; name each partition from 0 on once, and put it on node %d", p, as[i].Replicas, NodeID))
		}
		seen[p] = true
	}
	return nil
}

// creatable is create without doing it.
func (s *Server) creatable(ctx context.Context, c log.TopicConfig) error {
	if _, err := s.o.Log.Topic(ctx, c.Name); err == nil {
		return fmt.Errorf("kafkaapi: %w: %s", log.ErrTopicExists, c.Name)
	}
	return embedded.CheckTopic(c)
}

func createdConfigs(c log.TopicConfig) []kmsg.CreateTopicsResponseTopicConfig {
	var all []kmsg.CreateTopicsResponseTopicConfig
	for _, v := range configsOf(c) {
		k := kmsg.NewCreateTopicsResponseTopicConfig()
		k.Name, k.Value, k.ReadOnly, k.Source = v.name, kmsg.StringPtr(v.value), v.readOnly, int8(v.source)
		all = append(all, k)
	}
	return all
}

func (s *Server) deleteTopics(ctx context.Context, _ *conn, q *kmsg.DeleteTopicsRequest) *kmsg.DeleteTopicsResponse {
	r := kmsg.NewPtrDeleteTopicsResponse()
	r.Version = q.Version
	topics := q.Topics
	for i := range q.TopicNames {
		t := kmsg.NewDeleteTopicsRequestTopic()
		t.Topic = &q.TopicNames[i]
		topics = append(topics, t)
	}
	for i := range topics {
		t := &topics[i]
		rt := kmsg.NewDeleteTopicsResponseTopic()
		rt.Topic, rt.TopicID = t.Topic, t.TopicID
		var name string
		if t.Topic != nil {
			name = *t.Topic
		}
		name, err := s.nameOf(name, t.TopicID, t.Topic == nil)
		if err == nil {
			rt.Topic = &name
			rt.TopicID = s.topicID(name)
			err = s.delete(ctx, name)
		}
		rt.ErrorCode, rt.ErrorMessage = answer(err)
		r.Topics = append(r.Topics, rt)
	}
	return r
}

func (s *Server) delete(ctx context.Context, name string) error {
	if log.Reserved(name) {
		return reservedError(name)
	}
	if err := s.o.InUse(name); err != nil {
		return refuse(kerr.PolicyViolation, err.Error())
	}
	return s.DeleteTopic(ctx, name)
}

func (s *Server) createPartitions(ctx context.Context, _ *conn, q *kmsg.CreatePartitionsRequest) *kmsg.CreatePartitionsResponse {
	r := kmsg.NewPtrCreatePartitionsResponse()
	r.Version = q.Version
	for i := range q.Topics {
		t := &q.Topics[i]
		rt := kmsg.NewCreatePartitionsResponseTopic()
		rt.Topic = t.Topic
		rt.ErrorCode, rt.ErrorMessage = answer(s.repartition(ctx, t, q.ValidateOnly))
		r.Topics = append(r.Topics, rt)
	}
	return r
}

func (s *Server) repartition(ctx context.Context, t *kmsg.CreatePartitionsRequestTopic, validateOnly bool) error {
	if log.Reserved(t.Topic) {
		return reservedError(t.Topic)
	}
	s.admin.Lock()
	defer s.admin.Unlock()
	c, err := s.o.Log.Topic(ctx, t.Topic)
	if err != nil {
		return err
	}
	if int(t.Count) <= c.Partitions || t.Count > log.PartitionsMax {
		return refuse(kerr.InvalidPartitions, fmt.Sprintf("%d partitions; %s has %d, and at most %d can be had", t.Count, t.Topic, c.Partitions, log.PartitionsMax))
	}
	if t.Assignment != nil && len(t.Assignment) != int(t.Count)-c.Partitions {
		return refuse(kerr.InvalidReplicaAssignment, fmt.Sprintf("replicas of %d partitions, %d are new", len(t.Assignment), int(t.Count)-c.Partitions))
	}
	for _, a := range t.Assignment {
		if len(a.Replicas) != 1 || a.Replicas[0] != NodeID {
			return refuse(kerr.InvalidReplicaAssignment, fmt.Sprintf("there is one node: put every partition on node %d", NodeID))
		}
	}
	if validateOnly {
		return nil
	}
	c.Partitions = int(t.Count)
	return s.o.Log.ConfigureTopic(ctx, c)
}

// toHighWatermark asks DeleteRecords for all that there is.
const toHighWatermark = -1

func (s *Server) deleteRecords(ctx context.Context, _ *conn, q *kmsg.DeleteRecordsRequest) *kmsg.DeleteRecordsResponse {
	r := kmsg.NewPtrDeleteRecordsResponse()
	r.Version = q.Version
	for i := range q.Topics {
		t := &q.Topics[i]
		rt := kmsg.NewDeleteRecordsResponseTopic()
		rt.Topic = t.Topic
		for j := range t.Partitions {
			rp := kmsg.NewDeleteRecordsResponseTopicPartition()
			rp.Partition = t.Partitions[j].Partition
			low, err := s.trim(ctx, log.Partition{Topic: t.Topic, Index: rp.Partition}, log.Offset(t.Partitions[j].Offset))
			rp.LowWatermark = int64(low)
			rp.ErrorCode, _ = answer(err)
			rt.Partitions = append(rt.Partitions, rp)
		}
		r.Topics = append(r.Topics, rt)
	}
	return r
}

// trim returns where the partition begins now; -1 with an error.
func (s *Server) trim(ctx context.Context, at log.Partition, to log.Offset) (log.Offset, error) {
	if log.Reserved(at.Topic) {
		return -1, reservedError(at.Topic)
	}
	_, end, err := s.o.Log.Bounds(ctx, at)
	if err != nil {
		return -1, err
	}
	if to == toHighWatermark {
		to = end
	}
	if err := s.o.Log.Trim(ctx, at, to); err != nil {
		return -1, err
	}
	first, _, err := s.o.Log.Bounds(ctx, at)
	return first, err
}

func (s *Server) describeLogDirs(ctx context.Context, _ *conn, q *kmsg.DescribeLogDirsRequest) *kmsg.DescribeLogDirsResponse {
	r := kmsg.NewPtrDescribeLogDirsResponse()
	r.Version = q.Version
	d := kmsg.NewDescribeLogDirsResponseDir()
	d.Dir = s.o.Dir
	d.TotalBytes, d.UsableBytes = -1, -1
	all, err := s.o.Log.Topics(ctx)
	d.ErrorCode = codeOf(err)
	for _, c := range all {
		wanted, ok := wantedPartitions(q, c)
		if !ok {
			continue
		}
		t := kmsg.NewDescribeLogDirsResponseDirTopic()
		t.Topic = c.Name
		for _, p := range wanted {
			size, err := s.o.Log.Size(ctx, log.Partition{Topic: c.Name, Index: p})
			if err != nil {
				continue // it went meanwhile
			}
			rp := kmsg.NewDescribeLogDirsResponseDirTopicPartition()
			rp.Partition, rp.Size = p, size
			t.Partitions = append(t.Partitions, rp)
		}
		d.Topics = append(d.Topics, t)
	}
	r.Dirs = append(r.Dirs, d)
	return r
}

// wantedPartitions are those of a topic that were asked for; all if no topic was named.
func wantedPartitions(q *kmsg.DescribeLogDirsRequest, c log.TopicConfig) (ps []int32, ok bool) {
	if q.Topics == nil {
		for p := range int32(min(c.Partitions, math.MaxInt32)) {
			ps = append(ps, p)
		}
		return ps, true
	}
	for i := range q.Topics {
		if q.Topics[i].Topic != c.Name {
			continue
		}
		ok = true
		for _, p := range q.Topics[i].Partitions {
			if p >= 0 && int(p) < c.Partitions {
				ps = append(ps, p)
			}
		}
	}
	return ps, ok
}
