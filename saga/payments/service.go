package payments

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/log/names"
	"github.com/remitlog/remit/saga"
	"github.com/remitlog/remit/saga/accounts"
)

// Limits of payments.
const (
	// HoldForDefault and HoldForMax bound how long a manual capture may take.
	HoldForDefault = 168 * time.Hour
	HoldForMax     = 720 * time.Hour
	// Deadline is how long a payment whose tries are all local may take: it is decided in the turn that begins it.
	Deadline = 30 * time.Second
	// RefundDeadline is how long the payee's hold may take.
	RefundDeadline = 30 * time.Second
)

// participant is the one that payments need.
const participant = "accounts"

// Request asks for a payment. It must have passed Validate.
type Request struct {
	ID, Name  string // at most one: remit's id, or the caller's name
	Payer     string
	Payee     string
	Amount    int64 // minor units, 1 to AmountMax
	Currency  accounts.Currency
	Reference string
	Manual    bool          // held until it is captured
	HoldFor   time.Duration // of a manual one; 0 means HoldForDefault
}

// State is where a payment stands, as the business sees it.
type State string

// The states.
const (
	StatePending State = "pending"
	StateHeld    State = "held"
	StatePaid    State = "paid"
	StateRefused State = "refused"
	StateVoided  State = "voided"
)

// Payment is a payment, or a refund, as it stands. Times are zero where it has not come so far.
type Payment struct {
	ID        log.ID
	Name      string
	State     State
	Settled   bool // the payee has it
	Payer     string
	Payee     string
	Amount    int64 // asked for, minor units
	Captured  int64
	Refunded  int64
	Currency  accounts.Currency
	Reference string
	Manual    bool
	Reason    string
	CreatedAt time.Time
	DecidedAt time.Time
	EndedAt   time.Time
	// Of is the payment that this is a refund of; zero if it is a payment.
	Of log.ID
}

// Answer is a payment as it stands, whether an earlier request had made it so, and where a reader must have come to
// see it.
type Answer struct {
	Payment  Payment
	Replayed bool
	Position log.Position
}

// MismatchError says that an id or name stands for other content (D4). Field is the first that differs, in the order of the API's
// fields; empty where the content is not known: the thing was claimed and has not begun.
type MismatchError struct {
	ID       log.ID
	Field    string
	Recorded string
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("payments: %s stands for other content (%s)", e.ID, e.Field)
}

// DecidedError says that a payment was decided otherwise (D2).
type DecidedError struct{ Recorded Payment }

func (e *DecidedError) Error() string {
	return fmt.Sprintf("payments: %s is %s", e.Recorded.ID, e.Recorded.State)
}

// ErrNotManual: only a payment with a manual capture can be captured or voided.
var ErrNotManual = errors.New("payments: payment has no manual capture")

// Service takes payments. It is the door of this package.
type Service struct {
	node *fold.Node
	saga *saga.Saga
	log  log.Log

	mu      sync.Mutex
	waiters map[log.ID][]func(log.Position) // of payments that are paid and not settled
}

// NewService returns a service without a node: Answered must be given to the saga before the node is opened.
func NewService(l log.Log) *Service {
	return &Service{log: l, waiters: map[log.ID][]func(log.Position){}}
}

// Serve completes the service.
func (s *Service) Serve(n *fold.Node, g *saga.Saga) { s.node, s.saga = n, g }

// Now is the time of the node: what CreatedAt is measured in.
func (s *Service) Now() time.Time { return s.node.Now() }

// Answered wakes who waits for a payment or refund to be settled. It is saga.Options.Answered.
func (s *Service) Answered(id log.ID, verb accounts.Verb, answer accounts.Answer, at log.Position) {
	if verb == accounts.VerbHold && answer.Result == accounts.ResultDone {
		return // decided next
	}
	s.mu.Lock()
	waiters := s.waiters[id]
	delete(s.waiters, id)
	s.mu.Unlock()
	for _, f := range waiters {
		f(at)
	}
}

func (s *Service) await(id log.ID, f func(log.Position)) {
	s.mu.Lock()
	s.waiters[id] = append(s.waiters[id], f)
	s.mu.Unlock()
}

// fingerprint is the meaning of a request.
func (r Request) fingerprint() log.Fingerprint {
	return log.FingerprintOf("payment", r.Payer, r.Payee, strconv.FormatInt(r.Amount, 10), string(r.Currency), r.Reference,
		strconv.FormatBool(r.Manual), strconv.FormatInt(r.holdFor().Milliseconds(), 10))
}

