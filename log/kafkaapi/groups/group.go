package groups

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// group is one consumer group. Its methods know no store, clock, goroutine, log or chance: the time and new ids are arguments, and what is
// to be written comes out as effects.
type group struct {
	id string
	o  *Options

	state      State
	before     State // the one before: a rebalance of an empty group waits for more members
	since      time.Time
	reason     string // of the last rebalance, for people
	generation int32
	assigning  int32 // the generation whose assignment came
	given      int32 // the highest generation that anybody may have been told of
	kind       string
	protocol   string // chosen, "" if none is
	leader     string // a member's id

	members  map[string]*member
	order    []string             // their ids, in the order in which they came
	static   map[string]string    // instance: member id
	pending  map[string]time.Time // ids that were given out, and until when they may join (KIP-394)
	unsynced map[string]bool      // members that owe a Sync of this generation

	joinBy    time.Time     // when waiting for joins ends
	syncBy    time.Time     // when waiting for syncs ends
	newcomers bool          // came while an empty group waits
	delayLeft time.Duration // how much longer such a group may wait
	forgetAt  time.Time     // when it is forgotten, if it stays without members and offsets

	topics  map[string]bool // what its members subscribe to; nil if that cannot be told
	offsets map[topicPartition]offset

	kept      bool // it has, or had, something durable
	effects   []effect
	unsettled int           // effects that are not done
	removing  chan struct{} // closed once the group is gone, or stays after all; nil if nobody removes it

	// Of the Coordinator.
	mu    sync.Mutex
	timer *time.Timer
	armed time.Time // when the timer fires; zero if it does not
	shown State     // when it was last logged
}

// effect is something to be written, with what follows from it.
//
// The Coordinator writes effects in the order in which they are made, over all groups, and calls done AFTER they are durable, or were
// refused. What rests on an effect that is not done MUST NOT be told to anybody: it goes behind, as an effect without notes.
type effect struct {
	notes []Note
	done  func(now time.Time, err error)
}

func newGroup(id string, o *Options) *group {
	return &group{
		id: id, o: o, state: StateEmpty, before: StateDead, shown: StateEmpty,
		members: map[string]*member{}, static: map[string]string{}, pending: map[string]time.Time{}, unsynced: map[string]bool{},
		offsets: map[topicPartition]offset{},
	}
}

// later asks for notes to be written.
func (g *group) later(notes []Note, done func(now time.Time, err error)) {
	g.unsettled++
	g.effects = append(g.effects, effect{notes, func(now time.Time, err error) {
		g.unsettled--
		done(now, err)
	}})
}

// settled calls tell once all that was asked for so far is done.
func (g *group) settled(tell func()) {
	if g.unsettled == 0 {
		tell()
		return
	}
	g.later(nil, func(time.Time, error) { tell() })
}

// move takes an input.
func (g *group) move(now time.Time, in Input) {
	next, err := Next(g.state, in)
	if err != nil {
		panic(fmt.Errorf("%w: %q", err, g.id))
	}
	g.before, g.state, g.since = g.state, next, now
}

// add takes a member in.
func (g *group) add(m *member, kind string) {
	if len(g.members) == 0 {
		g.kind = kind
	}
	if g.leader == "" {
		g.leader = m.id
	}
	if m.instance != nil {
		g.static[*m.instance] = m.id
	}
	g.members[m.id] = m
	g.order = append(g.order, m.id)
	delete(g.pending, m.id)
	g.forgetAt = time.Time{}
}

// drop takes a member out, or an id that was given out. What of it waits here is told that it is unknown, so that it joins anew if
// it is still there.
func (g *group) drop(id string) {
	delete(g.pending, id)
	delete(g.unsynced, id)
	m := g.members[id]
	if m == nil {
		return
	}
	delete(g.members, id)
	g.order = slices.DeleteFunc(g.order, func(other string) bool { return other == id })
	if m.instance != nil {
		delete(g.static, *m.instance)
	}
	if g.leader == id {
		g.leader = ""
		if len(g.order) > 0 {
			g.leader = g.order[0]
		}
	}
	if m.joining != nil {
		refuseJoin(m.joining, "", kerr.UnknownMemberID)
	}
	if m.syncing != nil {
		refuseSync(m.syncing, kerr.UnknownMemberID)
	}
}

// all yields the members in the order in which they came. The order may change meanwhile.
func (g *group) all() []*member {
	ms := make([]*member, len(g.order))
	for i, id := range g.order {
		ms[i] = g.members[id]
	}
	return ms
}

