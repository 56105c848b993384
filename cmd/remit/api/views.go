package api

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math/big"
	"net/http"
	"sync"
	"time"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/projections"
	"github.com/remitlog/remit/projections/consumerrecords"
	"github.com/remitlog/remit/projections/lists"
	"github.com/remitlog/remit/projections/merchantquery"
	"github.com/remitlog/remit/projections/transactions"
	"github.com/remitlog/remit/saga/accounts"
)

// Views are the calls about the views themselves, and those of the two that have no nouns of their own.
type Views struct {
	Views    *projections.Views
	Accounts *Accounts
	Payments *Payments

	digests digests
}

// Routes returns them.
func (v *Views) Routes() []Route {
	return []Route{
		{Method: "GET", Pattern: "/v1/views", Name: "listViews", Handler: v.list},
		{Method: "GET", Pattern: "/v1/views/transactions/{id}", Name: "getTransaction", Handler: v.transaction},
		{Method: "GET", Pattern: "/v1/views/consumers/{consumer}/records", Name: "listRecords", Handler: v.records},
		{Method: "GET", Pattern: "/v1/views/merchants/{merchant}/transactions", Name: "listTransactions", Handler: v.transactions},
		{Method: "GET", Pattern: "/v1/views/merchants/{merchant}/summary", Name: "getSummary", Handler: v.summary},
	}
}

// reading is a call that reads from a view: what every such call has beside its own parameters.
type reading struct {
	query *Query
	after log.Position
	wait  time.Duration
	// behind is why the view did not come as far as what was written before this call, though nobody asked for it with after.
	behind *Problem
}

func beginReading(r *http.Request) *reading {
	q := ParseQuery(r)
	after, wait := q.After()
	return &reading{query: q, after: after, wait: wait}
}

// from ends the parameters, waits until the views have what is to be seen, and says which position the answer will reflect. atLeast is
// waited for too, as a courtesy: past wait the answer is what the view has by then.
func (rd *reading) from(w http.ResponseWriter, r *http.Request, views *projections.Views, name string, atLeast log.Position) error {
	if err := rd.query.Done(); err != nil {
		return err
	}
	if err := waitFor(r, name, views, rd.after, rd.wait); err != nil {
		return err
	}
	err := waitFor(r, name, views, atLeast, rd.wait)
	if p, ok := errors.AsType[*Problem](err); ok {
		rd.behind, err = p, nil
	}
	SetPosition(w, views.PositionOf(name)) // the view is read after this, so it has at least as much
	return err
}

// missing is the answer where the view has not what is asked for: it is not there, unless the view is behind.
func (rd *reading) missing(p error) error {
	if rd.behind != nil {
		return rd.behind
	}
	return p
}

// pageOf is a page as the views have it.
func pageOf(p Page) lists.Page { return lists.Page{Size: p.Size, Cursor: p.Cursor} }

func rangeOf(q *Query) lists.Range {
	from, to := q.Range()
	return lists.Range{From: from, To: to}
}

// listOf answers with a page of a view, each item as make has it.
func listOf[T, V any](w http.ResponseWriter, q *Query, found []V, next []byte, err error, make func(V) T) error {
	if err != nil {
		return err
	}
	answer := List[T]{Items: []T{}}
	for _, v := range found {
		answer.Items = append(answer.Items, make(v))
	}
	if next != nil {
		answer.NextPageToken = q.NextPageToken(next)
	}
	return WriteJSON(w, http.StatusOK, answer)
}

func amount(minor int64, currency string) string {
	return accounts.FormatAmount(minor, accounts.Currency(currency))
}

func total(minor *big.Int, currency string) string {
	return accounts.FormatTotal(minor, accounts.Currency(currency))
}

