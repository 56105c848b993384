// Package consumerrecords is the view of what a consumer sees: every payment made or received, every refund, deposit and
// withdrawal, newest first. Every account is a consumer.
//
// # Rows
//
//	r consumer place   one record, in the partition of the consumer, written once
//	l                  the activity that began last, until it is decided
//	b id               one that began before it and is not decided
//
// A payment is usually decided by the event after the one that began it: its pending row is then overwritten by the next, in the same
// batch, and costs nothing. Which of the two rows has it depends on the order of events alone.
//
// # Guarantees
//
// C1: a payment gives its payer one record when it is decided (state paid, refused or voided) and its payee one when it is
// credited. The amounts of a consumer's records of kind payment and state paid sum up to what the consumer paid.
// V1: the rows equal a fresh replay's.
package consumerrecords

import (
	"time"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/projections/facts"
	"github.com/remitlog/remit/projections/lists"
)

// Name is what the view is called.
const Name = "consumerrecords"

// Version names the rules that make the rows.
const Version = "consumerrecords/1"

// The kinds of records.
const (
	KindPayment    = "payment"    // the consumer paid
	KindReceipt    = "receipt"    // the consumer was paid
	KindRefund     = "refund"     // the consumer got something back of what was paid
	KindGiveback   = "giveback"   // the consumer gave something back of what was received
	KindDeposit    = "deposit"    // from outside
	KindWithdrawal = "withdrawal" // to outside
)

// Kinds lists them.
func Kinds() []string {
	return []string{KindPayment, KindReceipt, KindRefund, KindGiveback, KindDeposit, KindWithdrawal}
}

// The states of records. Only what is paid has moved money.
const (
	StatePaid    = "paid"
	StateRefused = "refused"
	StateVoided  = "voided"
)

// Record is one line of what a consumer sees.
type Record struct {
	ID       string // of the record
	Consumer string
	Kind     string
	// TransactionID is the payment that it is about; of a refund, the payment that it is of. Zero for deposits and withdrawals.
	TransactionID log.ID
	Counterparty  string // empty for deposits and withdrawals
	Amount        int64  // minor units, never negative: the kind says which way it went
	Currency      string
	State         string
	At            time.Time
}

// record is the row.
type record struct {
	_        struct{} `cbor:",toarray"`
	Kind     string
	State    string
	ID       []byte // of the payment or refund
	Of       []byte // of a refund: the payment
	Name     string // of a deposit or withdrawal
	Other    string
	Currency string
	Amount   int64
}

// pending is an activity that is not decided.
type pending struct {
	_        struct{} `cbor:",toarray"`
	ID       log.ID
	Decided  bool
	Manual   bool
	Refused  bool
	Payer    string
	Payee    string
	Currency string
	Amount   int64
}

var (
	records = fold.NewTable[record]('r').WriteOnly()
	latest  = fold.NewTable[pending]('l')
	earlier = fold.NewTable[pending]('b').Ascending()
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
	case facts.Begun:
		if f.Kind == facts.KindPayment || f.Kind == facts.KindRefund {
			begin(rows, &f)
		}
	case facts.Decided:
		if f.Kind == facts.KindPayment || f.Kind == facts.KindRefund {
			applyDecided(rows, e, &f)
		}
	case facts.Credited:
		applyMoved(rows, e, &f.Done, credits)
	case facts.Posted:
		applyMoved(rows, e, &f.Done, debits)
	case facts.Deposited:
		applyCash(rows, e, &f.Cash, KindDeposit)
	case facts.Withdrawn:
		applyCash(rows, e, &f.Cash, KindWithdrawal)
	}
}

func put(rows fold.Rows, e *fold.Event, consumer string, n uint8, r record) {
	records.Put(rows, string(lists.Append(prefix(consumer), e.Time.UnixMilli(), e.Offset, n)), r)
}

func prefix(consumer string) []byte {
	return lists.Value(make([]byte, 0, 64), consumer)
}

// begin keeps what the decision will not say.
func begin(rows fold.Rows, f *facts.Begun) {
	if last, ok := latest.Get(rows, ""); ok && !last.Decided {
		earlier.Put(rows, string(last.ID[:]), last)
	}
	debit, credit := f.Order(facts.Debit), f.Order(facts.Credit)
	p := pending{
		ID: f.ID, Manual: f.Manual, Refused: f.Refused != "", Payer: debit.Account, Payee: credit.Account,
		Currency: debit.Currency, Amount: debit.Amount,
	}
	if f.Kind == facts.KindRefund {
		p.Payer, p.Payee = credit.Account, debit.Account
	}
	latest.Put(rows, "", p)
}

