// Package callout makes every call that remit makes to others: back-checks and pre-checks of producers, commands to participants, and
// pushes to subscribers. Whoever registers a URL chooses where remit connects to and what it must read from there, so nothing that comes from a
// target is trusted: not its addresses, not its lengths, not its times.
//
//	caller, err := callout.New(callout.Options{Origin: "remit.example"})
//	err = caller.Go(callout.Target{
//		Name:    "orders/check",
//		URLs:    []string{"https://a.orders.example/check", "https://b.orders.example/check"},
//		Secrets: []string{"whsec_…", "whsec_…"}, // the newest first
//	}, callout.Request{ID: message, ContentType: "application/cloudevents+json", Body: event},
//		func(a callout.Answer, err error) { … })
//
// A call goes this way:
//
//	Go ─▶ queue of the target ─▶ pace ─▶ breaker ─▶ an instance ─┬─ answered ──────────────────────────────▶ done
//	 │        (WaitMax)                     │            ▲       ├─ no answer, 5xx, 429 ─▶ the next, up to TriesMax
//	 └─ ErrBusy, ErrOpen, ErrClosed         └─ ErrOpen   └───────┘
//
// A target is a name: queue, pace, breaker and what is known of its instances go by it. Two things that are to be sick apart (the checks
// and the pre-checks of one producer) get two names.
//
// # What is an answer
//
// Anything that is HTTP: 3xx and 4xx too, and no redirect is followed. 5xx and 429 are answers after which another instance is tried; if none does
// better, the last such answer is handed over without an error. An error says that nobody answered at all. What an answer means is the
// caller's matter. One that is longer than BodyMax is cut off there and says so (Answer.Truncated).
//
// # Guarantees
//
// O1 (addresses): no connection is made to an address that is not allowed, whatever DNS says and however often it says something
// else: each address is looked at between DNS and connect. Proxies of the environment are not used.
//
// O2 (bounds): what a target sends costs at most BodyMax, HeaderMax and the time of TriesMax tries, whether it sends without end, drop by
// drop, compressed or nothing. What it is called for costs at most QueueMax calls and HeldBytesMax bytes.
//
// O3 (isolation): a target that is sick delays no other: queue, concurrency, pace and breaker are its own.
//
// O4 (signed): every call carries webhook-id and webhook-timestamp, and a webhook-signature with one signature for each of the target's secrets.
//
// O5 (told once): for each Go that returned nil, done is called exactly once, also when the Caller is closed. It is called without locks and not by
// Go itself; while it runs, one place of the target's concurrency is taken.
//
// # What is not promised
//
// A call may arrive more than once: a connection that breaks is tried again, and the next instance is asked after the first was
// silent. So what is called must be idempotent; the webhook-id is the same each time. Calls of one target run side by side and arrive in any order.
// What is known of instances is soft: it is lost with the process and when a target is forgotten. Targets that share a host and HTTP/2 share its connection:
// when that hangs, both wait until it is noticed.
//
// # Time
//
// Timeouts, pace, breaker and pauses run on the monotonic clock. Only webhook-timestamp reads Options.Now, at each try, since the
// receiver compares it with a wall clock: a clock that was set wrong is wrong there, and nowhere else, and only while it is.
package callout
