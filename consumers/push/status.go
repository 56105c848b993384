package push

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/remitlog/remit/consumers"
	"github.com/remitlog/remit/log"
)

// State is what a subscription is doing.
type State string

// The states. They are words of the API, and are for ever.
const (
	StateWaiting    State = "waiting"    // its topic is not there; it goes on when it is
	StateAsking     State = "asking"     // its sink has not consented, or does not answer; it is asked again
	StateDelivering State = "delivering" // records are delivered as they come
	StateFailing    State = "failing"    // the sink takes nothing: deliveries go one at a time until one is taken
	StatePaused     State = "paused"     // a person is needed: to change it, or to resume it
)

// Status is how a subscription stands. Counts are since this process started.
type Status struct {
	State State
	Since time.Time
	Why   string // for people; empty while delivering
	// Consent is what the sink answered last.
	Consent   Consent
	ConsentAt time.Time
	// Lag is how many records of the topic are not yet noted as done, as Kafka tools count it; Replays is the same of those sent again.
	Lag, Replays int64

	Delivered, Failed, Skipped, Parked, Unfiltered, Missed int64

	LastError   string
	LastErrorAt time.Time
	// FailingKeys is how many keys fail now, and Failing those that have failed longest, at most FailingMax.
	FailingKeys int
	Failing     []Failing
}

// Failing is a record that was not taken, and holds its key back.
type Failing struct {
	Key      string
	At       log.Partition
	Offset   log.Offset
	EventID  string
	Attempts int
	Since    time.Time
	NextAt   time.Time // zero while it is being tried
	Error    string
}

// book keeps the status of one subscription, over all its lives.
type book struct {
	mu      sync.Mutex
	status  Status
	health  *health // of the run that there is
	reader  *reader // the last one
	failing map[consumers.Place]*Failing
	tried   map[consumers.Place]time.Time // when, of those that fail
}

func newBook() *book {
	return &book{status: Status{State: StateAsking, Since: time.Now()}, failing: map[consumers.Place]*Failing{}, tried: map[consumers.Place]time.Time{}}
}

func placeOf(d consumers.Delivery) consumers.Place {
	return consumers.Place{Partition: d.Record.Partition, Offset: d.Record.Offset}
}

// update changes the status.
func (b *book) update(f func(*Status)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(&b.status)
}

func (b *book) moved(to State, why string) {
	b.update(func(s *Status) {
		if s.State != to {
			s.State, s.Since = to, time.Now()
		}
		s.Why = why
	})
}

func (b *book) trouble(err error) {
	b.update(func(s *Status) { s.LastError, s.LastErrorAt = err.Error(), time.Now() })
}

func (b *book) consent(c Consent) {
	b.update(func(s *Status) { s.Consent, s.ConsentAt = c, time.Now() })
}

// reads says who knows how far it is.
func (b *book) reads(r *reader) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reader = r
}

func (b *book) begin(h *health) {
	b.moved(StateDelivering, "")
	b.mu.Lock()
	defer b.mu.Unlock()
	b.health = h
}

// end: what failed is read again by the next run.
func (b *book) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.health = nil
	clear(b.failing)
	clear(b.tried)
}

func (b *book) delivered(d consumers.Delivery) {
	b.update(func(s *Status) {
		s.Delivered++
		b.mended(d)
	})
}

func (b *book) parked(d consumers.Delivery) {
	b.update(func(s *Status) {
		s.Parked++
		b.mended(d)
	})
}

func (b *book) mended(d consumers.Delivery) {
	delete(b.failing, placeOf(d))
	delete(b.tried, placeOf(d))
}

func (b *book) skipped() { b.update(func(s *Status) { s.Skipped++ }) }

func (b *book) unfiltered(d consumers.Delivery, err error) {
	b.update(func(s *Status) {
		s.Unfiltered++
		s.LastError, s.LastErrorAt = "the filter cannot be evaluated for "+d.String()+": "+err.Error(), time.Now()
	})
}

// failed notes a failure, and returns when the record was tried before; when this attempt began, if it was not.
func (b *book) failed(d consumers.Delivery, e *log.Event, began, now time.Time, why string) (since time.Time) {
	at := placeOf(d)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.status.Failed++
	b.status.LastError, b.status.LastErrorAt = why, now
	f := b.failing[at]
	if f == nil {
		f = &Failing{Key: e.Key, At: d.Record.Partition, Offset: d.Record.Offset, EventID: e.ID, Since: now}
		b.failing[at] = f
		b.tried[at] = began
	}
	f.Attempts, f.Error, f.NextAt = d.Attempt, why, time.Time{}
	since, b.tried[at] = b.tried[at], now
	return since
}

// waits notes when a record is tried again.
func (b *book) waits(d consumers.Delivery, until time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if f := b.failing[placeOf(d)]; f != nil {
		f.NextAt = until
	}
}

// now returns the status.
func (b *book) now() Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.status
	if b.reader != nil {
		s.Lag, s.Replays = b.reader.behind()
	}
	if b.health != nil {
		if since := b.health.down(); s.State == StateDelivering && !since.IsZero() {
			s.State, s.Since, s.Why = StateFailing, since, s.LastError
		}
	}
	s.FailingKeys = len(b.failing)
	for _, f := range b.failing {
		s.Failing = append(s.Failing, *f)
	}
	slices.SortFunc(s.Failing, func(a, b Failing) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.At.Topic, b.At.Topic), cmp.Compare(a.At.Index, b.At.Index), cmp.Compare(a.Offset, b.Offset))
	})
	s.Failing = s.Failing[:min(len(s.Failing), FailingMax)]
	return s
}
