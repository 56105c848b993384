package api

import (
	"context"
	"errors"
	"net/http"
	"sort"
	"strings"
	"time"

	"github.com/remitlog/remit/broker"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
)

// Topics are the calls about topics and the events on them.
type Topics struct {
	Log  log.Log
	Node *fold.Node
	// AutoCreate makes a topic when something is first written to it, with Partitions partitions.
	AutoCreate bool
	// Partitions is how many a topic gets that asks for no number; 0 means log.PartitionsDefault.
	Partitions int
}

// Routes returns them.
func (t *Topics) Routes() []Route {
	return []Route{
		{Method: "PUT", Pattern: "/v1/topics/{topic}", Name: "putTopic", Handler: t.put},
		{Method: "GET", Pattern: "/v1/topics/{topic}", Name: "getTopic", Handler: t.get},
		{Method: "GET", Pattern: "/v1/topics", Name: "listTopics", Handler: t.list},
		{Method: "DELETE", Pattern: "/v1/topics/{topic}", Name: "deleteTopic", Handler: t.delete},
		{Method: "POST", Pattern: "/v1/topics/{topic}/events", Name: "publishEvents", Handler: t.publish},
		{Method: "GET", Pattern: "/v1/topics/{topic}/events", Name: "readEvents", Handler: t.read},
	}
}

// Topic is a topic as it is answered.
type Topic struct {
	Topic         string   `json:"topic"`
	Partitions    int      `json:"partitions"`
	Retention     Duration `json:"retention,omitzero"` // absent: for ever
	CleanupPolicy string   `json:"cleanupPolicy"`
	// Reserved: remit alone writes it.
	Reserved bool  `json:"reserved,omitzero"`
	Records  int64 `json:"records"`
	Bytes    int64 `json:"bytes"`
	// Ends are in the answer for one topic, not in lists.
	Ends []TopicEnd `json:"ends,omitempty"`
}

// TopicEnd is what a partition has: from First on, before End.
type TopicEnd struct {
	Partition int32      `json:"partition"`
	First     log.Offset `json:"first"`
	End       log.Offset `json:"end"`
	Bytes     int64      `json:"bytes"`
}

// TopicRequest says how a topic is to be. What is left out stays as it is.
type TopicRequest struct {
	Partitions    *int      `json:"partitions,omitzero"`
	Retention     *Duration `json:"retention,omitzero"`
	CleanupPolicy string    `json:"cleanupPolicy,omitzero"`
}

// cleanupDelete is the one policy: records go when their time is over.
const cleanupDelete = "delete"

func (b *TopicRequest) check() error {
	switch {
	case b.Partitions != nil && (*b.Partitions < 1 || *b.Partitions > log.PartitionsMax):
		return invalidField("partitions", "%d cannot be; give 1 to %d", *b.Partitions, log.PartitionsMax)
	case b.CleanupPolicy != "" && b.CleanupPolicy != cleanupDelete:
		return invalidField("cleanupPolicy", `%q is not supported; the one there is is "delete"`, b.CleanupPolicy)
	}
	return nil
}

// onto returns a configuration with what was asked for.
func (b *TopicRequest) onto(c log.TopicConfig) log.TopicConfig {
	if b.Partitions != nil {
		c.Partitions = *b.Partitions
	}
	if b.Retention != nil {
		c.Retention = time.Duration(*b.Retention)
	}
	return c
}

func (t *Topics) put(w http.ResponseWriter, r *http.Request) error {
	name, err := t.writable(r)
	if err != nil {
		return err
	}
	if err := ParseQuery(r).Done(); err != nil {
		return err
	}
	var body TopicRequest
	if err := DecodeOptional(w, r, &body); err != nil {
		return err
	}
	if err := body.check(); err != nil {
		return err
	}
	status := http.StatusOK
	was, err := t.Log.Topic(r.Context(), name)
	switch {
	case errors.Is(err, log.ErrUnknownTopic):
		status = http.StatusCreated
		err = t.Log.CreateTopic(r.Context(), body.onto(t.fresh(name)))
	case err == nil && body.onto(was) != was:
		err = t.Log.ConfigureTopic(r.Context(), body.onto(was))
	}
	if err != nil {
		return err
	}
	topic, err := t.describe(r.Context(), name)
	if err != nil {
		return err
	}
	SetPosition(w, t.Node.Position())
	return WriteJSON(w, status, topic)
}

// fresh is what a topic is made with that asks for nothing.
func (t *Topics) fresh(name string) log.TopicConfig {
	c := log.TopicConfig{Name: name, Partitions: t.Partitions}
	if c.Partitions == 0 {
		c.Partitions = log.PartitionsDefault
	}
	return c
}

// topicOf reads the name of a topic from the path, and holds it against what Kafka takes.
func topicOf(r *http.Request) (string, error) {
	name := r.PathValue("topic")
	wrong := strings.ContainsFunc(name, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-'
	})
	if wrong || name == "" || len(name) > log.TopicNameMax || name == "." || name == ".." {
		return "", NewProblem(CodeInvalidID, "topic: %.100q is no name of a topic; use 1 to %d letters, digits, '.', '_' and '-'", name, log.TopicNameMax).With("field", "topic")
	}
	return name, nil
}

