package api

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/log/registry"
)

// How a delivery that failed is tried again, if the subscription does not say.
const (
	RetryIntervalDefault    = time.Second
	RetryMaxIntervalDefault = 10 * time.Minute
	RetryDeadlineDefault    = 24 * time.Hour
)

// Subscriptions are the calls about subscriptions: who is sent the records of a topic over HTTP.
type Subscriptions struct {
	Registry *registry.Registry
	Log      log.Log
	Node     *fold.Node // of the core, for positions
	Push     Deliveries
}

// Routes returns them.
func (s *Subscriptions) Routes() []Route {
	return []Route{
		{Method: "PUT", Pattern: "/v1/subscriptions/{subscription}", Name: "putSubscription", Handler: s.put},
		{Method: "GET", Pattern: "/v1/subscriptions/{subscription}", Name: "getSubscription", Handler: s.get},
		{Method: "GET", Pattern: "/v1/subscriptions", Name: "listSubscriptions", Handler: s.list},
		{Method: "DELETE", Pattern: "/v1/subscriptions/{subscription}", Name: "deleteSubscription", Handler: s.delete},
		{Method: "POST", Pattern: "/v1/subscriptions/{subscription}/resume", Name: "resumeSubscription", Handler: s.resume},
	}
}

// Subscription is a subscription as it is answered. Its secret is never answered; SecretSet says whether there is one.
type Subscription struct {
	Subscription string `json:"subscription"`
	Topic        string `json:"topic"`
	Sink         string `json:"sink"`
	SecretSet    bool   `json:"secretSet"`
	Filter       string `json:"filter,omitzero"`
	// From is the record that it began with: "latest", the first after RegisteredAt, or "earliest", the first of the topic.
	From         string `json:"from"`
	Retry        Retry  `json:"retry"`
	RegisteredAt Time   `json:"registeredAt"`
	// Status is how it stands. What was just put has none yet.
	Status *SubscriptionStatus `json:"status,omitzero"`
}

// Retry is how a delivery that failed is tried again.
type Retry struct {
	Interval    Duration `json:"interval"`
	MaxInterval Duration `json:"maxInterval"`
	Deadline    Duration `json:"deadline"`
}

// SubscriptionRequest says how a subscription is to be. A secret that is left out stays as it is; an empty one is none.
type SubscriptionRequest struct {
	Topic  string        `json:"topic"`
	Sink   string        `json:"sink"`
	Secret *string       `json:"secret,omitzero"`
	Filter string        `json:"filter,omitzero"`
	From   string        `json:"from,omitzero"`
	Retry  *RetryRequest `json:"retry,omitzero"`
}

// RetryRequest says how a delivery that failed is to be tried again.
type RetryRequest struct {
	Interval    *Duration `json:"interval,omitzero"`
	MaxInterval *Duration `json:"maxInterval,omitzero"`
	Deadline    *Duration `json:"deadline,omitzero"`
}

// subscribe returns the command that does what is asked for.
func (b *SubscriptionRequest) subscribe(name string) (registry.Subscribe, error) {
	c := registry.Subscribe{Subscription: registry.Subscription{Name: name, Topic: b.Topic, Sink: b.Sink, Filter: b.Filter}, Start: registry.Start(b.From)}
	if err := b.checkTopic(); err != nil {
		return c, err
	}
	if err := checkAddress("sink", b.Sink); err != nil {
		return c, err
	}
	var err error
	if c.Secret, c.KeepSecret, err = secretOf("secret", b.Secret); err != nil {
		return c, err
	}
	if err := checkCondition("filter", b.Filter); err != nil {
		return c, err
	}
	switch c.Start {
	case registry.StartGiven, registry.StartLatest, registry.StartEarliest:
	default:
		return c, invalidField("from", `%.40q is neither "latest" nor "earliest"`, b.From)
	}
	if b.Retry == nil {
		b.Retry = &RetryRequest{}
	}
	c.Retry, err = b.Retry.retry()
	return c, err
}

// checkTopic looks at the topic as far as that goes without the log.
func (b *SubscriptionRequest) checkTopic() error {
	switch {
	case b.Topic == "":
		return invalidField("topic", "it is missing; give the name of a topic")
	case strings.HasPrefix(b.Topic, "remit."):
		return NewProblem(CodeForbidden, "topic: %.100q is between remit and itself, secrets and what is not decided yet among it; it is not sent to anybody", b.Topic).With("field", "topic")
	default:
		return nil
	}
}

