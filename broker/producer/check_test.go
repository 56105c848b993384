package producer_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/remitlog/remit/broker/producer"
	"github.com/remitlog/remit/broker/producer/producertest"
	"github.com/remitlog/remit/log"
)

// asked is a back-check as api.md has it.
func asked(of string, id log.ID) []byte {
	return fmt.Appendf(nil, `{"specversion":"1.0","id":"%[1]s/check/1","source":"/remit","type":"remit.message.check.v1","datacontenttype":"application/json",
		"data":{"messageId":"%[1]s","name":"/shop 1","topic":"orders","producer":"%[2]s","attempt":1,"event":{"specversion":"1.0","id":"1","source":"/shop","type":"t"}}}`, id, of)
}

// call calls a handler.
func call(h http.Handler, method string, header http.Header, body io.Reader) *httptest.ResponseRecorder {
	req := httptest.NewRequest(method, "/check", body)
	req.Header = header
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

func structured() http.Header { return http.Header{"Content-Type": {"application/cloudevents+json"}} }

// TestCheckHandler is the answer to what is asked, and to what is no back-check. Only 200 has a verdict, and what is refused leaves no row.
func TestCheckHandler(t *testing.T) {
	s := onSQLite(t)
	p := s.producer()
	if err := p.Send(t.Context(), "orders", placed("1"), s.place("1")); err != nil {
		t.Fatal(err)
	}
	sent, unknown := s.remit.Messages()[0].ID, log.NewID(time.Now(), "bob")
	binary := http.Header{"Content-Type": {"application/json"}, "Ce-Specversion": {"1.0"}, "Ce-Id": {"1"}, "Ce-Source": {"/remit"}, "Ce-Type": {producer.CheckType}}
	for _, c := range []struct {
		what, method string
		header       http.Header
		body         string
		status       int
		answer       string
	}{
		{"committed", "POST", structured(), string(asked("shop", sent)), 200, `{"verdict":"commit"}`},
		{"again", "POST", structured(), string(asked("shop", sent)), 200, `{"verdict":"commit"}`},
		{"in binary mode", "POST", binary, fmt.Sprintf(`{"messageId":"%s","producer":"shop"}`, sent), 200, `{"verdict":"commit"}`},
		{"another producer's", "POST", structured(), string(asked("warehouse", unknown)), 421, ""},
		{"GET", "GET", structured(), "", 405, ""},
		{"too large", "POST", structured(), strings.Repeat(" ", producer.CheckBodyMax+1), 413, ""},
		{"garbage", "POST", structured(), "garbage", 400, ""},
		{"another type", "POST", structured(), strings.Replace(string(asked("shop", unknown)), "check.v1", "check.v2", 1), 400, ""},
		{"data of another shape", "POST", structured(), strings.Replace(string(asked("shop", unknown)), `"attempt":1`, `"attempt":"1"`, 1), 400, ""},
		{"no id", "POST", structured(), strings.Replace(string(asked("shop", unknown)), fmt.Sprintf(`"messageId":"%s",`, unknown), "", 1), 421, ""},
		{"a name for an id", "POST", structured(), strings.Replace(string(asked("shop", unknown)), fmt.Sprintf(`"messageId":"%s"`, unknown), `"messageId":"order-1"`, 1), 400, ""},
		{"several", "POST", http.Header{"Content-Type": {"application/cloudevents-batch+json"}}, "[" + string(asked("shop", sent)) + "," + string(asked("shop", unknown)) + "]", 400, ""},
		{"not sent", "POST", structured(), string(asked("shop", unknown)), 200, `{"verdict":"rollback"}`},
		{"again", "POST", structured(), string(asked("shop", unknown)), 200, `{"verdict":"rollback"}`},
	} {
		if strings.HasPrefix(c.what, "not sent") {
			if n := rows(s); n != 1 {
				t.Errorf("%d rows are there; what was refused has left some", n)
			}
		}
		w := call(p.CheckHandler(), c.method, c.header, strings.NewReader(c.body))
		if w.Code != c.status || c.status == 200 && w.Body.String() != c.answer || c.status != 200 && strings.Contains(w.Body.String(), "verdict") {
			t.Errorf("%s: %d %s", c.what, w.Code, w.Body)
		}
	}
	if n := rows(s); n != 2 {
		t.Errorf("%d rows are there", n)
	}
}

// FuzzCheckHandler: whatever is sent, a row is written only for what is answered with rollback.
func FuzzCheckHandler(f *testing.F) {
	id := log.NewID(time.Now(), "alice")
	f.Add("application/cloudevents+json", asked("shop", id))
	f.Add("application/cloudevents+json", asked("warehouse", id))
	f.Add("application/cloudevents-batch+json", append(append([]byte("["), asked("shop", id)...), ']'))
	f.Add("application/json", []byte(`{"messageId":"`+id.String()+`","producer":"shop"}`))
	f.Add("", []byte{})
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		db := newMemory()
		p, err := producer.New(db, producer.Options{Server: producertest.URL, Producer: "shop"})
		if err != nil {
			t.Fatal(err)
		}
		w := call(p.CheckHandler(), http.MethodPost, http.Header{"Content-Type": {contentType}}, bytes.NewReader(body))
		rolledBack := w.Code == http.StatusOK && w.Body.String() == `{"verdict":"rollback"}`
		if rolledBack != (len(db.decisions) == 1) || len(db.decisions) > 1 || w.Code >= http.StatusInternalServerError {
			t.Errorf("%d %s; rows %v", w.Code, w.Body, db.decisions)
		}
	})
}

