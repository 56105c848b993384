// Package consumers is what a Go service links to read a log without losing or doubling an effect: remit's own over its Kafka
// listener, Redpanda, or Apache Kafka.
//
//	consumer, err := consumers.New(consumers.Options{
//		Reader:  reader, // log/kafka.NewReader
//		Group:   "shop",
//		Topics:  []string{"payments"},
//		Handler: consumers.InTx(db, consumers.PostgreSQL, func(ctx context.Context, tx *sql.Tx, d consumers.Delivery) error {
//			_, err := tx.ExecContext(ctx, "UPDATE …")
//			return err
//		}),
//	})
//	err = consumer.Run(ctx) // until ctx ends; then it drains
//
// A record goes this way:
//
//	Poll ─▶ held, by key ─▶ Handler ─┬─ nil ─────────────────▶ done ─▶ committed, up to the lowest that is not done
//	             ▲                   ├─ error ─▶ its key waits ─┐
//	             └───────────────────┼──────────────────────────┘
//	                                 └─ too often, or Refuse ─▶ <topic>.parked ─▶ done
//
// # Guarantees
//
// U1 (nothing is lost): an offset is committed only when every record of its partition below it was handled without an
// error, or stands on the parked topic. So is what is said to be done beyond it (progress). A record that is no CloudEvent is parked too, unless Options.NotEvent takes it.
//
// U2 (each effect once): a delivery whose (group, source, id) was taken before by [Once] is told so, in the transaction that
// makes the effect. Deliveries repeat after a crash, after a rebalance and when a producer repeats; effects do not.
//
// U3 (order): records of one key are handled in the order of their partition, one at a time. Keys do not wait for each other, and
// records without a key wait for nobody.
//
// U4 (a failing key blocks itself alone): it is tried again after a growing time, then parked with the reason, and then the next of
// its key goes on. What is sent again ([Replay]) reaches the group that has parked it, and no other.
//
// U5 (hand-over): when a partition is taken away, or Run's context ends, what is under way is finished, within Options.DrainMax,
// and committed; only then it is let go.
//
// # What is not promised
//
// An effect outside of the database transaction (a mail, a call) may happen twice. U3 holds for the deliveries of one member; when one is
// cut off and its handler does not end with its context, the next owner may handle the same event beside it, and only [Once] keeps them
// apart. A record may be parked twice, when the process ends between parking and commit: both carry the same source and id.
// When a key fails for long, its partition stops at Options.HeldMax records held, or AheadMax records beyond it.
package consumers
