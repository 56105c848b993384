package api

import (
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/projections"
	"github.com/remitlog/remit/projections/transactions"
)

// Stories is the call that tells all that the log has about something.
type Stories struct {
	Views *projections.Views
	Node  *fold.Node
}

// Routes returns it. What is asked for may hold slashes: the id of an event does.
func (s *Stories) Routes() []Route {
	return []Route{{Method: "GET", Pattern: "/v1/stories/{any...}", Name: "getStory", Handler: s.get}}
}

// Story is all that the log has about a payment, message, activity or event, in causal order.
type Story struct {
	Of string `json:"of"`
	// IDs are the things that it stands for, the first the one that began first; a payment's refunds follow it.
	IDs    []log.ID     `json:"ids"`
	Events []StoryEvent `json:"events"`
	// More: there are more things of this reference than one story tells of.
	More bool `json:"more,omitzero"`
}

// StoryEvent is one event of a story, as it stands on the log.
type StoryEvent struct {
	At        Time       `json:"at"`
	Type      string     `json:"type"`
	Topic     string     `json:"topic"`
	Partition int32      `json:"partition"`
	Offset    log.Offset `json:"offset"`
	Key       string     `json:"key,omitzero"`
	By        string     `json:"by,omitzero"`
	Detail    string     `json:"detail,omitzero"`
	// Event is the CloudEvent; absent where the topic no longer has it.
	Event jsontext.Value `json:"event,omitzero"`
}

// storyMax is the longest thing that can be asked for: an event's id, or a reference.
const storyMax = 8 << 10

func (s *Stories) get(w http.ResponseWriter, r *http.Request) error {
	any := r.PathValue("any")
	if any == "" || len(any) > storyMax {
		return NewProblem(CodeNotFound, "ask for an id, a name, a reference or the id of an event: /v1/stories/order-1")
	}
	// What was written before this call is in its answer: whose it is cannot be known before it is found.
	rd := beginReading(r)
	if err := rd.from(w, r, s.Views, transactions.Name, s.Node.Position()); err != nil {
		return err
	}
	found, ok, err := s.Views.Transactions.Story(r.Context(), any)
	if err != nil {
		return err
	}
	if !ok {
		return rd.missing(NewProblem(CodeNotFound, "nothing is called %.200q; searched ids, names and references of payments, refunds, activities and messages, and ids of events", any))
	}
	story := Story{Of: any, IDs: found.IDs, Events: make([]StoryEvent, len(found.Events)), More: found.More}
	if story.IDs == nil {
		story.IDs = []log.ID{}
	}
	for i, e := range found.Events {
		story.Events[i] = StoryEvent{
			At: Time(e.At), Type: e.Type, Topic: e.Topic, Partition: e.Partition, Offset: e.Offset, Key: e.Key, By: e.By, Detail: e.Detail, Event: e.Event,
		}
	}
	return WriteJSON(w, http.StatusOK, story)
}
