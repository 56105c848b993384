package groups

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Coordinator keeps the groups of one log. Its methods answer one request each, and are safe for concurrent use.
//
// Lock order: group.mu, then Coordinator.mu or line.mu.
type Coordinator struct {
	o    Options
	line line

	mu     sync.Mutex
	groups map[string]*group
	closed bool

	tasks sync.WaitGroup
}

// MaxVersions returns the newest version of each request that is served; the oldest is 0. Newer ones of OffsetCommit and OffsetFetch name topics
// by ids.
func MaxVersions() map[int16]int16 {
	return map[int16]int16{
		kmsg.JoinGroup.Int16():      9,
		kmsg.SyncGroup.Int16():      5,
		kmsg.Heartbeat.Int16():      4,
		kmsg.LeaveGroup.Int16():     5,
		kmsg.OffsetCommit.Int16():   9,
		kmsg.OffsetFetch.Int16():    9,
		kmsg.OffsetDelete.Int16():   0,
		kmsg.DescribeGroups.Int16(): 6,
		kmsg.ListGroups.Int16():     5,
		kmsg.DeleteGroups.Int16():   2,
	}
}

// New takes up the groups that the store has. Members that were in a stable group go on in its generation.
//
// Errors: of the store; or a note that cannot be read, with its key.
func New(o Options) (*Coordinator, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	c := &Coordinator{o: o, groups: map[string]*group{}}
	c.line.init()
	if err := c.load(); err != nil {
		return nil, err
	}
	c.tasks.Go(c.write)
	for _, g := range slices.Collect(maps.Values(c.groups)) {
		g.mu.Lock()
		g.kept = true
		c.leave(g)
	}
	return c, nil
}

func (c *Coordinator) load() error {
	notes, err := c.o.Store.Notes(prefix)
	if err != nil {
		return fmt.Errorf("groups: load: %w", err)
	}
	now := c.o.Now()
	var lost []Note
	for _, n := range notes {
		switch err := c.take(now, n); {
		case errors.Is(err, errLost): // remit stopped between deleting the topic and what was read of it
			lost = append(lost, Note{Key: n.Key})
		case err != nil:
			return err
		}
	}
	if len(lost) > 0 {
		c.o.Logger.Info("groups: offsets of deleted topics are dropped", "offsets", len(lost))
		return c.o.Store.PutNotes(context.Background(), lost...)
	}
	return nil
}

// take takes up one note; errLost if it is the offset of a partition that is not there.
func (c *Coordinator) take(now time.Time, n Note) error {
	switch {
	case strings.HasPrefix(n.Key, prefixGeneration):
		var row generationRow
		if err := decode(n, &row, &row.Version); err != nil {
			return err
		}
		c.make(strings.TrimPrefix(n.Key, prefixGeneration)).given = row.Generation
	case strings.HasPrefix(n.Key, prefixGroup):
		var row groupRow
		if err := decode(n, &row, &row.Version); err != nil {
			return err
		}
		c.make(strings.TrimPrefix(n.Key, prefixGroup)).restore(now, &row)
	case strings.HasPrefix(n.Key, prefixOffset):
		var row offsetRow
		if err := decode(n, &row, &row.Version); err != nil {
			return err
		}
		tp, id, err := parseOffsetKey(n.Key)
		if err != nil {
			return err
		}
		if int(tp.partition) >= c.o.Partitions(tp.topic) {
			return errLost
		}
		c.make(id).offsets[tp] = offset{row.Offset, row.LeaderEpoch, row.Metadata, time.UnixMilli(row.Committed)}
	default:
		return fmt.Errorf("groups: note %q is of no known kind: written by a newer version, or corrupt", n.Key)
	}
	return nil
}

// make returns the group of a name, a new one if there is none.
func (c *Coordinator) make(id string) *group {
	g := c.groups[id]
	if g == nil {
		g = newGroup(id, &c.o)
		c.groups[id] = g
	}
	return g
}

// Close answers what waits, writes what was taken, and stops. Groups are taken up by the next New.
func (c *Coordinator) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	gs := slices.Collect(maps.Values(c.groups))
	c.mu.Unlock()
	for _, g := range gs {
		g.mu.Lock()
		g.stop()
		c.leave(g)
	}
	c.line.end()
	c.tasks.Wait()
	return nil
}

// stop tells all who wait to look for a coordinator again.
func (g *group) stop() {
	for _, m := range g.all() {
		if m.joining != nil {
			refuseJoin(m.joining, m.id, kerr.CoordinatorNotAvailable)
			m.joining = nil
		}
		if m.syncing != nil {
			refuseSync(m.syncing, kerr.CoordinatorNotAvailable)
			m.syncing = nil
		}
	}
}

