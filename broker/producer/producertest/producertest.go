// Package producertest has remit's side of transactional messages in memory, for tests of services that send them: half messages, decisions,
// delivery, back-checks, and answers that are lost. It works under testing/synctest. What is sent is kept, and bounded by nothing.
package producertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/remitlog/remit/log"
)

// URL is where a Remit is for its Client.
const URL = "http://remit.test"

// Loss says what is lost of a call.
type Loss int

// The losses.
const (
	Nothing Loss = iota
	Request      // remit never hears of it
	Answer       // remit does it, and the caller does not hear of it
)

// ErrLost is what a call fails with that was lost.
var ErrLost = errors.New("producertest: the call was lost")

// Message is a message as it stands.
type Message struct {
	ID       log.ID
	Topic    string
	Producer string
	Event    event.Event // as it is delivered
	State    string      // prepared, delivered or rolledback
	// Checks is how often it was asked about, Conflicts how often somebody wanted to decide otherwise than was decided.
	Checks, Conflicts int
}

// Remit keeps messages. All methods are safe for concurrent use. As a handler it is remit's HTTP API, as far as producers use it.
type Remit struct {
	// Lose says what is lost of the calls of its Client; nil loses nothing. It is called by many goroutines at once.
	Lose func(*http.Request) Loss

	mux       *http.ServeMux
	mu        sync.Mutex
	messages  map[log.ID]*Message
	order     []log.ID // as they were prepared
	delivered map[string][]event.Event
	producers map[string]string // the secret of each
	instances map[string]string // URLs
}

// New returns one without messages.
func New() *Remit {
	r := &Remit{mux: http.NewServeMux(), messages: map[log.ID]*Message{}, delivered: map[string][]event.Event{}, producers: map[string]string{}, instances: map[string]string{}}
	r.mux.HandleFunc("POST /v1/topics/{topic}/messages", r.prepare)
	r.mux.HandleFunc("POST /v1/messages/{id}/{verdict}", r.decide)
	r.mux.HandleFunc("GET /v1/messages", r.list)
	r.mux.HandleFunc("PUT /v1/producers/{producer}", r.register)
	r.mux.HandleFunc("GET /v1/producers/{producer}", r.producer)
	r.mux.HandleFunc("PUT /v1/producers/{producer}/instances/{instance}", r.lease)
	r.mux.HandleFunc("DELETE /v1/producers/{producer}/instances/{instance}", r.leave)
	return r
}

// ServeHTTP answers a call.
func (r *Remit) ServeHTTP(w http.ResponseWriter, req *http.Request) { r.mux.ServeHTTP(w, req) }

// Client calls it at URL, without a network.
func (r *Remit) Client() *http.Client { return &http.Client{Transport: transport{r}} }

type transport struct{ *Remit }

func (t transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	loss := Nothing
	if t.Lose != nil {
		loss = t.Lose(req)
	}
	if loss == Request {
		return nil, ErrLost
	}
	w := httptest.NewRecorder()
	t.ServeHTTP(w, req)
	if loss == Answer {
		return nil, ErrLost
	}
	return w.Result(), nil
}

// Messages returns all, in the order in which they were prepared.
func (r *Remit) Messages() []Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]Message, len(r.order))
	for i, id := range r.order {
		all[i] = *r.messages[id]
	}
	return all
}

// Delivered returns the events of a topic, in the order in which they were decided.
func (r *Remit) Delivered(topic string) []event.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.delivered[topic])
}

// Instances returns the URLs of the instances that hold a lease, by name. Leases do not end here by themselves.
func (r *Remit) Instances() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.instances)
}

