package main

import (
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/remitlog/remit/cmd/remit/api"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/saga/accounts"
)

func newAccounts(a *app) *cobra.Command {
	return group("accounts", "Open accounts, and move money in and out",
		newAccountsOpen(a), newAccountsGet(a), newAccountsList(a), newAccountsSet(a),
		newCash(a, "deposit", "deposits", "Bring money in from outside"), newCash(a, "withdraw", "withdrawals", "Take money outside"),
		newEntries(a))
}

var accountColumns = []column[api.Account]{
	{"account", func(x api.Account) string { return x.Account }},
	{"currency", func(x api.Account) string { return x.Currency }},
	{"state", func(x api.Account) string { return x.State }},
	{"balance", func(x api.Account) string { return x.Balance }},
	{"held", func(x api.Account) string { return x.Held }},
	{"available", func(x api.Account) string { return x.Available }},
	{"credit limit", func(x api.Account) string { return x.CreditLimit }},
}

func newAccountsOpen(a *app) *cobra.Command {
	var b api.OpenAccount
	var limit string
	c := verb("open ACCOUNT", "Open an account", cobra.ExactArgs(1), func(c *cobra.Command, args []string) error {
		if c.Flags().Changed("credit-limit") {
			b.CreditLimit = &limit
		}
		return one(c.Context(), a, http.MethodPut, at("accounts", args[0]), b, accountColumns...)
	})
	c.Flags().StringVar(&b.Currency, "currency", "", "an ISO 4217 code, such as EUR; it never changes")
	c.Flags().StringVar(&limit, "credit-limit", "", "how far below zero it may go (default 0)")
	needed(c, "currency")
	return c
}

func newAccountsGet(a *app) *cobra.Command {
	return verb("get ACCOUNT", "Show an account", cobra.ExactArgs(1), func(c *cobra.Command, args []string) error {
		return one(c.Context(), a, http.MethodGet, at("accounts", args[0]), nil, accountColumns...)
	})
}

func newAccountsList(a *app) *cobra.Command {
	var currency, state string
	var l listFlags
	c := verb("list", "List accounts", cobra.NoArgs, func(c *cobra.Command, _ []string) error {
		return listed(c.Context(), a, at("accounts"), query{"currency", currency, "state", state}, l.limit, accountColumns...)
	})
	c.Flags().StringVar(&currency, "currency", "", "in this currency")
	c.Flags().StringVar(&state, "state", "", "open, frozen or closed")
	l.add(c, false)
	return c
}

func newAccountsSet(a *app) *cobra.Command {
	var state, limit string
	c := verb("set ACCOUNT", "Freeze, close or open an account again, or set its credit limit", cobra.ExactArgs(1), func(c *cobra.Command, args []string) error {
		var b api.ChangeAccount
		if c.Flags().Changed("state") {
			b.State = (*accounts.State)(&state)
		}
		if c.Flags().Changed("credit-limit") {
			b.CreditLimit = &limit
		}
		return one(c.Context(), a, http.MethodPatch, at("accounts", args[0]), b, accountColumns...)
	})
	c.Flags().StringVar(&state, "state", "", "open, frozen or closed")
	c.Flags().StringVar(&limit, "credit-limit", "", "how far below zero it may go")
	c.MarkFlagsOneRequired("state", "credit-limit")
	return c
}

func newCash(a *app, use, path, short string) *cobra.Command {
	var b api.CashRequest
	c := verb(use+" ACCOUNT", short, cobra.ExactArgs(1), func(c *cobra.Command, args []string) error {
		if b.ID == "" {
			b.ID = use + "-" + log.NewID(time.Now(), "").String()
			a.say("remit: the id is %s; to repeat this safely, give it as --id", b.ID)
		}
		return one(c.Context(), a, http.MethodPost, at("accounts", args[0], path), b,
			column[api.Cash]{"id", func(x api.Cash) string { return x.ID }},
			column[api.Cash]{"account", func(x api.Cash) string { return x.Account }},
			column[api.Cash]{"amount", func(x api.Cash) string { return x.Amount + " " + x.Currency }},
			column[api.Cash]{"balance", func(x api.Cash) string { return x.Balance }},
			column[api.Cash]{"at", func(x api.Cash) string { return when(x.At) }})
	})
	c.Flags().StringVar(&b.ID, "id", "", "your own name for it under the account: with it a repeat is safe")
	c.Flags().StringVar(&b.Amount, "amount", "", "in major units, such as 12.50")
	needed(c, "amount")
	return c
}

func newEntries(a *app) *cobra.Command {
	var l listFlags
	c := verb("entries ACCOUNT", "List the postings of an account, each with the balance after it", cobra.ExactArgs(1), func(c *cobra.Command, args []string) error {
		return listed(c.Context(), a, at("accounts", args[0], "entries"), l.span(), l.limit,
			column[api.Entry]{"at", func(e api.Entry) string { return when(e.At) }},
			column[api.Entry]{"kind", func(e api.Entry) string { return e.Kind }},
			column[api.Entry]{"of", func(e api.Entry) string {
				if e.ID != nil {
					return e.ID.String()
				}
				return e.Name
			}},
			column[api.Entry]{"counterparty", func(e api.Entry) string { return e.Counterparty }},
			column[api.Entry]{"amount", func(e api.Entry) string { return e.Amount }},
			column[api.Entry]{"balance", func(e api.Entry) string { return e.Balance + " " + e.Currency }})
	})
	l.add(c, true)
	return c
}
