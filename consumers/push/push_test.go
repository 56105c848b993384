package push_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/remitlog/remit/consumers"
	"github.com/remitlog/remit/consumers/push"
	"github.com/remitlog/remit/log"
)

var shop = push.Subscription{Name: "shop", Topic: "orders", Sink: "https://shop.example/hook"}

func partition(key string, partitions int) log.Partition {
	return log.Partition{Topic: "orders", Index: log.KeyPartition(key, partitions)}
}

// TestDelivers: what comes is delivered in the order of its key, and noted so that any Kafka tool sees it (W1, W2).
func TestDelivers(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.topic("orders", 2)
		s := w.sink(shop.Sink)
		w.subscribe(shop)
		w.start()
		var want []string
		for i := range 300 {
			id := fmt.Sprint("a", i)
			w.event("orders", "a", id)
			want = append(want, id)
		}
		pass(10 * time.Millisecond)
		s.wantGot(want...)
		if st := w.wantStatus("shop", push.StateDelivering, ""); st.Delivered != 300 || st.Lag != 300 || !st.Consent.Granted {
			t.Errorf("%+v", st)
		}
		pass(time.Second)
		if st := w.wantStatus("shop", push.StateDelivering, ""); st.Lag != 0 {
			t.Errorf("%+v", st)
		}
		if next := w.next("shop", partition("a", 2)); next != 300 {
			t.Errorf("%d is noted", next)
		}
		w.wantTold("delivered shop", 300)
		if s.now().asked != 1 {
			t.Errorf("asked for consent %d times", s.now().asked)
		}
	})
}

// TestRequest: a delivery is the event in binary mode; its webhook-id is that of subscription, source and id for ever.
func TestRequest(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.topic("orders", 1)
		s := w.sink(shop.Sink)
		w.subscribe(shop)
		w.start()
		w.event("orders", "ä b", "a1")
		pass(time.Second)
		came := s.now()
		for name, want := range map[string]string{
			"Ce-Id": "a1", "Ce-Source": "/shop", "Ce-Type": "order.placed.v1", "Ce-Specversion": "1.0", "Ce-Partitionkey": "%C3%A4%20b",
			"Content-Type": "application/json", "Remit-Subscription": "shop", "Remit-Filter-Error": "",
		} {
			if got := came.last.Header.Get(name); got != want {
				t.Errorf("%s is %q, not %q", name, got, want)
			}
		}
		if string(came.last.Body) != `{"id":"a1"}` || came.last.ID != "msg_3a70a19f487c6362841ee28c333ff576" || came.to != (push.Target{Subscription: "shop", URL: shop.Sink}) {
			t.Errorf("%q, %s, to %v", came.last.Body, came.last.ID, came.to)
		}
	})
}

// TestFailingKey is W3: a key that fails waits, ever longer, is parked at its deadline with the reason, and its next goes on; 1,000 others do not wait.
func TestFailingKey(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.topic("orders", 4)
		s := w.sink(shop.Sink)
		s.post = func(_ context.Context, e *log.Event, _ push.Request) (push.Answer, error) {
			if e.ID == "bad1" {
				a, err := answered(500)
				a.Body = []byte("no such account\n" + strings.Repeat("x", 1000))
				return a, err
			}
			time.Sleep(time.Millisecond)
			return answered(200)
		}
		w.subscribe(shop)
		w.start()
		began := time.Now()
		w.event("orders", "bad", "bad1")
		w.event("orders", "bad", "bad2")
		for i := range 1000 {
			w.event("orders", fmt.Sprint("k", i), fmt.Sprint("k", i))
		}
		pass(time.Second)
		if len(s.now().got) != 1000 || slices.Contains(s.now().got, "bad2") {
			t.Errorf("%d were taken", len(s.now().got))
		}
		st := w.wantStatus("shop", push.StateDelivering, "")
		if st.FailingKeys != 1 || st.Failing[0].Key != "bad" || st.Failing[0].EventID != "bad1" || !strings.Contains(st.Failing[0].Error, `500 Internal Server Error: "no such account\nxxx`) {
			t.Errorf("%+v", st)
		}
		s.reset()
		pass(59*time.Minute + 30*time.Second)
		if got := w.parked("orders"); len(got) > 0 {
			t.Errorf("parked before the deadline: %q", got)
		}
		pass(time.Minute)
		reason := `bad1: the sink answered 500 Internal Server Error: "no such account\n` + strings.Repeat("x", 184) + `"`
		if got := w.parked("orders"); !slices.Equal(got, []string{reason}) {
			t.Errorf("parked %q", got)
		}
		s.wantGot("bad2")
		times := s.now().times
		for i := 1; i+1 < len(times)-1; i++ {
			if d := times[i+1].Sub(times[i]); d > time.Minute+time.Second || i > 6 && d < 20*time.Second {
				t.Errorf("attempt %d came after %s", i, d)
			}
		}
		if last := times[len(times)-1].Sub(began); last < time.Hour || last > time.Hour+2*time.Second {
			t.Errorf("it was parked after %s", last)
		}
		if st := w.wantStatus("shop", push.StateDelivering, ""); st.Lag != 0 || st.Parked != 1 || st.FailingKeys != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// TestDeadlineSurvivesKills: neither kills nor stops give a record more time than it has, by much (W3).
func TestDeadlineSurvivesKills(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.topic("orders", 1)
		s := w.sink(shop.Sink)
		s.post = func(context.Context, *log.Event, push.Request) (push.Answer, error) { return answered(422) }
		w.subscribe(shop)
		began := time.Now()
		w.event("orders", "bad", "bad1")
		for n := 0; len(w.parked("orders")) == 0; n++ {
			w.start()
			pass(5 * time.Minute)
			if n%2 == 0 {
				w.kill()
			} else {
				w.stop()
			}
			pass(time.Hour) // nobody runs
			if n > 30 {
				t.Fatal("it is never parked")
			}
		}
		if tried := time.Since(began) / 13; tried < 55*time.Minute || tried > 90*time.Minute { // of each 65 minutes it runs 5
			t.Errorf("it was tried for %s", tried)
		}
	})
}