func rows(s *shop) (n int) {
	s.t.Helper()
	if err := s.db.QueryRowContext(s.t.Context(), "SELECT count(*) FROM "+producer.Table).Scan(&n); err != nil {
		s.t.Fatal(err)
	}
	return n
}

// TestCheckWithoutDatabase: a database that does not answer, is slow, or has what is not understood, is 503 and no verdict.
func TestCheckWithoutDatabase(t *testing.T) {
	s := onSQLite(t)
	id := log.NewID(time.Now(), "alice")
	do := func(statement string) {
		t.Helper()
		if _, err := s.db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	do("INSERT INTO " + producer.Table + " VALUES ('" + id.String() + "', NULL, 'maybe', 0)")
	unanswered(t, "another word", producer.SQL(s.db, s.dialect), id)
	do("DROP TABLE " + producer.Table)
	unanswered(t, "no table", producer.SQL(s.db, s.dialect), id)
	synctest.Test(t, func(t *testing.T) { // a transaction of another process has the row, and does not end
		db, began := newMemory(), time.Now()
		tx := db.begin()
		if n, err := tx.Exec(t.Context(), "INSERT", id.String(), nil, "commit", int64(0)); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		unanswered(t, "waits", db, id)
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("it has waited for %s", took)
		}
	})
}

func unanswered[T any](t *testing.T, what string, db producer.Database[T], id log.ID) {
	t.Helper()
	var said error
	p, err := producer.New(db, producer.Options{Server: producertest.URL, Producer: "shop",
		Listener: producer.Listener{Checked: func(_ producer.Question, v producer.Verdict, err error) { said = err }}})
	if err != nil {
		t.Fatal(err)
	}
	w := call(p.CheckHandler(), "POST", structured(), bytes.NewReader(asked("shop", id)))
	if w.Code != http.StatusServiceUnavailable || strings.Contains(w.Body.String(), "SQL") || said == nil {
		t.Errorf("%s: %d %s; %v", what, w.Code, w.Body, said)
	}
}

