// Package pushtest has a sink for tests of what is delivered over HTTP: it consents, holds every signature to the specification by a code of its own, and keeps what
// it was sent.
package pushtest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/remitlog/remit/log"
)

// clockMax is how far the time of a signature may be from now, as Standard Webhooks recommends.
const clockMax = 5 * time.Minute

// Delivery is one POST.
type Delivery struct {
	Event  log.Event
	ID     string // the webhook-id
	Header http.Header
	Status int // that it was answered with
}

// Sink is an http.Handler. Its fields are set before it serves.
type Sink struct {
	// Origin is what it consents to; empty is any.
	Origin string
	// Secret is what deliveries must be signed with, plain or whsec_ and base64; empty takes them unsigned.
	Secret string
	// Answer says what a delivery is answered with; nil takes all.
	Answer func(d *Delivery) int
	// Note is told of each delivery, in place of keeping it.
	Note func(Delivery)
	// Wrong is told what no delivery should be: unsigned, badly signed, no CloudEvent.
	Wrong func(error)

	mu  sync.Mutex
	got []Delivery
}

// ServeHTTP implements http.Handler.
func (s *Sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodOptions {
		origin := r.Header.Get("WebHook-Request-Origin")
		if origin == "" || s.Origin != "" && origin != s.Origin {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		w.Header().Set("WebHook-Allowed-Origin", origin)
		w.Header().Set("Allow", "POST")
		return
	}
	d, err := s.read(r)
	if err != nil {
		s.Wrong(err)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	d.Status = http.StatusNoContent
	if s.Answer != nil {
		d.Status = s.Answer(&d)
	}
	if s.Note != nil {
		s.Note(d)
	} else {
		s.keep(d)
	}
	w.WriteHeader(d.Status)
}

func (s *Sink) keep(d Delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, d)
}

func (s *Sink) read(r *http.Request) (Delivery, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return Delivery{}, err
	}
	d := Delivery{ID: r.Header.Get("Webhook-Id"), Header: r.Header}
	if s.Secret != "" {
		if err := Verify(r.Header, body, s.Secret, time.Now()); err != nil {
			return d, err
		}
	}
	events, err := log.ParseHTTP(r.Header, body)
	if err != nil || len(events) != 1 {
		return d, fmt.Errorf("pushtest: %d events, %w", len(events), err)
	}
	d.Event = events[0]
	return d, nil
}

// Verify holds a message to Standard Webhooks: one of its signatures is that of a secret, and its time is about now.
func Verify(h http.Header, body []byte, secret string, now time.Time) error {
	key := []byte(secret)
	if text, ok := strings.CutPrefix(secret, "whsec_"); ok {
		var err error
		if key, err = base64.StdEncoding.DecodeString(text); err != nil {
			return err
		}
	}
	at, err := strconv.ParseInt(h.Get("Webhook-Timestamp"), 10, 64)
	if err != nil {
		return fmt.Errorf("pushtest: webhook-timestamp: %w", err)
	}
	if d := now.Sub(time.Unix(at, 0)); d.Abs() > clockMax {
		return fmt.Errorf("pushtest: it was signed %s ago", d)
	}
	mac := hmac.New(sha256.New, key)
	_, _ = fmt.Fprintf(mac, "%s.%d.%s", h.Get("Webhook-Id"), at, body) // a hash takes all
	want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	for one := range strings.FieldsSeq(h.Get("Webhook-Signature")) {
		if hmac.Equal([]byte(one), []byte(want)) {
			return nil
		}
	}
	return errors.New("pushtest: no signature is that of the secret: " + h.Get("Webhook-Signature"))
}

// Deliveries returns what has come, in its order.
func (s *Sink) Deliveries() []Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Delivery(nil), s.got...)
}

// Taken returns the ids of the events that it has taken, in their order.
func (s *Sink) Taken() (ids []string) {
	for _, d := range s.Deliveries() {
		if d.Status/100 == 2 {
			ids = append(ids, d.Event.ID)
		}
	}
	return ids
}

// Forget forgets what has come.
func (s *Sink) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = nil
}
