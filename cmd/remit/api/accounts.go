package api

import (
	"errors"
	"net/http"
	"time"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/projections"
	"github.com/remitlog/remit/projections/transactions"
	"github.com/remitlog/remit/saga/accounts"
)

// Accounts are the calls about money accounts.
type Accounts struct {
	Node  *fold.Node
	Views *projections.Views
}

// Routes returns them.
func (a *Accounts) Routes() []Route {
	return []Route{
		{Method: "PUT", Pattern: "/v1/accounts/{account}", Name: "openAccount", Handler: a.open},
		{Method: "PATCH", Pattern: "/v1/accounts/{account}", Name: "changeAccount", Handler: a.change},
		{Method: "GET", Pattern: "/v1/accounts/{account}", Name: "getAccount", Handler: a.get},
		{Method: "GET", Pattern: "/v1/accounts", Name: "listAccounts", Handler: a.list},
		{Method: "GET", Pattern: "/v1/accounts/{account}/entries", Name: "listEntries", Handler: a.entries},
		{Method: "POST", Pattern: "/v1/accounts/{account}/deposits", Name: "createDeposit", Handler: a.deposit},
		{Method: "POST", Pattern: "/v1/accounts/{account}/withdrawals", Name: "createWithdrawal", Handler: a.withdraw},
	}
}

// Account is an account as it is answered.
type Account struct {
	Account     string `json:"account"`
	Currency    string `json:"currency"`
	State       string `json:"state"`
	Balance     string `json:"balance"`
	Held        string `json:"held"`
	Available   string `json:"available"`
	CreditLimit string `json:"creditLimit"`
}

func newAccount(name string, a accounts.Account) Account {
	return Account{
		Account: name, Currency: string(a.Currency), State: string(a.State),
		Balance: accounts.FormatAmount(a.Balance, a.Currency), Held: accounts.FormatAmount(a.Held, a.Currency),
		Available: accounts.FormatAmount(a.Available(), a.Currency), CreditLimit: accounts.FormatAmount(a.CreditLimit, a.Currency),
	}
}

// OpenAccount asks for an account.
type OpenAccount struct {
	Currency    string  `json:"currency"`
	CreditLimit *string `json:"creditLimit,omitzero"`
}

func (a *Accounts) open(w http.ResponseWriter, r *http.Request) error {
	name, err := accountOf(r)
	if err != nil {
		return err
	}
	if err := ParseQuery(r).Done(); err != nil {
		return err
	}
	var body OpenAccount
	if err := Decode(w, r, &body); err != nil {
		return err
	}
	c := accounts.OpenAccount{Account: name}
	if c.Currency, err = parseCurrency(body.Currency); err != nil {
		return err
	}
	if body.CreditLimit != nil {
		if c.CreditLimit, err = parseAmount("creditLimit", *body.CreditLimit, c.Currency, 0); err != nil {
			return err
		}
	}
	res, err := a.do(r, name, c)
	if err != nil {
		return accountProblem(name, err)
	}
	opened := res.Answer.(accounts.Outcome[accounts.Account])
	SetPosition(w, res.Position())
	return WriteJSON(w, created(w, opened.Replayed), newAccount(name, opened.Value))
}

// created is the status of what was asked for under the caller's own name: 201, or 200 if it was there.
func created(w http.ResponseWriter, replayed bool) int {
	if !replayed {
		return http.StatusCreated
	}
	w.Header().Set(ReplayedHeader, "true")
	return http.StatusOK
}

// ChangeAccount says what is to be set.
type ChangeAccount struct {
	State       *accounts.State `json:"state,omitzero"`
	CreditLimit *string         `json:"creditLimit,omitzero"`
}

func (a *Accounts) change(w http.ResponseWriter, r *http.Request) error {
	name, err := accountOf(r)
	if err != nil {
		return err
	}
	if err := ParseQuery(r).Done(); err != nil {
		return err
	}
	var body ChangeAccount
	if err := Decode(w, r, &body); err != nil {
		return err
	}
	c := accounts.ChangeAccount{Account: name, State: body.State}
	if err := body.check(); err != nil {
		return err
	}
	if body.CreditLimit != nil {
		was, _, err := a.find(name)
		if err != nil {
			return err
		}
		limit, err := parseAmount("creditLimit", *body.CreditLimit, was.Currency, 0)
		if err != nil {
			return err
		}
		c.CreditLimit = &limit
	}
	res, err := a.do(r, name, c)
	if err != nil {
		return accountProblem(name, err)
	}
	SetPosition(w, res.Position())
	return WriteJSON(w, http.StatusOK, newAccount(name, res.Answer.(accounts.Outcome[accounts.Account]).Value))
}