// View is how a view stands.
type View struct {
	View       string `json:"view"`
	Generation string `json:"generation"` // the version of the rules that made it
	// Position is what goes into after; Partitions says the same in numbers.
	Position   string          `json:"position"`
	Partitions []ViewPartition `json:"partitions"`
	LagRecords int64           `json:"lagRecords"` // of the log, that it does not have
	LagSeconds float64         `json:"lagSeconds"` // since the oldest of them was recorded
	// Digest is the SHA-256 over the digests of all partitions: views of equal logs at equal positions have equal ones.
	Digest string `json:"digest,omitzero"`
}

// ViewPartition is how far a view has come in a partition.
type ViewPartition struct {
	Partition int32      `json:"partition"`
	Offset    log.Offset `json:"offset"`
	Durable   log.Offset `json:"durable"` // what a power cut would leave; the rest is read from the log again
	Digest    string     `json:"digest,omitzero"`
}

func (v *Views) list(w http.ResponseWriter, r *http.Request) error {
	rd := beginReading(r)
	without := rd.query.OneOf("digest", "true", "false") == "false"
	if err := rd.query.Done(); err != nil {
		return err
	}
	if err := waitFor(r, "every view", v.Views, rd.after, rd.wait); err != nil {
		return err
	}
	SetPosition(w, v.Views.Position())
	all, err := v.Views.Status(r.Context(), time.Now())
	if err != nil {
		return err
	}
	answer := List[View]{Items: make([]View, len(all))}
	for i, s := range all {
		if answer.Items[i], err = v.show(s, !without); err != nil {
			return err
		}
	}
	return WriteJSON(w, http.StatusOK, answer)
}

func (v *Views) show(s projections.Status, withDigest bool) (View, error) {
	view := View{
		View: s.Name, Generation: s.Generation, Position: s.Position.String(),
		LagRecords: s.Lag, LagSeconds: s.LagTime.Seconds(), Partitions: make([]ViewPartition, len(s.Position)),
	}
	for p := range view.Partitions {
		view.Partitions[p] = ViewPartition{Partition: int32(p), Offset: s.Position[int32(p)], Durable: s.Durable[int32(p)]}
	}
	if !withDigest {
		return view, nil
	}
	sums, err := v.digests.of(v.Views, s.Name)
	if err != nil {
		return view, err
	}
	h, at := sha256.New(), log.Position{}
	for _, d := range sums {
		h.Write(d.Sum[:])
		at = at.With(d.Partition, d.Offset)
		view.Partitions[d.Partition].Offset = d.Offset
		view.Partitions[d.Partition].Digest = hex.EncodeToString(d.Sum[:])
	}
	view.Position, view.Digest = at.String(), hex.EncodeToString(h.Sum(nil))
	return view, nil
}

// digests keeps the last digests of each view: they read every row, so they are made again only when the view has moved, one at a time.
type digests struct {
	mu   sync.Mutex
	last map[string][]projections.Digest
}

func (d *digests) of(views *projections.Views, name string) ([]projections.Digest, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now, fresh := views.PositionOf(name), len(d.last[name]) > 0
	for _, was := range d.last[name] {
		fresh = fresh && now[was.Partition] == was.Offset
	}
	if fresh {
		return d.last[name], nil
	}
	sums, err := views.Digests(name)
	if err != nil {
		return nil, err
	}
	if d.last == nil {
		d.last = map[string][]projections.Digest{}
	}
	d.last[name] = sums
	return sums, nil
}

// TransactionView is one payment or refund with its history.
type TransactionView struct {
	Payment
	Kind string `json:"kind"` // payment or refund
	// Of is the payment that a refund is of.
	Of          *log.ID   `json:"of,omitzero"`
	DeliveredAt *Delivery `json:"deliveredAt,omitzero"` // its message, on topic payments
	History     []Step    `json:"history"`
}

