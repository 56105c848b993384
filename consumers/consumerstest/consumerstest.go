// Package consumerstest has a log in memory for tests of what is built with package consumers: topics, groups, and members whose partitions
// are taken away and given anew. It works under testing/synctest.
package consumerstest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/remitlog/remit/log"
)

// ErrGone: the member was killed, or has closed.
var ErrGone = errors.New("consumerstest: the member is gone")

// ErrNotOwner: the partition is another member's.
var ErrNotOwner = errors.New("consumerstest: the partition is not this member's")

// Broker keeps topics and groups. All methods are safe for concurrent use.
type Broker struct {
	mu        sync.Mutex
	changed   chan struct{} // closed when something did
	topics    map[string]int
	records   map[log.Partition][]log.Record
	committed map[string]map[log.Partition]commitment // by group
	members   []*Reader
}

// NewBroker makes topics with so many partitions.
func NewBroker(topics map[string]int) *Broker {
	return &Broker{changed: make(chan struct{}), topics: maps.Clone(topics), records: map[log.Partition][]log.Record{},
		committed: map[string]map[log.Partition]commitment{}}
}

type commitment struct {
	next     log.Offset
	progress string
}

// Append adds records to their partitions.
func (b *Broker) Append(records ...log.Record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range records {
		r.Offset = log.Offset(len(b.records[r.Partition]))
		if r.Time.IsZero() {
			r.Time = time.Now().Truncate(time.Millisecond)
		}
		b.records[r.Partition] = append(b.records[r.Partition], r)
	}
	b.wake()
}

// Records returns what a topic has, partition by partition.
func (b *Broker) Records(topic string) (records []log.Record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.topics[topic] {
		records = append(records, b.records[log.Partition{Topic: topic, Index: int32(i)}]...)
	}
	return records
}

// Committed returns the next offset of a group.
func (b *Broker) Committed(group string, p log.Partition) log.Offset {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.committed[group][p].next
}

// SetCommitted sets it, also backwards, as if commits had been lost. What was done beyond it is forgotten.
func (b *Broker) SetCommitted(group string, p log.Partition, next log.Offset) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.commit(group, p, commitment{next: next})
}

func (b *Broker) commit(group string, p log.Partition, c commitment) {
	if b.committed[group] == nil {
		b.committed[group] = map[log.Partition]commitment{}
	}
	b.committed[group][p] = c
}

// wake tells all that wait.
func (b *Broker) wake() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// Reader makes a member; it joins when a Consumer runs it.
func (b *Broker) Reader() *Reader {
	return &Reader{broker: b, owned: map[log.Partition]log.Offset{}, progress: map[log.Partition]string{},
		target: map[log.Partition]bool{}, paused: map[log.Partition]bool{}}
}

// balance shares the partitions of a group out anew. Owners keep what they have until they have let it go.
func (b *Broker) balance(group string) {
	var members []*Reader
	topics := map[string]bool{}
	for _, m := range b.members {
		if m.group == group {
			members = append(members, m)
			m.target = map[log.Partition]bool{}
			for _, t := range m.topics {
				topics[t] = true
			}
		}
	}
	n := 0
	for _, topic := range slices.Sorted(maps.Keys(topics)) {
		for i := range b.topics[topic] {
			if len(members) > 0 {
				members[n%len(members)].target[log.Partition{Topic: topic, Index: int32(i)}] = true
			}
			n++
		}
	}
	b.wake()
}

// Reader is a member of a group; it is a consumers.Reader.
type Reader struct {
	broker   *Broker
	group    string
	topics   []string
	revoked  func([]log.Partition, bool)
	owned    map[log.Partition]log.Offset // and where it reads next
	progress map[log.Partition]string     // as it was when it was taken
	target   map[log.Partition]bool
	paused   map[log.Partition]bool
	lost     []log.Partition // that it has not been told of
	gone     bool
	err      error

	// CommitFails and ProduceFails, if set, are asked before each; an error is returned and nothing is done.
	CommitFails  func(next map[log.Partition]log.Offset) error
	ProduceFails func(log.Record) error
}

// Join implements consumers.Reader.
func (r *Reader) Join(group string, topics []string, revoked func([]log.Partition, bool)) error {
	b := r.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	r.group, r.topics, r.revoked = group, topics, revoked
	b.members = append(b.members, r)
	b.balance(group)
	return nil
}