// TestOutage is W4: while the sink as a whole fails, whatever way, nothing is parked, however long, and it is not called without end. When it is well
// again, all is delivered, in order.
func TestOutage(t *testing.T) {
	const keys = 40
	for name, fails := range map[string]func(s *sink, ctx context.Context) (push.Answer, error){
		"refuses connections": func(s *sink, _ context.Context) (push.Answer, error) { return push.Answer{}, errRefused },
		"hangs": func(s *sink, ctx context.Context) (push.Answer, error) {
			select {
			case <-time.After(10 * time.Second):
			case <-ctx.Done():
			}
			return push.Answer{}, context.DeadlineExceeded
		},
		"500":             func(*sink, context.Context) (push.Answer, error) { return answered(500) },
		"404":             func(*sink, context.Context) (push.Answer, error) { return answered(404) },
		"503 Retry-After": func(*sink, context.Context) (push.Answer, error) { return answered(503, "Retry-After", "20") },
		"no consent":      func(*sink, context.Context) (push.Answer, error) { return answered(500) },
		"hangs but asked": func(s *sink, ctx context.Context) (push.Answer, error) {
			time.Sleep(10 * time.Second)
			return push.Answer{}, context.DeadlineExceeded
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.topic("orders", 4)
				s := w.sink(shop.Sink)
				down := true
				s.post = func(ctx context.Context, e *log.Event, _ push.Request) (push.Answer, error) {
					if down {
						return fails(s, ctx)
					}
					return answered(200)
				}
				if !strings.HasPrefix(name, "5") && name != "404" && name != "hangs but asked" {
					s.options = func() (push.Answer, error) {
						if down {
							return fails(s, context.Background())
						}
						return consents()
					}
				}
				w.subscribe(shop)
				w.start()
				want := map[string][]string{}
				for i := range 3 * keys {
					key := fmt.Sprint("k", i%keys)
					id := fmt.Sprint(key, "-", i)
					w.event("orders", key, id)
					want[key] = append(want[key], id)
				}
				pass(6 * time.Hour)
				w.mu.Lock()
				down = false
				calls := len(s.now().tries) + s.now().asked
				w.mu.Unlock()
				if got := w.parked("orders"); len(got) > 0 || len(s.now().got) > 0 {
					t.Errorf("%d were taken, parked %q", len(s.now().got), got)
				}
				if calls > 1000 {
					t.Errorf("it was called %d times in 6 hours", calls)
				}
				st, _ := w.push.Status("shop")
				if st.State != push.StateAsking && st.State != push.StateFailing || st.Why == "" || st.LastError == "" || st.Lag != 3*keys {
					t.Errorf("%+v", st)
				}
				pass(3 * time.Minute)
				w.wantStatus("shop", push.StateDelivering, "")
				wantByKey(t, s, want)
				w.wantTold("parked shop", 0)
			})
		})
	}
}

// wantByKey holds what a sink has taken to what it was to take, in the order of each key.
func wantByKey(t *testing.T, s *sink, want map[string][]string) {
	t.Helper()
	got := map[string][]string{}
	for _, id := range s.now().got {
		key, _, _ := strings.Cut(id, "-")
		got[key] = append(got[key], id)
	}
	for key, ids := range want {
		if !slices.Equal(got[key], ids) {
			t.Errorf("of %s it took %q, not %q", key, got[key], ids)
		}
	}
}

