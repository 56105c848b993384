package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/remitlog/remit/cmd/remit/api"
	"github.com/remitlog/remit/log"
)

func newLog(a *app) *cobra.Command {
	return group("log", "Look at the log: its topics, and what is on them",
		group("topics", "Make, show and delete topics", newTopicsList(a), newTopicsGet(a), newTopicsCreate(a), newTopicsDelete(a)),
		newTail(a))
}

var topicColumns = []column[api.Topic]{
	{"topic", func(t api.Topic) string { return t.Topic }},
	{"partitions", func(t api.Topic) string { return whole(t.Partitions) }},
	{"retention", func(t api.Topic) string {
		if t.Retention == 0 {
			return "for ever"
		}
		return t.Retention.String()
	}},
	{"records", func(t api.Topic) string { return whole(t.Records) }},
	{"bytes", func(t api.Topic) string { return whole(t.Bytes) }},
	{"written by", func(t api.Topic) string {
		if t.Reserved {
			return "remit alone"
		}
		return "anyone"
	}},
}

func newTopicsList(a *app) *cobra.Command {
	var l listFlags
	c := verb("list", "List topics", cobra.NoArgs, func(c *cobra.Command, _ []string) error {
		return listed(c.Context(), a, at("topics"), nil, l.limit, topicColumns...)
	})
	l.add(c, false)
	return c
}

func newTopicsGet(a *app) *cobra.Command {
	return verb("get TOPIC", "Show a topic with the ends of its partitions", cobra.ExactArgs(1), func(c *cobra.Command, args []string) error {
		return one(c.Context(), a, http.MethodGet, at("topics", args[0]), nil, append(topicColumns,
			column[api.Topic]{"ends", func(t api.Topic) string {
				var all []string
				for _, e := range t.Ends {
					all = append(all, fmt.Sprintf("%d:[%d,%d)", e.Partition, e.First, e.End))
				}
				return strings.Join(all, " ")
			}})...)
	})
}

func newTopicsCreate(a *app) *cobra.Command {
	var partitions int
	var retention string
	c := verb("create TOPIC", "Make a topic, or change one", cobra.ExactArgs(1), func(c *cobra.Command, args []string) error {
		var b api.TopicRequest
		if c.Flags().Changed("partitions") {
			b.Partitions = &partitions
		}
		if c.Flags().Changed("retention") {
			d, err := api.ParseDuration(retention)
			if err != nil {
				return usageErrorf("--retention %s is not a duration such as 168h", retention)
			}
			keep := api.Duration(d)
			b.Retention = &keep
		}
		return one(c.Context(), a, http.MethodPut, at("topics", args[0]), b, topicColumns...)
	})
	c.Flags().IntVar(&partitions, "partitions", 0, "how many partitions; more can be added later, none taken away (default 16)")
	c.Flags().StringVar(&retention, "retention", "", "how long records are kept, such as 168h; 0s is for ever (default for ever)")
	return c
}

func newTopicsDelete(a *app) *cobra.Command {
	return verb("delete TOPIC", "Delete a topic with all that is on it", cobra.ExactArgs(1), func(c *cobra.Command, args []string) error {
		return deleted(c.Context(), a, at("topics", args[0]))
	})
}

// tailWait is how long one look at a partition waits for what comes next.
const tailWait = "20s"

func newTail(a *app) *cobra.Command {
	t := tail{app: a}
	c := verb("tail TOPIC", "Print the events of a topic", cobra.ExactArgs(1), func(c *cobra.Command, args []string) error {
		t.topic = args[0]
		return t.run(c.Context())
	})
	c.Long = "Print the events of a topic, partition by partition in the order of their offsets. With --follow it then waits for more,\n" +
		"until it is stopped. With -o jsonl, a line an event."
	c.Flags().StringVar(&t.from, "from", "", `an offset, a time (RFC 3339) or "end" (default the first there is)`)
	c.Flags().BoolVarP(&t.follow, "follow", "f", false, "wait for more")
	c.Flags().StringVar(&t.key, "key", "", "only events of this routing key, in its one partition")
	c.Flags().IntVar(&t.partition, "partition", -1, "only this partition (default all)")
	return c
}

// tail reads topics for a person.
type tail struct {
	app              *app
	client           *client
	topic, from, key string
	follow           bool
	partition        int
}

// tailed is one record as it is printed.
type tailed struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	api.TopicEvent
}

func (t *tail) run(ctx context.Context) error {
	var err error
	if t.client, err = t.app.client(); err != nil {
		return err
	}
	var topic api.Topic
	if _, err := t.client.call(ctx, http.MethodGet, at("topics", t.topic), nil, &topic); err != nil {
		return err
	}
	partitions := make([]int32, 0, topic.Partitions)
	switch {
	case t.key != "":
		partitions = append(partitions, log.KeyPartition(t.key, topic.Partitions))
	case t.partition >= 0:
		partitions = append(partitions, int32(t.partition))
	default:
		for p := range int32(topic.Partitions) {
			partitions = append(partitions, p)
		}
	}
	return t.read(ctx, partitions)
}

// read prints what there is of all partitions, then follows them side by side.
func (t *tail) read(ctx context.Context, partitions []int32) error {
	next := map[int32]string{}
	for _, p := range partitions {
		from := t.from
		for {
			events, err := t.page(ctx, p, from, "0s")
			if err != nil {
				return err
			}
			if err := t.print(events); err != nil {
				return err
			}
			from = whole(events.Next)
			if len(events.Items) == 0 {
				break
			}
		}
		next[p] = from
	}
	if !t.follow {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type got struct {
		events api.TopicEvents
		err    error
	}
	came := make(chan got)
	for _, p := range partitions {
		go func(from string) {
			for {
				events, err := t.page(ctx, p, from, tailWait)
				select {
				case came <- got{events, err}:
				case <-ctx.Done():
					return
				}
				from = whole(events.Next)
			}
		}(next[p])
	}
	for {
		select {
		case g := <-came:
			if g.err != nil {
				return g.err
			}
			if err := t.print(g.events); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func (t *tail) page(ctx context.Context, p int32, from, wait string) (events api.TopicEvents, err error) {
	q := query{"partition", whole(p), "from", from, "wait", wait, "pageSize", whole(api.PageSizeMax)}
	_, err = t.client.call(ctx, http.MethodGet, at("topics", t.topic, "events")+q.String(), nil, &events)
	if ctx.Err() != nil {
		err = errors.Join(err, ctx.Err())
	}
	return events, err
}

func (t *tail) print(events api.TopicEvents) error {
	for _, e := range events.Items {
		if t.key != "" && (e.Event == nil || e.Event.Key != t.key) {
			continue
		}
		if t.app.format != "table" {
			if err := t.app.printLine(tailed{events.Topic, events.Partition, e}); err != nil {
				return err
			}
			continue
		}
		what := "not a CloudEvent"
		if e.Event != nil {
			what = fmt.Sprintf("%s  %s  %s  %s", e.Event.Type, e.Event.Key, e.Event.ID, e.Event.Data)
		} else if e.Record != nil {
			what += ": " + e.Record.Key + " " + e.Record.Value
		}
		if _, err := fmt.Fprintf(t.app.stdout, "%d/%d  %s  %s\n", events.Partition, e.Offset, when(e.Time), cell(what)); err != nil {
			return err
		}
	}
	return nil
}
