package projections_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/remitlog/remit/broker"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/log/names"
	"github.com/remitlog/remit/projections"
	"github.com/remitlog/remit/saga"
	"github.com/remitlog/remit/saga/accounts"
	"github.com/remitlog/remit/saga/payments"
)

// paper is a log that was written beforehand. Its reads return at most batch records.
type paper struct {
	log.Log    // what is not needed
	partitions [][]log.Record
	batch      int
	done       chan struct{}
}

func newPaper(partitions int) *paper {
	return &paper{partitions: make([][]log.Record, partitions), batch: 1 << 20, done: make(chan struct{})}
}

func (p *paper) Topic(context.Context, string) (log.TopicConfig, error) {
	return log.TopicConfig{Name: log.EventsTopic, Partitions: len(p.partitions)}, nil
}

func (p *paper) Bounds(_ context.Context, at log.Partition) (first, end log.Offset, err error) {
	return 0, log.Offset(len(p.partitions[at.Index])), nil
}

func (p *paper) Read(ctx context.Context, at log.Partition, from log.Offset, maxBytes int) ([]log.Record, error) {
	records := p.partitions[at.Index][from:]
	if len(records) == 0 {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-p.done:
			return nil, log.ErrClosed
		}
	}
	n, size := 0, 0
	for n < len(records) && n < p.batch && size < maxBytes {
		size += len(records[n].Value) + 300
		n++
	}
	return records[:n], nil
}

func (p *paper) end() log.Position {
	pos := log.Position{}
	for i := range p.partitions {
		pos[int32(i)] = log.Offset(len(p.partitions[i]))
	}
	return pos
}

// author writes what the core would have written.
type author struct {
	tb    testing.TB
	paper *paper
	now   time.Time
}

func (a *author) write(e fold.Event) {
	e.Partition = log.PartitionOf(log.SlotOf(e.Key), len(a.paper.partitions))
	e.Offset = log.Offset(len(a.paper.partitions[e.Partition]))
	e.Time = a.now
	r, err := fold.Record(e, log.EventsTopic)
	if err != nil {
		a.tb.Fatal(err)
	}
	r.Offset = e.Offset
	a.paper.partitions[e.Partition] = append(a.paper.partitions[e.Partition], r)
}

func (a *author) open(account string) {
	a.write(fold.Event{ID: account + "/opened", Key: account, Fact: accounts.Opened{Account: account, Currency: "USD"}})
	a.write(fold.Event{ID: account + "/open/deposited", Key: account, Correlation: account + "/open", Fact: accounts.Deposited{Cash: accounts.Cash{
		Account: account, Name: "open", Postings: []accounts.Posting{{Account: accounts.Outside, Currency: "USD", Amount: -1e12}, {Account: account, Currency: "USD", Amount: 1e12}},
	}}})
}

// tail is what is written of a payment some events later.
type tail struct {
	credited, ended fold.Event
	id              log.ID
	home            int32
}