// TestParksOneByOne: where few keys fail, each is parked at its deadline, although nothing is ever taken: the sink says that it is there (W3).
func TestParksOneByOne(t *testing.T) {
	for name, post := range map[string]func(context.Context, *log.Event, push.Request) (push.Answer, error){
		"answers":   func(context.Context, *log.Event, push.Request) (push.Answer, error) { return answered(500) },
		"301":       func(context.Context, *log.Event, push.Request) (push.Answer, error) { return answered(301) },
		"503":       func(context.Context, *log.Event, push.Request) (push.Answer, error) { return answered(503) },
		"415":       func(context.Context, *log.Event, push.Request) (push.Answer, error) { return answered(415) },
		"is silent": func(context.Context, *log.Event, push.Request) (push.Answer, error) { return push.Answer{}, errRefused },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.topic("orders", 2)
				s := w.sink(shop.Sink)
				s.post = post
				w.subscribe(shop)
				w.start()
				w.event("orders", "a", "a1")
				w.event("orders", "b", "b1")
				w.event("orders", "a", "a2")
				pass(61 * time.Minute)
				if got := w.parked("orders"); len(got) != 2 {
					t.Errorf("parked %q", got)
				}
				pass(61 * time.Minute)
				if got := w.parked("orders"); len(got) != 3 {
					t.Errorf("parked %q", got)
				}
			})
		})
	}
}

// TestBusyForOne: Retry-After is kept to, and yet a key for which it is always asked is parked while others are taken.
func TestBusyForOne(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.topic("orders", 1)
		s := w.sink(shop.Sink)
		s.post = func(_ context.Context, e *log.Event, _ push.Request) (push.Answer, error) {
			if e.Key == "bad" {
				return answered(429, "Retry-After", "5")
			}
			return answered(200)
		}
		w.subscribe(shop)
		w.start()
		w.event("orders", "bad", "bad1")
		for i := range 130 {
			pass(30 * time.Second)
			w.event("orders", "good", fmt.Sprint("good", i))
		}
		pass(time.Minute)
		if got := w.parked("orders"); len(got) != 1 || len(s.now().got) != 130 {
			t.Errorf("parked %q, %d taken", got, len(s.now().got))
		}
		came := s.now()
		for i, id := range came.tries {
			if id == "bad1" && i+1 < len(came.times) && came.times[i+1].Sub(came.times[i]) < 5*time.Second {
				t.Errorf("%s came %s after a Retry-After of 5 s", came.tries[i+1], came.times[i+1].Sub(came.times[i]))
			}
		}
	})
}

// TestRetryAfter: the sink is left alone for as long as it asks, by all keys, and for no longer than RetryAfterMax (W5).
func TestRetryAfter(t *testing.T) {
	for asked, want := range map[string]time.Duration{"30": 30 * time.Second, "100000": push.RetryAfterMax} {
		bubble(t, func(t *testing.T, w *world) {
			w.topic("orders", 1)
			s := w.sink(shop.Sink)
			until := time.Now().Add(want - time.Second)
			s.post = func(context.Context, *log.Event, push.Request) (push.Answer, error) {
				if time.Now().Before(until) {
					return answered(503, "Retry-After", asked)
				}
				return answered(200)
			}
			w.event("orders", "a", "a1")
			w.subscribe(push.Subscription{Name: "shop", Topic: "orders", Sink: shop.Sink, Interval: time.Millisecond, MaxInterval: time.Second, Deadline: time.Hour})
			w.start()
			w.event("orders", "b", "b1")
			pass(want + 2*time.Second)
			came := s.now()
			if len(came.tries) > 4 || came.times[len(came.times)-1].Sub(came.times[0]) < want-time.Second {
				t.Errorf("called for %q at %v", came.tries, came.times)
			}
			if len(s.now().got) != 2 || len(w.parked("orders")) > 0 {
				t.Errorf("took %q, parked %q", s.now().got, w.parked("orders"))
			}
		})
	}
}

