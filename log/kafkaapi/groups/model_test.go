package groups_test

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/kafkaapi/groups"
	"github.com/remitlog/remit/log/logtest"
)

var seeds = flag.Int("seeds", 40, "how many random histories")

// TestModel lets members join, sync, commit, leave, die and come back at random, over a disk that loses its power at random, also while
// it writes, and holds what they were told to J1, J2, J3 and J4.
func TestModel(t *testing.T) {
	told := map[string]int{}
	for seed := range uint64(*seeds) {
		runtime.GC()
		runtime.GC()
		synctest.Test(t, func(t *testing.T) {
			m := newModel(t, seed)
			m.run()
			for k, n := range m.told {
				told[k] += n
			}
		})
		if t.Failed() {
			t.Fatalf("go test ./log/kafkaapi/groups -run TestModel -seeds %d # the last of them", seed+1)
		}
	}
	t.Log(told)
	for _, what := range []string{"generations", "assignments", "commits", "cuts while writing", "went on after a cut", "took over"} {
		if told[what] == 0 {
			t.Errorf("%s: none, so nothing was shown", what)
		}
	}
}

const (
	modelPartitions = 6
	modelClients    = 5
	modelSteps      = 400
)

// player is a client of the model: what it is, and what it was told.
type player struct {
	name       string
	instance   *string
	id         string
	generation int32
	leads      bool
	members    []string // of its generation, if it leads
	names      map[string]string
	doing      string // "", "join", "sync", "in"
	waits      bool   // for an answer
	asked      int    // how often it has asked: an answer to an earlier request is not for it
	commits    bool   // waits for one
	owned      []int32
}

type model struct {
	world
	t    *testing.T
	rng  *rand.Rand
	disk *logtest.Disk
	told map[string]int
	life int // grows with every cut: answers of an earlier life are not looked at

	players []*player
	answers chan func()

	// The auditor's.
	owners    map[int32]map[int32]string // generation, partition: who was told that it owns it
	formed    map[int32]string           // generation: its members
	toldIn    map[int32]int              // generation: the life in which somebody was first told of it
	highest   int32                      // generation that anybody was told of in this life
	next      map[int32]int64            // what will be committed next
	tried     map[int32]int64
	committed map[int32]int64
}

func newModel(t *testing.T, seed uint64) *model {
	m := &model{
		t: t, rng: rand.New(rand.NewPCG(seed, 11)), disk: &logtest.Disk{}, told: map[string]int{}, answers: make(chan func(), 1000),
		owners: map[int32]map[int32]string{}, formed: map[int32]string{}, toldIn: map[int32]int{}, next: map[int32]int64{}, tried: map[int32]int64{}, committed: map[int32]int64{},
	}
	m.fatal = func(err error) { t.Errorf("fatal: %v", err) }
	m.fs = vfs.NewCrashableMem()
	m.free = 1 << 40
	m.wrap = m.disk.FS
	m.options.InitialDelay = []time.Duration{-1, time.Second}[m.rng.IntN(2)]
	for i := range modelClients {
		p := &player{name: fmt.Sprint("c", i)}
		if i < 2 {
			instance := fmt.Sprint("i", i)
			p.instance = &instance
		}
		m.players = append(m.players, p)
	}
	if err := m.open(); err != nil {
		t.Fatal(err)
	}
	if err := m.log.CreateTopic(t.Context(), log.TopicConfig{Name: "t", Partitions: modelPartitions}); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *model) run() {
	for range modelSteps {
		switch n := m.rng.IntN(100); {
		case n < 1:
			m.cut(false)
		case n < 3:
			m.cut(true)
		case n < 8:
			m.hold()()
		case n < 9:
			if err := m.close(); err != nil {
				m.t.Fatal(err)
			}
			m.settle()
			m.life++
			m.reopen()
		case n < 20:
			<-time.After(time.Duration(m.rng.IntN(4000)) * time.Millisecond)
		default:
			m.act(m.players[m.rng.IntN(len(m.players))])
		}
		m.settle()
		if m.t.Failed() {
			break
		}
	}
	if err := m.close(); err != nil {
		m.t.Error(err)
	}
	m.settle()
}