func (r Request) holdFor() time.Duration {
	switch {
	case !r.Manual:
		return 0
	case r.HoldFor == 0:
		return HoldForDefault
	}
	return r.HoldFor
}

// Start begins a payment, and returns at once: it is Claim and then Begin.
func (s *Service) Start(r Request, claimed func(), done func(Answer, error)) {
	s.Claim(r, func(c Claimed) {
		s.Begin(c, done)
		if claimed != nil {
			claimed()
		}
	})
}

// Claimed is a request whose name stands for an id.
type Claimed struct {
	request  Request
	id       log.ID
	position log.Position
	err      error
}

// Claim claims the name of a request, for Begin. done is called exactly once: before Claim returns if the request has an id, else on a
// partition's goroutine, which it must not block. What went wrong is said by Begin.
func (s *Service) Claim(r Request, done func(Claimed)) {
	c := Claimed{request: r}
	if id, ok := log.ParseID(r.ID); ok {
		c.id = id
		done(c)
		return
	}
	claim := names.Claim{Named: names.Named{
		Kind: names.KindPayment, Name: r.Name, ID: log.NewID(s.node.Now(), r.Payer), Key: r.Payer, Fingerprint: r.fingerprint(),
	}}
	p := s.node.PartitionOf(names.Route(claim.Kind, claim.Name))
	err := s.node.Submit(p, claim, func(res fold.Result) {
		if c.err = res.Err; c.err == nil {
			c.id, c.position = res.Answer.(names.Named).ID, res.Position()
		}
		done(c)
	})
	if err != nil {
		c.err = err
		done(c)
	}
}

// Begin begins a payment whose name is claimed, and returns once it waits at its partition: payments of one payer begin in the
// order in which Begin was called. done is called exactly once: when the payment is held or refused, or when it is settled; or with an
// error, after which nothing may have begun (fold.ErrStopped alone leaves that open). It runs on a partition's goroutine and must not block.
func (s *Service) Begin(c Claimed, done func(Answer, error)) {
	mismatch := (*names.MismatchError)(nil)
	switch {
	case errors.As(c.err, &mismatch):
		go func() { done(Answer{}, s.mismatch(c.request, mismatch.Named.ID)) }() // it reads the log
	case c.err != nil:
		done(Answer{}, c.err)
	default:
		s.begin(c.request, c.id, c.position, done)
	}
}

// begin asks the payee, and begins the payment at the payer.
func (s *Service) begin(r Request, id log.ID, claimed log.Position, done func(Answer, error)) {
	begun := saga.Begun{
		ID: id, Kind: KindPayment, Name: r.Name, Key: r.Payer, Fingerprint: r.fingerprint(), Reference: r.Reference, Manual: r.Manual,
		Deadline: s.node.Now().Add(max(Deadline, r.holdFor())).UnixMilli(),
		Actions: []saga.Action{
			{Name: "debit", Participant: participant, Order: accounts.Order{Side: accounts.Debit, Account: r.Payer, Currency: r.Currency, Amount: r.Amount}},
			{Name: "credit", Participant: participant, Order: accounts.Order{Side: accounts.Credit, Account: r.Payee, Currency: r.Currency, Amount: r.Amount}},
		},
	}
	refused, err := s.payeeRefuses(begun.Actions[1].Order)
	if err != nil {
		done(Answer{}, err)
		return
	}
	begun.Refused = refused
	err = s.node.Submit(s.node.PartitionOfID(id), saga.Begin{Saga: s.saga, Begun: begun}, func(res fold.Result) {
		s.begun(r, id, claimed, res, done)
	})
	if err != nil {
		done(Answer{}, err)
	}
}

// payeeRefuses asks the payee's owner; the answer rests on what is durable there, and nothing is written.
func (s *Service) payeeRefuses(o accounts.Order) (reason accounts.Reason, err error) {
	err = s.node.Read(s.node.PartitionOf(o.Account), func(rows fold.Scanner, _ log.Offset) error {
		reason = accounts.Refuses(rows, o)
		return nil
	})
	return reason, err
}

