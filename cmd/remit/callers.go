package main

import (
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/remitlog/remit/broker"
	"github.com/remitlog/remit/broker/callout"
	"github.com/remitlog/remit/log/registry"
)

// The networks beside the public ones that calls may go to, as --calls-to has them.
const (
	toLoopback = "loopback"
	toPrivate  = "private"
)

// newCaller returns who asks producers.
func newCaller(config Config, logger *slog.Logger, m *metrics) (*callout.Caller, error) {
	return callout.New(callout.Options{
		AllowLoopback: slices.Contains(config.CallsTo, toLoopback), AllowPrivate: slices.Contains(config.CallsTo, toPrivate),
		TargetsMax: 2 * registry.ProducersMax, // its checks, and its pre-checks
		Listener: callout.Listener{
			Called: func(_, _ string, status int, err error, took time.Duration) { m.called(status, err, took) },
			Opened: func(target string, last error) {
				logger.Warn("calls fail, and are left out for a while", "target", target, "error", last)
			},
			Closed: func(target string) { logger.Info("calls are answered again", "target", target) },
		},
	})
}

// newAsker returns who asks producers.
func newAsker(r *registry.Registry, c *callout.Caller, logger *slog.Logger, m *metrics) *broker.Producers {
	said := &saidOnce{said: map[[2]string]bool{}}
	return broker.NewProducers(r, c, broker.ProducersListener{
		Checked: func(producer string, s broker.Said, err error) {
			m.checked(s, err)
			if errors.Is(err, broker.ErrNoAnswer) || errors.Is(err, callout.ErrForbiddenAddress) { // what fails otherwise is said when its breaker opens
				said.warn(logger, "a producer's answer to a check is none", producer, err)
			}
		},
		Prechecked: func(_ string, s broker.Said, err error) { m.prechecked(s, err) },
		Unexpected: func(string) { m.unexpected.Inc() },
		Repeated:   func(string) { m.repeated.Inc() },
		Conditioned: func(producer, when string, err error) {
			said.warn(logger, "a producer's condition cannot be evaluated", producer, err, "when", when)
		},
	})
}

// saidOnce says the same of the same producer once a minute at most.
type saidOnce struct {
	mu   sync.Mutex
	said map[[2]string]bool // what, of whom
	at   time.Time
}

func (o *saidOnce) warn(logger *slog.Logger, what, producer string, err error, more ...any) {
	o.mu.Lock()
	if now := time.Now(); now.Sub(o.at) > time.Minute {
		clear(o.said)
		o.at = now
	}
	said := o.said[[2]string{what, producer}]
	o.said[[2]string{what, producer}] = true
	o.mu.Unlock()
	if !said {
		logger.Warn(what, append([]any{"producer", producer, "error", err}, more...)...)
	}
}
