package core_test

import (
	"context"
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/remitlog/remit/cmd/remit/core"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/saga"
	"github.com/remitlog/remit/saga/accounts"
	"github.com/remitlog/remit/saga/payments"
)

// events reads a whole partition of the core topic.
func (w *life) events(p int32) []fold.Event {
	w.Helper()
	part := log.Partition{Topic: log.EventsTopic, Index: p}
	_, end, err := w.l.Bounds(context.Background(), part)
	if err != nil {
		w.Fatal(err)
	}
	facts, all := fold.NewFacts(true, core.Facts()...), []fold.Event(nil)
	for at := log.Offset(0); at < end; {
		records, err := w.l.Read(context.Background(), part, at, 1<<20)
		if err != nil {
			w.Fatal(err)
		}
		for _, r := range records {
			e, err := facts.Decode(r)
			if err != nil {
				w.Fatal(err)
			}
			all = append(all, e)
		}
		at = records[len(records)-1].Offset + 1
	}
	return all
}

// activities returns the phase of every activity that has begun.
func (w *life) activities() map[log.ID]saga.Phase {
	w.Helper()
	phases := map[log.ID]saga.Phase{}
	for p := range int32(lifePartitions) {
		for _, e := range w.events(p) {
			if f, ok := e.Fact.(saga.Begun); ok {
				phases[f.ID] = ""
			}
		}
	}
	for id := range phases {
		err := w.c.Node.Read(w.c.Node.PartitionOfID(id), func(rows fold.Scanner, _ log.Offset) error {
			r, ok := saga.Get(rows, id)
			if !ok {
				return fmt.Errorf("activity %s has begun and is not there", id)
			}
			phases[id] = r.Activity.Phase
			return nil
		})
		if err != nil {
			w.Fatal(err)
		}
	}
	return phases
}

// audit reads the log alone, and holds it against itself and against the rows. It shares no code with the folds.
func (w *life) audit() {
	w.Helper()
	w.rest()
	balances, internal := map[string]int64{}, map[string]int64{}
	paid, refunded := map[log.ID]saga.Begun{}, map[log.ID]int64{}
	captured := map[log.ID]int64{}
	var orders [lifePartitions][]log.ID // of confirmed activities, by partition
	begun := map[log.ID]saga.Begun{}
	credited := map[string]int{}
	names := map[string]log.ID{}
	for p := range int32(lifePartitions) {
		for _, e := range w.events(p) {
			var postings []accounts.Posting
			switch f := e.Fact.(type) {
			case saga.Begun:
				if _, ok := begun[f.ID]; ok {
					w.Errorf("seed %d: %s began twice", w.seed, f.ID)
				}
				if f.Name != "" && f.Kind == payments.KindPayment {
					if was, ok := names[f.Name]; ok {
						w.Errorf("seed %d: name %s stands for %s and %s", w.seed, f.Name, was, f.ID)
					}
					names[f.Name] = f.ID
				}
				begun[f.ID] = f
			case saga.Decided:
				postings = f.Postings
				if f.Outcome != saga.Confirm {
					break
				}
				if _, ok := captured[f.ID]; ok {
					w.Errorf("seed %d: %s decided twice", w.seed, f.ID)
				}
				paid[f.ID], captured[f.ID] = begun[f.ID], f.Amount
				orders[p] = append(orders[p], f.ID)
				if f.Kind == payments.KindRefund {
					refunded[f.Parent] += f.Amount
				}
				if f.Amount > begun[f.ID].Actions[0].Order.Amount {
					w.Errorf("seed %d: %s took %d of %d held", w.seed, f.ID, f.Amount, begun[f.ID].Actions[0].Order.Amount)
				}
			case accounts.Deposited:
				postings = f.Postings
			case accounts.Credited:
				postings = f.Postings
				if credited[f.Activity.String()+f.Action]++; credited[f.Activity.String()+f.Action] > 1 {
					w.Errorf("seed %d: %s credited twice", w.seed, f.Activity)
				}
			case accounts.Posted:
				postings = f.Postings
			}
			sum := int64(0)
			for _, x := range postings {
				sum += x.Amount
				if x.Account[0] == '@' {
					internal[x.Account] += x.Amount
				} else if balances[x.Account] += x.Amount; balances[x.Account] < 0 {
					w.Errorf("seed %d: %s at %d after offset %d", w.seed, x.Account, balances[x.Account], e.Offset)
				}
			}
			if sum != 0 {
				w.Errorf("seed %d: postings of %T at offset %d sum to %d", w.seed, e.Fact, e.Offset, sum)
			}
		}
	}
	for id, n := range refunded {
		if n > captured[id] {
			w.Errorf("seed %d: %s refunded %d of %d", w.seed, id, n, captured[id])
		}
	}
	if internal[accounts.Transit] != 0 {
		w.Errorf("seed %d: at rest %d stands in transit", w.seed, internal[accounts.Transit])
	}
	total := int64(0)
	for i := range lifeAccounts {
		a := (&world{w.T, w.l, w.c}).balance(account(i))
		total += a.Balance
		if a.Balance != balances[account(i)] || a.Held != 0 {
			w.Errorf("seed %d: %s has %d, held %d; its postings sum to %d", w.seed, account(i), a.Balance, a.Held, balances[account(i)])
		}
	}
	if want := int64(lifeAccounts * 500); total != want {
		w.Errorf("seed %d: all balances are %d, deposited was %d", w.seed, total, want)
	}
	w.messages(orders)
	w.orders()
	w.replays()
}

// messages holds the topic payments against the decisions: each once, per payer in their order (P3).
func (w *life) messages(orders [lifePartitions][]log.ID) {
	w.Helper()
	for p := range int32(lifePartitions) {
		part := log.Partition{Topic: log.PaymentsTopic, Index: p}
		_, end, err := w.l.Bounds(context.Background(), part)
		if err != nil {
			w.Fatal(err)
		}
		var told []log.ID
		for at := log.Offset(0); at < end; {
			records, err := w.l.Read(context.Background(), part, at, 1<<20)
			if err != nil {
				w.Fatal(err)
			}
			for _, r := range records {
				e, err := log.ParseRecord(r)
				if err != nil {
					w.Fatal(err)
				}
				id, _ := log.ParseID(e.ID)
				told = append(told, id)
			}
			at = records[len(records)-1].Offset + 1
		}
		if fmt.Sprint(told) != fmt.Sprint(orders[p]) {
			w.Errorf("seed %d: partition %d tells %v, decided was %v", w.seed, p, told, orders[p])
		}
	}
}

// replays folds the whole log afresh and compares (V1, F2).
func (w *life) replays() {
	w.Helper()
	fresh, err := core.Open(context.Background(), core.Options{Log: w.l, Dir: "fresh", FS: vfs.NewMem(), Partitions: lifePartitions})
	if err != nil {
		w.Fatal(err)
	}
	defer fresh.Close()
	for p := range int32(lifePartitions) {
		a, at, err := w.c.Store().Digest(p)
		if err != nil {
			w.Fatal(err)
		}
		b, bt, err := fresh.Store().Digest(p)
		if err != nil {
			w.Fatal(err)
		}
		if at != bt || a != b {
			w.Errorf("seed %d: partition %d at %d is not its replay at %d", w.seed, p, at, bt)
		}
	}
}