// TestGone: 410 pauses the subscription. Nothing is parked, and it goes on when a person says so, gives it another sink, or remit starts again.
func TestGone(t *testing.T) {
	for name, mend := range map[string]func(w *world, s *sink){
		"resumed": func(w *world, _ *sink) { w.push.Resume("shop") },
		"changed": func(w *world, s *sink) {
			changed := w.subs[0]
			changed.Interval *= 2
			w.subscribe(changed)
		},
		"restarted": func(w *world, _ *sink) { w.stop(); w.start() },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.topic("orders", 1)
				s := w.sink(shop.Sink)
				gone := true
				s.post = func(context.Context, *log.Event, push.Request) (push.Answer, error) {
					if gone {
						return answered(410)
					}
					return answered(200)
				}
				s1 := shop
				s1.Interval, s1.MaxInterval, s1.Deadline = time.Second, time.Minute, time.Hour
				w.subscribe(s1)
				w.start()
				w.push.Resume("shop") // it is not paused: nothing to do, now or later
				w.event("orders", "a", "a1")
				w.event("orders", "a", "a2")
				pass(24 * time.Hour)
				if st := w.wantStatus("shop", push.StatePaused, "410"); st.Lag != 2 || len(s.now().tries) != 1 || len(w.parked("orders")) > 0 {
					t.Errorf("%+v; called for %q", st, s.now().tries)
				}
				w.mu.Lock()
				gone = false
				w.mu.Unlock()
				mend(w, s)
				pass(time.Second)
				s.wantGot("a1", "a2")
				if s.now().asked != 2 {
					t.Errorf("asked for consent %d times", s.now().asked)
				}
				w.wantStatus("shop", push.StateDelivering, "")
			})
		})
	}
}

// TestConsent is W5: without consent nothing is delivered, the status says why, and the sink is asked again, ever more seldom.
func TestConsent(t *testing.T) {
	for why, options := range map[string]func() (push.Answer, error){
		"it did not answer OPTIONS: connection refused": func() (push.Answer, error) { return push.Answer{}, errRefused },
		"405 Method Not Allowed":                        func() (push.Answer, error) { return answered(405, "WebHook-Allowed-Origin", origin) },
		"410 Gone":                                      func() (push.Answer, error) { return answered(410) },
		"599":                                           func() (push.Answer, error) { return answered(599) },
		"without WebHook-Allowed-Origin":                func() (push.Answer, error) { return answered(200) },
		`"other.example", and not remit.example`:        func() (push.Answer, error) { return answered(200, "WebHook-Allowed-Origin", "other.example") },
		`WebHook-Allowed-Rate is "0"`: func() (push.Answer, error) {
			return answered(200, "WebHook-Allowed-Origin", "*", "WebHook-Allowed-Rate", "0")
		},
		`WebHook-Allowed-Rate is "many"`: func() (push.Answer, error) {
			return answered(200, "WebHook-Allowed-Origin", "*", "WebHook-Allowed-Rate", "many")
		},
	} {
		t.Run(why, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.topic("orders", 1)
				s := w.sink(shop.Sink)
				s.options = options
				w.subscribe(shop)
				w.event("orders", "a", "a1")
				w.start()
				pass(24 * time.Hour)
				st := w.wantStatus("shop", push.StateAsking, why)
				if st.Consent.Granted || !strings.Contains(st.Consent.Why, why) || st.ConsentAt.IsZero() {
					t.Errorf("%+v", st)
				}
				if len(s.now().tries) > 0 || len(w.parked("orders")) > 0 || s.now().asked < 24*60 || s.now().asked > 3*24*60 {
					t.Errorf("called for %q, asked %d times, parked %q", s.now().tries, s.now().asked, w.parked("orders"))
				}
				s.answersOptions(func() (push.Answer, error) { return answered(204, "WebHook-Allowed-Origin", "REMIT.example") })
				pass(2 * time.Minute)
				s.wantGot("a1")
			})
		})
	}
}

// TestRate: no more than the sink allows in a minute (W5).
func TestRate(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.topic("orders", 1)
		s := w.sink(shop.Sink)
		s.options = func() (push.Answer, error) {
			return answered(200, "WebHook-Allowed-Origin", "*", "WebHook-Allowed-Rate", "120")
		}
		w.subscribe(shop)
		w.start()
		for i := range 100 {
			w.event("orders", fmt.Sprint("k", i), fmt.Sprint("k", i))
		}
		pass(30 * time.Second)
		if n := len(s.now().got); n < 60 || n > 62 {
			t.Errorf("%d in half a minute, at 120 a minute", n)
		}
		if st := w.wantStatus("shop", push.StateDelivering, ""); st.Consent.PerMinute != 120 {
			t.Errorf("%+v", st)
		}
		w.stop() // it does not wait for the rate
		w.start()
		pass(30 * time.Second)
		if n := len(s.now().got); n != 100 {
			t.Errorf("%d in a minute", n)
		}
	})
}

// TestFilter: what does not match is done without a call; what cannot be told is delivered, and says so (W1).
func TestFilter(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.topic("orders", 1)
		s := w.sink(shop.Sink)
		filtered := shop
		filtered.Filter = "good"
		w.subscribe(filtered)
		w.start()
		for _, id := range []string{"good1", "other", "good2"} {
			w.event("orders", "a", id)
		}
		pass(2 * time.Second)
		s.wantGot("good1", "good2")
		w.event("orders", "a", "strange")
		pass(2 * time.Second)
		s.wantGot("good1", "good2", "strange")
		if said := s.now().last.Header.Get("Remit-Filter-Error"); said != "it is strange " {
			t.Errorf("the header says %q", said)
		}
		if st := w.wantStatus("shop", push.StateDelivering, ""); st.Skipped != 1 || st.Unfiltered != 1 || st.Delivered != 3 || st.Lag != 0 || !strings.Contains(st.LastError, "it is strange") {
			t.Errorf("%+v", st)
		}
	})
}

