package groups_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/embedded"
	"github.com/remitlog/remit/log/kafkaapi/groups"
)

// notes is a Store in memory.
type notes struct {
	mu    sync.Mutex
	rows  map[string][]byte
	puts  atomic.Int64
	fail  error
	block chan struct{} // puts wait until it is closed; nil: they do not
}

func (n *notes) PutNotes(_ context.Context, puts ...groups.Note) error {
	n.puts.Add(1)
	if n.block != nil {
		<-n.block
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fail != nil {
		return n.fail
	}
	if n.rows == nil {
		n.rows = map[string][]byte{}
	}
	for _, p := range puts {
		if p.Value == nil {
			delete(n.rows, p.Key)
		} else {
			n.rows[p.Key] = p.Value
		}
	}
	return nil
}

func (n *notes) Notes(prefix string) (found []groups.Note, _ error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for k, v := range n.rows {
		if strings.HasPrefix(k, prefix) {
			found = append(found, groups.Note{Key: k, Value: v})
		}
	}
	slices.SortFunc(found, func(a, b groups.Note) int { return strings.Compare(a.Key, b.Key) })
	return found, nil
}

func coordinator(t testing.TB, o groups.Options) *groups.Coordinator {
	t.Helper()
	if o.Partitions == nil {
		o.Partitions = func(string) int { return 1 << 20 }
	}
	c, err := groups.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func commitOne(c *groups.Coordinator, group string, partition int32, offset int64) int16 {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Version, req.Group, req.Generation = 8, group, -1
	p := kmsg.NewOffsetCommitRequestTopicPartition()
	p.Partition, p.Offset = partition, offset
	req.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "t", Partitions: []kmsg.OffsetCommitRequestTopicPartition{p}}}
	return c.OffsetCommit(context.Background(), groups.Client{}, req).Topics[0].Partitions[0].ErrorCode
}

// What cannot be read stops the start and names the note.
func TestNotesThatCannotBeRead(t *testing.T) {
	for key, value := range map[string]string{
		"groups/group/g":          "\xff",
		"groups/generation/g":     "\x82\x02\x04", // of version 2
		"groups/offset/t/g":       "\x85\x01\x01\x20\x60\x00",
		"groups/offset/t/one/g":   "\x85\x01\x01\x20\x60\x00",
		"groups/something/else/g": "",
	} {
		_, err := groups.New(groups.Options{Store: &notes{rows: map[string][]byte{key: []byte(value)}}, Partitions: func(string) int { return 1 }})
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", key, err)
		}
	}
	if _, err := groups.New(groups.Options{}); err == nil {
		t.Error("without a store")
	}
}

// Offsets of a topic that is gone are dropped at the start: remit may have stopped between the two.
func TestLostTopic(t *testing.T) {
	n, there := &notes{}, true
	o := groups.Options{Store: n, Partitions: func(string) int {
		if there {
			return 8
		}
		return 0
	}}
	if code := commitOne(coordinator(t, o), "g", 3, 5); code != 0 {
		t.Fatal(word(code))
	}
	there = false
	coordinator(t, o)
	if left, _ := n.Notes(""); len(left) != 0 {
		t.Errorf("%v", left)
	}
}

// J1: commits that come while one is being written share the next sync, however many they are.
func TestCommitsShareASync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &notes{block: make(chan struct{})}
		c := coordinator(t, groups.Options{Store: n})
		const many = 500
		var tasks sync.WaitGroup
		for i := range int32(many) {
			tasks.Go(func() {
				if code := commitOne(c, fmt.Sprint("g", i%7), i, int64(i)); code != 0 {
					t.Error(word(code))
				}
			})
		}
		synctest.Wait() // one write is under way, and whatever it did not take waits for the next
		close(n.block)
		tasks.Wait()
		if puts := n.puts.Load(); puts > 2 {
			t.Errorf("%d commits took %d syncs", many, puts)
		}
		if rows, _ := n.Notes("groups/offset/"); len(rows) != many {
			t.Error(len(rows))
		}
	})
}

