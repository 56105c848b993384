package api

import (
	"errors"
	"net/http"
	"time"

	"github.com/remitlog/remit/broker"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/log/registry"
)

// Producers are the calls about producers of half messages, and about their instances.
type Producers struct {
	Registry *registry.Registry
	Node     *fold.Node // of the core, for positions
}

// Routes returns them.
func (p *Producers) Routes() []Route {
	return []Route{
		{Method: "PUT", Pattern: "/v1/producers/{producer}", Name: "putProducer", Handler: p.put},
		{Method: "GET", Pattern: "/v1/producers/{producer}", Name: "getProducer", Handler: p.get},
		{Method: "GET", Pattern: "/v1/producers", Name: "listProducers", Handler: p.list},
		{Method: "DELETE", Pattern: "/v1/producers/{producer}", Name: "deleteProducer", Handler: p.delete},
		{Method: "PUT", Pattern: "/v1/producers/{producer}/instances/{instance}", Name: "putInstance", Handler: p.putInstance},
		{Method: "GET", Pattern: "/v1/producers/{producer}/instances/{instance}", Name: "getInstance", Handler: p.getInstance},
		{Method: "GET", Pattern: "/v1/producers/{producer}/instances", Name: "listInstances", Handler: p.listInstances},
		{Method: "DELETE", Pattern: "/v1/producers/{producer}/instances/{instance}", Name: "deleteInstance", Handler: p.deleteInstance},
	}
}

// Producer is a producer as it is answered. Secrets are never answered; SecretSet says whether there is one.
type Producer struct {
	Producer string         `json:"producer"`
	Check    *ProducerCheck `json:"check,omitzero"`
	Precheck *ProducerCall  `json:"precheck,omitzero"`
}

// ProducerCheck is how a producer is back-checked, as it is answered.
type ProducerCheck struct {
	URL         string   `json:"url,omitzero"`
	SecretSet   bool     `json:"secretSet"`
	FirstAfter  Duration `json:"firstAfter"`
	Interval    Duration `json:"interval"`
	MaxInterval Duration `json:"maxInterval"`
	Deadline    Duration `json:"deadline"`
	When        string   `json:"when,omitzero"`
	Concurrency int      `json:"concurrency,omitzero"`
	Rate        int      `json:"rate,omitzero"`
}

// ProducerCall is a URL that is asked under a condition, in CloudEvents SQL, as it is answered.
type ProducerCall struct {
	URL       string `json:"url"`
	SecretSet bool   `json:"secretSet"`
	When      string `json:"when,omitzero"`
}

// ProducerRequest says how a producer is to be.
type ProducerRequest struct {
	Check    *CheckRequest    `json:"check,omitzero"`
	Precheck *PrecheckRequest `json:"precheck,omitzero"`
}

// CheckRequest says how a producer is to be back-checked. A secret that is left out stays as it is; an empty one is none.
type CheckRequest struct {
	URL         string    `json:"url,omitzero"` // left out, the producer's instances alone are asked
	Secret      *string   `json:"secret,omitzero"`
	FirstAfter  *Duration `json:"firstAfter,omitzero"`
	Interval    *Duration `json:"interval,omitzero"`
	MaxInterval *Duration `json:"maxInterval,omitzero"`
	Deadline    *Duration `json:"deadline,omitzero"`
	When        string    `json:"when,omitzero"`
	// Concurrency is how many back-checks are under way at once, and how many pre-checks beside them; Rate how many of each begin in a second.
	Concurrency *int `json:"concurrency,omitzero"`
	Rate        *int `json:"rate,omitzero"`
}

// PrecheckRequest says what a producer is to be asked before a committed message of its is delivered. A secret that is left out stays as it
// is; without one of its own the calls are signed with the check's.
type PrecheckRequest struct {
	URL    string  `json:"url"`
	Secret *string `json:"secret,omitzero"`
	When   string  `json:"when,omitzero"`
}

// register returns the command that does what is asked for.
func (b *ProducerRequest) register(name string) (registry.Register, error) {
	c := registry.Register{Producer: registry.Producer{Name: name}}
	if b.Check != nil {
		if err := b.Check.onto(&c); err != nil {
			return c, err
		}
	}
	if b.Precheck != nil {
		if err := b.Precheck.onto(&c); err != nil {
			return c, err
		}
	}
	return c, nil
}

func (b *CheckRequest) onto(c *registry.Register) error {
	const field = "check"
	if b.URL != "" {
		if err := checkAddress(field+".url", b.URL); err != nil {
			return err
		}
	}
	secret, keep, err := secretOf(field+".secret", b.Secret)
	if err != nil {
		return err
	}
	if err := checkCondition(field+".when", b.When); err != nil {
		return err
	}
	if c.Check, err = b.schedule(); err != nil {
		return err
	}
	c.Check.URL, c.Check.Secret, c.KeepCheckSecret, c.Check.When = b.URL, secret, keep, b.When
	if c.ConcurrencyMax, err = number(field+".concurrency", b.Concurrency, ConcurrencyMax); err != nil {
		return err
	}
	c.RatePerSecond, err = number(field+".rate", b.Rate, RateMax)
	return err
}

