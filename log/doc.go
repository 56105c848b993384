// Package log is the partitioned commit log that the rest of remit is built on:
// append-only, ordered within a partition, addressed by offset.
//
// There are two implementations of [Log] and no third is planned: an embedded
// single-machine log (log/embedded), the default, and a Kafka cluster reached
// through franz-go. Both pass the same suite, log/logtest. Nothing above this
// package knows which of them it runs on.
//
// The package also says what stands on the log: [Event], a CloudEvent and its
// form as a [Record]; [ID], an id that routes itself; the 1024 slots that
// keys fall into; and [Position], how far a reader has come over all core
// partitions.
//
// # Guarantees
//
// G1 (order): records of one partition are read in the order of their offsets.
//
// G2 (durability): when Append returns nil, the records survive the loss of the
// process, and of the machine's power. No reader sees a record before that: what
// any reader has read is durable (L1).
//
// G3 (atomicity): the records of one Append, over all its partitions, become
// readable or do not. When it returns [ErrUnknown] the caller must read to know.
//
// G4 (no silent loss, L2): what was acknowledged is there at the next start, or the
// start is refused with a [CorruptError] that says from which offset on it is not.
//
// What is not promised: any order between partitions, and exactly-once
// delivery to readers. A reader that crashes reads again from the last offset it
// noted, so every consumer must be idempotent on the CloudEvents source and id.
//
// # Names
//
// This package shadows the standard library's log on purpose; the standard one
// is banned in this module (use log/slog).
package log
