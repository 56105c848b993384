package main

import (
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/remitlog/remit/cmd/remit/api"
)

func newProducers(a *app) *cobra.Command {
	return group("producers", "Register the producers of messages",
		newProducersSet(a), newProducersGet(a), newProducersList(a), newProducersDelete(a))
}

var producerColumns = []column[api.Producer]{
	{"producer", func(p api.Producer) string { return p.Producer }},
	{"check", func(p api.Producer) string {
		if p.Check == nil {
			return ""
		}
		return p.Check.URL
	}},
	{"schedule", func(p api.Producer) string {
		if p.Check == nil {
			return ""
		}
		return fmt.Sprintf("after %s, then %s to %s, until %s", p.Check.FirstAfter, p.Check.Interval, p.Check.MaxInterval, p.Check.Deadline)
	}},
	{"secret", func(p api.Producer) string {
		if p.Check == nil {
			return ""
		}
		return yes(p.Check.SecretSet)
	}},
	{"precheck", func(p api.Producer) string {
		if p.Precheck == nil {
			return ""
		}
		return p.Precheck.URL
	}},
}

func newProducersSet(a *app) *cobra.Command {
	var check api.CheckRequest
	var precheck api.ProducerCall
	var secretFile string
	durations := map[string]*string{}
	c := verb("set PRODUCER", "Register a producer, or register it anew", cobra.ExactArgs(1), func(c *cobra.Command, args []string) error {
		var b api.ProducerRequest
		if secretFile != "" {
			secret, err := os.ReadFile(secretFile)
			if err != nil {
				return usageErrorf("--check-secret-file: %w", err)
			}
			text := strings.TrimSpace(string(secret))
			check.Secret = &text
		}
		for name, to := range map[string]**api.Duration{
			"check-first-after": &check.FirstAfter, "check-interval": &check.Interval, "check-max-interval": &check.MaxInterval, "check-deadline": &check.Deadline,
		} {
			if *durations[name] == "" {
				continue
			}
			d, err := api.ParseDuration(*durations[name])
			if err != nil {
				return usageErrorf("--%s %s is not a duration such as 10s", name, *durations[name])
			}
			given := api.Duration(d)
			*to = &given
		}
		if check != (api.CheckRequest{}) {
			b.Check = &check
		}
		if precheck != (api.ProducerCall{}) {
			b.Precheck = &precheck
		}
		return one(c.Context(), a, http.MethodPut, at("producers", args[0]), b, producerColumns...)
	})
	c.Long = "Register a producer, or register it anew: what is not given is taken away, the secret aside."
	f := c.Flags()
	f.StringVar(&check.URL, "check-url", "", "where remit asks how a message was decided")
	f.StringVar(&secretFile, "check-secret-file", "", "a file with the secret that remit signs its calls with")
	f.StringVar(&check.When, "check-when", "", "ask only where this holds, in CloudEvents SQL")
	for name, usage := range map[string]string{
		"check-first-after": "when to ask first (default 10s)", "check-interval": "how long until the next (default 10s, doubling)",
		"check-max-interval": "how long at most (default 10m)", "check-deadline": "when to give up at an answered unknown (default 24h)",
	} {
		durations[name] = f.String(name, "", usage)
	}
	f.StringVar(&precheck.URL, "precheck-url", "", "where remit asks before it delivers")
	f.StringVar(&precheck.When, "precheck-when", "", "ask only where this holds, in CloudEvents SQL")
	return c
}

func newProducersGet(a *app) *cobra.Command {
	return verb("get PRODUCER", "Show a producer", cobra.ExactArgs(1), func(c *cobra.Command, args []string) error {
		return one(c.Context(), a, http.MethodGet, at("producers", args[0]), nil, producerColumns...)
	})
}

func newProducersList(a *app) *cobra.Command {
	var l listFlags
	c := verb("list", "List producers", cobra.NoArgs, func(c *cobra.Command, _ []string) error {
		return listed(c.Context(), a, at("producers"), nil, l.limit, producerColumns...)
	})
	l.add(c, false)
	return c
}

func newProducersDelete(a *app) *cobra.Command {
	return verb("delete PRODUCER", "Remove a producer", cobra.ExactArgs(1), func(c *cobra.Command, args []string) error {
		return deleted(c.Context(), a, at("producers", args[0]))
	})
}
