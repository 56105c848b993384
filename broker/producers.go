package broker

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/remitlog/remit/broker/callout"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/registry"
	"github.com/remitlog/remit/log/when"
)

const (
	// CheckType is the type of the event that asks a producer what became of a half message.
	CheckType = "remit.message.check.v1"
	// PrecheckType is the type of the event that asks a producer whether a committed message is to be delivered.
	PrecheckType = "remit.message.precheck.v1"
	// AskingMax is how many messages one producer is back-checked about at once, waiting and under way. About those beyond it it is asked at
	// the next time of their schedules.
	AskingMax = 2048
)

// Errors of questions. None of them is an answer.
var (
	// ErrNoProducer: the producer is not registered, or without an address to ask. Register it; its messages are asked about again.
	ErrNoProducer = errors.New("broker: the producer has no address that could be asked")
	// ErrNoAnswer: the producer answered something that is no verdict.
	ErrNoAnswer = errors.New("broker: the producer's answer is none of the verdicts")
)

// Registry looks registrations up, in memory.
type Registry interface {
	Producer(name string) (registry.Producer, bool)
	Instances(producer string) []registry.Instance
}

// Caller makes calls: a *callout.Caller.
type Caller interface {
	Go(callout.Target, callout.Request, func(callout.Answer, error)) error
	Answering(callout.Target) int
}

// ProducersListener is told what comes of asking. Functions may be nil, are called by many goroutines at once, and must not block.
type ProducersListener struct {
	// Checked: a producer was asked what became of a half message; err says why there was no answer.
	Checked func(producer string, said Said, err error)
	// Prechecked: a producer was asked whether a committed message is to be delivered.
	Prechecked func(producer string, said Said, err error)
	// Unexpected: a verdict came that contradicts what was decided meanwhile.
	Unexpected func(producer string)
	// Repeated: a verdict came that says what was decided already.
	Repeated func(producer string)
	// Conditioned: a condition could not be evaluated.
	Conditioned func(producer, when string, err error)
}

// Producers asks registered producers over HTTP: the Asker of a server.
type Producers struct {
	registry Registry
	caller   Caller
	listener ProducersListener

	// mu guards what follows, and is held alone.
	mu         sync.Mutex
	asking     map[log.ID]bool
	by         map[string]int // how many messages a producer is being asked about
	conditions map[string]*when.Condition
}

// NewProducers returns an Asker.
func NewProducers(r Registry, c Caller, l ProducersListener) *Producers {
	l.ensureDefaults()
	return &Producers{registry: r, caller: c, listener: l, asking: map[log.ID]bool{}, by: map[string]int{}, conditions: map[string]*when.Condition{}}
}

func (l *ProducersListener) ensureDefaults() {
	if l.Checked == nil {
		l.Checked = func(string, Said, error) {}
	}
	if l.Prechecked == nil {
		l.Prechecked = func(string, Said, error) {}
	}
	if l.Unexpected == nil {
		l.Unexpected = func(string) {}
	}
	if l.Repeated == nil {
		l.Repeated = func(string) {}
	}
	if l.Conditioned == nil {
		l.Conditioned = func(string, string, error) {}
	}
}

// checkTarget is where a producer is asked what became of its half messages: at its instances, and at its own address.
func (p *Producers) checkTarget(r registry.Producer, now time.Time) callout.Target {
	t := callout.Target{
		Name: r.Name + "/check", Secrets: r.Check.Secret.At(now), ConcurrencyMax: r.ConcurrencyMax, RatePerSecond: r.RatePerSecond,
	}
	for _, i := range p.registry.Instances(r.Name) {
		t.URLs = append(t.URLs, i.URL)
	}
	if r.Check.URL != "" {
		t.URLs = append(t.URLs, r.Check.URL)
	}
	return t
}

func precheckTarget(r registry.Producer, now time.Time) callout.Target {
	return callout.Target{
		Name: r.Name + "/precheck", URLs: []string{r.Precheck.URL}, Secrets: r.PrecheckSecret().At(now),
		ConcurrencyMax: r.ConcurrencyMax, RatePerSecond: r.RatePerSecond,
	}
}

