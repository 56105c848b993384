package callout

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"
)

// Options say where calls may go, and within which limits. Zero limits are the defaults.
type Options struct {
	// AllowLoopback lets calls go to this machine: 127.0.0.0/8 and ::1. Whoever registers a URL can then reach what listens here.
	AllowLoopback bool
	// AllowPrivate lets calls go to private networks: 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 100.64.0.0/10 and fc00::/7, but never to a
	// cloud's metadata, which has addresses there too.
	AllowPrivate bool

	// Timeout is how long one try may take, from DNS to the last byte of the answer, if the Request does not say. 10 s.
	Timeout time.Duration
	// TimeoutMax is the longest that a Request may ask for. 1 minute.
	TimeoutMax time.Duration
	// ConnectMax is how long DNS and connecting may take of it. 5 s.
	ConnectMax time.Duration
	// TriesMax is how many instances one call asks at most. 3.
	TriesMax int
	// WaitMax is how long a call may wait in its target's queue; past it, it ends with ErrBusy. 1 minute.
	WaitMax time.Duration

	// RequestMax is the largest body of a request, in bytes; past it ErrTooLarge. 4 MiB.
	RequestMax int
	// BodyMax is how much of an answer's body is read, in bytes; the rest costs the connection. 64 KiB.
	BodyMax int
	// HeaderMax is the most bytes of an answer's header; past it the call fails. 64 KiB.
	HeaderMax int

	// ConcurrencyMax is how many calls of one target are under way at once. 16.
	ConcurrencyMax int
	// QueueMax is how many calls of one target wait; past it Go answers ErrBusy. 4096.
	QueueMax int
	// HeldBytesMax is how many bytes of bodies the calls of one target may hold, waiting and under way; past it Go answers ErrBusy. 16 MiB.
	HeldBytesMax int
	// RatePerSecond is how many calls of one target begin in a second, Burst how many at once after a pause. 0 is no limit.
	RatePerSecond, Burst int
	// TargetsMax is how many targets are known at once; the one that was idle longest is forgotten. If all have calls, Go answers ErrBusy. 1024.
	TargetsMax int
	// URLsMax is how many instances a target may have. 64.
	URLsMax int

	// BreakerFailures is how many calls of a target must fail in a row for its breaker to open. 5.
	BreakerFailures int
	// BreakerOpen is how long it stays open; then one call is let through. 10 s.
	BreakerOpen time.Duration
	// PauseMin is how long an instance that failed is left out; it doubles with each further failure up to PauseMax, and a part of it is
	// jitter. Then one call asks it first. If no instance is left, the one whose pause ends first is asked. 1 s, 1 minute.
	PauseMin, PauseMax time.Duration

	// IdleMax is how many connections are kept open without a call. 1024.
	IdleMax int
	// IdleTimeout is for how long. 90 s.
	IdleTimeout time.Duration

	// Origin is the DNS name that remit has for others. It stands in User-Agent, and in WebHook-Request-Origin of OPTIONS, with which
	// CloudEvents asks for consent.
	Origin string
	// Resolver looks names up; by default Go's own, which a context ends, as /etc/resolv.conf has it.
	Resolver *net.Resolver
	// Dial connects to HOST:PORT in the place of the machine's network, and nobody looks at addresses then: it is for tests whose network is not real.
	Dial func(ctx context.Context, network, host string) (net.Conn, error)
	// TLS is what TLS connections begin with; nil trusts the machine's roots.
	TLS      *tls.Config
	Listener Listener
	// Now is the wall clock. time.Now.
	Now func() time.Time
}