func (b *ChangeAccount) check() error {
	if b.State == nil && b.CreditLimit == nil {
		return NewProblem(CodeInvalidBody, "nothing is to be changed; give state, creditLimit, or both")
	}
	if b.State == nil {
		return nil
	}
	switch *b.State {
	case accounts.Open, accounts.Frozen, accounts.Closed:
		return nil
	}
	return invalidField("state", "%q is not one of open, frozen, closed", *b.State)
}

func (a *Accounts) get(w http.ResponseWriter, r *http.Request) error {
	name, err := accountOf(r)
	if err != nil {
		return err
	}
	q := ParseQuery(r)
	after, wait := q.After()
	if err := q.Done(); err != nil {
		return err
	}
	if err := waitFor(r, "the core", a.Node, after, wait); err != nil {
		return err
	}
	row, at, err := a.find(name)
	if err != nil {
		return err
	}
	SetPosition(w, at)
	return WriteJSON(w, http.StatusOK, newAccount(name, row))
}

// find reads an account from the core.
func (a *Accounts) find(name string) (row accounts.Account, at log.Position, err error) {
	var ok bool
	p := a.Node.PartitionOf(name)
	err = a.Node.Read(p, func(rows fold.Scanner, offset log.Offset) error {
		row, ok = accounts.Get(rows, name)
		at = log.Position{p: offset}
		return nil
	})
	if err == nil && !ok {
		err = unknownAccount(name)
	}
	return row, at, err
}

// CashRequest asks for a deposit or a withdrawal.
type CashRequest struct {
	ID     string `json:"id,omitzero"`
	Amount string `json:"amount"`
}

// Cash is a deposit or a withdrawal as it is answered.
type Cash struct {
	ID       string `json:"id"`
	Account  string `json:"account"`
	Amount   string `json:"amount"`
	Currency string `json:"currency"`
	Balance  string `json:"balance"` // of the account, right after
	At       Time   `json:"at"`
}

func (a *Accounts) deposit(w http.ResponseWriter, r *http.Request) error {
	return a.move(w, r, accounts.Credit)
}

func (a *Accounts) withdraw(w http.ResponseWriter, r *http.Request) error {
	return a.move(w, r, accounts.Debit)
}

func (a *Accounts) move(w http.ResponseWriter, r *http.Request, side accounts.Side) error {
	name, err := accountOf(r)
	if err != nil {
		return err
	}
	if err := ParseQuery(r).Done(); err != nil {
		return err
	}
	var body CashRequest
	if err := Decode(w, r, &body); err != nil {
		return err
	}
	ref, err := RequestRef(r, body.ID)
	if err != nil {
		return err
	}
	if err := ref.CheckNew("id", "account", name); err != nil {
		return err
	}
	row, _, err := a.find(name)
	if err != nil {
		return err
	}
	amount, err := parseAmount("amount", body.Amount, row.Currency, 1)
	if err != nil {
		return err
	}
	res, err := a.do(r, name, accounts.MoveCash{Order: accounts.Order{Side: side, Account: name, Currency: row.Currency, Amount: amount}, Name: ref.String()})
	if err != nil {
		return cashProblem(name, ref, side, err)
	}
	moved := res.Answer.(accounts.Outcome[accounts.CashMoved])
	SetPosition(w, res.Position())
	return WriteJSON(w, created(w, moved.Replayed), Cash{
		ID: ref.String(), Account: name, Amount: accounts.FormatAmount(amount, row.Currency), Currency: string(row.Currency),
		Balance: accounts.FormatAmount(moved.Value.Balance, row.Currency), At: Time(time.UnixMilli(moved.Value.AtMs)),
	})
}

func (a *Accounts) do(r *http.Request, name string, c fold.Command) (fold.Result, error) {
	return a.Node.Do(r.Context(), a.Node.PartitionOf(name), c)
}

func accountOf(r *http.Request) (string, error) {
	name := r.PathValue("account")
	return name, checkAccount("account", name)
}

func unknownAccount(name string) *Problem {
	return NewProblem(CodeNotFound, "no account %q; searched all accounts, by name; open it with `remit accounts open %s` or PUT /v1/accounts/%s", name, name, name)
}