// Answering returns how many addresses a message's producer can be asked at that are not known to fail: asked what became of the message, or, of
// one that is committed, whether it is to be delivered.
func (p *Producers) Answering(m Message) int {
	r, ok := p.registry.Producer(m.Producer)
	switch {
	case !ok, m.State == StateCommitted && r.Precheck.URL == "":
		return 0
	case m.State == StateCommitted:
		return p.caller.Answering(precheckTarget(r, time.Time{}))
	default:
		return p.caller.Answering(p.checkTarget(r, time.Time{}))
	}
}

// Wants implements Asker.
func (p *Producers) Wants(q Question) bool {
	r, ok := p.registry.Producer(q.Message.Producer)
	if !ok {
		return false
	}
	t := p.checkTarget(r, q.Now)
	if len(t.URLs) == 0 || p.asked(q) {
		return false
	}
	return r.Check.When == "" || p.holds(r.Check.When, q, t, false)
}

// asked reports whether a message is being asked about, or its producer about too many.
func (p *Producers) asked(q Question) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asking[q.ID] || p.by[q.Message.Producer] >= AskingMax
}

// holds evaluates a condition over a message's event and what is known of the message. The caller says what one means that cannot be evaluated, or is
// about an attribute that is not there.
func (p *Producers) holds(text string, q Question, t callout.Target, failed bool) bool {
	c, err := p.condition(text)
	var holds bool
	if err == nil {
		var e log.Event
		if e, err = log.ParseStructured(q.Message.Event); err == nil {
			holds, err = c.Holds(&e, when.Attributes{
				"remitage":       q.Now.UnixMilli()/1000 - q.Message.PreparedMs/1000,
				"remitchecks":    int64(max(q.Attempt-1, 0)),
				"remitproducers": int64(p.caller.Answering(t)),
			})
		}
	}
	if err != nil {
		if !when.Missing(err) { // which is no mistake of who wrote it
			p.listener.Conditioned(q.Message.Producer, text, err)
		}
		return failed
	}
	return holds
}

// ConditionsMax is how many compiled conditions are kept.
const ConditionsMax = 4096

func (p *Producers) condition(text string) (*when.Condition, error) {
	p.mu.Lock()
	c, ok := p.conditions[text]
	p.mu.Unlock()
	if ok {
		return c, nil
	}
	c, err := when.Compile(text)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.conditions) >= ConditionsMax {
		clear(p.conditions) // registrations change seldom
	}
	p.conditions[text] = c
	return c, nil
}

// Prechecks implements Asker. A producer whose condition fails is asked: what it would have dropped must not be seen.
func (p *Producers) Prechecks(q Question) bool {
	r, ok := p.registry.Producer(q.Message.Producer)
	if !ok || r.Precheck.URL == "" {
		return false
	}
	return r.Precheck.When == "" || p.holds(r.Precheck.When, q, precheckTarget(r, q.Now), true)
}

// Waits implements Asker. A producer that is not registered any more has not said that it asks for no pre-check.
func (p *Producers) Waits(q Question) bool {
	r, ok := p.registry.Producer(q.Message.Producer)
	return !ok || r.Precheck.URL != ""
}

// Check implements Asker.
func (p *Producers) Check(q Question, done func(answer any, err error)) {
	tell := func(said Said, err error) {
		p.listener.Checked(q.Message.Producer, said, err)
		done(said, err)
	}
	r, ok := p.registry.Producer(q.Message.Producer)
	t := p.checkTarget(r, q.Now)
	if !ok || len(t.URLs) == 0 {
		tell(Said{}, ErrNoProducer)
		return
	}
	p.ask(q, t, CheckType, []Verdict{VerdictCommit, VerdictRollback, VerdictUnknown}, tell)
}

// Precheck implements Asker.
func (p *Producers) Precheck(q Question, done func(answer any, err error)) {
	tell := func(said Said, err error) {
		p.listener.Prechecked(q.Message.Producer, said, err)
		done(said, err)
	}
	r, ok := p.registry.Producer(q.Message.Producer)
	if !ok || r.Precheck.URL == "" {
		tell(Said{}, ErrNoProducer)
		return
	}
	p.ask(q, precheckTarget(r, q.Now), PrecheckType, []Verdict{VerdictDeliver, VerdictHold, VerdictDrop}, tell)
}

