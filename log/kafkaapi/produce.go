package kafkaapi

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/embedded"
)

// producing is a produce whose batches are in line.
type producing struct {
	s       *Server
	r       *kmsg.ProduceResponse
	silent  bool // acks=0
	pending []pendingBatch
}

// pendingBatch is one batch on its way, and where its answer goes.
type pendingBatch struct {
	at               log.Partition
	topic, partition int
	raw              *embedded.RawAppend
}

// The acks there are. All of them are durable here.
const (
	acksNone = 0
	acksOne  = 1
	acksAll  = -1
)

// beginProduce puts every batch in line. What is refused is known at once.
func (s *Server) beginProduce(q *kmsg.ProduceRequest) *producing {
	p := &producing{s: s, r: kmsg.NewPtrProduceResponse(), silent: q.Acks == acksNone}
	p.r.Version = q.Version
	var all error
	switch {
	case q.TransactionID != nil:
		all = log.ErrTransactional
	case q.Acks != acksNone && q.Acks != acksOne && q.Acks != acksAll:
		all = refuse(kerr.InvalidRequiredAcks, fmt.Sprintf("acks=%d; 0, 1 and -1 are there, and all write to the disk", q.Acks))
	}
	for i := range q.Topics {
		t := &q.Topics[i]
		rt := kmsg.NewProduceResponseTopic()
		rt.Topic, rt.TopicID = t.Topic, t.TopicID
		name, err := s.nameOf(t.Topic, t.TopicID, q.Version >= 13)
		if err == nil && log.Reserved(name) {
			err = reservedError(name)
		}
		if all != nil {
			err = all
		}
		for j := range t.Partitions {
			rp := kmsg.NewProduceResponseTopicPartition()
			rp.Partition, rp.BaseOffset = t.Partitions[j].Partition, -1
			b := pendingBatch{at: log.Partition{Topic: name, Index: rp.Partition}, topic: i, partition: j}
			if err == nil {
				b.begin(s.o.Log, t.Partitions[j].Records, &rp, &p.pending)
			} else {
				refuseBatch(&rp, err)
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		p.r.Topics = append(p.r.Topics, rt)
	}
	return p
}

// begin puts one batch in line, or refuses it.
func (b pendingBatch) begin(l *embedded.Log, records []byte, rp *kmsg.ProduceResponseTopicPartition, pending *[]pendingBatch) {
	batch, err := oneBatch(records)
	if err != nil {
		refuseBatch(rp, err)
		return
	}
	b.raw = l.AppendRaw(b.at, batch)
	*pending = append(*pending, b)
}

// magicAt is where every format of records says which it is.
const magicAt = 16

func oneBatch(records []byte) (log.Batch, error) {
	if len(records) > magicAt && records[magicAt] != 2 {
		return nil, refuse(kerr.InvalidRecord, fmt.Sprintf("records of format %d; this is a log of record batches, format 2", records[magicAt]))
	}
	batch, rest, err := log.ParseBatch(records)
	if err != nil {
		return nil, refuse(kerr.CorruptMessage, err.Error())
	}
	if len(rest) > 0 {
		return nil, refuse(kerr.InvalidRecord, fmt.Sprintf("%d bytes after the batch; send one batch for a partition at a time", len(rest)))
	}
	return batch, nil
}

func refuseBatch(rp *kmsg.ProduceResponseTopicPartition, err error) {
	rp.ErrorCode, rp.ErrorMessage = answer(err)
	rp.LogStartOffset = -1
}

// finish waits for the disk. An error means that nobody knows, or that nothing can be said any more: the connection is closed.
func (p *producing) finish() (kmsg.Response, error) {
	var fatal error
	for i := range p.pending {
		b := &p.pending[i]
		rp := &p.r.Topics[b.topic].Partitions[b.partition]
		base, err := b.raw.Wait() // of every batch, whatever became of the others
		switch {
		case err == nil:
			rp.BaseOffset = int64(base)
			rp.LogStartOffset = p.s.firstOffset(b.at)
		case ends(err):
			fatal = err
		default:
			refuseBatch(rp, err)
			fatal = orRefused(fatal, p.silent, err)
		}
	}
	if fatal != nil || p.silent {
		return nil, fatal
	}
	return p.r, nil
}

// orRefused: who wants no answer is told by the end of the connection that something was refused, as Kafka does it.
func orRefused(fatal error, silent bool, err error) error {
	if fatal == nil && silent {
		return err
	}
	return fatal
}

func (s *Server) firstOffset(at log.Partition) int64 {
	first, _, err := s.o.Log.Bounds(s.ctx, at)
	if err != nil {
		return -1
	}
	return int64(first)
}
