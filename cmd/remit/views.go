package main

import (
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/remitlog/remit/cmd/remit/api"
)

func newViews(a *app) *cobra.Command {
	return group("views", "Look at the views: how far they are, and what they answer",
		newViewsStatus(a),
		group("query", "Ask a view", newQueryTransaction(a), newQueryRecords(a), newQueryMerchant(a), newQuerySummary(a)))
}

func newViewsStatus(a *app) *cobra.Command {
	var digest bool
	c := verb("status", "Show how far each view is", cobra.NoArgs, func(c *cobra.Command, _ []string) error {
		q := query{"digest", "false"}
		if digest {
			q = nil
		}
		client, err := a.client()
		if err != nil {
			return err
		}
		var all api.List[api.View]
		if _, err := client.call(c.Context(), http.MethodGet, at("views")+q.String(), nil, &all); err != nil {
			return err
		}
		columns := []column[api.View]{
			{"view", func(v api.View) string { return v.View }},
			{"generation", func(v api.View) string { return v.Generation }},
			{"behind", func(v api.View) string {
				if v.LagRecords == 0 {
					return "nothing"
				}
				return fmt.Sprintf("%d records, %.1f s", v.LagRecords, v.LagSeconds)
			}},
			{"position", func(v api.View) string { return v.Position }},
		}
		if digest {
			columns = append(columns, column[api.View]{"digest", func(v api.View) string { return v.Digest }})
		}
		return printList(a, all.Items, columns...)
	})
	c.Flags().BoolVar(&digest, "digest", false, "with digests: each row of a view that has moved is read")
	return c
}

func newQueryTransaction(a *app) *cobra.Command {
	return verb("transaction ID", "Show a payment or refund with its history", cobra.ExactArgs(1), func(c *cobra.Command, args []string) error {
		client, err := a.client()
		if err != nil {
			return err
		}
		var t api.TransactionView
		if _, err := client.call(c.Context(), http.MethodGet, at("views", "transactions", args[0]), nil, &t); err != nil {
			return err
		}
		if a.format != "table" {
			return printOne(a, t)
		}
		if err := printOne(a, t.Payment, paymentColumns...); err != nil {
			return err
		}
		return printHistory(a, t.History)
	})
}

// printHistory prints a history below what it is of.
func printHistory(a *app, history []api.Step) error {
	_, _ = fmt.Fprintln(a.stdout)
	return printList(a, history,
		column[api.Step]{"at", func(s api.Step) string { return when(s.At) }},
		column[api.Step]{"what", func(s api.Step) string { return s.Type }},
		column[api.Step]{"by", func(s api.Step) string { return s.By }},
		column[api.Step]{"detail", func(s api.Step) string { return s.Detail }})
}

func newQueryRecords(a *app) *cobra.Command {
	var kind, state string
	var l listFlags
	c := verb("records CONSUMER", "List what a consumer paid and received", cobra.ExactArgs(1), func(c *cobra.Command, args []string) error {
		return listed(c.Context(), a, at("views", "consumers", args[0], "records"), append(l.span(), "kind", kind, "state", state), l.limit,
			column[api.Record]{"at", func(r api.Record) string { return when(r.At) }},
			column[api.Record]{"kind", func(r api.Record) string { return r.Kind }},
			column[api.Record]{"counterparty", func(r api.Record) string { return r.Counterparty }},
			column[api.Record]{"amount", func(r api.Record) string { return r.Amount + " " + r.Currency }},
			column[api.Record]{"state", func(r api.Record) string { return r.State }},
			column[api.Record]{"id", func(r api.Record) string { return r.ID }})
	})
	c.Flags().StringVar(&kind, "kind", "", "payment, receipt, refund, giveback, deposit or withdrawal")
	c.Flags().StringVar(&state, "state", "", "paid, refused or voided")
	l.add(c, true)
	return c
}

func newQueryMerchant(a *app) *cobra.Command {
	var state, least, most string
	var l listFlags
	c := verb("merchant MERCHANT", "List what a merchant was paid and gave back", cobra.ExactArgs(1), func(c *cobra.Command, args []string) error {
		q := append(l.span(), "state", state, "minAmount", least, "maxAmount", most)
		return listed(c.Context(), a, at("views", "merchants", args[0], "transactions"), q, l.limit,
			column[api.Transaction]{"at", func(t api.Transaction) string { return when(t.At) }},
			column[api.Transaction]{"kind", func(t api.Transaction) string { return t.Kind }},
			column[api.Transaction]{"consumer", func(t api.Transaction) string { return t.Consumer }},
			column[api.Transaction]{"amount", func(t api.Transaction) string { return t.Amount + " " + t.Currency }},
			column[api.Transaction]{"refunded", func(t api.Transaction) string { return t.Refunded }},
			column[api.Transaction]{"reference", func(t api.Transaction) string { return t.Reference }},
			column[api.Transaction]{"id", func(t api.Transaction) string { return t.ID.String() }})
	})
	c.Flags().StringVar(&state, "state", "", "paid or refunded")
	c.Flags().StringVar(&least, "min-amount", "", "of at least this amount")
	c.Flags().StringVar(&most, "max-amount", "", "of at most this amount")
	l.add(c, true)
	return c
}

func newQuerySummary(a *app) *cobra.Command {
	var l listFlags
	c := verb("summary MERCHANT", "Sum up what a merchant was paid, by UTC day and currency", cobra.ExactArgs(1), func(c *cobra.Command, args []string) error {
		return listed(c.Context(), a, at("views", "merchants", args[0], "summary"), l.span(), l.limit,
			column[api.Day]{"day", func(d api.Day) string { return d.Day }},
			column[api.Day]{"currency", func(d api.Day) string { return d.Currency }},
			column[api.Day]{"count", func(d api.Day) string { return whole(d.Count) }},
			column[api.Day]{"gross", func(d api.Day) string { return d.Gross }},
			column[api.Day]{"refunded", func(d api.Day) string { return d.Refunded }},
			column[api.Day]{"net", func(d api.Day) string { return d.Net }})
	})
	c.Long = "Sum up what a merchant was paid, by UTC day and currency. Days are summed whole, also those that --from or --to divide."
	l.add(c, true)
	return c
}