// schedule reads when it is asked.
func (b *CheckRequest) schedule() (c registry.Check, err error) {
	ms := func(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
	unsaid := broker.DefaultSchedule
	first, interval := given(b.FirstAfter, ms(unsaid.FirstAfter)), given(b.Interval, ms(unsaid.Interval))
	longest, deadline := given(b.MaxInterval, max(ms(unsaid.MaxInterval), interval)), given(b.Deadline, ms(unsaid.Deadline))
	switch third := first + interval + min(2*interval, longest); {
	case first < time.Millisecond:
		return c, invalidField("check.firstAfter", "give at least 1ms")
	case interval < time.Millisecond:
		return c, invalidField("check.interval", "give at least 1ms")
	case longest < interval:
		return c, invalidField("check.maxInterval", "%s is less than interval, %s; the pause between checks grows from the one to the other", Duration(longest), Duration(interval))
	case deadline < third:
		return c, invalidField("check.deadline", "%s is over before the third check, which comes after %s; give the producer at least that long", Duration(deadline), Duration(third))
	}
	return registry.Check{
		FirstAfter: first.Milliseconds(), Interval: interval.Milliseconds(), MaxInterval: longest.Milliseconds(), Deadline: deadline.Milliseconds(),
	}, nil
}

// scheduleOf is how the broker has what is registered; zero where it is the default, which is not written then.
func scheduleOf(c registry.Check) broker.Schedule {
	s := broker.Schedule{FirstAfter: c.FirstAfter, Interval: c.Interval, MaxInterval: c.MaxInterval, Deadline: c.Deadline}
	if s == broker.DefaultSchedule {
		return broker.Schedule{}
	}
	return s
}

func (b *PrecheckRequest) onto(c *registry.Register) error {
	const field = "precheck"
	if err := checkAddress(field+".url", b.URL); err != nil {
		return err
	}
	secret, keep, err := secretOf(field+".secret", b.Secret)
	if err != nil {
		return err
	}
	c.Precheck, c.KeepPrecheckSecret = registry.Call{URL: b.URL, Secret: secret, When: b.When}, keep
	return checkCondition(field+".when", b.When)
}

func producerAnswer(p registry.Producer) Producer {
	answer := Producer{Producer: p.Name}
	if c := p.Check; c != (registry.Check{}) {
		answer.Check = &ProducerCheck{
			URL: c.URL, SecretSet: c.Secret.IsSet(), FirstAfter: spanOf(c.FirstAfter), Interval: spanOf(c.Interval),
			MaxInterval: spanOf(c.MaxInterval), Deadline: spanOf(c.Deadline), When: c.When, Concurrency: p.ConcurrencyMax, Rate: p.RatePerSecond,
		}
	}
	if c := p.Precheck; c.URL != "" {
		answer.Precheck = &ProducerCall{URL: c.URL, SecretSet: c.Secret.IsSet(), When: c.When}
	}
	return answer
}

func producerOf(r *http.Request) (string, error) {
	name := r.PathValue("producer")
	return name, checkProducer("producer", name)
}

// checkProducer is checkAccount in other words: producers have no ids either.
func checkProducer(field, name string) error { return checkAccount(field, name) }

func unknownProducer(name string) *Problem {
	return NewProblem(CodeUnknownProducer, "no producer %q; searched all registrations; register it with PUT /v1/producers/%s", name, name).With("producer", name)
}

func (p *Producers) put(w http.ResponseWriter, r *http.Request) error {
	name, err := producerOf(r)
	if err != nil {
		return err
	}
	if err := ParseQuery(r).Done(); err != nil {
		return err
	}
	var body ProducerRequest
	if err := DecodeOptional(w, r, &body); err != nil {
		return err
	}
	c, err := body.register(name)
	if err != nil {
		return err
	}
	now, added, err := p.Registry.Register(r.Context(), c)
	if err != nil {
		return err
	}
	SetPosition(w, p.Node.Position())
	return WriteJSON(w, putStatus(added), producerAnswer(now))
}

func (p *Producers) get(w http.ResponseWriter, r *http.Request) error {
	name, err := producerOf(r)
	if err != nil {
		return err
	}
	if err := ParseQuery(r).Done(); err != nil {
		return err
	}
	found, ok := p.Registry.Producer(name)
	if !ok {
		return unknownProducer(name)
	}
	SetPosition(w, p.Node.Position())
	return WriteJSON(w, http.StatusOK, producerAnswer(found))
}

func (p *Producers) list(w http.ResponseWriter, r *http.Request) error {
	q := ParseQuery(r)
	page := q.Page()
	if err := q.Done(); err != nil {
		return err
	}
	list := pageByName(q, page, p.Registry.Producers(), func(p registry.Producer) string { return p.Name }, producerAnswer)
	SetPosition(w, p.Node.Position())
	return WriteJSON(w, http.StatusOK, list)
}

func (p *Producers) delete(w http.ResponseWriter, r *http.Request) error {
	name, err := producerOf(r)
	if err != nil {
		return err
	}
	if err := ParseQuery(r).Done(); err != nil {
		return err
	}
	switch err := p.Registry.Remove(r.Context(), name); {
	case errors.Is(err, registry.ErrUnknownProducer):
		return unknownProducer(name)
	case err != nil:
		return err
	}
	SetPosition(w, p.Node.Position())
	w.WriteHeader(http.StatusNoContent)
	return nil
}
