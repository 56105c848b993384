package transactions

import (
	"context"
	"slices"
	"time"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/projections/lists"
)

// Name is what the view is called.
const Name = "transactions"

// Version names the rules that make the rows.
const Version = "transactions/3"

// View answers queries from a store that follows the log. All methods are safe for concurrent use.
type View struct {
	store      *fold.Store
	log        log.Log
	partitions int
}

// New returns the view on a store. The log is read for what rows only point to: events.
func New(store *fold.Store, l log.Log, partitions int) *View {
	return &View{store: store, log: l, partitions: partitions}
}

// Name implements fold.View.
func (*View) Name() string { return Name }

// The states of a payment, as the business sees it.
const (
	Pending = "pending"
	Held    = "held"
	Paid    = "paid"
	Refused = "refused"
	Voided  = "voided"
)

// Payment is a payment, or a refund of one. Amounts are minor units; times are zero where it has not come so far.
type Payment struct {
	ID        log.ID
	Name      string
	Kind      string // payment or refund
	State     string
	Settled   bool // the payee has it
	Payer     string
	Payee     string
	Amount    int64 // asked for
	Captured  int64 // of a refund: given back
	Refunded  int64
	Currency  string
	Reference string
	Manual    bool
	Reason    string
	CreatedAt time.Time
	DecidedAt time.Time
	EndedAt   time.Time
	// Of is the payment that this is a refund of; zero if it is a payment.
	Of log.ID
	// DeliveredAt and History are there when one payment was asked for, not in lists.
	DeliveredAt *Delivery
	History     []Step
}

// Delivery is where a message stands on its topic. Offset is -1 while only the partition is known.
type Delivery struct {
	Topic     string
	Partition int32
	Offset    log.Offset
}

// Step is one event of a history.
type Step struct {
	At     time.Time
	Type   string // of the event
	By     string
	Detail string
}

// Activity is an activity with its actions; payments and refunds are activities too.
type Activity struct {
	ID        log.ID
	Name      string
	Key       string
	Kind      string
	Mode      string // coordinated or initiated
	State     string
	Reason    string
	Deadline  time.Time
	Actions   []Action
	CreatedAt time.Time
	DecidedAt time.Time
	EndedAt   time.Time
	History   []Step // where one activity was asked for
}

// Action is one participant's part in an activity.
type Action struct {
	Name        string
	Participant string
	State       string // pending, tried, refused, confirmed or cancelled
	Reason      string
	Side        string
	Account     string
	Amount      int64
	Currency    string
}

// Message is a transactional message. The message of an activity is one too.
type Message struct {
	ID          log.ID
	Name        string // of a plain one: the event's source and id
	Topic       string
	Producer    string // empty in the messages of activities
	Key         string
	State       string
	Event       []byte // the CloudEvent in its JSON format; nil if there is none yet
	DecidedBy   string
	Reason      string
	DeliverAt   time.Time // when it was asked to be delivered; zero means at once
	DeliveredAt *Delivery
	PreparedAt  time.Time
	DecidedAt   time.Time
	History     []Step // where one message was asked for
	// Activity reports whether this is the message of an activity, which is decided with it.
	Activity bool

	at ref // of the record that has the event
}

// Account is an account as the view has it; the core's may be newer. Amounts are minor units.
type Account struct {
	Account     string
	Currency    string
	State       string
	Balance     int64
	Held        int64
	Available   int64
	CreditLimit int64
	OpenedAt    time.Time
}

// Entry is one posting on an account.
type Entry struct {
	At           time.Time
	Kind         string // payment, refund, deposit or withdrawal
	ID           log.ID // of the payment or refund; zero for the others
	Name         string // what the caller calls it
	Counterparty string // the account on the other side; empty for what came from outside, or went there
	Amount       int64  // minor units; negative: taken
	Balance      int64  // after it
	Currency     string
}