func accountProblem(name string, err error) error {
	if e, ok := errors.AsType[*accounts.MismatchError](err); ok {
		return NewProblem(CodeContentMismatch, "account %q was opened with another %s, %s; use another name, or change its credit limit with `remit accounts set` or PATCH", name, e.Field, e.Recorded).
			With("field", e.Field).With("recorded", e.Recorded)
	}
	switch {
	case errors.Is(err, accounts.ErrUnknown):
		return unknownAccount(name)
	case errors.Is(err, accounts.ErrNotEmpty):
		return NewProblem(CodeAccountNotEmpty, "account %q has a balance, or something is held on it; withdraw the balance, and wait for what is held", name)
	}
	return err
}

func cashProblem(name string, ref Ref, side accounts.Side, err error) error {
	if e, ok := errors.AsType[*accounts.MismatchError](err); ok {
		another := "the other of deposit and withdrawal"
		if e.Field == "amount" {
			another = "one of another amount"
		}
		return NewProblem(CodeContentMismatch, "%q stands for %s on account %q; use a new id for a new one", ref, another, name).With("field", e.Field)
	}
	e, ok := errors.AsType[*accounts.RefusedError](err)
	if !ok {
		return accountProblem(name, err)
	}
	code, what := CodeRefused, "nothing was written; the same may be repeated once that has changed"
	switch e.Reason {
	case accounts.UnknownAccount:
		return unknownAccount(name)
	case accounts.AccountClosed:
		code = CodeAccountClosed
	case accounts.AccountFrozen:
		code = CodeAccountFrozen
	case accounts.InsufficientFunds:
		code = CodeInsufficientFunds
	case accounts.BalanceLimit:
		code = CodeBalanceLimit
	}
	verb := "the deposit was refused"
	if side == accounts.Debit {
		verb = "the withdrawal was refused"
	}
	return NewProblem(code, "%s: account %q: %s; %s", verb, name, e.Reason, what).With("reason", string(e.Reason))
}

// known returns an account that a path or parameter names, and what a view must have come to that is to know as much.
func (a *Accounts) known(field, name string) (accounts.Account, log.Position, error) {
	if err := checkAccount(field, name); err != nil {
		return accounts.Account{}, nil, err
	}
	return a.find(name)
}

func (a *Accounts) list(w http.ResponseWriter, r *http.Request) error {
	rd := beginReading(r)
	q := rd.query
	f := transactions.AccountFilter{
		Currency: q.String("currency"), State: q.OneOf("state", string(accounts.Open), string(accounts.Frozen), string(accounts.Closed)),
	}
	page := q.Page()
	if err := rd.from(w, r, a.Views, transactions.Name, nil); err != nil {
		return err
	}
	found, next, err := a.Views.Transactions.Accounts(f, pageOf(page))
	return listOf(w, q, found, next, err, func(x transactions.Account) Account {
		return Account{
			Account: x.Account, Currency: x.Currency, State: x.State, Balance: amount(x.Balance, x.Currency), Held: amount(x.Held, x.Currency),
			Available: amount(x.Available, x.Currency), CreditLimit: amount(x.CreditLimit, x.Currency),
		}
	})
}

// Entry is one posting on an account.
type Entry struct {
	At           Time    `json:"at"`
	Kind         string  `json:"kind"`        // payment, refund, deposit or withdrawal
	ID           *log.ID `json:"id,omitzero"` // of the payment or refund
	Name         string  `json:"name,omitzero"`
	Counterparty string  `json:"counterparty,omitzero"`
	Amount       string  `json:"amount"`  // negative: taken
	Balance      string  `json:"balance"` // after it
	Currency     string  `json:"currency"`
}

func (a *Accounts) entries(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("account")
	_, at, err := a.known("account", name)
	if err != nil {
		return err
	}
	rd := beginReading(r)
	q := rd.query
	span, page := rangeOf(q), q.Page()
	if err := rd.from(w, r, a.Views, transactions.Name, at); err != nil {
		return err
	}
	found, next, err := a.Views.Transactions.Entries(name, span, pageOf(page))
	return listOf(w, q, found, next, err, func(x transactions.Entry) Entry {
		e := Entry{
			At: Time(x.At), Kind: x.Kind, Name: x.Name, Counterparty: x.Counterparty, Amount: amount(x.Amount, x.Currency),
			Balance: amount(x.Balance, x.Currency), Currency: x.Currency,
		}
		if !x.ID.IsZero() {
			e.ID = &x.ID
		}
		return e
	})
}