// TestBadFilter: a filter that cannot be read delivers nothing, and loses nothing.
func TestBadFilter(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.topic("orders", 1)
		s := w.sink(shop.Sink)
		bad := shop
		bad.Filter, bad.Registered = "(", time.Now()
		w.subscribe(bad)
		w.event("orders", "a", "a1")
		w.start()
		pass(time.Hour)
		w.wantStatus("shop", push.StatePaused, "a parenthesis is not closed")
		w.push.Resume("shop")
		pass(time.Hour)
		w.wantStatus("shop", push.StatePaused, "a parenthesis is not closed")
		bad.Filter = "a"
		w.subscribe(bad)
		pass(time.Second)
		s.wantGot("a1")
	})
}

// TestNotEvent: what is no CloudEvent cannot be delivered as one. It is parked, with the reason.
func TestNotEvent(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.topic("orders", 1)
		s := w.sink(shop.Sink)
		w.subscribe(shop)
		w.start()
		_, err := w.log.Append(t.Context(), log.Record{Partition: log.Partition{Topic: "orders"}, Key: []byte("k"), Value: []byte("plain")})
		w.must(err)
		w.event("orders", "k", "k1")
		pass(2 * time.Second)
		s.wantGot("k1")
		parked := w.records("orders.parked")
		if len(parked) != 1 || string(parked[0].Value) != "plain" {
			t.Fatalf("parked %v", parked)
		}
		if p, err := consumers.ParseParked(parked[0]); err != nil || !strings.Contains(p.Reason, "not a CloudEvent") || p.Group != "remit.push.shop" {
			t.Errorf("%+v, %v", p, err)
		}
	})
}

// TestBeginnings: a subscription begins where it was registered, or at the first record; a partition that comes later, and a topic, at its first. Where it
// begins does not change when remit is killed before anything was delivered (W1).
func TestBeginnings(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.topic("orders", 1)
		late, early := w.sink("https://late.example"), w.sink("https://early.example")
		refuses := func() (push.Answer, error) { return answered(403) }
		late.options, early.options = refuses, refuses
		w.event("orders", "a", "before")
		pass(time.Minute)
		w.subscribe(push.Subscription{Name: "late", Topic: "orders", Sink: late.url, From: time.Now()})
		w.subscribe(push.Subscription{Name: "early", Topic: "orders", Sink: early.url})
		w.subscribe(push.Subscription{Name: "later", Topic: "later", Sink: late.url, From: time.Now()})
		w.start()
		pass(time.Minute)
		w.event("orders", "a", "after")
		w.kill()
		w.event("orders", "a", "down")
		late.options, early.options = nil, nil
		w.start()
		pass(2 * time.Minute)
		early.wantGot("before", "after", "down")
		late.wantGot("after", "down")
		if err := w.log.ConfigureTopic(t.Context(), log.TopicConfig{Name: "orders", Partitions: 3}); err != nil {
			t.Fatal(err)
		}
		early.reset()
		late.reset()
		old := log.Event{ID: "old clock", Source: "/shop", Type: "order.placed.v1", RecordedTime: time.Now().Add(-time.Hour)}
		_, err := w.log.Append(t.Context(), old.Record(log.Partition{Topic: "orders", Index: 2}))
		w.must(err)
		pass(2 * time.Second)
		early.wantGot("old clock")
		late.wantGot("old clock")
		late.reset()
		w.wantStatus("later", push.StateWaiting, "there is no topic later")
		w.topic("later", 1)
		_, err = w.log.Append(t.Context(), old.Record(log.Partition{Topic: "later"}))
		w.must(err)
		pass(2 * time.Second)
		late.wantGot("old clock")
	})
}