// Landed implements Asker.
func (p *Producers) Landed(q Question, said Said, o Outcome) {
	switch {
	case o.Conflict:
		p.listener.Unexpected(q.Message.Producer)
	case o.Replayed && said.Verdict != VerdictUnknown:
		p.listener.Repeated(q.Message.Producer)
	}
}

// ask makes the call. tell is called once.
func (p *Producers) ask(q Question, t callout.Target, typ string, verdicts []Verdict, tell func(Said, error)) {
	body, id, err := question(q, typ)
	if err != nil {
		tell(Said{}, err)
		return
	}
	p.began(q)
	err = p.caller.Go(t, callout.Request{
		Method: http.MethodPost, ID: id, ContentType: log.StructuredContentType, Body: body, Insists: q.Attempt == 0,
	}, func(a callout.Answer, err error) {
		p.ended(q)
		if err != nil {
			tell(Said{}, err)
			return
		}
		tell(parseSaid(a, verdicts))
	})
	if err != nil {
		p.ended(q)
		tell(Said{}, err)
	}
}

func (p *Producers) began(q Question) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asking[q.ID] = true
	p.by[q.Message.Producer]++
}

func (p *Producers) ended(q Question) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.asking, q.ID)
	if p.by[q.Message.Producer]--; p.by[q.Message.Producer] <= 0 {
		delete(p.by, q.Message.Producer)
	}
}

// questionData is the data of the event that asks.
type questionData struct {
	MessageID log.ID         `json:"messageId"`
	Name      string         `json:"name"`
	Topic     string         `json:"topic"`
	Producer  string         `json:"producer"`
	Attempt   int            `json:"attempt"`
	Event     jsontext.Value `json:"event"`
}

// question returns the event that asks, and its id: the same for the same check, however often it is sent.
func question(q Question, typ string) (body []byte, id string, err error) {
	m := q.Message
	e, err := log.ParseStructured(m.Event)
	if err != nil {
		return nil, "", fmt.Errorf("broker: message %s: %w", q.ID, err)
	}
	data, err := json.Marshal(questionData{q.ID, MessageName(&e), m.Topic, m.Producer, q.Attempt, m.Event})
	if err != nil {
		return nil, "", fmt.Errorf("broker: message %s: %w", q.ID, err)
	}
	what := "check"
	if typ == PrecheckType {
		what = "precheck"
	}
	id = fmt.Sprintf("%s/%s/%d", q.ID, what, q.Attempt)
	if q.Attempt == 0 {
		id = fmt.Sprintf("%s/%s/asked/%d", q.ID, what, m.Steps)
	}
	asks := log.Event{
		ID: id, Source: "remit", Type: typ, Time: q.Now, Key: m.Key, Correlation: q.ID.String(), DataContentType: log.JSONContentType, Data: data,
	}
	body, err = asks.MarshalStructured()
	return body, id, err
}

// MessageName is what a message is called: no source has a space in it.
func MessageName(e *log.Event) string { return e.Source + " " + e.ID }

// parseSaid reads an answer. Only 200 with one of the verdicts is one.
func parseSaid(a callout.Answer, verdicts []Verdict) (Said, error) {
	if a.Status != http.StatusOK {
		return Said{}, fmt.Errorf("%w: status %d of %s", ErrNoAnswer, a.Status, a.URL)
	}
	if a.Truncated {
		return Said{}, fmt.Errorf("%w: %s sends more than %d bytes", ErrNoAnswer, a.URL, len(a.Body))
	}
	var body struct {
		Verdict Verdict `json:"verdict"`
		Reason  string  `json:"reason"`
	}
	if err := json.Unmarshal(a.Body, &body); err != nil {
		return Said{}, fmt.Errorf("%w: %s: %w", ErrNoAnswer, a.URL, err)
	}
	for _, v := range verdicts {
		if body.Verdict == v {
			return Said{Verdict: v, Reason: clip(body.Reason)}, nil
		}
	}
	return Said{}, fmt.Errorf("%w: %s says %.40q", ErrNoAnswer, a.URL, body.Verdict)
}

// SaidReasonMax is how many bytes of a producer's reason are kept.
const SaidReasonMax = 1024

func clip(s string) string {
	if len(s) <= SaidReasonMax {
		return s
	}
	n := SaidReasonMax
	for n > 0 && s[n]&0xc0 == 0x80 { // not within a character
		n--
	}
	return s[:n]
}
