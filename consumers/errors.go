package consumers

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"strings"
)

// Refuse marks a handler's error as one that no repetition mends: the delivery is parked at once, with the error as the reason.
func Refuse(err error) error { return &refusal{err} }

type refusal struct{ error }

func (r *refusal) Unwrap() error { return r.error }

// PanicError is what a handler that panicked has failed with.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string {
	return fmt.Sprintf("consumers: the handler panicked: %v", e.Value)
}

// IsOutage reports whether an error says that a server is down or full, whatever it was asked: no delivery is to blame for it. A handler whose
// deliveries name servers of their own (a hook of each customer's) wants an Options.Outage that leaves dialing out.
func IsOutage(err error) bool {
	if errors.Is(err, driver.ErrBadConn) {
		return true // database/sql found no connection that works
	}
	var dial *net.OpError
	if errors.As(err, &dial) && dial.Op == "dial" {
		return true // nobody listens, or no way there
	}
	var coded interface{ SQLState() string } // pgx, lib/pq
	if !errors.As(err, &coded) {
		return false
	}
	state := coded.SQLState()
	switch {
	case strings.HasPrefix(state, "08"): // the connection failed
		return true
	case strings.HasPrefix(state, "53"): // out of disk, memory or connections
		return true
	case strings.HasPrefix(state, "57P"): // the server shuts down, starts up, or crashed
		return true
	case state == "25006": // read-only: a standby that takes over
		return true
	default:
		return false // the statement itself: deadlocks too, since another attempt that counts will do
	}
}
