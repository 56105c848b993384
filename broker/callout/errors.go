package callout

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

var (
	// ErrBusy: too many calls wait already, or this one waited too long. Try again later; nothing was sent.
	ErrBusy = errors.New("callout: too many calls wait")
	// ErrOpen: the target failed so often that it is left alone for a while. Nothing was sent; an *[OpenError] says why. Try again later.
	ErrOpen = errors.New("callout: the breaker is open")
	// ErrClosed: the Caller is closed, or was while the call waited or ran. What was under way may have arrived.
	ErrClosed = errors.New("callout: closed")
	// ErrTimeout: the target did not answer in time. It may have done what was asked.
	ErrTimeout = errors.New("callout: no whole answer in time")
	// ErrForbiddenAddress: the target's name leads to where calls may not go. An *[AddressError] says where and what allows it.
	ErrForbiddenAddress = errors.New("callout: the address is not allowed")
	// ErrTooLarge: the body of the request is longer than RequestMax. Nothing was sent.
	ErrTooLarge = errors.New("callout: the request is too large")
	// ErrBadTarget: a URL, a secret or another part of a target cannot be used. Correct the registration.
	ErrBadTarget = errors.New("callout: the target cannot be called")
	// ErrBadRequest: the request has no id, or a method or header that HTTP does not know. The caller must be corrected.
	ErrBadRequest = errors.New("callout: the request cannot be made")
)

// CallError says which call failed, and how.
type CallError struct {
	Target string
	URL    string // that was asked last, without what follows a question mark; empty if none was
	Tries  int    // how many instances were asked
	Err    error  // why the last of them did not answer
}

func (e *CallError) Error() string {
	if e.URL == "" {
		return fmt.Sprintf("%v: target %q", e.Err, e.Target)
	}
	if e.Tries > 1 {
		return fmt.Sprintf("callout: target %q: %s: %v (the last of %d that were asked)", e.Target, e.URL, e.Err, e.Tries)
	}
	return fmt.Sprintf("callout: target %q: %s: %v", e.Target, e.URL, e.Err)
}

func (e *CallError) Unwrap() error { return e.Err }

// AddressError says where a target leads that may not be called. It is ErrForbiddenAddress.
type AddressError struct {
	Host  string     // as the URL has it, with the port
	IP    netip.Addr // that DNS gave for it
	Why   string     // what kind of address it is
	Allow string     // the field of Options that allows it; empty if none does
}

func (e *AddressError) Error() string {
	text := fmt.Sprintf("%s leads to %s, %s", e.Host, e.IP, e.Why)
	if e.Allow == "" {
		return text + ": never called"
	}
	return text + ": called only with " + e.Allow + ", which is `remit serve --calls-to " + strings.ToLower(strings.TrimPrefix(e.Allow, "Allow")) + "`"
}

func (e *AddressError) Unwrap() error { return ErrForbiddenAddress }

// OpenError is ErrOpen, with what was last seen of the target. That is for people: errors.Is does not look into it.
type OpenError struct {
	Target string
	Last   error // why its last call failed
}

func (e *OpenError) Error() string {
	return fmt.Sprintf("callout: target %q is left alone for a while, since it failed too often; at last: %v", e.Target, e.Last)
}

func (e *OpenError) Unwrap() error { return ErrOpen }

// statusError is an answer that counts as a failure, for those who are told why something failed.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("it answered %d", int(e)) }