var (
	errClosed  = errors.New("groups: closed")
	errLost    = errors.New("groups: no such partition")
	errNoGroup = kerr.GroupIDNotFound
	errGone    = kerr.CoordinatorNotAvailable
)

// enter returns a group, locked, and makes it if told. leave unlocks it.
func (c *Coordinator) enter(ctx context.Context, id string, make bool) (*group, *kerr.Error) {
	for {
		g, err := c.find(id, make)
		if err != nil {
			return nil, err
		}
		g.mu.Lock()
		if g.state != StateDead && g.removing == nil {
			return g, nil
		}
		removing := g.removing
		g.mu.Unlock()
		if removing == nil {
			continue // it has gone since it was found
		}
		select {
		case <-removing:
		case <-ctx.Done():
			return nil, errGone
		}
	}
}

func (c *Coordinator) find(id string, make bool) (*group, *kerr.Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.groups[id]
	switch {
	case c.closed:
		return nil, errGone
	case g != nil:
		return g, nil
	case len(id) > GroupIDMax:
		return nil, kerr.InvalidGroupID
	case !make:
		return nil, errNoGroup
	case len(c.groups) >= c.o.GroupsMax:
		c.o.Logger.Warn("groups: no more groups; delete some, or raise GroupsMax", "groups", len(c.groups), "group", id)
		return nil, kerr.PolicyViolation
	}
	return c.make(id), nil
}

// leave puts a group's effects in line, sets its timer, and unlocks it.
func (c *Coordinator) leave(g *group) {
	now := c.o.Now()
	g.restAt(now)
	if g.blank() {
		c.bury(g, now)
	}
	for len(g.effects) > 0 {
		effects := g.effects
		g.effects = nil
		if !c.line.put(g, effects) {
			for _, e := range effects {
				e.done(now, errClosed)
			}
		}
	}
	c.arm(g, now)
	moved := g.kept && g.state != g.shown
	g.shown = g.state
	said := []any{"group", g.id, "state", string(g.state), "generation", g.generation, "members", len(g.members), "reason", g.reason}
	g.mu.Unlock()
	if moved {
		c.o.Logger.Info("groups: moved", said...)
	}
}

// bury ends a group. Another of its name may be made from now on.
func (c *Coordinator) bury(g *group, now time.Time) {
	g.move(now, InputRemoved)
	g.forgetAt = time.Time{}
	c.mu.Lock()
	delete(c.groups, g.id)
	c.mu.Unlock()
}

// arm sets the timer to what the group has to do next. What was put off in between costs one look.
func (c *Coordinator) arm(g *group, now time.Time) {
	next, ok := g.next()
	if !ok || g.state == StateDead || c.isClosed() {
		if g.timer != nil {
			g.timer.Stop()
		}
		g.armed = time.Time{}
		return
	}
	if !g.armed.IsZero() && !next.Before(g.armed) {
		return
	}
	g.armed = next
	wait := max(next.Sub(now), 0)
	if g.timer == nil {
		g.timer = time.AfterFunc(wait, func() { c.tick(g) })
	} else {
		g.timer.Reset(wait)
	}
}

func (c *Coordinator) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

func (c *Coordinator) tick(g *group) {
	g.mu.Lock()
	g.armed = time.Time{}
	if !c.isClosed() && g.removing == nil {
		now := c.o.Now()
		g.due(now)
		if passed(g.forgetAt, now) && g.idle() {
			g.reason = "unused"
			c.remove(g, func(*kerr.Error) {})
		}
	}
	c.leave(g)
}

// remove deletes an empty group with its offsets. Who asks for the group meanwhile waits.
func (c *Coordinator) remove(g *group, done func(*kerr.Error)) {
	g.removing = make(chan struct{})
	g.forgetAt = time.Time{}
	g.later(nil, func(time.Time, error) { // commits that were taken before are done
		notes := []Note{{Key: prefixGroup + g.id}, {Key: prefixGeneration + g.id}}
		for tp := range g.offsets {
			notes = append(notes, Note{Key: offsetKey(tp, g.id)})
		}
		g.later(notes, func(now time.Time, err error) {
			close(g.removing)
			g.removing = nil
			if err == nil {
				clear(g.offsets)
				c.bury(g, now)
			}
			done(unwritten(err))
		})
	})
}

// await returns the answer to a call, or what ended returns if ctx ends first.
func await[R any](ctx context.Context, answer <-chan R, ended func() R) R {
	select {
	case r := <-answer:
		return r
	case <-ctx.Done():
		return ended()
	}
}

