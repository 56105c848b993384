package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/remitlog/remit/log"
)

func newTestServer(t testing.TB, o Options) *Server {
	t.Helper()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// thing is a noun for tests: it uses every convention.
type thing struct {
	ID      string         `json:"id,omitzero"`
	Key     string         `json:"key"`
	Amount  string         `json:"amount"`
	Timeout Duration       `json:"timeout,omitzero"`
	At      Time           `json:"at,omitzero"`
	Parts   []part         `json:"parts,omitempty"`
	Payload jsontext.Value `json:"payload,omitzero"`
}

type part struct {
	Name  string `json:"name"`
	Count int    `json:"count"`
}

func thingRoutes() []Route {
	return []Route{
		{Method: "POST", Pattern: "/v1/things", Name: "createThing", Handler: createThing},
		{Method: "GET", Pattern: "/v1/things", Name: "listThings", Handler: listThings},
		{Method: "GET", Pattern: "/v1/things/{id}", Name: "getThing", Handler: getThing},
		{Method: "POST", Pattern: "/v1/things/{id}/void", Name: "voidThing", Handler: func(w http.ResponseWriter, r *http.Request) error {
			var body struct {
				Reason string `json:"reason"`
			}
			if err := DecodeOptional(w, r, &body); err != nil {
				return err
			}
			return WriteJSON(w, http.StatusOK, body)
		}},
		{Method: "POST", Pattern: "/v1/fail/{how}", Name: "fail", Handler: failThing},
	}
}

func createThing(w http.ResponseWriter, r *http.Request) error {
	var body thing
	if err := Decode(w, r, &body); err != nil {
		return err
	}
	ref, err := RequestRef(r, body.ID)
	if err != nil {
		return err
	}
	if err := ref.CheckNew("id", "key", body.Key); err != nil {
		return err
	}
	body.ID = ref.String()
	SetPosition(w, log.Position{3: 7})
	return WriteJSON(w, http.StatusCreated, body)
}

func listThings(w http.ResponseWriter, r *http.Request) error {
	q := ParseQuery(r)
	q.OneOf("state", "open", "ended")
	from, to := q.Range()
	page := q.Page()
	after, wait := q.After()
	if err := q.Done(); err != nil {
		return err
	}
	if after != nil {
		return NotCaughtUp("things", wait)
	}
	return WriteJSON(w, http.StatusOK, List[string]{
		Items:         []string{fmt.Sprint(page.Size), string(page.Cursor), Time(from).String(), Time(to).String()},
		NextPageToken: q.NextPageToken([]byte("next")),
	})
}

func getThing(_ http.ResponseWriter, r *http.Request) error {
	ref, err := ParseRef("id", r.PathValue("id"))
	if err != nil {
		return err
	}
	return NotFound("thing", ref.String(), "things open and ended")
}

func failThing(w http.ResponseWriter, r *http.Request) error {
	switch r.PathValue("how") {
	case "panic":
		panic("the secret of the panic")
	case "unknown":
		return errors.New("a secret")
	case "disk":
		return fmt.Errorf("turn: %w", log.ErrDiskFull)
	case "outcome":
		return log.ErrUnknown
	case "closed":
		return log.ErrClosed
	case "topic":
		return &log.TopicError{Partition: log.Partition{Topic: "orders"}, Err: log.ErrUnknownTopic}
	case "busy":
		p := NewProblem(CodeTooMany, "10000 payments are open; repeat")
		p.RetryAfter = 1500 * time.Millisecond
		return p
	case "refused":
		return NewProblem(CodeRefused, "pay again under a new id").With("payment", thing{ID: "p-1", Key: "a", Amount: "1"})
	case "unencodable":
		return NewProblem(CodeRefused, "pay again under a new id").With("payment", func() {})
	case "half":
		_, _ = io.WriteString(w, `{"half":`)
		return errors.New("broke in the middle")
	}
	return nil
}

func idFor(key string) string { return log.NewID(time.Now(), key).String() }

func otherSlot(key string) string {
	for i := 0; ; i++ {
		if other := fmt.Sprint(key, i); log.SlotOf(other) != log.SlotOf(key) {
			return idFor(other)
		}
	}
}

type conventionCase struct {
	name      string
	method    string // default POST
	path      string // default /v1/things
	body      string
	header    string // "Name: value" lines; Content-Type is application/json unless it is given ("Content-Type:" sends none)
	status    int
	want      []string // parts of the answer
	sent      string   // "Name: value" lines of the answer's header
	replaying bool     // the server is not ready
}

var conventionCases = []conventionCase{
	// Bodies (H1).
	{name: "good", body: `{"id":"o-1","key":"alice","amount":"12.50","timeout":"90s","at":"2026-01-31T13:00:00+01:00","payload":{"a":1}}`, status: 201,
		want: []string{`"id":"o-1"`, `"timeout":"90s"`, `"at":"2026-01-31T12:00:00.000Z"`, `"payload":{"a":1}`}, sent: "Content-Type: application/json\nRemit-Position: Awc"},
	{name: "charset", header: "Content-Type: application/json; charset=utf-8", body: `{"id":"o-1","key":"a","amount":"1"}`, status: 201},
	{name: "unknown field, near", body: `{"id":"o-1","amout":"1"}`, status: 400, want: []string{`"code":"unknown_field"`, `"field":"amout"`, "did you mean amount?"}},
	{name: "unknown field, far", body: `{"zzzzzzzzzzz":"1"}`, status: 400, want: []string{`"code":"unknown_field"`, "it knows id, key, amount"}},
	{name: "case matters", body: `{"ID":"o-1"}`, status: 400, want: []string{`"code":"unknown_field"`, `"field":"ID"`, "did you mean id?"}},
	{name: "unknown field, deep", body: `{"parts":[{"name":"x"},{"nam":"x"}]}`, status: 400, want: []string{`"field":"parts[1].nam"`}},
	{name: "wrong type", body: `{"amount":12.5}`, status: 400, want: []string{`"code":"invalid_field"`, `"field":"amount"`, "give a string, not a number"}},
	{name: "wrong type, deep", body: `{"parts":[{"count":"1"}]}`, status: 400, want: []string{`"field":"parts[0].count"`, "give a number, not a string"}},
	{name: "number too large", body: `{"parts":[{"count":99999999999999999999}]}`, status: 400, want: []string{`"code":"invalid_field"`, `"field":"parts[0].count"`}},
	{name: "object for array", body: `{"parts":{}}`, status: 400, want: []string{"give an array, not an object"}},
	{name: "bad duration", body: `{"timeout":"1.5s"}`, status: 400, want: []string{`"code":"invalid_field"`, `"field":"timeout"`, "such as 30s"}},
	{name: "duration without unit", body: `{"timeout":"15"}`, status: 400, want: []string{`"field":"timeout"`}},
	{name: "duration as number", body: `{"timeout":15}`, status: 400, want: []string{`"field":"timeout"`, "give a string, not a number"}},
	{name: "duration beyond", body: `{"timeout":"9999999999h"}`, status: 400, want: []string{"longer than remit can count"}},
	{name: "bad time", body: `{"at":"yesterday"}`, status: 400, want: []string{`"field":"at"`, "RFC 3339"}},
	{name: "twice", body: `{"key":"a","key":"b"}`, status: 400, want: []string{`"code":"invalid_body"`, `"field":"key"`, "given twice"}},
	{name: "trailing", body: `{"id":"o-1"} {}`, status: 400, want: []string{`"code":"invalid_body"`, "byte"}},
	{name: "broken off", body: `{"id":"o-`, status: 400, want: []string{`"code":"invalid_body"`, "breaks off"}},
	{name: "not JSON", body: `{id:1}`, status: 400, want: []string{`"code":"invalid_body"`, "byte 1"}},
	{name: "bad UTF-8", body: "{\"id\":\"\xff\"}", status: 400, want: []string{`"code":"invalid_body"`}},
	{name: "array", body: `[]`, status: 400, want: []string{`"code":"invalid_body"`, "send a JSON object"}},
	{name: "null", body: `null`, status: 400, want: []string{`"code":"invalid_body"`}},
	{name: "empty", body: ``, status: 400, want: []string{`"code":"invalid_body"`, "there is no body"}},
	{name: "too large", body: `{"id":"` + strings.Repeat("x", BodyMax) + `"}`, status: 413, want: []string{`"code":"too_large"`}},
	{name: "form", header: "Content-Type: application/x-www-form-urlencoded", body: `{}`, status: 415, want: []string{`"code":"unsupported_media_type"`, "send Content-Type: application/json", "urlencoded"}},
	{name: "no type", header: "Content-Type:", body: `{}`, status: 415, want: []string{"sent with nothing"}},
	{name: "optional body absent", path: "/v1/things/o-1/void", header: "Content-Type:", status: 200, want: []string{`{"reason":""}`}},
	{name: "optional body given", path: "/v1/things/o-1/void", body: `{"reason":"x"}`, status: 200, want: []string{`{"reason":"x"}`}},
	{name: "optional body wrong", path: "/v1/things/o-1/void", body: `{"reson":"x"}`, status: 400, want: []string{"did you mean reason?"}},

	// Ids.
	{name: "no id", body: `{"key":"a"}`, status: 400, want: []string{`"code":"id_required"`}},
	{name: "key for id", header: "Idempotency-Key: o-2", body: `{"key":"a"}`, status: 201, want: []string{`"id":"o-2"`}},
	{name: "quoted key", header: `Idempotency-Key: "o-2"`, body: `{"key":"a"}`, status: 201, want: []string{`"id":"o-2"`}},
	{name: "both agree", header: "Idempotency-Key: o-2", body: `{"id":"o-2","key":"a"}`, status: 201},
	{name: "both differ", header: "Idempotency-Key: o-2", body: `{"id":"o-3","key":"a"}`, status: 400, want: []string{`"code":"id_mismatch"`, "o-2", "o-3"}},
	{name: "both agree but for case", header: "Idempotency-Key: 019B0C4E-0000-8000-8000-0000000003DC", body: `{"id":"019b0c4e-0000-8000-8000-0000000003dc","key":"a"}`, status: 400, want: []string{`"code":"wrong_slot"`, `"slot":988`}},
	{name: "bad name", body: `{"id":"a b","key":"a"}`, status: 400, want: []string{`"code":"invalid_id"`, `"field":"id"`}},
	{name: "long name", body: `{"id":"` + strings.Repeat("x", 129) + `","key":"a"}`, status: 400, want: []string{`"code":"invalid_id"`}},
	{name: "UUIDv4 is a name", body: `{"id":"7d444840-9dc0-41d1-b245-5ffdce74fad2","key":"a"}`, status: 201, want: []string{"7d444840-9dc0-41d1-b245-5ffdce74fad2"}},
	{name: "right slot", body: `{"id":"` + idFor("alice") + `","key":"alice"}`, status: 201},
	{name: "wrong slot", body: `{"id":"` + otherSlot("alice") + `","key":"alice"}`, status: 400, want: []string{`"code":"wrong_slot"`, `"field":"id"`, fmt.Sprintf(`"wantSlot":%d`, log.SlotOf("alice"))}},
	{name: "bad id in path", method: "GET", path: "/v1/things/a%20b", status: 400, want: []string{`"code":"invalid_id"`}},

	// What is not there.
	{name: "not found", method: "GET", path: "/v1/things/o-9", status: 404, want: []string{`"code":"not_found"`, `no thing \"o-9\"; searched things open and ended`, `"retryable":false`}},
	{name: "no path", method: "GET", path: "/v1/thing", status: 404, want: []string{`"code":"not_found"`, "/v1/thing", "/openapi.yaml"}},
	{name: "no method", method: "DELETE", path: "/v1/things", status: 405, want: []string{`"code":"method_not_allowed"`, "GET, HEAD, POST"}, sent: "Allow: GET, HEAD, POST"},
	{name: "no schema", method: "GET", path: "/schemas/remit.thing.mad.v1.json", status: 404, want: []string{`"code":"not_found"`, "did you mean /schemas/remit.thing.made.v1.json?"}},

	// Queries.
	{name: "list", method: "GET", path: "/v1/things?from=2026-01-01T00:00:00Z&to=2026-01-02T01:00:00%2B01:00&pageSize=2&state=open", status: 200, want: []string{`"items":["2","","2026-01-01T00:00:00.000Z","2026-01-02T00:00:00.000Z"]`, `"nextPageToken":"`}},
	{name: "list by default", method: "GET", path: "/v1/things", status: 200, want: []string{`"items":["50"`}},
	{name: "unknown parameter", method: "GET", path: "/v1/things?stat=open", status: 400, want: []string{`"code":"invalid_parameter"`, `"parameter":"stat"`, "did you mean state?"}},
	{name: "parameter with a verb", method: "GET", path: "/v1/things?%25d%25s%25v%25d%25s=open", status: 400, want: []string{`"parameter":"%d%s%v%d%s"`, "it knows after, from"}},
	{name: "parameter twice", method: "GET", path: "/v1/things?state=open&state=open", status: 400, want: []string{`"parameter":"state"`, "not 2 times"}},
	{name: "parameter empty", method: "GET", path: "/v1/things?state=", status: 400, want: []string{`"parameter":"state"`}},
	{name: "not one of", method: "GET", path: "/v1/things?state=shut", status: 400, want: []string{"not one of open, ended"}},
	{name: "page size 0", method: "GET", path: "/v1/things?pageSize=0", status: 400, want: []string{"from 1 to 1000"}},
	{name: "page size 1001", method: "GET", path: "/v1/things?pageSize=1001", status: 400, want: []string{"from 1 to 1000"}},
	{name: "bad token", method: "GET", path: "/v1/things?pageToken=abcdefgh", status: 400, want: []string{`"parameter":"pageToken"`}},
	{name: "empty range", method: "GET", path: "/v1/things?from=2026-01-02T00:00:00Z&to=2026-01-02T00:00:00Z", status: 400, want: []string{`"parameter":"to"`}},
	{name: "bad from", method: "GET", path: "/v1/things?from=2026-01-02", status: 400, want: []string{`"parameter":"from"`, "RFC 3339"}},
	{name: "bad after", method: "GET", path: "/v1/things?after=!", status: 400, want: []string{`"parameter":"after"`, "Remit-Position"}},
	{name: "long wait", method: "GET", path: "/v1/things?wait=2m", status: 400, want: []string{`"parameter":"wait"`, "the longest, 1m"}},
	{name: "not caught up", method: "GET", path: "/v1/things?after=Awc", status: 503, want: []string{`"code":"not_caught_up"`, "within 2s", `"retryable":true`}, sent: "Retry-After: 1"},
	{name: "not caught up, own wait", method: "GET", path: "/v1/things?after=Awc&wait=100ms", status: 503, want: []string{"within 100ms"}},

	// Faults (H2).
	{name: "panic", path: "/v1/fail/panic", status: 500, want: []string{`"code":"internal"`, `"requestId":"call-7"`}, header: "X-Request-Id: call-7", sent: "X-Request-Id: call-7"},
	{name: "unknown error", path: "/v1/fail/unknown", status: 500, want: []string{`"code":"internal"`, `"retryable":true`}},
	{name: "bad request id", path: "/v1/fail/unknown", header: "X-Request-Id: a b", status: 500},
	{name: "disk full", path: "/v1/fail/disk", status: 503, want: []string{`"code":"disk_full"`}, sent: "Retry-After: 1"},
	{name: "outcome unknown", path: "/v1/fail/outcome", status: 503, want: []string{`"code":"outcome_unknown"`}},
	{name: "closed", path: "/v1/fail/closed", status: 503, want: []string{`"code":"not_ready"`}},
	{name: "unknown topic", path: "/v1/fail/topic", status: 404, want: []string{`"code":"unknown_topic"`, `\"orders\"`}},
	{name: "too many", path: "/v1/fail/busy", status: 429, want: []string{`"code":"too_many"`}, sent: "Retry-After: 2"},
	{name: "refused", path: "/v1/fail/refused", status: 402, want: []string{`"code":"refused"`, `"payment":{"id":"p-1"`, `"type":"https://github.com/remitlog/remit/blob/main/docs/errors.md#refused"`, `"title":"Refused"`, `"status":402`}, sent: "Content-Type: application/problem+json"},
	{name: "unencodable", path: "/v1/fail/unencodable", status: 402, want: []string{`"code":"refused"`}},
	{name: "another origin", header: "Sec-Fetch-Site: cross-site", body: `{"id":"o-1","key":"a"}`, status: 403, want: []string{`"code":"forbidden"`}},

	// The server's own.
	{name: "livez", method: "GET", path: "/livez", status: 200, want: []string{`{"status":"live"}`}},
	{name: "no path yet", method: "GET", path: "/v1/thing", replaying: true, status: 503, want: []string{`"code":"not_ready"`, "replaying 40%"}},
	{name: "readyz", replaying: true, method: "GET", path: "/readyz", status: 503, want: []string{`"code":"not_ready"`, "replaying 40%"}, sent: "Retry-After: 1"},
	{name: "version", method: "GET", path: "/version", status: 200, want: []string{`"go":"go1.`, `"platform":`}},
	{name: "metrics", method: "GET", path: "/metrics", status: 200, want: []string{"remit_http_request_duration_seconds_bucket", `route="createThing"`}},
	{name: "openapi", method: "GET", path: "/openapi.yaml", status: 200, want: []string{"openapi: 3.1.0"}, sent: "Content-Type: application/yaml"},
	{name: "schema", method: "GET", path: "/schemas/remit.thing.made.v1.json", status: 200, want: []string{`"title": "remit.thing.made.v1"`, `"pattern": "^\\d+(ms|s|m|h)$"`, `"format": "date-time"`}, sent: "Content-Type: application/schema+json"},
}

// TestConventions proves H1 and H2 over HTTP.
func TestConventions(t *testing.T) {
	var replaying atomic.Bool
	s := newTestServer(t, Options{
		Routes:  thingRoutes(),
		Schemas: []Schema{{Type: "remit.thing.made.v1", Value: thing{}}},
		Ready: func() error {
			if replaying.Load() {
				return errors.New("replaying 40%")
			}
			return nil
		},
	})
	server := httptest.NewServer(s)
	defer server.Close()
	for _, c := range conventionCases {
		t.Run(c.name, func(t *testing.T) {
			replaying.Store(c.replaying)
			req := c.request(t, server.URL)
			resp, err := server.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err != nil {
				t.Fatal(err)
			}
			c.check(t, resp, string(b))
		})
	}
}

func (c conventionCase) request(t *testing.T, base string) *http.Request {
	t.Helper()
	method, path := c.method, c.path
	if method == "" {
		method = "POST"
	}
	if path == "" {
		path = "/v1/things"
	}
	req, err := http.NewRequest(method, base+path, strings.NewReader(c.body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for line := range strings.Lines(c.header) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if value = strings.TrimSpace(value); value == "" {
			req.Header.Del(name)
			continue
		}
		req.Header.Set(name, value)
	}
	return req
}

func (c conventionCase) check(t *testing.T, resp *http.Response, body string) {
	t.Helper()
	if resp.StatusCode != c.status {
		t.Errorf("status %d, want %d: %.300s", resp.StatusCode, c.status, body)
	}
	for _, want := range c.want {
		if !strings.Contains(body, want) {
			t.Errorf("%.500s\nhas no %s", body, want)
		}
	}
	for line := range strings.Lines(c.sent) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if got := resp.Header.Get(name); got != value {
			t.Errorf("%s: %q, want %q", name, got, value)
		}
	}
	if resp.Header.Get(RequestIDHeader) == "" {
		t.Error("no request id")
	}
	if resp.StatusCode < 400 {
		return
	}
	if got := resp.Header.Get("Content-Type"); got != ProblemType {
		t.Errorf("Content-Type %q, want %q", got, ProblemType)
	}
	var p struct {
		Status int    `json:"status"`
		Code   Code   `json:"code"`
		Detail string `json:"detail"`
	}
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	if p.Status != resp.StatusCode || p.Code.Info().Status != resp.StatusCode || p.Detail == "" {
		t.Errorf("not a whole problem: %s", body)
	}
	if strings.Contains(body, "secret") {
		t.Errorf("the answer tells what is inside: %s", body)
	}
}

// TestFaultIsLoggedOnce: what the caller is not told stands in the log, with the id of the call.
func TestFaultIsLoggedOnce(t *testing.T) {
	var buf bytes.Buffer
	s := newTestServer(t, Options{Routes: thingRoutes(), Logger: slog.New(slog.NewJSONHandler(&buf, nil))})
	for how, want := range map[string]string{"panic": "the secret of the panic", "unknown": "a secret"} {
		buf.Reset()
		req := httptest.NewRequest("POST", "/v1/fail/"+how, nil)
		req.Header.Set(RequestIDHeader, "call-8")
		s.ServeHTTP(httptest.NewRecorder(), req)
		if n := strings.Count(buf.String(), "\n"); n != 1 || !strings.Contains(buf.String(), want) || !strings.Contains(buf.String(), "call-8") {
			t.Errorf("%s: %d lines: %s", how, n, buf.String())
		}
	}
}

// TestHalfAnswerIsNotWhole: a handler that fails in the middle leaves the client with an error, not with half an answer that looks whole.
func TestHalfAnswerIsNotWhole(t *testing.T) {
	server := httptest.NewServer(newTestServer(t, Options{Routes: thingRoutes()}))
	defer server.Close()
	resp, err := http.Post(server.URL+"/v1/fail/half", "", nil)
	if err != nil {
		return // nothing came: that is an error as well
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("read %q as if it were whole", b)
	}
}

// TestUnreadBodies: a body that nobody reads, and that does not end, keeps no answer back: net/http would wait for the rest of it for ever.
func TestUnreadBodies(t *testing.T) {
	server, _ := serveRoutes(t, append(thingRoutes(), streamRoutes(echo)...))
	for _, c := range []struct{ call, want string }{
		{"POST /v1/nothing", "404"},
		{"GET /livez", "200"},
		{"POST /v1/fail/unknown", "500"},
		{"POST /v1/things:batch", "415"},
	} {
		t.Run(c.call, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
			_, _ = io.WriteString(conn, c.call+" HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
			answer := make([]byte, len("HTTP/1.1 404"))
			if _, err := io.ReadFull(conn, answer); err != nil || !strings.HasSuffix(string(answer), c.want) {
				t.Errorf("%q, %v", answer, err)
			}
		})
	}
}

// TestLoopbackOnly: a call is taken by a name or address of the loopback alone, in whatever letters.
func TestLoopbackOnly(t *testing.T) {
	s := newTestServer(t, Options{LoopbackOnly: true})
	for host, want := range map[string]int{
		"localhost": 200, "LocalHost:8080": 200, "127.0.0.1": 200, "127.0.0.2:1": 200, "[::1]:8080": 200, "[::1]": 200,
		"": 403, "remit.example": 403, "localhost.example": 403, "0.0.0.0": 403, "127.0.0.1.example:8080": 403,
	} {
		r := httptest.NewRequest("GET", "/livez", nil)
		r.Host = host
		w := httptest.NewRecorder()
		if s.ServeHTTP(w, r); w.Code != want {
			t.Errorf("%q: %d, want %d", host, w.Code, want)
		}
	}
}

// TestTimesSortAsText: milliseconds are written also where they are noughts.
func TestTimesSortAsText(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600))
	for add, want := range map[time.Duration]string{
		0: "2026-01-02T02:04:05.000Z", 340 * time.Millisecond: "2026-01-02T02:04:05.340Z", 342 * time.Millisecond: "2026-01-02T02:04:05.342Z",
		342*time.Millisecond + 1: "2026-01-02T02:04:05.342000001Z",
	} {
		x := Time(at.Add(add))
		quoted := `"` + want + `"`
		b, err := json.Marshal(x)
		if fast := appendInstant(nil, x); err != nil || x.String() != want || string(b) != quoted || string(fast) != quoted {
			t.Errorf("%s, %s and %s (%v), want %s", x, b, fast, err, want)
		}
	}
}

