package payments

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/remitlog/remit/broker"
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
	// BeginMax is how long a caller waits for a payment to begin, past its own wait.
	BeginMax = 30 * time.Second
	// RefundDeadline is how long the payee's hold may take.
	RefundDeadline = 30 * time.Second
)

// participant is the one that payments need.
const participant = "accounts"

// Request asks for a payment. See Validate.
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

// ErrInvalid: what no door lets through. The text says what is wrong; correct it.
var ErrInvalid = errors.New("payments: invalid request")

// Validate says what no payment can be begun with. Doors have checked it already, field by field; what got through all the same
// would stop the fold.
func (r Request) Validate() error {
	id, isID := log.ParseID(r.ID)
	_, known := r.Currency.Exponent()
	wrong := ""
	switch {
	case isID == (r.Name != "") || !isID && r.ID != "":
		wrong = "one of ID and Name is needed"
	case isID && id.Slot() != log.SlotOf(r.Payer):
		wrong = "the id is not in the payer's slot"
	case r.Payer == "" || r.Payee == "" || r.Payer == r.Payee:
		wrong = "a payer and another payee are needed"
	case r.Amount < 1 || r.Amount > accounts.AmountMax:
		wrong = "the amount is out of range"
	case !known:
		wrong = "the currency is none"
	case !r.Manual && r.HoldFor != 0 || r.HoldFor < 0 || r.HoldFor > HoldForMax:
		wrong = "HoldFor is out of range"
	default:
		return nil
	}
	return fmt.Errorf("%w: %s", ErrInvalid, wrong)
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
	waiters map[log.ID][]*waiter // of payments that are paid and not settled, and of open refunds
}

// waiter is one caller who waits until a payment is settled.
type waiter struct {
	wake func(log.Position)
	// stop ends the watch over the caller's patience: who waits no longer is forgotten at once.
	stop func() bool
}

// NewService returns a service without a node: Answered must be given to the saga before the node is opened.
func NewService(l log.Log) *Service {
	return &Service{log: l, waiters: map[log.ID][]*waiter{}}
}

// Serve completes the service.
func (s *Service) Serve(n *fold.Node, g *saga.Saga) { s.node, s.saga = n, g }

// Now is the time of the node: what CreatedAt is measured in.
func (s *Service) Now() time.Time { return s.node.Now() }

// Answered wakes who waits for a payment or refund to be settled. It is saga.Options.Answered.
//
// A hold's answer wakes nobody: the decision that rests on it is not durable yet. Every other answer follows a durable
// decision. Who comes after the answer and before the end is on the log is woken by the end.
func (s *Service) Answered(id log.ID, verb accounts.Verb, _ accounts.Answer, at log.Position) {
	if verb == accounts.VerbHold {
		return
	}
	s.mu.Lock()
	waiters := s.waiters[id]
	delete(s.waiters, id)
	s.mu.Unlock()
	for _, w := range waiters {
		w.stop()
		w.wake(at)
	}
}

// await has wake called when what is open under id is settled, unless ctx ends before. It is called on the goroutine of id's
// partition, for what has not ended: the end comes later, on the same goroutine.
func (s *Service) await(ctx context.Context, id log.ID, wake func(log.Position)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := &waiter{wake: wake}
	w.stop = context.AfterFunc(ctx, func() { s.forget(id, w) })
	s.waiters[id] = append(s.waiters[id], w)
}

// Waiting returns how many callers wait for a payment or refund to be settled.
func (s *Service) Waiting() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.waiters {
		n += len(w)
	}
	return n
}

// forget drops one waiter.
func (s *Service) forget(id log.ID, gone *waiter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rest := slices.DeleteFunc(s.waiters[id], func(w *waiter) bool { return w == gone })
	if s.waiters[id] = rest; len(rest) == 0 {
		delete(s.waiters, id)
	}
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
	s.start(context.Background(), r, claimed, done)
}

