package api_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/remitlog/remit/cmd/remit/api"
	"github.com/remitlog/remit/log"
)

// row is one call and what it is answered with. Rows run one after the other, on one world.
type row struct {
	name   string
	method string // POST unless given
	path   string
	head   string // header lines
	body   string
	status int
	want   []string // parts of the body
	sent   string   // one header line of the answer
}

func (r row) run(t *testing.T, w *world) {
	t.Helper()
	method := r.method
	if method == "" {
		method = "POST"
	}
	a := w.call(method, r.path, r.body, strings.Split(r.head, "\n")...)
	if a.status != r.status {
		t.Errorf("%s: status %d, want %d: %s", r.name, a.status, r.status, a.body)
	}
	for _, want := range r.want {
		if !strings.Contains(a.body, want) {
			t.Errorf("%s: %s\nhas no %s", r.name, a.body, want)
		}
	}
	if name, value, _ := strings.Cut(r.sent, ": "); name != "" && a.header.Get(name) != value {
		t.Errorf("%s: %s: %q, want %q", r.name, name, a.header.Get(name), value)
	}
	if r.status < 400 {
		if r.sent == "" && a.header.Get(api.ReplayedHeader) != "" {
			t.Errorf("%s: is said to be replayed", r.name)
		}
		if a.header.Get(api.PositionHeader) == "" && r.status != 204 {
			t.Errorf("%s: no position", r.name)
		}
		return
	}
	var p struct {
		Status       int
		Code, Detail string
		Retryable    *bool
		Field        string
	}
	a.into(t, &p)
	if p.Status != r.status || p.Code == "" || p.Detail == "" || p.Retryable == nil {
		t.Errorf("%s: not a whole problem: %s", r.name, a.body)
	}
}

func idFor(key string) string { return log.NewID(time.Now(), key).String() }

// idAhead is an id of a time that much further ahead than an id may be.
func idAhead(d time.Duration, key string) string {
	return log.NewID(time.Now().Add(api.IDAheadMax+d), key).String()
}

func otherSlot(key string) string {
	for i := 0; ; i++ {
		if other := fmt.Sprint(key, i); log.SlotOf(other) != log.SlotOf(key) {
			return idFor(other)
		}
	}
}

func pay(id, rest string) string {
	return `{"id":"` + id + `","payer":"alice","payee":"shop","amount":"12.50","currency":"USD"` + rest + `}`
}

const replayed = "Idempotent-Replayed: true"

