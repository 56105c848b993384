package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"

	"github.com/remitlog/remit/cmd/remit/api"
	"github.com/remitlog/remit/log"
)

func newMessages(a *app) *cobra.Command {
	return group("messages", "Send transactional messages, and decide them",
		newMessagesSend(a), newMessagesGet(a), newMessagesList(a),
		newMessagesDo(a, "commit", "Commit a half message: it becomes visible"),
		newMessagesDo(a, "rollback", "Roll a half message back: it will never be visible"),
		newMessagesDo(a, "check", "Have the producer of an undecided message asked now"),
		newMessagesDo(a, "resume", "Put a parked message back: its producer is asked anew"))
}

var messageColumns = []column[api.Message]{
	{"id", func(m api.Message) string { return m.ID.String() }},
	{"event", func(m api.Message) string { return m.Name }},
	{"topic", func(m api.Message) string { return m.Topic }},
	{"producer", func(m api.Message) string { return m.Producer }},
	{"key", func(m api.Message) string { return m.Key }},
	{"state", func(m api.Message) string { return m.State }},
	{"decided by", func(m api.Message) string { return m.DecidedBy }},
	{"reason", func(m api.Message) string { return m.Reason }},
	{"checks", func(m api.Message) string { return whole(m.Checks) }},
	{"next check", func(m api.Message) string { return when(m.NextCheckAt) }},
	{"attention", attention},
	{"prepared", func(m api.Message) string { return when(m.PreparedAt) }},
	{"delivered", func(m api.Message) string {
		switch d := m.DeliveredAt; {
		case d == nil:
			return ""
		case d.Offset == nil:
			return fmt.Sprintf("partition %d", d.Partition)
		default:
			return fmt.Sprintf("partition %d, offset %d", d.Partition, *d.Offset)
		}
	}},
}

// attention is why a person should look at a message.
func attention(m api.Message) string {
	var why []string
	if m.Stuck {
		why = append(why, "stuck")
	}
	if m.Unreachable {
		why = append(why, "unreachable")
	}
	return strings.Join(why, ", ")
}

// saidNow is what the producer said, where it was asked now.
func saidNow(m api.Message) string {
	switch c := m.Check; {
	case c == nil:
		return ""
	case c.Verdict == "":
		return "no answer: " + c.Error
	case c.Reason != "":
		return c.Verdict + ": " + c.Reason
	default:
		return c.Verdict
	}
}

// sending are the flags of `messages send`.
type sending struct {
	producer, id, source, typ, subject, key, data, contentType string
	remitID, deliverAt, deliverAfter, checkAfter               string
	commit                                                     bool
}

func newMessagesSend(a *app) *cobra.Command {
	var s sending
	c := verb("send TOPIC", "Store a half message", cobra.ExactArgs(1), func(c *cobra.Command, args []string) error {
		return a.sendMessage(c, args[0], &s)
	})
	c.Long = "Store a half message: durable, and invisible until it is committed. With --commit it is committed at once.\n" +
		"The same --id from the same --source is the same message."
	f := c.Flags()
	f.StringVar(&s.producer, "producer", "", "the registered producer that decides it")
	f.StringVar(&s.id, "id", "", "the id of the event, unique within its source")
	f.StringVar(&s.source, "source", "/remit-cli", "the source of the event")
	f.StringVar(&s.typ, "type", "", "the type of the event, such as com.example.order.placed")
	f.StringVar(&s.subject, "subject", "", "the subject of the event")
	f.StringVar(&s.key, "key", "", "the routing key: messages of one key keep their order (default the event's id)")
	f.StringVar(&s.data, "data", "", "the data of the event; - reads it from stdin")
	f.StringVar(&s.contentType, "content-type", log.JSONContentType, "what the data is")
	f.StringVar(&s.remitID, "remit-id", "", "a remit id for the message, in the slot of its key")
	f.StringVar(&s.deliverAt, "deliver-at", "", "deliver it at this time, RFC 3339")
	f.StringVar(&s.deliverAfter, "deliver-after", "", "deliver it so long after the commit, such as 30s")
	f.StringVar(&s.checkAfter, "check-after", "", "ask the producer so long after now if it stays silent, such as 30s")
	f.BoolVar(&s.commit, "commit", false, "commit it at once")
	needed(c, "producer", "type")
	c.MarkFlagsMutuallyExclusive("deliver-at", "deliver-after")
	return c
}

