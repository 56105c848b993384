package api

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/remitlog/remit/consumers"
	"github.com/remitlog/remit/consumers/parked"
	"github.com/remitlog/remit/consumers/push"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/log/registry"
)

// ReplayPositionsMax is how many records one call may name.
const ReplayPositionsMax = 1000

// replayBy is who asks for records to be sent again: whoever reaches this API operates remit, as long as it does not ask who that is.
const replayBy = "operator"

// Parked are the calls about what consumers and subscriptions have set aside.
type Parked struct {
	Shelf    *parked.Shelf
	Log      log.Log
	Node     *fold.Node // of the core, for positions
	Registry *registry.Registry
}

// Routes returns them.
func (p *Parked) Routes() []Route {
	return []Route{
		{Method: "GET", Pattern: "/v1/parked", Name: "listParked", Handler: p.list},
		{Method: "GET", Pattern: "/v1/parked/{topic}/{partition}/{offset}", Name: "getParked", Handler: p.get},
		{Method: "POST", Pattern: "/v1/parked:replay", Name: "replayParked", Handler: p.replay},
	}
}

// ParkedRecord is a record that was set aside. Partition and Offset say where it stands on <topic>.parked.
type ParkedRecord struct {
	Topic     string     `json:"topic"`
	Partition int32      `json:"partition"`
	Offset    log.Offset `json:"offset"`
	ParkedAt  Time       `json:"parkedAt"`
	// Group is the consumer group that has parked it; Subscription is set if that is a subscription's.
	Group        string `json:"group,omitzero"`
	Subscription string `json:"subscription,omitzero"`
	Reason       string `json:"reason,omitzero"`
	Attempts     int    `json:"attempts,omitzero"`
	// From is where it was read first.
	From  *EventPlace `json:"from,omitzero"`
	Key   string      `json:"key,omitzero"`
	Event *log.Event  `json:"event,omitzero"`
	// Record is there in place of Event when it is not a CloudEvent.
	Record *RawRecord `json:"record,omitzero"`
	// Replayed says that it was sent again, at last.
	Replayed *ParkedReplay `json:"replayed,omitzero"`
}

// ParkedReplay says when a parked record was sent again, by whom and why. Done says that its group has taken it since, or parked it again.
type ParkedReplay struct {
	At     Time   `json:"at"`
	By     string `json:"by"`
	Reason string `json:"reason"`
	Done   bool   `json:"done"`
}

// ReplayRequest asks for parked records of a topic to be sent again.
type ReplayRequest struct {
	Topic        string           `json:"topic"`
	Positions    []ReplayPosition `json:"positions,omitempty"`
	All          bool             `json:"all,omitzero"`
	Subscription string           `json:"subscription,omitzero"`
	Group        string           `json:"group,omitzero"`
	Reason       string           `json:"reason"`
}

// ReplayPosition is where a record stands on <topic>.parked.
type ReplayPosition struct {
	Partition int32      `json:"partition"`
	Offset    log.Offset `json:"offset"`
}

// Replay answers what was sent again.
type Replay struct {
	Replayed int           `json:"replayed"`
	Groups   []ReplayGroup `json:"groups"`
	// Left are groups whose records were left where they are.
	Left []ReplayLeft `json:"left,omitempty"`
	// More says that there are more than one call sends. Repeat it.
	More bool `json:"more"`
}

// ReplayGroup is who is given records again.
type ReplayGroup struct {
	Group        string `json:"group"`
	Subscription string `json:"subscription,omitzero"`
	Records      int    `json:"records"`
}

// ReplayLeft is who is not.
type ReplayLeft struct {
	Group        string `json:"group,omitzero"`
	Subscription string `json:"subscription,omitzero"`
	Records      int    `json:"records"`
	Why          string `json:"why"`
}

// groupOf is the group that ?subscription= and ?group= mean, of which one may be given.
func groupOf(field func(name, format string, args ...any), subscription, group string) string {
	if subscription == "" {
		return group
	}
	if group != "" {
		field("group", "give subscription or group, not both")
	}
	return push.Group(subscription)
}

