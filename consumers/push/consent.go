package push

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// Consent is what a sink has answered to CloudEvents' handshake (HTTP 1.1 Web Hooks for Event Delivery, section 4).
type Consent struct {
	Granted bool
	// PerMinute is how many deliveries it takes in a minute; 0 is any number.
	PerMinute int
	// Why it is not granted.
	Why string
}

// The headers of the handshake.
const (
	headerRequestOrigin = "WebHook-Request-Origin"
	headerAllowedOrigin = "WebHook-Allowed-Origin"
	headerAllowedRate   = "WebHook-Allowed-Rate"
)

// ask asks a sink whether remit may deliver to it.
func ask(ctx context.Context, c Caller, origin string, s *Subscription) Consent {
	h := http.Header{}
	h.Set(headerRequestOrigin, origin)
	a, err := c.Call(ctx, target(s), Request{Method: http.MethodOptions, ID: "consent/" + s.Name, Header: h})
	if err != nil {
		return refused("it did not answer OPTIONS: %v", err)
	}
	return readConsent(a, origin)
}

func refused(format string, args ...any) Consent { return Consent{Why: fmt.Sprintf(format, args...)} }

func readConsent(a Answer, origin string) Consent {
	allowed, rate := a.Header.Get(headerAllowedOrigin), a.Header.Get(headerAllowedRate)
	switch {
	case a.Status < 200 || a.Status > 299:
		return refused("it answered OPTIONS with %s; it must answer 200 with %s: %s", status(a.Status), headerAllowedOrigin, origin)
	case allowed == "":
		return refused("it answered OPTIONS without %s; it must be %s, or *", headerAllowedOrigin, origin)
	case allowed != "*" && !strings.EqualFold(allowed, origin):
		return refused("its %s is %.100q, and not %s", headerAllowedOrigin, allowed, origin)
	case rate == "" || rate == "*":
		return Consent{Granted: true}
	}
	n, err := strconv.Atoi(rate)
	if err != nil || n < 1 {
		return refused("its %s is %.100q; it must be deliveries in a minute, above 0, or *", headerAllowedRate, rate)
	}
	return Consent{Granted: true, PerMinute: n}
}

func target(s *Subscription) Target { return Target{s.Name, s.Sink} }

// status names one.
func status(code int) string {
	if text := http.StatusText(code); text != "" {
		return fmt.Sprintf("%d %s", code, text)
	}
	return strconv.Itoa(code)
}