// TestChanged: a change takes effect at once, and what was under way to the old sink comes to the new one; nothing is left out (W1, W5).
func TestChanged(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.topic("orders", 1)
		slow, quick := w.sink("https://slow.example"), w.sink("https://quick.example")
		slow.post = func(ctx context.Context, _ *log.Event, _ push.Request) (push.Answer, error) {
			<-ctx.Done()
			return push.Answer{}, ctx.Err()
		}
		of := push.Subscription{Name: "shop", Topic: "orders", Sink: slow.url, Registered: time.Now(), Interval: time.Second, MaxInterval: time.Minute, Deadline: time.Hour}
		w.subscribe(of)
		w.start()
		w.event("orders", "a", "a1")
		w.event("orders", "b", "b1")
		pass(time.Minute)
		of.Sink = quick.url
		w.subscribe(of)
		pass(900 * time.Millisecond) // ChangeMax has not passed
		if len(slow.now().tries) != 2 || len(quick.now().tries) != 0 {
			t.Errorf("called for %q and %q", slow.now().tries, quick.now().tries)
		}
		pass(200 * time.Millisecond)
		if got := slices.Sorted(slices.Values(quick.now().got)); !slices.Equal(got, []string{"a1", "b1"}) {
			t.Errorf("the new sink got %q", got)
		}
		if quick.now().asked != 1 || len(slow.now().tries) != 2 {
			t.Errorf("the new sink was asked %d times, the old one called for %q", quick.now().asked, slow.now().tries)
		}
	})
}

// TestRemoved: a subscription that is removed calls nobody from then on, and leaves nothing behind, also for one of its name.
func TestRemoved(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.topic("orders", 1)
		s := w.sink(shop.Sink)
		s.post = func(ctx context.Context, e *log.Event, _ push.Request) (push.Answer, error) {
			if e.ID == "hangs" {
				<-ctx.Done()
				return push.Answer{}, ctx.Err()
			}
			return answered(200)
		}
		w.subscribe(shop)
		w.start()
		w.event("orders", "a", "a1")
		w.event("orders", "b", "hangs")
		pass(2 * time.Second)
		w.unsubscribe("shop")
		w.event("orders", "a", "a2")
		pass(time.Millisecond)
		w.wantTold("removed shop", 1)
		if _, ok := w.push.Status("shop"); ok || s.now().open > 0 || len(w.committed) > 0 {
			t.Errorf("a status: %t; %d calls under way; noted: %v", ok, s.now().open, w.committed)
		}
		s.reset()
		again := shop
		again.From = time.Now()
		w.subscribe(again)
		pass(time.Second)
		w.event("orders", "a", "a3")
		pass(time.Second)
		s.wantGot("a3")
		w.kill() // what it leaves is found at the next start
		w.unsubscribe("shop")
		w.start()
		if len(w.committed) > 0 {
			t.Errorf("noted: %v", w.committed)
		}
	})
}

// TestNameOfOther: what one of the same name has left behind does not count for another.
func TestNameOfOther(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.topic("orders", 1)
		s := w.sink(shop.Sink)
		w.subscribe(shop)
		w.start()
		w.event("orders", "a", "a1")
		pass(2 * time.Second)
		w.kill()
		w.event("orders", "a", "a2")
		pass(time.Second)
		again := shop
		again.From = time.Now()
		w.subscribe(again) // and what was noted of the first is still there
		w.start()
		pass(time.Second)
		w.event("orders", "a", "a3")
		pass(time.Second)
		s.wantGot("a1", "a3")
	})
}

// TestMissed: records that retention took are told of, where a person looks, before what follows them is delivered (W1).
func TestMissed(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.topic("orders", 1)
		s := w.sink(shop.Sink)
		w.subscribe(shop)
		w.start()
		for i := range 10 {
			w.event("orders", "a", fmt.Sprint("a", i))
			pass(2 * time.Second)
			if i == 2 {
				w.stop()
			}
		}
		w.must(w.log.Trim(t.Context(), log.Partition{Topic: "orders"}, 7))
		w.start()
		pass(2 * time.Second)
		s.wantGot("a0", "a1", "a2", "a7", "a8", "a9")
		st := w.wantStatus("shop", push.StateDelivering, "")
		if st.Missed != 4 || st.Lag != 0 {
			t.Errorf("%+v", st)
		}
		parked := w.records("orders.parked")
		if len(parked) != 1 {
			t.Fatalf("parked %q", w.parked("orders"))
		}
		e, err := log.ParseRecord(parked[0])
		w.must(err)
		p, err := consumers.ParseParked(parked[0])
		w.must(err)
		if e.Type != "remit.subscription.missed.v1" || string(e.Data) != `{"subscription":"shop","topic":"orders","partition":0,"from":3,"to":7}` ||
			p.Group != "remit.push.shop" || p.From != (consumers.Place{Partition: log.Partition{Topic: "orders"}, Offset: 3}) || !strings.Contains(p.Reason, "records 3 to 6 of orders/0 were gone") {
			t.Errorf("%+v, %s, %+v", e, e.Data, p)
		}
	})
}

