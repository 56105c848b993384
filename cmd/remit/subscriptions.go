package main

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/remitlog/remit/cmd/remit/api"
)

func newSubscriptions(a *app) *cobra.Command {
	return group("subscriptions", "Send the records of topics to HTTP addresses",
		newSubscriptionsList(a), newSubscriptionsShow(a), newSubscriptionsPut(a), newSubscriptionsResume(a), newSubscriptionsDelete(a))
}

var subscriptionColumns = []column[api.Subscription]{
	{"subscription", func(s api.Subscription) string { return s.Subscription }},
	{"topic", func(s api.Subscription) string { return s.Topic }},
	{"sink", func(s api.Subscription) string { return s.Sink }},
	{"secret", func(s api.Subscription) string { return yes(s.SecretSet) }},
	{"filter", func(s api.Subscription) string { return s.Filter }},
	{"from", func(s api.Subscription) string { return s.From }},
	{"retry", func(s api.Subscription) string {
		return fmt.Sprintf("%s to %s, until %s", s.Retry.Interval, s.Retry.MaxInterval, s.Retry.Deadline)
	}},
	{"state", ofStatus(func(s *api.SubscriptionStatus) string { return s.State })},
	{"lag", ofStatus(func(s *api.SubscriptionStatus) string { return whole(s.Lag) })},
}

// subscriptionDetails are what is shown of one alone.
var subscriptionDetails = []column[api.Subscription]{
	{"since", ofStatus(func(s *api.SubscriptionStatus) string { return when(s.Since) })},
	{"why", ofStatus(func(s *api.SubscriptionStatus) string { return s.Why })},
	{"consent", ofStatus(func(s *api.SubscriptionStatus) string {
		switch {
		case s.Consent == nil:
			return "not asked yet"
		case !s.Consent.Granted:
			return "not granted: " + s.Consent.Why
		case s.Consent.RatePerMinute > 0:
			return fmt.Sprintf("granted, %d a minute", s.Consent.RatePerMinute)
		default:
			return "granted"
		}
	})},
	{"to be sent again", ofStatus(func(s *api.SubscriptionStatus) string { return whole(s.ReplaysWaiting) })},
	{"since the start", ofStatus(func(s *api.SubscriptionStatus) string {
		c := s.Counts
		return fmt.Sprintf("%d delivered, %d failures, %d filtered out, %d parked, %d missed", c.Delivered, c.Failures, c.Filtered, c.Parked, c.Missed)
	})},
	{"last error", ofStatus(func(s *api.SubscriptionStatus) string {
		if s.LastError == nil {
			return ""
		}
		return fmt.Sprintf("%s: %s", when(s.LastError.At), s.LastError.Error)
	})},
	{"failing keys", ofStatus(func(s *api.SubscriptionStatus) string {
		if s.FailingKeys == 0 {
			return ""
		}
		var all []string
		for _, f := range s.Failing {
			all = append(all, fmt.Sprintf("%q at %s/%d/%d, %d attempts since %s", f.Key, f.Topic, f.Partition, f.Offset, f.Attempts, when(f.Since)))
		}
		return fmt.Sprintf("%d: %s", s.FailingKeys, strings.Join(all, "; "))
	})},
}

func ofStatus(value func(*api.SubscriptionStatus) string) func(api.Subscription) string {
	return func(s api.Subscription) string {
		if s.Status == nil {
			return ""
		}
		return value(s.Status)
	}
}

// completeSubscriptions completes the name of a subscription.
func completeSubscriptions(a *app) cobra.CompletionFunc {
	return completeFrom(a, 0, func([]string) string { return at("subscriptions") }, func(s api.Subscription) string { return s.Subscription })
}

