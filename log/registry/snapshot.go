package registry

import (
	"cmp"
	"maps"
	"slices"
	"sync"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
)

// snapshot is the registrations as they are at one offset of the log. It never changes: the next one replaces it.
type snapshot struct {
	producers     shelf[Producer]
	subscriptions shelf[Subscription]
	instances     map[string][]Instance // by producer; sorted by name
	changed       chan struct{}         // closed when the next one has replaced it
}

// shelf has things by name, and a list of them that is made when it is first asked for.
type shelf[V any] struct {
	byName map[string]*V
	all    func() []V
}

func newShelf[V any](byName map[string]*V) shelf[V] {
	return shelf[V]{byName, sync.OnceValue(func() []V {
		all := make([]V, 0, len(byName))
		for _, name := range slices.Sorted(maps.Keys(byName)) {
			all = append(all, *byName[name])
		}
		return all
	})}
}

func (s shelf[V]) get(name string) (v V, ok bool) {
	if p := s.byName[name]; p != nil {
		return *p, true
	}
	return v, false
}

// with returns the shelf with some names as their rows are now.
func (s shelf[V]) with(names map[string]bool, rows fold.Reader, table fold.Table[V]) shelf[V] {
	if len(names) == 0 {
		return s
	}
	next := maps.Clone(s.byName)
	for name := range names {
		if v, ok := table.Get(rows, name); ok {
			next[name] = &v
		} else {
			delete(next, name)
		}
	}
	return newShelf(next)
}

// shelfOf reads a whole table.
func shelfOf[V any](rows fold.Scanner, table fold.Table[V]) shelf[V] {
	all := map[string]*V{}
	for name, v := range table.Scan(rows, "", "", false) {
		all[name] = &v
	}
	return newShelf(all)
}

// readSnapshot makes one of all rows.
func readSnapshot(n *fold.Node) (*snapshot, error) {
	s := &snapshot{instances: map[string][]Instance{}, changed: make(chan struct{})}
	err := n.Read(0, func(rows fold.Scanner, _ log.Offset) error {
		s.producers, s.subscriptions = shelfOf(rows, producers), shelfOf(rows, subscriptions)
		for producer, list := range members.Scan(rows, "", "", false) {
			s.instances[producer] = instancesOf(producer, list)
		}
		return nil
	})
	return s, err
}

func instancesOf(producer string, list []member) []Instance {
	all := make([]Instance, len(list))
	for i, m := range list {
		all[i] = Instance{Producer: producer, Name: m.Name, URL: m.URL, Lease: m.Lease}
	}
	return all
}

// touched are the names whose rows some events may have changed.
type touched struct {
	producers, subscriptions, instances map[string]bool
}

func touchedBy(events []fold.Event) touched {
	t := touched{map[string]bool{}, map[string]bool{}, map[string]bool{}}
	for i := range events {
		switch f := events[i].Fact.(type) {
		case Registered:
			t.producers[f.Name] = true
		case Removed:
			t.producers[f.Name], t.instances[f.Name] = true, true
		case InstanceRegistered:
			t.instances[f.Producer] = true
		case InstanceExpired:
			t.instances[f.Producer] = true
		case InstanceLeft:
			t.instances[f.Producer] = true
		case SubscriptionRegistered:
			t.subscriptions[f.Name] = true
		case SubscriptionRemoved:
			t.subscriptions[f.Name] = true
		}
	}
	return t
}

// with returns the snapshot after some events, whose rows are durable and folded by now.
func (s *snapshot) with(n *fold.Node, t touched) (*snapshot, error) {
	next := &snapshot{instances: s.instances, changed: make(chan struct{})}
	err := n.Peek(0, func(rows fold.Reader) {
		next.producers, next.subscriptions = s.producers.with(t.producers, rows, producers), s.subscriptions.with(t.subscriptions, rows, subscriptions)
		if len(t.instances) == 0 {
			return
		}
		next.instances = maps.Clone(s.instances)
		for producer := range t.instances {
			if list, ok := members.Get(rows, producer); ok {
				next.instances[producer] = instancesOf(producer, list)
			} else {
				delete(next.instances, producer)
			}
		}
	})
	return next, err
}

// instance looks one up.
func (s *snapshot) instance(producer, name string) (i Instance, ok bool) {
	list := s.instances[producer]
	at, ok := slices.BinarySearchFunc(list, name, func(i Instance, name string) int { return cmp.Compare(i.Name, name) })
	if !ok {
		return i, false
	}
	return list[at], true
}
