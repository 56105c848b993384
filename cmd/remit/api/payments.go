package api

import (
	"cmp"
	"errors"
	"net/http"
	"time"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/projections"
	"github.com/remitlog/remit/projections/transactions"
	"github.com/remitlog/remit/saga"
	"github.com/remitlog/remit/saga/accounts"
	"github.com/remitlog/remit/saga/payments"
)

// ReferenceMax is the longest reference of a payment, in bytes.
const ReferenceMax = 512

// ReplayedHeader says that the id was used before, with the same content.
const ReplayedHeader = "Idempotent-Replayed"

// Payments are the calls about payments and their refunds.
type Payments struct {
	Service *payments.Service
	Core    *fold.Node
	Views   *projections.Views
}

// Routes returns them.
func (p *Payments) Routes() []Route {
	return []Route{
		{Method: "POST", Pattern: "/v1/payments", Name: "createPayment", Handler: p.create},
		{Method: "POST", Pattern: "/v1/payments:batch", Name: "createPayments", Handler: p.createBatch, Streams: true},
		{Method: "POST", Pattern: "/v1/payments/{id}/capture", Name: "capturePayment", Handler: p.capture},
		{Method: "POST", Pattern: "/v1/payments/{id}/void", Name: "voidPayment", Handler: p.void},
		{Method: "POST", Pattern: "/v1/payments/{id}/refunds", Name: "createRefund", Handler: p.refund},
		{Method: "GET", Pattern: "/v1/payments/{id}/refunds", Name: "listRefunds", Handler: p.listRefunds},
		{Method: "GET", Pattern: "/v1/payments/{id}", Name: "getPayment", Handler: p.get},
		{Method: "GET", Pattern: "/v1/payments", Name: "listPayments", Handler: p.list},
	}
}

// PaymentRequest asks for a payment.
type PaymentRequest struct {
	ID        string    `json:"id,omitzero"`
	Payer     string    `json:"payer"`
	Payee     string    `json:"payee"`
	Amount    string    `json:"amount"`
	Currency  string    `json:"currency"`
	Reference string    `json:"reference,omitzero"`
	Capture   string    `json:"capture,omitzero"` // "manual", or nothing
	HoldFor   *Duration `json:"holdFor,omitzero"`
}

// check returns the request as the service takes it. What can be checked without state is, before a name is claimed.
func (b *PaymentRequest) check(idempotencyKey string) (payments.Request, error) {
	r := payments.Request{Payer: b.Payer, Payee: b.Payee, Reference: b.Reference}
	ref, err := NewRef(idempotencyKey, b.ID)
	if err != nil {
		return r, err
	}
	if err := checkAccount("payer", b.Payer); err != nil {
		return r, err
	}
	if err := checkAccount("payee", b.Payee); err != nil {
		return r, err
	}
	if b.Payer == b.Payee {
		return r, invalidField("payee", "it is the payer; a payment goes from one account to another")
	}
	if err := ref.CheckNew("id", "payer", b.Payer); err != nil {
		return r, err
	}
	if r.Currency, err = parseCurrency(b.Currency); err != nil {
		return r, err
	}
	if r.Amount, err = parseAmount("amount", b.Amount, r.Currency, 1); err != nil {
		return r, err
	}
	if len(b.Reference) > ReferenceMax {
		return r, invalidField("reference", "it has %d bytes, at most %d are kept", len(b.Reference), ReferenceMax)
	}
	if err := b.checkCapture(&r); err != nil {
		return r, err
	}
	r.Name = ref.Name
	if ref.IsID() {
		r.ID = ref.ID.String()
	}
	return r, nil
}