func (b *RetryRequest) retry() (r registry.Retry, err error) {
	interval := given(b.Interval, RetryIntervalDefault)
	longest := given(b.MaxInterval, max(RetryMaxIntervalDefault, interval))
	deadline := given(b.Deadline, max(RetryDeadlineDefault, interval))
	switch {
	case interval < time.Millisecond:
		return r, invalidField("retry.interval", "give at least 1ms")
	case longest < interval:
		return r, invalidField("retry.maxInterval", "%s is less than interval, %s; the pause between tries grows from the one to the other", Duration(longest), Duration(interval))
	case deadline < interval:
		return r, invalidField("retry.deadline", "%s is over before the second try, which comes after %s", Duration(deadline), Duration(interval))
	}
	return registry.Retry{Interval: interval.Milliseconds(), MaxInterval: longest.Milliseconds(), Deadline: deadline.Milliseconds()}, nil
}

func subscriptionAnswer(s registry.Subscription) Subscription {
	return Subscription{
		Subscription: s.Name, Topic: s.Topic, Sink: s.Sink, SecretSet: s.Secret.IsSet(), Filter: s.Filter, From: string(s.Start()),
		Retry:        Retry{Interval: spanOf(s.Retry.Interval), MaxInterval: spanOf(s.Retry.MaxInterval), Deadline: spanOf(s.Retry.Deadline)},
		RegisteredAt: timeOf(s.Registered),
	}
}

func subscriptionOf(r *http.Request) (string, error) {
	name := r.PathValue("subscription")
	return name, checkProducer("subscription", name)
}

func unknownSubscription(name string) *Problem {
	return NewProblem(CodeUnknownSubscription, "no subscription %q; searched all registrations; register it with PUT /v1/subscriptions/%s", name, name).With("subscription", name)
}

func (s *Subscriptions) put(w http.ResponseWriter, r *http.Request) error {
	name, err := subscriptionOf(r)
	if err != nil {
		return err
	}
	if err := ParseQuery(r).Done(); err != nil {
		return err
	}
	var body SubscriptionRequest
	if err := Decode(w, r, &body); err != nil {
		return err
	}
	c, err := body.subscribe(name)
	if err != nil {
		return err
	}
	if _, ok := s.Registry.Subscription(name); !ok { // one that is there outlives its topic
		if _, err := s.Log.Topic(r.Context(), c.Topic); errors.Is(err, log.ErrUnknownTopic) {
			return unknownTopic(c.Topic).With("field", "topic")
		} else if err != nil {
			return err
		}
	}
	now, added, err := s.Registry.Subscribe(r.Context(), c)
	if fixed, ok := errors.AsType[*registry.FixedError](err); ok {
		return NewProblem(CodeContentMismatch, "subscription %q has %s %q, which does not change; register another one under a new name, and delete this one when it is no longer needed",
			name, fixed.Field, fixed.Recorded).With("field", fixed.Field).With("recorded", fixed.Recorded)
	}
	if err != nil {
		return err
	}
	SetPosition(w, s.Node.Position())
	return WriteJSON(w, putStatus(added), subscriptionAnswer(now))
}

func (s *Subscriptions) get(w http.ResponseWriter, r *http.Request) error {
	name, err := subscriptionOf(r)
	if err != nil {
		return err
	}
	if err := ParseQuery(r).Done(); err != nil {
		return err
	}
	found, ok := s.Registry.Subscription(name)
	if !ok {
		return unknownSubscription(name)
	}
	SetPosition(w, s.Node.Position())
	return WriteJSON(w, http.StatusOK, s.withStatus(found))
}

func (s *Subscriptions) list(w http.ResponseWriter, r *http.Request) error {
	q := ParseQuery(r)
	page := q.Page()
	if err := q.Done(); err != nil {
		return err
	}
	list := pageByName(q, page, s.Registry.Subscriptions(), func(s registry.Subscription) string { return s.Name }, s.withStatus)
	SetPosition(w, s.Node.Position())
	return WriteJSON(w, http.StatusOK, list)
}

func (s *Subscriptions) delete(w http.ResponseWriter, r *http.Request) error {
	name, err := subscriptionOf(r)
	if err != nil {
		return err
	}
	if err := ParseQuery(r).Done(); err != nil {
		return err
	}
	switch err := s.Registry.Unsubscribe(r.Context(), name); {
	case errors.Is(err, registry.ErrUnknownSubscription):
		return unknownSubscription(name)
	case err != nil:
		return err
	}
	SetPosition(w, s.Node.Position())
	w.WriteHeader(http.StatusNoContent)
	return nil
}
