package transactions

import (
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/projections/facts"
	"github.com/remitlog/remit/projections/lists"
)

// Apply folds one event into the rows of its partition.
func (*View) Apply(rows fold.Rows, e *fold.Event) {
	switch f := e.Fact.(type) {
	case facts.Named:
		claims.Put(rows, f.Kind+"/"+f.Name, claim{ID: f.ID, At: e.Offset})
	case facts.Begun:
		applyBegun(rows, e, &f)
	case facts.Decided:
		applyDecided(rows, e, &f)
	case facts.Ended:
		t := known(rows, e, f.ID)
		if t.State != phaseConfirming && t.State != phaseCancelling {
			fold.Broken(e, "activity %s in phase %s has ended", f.ID, t.State)
		}
		t.end(e)
		put(rows, f.ID, t)
	case facts.Prepared:
		applyPrepared(rows, e, &f)
	case facts.Committed:
		applyCommitted(rows, e, &f)
	case facts.Delivered:
		t := known(rows, e, f.ID)
		t.Partition = f.Partition
		delivered(rows, e, f.ID, t)
	case facts.RolledBack:
		t := unparked(rows, e, f.ID)
		t.decide(e, f.By, f.Reason)
		t.State, t.EndedMs, t.EndedAt = stateRolledBack, t.DecidedMs, t.DecidedAt
		closed(rows, f.ID, &t)
		put(rows, f.ID, t)
	case facts.Parked:
		t := known(rows, e, f.ID)
		t.State = stateParked
		t.mark(e, markParked, f.Decision)
		note(rows, byUnpaid, string(classMessage)+stateParked, f.ID.Bytes(), &t)
		put(rows, f.ID, t)
	case facts.Resumed:
		t := unparked(rows, e, f.ID)
		t.State = statePrepared
		t.mark(e, markResumed, f.Decision)
		put(rows, f.ID, t)
	case facts.CheckAsked:
		t := known(rows, e, f.ID)
		t.mark(e, markCheckAsked, f.Decision)
		put(rows, f.ID, t)
	case facts.Dropped:
		t := known(rows, e, f.ID)
		t.State, t.EndedMs, t.EndedAt = stateDropped, ms(e), e.Offset
		t.mark(e, markDropped, f.Decision)
		closed(rows, f.ID, &t)
		put(rows, f.ID, t)
	case facts.Conflicted:
		t := known(rows, e, f.ID)
		t.Conflicts = append(t.Conflicts[:len(t.Conflicts):len(t.Conflicts)],
			conflict{Ms: ms(e), At: e.Offset, By: f.By, Reason: f.Reason, Wanted: f.Wanted, Recorded: f.Recorded})
		put(rows, f.ID, t)
	case facts.PlacedAll:
		placed.Put(rows, offsetKey(e.Offset), f.Places)
	default:
		applyAccount(rows, e)
	}
}

func ms(e *fold.Event) int64 { return e.Time.UnixMilli() }

func put(rows fold.Rows, id log.ID, t thing) { things.Put(rows, string(id[:]), t) }

func known(rows fold.Rows, e *fold.Event, id log.ID) thing {
	t, ok := things.Get(rows, string(id[:]))
	if !ok {
		fold.Broken(e, "%s is not there", id)
	}
	return t
}

// unparked is known, of a message that is parked no longer if it was.
func unparked(rows fold.Rows, e *fold.Event, id log.ID) thing {
	t := known(rows, e, id)
	if t.State == stateParked {
		index.Delete(rows, indexKey(byUnpaid, string(classMessage)+stateParked, &t))
	}
	return t
}

// mark adds to what happened. Earlier versions of the row keep theirs.
func (t *thing) mark(e *fold.Event, kind string, d facts.Decision) {
	t.Marks = append(t.Marks[:len(t.Marks):len(t.Marks)], mark{Kind: kind, Ms: ms(e), At: e.Offset, By: d.By, Reason: d.Reason})
}

func fresh(rows fold.Rows, e *fold.Event, id log.ID) {
	if _, ok := things.Get(rows, string(id[:])); ok {
		fold.Broken(e, "%s begins twice", id)
	}
}

func (t *thing) decide(e *fold.Event, by, reason string) {
	t.DecidedMs, t.DecidedAt, t.By, t.Reason = ms(e), e.Offset, by, reason
}

