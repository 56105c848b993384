package registry

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/remitlog/remit/log/fold"
)

// How many there may be; past it ErrFull.
const (
	ProducersMax     = 10_000
	InstancesMax     = 63 // of a producer; with its own address these are as many as callout asks (URLsMax)
	SubscriptionsMax = 1_000
)

// Errors of the registry.
var (
	// ErrUnknownProducer: no such producer. Register it first.
	ErrUnknownProducer = errors.New("registry: unknown producer")
	// ErrUnknownInstance: no such instance, or its lease has ended. Register it.
	ErrUnknownInstance = errors.New("registry: unknown instance")
	// ErrUnknownSubscription: no such subscription. Register it first.
	ErrUnknownSubscription = errors.New("registry: unknown subscription")
	// ErrFull: as many are registered as there may be. Remove what is not needed.
	ErrFull = errors.New("registry: no more are taken")
)

// FixedError says that something of a registration was to change that never does. Register another one under a new name.
type FixedError struct {
	Name     string // of the subscription
	Field    string // in the words of its JSON
	Recorded string
}

func (e *FixedError) Error() string {
	return fmt.Sprintf("registry: subscription %q: %s is %s and does not change", e.Name, e.Field, e.Recorded)
}

var (
	producers     = fold.NewTable[Producer]('p')
	subscriptions = fold.NewTable[Subscription]('s')
	// members has the instances of a producer, by name: all in one row, so that it goes with its producer.
	members = fold.NewTable[[]member]('i')
	// counts are how many rows a table has, by its name; "events" is how many events were folded.
	counts = fold.NewTable[int64]('n')
	// due has the end of each lease as if it were never renewed, by leaseID.
	due = fold.DueOf(machineByte)
)

const (
	machineByte = 'r'

	countProducers     = "producers"
	countSubscriptions = "subscriptions"
	countEvents        = "events"
)

// member is an instance as its producer's row has it.
type member struct {
	_     struct{} `cbor:",toarray"`
	Name  string
	URL   string
	Lease int64 // ms
	Since int64 // when it was registered, in Unix milliseconds
}

// ends is when its lease ends, if it is not heard of after a time.
func (m member) ends(heard time.Time) time.Time {
	return heard.Add(time.Duration(m.Lease) * time.Millisecond)
}

func (m member) since() time.Time { return time.UnixMilli(m.Since) }

// leaseID names a lease. Names have no slash in them.
func leaseID(producer, instance string) string { return producer + "/" + instance }

func find(list []member, name string) (int, bool) {
	return slices.BinarySearchFunc(list, name, func(m member, name string) int { return cmp.Compare(m.Name, name) })
}

// Apply implements fold.Machine.
func (*Registry) Apply(rows fold.Rows, e *fold.Event) {
	switch f := e.Fact.(type) {
	case Registered:
		if _, ok := producers.Get(rows, f.Name); !ok {
			count(rows, countProducers, 1)
		}
		producers.Put(rows, f.Name, f.Producer)
	case Removed:
		removeProducer(rows, e, f.Name)
	case InstanceRegistered:
		addMember(rows, e, f.Instance)
	case InstanceExpired:
		removeMember(rows, e, f.Producer, f.Name)
	case InstanceLeft:
		removeMember(rows, e, f.Producer, f.Name)
	case SubscriptionRegistered:
		if _, ok := subscriptions.Get(rows, f.Name); !ok {
			count(rows, countSubscriptions, 1)
		}
		subscriptions.Put(rows, f.Name, f.Subscription)
	case SubscriptionRemoved:
		if _, ok := subscriptions.Get(rows, f.Name); !ok {
			fold.Broken(e, "subscription %q is removed and was not there", f.Name)
		}
		subscriptions.Delete(rows, f.Name)
		count(rows, countSubscriptions, -1)
	}
	count(rows, countEvents, 1)
}

func count(rows fold.Rows, what string, by int64) {
	n, _ := counts.Get(rows, what)
	counts.Put(rows, what, n+by)
}

func removeProducer(rows fold.Rows, e *fold.Event, name string) {
	if _, ok := producers.Get(rows, name); !ok {
		fold.Broken(e, "producer %q is removed and was not there", name)
	}
	producers.Delete(rows, name)
	count(rows, countProducers, -1)
	list, ok := members.Get(rows, name)
	if !ok {
		return
	}
	for _, m := range list {
		due.Clear(rows, m.ends(m.since()), leaseID(name, m.Name))
	}
	members.Delete(rows, name)
}

func addMember(rows fold.Rows, e *fold.Event, i Instance) {
	list, _ := members.Get(rows, i.Producer)
	list = slices.Clone(list) // rows are values
	m := member{Name: i.Name, URL: i.URL, Lease: i.Lease, Since: e.Time.UnixMilli()}
	if at, ok := find(list, i.Name); ok {
		due.Clear(rows, list[at].ends(list[at].since()), leaseID(i.Producer, i.Name))
		list[at] = m
	} else {
		list = slices.Insert(list, at, m)
	}
	members.Put(rows, i.Producer, list)
	due.Set(rows, m.ends(m.since()), leaseID(i.Producer, i.Name))
}

func removeMember(rows fold.Rows, e *fold.Event, producer, name string) {
	list, _ := members.Get(rows, producer)
	at, ok := find(list, name)
	if !ok {
		fold.Broken(e, "instance %q of %q goes and was not there", name, producer)
	}
	due.Clear(rows, list[at].ends(list[at].since()), leaseID(producer, name))
	if len(list) == 1 {
		members.Delete(rows, producer)
		return
	}
	members.Put(rows, producer, slices.Delete(slices.Clone(list), at, at+1))
}

