package kafkaapi_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/remitlog/remit/log/kafka/kafkatest"
	"github.com/remitlog/remit/log/kafkaapi"
)

// differences are the calls whose answers differ from Apache Kafka's, and why; docs/kafka-api.md has them too.
var differences = map[string]string{
	"create on compact": "compaction is not there",
	"alter to compact":  "compaction is not there",
	"describe log dirs": "sizes are of rows, with what the log keeps beside a batch",
}

// TestAsApacheKafka asks both the same, call by call. What is a server's own (addresses, ids, epochs) is left out of the answers.
// Apache Kafka's broker applies some of what its controller has answered a moment later: where it differs, another is asked, and
// what differs three times differs.
func TestAsApacheKafka(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts Apache Kafka")
	}
	s := serve(t, kafkaapi.Options{})
	ours := transcript(t, s.address)
	var differ []string
	for try := range 3 {
		if try > 0 {
			t.Logf("asking again; differed:\n%s", strings.Join(differ, "\n"))
		}
		theirs := transcript(t, kafkatest.New(t).Addr)
		if differ = compared(t, ours, theirs); len(differ) == 0 {
			t.Logf("%d calls compared", len(theirs))
			return
		}
	}
	t.Error(strings.Join(differ, "\n"))
}

// compared returns the calls that differ and should not, and those that should and do not.
func compared(t *testing.T, ours, theirs map[string]string) (differ []string) {
	for _, call := range sortedKeys(theirs) {
		why, known := differences[call]
		switch {
		case ours[call] == theirs[call] && known:
			differ = append(differ, call+": is no difference any more")
		case ours[call] != theirs[call] && !known:
			differ = append(differ, fmt.Sprintf("%s:\n  remit        %s\n  Apache Kafka %s", call, ours[call], theirs[call]))
		case known:
			t.Logf("%s (%s):\n  remit        %s\n  Apache Kafka %s", call, why, ours[call], theirs[call])
		}
	}
	return differ
}

func sortedKeys(m map[string]string) []string {
	var ks []string
	for k := range m {
		ks = append(ks, k)
	}
	sort.Strings(ks)
	return ks
}

