package groups

import "fmt"

// State is where a group stands. Its words are Kafka's: clients show them, and filter by them.
type State string

const (
	// StateEmpty has no member. It may have offsets. The first member that joins moves it on.
	StateEmpty State = "Empty"
	// StatePreparing waits for the members to join. The last of them moves it on, or the clock: whoever has not joined
	// by then is no member any more.
	StatePreparing State = "PreparingRebalance"
	// StateCompleting has a new generation, and waits for its leader's assignment. The leader's Sync moves it on, once it is durable; so
	// does whatever makes the generation old: a join, a leave, a member that is not heard of.
	StateCompleting State = "CompletingRebalance"
	// StateStable has an assignment. A member that comes, goes or changes moves it on.
	StateStable State = "Stable"
	// StateDead is final: the group was deleted, or forgotten. Another of its name is another group.
	StateDead State = "Dead"
)

// Input is what can happen to a group.
type Input string

// The inputs.
const (
	InputRebalance Input = "rebalance" // members came, went or changed
	InputJoined    Input = "joined"    // those who are in have joined
	InputEmptied   Input = "emptied"   // nobody is left
	InputAssigned  Input = "assigned"  // the leader's assignment is durable
	InputRemoved   Input = "removed"   // deleted or forgotten
)

// moves is every legal transition, and the only place where a State changes; a group that is restored begins empty or stable.
var moves = []struct {
	from State
	on   Input
	to   State
}{
	{StateEmpty, InputRebalance, StatePreparing},
	{StateStable, InputRebalance, StatePreparing},
	{StateCompleting, InputRebalance, StatePreparing},
	{StatePreparing, InputJoined, StateCompleting},
	{StatePreparing, InputEmptied, StateEmpty},
	{StateCompleting, InputAssigned, StateStable},
	{StateEmpty, InputRemoved, StateDead},
}

// Next returns the state after in.
func Next(s State, in Input) (State, error) {
	for _, m := range moves {
		if m.from == s && m.on == in {
			return m.to, nil
		}
	}
	return s, fmt.Errorf("groups: a group that is %s cannot take %q", s, in)
}

// can reports whether s takes in.
func (s State) can(in Input) bool {
	_, err := Next(s, in)
	return err == nil
}