// PaymentFilter narrows a list; what is empty is not looked at. From and To are about when it was created.
type PaymentFilter struct {
	Payer, Payee, Reference, State string
	lists.Range
}

// MessageFilter narrows a list; what is empty is not looked at. From and To are about when it was prepared.
type MessageFilter struct {
	State, Producer, Topic, Key, Source, EventID, Subject string
	lists.Range
	// Only, if set, has the last word on what is of now and not of the log. It is asked once a message, and must not call the view.
	Only func(log.ID) bool
}

// ActivityFilter narrows a list; what is empty is not looked at. From and To are about when it began.
type ActivityFilter struct {
	State, Participant string
	lists.Range
}

// AccountFilter narrows a list of accounts by their currency and state.
type AccountFilter struct{ Currency, State string }

// snapshot is all partitions at one moment.
type snapshot struct {
	view *View
	rows func(p int32) fold.Scanner
}

func (v *View) read(f func(s snapshot) error) error {
	return v.store.ReadAll(func(rows func(p int32) fold.Scanner, _ log.Position) error {
		return f(snapshot{v, rows})
	})
}

func (s snapshot) home(id log.ID) int32 { return log.PartitionOf(id.Slot(), s.view.partitions) }

func (s snapshot) of(key string) fold.Scanner {
	return s.rows(log.PartitionOf(log.SlotOf(key), s.view.partitions))
}

// get returns a thing by its id.
func (s snapshot) get(id log.ID) (thing, bool) {
	return things.Get(s.rows(s.home(id)), string(id[:]))
}

// found is a thing that a list has come to.
type found struct {
	id log.ID
	thing
}

// streams are the rows of one index value, in every partition.
func (s snapshot) streams(b by, value string) []lists.Stream[[]byte] {
	streams := make([]lists.Stream[[]byte], s.view.partitions)
	for p := range streams {
		streams[p] = s.stream(int32(p), b, value)
	}
	return streams
}

func (s snapshot) stream(p int32, b by, value string) lists.Stream[[]byte] {
	return lists.Stream[[]byte]{Rows: s.rows(p), Partition: p, Table: index, Prefix: string(indexPrefix(b, value))}
}

// classes are the streams of an index whose values begin with a class.
func (s snapshot) classes(b by, state string, classes ...class) []lists.Stream[[]byte] {
	var streams []lists.Stream[[]byte]
	for _, c := range classes {
		streams = append(streams, s.streams(b, string(c)+state)...)
	}
	return streams
}

// list pages through streams of things; make says what becomes of one, or that it is not wanted.
func list[T any](s snapshot, page lists.Page, span lists.Range, streams []lists.Stream[[]byte], make func(found) (T, bool)) ([]T, []byte, error) {
	return listPlaced(s, page, span, streams, func(x found, _ lists.Place) (T, bool) { return make(x) })
}

// listPlaced is list where make is told as well where in the list a thing stands.
func listPlaced[T any](
	s snapshot, page lists.Page, span lists.Range, streams []lists.Stream[[]byte], make func(found, lists.Place) (T, bool),
) ([]T, []byte, error) {
	return lists.Merge(page, span, streams, func(e lists.Entry[[]byte]) (T, bool) {
		t, ok := things.Get(s.rows(e.Place.Partition), string(e.Value))
		if !ok || len(e.Value) != len(log.ID{}) {
			panic(&fold.StoreError{Key: string(e.Value), Err: errMissing})
		}
		return make(found{log.ID(e.Value), t}, e.Place)
	})
}

// Payment returns a payment or refund with its history.
func (v *View) Payment(id log.ID) (p Payment, ok bool, err error) {
	err = v.read(func(s snapshot) error {
		t, known := s.get(id)
		if ok = known && (t.Class == classPayment || t.Class == classRefund); !ok {
			return nil
		}
		x := found{id, t}
		p = s.payment(x)
		p.History, p.DeliveredAt = s.history(x), s.delivery(x)
		return nil
	})
	return p, ok, err
}

