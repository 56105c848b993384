package api

import (
	"net/http"
	"strings"
	"time"

	"github.com/remitlog/remit/consumers"
	"github.com/remitlog/remit/consumers/push"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/registry"
)

// Deliveries know how subscriptions stand.
type Deliveries interface {
	// Status is not ok of a subscription that is not known yet, or not any more.
	Status(subscription string) (push.Status, bool)
	// Resume lets a paused one go on.
	Resume(subscription string) bool
}

// SubscriptionStatus is how a subscription stands.
type SubscriptionStatus struct {
	// State is "waiting" (for its topic), "asking" (for the sink's consent), "delivering", "failing" (the sink takes nothing) or "paused" (a person is needed).
	State   string               `json:"state"`
	Since   Time                 `json:"since,omitzero"`
	Why     string               `json:"why,omitzero"`
	Consent *SubscriptionConsent `json:"consent,omitzero"`
	// Lag is how many records of the topic are not done yet, as Kafka tools count it; ReplaysWaiting how many of those that are sent again.
	Lag            int64 `json:"lag"`
	ReplaysWaiting int64 `json:"replaysWaiting"`
	// Counts are since this remit was started.
	Counts    SubscriptionCounts `json:"counts"`
	LastError *SubscriptionError `json:"lastError,omitzero"`
	// FailingKeys is how many keys wait for a record that fails; Failing are those records, the longest failing first, at most 20.
	FailingKeys int             `json:"failingKeys"`
	Failing     []FailingRecord `json:"failing,omitempty"`
}

// SubscriptionConsent is what the sink has answered to CloudEvents' handshake.
type SubscriptionConsent struct {
	Granted       bool   `json:"granted"`
	At            Time   `json:"at"`
	RatePerMinute int    `json:"ratePerMinute,omitzero"`
	Why           string `json:"why,omitzero"`
}

// SubscriptionCounts are what became of records and calls.
type SubscriptionCounts struct {
	Delivered int64 `json:"delivered"`
	Failures  int64 `json:"failures"`
	// Filtered did not match the filter; of Unfiltered that could not be told, so they were delivered.
	Filtered   int64 `json:"filtered"`
	Unfiltered int64 `json:"unfiltered"`
	Parked     int64 `json:"parked"`
	// Missed were gone before they were delivered.
	Missed int64 `json:"missed"`
}

// SubscriptionError is what went wrong last.
type SubscriptionError struct {
	At    Time   `json:"at"`
	Error string `json:"error"`
}

// FailingRecord is a record that was not taken, and holds its key back.
type FailingRecord struct {
	Key           string     `json:"key,omitzero"`
	Topic         string     `json:"topic"`
	Partition     int32      `json:"partition"`
	Offset        log.Offset `json:"offset"`
	EventID       string     `json:"eventId"`
	Attempts      int        `json:"attempts"`
	Since         Time       `json:"since"`
	NextAttemptAt Time       `json:"nextAttemptAt,omitzero"`
	Error         string     `json:"error"`
}

// withStatus is subscriptionAnswer with how it stands.
func (s *Subscriptions) withStatus(of registry.Subscription) Subscription {
	a := subscriptionAnswer(of)
	st, ok := s.Push.Status(of.Name)
	if !ok {
		st.State = push.StateAsking // it was registered this moment
	}
	a.Status = statusAnswer(&st)
	return a
}

func statusAnswer(st *push.Status) *SubscriptionStatus {
	a := &SubscriptionStatus{
		State: string(st.State), Since: wholeMs(st.Since), Why: st.Why, Lag: st.Lag, ReplaysWaiting: st.Replays, FailingKeys: st.FailingKeys,
		Counts: SubscriptionCounts{Delivered: st.Delivered, Failures: st.Failed, Filtered: st.Skipped, Unfiltered: st.Unfiltered, Parked: st.Parked, Missed: st.Missed},
	}
	if !st.ConsentAt.IsZero() {
		a.Consent = &SubscriptionConsent{Granted: st.Consent.Granted, At: wholeMs(st.ConsentAt), RatePerMinute: st.Consent.PerMinute, Why: st.Consent.Why}
	}
	if st.LastError != "" {
		a.LastError = &SubscriptionError{wholeMs(st.LastErrorAt), st.LastError}
	}
	for _, f := range st.Failing {
		a.Failing = append(a.Failing, FailingRecord{Key: f.Key, Topic: f.At.Topic, Partition: f.At.Index, Offset: f.Offset, EventID: f.EventID,
			Attempts: f.Attempts, Since: wholeMs(f.Since), NextAttemptAt: wholeMs(f.NextAt), Error: f.Error})
	}
	return a
}

// wholeMs is a time as all others are answered.
func wholeMs(t time.Time) Time { return Time(t.Truncate(time.Millisecond)) }

// ResumeRequest says why a subscription is to go on.
type ResumeRequest struct {
	Reason string `json:"reason"`
}

func (s *Subscriptions) resume(w http.ResponseWriter, r *http.Request) error {
	name, err := subscriptionOf(r)
	if err != nil {
		return err
	}
	if err := ParseQuery(r).Done(); err != nil {
		return err
	}
	var body ResumeRequest
	if err := Decode(w, r, &body); err != nil {
		return err
	}
	switch {
	case strings.TrimSpace(body.Reason) == "":
		return invalidField("reason", "it is missing; say why: it stands on the log")
	case len(body.Reason) > consumers.ReasonMax:
		return invalidField("reason", "it has %d bytes, at most %d are kept", len(body.Reason), consumers.ReasonMax)
	}
	found, ok := s.Registry.Subscription(name)
	if !ok {
		return unknownSubscription(name)
	}
	if err := s.Registry.Resume(r.Context(), registry.Resume{Name: name, By: replayBy, Reason: body.Reason}); err != nil {
		return err
	}
	s.Push.Resume(name)
	SetPosition(w, s.Node.Position())
	return WriteJSON(w, http.StatusOK, s.withStatus(found))
}
