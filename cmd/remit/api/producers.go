package api

import (
	"errors"
	"net/http"
	"net/url"
	"sort"
	"strings"
	"time"

	"github.com/remitlog/remit/broker/callout"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/log/registry"
	"github.com/remitlog/remit/log/when"
)

// The schedule of back-checks of a producer that gives none.
const (
	CheckFirstAfterDefault  = 10 * time.Second
	CheckIntervalDefault    = 10 * time.Second
	CheckMaxIntervalDefault = 10 * time.Minute
	CheckDeadlineDefault    = 24 * time.Hour
)

// The longest texts of a registration, in bytes.
const (
	URLMax    = 2048
	SecretMax = 1024
)

// Producers are the calls about producers of half messages.
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
	}
}

// Producer is a producer as it is answered. The secret is never answered; SecretSet says whether there is one.
type Producer struct {
	Producer string         `json:"producer"`
	Check    *ProducerCheck `json:"check,omitzero"`
	Precheck *ProducerCall  `json:"precheck,omitzero"`
}

// ProducerCheck is how a producer is back-checked, as it is answered.
type ProducerCheck struct {
	URL         string   `json:"url"`
	SecretSet   bool     `json:"secretSet"`
	FirstAfter  Duration `json:"firstAfter"`
	Interval    Duration `json:"interval"`
	MaxInterval Duration `json:"maxInterval"`
	Deadline    Duration `json:"deadline"`
	When        string   `json:"when,omitzero"`
}

// ProducerCall is a URL that is asked under a condition, in CloudEvents SQL.
type ProducerCall struct {
	URL  string `json:"url"`
	When string `json:"when,omitzero"`
}

// ProducerRequest says how a producer is to be.
type ProducerRequest struct {
	Check    *CheckRequest `json:"check,omitzero"`
	Precheck *ProducerCall `json:"precheck,omitzero"`
}

// CheckRequest says how a producer is to be back-checked. A secret that is left out stays as it is; an empty one is none.
type CheckRequest struct {
	URL         string    `json:"url"`
	Secret      *string   `json:"secret,omitzero"`
	FirstAfter  *Duration `json:"firstAfter,omitzero"`
	Interval    *Duration `json:"interval,omitzero"`
	MaxInterval *Duration `json:"maxInterval,omitzero"`
	Deadline    *Duration `json:"deadline,omitzero"`
	When        string    `json:"when,omitzero"`
}

// onto returns the registration that was asked for; was is the one before.
func (b *ProducerRequest) onto(name string, was registry.Producer) (registry.Producer, error) {
	p := registry.Producer{Name: name}
	if b.Check != nil {
		check, err := b.Check.onto(was.Check)
		if err != nil {
			return p, err
		}
		p.Check = check
	}
	if b.Precheck != nil {
		if err := checkCall("precheck", b.Precheck.URL, b.Precheck.When); err != nil {
			return p, err
		}
		p.Precheck = registry.Call{URL: b.Precheck.URL, When: b.Precheck.When}
	}
	return p, nil
}

func (b *CheckRequest) onto(was registry.Check) (registry.Check, error) {
	if err := checkCall("check", b.URL, b.When); err != nil {
		return was, err
	}
	secret := was.Secret.Now
	if b.Secret != nil {
		secret = *b.Secret
	}
	if len(secret) > SecretMax {
		return was, invalidField("check.secret", "it has %d bytes, at most %d are taken", len(secret), SecretMax)
	}
	if secret != "" && callout.CheckSecret(secret) != nil {
		return was, invalidField("check.secret", "it begins with whsec_, and what follows is not base64; any other text is taken as it is")
	}
	first, interval := given(b.FirstAfter, CheckFirstAfterDefault), given(b.Interval, CheckIntervalDefault)
	longest, deadline := given(b.MaxInterval, max(CheckMaxIntervalDefault, interval)), given(b.Deadline, CheckDeadlineDefault)
	switch third := first + interval + min(2*interval, longest); {
	case first < time.Millisecond:
		return was, invalidField("check.firstAfter", "give at least 1ms")
	case interval < time.Millisecond:
		return was, invalidField("check.interval", "give at least 1ms")
	case longest < interval:
		return was, invalidField("check.maxInterval", "%s is less than interval, %s; the pause between checks grows from the one to the other", Duration(longest), Duration(interval))
	case deadline < third:
		return was, invalidField("check.deadline", "%s is over before the third check, which comes after %s; give the producer at least that long", Duration(deadline), Duration(third))
	}
	return registry.Check{
		URL: b.URL, Secret: registry.Secret{Now: secret}, FirstAfter: first.Milliseconds(), Interval: interval.Milliseconds(),
		MaxInterval: longest.Milliseconds(), Deadline: deadline.Milliseconds(), When: b.When,
	}, nil
}

// durationMax bounds what is registered, so that sums of a few fit.
const durationMax = 100 * 365 * 24 * time.Hour

func given(d *Duration, ifNot time.Duration) time.Duration {
	if d == nil {
		return ifNot
	}
	return min(time.Duration(*d), durationMax)
}

func checkCall(field, address, condition string) error {
	u, err := url.Parse(address)
	switch {
	case address == "":
		return invalidField(field+".url", "it is missing; give the address that is to be asked")
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil:
		return invalidField(field+".url", "%.200q is not an address such as https://orders.example/check", address)
	case len(address) > URLMax:
		return invalidField(field+".url", "it has %d bytes, at most %d are taken", len(address), URLMax)
	}
	return checkCondition(field+".when", condition)
}

// checkCondition refuses what is no condition in CloudEvents SQL, and says where it stops being one.
func checkCondition(field, text string) error {
	_, err := when.Compile(text)
	if bad, ok := errors.AsType[*when.SyntaxError](err); ok {
		return invalidField(field, "character %d: %s", bad.Character, bad.Detail)
	}
	return err
}

func producerAnswer(p registry.Producer) Producer {
	ms := func(n int64) Duration { return Duration(time.Duration(n) * time.Millisecond) }
	answer := Producer{Producer: p.Name}
	if c := p.Check; c.URL != "" {
		answer.Check = &ProducerCheck{
			URL: c.URL, SecretSet: c.Secret.IsSet(), FirstAfter: ms(c.FirstAfter), Interval: ms(c.Interval),
			MaxInterval: ms(c.MaxInterval), Deadline: ms(c.Deadline), When: c.When,
		}
	}
	if c := p.Precheck; c.URL != "" {
		answer.Precheck = &ProducerCall{URL: c.URL, When: c.When}
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
	was, _ := p.Registry.Producer(name)
	next, err := body.onto(name, was)
	if err != nil {
		return err
	}
	next, added, err := p.Registry.Register(r.Context(), registry.Register{Producer: next})
	if err != nil {
		return err
	}
	status := http.StatusOK
	if added {
		status = http.StatusCreated
	}
	SetPosition(w, p.Node.Position())
	return WriteJSON(w, status, producerAnswer(next))
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
	all := p.Registry.Producers()
	all = all[sort.Search(len(all), func(i int) bool { return strings.Compare(all[i].Name, string(page.Cursor)) > 0 }):]
	list := List[Producer]{Items: []Producer{}}
	for i, found := range all {
		if i == page.Size {
			list.NextPageToken = q.NextPageToken([]byte(all[i-1].Name))
			break
		}
		list.Items = append(list.Items, producerAnswer(found))
	}
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