// Payments lists payments, newest first. The cursor returned goes into the next Page; nil means that there is no more.
func (v *View) Payments(f PaymentFilter, page lists.Page) (payments []Payment, next []byte, err error) {
	err = v.read(func(s snapshot) (err error) {
		payments, next, err = list(s, page, f.Range, s.paymentStreams(f), func(x found) (Payment, bool) {
			p := s.payment(x)
			return p, f.wants(p)
		})
		return err
	})
	return payments, next, err
}

func (s snapshot) paymentStreams(f PaymentFilter) []lists.Stream[[]byte] {
	switch {
	case f.Reference != "":
		return s.streams(byReference, f.Reference)
	case f.Payer != "": // which owns its payments
		return []lists.Stream[[]byte]{s.stream(log.PartitionOf(log.SlotOf(f.Payer), s.view.partitions), byPayer, f.Payer)}
	case f.Payee != "":
		return s.streams(byPayee, f.Payee)
	}
	switch f.State {
	case Pending, Held:
		return s.classes(byOpen, "", classPayment)
	case Refused, Voided:
		return s.classes(byUnpaid, f.State, classPayment)
	}
	return s.classes(byTime, "", classPayment)
}

func (f *PaymentFilter) wants(p Payment) bool {
	return is(f.Payer, p.Payer) && is(f.Payee, p.Payee) && is(f.Reference, p.Reference) && is(f.State, p.State)
}

func is(want, has string) bool { return want == "" || want == has }

// Refunds lists the refunds of a payment, newest first.
func (v *View) Refunds(of log.ID, page lists.Page) (refunds []Payment, next []byte, err error) {
	err = v.read(func(s snapshot) (err error) {
		streams := []lists.Stream[[]byte]{s.stream(s.home(of), byParent, string(of[:]))}
		refunds, next, err = list(s, page, lists.Range{}, streams, func(x found) (Payment, bool) {
			return s.payment(x), x.Class == classRefund
		})
		return err
	})
	return refunds, next, err
}

// RefundsNamed lists the refunds of a name, newest first: each of a payment of its own, under which it is unique.
func (v *View) RefundsNamed(name string, page lists.Page) (refunds []Payment, next []byte, err error) {
	err = v.read(func(s snapshot) (err error) {
		refunds, next, err = list(s, page, lists.Range{}, s.streams(byRefund, name), func(x found) (Payment, bool) {
			return s.payment(x), x.Name == name
		})
		return err
	})
	return refunds, next, err
}

// Activity returns an activity with its history.
func (v *View) Activity(id log.ID) (a Activity, ok bool, err error) {
	err = v.read(func(s snapshot) error {
		t, known := s.get(id)
		if ok = known && t.Activity != nil; ok {
			a = s.activity(found{id, t})
			a.History = s.history(found{id, t})
		}
		return nil
	})
	return a, ok, err
}

// Activities lists activities, payments and refunds among them, newest first.
func (v *View) Activities(f ActivityFilter, page lists.Page) (activities []Activity, next []byte, err error) {
	err = v.read(func(s snapshot) (err error) {
		activities, next, err = list(s, page, f.Range, s.activityStreams(f), func(x found) (Activity, bool) {
			if !is(f.State, x.State) || !x.has(f.Participant) {
				return Activity{}, false
			}
			return s.activity(x), true
		})
		return err
	})
	return activities, next, err
}

// builtIn is the participant of every payment and refund.
const builtIn = "accounts"

func (s snapshot) activityStreams(f ActivityFilter) []lists.Stream[[]byte] {
	if f.Participant != "" && f.Participant != builtIn {
		return s.streams(byParticipant, f.Participant)
	}
	switch f.State {
	case phaseTrying:
		return s.classes(byOpen, "", classPayment, classRefund, classActivity)
	case phaseCancelling, phaseCancelled:
		var streams []lists.Stream[[]byte]
		for _, outcome := range []string{Refused, Voided} {
			streams = append(streams, s.classes(byUnpaid, outcome, classPayment, classRefund, classActivity)...)
		}
		return streams
	}
	return s.classes(byTime, "", classPayment, classRefund, classActivity)
}

