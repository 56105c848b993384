package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/remitlog/remit/cmd/remit/api"
	"github.com/remitlog/remit/consumers"
	"github.com/remitlog/remit/log"
)

func newParked(a *app) *cobra.Command {
	return group("parked", "Look at what subscriptions and consumers have set aside, and send it again",
		newParkedList(a), newParkedShow(a), newParkedReplay(a))
}

var parkedColumns = []column[api.ParkedRecord]{
	{"place", func(p api.ParkedRecord) string { return fmt.Sprintf("%s/%d/%d", p.Topic, p.Partition, p.Offset) }},
	{"parked", func(p api.ParkedRecord) string { return when(p.ParkedAt) }},
	{"by", func(p api.ParkedRecord) string {
		if p.Subscription != "" {
			return "subscription " + p.Subscription
		}
		return p.Group
	}},
	{"key", func(p api.ParkedRecord) string { return p.Key }},
	{"event", func(p api.ParkedRecord) string {
		if p.Event == nil {
			return "no event"
		}
		return p.Event.ID
	}},
	{"attempts", func(p api.ParkedRecord) string { return whole(p.Attempts) }},
	{"reason", func(p api.ParkedRecord) string { return p.Reason }},
	{"sent again", func(p api.ParkedRecord) string {
		switch {
		case p.Replayed == nil:
			return ""
		case p.Replayed.Done:
			return when(p.Replayed.At) + ", done"
		default:
			return when(p.Replayed.At) + ", waits"
		}
	}},
}

var parkedDetails = []column[api.ParkedRecord]{
	{"read at", func(p api.ParkedRecord) string {
		if p.From == nil {
			return ""
		}
		return fmt.Sprintf("%s/%d/%d", p.From.Topic, p.From.Partition, p.From.Offset)
	}},
	{"asked by", func(p api.ParkedRecord) string {
		if p.Replayed == nil {
			return ""
		}
		return p.Replayed.By + ": " + p.Replayed.Reason
	}},
	{"content", func(p api.ParkedRecord) string {
		switch {
		case p.Event != nil:
			b, err := p.Event.MarshalStructured()
			if err != nil {
				return err.Error()
			}
			return string(b)
		case p.Record != nil && p.Record.Value != "":
			return p.Record.Value
		default:
			return ""
		}
	}},
}

// whose are the flags that say whose parked records are meant.
type whose struct{ topic, subscription, group string }

func (w *whose) add(a *app, c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&w.topic, "topic", "", "only what was parked of this topic")
	f.StringVar(&w.subscription, "subscription", "", "only what this subscription has parked")
	f.StringVar(&w.group, "group", "", "only what this consumer group has parked")
	c.MarkFlagsMutuallyExclusive("subscription", "group")
	_ = c.RegisterFlagCompletionFunc("subscription", completeSubscriptions(a)) // the flag is there
}

func newParkedList(a *app) *cobra.Command {
	var w whose
	var replayed string
	var l listFlags
	c := verb("list", "List what was parked", cobra.NoArgs, func(c *cobra.Command, _ []string) error {
		return a.listParked(c.Context(), w, append(l.span(), "replayed", replayed), l.limit)
	})
	c.Long = "List what was parked of a topic, or by a subscription, the newest first. Without either, of all topics, topic by topic."
	c.Example = "  remit parked list\n  remit parked list --subscription crm --replayed false --limit 0"
	w.add(a, c)
	l.add(c, true)
	c.Flags().StringVar(&replayed, "replayed", "", "true: only what was sent again; false: only what was not")
	return c
}

