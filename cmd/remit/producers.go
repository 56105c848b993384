package main

import (
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/remitlog/remit/cmd/remit/api"
)

func newProducers(a *app) *cobra.Command {
	return group("producers", "Register the producers of messages, and their instances",
		newProducersList(a), newProducersShow(a), newProducersPut(a), newProducersDelete(a), newInstances(a))
}

var producerColumns = []column[api.Producer]{
	{"producer", func(p api.Producer) string { return p.Producer }},
	{"check", func(p api.Producer) string {
		switch {
		case p.Check == nil:
			return ""
		case p.Check.URL == "":
			return "instances"
		default:
			return p.Check.URL
		}
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

// completeProducers completes the name of a producer.
func completeProducers(a *app) cobra.CompletionFunc {
	return completeFrom(a, 0, func([]string) string { return at("producers") }, func(p api.Producer) string { return p.Producer })
}

// putProducer is what a producer is put with.
type putProducer struct {
	check                       api.CheckRequest
	precheck                    api.PrecheckRequest
	checkSecret, precheckSecret secretFlags
}

func (p *putProducer) request() (b api.ProducerRequest, err error) {
	if err := once(&p.checkSecret, &p.precheckSecret); err != nil {
		return b, err
	}
	if p.check.Secret, err = p.checkSecret.read(); err != nil {
		return b, err
	}
	if p.precheck.Secret, err = p.precheckSecret.read(); err != nil {
		return b, err
	}
	if p.check != (api.CheckRequest{}) {
		b.Check = &p.check
	}
	if p.precheck != (api.PrecheckRequest{}) {
		b.Precheck = &p.precheck
	}
	return b, nil
}

func newProducersPut(a *app) *cobra.Command {
	var p putProducer
	c := verb("put PRODUCER", "Register a producer, or register it anew", cobra.ExactArgs(1), func(c *cobra.Command, args []string) error {
		b, err := p.request()
		if err != nil {
			return err
		}
		return one(c.Context(), a, http.MethodPut, at("producers", args[0]), b, producerColumns...)
	})
	c.Aliases, c.ValidArgsFunction = []string{"set"}, completeProducers(a)
	c.Long = "Register a producer, or register it anew: what is not given is taken away, but for a secret, which goes only with all of\n" +
		"its check, or pre-check. A secret that changes signs beside the one before for 24 hours, so that whoever checks signatures may change it\n" +
		"meanwhile. Messages that were stored keep the schedule that they were stored with."
	c.Example = "  remit producers put shop --check-url https://shop.example/check --check-secret-file secret.txt\n" +
		"  openssl rand -hex 32 | remit producers put shop --check-url https://shop.example/check --check-secret-file -\n" +
		"  remit producers put shop --check-interval 1m --check-when 'remitproducers > 0'   # asked at its instances alone"
	f := c.Flags()
	f.StringVar(&p.check.URL, "check-url", "", "where remit asks how a message was decided; without, its instances alone are asked")
	p.checkSecret.add(a, c, "check-secret", "checks")
	f.StringVar(&p.check.When, "check-when", "", "ask only where this holds, in CloudEvents SQL")
	f.Var(durationFlag{&p.check.FirstAfter}, "check-first-after", "when to ask first (default 10s)")
	f.Var(durationFlag{&p.check.Interval}, "check-interval", "how long until the next (default 10s, doubling)")
	f.Var(durationFlag{&p.check.MaxInterval}, "check-max-interval", "how long at most (default 10m)")
	f.Var(durationFlag{&p.check.Deadline}, "check-deadline", "when to give up at an answered unknown (default 24h)")
	f.Var(numberFlag{&p.check.Concurrency}, "concurrency", "how many checks are under way at once, and pre-checks beside them (default 16)")
	f.Var(numberFlag{&p.check.Rate}, "rate", "how many checks begin in a second, and pre-checks beside them (default no limit)")
	f.StringVar(&p.precheck.URL, "precheck-url", "", "where remit asks before it delivers")
	p.precheckSecret.add(a, c, "precheck-secret", "pre-checks, if it is not that of checks")
	f.StringVar(&p.precheck.When, "precheck-when", "", "ask only where this holds, in CloudEvents SQL")
	return c
}

func newProducersShow(a *app) *cobra.Command {
	c := verb("show PRODUCER", "Show a producer", cobra.ExactArgs(1), func(c *cobra.Command, args []string) error {
		return one(c.Context(), a, http.MethodGet, at("producers", args[0]), nil, producerColumns...)
	})
	c.Aliases, c.ValidArgsFunction = []string{"get"}, completeProducers(a)
	c.Example = "  remit producers show shop -o json"
	return c
}

func newProducersList(a *app) *cobra.Command {
	var l listFlags
	c := verb("list", "List producers by name", cobra.NoArgs, func(c *cobra.Command, _ []string) error {
		return listed(c.Context(), a, at("producers"), nil, l.limit, producerColumns...)
	})
	c.Example = "  remit producers list --limit 0 -o jsonl"
	l.addByName(c)
	return c
}

func newProducersDelete(a *app) *cobra.Command {
	c := verb("delete PRODUCER", "Remove a producer and its instances", cobra.ExactArgs(1), func(c *cobra.Command, args []string) error {
		return deleted(c.Context(), a, at("producers", args[0]))
	})
	c.ValidArgsFunction = completeProducers(a)
	c.Long = "Remove a producer and its instances. Its undecided messages stay: they are listed, and unreachable until a producer of this name is\n" +
		"registered again. Commit them or roll them back by hand, or register it again."
	c.Example = "  remit messages list --producer shop --state prepared\n  remit producers delete shop"
	return c
}

func newInstances(a *app) *cobra.Command {
	return group("instances", "Register the instances of a producer", newInstancesList(a), newInstancesPut(a), newInstancesDelete(a))
}

var instanceColumns = []column[api.Instance]{
	{"producer", func(i api.Instance) string { return i.Producer }},
	{"instance", func(i api.Instance) string { return i.Instance }},
	{"url", func(i api.Instance) string { return i.URL }},
	{"lease", func(i api.Instance) string { return i.Lease.String() }},
}

// completeInstances completes the name of a producer, and then that of an instance of it.
func completeInstances(a *app) cobra.CompletionFunc {
	producers := completeProducers(a)
	instances := completeFrom(a, 1, func(args []string) string { return at("producers", args[0], "instances") }, func(i api.Instance) string { return i.Instance })
	return func(c *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return producers(c, args, word)
		}
		return instances(c, args, word)
	}
}

func newInstancesList(a *app) *cobra.Command {
	var l listFlags
	c := verb("list PRODUCER", "List the instances of a producer whose lease has not ended", cobra.ExactArgs(1), func(c *cobra.Command, args []string) error {
		return listed(c.Context(), a, at("producers", args[0], "instances"), nil, l.limit, instanceColumns...)
	})
	c.ValidArgsFunction = completeProducers(a)
	c.Example = "  remit producers instances list shop"
	l.addByName(c)
	return c
}

func newInstancesPut(a *app) *cobra.Command {
	var b api.InstanceRequest
	c := verb("put PRODUCER INSTANCE", "Register an instance, or renew its lease", cobra.ExactArgs(2), func(c *cobra.Command, args []string) error {
		return one(c.Context(), a, http.MethodPut, at("producers", args[0], "instances", args[1]), b, instanceColumns...)
	})
	c.ValidArgsFunction = completeInstances(a)
	c.Long = "Register an instance of a producer, or renew its lease. It is asked while its lease lasts: repeat this three times a lease, and delete it when\n" +
		"the instance stops."
	c.Example = "  remit producers instances put shop shop-1 --url http://10.0.0.1:8080/check --lease 30s"
	c.Flags().StringVar(&b.URL, "url", "", "where this instance is asked")
	c.Flags().Var(durationFlag{&b.Lease}, "lease", "how long it is asked after it was last heard of, 1s to 24h (default 30s)")
	_ = c.MarkFlagRequired("url") // the flag is there
	return c
}

func newInstancesDelete(a *app) *cobra.Command {
	c := verb("delete PRODUCER INSTANCE", "Take an instance away", cobra.ExactArgs(2), func(c *cobra.Command, args []string) error {
		return deleted(c.Context(), a, at("producers", args[0], "instances", args[1]))
	})
	c.ValidArgsFunction = completeInstances(a)
	c.Example = "  remit producers instances delete shop shop-1"
	return c
}