func (x found) has(participant string) bool {
	if participant == "" {
		return true
	}
	for _, a := range x.Activity.Actions {
		if a.Participant == participant {
			return true
		}
	}
	return false
}

// Message returns a message with its history.
func (v *View) Message(ctx context.Context, id log.ID) (m Message, ok bool, err error) {
	err = v.read(func(s snapshot) error {
		t, known := s.get(id)
		if ok = known; ok {
			m = s.message(found{id, t})
			m.History = s.history(found{id, t})
		}
		return nil
	})
	if err == nil && ok {
		err = v.fill(ctx, []*Message{&m})
	}
	return m, ok, err
}

// Ended returns the name of a message that has ended, and the partition of its topic that it went to, -1 if to none. It looks at one row: what
// Message reads beside costs a hundred times as much. What has not ended in the view yet is waited for, until the view has come to by.
func (v *View) Ended(ctx context.Context, id log.ID, by log.Position) (name string, partition int32, ok bool, err error) {
	look := func() error {
		return v.store.Peek(log.PartitionOf(id.Slot(), v.partitions), func(rows fold.Reader) {
			t, there := things.Get(rows, string(id[:]))
			name, partition, ok = t.Name, t.Partition, there && t.EndedMs > 0
		})
	}
	if err = look(); err != nil || ok {
		return name, partition, ok, err
	}
	if err = v.store.Wait(ctx, by); err == nil {
		err = look()
	}
	return name, partition, ok, err
}

// Limits of a page of messages beside its size: the events are read for it, and may be long.
const (
	// EventsBytesMax is how many bytes of events a page has. The event that passes it is the last; there is a cursor to go on from.
	EventsBytesMax = 8 << 20
	// eventsAtOnce is how many events are read before their bytes are counted.
	eventsAtOnce = 32
)

