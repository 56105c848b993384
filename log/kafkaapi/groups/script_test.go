package groups_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/embedded"
	"github.com/remitlog/remit/log/kafkaapi/groups"
)

// TestScripts runs the scripts in testdata over an embedded log, in a bubble of its own time (J1 to J5). A failure is a changed protocol: read
// the diff, and run with -rewrite only if you can say why it is right.
//
// A member has a name; its id and generation are those that it was last told. Requests that wait are answered under a later
// command. Ids are shown as the name of the client, or the instance, and how many of it there were.
//
//	options [delay=D] [members=N] [groups=N] [member-bytes=N] [forget=D]   start anew with other options
//	topic NAME [partitions=N], drop NAME
//	join NAME [group=g] [v=9] [session=10s] [rebalance=1m] [instance=I] [type=consumer] [protocols=range,…] [topics=t,…] [anew]
//	sync NAME [v=5] [generation=N] [assign=(NAME=what,…)] [protocol=P]
//	beat NAME [generation=N]
//	leave NAME… [instance=I] [v=5]
//	commit NAME|none [group=g] [v=9] [generation=N] [metadata=M] at=(topic/0=5,…)
//	fetch [group=g] [v=9] [topic/0 …]
//	forget-offsets [group=g] topic/0 …
//	describe GROUP… [v=6], list [states=…] [types=…], delete GROUP…
//	wait 10s      let time pass
//	full, room    the disk is full, and is not any more
//	restart       stop, and start again
//	crash         the power goes, and what was not synced with it; then start again
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/scripts", func(t *testing.T, path string) {
		// The log keeps channels in a sync.Pool, and one bubble may not touch another's: two collections empty it.
		runtime.GC()
		runtime.GC()
		synctest.Test(t, func(t *testing.T) {
			s := &script{t: t, members: map[string]*client{}, ids: map[string]string{}, born: map[string]int{}}
			s.open()
			defer s.close()
			datadriven.RunTest(t, path, s.run)
		})
	})
}

// world is a Coordinator on a log on a disk that can be full and lose its power.
type world struct {
	fs      *vfs.MemFS
	free    uint64
	options groups.Options
	fatal   func(error)
	wrap    func(vfs.FS) vfs.FS // what the log sees of fs; nil: fs

	log *embedded.Log
	c   *groups.Coordinator
}

func (w *world) open() error {
	if w.fs == nil {
		w.fs = vfs.NewCrashableMem()
		w.free = 1 << 40
	}
	fs := vfs.FS(w.fs)
	if w.wrap != nil {
		fs = w.wrap(fs)
	}
	var err error
	w.log, err = embedded.Open(embedded.Options{
		Dir: "log", FS: fs, Fatal: w.fatal, MemTableBytes: 256 << 10, BallastBytes: -1, RetentionEvery: -1,
		FreeFloorBytes: 1, Free: func() (uint64, error) { return w.free, nil },
	})
	if err != nil {
		return err
	}
	w.options.Store, w.options.Partitions = w.log, w.partitions
	w.c, err = groups.New(w.options)
	return err
}

func (w *world) partitions(topic string) int {
	c, err := w.log.Topic(context.Background(), topic)
	if err != nil {
		return 0
	}
	return c.Partitions
}

func (w *world) close() error { return errors.Join(w.c.Close(), w.log.Close()) }

// crash goes on with what a power cut would have left.
func (w *world) crash() error {
	left := w.fs.CrashClone(vfs.CrashCloneCfg{})
	if err := w.close(); err != nil {
		return err
	}
	w.fs = left
	return w.open()
}

// client is a member as it knows itself.
type client struct {
	name, group, id, kind, protocol string
	instance                        *string
	generation                      int32
}

type script struct {
	world
	t       *testing.T
	members map[string]*client
	ids     map[string]string // how each id is shown
	born    map[string]int

	mu      sync.Mutex
	answers []string
}

