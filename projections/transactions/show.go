package transactions

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/projections/facts"
)

// errMissing: an index row without its thing.
var errMissing = errors.New("transactions: an index points to a thing that is not there")

// placesMax is how many rows of placed messages are looked through for one: the turns that may lie between a delivery and
// what says where it went. Of a delivery whose place was never noted (a crash), the partition alone is known.
const placesMax = 64

func at(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// paymentState is the business's word for where a payment stands.
func (t *thing) paymentState() string {
	switch t.State {
	case phaseTrying:
		if t.Activity.Manual {
			return Held
		}
		return Pending
	case phaseConfirming, phaseConfirmed:
		return Paid
	}
	if t.Activity.Manual && t.Activity.Refused == "" {
		return Voided
	}
	return Refused
}

// messageState is where a thing's message stands: that of an activity is decided with it.
func (t *thing) messageState() string {
	switch t.State {
	case phaseTrying:
		return statePrepared
	case phaseConfirming, phaseConfirmed:
		return stateDelivered
	case phaseCancelling, phaseCancelled:
		return stateRolledBack
	}
	return t.State
}

func (t *thing) topic() string {
	switch {
	case t.Message != nil:
		return t.Message.Topic
	case t.Class == classPayment, t.Class == classRefund:
		return log.PaymentsTopic
	}
	return ""
}

// order returns the order of the first action on a side.
func (t *thing) order(side string) facts.Order {
	b := facts.Begun{Actions: t.Activity.Actions}
	return b.Order(side)
}

// parent returns the activity that a thing is named under; zero if none.
func (t *thing) parent() (id log.ID) {
	copy(id[:], t.Activity.Parent)
	return id
}

func (s snapshot) payment(x found) Payment {
	debit, credit := x.order(facts.Debit), x.order(facts.Credit)
	p := Payment{
		ID: x.id, Name: x.Name, Kind: facts.KindPayment, State: x.paymentState(), Settled: s.settled(x),
		Payer: debit.Account, Payee: credit.Account, Amount: x.Asked, Captured: x.Taken, Refunded: x.Refunded,
		Currency: debit.Currency, Reference: x.Activity.Reference, Manual: x.Activity.Manual, Reason: x.Reason,
		CreatedAt: at(x.BegunMs), DecidedAt: at(x.DecidedMs), EndedAt: at(x.EndedMs), Of: x.parent(),
	}
	if x.Class == classRefund {
		p.Kind, p.Payer, p.Payee = facts.KindRefund, credit.Account, debit.Account
	}
	return p
}

// settled reports whether all money has arrived: the activity has ended, or the other partitions have it already.
func (s snapshot) settled(x found) bool {
	if x.State != phaseConfirming {
		return x.State == phaseConfirmed
	}
	for _, a := range x.Activity.Actions {
		if p, ok := s.part(x, a); ok && p.State != partCredited && p.State != partPosted {
			return false
		} else if !ok && a.Order.Account != x.Key {
			return false
		}
	}
	return true
}

// part returns what another partition has of an action; false if it is local, or not there yet.
func (s snapshot) part(x found, a facts.Action) (part, bool) {
	if a.Order.Account == x.Key {
		return part{}, false
	}
	return parts.Get(s.of(a.Order.Account), partKey(x.id, a.Name))
}

func (s snapshot) activity(x found) Activity {
	a := Activity{
		ID: x.id, Name: x.Name, Key: x.Key, Kind: x.Activity.Kind, Mode: "coordinated", State: x.State, Reason: x.Reason,
		Deadline: at(x.Activity.Deadline), CreatedAt: at(x.BegunMs), DecidedAt: at(x.DecidedMs), EndedAt: at(x.EndedMs),
		Actions: make([]Action, len(x.Activity.Actions)),
	}
	for i, action := range x.Activity.Actions {
		o := action.Order
		a.Actions[i] = Action{
			Name: action.Name, Participant: action.Participant, Side: o.Side, Account: o.Account, Amount: o.Amount, Currency: o.Currency,
		}
		a.Actions[i].State, a.Actions[i].Reason = s.actionState(x, action)
	}
	return a
}

// actionState says where an action stands. What is local is tried when the activity begins, and confirmed or cancelled when it
// is decided.
func (s snapshot) actionState(x found, a facts.Action) (state, reason string) {
	p, there := s.part(x, a)
	local := a.Order.Account == x.Key
	switch {
	case there:
		return map[string]string{
			partHeld: "tried", partDeclined: "refused", partPosted: "confirmed", partVoided: "cancelled", partCredited: "confirmed",
		}[p.State], p.Reason
	case local && x.Activity.Refused != "" && a.Order.Side == facts.Debit:
		return "refused", x.Activity.Refused
	case x.State == phaseTrying && local && a.Order.Side == facts.Debit:
		return "tried", ""
	case x.State == phaseConfirmed, x.State == phaseConfirming && local:
		return "confirmed", ""
	case x.State == phaseCancelled, x.State == phaseCancelling && local:
		return "cancelled", ""
	}
	return "pending", ""
}

func (s snapshot) message(x found) Message {
	m := Message{
		ID: x.id, Name: x.Name, Topic: x.topic(), Key: x.Key, State: x.messageState(), DecidedBy: x.By, Reason: x.Reason,
		PreparedAt: at(x.BegunMs), DecidedAt: at(x.DecidedMs), DeliveredAt: s.delivery(x), Activity: x.Activity != nil,
	}
	if x.Message == nil {
		if d := m.DeliveredAt; d != nil && d.Offset >= 0 {
			m.at = ref{log.Partition{Topic: d.Topic, Index: d.Partition}, d.Offset}
		}
		return m
	}
	m.Producer = x.Message.Producer
	for _, mark := range x.Marks { // why it stands where it stands; whoever had it checked meanwhile gave another reason
		if mark.Kind == markParked && x.State == stateParked || mark.Kind == markDropped && x.State == stateDropped {
			m.Reason = mark.Reason
		}
	}
	m.at = ref{s.core(x.id), x.BegunAt}
	switch {
	case x.Message.DeliverAfter > 0 && x.DecidedMs > 0:
		m.DeliverAt = at(max(x.Message.DeliverAt, x.DecidedMs+x.Message.DeliverAfter))
	default:
		m.DeliverAt = at(x.Message.DeliverAt)
	}
	return m
}

func (s snapshot) core(id log.ID) log.Partition {
	return log.Partition{Topic: log.EventsTopic, Index: s.home(id)}
}

// delivery says where a thing's message stands on its topic; nil if it does not.
func (s snapshot) delivery(x found) *Delivery {
	if x.Partition < 0 {
		return nil
	}
	d, began := &Delivery{Topic: x.topic(), Partition: x.Partition, Offset: -1}, x.DecidedAt
	if x.Message != nil {
		began = x.EndedAt // which made it visible
	}
	looked := 0
	for _, places := range placed.Scan(s.rows(s.home(x.id)), offsetKey(began), "", false) {
		for i := range places {
			if places[i].ID == x.id {
				d.Partition, d.Offset = places[i].Partition, places[i].Offset
				return d
			}
		}
		if looked++; looked == placesMax {
			return d
		}
	}
	return d
}

func (a account) show(name string) Account {
	return Account{
		Account: name, Currency: a.Currency, State: a.State, Balance: a.Balance, Held: a.Held,
		Available: a.Balance - a.Held + a.CreditLimit, CreditLimit: a.CreditLimit, OpenedAt: at(a.OpenedMs),
	}
}

// fact is one event of a story, before it is read.
type fact struct {
	ref
	rank int // what must come before what, whatever the clocks of two partitions say
	Step
}

// The ranks of the facts of one activity or message.
const (
	rankNamed = iota
	rankBegun
	rankTried
	rankDecided
	rankAfter // deliveries, conflicts, confirms and cancels
	rankEnded
	rankLate // what came when all was over
)

// facts lists what happened to a thing, in causal order.
func (s snapshot) facts(x found) []fact {
	var all []fact
	home := s.core(x.id)
	here := func(rank int, ms int64, o log.Offset, f fold.Fact, by, detail string) {
		all = append(all, fact{ref{home, o}, rank, Step{at(ms), f.EventType(), by, detail}})
	}
	if x.Activity != nil {
		here(rankBegun, x.BegunMs, x.BegunAt, facts.Begun{}, "", x.Activity.Refused)
	} else {
		here(rankBegun, x.BegunMs, x.BegunAt, facts.Prepared{}, x.Message.Producer, "")
	}
	if x.DecidedMs > 0 {
		here(rankDecided, x.DecidedMs, x.DecidedAt, x.decision(), x.By, x.Reason)
	}
	for _, m := range x.Marks {
		rank := rankTried // before it is decided
		if x.DecidedMs > 0 && m.At > x.DecidedAt {
			rank = rankEnded
		}
		here(rank, m.Ms, m.At, m.fact(), m.By, m.Reason)
	}
	if x.EndedMs > 0 && x.EndedAt != x.DecidedAt && x.State != stateDropped { // that is a mark
		here(rankEnded, x.EndedMs, x.EndedAt, x.ending(), "", "")
	}
	for _, c := range x.Conflicts {
		rank := rankAfter
		if x.EndedMs > 0 && c.At > x.EndedAt {
			rank = rankLate
		}
		here(rank, c.Ms, c.At, facts.Conflicted{}, c.By, "wanted "+c.Wanted+", recorded "+c.Recorded)
	}
	all = append(all, s.remoteFacts(x)...)
	inOrder(all)
	return all
}

func inOrder(all []fact) {
	slices.SortStableFunc(all, func(a, b fact) int { return a.rank - b.rank })
}

func (x found) decision() fold.Fact {
	switch {
	case x.Activity != nil:
		return facts.Decided{}
	case x.State == stateRolledBack:
		return facts.RolledBack{}
	}
	return facts.Committed{}
}

func (m mark) fact() fold.Fact {
	switch m.Kind {
	case markParked:
		return facts.Parked{}
	case markResumed:
		return facts.Resumed{}
	case markCheckAsked:
		return facts.CheckAsked{}
	default:
		return facts.Dropped{}
	}
}

func (x found) ending() fold.Fact {
	if x.Activity != nil {
		return facts.Ended{}
	}
	return facts.Delivered{}
}

// remoteFacts lists what other partitions have of a thing.
func (s snapshot) remoteFacts(x found) (all []fact) {
	if x.Activity == nil {
		return nil
	}
	for _, a := range x.Activity.Actions {
		p, ok := s.part(x, a)
		if !ok {
			continue
		}
		there := log.Partition{Topic: log.EventsTopic, Index: log.PartitionOf(log.SlotOf(a.Order.Account), s.view.partitions)}
		if p.TriedMs > 0 {
			f := fold.Fact(facts.Held{})
			if p.State == partDeclined {
				f = facts.Declined{}
			}
			all = append(all, fact{ref{there, p.TriedAt}, rankTried, Step{at(p.TriedMs), f.EventType(), a.Participant, strings.TrimSpace(a.Order.Account + " " + p.Reason)}})
		}
		if p.EndedMs > 0 {
			f := map[string]fold.Fact{partPosted: facts.Posted{}, partVoided: facts.Voided{}, partCredited: facts.Credited{}}[p.State]
			all = append(all, fact{ref{there, p.EndedAt}, rankAfter, Step{at(p.EndedMs), f.EventType(), a.Participant, a.Order.Account}})
		}
	}
	return all
}

func (s snapshot) history(x found) []Step {
	all := s.facts(x)
	steps := make([]Step, len(all))
	for i := range all {
		steps[i] = all[i].Step
	}
	return steps
}

// ref is where a record stands.
type ref struct {
	log.Partition
	Offset log.Offset
}

// readBytes is how much of the log is read at once: neighbours are often wanted too.
const readBytes = 128 << 10

// records reads records of the log, those of one partition in order, so that neighbours are read at once. What
// is no longer there, on a topic with a retention, is left out.
func (v *View) records(ctx context.Context, refs []ref) (map[ref]log.Record, error) {
	want := slices.Clone(refs)
	slices.SortFunc(want, func(a, b ref) int {
		return cmp.Or(strings.Compare(a.Topic, b.Topic), int(a.Index)-int(b.Index), cmp.Compare(a.Offset, b.Offset))
	})
	got := make(map[ref]log.Record, len(want))
	var near []log.Record
	for _, r := range slices.Compact(want) {
		if i, ok := find(near, r); ok {
			got[r] = near[i]
			continue
		}
		first, end, err := v.log.Bounds(ctx, r.Partition)
		switch {
		case errors.Is(err, log.ErrUnknownTopic):
			continue
		case err != nil:
			return nil, fmt.Errorf("transactions: %w", err)
		case r.Offset < first || r.Offset >= end:
			continue
		}
		near, err = v.log.Read(ctx, r.Partition, r.Offset, readBytes)
		if errors.Is(err, log.ErrOffsetOutOfRange) || errors.Is(err, log.ErrUnknownTopic) {
			continue // trimmed, or deleted, meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("transactions: %w", err)
		}
		if i, ok := find(near, r); ok {
			got[r] = near[i]
		}
	}
	return got, nil
}

func find(records []log.Record, r ref) (int, bool) {
	if len(records) == 0 || records[0].Partition != r.Partition {
		return 0, false
	}
	return slices.BinarySearchFunc(records, r.Offset, func(have log.Record, want log.Offset) int { return cmp.Compare(have.Offset, want) })
}

// fill reads the events of messages.
func (v *View) fill(ctx context.Context, messages []*Message) error {
	refs := make([]ref, 0, len(messages))
	for _, m := range messages {
		if m.at.Topic != "" {
			refs = append(refs, m.at)
		}
	}
	records, err := v.records(ctx, refs)
	if err != nil {
		return err
	}
	for _, m := range messages {
		if r, ok := records[m.at]; ok {
			if m.Event, err = eventOf(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// eventOf returns the event that a record delivers, or is to deliver, in its JSON format.
func eventOf(r log.Record) ([]byte, error) {
	if r.Topic == log.EventsTopic {
		e, err := prepared.Decode(r)
		if err != nil {
			return nil, err
		}
		f, _ := e.Fact.(facts.Prepared)
		return f.Event, nil
	}
	e, err := log.ParseRecord(r)
	if err != nil {
		return nil, fmt.Errorf("transactions: %s/%d offset %d: %w", r.Topic, r.Index, r.Offset, err)
	}
	return e.MarshalStructured()
}

var prepared = fold.NewFacts(false, fold.FactOf[facts.Prepared]())
