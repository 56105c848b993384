package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/remitlog/remit/broker"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/log/names"
	"github.com/remitlog/remit/log/registry"
	"github.com/remitlog/remit/projections"
	"github.com/remitlog/remit/projections/transactions"
)

// ReasonMax is the longest reason of a decision, in bytes.
const ReasonMax = 1024

// Messages are the calls about transactional messages.
type Messages struct {
	Node     *fold.Node
	Broker   *broker.Broker
	Registry *registry.Registry
	Topics   *Topics // which makes those that are written to
	Views    *projections.Views
	// Answering is at how many addresses a message's producer can be asked about it that are not known to fail. Without it all are taken to answer.
	Answering func(broker.Message) int
}

// Routes returns them.
func (m *Messages) Routes() []Route {
	return []Route{
		{Method: "POST", Pattern: "/v1/topics/{topic}/messages", Name: "createMessage", Handler: m.create},
		{Method: "POST", Pattern: "/v1/topics/{topic}/messages:batch", Name: "createMessages", Handler: m.createBatch, Streams: true},
		{Method: "POST", Pattern: "/v1/messages/{id}/commit", Name: "commitMessage", Handler: m.settle(broker.InputCommit)},
		{Method: "POST", Pattern: "/v1/messages/{id}/rollback", Name: "rollbackMessage", Handler: m.settle(broker.InputRollback)},
		{Method: "POST", Pattern: "/v1/messages/{id}/check", Name: "checkMessage", Handler: m.check},
		{Method: "POST", Pattern: "/v1/messages/{id}/resume", Name: "resumeMessage", Handler: m.resume},
		{Method: "GET", Pattern: "/v1/messages/{id}", Name: "getMessage", Handler: m.get},
		{Method: "GET", Pattern: "/v1/messages", Name: "listMessages", Handler: m.list},
	}
}

// half is a half message that is asked for, checked as far as that goes without state.
type half struct {
	prepared broker.Prepared // but for its id, where the caller brought none
	event    log.Event
}

// half takes the options off an event and checks the rest.
func (m *Messages) half(topic, producer string, e log.Event) (half, error) {
	h := half{prepared: broker.Prepared{Topic: topic, Producer: producer, Schedule: m.schedule(producer)}}
	if err := h.takeOptions(&e); err != nil {
		return h, err
	}
	e.Key = cmp.Or(e.Key, e.ID)
	if err := e.Validate(); err != nil {
		return h, eventProblem(err)
	}
	h.prepared.Key, h.prepared.Name = e.Key, broker.MessageName(&e)
	if !h.prepared.ID.IsZero() {
		if err := (Ref{ID: h.prepared.ID}).CheckNew("remitid", "partitionkey", e.Key); err != nil {
			return h, err
		}
	}
	b, err := e.MarshalStructured()
	if err != nil {
		return h, eventProblem(err)
	}
	h.prepared.Event, h.event = b, e
	h.prepared.Fingerprint = fingerprint(&h.prepared, &e)
	return h, nil
}

// takeOptions takes the options of the message off its event.
func (h *half) takeOptions(e *log.Event) error {
	if len(e.Extensions) == 0 {
		return nil
	}
	text, err := takeOption(e, optionID)
	if err != nil {
		return err
	}
	if text != "" {
		id, ok := log.ParseID(text)
		if !ok {
			return NewProblem(CodeInvalidID, "remitid: %.140q is no id of remit's, a UUIDv8; leave it out, and the message is known by its source and id", text).With("field", optionID)
		}
		h.prepared.ID = id
	}
	if text, err = takeOption(e, optionDeliverAt); err != nil {
		return err
	}
	if text != "" {
		at, err := ParseTime(text)
		if err != nil {
			return invalidField(optionDeliverAt, "%s", err.(*Problem).Detail)
		}
		h.prepared.DeliverAt = max(at.UnixMilli(), 0)
	}
	after, given, err := takeSpan(e, optionDeliverAfter)
	if err != nil {
		return err
	}
	if given && text != "" {
		return invalidField(optionDeliverAfter, "deliverat says when already; give one of the two")
	}
	h.prepared.DeliverAfter = after
	h.prepared.CheckAfter, _, err = takeSpan(e, optionCheckAfter)
	return err
}

// takeOption takes one option off an event; it is empty if it is not there.
func takeOption(e *log.Event, name string) (string, error) {
	value, ok := e.Extensions[name]
	if !ok {
		return "", nil
	}
	text, ok := value.(string)
	if !ok || text == "" {
		return "", invalidField(name, "give a string")
	}
	delete(e.Extensions, name)
	return text, nil
}