// TestPaymentsAndAccounts proves the conventions and the payments of api.md over HTTP, on remit as it is wired.
func TestPaymentsAndAccounts(t *testing.T) {
	w := newWorld(t)
	own := idFor("alice")
	rows := []row{
		// Accounts.
		{name: "open", method: "PUT", path: "/v1/accounts/alice", body: `{"currency":"USD"}`, status: 201, want: []string{`{"account":"alice","currency":"USD","state":"open","balance":"0.00","held":"0.00","available":"0.00","creditLimit":"0.00"}`}},
		{name: "open again", method: "PUT", path: "/v1/accounts/alice", body: `{"creditLimit":"0","currency":"USD"}`, status: 200, sent: replayed},
		{name: "open in another currency", method: "PUT", path: "/v1/accounts/alice", body: `{"currency":"EUR"}`, status: 409, want: []string{`"code":"content_mismatch"`, `"field":"currency"`}},
		{name: "open with another limit", method: "PUT", path: "/v1/accounts/alice", body: `{"currency":"USD","creditLimit":"1"}`, status: 409, want: []string{`"code":"content_mismatch"`, `"field":"creditLimit"`, "was opened with"}},
		{name: "unknown currency", method: "PUT", path: "/v1/accounts/bob", body: `{"currency":"DOL"}`, status: 400, want: []string{`"code":"invalid_field"`, `"field":"currency"`}},
		{name: "no currency", method: "PUT", path: "/v1/accounts/bob", body: `{}`, status: 400, want: []string{`"field":"currency"`}},
		{name: "negative limit", method: "PUT", path: "/v1/accounts/bob", body: `{"currency":"USD","creditLimit":"-1"}`, status: 400, want: []string{`"code":"invalid_amount"`, `"field":"creditLimit"`}},
		{name: "bad account name", method: "PUT", path: "/v1/accounts/a%20b", body: `{"currency":"USD"}`, status: 400, want: []string{`"code":"invalid_id"`, `"field":"account"`}},
		{name: "unknown field", method: "PUT", path: "/v1/accounts/bob", body: `{"currency":"USD","limit":"1"}`, status: 400, want: []string{`"code":"unknown_field"`, `"field":"limit"`}},
		{name: "shop", method: "PUT", path: "/v1/accounts/shop", body: `{"currency":"USD"}`, status: 201},
		{name: "yen", method: "PUT", path: "/v1/accounts/yen", body: `{"currency":"JPY"}`, status: 201, want: []string{`"balance":"0"`}},
		{name: "not there", method: "GET", path: "/v1/accounts/nobody", status: 404, want: []string{`"code":"not_found"`, "searched", "remit accounts open nobody", "PUT /v1/accounts/nobody"}},
		{name: "get", method: "GET", path: "/v1/accounts/alice", status: 200, want: []string{`"state":"open"`}},
		{name: "get with what it does not know", method: "GET", path: "/v1/accounts/alice?x=1", status: 400, want: []string{`"parameter":"x"`}},
		{name: "a position that never was", method: "GET", path: "/v1/accounts/alice?wait=1ms&after=" + (log.Position{0: 1 << 40}).String(), status: 503, want: []string{`"code":"not_caught_up"`, `"retryable":true`}},

		// Deposits and withdrawals.
		{name: "deposit", path: "/v1/accounts/alice/deposits", body: `{"id":"d1","amount":"100.00"}`, status: 201, want: []string{`"id":"d1"`, `"balance":"100.00"`}},
		{name: "deposit again", path: "/v1/accounts/alice/deposits", body: `{"id":"d1","amount":"100"}`, status: 200, want: []string{`"balance":"100.00"`}, sent: replayed},
		{name: "deposit of other content", path: "/v1/accounts/alice/deposits", body: `{"id":"d1","amount":"101"}`, status: 409, want: []string{`"code":"content_mismatch"`, `"field":"amount"`}},
		{name: "the name as a withdrawal", path: "/v1/accounts/alice/withdrawals", body: `{"id":"d1","amount":"100"}`, status: 409, want: []string{`"code":"content_mismatch"`, `"field":"side"`, "the other of deposit and withdrawal"}},
		{name: "deposit without id", path: "/v1/accounts/alice/deposits", body: `{"amount":"1"}`, status: 400, want: []string{`"code":"id_required"`}},
		{name: "deposit under the key", path: "/v1/accounts/alice/deposits", head: "Idempotency-Key: d2", body: `{"amount":"1"}`, status: 201, want: []string{`"id":"d2"`}},
		{name: "deposit with both", path: "/v1/accounts/alice/deposits", head: "Idempotency-Key: d2", body: `{"id":"d3","amount":"1"}`, status: 400, want: []string{`"code":"id_mismatch"`}},
		{name: "deposit of nothing", path: "/v1/accounts/alice/deposits", body: `{"id":"d3","amount":"0"}`, status: 400, want: []string{`"code":"invalid_amount"`}},
		{name: "deposit too fine", path: "/v1/accounts/alice/deposits", body: `{"id":"d3","amount":"0.001"}`, status: 400, want: []string{`"code":"invalid_amount"`, `"field":"amount"`}},
		{name: "deposit to nobody", path: "/v1/accounts/nobody/deposits", body: `{"id":"d3","amount":"1"}`, status: 404, want: []string{`"code":"not_found"`}},
		{name: "withdraw", path: "/v1/accounts/alice/withdrawals", body: `{"id":"w1","amount":"1"}`, status: 201, want: []string{`"balance":"100.00"`}},
		{name: "withdraw too much", path: "/v1/accounts/alice/withdrawals", body: `{"id":"w2","amount":"1000"}`, status: 402, want: []string{`"code":"insufficient_funds"`, `"reason":"insufficient_funds"`}},
		{name: "close what is not empty", method: "PATCH", path: "/v1/accounts/alice", body: `{"state":"closed"}`, status: 409, want: []string{`"code":"account_not_empty"`}},
		{name: "change nothing", method: "PATCH", path: "/v1/accounts/alice", body: `{}`, status: 400, want: []string{`"code":"invalid_body"`}},
		{name: "no such state", method: "PATCH", path: "/v1/accounts/alice", body: `{"state":"shut"}`, status: 400, want: []string{`"field":"state"`}},
		{name: "change nobody", method: "PATCH", path: "/v1/accounts/nobody", body: `{"state":"frozen"}`, status: 404},
		{name: "limit of nobody", method: "PATCH", path: "/v1/accounts/nobody", body: `{"creditLimit":"1"}`, status: 404},
		{name: "limit", method: "PATCH", path: "/v1/accounts/yen", body: `{"creditLimit":"500"}`, status: 200, want: []string{`"available":"500"`, `"creditLimit":"500"`}},
		{name: "limit too fine", method: "PATCH", path: "/v1/accounts/yen", body: `{"creditLimit":"500.5"}`, status: 400, want: []string{`"code":"invalid_amount"`}},
		{name: "closing", method: "PATCH", path: "/v1/accounts/yen", body: `{"state":"closed"}`, status: 200, want: []string{`"state":"closed"`}},
		{name: "deposit to a closed one", path: "/v1/accounts/yen/deposits", body: `{"id":"d1","amount":"1"}`, status: 409, want: []string{`"code":"account_closed"`}},
		{name: "freezing", method: "PATCH", path: "/v1/accounts/yen", body: `{"state":"frozen"}`, status: 200, want: []string{`"state":"frozen"`}},
		{name: "deposit to a frozen one", path: "/v1/accounts/yen/deposits", body: `{"id":"d1","amount":"1"}`, status: 409, want: []string{`"code":"account_frozen"`}},
		{name: "opening again", method: "PATCH", path: "/v1/accounts/yen", body: `{"state":"open"}`, status: 200, want: []string{`"state":"open"`}},
		{name: "the refused deposit again", path: "/v1/accounts/yen/deposits", body: `{"id":"d1","amount":"1"}`, status: 201},

		// Payments.
		{name: "pay", path: "/v1/payments", body: pay("p1", `,"reference":"order 7"`), status: 201, want: []string{`"name":"p1"`, `"state":"paid"`, `"settled":true`, `"amount":"12.50","captured":"12.50","refunded":"0.00"`, `"reference":"order 7"`}},
		{name: "pay again", path: "/v1/payments", body: pay("p1", `,"reference":"order 7"`), status: 200, want: []string{`"name":"p1"`, `"state":"paid"`, `"reference":"order 7"`}, sent: replayed},
		{name: "other amount", path: "/v1/payments", body: strings.Replace(pay("p1", `,"reference":"order 7"`), "12.50", "12.51", 1), status: 409, want: []string{`"code":"content_mismatch"`, `"field":"amount"`, `"recorded":"12.50"`}},
		{name: "other payer", path: "/v1/payments", body: `{"id":"p1","payer":"bob","payee":"shop","amount":"12.50","currency":"USD"}`, status: 409, want: []string{`"field":"payer"`}},
		{name: "other reference", path: "/v1/payments", body: pay("p1", ""), status: 409, want: []string{`"field":"reference"`}},
		{name: "other capture", path: "/v1/payments", body: pay("p1", `,"reference":"order 7","capture":"manual"`), status: 409, want: []string{`"field":"capture"`}},
		{name: "own id", path: "/v1/payments", body: pay(own, ""), status: 201, want: []string{`"id":"` + own + `"`, `"state":"paid"`}},
		{name: "own id again", path: "/v1/payments", body: pay(strings.ToUpper(own), ""), status: 200, sent: replayed},
		{name: "own id, other content", path: "/v1/payments", body: pay(own, `,"reference":"x"`), status: 409, want: []string{`"field":"reference"`}},
		{name: "wrong slot", path: "/v1/payments", body: pay(otherSlot("alice"), ""), status: 400, want: []string{`"code":"wrong_slot"`, `"field":"id"`}},
		{name: "id of a day to come", path: "/v1/payments", body: pay(idAhead(time.Minute, "alice"), ""), status: 400, want: []string{`"code":"invalid_id"`, `"field":"id"`}},
		{name: "id of a clock that is ahead", path: "/v1/payments", body: strings.Replace(pay(idAhead(-time.Hour, "alice"), ""), "12.50", "1000000", 1), status: 402},
		{name: "no id", path: "/v1/payments", body: `{"payer":"alice","payee":"shop","amount":"1","currency":"USD"}`, status: 400, want: []string{`"code":"id_required"`}},
		{name: "key for id", path: "/v1/payments", head: "Idempotency-Key: p1", body: `{"payer":"alice","payee":"shop","amount":"12.5","currency":"USD","reference":"order 7"}`, status: 200, sent: replayed},
		{name: "key and other id", path: "/v1/payments", head: "Idempotency-Key: p1", body: pay("p2", ""), status: 400, want: []string{`"code":"id_mismatch"`}},
		{name: "two keys", path: "/v1/payments", head: "Idempotency-Key: k1\nIdempotency-Key: k2", body: pay("", ""), status: 400, want: []string{`"code":"id_mismatch"`, "k1", "k2"}},
		{name: "two keys of a deposit", path: "/v1/accounts/alice/deposits", head: "Idempotency-Key: k1\nIdempotency-Key: k2", body: `{"amount":"1"}`, status: 400, want: []string{`"code":"id_mismatch"`}},
		{name: "a key twice", path: "/v1/payments", head: "Idempotency-Key: p1\nIdempotency-Key: p1", body: pay("", `,"reference":"order 7"`), status: 200, sent: replayed},
		{name: "byte order mark", path: "/v1/payments", body: "\ufeff" + pay("p2", ""), status: 400, want: []string{`"code":"invalid_body"`, "byte order mark"}},
		{name: "bad id", path: "/v1/payments", body: pay("a b", ""), status: 400, want: []string{`"code":"invalid_id"`, `"field":"id"`}},
		{name: "amount as a number", path: "/v1/payments", body: `{"id":"p2","payer":"alice","payee":"shop","amount":1,"currency":"USD"}`, status: 400, want: []string{`"code":"invalid_field"`, `"field":"amount"`, "give a string, not a number"}},
		{name: "amount of nothing", path: "/v1/payments", body: `{"id":"p2","payer":"alice","payee":"shop","amount":"0.00","currency":"USD"}`, status: 400, want: []string{`"code":"invalid_amount"`, "at least 0.01"}},
		{name: "amount too fine", path: "/v1/payments", body: `{"id":"p2","payer":"alice","payee":"shop","amount":"0.001","currency":"USD"}`, status: 400, want: []string{`"code":"invalid_amount"`}},
		{name: "amount too large", path: "/v1/payments", body: `{"id":"p2","payer":"alice","payee":"shop","amount":"99999999999999999999","currency":"USD"}`, status: 400, want: []string{`"code":"invalid_amount"`}},
		{name: "currency unknown", path: "/v1/payments", body: `{"id":"p2","payer":"alice","payee":"shop","amount":"1","currency":"usd"}`, status: 400, want: []string{`"field":"currency"`}},
		{name: "to oneself", path: "/v1/payments", body: `{"id":"p2","payer":"alice","payee":"alice","amount":"1","currency":"USD"}`, status: 400, want: []string{`"field":"payee"`}},
		{name: "no payer", path: "/v1/payments", body: `{"id":"p2","payee":"alice","amount":"1","currency":"USD"}`, status: 400, want: []string{`"field":"payer"`}},
		{name: "capture", path: "/v1/payments", body: pay("p2", `,"capture":"later"`), status: 400, want: []string{`"field":"capture"`}},
		{name: "holdFor alone", path: "/v1/payments", body: pay("p2", `,"holdFor":"1h"`), status: 400, want: []string{`"field":"holdFor"`}},
		{name: "holdFor too long", path: "/v1/payments", body: pay("p2", `,"capture":"manual","holdFor":"721h"`), status: 400, want: []string{`"field":"holdFor"`, "720h"}},
		{name: "holdFor no duration", path: "/v1/payments", body: pay("p2", `,"capture":"manual","holdFor":"1 day"`), status: 400, want: []string{`"field":"holdFor"`}},
		{name: "unknown field of a payment", path: "/v1/payments", body: pay("p2", `,"refernce":"x"`), status: 400, want: []string{`"code":"unknown_field"`, "did you mean reference?"}},
		{name: "reference too long", path: "/v1/payments", body: pay("p2", `,"reference":"`+strings.Repeat("x", 513)+`"`), status: 400, want: []string{`"field":"reference"`}},
		{name: "too large", path: "/v1/payments", body: pay("p2", `,"reference":"`+strings.Repeat("x", 1<<20)+`"`), status: 413, want: []string{`"code":"too_large"`}},
		{name: "media type", path: "/v1/payments", head: "Content-Type: text/plain", body: pay("p2", ""), status: 415, want: []string{`"code":"unsupported_media_type"`}},
		{name: "charset", path: "/v1/payments", head: "Content-Type: application/json; charset=ISO-8859-1", body: pay("p2", ""), status: 415, want: []string{`"code":"unsupported_media_type"`, "ISO-8859-1"}},
		{name: "encoding", path: "/v1/payments", head: "Content-Encoding: gzip", body: pay("p2", ""), status: 415, want: []string{`"code":"unsupported_media_type"`, "gzip"}, sent: "Accept-Encoding: identity"},
		{name: "encoding of an optional body", path: "/v1/payments/p1/void", head: "Content-Encoding: identity, br", body: "{}", status: 415, want: []string{"br"}},
		{name: "encoding of a batch", path: "/v1/payments:batch", head: "Content-Encoding: gzip\nContent-Type: application/x-ndjson", body: pay("p2", ""), status: 415, want: []string{"gzip"}},
		{name: "charset of a batch", path: "/v1/payments:batch", head: "Content-Type: application/x-ndjson; charset=utf-16", body: pay("p2", ""), status: 415, want: []string{"utf-16"}},
		{name: "UTF-8, as it is", path: "/v1/payments", head: "Content-Type: application/json; charset=UTF-8\nContent-Encoding: identity", body: pay("p1", `,"reference":"order 7"`), status: 200, sent: replayed},
		{name: "wait too long", path: "/v1/payments?wait=2m", body: pay("p2", ""), status: 400, want: []string{`"parameter":"wait"`}},
		{name: "refused", path: "/v1/payments", body: `{"id":"r1","payer":"alice","payee":"shop","amount":"1000","currency":"USD"}`, status: 402, want: []string{`"code":"refused"`, `"payment":{"id":"`, `"state":"refused"`, `"reason":"insufficient_funds"`, `"name":"r1"`}},
		{name: "refused for ever", path: "/v1/payments", body: `{"id":"r1","payer":"alice","payee":"shop","amount":"1000","currency":"USD"}`, status: 402, want: []string{`"reason":"insufficient_funds"`}, sent: replayed},
		{name: "unknown payer", path: "/v1/payments", body: `{"id":"r2","payer":"nobody","payee":"shop","amount":"1","currency":"USD"}`, status: 402, want: []string{`"reason":"unknown_account"`}},
		{name: "unknown payee", path: "/v1/payments", body: `{"id":"r3","payer":"alice","payee":"nobody","amount":"1","currency":"USD"}`, status: 402, want: []string{`"reason":"unknown_account"`}},
		{name: "other currency", path: "/v1/payments", body: `{"id":"r4","payer":"alice","payee":"yen","amount":"1","currency":"USD"}`, status: 402, want: []string{`"reason":"currency_mismatch"`}},

		// Holds.
		{name: "hold", path: "/v1/payments", body: pay("h1", `,"capture":"manual","holdFor":"1h"`), status: 201, want: []string{`"state":"held"`, `"settled":false`, `"captured":"0.00"`}},
		{name: "hold again", path: "/v1/payments", body: pay("h1", `,"capture":"manual","holdFor":"60m"`), status: 202, want: []string{`"state":"held"`}, sent: replayed},
		{name: "hold for another time", path: "/v1/payments", body: pay("h1", `,"capture":"manual"`), status: 409, want: []string{`"field":"holdFor"`}},
		{name: "refund a held one", path: "/v1/payments/h1/refunds", body: `{"id":"f1","amount":"1"}`, status: 409, want: []string{`"code":"not_paid"`}},
		{name: "capture too much", path: "/v1/payments/h1/capture", body: `{"amount":"12.51"}`, status: 409, want: []string{`"code":"exceeds_held"`}},
		{name: "capture nothing", path: "/v1/payments/h1/capture", body: `{"amount":"0"}`, status: 400, want: []string{`"code":"invalid_amount"`}},
		{name: "capture a part", path: "/v1/payments/h1/capture", body: `{"amount":"10"}`, status: 200, want: []string{`"state":"paid"`, `"settled":true`, `"amount":"12.50","captured":"10.00"`, `"name":"h1"`}},
		{name: "capture again", path: "/v1/payments/h1/capture", body: `{"amount":"10.00"}`, status: 200, sent: replayed},
		{name: "capture another amount", path: "/v1/payments/h1/capture", body: `{"amount":"11"}`, status: 409, want: []string{`"code":"content_mismatch"`, `"field":"amount"`, `"recorded":"10.00"`, "a payment is captured once"}},
		{name: "void a captured one", path: "/v1/payments/h1/void", status: 409, want: []string{`"code":"already_decided"`, `"recorded":"paid"`, `"payment":{`, `"name":"h1"`}},
		{name: "hold another", path: "/v1/payments", body: pay("h2", `,"capture":"manual"`), status: 201},
		{name: "void", path: "/v1/payments/h2/void", body: `{}`, status: 200, want: []string{`"state":"voided"`, `"reason":"voided"`}},
		{name: "void again", path: "/v1/payments/h2/void", status: 200, sent: replayed},
		{name: "capture a voided one", path: "/v1/payments/h2/capture", status: 409, want: []string{`"code":"already_decided"`, `"recorded":"voided"`}},
		{name: "the voided one again", path: "/v1/payments", body: pay("h2", `,"capture":"manual"`), status: 200, want: []string{`"state":"voided"`}, sent: replayed},
		{name: "capture a paid one", path: "/v1/payments/p1/capture", status: 409, want: []string{`"code":"not_held"`}},
		{name: "void nothing", path: "/v1/payments/nothing/void", status: 404, want: []string{`"code":"not_found"`}},
		{name: "capture a bad id", path: "/v1/payments/a%20b/capture", status: 400, want: []string{`"code":"invalid_id"`}},

		// Refunds.
		{name: "refund", path: "/v1/payments/p1/refunds", body: `{"id":"f1","amount":"2.50"}`, status: 201, want: []string{`"name":"f1"`, `"amount":"2.50"`, `"payment":"`, `"settled":true`}},
		{name: "refund again", path: "/v1/payments/p1/refunds", body: `{"id":"f1","amount":"2.5"}`, status: 200, sent: replayed},
		{name: "refund of another amount", path: "/v1/payments/p1/refunds", body: `{"id":"f1","amount":"3"}`, status: 409, want: []string{`"code":"content_mismatch"`, `"field":"amount"`}},
		{name: "refund too much", path: "/v1/payments/p1/refunds", body: `{"id":"f2","amount":"10.01"}`, status: 409, want: []string{`"code":"exceeds_paid"`}},
		{name: "refund without id", path: "/v1/payments/p1/refunds", body: `{"amount":"1"}`, status: 400, want: []string{`"code":"id_required"`}},
		{name: "refund in the wrong slot", path: "/v1/payments/p1/refunds", body: `{"id":"` + otherSlot("alice") + `","amount":"1"}`, status: 400, want: []string{`"code":"wrong_slot"`}},
		{name: "refund of a day to come", path: "/v1/payments/p1/refunds", body: `{"id":"` + idAhead(time.Minute, "alice") + `","amount":"1"}`, status: 400, want: []string{`"code":"invalid_id"`}},
		{name: "refund nothing", path: "/v1/payments/nothing/refunds", body: `{"id":"f2","amount":"1"}`, status: 404},
		{name: "refund a refused one", path: "/v1/payments/r1/refunds", body: `{"id":"f2","amount":"1"}`, status: 409, want: []string{`"code":"not_paid"`}},
		{name: "the payment shows it", path: "/v1/payments", body: pay("p1", `,"reference":"order 7"`), status: 200, want: []string{`"refunded":"2.50"`}, sent: replayed},
		{name: "empty the shop", path: "/v1/accounts/shop/withdrawals", body: `{"id":"w1","amount":"32.50"}`, status: 201, want: []string{`"balance":"0.00"`}},
		{name: "refund without funds", path: "/v1/payments/p1/refunds", body: `{"id":"f3","amount":"1"}`, status: 402, want: []string{`"code":"insufficient_funds"`, `"refund":{`, `"reason":"insufficient_funds"`}},
		{name: "refused refund for ever", path: "/v1/payments/p1/refunds", body: `{"id":"f3","amount":"1"}`, status: 402, want: []string{`"code":"insufficient_funds"`}, sent: replayed},
		{name: "pay again, and wait for nothing", path: "/v1/payments?wait=0s", body: pay("p1", `,"reference":"order 7"`), status: 200, want: []string{`"name":"p1"`, `"state":"paid"`, `"reference":"order 7"`}, sent: replayed},
		{name: "no such method", method: "DELETE", path: "/v1/accounts/alice", status: 405, want: []string{`"code":"method_not_allowed"`}},
	}
	for _, r := range rows {
		r.run(t, w)
	}
}

