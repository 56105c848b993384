package core_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/remitlog/remit/broker"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
)

// ordersTopic takes plain transactional messages in the lives of TestPowerCut.
const ordersTopic = "orders"

// tellOrders prepares a message, and decides it or leaves it; perhaps twice, perhaps both ways.
func (w *life) tellOrders(rng *rand.Rand) {
	key := fmt.Sprint("order-", rng.IntN(5))
	id := log.NewID(time.Now(), key)
	e := log.Event{ID: id.String(), Source: "test", Type: "ordered", Key: key, DataContentType: "application/json", Data: []byte(`{}`)}
	body, err := e.MarshalStructured()
	if err != nil {
		w.Fatal(err)
	}
	prepare := broker.Prepare{Prepared: broker.Prepared{
		ID: id, Name: "test " + e.ID, Fingerprint: log.FingerprintOf(e.ID), Topic: ordersTopic, Producer: "test", Key: key, Event: body,
	}}
	if rng.IntN(4) == 0 {
		prepare.DeliverAfter = 1 + rng.Int64N(20)
	}
	if !w.decides(id, prepare) {
		return
	}
	for range rng.IntN(3) {
		w.decides(id, broker.Settle{Broker: w.c.Broker, ID: id, Input: []broker.Input{broker.InputCommit, broker.InputCommit, broker.InputRollback}[rng.IntN(3)]})
	}
}

// decides asks the partition of a message, notes the answer, and reports whether there was one.
func (w *life) decides(id log.ID, c fold.Command) bool {
	r, err := w.c.Node.Do(w.ended, w.c.Node.PartitionOfID(id), c)
	if err != nil {
		if !w.refused(err) {
			w.Errorf("seed %d: %T: %v", w.seed, c, err)
		}
		return false
	}
	o := r.Answer.(broker.Outcome)
	w.note(ack{message: &o})
	return true
}

// kept holds a message against what its producer was told: a decision is for ever (D1, D2), and half a message is there (M2).
func (w *life) kept(was broker.Outcome) {
	w.Helper()
	now, ok := w.message(was.ID)
	outcome := func(s broker.State) broker.State {
		if s == broker.StateDelivered {
			return broker.StateCommitted
		}
		return s
	}
	if !ok || was.Message.State != broker.StatePrepared && outcome(now.State) != outcome(was.Message.State) {
		w.Fatalf("seed %d: message %s was answered %s and is %s", w.seed, was.ID, was.Message.State, now.State)
	}
}

func (w *life) message(id log.ID) (m broker.Message, ok bool) {
	w.Helper()
	err := w.c.Node.Read(w.c.Node.PartitionOfID(id), func(rows fold.Scanner, _ log.Offset) error {
		m, _, ok = broker.Get(rows, id)
		return nil
	})
	if err != nil {
		w.Fatal(err)
	}
	return m, ok
}

// delivered reports whether no message is committed and not delivered.
func (w *life) delivered() bool {
	w.Helper()
	for p := range int32(lifePartitions) {
		for _, e := range w.events(p) {
			if f, ok := e.Fact.(broker.Committed); ok {
				if m, _ := w.message(f.ID); m.State != broker.StateDelivered {
					return false
				}
			}
		}
	}
	return true
}

// orders holds the topic against the log: what was committed is there once, what was not is not, and per key it
// is in the order in which it was to be (M1).
func (w *life) orders() {
	w.Helper()
	type wanted struct {
		id log.ID
		at int64
	}
	want, prepared := map[string][]wanted{}, map[log.ID]broker.Prepared{}
	for p := range int32(lifePartitions) {
		for _, e := range w.events(p) {
			switch f := e.Fact.(type) {
			case broker.Prepared:
				prepared[f.ID] = f
			case broker.Committed:
				m := prepared[f.ID]
				want[m.Key] = append(want[m.Key], wanted{f.ID, e.Time.UnixMilli() + m.DeliverAfter})
			}
		}
	}
	got := map[string][]log.ID{}
	for _, r := range w.all(ordersTopic) {
		e, err := log.ParseRecord(r)
		if err != nil {
			w.Fatal(err)
		}
		id, _ := log.ParseID(e.ID)
		got[e.Key] = append(got[e.Key], id)
	}
	for key, list := range want {
		slices.SortStableFunc(list, func(a, b wanted) int { return int(a.at - b.at) })
		ids := make([]log.ID, len(list))
		for i := range list {
			ids[i] = list[i].id
		}
		if fmt.Sprint(ids) != fmt.Sprint(got[key]) {
			w.Errorf("seed %d: key %s: committed were %v, the topic has %v", w.seed, key, ids, got[key])
		}
		delete(got, key)
	}
	if len(got) > 0 {
		w.Errorf("seed %d: the topic has what was never committed: %v", w.seed, got)
	}
}

// all reads a topic, partition by partition.
func (w *life) all(topic string) (all []log.Record) {
	w.Helper()
	c, err := w.l.Topic(context.Background(), topic)
	if err != nil {
		return nil // a life without it
	}
	for p := range int32(c.Partitions) {
		part := log.Partition{Topic: topic, Index: p}
		_, end, err := w.l.Bounds(context.Background(), part)
		if err != nil {
			w.Fatal(err)
		}
		for at := log.Offset(0); at < end; {
			records, err := w.l.Read(context.Background(), part, at, 1<<20)
			if err != nil {
				w.Fatal(err)
			}
			all = append(all, records...)
			at = records[len(records)-1].Offset + 1
		}
	}
	return all
}
