// Package when holds conditions over events, as a producer gives them for its checks and a subscriber for what it wants: texts in CloudEvents
// SQL (CESQL 1.0, of the CloudEvents specification).
//
//	condition, err := when.Compile("type = 'order.placed' AND remitage > 60")
//	holds, err := condition.Holds(&event, when.Attributes{"remitage": 61})
//
// A condition sees the attributes of an event, extensions too, by their names, and beside them what the caller gives. Data it does not see.
//
// # What an error means
//
// An expression of CESQL always has a value, and beside it perhaps errors: an attribute that is missing, a text that is no number. Here
// a condition with an error does not hold, and the error is returned: it decides nothing by itself. A caller that asks whether something may
// go on (a check that waits for its condition) lets it wait and shows the error. A caller to whom not holding means going on (a message
// that is to be checked before it is delivered) has to look at the error first, and then to do what can be taken back. Missing tells an event
// without the attribute, which a condition like region = 'eu' is written for, from a condition that went wrong.
//
// # Guarantees
//
// X1 (conformance): a text that compiles means what CESQL 1.0 says, as far as its TCK tells; the tests name the cases that differ, and why.
//
// X2 (refused early): what could never hold is refused when it is compiled, with its place: syntax, unknown functions and
// numbers of arguments, integers that do not fit, a value that is not true or false. So is what reads as one thing and means another: AND beside OR without
// parentheses, which CESQL takes from left to right, and NOT a = b, which is (NOT a) = b.
//
// X3 (bounds): a text of TextMax bytes and DepthMax levels compiles in milliseconds, and no value grows beyond ValueMax. Nothing that is
// compiled or evaluated panics.
//
// # What is not promised
//
// Integers wrap around at 32 bits in +, - and *, as CESQL leaves it open. A timestamp is compared as the text that remit writes it as, in UTC.
package when