func (b *PaymentRequest) checkCapture(r *payments.Request) error {
	switch b.Capture {
	case "":
	case "manual":
		r.Manual = true
	default:
		return invalidField("capture", `%q cannot be; "manual" holds the payment until it is captured, without it it is paid at once`, b.Capture)
	}
	if b.HoldFor == nil {
		return nil
	}
	r.HoldFor = time.Duration(*b.HoldFor)
	switch {
	case !r.Manual:
		return invalidField("holdFor", `it goes with "capture":"manual" alone; leave it out, or ask for that`)
	case r.HoldFor < time.Millisecond || r.HoldFor > payments.HoldForMax:
		return invalidField("holdFor", "%s cannot be; give 1ms to %s", *b.HoldFor, Duration(payments.HoldForMax))
	}
	return nil
}

func invalidField(field, format string, args ...any) error {
	p := NewProblem(CodeInvalidField, format, args...)
	p.Detail = field + ": " + p.Detail
	return p.With("field", field)
}

func (p *Payments) create(w http.ResponseWriter, r *http.Request) error {
	q := ParseQuery(r)
	wait := q.Wait()
	if err := q.Done(); err != nil {
		return err
	}
	var body PaymentRequest
	if err := Decode(w, r, &body); err != nil {
		return err
	}
	key, err := idempotencyKey(r)
	if err != nil {
		return err
	}
	req, err := body.check(key)
	if err != nil {
		return err
	}
	start := p.Service.Now()
	a, err := p.Service.Pay(r.Context(), req, wait)
	if err != nil {
		return p.problem(req, err)
	}
	p.complete(req, &a, start)
	if a.Replayed {
		w.Header().Set(ReplayedHeader, "true")
	}
	SetPosition(w, a.Position)
	status, payment := outcome(a)
	if status == http.StatusPaymentRequired {
		return refused(payment)
	}
	return WriteJSON(w, status, payment)
}

// complete adds what the core does not keep with an ended payment. What was looked up past wait does not know whether this call
// began it; when it began tells, unless that is the millisecond of start itself.
func (p *Payments) complete(req payments.Request, a *payments.Answer, start time.Time) {
	a.Replayed = a.Replayed || a.Payment.CreatedAt.Before(start)
	a.Payment.Name, a.Payment.Reference = cmp.Or(a.Payment.Name, req.Name), cmp.Or(a.Payment.Reference, req.Reference)
	if a.Replayed && a.Payment.State == payments.StatePaid {
		if now, err := p.Service.Find(a.Payment.ID.String(), ""); err == nil {
			a.Payment.Refunded = now.Payment.Refunded
		}
	}
}

// outcome is how a payment is answered where it was asked for.
func outcome(a payments.Answer) (int, Payment) {
	payment := newPayment(a.Payment)
	switch a.Payment.State {
	case payments.StateRefused:
		return http.StatusPaymentRequired, payment
	case payments.StatePending:
		return http.StatusAccepted, payment
	case payments.StateHeld:
		if a.Replayed { // still open
			return http.StatusAccepted, payment
		}
	}
	if a.Replayed {
		return http.StatusOK, payment
	}
	return http.StatusCreated, payment
}

// refused is the answer of a refused payment, for ever.
func refused(payment Payment) *Problem {
	return NewProblem(CodeRefused, "%s; pay again under a new id once that has changed", refusal(payment.Reason, payment.Payer, payment.Payee)).
		With("reason", payment.Reason).With("payment", payment)
}

// refusal says a reason in words.
func refusal(reason, payer, payee string) string {
	switch accounts.Reason(reason) {
	case accounts.UnknownAccount:
		return "of the accounts " + payer + " and " + payee + " one is not there"
	case accounts.AccountClosed:
		return "the account of " + payer + " or of " + payee + " is closed"
	case accounts.AccountFrozen:
		return "the account of " + payer + " or of " + payee + " is frozen"
	case accounts.CurrencyMismatch:
		return "the account of " + payer + " or of " + payee + " is kept in another currency"
	case accounts.InsufficientFunds:
		return "the account of " + payer + " does not have that much available"
	case accounts.BalanceLimit:
		return "the account of " + payee + " would hold more than remit counts"
	default:
		return "it was refused: " + reason
	}
}