func (a *author) pay(i int, payer, payee string) tail {
	name, id := fmt.Sprintf("order-%08d", i), log.NewID(a.now, payer)
	s := id.String()
	a.write(fold.Event{ID: s + "/named", Key: names.Route(names.KindPayment, name), Correlation: s, Fact: names.Named{
		Kind: names.KindPayment, Name: name, ID: id, Key: payer, Fingerprint: log.FingerprintOf(name),
	}})
	debit := accounts.Order{Side: accounts.Debit, Account: payer, Currency: "USD", Amount: 125}
	credit := accounts.Order{Side: accounts.Credit, Account: payee, Currency: "USD", Amount: 125}
	a.write(fold.Event{ID: s + "/begun", Key: payer, Correlation: s, Fact: saga.Begun{
		ID: id, Kind: payments.KindPayment, Name: name, Key: payer, Fingerprint: log.FingerprintOf(name, payer), Deadline: a.now.Add(time.Minute).UnixMilli(),
		Actions: []saga.Action{{Name: "debit", Participant: "accounts", Order: debit}, {Name: "credit", Participant: "accounts", Order: credit}},
	}})
	p := int32(i % 4)
	a.write(fold.Event{ID: s + "/decided", Key: payer, Correlation: s, Fact: saga.Decided{
		ID: id, Kind: payments.KindPayment, Outcome: saga.Confirm, By: "remit", Amount: 125, Postings: accounts.Leave(debit, 125), Partition: &p,
	}})
	return tail{
		id: id, home: log.PartitionOf(id.Slot(), len(a.paper.partitions)),
		credited: fold.Event{ID: s + "/credit/credited", Key: payee, Correlation: s, Fact: accounts.Credited{Done: accounts.Done{
			Activity: id, Action: "credit", Account: payee, Currency: "USD", Amount: 125, Postings: accounts.Arrive(credit, 125),
			Context: accounts.Context{Kind: "payment", Name: name, From: payer, At: a.now.UnixMilli()},
		}}},
		ended: fold.Event{ID: s + "/ended", Key: payer, Correlation: s, Fact: saga.Ended{ID: id}},
	}
}

// payBook writes n payments between m accounts; turn of them go side by side.
func payBook(tb testing.TB, partitions, n, m, turn int) *paper {
	a := &author{tb: tb, paper: newPaper(partitions), now: time.Date(2026, 3, 1, 23, 59, 50, 0, time.UTC)}
	for i := range m {
		a.open(fmt.Sprintf("account-%06d", i))
	}
	random := rand.New(rand.NewPCG(1, 2))
	for i := 0; i < n; {
		var tails []tail
		placed := map[int32][]broker.Place{}
		for range turn {
			payer := random.IntN(m)
			payee := (payer + 1 + random.IntN(m-1)) % m
			t := a.pay(i, fmt.Sprintf("account-%06d", payer), fmt.Sprintf("account-%06d", payee))
			tails = append(tails, t)
			placed[t.home] = append(placed[t.home], broker.Place{ID: t.id, Partition: int32(i % 4), Offset: log.Offset(i)})
			if i++; i == n {
				break
			}
		}
		a.now = a.now.Add(5 * time.Millisecond)
		for home := range int32(partitions) {
			if places := placed[home]; places != nil {
				key := ""
				for j := 0; ; j++ {
					if key = fmt.Sprint("key", j); log.PartitionOf(log.SlotOf(key), partitions) == home {
						break
					}
				}
				a.write(fold.Event{ID: places[0].ID.String() + "/placed", Key: key, Fact: broker.PlacedAll{Places: places}})
			}
		}
		for _, t := range tails {
			a.write(t.credited)
		}
		for _, t := range tails {
			a.write(t.ended)
		}
	}
	return a.paper
}

// cpu is what this process has used of all processors: what a payment costs, however many others want them too.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkFollow folds payments into all three views, as a follower does that finds so many records at each read.
func BenchmarkFollow(b *testing.B) {
	for _, batch := range []int{100, 1000, 1 << 20} {
		b.Run(fmt.Sprint("read=", batch), func(b *testing.B) {
			b.ReportAllocs()
			book := payBook(b, 16, max(b.N, 1), 20_000, 1000)
			book.batch = batch
			records := 0
			for _, p := range book.partitions {
				records += len(p)
			}
			dir := b.TempDir()
			before := cpu(b)
			b.ResetTimer()
			v, err := projections.Follow(b.Context(), projections.Options{
				Log: book, Dir: dir, Partitions: 16, Linger: time.Nanosecond, Fatal: func(err error) { b.Error(err) },
			})
			if err != nil {
				b.Fatal(err)
			}
			if err := v.Wait(b.Context(), book.end()); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N), "cpu-µs/payment")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "payments/s")
			b.ReportMetric(float64(records)/b.Elapsed().Seconds(), "events/s")
			if err := v.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
