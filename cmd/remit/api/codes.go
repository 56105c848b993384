package api

import "net/http"

//go:generate go test . -run ^TestErrorsPage$ -update

// Code is the stable word of a [Problem]. Codes are for ever: none is reused or changes its status.
type Code string

// The codes. What each means stands in [Codes].
const (
	CodeInvalidBody          Code = "invalid_body"
	CodeUnknownField         Code = "unknown_field"
	CodeInvalidField         Code = "invalid_field"
	CodeInvalidID            Code = "invalid_id"
	CodeInvalidAmount        Code = "invalid_amount"
	CodeInvalidParameter     Code = "invalid_parameter"
	CodeIDRequired           Code = "id_required"
	CodeIDMismatch           Code = "id_mismatch"
	CodeWrongSlot            Code = "wrong_slot"
	CodeRefused              Code = "refused"
	CodeInsufficientFunds    Code = "insufficient_funds"
	CodeForbidden            Code = "forbidden"
	CodeNotFound             Code = "not_found"
	CodeUnknownTopic         Code = "unknown_topic"
	CodeUnknownProducer      Code = "unknown_producer"
	CodeUnknownInstance      Code = "unknown_instance"
	CodeUnknownSubscription  Code = "unknown_subscription"
	CodeMethodNotAllowed     Code = "method_not_allowed"
	CodeContentMismatch      Code = "content_mismatch"
	CodeAlreadyDecided       Code = "already_decided"
	CodeAmbiguous            Code = "ambiguous"
	CodeNotTried             Code = "not_tried"
	CodeNotHeld              Code = "not_held"
	CodeNotPaid              Code = "not_paid"
	CodeExceedsHeld          Code = "exceeds_held"
	CodeExceedsPaid          Code = "exceeds_paid"
	CodeAccountNotEmpty      Code = "account_not_empty"
	CodeAccountClosed        Code = "account_closed"
	CodeAccountFrozen        Code = "account_frozen"
	CodeBalanceLimit         Code = "balance_limit"
	CodeFewerPartitions      Code = "fewer_partitions"
	CodeTopicInUse           Code = "topic_in_use"
	CodeRegistrationLimit    Code = "registration_limit"
	CodeNotReplayable        Code = "not_replayable"
	CodeTooLarge             Code = "too_large"
	CodeUnsupportedMediaType Code = "unsupported_media_type"
	CodeTooMany              Code = "too_many"
	CodeInternal             Code = "internal"
	CodeDiskFull             Code = "disk_full"
	CodeNotCaughtUp          Code = "not_caught_up"
	CodeNotReady             Code = "not_ready"
	CodeOutcomeUnknown       Code = "outcome_unknown"
)

// CodeInfo says what a [Code] stands for. Title and Meaning are what docs/errors.md says.
type CodeInfo struct {
	Code   Code
	Status int
	// Retryable: the same call may succeed later with nothing changed by the caller.
	Retryable bool
	Title     string
	Meaning   string
}

