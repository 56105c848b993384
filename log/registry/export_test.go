package registry

import "context"

// ErrHeard is what the end of a lease is refused with that was renewed meanwhile.
var ErrHeard = errHeard

// Expire ends a lease, as its due row would.
func (r *Registry) Expire(ctx context.Context, producer, name string) error {
	_, err := do[any](ctx, r, expire{r, leaseID(producer, name)})
	return err
}

// Known returns of how many leases something is known beside the state.
func (r *Registry) Known() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.leases)
}