// TestBatch: lines are answered in their order, each for itself; lines of one payer begin in line order.
func TestBatch(t *testing.T) {
	w := newWorld(t)
	w.account("alice", "10.00")
	w.account("shop", "")
	line := func(id, amount string) string {
		return `{"id":"` + id + `","payer":"alice","payee":"shop","amount":"` + amount + `","currency":"USD"}` + "\n"
	}
	body := line("b1", "6") + line(idFor("alice"), "3") + "garbage\n" + line("b2", "2") + "\n" + line("b3", "1") + line("b1", "6") + line("b1", "7")
	a := w.must(200, "POST", "/v1/payments:batch", body, "Content-Type: application/x-ndjson")
	want := []string{
		`{"line":1,"status":201,"payment":{`, `{"line":2,"status":201,"payment":{`, `{"line":3,"status":400,"problem":{`,
		`{"line":4,"status":402,"problem":{`, `{"line":6,"status":201,"payment":{`, `{"line":7,"status":200,"replayed":true,"payment":{`, `{"line":8,"status":409,"problem":{`,
	}
	lines := strings.Split(strings.TrimSpace(a.body), "\n")
	if len(lines) != len(want) {
		t.Fatalf("%d lines, want %d:\n%s", len(lines), len(want), a.body)
	}
	for i := range lines {
		if !strings.HasPrefix(lines[i], want[i]) {
			t.Errorf("%s\nis not %s…", lines[i], want[i])
		}
	}
	if a.header.Get(api.PositionHeader) == "" {
		t.Error("no position in the trailer")
	}
	w.must(415, "POST", "/v1/payments:batch", body)
	w.must(400, "POST", "/v1/payments:batch?wait=x", body, "Content-Type: application/x-ndjson")
}

