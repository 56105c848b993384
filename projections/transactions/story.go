package transactions

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/projections/lists"
)

// StoryMax is how many things one story tells of: what has one reference, or the refunds of a payment. Further ones are left out,
// and Story.More says so.
const StoryMax = 100

// Story is all that the log has about a payment, message, activity or event, in causal order.
type Story struct {
	// Of is what was asked for, and IDs are the things that it stands for, the first the one that began first.
	Of     string
	IDs    []log.ID
	Events []StoryEvent
	More   bool
}

// StoryEvent is one event of a story, as it stands on the log.
type StoryEvent struct {
	Topic     string
	Partition int32
	Offset    log.Offset
	At        time.Time
	Type      string
	Key       string
	By        string
	Detail    string
	// Event is the CloudEvent in its JSON format; nil where the topic no longer has it.
	Event []byte
}

// Story tells the story of whatever any is: an id; a name; the name of a refund, of all that are called so; a reference; the id of an event, of the core's or of one that
// was delivered; account/name of a deposit or withdrawal. It reports false if nothing is called so.
func (v *View) Story(ctx context.Context, any string) (story Story, ok bool, err error) {
	story.Of = any
	var all []fact
	err = v.read(func(s snapshot) error {
		all, err = s.story(any, &story)
		return err
	})
	if err != nil || len(all) == 0 {
		return story, false, err
	}
	refs := make([]ref, len(all))
	for i := range all {
		refs[i] = all[i].ref
	}
	records, err := v.records(ctx, refs)
	if err != nil {
		return story, false, err
	}
	for _, f := range all {
		e := StoryEvent{
			Topic: f.Topic, Partition: f.Index, Offset: f.Offset, At: f.At, Type: f.Type, By: f.By, Detail: f.Detail,
		}
		if r, there := records[f.ref]; there {
			if err := e.read(r); err != nil {
				return story, false, err
			}
		}
		story.Events = append(story.Events, e)
	}
	return story, true, nil
}

func (e *StoryEvent) read(r log.Record) error {
	event, err := log.ParseRecord(r)
	if err != nil {
		return fmt.Errorf("transactions: %s/%d offset %d: %w", r.Topic, r.Index, r.Offset, err)
	}
	e.At, e.Type, e.Key = r.Time.UTC(), event.Type, event.Key
	e.Event, err = event.MarshalStructured()
	return err
}

// story finds the things that any stands for, and lists what happened to them.
func (s snapshot) story(any string, story *Story) ([]fact, error) {
	if id, ok := log.ParseID(any); ok {
		if t, ok := s.get(id); ok {
			return s.tell(found{id, t}, story)
		}
	}
	for _, kind := range []string{"payment", "activity", "message"} {
		c, ok := claims.Get(s.of(kind+"/"+any), kind+"/"+any)
		if !ok {
			continue
		}
		if t, ok := s.get(c.ID); ok {
			return s.tell(found{c.ID, t}, story)
		}
		story.IDs = []log.ID{c.ID} // claimed, and not begun
		return []fact{s.claimed(kind, any, c)}, nil
	}
	for _, b := range []by{byRefund, byReference, byEvent} {
		if all, err := s.tellAll(b, any, any, story); len(all) > 0 || err != nil {
			return all, err
		}
	}
	if _, event, ok := strings.Cut(any, " "); ok { // a message's name is its event's source, which has no space in it, and id
		if all, err := s.tellAll(byEvent, event, any, story); len(all) > 0 || err != nil {
			return all, err
		}
	}
	thing, rest, _ := strings.Cut(any, "/")
	if id, ok := log.ParseID(thing); ok && rest != "" { // an event's id begins with the id of its thing
		if t, ok := s.get(id); ok {
			return s.tell(found{id, t}, story)
		}
	}
	return s.cash(thing, rest), nil
}