// JoinGroup answers when the rebalance that it takes part in has its members.
func (c *Coordinator) JoinGroup(ctx context.Context, client Client, req *kmsg.JoinGroupRequest) *kmsg.JoinGroupResponse {
	call := newCall[*kmsg.JoinGroupRequest, *kmsg.JoinGroupResponse](client, req)
	if err := c.checkJoin(req); err != nil {
		refuseJoin(call, req.MemberID, err)
		return <-call.answer
	}
	g, err := c.enter(ctx, req.Group, req.MemberID == "")
	if err != nil {
		refuseJoin(call, req.MemberID, orUnknownMember(err))
		return <-call.answer
	}
	name := client.ID
	if req.InstanceID != nil {
		name = *req.InstanceID
	}
	g.join(c.o.Now(), call, name+"-"+uuid.NewString())
	c.leave(g)
	return await(ctx, call.answer, func() *kmsg.JoinGroupResponse {
		r := call.reply()
		r.ErrorCode, r.MemberID, r.Generation = errGone.Code, req.MemberID, -1
		return r
	})
}

// orUnknownMember: of a group that is not there, a member is told that it is not known.
func orUnknownMember(err *kerr.Error) *kerr.Error {
	if errors.Is(err, errNoGroup) {
		return kerr.UnknownMemberID
	}
	return err
}

func (c *Coordinator) checkJoin(req *kmsg.JoinGroupRequest) *kerr.Error {
	bytes := 0
	for _, p := range req.Protocols {
		bytes += len(p.Name) + len(p.Metadata)
	}
	if req.InstanceID != nil {
		bytes += len(*req.InstanceID)
	}
	session := timeouts(req)
	switch {
	case req.Group == "":
		return kerr.InvalidGroupID
	case session < c.o.SessionTimeoutMin || session > c.o.SessionTimeoutMax:
		return kerr.InvalidSessionTimeout
	case bytes > c.o.MemberBytesMax:
		return kerr.PolicyViolation
	}
	return nil
}

// SyncGroup answers when the leader has assigned.
func (c *Coordinator) SyncGroup(ctx context.Context, client Client, req *kmsg.SyncGroupRequest) *kmsg.SyncGroupResponse {
	call := newCall[*kmsg.SyncGroupRequest, *kmsg.SyncGroupResponse](client, req)
	var err *kerr.Error
	switch {
	case req.Group == "":
		err = kerr.InvalidGroupID
	case req.Version >= syncNames && (req.ProtocolType == nil || req.Protocol == nil):
		err = kerr.InconsistentGroupProtocol
	}
	var g *group
	if err == nil {
		g, err = c.enter(ctx, req.Group, false)
	}
	if err != nil {
		refuseSync(call, orUnknownMember(err))
		return <-call.answer
	}
	g.sync(c.o.Now(), call)
	c.leave(g)
	return await(ctx, call.answer, func() *kmsg.SyncGroupResponse {
		r := call.reply()
		r.ErrorCode, r.MemberAssignment = errGone.Code, []byte{}
		return r
	})
}

// Heartbeat keeps a member in its group, and tells it of a rebalance.
func (c *Coordinator) Heartbeat(ctx context.Context, _ Client, req *kmsg.HeartbeatRequest) *kmsg.HeartbeatResponse {
	r := reply[*kmsg.HeartbeatResponse](req)
	if req.Group == "" {
		r.ErrorCode = kerr.InvalidGroupID.Code
		return r
	}
	g, err := c.enter(ctx, req.Group, false)
	if err != nil {
		r.ErrorCode = orUnknownMember(err).Code
		return r
	}
	r.ErrorCode = code(g.heartbeat(c.o.Now(), req))
	c.leave(g)
	return r
}

// singleLeave is the last version of LeaveGroup that names one member.
const singleLeave = 2

// LeaveGroup takes members out.
func (c *Coordinator) LeaveGroup(ctx context.Context, _ Client, req *kmsg.LeaveGroupRequest) *kmsg.LeaveGroupResponse {
	r := reply[*kmsg.LeaveGroupResponse](req)
	leaving := req.Members
	if req.Version <= singleLeave {
		leaving = []kmsg.LeaveGroupRequestMember{{MemberID: req.MemberID}}
	}
	if req.Group == "" {
		r.ErrorCode = kerr.InvalidGroupID.Code
		return r
	}
	g, err := c.enter(ctx, req.Group, false)
	switch {
	case err == errNoGroup:
		for _, l := range leaving {
			r.Members = append(r.Members, leaveAnswer(l, kerr.UnknownMemberID))
		}
	case err != nil:
		r.ErrorCode = err.Code
		return r
	default:
		r.Members = g.leave(c.o.Now(), leaving)
		left := make(chan struct{})
		g.settled(func() { close(left) }) // if nobody is left, that is durable
		c.leave(g)
		await(ctx, left, func() struct{} { return struct{}{} })
	}
	if req.Version <= singleLeave {
		r.ErrorCode, r.Members = r.Members[0].ErrorCode, nil
	}
	return r
}
