package kafkaapi

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/remitlog/remit/log"
)

// topicID is what clients know a topic by beside its name: 12 bytes of the cluster id, and the topic's number. A topic that is made again
// has another. All zero: there is no such topic.
func (s *Server) topicID(name string) (id [16]byte) {
	if n := s.o.Log.TopicID(name); n != 0 {
		copy(id[:], s.topicIDs[:])
		binary.BigEndian.PutUint32(id[12:], n)
	}
	return id
}

// nameOf returns the name of a topic that is asked for by name, or by id.
func (s *Server) nameOf(name string, id [16]byte, byID bool) (string, error) {
	if !byID {
		return name, nil
	}
	if bytes.Equal(id[:12], s.topicIDs[:]) {
		if name = s.o.Log.TopicOf(binary.BigEndian.Uint32(id[12:])); name != "" {
			return name, nil
		}
	}
	return "", refuse(kerr.UnknownTopicID, "there is no topic of this id; ask for metadata again")
}

// checkEpoch holds the leader epoch that a client knows against that of this start. Negative: it knows none.
func (s *Server) checkEpoch(known int32) error {
	switch now := s.o.Log.Epoch(); {
	case known < 0 || known == now:
		return nil
	case known < now:
		return refuse(kerr.FencedLeaderEpoch, "the log was started again; ask for metadata again")
	default:
		return refuse(kerr.UnknownLeaderEpoch, "this log has not come to that epoch; ask for metadata again")
	}
}

// address is where a client is told to connect to.
func (s *Server) address(c *conn) (host string, port int32) {
	at := s.o.Advertise
	if at == "" {
		at = c.nc.LocalAddr().String()
	}
	host, port, _ = hostPort(at)
	return host, port
}

// Operations as bits, for clients that ask what they may do.
const (
	clusterOperations = 1<<5 | 1<<7 | 1<<8 | 1<<9 | 1<<10 | 1<<11 | 1<<12       // create, alter, describe, cluster action, configs, idempotent write
	topicOperations   = 1<<3 | 1<<4 | 1<<5 | 1<<6 | 1<<7 | 1<<8 | 1<<10 | 1<<11 // read, write, create, delete, alter, describe, configs
	ownOperations     = 1<<3 | hiddenOperations                                 // read
	hiddenOperations  = 1<<8 | 1<<10                                            // describe, describe configs
	notAsked          = -1 << 31
)

func (s *Server) metadata(ctx context.Context, c *conn, q *kmsg.MetadataRequest) *kmsg.MetadataResponse {
	r := kmsg.NewPtrMetadataResponse()
	r.Version = q.Version
	b := kmsg.NewMetadataResponseBroker()
	b.NodeID = NodeID
	b.Host, b.Port = s.address(c)
	r.Brokers, r.ClusterID, r.ControllerID = append(r.Brokers, b), kmsg.StringPtr(s.cluster), NodeID
	r.AuthorizedOperations = notAsked
	if q.IncludeClusterAuthorizedOperations {
		r.AuthorizedOperations = clusterOperations
	}
	if q.Topics == nil || q.Version == 0 && len(q.Topics) == 0 {
		all, err := s.o.Log.Topics(ctx)
		if err != nil {
			r.ErrorCode = codeOf(err)
		}
		for _, t := range all {
			r.Topics = append(r.Topics, s.describe(t, q.IncludeTopicAuthorizedOperations))
		}
		return r
	}
	for i := range q.Topics {
		r.Topics = append(r.Topics, s.find(ctx, q, &q.Topics[i]))
	}
	return r
}

// find describes a topic that was asked for, and makes it if that is wished.
func (s *Server) find(ctx context.Context, q *kmsg.MetadataRequest, t *kmsg.MetadataRequestTopic) kmsg.MetadataResponseTopic {
	var name string
	if t.Topic != nil {
		name = *t.Topic
	}
	name, err := s.nameOf(name, t.TopicID, t.Topic == nil)
	var config log.TopicConfig
	if err == nil {
		config, err = s.o.Log.Topic(ctx, name)
	}
	asked := errors.Is(err, log.ErrUnknownTopic) && (q.AllowAutoTopicCreation || q.Version < 4)
	switch {
	case asked && log.Reserved(name): // a client asks for what is unknown again, until it gives up half a minute later
		err = reservedError(name)
	case asked && s.o.AutoCreate:
		config, err = s.create(ctx, log.TopicConfig{Name: strings.Clone(name), Partitions: s.o.Partitions})
		if errors.Is(err, log.ErrTopicExists) { // another call was faster
			config, err = s.o.Log.Topic(ctx, name)
		}
	}
	if err != nil {
		mt := kmsg.NewMetadataResponseTopic()
		mt.ErrorCode, _ = answer(err)
		mt.Topic, mt.TopicID, mt.AuthorizedOperations = t.Topic, t.TopicID, notAsked
		return mt
	}
	return s.describe(config, q.IncludeTopicAuthorizedOperations)
}