// TestBatchOfOnePayer: what begins in line order pays until the money is gone, and from then on refuses, whether ids or names, mixed.
func TestBatchOfOnePayer(t *testing.T) {
	w := newWorld(t)
	w.account("alice", "300.00")
	w.account("shop", "")
	var body strings.Builder
	const lines = 500
	for i := range lines {
		id := fmt.Sprint("n", i)
		if i%3 == 0 {
			id = idFor("alice")
		}
		fmt.Fprintf(&body, `{"id":%q,"payer":"alice","payee":"shop","amount":"1","currency":"USD"}`+"\n", id)
	}
	a := w.must(200, "POST", "/v1/payments:batch", body.String(), "Content-Type: application/x-ndjson")
	for i, l := range strings.Split(strings.TrimSpace(a.body), "\n") {
		want := `"status":201`
		if i >= 300 {
			want = `"status":402`
		}
		if !strings.Contains(l, want) {
			t.Fatalf("line %d: %s", i+1, l)
		}
	}
}

func run(t *testing.T, w *world, rows []row) {
	t.Helper()
	for _, r := range rows {
		r.run(t, w)
	}
}

func event(id, rest string) string {
	return `{"specversion":"1.0","id":"` + id + `","source":"/orders","type":"com.example.order.placed"` + rest + `}`
}

const structured = "Content-Type: application/cloudevents+json"