// A request whose connection is gone does not wait on, and Close answers what waits.
func TestWaitingEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &notes{}
		c := coordinator(t, groups.Options{Store: n, InitialDelay: time.Hour})
		j := kmsg.NewPtrJoinGroupRequest()
		j.Version, j.Group, j.ProtocolType, j.SessionTimeoutMillis, j.RebalanceTimeoutMillis = 3, "g", "consumer", 10_000, 3_600_000
		j.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range"}}
		ctx, cancel := context.WithCancel(t.Context())
		joined := make(chan int16, 2)
		ask := func(ctx context.Context) { joined <- c.JoinGroup(ctx, groups.Client{}, j).ErrorCode }
		go ask(ctx)
		synctest.Wait()
		cancel()
		if got := word(<-joined); got != "COORDINATOR_NOT_AVAILABLE" {
			t.Error(got)
		}
		go ask(t.Context())
		synctest.Wait()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if got := word(<-joined); got != "COORDINATOR_NOT_AVAILABLE" {
			t.Error(got)
		}
		if code := commitOne(c, "g", 0, 1); word(code) != "COORDINATOR_NOT_AVAILABLE" {
			t.Error(word(code))
		}
		if err := c.Close(); err != nil {
			t.Error("again", err)
		}
	})
}

// A group that is being deleted is not there and not gone: who asks waits, and commits to another group of its name.
func TestCommitWhileDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &notes{}
		c := coordinator(t, groups.Options{Store: n})
		if code := commitOne(c, "g", 0, 1); code != 0 {
			t.Fatal(word(code))
		}
		block := make(chan struct{})
		n.block = block
		deleted, committed := make(chan int16, 1), make(chan int16, 1)
		go func() {
			req := kmsg.NewPtrDeleteGroupsRequest()
			req.Groups = []string{"g"}
			deleted <- c.DeleteGroups(t.Context(), groups.Client{}, req).Groups[0].ErrorCode
		}()
		synctest.Wait()
		go func() { committed <- commitOne(c, "g", 1, 2) }()
		synctest.Wait()
		close(block)
		if d, m := <-deleted, <-committed; d != 0 || m != 0 {
			t.Error(word(d), word(m))
		}
		if rows, _ := n.Notes(""); len(rows) != 1 || rows[0].Key != "groups/offset/t/1/g" {
			t.Errorf("%v", rows)
		}
	})
}

// What a write is refused for is the client's to try again.
func TestRefusedWrite(t *testing.T) {
	n := &notes{fail: errors.New("full")}
	c := coordinator(t, groups.Options{Store: n})
	if code := commitOne(c, "g", 0, 1); word(code) != "COORDINATOR_NOT_AVAILABLE" {
		t.Error(word(code))
	}
	n.mu.Lock()
	n.fail = nil
	n.mu.Unlock()
	if code := commitOne(c, "g", 0, 1); code != 0 {
		t.Error(word(code))
	}
}

// FuzzRequests sends what bytes say: no sequence of requests stops the coordinator, whatever members say of themselves (J5).
func FuzzRequests(f *testing.F) {
	f.Add([]byte("\x00\x01\x02\x03\x04\x05"), []byte{0, 1, 0, 0, 0, 1, 0, 1, 't'}, "range", "sticky", "consumer")
	f.Add([]byte("\x10\x20\x10\x20\x31\x42\x53\x64\x75\x86"), []byte{0, 0, 0x7f, 0xff, 0xff, 0xff}, "a", "a", "")
	f.Add([]byte("\x02\x05"), []byte("0"), "0", "0", "\xff") // what is no UTF-8 was written and could not be read
	f.Fuzz(func(t *testing.T, script, metadata []byte, one, two, kind string) {
		synctest.Test(t, func(t *testing.T) {
			n := &notes{}
			o := groups.Options{Store: n, Partitions: func(string) int { return 4 }, MembersMax: 3, GroupsMax: 2, InitialDelay: -1}
			c, err := groups.New(o)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			ids := make([]string, 8)
			var mu sync.Mutex
			rng := rand.New(rand.NewPCG(uint64(len(script)), 1))
			for _, b := range script[:min(len(script), 64)] {
				who, group := int(b>>4)&7, fmt.Sprint("g", b>>7)
				mu.Lock()
				id := ids[who]
				mu.Unlock()
				go fuzzOne(ctx, c, b, group, id, metadata, []string{one, two}[:1+int(b>>5)&1], kind, func(id string) {
					mu.Lock()
					ids[who] = id
					mu.Unlock()
				})
				synctest.Wait()
				if b&15 == 15 {
					<-time.After(time.Duration(rng.IntN(20_000)) * time.Millisecond)
				}
			}
			cancel()
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			synctest.Wait()
			again, err := groups.New(o) // what was written can be read
			if err != nil {
				t.Fatal(err)
			}
			if err := again.Close(); err != nil {
				t.Error(err)
			}
		})
	})
}