// Poll implements consumers.Reader.
func (r *Reader) Poll(ctx context.Context, most int) ([]log.Record, error) {
	b := r.broker
	for {
		b.mu.Lock()
		if r.gone || r.err != nil {
			defer b.mu.Unlock()
			if r.err != nil {
				return nil, r.err
			}
			return nil, ErrGone
		}
		if r.letGo() {
			continue
		}
		r.take()
		if records := r.read(most); len(records) > 0 {
			b.mu.Unlock()
			return records, nil
		}
		changed := b.changed
		b.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// letGo tells of partitions that are taken away or lost, without the lock, and reports whether there were any; then the lock is free.
func (r *Reader) letGo() bool {
	b := r.broker
	if lost := r.lost; len(lost) > 0 {
		r.lost = nil
		b.mu.Unlock()
		r.revoked(lost, true)
		return true
	}
	var taken []log.Partition
	for p := range r.owned {
		if !r.target[p] {
			taken = append(taken, p)
		}
	}
	if len(taken) == 0 {
		return false
	}
	b.mu.Unlock()
	r.revoked(taken, false)
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range taken {
		delete(r.owned, p)
	}
	b.wake()
	return true
}

// take makes what nobody owns its own.
func (r *Reader) take() {
	b := r.broker
	for p := range r.target {
		if _, mine := r.owned[p]; !mine && !slices.ContainsFunc(b.members, func(m *Reader) bool {
			_, theirs := m.owned[p]
			return theirs && m.group == r.group
		}) {
			c := b.committed[r.group][p]
			r.owned[p], r.progress[p] = c.next, c.progress
		}
	}
}

func (r *Reader) read(most int) (records []log.Record) {
	byPlace := func(a, b log.Partition) int {
		if c := strings.Compare(a.Topic, b.Topic); c != 0 {
			return c
		}
		return int(a.Index - b.Index)
	}
	for _, p := range slices.SortedFunc(maps.Keys(r.owned), byPlace) {
		all := r.broker.records[p]
		for !r.paused[p] && len(records) < most && int(r.owned[p]) < len(all) {
			records = append(records, all[r.owned[p]])
			r.owned[p]++
		}
	}
	return records
}

// Pause implements consumers.Reader.
func (r *Reader) Pause(partitions ...log.Partition) { r.pause(partitions, true) }

// Resume implements consumers.Reader.
func (r *Reader) Resume(partitions ...log.Partition) { r.pause(partitions, false) }

func (r *Reader) pause(partitions []log.Partition, paused bool) {
	r.broker.mu.Lock()
	defer r.broker.mu.Unlock()
	for _, p := range partitions {
		r.paused[p] = paused
	}
	r.broker.wake()
}

// Commit implements consumers.Reader.
func (r *Reader) Commit(_ context.Context, next map[log.Partition]log.Offset, progress map[log.Partition]string) error {
	if r.CommitFails != nil {
		if err := r.CommitFails(next); err != nil {
			return err
		}
	}
	b := r.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.gone {
		return ErrGone
	}
	for p := range next {
		if _, mine := r.owned[p]; !mine {
			return fmt.Errorf("%w: %s/%d", ErrNotOwner, p.Topic, p.Index)
		}
	}
	for p, at := range next {
		b.commit(r.group, p, commitment{at, progress[p]})
	}
	return nil
}

// Progress implements consumers.Reader.
func (r *Reader) Progress(p log.Partition) string {
	r.broker.mu.Lock()
	defer r.broker.mu.Unlock()
	return r.progress[p]
}

// Produce implements consumers.Reader.
func (r *Reader) Produce(_ context.Context, rec log.Record) error {
	if r.ProduceFails != nil {
		if err := r.ProduceFails(rec); err != nil {
			return err
		}
	}
	r.broker.Produce(rec)
	return nil
}

// Produce adds a record to the partition of its key, making its topic if it is not there: with one partition, which members are given.
func (b *Broker) Produce(rec log.Record) {
	b.mu.Lock()
	if b.topics[rec.Topic] == 0 {
		b.topics[rec.Topic] = 1
		groups := map[string]bool{}
		for _, m := range b.members {
			groups[m.group] = true
		}
		for g := range groups {
			b.balance(g)
		}
	}
	partitions := b.topics[rec.Topic]
	b.mu.Unlock()
	if len(rec.Key) > 0 {
		rec.Index = log.KeyPartition(string(rec.Key), partitions)
	}
	b.Append(rec)
}

// Close implements consumers.Reader.
func (r *Reader) Close() { r.Kill() }

// Kill ends the member without a word, as kill -9 would: what it has not committed is delivered to others.
func (r *Reader) Kill() {
	b := r.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	r.gone = true
	clear(r.owned)
	b.members = slices.DeleteFunc(b.members, func(m *Reader) bool { return m == r })
	b.balance(r.group)
}

// Fail makes its Poll return an error.
func (r *Reader) Fail(err error) {
	r.broker.mu.Lock()
	defer r.broker.mu.Unlock()
	r.err = err
	r.broker.wake()
}

// Lose takes all its partitions away before it is told, as when its session has ended. It is given partitions anew.
func (r *Reader) Lose() {
	b := r.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	for p := range r.owned {
		r.lost = append(r.lost, p)
	}
	clear(r.owned)
	b.balance(r.group)
}

// Taken is up to which offset it has read a partition.
func (r *Reader) Taken(p log.Partition) log.Offset {
	r.broker.mu.Lock()
	defer r.broker.mu.Unlock()
	return r.owned[p]
}