// TestTopicsAndProducers proves what api.md says of topics, of publishing, and of producers.
func TestTopicsAndProducers(t *testing.T) {
	w := newWorld(t)
	run(t, w, []row{
		{name: "make", method: "PUT", path: "/v1/topics/orders", body: `{"partitions":4,"retention":"24h","cleanupPolicy":"delete"}`, status: 201, want: []string{`"topic":"orders","partitions":4,"retention":"24h","cleanupPolicy":"delete"`, `"ends":[{"partition":0,"first":0,"end":0`}},
		{name: "make again", method: "PUT", path: "/v1/topics/orders", body: `{"partitions":4}`, status: 200, want: []string{`"retention":"24h"`}},
		{name: "more partitions", method: "PUT", path: "/v1/topics/orders", body: `{"partitions":8,"retention":"0s"}`, status: 200, want: []string{`"partitions":8,"cleanupPolicy"`}},
		{name: "fewer partitions", method: "PUT", path: "/v1/topics/orders", body: `{"partitions":4}`, status: 409, want: []string{`"code":"fewer_partitions"`}},
		{name: "no partitions", method: "PUT", path: "/v1/topics/orders", body: `{"partitions":0}`, status: 400, want: []string{`"field":"partitions"`}},
		{name: "half a partition", method: "PUT", path: "/v1/topics/orders", body: `{"partitions":1.5}`, status: 400, want: []string{`"field":"partitions"`, "give a whole number"}},
		{name: "very many partitions", method: "PUT", path: "/v1/topics/orders", body: `{"partitions":1e40}`, status: 400, want: []string{`"field":"partitions"`, "whole number"}},
		{name: "compacted", method: "PUT", path: "/v1/topics/orders", body: `{"cleanupPolicy":"compact"}`, status: 400, want: []string{`"field":"cleanupPolicy"`}},
		{name: "bad retention", method: "PUT", path: "/v1/topics/orders", body: `{"retention":"1 day"}`, status: 400, want: []string{`"field":"retention"`}},
		{name: "by default", method: "PUT", path: "/v1/topics/plain", status: 201, want: []string{`"partitions":2`}},
		{name: "bad name", method: "PUT", path: "/v1/topics/a%20b", status: 400, want: []string{`"code":"invalid_id"`}},
		{name: "reserved", method: "PUT", path: "/v1/topics/remit.mine", status: 403, want: []string{`"code":"forbidden"`}},
		{name: "payments is reserved", method: "DELETE", path: "/v1/topics/payments", status: 403},
		{name: "get", method: "GET", path: "/v1/topics/orders", status: 200},
		{name: "get nothing", method: "GET", path: "/v1/topics/nothing", status: 404, want: []string{`"code":"unknown_topic"`, "remit log topics create"}},
		{name: "list", method: "GET", path: "/v1/topics?pageSize=2", status: 200, want: []string{`"items":[{"topic":"orders"`, `"topic":"payments"`, `"nextPageToken"`}},

		{name: "structured", path: "/v1/topics/orders/events", head: structured, body: event("e1", `,"partitionkey":"k","data":{"n":1}`), status: 201, want: []string{`{"positions":[{"topic":"orders","partition":`, `"offset":0}]}`}},
		{name: "a repeat appends again", path: "/v1/topics/orders/events", head: structured, body: event("e1", `,"partitionkey":"k"`), status: 201, want: []string{`"offset":1}]}`}},
		{name: "batched", path: "/v1/topics/orders/events", head: "Content-Type: application/cloudevents-batch+json", body: `[` + event("e2", `,"partitionkey":"k"`) + `,` + event("e3", "") + `]`, status: 201, want: []string{`"offset":2}`}},
		{name: "empty batch", path: "/v1/topics/orders/events", head: "Content-Type: application/cloudevents-batch+json", body: `[]`, status: 400, want: []string{`"code":"invalid_body"`}},
		{name: "one of a batch is wrong", path: "/v1/topics/orders/events", head: "Content-Type: application/cloudevents-batch+json", body: `[` + event("e2", "") + `,{"specversion":"1.0"}]`, status: 400, want: []string{"event 2 of the batch"}},
		{name: "no event", path: "/v1/topics/orders/events", body: `{"n":1}`, status: 400, want: []string{`"field":"specversion"`, "Ce-Id"}},
		{name: "another format", path: "/v1/topics/orders/events", head: "Content-Type: application/cloudevents+avro", body: `x`, status: 415, want: []string{`"code":"unsupported_media_type"`}},
		{name: "a coding", path: "/v1/topics/orders/events", head: structured + "\nContent-Encoding: gzip", body: event("e4", ""), status: 415, want: []string{`"code":"unsupported_media_type"`}},
		{name: "a charset", path: "/v1/topics/orders/events", head: structured + "; charset=utf-16", body: event("e4", ""), status: 415},
		{name: "source is no URI-reference", path: "/v1/topics/orders/events", head: structured, body: strings.Replace(event("e4", ""), "/orders", "a b", 1), status: 400, want: []string{`"field":"source"`}},
		{name: "an option of messages", path: "/v1/topics/orders/events", head: structured, body: event("e4", `,"deliverafter":"1h"`), status: 400, want: []string{`"field":"deliverafter"`, "/messages"}},
		{name: "to no topic", path: "/v1/topics/nothing/events", head: structured, body: event("e1", ""), status: 404, want: []string{`"code":"unknown_topic"`}},
		{name: "to remit's own", path: "/v1/topics/remit.events/events", head: structured, body: event("e1", ""), status: 403, want: []string{`"code":"forbidden"`}},
		{name: "to payments", path: "/v1/topics/payments/events", head: structured, body: event("e1", ""), status: 403},
		{name: "too large", path: "/v1/topics/orders/events", head: structured, body: event("e1", `,"data":"`+strings.Repeat("x", 1<<20)+`"`), status: 413},
		{name: "read", method: "GET", path: fmt.Sprintf("/v1/topics/orders/events?partition=%d&from=1&pageSize=1", log.KeyPartition("k", 8)), status: 200, want: []string{`"items":[{"offset":1,"time":"`, `"event":{"specversion":"1.0","id":"e1"`, `"next":2,"end":3`}},
		{name: "read the end", method: "GET", path: "/v1/topics/plain/events?from=end", status: 200, want: []string{`"items":[],"next":0,"end":0`}},
		{name: "read from a time", method: "GET", path: "/v1/topics/plain/events?from=2020-01-01T00:00:00Z&wait=1ms", status: 200, want: []string{`"items":[]`}},
		{name: "read beyond", method: "GET", path: "/v1/topics/plain/events?from=7", status: 400, want: []string{`"parameter":"from"`, `"end":0`, "there are none"}},
		{name: "read from nonsense", method: "GET", path: "/v1/topics/plain/events?from=x", status: 400, want: []string{`"parameter":"from"`}},
		{name: "read no partition", method: "GET", path: "/v1/topics/plain/events?partition=2", status: 404, want: []string{"has no partition 2"}},
		{name: "read no topic", method: "GET", path: "/v1/topics/nothing/events", status: 404, want: []string{`"code":"unknown_topic"`}},
		{name: "read the core", method: "GET", path: "/v1/topics/remit.events/events", status: 200, want: []string{`"items":[`}},
		{name: "secrets are not read", method: "GET", path: "/v1/topics/remit.registry/events", status: 403, want: []string{`"code":"forbidden"`}},
		{name: "delete", method: "DELETE", path: "/v1/topics/plain", status: 204},
		{name: "delete again", method: "DELETE", path: "/v1/topics/plain", status: 404, want: []string{`"code":"unknown_topic"`}},

		{name: "register", method: "PUT", path: "/v1/producers/shop", body: `{"check":{"url":"https://shop.example/check","secret":"s3cret"},"precheck":{"url":"https://shop.example/pre","when":"type = 'x'"}}`, status: 201, want: []string{`{"producer":"shop","check":{"url":"https://shop.example/check","secretSet":true,"firstAfter":"10s","interval":"10s","maxInterval":"10m","deadline":"24h"},"precheck":`}},
		{name: "register anew, the secret stays", method: "PUT", path: "/v1/producers/shop", body: `{"check":{"url":"https://shop.example/check2","interval":"1s"}}`, status: 200, want: []string{`"secretSet":true`, `"interval":"1s"`}},
		{name: "the secret goes", method: "PUT", path: "/v1/producers/shop", body: `{"check":{"url":"https://shop.example/check2","secret":""}}`, status: 200, want: []string{`"secretSet":false`}},
		{name: "too short a deadline", method: "PUT", path: "/v1/producers/shop", body: `{"check":{"url":"https://shop.example/check","deadline":"39s"}}`, status: 400, want: []string{`"field":"check.deadline"`, "40s"}},
		{name: "just long enough", method: "PUT", path: "/v1/producers/shop", body: `{"check":{"url":"https://shop.example/check","deadline":"40s"}}`, status: 200},
		{name: "intervals crossed", method: "PUT", path: "/v1/producers/shop", body: `{"check":{"url":"https://shop.example/check","interval":"2m","maxInterval":"1m"}}`, status: 400, want: []string{`"field":"check.maxInterval"`}},
		{name: "no address", method: "PUT", path: "/v1/producers/shop", body: `{"check":{"url":"shop.example"}}`, status: 400, want: []string{`"field":"check.url"`}},
		{name: "no duration", method: "PUT", path: "/v1/producers/shop", body: `{"check":{"url":"http://x/","interval":"1"}}`, status: 400, want: []string{`"field":"check.interval"`}},
		{name: "no condition", method: "PUT", path: "/v1/producers/shop", body: `{"check":{"url":"http://x/","when":"remitage > 60 AND typ ~ 'x'"}}`, status: 400, want: []string{`"code":"invalid_field"`, `"field":"check.when"`, `character 23: '~' means nothing here`}},
		{name: "no condition for prechecks", method: "PUT", path: "/v1/producers/shop", body: `{"precheck":{"url":"http://x/","when":"type = "}}`, status: 400, want: []string{`"code":"invalid_field"`, `"field":"precheck.when"`, `character 8: `}},
		{name: "an endless condition", method: "PUT", path: "/v1/producers/shop", body: `{"check":{"url":"http://x/","when":"` + strings.Repeat(" ", 4097) + `"}}`, status: 400, want: []string{`"field":"check.when"`, "at most 4096"}},
		{name: "a condition", method: "PUT", path: "/v1/producers/shop", body: `{"check":{"url":"http://x/","when":"remitage > 60 OR remitchecks < 3"}}`, status: 200, want: []string{`"when":"remitage > 60 OR remitchecks < 3"`}},
		{name: "no base64", method: "PUT", path: "/v1/producers/shop", body: `{"check":{"url":"http://x/","secret":"whsec_***"}}`, status: 400, want: []string{`"field":"check.secret"`}},
		{name: "bare", method: "PUT", path: "/v1/producers/bare", status: 201, want: []string{`{"producer":"bare"}`}},
		{name: "show", method: "GET", path: "/v1/producers/shop", status: 200},
		{name: "show nothing", method: "GET", path: "/v1/producers/nothing", status: 404, want: []string{`"code":"unknown_producer"`}},
		{name: "list producers", method: "GET", path: "/v1/producers?pageSize=1", status: 200, want: []string{`"items":[{"producer":"bare"}]`, `"nextPageToken"`}},
		{name: "remove", method: "DELETE", path: "/v1/producers/bare", status: 204},
		{name: "remove again", method: "DELETE", path: "/v1/producers/bare", status: 404},
	})
}