func fuzzOne(ctx context.Context, c *groups.Coordinator, b byte, group, id string, metadata []byte, protocols []string, kind string, named func(string)) {
	var instance *string
	if b&64 != 0 {
		instance = &kind
	}
	switch b & 7 {
	case 0, 1, 2:
		req := kmsg.NewPtrJoinGroupRequest()
		req.Version, req.Group, req.MemberID, req.InstanceID, req.ProtocolType = int16(b&15)%10, group, id, instance, kind
		req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = 10_000, int32(b)*1000
		for _, p := range protocols {
			req.Protocols = append(req.Protocols, kmsg.JoinGroupRequestProtocol{Name: p, Metadata: metadata})
		}
		if r := c.JoinGroup(ctx, groups.Client{ID: "c"}, req); r.MemberID != "" {
			named(r.MemberID)
		}
	case 3, 4:
		req := kmsg.NewPtrSyncGroupRequest()
		req.Version, req.Group, req.MemberID, req.InstanceID, req.Generation = 3, group, id, instance, int32(b>>5)
		req.GroupAssignment = []kmsg.SyncGroupRequestGroupAssignment{{MemberID: id, MemberAssignment: metadata}, {MemberID: kind}}
		c.SyncGroup(ctx, groups.Client{}, req)
	case 5:
		req := kmsg.NewPtrLeaveGroupRequest()
		req.Version, req.Group, req.Members = 3, group, []kmsg.LeaveGroupRequestMember{{MemberID: id, InstanceID: instance}, {InstanceID: instance}}
		c.LeaveGroup(ctx, groups.Client{}, req)
	case 6:
		req := kmsg.NewPtrOffsetDeleteRequest()
		req.Group = group
		req.Topics = []kmsg.OffsetDeleteRequestTopic{{Topic: kind, Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{Partition: int32(b)}}}}
		c.OffsetDelete(ctx, groups.Client{}, req)
		del := kmsg.NewPtrDeleteGroupsRequest()
		del.Groups = []string{group}
		c.DeleteGroups(ctx, groups.Client{}, del)
	default:
		commitOne(c, group, int32(b>>6), int64(b))
		req := kmsg.NewPtrHeartbeatRequest()
		req.Group, req.MemberID, req.Generation = group, id, int32(b>>5)
		c.Heartbeat(ctx, groups.Client{}, req)
	}
}

// BenchmarkCommit commits offsets of 64 groups at once, on a real disk.
func BenchmarkCommit(b *testing.B) {
	l, err := embedded.Open(embedded.Options{Dir: b.TempDir(), FS: vfs.Default, Fatal: func(err error) { b.Error(err) }})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if err := l.CreateTopic(b.Context(), log.TopicConfig{Name: "t", Partitions: 64}); err != nil {
		b.Fatal(err)
	}
	c := coordinator(b, groups.Options{Store: l})
	var who atomic.Int32
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		i := who.Add(1)
		for n := int64(0); pb.Next(); n++ {
			if code := commitOne(c, fmt.Sprint("g", i), i%64, n); code != 0 {
				b.Error(word(code))
			}
		}
	})
}