// problem turns an error of the service into what the caller is told of a request.
func (p *Payments) problem(req payments.Request, err error) error {
	if errors.Is(err, payments.ErrUnknownPayment) { // wait was over before it began
		return NewProblem(CodeOutcomeUnknown, "the payment waits to begin; repeat with the same id, and perhaps a longer wait")
	}
	return paymentProblem(cmp.Or(req.Name, req.ID), err)
}

// paymentProblem turns an error of the service into what the caller is told; id is what the caller calls the payment or refund.
func paymentProblem(id string, err error) error {
	if e, ok := errors.AsType[*payments.MismatchError](err); ok {
		return mismatch("payment", id, e.Field, e.Recorded).With("id", e.ID)
	}
	if e, ok := errors.AsType[*payments.DecidedError](err); ok {
		recorded := newPayment(e.Recorded)
		return NewProblem(CodeAlreadyDecided, "payment %s is %s, and that stands", id, recorded.State).With("recorded", recorded.State).With("payment", recorded)
	}
	switch {
	case errors.Is(err, payments.ErrUnknownPayment):
		return NotFound("payment", id, "all payments, open and ended, by id and by name")
	case errors.Is(err, payments.ErrNotBegun):
		return NewProblem(CodeOutcomeUnknown, "the refund waits to begin; repeat with the same id, and perhaps a longer wait")
	case errors.Is(err, payments.ErrNotManual):
		return NewProblem(CodeNotHeld, `payment %s was begun without "capture":"manual", so nothing is held; refund it instead`, id)
	case errors.Is(err, payments.ErrNotPaid):
		return NewProblem(CodeNotPaid, "payment %s is not paid; void it if it is held", id)
	case errors.Is(err, payments.ErrExceedsPaid):
		return NewProblem(CodeExceedsPaid, "of payment %s less is left than that: what was captured, less its refunds; ask for less", id)
	case errors.Is(err, saga.ErrTooMuch):
		return NewProblem(CodeExceedsHeld, "payment %s holds less than that; capture less, or leave amount out to take all of it", id)
	}
	return err
}

// mismatch is the answer to an id that stands for other content (D4). A claim alone knows no field.
func mismatch(what, id, field, recorded string) *Problem {
	if field == "" {
		return NewProblem(CodeContentMismatch, "%s %q was asked for before with other content; use a new id for a new %s", what, id, what)
	}
	p := NewProblem(CodeContentMismatch, "%s %q was asked for before with other content: its %s is %q; use a new id for a new %s, or repeat it unchanged", what, id, field, recorded, what)
	return p.With("field", field).With("recorded", recorded)
}

// find returns the payment that a path names, from the core; id is how the caller calls it.
func (p *Payments) find(r *http.Request) (a payments.Answer, id string, err error) {
	ref, err := ParseRef("id", r.PathValue("id"))
	if err != nil {
		return a, "", err
	}
	id = ref.String()
	a, err = p.Service.Find(id, ref.Name)
	if err != nil {
		return a, id, paymentProblem(id, err)
	}
	if of := a.Payment.Of; !of.IsZero() {
		return a, id, NotFound("payment", id, "all payments; it is a refund: see /v1/payments/"+of.String()+"/refunds")
	}
	return a, id, nil
}

// beginFinish reads what capture and void have in common.
func (p *Payments) beginFinish(r *http.Request) (a payments.Answer, id string, wait time.Duration, err error) {
	q := ParseQuery(r)
	wait = q.Wait()
	if err = q.Done(); err == nil {
		a, id, err = p.find(r)
	}
	return a, id, wait, err
}

