// Package parked lists what consumers have set aside, and sends it again when a person asks for it.
//
//	shelf := parked.New(parked.Options{Log: l, Takes: …})
//	page, err := shelf.List(ctx, parked.Query{Topic: "orders", Size: 50})
//	done, err := shelf.Replay(ctx, parked.Request{Topic: "orders", All: true, By: "carol", Reason: "the account is open now"})
//
// Records of <topic> are parked on <topic>.parked, whoever reads it: push subscriptions, and services with package consumers. What is to be sent again is
// appended to <topic>.replay, where the group that has parked it reads it, and no other group looks at it. So nothing is added to the topic itself; who asked, and
// why, stands on the log for ever; and what was delivered of it is known as of any topic, from what the group has committed.
//
// # Guarantees
//
// Y1 (asked for is kept): what Replay has answered is durable. Records of one request come in the order in which they stood on their topic, whatever the order in
// which they were asked for, those of one key one after the other.
//
// Y2 (told): a record is shown as sent again if, and only if, it was; with who asked, when and why, and whether it was taken.
//
// Y3 (all, once): Replay of all sends those that were never sent again. To repeat it, after whatever error, sends none twice.
//
// # What is not promised
//
// Order between what is sent again and what is new. A record that is named, and not all, is sent again as often as it is asked for.
package parked
