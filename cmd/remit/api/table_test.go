package api_test

import (
	"fmt"
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
	head   string // one header line
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
	var head []string
	if r.head != "" {
		head = append(head, r.head)
	}
	a := w.call(method, r.path, r.body, head...)
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
		{name: "open with another limit", method: "PUT", path: "/v1/accounts/alice", body: `{"currency":"USD","creditLimit":"1"}`, status: 409, want: []string{`"code":"content_mismatch"`, `"field":"creditLimit"`}},
		{name: "unknown currency", method: "PUT", path: "/v1/accounts/bob", body: `{"currency":"DOL"}`, status: 400, want: []string{`"code":"invalid_field"`, `"field":"currency"`}},
		{name: "no currency", method: "PUT", path: "/v1/accounts/bob", body: `{}`, status: 400, want: []string{`"field":"currency"`}},
		{name: "negative limit", method: "PUT", path: "/v1/accounts/bob", body: `{"currency":"USD","creditLimit":"-1"}`, status: 400, want: []string{`"code":"invalid_amount"`, `"field":"creditLimit"`}},
		{name: "bad account name", method: "PUT", path: "/v1/accounts/a%20b", body: `{"currency":"USD"}`, status: 400, want: []string{`"code":"invalid_id"`, `"field":"account"`}},
		{name: "unknown field", method: "PUT", path: "/v1/accounts/bob", body: `{"currency":"USD","limit":"1"}`, status: 400, want: []string{`"code":"unknown_field"`, `"field":"limit"`}},
		{name: "shop", method: "PUT", path: "/v1/accounts/shop", body: `{"currency":"USD"}`, status: 201},
		{name: "yen", method: "PUT", path: "/v1/accounts/yen", body: `{"currency":"JPY"}`, status: 201, want: []string{`"balance":"0"`}},
		{name: "not there", method: "GET", path: "/v1/accounts/nobody", status: 404, want: []string{`"code":"not_found"`, "searched"}},
		{name: "get", method: "GET", path: "/v1/accounts/alice", status: 200, want: []string{`"state":"open"`}},
		{name: "get with what it does not know", method: "GET", path: "/v1/accounts/alice?x=1", status: 400, want: []string{`"parameter":"x"`}},
		{name: "a position that never was", method: "GET", path: "/v1/accounts/alice?wait=1ms&after=" + (log.Position{0: 1 << 40}).String(), status: 503, want: []string{`"code":"not_caught_up"`, `"retryable":true`}},

		// Deposits and withdrawals.
		{name: "deposit", path: "/v1/accounts/alice/deposits", body: `{"id":"d1","amount":"100.00"}`, status: 201, want: []string{`"id":"d1"`, `"balance":"100.00"`}},
		{name: "deposit again", path: "/v1/accounts/alice/deposits", body: `{"id":"d1","amount":"100"}`, status: 200, want: []string{`"balance":"100.00"`}, sent: replayed},
		{name: "deposit of other content", path: "/v1/accounts/alice/deposits", body: `{"id":"d1","amount":"101"}`, status: 409, want: []string{`"code":"content_mismatch"`, `"field":"amount"`}},
		{name: "the name as a withdrawal", path: "/v1/accounts/alice/withdrawals", body: `{"id":"d1","amount":"100"}`, status: 409, want: []string{`"code":"content_mismatch"`}},
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
		{name: "pay again", path: "/v1/payments?wait=0s", body: pay("p1", `,"reference":"order 7"`), status: 200, want: []string{`"name":"p1"`, `"state":"paid"`, `"reference":"order 7"`}, sent: replayed},
		{name: "other amount", path: "/v1/payments", body: strings.Replace(pay("p1", `,"reference":"order 7"`), "12.50", "12.51", 1), status: 409, want: []string{`"code":"content_mismatch"`, `"field":"amount"`, `"recorded":"12.50"`}},
		{name: "other payer", path: "/v1/payments", body: `{"id":"p1","payer":"bob","payee":"shop","amount":"12.50","currency":"USD"}`, status: 409, want: []string{`"field":"payer"`}},
		{name: "other reference", path: "/v1/payments", body: pay("p1", ""), status: 409, want: []string{`"field":"reference"`}},
		{name: "other capture", path: "/v1/payments", body: pay("p1", `,"reference":"order 7","capture":"manual"`), status: 409, want: []string{`"field":"capture"`}},
		{name: "own id", path: "/v1/payments", body: pay(own, ""), status: 201, want: []string{`"id":"` + own + `"`, `"state":"paid"`}},
		{name: "own id again", path: "/v1/payments", body: pay(strings.ToUpper(own), ""), status: 200, sent: replayed},
		{name: "own id, other content", path: "/v1/payments", body: pay(own, `,"reference":"x"`), status: 409, want: []string{`"field":"reference"`}},
		{name: "wrong slot", path: "/v1/payments", body: pay(otherSlot("alice"), ""), status: 400, want: []string{`"code":"wrong_slot"`, `"field":"id"`}},
		{name: "no id", path: "/v1/payments", body: `{"payer":"alice","payee":"shop","amount":"1","currency":"USD"}`, status: 400, want: []string{`"code":"id_required"`}},
		{name: "key for id", path: "/v1/payments", head: "Idempotency-Key: p1", body: `{"payer":"alice","payee":"shop","amount":"12.5","currency":"USD","reference":"order 7"}`, status: 200, sent: replayed},
		{name: "key and other id", path: "/v1/payments", head: "Idempotency-Key: p1", body: pay("p2", ""), status: 400, want: []string{`"code":"id_mismatch"`}},
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
		{name: "capture another amount", path: "/v1/payments/h1/capture", body: `{"amount":"11"}`, status: 409, want: []string{`"code":"content_mismatch"`, `"field":"amount"`, `"recorded":"10.00"`}},
		{name: "void a captured one", path: "/v1/payments/h1/void", status: 409, want: []string{`"code":"already_decided"`, `"recorded":"paid"`, `"payment":{`}},
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
		{name: "refund nothing", path: "/v1/payments/nothing/refunds", body: `{"id":"f2","amount":"1"}`, status: 404},
		{name: "refund a refused one", path: "/v1/payments/r1/refunds", body: `{"id":"f2","amount":"1"}`, status: 409, want: []string{`"code":"not_paid"`}},
		{name: "the payment shows it", path: "/v1/payments", body: pay("p1", `,"reference":"order 7"`), status: 200, want: []string{`"refunded":"2.50"`}, sent: replayed},
		{name: "empty the shop", path: "/v1/accounts/shop/withdrawals", body: `{"id":"w1","amount":"32.50"}`, status: 201, want: []string{`"balance":"0.00"`}},
		{name: "refund without funds", path: "/v1/payments/p1/refunds", body: `{"id":"f3","amount":"1"}`, status: 402, want: []string{`"code":"insufficient_funds"`, `"refund":{`, `"reason":"insufficient_funds"`}},
		{name: "refused refund for ever", path: "/v1/payments/p1/refunds", body: `{"id":"f3","amount":"1"}`, status: 402, want: []string{`"code":"insufficient_funds"`}, sent: replayed},
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
		`{"line":4,"status":402,"problem":{`, `{"line":6,"status":201,"payment":{`, `{"line":7,"status":200,"payment":{`, `{"line":8,"status":409,"problem":{`,
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