// Messages lists messages, those of activities among them, newest first.
func (v *View) Messages(ctx context.Context, f MessageFilter, page lists.Page) (messages []Message, next []byte, err error) {
	var places []lists.Place
	err = v.read(func(s snapshot) (err error) {
		messages, next, err = listPlaced(s, page, f.Range, s.messageStreams(f), func(x found, at lists.Place) (Message, bool) {
			if !f.wants(x) {
				return Message{}, false
			}
			places = append(places, at)
			return s.message(x), true
		})
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	filled, err := v.fillPage(ctx, messages)
	if err != nil {
		return nil, nil, err
	}
	if filled < len(messages) {
		messages, next = messages[:filled], places[filled-1].Cursor()
	}
	return messages, next, nil
}

// fillPage reads the events of messages, and returns how many of them fit into a page.
func (v *View) fillPage(ctx context.Context, messages []Message) (filled int, err error) {
	size := 0
	for group := range slices.Chunk(messages, eventsAtOnce) {
		want := make([]*Message, len(group))
		for i := range group {
			want[i] = &group[i]
		}
		if err := v.fill(ctx, want); err != nil {
			return filled, err
		}
		for i := range group {
			filled++
			if size += len(group[i].Event); size > EventsBytesMax {
				return filled, nil
			}
		}
	}
	return filled, nil
}

func (s snapshot) messageStreams(f MessageFilter) []lists.Stream[[]byte] {
	switch {
	case f.EventID != "":
		return s.streams(byEvent, f.EventID)
	case f.Key != "": // a message whose key is its event's id is found by that; a payment's key is its payer
		p := log.PartitionOf(log.SlotOf(f.Key), s.view.partitions)
		return []lists.Stream[[]byte]{s.stream(p, byKey, f.Key), s.stream(p, byEvent, f.Key), s.stream(p, byPayer, f.Key)}
	case f.Subject != "":
		return s.streams(bySubject, f.Subject)
	}
	plain, all := f.Producer != "" || f.Source != "", []class{classMessage, classPayment, classRefund, classActivity}
	if plain {
		all = all[:1]
	}
	switch f.State {
	case statePrepared:
		return s.classes(byOpen, "", all...)
	case stateCommitted:
		return s.classes(byOpen, "", classMessage)
	case stateParked, stateDropped:
		return s.classes(byUnpaid, f.State, classMessage)
	case stateRolledBack:
		streams := s.classes(byUnpaid, stateRolledBack, classMessage)
		if !plain {
			streams = append(streams, s.activityStreams(ActivityFilter{State: phaseCancelled})...)
		}
		return streams
	}
	switch {
	case f.Producer != "":
		return s.streams(byProducer, f.Producer)
	case f.Topic == log.PaymentsTopic:
		return s.classes(byTime, "", classPayment, classRefund)
	case f.Topic != "":
		return s.streams(byTopic, f.Topic)
	}
	return s.classes(byTime, "", all...)
}

func (f *MessageFilter) wants(x found) bool {
	m := x.Message
	if m == nil {
		m = &message{Topic: x.topic()}
	}
	return is(f.State, x.messageState()) && is(f.Producer, m.Producer) && is(f.Topic, m.Topic) && is(f.Key, x.Key) &&
		is(f.Source, m.Source) && is(f.EventID, m.EventID) && is(f.Subject, m.Subject) && (f.Only == nil || f.Only(x.id))
}

// Account returns an account as the view has it.
func (v *View) Account(name string) (a Account, ok bool, err error) {
	err = v.read(func(s snapshot) error {
		var row account
		if row, ok = accounts.Get(s.of(name), name); ok {
			a = row.show(name)
		}
		return nil
	})
	return a, ok, err
}

// Entries lists the postings of an account, newest first. From and To are about when they were posted.
func (v *View) Entries(name string, span lists.Range, page lists.Page) (found []Entry, next []byte, err error) {
	err = v.read(func(s snapshot) (err error) {
		rows := s.of(name)
		a, ok := accounts.Get(rows, name)
		if !ok {
			return nil
		}
		p := log.PartitionOf(log.SlotOf(name), s.view.partitions)
		streams := []lists.Stream[entry]{{Rows: rows, Partition: p, Table: entries, Prefix: string(lists.Value(nil, name))}}
		found, next, err = lists.Merge(page, span, streams, func(e lists.Entry[entry]) (Entry, bool) {
			x := e.Value
			shown := Entry{
				At: at(e.Place.Ms), Kind: x.Kind, Name: x.Name, Counterparty: x.Other, Amount: x.Amount, Balance: x.Balance,
				Currency: a.Currency,
			}
			copy(shown.ID[:], x.ID)
			if t, ok := s.get(shown.ID); ok { // it is not there yet where the other partition is read further
				shown.Name = t.Name
			}
			return shown, true
		})
		return err
	})
	return found, next, err
}

// Accounts lists accounts, the last opened first.
func (v *View) Accounts(f AccountFilter, page lists.Page) (all []Account, next []byte, err error) {
	err = v.read(func(s snapshot) (err error) {
		streams := make([]lists.Stream[string], v.partitions)
		for p := range streams {
			streams[p] = lists.Stream[string]{Rows: s.rows(int32(p)), Partition: int32(p), Table: openings}
		}
		all, next, err = lists.Merge(page, lists.Range{}, streams, func(e lists.Entry[string]) (Account, bool) {
			a, ok := accounts.Get(s.rows(e.Place.Partition), e.Value)
			return a.show(e.Value), ok && is(f.Currency, a.Currency) && is(f.State, a.State)
		})
		return err
	})
	return all, next, err
}