// TestPrecheckHandler: what the service says of a committed message is what remit is told.
func TestPrecheckHandler(t *testing.T) {
	p, err := producer.New(newMemory(), producer.Options{Server: producertest.URL, Producer: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	id := log.NewID(time.Now(), "alice")
	var got producer.Question
	var verdict producer.Verdict
	var fails error
	h := p.PrecheckHandler(func(_ context.Context, q producer.Question) (producer.Verdict, string, error) {
		got = q
		return verdict, "because", fails
	})
	question := bytes.Replace(asked("shop", id), []byte("check.v1"), []byte("precheck.v1"), 1)
	for _, c := range []struct {
		verdict producer.Verdict
		fails   error
		body    []byte
		status  int
		answer  string
	}{
		{producer.Deliver, nil, question, 200, `{"verdict":"deliver","reason":"because"}`},
		{producer.Hold, nil, question, 200, `{"verdict":"hold","reason":"because"}`},
		{producer.Drop, nil, question, 200, `{"verdict":"drop","reason":"because"}`},
		{producer.Deliver, errFails, question, 503, ""},
		{producer.Deliver, nil, asked("shop", id), 400, ""},
		{producer.Deliver, nil, bytes.Replace(question, []byte(`"source":"/shop"`), []byte(`"source":""`), 1), 400, ""},
	} {
		got, verdict, fails = producer.Question{}, c.verdict, c.fails
		w := call(h, "POST", structured(), bytes.NewReader(c.body))
		if w.Code != c.status || c.status == 200 && w.Body.String() != c.answer {
			t.Errorf("%s, %v: %d %s", c.verdict, c.fails, w.Code, w.Body)
		}
		if c.status == 200 && (got.ID != id || got.Topic != "orders" || got.Attempt != 1 || got.Event.ID() != "1") {
			t.Errorf("it was asked %+v", got)
		}
	}
}

// TestSignature: with secrets, only what is signed by one of them, about now, is answered.
func TestSignature(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		encoded := "whsec_" + base64.StdEncoding.EncodeToString([]byte("old secret"))
		options := producer.Options{Server: producertest.URL, Producer: "shop", Secrets: []string{encoded, "new secret"}}
		p, err := producer.New(newMemory(), options)
		if err != nil {
			t.Fatal(err)
		}
		body := asked("shop", log.NewID(time.Now(), "alice"))
		signed := func(key string, at time.Time, body []byte) http.Header {
			k, _ := standardwebhooks.NewWebhookRaw([]byte(key)) // it takes any
			signature, err := k.Sign("msg/1", at, body)
			if err != nil {
				t.Fatal(err)
			}
			h := structured()
			h.Set("webhook-id", "msg/1")
			h.Set("webhook-timestamp", fmt.Sprint(at.Unix()))
			h.Set("webhook-signature", signature)
			return h
		}
		with := func(h http.Header, name, value string) http.Header {
			h.Set(name, value)
			return h
		}
		now := time.Now()
		for what, c := range map[string]struct {
			header http.Header
			status int
		}{
			"the old one":      {signed("old secret", now, body), 200},
			"the new one":      {signed("new secret", now, body), 200},
			"among others":     {with(signed("new secret", now, body), "webhook-signature", "v1,AAAA v1a,BBBB "+signed("new secret", now, body).Get("webhook-signature")), 200},
			"a little late":    {signed("new secret", now.Add(-4*time.Minute), body), 200},
			"late":             {signed("new secret", now.Add(-6*time.Minute), body), 401},
			"early":            {signed("new secret", now.Add(6*time.Minute), body), 401},
			"another key":      {signed("other secret", now, body), 401},
			"encoded as a key": {signed(encoded, now, body), 401},
			"another body":     {signed("new secret", now, append(body, ' ')), 401},
			"another id":       {with(signed("new secret", now, body), "webhook-id", "msg/2"), 401},
			"another time":     {with(signed("new secret", now, body), "webhook-timestamp", fmt.Sprint(now.Unix()+1)), 401},
			"no time":          {with(signed("new secret", now, body), "webhook-timestamp", "now"), 401},
			"none":             {structured(), 401},
		} {
			if w := call(p.CheckHandler(), "POST", c.header, bytes.NewReader(body)); w.Code != c.status {
				t.Errorf("%s: %d %s", what, w.Code, w.Body)
			}
		}
		for _, secret := range []string{"", "whsec_", "whsec_not base64"} {
			options.Secrets = []string{"new secret", secret}
			if _, err := producer.New(newMemory(), options); err == nil || strings.Contains(err.Error(), "not base64") && !strings.Contains(err.Error(), "one of") {
				t.Errorf("secret %q is taken: %v", secret, err)
			}
		}
	})
}

// TestSigned: what remit registers is what it signs with.
func TestSigned(t *testing.T) {
	s := onSQLite(t)
	s.options.Secrets = []string{"s3cret"}
	p := s.producer()
	_ = p.Send(t.Context(), "orders", placed("1"), func(*sql.Tx) error { return errFails })
	id := last(s).ID
	if _, err := s.remit.CheckOne(t.Context(), p.CheckHandler(), id); err == nil || !strings.Contains(err.Error(), "401") {
		t.Error(err)
	}
	if err := p.Register(t.Context(), producer.Registration{Check: producer.Check{URL: "http://shop.test", Secret: "s3cret"}}); err != nil {
		t.Fatal(err)
	}
	if v, err := s.remit.CheckOne(t.Context(), p.CheckHandler(), id); v != "rollback" || err != nil {
		t.Error(v, err)
	}
}

