package broker_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/remitlog/remit/broker"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/embedded"
	"github.com/remitlog/remit/log/fold"
)

// TestScripts runs the scripts in testdata on the fold's runtime over an embedded log, in a bubble of its own time: what is
// answered, what is written, and what readers of topics see (D1 to D4, M1, M2). A failure is a changed protocol: read the diff, and
// run with -rewrite only if you can say why it is right.
//
//	topic NAME [partitions=N]   make a topic
//	drop NAME                   delete it
//	prepare ID key=K [topic=T] [data=D] [deliver-after=10s] [deliver-at=10s] [again=ID]
//	        [check-after=10s] [first-after= interval= max-interval= deadline=]
//	commit ID [by=B] [reason=R], rollback ID, resume ID
//	producer VERDICT [reason=R] [says=unwanted]  what it answers from now on; "silence", and none to answer never
//	prechecks yes|no            whether messages that are committed wait for its word
//	ask ID                      a person has it asked now
//	wait 10s                    let time pass
//	restart                     stop, and start again
//	down 1h                     the same, with so long in between
//	show ID, inuse TOPIC
//	tally                       how many messages stand where
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		bubble(t, func(s *script) { datadriven.RunTest(s.t, path, s.run) })
	})
}

// bubble runs f in time of its own.
func bubble(t *testing.T, f func(*script)) {
	// The log keeps channels in a sync.Pool, and one bubble may not touch another's: two collections empty it.
	runtime.GC()
	runtime.GC()
	synctest.Test(t, func(t *testing.T) {
		s := newScript(t)
		defer s.close()
		f(s)
	})
}

type script struct {
	t     *testing.T
	fs    vfs.FS
	born  time.Time
	ids   map[string]log.ID
	names map[log.ID]string

	l     *embedded.Log
	store *fold.Store
	node  *fold.Node
	b     *broker.Broker
	asker *scriptAsker
	asks  broker.Asker  // asker, if nobody else does
	jump  time.Duration // of the wall clock

	read map[log.Partition]log.Offset // how far each partition has been printed
}

func newScript(t *testing.T) *script {
	s := &script{t: t, fs: vfs.NewMem(), born: time.Now(), ids: map[string]log.ID{}, names: map[log.ID]string{}, read: map[log.Partition]log.Offset{}}
	s.asker = &scriptAsker{names: s.names, says: "silence"}
	s.open()
	return s
}