// Check asks a handler once about each message that is not decided, and does what it says. The error is of those questions that had no answer.
func (r *Remit) Check(ctx context.Context, handler http.Handler) error {
	var errs []error
	for _, m := range r.Messages() {
		if m.State == "prepared" {
			if _, err := r.CheckOne(ctx, handler, m.ID); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// CheckOne asks about one message, decided or not, and does what the answer says. It returns the verdict.
func (r *Remit) CheckOne(ctx context.Context, handler http.Handler, id log.ID) (verdict string, err error) {
	req, err := r.question(ctx, id)
	if err != nil {
		return "", err
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, req)
	var answer struct {
		Verdict string `json:"verdict"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != http.StatusOK {
		return "", fmt.Errorf("producertest: message %s: %d %s", id, w.Code, bytes.TrimSpace(w.Body.Bytes()))
	}
	if answer.Verdict == "commit" || answer.Verdict == "rollback" {
		r.Decide(id, answer.Verdict)
	}
	return answer.Verdict, nil
}

// question is a back-check.
func (r *Remit) question(ctx context.Context, id log.ID) (*http.Request, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.messages[id]
	if m == nil {
		return nil, fmt.Errorf("producertest: no message %s", id)
	}
	m.Checks++
	inside, err := json.Marshal(m.Event)
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(struct {
		MessageID log.ID         `json:"messageId"`
		Name      string         `json:"name"`
		Topic     string         `json:"topic"`
		Producer  string         `json:"producer"`
		Attempt   int            `json:"attempt"`
		Event     jsontext.Value `json:"event"`
	}{id, m.Event.Source() + " " + m.Event.ID(), m.Topic, m.Producer, m.Checks, inside})
	if err != nil {
		return nil, err
	}
	e := log.Event{ID: fmt.Sprintf("%s/check/%d", id, m.Checks), Source: "/remit", Type: "remit.message.check.v1", DataContentType: log.JSONContentType, Data: data}
	body, err := e.MarshalStructured()
	if err != nil {
		return nil, err
	}
	req := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", bytes.NewReader(body))
	req.Header.Set("Content-Type", log.StructuredContentType)
	if secret := r.producers[m.Producer]; secret != "" {
		return req, sign(req, secret, e.ID, body)
	}
	return req, nil
}

func sign(req *http.Request, secret, id string, body []byte) error {
	key, err := standardwebhooks.NewWebhookRaw([]byte(secret))
	if strings.HasPrefix(secret, "whsec_") {
		key, err = standardwebhooks.NewWebhook(secret)
	}
	if err != nil {
		return err
	}
	now := time.Now()
	signature, err := key.Sign(id, now, body)
	if err != nil {
		return err
	}
	req.Header.Set(standardwebhooks.HeaderWebhookID, id)
	req.Header.Set(standardwebhooks.HeaderWebhookTimestamp, fmt.Sprint(now.Unix()))
	req.Header.Set(standardwebhooks.HeaderWebhookSignature, signature)
	return nil
}

// Decide commits a message, or rolls it back, unless it is decided. It returns the state that stands, and whether that is what was wanted.
func (r *Remit) Decide(id log.ID, verdict string) (state string, agrees bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.messages[id]
	if m == nil {
		return "", false
	}
	want := map[string]string{"commit": "delivered", "rollback": "rolledback"}[verdict]
	if m.State == "prepared" && want != "" {
		m.State = want
		if want == "delivered" {
			r.delivered[m.Topic] = append(r.delivered[m.Topic], m.Event)
		}
	}
	if m.State != want {
		m.Conflicts++
	}
	return m.State, m.State == want
}

func (r *Remit) prepare(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // the caller has gone
	}
	events, err := log.ParseHTTP(req.Header, body)
	if err != nil || len(events) != 1 {
		problem(w, http.StatusBadRequest, "invalid_body", fmt.Sprint(err), "")
		return
	}
	e := events[0]
	text, _ := e.Extensions["remitid"].(string)
	id, ok := log.ParseID(text)
	if !ok {
		problem(w, http.StatusBadRequest, "invalid_id", "there is no remitid", "")
		return
	}
	for _, option := range []string{"remitid", "deliverat", "deliverafter", "checkafter"} {
		delete(e.Extensions, option)
	}
	if e.Key == "" {
		e.Key = e.ID
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	producer := req.URL.Query().Get("producer")
	if _, ok := r.producers[producer]; !ok {
		problem(w, http.StatusNotFound, "unknown_producer", "register it first", "")
		return
	}
	if id.Slot() != log.SlotOf(e.Key) {
		problem(w, http.StatusBadRequest, "wrong_slot", "the id is in another key's slot", "")
		return
	}
	status := http.StatusAccepted
	if r.messages[id] == nil {
		r.messages[id] = &Message{ID: id, Topic: req.PathValue("topic"), Producer: producer, Event: e.SDK(), State: "prepared"}
		r.order = append(r.order, id)
		status = http.StatusCreated
	}
	answer(w, status, id, r.messages[id].State)
}

func (r *Remit) decide(w http.ResponseWriter, req *http.Request) {
	id, _ := log.ParseID(req.PathValue("id"))
	state, agrees := r.Decide(id, req.PathValue("verdict"))
	switch {
	case state == "":
		problem(w, http.StatusNotFound, "not_found", "no such message", "")
	case !agrees:
		problem(w, http.StatusConflict, "already_decided", "it is "+state, state)
	default:
		answer(w, http.StatusOK, id, state)
	}
}

type answered struct {
	ID    log.ID `json:"id"`
	State string `json:"state"`
}

func (r *Remit) list(w http.ResponseWriter, req *http.Request) {
	q := req.URL.Query()
	to, err := time.Parse(time.RFC3339, q.Get("to"))
	if err != nil {
		problem(w, http.StatusBadRequest, "invalid_parameter", err.Error(), "")
		return
	}
	items := []answered{}
	for _, m := range r.Messages() {
		if m.Producer == q.Get("producer") && m.State == q.Get("state") && m.ID.Time().Before(to) {
			items = append(items, answered{m.ID, m.State})
		}
	}
	write(w, http.StatusOK, map[string]any{"items": items})
}

func (r *Remit) register(w http.ResponseWriter, req *http.Request) {
	var body struct {
		Check struct {
			Secret *string `json:"secret"`
		} `json:"check"`
	}
	if err := json.UnmarshalRead(req.Body, &body); err != nil {
		problem(w, http.StatusBadRequest, "invalid_body", err.Error(), "")
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	name := req.PathValue("producer")
	secret := r.producers[name]
	if body.Check.Secret != nil {
		secret = *body.Check.Secret
	}
	r.producers[name] = secret
	write(w, http.StatusOK, map[string]any{"producer": name})
}

func (r *Remit) producer(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	name := req.PathValue("producer")
	if _, ok := r.producers[name]; !ok {
		problem(w, http.StatusNotFound, "unknown_producer", "register it first", "")
		return
	}
	w.Header().Set("Remit-Position", "AAE")
	write(w, http.StatusOK, map[string]any{"producer": name})
}

func (r *Remit) lease(w http.ResponseWriter, req *http.Request) {
	var body struct {
		URL string `json:"url"`
	}
	if err := json.UnmarshalRead(req.Body, &body); err != nil {
		problem(w, http.StatusBadRequest, "invalid_body", err.Error(), "")
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.instances[req.PathValue("instance")] = body.URL
	write(w, http.StatusOK, map[string]any{})
}

func (r *Remit) leave(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.instances, req.PathValue("instance"))
	w.WriteHeader(http.StatusNoContent)
}

func answer(w http.ResponseWriter, status int, id log.ID, state string) {
	write(w, status, answered{id, state})
}

func problem(w http.ResponseWriter, status int, code, detail, recorded string) {
	w.Header().Set("Content-Type", "application/problem+json")
	write(w, status, struct {
		Status    int    `json:"status"`
		Code      string `json:"code"`
		Detail    string `json:"detail"`
		Recorded  string `json:"recorded,omitzero"`
		Retryable bool   `json:"retryable"`
	}{status, code, detail, recorded, false})
}

func write(w http.ResponseWriter, status int, v any) {
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(status)
	_ = json.MarshalWrite(w, v) // who has gone does not read it
}