// transcript is what a server answers to a series of calls.
func transcript(t *testing.T, address string) map[string]string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	newClient := func(opts ...kgo.Opt) *kgo.Client {
		c, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(address), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.UnknownTopicRetries(1)}, opts...)...)
		must(t, err)
		t.Cleanup(c.Close)
		return c
	}
	c := newClient()
	a := kadm.NewClient(c)
	said := map[string]string{}
	say := func(call string, err error, parts ...any) {
		text := fmt.Sprint(parts...)
		if err != nil {
			text += "error " + codeName(err)
		}
		said[call] = text
	}
	ptr := func(s string) *string { return &s }
	create := func(call, topic string, partitions int32, replicas int16, configs map[string]*string) {
		r, err := a.CreateTopic(ctx, partitions, replicas, configs, topic)
		say(call, err, r.Topic, " ", r.NumPartitions, " ", r.ReplicationFactor, " ")
	}
	create("create", "t", 2, 1, map[string]*string{"retention.ms": ptr("3600000")})
	create("create again", "t", 2, 1, nil)
	create("create of no name", "no/name", 1, 1, nil)
	create("create of no partitions", "p", 0, 1, nil)
	create("create on compact", "compact", 1, 1, map[string]*string{"cleanup.policy": ptr("compact")})
	create("create on no number", "n", 1, 1, map[string]*string{"retention.ms": ptr("soon")})
	create("create on nothing known", "n", 1, 1, map[string]*string{"no.such.config": ptr("1")})
	create("create without replicas of its own", "r", 1, 2, nil)
	v, err := a.ValidateCreateTopics(ctx, 3, 1, nil, "dry")
	say("validate create", err, v["dry"].NumPartitions, v["dry"].Err)

	base := time.Now().Add(-time.Hour).Truncate(time.Second)
	for i := range 10 {
		r := &kgo.Record{Topic: "t", Partition: int32(i % 2), Timestamp: base.Add(time.Duration(i) * time.Second), Value: []byte(fmt.Sprint("value ", i))}
		must(t, c.ProduceSync(ctx, r).FirstErr())
	}
	for call, r := range map[string]*kgo.Record{
		"produce to no topic":     {Topic: "none", Value: []byte("v")},
		"produce to no partition": {Topic: "t", Partition: 9, Value: []byte("v")},
	} {
		say(call, newClient(kgo.RecordRetries(1)).ProduceSync(ctx, r).FirstErr())
	}
	topics, err := a.ListTopics(ctx, "t", "none")
	say("list topics", err, topicText(topics))
	all, err := a.ListTopics(ctx)
	names := all.Names()
	say("list all topics", err, slices.Contains(names, "t"), slices.Contains(names, "dry"), slices.Contains(names, "p"))
	for name, list := range map[string]func(context.Context, ...string) (kadm.ListedOffsets, error){
		"list start offsets": a.ListStartOffsets, "list end offsets": a.ListEndOffsets, "list committed offsets": a.ListCommittedOffsets,
		"list max time offsets": a.ListMaxTimestampOffsets,
	} {
		o, err := list(ctx, "t", "none")
		say(name, err, offsetText(o, base))
	}
	for name, at := range map[string]time.Duration{"first": 0, "middle": 3500 * time.Millisecond, "last": 9 * time.Second, "after": time.Minute} {
		o, err := a.ListOffsetsAfterMilli(ctx, base.Add(at).UnixMilli(), "t")
		say("list offsets after "+name, err, offsetText(o, base))
	}

	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: "t", Partition: 0, At: 2, LeaderEpoch: -1, Metadata: "m"})
	offsets.Add(kadm.Offset{Topic: "t", Partition: 1, At: 5, LeaderEpoch: -1})
	committed, err := a.CommitOffsets(ctx, "g", offsets)
	say("commit", err, committed.Error())
	fetched, err := a.FetchOffsets(ctx, "g")
	say("fetch offsets", err, fetchedText(fetched))
	fetched, err = a.FetchOffsets(ctx, "no group")
	say("fetch offsets of no group", err, fetchedText(fetched))
	lags, err := a.Lag(ctx, "g", "no group")
	say("lag", err, lagText(lags["g"]))
	say("lag of no group", nil, lags["no group"].State, " ", lags["no group"].FetchErr, " ", lags["no group"].Lag.Total())
	groups, err := a.ListGroups(ctx)
	g := groups["g"]
	say("list groups", err, len(groups), " ", g.Group, " ", g.State, " ", g.ProtocolType)
	described, err := a.DescribeGroups(ctx, "g", "no group")
	for _, name := range []string{"g", "no group"} {
		d := described[name]
		say("describe group "+name, err, d.State, " ", d.ProtocolType, " ", d.Protocol, " ", len(d.Members), " ", codeName(d.Err))
	}
	deleted, err := a.DeleteOffsets(ctx, "g", kadm.TopicsSet{"t": {1: {}}})
	say("delete offsets", err, deleted.Error())
	_, err = a.DeleteOffsets(ctx, "no group", kadm.TopicsSet{"t": {1: {}}})
	say("delete offsets of no group", err)
	groupMembers(ctx, say, a, newClient)
	dg, err := a.DeleteGroups(ctx, "g", "no group")
	say("delete groups", err, codeName(dg["g"].Err), " ", codeName(dg["no group"].Err))

	configs, err := a.DescribeTopicConfigs(ctx, "t", "none")
	say("describe configs", err, configText(configs))
	alter := func(call string, topic string, k kadm.AlterConfig) {
		r, err := a.AlterTopicConfigs(ctx, []kadm.AlterConfig{k}, topic)
		if err == nil {
			err = r[0].Err
		}
		say(call, err)
	}
	alter("alter", "t", kadm.AlterConfig{Op: kadm.SetConfig, Name: "retention.bytes", Value: ptr("1000000")})
	alter("alter no number", "t", kadm.AlterConfig{Op: kadm.SetConfig, Name: "retention.bytes", Value: ptr("many")})
	alter("alter nothing known", "t", kadm.AlterConfig{Op: kadm.SetConfig, Name: "no.such.config", Value: ptr("1")})
	alter("alter no topic", "none", kadm.AlterConfig{Op: kadm.SetConfig, Name: "retention.bytes", Value: ptr("1")})
	alter("alter to compact", "t", kadm.AlterConfig{Op: kadm.SetConfig, Name: "cleanup.policy", Value: ptr("compact")})
	alter("alter back", "t", kadm.AlterConfig{Op: kadm.DeleteConfig, Name: "retention.bytes"})
	alter("alter the policy back", "t", kadm.AlterConfig{Op: kadm.DeleteConfig, Name: "cleanup.policy"})
	for { // Apache Kafka's broker applies what its controller has answered a moment later
		configs, err = a.DescribeTopicConfigs(ctx, "t")
		if text := configText(configs); err != nil || !strings.Contains(text, "compact") && !strings.Contains(text, "1000000") {
			break
		}
	}
	say("describe configs again", err, configText(configs))

	trim := func(call string, o kadm.Offset) {
		offsets := kadm.Offsets{}
		offsets.Add(o)
		r, err := a.DeleteRecords(ctx, offsets)
		d, _ := r.Lookup(o.Topic, o.Partition)
		say(call, err, d.LowWatermark, " ", codeName(d.Err))
	}
	trim("delete records", kadm.Offset{Topic: "t", Partition: 0, At: 2})
	trim("delete records before the first", kadm.Offset{Topic: "t", Partition: 0, At: 1})
	trim("delete records beyond the end", kadm.Offset{Topic: "t", Partition: 0, At: 99})
	trim("delete records of no topic", kadm.Offset{Topic: "none", Partition: 0, At: 1})
	o, err := a.ListStartOffsets(ctx, "t")
	say("list start offsets after", err, offsetText(o, base))
	epochs := kadm.OffsetForLeaderEpochRequest{}
	epochs.Add("t", 0, 1<<30)
	ends, err := a.OffsetForLeaderEpoch(ctx, epochs)
	for _, p := range ends["t"] {
		say("offset of an epoch to come", err, p.LeaderEpoch, " ", p.EndOffset, " ", codeName(p.Err))
	}
	dirs, err := a.DescribeAllLogDirs(ctx, nil)
	sizes := int64(0)
	for _, d := range dirs {
		if p, ok := d.LookupPartition("t", 1); ok {
			sizes = p.Size
		}
	}
	say("describe log dirs", err, sizes)
	for call, n := range map[string]int{"create partitions": 4, "create as many partitions": 2} {
		topic := map[string]string{"create partitions": "t", "create as many partitions": "dry2"}[call]
		if topic == "dry2" {
			_, err := a.CreateTopic(ctx, 2, 1, nil, topic)
			must(t, err)
		}
		r, err := a.UpdatePartitions(ctx, n, topic)
		say(call, err, codeName(r[topic].Err))
	}
	parts, err := a.UpdatePartitions(ctx, 4, "none")
	say("create partitions of no topic", err, codeName(parts["none"].Err))
	dt, err := a.DeleteTopics(ctx, "t", "none")
	say("delete topics", err, codeName(dt["t"].Err), " ", codeName(dt["none"].Err))
	return said
}