func (s *script) open() {
	s.fatal = func(err error) { s.t.Errorf("fatal: %v", err) }
	if err := s.world.open(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *script) close() {
	if err := s.world.close(); err != nil {
		s.t.Error(err)
	}
}

func (s *script) run(t *testing.T, d *datadriven.TestData) string {
	said := s.do(t, d)
	synctest.Wait()
	s.mu.Lock()
	slices.Sort(s.answers)
	said += strings.Join(s.answers, "")
	s.answers = nil
	s.mu.Unlock()
	return s.named(said)
}

func (s *script) do(t *testing.T, d *datadriven.TestData) string {
	switch d.Cmd {
	case "options":
		s.configure(d)
	case "topic":
		n := 1
		d.MaybeScanArgs(t, "partitions", &n)
		return verdict(s.log.CreateTopic(t.Context(), log.TopicConfig{Name: d.CmdArgs[0].Key, Partitions: n}))
	case "drop":
		name := d.CmdArgs[0].Key
		return verdict(errors.Join(s.log.DeleteTopic(t.Context(), name), s.c.TopicDeleted(t.Context(), name)))
	case "join":
		s.join(d)
	case "sync":
		s.sync(d)
	case "beat":
		return s.beat(d)
	case "leave":
		return s.leave(d)
	case "commit":
		s.commit(d)
	case "fetch":
		return s.fetch(d)
	case "forget-offsets":
		return s.forget(d)
	case "describe":
		return s.describe(d)
	case "list":
		return s.list(d)
	case "delete":
		req := kmsg.NewPtrDeleteGroupsRequest()
		req.Version = 2
		for _, a := range d.CmdArgs {
			req.Groups = append(req.Groups, a.Key)
		}
		var said string
		for _, g := range s.c.DeleteGroups(t.Context(), groups.Client{}, req).Groups {
			said += fmt.Sprintf("%s: %s\n", g.Group, word(g.ErrorCode))
		}
		return said
	case "wait":
		span, err := time.ParseDuration(d.CmdArgs[0].Key)
		if err != nil {
			t.Fatal(err)
		}
		<-time.After(span)
	case "full":
		s.free = 0
		<-time.After(2 * time.Second) // until it is noticed
	case "room":
		s.free = 1 << 40
		<-time.After(2 * time.Second)
	case "restart":
		s.close()
		s.open()
	case "crash":
		if err := s.crash(); err != nil {
			t.Fatal(err)
		}
	default:
		t.Fatalf("%s: unknown command %q", d.Pos, d.Cmd)
	}
	return ""
}

func verdict(err error) string {
	if err != nil {
		return "error: " + err.Error() + "\n"
	}
	return ""
}

// word is a code as Kafka names it.
func word(code int16) string {
	if code == 0 {
		return "ok"
	}
	return kerr.TypedErrorForCode(code).Message
}

func (s *script) configure(d *datadriven.TestData) {
	s.close()
	o, delay, forget := groups.Options{}, "", ""
	d.MaybeScanArgs(s.t, "members", &o.MembersMax)
	d.MaybeScanArgs(s.t, "groups", &o.GroupsMax)
	d.MaybeScanArgs(s.t, "member-bytes", &o.MemberBytesMax)
	d.MaybeScanArgs(s.t, "delay", &delay)
	d.MaybeScanArgs(s.t, "forget", &forget)
	o.InitialDelay, o.ForgetAfter = span(s.t, delay), span(s.t, forget)
	s.options = o
	s.open()
}

func span(t *testing.T, s string) time.Duration {
	if s == "" {
		return 0
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// later runs a request that may wait.
func (s *script) later(ask func() string) {
	go func() {
		said := ask()
		s.mu.Lock()
		s.answers = append(s.answers, said)
		s.mu.Unlock()
	}()
}

var uuids = regexp.MustCompile(`([A-Za-z0-9.]*)-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)

// named shows ids as the first name's, the second name's and so on.
func (s *script) named(said string) string {
	return uuids.ReplaceAllStringFunc(said, func(id string) string {
		if s.ids[id] == "" {
			name := uuids.FindStringSubmatch(id)[1]
			s.born[name]++
			s.ids[id] = fmt.Sprint(name, s.born[name])
		}
		return s.ids[id]
	})
}

func (s *script) member(name string) *client {
	m := s.members[name]
	if m == nil {
		m = &client{name: name, group: "g", kind: "consumer"}
		s.members[name] = m
	}
	return m
}

func args(d *datadriven.TestData, key string) []string {
	for _, a := range d.CmdArgs {
		if a.Key == key {
			return a.Vals
		}
	}
	return nil
}

func (s *script) join(d *datadriven.TestData) {
	m := s.member(d.CmdArgs[0].Key)
	req := kmsg.NewPtrJoinGroupRequest()
	v, session, rebalance, instance := 9, "10s", "1m", ""
	for arg, to := range map[string]any{"v": &v, "session": &session, "rebalance": &rebalance, "instance": &instance, "group": &m.group, "type": &m.kind} {
		d.MaybeScanArgs(s.t, arg, to)
	}
	if d.HasArg("anew") {
		m.id = ""
	}
	if instance != "" {
		m.instance = &instance
	}
	req.Version, req.Group, req.MemberID, req.InstanceID, req.ProtocolType = int16(v), m.group, m.id, m.instance, m.kind
	req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = int32(span(s.t, session).Milliseconds()), int32(span(s.t, rebalance).Milliseconds())
	protocols, topics := []string{"range"}, []string{"t"}
	if d.HasArg("protocols") {
		protocols = args(d, "protocols")
	}
	if d.HasArg("topics") {
		topics = args(d, "topics")
	}
	for _, p := range protocols {
		if p != "" {
			req.Protocols = append(req.Protocols, kmsg.JoinGroupRequestProtocol{Name: p, Metadata: consumes(topics...)})
		}
	}
	who := groups.Client{ID: m.name, Host: "/127.0.0.1"}
	s.later(func() string {
		r := s.c.JoinGroup(s.t.Context(), who, req)
		s.mu.Lock()
		defer s.mu.Unlock()
		if r.ErrorCode != 0 {
			if r.MemberID != "" {
				m.id = r.MemberID
			}
			return fmt.Sprintf("%s: %s id=%s\n", m.name, word(r.ErrorCode), r.MemberID)
		}
		m.id, m.generation, m.protocol = r.MemberID, r.Generation, *r.Protocol
		said := fmt.Sprintf("%s: joined id=%s generation=%d protocol=%s leader=%s", m.name, r.MemberID, r.Generation, *r.Protocol, r.LeaderID)
		for i, other := range r.Members {
			said += cmp.Or([]string{" members=", ","}[min(i, 1)]) + other.MemberID
			if other.InstanceID != nil {
				said += "(" + *other.InstanceID + ")"
			}
		}
		if r.SkipAssignment {
			said += " skip"
		}
		return said + "\n"
	})
}

// consumes is what a consumer says of itself, version 1.
func consumes(topics ...string) []byte {
	m := kmsg.NewConsumerMemberMetadata()
	m.Version, m.Topics = 1, topics
	return m.AppendTo(nil)
}

func (s *script) sync(d *datadriven.TestData) {
	m := s.member(d.CmdArgs[0].Key)
	req := kmsg.NewPtrSyncGroupRequest()
	v, generation, protocol := 5, int(m.generation), m.protocol
	d.MaybeScanArgs(s.t, "v", &v)
	d.MaybeScanArgs(s.t, "generation", &generation)
	d.MaybeScanArgs(s.t, "protocol", &protocol)
	req.Version, req.Group, req.MemberID, req.InstanceID, req.Generation = int16(v), m.group, m.id, m.instance, int32(generation)
	req.ProtocolType, req.Protocol = &m.kind, &protocol
	for _, a := range args(d, "assign") {
		name, what, _ := strings.Cut(a, "=")
		req.GroupAssignment = append(req.GroupAssignment, kmsg.SyncGroupRequestGroupAssignment{MemberID: s.member(name).id, MemberAssignment: []byte(what)})
	}
	s.later(func() string {
		r := s.c.SyncGroup(s.t.Context(), groups.Client{ID: m.name}, req)
		if r.ErrorCode != 0 {
			return fmt.Sprintf("%s: sync %s\n", m.name, word(r.ErrorCode))
		}
		return fmt.Sprintf("%s: assigned %q\n", m.name, r.MemberAssignment)
	})
}

func (s *script) beat(d *datadriven.TestData) string {
	m := s.member(d.CmdArgs[0].Key)
	req := kmsg.NewPtrHeartbeatRequest()
	generation := int(m.generation)
	d.MaybeScanArgs(s.t, "generation", &generation)
	req.Version, req.Group, req.MemberID, req.InstanceID, req.Generation = 4, m.group, m.id, m.instance, int32(generation)
	return word(s.c.Heartbeat(s.t.Context(), groups.Client{}, req).ErrorCode) + "\n"
}

func (s *script) leave(d *datadriven.TestData) string {
	req := kmsg.NewPtrLeaveGroupRequest()
	v, instance := 5, ""
	d.MaybeScanArgs(s.t, "v", &v)
	d.MaybeScanArgs(s.t, "instance", &instance)
	req.Version, req.Group = int16(v), "g"
	for _, a := range d.CmdArgs {
		if len(a.Vals) > 0 {
			continue
		}
		m := s.member(a.Key)
		req.Group, req.MemberID = m.group, m.id
		req.Members = append(req.Members, kmsg.LeaveGroupRequestMember{MemberID: m.id, InstanceID: m.instance})
	}
	if instance != "" {
		req.Members = append(req.Members, kmsg.LeaveGroupRequestMember{InstanceID: &instance})
	}
	r := s.c.LeaveGroup(s.t.Context(), groups.Client{}, req)
	said := word(r.ErrorCode)
	for _, m := range r.Members {
		said += fmt.Sprintf(" %s:%s", m.MemberID, word(m.ErrorCode))
	}
	return said + "\n"
}

func (s *script) commit(d *datadriven.TestData) {
	req := kmsg.NewPtrOffsetCommitRequest()
	m := &client{name: "none", group: "g", generation: -1}
	if name := d.CmdArgs[0].Key; name != "none" {
		m = s.member(name)
	}
	v, generation, metadata := 9, int(m.generation), ""
	d.MaybeScanArgs(s.t, "v", &v)
	d.MaybeScanArgs(s.t, "generation", &generation)
	d.MaybeScanArgs(s.t, "metadata", &metadata)
	d.MaybeScanArgs(s.t, "group", &m.group)
	if n, err := strconv.Atoi(metadata); err == nil { // so many
		metadata = strings.Repeat("m", n)
	}
	req.Version, req.Group, req.MemberID, req.InstanceID, req.Generation = int16(v), m.group, m.id, m.instance, int32(generation)
	for _, a := range args(d, "at") {
		at, offset, _ := strings.Cut(a, "=")
		o, err := strconv.ParseInt(offset, 10, 64)
		if err != nil {
			s.t.Fatal(d.Pos, err)
		}
		topic, partition := place(s.t, at)
		p := kmsg.NewOffsetCommitRequestTopicPartition()
		p.Partition, p.Offset, p.Metadata, p.LeaderEpoch = partition, o, &metadata, 7
		req.Topics = append(req.Topics, kmsg.OffsetCommitRequestTopic{Topic: topic, Partitions: []kmsg.OffsetCommitRequestTopicPartition{p}})
	}
	s.later(func() string {
		said := m.name + ": commit"
		for _, t := range s.c.OffsetCommit(s.t.Context(), groups.Client{ID: m.name}, req).Topics {
			for _, p := range t.Partitions {
				said += fmt.Sprintf(" %s/%d:%s", t.Topic, p.Partition, word(p.ErrorCode))
			}
		}
		return said + "\n"
	})
}

func place(t *testing.T, at string) (string, int32) {
	topic, partition, _ := strings.Cut(at, "/")
	p, err := strconv.Atoi(partition)
	if err != nil {
		t.Fatal(at, err)
	}
	return topic, int32(p)
}

func (s *script) fetch(d *datadriven.TestData) string {
	req, group, v := kmsg.NewPtrOffsetFetchRequest(), "g", 9
	d.MaybeScanArgs(s.t, "v", &v)
	d.MaybeScanArgs(s.t, "group", &group)
	req.Version, req.Group = int16(v), group
	one := kmsg.NewOffsetFetchRequestGroup()
	one.Group = group
	for _, a := range d.CmdArgs {
		if len(a.Vals) > 0 {
			continue
		}
		topic, partition := place(s.t, a.Key)
		req.Topics = append(req.Topics, kmsg.OffsetFetchRequestTopic{Topic: topic, Partitions: []int32{partition}})
		one.Topics = append(one.Topics, kmsg.OffsetFetchRequestGroupTopic{Topic: topic, Partitions: []int32{partition}})
	}
	if v >= 8 {
		req.Groups, req.Topics = append(req.Groups, one), nil
	}
	r := s.c.OffsetFetch(s.t.Context(), groups.Client{}, req)
	said := word(r.ErrorCode)
	for _, t := range r.Topics {
		for _, p := range t.Partitions {
			said += fmt.Sprintf(" %s/%d=%d", t.Topic, p.Partition, p.Offset)
		}
	}
	for _, g := range r.Groups {
		said = word(g.ErrorCode)
		for _, t := range g.Topics {
			for _, p := range t.Partitions {
				said += fmt.Sprintf(" %s/%d=%d", t.Topic, p.Partition, p.Offset)
				if n := len(*p.Metadata); n > 9 {
					said += fmt.Sprintf(" and %d bytes", n)
				} else if n > 0 {
					said += fmt.Sprintf(" epoch=%d %q", p.LeaderEpoch, *p.Metadata)
				}
			}
		}
	}
	return said + "\n"
}

func (s *script) forget(d *datadriven.TestData) string {
	req := kmsg.NewPtrOffsetDeleteRequest()
	req.Group = "g"
	d.MaybeScanArgs(s.t, "group", &req.Group)
	for _, a := range d.CmdArgs {
		if len(a.Vals) > 0 {
			continue
		}
		topic, partition := place(s.t, a.Key)
		req.Topics = append(req.Topics, kmsg.OffsetDeleteRequestTopic{Topic: topic, Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{Partition: partition}}})
	}
	r := s.c.OffsetDelete(s.t.Context(), groups.Client{}, req)
	said := word(r.ErrorCode)
	for _, t := range r.Topics {
		for _, p := range t.Partitions {
			said += fmt.Sprintf(" %s/%d:%s", t.Topic, p.Partition, word(p.ErrorCode))
		}
	}
	return said + "\n"
}

func (s *script) describe(d *datadriven.TestData) string {
	req, v := kmsg.NewPtrDescribeGroupsRequest(), 6
	d.MaybeScanArgs(s.t, "v", &v)
	req.Version = int16(v)
	for _, a := range d.CmdArgs {
		if len(a.Vals) == 0 {
			req.Groups = append(req.Groups, a.Key)
		}
	}
	var said string
	for _, g := range s.c.DescribeGroups(s.t.Context(), groups.Client{}, req).Groups {
		said += fmt.Sprintf("%s: %s", g.Group, g.State)
		if g.ErrorCode != 0 {
			said += fmt.Sprintf(" %s %q", word(g.ErrorCode), *g.ErrorMessage)
		}
		if g.ProtocolType != "" {
			said += " " + g.ProtocolType
		}
		if g.Protocol != "" {
			said += "/" + g.Protocol
		}
		for _, m := range g.Members {
			said += fmt.Sprintf(" %s@%s=%q", m.MemberID, m.ClientHost, m.MemberAssignment)
		}
		said += "\n"
	}
	return said
}

func (s *script) list(d *datadriven.TestData) string {
	req := kmsg.NewPtrListGroupsRequest()
	req.Version, req.StatesFilter, req.TypesFilter = 5, args(d, "states"), args(d, "types")
	var said string
	for _, g := range s.c.ListGroups(s.t.Context(), groups.Client{}, req).Groups {
		said += fmt.Sprintf("%s %s %q %s\n", g.Group, g.GroupState, g.ProtocolType, g.GroupType)
	}
	return said
}
