// Package producer is what a Go service links to send messages with its database transactions: each message is delivered if, and only if, the
// transaction commits. The application does not see the protocol.
//
//	p, err := producer.New(producer.SQL(db, producer.PostgreSQL), producer.Options{Server: "http://127.0.0.1:8080", Producer: "shop"})
//	http.Handle("/remit/check", p.CheckHandler())
//	err = p.Register(ctx, producer.Registration{Check: producer.Check{URL: "https://shop.internal/remit/check"}})
//
//	err = p.Send(ctx, "orders", event, func(tx *sql.Tx) error {
//		_, err := tx.ExecContext(ctx, "INSERT INTO orders …")
//		return err
//	})
//
// A Send goes this way; it may end at any arrow:
//
//	half message ─▶ BEGIN ─▶ row: commit ─▶ local ─▶ COMMIT ─▶ commit ─▶ delivered
//	      │                      │
//	      └─ nothing heard: remit asks ─▶ CheckHandler ─┬─ the row is there ──▶ commit
//	                                                    └─ row: rollback ─────▶ rollback; a COMMIT that comes late fails on it
//
// The row stands in the table [Table], which [Schema] makes, in the service's own database.
//
// # Guarantees
//
// T1 (both or neither): a message is delivered if, and only if, its local transaction commits, wherever the process dies and whatever of the calls
// between it, remit and the database is lost. What remit does not hear it asks for, and any process of the service answers.
//
// T2 (final): what a back-check is answered stays true. commit is said of what has committed; rollback of what never will, since the row
// that stands in its way is committed before it is said. A database that does not answer, or a transaction that still runs, is no verdict.
//
// T3 (what Send says): nil says that the local transaction has committed, also when remit could not be told. An error says that it has
// not, but for the three that say otherwise: [ErrAlreadySent], [ErrOutcomeUnknown] and [ErrContradicted].
//
// T4 (once): an event, known by topic, source and id, is committed at most once, however often it is sent, as long as its row is kept. So whoever got an
// error sends it again.
//
// T5 (bounds): each call, each body, and what is tried again, now or in the background, has a maximum in [Options].
//
// # What is not promised
//
// The order of messages is that of their decisions as remit takes them: of one key, one after the other where each Send returned before the next began,
// unless remit could not be told of the first. An effect of local outside of the transaction is not undone.
//
// All of it rests on a database that keeps what it has committed. One that may lose it (PostgreSQL with synchronous_commit off, MySQL with
// innodb_flush_log_at_trx_commit other than 1, a failover to a replica that is behind, a restored copy) may lose a row that a back-check was answered
// from. With MySQL, local must not run DDL, which commits what is open.
package producer
