// Package broker keeps transactional messages: a half message is stored, the
// producer's local transaction runs, and the broker commits or rolls back the half
// message. A committed one is delivered onto its topic in the append of the decision itself.
//
// # Guarantees
//
// D1: a decision is acknowledged after it is durable. D2: the first decision wins; a contradiction gets
// the recorded outcome back and leaves a conflicted event. D3: an outcome stays answerable as long
// as the log keeps it. D4: the same id or name with the same content is the same message, with other content a named
// refusal.
//
// M1: a message is visible on its topic if, and only if, it was committed and its producer's own pre-check did not drop it; exactly once there, and per key in
// the order of decisions: one that must wait for its topic holds back those of its key that come later. Delayed ones enter
// when they are due. M2: no half message is ever discarded or decided by default.
//
// # Asking producers
//
// A producer that stays silent is asked, by a [Schedule] that is a function of the time of preparing alone: no check is written, none is
// forgotten by a restart, and what a node that was down has missed is spread. Only a verdict is an answer; silence is none. Past the
// deadline an answered unknown parks the message for a person, and silence never does.
//
// A producer may have itself asked before delivery (a pre-check): until it says so the message waits, and holds its key back.
//
// What is not promised: that a consumer handles a message once. It must be idempotent on source and id.
//
// The message of an activity is a row of the same table, decided by package saga alone.
package broker