func (p *Payments) capture(w http.ResponseWriter, r *http.Request) error {
	held, id, wait, err := p.beginFinish(r)
	if err != nil {
		return err
	}
	var body struct {
		Amount *string `json:"amount,omitzero"`
	}
	if err := DecodeOptional(w, r, &body); err != nil {
		return err
	}
	var amount int64
	if body.Amount != nil {
		if amount, err = parseAmount("amount", *body.Amount, held.Payment.Currency, 1); err != nil {
			return err
		}
	}
	a, err := p.Service.Capture(r.Context(), held.Payment.ID, amount, "", wait)
	return p.finished(w, id, held, a, captureProblem(id, err))
}

// captureProblem says what is true of a capture that is repeated with another amount: a new id would be of no use.
func captureProblem(id string, err error) error {
	if e, ok := errors.AsType[*payments.MismatchError](err); ok {
		return NewProblem(CodeContentMismatch, "payment %q was captured before: its %s is %q; a payment is captured once, so repeat it unchanged, or refund a part of it", id, e.Field, e.Recorded).
			With("field", e.Field).With("recorded", e.Recorded).With("id", e.ID)
	}
	return err
}

func (p *Payments) void(w http.ResponseWriter, r *http.Request) error {
	held, id, wait, err := p.beginFinish(r)
	if err != nil {
		return err
	}
	var body struct{}
	if err := DecodeOptional(w, r, &body); err != nil {
		return err
	}
	a, err := p.Service.Void(r.Context(), held.Payment.ID, "", wait)
	return p.finished(w, id, held, a, err)
}

// finished answers a capture or a void of what was held.
func (p *Payments) finished(w http.ResponseWriter, id string, held, a payments.Answer, err error) error {
	if err != nil {
		if a.Position != nil {
			SetPosition(w, a.Position)
		}
		if e, ok := errors.AsType[*payments.DecidedError](err); ok {
			p.recall(&e.Recorded, held.Payment)
		}
		return paymentProblem(id, err)
	}
	p.recall(&a.Payment, held.Payment)
	if a.Replayed {
		w.Header().Set(ReplayedHeader, "true")
	}
	SetPosition(w, a.Position)
	return WriteJSON(w, http.StatusOK, newPayment(a.Payment))
}

// recall adds the name and the reference, which the core does not keep of what has ended: as they were found, or as the view has them. It may
// not have them yet.
func (p *Payments) recall(x *payments.Payment, found payments.Payment) {
	x.Name, x.Reference = cmp.Or(x.Name, found.Name), cmp.Or(x.Reference, found.Reference)
	if x.Name != "" || x.EndedAt.IsZero() || p.Views == nil {
		return
	}
	if seen, ok, err := p.Views.Transactions.Payment(x.ID); err == nil && ok {
		x.Name, x.Reference = seen.Name, seen.Reference
	}
}

// RefundRequest asks for a refund.
type RefundRequest struct {
	ID     string `json:"id,omitzero"`
	Amount string `json:"amount"`
}

func (p *Payments) refund(w http.ResponseWriter, r *http.Request) error {
	paid, id, wait, err := p.beginFinish(r)
	if err != nil {
		return err
	}
	var body RefundRequest
	if err := Decode(w, r, &body); err != nil {
		return err
	}
	ref, err := RequestRef(r, body.ID)
	if err != nil {
		return err
	}
	if err := ref.CheckNew("id", "payer", paid.Payment.Payer); err != nil {
		return err
	}
	amount, err := parseAmount("amount", body.Amount, paid.Payment.Currency, 1)
	if err != nil {
		return err
	}
	req := payments.RefundRequest{Of: paid.Payment.ID, Name: ref.Name, Amount: amount}
	if ref.IsID() {
		req.ID = ref.ID.String()
	}
	a, err := p.Service.Refund(r.Context(), req, wait)
	if err != nil {
		return refundProblem(id, ref, err)
	}
	a.Payment.Name = ref.Name
	return p.refunded(w, a)
}

func refundProblem(id string, ref Ref, err error) error {
	if e, ok := errors.AsType[*payments.MismatchError](err); ok {
		return mismatch("refund", ref.String(), e.Field, e.Recorded).With("id", e.ID)
	}
	return paymentProblem(id, err)
}