// take returns what began, and forgets it.
func take(rows fold.Rows, e *fold.Event, id log.ID) pending {
	if last, ok := latest.Get(rows, ""); ok && !last.Decided && last.ID == id {
		latest.Put(rows, "", pending{Decided: true})
		return last
	}
	p, ok := earlier.Get(rows, string(id[:]))
	if !ok {
		fold.Broken(e, "%s is decided, and is not there", id)
	}
	earlier.Delete(rows, string(id[:]))
	return p
}

func applyDecided(rows fold.Rows, e *fold.Event, f *facts.Decided) {
	p := take(rows, e, f.ID)
	r := record{Kind: KindPayment, State: StatePaid, ID: f.ID.Bytes(), Other: p.Payee, Currency: p.Currency, Amount: f.Amount}
	if f.Kind == facts.KindRefund {
		r.Kind, r.Of = KindRefund, f.Parent.Bytes()
	}
	if f.Outcome != facts.Confirm {
		r.Amount = p.Amount
		if r.State = StateRefused; p.Manual && !p.Refused {
			r.State = StateVoided
		}
	}
	put(rows, e, p.Payer, 0, r)
}

// What the side of an activity that is another partition's is to its account.
var (
	credits = map[string]string{facts.KindPayment: KindReceipt, facts.KindRefund: KindRefund}
	debits  = map[string]string{facts.KindPayment: KindPayment, facts.KindRefund: KindGiveback}
)

// applyMoved keeps the side of an activity that is another partition's.
func applyMoved(rows fold.Rows, e *fold.Event, f *facts.Done, kinds map[string]string) {
	kind, ok := kinds[f.Context.Kind]
	if !ok {
		return
	}
	r := record{Kind: kind, State: StatePaid, ID: f.Activity.Bytes(), Other: f.Context.From, Currency: f.Currency, Amount: f.Amount}
	if of, ok := log.ParseID(f.Context.Of); ok {
		r.Of = of.Bytes()
	}
	put(rows, e, f.Account, 0, r)
}

func applyCash(rows fold.Rows, e *fold.Event, f *facts.Cash, kind string) {
	for n, p := range f.Postings {
		if p.Account == f.Account {
			put(rows, e, f.Account, uint8(n), record{Kind: kind, State: StatePaid, Name: f.Name, Currency: p.Currency, Amount: max(p.Amount, -p.Amount)})
		}
	}
}

// Filter narrows a list; what is empty is not looked at.
type Filter struct {
	Kind, State string
	lists.Range
}

// Records lists the records of a consumer, newest first. The cursor returned goes into the next Page; nil means that there is
// no more. An account that is not there has no records.
func (v *View) Records(consumer string, f Filter, page lists.Page) (all []Record, next []byte, err error) {
	p := log.PartitionOf(log.SlotOf(consumer), v.partitions)
	err = v.store.Read(p, func(rows fold.Scanner, _ log.Offset) (err error) {
		streams := []lists.Stream[record]{{Rows: rows, Partition: p, Table: records, Prefix: string(prefix(consumer))}}
		all, next, err = lists.Merge(page, f.Range, streams, func(e lists.Entry[record]) (Record, bool) {
			return e.Value.show(consumer, e.Place.Ms), f.wants(e.Value)
		})
		return err
	})
	return all, next, err
}

func (f Filter) wants(r record) bool {
	return (f.Kind == "" || f.Kind == r.Kind) && (f.State == "" || f.State == r.State)
}

func (r record) show(consumer string, ms int64) Record {
	shown := Record{
		Consumer: consumer, Kind: r.Kind, Counterparty: r.Other, Amount: r.Amount, Currency: r.Currency, State: r.State,
		At: time.UnixMilli(ms).UTC(),
	}
	if r.Name != "" {
		shown.ID = consumer + "/" + r.Name + "/" + r.Kind
		return shown
	}
	copy(shown.TransactionID[:], r.ID)
	shown.ID = shown.TransactionID.String() + "/" + r.Kind
	if len(r.Of) > 0 {
		copy(shown.TransactionID[:], r.Of)
	}
	return shown
}