// end moves an activity that is decided to where nothing more happens.
func (t *thing) end(e *fold.Event) {
	t.EndedMs, t.EndedAt = ms(e), e.Offset
	if t.State == phaseConfirming {
		t.State = phaseConfirmed
	} else {
		t.State = phaseCancelled
	}
}

func classOf(kind string) class {
	switch kind {
	case facts.KindPayment:
		return classPayment
	case facts.KindRefund:
		return classRefund
	}
	return classActivity
}

func applyBegun(rows fold.Rows, e *fold.Event, f *facts.Begun) {
	fresh(rows, e, f.ID)
	id := f.ID.Bytes()
	debit := f.Order(facts.Debit)
	t := thing{
		Class: classOf(f.Kind), State: phaseTrying, Name: f.Name, Key: f.Key, BegunMs: ms(e), BegunAt: e.Offset, Partition: -1,
		Asked: debit.Amount,
		Activity: &activity{
			Kind: f.Kind, Reference: f.Reference, Manual: f.Manual, Refused: f.Refused, Deadline: f.Deadline, Actions: f.Actions,
		},
	}
	if !f.Parent.IsZero() {
		t.Activity.Parent = f.Parent.Bytes()
		note(rows, byParent, string(t.Activity.Parent), id, &t)
	}
	note(rows, byTime, string(t.Class), id, &t)
	if t.waits() {
		if t.Holds = f.Held(); t.Holds > 0 {
			hold(rows, e, f.Key, t.Holds)
		}
		note(rows, byOpen, string(t.Class), id, &t)
	}
	noteSides(rows, f, id, &t)
	put(rows, f.ID, t)
}

// noteSides puts an activity into the indexes of what it is about.
func noteSides(rows fold.Rows, f *facts.Begun, id []byte, t *thing) {
	switch t.Class {
	case classPayment:
		note(rows, byPayer, f.Order(facts.Debit).Account, id, t)
		note(rows, byPayee, f.Order(facts.Credit).Account, id, t)
		if f.Reference != "" {
			note(rows, byReference, f.Reference, id, t)
		}
	case classRefund:
		note(rows, byKey, f.Key, id, t)
		if f.Name != "" {
			note(rows, byRefund, f.Name, id, t)
		}
	case classActivity: // payments and refunds have one participant, and it is always the same
		note(rows, byKey, f.Key, id, t)
		for _, a := range f.Actions {
			note(rows, byParticipant, a.Participant, id, t)
		}
	}
}

// waits reports whether an activity is not decided by the event after its begun, in the same append: only then is it worth an index
// row until it is, and is what it holds held for longer than between the two.
func (t *thing) waits() bool {
	if t.Activity.Refused != "" {
		return false
	}
	return t.Activity.Manual || t.remote(facts.Debit)
}

// remote reports whether an action of a side is another partition's to answer.
func (t *thing) remote(side string) bool {
	for i := range t.Activity.Actions {
		if o := &t.Activity.Actions[i].Order; o.Side == side && o.Account != t.Key {
			return true
		}
	}
	return false
}

func applyDecided(rows fold.Rows, e *fold.Event, f *facts.Decided) {
	t := known(rows, e, f.ID)
	if t.State != phaseTrying {
		fold.Broken(e, "activity %s in phase %s is decided", f.ID, t.State)
	}
	if t.waits() {
		index.Delete(rows, indexKey(byOpen, string(t.Class), &t))
	}
	if t.Holds > 0 {
		release(rows, e, t.Key, t.Holds)
		t.Holds = 0
	}
	t.post(rows, e, f)
	t.decide(e, f.By, f.Reason)
	if f.Partition != nil {
		t.Partition = *f.Partition
	}
	if t.State = phaseCancelling; f.Outcome == facts.Confirm {
		t.State, t.Taken = phaseConfirming, f.Amount
	}
	if !t.owes() {
		t.end(e)
	}
	if f.Outcome != facts.Confirm {
		note(rows, byUnpaid, string(t.Class)+t.paymentState(), f.ID.Bytes(), &t)
	}
	put(rows, f.ID, t)
	if t.Class == classRefund && t.Taken > 0 {
		of := known(rows, e, f.Parent)
		if of.Refunded += t.Taken; of.Refunded > of.Taken {
			fold.Broken(e, "payment %s: refunded %d of %d", f.Parent, of.Refunded, of.Taken)
		}
		put(rows, f.Parent, of)
	}
}