func (s *Server) describe(c log.TopicConfig, operations bool) kmsg.MetadataResponseTopic {
	t := kmsg.NewMetadataResponseTopic()
	t.Topic, t.TopicID, t.IsInternal = kmsg.StringPtr(c.Name), s.topicID(c.Name), internal(c.Name)
	t.AuthorizedOperations = notAsked
	if operations {
		switch {
		case log.Hidden(c.Name):
			t.AuthorizedOperations = hiddenOperations
		case log.Reserved(c.Name):
			t.AuthorizedOperations = ownOperations
		default:
			t.AuthorizedOperations = topicOperations
		}
	}
	self := []int32{NodeID}
	t.Partitions = make([]kmsg.MetadataResponseTopicPartition, c.Partitions)
	for i := range t.Partitions {
		p := kmsg.NewMetadataResponseTopicPartition()
		p.Partition, p.Leader, p.LeaderEpoch = int32(i), NodeID, s.o.Log.Epoch()
		p.Replicas, p.ISR, p.OfflineReplicas = self, self, []int32{}
		t.Partitions[i] = p
	}
	return t
}

// internal topics are left out where a client subscribes to all that match.
func internal(topic string) bool { return log.Reserved(topic) && topic != log.PaymentsTopic }

// create makes a topic; log.ErrTopicExists if there is one of that name.
func (s *Server) create(ctx context.Context, c log.TopicConfig) (log.TopicConfig, error) {
	s.admin.Lock()
	defer s.admin.Unlock()
	if _, err := s.o.Log.Topic(ctx, c.Name); !errors.Is(err, log.ErrUnknownTopic) {
		if err == nil {
			err = fmt.Errorf("kafkaapi: %w: %s; use it, or another name", log.ErrTopicExists, c.Name)
		}
		return c, err
	}
	return c, s.o.Log.CreateTopic(ctx, c)
}

func (s *Server) describeCluster(_ context.Context, c *conn, q *kmsg.DescribeClusterRequest) *kmsg.DescribeClusterResponse {
	r := kmsg.NewPtrDescribeClusterResponse()
	r.Version = q.Version
	r.ClusterAuthorizedOperations = notAsked
	if q.Version >= 1 && q.EndpointType != 1 { // brokers; 2 would be controllers
		r.ErrorCode, r.EndpointType = kerr.MismatchedEndpointType.Code, 1
		r.ErrorMessage = kmsg.StringPtr("this is a broker; ask for brokers")
		return r
	}
	b := kmsg.NewDescribeClusterResponseBroker()
	b.NodeID = NodeID
	b.Host, b.Port = s.address(c)
	r.Brokers, r.ClusterID, r.ControllerID, r.EndpointType = append(r.Brokers, b), s.cluster, NodeID, 1
	if q.IncludeClusterAuthorizedOperations {
		r.ClusterAuthorizedOperations = clusterOperations
	}
	return r
}

// Kinds of coordinators.
const (
	coordinatorGroup       = 0
	coordinatorTransaction = 1
)

func (s *Server) findCoordinator(_ context.Context, c *conn, q *kmsg.FindCoordinatorRequest) *kmsg.FindCoordinatorResponse {
	r := kmsg.NewPtrFindCoordinatorResponse()
	r.Version = q.Version
	keys := q.CoordinatorKeys
	if q.Version < 4 {
		keys = []string{q.CoordinatorKey}
	}
	for _, key := range keys {
		k := kmsg.NewFindCoordinatorResponseCoordinator()
		k.Key, k.NodeID, k.Port = key, -1, -1
		switch {
		case q.CoordinatorType == coordinatorTransaction:
			k.ErrorCode, k.ErrorMessage = answer(log.ErrTransactional)
		case q.CoordinatorType != coordinatorGroup:
			k.ErrorCode, k.ErrorMessage = kerr.InvalidRequest.Code, kmsg.StringPtr("only consumer groups have a coordinator here")
		default:
			k.NodeID = NodeID
			k.Host, k.Port = s.address(c)
		}
		r.Coordinators = append(r.Coordinators, k)
	}
	if q.Version < 4 {
		k := r.Coordinators[0]
		r.ErrorCode, r.ErrorMessage, r.NodeID, r.Host, r.Port = k.ErrorCode, k.ErrorMessage, k.NodeID, k.Host, k.Port
	}
	return r
}

// initProducerID gives an id that no producer of this log has or had: the epoch of this start, which no other has, and a count. So it
// needs no write, but for the epoch where a start found the disk full, and a log that was restored from a copy gives none that was given
// after the copy was made.
func (s *Server) initProducerID(_ context.Context, _ *conn, q *kmsg.InitProducerIDRequest) *kmsg.InitProducerIDResponse {
	r := kmsg.NewPtrInitProducerIDResponse()
	r.Version, r.ProducerID, r.ProducerEpoch = q.Version, -1, -1
	if q.TransactionalID != nil {
		r.ErrorCode = codeOf(log.ErrTransactional)
		return r
	}
	epoch, err := s.o.Log.OwnEpoch()
	if err != nil {
		r.ErrorCode = kerr.CoordinatorLoadInProgress.Code // every client asks again for it, also those that take a full disk as final
		return r
	}
	n := s.producer.Add(1)
	if n == 0 {
		r.ErrorCode = kerr.CoordinatorNotAvailable.Code
		s.producer.Add(^uint32(0)) // all are given: only a restart has more
		return r
	}
	r.ProducerID, r.ProducerEpoch = int64(epoch)<<32|int64(n), 0
	return r
}

func (s *Server) listPartitionReassignments(_ context.Context, _ *conn, q *kmsg.ListPartitionReassignmentsRequest) *kmsg.ListPartitionReassignmentsResponse {
	r := kmsg.NewPtrListPartitionReassignmentsResponse() // there is nowhere to move to
	r.Version = q.Version
	return r
}