// begun answers for a payment that has begun, or waits until it is settled.
func (s *Service) begun(r Request, id log.ID, claimed log.Position, res fold.Result, done func(Answer, error)) {
	if mismatch := (*saga.MismatchError)(nil); errors.As(res.Err, &mismatch) {
		go func() { done(Answer{}, s.mismatch(r, id)) }() // it reads the log
		return
	}
	if res.Err != nil {
		done(Answer{}, res.Err)
		return
	}
	reply := res.Answer.(saga.Reply)
	a := Answer{Payment: s.payment(reply.Row), Replayed: reply.Replayed, Position: claimed.Merge(res.Position())}
	a.Payment.Name, a.Payment.Reference = r.Name, r.Reference
	if reply.Activity.Phase != saga.PhaseConfirming {
		done(a, nil)
		return
	}
	s.await(id, func(at log.Position) {
		a.Payment.Settled = true
		a.Position = a.Position.Merge(at)
		done(a, nil)
	})
	if reply.Replayed { // it may have been settled before we waited
		s.wake(id)
	}
}

// wake wakes who waits for a payment that has ended.
func (s *Service) wake(id log.ID) {
	p := s.node.PartitionOfID(id)
	_ = s.node.Read(p, func(rows fold.Scanner, at log.Offset) error {
		if r, ok := saga.Get(rows, id); ok && r.Activity.Phase.Final() {
			s.Answered(id, accounts.VerbCredit, accounts.Answer{}, log.Position{p: at})
		}
		return nil
	})
}

// payment says how a row stands; Refunded is not in it.
func (s *Service) payment(r saga.Row) Payment {
	debit, credit := r.Activity.Order(accounts.Debit), r.Activity.Order(accounts.Credit)
	p := Payment{
		ID: r.ID, Name: r.Activity.Name, State: stateOf(r.Activity), Settled: r.Activity.Phase == saga.PhaseConfirmed,
		Payer: debit.Account, Payee: credit.Account, Amount: debit.Amount, Captured: r.Activity.Amount, Currency: debit.Currency,
		Reference: r.Activity.Reference, Manual: r.Activity.Manual, Reason: r.Message.Reason, Of: r.Activity.Parent,
		CreatedAt: at(r.Message.PreparedMs), DecidedAt: at(r.Message.DecidedMs), EndedAt: at(r.Activity.EndedMs),
	}
	if r.Activity.Kind == KindRefund {
		p.Payer, p.Payee, p.Captured = credit.Account, debit.Account, 0
	}
	return p
}

func at(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// stateOf is the business's word for where an activity of this package stands.
func stateOf(a saga.Activity) State {
	switch a.Phase {
	case saga.PhaseTrying:
		if a.Manual {
			return StateHeld
		}
		return StatePending
	case saga.PhaseConfirming, saga.PhaseConfirmed:
		return StatePaid
	}
	if a.Manual && a.Refused == "" {
		return StateVoided
	}
	return StateRefused
}

// Pay begins a payment and waits, at most for wait, until it is held, refused or settled. When wait is over, it answers as the
// payment then stands.
func (s *Service) Pay(ctx context.Context, r Request, wait time.Duration) (Answer, error) {
	return await(ctx, wait, func(done func(Answer, error)) { s.Start(r, nil, done) }, func() (Answer, error) {
		return s.Find(r.ID, r.Name)
	})
}

// await runs start until it is done, or wait or ctx is over: then it looks.
func await(ctx context.Context, wait time.Duration, start func(func(Answer, error)), look func() (Answer, error)) (Answer, error) {
	type outcome struct {
		a   Answer
		err error
	}
	got := make(chan outcome, 1)
	start(func(a Answer, err error) { got <- outcome{a, err} })
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case o := <-got:
		return o.a, o.err
	case <-ctx.Done():
		return Answer{}, ctx.Err()
	case <-timer.C:
		return look()
	}
}

// Resolve returns the id that an id or name stands for; ErrUnknownPayment if it is a name that nobody claimed.
func (s *Service) Resolve(id, name string) (log.ID, error) {
	if known, ok := log.ParseID(id); ok {
		return known, nil
	}
	named, ok, err := names.Lookup(s.node, names.KindPayment, name)
	if err == nil && !ok {
		err = ErrUnknownPayment
	}
	return named.ID, err
}

// Find returns a payment or refund as the core has it; of an ended one name and reference are not kept here:
// the transactions view has them.
func (s *Service) Find(id, name string) (Answer, error) {
	known, err := s.Resolve(id, name)
	if err != nil {
		return Answer{}, err
	}
	var (
		a  Answer
		ok bool
	)
	p := s.node.PartitionOfID(known)
	err = s.node.Read(p, func(rows fold.Scanner, at log.Offset) error {
		var r saga.Row
		if r, ok = saga.Get(rows, known); !ok {
			return nil
		}
		a = Answer{Payment: s.payment(r), Position: log.Position{p: at}}
		g, _ := givens.Get(rows, string(known[:]))
		a.Payment.Refunded = g.Refunded
		return nil
	})
	if err == nil && (!ok || a.Payment.Payer == "") {
		err = ErrUnknownPayment
	}
	if a.Payment.Name == "" {
		a.Payment.Name = name
	}
	return a, err
}