// owes reports whether a decided activity still waits for other partitions.
func (t *thing) owes() bool {
	if t.State == phaseCancelling {
		return t.Activity.Refused == "" && t.remote(facts.Debit)
	}
	return t.remote(facts.Debit) || t.remote(facts.Credit)
}

// post moves what the decision takes in this partition.
func (t *thing) post(rows fold.Rows, e *fold.Event, f *facts.Decided) {
	balanced(e, f.Postings)
	for n, p := range f.Postings {
		if facts.Internal(p.Account) {
			continue
		}
		post(rows, e, p, n, entry{Kind: t.Activity.Kind, ID: f.ID.Bytes(), Other: t.other(p)})
	}
}

// other returns the account on the other side of a posting.
func (t *thing) other(p facts.Posting) string {
	side := facts.Credit
	if p.Amount > 0 {
		side = facts.Debit
	}
	for i := range t.Activity.Actions {
		if o := &t.Activity.Actions[i].Order; o.Side == side {
			return o.Account
		}
	}
	return ""
}

func applyPrepared(rows fold.Rows, e *fold.Event, f *facts.Prepared) {
	fresh(rows, e, f.ID)
	id := f.ID.Bytes()
	h, err := f.Head()
	if err != nil {
		fold.Broken(e, "message %s: %v", f.ID, err) // it was parsed before it was prepared
	}
	t := thing{
		Class: classMessage, State: statePrepared, Name: f.Name, Key: f.Key, BegunMs: ms(e), BegunAt: e.Offset, Partition: -1,
		Message: &message{
			Topic: f.Topic, Producer: f.Producer, Source: h.Source, EventID: h.ID, Subject: h.Subject,
			DeliverAt: f.DeliverAt, DeliverAfter: f.DeliverAfter,
		},
	}
	note(rows, byTime, string(classMessage), id, &t)
	note(rows, byOpen, string(classMessage), id, &t)
	note(rows, byTopic, f.Topic, id, &t)
	note(rows, byProducer, f.Producer, id, &t)
	note(rows, byEvent, h.ID, id, &t)
	if f.Key != h.ID { // what has no key of its own is found by its event's id
		note(rows, byKey, f.Key, id, &t)
	}
	if h.Subject != "" {
		note(rows, bySubject, h.Subject, id, &t)
	}
	put(rows, f.ID, t)
}

func applyCommitted(rows fold.Rows, e *fold.Event, f *facts.Committed) {
	t := unparked(rows, e, f.ID)
	t.decide(e, f.By, f.Reason)
	t.State = stateCommitted
	if f.Partition == nil {
		put(rows, f.ID, t)
		return
	}
	t.Partition = *f.Partition
	delivered(rows, e, f.ID, t)
}

func delivered(rows fold.Rows, e *fold.Event, id log.ID, t thing) {
	t.State, t.EndedMs, t.EndedAt = stateDelivered, ms(e), e.Offset
	closed(rows, id, &t)
	put(rows, id, t)
}

// closed takes a message out of what is open.
func closed(rows fold.Rows, id log.ID, t *thing) {
	index.Delete(rows, indexKey(byOpen, string(classMessage), t))
	if t.State != stateDelivered {
		note(rows, byUnpaid, string(classMessage)+t.State, id.Bytes(), t)
	}
}

func applyAccount(rows fold.Rows, e *fold.Event) {
	switch f := e.Fact.(type) {
	case facts.Opened:
		accounts.Put(rows, f.Account, account{
			Currency: f.Currency, State: "open", CreditLimit: f.CreditLimit, OpenedMs: ms(e), OpenedAt: e.Offset,
		})
		openings.Put(rows, string(lists.Append(nil, ms(e), e.Offset, 0)), f.Account)
	case facts.Changed:
		a := must(rows, e, f.Account)
		a.State, a.CreditLimit = f.State, f.CreditLimit
		accounts.Put(rows, f.Account, a)
	case facts.Deposited:
		applyCash(rows, e, &f.Cash, "deposit")
	case facts.Withdrawn:
		applyCash(rows, e, &f.Cash, "withdrawal")
	case facts.Held:
		hold(rows, e, f.Account, f.Amount)
		tried(rows, e, &f.Done, partHeld, "")
	case facts.Declined:
		tried(rows, e, &f.Done, partDeclined, f.Reason)
	case facts.Posted:
		release(rows, e, f.Account, f.Amount)
		done(rows, e, &f.Done, partPosted)
	case facts.Voided:
		if f.Amount > 0 {
			release(rows, e, f.Account, f.Amount)
		}
		done(rows, e, &f.Done, partVoided)
	case facts.Credited:
		move(rows, e, &f.Done)
		parts.Put(rows, partKey(f.Activity, f.Action), part{State: partCredited, EndedMs: ms(e), EndedAt: e.Offset})
	}
}

