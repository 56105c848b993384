package embedded

import (
	"github.com/cockroachdb/pebble/v2"

	"github.com/remitlog/remit/log"
)

// NotesWaited reports whether a call of Notes waits for notes that are being put.
func (l *Log) NotesWaited() bool {
	if !l.noting.TryRLock() {
		return true
	}
	l.noting.RUnlock()
	return false
}

// Producers returns how many are remembered of a partition, and how many rows of producers there are.
func (l *Log) Producers(at log.Partition) (known, rows int) {
	p, err := find(*l.topics.Load(), at)
	if err != nil {
		panic(err)
	}
	it, err := l.store.NewIter(&pebble.IterOptions{LowerBound: []byte{kindMade}, UpperBound: []byte{kindMade + 1}})
	if err != nil {
		panic(err)
	}
	for it.First(); it.Valid(); it.Next() {
		rows++
	}
	if err := it.Close(); err != nil {
		panic(err)
	}
	l.giving.Lock()
	defer l.giving.Unlock()
	return len(p.producers.byID), rows
}

// ProducerRow is a row of a producer that has sent one batch.
func ProducerRow(topic uint32, id, seen int64, records int32, base log.Offset) (key, value []byte) {
	p := &producer{seen: seen, last: []sentBatch{{0, records - 1, base}}}
	value = make([]byte, producerRowLen)
	p.put(value)
	return producerKey(topic, 0, id), value
}