// Codes is the closed list of all codes, by status.
var Codes = []CodeInfo{
	{CodeInvalidBody, http.StatusBadRequest, false, "The body is not what this call takes",
		"The body is empty, is not JSON, has a field twice, or something trails it. `detail` says where. Correct it and send it again."},
	{CodeUnknownField, http.StatusBadRequest, false, "Unknown field",
		"The body has a field that this call does not know; `field` names it. Remove it or correct its name."},
	{CodeInvalidField, http.StatusBadRequest, false, "Invalid field",
		"A field, named by `field`, is missing, of the wrong type, or has a value that cannot be. Amounts are strings, durations look like `30s`, times are RFC 3339."},
	{CodeInvalidID, http.StatusBadRequest, false, "Invalid id",
		"An id is a UUIDv8 of remit's, or a name of your own in `[A-Za-z0-9._:~-]{1,128}`. A new one may say that it was made at most a day ahead of remit's clock."},
	{CodeInvalidAmount, http.StatusBadRequest, false, "Invalid amount",
		"An amount is a decimal string in major units with no more decimals than its currency has, such as `\"12.50\"`; `field` names it."},
	{CodeInvalidParameter, http.StatusBadRequest, false, "Invalid query parameter",
		"A query parameter, named by `parameter`, is unknown, is given twice, or has a value that cannot be."},
	{CodeIDRequired, http.StatusBadRequest, false, "An id is required",
		"A call that creates needs the caller's own id, so that repeating it is safe: as `id` in the body, or as `Idempotency-Key`."},
	{CodeIDMismatch, http.StatusBadRequest, false, "Two different ids",
		"`Idempotency-Key` and the body's `id` must agree where both are given. Send one of them."},
	{CodeWrongSlot, http.StatusBadRequest, false, "The id is in another key's slot",
		"A UUIDv8 is read as an id of remit's, whose low 10 bits are the slot of its routing key. `slot` and `wantSlot` say both. Make the id for this key, or prefix your own UUIDv8 to use it as a name."},
	{CodeRefused, http.StatusPaymentRequired, false, "Refused",
		"The payment was refused, for ever; `payment` shows it with its `reason`. Pay again under a new id."},
	{CodeInsufficientFunds, http.StatusPaymentRequired, false, "Insufficient funds",
		"The account does not have what was asked for. A refund that is refused so is refused for ever: refund again under a new id; a withdrawal may be repeated once there is money."},
	{CodeForbidden, http.StatusForbidden, false, "Forbidden",
		"This caller may not do this; `detail` says what is needed. Pages of another origin may not call, and what remit alone writes (`remit.*`, `payments`) nobody else does."},
	{CodeNotFound, http.StatusNotFound, false, "Not found",
		"Nothing has this id, name or path; `detail` says what was searched."},
	{CodeUnknownTopic, http.StatusNotFound, false, "Unknown topic",
		"There is no topic of this name. Make it with `remit log topics create`, or correct the name."},
	{CodeUnknownProducer, http.StatusNotFound, false, "Unknown producer",
		"There is no producer of this name. Register it with `PUT /v1/producers/{producer}`, or correct the name."},
	{CodeUnknownInstance, http.StatusNotFound, false, "Unknown instance",
		"The producer has no instance of this name whose lease has not ended. Register it with `PUT /v1/producers/{producer}/instances/{instance}`, or correct the name."},
	{CodeUnknownSubscription, http.StatusNotFound, false, "Unknown subscription",
		"There is no subscription of this name. Register it with `PUT /v1/subscriptions/{subscription}`, or correct the name."},
	{CodeMethodNotAllowed, http.StatusMethodNotAllowed, false, "Method not allowed",
		"The path is there, this method of it is not; `Allow` and `detail` say which are."},
	{CodeContentMismatch, http.StatusConflict, false, "The same id with other content",
		"The id was used before for something else; `field` names the first field that differs. Use a new id for a new thing. A payment is captured once: another amount is not taken. A subscription keeps its topic and where it began: register another one."},
	{CodeAlreadyDecided, http.StatusConflict, false, "Already decided",
		"It was decided before, and not so; `recorded` says how. The first decision stands, and nobody is asked about what is decided."},
	{CodeAmbiguous, http.StatusConflict, false, "More than one is called so",
		"The name of a refund is unique under its payment alone, and refunds of several payments have this one; `ids` lists them, the newest first. Ask for one by its id."},
	{CodeNotTried, http.StatusConflict, false, "Not this caller's to decide",
		"The message belongs to an activity or a payment that remit coordinates, which decides it alone. Capture or void a held payment instead."},
	{CodeNotHeld, http.StatusConflict, false, "Not held",
		"Only a payment that was begun with `\"capture\":\"manual\"` is captured or voided. Refund a paid one instead."},
	{CodeNotPaid, http.StatusConflict, false, "Not paid",
		"Only what was paid is refunded. Void a held payment instead; of a refused or voided one there is nothing to give back."},
	{CodeExceedsHeld, http.StatusConflict, false, "More than is held",
		"A capture takes at most what is held. Capture less, or leave `amount` out to take all of it."},
	{CodeExceedsPaid, http.StatusConflict, false, "More than is left",
		"The amount is more than was captured and not yet refunded."},
	{CodeAccountNotEmpty, http.StatusConflict, false, "The account is not empty",
		"An account with a balance, or with something held on it, cannot be closed. Withdraw the balance, and wait for what is held."},
	{CodeAccountClosed, http.StatusConflict, false, "The account is closed",
		"Nothing new is taken from or onto a closed account. Open it again with `PATCH` and `\"state\":\"open\"`; the same may then be repeated."},
	{CodeAccountFrozen, http.StatusConflict, false, "The account is frozen",
		"Nothing new is taken from or onto a frozen account. Open it again with `PATCH` and `\"state\":\"open\"`; the same may then be repeated."},
	{CodeBalanceLimit, http.StatusConflict, false, "The balance would be too large",
		"The account would hold more than remit counts. Withdraw first, or use another account."},
	{CodeFewerPartitions, http.StatusConflict, false, "A topic cannot lose partitions",
		"Delete the topic and make a new one, or ask for at least as many partitions as it has."},
	{CodeTopicInUse, http.StatusConflict, false, "Topic in use",
		"The topic has messages that are undecided or not yet delivered. Decide them first."},
	{CodeRegistrationLimit, http.StatusConflict, false, "As many are registered as there may be",
		"remit keeps no more producers, instances of a producer, or subscriptions; `detail` says of which. Delete what is no longer needed."},
	{CodeNotReplayable, http.StatusConflict, false, "It cannot be sent again",
		"The parked record is none that can be sent again, or nobody would take it; `detail` says which, and what to do. Nothing was sent."},
	{CodeTooLarge, http.StatusRequestEntityTooLarge, false, "Too large",
		"A body, and a line of NDJSON, is at most 1 MiB. Send less, or in pieces."},
	{CodeUnsupportedMediaType, http.StatusUnsupportedMediaType, false, "Unsupported media type",
		"The call takes another `Content-Type`, UTF-8, or a body without a `Content-Encoding`; `detail` says which."},
	{CodeTooMany, http.StatusTooManyRequests, true, "Too many at once",
		"More is open than remit takes on. Wait for `Retry-After`, then repeat with the same id."},
	{CodeInternal, http.StatusInternalServerError, true, "A fault of remit's",
		"Something failed that should not have. Repeat with the same id, which is safe; if it stays, look for `requestId` in remit's own log."},
	{CodeDiskFull, http.StatusServiceUnavailable, true, "The disk is full",
		"Nothing was written. Make room on the data directory's disk; writes come back by themselves. Reads go on."},
	{CodeNotCaughtUp, http.StatusServiceUnavailable, true, "Not caught up",
		"The view does not yet have the position that `after` asks for. Repeat, or give it longer with `wait`."},
	{CodeNotReady, http.StatusServiceUnavailable, true, "Not ready",
		"remit is starting, stopping, or waits for something; `detail` says for what. Repeat after `Retry-After`."},
	{CodeOutcomeUnknown, http.StatusServiceUnavailable, true, "The outcome is not known yet",
		"Whether it was written is not known until remit has read its log again. Repeat with the same id: that is safe, and says how it went."},
}

var codeInfo = func() map[Code]*CodeInfo {
	m := make(map[Code]*CodeInfo, len(Codes))
	for i := range Codes {
		m[Codes[i].Code] = &Codes[i]
	}
	return m
}()

// Info returns the row of [Codes]. A code that is not there is a mistake of this program: it panics.
func (c Code) Info() CodeInfo {
	info := codeInfo[c]
	if info == nil {
		panic("api: code " + string(c) + " is not in Codes")
	}
	return *info
}
