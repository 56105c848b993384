package kafkaapi

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/embedded"
)

// What ListOffsets asks for instead of a time.
const (
	offsetLatest        = -1
	offsetEarliest      = -2
	offsetMaxTime       = -3
	offsetEarliestLocal = -4 // all of the log is local
)

// found is an answer of ListOffsets. Kafka's way to say that there is no such record is -1 everywhere.
type found struct {
	offset log.Offset
	time   int64
	epoch  int32
}

var notFound = found{-1, -1, embedded.NoEpoch}

func (s *Server) listOffsets(ctx context.Context, _ *conn, q *kmsg.ListOffsetsRequest) *kmsg.ListOffsetsResponse {
	r := kmsg.NewPtrListOffsetsResponse()
	r.Version = q.Version
	for i := range q.Topics {
		t := &q.Topics[i]
		rt := kmsg.NewListOffsetsResponseTopic()
		rt.Topic = t.Topic
		for j := range t.Partitions {
			p := &t.Partitions[j]
			rp := kmsg.NewListOffsetsResponseTopicPartition()
			rp.Partition = p.Partition
			o, err := s.offset(ctx, log.Partition{Topic: t.Topic, Index: p.Partition}, p)
			if err != nil {
				o = notFound
				rp.ErrorCode, _ = answer(err)
			}
			rp.Offset, rp.Timestamp, rp.LeaderEpoch = int64(o.offset), o.time, o.epoch
			rt.Partitions = append(rt.Partitions, rp)
		}
		r.Topics = append(r.Topics, rt)
	}
	return r
}

func (s *Server) offset(ctx context.Context, at log.Partition, q *kmsg.ListOffsetsRequestTopicPartition) (found, error) {
	l := s.o.Log
	first, end, err := l.Bounds(ctx, at)
	if err == nil {
		err = s.checkEpoch(q.CurrentLeaderEpoch)
	}
	if err != nil {
		return notFound, err
	}
	switch {
	case q.Timestamp == offsetLatest:
		return found{end, -1, l.Epoch()}, nil
	case q.Timestamp == offsetEarliest || q.Timestamp == offsetEarliestLocal:
		return s.earliest(at, first, end)
	case q.Timestamp == offsetMaxTime:
		o, t, ok, err := l.Latest(ctx, at)
		if err != nil || !ok {
			return notFound, err
		}
		return found{o, t.UnixMilli(), s.epochAt(at, o)}, nil
	case q.Timestamp < 0: // of logs with remote storage
		return notFound, nil
	}
	o, err := l.OffsetAt(ctx, at, time.UnixMilli(q.Timestamp))
	if err != nil || o >= end {
		return notFound, err
	}
	return s.dated(ctx, at, o)
}

func (s *Server) earliest(at log.Partition, first, end log.Offset) (found, error) {
	if first == end {
		return found{first, -1, s.o.Log.Epoch()}, nil
	}
	return found{first, -1, s.epochAt(at, first)}, nil
}

// epochAt returns the leader epoch of a record that is there.
func (s *Server) epochAt(at log.Partition, o log.Offset) int32 {
	b, _, err := s.o.Log.ReadRaw(nil, at, o, 1, true)
	if err != nil || len(b) == 0 {
		return embedded.NoEpoch
	}
	return log.Batch(b).Epoch()
}

// dated returns a record's offset with its time.
func (s *Server) dated(ctx context.Context, at log.Partition, o log.Offset) (found, error) {
	rs, err := s.o.Log.Read(ctx, at, o, 1)
	if errors.Is(err, log.ErrOffsetOutOfRange) { // trimmed meanwhile
		return notFound, nil
	}
	if err != nil {
		return notFound, err
	}
	return found{o, rs[0].Time.UnixMilli(), s.epochAt(at, o)}, nil
}

// offsetForLeaderEpoch is how a client finds out that what it has read is no longer what is there (K4).
func (s *Server) offsetForLeaderEpoch(ctx context.Context, _ *conn, q *kmsg.OffsetForLeaderEpochRequest) *kmsg.OffsetForLeaderEpochResponse {
	r := kmsg.NewPtrOffsetForLeaderEpochResponse()
	r.Version = q.Version
	for i := range q.Topics {
		t := &q.Topics[i]
		rt := kmsg.NewOffsetForLeaderEpochResponseTopic()
		rt.Topic = t.Topic
		for j := range t.Partitions {
			p := &t.Partitions[j]
			rp := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
			rp.Partition, rp.LeaderEpoch, rp.EndOffset = p.Partition, embedded.NoEpoch, embedded.NoEpoch
			epoch, end, err := s.o.Log.EpochEnd(ctx, log.Partition{Topic: t.Topic, Index: p.Partition}, p.LeaderEpoch)
			if err == nil {
				err = s.checkEpoch(p.CurrentLeaderEpoch)
			}
			if err == nil {
				rp.LeaderEpoch, rp.EndOffset = epoch, int64(end)
			}
			rp.ErrorCode, _ = answer(err)
			rt.Partitions = append(rt.Partitions, rp)
		}
		r.Topics = append(r.Topics, rt)
	}
	return r
}
