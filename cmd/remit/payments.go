package main

import (
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/remitlog/remit/cmd/remit/api"
	"github.com/remitlog/remit/log"
)

func newPayments(a *app) *cobra.Command {
	return group("payments", "Pay, hold, capture, void and refund",
		newPay(a), newPaymentsGet(a), newPaymentsList(a), newCapture(a), newVoid(a), newRefund(a), newRefunds(a))
}

var paymentColumns = []column[api.Payment]{
	{"id", func(p api.Payment) string { return p.ID.String() }},
	{"name", func(p api.Payment) string { return p.Name }},
	{"state", func(p api.Payment) string { return p.State }},
	{"settled", func(p api.Payment) string { return yes(p.Settled) }},
	{"payer", func(p api.Payment) string { return p.Payer }},
	{"payee", func(p api.Payment) string { return p.Payee }},
	{"amount", func(p api.Payment) string { return p.Amount + " " + p.Currency }},
	{"captured", func(p api.Payment) string { return p.Captured }},
	{"refunded", func(p api.Payment) string { return p.Refunded }},
	{"reference", func(p api.Payment) string { return p.Reference }},
	{"reason", func(p api.Payment) string { return p.Reason }},
	{"created", func(p api.Payment) string { return when(p.CreatedAt) }},
}

var refundColumns = []column[api.Refund]{
	{"id", func(r api.Refund) string { return r.ID.String() }},
	{"name", func(r api.Refund) string { return r.Name }},
	{"payment", func(r api.Refund) string { return r.Payment.String() }},
	{"state", func(r api.Refund) string { return r.State }},
	{"amount", func(r api.Refund) string { return r.Amount + " " + r.Currency }},
	{"reason", func(r api.Refund) string { return r.Reason }},
	{"created", func(r api.Refund) string { return when(r.CreatedAt) }},
}

// ownID returns --id, or makes one and says so: with it the same command may be given again.
func (a *app) ownID(id, key string) string {
	if id == "" {
		id = log.NewID(time.Now(), key).String()
		a.say("remit: the id is %s; to repeat this safely, give it as --id", id)
	}
	return id
}

func newPay(a *app) *cobra.Command {
	var b api.PaymentRequest
	var wait, holdFor string
	c := verb("pay", "Pay, or hold until it is captured", cobra.NoArgs, func(c *cobra.Command, _ []string) error {
		if holdFor != "" {
			d, err := api.ParseDuration(holdFor)
			if err != nil {
				return usageErrorf("--hold-for %s is not a duration such as 24h", holdFor)
			}
			hold := api.Duration(d)
			b.HoldFor = &hold
		}
		b.ID = a.ownID(b.ID, b.Payer)
		return one(c.Context(), a, http.MethodPost, at("payments")+query{"wait", wait}.String(), b, paymentColumns...)
	})
	f := c.Flags()
	f.StringVar(&b.ID, "id", "", "your own name for it, such as an order number: with it a repeat is safe")
	f.StringVar(&b.Payer, "payer", "", "the account that pays")
	f.StringVar(&b.Payee, "payee", "", "the account that is paid")
	f.StringVar(&b.Amount, "amount", "", "in major units, such as 12.50")
	f.StringVar(&b.Currency, "currency", "", "an ISO 4217 code, such as EUR")
	f.StringVar(&b.Reference, "reference", "", "what it is for; it can be found by this")
	f.StringVar(&b.Capture, "capture", "", `"manual" holds it until it is captured or voided`)
	f.StringVar(&holdFor, "hold-for", "", "how long it is held at most, such as 24h (default 168h, at most 720h)")
	f.StringVar(&wait, "wait", "", "how long to wait until it is settled (default 5s)")
	needed(c, "payer", "payee", "amount", "currency")
	return c
}

// needed marks flags that must be given.
func needed(c *cobra.Command, flags ...string) {
	for _, f := range flags {
		if err := c.MarkFlagRequired(f); err != nil {
			panic(err) // the flag is not there: a mistake of this program
		}
	}
}

func newPaymentsGet(a *app) *cobra.Command {
	return verb("get ID", "Show a payment, by id or by name", cobra.ExactArgs(1), func(c *cobra.Command, args []string) error {
		return one(c.Context(), a, http.MethodGet, at("payments", args[0]), nil, paymentColumns...)
	})
}

func newPaymentsList(a *app) *cobra.Command {
	var payer, payee, reference, state string
	var l listFlags
	c := verb("list", "List payments", cobra.NoArgs, func(c *cobra.Command, _ []string) error {
		q := append(l.span(), "payer", payer, "payee", payee, "reference", reference, "state", state)
		return listed(c.Context(), a, at("payments"), q, l.limit, paymentColumns...)
	})
	f := c.Flags()
	f.StringVar(&payer, "payer", "", "of this account")
	f.StringVar(&payee, "payee", "", "to this account")
	f.StringVar(&reference, "reference", "", "of this reference")
	f.StringVar(&state, "state", "", "pending, held, paid, refused or voided")
	l.add(c, true)
	return c
}

func newCapture(a *app) *cobra.Command {
	var b struct {
		Amount string `json:"amount,omitzero"`
	}
	var wait string
	c := verb("capture ID", "Take a held payment", cobra.ExactArgs(1), func(c *cobra.Command, args []string) error {
		return one(c.Context(), a, http.MethodPost, at("payments", args[0], "capture")+query{"wait", wait}.String(), b, paymentColumns...)
	})
	c.Flags().StringVar(&b.Amount, "amount", "", "how much of it; the rest is given back (default all)")
	c.Flags().StringVar(&wait, "wait", "", "how long to wait until it is settled (default 5s)")
	return c
}

func newVoid(a *app) *cobra.Command {
	return verb("void ID", "Give a held payment back", cobra.ExactArgs(1), func(c *cobra.Command, args []string) error {
		return one(c.Context(), a, http.MethodPost, at("payments", args[0], "void"), nil, paymentColumns...)
	})
}

func newRefund(a *app) *cobra.Command {
	var b api.RefundRequest
	var wait string
	c := verb("refund ID", "Give a part of a paid payment back", cobra.ExactArgs(1), func(c *cobra.Command, args []string) error {
		if b.ID == "" {
			b.ID = "refund-" + log.NewID(time.Now(), "").String() // a name: its slot need not be the payment's
			a.say("remit: the id is %s; to repeat this safely, give it as --id", b.ID)
		}
		return one(c.Context(), a, http.MethodPost, at("payments", args[0], "refunds")+query{"wait", wait}.String(), b, refundColumns...)
	})
	c.Flags().StringVar(&b.ID, "id", "", "your own name for the refund: with it a repeat is safe")
	c.Flags().StringVar(&b.Amount, "amount", "", "in major units, such as 12.50")
	c.Flags().StringVar(&wait, "wait", "", "how long to wait until it is settled (default 5s)")
	needed(c, "amount")
	return c
}

func newRefunds(a *app) *cobra.Command {
	var l listFlags
	c := verb("refunds ID", "List the refunds of a payment", cobra.ExactArgs(1), func(c *cobra.Command, args []string) error {
		return listed(c.Context(), a, at("payments", args[0], "refunds"), nil, l.limit, refundColumns...)
	})
	l.add(c, false)
	return c
}
