package registry

import (
	"github.com/google/uuid"

	"github.com/remitlog/remit/log/fold"
)

// Created is the first record of a log.
type Created struct {
	Cluster    uuid.UUID `json:"cluster"` // names this log
	Partitions int       `json:"partitions"`
}

// Producer is a registered producer of half messages. Durations are milliseconds.
type Producer struct {
	_        struct{} `cbor:",toarray"`
	Name     string   `json:"name"`
	Check    Check    `json:"check,omitzero"`
	Precheck Call     `json:"precheck,omitzero"`
	// ConcurrencyMax is how many back-checks of this producer may be open at once, and how many pre-checks beside them; 0 means the default.
	ConcurrencyMax int `json:"concurrencyMax,omitzero"`
	// RatePerSecond is how many of each may begin in a second; 0 means the default.
	RatePerSecond int `json:"ratePerSecond,omitzero"`
}

// Check is how a producer is back-checked.
type Check struct {
	_           struct{} `cbor:",toarray"`
	URL         string   `json:"url,omitzero"`    // empty: instances alone are asked
	Secret      Secret   `json:"secret,omitzero"` // written, never answered
	FirstAfter  int64    `json:"firstAfter,omitzero"`
	Interval    int64    `json:"interval,omitzero"`
	MaxInterval int64    `json:"maxInterval,omitzero"`
	Deadline    int64    `json:"deadline,omitzero"`
	When        string   `json:"when,omitzero"` // CloudEvents SQL
}

// Call is a URL that is asked under a condition.
type Call struct {
	_      struct{} `cbor:",toarray"`
	URL    string   `json:"url,omitzero"`
	Secret Secret   `json:"secret,omitzero"` // written, never answered
	When   string   `json:"when,omitzero"`   // CloudEvents SQL
}

// Instance is one of a producer's processes, which is asked in the producer's place while its lease lasts.
type Instance struct {
	_        struct{} `cbor:",toarray"`
	Producer string   `json:"producer"`
	Name     string   `json:"name"`
	URL      string   `json:"url"`
	// Lease is how long it is asked after it was last heard of, in milliseconds.
	Lease int64 `json:"lease"`
}

// Subscription sends the records of a topic to an HTTP address.
type Subscription struct {
	_      struct{} `cbor:",toarray"`
	Name   string   `json:"name"`
	Topic  string   `json:"topic"` // for ever: another topic is another subscription
	Sink   string   `json:"sink"`
	Secret Secret   `json:"secret,omitzero"` // written, never answered
	Filter string   `json:"filter,omitzero"` // CloudEvents SQL; empty: every record
	Retry  Retry    `json:"retry,omitzero"`
	// From is the time of the first record that is sent, in Unix milliseconds; 0 sends all that the topic has. Like Topic it never changes.
	From int64 `json:"from"`
	// Registered is when it was first registered, in Unix milliseconds: it tells a subscription from one of the same name that was removed.
	Registered int64 `json:"registered"`
}

// Retry is how a delivery that failed is tried again: the pause doubles from Interval to MaxInterval, and past Deadline the record is parked.
type Retry struct {
	_           struct{} `cbor:",toarray"`
	Interval    int64    `json:"interval"`    // ms
	MaxInterval int64    `json:"maxInterval"` // ms
	Deadline    int64    `json:"deadline"`    // ms
}

// Registered is the fact that a producer was registered, or registered anew.
type Registered struct{ Producer }

// Removed is the fact that a producer was removed, and with it its instances.
type Removed struct {
	Name string `json:"name"`
}

// InstanceRegistered is the fact that an instance of a producer was registered, or registered anew: its lease begins. That it is renewed is not
// written.
type InstanceRegistered struct{ Instance }

// InstanceExpired is the fact that an instance was not heard of for as long as its lease.
type InstanceExpired struct {
	Producer string `json:"producer"`
	Name     string `json:"name"`
}

// InstanceLeft is the fact that an instance was taken away by a caller.
type InstanceLeft struct {
	Producer string `json:"producer"`
	Name     string `json:"name"`
}

// SubscriptionRegistered is the fact that a subscription was registered, or registered anew.
type SubscriptionRegistered struct{ Subscription }

// SubscriptionRemoved is the fact that a subscription was removed.
type SubscriptionRemoved struct {
	Name string `json:"name"`
}

// SubscriptionResumed is the fact that a person had a paused subscription go on. It changes nothing else.
type SubscriptionResumed struct {
	Name   string `json:"name"`
	By     string `json:"by,omitzero"`
	Reason string `json:"reason"`
}

// EventType is the type on the log.
func (Created) EventType() string { return "remit.log.created.v1" }

// EventType is the type on the log.
func (Registered) EventType() string { return "remit.producer.registered.v1" }

// EventType is the type on the log.
func (Removed) EventType() string { return "remit.producer.removed.v1" }

// EventType is the type on the log.
func (InstanceRegistered) EventType() string { return "remit.instance.registered.v1" }

// EventType is the type on the log.
func (InstanceExpired) EventType() string { return "remit.instance.expired.v1" }

// EventType is the type on the log.
func (InstanceLeft) EventType() string { return "remit.instance.left.v1" }

// EventType is the type on the log.
func (SubscriptionRegistered) EventType() string { return "remit.subscription.registered.v1" }

// EventType is the type on the log.
func (SubscriptionRemoved) EventType() string { return "remit.subscription.removed.v1" }

// EventType is the type on the log.
func (SubscriptionResumed) EventType() string { return "remit.subscription.resumed.v1" }

// Facts lists the facts of this package.
func Facts() []fold.FactType {
	return []fold.FactType{
		fold.FactOf[Created](), fold.FactOf[Registered](), fold.FactOf[Removed](),
		fold.FactOf[InstanceRegistered](), fold.FactOf[InstanceExpired](), fold.FactOf[InstanceLeft](),
		fold.FactOf[SubscriptionRegistered](), fold.FactOf[SubscriptionRemoved](), fold.FactOf[SubscriptionResumed](),
	}
}