// settle waits until nothing moves but time, and takes the answers.
func (m *model) settle() {
	for {
		synctest.Wait()
		select {
		case f := <-m.answers:
			f()
		default:
			return
		}
	}
}

// ask runs a request, and heard with its answer unless the power went meanwhile.
func ask[R any](m *model, request func() R, heard func(R)) {
	life := m.life
	go func() {
		r := request()
		m.answers <- func() {
			if m.life == life {
				heard(r)
			}
		}
	}()
}

// hold lets requests come while the syncs of earlier ones do not return, until release.
func (m *model) hold() (release func()) {
	_, release = m.disk.HoldSyncs()
	for range 1 + m.rng.IntN(8) {
		m.act(m.players[m.rng.IntN(len(m.players))])
		m.settle() // what is answered now rests on what is durable
	}
	return release
}

// cut takes the power away; while writing: with requests of which the syncs have not returned.
func (m *model) cut(writing bool) {
	release := func() {}
	if writing {
		release = m.hold()
		m.told["cuts while writing"]++
	}
	left := m.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: m.rng.IntN(101), RNG: m.rng})
	m.life++
	release()
	if err := m.close(); err != nil {
		m.t.Fatal(err)
	}
	m.settle()
	m.fs = left
	m.reopen()
	for _, p := range m.players {
		p.waits, p.commits = false, false
		if p.doing == "sync" || p.doing == "join" { // the connection is gone; it asks again
			p.doing = "join"
		}
	}
}

func (m *model) reopen() {
	if err := m.open(); err != nil {
		m.t.Fatal(err)
	}
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Version, req.Groups = 9, []kmsg.OffsetFetchRequestGroup{{Group: "g"}}
	got := map[int32]int64{}
	m.highest = 0 // a generation that was stable goes on; one that was told and not assigned does not
	for _, topic := range m.c.OffsetFetch(m.t.Context(), groups.Client{}, req).Groups[0].Topics {
		for _, p := range topic.Partitions {
			got[p.Partition] = p.Offset
		}
	}
	for p := range int32(modelPartitions) {
		if got[p] < m.committed[p] || got[p] > m.tried[p] {
			m.t.Errorf("J1: partition %d stands at %d; %d was acknowledged, %d was tried", p, got[p], m.committed[p], m.tried[p])
		}
		m.committed[p] = got[p]
	}
	for _, p := range m.players {
		if p.doing != "in" || p.waits {
			continue
		}
		beat := kmsg.NewPtrHeartbeatRequest()
		beat.Version, beat.Group, beat.MemberID, beat.InstanceID, beat.Generation = 4, "g", p.id, p.instance, p.generation
		if m.c.Heartbeat(m.t.Context(), groups.Client{}, beat).ErrorCode == 0 {
			m.told["went on after a cut"]++
		}
	}
}

func (m *model) act(p *player) {
	n := m.rng.IntN(100)
	switch {
	case n < 3: // it dies, and knows nothing
		*p = player{name: p.name, instance: p.instance}
	case p.waits:
		switch {
		case n < 15: // it gives up, and joins again
			p.waits, p.doing = false, "join"
		case n < 40 && p.doing == "sync": // it gives up, and asks again; a leader assigns otherwise
			m.sync(p)
		}
	case p.doing == "sync":
		m.sync(p)
	case p.doing != "in":
		m.join(p)
	case n < 8:
		m.leave(p)
	case n < 13: // topics have changed, it thinks
		m.join(p)
	case n < 60 && len(p.owned) > 0 && !p.commits:
		m.commit(p)
	default:
		m.beat(p)
	}
}

func (m *model) who(p *player) string {
	if p.instance != nil {
		return *p.instance
	}
	return p.id
}