// writable is topicOf for calls that write: those of remit's own are refused.
func (t *Topics) writable(r *http.Request) (string, error) {
	name, err := topicOf(r)
	if err == nil && log.Reserved(name) {
		err = NewProblem(CodeForbidden, "%s is written by remit alone; use a topic of your own, whose name does not begin with remit.", name).With("topic", name)
	}
	return name, err
}

// ensure makes the topic if it is not there and AutoCreate says so.
func (t *Topics) ensure(ctx context.Context, name string) error {
	if there, err := t.look(ctx, name); there || err != nil {
		return err
	}
	return t.make(ctx, name)
}

// look reports whether the topic is there. One that is not, and is not to be made, is an error.
func (t *Topics) look(ctx context.Context, name string) (there bool, err error) {
	_, err = t.Log.Topic(ctx, name)
	switch {
	case err == nil:
		return true, nil
	case !errors.Is(err, log.ErrUnknownTopic):
		return false, err
	case !t.AutoCreate:
		return false, unknownTopic(name)
	default:
		return false, nil
	}
}

// make makes a topic that was not there a moment ago.
func (t *Topics) make(ctx context.Context, name string) error {
	err := t.Log.CreateTopic(ctx, t.fresh(name))
	if errors.Is(err, log.ErrTopicExists) { // another call was faster
		return nil
	}
	return err
}

func unknownTopic(name string) *Problem {
	return NewProblem(CodeUnknownTopic, "no topic %q; make it with `remit log topics create %s` or PUT /v1/topics/%s", name, name, name).With("topic", name)
}

func (t *Topics) get(w http.ResponseWriter, r *http.Request) error {
	name, err := topicOf(r)
	if err != nil {
		return err
	}
	if err := ParseQuery(r).Done(); err != nil {
		return err
	}
	topic, err := t.describe(r.Context(), name)
	if errors.Is(err, log.ErrUnknownTopic) {
		return unknownTopic(name)
	}
	if err != nil {
		return err
	}
	SetPosition(w, t.Node.Position())
	return WriteJSON(w, http.StatusOK, topic)
}

func (t *Topics) describe(ctx context.Context, name string) (Topic, error) {
	c, err := t.Log.Topic(ctx, name)
	if err != nil {
		return Topic{}, err
	}
	topic := Topic{Topic: c.Name, Partitions: c.Partitions, Retention: Duration(c.Retention), CleanupPolicy: cleanupDelete, Reserved: log.Reserved(c.Name)}
	for p := range int32(c.Partitions) {
		at := log.Partition{Topic: name, Index: p}
		end := TopicEnd{Partition: p}
		if end.First, end.End, err = t.Log.Bounds(ctx, at); err != nil {
			return topic, err
		}
		if end.Bytes, err = t.Log.Size(ctx, at); err != nil {
			return topic, err
		}
		topic.Records += int64(end.End - end.First)
		topic.Bytes += end.Bytes
		topic.Ends = append(topic.Ends, end)
	}
	return topic, nil
}

func (t *Topics) list(w http.ResponseWriter, r *http.Request) error {
	q := ParseQuery(r)
	page := q.Page()
	if err := q.Done(); err != nil {
		return err
	}
	all, err := t.Log.Topics(r.Context())
	if err != nil {
		return err
	}
	after := sort.Search(len(all), func(i int) bool { return all[i].Name > string(page.Cursor) })
	list := List[Topic]{Items: []Topic{}}
	for _, c := range all[after:] {
		if len(list.Items) == page.Size {
			list.NextPageToken = q.NextPageToken([]byte(list.Items[page.Size-1].Topic))
			break
		}
		topic, err := t.describe(r.Context(), c.Name)
		if errors.Is(err, log.ErrUnknownTopic) {
			continue // deleted meanwhile
		}
		if err != nil {
			return err
		}
		topic.Ends = nil
		list.Items = append(list.Items, topic)
	}
	SetPosition(w, t.Node.Position())
	return WriteJSON(w, http.StatusOK, list)
}

func (t *Topics) delete(w http.ResponseWriter, r *http.Request) error {
	name, err := t.writable(r)
	if err != nil {
		return err
	}
	if err := ParseQuery(r).Done(); err != nil {
		return err
	}
	uses, err := InUse(t.Node, name)
	if err != nil {
		return err
	}
	if uses > 0 {
		return NewProblem(CodeTopicInUse, "%d messages of topic %s are undecided or not yet delivered; decide them, and wait: GET /v1/messages?topic=%s lists them, with state=prepared, parked or committed", uses, name, name).
			With("topic", name).With("messages", int(uses))
	}
	switch err := t.Log.DeleteTopic(r.Context(), name); {
	case errors.Is(err, log.ErrUnknownTopic):
		return unknownTopic(name)
	case err != nil:
		return err
	}
	SetPosition(w, t.Node.Position())
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// InUse counts the messages that are prepared for a topic, or not yet delivered to it.
func InUse(node *fold.Node, name string) (uses int64, err error) {
	for p := range int32(node.Partitions()) {
		err := node.Read(p, func(rows fold.Scanner, _ log.Offset) error {
			uses += broker.InUse(rows, name)
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	return uses, nil
}