// takeSpan takes an option that is a duration, in ms.
func takeSpan(e *log.Event, name string) (ms int64, given bool, err error) {
	text, err := takeOption(e, name)
	if text == "" || err != nil {
		return 0, false, err
	}
	d, err := ParseDuration(text)
	if err != nil {
		return 0, true, invalidField(name, "%s", err.(*Problem).Detail)
	}
	if d > durationMax {
		return 0, true, invalidField(name, "%s is longer than remit waits; give at most %s", text, Duration(durationMax))
	}
	return d.Milliseconds(), true, nil
}

// meant is one thing that a message means.
type meant struct{ name, value string }

// eachPart calls yield with all that a message means, in the order in which a difference is looked for: not its time, nor its trace
// context.
func eachPart(p *broker.Prepared, e *log.Event, yield func(name, value string)) {
	yield("topic", p.Topic)
	yield("producer", p.Producer)
	yield("source", e.Source)
	yield("id", e.ID)
	yield("type", e.Type)
	yield("subject", e.Subject)
	yield("partitionkey", e.Key)
	yield("datacontenttype", e.DataContentType)
	yield("dataschema", e.DataSchema)
	yield("correlationid", e.Correlation)
	yield("causationid", e.Causation)
	yield(optionDeliverAt, strconv.FormatInt(p.DeliverAt, 10))
	yield(optionDeliverAfter, strconv.FormatInt(p.DeliverAfter, 10))
	yield(optionCheckAfter, strconv.FormatInt(p.CheckAfter, 10))
	var few [8]string
	extensions := few[:0]
	for name := range e.Extensions {
		if name != "tracestate" {
			extensions = append(extensions, name)
		}
	}
	slices.Sort(extensions)
	for _, name := range extensions {
		yield(name, fmt.Sprint(e.Extensions[name]))
	}
	yield("data", meaning(e))
}

// contentOf lists what a message means.
func contentOf(p *broker.Prepared, e *log.Event) (list []meant) {
	eachPart(p, e, func(name, value string) { list = append(list, meant{name, value}) })
	return list
}

// meaning is the data of an event; of JSON without its white space, the order of its fields, and how its strings are escaped.
func meaning(e *log.Event) string {
	if e.DataContentType != log.JSONContentType {
		media, _, _ := mime.ParseMediaType(e.DataContentType)
		if media != log.JSONContentType && media != "" && !strings.HasSuffix(media, "+json") {
			return string(e.Data)
		}
	}
	b := getBuffer()
	defer putBuffer(b)
	canonical, err := jsontext.AppendFormat(b.AvailableBuffer(), e.Data, jsontext.ReorderRawObjects(true))
	if err != nil { // it is not JSON, whatever it is called; or an object in it has a member twice, whose order means something
		return string(e.Data)
	}
	return string(canonical)
}

// fingerprint returns what tells a repeat of a message from another message.
func fingerprint(p *broker.Prepared, e *log.Event) log.Fingerprint {
	var parts log.FingerprintParts
	parts.Add("message")
	eachPart(p, e, func(name, value string) {
		parts.Add(name)
		parts.Add(value)
	})
	return parts.Fingerprint()
}

// accepted is what both ways of storing have in common.
type accepted struct{ topic, producer string }

// accept reads it: the topic, which is there or may be made, and the producer.
func (m *Messages) accept(r *http.Request) (a accepted, err error) {
	q := ParseQuery(r)
	a.producer = q.String("producer")
	if err := q.Done(); err != nil {
		return a, err
	}
	if a.topic, err = m.Topics.writable(r); err != nil {
		return a, err
	}
	if a.producer == "" {
		return a, NewProblem(CodeInvalidParameter, "producer: it is missing; say which registered producer decides the message").With("parameter", "producer")
	}
	if err := checkProducer("producer", a.producer); err != nil {
		return a, err
	}
	if _, ok := m.Registry.Producer(a.producer); !ok {
		return a, unknownProducer(a.producer)
	}
	_, err = m.Topics.look(r.Context(), a.topic)
	return a, err
}

