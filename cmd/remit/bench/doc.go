// Package bench measures remit beside what the same disk and the same callers do without it.
//
// Every figure has its ceiling in the same run: the two take turns, round by round, so that what else happens on the machine
// hits both; medians over the rounds are compared. Under open load a call is timed from when it was due, not from
// when there was a caller free for it (Gil Tene's coordinated omission).
package bench