// groupMembers describes a group while a member is in it.
func groupMembers(ctx context.Context, say func(string, error, ...any), a *kadm.Client, newClient func(...kgo.Opt) *kgo.Client) {
	m := newClient(kgo.ConsumerGroup("members"), kgo.ConsumeTopics("t"), kgo.ClientID("me"), kgo.DisableAutoCommit(),
		kgo.Balancers(kgo.RangeBalancer()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	n := 0
	for n < 10 {
		fs := m.PollFetches(ctx)
		if fs.Err0() != nil {
			break
		}
		n += fs.NumRecords()
	}
	say("read in a group", nil, n)
	err := m.CommitUncommittedOffsets(ctx)
	say("commit in a group", err)
	described, err := a.DescribeGroups(ctx, "members")
	d := described["members"]
	text := fmt.Sprint(d.State, " ", d.ProtocolType, " ", d.Protocol, " ", codeName(d.Err))
	for _, k := range d.Members {
		assigned, _ := k.Assigned.AsConsumer()
		text += fmt.Sprint(" ", k.ClientID, " ", k.ClientHost, " ", assigned.Topics[0].Topic, " ", assigned.Topics[0].Partitions)
	}
	say("describe a group with a member", err, text)
	dg, err := a.DeleteGroups(ctx, "members")
	say("delete a group with a member", err, codeName(dg["members"].Err))
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: "t", Partition: 0, At: 0, LeaderEpoch: -1})
	committed, err := a.CommitOffsets(ctx, "members", offsets)
	say("commit beside a member", err, codeName(committed.Error()))
	lags, err := a.Lag(ctx, "members")
	say("lag with a member", err, lagText(lags["members"]))
	m.Close()
	described, err = a.DescribeGroups(ctx, "members")
	say("describe a group that was left", err, described["members"].State, " ", len(described["members"].Members))
}