func (v *Views) transaction(w http.ResponseWriter, r *http.Request) error {
	ref, err := ParseRef("id", r.PathValue("id"))
	if err != nil {
		return err
	}
	rd := beginReading(r)
	id, at, err := v.Payments.resolve(ref)
	switch unknown, ok := errors.AsType[*Problem](err); {
	case err == nil:
		err = rd.from(w, r, v.Views, transactions.Name, at)
	case !ref.IsID() && ok && unknown.Code == CodeNotFound:
		if id, ok, err = rd.refundNamed(w, r, v.Views, v.Payments.Core.Position(), ref.Name); err == nil && !ok {
			err = rd.missing(unknown)
		}
	}
	if err != nil {
		return err
	}
	found, ok, err := v.Views.Transactions.Payment(id)
	if err != nil {
		return err
	}
	if !ok {
		return rd.missing(NotFound("transaction", ref.String(), "the view transactions, payments and refunds, by id and by name"))
	}
	answer := TransactionView{Payment: viewedPayment(found), Kind: found.Kind, DeliveredAt: delivery(found.DeliveredAt), History: steps(found.History)}
	if !found.Of.IsZero() {
		answer.Of = &found.Of
	}
	return WriteJSON(w, http.StatusOK, answer)
}

func viewedPayment(p transactions.Payment) Payment {
	return Payment{
		ID: p.ID, Name: p.Name, State: p.State, Settled: p.Settled, Payer: p.Payer, Payee: p.Payee,
		Amount: amount(p.Amount, p.Currency), Captured: amount(p.Captured, p.Currency), Refunded: amount(p.Refunded, p.Currency),
		Currency: p.Currency, Reference: p.Reference, Reason: p.Reason,
		CreatedAt: Time(p.CreatedAt), DecidedAt: Time(p.DecidedAt), EndedAt: Time(p.EndedAt),
	}
}

func viewedRefund(p transactions.Payment) Refund {
	return Refund{
		ID: p.ID, Name: p.Name, Payment: p.Of, State: p.State, Settled: p.Settled, Payer: p.Payer, Payee: p.Payee,
		Amount: amount(p.Amount, p.Currency), Currency: p.Currency, Reason: p.Reason,
		CreatedAt: Time(p.CreatedAt), DecidedAt: Time(p.DecidedAt), EndedAt: Time(p.EndedAt),
	}
}

func delivery(d *transactions.Delivery) *Delivery {
	if d == nil {
		return nil
	}
	at := &Delivery{Partition: d.Partition}
	if d.Offset >= 0 {
		at.Offset = &d.Offset
	}
	return at
}

func steps(history []transactions.Step) []Step {
	all := make([]Step, len(history))
	for i, s := range history {
		all[i] = Step{At: Time(s.At), Type: s.Type, By: s.By, Detail: s.Detail}
	}
	return all
}

// Record is one line of what a consumer sees.
type Record struct {
	ID            string  `json:"id"`
	Consumer      string  `json:"consumer"`
	Kind          string  `json:"kind"`
	TransactionID *log.ID `json:"transactionId,omitzero"` // the payment that it is about; none for deposits and withdrawals
	Counterparty  string  `json:"counterparty,omitzero"`
	Amount        string  `json:"amount"` // never negative: kind says which way it went
	Currency      string  `json:"currency"`
	State         string  `json:"state"`
	At            Time    `json:"at"`
}

func (v *Views) records(w http.ResponseWriter, r *http.Request) error {
	consumer := r.PathValue("consumer")
	_, at, err := v.Accounts.known("consumer", consumer)
	if err != nil {
		return err
	}
	rd := beginReading(r)
	q := rd.query
	f := consumerrecords.Filter{
		Kind: q.OneOf("kind", consumerrecords.Kinds()...), Range: rangeOf(q),
		State: q.OneOf("state", consumerrecords.StatePaid, consumerrecords.StateRefused, consumerrecords.StateVoided),
	}
	page := q.Page()
	if err := rd.from(w, r, v.Views, consumerrecords.Name, at); err != nil {
		return err
	}
	found, next, err := v.Views.ConsumerRecords.Records(consumer, f, pageOf(page))
	return listOf(w, q, found, next, err, func(x consumerrecords.Record) Record {
		record := Record{
			ID: x.ID, Consumer: x.Consumer, Kind: x.Kind, Counterparty: x.Counterparty, Amount: amount(x.Amount, x.Currency),
			Currency: x.Currency, State: x.State, At: Time(x.At),
		}
		if !x.TransactionID.IsZero() {
			record.TransactionID = &x.TransactionID
		}
		return record
	})
}

