// Package store opens every Pebble of remit, in the one way that we have found safe: the log with a
// write-ahead log and a sync on every append, the stores that fold the log without one.
//
// # Guarantees
//
// S1 (witness): what a sync of a WAL or MANIFEST covered is compared, length and CRC32C, BEFORE
// Pebble opens anything. Pebble alone opens in silence with less: one flipped bit in the live WAL
// loses that record and all after it, one in the MANIFEST whole tables. A mismatch is a
// *log.CorruptError with file and byte, and the failed start has changed no file but the lock's. So is a table or a marker that is
// missing, or a table that is not as long as it was.
//
// S2 (stop): the first failed sync, of a file or of the directory, the first checksum that does not hold, and whatever else Pebble
// does not survive reach [Options.Fatal]; the first of them counts. It is expected to end the process. A failed sync does not return
// to Pebble: what waits for it waits for ever. Flush and Close return.
//
// S3 (one at a time): one process, and one opener within it, holds a directory; others get log.ErrLocked.
//
// S4 (format): the format is pinned, and a new store is opened, closed and opened again before its
// first use, because its first WAL is still written in Pebble's oldest format.
//
// What is not covered: a power cut and a flipped bit within the same second, since the witness's own
// file is fsynced once a second (after a mere kill it is current); a bit flipped in an sstable, which Pebble's
// own block checksums find when the block is read; and a disk that takes back whole synced files and
// the witness alike.
//
// # Files
//
//	store.go    Open: lock, check, witness, Pebble
//	options.go  what can be chosen, and what cannot
//	witness.go  the vfs wrapper that notes what was synced
//	guard.go    the vfs wrapper that keeps from Pebble what it does not survive
//	ledger.go   the witness's own file: three slots, one of which is always whole
//	check.go    comparing the ledger with the files
//	corrupt.go  naming what Pebble finds wrong
//	view.go     reading a store that is refused, changing nothing
//	adopt.go    going on with what is left of it
//	ballast.go  room that is kept to be given up when the disk is full
package store