// TestMessages proves what api.md says of half messages and their decisions.
func TestMessages(t *testing.T) {
	w := newWorld(t)
	w.must(201, "PUT", "/v1/topics/orders", `{"partitions":2}`)
	w.must(201, "PUT", "/v1/topics/others", "")
	w.must(201, "PUT", "/v1/producers/shop", "")
	w.account("alice", "10")
	w.account("store", "")
	const post = "/v1/topics/orders/messages?producer=shop"
	one, two, three := idFor("k"), idFor("k"), idFor("k")
	with := func(id string) string {
		return event("x"+id, `,"partitionkey":"k","remitid":"`+id+`","data":{"a":1,"b":[2]}`)
	}
	var named struct{ ID string }
	w.must(201, "POST", post, event("m1", `,"data":{"a":1,"b":2},"time":"2026-01-01T00:00:00Z"`), structured).into(t, &named)
	run(t, w, []row{
		{name: "again, at another time", path: post, head: structured, body: event("m1", `,"data":{ "b":2, "a":1 },"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"`), status: 202, want: []string{named.ID, `"state":"prepared"`}, sent: replayed},
		{name: "again, with an escape", path: post, head: structured, body: event("m1", `,"data":{"\u0061":1,"b":2}`), status: 202, sent: replayed},
		{name: "a member twice", path: "/v1/topics/others/messages?producer=shop", head: structured, body: event("m2", `,"data":[{"a":1,"a":2}]`), status: 201, want: []string{`"data_base64":"W3siYSI6MSwiYSI6Mn1d"`}},
		{name: "a member twice, again", path: "/v1/topics/others/messages?producer=shop", head: structured, body: event("m2", `,"data":[{"a":1,"a":2}]`), status: 202, sent: replayed},
		{name: "a member twice, the other way around", path: "/v1/topics/others/messages?producer=shop", head: structured, body: event("m2", `,"data":[{"a":2,"a":1}]`), status: 409, want: []string{`"field":"data"`}},
		{name: "other data", path: post, head: structured, body: event("m1", `,"data":{"a":1}`), status: 409, want: []string{`"code":"content_mismatch"`, `"field":"data"`}},
		{name: "other subject", path: post, head: structured, body: event("m1", `,"data":{"a":1,"b":2},"subject":"s"`), status: 409, want: []string{`"field":"subject"`}},
		{name: "later", path: post, head: structured, body: event("m1", `,"data":{"a":1,"b":2},"deliverafter":"1h"`), status: 409, want: []string{`"field":"deliverafter"`}},
		{name: "own id", path: post, head: structured, body: with(one), status: 201, want: []string{`"id":"` + one + `"`, `"key":"k"`, `"event":{"specversion":"1.0"`, `"name":"/orders x` + one + `"`, `"history":[{"at":"`}},
		{name: "own id again", path: post, head: structured, body: with(one), status: 202, sent: replayed},
		{name: "own id, other content", path: post, head: structured, body: strings.Replace(with(one), `"a":1`, `"a":2`, 1), status: 409, want: []string{`"field":"data"`}},
		{name: "wrong slot", path: post, head: structured, body: event("m2", `,"partitionkey":"k","remitid":"`+otherSlot("k")+`"`), status: 400, want: []string{`"code":"wrong_slot"`, `"field":"remitid"`, `or leave remitid out"`}},
		{name: "remitid of a day to come", path: post, head: structured, body: event("m2", `,"partitionkey":"k","remitid":"`+idAhead(time.Minute, "k")+`"`), status: 400, want: []string{`"code":"invalid_id"`}},
		{name: "remitid is no id", path: post, head: structured, body: event("m2", `,"remitid":"x"`), status: 400, want: []string{`"code":"invalid_id"`, `"field":"remitid"`}},
		{name: "deliverat is no time", path: post, head: structured, body: event("m2", `,"deliverat":"x"`), status: 400, want: []string{`"field":"deliverat"`}},
		{name: "deliverat and deliverafter", path: post, head: structured, body: event("m2", `,"deliverat":"2027-01-01T00:00:00Z","deliverafter":"1s"`), status: 400, want: []string{`"code":"invalid_field"`, `"field":"deliverafter"`, "one of the two"}},
		{name: "source is no URI-reference", path: post, head: structured, body: strings.Replace(event("m2", ""), "/orders", "a b", 1), status: 400, want: []string{`"code":"invalid_field"`, `"field":"source"`}},
		{name: "checkafter is no duration", path: post, head: structured, body: event("m2", `,"checkafter":"x"`), status: 400, want: []string{`"field":"checkafter"`}},
		{name: "no producer", path: "/v1/topics/orders/messages", head: structured, body: event("m2", ""), status: 400, want: []string{`"parameter":"producer"`}},
		{name: "unknown producer", path: "/v1/topics/orders/messages?producer=x", head: structured, body: event("m2", ""), status: 404, want: []string{`"code":"unknown_producer"`}},
		{name: "unknown topic", path: "/v1/topics/nothing/messages?producer=shop", head: structured, body: event("m2", ""), status: 404, want: []string{`"code":"unknown_topic"`}},
		{name: "reserved topic", path: "/v1/topics/payments/messages?producer=shop", head: structured, body: event("m2", ""), status: 403},
		{name: "a batch", path: post, head: "Content-Type: application/cloudevents-batch+json", body: `[` + event("m2", "") + `,` + event("m3", "") + `]`, status: 415},
		{name: "no event", path: post, body: `{}`, status: 400, want: []string{`"field":"specversion"`}},
		{name: "shown while open", method: "GET", path: "/v1/messages/" + one, status: 200, want: []string{`"state":"prepared"`, `"checks":0`, `"history":[{"at":"`, "remit.message.prepared.v1"}},
		{name: "its topic is in use", method: "DELETE", path: "/v1/topics/orders", status: 409, want: []string{`"code":"topic_in_use"`, `state=prepared, parked or committed"`, `"messages":2`}},
		{name: "commit", path: "/v1/messages/" + one + "/commit", body: `{"reason":"paid"}`, status: 200, want: []string{
			`{"id":"` + one + `","name":"/orders x` + one + `"`, `"state":"delivered"`, `"reason":"paid"`, fmt.Sprintf(`"deliveredAt":{"partition":%d}}`, log.KeyPartition("k", 2)),
		}},
		{name: "commit again", path: "/v1/messages/" + one + "/commit", status: 200, sent: replayed, want: []string{
			`"name":"/orders x` + one + `"`, fmt.Sprintf(`"deliveredAt":{"partition":%d`, log.KeyPartition("k", 2)),
		}},
		{name: "the delivered one again", path: post, head: structured, body: with(one), status: 200, sent: replayed, want: []string{
			`"name":"/orders x` + one + `"`, fmt.Sprintf(`"deliveredAt":{"partition":%d`, log.KeyPartition("k", 2)),
		}},
		{name: "roll a delivered one back", path: "/v1/messages/" + one + "/rollback", status: 409, want: []string{
			`"code":"already_decided"`, `"recorded":"delivered"`, `"message":{"id":"` + one + `","name":"/orders x` + one + `"`, `"deliveredAt":{"partition":`,
		}},
		{name: "roll back", path: "/v1/messages/" + named.ID + "/rollback", status: 200, want: []string{`"name":"/orders m1"`, `"state":"rolledback"`}},
		{name: "commit what was rolled back", path: "/v1/messages/" + named.ID + "/commit", status: 409, want: []string{`"recorded":"rolledback"`, `"name":"/orders m1"`}},
		{name: "commit nothing", path: "/v1/messages/" + three + "/commit", status: 404, want: []string{`"code":"not_found"`}},
		{name: "commit by name", path: "/v1/messages/m1/commit", status: 400, want: []string{`"code":"invalid_id"`, "source=&eventId="}},
		{name: "too long a reason", path: "/v1/messages/" + three + "/commit", body: `{"reason":"` + strings.Repeat("x", 1025) + `"}`, status: 400, want: []string{`"field":"reason"`}},
		{name: "shown when ended", method: "GET", path: "/v1/messages/" + one, status: 200, want: []string{`"state":"delivered"`, `"deliveredAt":{"partition":`, `"event":{"specversion"`, "remit.message.committed.v1"}},
		{name: "the conflict is in the history", method: "GET", path: "/v1/messages/" + one, status: 200, want: []string{"remit.message.conflicted.v1"}},
		{name: "found by event", method: "GET", path: "/v1/messages?source=/orders&eventId=m1", status: 200, want: []string{named.ID}},
		{name: "the story of its name", method: "GET", path: "/v1/stories/%2Forders%20x" + one, status: 200, want: []string{`"of":"/orders x` + one + `"`, "remit.message.committed.v1"}},
		{name: "the story of a name from elsewhere", method: "GET", path: "/v1/stories/%2Fcarts%20x" + one, status: 404},
		{name: "a list of no state", method: "GET", path: "/v1/messages?state=open", status: 400, want: []string{`"parameter":"state"`}},
		{name: "show nothing", method: "GET", path: "/v1/messages/" + three, status: 404},
		{name: "pay", path: "/v1/payments", body: `{"id":"` + idFor("alice") + `","payer":"alice","payee":"store","amount":"1","currency":"USD"}`, status: 201},
	})
	var list struct{ Items []struct{ ID string } }
	w.must(200, "GET", "/v1/payments?payer=alice&after="+w.core.Node.Position().String(), "").into(t, &list)
	run(t, w, []row{
		{name: "a payment's message", method: "GET", path: "/v1/messages/" + list.Items[0].ID, status: 200, want: []string{`"topic":"payments"`, `"state":"delivered"`}},
		{name: "a payment's message is not to be decided", path: "/v1/messages/" + list.Items[0].ID + "/rollback", status: 409, want: []string{`"code":"not_tried"`}},
	})

	lines := strings.Join([]string{
		with(two), `{"commit":"` + two + `"}`, `{"commit":"` + two + `"}`, `{"rollback":"` + two + `","reason":"x"}`, event("m9", ""), `{"commit":"` + two + `","rollback":"` + two + `"}`, `{"commit":"m9"}`, `{"specversion":"2.0"}`,
	}, "\n")
	a := w.must(200, "POST", "/v1/topics/orders/messages:batch?producer=shop", lines, "Content-Type: application/x-ndjson")
	want := []string{`"status":201,"message"`, `"status":200,"message"`, `"status":200,"replayed":true,"message"`, `"status":409,"problem"`, `"status":201,"message"`, `"status":400`, `"status":400`, `"status":400`}
	for i, l := range strings.Split(strings.TrimSpace(a.body), "\n") {
		if !strings.HasPrefix(l, fmt.Sprintf(`{"line":%d,%s`, i+1, want[i])) {
			t.Errorf("%s, want %s", l, want[i])
		}
	}
	if a.header.Get(api.PositionHeader) == "" {
		t.Error("no position in the trailer")
	}
	// A line is answered as the single call is: a decision, its repeat and what contradicts it too.
	answers := strings.Split(a.body, "\n")
	for i, wants := range [][]string{{`"event":{"specversion":"1.0"`, `"history":[{"at":"`}, {`"deliveredAt":{"partition":`}, {`"deliveredAt":{"partition":`}, {`"deliveredAt":{"partition":`}} {
		for _, want := range append(wants, `"name":"/orders x`+two+`"`) {
			if !strings.Contains(answers[i], want) {
				t.Errorf("%s\nhas no %s", answers[i], want)
			}
		}
	}
	w.must(404, "POST", "/v1/topics/orders/messages:batch?producer=x", lines, "Content-Type: application/x-ndjson")
}

