// Package merchantquery is the view of what a merchant was paid, one by one and summed up per day. Every account that is paid is a
// merchant.
//
// # Rows
//
//	t merchant place        a payment that was credited, or a refund that was taken, in the order of their decisions
//	f payment offset        what was refunded of a payment
//	s merchant day currency the sums of a UTC day
//
// All live in the partition of the merchant, and are made by what is posted there: credited for payments, posted for refunds. The
// order, and the day, are those of the decision, which both carry: so a day's transactions sum up to its summary.
//
// # Guarantees
//
// Q1: gross sums up to what the merchant was credited for payments, refunded to what was taken for refunds. V1: the rows equal a fresh
// replay's.
package merchantquery

import (
	"encoding/binary"
	"math/big"
	"time"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/projections/facts"
	"github.com/remitlog/remit/projections/lists"
)

// Name is what the view is called.
const Name = "merchantquery"

// Version names the rules that make the rows.
const Version = "merchantquery/1"

// RefundsMax is how many refunds of one payment a list sums up; there are seldom more than one.
const RefundsMax = 1000

// The kinds of transactions, and their states: each has one.
const (
	KindPayment = "payment"
	KindRefund  = "refund"

	StatePaid     = "paid"     // of a payment
	StateRefunded = "refunded" // of a refund
)

// Transaction is a payment that the merchant got, or a refund that the merchant gave. Amounts are minor units.
type Transaction struct {
	ID        log.ID
	Name      string
	Kind      string
	State     string
	Merchant  string
	Consumer  string // on the other side
	Amount    int64
	Refunded  int64 // of a payment, so far
	Currency  string
	Reference string
	Of        log.ID    // of a refund: the payment
	At        time.Time // of the decision
}

// Day is what one UTC day and currency come to. Net is Gross less Refunded. Each payment is an int64, but a day has no limit of its own.
type Day struct {
	Day      time.Time // its midnight
	Currency string
	Count    int64 // of payments
	Gross    *big.Int
	Refunds  int64 // how many
	Refunded *big.Int
	Net      *big.Int
}

type transaction struct {
	_         struct{} `cbor:",toarray"`
	Kind      string
	ID        []byte
	Of        []byte
	Name      string
	Consumer  string
	Currency  string
	Reference string
	Amount    int64
}

// sums are integers in CBOR, however large.
type sums struct {
	_        struct{} `cbor:",toarray"`
	Count    int64
	Gross    big.Int
	Refunds  int64
	Refunded big.Int
}

var (
	transactions = fold.NewTable[transaction]('t').WriteOnly()
	refunds      = fold.NewTable[int64]('f').WriteOnly()
	days         = fold.NewTable[sums]('s')
)

// View answers queries from a store that follows the log.
type View struct {
	store      *fold.Store
	partitions int
}

// New returns the view on a store.
func New(store *fold.Store, partitions int) *View { return &View{store, partitions} }

// Name implements fold.View.
func (*View) Name() string { return Name }

// Apply folds one event into the rows of its partition.
func (*View) Apply(rows fold.Rows, e *fold.Event) {
	switch f := e.Fact.(type) {
	case facts.Credited:
		if f.Context.Kind == facts.KindPayment {
			keep(rows, e, f.Account, f.Context.At, transaction{
				Kind: KindPayment, ID: f.Activity.Bytes(), Name: f.Context.Name, Consumer: f.Context.From, Currency: f.Currency,
				Reference: f.Context.Reference, Amount: f.Amount,
			})
		}
	case facts.Posted:
		if f.Context.Kind == facts.KindRefund {
			of, ok := log.ParseID(f.Context.Of)
			if !ok {
				fold.Broken(e, "refund %s is of %q, which is no id", f.Activity, f.Context.Of)
			}
			keep(rows, e, f.Account, f.Context.At, transaction{
				Kind: KindRefund, ID: f.Activity.Bytes(), Of: of.Bytes(), Name: f.Context.Name, Consumer: f.Context.From, Currency: f.Currency,
				Amount: f.Amount,
			})
		}
	}
}

// keep writes a transaction and adds it to its day.
func keep(rows fold.Rows, e *fold.Event, merchant string, ms int64, t transaction) {
	transactions.Put(rows, string(lists.Append(prefix(merchant), ms, e.Offset, 0)), t)
	key := string(append(binary.BigEndian.AppendUint32(prefix(merchant), dayOf(ms)), t.Currency...))
	day, _ := days.Get(rows, key)
	if t.Kind == KindPayment {
		day.Count, day.Gross = day.Count+1, sum(day.Gross, t.Amount)
	} else {
		day.Refunds, day.Refunded = day.Refunds+1, sum(day.Refunded, t.Amount)
		refunds.Put(rows, string(binary.BigEndian.AppendUint64(append([]byte(nil), t.Of...), uint64(e.Offset))), t.Amount)
	}
	days.Put(rows, key, day)
}