// Capture takes a held payment, amount of it or, if that is 0, all. It waits as Pay does. Errors: ErrUnknownPayment,
// ErrNotManual, saga.ErrTooMuch, *DecidedError, *MismatchError if another amount was captured.
func (s *Service) Capture(ctx context.Context, id log.ID, amount int64, by string, wait time.Duration) (Answer, error) {
	return s.finish(ctx, saga.Finish{Saga: s.saga, ID: id, Outcome: saga.Confirm, Amount: amount, By: by}, wait)
}

// Void gives a held payment back. Errors as Capture's.
func (s *Service) Void(ctx context.Context, id log.ID, by string, wait time.Duration) (Answer, error) {
	return s.finish(ctx, saga.Finish{Saga: s.saga, ID: id, Outcome: saga.Cancel, By: by, Reason: "voided"}, wait)
}

func (s *Service) finish(ctx context.Context, c saga.Finish, wait time.Duration) (Answer, error) {
	start := func(done func(Answer, error)) {
		err := s.node.Submit(s.node.PartitionOfID(c.ID), c, func(res fold.Result) { s.finished(c, res, done) })
		if err != nil {
			done(Answer{}, err)
		}
	}
	return await(ctx, wait, start, func() (Answer, error) { return s.Find(c.ID.String(), "") })
}

func (s *Service) finished(c saga.Finish, res fold.Result, done func(Answer, error)) {
	switch {
	case errors.Is(res.Err, saga.ErrUnknownActivity):
		done(Answer{}, ErrUnknownPayment)
		return
	case res.Err != nil:
		done(Answer{}, res.Err)
		return
	}
	reply := res.Answer.(saga.Reply)
	p := s.payment(reply.Row)
	switch {
	case !reply.Activity.Manual:
		done(Answer{}, ErrNotManual)
	case reply.Conflict:
		done(Answer{}, &DecidedError{p})
	case c.Outcome == saga.Confirm && reply.Replayed && c.Amount != 0 && c.Amount != p.Captured:
		done(Answer{}, &MismatchError{ID: c.ID, Field: "amount", Recorded: accounts.FormatAmount(p.Captured, p.Currency)})
	default:
		s.settled(Answer{Payment: p, Replayed: reply.Replayed, Position: res.Position()}, done)
	}
}

// settled answers once a paid payment is settled, and at once if it is not paid, or is settled.
func (s *Service) settled(a Answer, done func(Answer, error)) {
	if a.Payment.Settled || a.Payment.State != StatePaid {
		done(a, nil)
		return
	}
	s.await(a.Payment.ID, func(at log.Position) {
		a.Payment.Settled = true
		a.Position = a.Position.Merge(at)
		done(a, nil)
	})
	if a.Replayed {
		s.wake(a.Payment.ID)
	}
}

// RefundRequest asks for a refund of a payment. At most one of ID and Name is set.
type RefundRequest struct {
	Of       log.ID
	ID, Name string
	Amount   int64 // minor units
}

// Refund gives a part of a paid payment back. The answer's payment is the refund. Errors: ErrUnknownPayment, ErrNotPaid,
// ErrExceedsPaid, *MismatchError. It waits as Pay does.
func (s *Service) Refund(ctx context.Context, r RefundRequest, wait time.Duration) (Answer, error) {
	id, ok := log.ParseID(r.ID)
	name := r.Name
	if ok {
		name = id.String() // its own id is its name under the payment
	} else {
		id = s.mint(r.Of)
	}
	start := func(done func(Answer, error)) {
		c := beginRefund{saga: s.saga, id: id, name: name, of: r.Of, amount: r.Amount}
		err := s.node.Submit(s.node.PartitionOfID(r.Of), c, func(res fold.Result) { s.refunding(res, done) })
		if err != nil {
			done(Answer{}, err)
		}
	}
	return await(ctx, wait, start, func() (Answer, error) { return s.findRefund(r.Of, name) })
}

// mint makes an id in the slot of another.
func (s *Service) mint(of log.ID) log.ID { return log.NewIDInSlot(s.node.Now(), of.Slot()) }