// TestTopicAnew: a topic that was deleted and made anew is read from its first record, and what was read of the old one is not noted for it (W1).
func TestTopicAnew(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.topic("orders", 1)
		s := w.sink(shop.Sink)
		of := shop
		of.From = time.Now()
		w.subscribe(of)
		w.start()
		for i := range 5 {
			w.event("orders", "a", fmt.Sprint("a", i))
		}
		pass(10 * time.Millisecond) // delivered, and not yet noted
		w.must(w.log.DeleteTopic(t.Context(), "orders"))
		w.push.TopicDeleted("orders")
		w.mu.Lock()
		delete(w.committed, push.Group("shop")) // as the coordinator does
		w.mu.Unlock()
		w.topic("orders", 1)
		old := log.Event{ID: "new", Source: "/shop", Type: "order.placed.v1", RecordedTime: time.Now().Add(-time.Hour)}
		_, err := w.log.Append(t.Context(), old.Record(log.Partition{Topic: "orders"}))
		w.must(err)
		pass(5 * time.Second)
		s.wantGot("a0", "a1", "a2", "a3", "a4", "new")
		if next := w.next("shop", log.Partition{Topic: "orders"}); next != 1 {
			t.Errorf("%d is noted", next)
		}
		w.must(w.log.DeleteTopic(t.Context(), "orders"))
		pass(5 * time.Second)
		w.wantStatus("shop", push.StateWaiting, "no topic orders")
	})
}

// TestApart is W6: sinks that hang, refuse and lie delay no other.
func TestApart(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.topic("orders", 4)
		for i := range 50 {
			s := w.sink(fmt.Sprintf("https://bad%d.example", i))
			if i%2 == 0 {
				s.options = func() (push.Answer, error) { time.Sleep(10 * time.Second); return push.Answer{}, errRefused }
			}
			s.post = func(ctx context.Context, _ *log.Event, _ push.Request) (push.Answer, error) {
				select {
				case <-ctx.Done():
				case <-time.After(10 * time.Second):
				}
				return answered(500)
			}
			w.subscribe(push.Subscription{Name: fmt.Sprint("bad", i), Topic: "orders", Sink: s.url})
		}
		good := w.sink(shop.Sink)
		w.subscribe(shop)
		w.start()
		for i := range 500 {
			w.event("orders", fmt.Sprint("k", i), fmt.Sprint("k", i))
		}
		pass(10 * time.Second)
		if len(good.now().got) != 500 {
			t.Errorf("%d of 500 were taken", len(good.now().got))
		}
	})
}

// TestWorkersMax: no more calls at once than that, to a sink.
func TestWorkersMax(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.WorkersMax = 5
		w.topic("orders", 4)
		s := w.sink(shop.Sink)
		s.post = func(context.Context, *log.Event, push.Request) (push.Answer, error) {
			time.Sleep(time.Second)
			return answered(200)
		}
		w.subscribe(shop)
		w.start()
		for i := range 50 {
			w.event("orders", fmt.Sprint("k", i), fmt.Sprint("k", i))
		}
		pass(20 * time.Second)
		if s.now().openMax != 5 || len(s.now().got) != 50 {
			t.Errorf("%d at once, %d taken", s.now().openMax, len(s.now().got))
		}
	})
}

// TestHeld: a subscription holds no more records than its share, and goes on when there is room.
func TestHeld(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.HeldBytesMax, w.HeldBytesMin = 20<<10, 1
		reads := &countingLog{}
		w.wrap = func(l log.Log) log.Log { reads.Log = l; return reads }
		w.topic("orders", 1)
		s := w.sink(shop.Sink)
		hang := make(chan struct{})
		s.post = func(ctx context.Context, _ *log.Event, _ push.Request) (push.Answer, error) {
			<-hang
			return answered(200)
		}
		for i := range 1000 {
			w.event("orders", fmt.Sprint("k", i), fmt.Sprint("k", i))
		}
		w.subscribe(shop)
		w.start()
		pass(time.Second)
		if n := reads.records.Load(); n < 16 || n > 60 { // of about 600 bytes, held
			t.Errorf("%d records were read, with room for 20 KiB", n)
		}
		close(hang)
		pass(5 * time.Second)
		if len(s.now().got) != 1000 {
			t.Errorf("%d were taken", len(s.now().got))
		}
	})
}

// countingLog counts the records that are read.
type countingLog struct {
	log.Log
	records atomic.Int64
}

func (c *countingLog) Read(ctx context.Context, p log.Partition, from log.Offset, maxBytes int) ([]log.Record, error) {
	rs, err := c.Log.Read(ctx, p, from, maxBytes)
	c.records.Add(int64(len(rs)))
	return rs, err
}