// sum leaves a as it is, since rows are shared.
func sum(a big.Int, b int64) big.Int { return *new(big.Int).Add(&a, big.NewInt(b)) }

func prefix(merchant string) []byte {
	return lists.Value(make([]byte, 0, 64), merchant)
}

const msOfDay = 24 * 60 * 60 * 1000

// dayOf is the UTC day of a moment, counted from 1970.
func dayOf(ms int64) uint32 { return uint32(max(ms, 0) / msOfDay) }

// Filter narrows a list; what is empty is not looked at. From and To are about when it was decided; a Max of 0 is none.
type Filter struct {
	State                string
	MinAmount, MaxAmount int64
	lists.Range
}

// Transactions lists what a merchant was paid and gave back, newest first. The cursor returned goes into the next Page; nil means
// that there is no more.
func (v *View) Transactions(merchant string, f Filter, page lists.Page) (all []Transaction, next []byte, err error) {
	p := log.PartitionOf(log.SlotOf(merchant), v.partitions)
	err = v.store.Read(p, func(rows fold.Scanner, _ log.Offset) (err error) {
		streams := []lists.Stream[transaction]{{Rows: rows, Partition: p, Table: transactions, Prefix: string(prefix(merchant))}}
		all, next, err = lists.Merge(page, f.Range, streams, func(e lists.Entry[transaction]) (Transaction, bool) {
			if !f.wants(e.Value) {
				return Transaction{}, false
			}
			return e.Value.show(rows, merchant, e.Place.Ms), true
		})
		return err
	})
	return all, next, err
}

func (f Filter) wants(t transaction) bool {
	return (f.State == "" || f.State == t.state()) && t.Amount >= f.MinAmount && (f.MaxAmount == 0 || t.Amount <= f.MaxAmount)
}

func (t transaction) state() string {
	if t.Kind == KindRefund {
		return StateRefunded
	}
	return StatePaid
}

func (t transaction) show(rows fold.Scanner, merchant string, ms int64) Transaction {
	shown := Transaction{
		Name: t.Name, Kind: t.Kind, State: t.state(), Merchant: merchant, Consumer: t.Consumer, Amount: t.Amount,
		Currency: t.Currency, Reference: t.Reference, At: time.UnixMilli(ms).UTC(),
	}
	copy(shown.ID[:], t.ID)
	copy(shown.Of[:], t.Of)
	if t.Kind == KindPayment {
		shown.Refunded = refunded(rows, t.ID)
	}
	return shown
}

// refunded sums what was given back of a payment.
func refunded(rows fold.Scanner, id []byte) (sum int64) {
	n := 0
	for _, amount := range refunds.Scan(rows, string(id), string(id)+"\xff\xff\xff\xff\xff\xff\xff\xff", false) {
		sum += amount
		if n++; n == RefundsMax {
			break
		}
	}
	return sum
}

// Summary lists the days of a merchant, newest first, those that have some moment within span; of one day by currency, backwards. The
// cursor returned goes into the next Page; nil means that there is no more.
func (v *View) Summary(merchant string, span lists.Range, page lists.Page) (all []Day, next []byte, err error) {
	p := log.PartitionOf(log.SlotOf(merchant), v.partitions)
	head := string(prefix(merchant))
	from, to := string(binary.BigEndian.AppendUint32(nil, first(span))), string(binary.BigEndian.AppendUint32(nil, end(span)))
	if len(page.Cursor) > 0 {
		if len(page.Cursor) < 4 {
			return nil, nil, lists.ErrCursor
		}
		to = min(to, string(page.Cursor))
	}
	if from >= to {
		return nil, nil, nil
	}
	err = v.store.Read(p, func(rows fold.Scanner, _ log.Offset) error {
		last := ""
		for key, day := range days.Scan(rows, head+from, head+to, true) {
			if len(all) == page.Limit() {
				next = []byte(last)
				return nil
			}
			last = key[len(head):]
			all = append(all, day.show(last))
		}
		return nil
	})
	return all, next, err
}

func first(span lists.Range) uint32 {
	if span.From.IsZero() {
		return 0
	}
	return dayOf(span.From.UnixMilli())
}

// end is the first day that is not within span.
func end(span lists.Range) uint32 {
	if span.To.IsZero() {
		return ^uint32(0)
	}
	return dayOf(span.To.Add(-time.Nanosecond).UnixMilli()) + 1
}

func (s sums) show(key string) Day {
	day := binary.BigEndian.Uint32([]byte(key[:4]))
	return Day{
		Day: time.UnixMilli(int64(day) * msOfDay).UTC(), Currency: key[4:], Count: s.Count, Gross: &s.Gross,
		Refunds: s.Refunds, Refunded: &s.Refunded, Net: new(big.Int).Sub(&s.Gross, &s.Refunded),
	}
}