// TestViews: what was written is read, with after where a list is asked, and at once where one thing is.
func TestViews(t *testing.T) {
	w := newWorld(t)
	w.account("alice", "100.00")
	w.account("shop", "")
	w.must(201, "POST", "/v1/payments", pay("p1", `,"reference":"cart 5"`))
	w.must(201, "POST", "/v1/payments", pay("p2", ""))
	w.must(402, "POST", "/v1/payments", `{"id":"p3","payer":"alice","payee":"shop","amount":"1000","currency":"USD"}`)
	w.must(201, "POST", "/v1/payments", pay("p4", `,"capture":"manual"`))
	at := w.must(201, "POST", "/v1/payments/p1/refunds", `{"id":"f1","amount":"2.50"}`).header.Get(api.PositionHeader)
	for _, of := range []string{"p1", "p2"} {
		at = w.must(201, "POST", "/v1/payments/"+of+"/refunds", `{"id":"twice","amount":"0.50"}`).header.Get(api.PositionHeader)
	}
	today := time.Now().UTC().Format(time.DateOnly)
	run(t, w, []row{
		{name: "one", method: "GET", path: "/v1/payments/p1", status: 200, want: []string{`"name":"p1"`, `"refunded":"3.00"`, `"reference":"cart 5"`}},
		{name: "a held one", method: "GET", path: "/v1/payments/p4", status: 200, want: []string{`"state":"held"`}},
		{name: "nothing", method: "GET", path: "/v1/payments/p9", status: 404, want: []string{"searched"}},
		{name: "list", method: "GET", path: "/v1/payments?payer=alice&pageSize=2&after=" + at, status: 200, want: []string{`"items":[{`, `"name":"p4"`, `"name":"p3"`, `"nextPageToken"`}},
		{name: "by reference", method: "GET", path: "/v1/payments?reference=cart%205&after=" + at, status: 200, want: []string{`"name":"p1"`}},
		{name: "by state", method: "GET", path: "/v1/payments?state=refused&after=" + at, status: 200, want: []string{`"name":"p3"`}},
		{name: "no such state", method: "GET", path: "/v1/payments?state=open", status: 400, want: []string{`"parameter":"state"`}},
		{name: "refunds", method: "GET", path: "/v1/payments/p1/refunds", status: 200, want: []string{`"name":"f1"`, `"amount":"2.50"`}},
		{name: "refunds of nothing", method: "GET", path: "/v1/payments/p9/refunds", status: 404},
		{name: "accounts", method: "GET", path: "/v1/accounts?after=" + at, status: 200, want: []string{`"account":"shop"`, `"account":"alice"`}},
		{name: "entries", method: "GET", path: "/v1/accounts/alice/entries", status: 200, want: []string{`"kind":"refund"`, `"name":"f1"`, `"name":"p1"`, `"counterparty":"shop"`, `"balance":"78.50"`, `"kind":"deposit"`, `"name":"open"`}},
		{name: "entries of nobody", method: "GET", path: "/v1/accounts/nobody/entries", status: 404},
		{name: "transaction", method: "GET", path: "/v1/views/transactions/p1", status: 200, want: []string{`"kind":"payment"`, `"history":[{"at":"`, "remit.activity.begun.v1"}},
		{name: "transaction of a refund's name", method: "GET", path: "/v1/views/transactions/f1", status: 200, want: []string{`"name":"f1"`, `"kind":"refund"`, `"amount":"2.50"`}},
		{name: "transaction of two refunds' name", method: "GET", path: "/v1/views/transactions/twice", status: 409, want: []string{`"code":"ambiguous"`, `"ids":["`}},
		{name: "no transaction", method: "GET", path: "/v1/views/transactions/p9", status: 404},
		{name: "records", method: "GET", path: "/v1/views/consumers/alice/records?kind=payment", status: 200, want: []string{`"kind":"payment"`, `"counterparty":"shop"`, `"transactionId":"`}},
		{name: "records of no kind", method: "GET", path: "/v1/views/consumers/alice/records?kind=x", status: 400, want: []string{`"parameter":"kind"`}},
		{name: "records of nobody", method: "GET", path: "/v1/views/consumers/nobody/records", status: 404},
		{name: "merchant", method: "GET", path: "/v1/views/merchants/shop/transactions?minAmount=12&maxAmount=12.50&after=" + at, status: 200, want: []string{`"amount":"12.50"`, `"consumer":"alice"`}},
		{name: "bad amount", method: "GET", path: "/v1/views/merchants/shop/transactions?minAmount=1.001", status: 400, want: []string{`"parameter":"minAmount"`}},
		{name: "summary", method: "GET", path: "/v1/views/merchants/shop/summary?after=" + at, status: 200, want: []string{`{"day":"` + today + `","currency":"USD","count":2,"gross":"25.00","refunds":3,"refunded":"3.50","net":"21.50"}`}},
		{name: "views", method: "GET", path: "/v1/views?after=" + at, status: 200, want: []string{`"view":"transactions"`, `"digest":"`, `"lagRecords":`, `"generation":"`}},
		{name: "without digests", method: "GET", path: "/v1/views?digest=false", status: 200},
		{name: "activity", method: "GET", path: "/v1/activities/p1", status: 200, want: []string{`"kind":"payment"`, `"state":"confirm`, `"participant":"accounts"`}},
		{name: "activity of a refund's name", method: "GET", path: "/v1/activities/f1", status: 200, want: []string{`"kind":"refund"`, `"name":"f1"`, `"participant":"accounts"`}},
		{name: "activity of two refunds' name", method: "GET", path: "/v1/activities/twice", status: 409, want: []string{`"code":"ambiguous"`, `"ids":["`, "2 refunds"}},
		{name: "activities", method: "GET", path: "/v1/activities?state=trying&after=" + at, status: 200, want: []string{`"name":"p4"`}},
		{name: "no activity", method: "GET", path: "/v1/activities/p9", status: 404},
		{name: "story by name", method: "GET", path: "/v1/stories/p1", status: 200, want: []string{`"of":"p1"`, "remit.log.named.v1", "remit.activity.begun.v1", "remit.payment.paid.v1", "remit.payment.refunded.v1"}},
		{name: "story of a refund's name", method: "GET", path: "/v1/stories/f1", status: 200, want: []string{`"of":"f1"`, "remit.log.named.v1", "remit.payment.paid.v1", "remit.payment.refunded.v1"}},
		{name: "story of two refunds' name", method: "GET", path: "/v1/stories/twice", status: 200, want: []string{`"reference":"cart 5"`, `"name":"p2"`}},
		{name: "story by reference", method: "GET", path: "/v1/stories/cart%205", status: 200, want: []string{"remit.payment.paid.v1"}},
		{name: "story of a deposit", method: "GET", path: "/v1/stories/alice/open", status: 200, want: []string{"remit.account.deposited.v1"}},
		{name: "story of nothing", method: "GET", path: "/v1/stories/p9", status: 404, want: []string{`"code":"not_found"`, "searched"}},
		{name: "not caught up", method: "GET", path: "/v1/payments?wait=1ms&after=" + (log.Position{0: 1 << 40}).String(), status: 503, want: []string{`"code":"not_caught_up"`, `"view":"transactions"`}},
	})
}