// emit emits a fact about a name, under an id that no other event has: many of one name may share a millisecond.
func emit(t *fold.Turn, name, what string, f fold.Fact) {
	n, _ := counts.Get(t.Rows(), countEvents)
	t.Emit(fold.Event{ID: fmt.Sprintf("%s/%s/%d", name, what, n+1), Key: name, Fact: f})
}

// room returns ErrFull when there are as many as there may be.
func room(rows fold.Reader, what string, most int64) error {
	if n, _ := counts.Get(rows, what); n >= most {
		return fmt.Errorf("%w: there are %d %s", ErrFull, n, what)
	}
	return nil
}

// Put is the answer to what registers: how it is registered now, and whether it is new.
type Put[T any] struct {
	Now   T
	Added bool
}

// Register registers a producer as it is given, or registers it anew. Of its secrets Now alone is looked at, unless the secret is kept as it is. The
// answer is a Put[Producer].
type Register struct {
	Producer
	KeepCheckSecret    bool
	KeepPrecheckSecret bool
}

// Decide implements fold.Command.
func (c Register) Decide(t *fold.Turn) (any, error) {
	was, ok := producers.Get(t.Rows(), c.Name)
	if !ok {
		if err := room(t.Rows(), countProducers, ProducersMax); err != nil {
			return nil, err
		}
	}
	p := c.Producer
	p.Check.Secret = changed(was.Check.Secret, c.Check.Secret.Now, c.KeepCheckSecret, t.Now)
	p.Precheck.Secret = changed(was.Precheck.Secret, c.Precheck.Secret.Now, c.KeepPrecheckSecret, t.Now)
	if !ok || was != p {
		emit(t, c.Name, "registered", Registered{p})
	}
	return Put[Producer]{p, !ok}, nil
}

func changed(was Secret, to string, keep bool, now time.Time) Secret {
	if keep {
		return was
	}
	return was.change(to, now)
}

// Remove removes a producer and its instances; ErrUnknownProducer if it is not there.
type Remove struct{ Name string }

// Decide implements fold.Command.
func (c Remove) Decide(t *fold.Turn) (any, error) {
	if _, ok := producers.Get(t.Rows(), c.Name); !ok {
		return nil, ErrUnknownProducer
	}
	emit(t, c.Name, "removed", Removed(c))
	return nil, nil
}

// Start says which record a new subscription begins with.
type Start string

// The starts.
const (
	StartGiven    Start = ""         // as it is; of a new one, StartLatest
	StartLatest   Start = "latest"   // the first one after it was registered
	StartEarliest Start = "earliest" // the first that the topic has
)

// Subscribe registers a subscription as it is given, or registers it anew. Of its secret Now alone is looked at, unless the secret is kept as it is;
// From and Registered are not looked at. The answer is a Put[Subscription]; a FixedError if its topic or start is another one.
type Subscribe struct {
	Subscription
	KeepSecret bool
	Start      Start
}

// Decide implements fold.Command.
func (c Subscribe) Decide(t *fold.Turn) (any, error) {
	was, ok := subscriptions.Get(t.Rows(), c.Name)
	s := c.Subscription
	s.From, s.Registered = was.From, was.Registered
	if ok {
		if err := c.fixed(was); err != nil {
			return nil, err
		}
	} else {
		if err := room(t.Rows(), countSubscriptions, SubscriptionsMax); err != nil {
			return nil, err
		}
		s.From, s.Registered = 0, t.Now.UnixMilli()
		if c.Start != StartEarliest {
			s.From = s.Registered
		}
	}
	s.Secret = changed(was.Secret, c.Secret.Now, c.KeepSecret, t.Now)
	if !ok || was != s {
		emit(t, c.Name, "subscribed", SubscriptionRegistered{s})
	}
	return Put[Subscription]{s, !ok}, nil
}

// fixed looks at what never changes.
func (c Subscribe) fixed(was Subscription) error {
	switch start := was.Start(); {
	case c.Topic != was.Topic:
		return &FixedError{c.Name, "topic", was.Topic}
	case c.Start != StartGiven && c.Start != start:
		return &FixedError{c.Name, "from", string(start)}
	default:
		return nil
	}
}

// Start returns which record the subscription began with.
func (s Subscription) Start() Start {
	if s.From == 0 {
		return StartEarliest
	}
	return StartLatest
}

// Unsubscribe removes a subscription; ErrUnknownSubscription if it is not there.
type Unsubscribe struct{ Name string }

// Decide implements fold.Command.
func (c Unsubscribe) Decide(t *fold.Turn) (any, error) {
	if _, ok := subscriptions.Get(t.Rows(), c.Name); !ok {
		return nil, ErrUnknownSubscription
	}
	emit(t, c.Name, "unsubscribed", SubscriptionRemoved(c))
	return nil, nil
}

// Resume records that a person has a subscription go on; ErrUnknownSubscription if it is not there.
type Resume struct{ Name, By, Reason string }

// Decide implements fold.Command.
func (c Resume) Decide(t *fold.Turn) (any, error) {
	if _, ok := subscriptions.Get(t.Rows(), c.Name); !ok {
		return nil, ErrUnknownSubscription
	}
	emit(t, c.Name, "resumed", SubscriptionResumed(c))
	return nil, nil
}