// TestClose: what is under way is finished and noted; what hangs is cut off, and made again.
func TestClose(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.topic("orders", 1)
		s := w.sink(shop.Sink)
		s.post = func(ctx context.Context, e *log.Event, _ push.Request) (push.Answer, error) {
			takes := 2 * time.Second
			if e.Key == "hangs" {
				takes = time.Hour
			}
			select {
			case <-ctx.Done():
				return push.Answer{}, ctx.Err()
			case <-time.After(takes):
				return answered(200)
			}
		}
		w.subscribe(shop)
		w.start()
		w.event("orders", "hangs", "hangs1")
		w.event("orders", "a", "a1")
		w.event("orders", "a", "a2")
		pass(time.Second)
		began := time.Now()
		w.stop()
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("it took %s", took)
		}
		s.wantGot("a1")
		w.start()
		pass(3 * time.Second)
		s.wantGot("a1", "a2")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := w.push.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close returned %v", err)
		}
		w.push = nil
	})
}

// TestOptions: what is wrong is said before anything is delivered.
func TestOptions(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		good := func() push.Options {
			p := &process{world: w}
			return push.Options{Log: w.log, Offsets: p, Registry: w, Caller: p, Compile: compile, Origin: origin}
		}
		for name, spoil := range map[string]func(*push.Options){
			"Log": func(o *push.Options) { o.Log = nil }, "Origin": func(o *push.Options) { o.Origin = "" },
			"limit": func(o *push.Options) { o.OutageMax = -1 }, "times": func(o *push.Options) { o.DrainMax = -1 },
		} {
			o := good()
			spoil(&o)
			if _, err := push.New(o); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: %v", name, err)
			}
		}
		s, err := push.New(good())
		w.must(err)
		w.must(s.Close(t.Context()))
	})
}

// TestGroups: the group of a subscription is known to Kafka tools, and never changes.
func TestGroups(t *testing.T) {
	if g := push.Group("shop"); g != "remit.push.shop" || !log.ReservedGroup(g) {
		t.Error(g)
	}
	for group, want := range map[string]string{"remit.push.shop": "shop", "remit.push.": "", "shop": "", "remit.pusher": ""} {
		if s, ok := push.OfGroup(group); s != want || ok != (want != "") {
			t.Errorf("%s is of %q, %t", group, s, ok)
		}
	}
}

// TestSentAgain is W7: what was parked is delivered again to the subscription that has parked it, in the order of its key, also when remit is killed; to no
// other, and nothing is added to the topic. What fails again is parked again, as of where it stood first.
func TestSentAgain(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.topic("orders", 3)
		s, other := w.sink(shop.Sink), w.sink("https://other.example")
		mended := false
		s.post = func(_ context.Context, e *log.Event, _ push.Request) (push.Answer, error) {
			if mended && e.ID != "k1-4" {
				return answered(200)
			}
			return answered(422)
		}
		w.subscribe(push.Subscription{Name: "shop", Topic: "orders", Sink: s.url, Interval: time.Second, MaxInterval: time.Second, Deadline: time.Second})
		w.subscribe(push.Subscription{Name: "other", Topic: "orders", Sink: other.url})
		w.start()
		want := map[string][]string{}
		for i := range 30 {
			key := fmt.Sprint("k", i%3)
			id := fmt.Sprint(key, "-", i)
			w.event("orders", key, id)
			if id != "k1-4" {
				want[key] = append(want[key], id)
			}
		}
		pass(5 * time.Minute)
		if n := len(w.parked("orders")); n != 30 || len(other.now().got) != 30 {
			t.Fatalf("%d parked, %d taken by the other", n, len(other.now().got))
		}
		mended = true
		s.reset()
		w.topic("orders.replay", 3)
		for _, r := range w.records("orders.parked") {
			replay, err := consumers.Replay(r, "carol", "mended", time.Now())
			w.must(err)
			p, err := consumers.ParseParked(r)
			w.must(err)
			replay.Index = p.From.Index
			_, err = w.log.Append(t.Context(), replay)
			w.must(err)
		}
		s.answersOptions(func() (push.Answer, error) { return answered(403) })
		w.kill() // before anything was sent again
		w.start()
		pass(time.Minute)
		if st := w.wantStatus("shop", push.StateAsking, "403"); st.Replays != 30 || st.Lag != 0 {
			t.Errorf("%+v", st)
		}
		s.answersOptions(nil)
		pass(5 * time.Minute)
		wantByKey(t, s, want)
		if len(other.now().got) != 30 || len(w.records("orders")) != 30 {
			t.Errorf("the other has %d, the topic %d", len(other.now().got), len(w.records("orders")))
		}
		parked := w.records("orders.parked")
		var again []consumers.Parked
		for _, r := range parked {
			if e, err := log.ParseRecord(r); err == nil && e.ID == "k1-4" {
				p, err := consumers.ParseParked(r)
				w.must(err)
				again = append(again, p)
			}
		}
		if len(parked) != 31 || len(again) != 2 || again[0].From != again[1].From {
			t.Errorf("%d are parked, %+v", len(parked), again)
		}
		if st := w.wantStatus("shop", push.StateDelivering, ""); st.Replays != 0 {
			t.Errorf("%+v", st)
		}
	})
}
