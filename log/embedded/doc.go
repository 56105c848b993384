// Package embedded is the log of one machine, on Pebble, durable by default.
//
// # Guarantees
//
// E1 (durable): Append returns nil after its records were synced, never before.
//
// E2 (readable is durable): Pebble shows a row before its sync returns, and a power cut takes it back. So each partition has a
// durable end, which moves after the sync, and every reader stops there.
//
// E3 (all or none): one Append is one Pebble batch, over all its partitions.
//
// E4 (gapless): the offsets of a partition run 0, 1, 2, …; none is given twice, not even after a trim to empty and a kill. Every Read
// checks it.
//
// E5 (no silent loss): see store S1. A start that is refused says which file, which byte, and of each partition that can be read
// without changing anything, the first offset that cannot.
//
// E6 (stop): after the first failed sync, or a checksum that does not hold, [Options.Fatal] is called once and nothing is
// acknowledged any more. Append then returns ErrClosed. One that had begun, if Fatal returns, returns ErrUnknown or never: a failed sync
// holds who waits for it.
//
// E7 (full disk): below a floor of free space Append returns ErrDiskFull and writes nothing. Reads go on; so does Append once there is
// room. A log is opened on such a disk, too.
//
// E8 (one at a time): one process holds a directory; others get ErrLocked.
//
// What is not promised: that a read-only open of a live store works (it is locked); retention to the record (it goes by
// what is still to be kept, to the record, but runs once a minute); and anything that store does not cover.
//
// # Usage
//
//	l, err := embedded.Open(embedded.Options{Dir: "data/log"})
//	…
//	offsets, err := l.Append(ctx, log.Record{Partition: p, Value: v})
//
// # Files
//
//	embedded.go   Open, Close, failing
//	options.go    what can be chosen
//	rows.go       how rows look
//	append.go     the way in
//	line.go       many appends, one write
//	read.go       the way out
//	raw.go        batches as they go on the wire, in and out
//	producers.go  batches that were sent twice
//	epoch.go      which start wrote what
//	notes.go      small rows beside the records
//	topics.go     topics and their partitions
//	retention.go  what is dropped, and when
//	floor.go      refusing appends before the disk is full
//	recover.go    what is there at the start, and what is said if it is not
package embedded