// take makes a half message of an event, and its topic if that is not there. What is known to be refused makes no topic. It is looked for with each
// event: a stream may be open for long.
func (m *Messages) take(a accepted, e log.Event) (half, error) {
	h, err := m.half(a.topic, a.producer, e)
	if err != nil {
		return h, err
	}
	ctx := context.Background() // what has been read is dealt with, also when the server stops
	if there, err := m.Topics.look(ctx, a.topic); there || err != nil {
		return h, err
	}
	if needed, err := m.needsTopic(h); !needed || err != nil {
		return h, err
	}
	return h, m.Topics.make(ctx, a.topic)
}

// needsTopic reports whether a half message may be delivered once. It may not if it has ended, or if another one has its id or name: then it is refused.
func (m *Messages) needsTopic(h half) (bool, error) {
	id := h.prepared.ID
	if id.IsZero() {
		named, ok, err := names.Lookup(m.Node, names.KindMessage, h.prepared.Name)
		if !ok || err != nil || named.Fingerprint != h.prepared.Fingerprint {
			return !ok, err
		}
		id = named.ID
	}
	row, _, _, ok, err := m.find(id)
	return !ok || row.Fingerprint == h.prepared.Fingerprint && !row.State.Final(), err
}

func (m *Messages) create(w http.ResponseWriter, r *http.Request) error {
	a, err := m.accept(r)
	if err != nil {
		return err
	}
	events, err := readEvents(w, r)
	if err != nil {
		return err
	}
	if len(events) != 1 {
		return NewProblem(CodeUnsupportedMediaType, "a message is one event, in binary or structured mode; send many to …/messages:batch, a line each")
	}
	h, err := m.take(a, events[0])
	if err != nil {
		return err
	}
	type result struct {
		message prepared
		err     error
	}
	got := make(chan result, 1)
	m.prepare(h, func(p prepared, err error) { got <- result{p, err} })
	select {
	case res := <-got:
		if res.err != nil {
			return res.err
		}
		status, message := m.prepared(res.message)
		message = m.recall(r.Context(), message, res.message.Outcome, res.message.position)
		if res.message.Replayed {
			w.Header().Set(ReplayedHeader, "true")
		}
		SetPosition(w, res.message.position)
		return WriteJSON(w, status, message)
	case <-r.Context().Done():
		return r.Context().Err()
	}
}

// prepared is a half message as it stands.
type prepared struct {
	broker.Outcome
	name     string
	event    []byte // as it was sent now; the same as was prepared but for what is no part of its meaning
	position log.Position
}

// prepared is how a half message is answered where it was asked for. What became of one that has ended is a matter of the view.
func (m *Messages) prepared(p prepared) (int, Message) {
	message := m.show(p.ID, p.Message)
	message.Name, message.Event = p.name, p.event
	if p.Message.State.Final() {
		return http.StatusOK, message
	}
	message.Event, message.History = p.Message.Event, openHistory(p.Message)
	if p.Replayed {
		return http.StatusAccepted, message
	}
	return http.StatusCreated, message
}

// prepare stores a half message: it claims the name if the caller brought no id. done runs on a partition's goroutine.
func (m *Messages) prepare(h half, done func(prepared, error)) {
	if !h.prepared.ID.IsZero() {
		m.submit(h, nil, done)
		return
	}
	claim := names.Claim{Named: names.Named{
		Kind: names.KindMessage, Name: h.prepared.Name, ID: log.NewID(m.Node.Now(), h.prepared.Key), Key: h.prepared.Key, Fingerprint: h.prepared.Fingerprint,
	}}
	err := m.Node.Submit(m.Node.PartitionOf(names.Route(claim.Kind, claim.Name)), claim, func(res fold.Result) {
		if e, ok := errors.AsType[*names.MismatchError](res.Err); ok {
			go func() { done(prepared{}, m.mismatch(h, e.Named.ID)) }() // it reads the log
			return
		}
		if res.Err != nil {
			done(prepared{}, res.Err)
			return
		}
		h.prepared.ID = res.Answer.(names.Named).ID
		m.submit(h, res.Position(), done)
	})
	if err != nil {
		done(prepared{}, err)
	}
}

func (m *Messages) submit(h half, claimed log.Position, done func(prepared, error)) {
	err := m.Node.Submit(m.Node.PartitionOfID(h.prepared.ID), broker.Prepare{Prepared: h.prepared}, func(res fold.Result) {
		if _, ok := errors.AsType[*broker.MismatchError](res.Err); ok {
			go func() { done(prepared{}, m.mismatch(h, h.prepared.ID)) }() // it reads the log
			return
		}
		if res.Err != nil {
			done(prepared{}, res.Err)
			return
		}
		done(prepared{res.Answer.(broker.Outcome), h.prepared.Name, h.prepared.Event, claimed.Merge(res.Position())}, nil)
	})
	if err != nil {
		done(prepared{}, err)
	}
}