func (m *model) join(p *player) {
	req := kmsg.NewPtrJoinGroupRequest()
	req.Version, req.Group, req.MemberID, req.InstanceID = int16(5+m.rng.IntN(5)), "g", p.id, p.instance
	req.SessionTimeoutMillis, req.RebalanceTimeoutMillis, req.ProtocolType = 10_000, 8_000, "consumer"
	req.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: consumes("t")}}
	if m.rng.IntN(10) == 0 {
		req.Protocols = append(req.Protocols, kmsg.JoinGroupRequestProtocol{Name: "other", Metadata: consumes("t")})
	}
	p.waits, p.doing = true, "join"
	p.asked++
	asked := p.asked
	ask(m, func() *kmsg.JoinGroupResponse {
		return m.c.JoinGroup(m.t.Context(), groups.Client{ID: p.name}, req)
	}, func(r *kmsg.JoinGroupResponse) {
		if !p.waits || p.doing != "join" || p.asked != asked {
			return // it has died, or asked again
		}
		p.waits = false
		switch word(r.ErrorCode) {
		case "ok":
		case "MEMBER_ID_REQUIRED":
			p.id = r.MemberID
			return
		case "UNKNOWN_MEMBER_ID", "FENCED_INSTANCE_ID":
			p.id = ""
			return
		case "COORDINATOR_NOT_AVAILABLE", "REBALANCE_IN_PROGRESS":
			return
		default:
			m.t.Errorf("join: %s", word(r.ErrorCode))
			return
		}
		took := p.instance != nil && req.MemberID == "" && r.Generation == m.highest && len(m.owners[r.Generation]) > 0
		if took {
			m.told["took over"]++
		}
		p.id, p.generation, p.doing, p.owned = r.MemberID, r.Generation, "sync", nil
		p.leads, p.members, p.names = r.LeaderID == r.MemberID && !r.SkipAssignment, nil, map[string]string{}
		first, ok := m.toldIn[r.Generation]
		if !ok {
			m.toldIn[r.Generation], first = m.life, m.life
		}
		if r.Generation < m.highest {
			m.t.Errorf("J3: %s was told of generation %d, after %d", p.name, r.Generation, m.highest)
		}
		m.highest = max(m.highest, r.Generation)
		if !p.leads {
			return
		}
		var names []string
		for _, other := range r.Members {
			p.members = append(p.members, other.MemberID)
			name := other.MemberID
			if other.InstanceID != nil {
				name = *other.InstanceID
			}
			p.names[other.MemberID] = name
			names = append(names, name)
		}
		slices.Sort(names)
		was, again := m.formed[r.Generation]
		if again && was != strings.Join(names, " ") {
			m.t.Errorf("J3: generation %d has the members %q, and had %q", r.Generation, names, was)
		}
		if !again && first != m.life {
			m.t.Errorf("J3: generation %d was given to %q, and told to somebody before a cut", r.Generation, names)
		}
		m.formed[r.Generation] = strings.Join(names, " ")
		m.told["generations"]++
	})
}

func (m *model) sync(p *player) {
	req := kmsg.NewPtrSyncGroupRequest()
	kind, protocol := "consumer", "range"
	req.Version, req.Group, req.MemberID, req.InstanceID, req.Generation, req.ProtocolType = 5, "g", p.id, p.instance, p.generation, &kind
	req.Protocol = &protocol
	if p.leads { // at random, and another one each time it asks
		of := map[string][]byte{}
		for i := range byte(modelPartitions) {
			to := p.members[m.rng.IntN(len(p.members))]
			of[to] = append(of[to], i)
		}
		for _, id := range slices.Sorted(maps.Keys(of)) {
			req.GroupAssignment = append(req.GroupAssignment, kmsg.SyncGroupRequestGroupAssignment{MemberID: id, MemberAssignment: of[id]})
		}
	}
	p.waits = true
	p.asked++
	asked, generation, who := p.asked, p.generation, m.who(p)
	ask(m, func() *kmsg.SyncGroupResponse {
		return m.c.SyncGroup(m.t.Context(), groups.Client{ID: p.name}, req)
	}, func(r *kmsg.SyncGroupResponse) {
		if r.ErrorCode == 0 {
			m.assigned(generation, who, r.MemberAssignment)
		}
		if !p.waits || p.doing != "sync" || p.generation != generation || p.asked != asked {
			return
		}
		p.waits = false
		if r.ErrorCode != 0 {
			m.out(p, r.ErrorCode)
			return
		}
		p.doing, p.owned = "in", nil
		for _, b := range r.MemberAssignment {
			p.owned = append(p.owned, int32(b))
		}
	})
}