// start is Start for a caller who waits as long as ctx.
func (s *Service) start(ctx context.Context, r Request, claimed func(), done func(Answer, error)) {
	s.Claim(ctx, r, func(c Claimed) {
		s.Begin(c, done)
		if claimed != nil {
			claimed()
		}
	})
}

// Claimed is a request whose name stands for an id.
type Claimed struct {
	request  Request
	meaning  log.Fingerprint // of the request
	id       log.ID
	position log.Position
	err      error
	patience context.Context // of the caller
}

// Claim claims the name of a request, for Begin. done is called exactly once: before Claim returns if the request has an id, else on a
// partition's goroutine, which it must not block. What went wrong is said by Begin. ctx is the patience of Begin's caller, not of Claim.
func (s *Service) Claim(ctx context.Context, r Request, done func(Claimed)) {
	c := Claimed{request: r, patience: ctx}
	if c.err = r.Validate(); c.err != nil {
		done(c)
		return
	}
	c.meaning = r.fingerprint()
	if id, ok := log.ParseID(r.ID); ok {
		c.id = id
		done(c)
		return
	}
	claim := names.Claim{Named: names.Named{
		Kind: names.KindPayment, Name: r.Name, ID: log.NewID(s.node.Now(), r.Payer), Key: r.Payer, Fingerprint: c.meaning,
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
// order in which Begin was called. done is called once: when the payment is held or refused, or when it is settled; or with an
// error, after which nothing may have begun (fold.ErrStopped alone leaves that open). It runs on a partition's goroutine and must not block.
// It is not called when the patience that Claim was given ends between paid and settled: who gives up looks (see Look).
func (s *Service) Begin(c Claimed, done func(Answer, error)) {
	mismatch := (*names.MismatchError)(nil)
	switch {
	case errors.As(c.err, &mismatch):
		go func() { done(Answer{}, s.mismatch(c.request, mismatch.Named.ID)) }() // it reads the log
	case errors.Is(c.err, log.ErrDiskFull):
		go func() { done(s.recall(c.request, c.err)) }() // it reads the stores
	case c.err != nil:
		done(Answer{}, c.err)
	default:
		s.begin(c, done)
	}
}

// recall answers a request whose turn was refused for want of room. What was begun before needs none, and was refused for what others in the
// turn had to write.
func (s *Service) recall(r Request, refused error) (Answer, error) {
	a, err := s.Look(r)
	if errors.Is(err, ErrUnknownPayment) {
		err = refused
	}
	a.Replayed = err == nil
	return a, err
}

// begin asks the payee, and begins the payment at the payer.
func (s *Service) begin(c Claimed, done func(Answer, error)) {
	r := c.request
	begun := saga.Begun{
		ID: c.id, Kind: KindPayment, Name: r.Name, Key: r.Payer, Fingerprint: c.meaning, Reference: r.Reference, Manual: r.Manual,
		Deadline: s.node.Now().Add(cmp.Or(r.holdFor(), Deadline)).UnixMilli(),
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
	err = s.node.Submit(s.node.PartitionOfID(c.id), saga.Begin{Saga: s.saga, Begun: begun}, func(res fold.Result) {
		s.begun(c, res, done)
	})
	if err != nil {
		done(Answer{}, err)
	}
}

// payeeRefuses asks the payee's owner; the answer rests on what is durable there, and nothing is written.
func (s *Service) payeeRefuses(o accounts.Order) (reason accounts.Reason, err error) {
	err = s.node.Peek(s.node.PartitionOf(o.Account), func(rows fold.Reader) { reason = accounts.Refuses(rows, o) })
	return reason, err
}

// begun answers for a payment that has begun, or waits until it is settled.
func (s *Service) begun(c Claimed, res fold.Result, done func(Answer, error)) {
	if mismatch := (*saga.MismatchError)(nil); errors.As(res.Err, &mismatch) {
		go func() { done(Answer{}, s.mismatch(c.request, c.id)) }() // it reads the log
		return
	}
	if errors.Is(res.Err, log.ErrDiskFull) {
		go func() { done(s.recall(c.request, res.Err)) }() // it reads the stores
		return
	}
	if res.Err != nil {
		done(Answer{}, res.Err)
		return
	}
	reply := res.Answer.(saga.Reply)
	a := Answer{Payment: s.payment(reply.Row), Replayed: reply.Replayed, Position: c.position.Merge(res.Position())}
	a.Payment.Name, a.Payment.Reference = c.request.Name, c.request.Reference
	s.settled(c.patience, a, done)
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
	start := func(patience context.Context, done func(Answer, error)) { s.start(patience, r, nil, done) }
	return await(ctx, wait, start, func() (Answer, error) { return s.Look(r) })
}

// await runs start until it is done, or wait or ctx is over: then it looks. What has not begun by then is waited for, at most for
// BeginMax.
func await(ctx context.Context, wait time.Duration, start func(context.Context, func(Answer, error)), look func() (Answer, error)) (Answer, error) {
	type outcome struct {
		a   Answer
		err error
	}
	patience, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	got := make(chan outcome, 1)
	start(patience, func(a Answer, err error) { got <- outcome{a, err} })
	select {
	case o := <-got:
		return o.a, o.err
	case <-patience.Done():
	}
	if a, err := look(); ctx.Err() != nil || !errors.Is(err, ErrUnknownPayment) && !errors.Is(err, ErrNotBegun) {
		return a, cmp.Or(ctx.Err(), err)
	}
	// It has not begun. The caller's wait bounds the settling; what begins is answered at once from here on.
	begin := time.NewTimer(BeginMax)
	defer begin.Stop()
	select {
	case o := <-got:
		return o.a, o.err
	case <-begin.C:
		return look()
	case <-ctx.Done():
		return Answer{}, ctx.Err()
	}
}

// Look answers as the payment that r asks for stands now: for who waits no longer. Errors are Begin's, *MismatchError too:
// what stands under the id or name may be another payment (D4). ErrUnknownPayment if it has not begun.
func (s *Service) Look(r Request) (Answer, error) {
	id, isID := log.ParseID(r.ID)
	if !isID {
		named, ok, err := names.Lookup(s.node, names.KindPayment, r.Name)
		switch {
		case err != nil:
			return Answer{}, err
		case !ok:
			return Answer{}, ErrUnknownPayment
		case named.Fingerprint != r.fingerprint():
			return Answer{}, s.mismatch(r, named.ID)
		}
		id = named.ID
	}
	f, err := s.look(id)
	switch {
	case err != nil:
		return Answer{}, err
	case !f.there:
		return Answer{}, ErrUnknownPayment
	case f.message.Fingerprint != r.fingerprint():
		return Answer{}, s.mismatch(r, id)
	}
	a := s.answer(f)
	a.Payment.Name, a.Payment.Reference = r.Name, r.Reference
	return a, nil
}

// found is what stands under an id.
type found struct {
	there    bool // also if it is a plain message
	message  broker.Message
	row      saga.Row // zero if it is a plain message
	refunded int64
	position log.Position
}

func (s *Service) look(id log.ID) (f found, err error) {
	p := s.node.PartitionOfID(id)
	err = s.node.Read(p, func(rows fold.Scanner, at log.Offset) error {
		f.message, _, f.there = broker.Get(rows, id)
		f.row, _ = saga.Get(rows, id)
		g, _ := givens.Get(rows, string(id[:]))
		f.refunded, f.position = g.Refunded, log.Position{p: at}
		return nil
	})
	return f, err
}

func (s *Service) answer(f found) Answer {
	a := Answer{Payment: s.payment(f.row), Position: f.position}
	a.Payment.Refunded = f.refunded
	return a
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
	f, err := s.look(known)
	switch {
	case err != nil:
		return Answer{}, err
	case f.row.Activity.Kind != KindPayment && f.row.Activity.Kind != KindRefund:
		return Answer{}, ErrUnknownPayment
	}
	a := s.answer(f)
	a.Payment.Name = cmp.Or(a.Payment.Name, name)
	if a.Payment.State == StatePaid && !a.Payment.Settled {
		a.Payment.Settled, err = s.arrived(f.row)
	}
	return a, err
}

// arrived reports whether all money of a paid payment is where it belongs. Its own row says so a moment later, once it has ended.
func (s *Service) arrived(r saga.Row) (bool, error) {
	home := s.node.PartitionOfID(r.ID)
	for _, a := range r.Activity.Actions {
		p := s.node.PartitionOf(a.Order.Account)
		if p == home {
			continue
		}
		there := accounts.ActionState("")
		err := s.node.Peek(p, func(rows fold.Reader) { there = accounts.Stands(rows, r.ID, a.Name) })
		if err != nil || there != accounts.ActionCredited && there != accounts.ActionPosted {
			return false, err
		}
	}
	return true, nil
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
	start := func(patience context.Context, done func(Answer, error)) {
		err := s.node.Submit(s.node.PartitionOfID(c.ID), c, func(res fold.Result) { s.finished(patience, c, res, done) })
		if err != nil {
			done(Answer{}, err)
		}
	}
	return await(ctx, wait, start, func() (Answer, error) {
		f, err := s.look(c.ID)
		if err != nil {
			return Answer{}, err
		}
		reply := saga.Reply{Row: f.row} // not decided yet
		if f.row.Activity.Phase != saga.PhaseTrying {
			reply = c.Stands(f.row)
		}
		a := s.answer(f)
		return a, s.judge(c, reply)
	})
}

func (s *Service) finished(patience context.Context, c saga.Finish, res fold.Result, done func(Answer, error)) {
	err := res.Err
	if errors.Is(err, saga.ErrUnknownActivity) {
		err = ErrUnknownPayment
	}
	reply, _ := res.Answer.(saga.Reply)
	if err == nil {
		err = s.judge(c, reply)
	}
	if err != nil {
		done(Answer{Position: res.Position()}, err) // a contradiction leaves an event
		return
	}
	s.settled(patience, Answer{Payment: s.payment(reply.Row), Replayed: reply.Replayed, Position: res.Position()}, done)
}

// judge says why what stands is not what a capture or void asked for.
func (s *Service) judge(c saga.Finish, reply saga.Reply) error {
	p := s.payment(reply.Row)
	switch {
	case reply.Activity.Kind == "":
		return ErrUnknownPayment
	case !reply.Activity.Manual:
		return ErrNotManual
	case reply.Conflict:
		return &DecidedError{p}
	case c.Outcome == saga.Confirm && reply.Replayed && cmp.Or(c.Amount, p.Amount) != p.Captured:
		return &MismatchError{ID: c.ID, Field: "amount", Recorded: accounts.FormatAmount(p.Captured, p.Currency)}
	}
	return nil
}

// settled answers once a paid payment is settled, and at once if it is not paid, or is settled.
func (s *Service) settled(patience context.Context, a Answer, done func(Answer, error)) {
	if a.Payment.Settled || a.Payment.State != StatePaid || patience.Err() != nil {
		done(a, nil)
		return
	}
	s.await(patience, a.Payment.ID, func(at log.Position) {
		a.Payment.Settled = true
		a.Position = a.Position.Merge(at)
		done(a, nil)
	})
}

// Refund gives a part of a paid payment back. The answer's payment is the refund. Errors: ErrUnknownPayment, ErrNotPaid,
// ErrExceedsPaid, *MismatchError, ErrNotBegun. It waits as Pay does.
func (s *Service) Refund(ctx context.Context, r RefundRequest, wait time.Duration) (Answer, error) {
	id, isID := log.ParseID(r.ID)
	if isID == (r.Name != "") {
		return Answer{}, fmt.Errorf("%w: a refund needs one of ID and Name", ErrInvalid)
	}
	if !isID {
		id = log.NewIDInSlot(s.node.Now(), r.Of.Slot())
	}
	start := func(patience context.Context, done func(Answer, error)) {
		c := beginRefund{RefundRequest: r, saga: s.saga, id: id}
		err := s.node.Submit(s.node.PartitionOfID(r.Of), c, func(res fold.Result) { s.refunding(patience, r, res, done) })
		if err != nil {
			done(Answer{}, err)
		}
	}
	return await(ctx, wait, start, func() (Answer, error) { return s.lookRefund(r, id) })
}

func (s *Service) refunding(patience context.Context, r RefundRequest, res fold.Result, done func(Answer, error)) {
	if mismatch := (*saga.MismatchError)(nil); errors.As(res.Err, &mismatch) {
		done(Answer{}, r.mismatch(mismatch.Recorded))
		return
	}
	if res.Err != nil {
		done(Answer{}, res.Err)
		return
	}
	reply := res.Answer.(saga.Reply)
	a := Answer{Payment: s.payment(reply.Row), Replayed: reply.Replayed, Position: res.Position()}
	if reply.Activity.Phase.Final() || patience.Err() != nil {
		done(a, nil)
		return
	}
	// What the payee has done by then wakes us: the money is taken, or the door is shut. How it was decided is read.
	s.await(patience, a.Payment.ID, func(at log.Position) {
		go func() {
			f, err := s.look(a.Payment.ID)
			now := s.answer(f)
			now.Payment.Settled = now.Payment.State == StatePaid
			now.Replayed, now.Position = a.Replayed, now.Position.Merge(a.Position).Merge(at)
			done(now, err)
		}()
	})
}

// ErrNotBegun: the wait was over before the refund began. Ask again with the same id.
var ErrNotBegun = errors.New("payments: the refund waits to begin")

// lookRefund answers as a refund stands now.
func (s *Service) lookRefund(r RefundRequest, id log.ID) (Answer, error) {
	err := s.node.Read(s.node.PartitionOfID(r.Of), func(rows fold.Scanner, _ log.Offset) error {
		if was, ok := refunds.Get(rows, refundKey(r.Of, r.Name)); ok {
			id = was
		}
		return nil
	})
	if err != nil {
		return Answer{}, err
	}
	f, err := s.look(id)
	switch {
	case err != nil:
		return Answer{}, err
	case !f.there:
		return Answer{}, ErrNotBegun
	case f.message.Fingerprint != r.fingerprint():
		f.row.ID = id
		return Answer{}, r.mismatch(f.row)
	}
	return s.answer(f), nil
}

// mismatch names the first field in which a request differs from what began under its id. It reads the begun record.
func (s *Service) mismatch(r Request, id log.ID) error {
	e := &MismatchError{ID: id}
	f, err := s.look(id)
	switch {
	case err != nil:
		return err
	case !f.there:
		return e // a claim alone knows no field
	case f.row.Activity.Kind != KindPayment:
		e.Field, e.Recorded = "id", what(f.row)
		return e
	}
	p := s.node.PartitionOfID(id)
	ctx, cancel := context.WithTimeout(context.Background(), Deadline)
	defer cancel()
	records, err := s.log.Read(ctx, log.Partition{Topic: log.EventsTopic, Index: p}, f.message.Begun, 1)
	if err != nil {
		return err
	}
	event, err := fold.NewFacts(false, saga.Facts()...).Decode(records[0])
	if err != nil {
		return err
	}
	begun, ok := event.Fact.(saga.Begun)
	if !ok {
		return fmt.Errorf("payments: %s offset %d is not where %s began", log.EventsTopic, f.message.Begun, id)
	}
	e.Field, e.Recorded = r.differs(begun)
	return e
}

// differs compares a request with what began, in the order of the API's fields.
func (r Request) differs(begun saga.Begun) (field, recorded string) {
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
