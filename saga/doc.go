// Package saga runs Try/Confirm/Cancel activities, each of which is a half message with actions.
//
// The protocol is three pure functions over one value, [Activity]:
//
//	Verdict(said, now) => outcome   whether it can be decided, and how
//	Begin, After       => activity  the fold of its three facts; also the whole of recovery
//	Owes(said)         => verbs     what the participants must still be told
//
// An activity that goes well costs three events of its own: begun with its actions, decided with what the tries
// said, ended. What a participant answered is not written one by one: it can be asked again. It lives
// beside the state ([Said]) until the fact that rests on it is written.
//
//	              all tried, or captured         the last confirmed
//	          ┌────────────────────▶ confirming ────────────────────▶ confirmed
//	begun ─▶ trying
//	          └────────────────────▶ cancelling ────────────────────▶ cancelled
//	              one refused, deadline, void    the last cancelled
//
// To decide the activity is to decide its message: the two are one row and one event, and a confirmed activity's message
// is visible in the append of the decision.
//
// Coordinated activities decide themselves, as soon as every try is in. A manual one waits for its last try, the capture,
// which its initiator makes by [Finish].
//
// # Guarantees
//
// A1: an activity ends with all actions confirmed or all cancelled. A2: no action is ever owed both. A3: a
// cancel goes to every action that may have been asked, refused or not. A4: a sick participant never blocks its
// siblings: each action is asked on its own.
package saga
