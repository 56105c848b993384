package broker_test

import (
	"fmt"

	"github.com/remitlog/remit/broker"
)

// A half message moves by what happens to it; what it has taken already may be said again, and what contradicts it is refused.
func ExampleNext() {
	for _, in := range []broker.Input{broker.InputCommit, broker.InputRollback} {
		next, err := broker.Next(broker.StateCommitted, in)
		fmt.Println(next, err)
	}
	next, _ := broker.Next(broker.StatePrepared, broker.InputRollback)
	fmt.Println(next, next.Final())
	// Output:
	// committed <nil>
	// committed broker: committed cannot take "rollback"
	// rolledback true
}