func (s *script) open() {
	fatal := func(err error) { s.t.Errorf("fatal: %v", err) }
	var err error
	s.l, err = embedded.Open(embedded.Options{Dir: "log", FS: s.fs, Fatal: fatal, MemTableBytes: 256 << 10, BallastBytes: -1, FreeFloorBytes: -1})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.l.CreateTopic(s.t.Context(), log.TopicConfig{Name: log.EventsTopic, Partitions: 1}); err != nil {
		s.t.Fatal(err)
	}
	s.store, err = fold.OpenStore(fold.StoreOptions{Dir: "state", Version: "script", Partitions: 1, FS: s.fs, MemTableBytes: 256 << 10, Fatal: fatal})
	if err != nil {
		s.t.Fatal(err)
	}
	if s.asks == nil {
		s.asks = s.asker
	}
	s.b = broker.New(broker.Options{Asker: s.asks, Topics: func(topic string) (int, bool) {
		c, err := s.l.Topic(s.t.Context(), topic)
		return c.Partitions, err == nil
	}})
	s.node, err = fold.Open(s.t.Context(), fold.Options{
		Log: s.l, Topic: log.EventsTopic, Owner: fold.All(1), Store: s.store, Facts: fold.NewFacts(true, broker.Facts()...),
		Machines: map[byte]fold.Machine{broker.MachineByte: s.b}, Order: []byte{broker.MachineByte}, Placed: broker.Placed, Fatal: fatal,
		Now: func() time.Time { return time.Now().Add(s.jump) }, ClockBehindAllowed: true,
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// use has another ask producers.
func (s *script) use(a broker.Asker) {
	s.asks = a
	s.close()
	s.open()
}

func (s *script) close() {
	if err := errors.Join(s.node.Close(), s.store.Close(), s.l.Close()); err != nil {
		s.t.Error(err)
	}
}

func (s *script) run(t *testing.T, d *datadriven.TestData) string {
	var said string
	switch d.Cmd {
	case "topic":
		n := 1
		d.MaybeScanArgs(t, "partitions", &n)
		said = verdict(s.l.CreateTopic(t.Context(), log.TopicConfig{Name: d.CmdArgs[0].Key, Partitions: n}))
	case "drop":
		for p := range s.read {
			if p.Topic == d.CmdArgs[0].Key {
				delete(s.read, p)
			}
		}
		said = verdict(s.l.DeleteTopic(t.Context(), d.CmdArgs[0].Key))
	case "prepare":
		said = s.prepare(d)
	case "commit", "rollback":
		c := broker.Settle{Broker: s.b, ID: s.id(d.CmdArgs[0].Key, ""), Input: broker.Input(d.Cmd)}
		d.MaybeScanArgs(t, "by", &c.By)
		d.MaybeScanArgs(t, "reason", &c.Reason)
		said = s.ask(c)
	case "resume":
		c := broker.Resume{Decision: broker.Decision{ID: s.id(d.CmdArgs[0].Key, "")}}
		d.MaybeScanArgs(t, "by", &c.By)
		d.MaybeScanArgs(t, "reason", &c.Reason)
		said = s.ask(c)
	case "producer":
		s.asker.set(d)
	case "prechecks":
		s.asker.prechecks = d.CmdArgs[0].Key == "yes"
	case "ask":
		said = s.askNow(d)
	case "wait":
		span, err := time.ParseDuration(d.CmdArgs[0].Key)
		if err != nil {
			t.Fatal(err)
		}
		<-time.After(span)
	case "down": // for so long
		span, err := time.ParseDuration(d.CmdArgs[0].Key)
		if err != nil {
			t.Fatal(err)
		}
		s.close()
		<-time.After(span)
		s.open()
	case "restart":
		s.close()
		s.open()
	case "show":
		said = s.show(d.CmdArgs[0].Key)
	case "tally":
		said = s.showTally()
	case "inuse":
		_ = s.node.Read(0, func(rows fold.Scanner, _ log.Offset) error {
			said = fmt.Sprintln(broker.InUse(rows, d.CmdArgs[0].Key))
			return nil
		})
	default:
		t.Fatalf("%s: unknown command %q", d.Pos, d.Cmd)
	}
	synctest.Wait() // until nothing moves but time
	<-time.After(2 * fold.LazyMax)
	synctest.Wait() // and what nobody waits for has been written too
	s.tally()
	return said + s.asker.heard() + s.news()
}

func verdict(err error) string {
	if err != nil {
		return "error: " + err.Error() + "\n"
	}
	return ""
}

// id returns the id that a script calls name.
func (s *script) id(name, key string) log.ID {
	id, ok := s.ids[name]
	if !ok {
		id = log.NewID(time.Now(), key)
		h := sha256.Sum256([]byte(name)) // the same in each run: checks are spread by it
		copy(id[9:14], h[:])
		id[6], id[7], id[8], id[14] = 0x80|h[5]>>4, h[6], 0x80|h[7]>>2, id[14]&3|h[8]&^3
		s.ids[name], s.names[id] = id, name
	}
	return id
}

func (s *script) prepare(d *datadriven.TestData) string {
	name := d.CmdArgs[0].Key
	c := broker.Prepared{Topic: "orders", Producer: "shop"}
	data, after, at, checkAfter := "1", "", "", ""
	schedule := map[string]*int64{
		"first-after": &c.Schedule.FirstAfter, "interval": &c.Schedule.Interval, "max-interval": &c.Schedule.MaxInterval, "deadline": &c.Schedule.Deadline,
	}
	d.ScanArgs(s.t, "key", &c.Key)
	for arg, to := range map[string]*string{"topic": &c.Topic, "data": &data, "deliver-after": &after, "deliver-at": &at, "check-after": &checkAfter} {
		d.MaybeScanArgs(s.t, arg, to)
	}
	for arg, to := range schedule {
		span := ""
		d.MaybeScanArgs(s.t, arg, &span)
		*to = millis(s.t, span)
	}
	c.CheckAfter = millis(s.t, checkAfter)
	c.ID = s.id(name, c.Key)
	c.DeliverAfter = millis(s.t, after)
	if at != "" {
		c.DeliverAt = s.born.UnixMilli() + millis(s.t, at)
	}
	s.fill(&c, name, data)
	c.Fingerprint = log.FingerprintOf(c.Topic, c.Key, data, after, at)
	return s.ask(broker.Prepare{Prepared: c})
}

// fill gives a half message its event.
func (s *script) fill(c *broker.Prepared, name, data string) {
	e := log.Event{ID: name, Source: "shop", Type: "order", Key: c.Key, DataContentType: "application/json", Data: []byte(data)}
	b, err := e.MarshalStructured()
	if err != nil {
		s.t.Fatal(err)
	}
	c.Event, c.Name = b, "shop "+name
}

// half is a half message on topic orders.
func (s *script) half(name, key string, after time.Duration) broker.Prepared {
	c := broker.Prepared{ID: s.id(name, key), Topic: "orders", Producer: "shop", Key: key, DeliverAfter: after.Milliseconds()}
	s.fill(&c, name, "1")
	return c
}

func (s *script) outcome(c fold.Command) broker.Outcome {
	r, err := s.node.Do(s.t.Context(), 0, c)
	if err != nil {
		s.t.Fatal(err)
	}
	return r.Answer.(broker.Outcome)
}

func millis(t *testing.T, d string) int64 {
	if d == "" {
		return 0
	}
	span, err := time.ParseDuration(d)
	if err != nil {
		t.Fatal(err)
	}
	return span.Milliseconds()
}

func (s *script) ask(c fold.Command) string {
	r, err := s.node.Do(s.t.Context(), 0, c)
	if err != nil {
		return verdict(err)
	}
	o := r.Answer.(broker.Outcome)
	said := o.Message.State.String()
	if o.Replayed {
		said += ", again"
	}
	if o.Conflict {
		said += ", and that stands"
	}
	return "answer " + said + "\n"
}

func (s *script) show(name string) string {
	var said string
	err := s.node.Read(0, func(rows fold.Scanner, _ log.Offset) error {
		m, _, ok := broker.Get(rows, s.id(name, ""))
		if !ok {
			said = "unknown\n"
			return nil
		}
		id, now := s.id(name, ""), s.node.Now()
		said = fmt.Sprintf("%s by=%q reason=%q event=%t conflicts=%d", m.State, m.By, m.Reason, len(m.Event) > 0, m.Conflicts)
		if s.asker.told {
			said += fmt.Sprintf(" checks=%d", m.Checks(id, now))
		}
		if next := m.NextCheck(id, now); s.asker.told && !next.IsZero() {
			said += fmt.Sprintf(" next in %s", next.Sub(now).Round(10*time.Second))
		}
		if m.Stuck(id, now) {
			said += " stuck"
		}
		said += "\n"
		return nil
	})
	return said + verdict(err)
}

// news prints what was written since it was last called: events of the core, then deliveries.
func (s *script) news() string {
	var b strings.Builder
	facts := fold.NewFacts(true, broker.Facts()...)
	for _, r := range s.records(log.Partition{Topic: log.EventsTopic}) {
		e, err := facts.Decode(r)
		if err != nil {
			s.t.Fatal(err)
		}
		fmt.Fprintf(&b, "event  %s%s\n", strings.TrimSuffix(strings.TrimPrefix(e.Fact.EventType(), "remit.message."), ".v1"), s.describe(e.Fact))
	}
	topics, err := s.l.Topics(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	for _, c := range topics {
		if log.Reserved(c.Name) {
			continue
		}
		for p := range int32(c.Partitions) {
			for _, r := range s.records(log.Partition{Topic: c.Name, Index: p}) {
				e, err := log.ParseRecord(r)
				if err != nil {
					s.t.Fatal(err)
				}
				fmt.Fprintf(&b, "topic  %s/%d has %s key=%s %s\n", c.Name, p, e.ID, e.Key, e.Data)
			}
		}
	}
	return b.String()
}

func (s *script) records(p log.Partition) []log.Record {
	_, end, err := s.l.Bounds(s.t.Context(), p)
	if err != nil {
		s.t.Fatal(err)
	}
	var all []log.Record
	for s.read[p] < end {
		records, err := s.l.Read(s.t.Context(), p, s.read[p], 1<<20)
		if err != nil {
			s.t.Fatal(err)
		}
		all = append(all, records...)
		s.read[p] = records[len(records)-1].Offset + 1
	}
	return all
}

func (s *script) describe(f fold.Fact) string {
	switch f := f.(type) {
	case broker.Prepared:
		return " " + s.names[f.ID]
	case broker.Committed:
		if f.Partition == nil {
			if f.Precheck {
				return " " + s.names[f.ID] + ", to wait for its producer's word"
			}
			return " " + s.names[f.ID] + ", to wait"
		}
		return fmt.Sprintf(" %s, and delivered to partition %d", s.names[f.ID], *f.Partition)
	case broker.RolledBack:
		return " " + s.names[f.ID]
	case broker.Delivered:
		return " " + s.names[f.ID]
	case broker.Parked:
		return decision(s.names, f.Decision)
	case broker.Resumed:
		return decision(s.names, f.Decision)
	case broker.CheckAsked:
		return decision(s.names, f.Decision)
	case broker.Dropped:
		return decision(s.names, f.Decision)
	case broker.Conflicted:
		return fmt.Sprintf(" %s wanted=%s recorded=%s", s.names[f.ID], f.Wanted, f.Recorded)
	case broker.PlacedAll:
		var places []string
		for _, p := range f.Places {
			places = append(places, fmt.Sprintf(" %s at %d/%d", s.names[p.ID], p.Partition, p.Offset))
		}
		return strings.Join(places, ",")
	}
	return ""
}