// mismatch names the first field in which a message differs from what was prepared under its id. A claim alone knows none.
func (m *Messages) mismatch(h half, id log.ID) error {
	row, _, _, ok, err := m.find(id)
	if err != nil {
		return err
	}
	if !ok {
		return mismatch("message", h.prepared.Name, "", "").With("id", id)
	}
	began, err := m.began(id, row)
	if err != nil {
		return err
	}
	if began == nil { // it is an activity's
		return mismatch("message", id.String(), "id", "an activity").With("id", id)
	}
	e, err := log.ParseStructured(began.Event)
	if err != nil {
		return fmt.Errorf("api: message %s: %w", id, err)
	}
	field, recorded := differs(contentOf(&h.prepared, &h.event), contentOf(began, &e))
	return mismatch("message", h.prepared.Name, field, recorded).With("id", id)
}

// differs returns the first field that two contents do not share, and what the second has.
func differs(asked, recorded []meant) (field, value string) {
	was := map[string]string{}
	for _, c := range recorded {
		was[c.name] = c.value
	}
	for _, c := range asked {
		if was[c.name] != c.value {
			return c.name, fmt.Sprintf("%.200s", was[c.name])
		}
		delete(was, c.name)
	}
	for _, c := range recorded {
		if _, left := was[c.name]; left {
			return c.name, fmt.Sprintf("%.200s", c.value)
		}
	}
	return "", ""
}

// began reads what a message began with from the log; nil if it is an activity's.
func (m *Messages) began(id log.ID, row broker.Message) (*broker.Prepared, error) {
	at := log.Partition{Topic: log.EventsTopic, Index: m.Node.PartitionOfID(id)}
	ctx, cancel := context.WithTimeout(context.Background(), WaitMax)
	defer cancel()
	records, err := m.Topics.Log.Read(ctx, at, row.Begun, 1)
	if err != nil {
		return nil, err
	}
	event, err := fold.NewFacts(false, broker.Facts()...).Decode(records[0])
	if err != nil {
		return nil, err
	}
	if f, ok := event.Fact.(broker.Prepared); ok {
		return &f, nil
	}
	return nil, nil
}

// find reads a message from the core.
func (m *Messages) find(id log.ID) (row broker.Message, plain bool, at log.Position, ok bool, err error) {
	p := m.Node.PartitionOfID(id)
	err = m.Node.Read(p, func(rows fold.Scanner, offset log.Offset) error {
		row, plain, ok = broker.Get(rows, id)
		at = log.Position{p: offset}
		return nil
	})
	return row, plain, at, ok, err
}

// messageOf reads the id of a message from the path: messages have no names there.
func messageOf(r *http.Request) (log.ID, error) { return parseMessageID("id", r.PathValue("id")) }

func parseMessageID(field, s string) (log.ID, error) {
	id, ok := log.ParseID(s)
	if !ok {
		return id, NewProblem(CodeInvalidID, "%s: %.140q is no id of remit's, a UUIDv8; find a message by its event with GET /v1/messages?source=&eventId=", field, s).With("field", field)
	}
	return id, nil
}

func unknownMessage(id log.ID) *Problem {
	return NotFound("message", id.String(), "all messages, open and ended, by id; find one by its event with GET /v1/messages?source=&eventId=")
}

// settle returns the call that commits, or the one that rolls back.
func (m *Messages) settle(input broker.Input) Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		d, err := decisionOf(w, r)
		if err != nil {
			return err
		}
		return m.do(w, r, d.ID, broker.Settle{Broker: m.Broker, ID: d.ID, Input: input, By: d.By, Reason: d.Reason})
	}
}

// do has a message's partition decide a command, and answers how the message stands then.
func (m *Messages) do(w http.ResponseWriter, r *http.Request, id log.ID, c fold.Command) error {
	res, err := m.Node.Do(r.Context(), m.Node.PartitionOfID(id), c)
	if err != nil {
		return settleProblem(id, err)
	}
	SetPosition(w, res.Position())
	outcome := res.Answer.(broker.Outcome)
	answer := m.again(r.Context(), outcome, res.Position())
	if outcome.Conflict {
		return decidedOtherwise(answer)
	}
	if outcome.Replayed {
		w.Header().Set(ReplayedHeader, "true")
	}
	return WriteJSON(w, http.StatusOK, answer)
}