// TestUnknownParameters: no call passes over a parameter that it does not know (H1).
func TestUnknownParameters(t *testing.T) {
	w := newWorld(t)
	w.account("alice", "10")
	w.account("shop", "")
	w.must(201, "PUT", "/v1/topics/orders", "")
	w.must(201, "PUT", "/v1/producers/shop", "")
	w.must(201, "PUT", "/v1/producers/shop/instances/a", `{"url":"http://127.0.0.1:1/check"}`)
	w.must(201, "PUT", "/v1/subscriptions/crm", `{"topic":"orders","sink":"http://127.0.0.1:1/in"}`)
	w.must(201, "POST", "/v1/payments", `{"id":"p1","payer":"alice","payee":"shop","amount":"1","currency":"USD"}`)
	for _, r := range (api.Nouns{}).Routes() {
		path := strings.NewReplacer("{account}", "alice", "{topic}", "orders", "{producer}", "shop", "{consumer}", "alice", "{merchant}", "shop", "{any...}", "p1",
			"{instance}", "a", "{subscription}", "crm").Replace(r.Pattern)
		id := "p1"
		if strings.Contains(path, "/messages/") {
			id = idFor("k")
		}
		a := w.call(r.Method, strings.Replace(path, "{id}", id, 1)+"?nosuch=1", "", "Content-Type: application/x-ndjson")
		if a.status != 400 || !strings.Contains(a.body, `"parameter":"nosuch"`) {
			t.Errorf("%s %s: %d %s", r.Method, path, a.status, a.body)
		}
	}
}

// TestTopicsMade: a topic that is not there is made for a half message, and for none that is refused.
func TestTopicsMade(t *testing.T) {
	w := newWorld(t)
	full := &fullOnce{Log: w.log}
	topics := &api.Topics{Log: full, Node: w.core.Node, AutoCreate: true, Partitions: 2}
	messages := &api.Messages{Node: w.core.Node, Broker: w.core.Broker, Registry: w.core.Registry, Topics: topics, Views: w.views}
	s, err := api.New(api.Options{Routes: append(topics.Routes(), messages.Routes()...), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	w.must(201, "PUT", "/v1/producers/shop", "")
	w.server.Close()
	w.server = httptest.NewServer(s)
	to := func(topic string) string { return "/v1/topics/" + topic + "/messages?producer=shop" }
	made := func(topic string) bool {
		_, err := w.log.Topic(t.Context(), topic)
		return err == nil
	}
	id := idFor("k")
	own := func(data string) string { return event("own", `,"partitionkey":"k","remitid":"`+id+`","data":`+data) }
	w.must(201, "POST", to("orders"), event("m1", `,"data":1`), structured)
	w.must(201, "POST", to("others"), own("1"), structured)
	if !made("orders") || !made("others") {
		t.Error("no topic was made for what was stored")
	}
	run(t, w, []row{
		{name: "another topic, by name", path: to("typo1"), head: structured, body: event("m1", `,"data":1`), status: 409, want: []string{`"field":"topic"`, `"recorded":"orders"`}},
		{name: "other data, by id", path: to("typo2"), head: structured, body: own("2"), status: 409, want: []string{`"field":"topic"`, `"recorded":"others"`}},
		{name: "no event", path: to("typo3"), head: structured, body: `{}`, status: 400},
		{name: "wrong slot", path: to("typo4"), head: structured, body: event("m2", `,"partitionkey":"k","remitid":"`+otherSlot("k")+`"`), status: 400},
	})
	lines := own("3") + "\n" + event("m1", "") + "\n{}\n" + `{"rollback":"` + id + `"}` + "\n"
	w.must(200, "POST", "/v1/topics/typo5/messages:batch?producer=shop", lines, "Content-Type: application/x-ndjson")
	for _, topic := range []string{"typo1", "typo2", "typo3", "typo4", "typo5"} {
		if made(topic) {
			t.Errorf("%s was made for what was refused", topic)
		}
	}
	a := w.must(200, "POST", "/v1/topics/lines/messages:batch?producer=shop", event("m1", "")+"\n"+event("m3", "")+"\n"+event("m4", "")+"\n", "Content-Type: application/x-ndjson")
	if strings.Count(a.body, `"status":201`) != 2 || !made("lines") {
		t.Errorf("the topic of a stream is not made for its first line that is taken: %s", a.body)
	}
	full.next = true
	a = w.must(200, "POST", "/v1/topics/later/messages:batch?producer=shop", event("m5", "")+"\n"+event("m6", "")+"\n", "Content-Type: application/x-ndjson")
	if !strings.Contains(a.body, `{"line":1,"status":503`) || !strings.Contains(a.body, `{"line":2,"status":201`) || !made("later") {
		t.Errorf("a line was taken for a topic that could not be made, or the next one was not: %s", a.body)
	}
	if err := w.log.DeleteTopic(t.Context(), "orders"); err != nil {
		t.Fatal(err)
	}
	if w.must(202, "POST", to("orders"), event("m1", `,"data":1`), structured); !made("orders") {
		t.Error("an open message was stored again, and its topic is not there")
	}
}

// fullOnce is a log on a disk that is full for the next topic.
type fullOnce struct {
	log.Log
	next bool
}

func (l *fullOnce) CreateTopic(ctx context.Context, c log.TopicConfig) error {
	if l.next {
		l.next = false
		return log.ErrDiskFull
	}
	return l.Log.CreateTopic(ctx, c)
}
