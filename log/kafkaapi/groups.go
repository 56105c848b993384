package kafkaapi

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/remitlog/remit/log/kafkaapi/groups"
)

// groupMin are the oldest versions of requests of groups: Kafka's own.
var groupMin = map[int16]int16{8: 2, 9: 1, keyJoinGroup: 0, 12: 0, 13: 0, keySyncGroup: 0, 15: 0, 16: 0, 42: 0, 47: 0}

// openGroups takes up the consumer groups that the log has.
func (s *Server) openGroups() (err error) {
	o := s.o.Groups
	o.Store, o.Partitions, o.Logger = s.o.Log, s.partitions, s.o.Logger
	if s.groups, err = groups.New(o); err != nil {
		return fmt.Errorf("kafkaapi: %w", err)
	}
	return nil
}

// partitions returns how many a topic has, 0 if there is none.
func (s *Server) partitions(topic string) int {
	c, err := s.o.Log.Topic(s.ctx, topic)
	if err != nil {
		return 0
	}
	return c.Partitions
}

// group answers a request of groups. Joins and syncs wait, until the client has left.
func (s *Server) group(ctx context.Context, client groups.Client, q kmsg.Request) kmsg.Response {
	if r := refuseReserved(q); r != nil {
		return r
	}
	g := s.groups
	switch q := q.(type) {
	case *kmsg.JoinGroupRequest:
		return g.JoinGroup(ctx, client, q)
	case *kmsg.SyncGroupRequest:
		return g.SyncGroup(ctx, client, q)
	case *kmsg.HeartbeatRequest:
		return g.Heartbeat(ctx, client, q)
	case *kmsg.LeaveGroupRequest:
		return g.LeaveGroup(ctx, client, q)
	case *kmsg.OffsetCommitRequest:
		return g.OffsetCommit(ctx, client, q)
	case *kmsg.OffsetFetchRequest:
		return g.OffsetFetch(ctx, client, q)
	case *kmsg.OffsetDeleteRequest:
		return g.OffsetDelete(ctx, client, q)
	case *kmsg.DescribeGroupsRequest:
		return g.DescribeGroups(ctx, client, q)
	case *kmsg.ListGroupsRequest:
		return g.ListGroups(ctx, client, q)
	case *kmsg.DeleteGroupsRequest:
		return g.DeleteGroups(ctx, client, q)
	default:
		return nil
	}
}

// DeleteTopic removes a topic, tells [Options].Deleted, and removes what groups have committed of it. Every door that deletes topics goes through it.
func (s *Server) DeleteTopic(ctx context.Context, name string) error {
	s.admin.Lock()
	defer s.admin.Unlock()
	if err := s.o.Log.DeleteTopic(ctx, name); err != nil {
		return err
	}
	s.o.Deleted(name)
	return s.groups.TopicDeleted(ctx, name)
}
