// Package push delivers topics over HTTP to those who have no Kafka client: CloudEvents in binary mode, each POSTed to the sink of a
// subscription until the sink has taken it.
//
//	s, err := push.New(push.Options{Log: l, Offsets: groups, Registry: subscriptions, Caller: calls, Origin: "remit.example"})
//	…
//	err = s.Close(ctx) // what is under way is finished, and what was taken is noted
//
// It stands on package consumers: a subscription is a consumer group, remit.push.<name>, whose handler is a call. So order, retries, parking and
// what is committed are as there, and any Kafka tool shows how far a subscription is.
//
//	topic ─▶ filter ─▶ consent, rate, Retry-After ─▶ POST ─┬─ 2xx ─────────────────────▶ done
//	                                                      ├─ 410 ─────────────────────▶ the subscription is paused
//	                                                      └─ another, or none ─▶ its key waits; past the deadline ─▶ <topic>.parked
//
// # Guarantees
//
// W1 (nothing is lost): of each record that the topic has from the subscription's beginning on, one of these holds, whatever was killed when: it does not
// match the filter, the sink has answered 2xx to it, it stands on the parked topic with the reason, or it is still owed. A record whose filter
// cannot be evaluated is delivered. Records that retention took before they were delivered are told of on the parked topic.
//
// W2 (order): records of one key are delivered in the order of their partition, the next only after the one before was taken or parked.
//
// W3 (a failing key blocks itself alone): it is tried again after a growing time, for as long as the subscription's deadline says, and then
// parked; the others go on.
//
// W4 (an outage parks nothing): while the sink as a whole fails, OutageMax keys or more, or does not answer, nothing is parked and no deadline runs. See
// Outages.
//
// W5 (consent): nothing is delivered to a sink that has not consented by CloudEvents' handshake since this process started or the sink was changed. Its
// rate and its Retry-After are kept to.
//
// W6 (apart): a sink that is slow, silent, lying or down delays no other subscription.
//
// W7 (sent again): a parked record that a person has asked for is delivered to the subscription that has parked it and to no other, at least once, in the
// order of its key, whatever was killed when. Nothing is added to its topic.
//
// # Outages
//
// A failure counts towards its record's deadline when there is reason to believe that the record is to blame:
//
//   - the sink has answered 400, 406, 409, 413, 415, 422 or 431: it has looked at the record; or
//   - another delivery was taken since the record was tried before; or
//   - fewer than OutageMax keys have failed since anything was taken, and the sink gave any other answer, without Retry-After, or none and yet
//     answered the handshake when it was asked again.
//
// All other failures are the sink's. From OutageMax keys on, deliveries go one at a time, at a growing distance, until one is taken.
//
// # What is not promised
//
// That what always fails is parked, when all keys that there are fail, OutageMax or more, and the sink refuses none of them by the answers above: that is an
// outage until a person has looked at it.
//
// That a delivery comes once: an answer may be lost, and a crash repeats what was delivered since the last commit, a quarter of a second ago at most. The
// webhook-id is the same each time. Records that are sent again come beside what is new of their key.
package push
