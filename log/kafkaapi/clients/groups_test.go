package clients_test

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/remitlog/remit/log/kafka/kafkatest"
)

// TestGroupsAsApacheKafka asks a real Apache Kafka and remit the same about groups, request by request and in several versions, and compares
// what they answer.
func TestGroupsAsApacheKafka(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts Apache Kafka")
	}
	apache := kafkatest.New(t).Addr
	theirs, ours := groupTranscript(t, apache), groupTranscript(t, dev(t).Kafka)
	if len(theirs) != len(ours) {
		t.Fatalf("%d answers, and %d", len(ours), len(theirs))
	}
	for i := range theirs {
		if ours[i] != theirs[i] {
			t.Errorf("\n  remit        %s\n  Apache Kafka %s", ours[i], theirs[i])
		}
	}
	t.Logf("%d answers compared", len(theirs))
}

// asker asks one server, each request on a connection of its own if it may wait.
type asker struct {
	t       *testing.T
	address string
	said    []string
	ids     []string // as they were first told
}

// ask sends a request in a version and returns the answer.
func ask[R kmsg.Response](a *asker, req kmsg.Request, version int16) R {
	versions := kversion.Stable()
	versions.SetMaxKeyVersion(req.Key(), version)
	c, err := kgo.NewClient(kgo.SeedBrokers(a.address), kgo.ClientID("client"), kgo.MaxVersions(versions), kgo.DisableClientMetrics())
	if err != nil {
		a.t.Error(err)
		return req.ResponseKind().(R)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(a.t.Context(), patience)
	defer cancel()
	if err := c.Ping(ctx); err != nil {
		a.t.Error(err)
		return req.ResponseKind().(R)
	}
	r, err := c.SeedBrokers()[0].Request(ctx, req)
	if err != nil {
		a.t.Errorf("%s %d: %v", kmsg.NameForKey(req.Key()), version, err)
		return req.ResponseKind().(R)
	}
	return r.(R)
}

// later asks what may wait.
func later[R kmsg.Response](a *asker, req kmsg.Request, version int16) <-chan R {
	answer := make(chan R, 1)
	go func() { answer <- ask[R](a, req, version) }()
	return answer
}

var memberID = regexp.MustCompile(`[A-Za-z]+[0-9]*-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)

// say notes an answer. Ids are shown by the order in which they were told.
func (a *asker) say(what string, parts ...any) {
	text := memberID.ReplaceAllStringFunc(strings.TrimSpace(fmt.Sprintln(parts...)), func(id string) string {
		i := slices.Index(a.ids, id)
		if i < 0 {
			i = len(a.ids)
			a.ids = append(a.ids, id)
		}
		return fmt.Sprint("#", i)
	})
	a.said = append(a.said, what+": "+text)
}

func code(c int16) string {
	if err := kerr.TypedErrorForCode(c); err != nil {
		return err.Message
	}
	return "ok"
}

func ptr[T any](v T) *T { return &v }

func (a *asker) join(group, member string, instance *string, change ...func(*kmsg.JoinGroupRequest)) *kmsg.JoinGroupRequest {
	req := kmsg.NewPtrJoinGroupRequest()
	req.Group, req.MemberID, req.InstanceID, req.ProtocolType = group, member, instance, "consumer"
	req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = 120_000, 120_000
	m := kmsg.NewConsumerMemberMetadata()
	m.Version, m.Topics = 1, []string{"t"}
	req.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: m.AppendTo(nil)}}
	for _, c := range change {
		c(req)
	}
	return req
}

func (a *asker) joined(what string, r *kmsg.JoinGroupResponse) *kmsg.JoinGroupResponse {
	text := fmt.Sprintf("%s generation=%d id=%s leader=%s skip=%t", code(r.ErrorCode), r.Generation, r.MemberID, r.LeaderID, r.SkipAssignment)
	for _, s := range []*string{r.ProtocolType, r.Protocol} {
		text += " " + orNone(s)
	}
	var members []string
	for _, m := range r.Members {
		members = append(members, fmt.Sprintf("%s(%s) %d bytes", m.MemberID, orNone(m.InstanceID), len(m.ProtocolMetadata)))
	}
	slices.Sort(members) // Apache Kafka has no order
	a.say(what, text, len(members))
	for _, m := range members {
		if strings.Contains(text, "leader="+strings.SplitN(m, "(", 2)[0]) {
			a.say(what+", of the leader", m)
		}
	}
	return r
}

func orNone(s *string) string {
	if s == nil {
		return "none"
	}
	return fmt.Sprintf("%q", *s)
}

func (a *asker) syncing(group, member string, instance *string, generation int32, assign ...string) *kmsg.SyncGroupRequest {
	req := kmsg.NewPtrSyncGroupRequest()
	req.Group, req.MemberID, req.InstanceID, req.Generation = group, member, instance, generation
	req.ProtocolType, req.Protocol = ptr("consumer"), ptr("range")
	for _, id := range assign {
		req.GroupAssignment = append(req.GroupAssignment, kmsg.SyncGroupRequestGroupAssignment{MemberID: id, MemberAssignment: []byte("for one of them")})
	}
	return req
}

func (a *asker) synced(what string, r *kmsg.SyncGroupResponse) {
	a.say(what, code(r.ErrorCode), orNone(r.ProtocolType), orNone(r.Protocol), string(r.MemberAssignment))
}

func (a *asker) beat(what, group, member string, instance *string, generation int32) {
	req := kmsg.NewPtrHeartbeatRequest()
	req.Group, req.MemberID, req.InstanceID, req.Generation = group, member, instance, generation
	a.say(what, code(ask[*kmsg.HeartbeatResponse](a, req, 4).ErrorCode))
}

func (a *asker) leave(what, group string, version int16, members ...kmsg.LeaveGroupRequestMember) {
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group, req.Members = group, members
	if version < 3 {
		req.MemberID = members[0].MemberID
	}
	r := ask[*kmsg.LeaveGroupResponse](a, req, version)
	text := code(r.ErrorCode)
	for _, m := range r.Members {
		text += fmt.Sprintf(" %s(%s)=%s", m.MemberID, orNone(m.InstanceID), code(m.ErrorCode))
	}
	a.say(what, text)
}

func (a *asker) commit(what, group, member string, instance *string, generation int32, version int16) {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.MemberID, req.InstanceID, req.Generation = group, member, instance, generation
	for topic, partitions := range map[string][]int32{"t": {0, 1, 9}} {
		t := kmsg.NewOffsetCommitRequestTopic()
		t.Topic = topic
		for _, p := range partitions {
			to := kmsg.NewOffsetCommitRequestTopicPartition()
			to.Partition, to.Offset, to.LeaderEpoch, to.Metadata = p, int64(p)+3, 0, ptr("note")
			t.Partitions = append(t.Partitions, to)
		}
		req.Topics = append(req.Topics, t)
	}
	none := kmsg.NewOffsetCommitRequestTopic()
	none.Topic = "none"
	none.Partitions = append(none.Partitions, kmsg.NewOffsetCommitRequestTopicPartition())
	req.Topics = append(req.Topics, none)
	var text []string
	for _, t := range ask[*kmsg.OffsetCommitResponse](a, req, version).Topics {
		for _, p := range t.Partitions {
			text = append(text, fmt.Sprintf("%s/%d=%s", t.Topic, p.Partition, code(p.ErrorCode)))
		}
	}
	slices.Sort(text)
	a.say(what, text)
}

// fetch asks for two partitions, or for all.
func (a *asker) fetch(what, group string, version int16, all bool) {
	req := kmsg.NewPtrOffsetFetchRequest()
	one := kmsg.NewOffsetFetchRequestGroup()
	req.Group, one.Group = group, group
	if !all {
		req.Topics = []kmsg.OffsetFetchRequestTopic{{Topic: "t", Partitions: []int32{0, 3}}, {Topic: "none", Partitions: []int32{0}}}
		one.Topics = []kmsg.OffsetFetchRequestGroupTopic{{Topic: "t", Partitions: []int32{0, 3}}, {Topic: "none", Partitions: []int32{0}}}
	}
	if version >= 8 {
		req.Groups = []kmsg.OffsetFetchRequestGroup{one}
	}
	r := ask[*kmsg.OffsetFetchResponse](a, req, version)
	var text []string
	for _, t := range r.Topics {
		for _, p := range t.Partitions {
			text = append(text, fmt.Sprintf("%s/%d=%d %d %s %s", t.Topic, p.Partition, p.Offset, p.LeaderEpoch, orNone(p.Metadata), code(p.ErrorCode)))
		}
	}
	for _, g := range r.Groups {
		text = append(text, g.Group+" "+code(g.ErrorCode))
		for _, t := range g.Topics {
			for _, p := range t.Partitions {
				text = append(text, fmt.Sprintf("%s/%d=%d %d %s %s", t.Topic, p.Partition, p.Offset, p.LeaderEpoch, orNone(p.Metadata), code(p.ErrorCode)))
			}
		}
	}
	slices.Sort(text)
	a.say(what, code(r.ErrorCode), text)
}

func (a *asker) describe(what string, version int16, groups ...string) {
	req := kmsg.NewPtrDescribeGroupsRequest()
	req.Groups, req.IncludeAuthorizedOperations = groups, version%2 == 0
	for _, g := range ask[*kmsg.DescribeGroupsResponse](a, req, version).Groups {
		text := fmt.Sprintf("%s %s %s %q %q %q operations=%d", g.Group, code(g.ErrorCode), orNone(g.ErrorMessage), g.State, g.ProtocolType, g.Protocol, g.AuthorizedOperations)
		var members []string
		for _, m := range g.Members {
			members = append(members, fmt.Sprintf("(%s) %s %s %d bytes %q", orNone(m.InstanceID), m.ClientID, m.ClientHost, len(m.ProtocolMetadata), m.MemberAssignment))
		}
		slices.Sort(members)
		a.say(what, text, members)
	}
}

func (a *asker) list(what string, version int16, states, types []string) {
	req := kmsg.NewPtrListGroupsRequest()
	req.StatesFilter, req.TypesFilter = states, types
	r := ask[*kmsg.ListGroupsResponse](a, req, version)
	var text []string
	for _, g := range r.Groups {
		if g.Group == "refused" { // Apache Kafka keeps a group of which every join was refused
			continue
		}
		text = append(text, fmt.Sprintf("%s %q %q %q", g.Group, g.ProtocolType, g.GroupState, g.GroupType))
	}
	slices.Sort(text)
	a.say(what, code(r.ErrorCode), text)
}

func (a *asker) forget(what, group string, topics ...string) {
	req := kmsg.NewPtrOffsetDeleteRequest()
	req.Group = group
	for _, topic := range topics {
		req.Topics = append(req.Topics, kmsg.OffsetDeleteRequestTopic{Topic: topic, Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{Partition: 0}}})
	}
	r := ask[*kmsg.OffsetDeleteResponse](a, req, 0)
	var text []string
	for _, t := range r.Topics {
		for _, p := range t.Partitions {
			text = append(text, fmt.Sprintf("%s/%d=%s", t.Topic, p.Partition, code(p.ErrorCode)))
		}
	}
	slices.Sort(text)
	a.say(what, code(r.ErrorCode), text)
}

func (a *asker) remove(what string, groups ...string) {
	req := kmsg.NewPtrDeleteGroupsRequest()
	req.Groups = groups
	var text []string
	for _, g := range ask[*kmsg.DeleteGroupsResponse](a, req, 2).Groups {
		text = append(text, g.Group+"="+code(g.ErrorCode))
	}
	slices.Sort(text)
	a.say(what, text)
}

// groupTranscript is what a server answers.
func groupTranscript(t *testing.T, address string) []string {
	a := &asker{t: t, address: address}
	for _, topic := range []string{"t", "u"} {
		if _, err := admin(t, address).CreateTopic(t.Context(), 4, 1, nil, topic); err != nil {
			t.Fatal(err)
		}
	}
	a.coordinated("nothing", "alone", "refused", "g", "s")
	a.nobody()
	a.refusals()
	a.rebalance()
	a.static()
	return a.said
}

// coordinated waits until the server coordinates these groups: Apache Kafka first makes a topic for them.
func (a *asker) coordinated(groups ...string) {
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	client := admin(a.t, a.address)
	for _, g := range groups {
		req := kmsg.NewPtrDescribeGroupsRequest()
		req.Groups = []string{g}
		enough := time.After(patience)
		for client.FindGroupCoordinators(a.t.Context(), g).Error() != nil || ask[*kmsg.DescribeGroupsResponse](a, req, 5).Groups[0].ErrorCode != 0 {
			select {
			case <-look.C:
			case <-enough:
				a.t.Fatalf("nobody coordinates %s", g)
			}
		}
	}
}

// nobody: groups that are not there, and groups of offsets alone.
func (a *asker) nobody() {
	for _, v := range []int16{2, 5, 6} {
		a.describe(fmt.Sprint("describe nothing ", v), v, "nothing")
	}
	a.beat("beat in nothing", "nothing", "me", nil, 1)
	a.synced("sync in nothing", ask[*kmsg.SyncGroupResponse](a, a.syncing("nothing", "me", nil, 1), 5))
	a.joined("join nothing with an id", ask[*kmsg.JoinGroupResponse](a, a.join("nothing", "me", nil), 9))
	a.leave("leave nothing", "nothing", 2, kmsg.LeaveGroupRequestMember{MemberID: "me"})
	a.leave("leave nothing", "nothing", 5, kmsg.LeaveGroupRequestMember{MemberID: "me"}, kmsg.LeaveGroupRequestMember{InstanceID: ptr("i")})
	for _, v := range []int16{2, 8, 9} {
		a.commit(fmt.Sprint("commit to nothing ", v), "nothing", "me", nil, 3, v)
	}
	for _, v := range []int16{1, 2, 7, 8, 9} {
		a.fetch(fmt.Sprint("fetch of nothing ", v), "nothing", v, false)
	}
	a.fetch("fetch all of nothing", "nothing", 9, true)
	a.forget("delete offsets of nothing", "nothing", "t")
	a.remove("delete nothing", "nothing")

	for _, v := range []int16{2, 6, 9} {
		a.commit(fmt.Sprint("commit alone ", v), "alone", "", nil, -1, v)
		a.fetch(fmt.Sprint("fetch ", v), "alone", v, false)
		a.fetch(fmt.Sprint("fetch all ", v), "alone", v, true)
	}
	a.describe("describe offsets alone", 6, "alone")
	a.list("list offsets alone", 5, nil, nil)
	a.list("list 3", 3, nil, nil)
	a.commit("commit with an id to offsets alone", "alone", "me", nil, 3, 9)
	a.joined("join offsets alone with an id", ask[*kmsg.JoinGroupResponse](a, a.join("alone", "me", nil), 9))
	a.beat("beat in offsets alone", "alone", "me", nil, 0)
	a.forget("delete offsets", "alone", "t", "u", "none")
	a.fetch("fetch what is left", "alone", 9, true)
	a.remove("delete", "alone")
	a.fetch("fetch what was deleted", "alone", 9, true)
}

// refusals: joins that are refused for themselves.
func (a *asker) refusals() {
	for what, change := range map[string]func(*kmsg.JoinGroupRequest){
		"no group":     func(r *kmsg.JoinGroupRequest) { r.Group = "" },
		"no session":   func(r *kmsg.JoinGroupRequest) { r.SessionTimeoutMillis = 0 },
		"long session": func(r *kmsg.JoinGroupRequest) { r.SessionTimeoutMillis = 1 << 30 },
		"no protocols": func(r *kmsg.JoinGroupRequest) { r.Protocols = nil },
		"no type":      func(r *kmsg.JoinGroupRequest) { r.ProtocolType = "" },
	} {
		for _, v := range []int16{2, 5, 9} {
			a.joined(fmt.Sprintf("%s, %d", what, v), ask[*kmsg.JoinGroupResponse](a, a.join("refused", "", nil, change), v))
		}
	}
	slices.Sort(a.said)
	nameless := a.syncing("refused", "me", nil, 1)
	nameless.ProtocolType = nil
	a.synced("sync without a type", ask[*kmsg.SyncGroupResponse](a, nameless, 5))
	a.synced("sync without a group", ask[*kmsg.SyncGroupResponse](a, a.syncing("", "me", nil, 1), 5))
	a.beat("beat without a group", "", "me", nil, 1)
	a.leave("leave without a group", "", 5, kmsg.LeaveGroupRequestMember{MemberID: "me"})
}

// rebalance: two members come, one changes, one goes.
func (a *asker) rebalance() {
	join := func(id string, v int16, change ...func(*kmsg.JoinGroupRequest)) <-chan *kmsg.JoinGroupResponse {
		return later[*kmsg.JoinGroupResponse](a, a.join("g", id, nil, change...), v)
	}
	first := a.joined("the first asks", <-join("", 9)).MemberID
	a.describe("describe an empty group", 6, "g")
	one := a.joined("the first joins", <-join(first, 9))
	a.describe("describe before the sync", 6, "g")
	a.commit("commit before the sync", "g", first, nil, one.Generation, 9)
	a.beat("beat before the sync", "g", first, nil, one.Generation)
	a.joined("the first joins again before the sync", <-join(first, 9))
	a.synced("sync of another generation", ask[*kmsg.SyncGroupResponse](a, a.syncing("g", first, nil, 9), 5))
	other := a.syncing("g", first, nil, one.Generation)
	other.Protocol = ptr("other")
	a.synced("sync of another protocol", ask[*kmsg.SyncGroupResponse](a, other, 5))
	a.synced("the first syncs", ask[*kmsg.SyncGroupResponse](a, a.syncing("g", first, nil, one.Generation, first), 5))
	a.synced("the first syncs again", ask[*kmsg.SyncGroupResponse](a, a.syncing("g", first, nil, one.Generation), 3))
	for _, v := range []int16{0, 5, 6} {
		a.describe(fmt.Sprint("describe a stable group ", v), v, "g")
	}
	for what, filter := range map[string][2][]string{
		"all": {}, "stable": {{"stable"}, nil}, "empty": {{"Empty"}, nil}, "classic": {nil, {"classic"}}, "consumer": {nil, {"Consumer"}},
		"no such state": {{"No such"}, nil},
	} {
		a.list("list "+what, 5, filter[0], filter[1])
	}
	slices.Sort(a.said)
	a.beat("beat", "g", first, nil, one.Generation)
	a.beat("beat of another generation", "g", first, nil, 7)
	a.beat("beat of nobody", "g", "nobody", nil, one.Generation)
	a.beat("beat with an instance", "g", first, ptr("i"), one.Generation)
	a.commit("commit", "g", first, nil, one.Generation, 9)
	a.commit("commit of another generation", "g", first, nil, 0, 9)
	a.commit("commit of no generation", "g", first, nil, -1, 9)
	a.commit("commit of nobody", "g", "nobody", nil, one.Generation, 9)
	a.commit("commit alone beside members", "g", "", nil, -1, 9)
	a.forget("delete offsets that are read", "g", "t", "u", "none")
	a.remove("delete a group with members", "g")
	a.joined("join with another type", <-join("", 9, func(r *kmsg.JoinGroupRequest) { r.ProtocolType = "connect" }))
	a.joined("join with another protocol", <-join("", 9, func(r *kmsg.JoinGroupRequest) { r.Protocols[0].Name = "sticky" }))

	second := a.joined("the second asks", <-join("", 9)).MemberID
	waits := join(second, 9)
	a.until("g", "PreparingRebalance")
	a.describe("describe a rebalance", 6, "g")
	a.beat("beat in a rebalance", "g", first, nil, one.Generation)
	a.synced("sync in a rebalance", ask[*kmsg.SyncGroupResponse](a, a.syncing("g", first, nil, one.Generation), 5))
	a.commit("commit in a rebalance", "g", first, nil, one.Generation, 9)
	two := a.joined("the first joins the second", <-join(first, 9))
	a.joined("the second joins", <-waits)
	follower := later[*kmsg.SyncGroupResponse](a, a.syncing("g", second, nil, two.Generation), 5)
	a.synced("the first assigns", ask[*kmsg.SyncGroupResponse](a, a.syncing("g", first, nil, two.Generation, first), 5))
	a.synced("the second is assigned nothing", <-follower)
	a.joined("the second joins again", <-join(second, 5))
	a.describe("describe two", 5, "g")

	third := a.joined("the third asks", <-join("", 5)).MemberID
	a.leave("the third leaves before it joined", "g", 5, kmsg.LeaveGroupRequestMember{MemberID: third}, kmsg.LeaveGroupRequestMember{MemberID: "nobody"})
	a.leave("the second leaves", "g", 1, kmsg.LeaveGroupRequestMember{MemberID: second})
	a.beat("beat of who has left", "g", second, nil, two.Generation)
	alone := a.joined("the first joins alone", <-join(first, 9))
	a.synced("the first syncs alone", ask[*kmsg.SyncGroupResponse](a, a.syncing("g", first, nil, alone.Generation, first), 5))
	a.leave("the first leaves", "g", 5, kmsg.LeaveGroupRequestMember{MemberID: first, InstanceID: ptr("i")}, kmsg.LeaveGroupRequestMember{MemberID: first})
	a.describe("describe a group that was left", 6, "g")
	a.forget("delete offsets of a group that was left", "g", "t")
	a.remove("delete a group that was left", "g")
}

// until asks what state a group is in until it is the one.
func (a *asker) until(group, state string) {
	a.t.Helper()
	req := kmsg.NewPtrDescribeGroupsRequest()
	req.Groups = []string{group}
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	enough := time.After(patience)
	for {
		is := ask[*kmsg.DescribeGroupsResponse](a, req, 5).Groups[0].State
		if is == state {
			return
		}
		select {
		case <-look.C:
		case <-enough:
			a.t.Fatalf("group %s is %s, not %s, after\n%s", group, is, state, strings.Join(a.said, "\n"))
		}
	}
}

// static: members with an instance come again.
func (a *asker) static() {
	join := func(id, instance string, v int16) <-chan *kmsg.JoinGroupResponse {
		return later[*kmsg.JoinGroupResponse](a, a.join("s", id, &instance), v)
	}
	one := a.joined("static", <-join("", "one", 9))
	a.synced("static syncs", ask[*kmsg.SyncGroupResponse](a, a.syncing("s", one.MemberID, ptr("one"), one.Generation, one.MemberID), 5))
	again := a.joined("static comes again", <-join("", "one", 9))
	a.synced("static syncs again", ask[*kmsg.SyncGroupResponse](a, a.syncing("s", again.MemberID, ptr("one"), again.Generation), 5))
	a.beat("beat of the fenced", "s", one.MemberID, ptr("one"), one.Generation)
	a.beat("beat of the fenced without its instance", "s", one.MemberID, nil, one.Generation)
	a.commit("commit of the fenced", "s", one.MemberID, ptr("one"), one.Generation, 9)
	a.synced("sync of the fenced", ask[*kmsg.SyncGroupResponse](a, a.syncing("s", one.MemberID, ptr("one"), one.Generation), 5))
	a.joined("join of the fenced", <-join(one.MemberID, "one", 9))
	a.leave("leave of the fenced", "s", 5, kmsg.LeaveGroupRequestMember{MemberID: one.MemberID, InstanceID: ptr("one")})
	old := a.joined("static comes again, before it can be told", <-join("", "one", 8))
	a.beat("beat of an instance that is not there", "s", old.MemberID, ptr("two"), old.Generation)
	a.joined("join of an instance that is not there", <-join(old.MemberID, "two", 9))
	a.describe("describe a static member", 6, "s")
	a.leave("leave by instance", "s", 5, kmsg.LeaveGroupRequestMember{InstanceID: ptr("two")}, kmsg.LeaveGroupRequestMember{InstanceID: ptr("one")})
	a.describe("describe a group of static members that was left", 6, "s")
	a.list("list at the end", 5, nil, nil)
}