// TestPageTokens: a token goes with its list and its parameters, and with nothing else.
func TestPageTokens(t *testing.T) {
	query := func(path string) *Query { return ParseQuery(httptest.NewRequest("GET", path, nil)) }
	token := query("/v1/things?state=open").NextPageToken([]byte{1, 2, 3})
	read := func(path string) ([]byte, error) {
		q := query(path + "&pageToken=" + token)
		q.String("state")
		page := q.Page()
		return page.Cursor, q.Done()
	}
	if cursor, err := read("/v1/things?pageSize=3&state=open"); err != nil || !bytes.Equal(cursor, []byte{1, 2, 3}) {
		t.Errorf("%v %v", cursor, err)
	}
	for _, other := range []string{"/v1/things?state=ended", "/v1/others?state=open", "/v1/things?pageSize=3"} {
		if _, err := read(other); err == nil {
			t.Errorf("%s took another list's token", other)
		}
	}
}

// TestDrainIsNotReady: a server that stops says so.
func TestDrainIsNotReady(t *testing.T) {
	s := newTestServer(t, Options{})
	get := func() int {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest("GET", "/readyz", nil))
		return w.Code
	}
	if got := get(); got != http.StatusOK {
		t.Errorf("before: %d", got)
	}
	s.Drain()
	if got := get(); got != http.StatusServiceUnavailable {
		t.Errorf("after: %d", got)
	}
}

