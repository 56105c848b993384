package groups

import (
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// syncNames is the version from which SyncGroup names kind and protocol.
const syncNames = 5

// sync takes a SyncGroup.
func (g *group) sync(now time.Time, c *syncCall) {
	if err := g.mayAct(c.req.MemberID, c.req.InstanceID, c.req.Generation); err != nil {
		refuseSync(c, err)
		return
	}
	m := g.members[c.req.MemberID]
	switch {
	case differs(c.req.ProtocolType, g.kind) || differs(c.req.Protocol, g.protocol):
		refuseSync(c, kerr.InconsistentGroupProtocol)
	case g.state == StatePreparing:
		refuseSync(c, kerr.RebalanceInProgress)
	case g.state == StateCompleting:
		if m.syncing != nil { // it has given that one up
			refuseSync(m.syncing, kerr.RebalanceInProgress)
		}
		m.syncing = c
		delete(g.unsynced, m.id)
		if g.leader == m.id && g.assigning != g.generation {
			g.assign(c.req)
		}
	default:
		delete(g.unsynced, m.id)
		c.answer <- g.synced(c, m)
	}
}

func differs(said *string, is string) bool { return said != nil && *said != is }

// mayAct returns why a request is not of a member of this generation, nil if it is.
func (g *group) mayAct(id string, instance *string, generation int32) *kerr.Error {
	if g.state == StateEmpty {
		return kerr.UnknownMemberID
	}
	if err := g.known(id, instance); err != nil {
		return err
	}
	if generation != g.generation {
		return kerr.IllegalGeneration
	}
	return nil
}

// assign takes the leader's assignment. Nobody is told of it before it is durable. Who comes meanwhile makes the generation old, and
// the assignment void.
//
// INVARIANT: a generation has one assignment. A leader that asks again while its first is being written does not replace it: what is
// stored last would not be what the members are told.
func (g *group) assign(req *kmsg.SyncGroupRequest) {
	g.assigning = g.generation
	assigned := make(map[string][]byte, len(req.GroupAssignment))
	for _, a := range req.GroupAssignment {
		assigned[a.MemberID] = append([]byte{}, a.MemberAssignment...)
	}
	generation := g.generation
	g.writeRow(assigned, func(now time.Time, refused *kerr.Error) { g.assigned(now, generation, assigned, refused) })
}

// assigned: the assignment of a generation is durable, or was refused.
func (g *group) assigned(now time.Time, generation int32, assigned map[string][]byte, refused *kerr.Error) {
	if g.state != StateCompleting || g.generation != generation {
		return
	}
	if refused != nil {
		g.unassign(now, refused)
		g.prepare(now, "the assignment was not stored: "+refused.Message)
		return
	}
	g.move(now, InputAssigned)
	for _, m := range g.all() {
		m.assigned = assigned[m.id]
		if m.assigned == nil {
			m.assigned = []byte{}
		}
		if m.syncing != nil {
			m.syncing.answer <- g.synced(m.syncing, m)
			m.syncing = nil
			m.heard(now)
		}
	}
}

// unassign takes back the assignments of a generation that did not come to be.
func (g *group) unassign(now time.Time, why *kerr.Error) {
	for _, m := range g.all() {
		m.assigned = []byte{}
		if m.syncing != nil {
			refuseSync(m.syncing, why)
			m.syncing = nil
			m.heard(now)
		}
	}
}

func (g *group) synced(c *syncCall, m *member) *kmsg.SyncGroupResponse {
	r := c.reply()
	kind, protocol := g.kind, g.protocol
	r.ProtocolType, r.Protocol, r.MemberAssignment = &kind, &protocol, m.assigned
	return r
}

// syncDue: who owes a sync is out.
func (g *group) syncDue(now time.Time) {
	g.syncBy = time.Time{}
	if len(g.unsynced) == 0 || !g.state.can(InputRebalance) {
		return
	}
	var silent []string
	for _, m := range g.all() {
		if g.unsynced[m.id] {
			silent = append(silent, m.id)
		}
	}
	for _, id := range silent {
		g.drop(id)
	}
	g.prepare(now, fmt.Sprintf("no SyncGroup came from %s", strings.Join(silent, ", ")))
}

// heartbeat takes a Heartbeat.
func (g *group) heartbeat(now time.Time, req *kmsg.HeartbeatRequest) *kerr.Error {
	if err := g.mayAct(req.MemberID, req.InstanceID, req.Generation); err != nil {
		return err
	}
	g.members[req.MemberID].heard(now)
	if g.state == StatePreparing {
		return kerr.RebalanceInProgress
	}
	return nil
}

// leave takes members out, and says of each what came of it.
func (g *group) leave(now time.Time, leaving []kmsg.LeaveGroupRequestMember) []kmsg.LeaveGroupResponseMember {
	var left []string // members; an id that was given out only is not missed
	answers := make([]kmsg.LeaveGroupResponseMember, 0, len(leaving))
	for _, l := range leaving {
		id, err := g.leaves(l)
		if err == nil && g.members[id] != nil {
			left = append(left, id)
		}
		if err == nil {
			g.drop(id)
		}
		answers = append(answers, leaveAnswer(l, err))
	}
	if len(left) > 0 {
		g.changed(now, "left: "+strings.Join(left, ", "))
	} else {
		g.maybeComplete(now)
	}
	return answers
}

// leaves returns the id of who leaves. An administrator names static members by their instance alone.
func (g *group) leaves(l kmsg.LeaveGroupRequestMember) (string, *kerr.Error) {
	if l.MemberID == "" {
		if l.InstanceID == nil || g.static[*l.InstanceID] == "" {
			return "", kerr.UnknownMemberID
		}
		return g.static[*l.InstanceID], nil
	}
	if _, ok := g.pending[l.MemberID]; ok {
		return l.MemberID, nil
	}
	return l.MemberID, g.known(l.MemberID, l.InstanceID)
}

func leaveAnswer(l kmsg.LeaveGroupRequestMember, err *kerr.Error) kmsg.LeaveGroupResponseMember {
	r := kmsg.NewLeaveGroupResponseMember()
	r.MemberID, r.InstanceID, r.ErrorCode = l.MemberID, l.InstanceID, code(err)
	return r
}
