// Package fold runs machines over the partitions of the log that a node owns:
// restore, decide, append, apply, timers. It is the one runtime under the broker, the
// saga, the accounts, the names, the registry, and every view.
//
// A machine is three pure functions over rows:
//
//	Decide(turn, command)  => events, answer   what happened, to be appended ([Command])
//	Apply(rows, event)                         the fold; also the whole of recovery ([Machine])
//	Owed(rows, id, look)   => effects          what must still be said to others ([Machine])
//
// # The turn
//
//	commands ──▶ Decide, one after the other, each on the overlay that the earlier made
//	                │ events
//	                ▼
//	          ONE Append ──▶ refused: the overlay is dropped, all callers get the error
//	                │
//	                ▼ durable
//	          the overlay becomes the state (one batch, with the partition's offset)
//	                │
//	                ├──▶ callers are answered
//	                └──▶ Owed ──▶ effects ──▶ they come back as commands
//
// Callers MUST NOT be answered, and effects MUST NOT start, before the Append has returned.
//
// # Guarantees
//
// F1: what a caller was answered follows from what is on the log (D1). F2: the state of a
// partition is the fold of its log from the first record on, whatever was killed
// when: a store's rows and its offset are one batch. F3: an effect that is owed is started at
// least once after every start, and again until its answer is on the log.
//
// What is not promised: effects exactly once, and any order between partitions.
//
// # Stores
//
// A store has no log of its own: the log is its write-ahead log. What it has flushed is a
// consistent prefix; the rest is read again. See [Store].
package fold
