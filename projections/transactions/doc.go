// Package transactions is the view that answers for payments, refunds, activities and messages, their histories, and what
// stands on every account.
//
// # Rows
//
// A row lives in the partition whose event makes it, and rests on that partition's events alone: facts of two partitions come
// in any order. Of a payment the payer's partition has what began, was decided and has ended, and the payer's side of the
// money; the payee's partition has the part: held, credited, posted or voided, and the payee's side; the name's own partition has
// the name. Queries join them in one snapshot.
//
//	m id                      the thing: payment, refund, activity or plain message
//	k id action               a part: an action at an account of this partition, of an activity of another
//	x by value place          an index: the id of a thing, by something that it is found by, in the order of beginnings
//	a account                 balance, held, limit, state
//	o place                   the name of an account, in the order of openings
//	e account place           an entry: one posting, with the balance after it
//	n kind name               a name
//	c account name            where on the log a deposit or withdrawal is
//	d offset                  where on their topics the messages of a turn were placed
//
// An index row is written once, where the thing began; what changes is in the thing. Only what is open, and what came to nothing, has
// index rows by state: what has ended well is in the order of time.
//
// # Guarantees
//
// V1: the rows equal a fresh replay's, in whatever batches the events came. A5: postings sum to zero per currency, checked again
// here; balances are this view's own sums. V3: every answer is of one snapshot, whose position is at least the one that
// was waited for.
//
// What is not promised: that two partitions are seen at the same moment. A payment may be seen paid and not yet
// settled, or credited and not yet known to be paid.
package transactions