func (a *app) sendMessage(c *cobra.Command, topic string, s *sending) error {
	if s.id == "" {
		s.id = log.NewID(time.Now(), "").String()
		a.say("remit: the event's id is %s; to repeat this safely, give it as --id", s.id)
	}
	e := log.Event{ID: s.id, Source: s.source, Type: s.typ, Subject: s.subject, Key: s.key, Time: time.Now().UTC(), Extensions: map[string]any{}}
	for name, value := range map[string]string{"remitid": s.remitID, "deliverat": s.deliverAt, "deliverafter": s.deliverAfter, "checkafter": s.checkAfter} {
		if value != "" {
			e.Extensions[name] = value
		}
	}
	switch {
	case s.data == "-":
		b, err := io.ReadAll(a.stdin)
		if err != nil {
			return fmt.Errorf("stdin: %w", err)
		}
		e.Data, e.DataContentType = b, s.contentType
	case s.data != "":
		e.Data, e.DataContentType = []byte(s.data), s.contentType
	}
	if err := e.Validate(); err != nil {
		return usageErrorf("%w", err)
	}
	body, err := e.MarshalStructured()
	if err != nil {
		return usageErrorf("%w", err)
	}
	client, err := a.client()
	if err != nil {
		return err
	}
	resp, err := client.send(c.Context(), http.MethodPost, at("topics", topic, "messages")+query{"producer", s.producer}.String(), log.StructuredContentType, bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var m api.Message
	if err := json.UnmarshalRead(io.LimitReader(resp.Body, answerBytesMax), &m); err != nil {
		return fmt.Errorf("the answer cannot be read: %w", err)
	}
	if !s.commit {
		return printOne(a, m, messageColumns...)
	}
	return one(c.Context(), a, http.MethodPost, at("messages", m.ID.String(), "commit"), nil, messageColumns...)
}

// newMessagesDo is what a person does about one message. Why is needed: the next one who looks has nothing else to go by.
func newMessagesDo(a *app, use, short string) *cobra.Command {
	var b struct {
		Reason string `json:"reason"`
	}
	c := verb(use+" ID", short, cobra.ExactArgs(1), func(c *cobra.Command, args []string) error {
		if strings.TrimSpace(b.Reason) == "" {
			return usageErrorf("--reason is empty; say why: it stands in the message's history")
		}
		return one(c.Context(), a, http.MethodPost, at("messages", args[0], use), b, append(messageColumns, column[api.Message]{"heard", saidNow})...)
	})
	c.Flags().StringVar(&b.Reason, "reason", "", "why; it is in the message's history")
	needed(c, "reason")
	return c
}

func newMessagesGet(a *app) *cobra.Command {
	c := verb("get ID", "Show a message with its history", cobra.ExactArgs(1), func(c *cobra.Command, args []string) error {
		client, err := a.client()
		if err != nil {
			return err
		}
		var m api.Message
		if _, err := client.call(c.Context(), http.MethodGet, at("messages", args[0]), nil, &m); err != nil {
			return err
		}
		err = printOne(a, m, append(messageColumns, column[api.Message]{"content", func(m api.Message) string { return string(m.Event) }})...)
		if err != nil || a.format != "table" {
			return err
		}
		return printHistory(a, m.History)
	})
	c.Aliases = []string{"show"}
	return c
}

func newMessagesList(a *app) *cobra.Command {
	var state, producer, topic, key, source, eventID, subject string
	var stuck bool
	var l listFlags
	c := verb("list", "List messages", cobra.NoArgs, func(c *cobra.Command, _ []string) error {
		q := append(l.span(), "state", state, "producer", producer, "topic", topic, "key", key, "source", source, "eventId", eventID, "subject", subject)
		if stuck {
			q = append(q, "stuck", "true")
		}
		return listed(c.Context(), a, at("messages"), q, l.limit, messageColumns...)
	})
	f := c.Flags()
	f.StringVar(&state, "state", "", "prepared, committed, delivered, rolledback, dropped or parked")
	f.BoolVar(&stuck, "stuck", false, "whose producer stays silent past its deadline")
	f.StringVar(&producer, "producer", "", "of this producer")
	f.StringVar(&topic, "topic", "", "for this topic")
	f.StringVar(&key, "key", "", "of this routing key")
	f.StringVar(&source, "source", "", "whose event is from this source")
	f.StringVar(&eventID, "event-id", "", "whose event has this id")
	f.StringVar(&subject, "subject", "", "whose event has this subject")
	l.add(c, true)
	return c
}