// known returns why a request is not of a member, nil if it is.
func (g *group) known(id string, instance *string) *kerr.Error {
	if instance != nil {
		switch current, ok := g.static[*instance]; {
		case !ok:
			return kerr.UnknownMemberID
		case current != id:
			return kerr.FencedInstanceID
		}
	}
	if g.members[id] == nil {
		return kerr.UnknownMemberID
	}
	return nil
}

// allJoined reports whether nobody is missing, those who were given an id included.
func (g *group) allJoined() bool {
	return len(g.pending) == 0 && !slices.ContainsFunc(g.all(), func(m *member) bool { return m.joining == nil })
}

// waitMax is how long members are waited for: as long as the most patient of them wants.
func (g *group) waitMax() (longest time.Duration) {
	for _, m := range g.members {
		longest = max(longest, m.rebalance)
	}
	return longest
}

// supports reports whether a member that knows ps fits in: the kind is the group's, and one protocol is known to all.
func (g *group) supports(kind string, ps []protocol) bool {
	if g.state == StateEmpty {
		return kind != "" && len(ps) > 0
	}
	return kind == g.kind && slices.ContainsFunc(ps, func(p protocol) bool { return g.everyoneKnows(p.name) })
}

func (g *group) everyoneKnows(name string) bool {
	for _, m := range g.members {
		if m.find(name) < 0 {
			return false
		}
	}
	return true
}

// choose returns the protocol that most members want most, of those that everyone knows; of equals the one that who came first wants more.
//
// INVARIANT: there is one. Nobody is let in, or changes, without a protocol that all others know.
func (g *group) choose() string {
	var common []string
	for _, p := range g.members[g.order[0]].protocols {
		if g.everyoneKnows(p.name) {
			common = append(common, p.name)
		}
	}
	if len(common) == 0 {
		panic(fmt.Errorf("groups: the members of %q have no protocol in common", g.id))
	}
	votes := map[string]int{}
	for _, m := range g.members {
		i := slices.IndexFunc(m.protocols, func(p protocol) bool { return slices.Contains(common, p.name) })
		votes[m.protocols[i].name]++
	}
	return slices.MaxFunc(common, func(a, b string) int { return cmp.Compare(votes[a], votes[b]) }) // the first of equals
}

// blank reports whether nothing is lost when the group is forgotten at once.
func (g *group) blank() bool { return g.idle() && !g.kept }

// idle reports whether nobody is in the group, nor on the way, and nothing was committed.
func (g *group) idle() bool {
	return g.state == StateEmpty && len(g.pending) == 0 && len(g.offsets) == 0 && g.unsettled == 0 && g.removing == nil
}

// next returns when the group has something to do, unless something happens before; false if nothing is to come.
func (g *group) next() (at time.Time, ok bool) {
	consider := func(t time.Time) {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	for _, m := range g.members {
		consider(m.expires)
	}
	for _, until := range g.pending {
		consider(until)
	}
	consider(g.joinBy)
	consider(g.syncBy)
	consider(g.forgetAt)
	return at, !at.IsZero()
}

// due does what is to be done by now: members first, since who is gone is not waited for.
func (g *group) due(now time.Time) {
	for id, until := range g.pending {
		if !until.After(now) {
			g.drop(id)
			g.maybeComplete(now)
		}
	}
	for _, m := range g.all() {
		if g.members[m.id] != m || m.expires.IsZero() || m.expires.After(now) {
			continue
		}
		m.expires = time.Time{}
		if !m.waits() {
			g.lose(now, m)
		}
	}
	if passed(g.joinBy, now) {
		g.joinDue(now)
	}
	if passed(g.syncBy, now) {
		g.syncDue(now)
	}
}

func passed(at, now time.Time) bool { return !at.IsZero() && !at.After(now) }

// lose takes out a member that is not heard of.
func (g *group) lose(now time.Time, m *member) {
	g.drop(m.id)
	g.changed(now, fmt.Sprintf("member %s was not heard of for %s", m.id, m.session))
}

// changed follows from members that came, went or changed.
func (g *group) changed(now time.Time, why string) {
	switch {
	case g.state.can(InputRebalance):
		g.prepare(now, why)
	case g.state == StatePreparing:
		g.maybeComplete(now)
	}
}

// restAt sets, or takes back, when a group that nobody uses is forgotten.
func (g *group) restAt(now time.Time) {
	switch {
	case !g.idle():
		g.forgetAt = time.Time{}
	case g.forgetAt.IsZero():
		g.forgetAt = now.Add(g.o.ForgetAfter)
	}
}