// EnsureDefaults fills in what is zero.
func (o *Options) EnsureDefaults() {
	o.Timeout = cmp.Or(o.Timeout, 10*time.Second)
	o.TimeoutMax = cmp.Or(o.TimeoutMax, max(time.Minute, o.Timeout))
	o.ConnectMax = cmp.Or(o.ConnectMax, 5*time.Second)
	o.TriesMax = cmp.Or(o.TriesMax, 3)
	o.WaitMax = cmp.Or(o.WaitMax, time.Minute)
	o.RequestMax = cmp.Or(o.RequestMax, 4<<20)
	o.BodyMax = cmp.Or(o.BodyMax, 64<<10)
	o.HeaderMax = cmp.Or(o.HeaderMax, 64<<10)
	o.ConcurrencyMax = cmp.Or(o.ConcurrencyMax, 16)
	o.QueueMax = cmp.Or(o.QueueMax, 4096)
	o.HeldBytesMax = cmp.Or(o.HeldBytesMax, max(16<<20, o.RequestMax))
	o.Burst = cmp.Or(o.Burst, max(o.RatePerSecond, 1))
	o.TargetsMax = cmp.Or(o.TargetsMax, 1024)
	o.URLsMax = cmp.Or(o.URLsMax, 64)
	o.BreakerFailures = cmp.Or(o.BreakerFailures, 5)
	o.BreakerOpen = cmp.Or(o.BreakerOpen, 10*time.Second)
	o.PauseMin = cmp.Or(o.PauseMin, time.Second)
	o.PauseMax = cmp.Or(o.PauseMax, max(time.Minute, o.PauseMin))
	o.IdleMax = cmp.Or(o.IdleMax, 1024)
	o.IdleTimeout = cmp.Or(o.IdleTimeout, 90*time.Second)
	if o.Resolver == nil {
		// A lookup of the C library cannot be ended: it would keep a thread for each target whose DNS is silent.
		o.Resolver = &net.Resolver{PreferGo: true}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Listener.ensureDefaults()
}

// Validate reports the first thing that is wrong.
func (o *Options) Validate() error {
	switch {
	case min(o.TriesMax, o.RequestMax, o.BodyMax, o.HeaderMax, o.ConcurrencyMax, o.QueueMax, o.TargetsMax, o.URLsMax, o.BreakerFailures, o.IdleMax, o.Burst) < 1:
		return fmt.Errorf("callout: each limit is at least 1: %s", o)
	case min(o.Timeout, o.TimeoutMax, o.ConnectMax, o.WaitMax, o.BreakerOpen, o.PauseMin, o.IdleTimeout) <= 0:
		return fmt.Errorf("callout: each time is above 0: %s", o)
	case o.RatePerSecond < 0:
		return errors.New("callout: RatePerSecond is negative; 0 is no limit")
	case o.TimeoutMax < o.Timeout:
		return fmt.Errorf("callout: TimeoutMax, %s, is below Timeout, %s", o.TimeoutMax, o.Timeout)
	case o.PauseMax < o.PauseMin:
		return fmt.Errorf("callout: PauseMax, %s, is below PauseMin, %s", o.PauseMax, o.PauseMin)
	case o.HeldBytesMax < o.RequestMax:
		return fmt.Errorf("callout: HeldBytesMax, %d, is below RequestMax, %d: a call of that size could never wait", o.HeldBytesMax, o.RequestMax)
	}
	return nil
}

func (o *Options) String() string {
	return fmt.Sprintf("loopback=%t private=%t timeout=%s..%s connect=%s tries=%d wait=%s request=%d body=%d header=%d concurrency=%d queue=%d held=%d rate=%d burst=%d "+
		"targets=%d urls=%d breaker=%d/%s pause=%s..%s idle=%d/%s origin=%s",
		o.AllowLoopback, o.AllowPrivate, o.Timeout, o.TimeoutMax, o.ConnectMax, o.TriesMax, o.WaitMax, o.RequestMax, o.BodyMax, o.HeaderMax,
		o.ConcurrencyMax, o.QueueMax, o.HeldBytesMax, o.RatePerSecond, o.Burst,
		o.TargetsMax, o.URLsMax, o.BreakerFailures, o.BreakerOpen, o.PauseMin, o.PauseMax, o.IdleMax, o.IdleTimeout, o.Origin)
}

// Listener is told what happens. Any function may be nil. They are called without locks, by many goroutines at once, and hold the call up until
// they return.
type Listener struct {
	// Called: one instance was asked; url is its own without what follows a question mark. status is 0 when it did not answer, and err says why; took is the time of this try.
	Called func(target, url string, status int, err error, took time.Duration)
	// Opened: the target's breaker has opened: its calls end with ErrOpen for BreakerOpen. last is why its last call failed.
	Opened func(target string, last error)
	// Closed: the target answers again.
	Closed func(target string)
}

func (l *Listener) ensureDefaults() {
	if l.Called == nil {
		l.Called = func(string, string, int, error, time.Duration) {}
	}
	if l.Opened == nil {
		l.Opened = func(string, error) {}
	}
	if l.Closed == nil {
		l.Closed = func(string) {}
	}
}
