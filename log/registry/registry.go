// Package registry keeps what every node must know: how the log was made, who produces, and who is sent what. It is the
// fold of remit.registry, which has one partition.
//
// # Guarantees
//
// R1: the number of core partitions is fixed by the first record of the log, and checked at every start. R2: a
// registration is answered after it is durable. R3: what is looked up is durable: a lookup never shows what a crash takes back, and who was
// answered finds what was answered. R4: a secret is written, and never answered, printed or logged; one that changes signs for
// SecretOverlap beside the one before. R5: a lease ends once, at its time after the instance was last heard of, as an event; that it is
// renewed is not written; after a restart it has one full term.
//
// What is not promised: that a secret is hidden from who reads the files of the log, or a copy of them.
package registry

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
)

// Registry is the registrations: it decides them, folds them, and looks them up. Lookups read memory and take no lock.
type Registry struct {
	node *fold.Node
	now  atomic.Pointer[snapshot]

	started time.Time        // of this process; leases that were there get a full term from then on
	mu      sync.Mutex       // of what follows, and of moving now; held alone, and never over I/O
	leases  map[string]lease // by leaseID; those that were heard of since they were registered
}

// Open runs the registry on its topic, of which Create has made sure. Of the options those are set here that say what it runs. It does not close the store.
func Open(ctx context.Context, o fold.Options) (*Registry, error) {
	r := &Registry{leases: map[string]lease{}}
	o.Topic, o.Owner, o.Facts = log.RegistryTopic, fold.All(1), fold.NewFacts(true, Facts()...)
	o.Machines, o.Order = map[byte]fold.Machine{machineByte: r}, []byte{machineByte}
	var err error
	o.Folded = r.folded
	o.Ready = func(n *fold.Node) { err = r.serve(n) }
	n, openErr := fold.Open(ctx, o)
	if openErr != nil {
		return nil, openErr
	}
	if err != nil {
		_ = n.Close()
		return nil, err
	}
	return r, nil
}

// serve makes the first snapshot, of all that was restored.
func (r *Registry) serve(n *fold.Node) error {
	r.node, r.started = n, n.Now()
	s, err := readSnapshot(n)
	r.now.Store(s)
	return err
}

// folded follows what is durable.
//
// INVARIANT: it runs on the partition's goroutine, after the rows of a turn are the state and before its callers are answered. So there is nothing
// in a snapshot that is not on the log, and who was answered sees what was answered (R3).
func (r *Registry) folded(_ int32, events []fold.Event) {
	was := r.now.Load()
	next, err := was.with(r.node, touchedBy(events))
	if err != nil {
		return // the node has failed, and answers nobody any more
	}
	r.mu.Lock()
	r.forget(was, events)
	r.now.Store(next)
	r.mu.Unlock()
	close(was.changed)
}

// Close stops deciding.
func (r *Registry) Close() error { return r.node.Close() }

// Err returns why nothing can be decided any more, or nil.
func (r *Registry) Err() error { return r.node.Err() }

// Changed returns a channel that is closed at the next durable change. Take it first and look then: what is not in what was looked at closes it.
func (r *Registry) Changed() <-chan struct{} { return r.now.Load().changed }

// Producer returns a registered producer.
func (r *Registry) Producer(name string) (Producer, bool) { return r.now.Load().producers.get(name) }

// Producers lists the producers by name. The list is shared, and MUST NOT be changed.
func (r *Registry) Producers() []Producer { return r.now.Load().producers.all() }

// Subscription returns a subscription.
func (r *Registry) Subscription(name string) (Subscription, bool) {
	return r.now.Load().subscriptions.get(name)
}

// Subscriptions lists the subscriptions by name. The list is shared, and MUST NOT be changed.
func (r *Registry) Subscriptions() []Subscription { return r.now.Load().subscriptions.all() }

// Instances lists the instances of a producer by name, of those whose lease has not ended. The list is shared, and MUST NOT be changed.
func (r *Registry) Instances(producer string) []Instance { return r.now.Load().instances[producer] }

// Instance returns an instance whose lease has not ended.
func (r *Registry) Instance(producer, name string) (Instance, bool) {
	return r.now.Load().instance(producer, name)
}

// do asks the registry's partition.
func do[T any](ctx context.Context, r *Registry, c fold.Command) (answer T, err error) {
	res, err := r.node.Do(ctx, 0, c)
	if err != nil {
		return answer, err
	}
	answer, _ = res.Answer.(T)
	return answer, nil
}

// Register registers a producer, and returns how it is registered now and whether it is new.
func (r *Registry) Register(ctx context.Context, c Register) (Producer, bool, error) {
	put, err := do[Put[Producer]](ctx, r, c)
	return put.Now, put.Added, err
}

// Remove removes a producer and its instances; ErrUnknownProducer if it is not there.
func (r *Registry) Remove(ctx context.Context, name string) error {
	_, err := do[any](ctx, r, Remove{name})
	return err
}

// Subscribe registers a subscription, and returns how it is registered now and whether it is new.
func (r *Registry) Subscribe(ctx context.Context, c Subscribe) (Subscription, bool, error) {
	put, err := do[Put[Subscription]](ctx, r, c)
	return put.Now, put.Added, err
}

// Resume records that a person has a paused subscription go on; ErrUnknownSubscription if it is not there. To do so is push's.
func (r *Registry) Resume(ctx context.Context, c Resume) error {
	_, err := do[any](ctx, r, c)
	return err
}

// Unsubscribe removes a subscription; ErrUnknownSubscription if it is not there.
func (r *Registry) Unsubscribe(ctx context.Context, name string) error {
	_, err := do[any](ctx, r, Unsubscribe{name})
	return err
}
