package broker

import (
	"fmt"
	"slices"
)

// State is where a half message stands. It is written to rows and answers as its String form, which must
// therefore never change.
type State uint8

const (
	// StatePrepared is a half message that is durable but not visible to consumers. The producer
	// moves it on; if it stays silent past its check time, the broker asks the producer (a
	// back-check). Asking is not a state: the number of checks and the next one's time are attributes.
	StatePrepared State = iota + 1
	// StateCommitted is decided and owed to its topic. The broker moves it on, or the producer's
	// pre-check drops it.
	StateCommitted
	// StateDelivered is final: the message is visible to consumers.
	StateDelivered
	// StateRolledBack is final: the message will never be visible.
	StateRolledBack
	// StateParked is a half message whose producer still answers unknown past its deadline. A person,
	// or the producer's late decision, moves it on. Parking is not rolling back: the local
	// transaction may have committed, so dropping the message could lose money.
	StateParked
	// StateDropped is final: committed, but the producer's own pre-check said that it must no longer
	// be seen. Why is an attribute.
	StateDropped

	statesEnd // one past the last state; keep last
)

var stateNames = [...]string{
	StatePrepared:   "prepared",
	StateCommitted:  "committed",
	StateDelivered:  "delivered",
	StateRolledBack: "rolledback",
	StateParked:     "parked",
	StateDropped:    "dropped",
}

// String returns the form that answers show.
func (s State) String() string {
	if s == 0 || s >= statesEnd {
		return fmt.Sprintf("State(%d)", uint8(s))
	}
	return stateNames[s]
}

// Final reports whether no input can move s.
func (s State) Final() bool {
	return s == StateDelivered || s == StateRolledBack || s == StateDropped
}

// Input is what can happen to a half message.
type Input string

// The inputs, named as facts about the outside world.
const (
	InputCommit    Input = "commit"    // the producer, or a commit verdict
	InputRollback  Input = "rollback"  // the producer, or a rollback verdict
	InputDelivered Input = "delivered" // its topic has it
	InputDropped   Input = "dropped"   // the producer's pre-check
	InputExpired   Input = "expired"   // an answered unknown, past the deadline
	InputResume    Input = "resume"    // a person puts a parked one back
)

// move is one legal transition.
type move struct {
	from State
	on   Input
	to   State
}

// moves is every legal transition, and the only place where a State changes.
var moves = []move{
	{StatePrepared, InputCommit, StateCommitted},
	{StatePrepared, InputRollback, StateRolledBack},
	{StatePrepared, InputExpired, StateParked},
	{StateParked, InputCommit, StateCommitted},
	{StateParked, InputRollback, StateRolledBack},
	{StateParked, InputResume, StatePrepared},
	{StateCommitted, InputDelivered, StateDelivered},
	{StateCommitted, InputDropped, StateDropped},
}

// repeats is every input that a state has already taken: the log, and clients, may say a thing twice. Next returns
// the state unchanged.
var repeats = map[State][]Input{
	StateCommitted:  {InputCommit},
	StateDelivered:  {InputCommit, InputDelivered},
	StateRolledBack: {InputRollback},
	StateDropped:    {InputCommit, InputDropped},
}

// IllegalMoveError reports an input that a State cannot take, such as a rollback of a committed message. The
// caller is given the state that was recorded.
type IllegalMoveError struct {
	From State
	On   Input
}

func (e *IllegalMoveError) Error() string {
	return fmt.Sprintf("broker: %s cannot take %q", e.From, e.On)
}

// Next returns the state after in.
func Next(s State, in Input) (State, error) {
	for _, m := range moves {
		if m.from == s && m.on == in {
			return m.to, nil
		}
	}
	if slices.Contains(repeats[s], in) {
		return s, nil
	}
	return s, &IllegalMoveError{From: s, On: in}
}