// Transaction is a payment that a merchant got, or a refund that the merchant gave.
type Transaction struct {
	ID        log.ID  `json:"id"`
	Name      string  `json:"name,omitzero"`
	Kind      string  `json:"kind"`
	State     string  `json:"state"`
	Merchant  string  `json:"merchant"`
	Consumer  string  `json:"consumer"`
	Amount    string  `json:"amount"`
	Refunded  string  `json:"refunded"`
	Currency  string  `json:"currency"`
	Reference string  `json:"reference,omitzero"`
	Of        *log.ID `json:"of,omitzero"` // of a refund: the payment
	At        Time    `json:"at"`
}

func (v *Views) transactions(w http.ResponseWriter, r *http.Request) error {
	merchant := r.PathValue("merchant")
	account, at, err := v.Accounts.known("merchant", merchant)
	if err != nil {
		return err
	}
	rd := beginReading(r)
	q := rd.query
	f := merchantquery.Filter{
		State: q.OneOf("state", merchantquery.StatePaid, merchantquery.StateRefunded), Range: rangeOf(q),
		MinAmount: q.amount("minAmount", account.Currency, 0), MaxAmount: q.amount("maxAmount", account.Currency, 1),
	}
	if f.MaxAmount > 0 && f.MinAmount > f.MaxAmount {
		q.Fail("minAmount", "it is above maxAmount")
	}
	page := q.Page()
	if err := rd.from(w, r, v.Views, merchantquery.Name, at); err != nil {
		return err
	}
	found, next, err := v.Views.MerchantQuery.Transactions(merchant, f, pageOf(page))
	return listOf(w, q, found, next, err, func(x merchantquery.Transaction) Transaction {
		t := Transaction{
			ID: x.ID, Name: x.Name, Kind: x.Kind, State: x.State, Merchant: x.Merchant, Consumer: x.Consumer, Amount: amount(x.Amount, x.Currency),
			Refunded: amount(x.Refunded, x.Currency), Currency: x.Currency, Reference: x.Reference, At: Time(x.At),
		}
		if !x.Of.IsZero() {
			t.Of = &x.Of
		}
		return t
	})
}

// amount reads an amount of at least so many minor units; 0 if it is not given.
func (q *Query) amount(name string, c accounts.Currency, least int64) int64 {
	s := q.String(name)
	if s == "" {
		return 0
	}
	n, err := parseAmount(name, s, c, least)
	if err != nil && q.problem == nil {
		q.problem = NewProblem(CodeInvalidParameter, "%s", err.(*Problem).Detail).With("parameter", name)
	}
	return n
}

// Day is what one UTC day and currency come to.
type Day struct {
	Day      string `json:"day"`
	Currency string `json:"currency"`
	Count    int64  `json:"count"` // of payments
	Gross    string `json:"gross"`
	Refunds  int64  `json:"refunds"` // how many
	Refunded string `json:"refunded"`
	Net      string `json:"net"`
}

func (v *Views) summary(w http.ResponseWriter, r *http.Request) error {
	merchant := r.PathValue("merchant")
	_, at, err := v.Accounts.known("merchant", merchant)
	if err != nil {
		return err
	}
	rd := beginReading(r)
	q := rd.query
	span, page := rangeOf(q), q.Page()
	if err := rd.from(w, r, v.Views, merchantquery.Name, at); err != nil {
		return err
	}
	found, next, err := v.Views.MerchantQuery.Summary(merchant, span, pageOf(page))
	return listOf(w, q, found, next, err, func(x merchantquery.Day) Day {
		return Day{
			Day: x.Day.Format(time.DateOnly), Currency: x.Currency, Count: x.Count, Gross: total(x.Gross, x.Currency),
			Refunds: x.Refunds, Refunded: total(x.Refunded, x.Currency), Net: total(x.Net, x.Currency),
		}
	})
}
