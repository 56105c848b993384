package kafkaapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"strconv"
	"time"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/embedded"
	"github.com/remitlog/remit/log/kafkaapi/groups"
)

// Defaults of the limits in Options.
const (
	ConnectionsMaxDefault   = 4096
	InFlightMaxDefault      = 32
	RequestMemoryMaxDefault = 128 << 20
	FetchMemoryMaxDefault   = 128 << 20
)

// Limits that are not options. At each the connection is closed, unless it says otherwise.
const (
	// RequestBytesMax is the largest request.
	RequestBytesMax = 32 << 20
	// LargeRequestBytes is from where on a request is a large one.
	LargeRequestBytes = 1 << 20
	// FetchBytesMax is how much one answer to a fetch carries at most, whatever the client asks for, but one batch at least.
	FetchBytesMax = 16 << 20
	// FetchSmallBytes is how much it carries while there is no memory for larger ones.
	FetchSmallBytes = 1 << 20
	// IdleMax is how long a connection without requests is kept; Kafka's own default.
	IdleMax = 10 * time.Minute
	// BodyTimeout is how long a request that has begun may take to arrive.
	BodyTimeout = 30 * time.Second
	// WriteTimeout is how long a client may take to read an answer.
	WriteTimeout = time.Minute
	// FetchWaitMax is how long a fetch waits at most for records; it is answered then.
	FetchWaitMax = time.Minute
)

// NodeID is the one node there is: leader, controller and coordinator of everything.
const NodeID = 1

// Options say how a log is served. Only Log is needed.
type Options struct {
	// Log is what is served.
	Log *embedded.Log
	// Groups are the limits of consumer groups; the store, the topics and the logger are the server's.
	Groups groups.Options
	// Advertise is the HOST:PORT that clients are told to connect to. Empty means the address that each has connected to.
	Advertise string
	// AutoCreate makes a topic when a client asks for one that is not there, and lets it be made.
	AutoCreate bool
	// Partitions is how many a topic gets that asks for no number; 0 means log.PartitionsDefault.
	Partitions int
	// InUse says why a topic must not be deleted; nil error if it may be. A nil function means that all may.
	InUse func(topic string) error
	// Deleted is told of a topic that is gone, BEFORE one of its name can be made again. What was read of it is not to be committed any more.
	Deleted func(topic string)
	// Dir is what DescribeLogDirs calls the place of the log.
	Dir string
	// Logger takes what is worth a person's eye. Nil discards it.
	Logger *slog.Logger
	// Listener watches.
	Listener Listener

	// ConnectionsMax is the most connections; further ones are closed at once. 0 means the default.
	ConnectionsMax int
	// InFlightMax is the most produces of one connection that wait for the disk; what comes then is not read until one is answered.
	InFlightMax int
	// RequestMemoryMax is the most bytes of requests that are being answered; what comes then is not read until there is room. Half of it is
	// for requests above LargeRequestBytes, so that who sends those, or claims to, does not keep all others waiting.
	RequestMemoryMax int64
	// FetchMemoryMax is the most bytes of records on their way to clients. Half of it is for large answers; when they have taken it, because
	// clients do not read them, all others get small ones, and wait for room only among those.
	FetchMemoryMax int64
}

// Listener is told what happens. Each function may be nil, is called without locks, and must be quick.
type Listener struct {
	// Connections: so many are open now.
	Connections func(open int)
	// Answered: a request of this kind was answered, so long after it was read.
	Answered func(kind string, took time.Duration)
	// Closed: a connection was closed for what it sent, or for a limit.
	Closed func(err error)
}

// EnsureDefaults fills in what is not set.
func (o *Options) EnsureDefaults() {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Partitions == 0 {
		o.Partitions = log.PartitionsDefault
	}
	if o.InUse == nil {
		o.InUse = func(string) error { return nil }
	}
	if o.Deleted == nil {
		o.Deleted = func(string) {}
	}
	if o.Dir == "" {
		o.Dir = "remit"
	}
	if o.ConnectionsMax == 0 {
		o.ConnectionsMax = ConnectionsMaxDefault
	}
	if o.InFlightMax == 0 {
		o.InFlightMax = InFlightMaxDefault
	}
	if o.RequestMemoryMax == 0 {
		o.RequestMemoryMax = RequestMemoryMaxDefault
	}
	if o.FetchMemoryMax == 0 {
		o.FetchMemoryMax = FetchMemoryMaxDefault
	}
}

// Validate returns what is wrong with o.
func (o *Options) Validate() error {
	if o.Log == nil {
		return errors.New("kafkaapi: Log is needed")
	}
	if o.Advertise != "" {
		if _, _, err := hostPort(o.Advertise); err != nil {
			return err
		}
	}
	switch {
	case o.Partitions < 1 || o.Partitions > log.PartitionsMax:
		return fmt.Errorf("kafkaapi: Partitions %d; 1 to %d", o.Partitions, log.PartitionsMax)
	case o.ConnectionsMax < 1 || o.InFlightMax < 1:
		return errors.New("kafkaapi: ConnectionsMax and InFlightMax are 1 at least")
	case o.RequestMemoryMax < 2*RequestBytesMax || o.FetchMemoryMax < 2*FetchBytesMax:
		return fmt.Errorf("kafkaapi: RequestMemoryMax is %d at least, FetchMemoryMax %d: one request must fit", 2*RequestBytesMax, 2*FetchBytesMax)
	}
	return nil
}

// String says what matters for reading a log of operations.
func (o *Options) String() string {
	return fmt.Sprintf("advertise=%q autocreate=%t partitions=%d connections=%d inflight=%d requests=%d fetches=%d",
		o.Advertise, o.AutoCreate, o.Partitions, o.ConnectionsMax, o.InFlightMax, o.RequestMemoryMax, o.FetchMemoryMax)
}

func hostPort(address string) (host string, port int32, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, fmt.Errorf("kafkaapi: %q is not HOST:PORT", address)
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || host == "" || len(host) > math.MaxInt16 {
		return "", 0, fmt.Errorf("kafkaapi: %q is not HOST:PORT", address)
	}
	return host, int32(n), nil
}

// begin is what New needs of the log, in a context of its own.
const beginTimeout = 30 * time.Second

func beginContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), beginTimeout)
}
