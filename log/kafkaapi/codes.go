package kafkaapi

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/embedded"
)

// codeOf is how the protocol numbers an error; 0 for none.
func codeOf(err error) int16 {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, log.ErrUnknownTopic), errors.Is(err, log.ErrUnknownPartition):
		return kerr.UnknownTopicOrPartition.Code
	case errors.Is(err, log.ErrOffsetOutOfRange):
		return kerr.OffsetOutOfRange.Code
	case errors.Is(err, log.ErrTooLarge):
		return kerr.MessageTooLarge.Code
	case errors.Is(err, log.ErrTime):
		return kerr.InvalidTimestamp.Code
	case errors.Is(err, log.ErrTransactional):
		return kerr.TransactionalIDAuthorizationFailed.Code
	case errors.Is(err, log.ErrBadBatch):
		return kerr.InvalidRecord.Code
	case errors.Is(err, embedded.ErrOutOfOrderSequence):
		return kerr.OutOfOrderSequenceNumber.Code
	case errors.Is(err, embedded.ErrProducerFenced):
		return kerr.InvalidProducerEpoch.Code
	case errors.Is(err, log.ErrDiskFull): // clients try again
		return kerr.KafkaStorageError.Code
	case errors.Is(err, log.ErrTopicExists):
		return kerr.TopicAlreadyExists.Code
	case errors.Is(err, log.ErrFewerPartitions):
		return kerr.InvalidPartitions.Code
	case errors.Is(err, log.ErrInvalid):
		return kerr.InvalidTopicException.Code
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return kerr.RequestTimedOut.Code
	default:
		return kerr.UnknownServerError.Code
	}
}

// ends reports whether after err nothing can be answered: the log is closed or has failed, or nobody knows what became of the request.
func ends(err error) bool {
	return errors.Is(err, log.ErrUnknown) || errors.Is(err, log.ErrClosed)
}

// refused is an error that says its code, and in words what to do.
type refused struct {
	code *kerr.Error
	why  string
}

func (r *refused) Error() string { return r.why }

func refuse(code *kerr.Error, why string) error { return &refused{code, why} }

// answer is the code and the words of an error, for answers that have both.
func answer(err error) (code int16, why *string) {
	if err == nil {
		return 0, nil
	}
	text := err.Error()
	if r := (*refused)(nil); errors.As(err, &r) {
		return r.code.Code, &text
	}
	return codeOf(err), &text
}

// hiddenError is what reading a topic of remit's secrets is refused with.
func hiddenError(topic string) error {
	return refuse(kerr.TopicAuthorizationFailed, topic+" holds the secrets of registrations, and is read by remit alone")
}

// reservedError is what writing a topic of remit's own is refused with.
func reservedError(topic string) error {
	return refuse(kerr.TopicAuthorizationFailed, topic+" is written by remit alone; use a topic of your own, whose name does not begin with remit.")
}
