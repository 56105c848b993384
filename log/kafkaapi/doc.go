// Package kafkaapi serves an embedded log over the Kafka protocol, so that consumers and producers use the client they have.
//
// Records are stored as the wire has them: a fetch copies bytes and decodes nothing. The encoding of requests and answers is
// franz-go's kmsg; what a client sends is walked first by [scan], so that no length it claims makes kmsg allocate or loop.
//
// # Guarantees
//
// K1 (durable): a produce is answered when its records are durable, whatever acks says; with acks=0 it is not answered.
//
// K2 (readable is durable): a fetch never passes the durable end (L1).
//
// K3 (once): a batch of an idempotent producer that is sent again is answered with the place it has, also after a restart.
//
// K4 (told): a client that reads what is no longer there (the log was restored from a copy, or made anew) is told by leader epochs, cluster id,
// topic ids and OFFSET_OUT_OF_RANGE, as Kafka tells it.
//
// K5 (remit's own): topics that remit alone writes ([log.Reserved]) are not written, deleted, trimmed, repartitioned or configured, and groups that
// it reads in ([log.ReservedGroup]) are not joined or changed. What holds secrets ([log.Hidden]) is not read either.
//
// K6 (apart): a malformed or oversize request closes its connection, and harms no other.
//
// What is not promised: Kafka transactions, KIP-848 groups, share groups, ACLs, SASL, quotas, replicas, compaction, fetch sessions. They are
// not advertised. docs/kafka-api.md has the whole list.
//
// # Files
//
//	server.go     the listener and its limits
//	conn.go       requests in, answers out in their order
//	apis.go       what is served, and in which versions
//	shapes.go     how requests look; scan.go holds bytes against it
//	produce.go, fetch.go, offsets.go, metadata.go, topics.go, configs.go    a noun a file
//	groups.go     the door to consumer groups
//	codes.go      errors as the protocol numbers them
package kafkaapi