func newSubscriptionsPut(a *app) *cobra.Command {
	var b api.SubscriptionRequest
	var retry api.RetryRequest
	var secret secretFlags
	c := verb("put SUBSCRIPTION", "Register a subscription, or register it anew", cobra.ExactArgs(1), func(c *cobra.Command, args []string) (err error) {
		if b.Secret, err = secret.read(); err != nil {
			return err
		}
		if retry != (api.RetryRequest{}) {
			b.Retry = &retry
		}
		return one(c.Context(), a, http.MethodPut, at("subscriptions", args[0]), b, subscriptionColumns...)
	})
	c.ValidArgsFunction = completeSubscriptions(a)
	c.Long = "Register a subscription, or register it anew: what is not given is as by default, the secret aside. Its topic, and the record that it began\n" +
		"with, never change: register another one for that. A secret that changes signs beside the one before for 24 hours."
	c.Example = "  remit subscriptions put crm --topic orders --sink https://crm.example/in --secret-file secret.txt\n" +
		"  remit subscriptions put audit --topic payments --sink https://audit.example/in --from earliest --filter \"type = 'remit.payment.paid.v1'\""
	f := c.Flags()
	f.StringVar(&b.Topic, "topic", "", "the topic whose records are sent")
	f.StringVar(&b.Sink, "sink", "", "where they are sent")
	secret.add(a, c, "secret", "deliveries")
	f.StringVar(&b.Filter, "filter", "", "send only what this holds for, in CloudEvents SQL")
	f.StringVar(&b.From, "from", "", "where a new one begins: latest, with what comes, or earliest, with all that there is (default latest)")
	_ = c.RegisterFlagCompletionFunc("from", cobra.FixedCompletions([]string{"latest", "earliest"}, cobra.ShellCompDirectiveNoFileComp)) // the flag is there
	f.Var(durationFlag{&retry.Interval}, "retry-interval", "how long until a delivery that failed is tried again (default 1s, doubling)")
	f.Var(durationFlag{&retry.MaxInterval}, "retry-max-interval", "how long at most (default 10m)")
	f.Var(durationFlag{&retry.Deadline}, "retry-deadline", "when to park it (default 24h)")
	for _, name := range []string{"topic", "sink"} {
		_ = c.MarkFlagRequired(name) // the flag is there
	}
	return c
}

func newSubscriptionsShow(a *app) *cobra.Command {
	c := verb("show SUBSCRIPTION", "Show a subscription, and how it stands", cobra.ExactArgs(1), func(c *cobra.Command, args []string) error {
		return one(c.Context(), a, http.MethodGet, at("subscriptions", args[0]), nil, append(subscriptionColumns, subscriptionDetails...)...)
	})
	c.Aliases, c.ValidArgsFunction = []string{"get"}, completeSubscriptions(a)
	c.Example = "  remit subscriptions show crm -o json"
	return c
}

func newSubscriptionsResume(a *app) *cobra.Command {
	var b api.ResumeRequest
	c := verb("resume SUBSCRIPTION", "Let a paused subscription go on", cobra.ExactArgs(1), func(c *cobra.Command, args []string) error {
		return one(c.Context(), a, http.MethodPost, at("subscriptions", args[0], "resume"), b, append(subscriptionColumns, subscriptionDetails...)...)
	})
	c.ValidArgsFunction = completeSubscriptions(a)
	c.Long = "Let a paused subscription go on: one whose sink has said that it is gone (410). Its sink is asked for consent again. Nothing was lost: what it\n" +
		"missed is delivered."
	c.Example = "  remit subscriptions resume crm --reason 'the address is served again'"
	c.Flags().StringVar(&b.Reason, "reason", "", "why; it stands on the log")
	needed(c, "reason")
	return c
}

func newSubscriptionsList(a *app) *cobra.Command {
	var l listFlags
	c := verb("list", "List subscriptions by name", cobra.NoArgs, func(c *cobra.Command, _ []string) error {
		return listed(c.Context(), a, at("subscriptions"), nil, l.limit, subscriptionColumns...)
	})
	c.Example = "  remit subscriptions list --limit 0 -o jsonl"
	l.addByName(c)
	return c
}

func newSubscriptionsDelete(a *app) *cobra.Command {
	c := verb("delete SUBSCRIPTION", "Remove a subscription", cobra.ExactArgs(1), func(c *cobra.Command, args []string) error {
		return deleted(c.Context(), a, at("subscriptions", args[0]))
	})
	c.ValidArgsFunction = completeSubscriptions(a)
	c.Long = "Remove a subscription: nothing more is sent. What it has parked stays on the topic's .parked, and how far it had come is forgotten: one of the\n" +
		"same name that is registered later is another one."
	c.Example = "  remit subscriptions delete crm"
	return c
}
