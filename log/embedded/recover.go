package embedded

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/cockroachdb/pebble/v2"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/store"
)

// tailRows is how many rows of each partition are looked at when a log is opened. The rest is looked at when it is read.
const tailRows = 8

// load finds what is there, and keys of rows that are to be deleted. All of it is durable: Pebble has flushed and synced what its WALs held
// before it opened.
func (l *Log) load() (stale [][]byte, err error) {
	topics, err := loadTopics(l.store)
	if err != nil {
		return nil, err
	}
	l.topics.Store(&topics)
	for _, t := range topics {
		for _, p := range t.partitions {
			if err := loadPartition(l.store, p); err != nil {
				return nil, err
			}
		}
	}
	if stale, err = loadProducers(l.store, topics); err != nil {
		return nil, err
	}
	l.nextID, err = loadNext(l.store)
	return stale, err
}

func loadTopics(db pebble.Reader) (topics map[string]*topic, err error) {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte{kindTopic}, UpperBound: []byte{kindTopic + 1}})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	topics = map[string]*topic{}
	for it.First(); it.Valid(); it.Next() {
		c, err := decodeTopic(it.Value())
		if err != nil || len(it.Key()) != 5 {
			return nil, &log.CorruptError{File: fmt.Sprintf("row %x", it.Key()), Byte: -1, Detail: fmt.Sprintf("not a topic: %v; a newer version wrote it, or it is corrupt", err)}
		}
		topics[c.Name] = (&topic{id: binary.BigEndian.Uint32(it.Key()[1:])}).resized(c)
	}
	return topics, it.Error()
}

func loadNext(db pebble.Reader) (uint32, error) {
	v, err := get(db, []byte{kindNext}, 4)
	if err != nil || v == nil {
		return 1, err
	}
	return binary.BigEndian.Uint32(v), nil
}

// get returns a row of n bytes, nil if there is none.
func get(db pebble.Reader, key []byte, n int) ([]byte, error) {
	v, c, err := db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	v = append([]byte(nil), v...)
	if err := c.Close(); err != nil || len(v) != n {
		return nil, errors.Join(err, &log.CorruptError{File: fmt.Sprintf("row %x", key), Byte: -1, Detail: fmt.Sprintf("has %d bytes, not %d", len(v), n)})
	}
	return v, nil
}

func loadFirst(db pebble.Reader, p *partition) error {
	v, err := get(db, firstKey(p.topic, p.Index), 8)
	if err != nil || v == nil {
		return err
	}
	p.first.Store(int64(binary.BigEndian.Uint64(v)))
	return nil
}

// loadPartition finds where a partition begins and ends, and that its last rows have no gap.
func loadPartition(db pebble.Reader, p *partition) (err error) {
	if err := loadFirst(db, p); err != nil {
		return err
	}
	first := log.Offset(p.first.Load())
	p.next = first
	it, err := rowsOf(db, p.topic, p.Index, first, math.MaxInt64)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	after := log.Offset(-1)
	for n := 0; n < tailRows && (n == 0 && it.Last() || n > 0 && it.Prev()); n++ {
		r, err := rowAt(it)
		if err != nil {
			return err
		}
		if n == 0 {
			p.next, p.latest, p.total = r.last()+1, r.latest, r.total
		} else if r.last()+1 != after {
			return p.corrupt(r.last()+1, fmt.Errorf("there is no such record; the next is at %d", after))
		}
		after = r.base()
	}
	p.end.Store(int64(p.next))
	return it.Error()
}

// openError says of a store that is refused where its partitions break off, if that can be had.
func openError(o *Options, err error) error {
	err = store.AsCorrupt(err)
	var c *log.CorruptError
	if errors.As(err, &c) && c.FirstUnreadable == nil {
		c.FirstUnreadable = firstUnreadable(o, c)
	}
	return fmt.Errorf("embedded: %s: %w", o.Dir, err)
}

// firstUnreadable reads, changing nothing, from the start of each partition as far as it goes.
func firstUnreadable(o *Options, c *log.CorruptError) map[log.Partition]log.Offset {
	db, err := store.View(o.Dir, o.store(nil), c)
	if err != nil {
		return nil
	}
	defer func() { _ = db.Close() }()
	topics, err := loadTopics(db)
	if err != nil {
		return nil
	}
	m := map[log.Partition]log.Offset{}
	for _, t := range topics {
		for _, p := range t.partitions {
			if loadFirst(db, p) == nil {
				m[p.Partition] = readable(db, p)
			}
		}
	}
	return m
}

// readable returns the first offset of a partition that is not there, or cannot be read.
func readable(db pebble.Reader, p *partition) log.Offset {
	next := log.Offset(p.first.Load())
	it, err := rowsOf(db, p.topic, p.Index, next, math.MaxInt64)
	if err != nil {
		return next
	}
	defer func() { _ = it.Close() }()
	for it.First(); it.Valid(); it.Next() {
		r, err := rowAt(it)
		if err != nil || r.base() > next {
			break
		}
		if _, _, err := log.ParseBatch(r.batch); err != nil {
			break
		}
		next = r.last() + 1
	}
	return next
}
