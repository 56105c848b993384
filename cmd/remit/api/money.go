package api

import (
	"errors"
	"strings"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/saga/accounts"
)

// checkAccount holds an account's name against what names may be. A UUIDv8 is a name too: accounts have no ids.
func checkAccount(field, name string) error {
	if name == "" {
		return invalidField(field, "it is missing; give the name of an account")
	}
	if _, isID := log.ParseID(name); isID || log.IsName(name) {
		return nil
	}
	_, err := ParseRef(field, name)
	if p, ok := errors.AsType[*Problem](err); ok {
		p.Detail = strings.Replace(p.Detail, "is neither a remit id (a UUIDv8) nor a name in", "is not a name in", 1)
	}
	return err
}

func parseCurrency(code string) (accounts.Currency, error) {
	c, err := accounts.ParseCurrency(code)
	if err != nil {
		return "", invalidField("currency", "%s", words(err, accounts.ErrCurrency))
	}
	return c, nil
}

// parseAmount reads an amount of at least so many minor units.
func parseAmount(field, s string, c accounts.Currency, least int64) (int64, error) {
	n, err := accounts.ParseAmount(s, c)
	switch {
	case err != nil:
		return 0, NewProblem(CodeInvalidAmount, "%s: %s", field, words(err, accounts.ErrAmount)).With("field", field)
	case n < least:
		return 0, NewProblem(CodeInvalidAmount, "%s: %q is too little; give at least %s", field, s, accounts.FormatAmount(least, c)).With("field", field)
	}
	return n, nil
}

// words are what an error says beside the sentinel that begins it, which is for programs.
func words(err, sentinel error) string { return strings.TrimPrefix(err.Error(), sentinel.Error()+": ") }
