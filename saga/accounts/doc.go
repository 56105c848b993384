// Package accounts keeps money accounts by double entry. It is the built-in participant of the saga: a
// debit is held, then posted or voided; a credit is taken once, and never refused.
//
//	           Hold ┌──────┐ Post                    Credit
//	(nothing) ─────▶│ held │─────▶ posted    (nothing) ─────▶ credited
//	    │           └──────┘
//	    │ Void          │ Void
//	    ▼               ▼
//	  voided (the door is shut: a later Hold is refused, A3)
//
// # Guarantees
//
// A5: every event's postings sum to zero per currency within its partition; it is checked on every
// event, when it is made and when it is folded. What leaves a partition stands on its transit account
// until it has arrived, so that any set of partitions at any offsets balances, and all transits sum to zero at rest.
//
// B1: available = balance - held + creditLimit never falls below zero by a hold or a withdrawal: what is not
// covered is refused. B2: an action of an activity holds, posts, voids or credits at most once, however often it is asked.
//
// The outside account, from which deposits come, is one per partition and currency, like transit.
package accounts