func (p *Payments) refunded(w http.ResponseWriter, a payments.Answer) error {
	if a.Replayed {
		w.Header().Set(ReplayedHeader, "true")
	}
	SetPosition(w, a.Position)
	refund := newRefund(a.Payment)
	switch {
	case a.Payment.State == payments.StateRefused:
		return refusedRefund(refund)
	case a.Payment.State == payments.StatePending:
		return WriteJSON(w, http.StatusAccepted, refund)
	case a.Replayed:
		return WriteJSON(w, http.StatusOK, refund)
	default:
		return WriteJSON(w, http.StatusCreated, refund)
	}
}

// refusedRefund is the answer of a refused refund, for ever. It is the payee who gives.
func refusedRefund(r Refund) *Problem {
	code := CodeRefused
	if accounts.Reason(r.Reason) == accounts.InsufficientFunds {
		code = CodeInsufficientFunds
	}
	return NewProblem(code, "%s; nothing was given back, so refund again under a new id once that has changed", refusal(r.Reason, r.Payee, r.Payer)).
		With("reason", r.Reason).With("refund", r)
}

// resolve returns what an id or name stands for, and how far a view must have come that is to know as much.
func (p *Payments) resolve(ref Ref) (log.ID, log.Position, error) {
	a, err := p.Service.Find(ref.String(), ref.Name)
	if err != nil {
		return log.ID{}, nil, paymentProblem(ref.String(), err)
	}
	return a.Payment.ID, a.Position, nil
}

// get answers from the core. Of a payment that has ended the core keeps no name and no reference: they are the view's, and never change.
func (p *Payments) get(w http.ResponseWriter, r *http.Request) error {
	rd := beginReading(r)
	if err := rd.query.Done(); err != nil {
		return err
	}
	if err := waitFor(r, "the core", p.Core, rd.after, rd.wait); err != nil {
		return err
	}
	a, id, err := p.find(r)
	if err != nil {
		return err
	}
	if !a.Payment.EndedAt.IsZero() {
		found, ok, err := p.Views.Transactions.Payment(a.Payment.ID)
		if err == nil && !ok {
			if err = rd.from(w, r, p.Views, transactions.Name, a.Position); err == nil {
				found, ok, err = p.Views.Transactions.Payment(a.Payment.ID)
			}
		}
		switch {
		case err != nil:
			return err
		case !ok:
			return rd.missing(paymentProblem(id, payments.ErrUnknownPayment))
		}
		a.Payment.Name, a.Payment.Reference = found.Name, found.Reference
	}
	SetPosition(w, a.Position)
	return WriteJSON(w, http.StatusOK, newPayment(a.Payment))
}

func (p *Payments) list(w http.ResponseWriter, r *http.Request) error {
	rd := beginReading(r)
	q := rd.query
	f := transactions.PaymentFilter{
		Payer: q.String("payer"), Payee: q.String("payee"), Reference: q.String("reference"), Range: rangeOf(q),
		State: q.OneOf("state", transactions.Pending, transactions.Held, transactions.Paid, transactions.Refused, transactions.Voided),
	}
	page := q.Page()
	if err := rd.from(w, r, p.Views, transactions.Name, nil); err != nil {
		return err
	}
	found, next, err := p.Views.Transactions.Payments(f, pageOf(page))
	return listOf(w, q, found, next, err, viewedPayment)
}

func (p *Payments) listRefunds(w http.ResponseWriter, r *http.Request) error {
	a, _, err := p.find(r)
	if err != nil {
		return err
	}
	rd := beginReading(r)
	page := rd.query.Page()
	if err := rd.from(w, r, p.Views, transactions.Name, a.Position); err != nil {
		return err
	}
	found, next, err := p.Views.Transactions.Refunds(a.Payment.ID, pageOf(page))
	return listOf(w, rd.query, found, next, err, viewedRefund)
}