func (p *Parked) list(w http.ResponseWriter, r *http.Request) error {
	q := ParseQuery(r)
	page := q.Page()
	query := parked.Query{Topic: q.String("topic"), Size: page.Size, Cursor: page.Cursor}
	subscription := q.String("subscription")
	query.Group = groupOf(q.Fail, subscription, q.String("group"))
	query.From, query.To = q.Range()
	switch q.OneOf("replayed", "true", "false") {
	case "true":
		query.Again = new(bool)
		*query.Again = true
	case "false":
		query.Again = new(bool)
	}
	if of, ok := p.Registry.Subscription(subscription); ok && query.Topic == "" {
		query.Topic = of.Topic
	}
	if err := q.Done(); err != nil {
		return err
	}
	if query.Topic == "" {
		return NewProblem(CodeInvalidParameter, "topic: it is missing; give a topic, or a subscription that is registered").With("parameter", "topic")
	}
	if err := p.isTopic(r.Context(), query.Topic); err != nil {
		return err
	}
	found, err := p.Shelf.List(r.Context(), query)
	if errors.Is(err, parked.ErrCursor) {
		return NewProblem(CodeInvalidParameter, "pageToken: it is not a token of this list any more; begin again without it").With("parameter", "pageToken")
	}
	if err != nil {
		return err
	}
	list := List[ParkedRecord]{Items: make([]ParkedRecord, len(found.Records))}
	for i := range found.Records {
		list.Items[i] = parkedAnswer(query.Topic, &found.Records[i])
	}
	if found.Next != nil {
		list.NextPageToken = q.NextPageToken(found.Next)
	}
	SetPosition(w, p.Node.Position())
	return WriteJSON(w, http.StatusOK, list)
}

// isTopic is a problem when there is neither the topic nor anything that was parked of it.
func (p *Parked) isTopic(ctx context.Context, topic string) error {
	for _, name := range []string{topic, consumers.ParkedTopic(topic)} {
		if _, err := p.Log.Topic(ctx, name); !errors.Is(err, log.ErrUnknownTopic) {
			return err
		}
	}
	return unknownTopic(topic)
}

func parkedAnswer(topic string, r *parked.Record) ParkedRecord {
	raw := topicEvent(&r.Record)
	a := ParkedRecord{Topic: topic, Partition: r.At.Index, Offset: r.At.Offset, ParkedAt: Time(r.Time), Event: r.Event, Record: raw.Record, Key: string(r.Record.Key)}
	if r.Event != nil {
		a.Key = r.Event.Key
	}
	if r.Parked.Group != "" {
		a.Group, a.Reason, a.Attempts = r.Parked.Group, r.Parked.Reason, r.Parked.Attempts
		a.Subscription, _ = push.OfGroup(a.Group)
		a.From = &EventPlace{r.Parked.From.Topic, r.Parked.From.Index, r.Parked.From.Offset}
	}
	if r.Again != nil {
		a.Replayed = &ParkedReplay{At: Time(r.Again.At), By: r.Again.By, Reason: r.Again.Reason, Done: r.Again.Done}
	}
	return a
}

func (p *Parked) get(w http.ResponseWriter, r *http.Request) error {
	topic := r.PathValue("topic")
	if err := ParseQuery(r).Done(); err != nil {
		return err
	}
	index, err := strconv.ParseInt(r.PathValue("partition"), 10, 32)
	offset, err2 := strconv.ParseInt(r.PathValue("offset"), 10, 64)
	if err != nil || err2 != nil {
		return NewProblem(CodeNotFound, "%s/%s/%s is no place: a topic, a partition and an offset on %s", topic, r.PathValue("partition"), r.PathValue("offset"), consumers.ParkedTopic(topic))
	}
	found, err := p.Shelf.Get(r.Context(), consumers.Place{Partition: log.Partition{Topic: consumers.ParkedTopic(topic), Index: int32(index)}, Offset: log.Offset(offset)})
	if err != nil {
		return parkedProblem(err)
	}
	SetPosition(w, p.Node.Position())
	return WriteJSON(w, http.StatusOK, parkedAnswer(topic, &found))
}