func (a *app) listParked(ctx context.Context, w whose, q query, limit int) error {
	q = append(q, "topic", w.topic, "subscription", w.subscription, "group", w.group)
	if w.topic != "" || w.subscription != "" {
		return listed(ctx, a, at("parked"), q, limit, parkedColumns...)
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	topics, err := parkedTopics(ctx, c)
	if err != nil {
		return err
	}
	var all []api.ParkedRecord
	for _, topic := range topics {
		for token := ""; limit == 0 || len(all) < limit; {
			var page api.List[api.ParkedRecord]
			if _, err := c.call(ctx, http.MethodGet, at("parked")+append(q, "topic", topic, "pageToken", token).String(), nil, &page); err != nil {
				return err
			}
			all = append(all, page.Items...)
			if token = page.NextPageToken; token == "" {
				break
			}
		}
	}
	if limit > 0 && len(all) >= limit {
		all = all[:limit]
		a.say("remit: there may be more; --limit 0 prints all")
	}
	return printList(a, all, parkedColumns...)
}

// parkedTopics are the topics of which something may be parked.
func parkedTopics(ctx context.Context, c *client) (topics []string, err error) {
	for token := ""; ; {
		var page api.List[api.Topic]
		if _, err := c.call(ctx, http.MethodGet, at("topics")+query{"pageSize", strconv.Itoa(api.PageSizeMax), "pageToken", token}.String(), nil, &page); err != nil {
			return nil, err
		}
		for _, t := range page.Items {
			if topic, ok := strings.CutSuffix(t.Topic, consumers.ParkedTopic("")); ok && topic != "" && t.Records > 0 {
				topics = append(topics, topic)
			}
		}
		if token = page.NextPageToken; token == "" {
			return topics, nil
		}
	}
}

func newParkedShow(a *app) *cobra.Command {
	c := verb("show TOPIC/PARTITION/OFFSET", "Show a parked record", cobra.ExactArgs(1), func(c *cobra.Command, args []string) error {
		topic, p, err := parsePlace(args[0])
		if err != nil {
			return err
		}
		return one(c.Context(), a, http.MethodGet, at("parked", topic, whole(p.Partition), whole(p.Offset)), nil, append(parkedColumns, parkedDetails...)...)
	})
	c.Example = "  remit parked show orders/3/17"
	return c
}

// parsePlace reads what the list prints as place.
func parsePlace(text string) (topic string, p api.ReplayPosition, err error) {
	steps := strings.Split(text, "/")
	if len(steps) != 3 {
		return "", p, usageErrorf("%s is not a place such as orders/3/17: a topic, a partition and an offset, as `remit parked list` prints it", text)
	}
	partition, err := strconv.ParseInt(steps[1], 10, 32)
	offset, err2 := strconv.ParseInt(steps[2], 10, 64)
	if err = errors.Join(err, err2); err != nil {
		return "", p, usageErrorf("%s is not a place such as orders/3/17: %w", text, err)
	}
	return steps[0], api.ReplayPosition{Partition: int32(partition), Offset: log.Offset(offset)}, nil
}

func newParkedReplay(a *app) *cobra.Command {
	var w whose
	var b api.ReplayRequest
	c := verb("replay [TOPIC/PARTITION/OFFSET ...]", "Send parked records again, each to who has parked it", cobra.ArbitraryArgs, func(c *cobra.Command, args []string) error {
		requests, err := w.requests(b, args)
		if err != nil {
			return err
		}
		return a.replay(c.Context(), requests)
	})
	c.Long = "Send parked records again, each to the subscription or the consumer group that has parked it, and to nobody else, in the order in which they\n" +
		"stood on their topic. Name them, or send all of a topic that were never sent again: that can be repeated, and sends none twice.\n\n" +
		"A service with package consumers takes them if it runs with Replays."
	c.Example = "  remit parked replay orders/3/17 --reason 'the account is open now'\n" +
		"  remit parked replay --all --topic orders --subscription crm --reason 'the CRM is back'"
	w.add(a, c)
	f := c.Flags()
	f.BoolVar(&b.All, "all", false, "all of --topic that were never sent again")
	f.StringVar(&b.Reason, "reason", "", "why; it stands on the log")
	needed(c, "reason")
	return c
}

// requests are what is asked of the server: one a topic, of so many records as one call takes.
func (w *whose) requests(b api.ReplayRequest, places []string) (all []api.ReplayRequest, err error) {
	b.Subscription, b.Group = w.subscription, w.group
	switch {
	case b.All && (w.topic == "" || len(places) > 0):
		return nil, usageErrorf("--all is for one topic, and names no places: give --topic")
	case b.All:
		b.Topic = w.topic
		return []api.ReplayRequest{b}, nil
	case len(places) == 0:
		return nil, usageErrorf("nothing is named; give places such as orders/3/17, or --all --topic orders")
	}
	var topics []string
	named := map[string][]api.ReplayPosition{}
	for _, text := range places {
		topic, p, err := parsePlace(text)
		if err != nil {
			return nil, err
		}
		if named[topic] == nil {
			topics = append(topics, topic)
		}
		named[topic] = append(named[topic], p)
	}
	for _, topic := range topics {
		for part := range slices.Chunk(named[topic], api.ReplayPositionsMax) {
			b.Topic, b.Positions = topic, part
			all = append(all, b)
		}
	}
	return all, nil
}

// replay sends records again until there are no more, and prints what was done in all.
func (a *app) replay(ctx context.Context, requests []api.ReplayRequest) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	total := api.Replay{Groups: []api.ReplayGroup{}}
	for _, r := range requests {
		for more := true; more; {
			var res api.Replay
			if _, err := c.call(ctx, http.MethodPost, "/v1/parked:replay", r, &res); err != nil {
				a.progress("")
				if total.Replayed > 0 {
					a.say("remit: %d were sent again before this", total.Replayed)
				}
				return err
			}
			add(&total, &res)
			more = res.More
			a.progress("%d are sent again", total.Replayed)
		}
	}
	a.progress("")
	for _, l := range total.Left {
		a.say("remit: %d of %s were left where they are: %s", l.Records, l.Group, l.Why)
	}
	return printOne(a, total, column[api.Replay]{"sent again", func(r api.Replay) string { return whole(r.Replayed) }},
		column[api.Replay]{"to", func(r api.Replay) string {
			var all []string
			for _, g := range r.Groups {
				all = append(all, fmt.Sprintf("%s (%d)", cmp.Or(g.Subscription, g.Group), g.Records))
			}
			return strings.Join(all, ", ")
		}})
}

// add adds what another call has done. What is left is what the last call has left.
func add(total, res *api.Replay) {
	total.Replayed, total.Left = total.Replayed+res.Replayed, res.Left
	for _, g := range res.Groups {
		i := slices.IndexFunc(total.Groups, func(t api.ReplayGroup) bool { return t.Group == g.Group })
		if i < 0 {
			total.Groups = append(total.Groups, g)
		} else {
			total.Groups[i].Records += g.Records
		}
	}
}
