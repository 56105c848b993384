// Package groups coordinates consumer groups by Kafka's classic protocol: who is a member, which generation it is, what its leader has
// assigned, and what was committed. Apache Kafka's coordinator is the model, and answers alike.
//
// # Guarantees
//
// J1 (committed): an offset is durable before its commit is answered. What was answered never falls back, whatever happens
// to the process or to the power. Offsets do not expire: they go with their topic, their group, or when they are deleted.
//
// J2 (one owner): a generation has one assignment. Nobody is told of it before it is durable, and no member of an older generation commits.
//
// J3 (generations grow): a generation is durable as given before anybody is told of it, and is never given again, as long as the group is
// there.
//
// J4 (a restart is no rebalance): members of a stable group go on in their generation after a restart, with their assignments.
//
// J5 (bounded): groups, members, and what they say of themselves have a maximum each, with a code when it is met.
//
// What is not promised: that a member which lost its connection is gone before its session times out (as in Kafka); that a rebalance
// survives a restart (its members join again); KIP-848, transactions, and share groups.
//
// # Usage
//
//	c, err := groups.New(groups.Options{Store: log, Partitions: partitions})
//	…
//	response := c.JoinGroup(ctx, client, request) // waits for the other members; ctx is the connection's
//
// A request's strings are kept, so it is not one that was read with UnsafeReadFrom. Partitions is called under locks, and must not call back.
//
// # Files
//
//	state.go        the states of a group, and its moves
//	group.go        a group: its members, its deadlines, its effects
//	member.go       a member
//	join.go         joining, and the phases of a rebalance
//	sync.go         assigning, heartbeats, leaving
//	coordinator.go  all groups: locks, timers, the requests of members
//	offsets.go      the requests about offsets
//	admin.go        the requests of tools
//	line.go         writing effects, many at once
//	rows.go         how they look
package groups