func (s snapshot) claimed(kind, name string, c claim) fact {
	p := log.PartitionOf(log.SlotOf(kind+"/"+name), s.view.partitions)
	return fact{ref{log.Partition{Topic: log.EventsTopic, Index: p}, c.At}, rankNamed, Step{Detail: name}}
}

// isCalled reports whether a thing that an index finds is called name.
func (x found) isCalled(b by, name string) bool {
	switch b {
	case byRefund:
		return x.Name == name
	case byReference:
		return x.Activity.Reference == name
	default:
		return x.Message.EventID == name || x.Name == name
	}
}

// tellAll tells of all things under an index value that are called name, the oldest first.
func (s snapshot) tellAll(b by, value, name string, story *Story) ([]fact, error) {
	page := lists.Page{Size: StoryMax}
	things, more, err := list(s, page, lists.Range{}, s.streams(b, value), func(x found) (found, bool) {
		return x, x.isCalled(b, name)
	})
	if err != nil {
		return nil, err
	}
	story.More = more != nil
	var all []fact
	for i := len(things) - 1; i >= 0; i-- {
		one, err := s.tell(things[i], story)
		if err != nil {
			return nil, err
		}
		all = append(all, one...)
	}
	return all, nil
}

// tell tells of one thing; of a refund with the payment that it is of, and of a payment with its refunds.
func (s snapshot) tell(x found, story *Story) ([]fact, error) {
	if x.Class == classRefund {
		if of, ok := s.get(x.parent()); ok {
			x = found{x.parent(), of}
		}
	}
	story.IDs = append(story.IDs, x.id)
	all := s.whole(x)
	if x.Class != classPayment {
		return all, nil
	}
	streams := []lists.Stream[[]byte]{s.stream(s.home(x.id), byParent, string(x.id[:]))}
	refunds, more, err := list(s, lists.Page{Size: StoryMax}, lists.Range{}, streams, func(r found) (found, bool) { return r, true })
	if err != nil {
		return nil, err
	}
	story.More = story.More || more != nil
	for i := len(refunds) - 1; i >= 0; i-- {
		story.IDs = append(story.IDs, refunds[i].id)
		all = append(all, s.whole(refunds[i])...)
	}
	return all, nil
}

// whole lists what happened to one thing, from the claim of its name to where its message was delivered.
func (s snapshot) whole(x found) []fact {
	var all []fact
	if kind, name := x.claim(); name != "" {
		if c, ok := claims.Get(s.of(kind+"/"+name), kind+"/"+name); ok && c.ID == x.id {
			all = append(all, s.claimed(kind, name, c))
		}
	}
	all = append(all, s.facts(x)...)
	if d := s.delivery(x); d != nil && d.Offset >= 0 {
		rank, ms := rankDecided, x.DecidedMs // it became visible in the append of the event that decided it, or that delivered it later
		if x.Message != nil && x.EndedAt != x.DecidedAt {
			rank, ms = rankEnded, x.EndedMs
		}
		all = append(all, fact{ref{log.Partition{Topic: d.Topic, Index: d.Partition}, d.Offset}, rank, Step{At: at(ms)}})
	}
	inOrder(all)
	return all
}

// claim returns the kind and name that a thing was claimed under.
func (x found) claim() (kind, name string) {
	switch x.Class {
	case classPayment:
		return "payment", x.Name
	case classActivity:
		return "activity", x.Name
	case classMessage:
		return "message", x.Name
	}
	return "", "" // a refund is named under its payment
}

// cash tells of a deposit or withdrawal.
func (s snapshot) cash(account, name string) []fact {
	if account == "" || name == "" {
		return nil
	}
	for _, name := range []string{name, strings.TrimSuffix(name, "/deposited"), strings.TrimSuffix(name, "/withdrawn")} {
		if o, ok := cashes.Get(s.of(account), account+"/"+name); ok {
			p := log.PartitionOf(log.SlotOf(account), s.view.partitions)
			return []fact{{ref: ref{log.Partition{Topic: log.EventsTopic, Index: p}, o}}}
		}
	}
	return nil
}
