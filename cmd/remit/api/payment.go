package api

import (
	"bytes"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/saga/accounts"
	"github.com/remitlog/remit/saga/payments"
)

// Payment is a payment as it is answered.
type Payment struct {
	ID        log.ID `json:"id"`
	Name      string `json:"name,omitzero"`
	State     string `json:"state"`
	Settled   bool   `json:"settled"`
	Payer     string `json:"payer"`
	Payee     string `json:"payee"`
	Amount    string `json:"amount"`
	Captured  string `json:"captured"`
	Refunded  string `json:"refunded"`
	Currency  string `json:"currency"`
	Reference string `json:"reference,omitzero"`
	Reason    string `json:"reason,omitzero"`
	CreatedAt Time   `json:"createdAt"`
	DecidedAt Time   `json:"decidedAt,omitzero"`
	EndedAt   Time   `json:"endedAt,omitzero"`
}

func newPayment(p payments.Payment) Payment {
	return Payment{
		ID: p.ID, Name: p.Name, State: string(p.State), Settled: p.Settled, Payer: p.Payer, Payee: p.Payee,
		Amount: accounts.FormatAmount(p.Amount, p.Currency), Captured: accounts.FormatAmount(p.Captured, p.Currency),
		Refunded: accounts.FormatAmount(p.Refunded, p.Currency), Currency: string(p.Currency), Reference: p.Reference, Reason: p.Reason,
		CreatedAt: Time(p.CreatedAt), DecidedAt: Time(p.DecidedAt), EndedAt: Time(p.EndedAt),
	}
}

// AppendJSON appends what json.Marshal would write.
func (p Payment) AppendJSON(b []byte) []byte {
	b = append(append(append(b, `{"id":"`...), p.ID.String()...), '"')
	b = appendMember(b, "name", p.Name)
	b = appendMember(b, "state", p.State)
	b = strconv.AppendBool(append(b, `,"settled":`...), p.Settled)
	b = appendMember(b, "payer", p.Payer)
	b = appendMember(b, "payee", p.Payee)
	b = appendMember(b, "amount", p.Amount)
	b = appendMember(b, "captured", p.Captured)
	b = appendMember(b, "refunded", p.Refunded)
	b = appendMember(b, "currency", p.Currency)
	b = appendMember(b, "reference", p.Reference)
	b = appendMember(b, "reason", p.Reason)
	b = appendTime(b, "createdAt", p.CreatedAt)
	b = appendTime(b, "decidedAt", p.DecidedAt)
	b = appendTime(b, "endedAt", p.EndedAt)
	return append(b, '}')
}

// appendMember appends a member whose value is a string; an empty one is left out.
func appendMember(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	b = append(append(append(b, ',', '"'), name...), '"', ':')
	b, _ = jsontext.AppendQuote(b, value) // what was read as JSON is UTF-8
	return b
}

// appendAlways is appendMember for a member that is there even if it is empty.
func appendAlways(b []byte, name, value string) []byte {
	if value == "" {
		return append(append(append(b, ',', '"'), name...), `":""`...)
	}
	return appendMember(b, name, value)
}

// appendLine appends valid JSON so that it has no line breaks.
func appendLine(b, v []byte) []byte {
	if bytes.IndexByte(v, '\n') < 0 && bytes.IndexByte(v, '\r') < 0 {
		return append(b, v...)
	}
	b, _ = jsontext.AppendFormat(b, v, jsontext.PreserveRawStrings(true)) // it was parsed before
	return b
}

func appendTime(b []byte, name string, t Time) []byte {
	if t.IsZero() {
		return b
	}
	return appendInstant(append(append(append(b, ',', '"'), name...), '"', ':'), t)
}

func appendInstant(b []byte, t Time) []byte {
	return append(t.append(append(b, '"')), '"')
}

// Refund is a refund as it is answered.
type Refund struct {
	ID        log.ID `json:"id"`
	Name      string `json:"name,omitzero"`
	Payment   log.ID `json:"payment"`
	State     string `json:"state"`
	Settled   bool   `json:"settled"`
	Payer     string `json:"payer"` // who gets it back
	Payee     string `json:"payee"` // who gives it back
	Amount    string `json:"amount"`
	Currency  string `json:"currency"`
	Reason    string `json:"reason,omitzero"`
	CreatedAt Time   `json:"createdAt"`
	DecidedAt Time   `json:"decidedAt,omitzero"`
	EndedAt   Time   `json:"endedAt,omitzero"`
}

func newRefund(p payments.Payment) Refund {
	r := Refund{
		ID: p.ID, Name: p.Name, Payment: p.Of, State: string(p.State), Settled: p.Settled, Payer: p.Payer, Payee: p.Payee,
		Amount: accounts.FormatAmount(p.Amount, p.Currency), Currency: string(p.Currency), Reason: p.Reason,
		CreatedAt: Time(p.CreatedAt), DecidedAt: Time(p.DecidedAt), EndedAt: Time(p.EndedAt),
	}
	return r
}
