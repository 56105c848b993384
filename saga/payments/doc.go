// Package payments is the built-in payment service: the initiator of activities that take money from a
// payer, all or nothing, and tell the world when it is done.
//
//	payer's partition                              payee's partition
//	─────────────────                              ─────────────────
//	begun    hold at the payer                     (asked before: exists, open, currency, head-room)
//	decided  payer -> transit, message ──────────▶ credited  transit -> payee
//	ended    ◀─────────────────────────────────────┘
//
// begun and decided ride in one append, unless the capture is manual. A payment that is refused is begun and decided in
// one append too. It is paid when decided is durable, and settled when credited is.
//
// A refund is an activity of its own in the payment's partition, named under the payment: the payee's hold is its remote
// action, and its message is remit.payment.refunded.v1.
//
// # Guarantees
//
// P1: one id or name pays once (D4). P2: never more is captured than was held, nor refunded than was
// captured; a refund that is refused gives its reservation back. P3: a message on topic payments for each paid payment and
// each refund, exactly once, per payer in the order of decisions (M1).
package payments