// parkedProblem says what became of a request in the words of the API.
func parkedProblem(err error) error {
	switch {
	case errors.Is(err, parked.ErrNotParked):
		return NewProblem(CodeNotFound, "%v; GET /v1/parked?topic= lists what is there", err)
	case errors.Is(err, parked.ErrNobody), errors.Is(err, parked.ErrNotSendable):
		return NewProblem(CodeNotReplayable, "%v", err)
	case errors.Is(err, parked.ErrTooMany):
		return NewProblem(CodeTooMany, "%v", err)
	default:
		return err
	}
}

// replayTimeout is how long one call may take; what it has sent is sent, and to repeat it sends the rest.
const replayTimeout = time.Minute

func (p *Parked) replay(w http.ResponseWriter, r *http.Request) error {
	if err := ParseQuery(r).Done(); err != nil {
		return err
	}
	var body ReplayRequest
	if err := Decode(w, r, &body); err != nil {
		return err
	}
	request, err := body.request()
	if err != nil {
		return err
	}
	if err := p.isTopic(r.Context(), body.Topic); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), replayTimeout)
	defer cancel()
	res, err := p.Shelf.Replay(ctx, request)
	if err != nil && ctx.Err() != nil && r.Context().Err() == nil && body.All {
		res.More, err = true, nil // the rest is for the next call
	}
	if err != nil {
		return parkedProblem(err)
	}
	SetPosition(w, p.Node.Position())
	return WriteJSON(w, http.StatusOK, replayAnswer(res))
}

// request reads what is asked for.
func (b *ReplayRequest) request() (parked.Request, error) {
	var bad error
	fail := func(field, format string, args ...any) {
		if bad == nil {
			bad = invalidField(field, format, args...)
		}
	}
	r := parked.Request{Topic: b.Topic, All: b.All, Group: groupOf(fail, b.Subscription, b.Group), By: replayBy, Reason: b.Reason}
	switch {
	case b.Topic == "":
		fail("topic", "it is missing; give the topic whose parked records are to be sent again")
	case b.Reason == "":
		fail("reason", "it is missing; say why: it stands on the log")
	case len(b.Reason) > consumers.ReasonMax:
		fail("reason", "it has %d bytes, at most %d are kept", len(b.Reason), consumers.ReasonMax)
	case b.All && len(b.Positions) > 0:
		fail("all", "give positions, or all")
	case !b.All && len(b.Positions) == 0:
		fail("positions", `there are none; give [{"partition":0,"offset":0}] of %s, or "all": true`, consumers.ParkedTopic(b.Topic))
	case len(b.Positions) > ReplayPositionsMax:
		fail("positions", "there are %d, at most %d are taken at once", len(b.Positions), ReplayPositionsMax)
	}
	for _, at := range b.Positions {
		r.Places = append(r.Places, consumers.Place{Partition: log.Partition{Topic: consumers.ParkedTopic(b.Topic), Index: at.Partition}, Offset: at.Offset})
	}
	return r, bad
}

func replayAnswer(res parked.Result) Replay {
	a := Replay{Replayed: res.Total(), Groups: []ReplayGroup{}, More: res.More}
	for _, name := range slices.Sorted(maps.Keys(res.Sent)) {
		a.Groups = append(a.Groups, replayGroup(name, res.Sent[name]))
	}
	for _, l := range res.Left {
		g := replayGroup(l.Group, l.Records)
		a.Left = append(a.Left, ReplayLeft{g.Group, g.Subscription, g.Records, l.Why})
	}
	return a
}

func replayGroup(group string, records int) ReplayGroup {
	g := ReplayGroup{Group: group, Records: records}
	g.Subscription, _ = push.OfGroup(group)
	return g
}
