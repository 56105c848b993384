package projections_test

import (
	"strings"

	"github.com/remitlog/remit/projections/consumerrecords"
	"github.com/remitlog/remit/projections/merchantquery"
	"github.com/remitlog/remit/projections/transactions"
)

type (
	tx       = transactions.Payment
	msg      = transactions.Message
	act      = transactions.Activity
	action   = transactions.Action
	acc      = transactions.Account
	ent      = transactions.Entry
	filter   = transactions.PaymentFilter
	mfilter  = transactions.MessageFilter
	afilter  = transactions.ActivityFilter
	acfilter = transactions.AccountFilter
	rec      = consumerrecords.Record
	rfilter  = consumerrecords.Filter
	day      = merchantquery.Day
	mtx      = merchantquery.Transaction
	qfilter  = merchantquery.Filter
)

func fields(list string) []string { return strings.Fields(strings.Trim(list, "[]")) }

func short(eventType string) string {
	return strings.TrimSuffix(strings.TrimPrefix(eventType, "remit."), ".v1")
}

func last(words string) string { return words[strings.LastIndex(words, " ")+1:] }