func applyCash(rows fold.Rows, e *fold.Event, f *facts.Cash, kind string) {
	balanced(e, f.Postings)
	for n, p := range f.Postings {
		if !facts.Internal(p.Account) {
			post(rows, e, p, n, entry{Kind: kind, Name: f.Name})
		}
	}
	cashes.Put(rows, f.Account+"/"+f.Name, e.Offset)
}

func tried(rows fold.Rows, e *fold.Event, f *facts.Done, state, reason string) {
	parts.Put(rows, partKey(f.Activity, f.Action), part{State: state, TriedMs: ms(e), TriedAt: e.Offset, Reason: reason})
}

// done ends a part that was tried, or whose cancel came first.
func done(rows fold.Rows, e *fold.Event, f *facts.Done, state string) {
	move(rows, e, f)
	p, _ := parts.Get(rows, partKey(f.Activity, f.Action))
	p.State, p.EndedMs, p.EndedAt = state, ms(e), e.Offset
	parts.Put(rows, partKey(f.Activity, f.Action), p)
}

// move posts what another partition's activity moves here.
func move(rows fold.Rows, e *fold.Event, f *facts.Done) {
	balanced(e, f.Postings)
	for n, p := range f.Postings {
		if !facts.Internal(p.Account) {
			post(rows, e, p, n, entry{Kind: f.Context.Kind, ID: f.Activity.Bytes(), Other: f.Context.From})
		}
	}
}

func must(rows fold.Rows, e *fold.Event, name string) account {
	a, ok := accounts.Get(rows, name)
	if !ok {
		fold.Broken(e, "account %q is not there", name)
	}
	return a
}

func hold(rows fold.Rows, e *fold.Event, name string, amount int64) {
	a := must(rows, e, name)
	held, ok := add(a.Held, amount)
	if !ok || amount <= 0 {
		fold.Broken(e, "hold of %d on %q: held %d", amount, name, a.Held)
	}
	a.Held = held
	accounts.Put(rows, name, a)
}

func release(rows fold.Rows, e *fold.Event, name string, amount int64) {
	a := must(rows, e, name)
	if a.Held < amount {
		fold.Broken(e, "release of %d on %q: held %d", amount, name, a.Held)
	}
	a.Held -= amount
	accounts.Put(rows, name, a)
}

// post moves one posting and keeps its entry, with the balance after it.
func post(rows fold.Rows, e *fold.Event, p facts.Posting, n int, x entry) {
	a := must(rows, e, p.Account)
	balance, ok := add(a.Balance, p.Amount)
	if !ok || a.Currency != p.Currency {
		fold.Broken(e, "posting of %d %s on %q, which has %d %s", p.Amount, p.Currency, p.Account, a.Balance, a.Currency)
	}
	a.Balance = balance
	accounts.Put(rows, p.Account, a)
	x.Amount, x.Balance = p.Amount, balance
	key := lists.Value(make([]byte, 0, 64), p.Account)
	entries.Put(rows, string(lists.Append(key, ms(e), e.Offset, uint8(n))), x)
}

// balanced holds postings to A5: they sum to zero per currency, or the fold stops.
func balanced(e *fold.Event, postings []facts.Posting) {
	for i, p := range postings {
		var sum int64
		for j, q := range postings {
			if q.Currency != p.Currency {
				continue
			}
			if j < i { // this currency has been summed
				sum = 0
				break
			}
			var ok bool
			if sum, ok = add(sum, q.Amount); !ok {
				fold.Broken(e, "postings in %s are more than can be counted", p.Currency)
			}
		}
		if sum != 0 {
			fold.Broken(e, "postings in %s sum to %d, not to zero", p.Currency, sum)
		}
	}
}

// add reports false if the sum does not fit.
func add(a, b int64) (int64, bool) {
	sum := a + b
	return sum, (sum > a) == (b > 0)
}
