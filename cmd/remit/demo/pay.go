package demo

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/remitlog/remit/cmd/remit/api"
	"github.com/remitlog/remit/cmd/remit/torture"
	"github.com/remitlog/remit/saga/accounts"
)

// pay makes one payment, with what happens around it.
func (d *demo) pay(ctx context.Context, p payment) error {
	now, err := d.ask(ctx, p)
	if err != nil {
		return err
	}
	if p.repeated {
		again, err := d.ask(ctx, p)
		if err != nil {
			return err
		}
		if again.ID != now.ID || again.State != now.State {
			d.brokenf("%s was answered as %s %s, and repeated as %s %s", p.name, now.ID, now.State, again.ID, again.State)
		}
	}
	if now.State == "held" {
		if now, err = d.end(ctx, p); err != nil {
			return err
		}
	}
	d.mu.Lock()
	d.fate[p.name] = now
	d.mu.Unlock()
	if p.refunded && now.State == "paid" {
		return d.giveBack(ctx, p)
	}
	return nil
}

func (d *demo) ask(ctx context.Context, p payment) (api.Payment, error) {
	r := api.PaymentRequest{ID: p.name, Payer: p.payer, Payee: p.payee, Amount: accounts.FormatAmount(p.amount, currency), Currency: string(currency), Reference: "cart-" + p.name}
	if p.ending != atOnce {
		r.Capture = "manual"
	}
	var a answer
	status, err := d.call(ctx, "POST", "/v1/payments?wait=20s", r, &a)
	if err != nil {
		return api.Payment{}, err
	}
	now := a.now()
	switch {
	case status == http.StatusPaymentRequired && now.State == "refused",
		status < 300 && now.State == "held",
		status < 300 && now.State == "paid" && now.Settled:
		return now, nil
	}
	return now, unexpected(p.name, status, a)
}

// end captures or voids what is held.
func (d *demo) end(ctx context.Context, p payment) (api.Payment, error) {
	verb, want, body := "capture", "paid", map[string]string{}
	switch p.ending {
	case partly:
		body["amount"] = accounts.FormatAmount((p.amount+1)/2, currency)
	case voided:
		verb, want = "void", "voided"
	}
	var a answer
	status, err := d.call(ctx, "POST", "/v1/payments/"+p.name+"/"+verb+"?wait=20s", body, &a)
	if err != nil {
		return api.Payment{}, err
	}
	if status >= 300 || a.State != want {
		return a.Payment, unexpected(verb+" of "+p.name, status, a)
	}
	return a.Payment, nil
}

// giveBack refunds a quarter of what was asked for; the merchant may not have it.
func (d *demo) giveBack(ctx context.Context, p payment) error {
	back := max(1, p.amount/4) // never more than was captured
	var got jsontext.Value
	status, err := d.call(ctx, "POST", "/v1/payments/"+p.name+"/refunds?wait=20s", api.RefundRequest{ID: "back", Amount: accounts.FormatAmount(back, currency)}, &got)
	switch {
	case err != nil:
		return err
	case status < 300:
		d.mu.Lock()
		d.refund++
		d.mu.Unlock()
	case status != http.StatusPaymentRequired:
		return unexpected("refund of "+p.name, status, got)
	}
	return nil
}

// count sums up what was answered.
func (d *demo) count() {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := &d.report
	r.Payments, r.Refunds, r.Resent = len(d.fate), d.refund, int(d.resent.Load())
	for _, p := range d.plan.payments {
		switch d.fate[p.name].State {
		case "paid":
			r.Paid++
		case "refused":
			r.Refused++
		case "voided":
			r.Voided++
		}
		if p.repeated {
			r.Repeated++
		}
	}
}

// caughtUp waits until the views have all of it.
func (d *demo) caughtUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, caughtUpMax)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		var views api.List[api.View]
		status, err := d.call(ctx, "GET", "/v1/views?digest=false", nil, &views)
		if err != nil {
			return err
		}
		behind := int64(0)
		for _, v := range views.Items {
			behind = max(behind, v.LagRecords)
		}
		if status == http.StatusOK && behind == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("demo: the views are still %d records behind after %s", behind, caughtUpMax)
		}
	}
}

// show picks a payment that was refunded, else any that was paid.
func (d *demo) show(ctx context.Context) error {
	s := Shown{URL: d.server.URL}
	for _, p := range d.plan.payments {
		if d.fate[p.name].State != "paid" {
			continue
		}
		if s.Payment == "" || p.refunded {
			s.Payment, s.Consumer, s.Merchant = p.name, p.payer, p.payee
		}
		if p.refunded {
			break
		}
	}
	return d.Show(ctx, s)
}

// inspect holds what the server left against what it answered, and against what must always be.
func (d *demo) inspect(ctx context.Context, data string) error {
	a, err := torture.Inspect(ctx, data)
	if err != nil {
		return err
	}
	d.report.Messages, d.report.Events, d.report.Accounts = a.Messages, int(a.Events), a.Accounts
	d.report.Deposited = accounts.FormatAmount(a.Balances[currency], currency)
	deposited := int64(0)
	for _, c := range d.plan.consumers {
		deposited += c.deposit
	}
	if a.Balances[currency] != deposited {
		d.brokenf("balances sum to %d, deposited were %d", a.Balances[currency], deposited)
	}
	if a.Held[currency] != 0 {
		d.brokenf("%d is held, and nothing is open", a.Held[currency])
	}
	if told := d.report.Paid + d.report.Refunds; a.Messages != told {
		d.brokenf("%d payments and refunds were answered as done, and %d messages tell of them", told, a.Messages)
	}
	if d.report.Payments != len(d.plan.payments) || d.report.Paid+d.report.Refused+d.report.Voided != d.report.Payments {
		d.brokenf("%d payments were asked for; %d were paid, %d refused, %d voided", len(d.plan.payments), d.report.Paid, d.report.Refused, d.report.Voided)
	}
	if broken := append(d.broken, a.Broken...); len(broken) > 0 {
		return &BrokenError{broken}
	}
	return nil
}