func codeName(err error) string {
	if err == nil {
		return "none"
	}
	if k := (*kerr.Error)(nil); errors.As(err, &k) {
		return k.Message
	}
	word, _, _ := strings.Cut(err.Error(), ":")
	return word
}

func topicText(ts kadm.TopicDetails) string {
	var b strings.Builder
	for _, t := range ts.Sorted() {
		fmt.Fprintf(&b, "%s %s internal=%t:", t.Topic, codeName(t.Err), t.IsInternal)
		for _, p := range t.Partitions.Sorted() {
			fmt.Fprintf(&b, " %d leader=%t replicas=%d isr=%d offline=%d", p.Partition, p.Leader >= 0, len(p.Replicas), len(p.ISR), len(p.OfflineReplicas))
		}
		b.WriteString("; ")
	}
	return b.String()
}

func offsetText(ls kadm.ListedOffsets, base time.Time) string {
	var b strings.Builder
	var all []kadm.ListedOffset
	ls.Each(func(o kadm.ListedOffset) { all = append(all, o) })
	slices.SortFunc(all, func(a, b kadm.ListedOffset) int {
		return cmp.Or(strings.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	for _, l := range all {
		at := l.Timestamp
		if at > 0 {
			at -= base.UnixMilli()
		}
		fmt.Fprintf(&b, "%s/%d %d at %d known=%t %s; ", l.Topic, l.Partition, l.Offset, at, l.LeaderEpoch >= 0, codeName(l.Err))
	}
	return b.String()
}

func fetchedText(os kadm.OffsetResponses) string {
	var b strings.Builder
	for _, o := range os.Sorted() {
		fmt.Fprintf(&b, "%s/%d %d %q %s; ", o.Topic, o.Partition, o.At, o.Metadata, codeName(o.Err))
	}
	return b.String()
}

func lagText(l kadm.DescribedGroupLag) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s members=%d total=%d:", l.State, l.Protocol, len(l.Members), l.Lag.Total())
	for _, m := range l.Lag.Sorted() {
		fmt.Fprintf(&b, " %s/%d at=%d end=%d lag=%d owned=%t", m.Topic, m.Partition, m.Commit.At, m.End.Offset, m.Lag, !m.IsEmpty())
	}
	return b.String()
}

// configText says of the configurations that remit has what they are.
func configText(rs kadm.ResourceConfigs) string {
	has := []string{"cleanup.policy", "compression.type", "message.timestamp.type", "min.insync.replicas", "retention.bytes", "retention.ms", "message.timestamp.after.max.ms"}
	var b strings.Builder
	for _, r := range rs {
		fmt.Fprintf(&b, "%s %s:", r.Name, codeName(r.Err))
		slices.SortFunc(r.Configs, func(a, b kadm.Config) int { return strings.Compare(a.Key, b.Key) })
		for _, k := range r.Configs {
			if slices.Contains(has, k.Key) && k.Key != "retention.ms" || k.Key == "retention.ms" && k.Source == kmsg.ConfigSourceDynamicTopicConfig {
				fmt.Fprintf(&b, " %s=%s own=%t", k.Key, k.MaybeValue(), k.Source == kmsg.ConfigSourceDynamicTopicConfig)
			}
		}
		b.WriteString("; ")
	}
	return b.String()
}
