package kafkaapi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/kafkaapi/groups"
)

// Committed is what a group has committed of a partition: the next offset to read, and what it has put beside it.
type Committed struct {
	Next   log.Offset
	Remark string
}

// commitVersion is the version of OffsetCommit that remit's own commits are.
const commitVersion = 9

// Commit keeps what a group of remit's own has read; see [log.ReservedGroup]. It is durable when it returns nil. Any tool that shows groups
// shows it.
//
// Errors: log.ErrUnknownTopic; the coordinator's own.
func (s *Server) Commit(ctx context.Context, group string, at map[log.Partition]Committed) error {
	q := kmsg.NewPtrOffsetCommitRequest()
	q.Version, q.Group = commitVersion, group
	for p, c := range at {
		part := kmsg.NewOffsetCommitRequestTopicPartition()
		part.Partition, part.Offset, part.Metadata = p.Index, int64(c.Next), &c.Remark
		i := slices.IndexFunc(q.Topics, func(t kmsg.OffsetCommitRequestTopic) bool { return t.Topic == p.Topic })
		if i < 0 {
			i = len(q.Topics)
			q.Topics = append(q.Topics, kmsg.OffsetCommitRequestTopic{Topic: p.Topic})
		}
		q.Topics[i].Partitions = append(q.Topics[i].Partitions, part)
	}
	for _, t := range s.groups.OffsetCommit(ctx, groups.Client{}, q).Topics {
		for _, p := range t.Partitions {
			switch err := kerr.ErrorForCode(p.ErrorCode); {
			case errors.Is(err, kerr.UnknownTopicOrPartition):
				return &log.TopicError{Partition: log.Partition{Topic: t.Topic, Index: p.Partition}, Err: log.ErrUnknownTopic}
			case err != nil:
				return fmt.Errorf("kafkaapi: group %s: committing %s/%d: %w", group, t.Topic, p.Partition, err)
			}
		}
	}
	return ctx.Err()
}

// Committed returns what a group has committed.
func (s *Server) Committed(ctx context.Context, group string) (map[log.Partition]Committed, error) {
	q := kmsg.NewPtrOffsetFetchRequest()
	q.Group = group
	r := s.groups.OffsetFetch(ctx, groups.Client{}, q)
	if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
		return nil, fmt.Errorf("kafkaapi: group %s: %w", group, err)
	}
	at := map[log.Partition]Committed{}
	for _, t := range r.Topics {
		for _, p := range t.Partitions {
			if p.Offset >= 0 {
				at[log.Partition{Topic: t.Topic, Index: p.Partition}] = Committed{log.Offset(p.Offset), *p.Metadata}
			}
		}
	}
	return at, ctx.Err()
}

// ForgetGroup deletes a group without members, and what it has committed. One that is not there is forgotten.
func (s *Server) ForgetGroup(ctx context.Context, group string) error {
	q := kmsg.NewPtrDeleteGroupsRequest()
	q.Groups = []string{group}
	err := kerr.ErrorForCode(s.groups.DeleteGroups(ctx, groups.Client{}, q).Groups[0].ErrorCode)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return fmt.Errorf("kafkaapi: group %s: deleting: %w", group, err)
	}
	return nil
}

// Groups lists groups whose names begin with prefix, by name.
func (s *Server) Groups(ctx context.Context, prefix string) (names []string) {
	for _, g := range s.groups.ListGroups(ctx, groups.Client{}, kmsg.NewPtrListGroupsRequest()).Groups {
		if strings.HasPrefix(g.Group, prefix) {
			names = append(names, g.Group)
		}
	}
	return names
}

// Reads reports whether a group reads a topic: a member is subscribed to it, or something of it is committed.
func (s *Server) Reads(ctx context.Context, group, topic string) bool {
	return s.groups.Reads(ctx, group, topic)
}

// refuseReserved answers a client that wants to change a group of remit's own; nil if it does not.
func refuseReserved(q kmsg.Request) kmsg.Response {
	denied := kerr.GroupAuthorizationFailed.Code
	switch q := q.(type) {
	case *kmsg.JoinGroupRequest:
		if log.ReservedGroup(q.Group) {
			r := q.ResponseKind().(*kmsg.JoinGroupResponse)
			r.ErrorCode, r.Generation = denied, -1
			return r
		}
	case *kmsg.OffsetCommitRequest:
		if log.ReservedGroup(q.Group) {
			return refuseCommit(q, denied)
		}
	case *kmsg.OffsetDeleteRequest:
		if log.ReservedGroup(q.Group) {
			r := q.ResponseKind().(*kmsg.OffsetDeleteResponse)
			r.ErrorCode = denied
			return r
		}
	case *kmsg.DeleteGroupsRequest:
		if slices.ContainsFunc(q.Groups, log.ReservedGroup) {
			return refuseDelete(q, denied)
		}
	}
	return nil
}

func refuseCommit(q *kmsg.OffsetCommitRequest, code int16) *kmsg.OffsetCommitResponse {
	r := q.ResponseKind().(*kmsg.OffsetCommitResponse)
	for _, t := range q.Topics {
		answer := kmsg.NewOffsetCommitResponseTopic()
		answer.Topic = t.Topic
		for _, p := range t.Partitions {
			to := kmsg.NewOffsetCommitResponseTopicPartition()
			to.Partition, to.ErrorCode = p.Partition, code
			answer.Partitions = append(answer.Partitions, to)
		}
		r.Topics = append(r.Topics, answer)
	}
	return r
}

// refuseDelete refuses all that are named: those beside it can be deleted by themselves.
func refuseDelete(q *kmsg.DeleteGroupsRequest, code int16) *kmsg.DeleteGroupsResponse {
	r := q.ResponseKind().(*kmsg.DeleteGroupsResponse)
	for _, name := range q.Groups {
		to := kmsg.NewDeleteGroupsResponseGroup()
		to.Group, to.ErrorCode = name, code
		r.Groups = append(r.Groups, to)
	}
	return r
}
