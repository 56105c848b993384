package projections_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/projections"
	"github.com/remitlog/remit/projections/lists"
	"github.com/remitlog/remit/projections/merchantquery"
	"github.com/remitlog/remit/saga/accounts"
)

var many = fold.NewTable[int]('x')

// flood makes a list of many things with one event.
type flood struct{ things int }

func (flood) Name() string { return "flood" }

func (f flood) Apply(rows fold.Rows, e *fold.Event) {
	for i := range f.things {
		many.Put(rows, string(lists.Append(nil, int64(i/3), e.Offset, uint8(i%3))), i)
	}
}

// TestPagesAreBounded: a filter that nothing passes ends the page after LooksMax, with a cursor to go on from.
func TestPagesAreBounded(t *testing.T) {
	const things = lists.LooksMax + 10
	a := &author{tb: t, paper: newPaper(1), now: time.Now()}
	a.write(fold.Event{ID: "x", Key: "x", Fact: accounts.Opened{Account: "x", Currency: "USD"}})
	s, err := fold.OpenStore(fold.StoreOptions{Dir: "s", FS: vfs.NewMem(), Version: "1", Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	view := fold.Followed{View: flood{things}, Store: s}
	if err := fold.Replay(t.Context(), a.paper, log.EventsTopic, projections.Facts(), view, 0, 1); err != nil {
		t.Fatal(err)
	}
	page := func(page lists.Page, want func(int) bool) (got []int, next []byte) {
		t.Helper()
		err := s.Read(0, func(rows fold.Scanner, _ log.Offset) (err error) {
			streams := []lists.Stream[int]{{Rows: rows, Table: many}, {Rows: rows, Table: many}} // the same twice: each comes once
			got, next, err = lists.Merge(page, lists.Range{}, streams, func(e lists.Entry[int]) (int, bool) {
				return e.Value, want(e.Value)
			})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return got, next
	}
	oldest := func(i int) bool { return i == 0 }
	got, next := page(lists.Page{}, oldest)
	if len(got) != 0 || next == nil {
		t.Fatal(got, next)
	}
	if got, next = page(lists.Page{Cursor: next}, oldest); fmt.Sprint(got) != "[0]" || next != nil {
		t.Error(got, next)
	}
	all := func(int) bool { return true }
	if got, next = page(lists.Page{Size: 1 << 20}, all); len(got) != lists.PageSizeMax || next == nil || got[0] != things-1 {
		t.Error(len(got), next)
	}
	if got, _ = page(lists.Page{Size: 2, Cursor: next}, all); fmt.Sprint(got) != fmt.Sprint([]int{things - 1001, things - 1002}) {
		t.Error(got)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestDaysOfTheBook: a summary over many days adds up to what was credited.
func TestDaysOfTheBook(t *testing.T) {
	book := payBook(t, partitions, 3000, 5, 1) // from ten seconds before midnight on, in steps of 5 ms
	v := follow(t, book, vfs.NewMem())
	if err := v.Wait(t.Context(), book.end()); err != nil {
		t.Fatal(err)
	}
	var count int64
	both := map[string]bool{}
	for i := range 5 {
		merchant := fmt.Sprintf("account-%06d", i)
		days := every(t, func(page lists.Page) ([]day, []byte, error) {
			return v.MerchantQuery.Summary(merchant, lists.Range{}, page)
		})
		var sum int64
		for _, d := range days {
			span := lists.Range{From: d.Day, To: d.Day.Add(24 * time.Hour)}
			of := every(t, func(page lists.Page) ([]mtx, []byte, error) {
				return v.MerchantQuery.Transactions(merchant, qfilter{Range: span}, page)
			})
			one, _, err := v.MerchantQuery.Summary(merchant, span, lists.Page{})
			if err != nil || len(one) != 1 || fmt.Sprint(one[0]) != fmt.Sprint(d) || int64(len(of)) != d.Count || d.Gross.Int64() != 125*d.Count {
				t.Errorf("%s %+v: %d transactions, %+v %v", merchant, d, len(of), one, err)
			}
			sum += d.Count
			both[d.Day.Format(time.DateOnly)] = true
		}
		all := every(t, func(page lists.Page) ([]rec, []byte, error) {
			return v.ConsumerRecords.Records(merchant, rfilter{Kind: "receipt"}, page)
		})
		if int64(len(all)) != sum {
			t.Errorf("%s: %d receipts, %d in the summary", merchant, len(all), sum)
		}
		count += sum
	}
	if len(both) != 2 || count != 3000 {
		t.Errorf("days %v, %d payments", both, count)
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
}

// TestHugeDay: the day of a merchant has no limit, though each payment has one.
func TestHugeDay(t *testing.T) {
	const huge = 1_000_000_000_000_000
	a := &author{tb: t, paper: newPaper(1), now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	for range 10_000 { // more than an int64 counts
		id := log.NewID(a.now, "payer")
		a.write(fold.Event{ID: id.String() + "/credit/credited", Key: "shop", Correlation: id.String(), Fact: accounts.Credited{Done: accounts.Done{
			Activity: id, Action: "credit", Account: "shop", Currency: "USD", Amount: huge,
			Context: accounts.Context{Kind: "payment", From: "payer", At: a.now.UnixMilli()},
		}}})
	}
	s, err := fold.OpenStore(fold.StoreOptions{Dir: "view", FS: vfs.NewMem(), Version: merchantquery.Version, Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	view := merchantquery.New(s, 1)
	if err := fold.Replay(t.Context(), a.paper, log.EventsTopic, projections.Facts(), fold.Followed{View: view, Store: s}, 0, 10_000); err != nil {
		t.Fatal(err)
	}
	days, _, err := view.Summary("shop", lists.Range{}, lists.Page{})
	if err != nil || len(days) != 1 || days[0].Count != 10_000 || days[0].Gross.String() != "10000000000000000000" || days[0].Net.Cmp(days[0].Gross) != 0 {
		t.Errorf("%+v, %v", days, err)
	}
}
