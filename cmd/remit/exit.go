package main

import (
	"errors"
	"fmt"
	"net/http"
	"syscall"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/log/registry"
)

// The exit codes. Scripts rely on them.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitConflict    = 4
	exitUnavailable = 5
	exitBroken      = 6
)

// codedError is an error that knows its exit code.
type codedError struct {
	code int
	err  error
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

// usageErrorf: the command line, or the configuration, is not one that remit takes.
func usageErrorf(format string, args ...any) error {
	return &codedError{exitUsage, fmt.Errorf(format, args...)}
}

// brokenErrorf: something that must always hold does not.
func brokenErrorf(format string, args ...any) error {
	return &codedError{exitBroken, fmt.Errorf(format, args...)}
}

// exitCode is what the process exits with.
func exitCode(err error) int {
	var coded *codedError
	var answered *apiError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &coded):
		return coded.code
	case errors.As(err, &answered):
		return exitOfStatus(answered.Status)
	case errors.As(err, new(*fold.InvariantError)):
		return exitBroken
	case errors.As(err, new(*fold.StoreError)): // it is made again from the log at the next start
		return exitUnavailable
	case errors.Is(err, registry.ErrPartitions): // --partitions is not what it was
		return exitUsage
	case errors.Is(err, log.ErrCorrupt): // what was acknowledged is not there: the first of all invariants
		return exitBroken
	case errors.Is(err, log.ErrLocked), errors.Is(err, log.ErrTopicExists):
		return exitConflict
	case errors.Is(err, log.ErrDiskFull), errors.Is(err, syscall.ENOSPC):
		return exitUnavailable
	default:
		return exitError
	}
}

func exitOfStatus(status int) int {
	switch status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType:
		return exitUsage
	case http.StatusNotFound:
		return exitNotFound
	case http.StatusConflict:
		return exitConflict
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return exitUnavailable
	default:
		return exitError
	}
}
