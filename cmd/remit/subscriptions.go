package main

import (
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/remitlog/remit/cmd/remit/api"
)

func newSubscriptions(a *app) *cobra.Command {
	return group("subscriptions", "Send the records of topics to HTTP addresses",
		newSubscriptionsList(a), newSubscriptionsShow(a), newSubscriptionsPut(a), newSubscriptionsDelete(a))
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
	c := verb("show SUBSCRIPTION", "Show a subscription", cobra.ExactArgs(1), func(c *cobra.Command, args []string) error {
		return one(c.Context(), a, http.MethodGet, at("subscriptions", args[0]), nil, subscriptionColumns...)
	})
	c.Aliases, c.ValidArgsFunction = []string{"get"}, completeSubscriptions(a)
	c.Example = "  remit subscriptions show crm -o json"
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