func (s *Service) refunding(res fold.Result, done func(Answer, error)) {
	if mismatch := (*saga.MismatchError)(nil); errors.As(res.Err, &mismatch) {
		o := mismatch.Recorded.Activity.Order(accounts.Debit)
		done(Answer{}, &MismatchError{ID: mismatch.Recorded.ID, Field: "amount", Recorded: accounts.FormatAmount(o.Amount, o.Currency)})
		return
	}
	if res.Err != nil {
		done(Answer{}, res.Err)
		return
	}
	reply := res.Answer.(saga.Reply)
	a := Answer{Payment: s.payment(reply.Row), Replayed: reply.Replayed, Position: res.Position()}
	if reply.Activity.Phase.Final() {
		done(a, nil)
		return
	}
	// What the payee says wakes us: a refusal, or that the money was taken. What then stands is read.
	s.await(a.Payment.ID, func(at log.Position) {
		go func() {
			found, err := s.decided(a.Payment.ID)
			found.Replayed, found.Position = a.Replayed, found.Position.Merge(at)
			done(found, err)
		}()
	})
	if a.Replayed {
		s.wake(a.Payment.ID)
	}
}

// decided reads a refund once what woke us is decided: the answer came first, its fact is on its way to the log.
func (s *Service) decided(id log.ID) (Answer, error) {
	_, err := s.node.Do(context.Background(), s.node.PartitionOfID(id), look{})
	if err != nil {
		return Answer{}, err
	}
	return s.Find(id.String(), "")
}

// look decides nothing: when it is answered, what was asked before it is decided.
type look struct{}

// Decide implements fold.Command.
func (look) Decide(*fold.Turn) (any, error) { return nil, nil }

// findRefund finds a refund by its name under its payment.
func (s *Service) findRefund(of log.ID, name string) (Answer, error) {
	var (
		id log.ID
		ok bool
	)
	err := s.node.Read(s.node.PartitionOfID(of), func(rows fold.Scanner, _ log.Offset) error {
		id, ok = refunds.Get(rows, refundKey(of, name))
		return nil
	})
	switch {
	case err != nil:
		return Answer{}, err
	case !ok:
		return Answer{}, ErrUnknownPayment
	}
	return s.Find(id.String(), "")
}

// mismatch names the first field in which a request differs from what began under its id. It reads the begun record.
func (s *Service) mismatch(r Request, id log.ID) error {
	e := &MismatchError{ID: id}
	p := s.node.PartitionOfID(id)
	var row saga.Row
	err := s.node.Read(p, func(rows fold.Scanner, _ log.Offset) error {
		row, _ = saga.Get(rows, id)
		return nil
	})
	if err != nil || row.ID.IsZero() {
		return errors.Join(err, e) // a claim alone knows no field
	}
	ctx, cancel := context.WithTimeout(context.Background(), Deadline)
	defer cancel()
	records, err := s.log.Read(ctx, log.Partition{Topic: log.EventsTopic, Index: p}, row.Message.Begun, 1)
	if err != nil {
		return err
	}
	event, err := fold.NewFacts(false, saga.Facts()...).Decode(records[0])
	if err != nil {
		return err
	}
	begun, ok := event.Fact.(saga.Begun)
	if !ok {
		return fmt.Errorf("payments: %s offset %d is not where %s began", log.EventsTopic, row.Message.Begun, id)
	}
	e.Field, e.Recorded = r.differs(begun, event.Time)
	return e
}

// differs compares a request with what began, in the order of the API's fields.
func (r Request) differs(begun saga.Begun, at time.Time) (field, recorded string) {
	if begun.Kind != KindPayment {
		return "id", string(begun.Kind)
	}
	debit, credit := begun.Actions[0].Order, begun.Actions[1].Order
	for _, f := range []struct{ name, recorded, asked string }{
		{"payer", debit.Account, r.Payer},
		{"payee", credit.Account, r.Payee},
		{"currency", string(debit.Currency), string(r.Currency)},
		{"amount", accounts.FormatAmount(debit.Amount, debit.Currency), accounts.FormatAmount(r.Amount, r.Currency)},
		{"reference", begun.Reference, r.Reference},
		{"capture", capture(begun.Manual), capture(r.Manual)},
	} {
		if f.recorded != f.asked {
			return f.name, f.recorded
		}
	}
	return "holdFor", "until " + time.UnixMilli(begun.Deadline).UTC().Format(time.RFC3339)
}

func capture(manual bool) string {
	if manual {
		return "manual"
	}
	return "automatic"
}
