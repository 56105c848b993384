package groups

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	describeNoGroup = 6 // the version of DescribeGroups from which an unknown group is an error
	groupType       = "classic"

	// operations is what a client may do with a group, where everybody may do everything: read, delete, describe, and describe and
	// alter its configuration. A bit each, as Kafka numbers them.
	operations = 1<<3 | 1<<6 | 1<<8 | 1<<10 | 1<<11
)

// DescribeGroups says who is in groups and what is assigned to them.
func (c *Coordinator) DescribeGroups(ctx context.Context, _ Client, req *kmsg.DescribeGroupsRequest) *kmsg.DescribeGroupsResponse {
	r := reply[*kmsg.DescribeGroupsResponse](req)
	for _, id := range req.Groups {
		d := kmsg.NewDescribeGroupsResponseGroup()
		g, err := c.enter(ctx, id, false)
		switch {
		case err == errNoGroup || err == kerr.InvalidGroupID: // a name that no group can have
			d.State = string(StateDead)
			if req.Version >= describeNoGroup {
				message := fmt.Sprintf("Group %s not found.", id)
				d.ErrorCode, d.ErrorMessage = errNoGroup.Code, &message
			}
		case err != nil:
			d.ErrorCode = err.Code
		default:
			d = g.describe()
			c.leave(g)
		}
		d.Group = id
		d.AuthorizedOperations = math.MinInt32 // not asked for
		if req.IncludeAuthorizedOperations && d.ErrorCode == 0 {
			d.AuthorizedOperations = operations
		}
		r.Groups = append(r.Groups, d)
	}
	return r
}

// describe says what clients show. Which protocol was chosen is known while the group is stable.
func (g *group) describe() kmsg.DescribeGroupsResponseGroup {
	d := kmsg.NewDescribeGroupsResponseGroup()
	d.State, d.ProtocolType = string(g.state), g.kind
	if g.state == StateStable {
		d.Protocol = g.protocol
	}
	for _, m := range g.all() {
		to := kmsg.NewDescribeGroupsResponseGroupMember()
		to.MemberID, to.InstanceID, to.ClientID, to.ClientHost = m.id, m.instance, m.client.ID, m.client.Host
		to.MemberAssignment = m.assigned
		if g.state == StateStable {
			to.ProtocolMetadata = m.metadata(g.protocol)
		}
		d.Members = append(d.Members, to)
	}
	return d
}

// ListGroups lists groups, by name.
func (c *Coordinator) ListGroups(_ context.Context, _ Client, req *kmsg.ListGroupsRequest) *kmsg.ListGroupsResponse {
	r := reply[*kmsg.ListGroupsResponse](req)
	c.mu.Lock()
	closed := c.closed
	gs := slices.SortedFunc(maps.Values(c.groups), func(a, b *group) int { return cmp.Compare(a.id, b.id) })
	c.mu.Unlock()
	if closed {
		r.ErrorCode = errGone.Code
		return r
	}
	if !wanted(req.TypesFilter, groupType) {
		return r
	}
	for _, g := range gs {
		to := kmsg.NewListGroupsResponseGroup()
		g.mu.Lock()
		to.Group, to.ProtocolType, to.GroupState, to.GroupType = g.id, g.kind, string(g.state), groupType
		g.mu.Unlock()
		if to.GroupState != string(StateDead) && wanted(req.StatesFilter, to.GroupState) {
			r.Groups = append(r.Groups, to)
		}
	}
	return r
}

// wanted reports whether a filter lets a word through, in any letter case. An empty one does.
func wanted(filter []string, word string) bool {
	return len(filter) == 0 || slices.ContainsFunc(filter, func(f string) bool { return strings.EqualFold(strings.TrimSpace(f), word) })
}

// DeleteGroups deletes groups that have no members, with their offsets.
func (c *Coordinator) DeleteGroups(ctx context.Context, _ Client, req *kmsg.DeleteGroupsRequest) *kmsg.DeleteGroupsResponse {
	r := reply[*kmsg.DeleteGroupsResponse](req)
	for _, id := range req.Groups {
		to := kmsg.NewDeleteGroupsResponseGroup()
		to.Group, to.ErrorCode = id, code(c.deleteGroup(ctx, id))
		r.Groups = append(r.Groups, to)
	}
	return r
}

func (c *Coordinator) deleteGroup(ctx context.Context, id string) *kerr.Error {
	g, err := c.enter(ctx, id, false)
	if err != nil {
		return err
	}
	if g.state != StateEmpty {
		c.leave(g)
		return kerr.NonEmptyGroup
	}
	done := make(chan *kerr.Error, 1)
	g.reason = "deleted"
	c.remove(g, func(refused *kerr.Error) { done <- refused })
	c.leave(g)
	return await(ctx, done, func() *kerr.Error { return errGone })
}
