package registry

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/remitlog/remit/log/fold"
)

// lease is what is known of a lease beside the state. It is lost with the process, and every lease then gets one full term.
type lease struct {
	heard  time.Time // when it was renewed last
	ending bool      // its end may have been decided: it is renewed by the partition alone
}

// Owed implements fold.Machine: a lease is owed its end, once it was not heard of for long enough.
func (r *Registry) Owed(rows fold.Reader, id string, look fold.Look) []fold.Effect {
	m, ok := memberOf(rows, id)
	if !ok {
		return nil
	}
	r.mu.Lock()
	ends := r.ends(id, m)
	r.mu.Unlock()
	if ends.After(look.Now) {
		return []fold.Effect{{At: ends}}
	}
	return []fold.Effect{{ToSelf: true, Command: expire{r, id}}}
}

func memberOf(rows fold.Reader, id string) (m member, ok bool) {
	producer, name, _ := strings.Cut(id, "/")
	list, _ := members.Get(rows, producer)
	at, ok := find(list, name)
	if !ok {
		return m, false
	}
	return list[at], true
}

// ends is when a lease ends, as far as is known. The caller holds mu.
func (r *Registry) ends(id string, m member) time.Time {
	heard := r.started // a full term after every start
	for _, at := range []time.Time{m.since(), r.leases[id].heard} {
		if at.After(heard) {
			heard = at
		}
	}
	return m.ends(heard)
}

// errHeard: the lease that was to end was renewed meanwhile. Its due row is looked at again.
var errHeard = errors.New("registry: the lease was renewed meanwhile")

// expire ends a lease.
type expire struct {
	r  *Registry
	id string
}

// Decide implements fold.Command. INVARIANT: from here on the lease is renewed by the partition alone (renew), which comes after this and registers it
// anew: nobody is told that a lease was renewed whose end is on its way to the log.
func (c expire) Decide(t *fold.Turn) (any, error) {
	m, ok := memberOf(t.Rows(), c.id)
	if !ok {
		return nil, nil // it went meanwhile
	}
	if !c.r.ending(c.id, m, t.Now) {
		return nil, errHeard
	}
	producer, name, _ := strings.Cut(c.id, "/")
	emit(t, c.id, "expired", InstanceExpired{producer, name})
	return nil, nil
}

// ending marks a lease that ends by now.
func (r *Registry) ending(id string, m member, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ends(id, m).After(now) {
		return false
	}
	r.leases[id] = lease{heard: r.leases[id].heard, ending: true}
	return true
}

// enlist registers an instance, or hears of it. The answer is whether it is new (bool).
type enlist struct {
	r *Registry
	Instance
}

// Decide implements fold.Command.
func (c enlist) Decide(t *fold.Turn) (any, error) {
	if _, ok := producers.Get(t.Rows(), c.Producer); !ok {
		return nil, ErrUnknownProducer
	}
	id := leaseID(c.Producer, c.Name)
	m, ok := memberOf(t.Rows(), id)
	if list, _ := members.Get(t.Rows(), c.Producer); !ok && len(list) >= InstancesMax {
		return nil, fmt.Errorf("%w: %q has %d instances", ErrFull, c.Producer, len(list))
	}
	if ok && m.URL == c.URL && m.Lease == c.Lease {
		c.r.heard(id, t.Now)
		return false, nil
	}
	emit(t, id, "registered", InstanceRegistered{c.Instance})
	return !ok, nil
}

// heard renews a lease that is there.
func (r *Registry) heard(id string, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leases[id] = lease{heard: now}
}

// leave takes an instance away.
type leave struct{ producer, name string }

// Decide implements fold.Command.
func (c leave) Decide(t *fold.Turn) (any, error) {
	id := leaseID(c.producer, c.name)
	if _, ok := memberOf(t.Rows(), id); !ok {
		return nil, ErrUnknownInstance
	}
	emit(t, id, "left", InstanceLeft{c.producer, c.name})
	return nil, nil
}

// Enlist registers an instance of a producer, or renews its lease, and returns whether it is new. A renewal is not written, and costs no
// more than a lookup. ErrUnknownProducer, ErrFull.
func (r *Registry) Enlist(ctx context.Context, i Instance) (added bool, err error) {
	if r.renew(i) {
		return false, nil
	}
	return do[bool](ctx, r, enlist{r, i})
}

// renew renews a lease that is registered as it is given.
func (r *Registry) renew(i Instance) bool {
	id := leaseID(i.Producer, i.Name)
	r.mu.Lock()
	defer r.mu.Unlock()
	if was, ok := r.Instance(i.Producer, i.Name); !ok || was != i || r.leases[id].ending {
		return false
	}
	r.leases[id] = lease{heard: r.node.Now()}
	return true
}

// Leave takes an instance away; ErrUnknownInstance if it is not there.
func (r *Registry) Leave(ctx context.Context, producer, name string) error {
	_, err := do[any](ctx, r, leave{producer, name})
	return err
}

// forget drops what is known of leases that have ended or begun anew. The caller holds mu.
func (r *Registry) forget(was *snapshot, events []fold.Event) {
	for i := range events {
		switch f := events[i].Fact.(type) {
		case InstanceRegistered:
			delete(r.leases, leaseID(f.Producer, f.Name))
		case InstanceExpired:
			delete(r.leases, leaseID(f.Producer, f.Name))
		case InstanceLeft:
			delete(r.leases, leaseID(f.Producer, f.Name))
		case Removed:
			for _, i := range was.instances[f.Name] {
				delete(r.leases, leaseID(f.Name, i.Name))
			}
		}
	}
}
