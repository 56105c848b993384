package groups

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/twmb/franz-go/pkg/kerr"
)

// Notes. Keys and the order of fields are for ever; a value begins with its version.
//
//	groups/group/GROUP                   ->  groupRow: the last generation that was assigned, or that nobody is left
//	groups/generation/GROUP              ->  generationRow: the last generation that was given
//	groups/offset/TOPIC/PARTITION/GROUP  ->  offsetRow
//
// A topic has no slash in its name; a group may.
const (
	prefix           = "groups/"
	prefixGroup      = prefix + "group/"
	prefixGeneration = prefix + "generation/"
	prefixOffset     = prefix + "offset/"

	rowVersion = 1
)

type groupRow struct {
	_          struct{} `cbor:",toarray"`
	Version    int
	Generation int32
	Kind       string
	Protocol   string
	Leader     string
	Since      int64 // milliseconds
	Members    []memberRow
}

type memberRow struct {
	_         struct{} `cbor:",toarray"`
	ID        string
	Instance  *string
	ClientID  string
	Host      string
	Session   int64 // milliseconds
	Rebalance int64 // milliseconds
	Metadata  []byte
	Assigned  []byte
}

type generationRow struct {
	_          struct{} `cbor:",toarray"`
	Version    int
	Generation int32
}

type offsetRow struct {
	_           struct{} `cbor:",toarray"`
	Version     int
	Offset      int64
	LeaderEpoch int32
	Metadata    string
	Committed   int64 // milliseconds
}

var encMode = func() cbor.EncMode {
	m, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(err)
	}
	return m
}()

// decMode takes strings as clients send them, which need not be UTF-8, and as many members as there were.
var decMode = func() cbor.DecMode {
	m, err := cbor.DecOptions{UTF8: cbor.UTF8DecodeInvalid, MaxArrayElements: math.MaxInt32}.DecMode()
	if err != nil {
		panic(err)
	}
	return m
}()

func encode(key string, row any) Note {
	b, err := encMode.Marshal(row)
	if err != nil {
		panic(fmt.Errorf("groups: %s: %w", key, err)) // of strings and numbers: it cannot fail
	}
	return Note{Key: key, Value: b}
}

// decode reads a row. All begin with their version.
func decode(n Note, row any, version *int) error {
	if err := decMode.Unmarshal(n.Value, row); err != nil {
		return fmt.Errorf("groups: note %q cannot be read: written by a newer version, or corrupt: %w", n.Key, err)
	}
	if *version != rowVersion {
		return fmt.Errorf("groups: note %q has version %d, not %d: written by a newer version, or corrupt", n.Key, *version, rowVersion)
	}
	return nil
}

func generationNote(group string, generation int32) Note {
	return encode(prefixGeneration+group, generationRow{Version: rowVersion, Generation: generation})
}

func offsetKey(tp topicPartition, group string) string {
	return prefixOffset + tp.topic + "/" + strconv.Itoa(int(tp.partition)) + "/" + group
}

func offsetNote(tp topicPartition, group string, o offset) Note {
	return encode(offsetKey(tp, group), offsetRow{
		Version: rowVersion, Offset: o.at, LeaderEpoch: o.leaderEpoch, Metadata: o.metadata, Committed: o.committed.UnixMilli(),
	})
}

// parseOffsetKey undoes offsetKey.
func parseOffsetKey(key string) (tp topicPartition, group string, err error) {
	parts := strings.SplitN(strings.TrimPrefix(key, prefixOffset), "/", 3)
	if len(parts) != 3 {
		return tp, "", fmt.Errorf("groups: note %q names no group", key)
	}
	n, err := strconv.ParseInt(parts[1], 10, 32)
	if err != nil {
		return tp, "", fmt.Errorf("groups: note %q names no partition: %w", key, err)
	}
	return topicPartition{parts[0], int32(n)}, parts[2], nil
}

// assignments are those of the members as they stand.
func (g *group) assignments() map[string][]byte {
	assigned := map[string][]byte{}
	for _, m := range g.members {
		assigned[m.id] = m.assigned
	}
	return assigned
}

// writeRow writes the group as it stands, with these assignments.
func (g *group) writeRow(assigned map[string][]byte, done func(now time.Time, refused *kerr.Error)) {
	row := groupRow{
		Version: rowVersion, Generation: g.generation, Kind: g.kind, Protocol: g.protocol, Leader: g.leader, Since: g.since.UnixMilli(),
	}
	bytes := 0
	for _, m := range g.all() {
		r := memberRow{
			ID: m.id, Instance: m.instance, ClientID: m.client.ID, Host: m.client.Host,
			Session: m.session.Milliseconds(), Rebalance: m.rebalance.Milliseconds(), Metadata: m.metadata(g.protocol), Assigned: assigned[m.id],
		}
		bytes += len(r.ID) + len(r.ClientID) + len(r.Host) + len(r.Metadata) + len(r.Assigned)
		row.Members = append(row.Members, r)
	}
	if bytes > GroupBytesMax {
		g.later(nil, func(now time.Time, _ error) { done(now, kerr.PolicyViolation) })
		return
	}
	g.later([]Note{encode(prefixGroup+g.id, row)}, func(now time.Time, err error) { done(now, unwritten(err)) })
}

// unwritten is what a client is told when a write was refused: to try again. The disk may be full; or remit is stopping, and
// the outcome is not known.
func unwritten(err error) *kerr.Error {
	if err == nil {
		return nil
	}
	return kerr.CoordinatorNotAvailable
}

// restore makes a group of its row. Its members have their whole session again to be heard of.
func (g *group) restore(now time.Time, row *groupRow) {
	g.generation, g.kind, g.protocol, g.since = row.Generation, row.Kind, row.Protocol, time.UnixMilli(row.Since)
	for _, r := range row.Members {
		m := &member{
			id: r.ID, instance: r.Instance, client: Client{r.ClientID, r.Host},
			session: time.Duration(r.Session) * time.Millisecond, rebalance: time.Duration(r.Rebalance) * time.Millisecond,
			protocols: []protocol{{row.Protocol, r.Metadata}}, assigned: r.Assigned,
		}
		m.heard(now)
		g.add(m, row.Kind)
	}
	if len(g.members) > 0 {
		g.state, g.shown, g.leader = StateStable, StateStable, row.Leader
	}
	g.subscribe()
}
