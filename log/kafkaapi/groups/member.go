package groups

import (
	"bytes"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Client is who sends a request.
type Client struct {
	ID   string // as it names itself
	Host string // as describing the group shows it
}

// protocol is a way to assign partitions that a member knows, and what it says for it.
type protocol struct {
	name     string
	metadata []byte
}

// member is one of a group.
type member struct {
	id        string
	instance  *string // static members have one
	client    Client
	session   time.Duration
	rebalance time.Duration
	protocols []protocol // the most wanted first
	assigned  []byte

	// A new one has been told nothing yet: it is not expected to be heard of, but does not wait for ever.
	fresh bool
	// expires is when it is given up, unless it is heard of; zero while it waits for the others.
	expires time.Time
	// joining and syncing are the requests that wait for the others; nil if none does.
	joining *call[*kmsg.JoinGroupRequest, *kmsg.JoinGroupResponse]
	syncing *call[*kmsg.SyncGroupRequest, *kmsg.SyncGroupResponse]
}

// waits reports whether it has a request here, and so cannot be expected to be heard of otherwise.
func (m *member) waits() bool { return !m.fresh && (m.joining != nil || m.syncing != nil) }

// heard moves its end away.
func (m *member) heard(now time.Time) { m.expires = now.Add(m.session) }

// metadata returns what it says for a protocol.
func (m *member) metadata(name string) []byte {
	if i := m.find(name); i >= 0 {
		return m.protocols[i].metadata
	}
	return []byte{}
}

func (m *member) find(name string) int {
	return slices.IndexFunc(m.protocols, func(p protocol) bool { return p.name == name })
}

// says reports whether it has said the same before.
func (m *member) says(protocols []protocol) bool {
	return slices.EqualFunc(m.protocols, protocols, func(a, b protocol) bool {
		return a.name == b.name && bytes.Equal(a.metadata, b.metadata)
	})
}

// update takes over what a join says.
func (m *member) update(req *kmsg.JoinGroupRequest) {
	m.session, m.rebalance, m.protocols = timeouts(req), rebalanceTimeout(req), protocolsOf(req)
}

func timeouts(req *kmsg.JoinGroupRequest) time.Duration {
	return time.Duration(req.SessionTimeoutMillis) * time.Millisecond
}

// rebalanceTimeout: version 0 has none, and means the session's.
func rebalanceTimeout(req *kmsg.JoinGroupRequest) time.Duration {
	if req.Version == 0 || req.RebalanceTimeoutMillis < 0 {
		return timeouts(req)
	}
	return time.Duration(req.RebalanceTimeoutMillis) * time.Millisecond
}

// protocolsOf returns what a join lists, each name once, in bytes of its own: the request's may be used again.
func protocolsOf(req *kmsg.JoinGroupRequest) []protocol {
	var ps []protocol
	for _, p := range req.Protocols {
		if !slices.ContainsFunc(ps, func(q protocol) bool { return q.name == p.Name }) {
			ps = append(ps, protocol{p.Name, append([]byte{}, p.Metadata...)})
		}
	}
	return ps
}