// assigned is told to the auditor when somebody is told that it owns partitions.
func (m *model) assigned(generation int32, who string, partitions []byte) {
	m.told["assignments"]++
	if m.owners[generation] == nil {
		m.owners[generation] = map[int32]string{}
	}
	for p, other := range m.owners[generation] {
		if other == who && !bytes.Contains(partitions, []byte{byte(p)}) {
			m.t.Errorf("J2: %s owned partition %d in generation %d, and now does not", who, p, generation)
		}
	}
	for _, b := range partitions {
		if other, ok := m.owners[generation][int32(b)]; ok && other != who {
			m.t.Errorf("J2: %s and %s own partition %d in generation %d", other, who, b, generation)
		}
		m.owners[generation][int32(b)] = who
	}
}

// out is what a client does that is refused: it joins again, without its id if that is not known.
func (m *model) out(p *player, code int16) {
	switch word(code) {
	case "UNKNOWN_MEMBER_ID", "FENCED_INSTANCE_ID":
		p.id = ""
	case "REBALANCE_IN_PROGRESS", "ILLEGAL_GENERATION":
	case "COORDINATOR_NOT_AVAILABLE":
		return
	default:
		m.t.Errorf("refused: %s", word(code))
	}
	p.doing = "join"
}

func (m *model) beat(p *player) {
	req := kmsg.NewPtrHeartbeatRequest()
	req.Version, req.Group, req.MemberID, req.InstanceID, req.Generation = 4, "g", p.id, p.instance, p.generation
	r := m.c.Heartbeat(m.t.Context(), groups.Client{}, req)
	if r.ErrorCode != 0 {
		m.out(p, r.ErrorCode)
	}
}

func (m *model) leave(p *player) {
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Version, req.Group, req.Members = 5, "g", []kmsg.LeaveGroupRequestMember{{MemberID: p.id, InstanceID: p.instance}}
	*p = player{name: p.name, instance: p.instance}
	ask(m, func() *kmsg.LeaveGroupResponse { return m.c.LeaveGroup(m.t.Context(), groups.Client{}, req) }, func(*kmsg.LeaveGroupResponse) {})
}

func (m *model) commit(p *player) {
	at := p.owned[m.rng.IntN(len(p.owned))]
	m.next[at]++
	offset := m.next[at]
	m.tried[at] = offset
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Version, req.Group, req.MemberID, req.InstanceID, req.Generation = 9, "g", p.id, p.instance, p.generation
	part := kmsg.NewOffsetCommitRequestTopicPartition()
	part.Partition, part.Offset = at, offset
	req.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "t", Partitions: []kmsg.OffsetCommitRequestTopicPartition{part}}}
	p.commits = true
	generation, id, highest := p.generation, p.id, m.highest
	ask(m, func() *kmsg.OffsetCommitResponse {
		return m.c.OffsetCommit(m.t.Context(), groups.Client{}, req)
	}, func(r *kmsg.OffsetCommitResponse) {
		if p.id == id {
			p.commits = false
		}
		code := r.Topics[0].Partitions[0].ErrorCode
		if code == 0 {
			m.told["commits"]++
			m.committed[at] = max(m.committed[at], offset)
			if generation < highest {
				m.t.Errorf("J2: a commit of generation %d was taken when %d was told", generation, highest)
			}
		} else if p.id == id && p.generation == generation && p.doing == "in" && !p.waits {
			m.out(p, code)
		}
	})
}
