package main

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"github.com/remitlog/remit/cmd/remit/api"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/saga/accounts"
)

func newStory(a *app) *cobra.Command {
	c := verb("story X", "Tell all that the log has about something, as a tree of causes", cobra.ExactArgs(1), func(c *cobra.Command, args []string) error {
		client, err := a.client()
		if err != nil {
			return err
		}
		var s api.Story
		if _, err := client.call(c.Context(), http.MethodGet, at("stories", args[0]), nil, &s); err != nil {
			return err
		}
		if a.format != "table" {
			return printOne(a, s)
		}
		return tellStory(a.stdout, s)
	})
	c.Long = "Tell all that the log has about something, as a tree of causes. X is an id, a name or a reference; the id of an event;\n" +
		"or ACCOUNT/ID of a deposit or withdrawal."
	return c
}

// told is one event of a story with those that came of it.
type told struct {
	typ    string
	text   string
	depth  int
	causes []*told
}

// tellStory prints a story: under each event those that it brought about, and a refund under the payment that it is of.
func tellStory(w io.Writer, s api.Story) error {
	if _, err := fmt.Fprintf(w, "%s  %s\n", plain(s.Of), idsOf(s.IDs)); err != nil {
		return err
	}
	var roots []*told
	last := map[string][]*told{} // of each activity or message, the latest event at each depth
	for _, e := range s.Events {
		f := readFact(e)
		t := &told{typ: e.Type, text: cell(fmt.Sprintf("%s  %s", when(e.At), f.String())), depth: depthOf(e.Type)}
		parent := above(last[f.of], t.depth)
		if parent == nil && f.Parent != "" { // a refund's beginning hangs on what paid
			parent = decisionOf(last[f.Parent])
		}
		if parent == nil {
			roots = append(roots, t)
		} else {
			parent.causes = append(parent.causes, t)
		}
		last[f.of] = append(last[f.of], t)
	}
	for i, r := range roots {
		if err := printTold(w, r, "", i == len(roots)-1); err != nil {
			return err
		}
	}
	if s.More {
		_, err := fmt.Fprintf(w, "… and more of the same reference: list them with `remit payments list --reference %q`\n", plain(s.Of))
		return err
	}
	return nil
}

func idsOf(ids []log.ID) string {
	if len(ids) == 0 {
		return ""
	}
	if len(ids) == 1 {
		return ids[0].String()
	}
	return fmt.Sprintf("%s and %d more", ids[0], len(ids)-1)
}

// above is the latest event that is less deep.
func above(events []*told, depth int) *told {
	for _, t := range slices.Backward(events) {
		if t.depth < depth {
			return t
		}
	}
	return nil
}

// decisionOf is the event that decided an activity.
func decisionOf(events []*told) *told {
	for _, t := range events {
		if t.typ == "remit.activity.decided.v1" {
			return t
		}
	}
	return nil
}

func printTold(w io.Writer, t *told, indent string, last bool) error {
	branch, below := "├─ ", "│  "
	if last {
		branch, below = "└─ ", "   "
	}
	if _, err := fmt.Fprintf(w, "%s%s%s\n", indent, branch, t.text); err != nil {
		return err
	}
	for i, c := range t.causes {
		if err := printTold(w, c, indent+below, i == len(t.causes)-1); err != nil {
			return err
		}
	}
	return nil
}

// How deep the events of one activity or message stand.
const (
	depthNamed = iota
	depthBegun
	depthDecided // and what else came of the beginning
	depthAfter   // what came of the decision
)

func depthOf(eventType string) int {
	switch eventType {
	case "remit.log.named.v1", "remit.account.deposited.v1", "remit.account.withdrawn.v1":
		return depthNamed
	case "remit.activity.begun.v1", "remit.message.prepared.v1":
		return depthBegun
	case "remit.activity.decided.v1", "remit.activity.ended.v1", "remit.message.committed.v1", "remit.message.rolledback.v1",
		"remit.account.held.v1", "remit.account.declined.v1":
		return depthDecided
	default:
		return depthAfter
	}
}

// fact is what a line says of an event, read from its data as far as that is known.
type fact struct {
	api.StoryEvent `json:"-"`
	of             string // the activity or message

	Kind      string         `json:"kind"`
	Name      string         `json:"name"`
	Parent    string         `json:"parent"`
	Reference string         `json:"reference"`
	Outcome   string         `json:"outcome"`
	Reason    string         `json:"reason"`
	Refused   string         `json:"refused"`
	By        string         `json:"by"`
	Topic     string         `json:"topic"`
	Account   string         `json:"account"`
	Currency  string         `json:"currency"`
	Amount    jsontext.Value `json:"amount"` // minor units on the core, a decimal where it was told
	Payer     string         `json:"payer"`
	Payee     string         `json:"payee"`
	Postings  []posting      `json:"postings"`
	Actions   []struct {
		Order struct {
			Side string `json:"side"`
			posting
		} `json:"order"`
	} `json:"actions"`
}

type posting struct {
	Account  string `json:"account"`
	Currency string `json:"currency"`
	Amount   int64  `json:"amount"`
}

func (p posting) String() string { return p.Account + " " + money(p.Amount, p.Currency) }

func money(minor int64, currency string) string {
	c, err := accounts.ParseCurrency(currency)
	if err != nil {
		return fmt.Sprint(minor, " ", currency)
	}
	return accounts.FormatAmount(minor, c) + " " + currency
}

func readFact(e api.StoryEvent) fact {
	f := fact{StoryEvent: e}
	event, err := log.ParseStructured(e.Event)
	if err != nil {
		return f
	}
	f.of = event.Correlation
	_ = json.Unmarshal(event.Data, &f) // what the data of others is, is theirs
	f.StoryEvent = e
	return f
}

// String is one line.
func (f fact) String() string {
	words := []string{shortType(f.Type)}
	switch f.Type {
	case "remit.log.named.v1":
		words = append(words, f.Kind, f.Name)
	case "remit.activity.begun.v1":
		words = append(words, f.Kind)
		for _, a := range f.Actions {
			words = append(words, a.Order.Side, a.Order.posting.String())
		}
		words = append(words, f.Reference, f.Refused)
	case "remit.message.prepared.v1":
		words = append(words, "for "+f.Topic)
	case "remit.payment.paid.v1", "remit.payment.refunded.v1":
		words = append(words, f.Payer, "and", f.Payee+":", strings.Trim(string(f.Amount), `"`), f.Currency)
	default:
		words = append(words, f.Outcome)
		for _, p := range f.Postings {
			if !strings.HasPrefix(p.Account, "@") { // the other side, transit or outside, says nothing to a reader
				words = append(words, p.String())
			}
		}
		if len(f.Postings) == 0 {
			words = append(words, f.Account)
		}
		words = append(words, f.Reason)
	}
	words = append(words, fmt.Sprintf("(%s/%d@%d)", f.StoryEvent.Topic, f.Partition, f.Offset))
	return strings.Join(slices.DeleteFunc(words, func(s string) bool { return s == "" }), " ")
}

// shortType is a type of remit's own without what all of them have.
func shortType(t string) string {
	if inner, ok := strings.CutPrefix(t, "remit."); ok {
		return strings.ReplaceAll(strings.TrimSuffix(inner, ".v1"), ".", " ")
	}
	return t
}