// TestAnswers: what is not remit's is no answer, whatever its status.
func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		what        string
		status      int
		contentType string
		body        string
		retryable   bool
		says        string
	}{
		{"a page", 200, "text/html", "<html>sign in</html>", false, "not remit's"},
		{"another message", 201, "application/json", `{"id":"01a1fbbf-560f-8167-96d6-424ec3242195","state":"prepared"}`, false, "not the message's id"},
		{"no topic", 404, "application/problem+json", `{"code":"unknown_topic","detail":"make it","retryable":false}`, false, "unknown_topic"},
		{"full", 503, "application/problem+json", `{"code":"disk_full","detail":"make room","retryable":true}`, true, "disk_full"},
		{"a fault", 500, "application/problem+json", `{"code":"internal","detail":"?","retryable":true}`, true, "internal"},
		{"a gateway", 502, "text/html", "<html>", true, "502"},
		{"too many", 429, "text/plain", "", true, "429"},
		{"no token", 401, "application/problem+json; charset=utf-8", `{"code":"unauthenticated","detail":"","retryable":false}`, false, "unauthenticated"},
		{"a redirect", 302, "", "", false, "302"},
	} {
		calls := 0
		remit := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			calls++
			w.Header().Set("Content-Type", c.contentType)
			w.WriteHeader(c.status)
			_, _ = io.WriteString(w, c.body)
		}))
		p, err := producer.New(newMemory(), producer.Options{Server: remit.URL, Producer: "shop", BackoffMin: time.Millisecond, AttemptsMax: 3})
		if err != nil {
			t.Fatal(err)
		}
		err = p.Send(t.Context(), "orders", placed("1"), func(*memoryTx) error { t.Errorf("%s: the local transaction ran", c.what); return nil })
		answer, ok := errors.AsType[*producer.AnswerError](err)
		if !ok || producer.IsRetryable(err) != c.retryable || !strings.Contains(err.Error(), c.says) || answer.Call != "POST /v1/topics/orders/messages" {
			t.Errorf("%s: %v", c.what, err)
		}
		if want := map[bool]int{true: 3, false: 1}[c.retryable]; calls != want {
			t.Errorf("%s: %d calls, not %d", c.what, calls, want)
		}
		remit.Close()
	}
}

// TestRetryAfter: remit says how long to wait, and is believed up to BackoffMax.
func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, calls := time.Now(), 0
		busy := func(*http.Request) (*http.Response, error) {
			w := httptest.NewRecorder()
			w.Header().Set("Retry-After", []string{"2", "3600"}[calls%2])
			w.WriteHeader(http.StatusTooManyRequests)
			calls++
			return w.Result(), nil
		}
		p, err := producer.New(newMemory(), producer.Options{Server: producertest.URL, Producer: "shop", Client: &http.Client{Transport: roundTrip(busy)}, AttemptsMax: 3})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Register(t.Context(), producer.Registration{}); err == nil {
			t.Error("no error")
		}
		if took := time.Since(began); took != 7*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestIsRetryable: each verdict.
func TestIsRetryable(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{&producer.Error{Err: producer.ErrRolledBack}, true},
		{fmt.Errorf("x: %w", producer.ErrOutcomeUnknown), true},
		{producer.ErrAlreadySent, false},
		{producer.ErrContradicted, false},
		{producer.ErrClosed, false},
		{context.Canceled, false},
		{context.DeadlineExceeded, true},
		{&url.Error{Op: "Post", Err: errLost}, true},
		{&url.Error{Op: "Post", Err: context.Canceled}, false},
		{&producer.AnswerError{Retryable: true}, true},
		{&producer.AnswerError{}, false},
		{errFails, false},
		{nil, false},
	} {
		if got := producer.IsRetryable(c.err); got != c.want {
			t.Errorf("%v: %t", c.err, got)
		}
	}
}

// TestOptions: what cannot be is refused, and what is said of options has no secret in it.
func TestOptions(t *testing.T) {
	good := func() producer.Options {
		return producer.Options{Server: "https://remit.example/base/", Producer: "shop", Token: "t0k3n", Secrets: []string{"s3cret"}}
	}
	for what, change := range map[string]func(*producer.Options){
		"no server":       func(o *producer.Options) { o.Server = "" },
		"no scheme":       func(o *producer.Options) { o.Server = "127.0.0.1:8080" },
		"another scheme":  func(o *producer.Options) { o.Server = "ftp://remit" },
		"a query":         func(o *producer.Options) { o.Server = "http://remit?x=1" },
		"no producer":     func(o *producer.Options) { o.Producer = "" },
		"attempts":        func(o *producer.Options) { o.AttemptsMax = -1 },
		"a negative time": func(o *producer.Options) { o.CallMax = -1 },
		"backoff":         func(o *producer.Options) { o.BackoffMin, o.BackoffMax = 2, 1 },
	} {
		o := good()
		change(&o)
		if _, err := producer.New(newMemory(), o); err == nil || !strings.HasPrefix(err.Error(), "producer: ") {
			t.Errorf("%s: %v", what, err)
		}
	}
	o := good()
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		t.Error(err)
	}
	if text := o.String(); strings.Contains(text, "t0k3n") || strings.Contains(text, "s3cret") || !strings.Contains(text, "server=https://remit.example/base ") {
		t.Error(text)
	}
	if _, err := producer.New[*memoryTx](nil, good()); err == nil {
		t.Error("there is no database")
	}
}