func TestNewRefusesDoubles(t *testing.T) {
	routes := thingRoutes()
	for _, o := range []Options{
		{Routes: append(routes, routes[0])},
		{Routes: []Route{{Method: "GET", Pattern: "/x", Name: "getLive", Handler: getThing}}},
		{Routes: []Route{{Method: "GET", Pattern: "/x", Name: "x"}}},
		{Schemas: []Schema{{"a", thing{}}, {"a", thing{}}}},
		{Schemas: []Schema{{"a", func() {}}}},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}

// TestSchemaValidates: a schema takes what its type encodes to, and more fields, and refuses another type.
func TestSchemaValidates(t *testing.T) {
	schema, err := Schema{Type: "remit.thing.made.v1", Value: thing{}}.Infer()
	if err != nil {
		t.Fatal(err)
	}
	resolved, err := schema.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	for body, good := range map[string]bool{
		`{"key":"a","amount":"1"}`:                     true,
		`{"key":"a","amount":"1","timeout":"3s"}`:      true,
		`{"key":"a","amount":"1","added":{"later":1}}`: true,
		`{"key":"a","amount":1}`:                       false,
		`{"key":"a","amount":"1","timeout":"3 s"}`:     false,
		`{"key":"a"}`: false,
	} {
		var v any
		if err := json.Unmarshal([]byte(body), &v); err != nil {
			t.Fatal(err)
		}
		if err := resolved.Validate(v); (err == nil) != good {
			t.Errorf("%s: %v", body, err)
		}
	}
}

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{"0s": 0, "500ms": 500 * time.Millisecond, "90s": 90 * time.Second, "2m": 2 * time.Minute, "720h": 720 * time.Hour} {
		got, err := ParseDuration(text)
		if err != nil || got != want || Duration(got).String() != text {
			t.Errorf("%s: %v %v %s", text, got, err, Duration(got))
		}
	}
	for _, text := range []string{"", "s", "-1s", "+1s", "1", "1 s", "1.5s", "1h30m", "1d", "9223372036854775807h", "1_0s"} {
		if d, err := ParseDuration(text); err == nil {
			t.Errorf("%q was read as %v", text, d)
		}
	}
}

func TestAsProblemOfContext(t *testing.T) {
	if p, ok := AsProblem(context.DeadlineExceeded); !ok || p.Code != CodeNotReady {
		t.Errorf("%v %v", p, ok)
	}
}