// decisionOf reads what every call about one message has: the id, and why. Who calls is not known without access set up.
func decisionOf(w http.ResponseWriter, r *http.Request) (d broker.Decision, err error) {
	if d.ID, err = messageOf(r); err != nil {
		return d, err
	}
	if err := ParseQuery(r).Done(); err != nil {
		return d, err
	}
	var body struct {
		Reason string `json:"reason,omitzero"`
	}
	if err := DecodeOptional(w, r, &body); err != nil {
		return d, err
	}
	d.Reason = body.Reason
	return d, checkReason(body.Reason)
}

func checkReason(reason string) error {
	if len(reason) > ReasonMax {
		return invalidField("reason", "it has %d bytes, at most %d are kept", len(reason), ReasonMax)
	}
	return nil
}

func settleProblem(id log.ID, err error) error {
	switch {
	case errors.Is(err, broker.ErrUnknownMessage):
		return unknownMessage(id)
	case errors.Is(err, broker.ErrNotTried):
		return NewProblem(CodeNotTried, "message %s belongs to an activity that remit coordinates, and is decided with it; capture or void it if it is a held payment: /v1/payments/%s", id, id)
	}
	return err
}

// decidedOtherwise is the answer to a decision that contradicts the one that stands (D2).
func decidedOtherwise(m Message) *Problem {
	return NewProblem(CodeAlreadyDecided, "message %s is %s, and that stands", m.ID, m.State).With("recorded", m.State).With("message", m)
}

func (m *Messages) get(w http.ResponseWriter, r *http.Request) error {
	id, err := messageOf(r)
	if err != nil {
		return err
	}
	rd := beginReading(r)
	if err := rd.query.Done(); err != nil {
		return err
	}
	if err := waitFor(r, "the core", m.Node, rd.after, rd.wait); err != nil {
		return err
	}
	row, plain, at, ok, err := m.find(id)
	open := plain && !row.State.Final()
	switch {
	case err != nil:
		return err
	case !ok:
		return unknownMessage(id)
	case open && row.Steps == 0 && row.Conflicts == 0:
		return m.answerOpen(w, id, row, at)
	}
	// What was done to it, beside being decided, is in the view alone.
	if err := rd.from(w, r, m.Views, transactions.Name, at); err != nil {
		return err
	}
	found, ok, err := m.Views.Transactions.Message(r.Context(), id)
	switch {
	case err != nil:
		return err
	case open && (!ok || rd.behind != nil): // its history is not whole then
		return m.answerOpen(w, id, row, at)
	case !ok || rd.behind != nil && found.State == broker.StatePrepared.String():
		return rd.missing(unknownMessage(id))
	}
	return WriteJSON(w, http.StatusOK, m.viewed(found))
}

// answerOpen answers with a message as the core has it.
func (m *Messages) answerOpen(w http.ResponseWriter, id log.ID, row broker.Message, at log.Position) error {
	message, err := m.open(id, row)
	if err != nil {
		return err
	}
	SetPosition(w, at)
	return WriteJSON(w, http.StatusOK, message)
}

func (m *Messages) list(w http.ResponseWriter, r *http.Request) error {
	rd := beginReading(r)
	q := rd.query
	f := transactions.MessageFilter{
		State:    q.OneOf("state", "prepared", "committed", "delivered", "rolledback", "dropped", "parked"),
		Producer: q.String("producer"), Topic: q.String("topic"), Key: q.String("key"), Source: q.String("source"),
		EventID: q.String("eventId"), Subject: q.String("subject"), Range: rangeOf(q),
	}
	if stuck := q.OneOf("stuck", "true", "false"); stuck != "" {
		f.Only = func(id log.ID) bool { return m.stuck(id) == (stuck == "true") }
		if stuck == "true" && f.State == "" {
			f.State = broker.StatePrepared.String() // no other is
		}
		if before, err := m.stuckBefore(); err != nil {
			return err
		} else if stuck == "true" && (f.To.IsZero() || before.Before(f.To)) {
			f.To = before
		}
	}
	page := q.Page()
	if err := rd.from(w, r, m.Views, transactions.Name, nil); err != nil {
		return err
	}
	found, next, err := m.Views.Transactions.Messages(r.Context(), f, pageOf(page))
	return listOf(w, q, found, next, err, m.viewed)
}
