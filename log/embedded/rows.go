package embedded

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/bits"
	"time"

	"github.com/remitlog/remit/log"
)

// Rows, numbers big-endian. Kinds are for ever.
//
//	records  1 topic:4 partition:4 last:8  ->  latest:8 total:8 and a record batch as it goes on the wire
//	topic    2 topic:4                     ->  its configuration, JSON
//	first    3 topic:4 partition:4         ->  the first offset:8, if it is not 0
//	next     4                             ->  the topic id to give next:4
//	note     5 key                         ->  its value
//	producer 6 topic:4 partition:4 id:8    ->  its last batches; see producers.go
//	epoch    7                             ->  the leader epoch of the last start:4
//
// One Append makes one row of each of its partitions. Its key ends in the offset of its LAST record, so that one SeekGE
// finds the row that holds an offset.
//
// latest is the latest record time, in milliseconds, of this row and all before it: it never falls, whatever the
// clocks of producers did, so a time is found by bisection. total is the length of this row's value and of
// all before it: so is a size.
const (
	kindRecords = 1
	kindTopic   = 2
	kindFirst   = 3
	kindNext    = 4
	kindNote    = 5
	kindMade    = 6
	kindEpoch   = 7

	recordsKeyLen = 17
	lastAt        = 9 // of the key
	rowHeadLen    = 16
)

type row struct {
	latest int64
	total  uint64
	batch  log.Batch // not checked
}

func (r *row) base() log.Offset { return r.batch.Base() }
func (r *row) last() log.Offset { return r.batch.Last() }

// parseRow reads a row's frame: what is needed to walk rows, without the checksum of the records.
func parseRow(key, value []byte) (row, error) {
	if len(value) < rowHeadLen+log.BatchOverhead || len(key) != recordsKeyLen {
		return row{}, fmt.Errorf("a row of %d bytes under a key of %d", len(value), len(key))
	}
	r := row{int64(binary.BigEndian.Uint64(value)), binary.BigEndian.Uint64(value[8:]), log.Batch(value[rowHeadLen:])}
	if last := lastOf(key); r.last() != last || r.base() > last || r.base() < 0 {
		return row{}, fmt.Errorf("a row of offsets %d to %d under the key of %d", r.base(), r.last(), last)
	}
	return r, nil
}

func lastOf(key []byte) log.Offset { return log.Offset(binary.BigEndian.Uint64(key[lastAt:])) }

// recordsKey is the key of the row whose last record is at last.
func recordsKey(topic uint32, index int32, last log.Offset) []byte {
	return putRecordsKey(make([]byte, recordsKeyLen), topic, index, last)
}

func putRecordsKey(b []byte, topic uint32, index int32, last log.Offset) []byte {
	b[0] = kindRecords
	binary.BigEndian.PutUint32(b[1:], topic)
	binary.BigEndian.PutUint32(b[5:], uint32(index))
	binary.BigEndian.PutUint64(b[lastAt:], uint64(last))
	return b
}

func putRowHead(b []byte, latest int64, total uint64) {
	binary.BigEndian.PutUint64(b, uint64(latest))
	binary.BigEndian.PutUint64(b[8:], total)
}

// topicKey is the key of a topic's configuration or, with kindRecords and kindFirst, the prefix of all its rows.
func topicKey(kind byte, topic uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{kind}, topic)
}

func firstKey(topic uint32, index int32) []byte {
	return binary.BigEndian.AppendUint32(topicKey(kindFirst, topic), uint32(index))
}

func offsetRow(o log.Offset) []byte { return binary.BigEndian.AppendUint64(nil, uint64(o)) }

// topicRow is a stored configuration. Its fields' names are for ever.
type topicRow struct {
	Name           string        `json:"name"`
	Partitions     int           `json:"partitions"`
	Retention      time.Duration `json:"retention_ns,omitempty"`
	RetentionBytes int64         `json:"retention_bytes,omitempty"`
}

func encodeTopic(c log.TopicConfig) []byte {
	b, _ := json.Marshal(topicRow(c)) // of strings and numbers: it cannot fail
	return b
}

func decodeTopic(b []byte) (log.TopicConfig, error) {
	var r topicRow
	err := json.Unmarshal(b, &r)
	return log.TopicConfig(r), err
}

func uvarintLen(v int) int { return (bits.Len64(uint64(v)|1) + 6) / 7 }
