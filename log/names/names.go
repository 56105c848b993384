// Package names keeps what callers call things: an order number, a UUID of their own, the source and
// id of a CloudEvent. A name is claimed in the slot of its own hash, before the thing begins under the
// id that the claim carries; the first claim wins, whoever brings the name again.
//
// # Guarantees
//
// N1: over the whole log, one name of a kind stands for one id (D4). N2: a claim is answered
// after it is durable. A claim whose thing never began is taken up by the repeat.
package names

import (
	"fmt"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
)

// Kind is what sort of thing a name is for. Names of two kinds do not meet.
type Kind string

// The kinds.
const (
	KindPayment  Kind = "payment"
	KindActivity Kind = "activity"
	KindMessage  Kind = "message"
)

// Named is the fact that a name was claimed.
type Named struct {
	Kind        Kind            `json:"kind"`
	Name        string          `json:"name"`
	ID          log.ID          `json:"id"`
	Key         string          `json:"key"` // the routing key of the thing
	Fingerprint log.Fingerprint `json:"fingerprint"`
}

// EventType is the type on the log.
func (Named) EventType() string { return "remit.log.named.v1" }

// Facts lists the facts of this package.
func Facts() []fold.FactType { return []fold.FactType{fold.FactOf[Named]()} }

// claim is the row of a name.
type claim struct {
	_           struct{} `cbor:",toarray"`
	ID          log.ID
	Key         string
	Fingerprint log.Fingerprint
}

var claims = fold.NewTable[claim]('n').MostlyAbsent().Until(func(*claim) bool { return true })

// Route returns the routing key of a name: the name is owned by the partition of its own hash.
func Route(kind Kind, name string) string { return string(kind) + "/" + name }

// Machine folds claims.
type Machine struct{}

// Apply folds one event.
func (Machine) Apply(rows fold.Rows, e *fold.Event) {
	named, ok := e.Fact.(Named)
	if !ok {
		return
	}
	key := Route(named.Kind, named.Name)
	if was, ok := claims.Get(rows, key); ok {
		fold.Broken(e, "name %q is claimed by %s, and now by %s", key, was.ID, named.ID)
	}
	claims.Put(rows, key, claim{ID: named.ID, Key: named.Key, Fingerprint: named.Fingerprint})
}

// Owed returns nothing: a claim is complete in itself.
func (Machine) Owed(fold.Reader, string, fold.Look) []fold.Effect { return nil }

// MismatchError says that a name stands for something else. The caller must take another name.
type MismatchError struct{ Named Named }

func (e *MismatchError) Error() string {
	return fmt.Sprintf("names: %s %q already stands for other content, id %s", e.Named.Kind, e.Named.Name, e.Named.ID)
}

// Claim is the command that claims a name. Its answer is a Named: the new claim, or the first one if its
// fingerprint is the same; *MismatchError if it is not.
type Claim struct{ Named }

// Decide implements fold.Command.
func (c Claim) Decide(t *fold.Turn) (any, error) {
	if was, ok := Find(t.Rows(), c.Kind, c.Name); ok {
		if was.Fingerprint != c.Fingerprint {
			return nil, &MismatchError{Named: was}
		}
		return was, nil
	}
	t.Emit(fold.Event{ID: c.ID.String() + "/named", Key: Route(c.Kind, c.Name), Correlation: c.ID.String(), Fact: c.Named})
	return c.Named, nil
}

// Find returns the claim of a name.
func Find(rows fold.Reader, kind Kind, name string) (Named, bool) {
	row, ok := claims.Get(rows, Route(kind, name))
	return Named{Kind: kind, Name: name, ID: row.ID, Key: row.Key, Fingerprint: row.Fingerprint}, ok
}

// Lookup asks the node's rows for the id that a name stands for.
func Lookup(n *fold.Node, kind Kind, name string) (named Named, ok bool, err error) {
	err = n.Read(n.PartitionOf(Route(kind, name)), func(rows fold.Scanner, _ log.Offset) error {
		named, ok = Find(rows, kind, name)
		return nil
	})
	return named, ok, err
}
