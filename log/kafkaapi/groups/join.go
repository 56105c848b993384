package groups

import (
	"bytes"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Versions of JoinGroup in which something changed.
const (
	joinTwice = 4 // a member without an id is given one, and joins again with it (KIP-394)
	joinSkips = 9 // a leader may be told that nothing is to be assigned
)

// join takes a JoinGroup. newID is the id of a member that has none.
func (g *group) join(now time.Time, c *joinCall, newID string) {
	id, instance := c.req.MemberID, c.req.InstanceID
	switch {
	case !g.hasRoom(id, instance):
		g.drop(id)
		g.maybeComplete(now)
		refuseJoin(c, "", kerr.GroupMaxSizeReached)
	case !g.supports(c.req.ProtocolType, protocolsOf(c.req)):
		refuseJoin(c, id, kerr.InconsistentGroupProtocol)
	case id != "":
		g.rejoin(now, c)
	case instance != nil && g.static[*instance] != "":
		g.replace(now, c, newID)
	case instance == nil && c.req.Version >= joinTwice:
		g.pending[newID] = now.Add(timeouts(c.req))
		g.forgetAt = time.Time{}
		refuseJoin(c, newID, kerr.MemberIDRequired)
	default:
		g.enter(now, c, newID)
	}
}

// hasRoom reports whether one more may join. While members join, those who have count, so that the last to come again are those for whom there
// is no room.
func (g *group) hasRoom(id string, instance *string) bool {
	if instance != nil && id == "" {
		id = g.static[*instance] // it takes the place that it has
	}
	m := g.members[id]
	if id == "" && len(g.pending) >= g.o.MembersMax {
		return false
	}
	switch g.state {
	case StatePreparing:
		joined := 0
		for _, other := range g.members {
			if other.joining != nil {
				joined++
			}
		}
		return m != nil && m.joining != nil || joined < g.o.MembersMax
	case StateCompleting, StateStable:
		return m != nil || len(g.members) < g.o.MembersMax
	default:
		return true
	}
}

// enter takes in a new member.
func (g *group) enter(now time.Time, c *joinCall, id string) {
	m := &member{id: id, client: c.client, joining: c, fresh: true, expires: now.Add(NewMemberTimeout), assigned: []byte{}}
	if c.req.InstanceID != nil {
		instance := *c.req.InstanceID
		m.instance = &instance
	}
	m.update(c.req)
	if g.state == StatePreparing && g.before == StateEmpty {
		g.newcomers = true
	}
	g.add(m, c.req.ProtocolType)
	g.changed(now, fmt.Sprintf("member %s came%s", id, because(c.req)))
}

// because is what the client says of why it joins.
func because(req *kmsg.JoinGroupRequest) string {
	if req.Reason == nil || *req.Reason == "" {
		return ""
	}
	return ": " + *req.Reason
}

// rejoin takes a join of who says that it has an id.
func (g *group) rejoin(now time.Time, c *joinCall) {
	id := c.req.MemberID
	if _, ok := g.pending[id]; ok && c.req.InstanceID == nil {
		g.enter(now, c, id)
		return
	}
	if err := g.known(id, c.req.InstanceID); err != nil {
		refuseJoin(c, id, err)
		return
	}
	m := g.members[id]
	same := m.says(protocolsOf(c.req))
	switch {
	case g.state == StateCompleting && same,
		g.state == StateStable && same && g.leader != id:
		// It may not have heard the answer to its join. A leader of a stable group wants a rebalance: what it
		// assigns has changed.
		r := g.joined(c, id)
		g.settled(func() {
			if g.state == StatePreparing || g.generation != r.Generation { // it may not have been stored
				refuseJoin(c, id, kerr.RebalanceInProgress)
				return
			}
			c.answer <- r
		})
	default:
		g.update(m, c)
		g.changed(now, fmt.Sprintf("member %s joined again%s", id, because(c.req)))
	}
}

// update lets a member wait for the others.
func (g *group) update(m *member, c *joinCall) {
	if m.joining != nil { // it has given that one up
		refuseJoin(m.joining, m.id, kerr.RebalanceInProgress)
	}
	m.update(c.req)
	m.joining = c
}

// replace gives a static member, which has come again without its id, a new one. The old id is fenced at once.
func (g *group) replace(now time.Time, c *joinCall, newID string) {
	instance := *c.req.InstanceID
	old := g.members[g.static[instance]]
	leader, wasSyncing := g.leader, g.unsynced[old.id]
	if old.joining != nil {
		refuseJoin(old.joining, old.id, kerr.FencedInstanceID)
		old.joining = nil
	}
	if old.syncing != nil {
		refuseSync(old.syncing, kerr.FencedInstanceID)
		old.syncing = nil
	}
	m := *old
	m.id = newID
	m.heard(now)
	g.rename(old.id, &m)
	if wasSyncing {
		g.unsynced[newID] = true
	}
	g.update(&m, c)
	switch {
	case g.state == StateStable && g.choose() == g.protocol:
		g.takeOver(&m, leader)
	case g.state == StateStable:
		g.prepare(now, fmt.Sprintf("static member %s came again with another protocol%s", instance, because(c.req)))
	case g.state == StateCompleting:
		// The leader may assign to the old id: nobody would have what it assigns.
		g.prepare(now, fmt.Sprintf("static member %s came again%s", instance, because(c.req)))
	default:
		g.maybeComplete(now)
	}
}

// rename puts m in the place of the member that was called old.
func (g *group) rename(old string, m *member) {
	delete(g.members, old)
	delete(g.unsynced, old)
	g.members[m.id] = m
	g.static[*m.instance] = m.id
	for i, id := range g.order {
		if id == old {
			g.order[i] = m.id
		}
	}
	if g.leader == old {
		g.leader = m.id
	}
}

// takeOver answers a static member that has come again and changes nothing: it has the assignment of its predecessor, without a rebalance. It
// is told once its new id is durable.
func (g *group) takeOver(m *member, leader string) {
	c := m.joining
	m.joining = nil
	g.writeRow(g.assignments(), func(_ time.Time, refused *kerr.Error) {
		if refused != nil {
			refuseJoin(c, "", refused)
			return
		}
		r := g.joined(c, m.id)
		switch {
		case c.req.Version < joinSkips:
			r.LeaderID, r.Members = leader, nil // it must not think that it leads, and assign
		case g.leader == m.id:
			r.SkipAssignment = true
		}
		c.answer <- r
	})
}

// prepare begins a rebalance.
func (g *group) prepare(now time.Time, why string) {
	if g.state == StateCompleting {
		g.unassign(now, kerr.RebalanceInProgress)
	}
	g.syncBy = time.Time{}
	clear(g.unsynced)
	g.reason = why
	g.move(now, InputRebalance)
	if g.before == StateEmpty && g.o.InitialDelay > 0 {
		g.newcomers = false
		g.joinBy = now.Add(g.o.InitialDelay)
		g.delayLeft = max(g.waitMax()-g.o.InitialDelay, 0)
		return
	}
	if g.allJoined() {
		g.complete(now)
		return
	}
	g.joinBy = now.Add(g.waitMax())
}

// maybeComplete ends waiting for joins, if nobody is missing. An empty group waits its delay all the same.
func (g *group) maybeComplete(now time.Time) {
	if g.state == StatePreparing && !(g.before == StateEmpty && g.o.InitialDelay > 0) && g.allJoined() {
		g.complete(now)
	}
}

// joinDue: the time for joins has passed. An empty group waits on while members come.
func (g *group) joinDue(now time.Time) {
	if g.before == StateEmpty && g.newcomers && g.delayLeft > 0 {
		more := min(g.o.InitialDelay, g.delayLeft)
		g.newcomers, g.delayLeft, g.joinBy = false, g.delayLeft-more, now.Add(more)
		return
	}
	g.complete(now)
}

// complete begins the next generation with those who have joined. Static members stay without: they may be restarting.
func (g *group) complete(now time.Time) {
	g.joinBy = time.Time{}
	for _, m := range g.all() {
		if m.joining == nil && m.instance == nil {
			g.drop(m.id)
		}
	}
	if len(g.members) > 0 && !g.lead() {
		g.joinBy = now.Add(g.waitMax()) // static members alone, of which none has joined: their sessions end it
		return
	}
	g.generation = max(g.generation, g.given) + 1
	g.given, g.kept = g.generation, true
	clear(g.unsynced)
	if len(g.members) == 0 {
		g.protocol, g.leader = "", ""
		g.subscribe()
		g.move(now, InputEmptied)
		g.writeRow(nil, func(time.Time, *kerr.Error) {}) // without it: the members of the last row, who are not heard of
		return
	}
	g.protocol = g.choose()
	g.subscribe()
	g.move(now, InputJoined)
	g.answerJoins(now)
	g.syncBy = now.Add(g.waitMax())
}

// lead makes sure that the leader is one who has joined; false if nobody has.
func (g *group) lead() bool {
	if m := g.members[g.leader]; m != nil && m.joining != nil {
		return true
	}
	for _, m := range g.all() {
		if m.joining != nil {
			g.leader = m.id
			return true
		}
	}
	return false
}

// answerJoins tells all who have joined of the generation, AFTER it is durable that it was given: it is never given again. If it is not,
// they join again, for the next one.
func (g *group) answerJoins(now time.Time) {
	generation, answers := g.generation, map[*joinCall]*kmsg.JoinGroupResponse{}
	for _, m := range g.all() {
		m.heard(now)
		m.fresh = false
		g.unsynced[m.id] = true
		if m.joining != nil {
			answers[m.joining] = g.joined(m.joining, m.id)
			m.joining = nil
		}
	}
	g.later([]Note{generationNote(g.id, generation)}, func(now time.Time, err error) {
		for c, r := range answers {
			if err != nil {
				refuseJoin(c, r.MemberID, unwritten(err))
				continue
			}
			c.answer <- r
		}
		if err != nil && g.state == StateCompleting && g.generation == generation {
			g.prepare(now, "the generation was not stored")
		}
	})
}

// joined is the answer to a member that is in the current generation.
func (g *group) joined(c *joinCall, id string) *kmsg.JoinGroupResponse {
	r := c.reply()
	r.Generation, r.MemberID, r.LeaderID = g.generation, id, g.leader
	kind, protocol := g.kind, g.protocol
	r.ProtocolType, r.Protocol = &kind, &protocol
	if g.leader != id {
		return r
	}
	for _, m := range g.all() {
		to := kmsg.NewJoinGroupResponseMember()
		to.MemberID, to.InstanceID, to.ProtocolMetadata = m.id, m.instance, m.metadata(g.protocol)
		r.Members = append(r.Members, to)
	}
	return r
}

// subscribe notes the topics that the members want, as far as the group's kind lets it be known.
func (g *group) subscribe() {
	g.topics = nil
	if g.kind != "consumer" {
		return
	}
	topics := map[string]bool{}
	for _, m := range g.members {
		wants, ok := subscription(m.metadata(g.protocol))
		if !ok {
			return
		}
		for _, t := range wants {
			topics[t] = true
		}
	}
	g.topics = topics
}

// subscription reads the topics of what a consumer says of itself. All versions begin as version 0, whose form it has.
func subscription(metadata []byte) (topics []string, ok bool) {
	if len(metadata) < 2 {
		return nil, false
	}
	b := bytes.Clone(metadata)
	b[0], b[1] = 0, 0
	m := kmsg.NewConsumerMemberMetadata()
	if err := m.ReadFrom(b); err != nil {
		return nil, false
	}
	return m.Topics, true
}

// subscribed reports whether the group may read a topic: one of which that cannot be told may.
func (g *group) subscribed(topic string) bool {
	if g.topics == nil {
		return g.kind == "consumer"
	}
	return g.topics[topic]
}
