package kafkaapi_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/embedded"
	"github.com/remitlog/remit/log/kafkaapi"
	"github.com/remitlog/remit/log/logtest"
)

// wantCode fails unless err is what the protocol calls want; nil for no error.
func wantCode(t *testing.T, what string, err error, want *kerr.Error) {
	t.Helper()
	if want == nil && err != nil || want != nil && !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func record(topic, value string) *kgo.Record { return &kgo.Record{Topic: topic, Value: []byte(value)} }

// K5, and every other refusal of what remit alone writes.
func TestReservedTopics(t *testing.T) {
	s := serve(t, kafkaapi.Options{AutoCreate: true})
	own := []string{log.EventsTopic, log.PaymentsTopic}
	for _, topic := range own {
		s.topic(t, topic, 1)
		_, err := s.Append(ctx, log.Record{Partition: log.Partition{Topic: topic}, Value: []byte("own")})
		must(t, err)
	}
	s.topic(t, log.AnswersTopic, 1)
	c := s.client(t, kgo.AllowAutoTopicCreation())
	a := kadm.NewClient(c)
	denied := kerr.TopicAuthorizationFailed
	for _, topic := range own {
		wantCode(t, "produce", c.ProduceSync(bounded(t), record(topic, "v")).FirstErr(), denied)
		del, err := a.DeleteTopics(bounded(t), topic)
		must(t, err)
		wantCode(t, "delete", del[topic].Err, denied)
		trim := kadm.Offsets{}
		trim.Add(kadm.Offset{Topic: topic, At: 1})
		recs, err := a.DeleteRecords(bounded(t), trim)
		must(t, err)
		wantCode(t, "delete records", recs[topic][0].Err, denied)
		parts, err := a.CreatePartitions(bounded(t), 1, topic)
		must(t, err)
		wantCode(t, "create partitions", parts[topic].Err, denied)
		value := "1000"
		cfg, err := a.AlterTopicConfigs(bounded(t), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: &value}}, topic)
		must(t, err)
		wantCode(t, "configure", cfg[0].Err, denied)
		cfg, err = a.AlterTopicConfigsState(bounded(t), []kadm.AlterConfig{{Name: "retention.ms", Value: &value}}, topic)
		must(t, err)
		wantCode(t, "configure all", cfg[0].Err, denied)
		reader := s.client(t, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}))
		if got := values(t, reader, 1); got[0] != "own" {
			t.Error(topic, got)
		}
	}
	for _, topic := range []string{"remit.new", "remit.registry"} {
		_, err := a.CreateTopic(bounded(t), 1, 1, nil, topic)
		wantCode(t, "create "+topic, err, denied)
	}
	must(t, c.ProduceSync(bounded(t), record(log.AnswersTopic, "v")).FirstErr())
	if all, err := s.Topics(ctx); err != nil || len(all) != 3 {
		t.Error(all, err)
	}
}

// K5: what holds secrets is listed, and not read, by name or by id, from the beginning or in a group.
func TestHiddenTopic(t *testing.T) {
	s := serve(t, kafkaapi.Options{})
	s.topic(t, log.RegistryTopic, 1)
	_, err := s.Append(ctx, log.Record{Partition: log.Partition{Topic: log.RegistryTopic}, Value: []byte("secret")})
	must(t, err)
	a := kadm.NewClient(s.client(t))
	if topics, err := a.ListTopicsWithInternal(bounded(t)); err != nil || !topics.Has(log.RegistryTopic) {
		t.Error(topics, err)
	}
	for what, opts := range map[string][]kgo.Opt{
		"partition": {kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{log.RegistryTopic: {0: kgo.NewOffset().AtStart()}})},
		"group":     {kgo.ConsumeTopics(log.RegistryTopic), kgo.ConsumerGroup("g"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())},
		"by name":   {kgo.MaxVersions(kversion.V3_0_0()), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{log.RegistryTopic: {0: kgo.NewOffset().AtStart()}})},
	} {
		fetches := s.client(t, opts...).PollFetches(bounded(t))
		if n := fetches.NumRecords(); n != 0 {
			t.Errorf("%s: %d records are read", what, n)
		}
		wantCode(t, what, fetches.Err(), kerr.TopicAuthorizationFailed)
	}
}

// AutoCreate makes what a client lets be made, and nothing else.
func TestAutoCreate(t *testing.T) {
	for _, auto := range []bool{true, false} {
		s := serve(t, kafkaapi.Options{AutoCreate: auto, Partitions: 3})
		err := s.client(t, kgo.AllowAutoTopicCreation(), kgo.UnknownTopicRetries(1)).ProduceSync(bounded(t), record("new", "v")).FirstErr()
		if auto {
			wantCode(t, "produce", err, nil)
			c, err := s.Topic(ctx, "new")
			if err != nil || c.Partitions != 3 {
				t.Error(c, err)
			}
		} else {
			wantCode(t, "produce", err, kerr.UnknownTopicOrPartition)
		}
		err = s.client(t, kgo.UnknownTopicRetries(1)).ProduceSync(bounded(t), record("unasked", "v")).FirstErr()
		wantCode(t, "produce unasked", err, kerr.UnknownTopicOrPartition)
		err = s.client(t, kgo.AllowAutoTopicCreation(), kgo.UnknownTopicRetries(1)).ProduceSync(bounded(t), record("no/name", "v")).FirstErr()
		if err == nil {
			t.Error("a topic of no name was made")
		}
		err = s.client(t, kgo.AllowAutoTopicCreation()).ProduceSync(bounded(t), record("remit.mine", "v")).FirstErr()
		wantCode(t, "produce to what would be remit's own", err, kerr.TopicAuthorizationFailed)
		_, err = s.Topic(ctx, "remit.mine")
		if !errors.Is(err, log.ErrUnknownTopic) {
			t.Error(err)
		}
	}
}

func TestTopics(t *testing.T) {
	inUse := errors.New("2 messages of topic busy are undecided")
	s := serve(t, kafkaapi.Options{Partitions: 5, InUse: func(topic string) error {
		if topic == "busy" {
			return inUse
		}
		return nil
	}})
	a := kadm.NewClient(s.client(t))
	ptr := func(s string) *string { return &s }
	for i, c := range []struct {
		partitions int32
		replicas   int16
		configs    map[string]*string
		topic      string
		want       *kerr.Error
	}{
		{4, 1, nil, "a", nil},
		{4, 1, nil, "a", kerr.TopicAlreadyExists},
		{-1, -1, map[string]*string{"retention.ms": ptr("60000"), "retention.bytes": ptr("1000000"), "cleanup.policy": ptr("delete")}, "b", nil},
		{1, 3, nil, "c", kerr.InvalidReplicationFactor},
		{0, 1, nil, "c", kerr.InvalidPartitions},
		{log.PartitionsMax + 1, 1, nil, "c", kerr.InvalidPartitions},
		{1, 1, map[string]*string{"cleanup.policy": ptr("compact")}, "c", kerr.InvalidConfig},
		{1, 1, map[string]*string{"no.such": ptr("1")}, "c", kerr.InvalidConfig},
		{1, 1, map[string]*string{"retention.ms": ptr("soon")}, "c", kerr.InvalidConfig},
		{1, 1, nil, "a b", kerr.InvalidTopicException},
		{1, 1, nil, "busy", nil},
	} {
		_, err := a.CreateTopic(bounded(t), c.partitions, c.replicas, c.configs, c.topic)
		wantCode(t, fmt.Sprint(i), err, c.want)
	}
	if b, err := s.Topic(ctx, "b"); err != nil || b != (log.TopicConfig{Name: "b", Partitions: 5, Retention: time.Minute, RetentionBytes: 1000000}) {
		t.Error(b, err)
	}
	set := func(name string, v *string, op kadm.IncrementalOp) error {
		r, err := a.AlterTopicConfigs(bounded(t), []kadm.AlterConfig{{Op: op, Name: name, Value: v}}, "b")
		must(t, err)
		return r[0].Err
	}
	wantCode(t, "set", set("retention.ms", ptr("5000"), kadm.SetConfig), nil)
	wantCode(t, "delete", set("retention.bytes", nil, kadm.DeleteConfig), nil)
	wantCode(t, "compact", set("cleanup.policy", ptr("compact"), kadm.SetConfig), kerr.InvalidConfig)
	wantCode(t, "append", set("cleanup.policy", ptr("compact"), kadm.AppendConfig), kerr.InvalidConfig)
	if b, err := s.Topic(ctx, "b"); err != nil || b.Retention != 5*time.Second || b.RetentionBytes != 0 {
		t.Error(b, err)
	}
	r, err := a.AlterTopicConfigsState(bounded(t), []kadm.AlterConfig{{Name: "retention.bytes", Value: ptr("77")}}, "b")
	must(t, err)
	wantCode(t, "all", r[0].Err, nil)
	if b, err := s.Topic(ctx, "b"); err != nil || b.Retention != 0 || b.RetentionBytes != 77 {
		t.Error(b, err)
	}
	described, err := a.DescribeTopicConfigs(bounded(t), "b", "none")
	must(t, err)
	for _, d := range described {
		if d.Name == "none" {
			wantCode(t, "describe", d.Err, kerr.UnknownTopicOrPartition)
			continue
		}
		for _, k := range d.Configs {
			if k.Key == "retention.bytes" && (k.MaybeValue() != "77" || k.Source != kmsg.ConfigSourceDynamicTopicConfig) {
				t.Error(k)
			}
		}
	}
	parts, err := a.UpdatePartitions(bounded(t), 8, "a")
	must(t, err)
	wantCode(t, "more partitions", parts["a"].Err, nil)
	parts, err = a.UpdatePartitions(bounded(t), 8, "a")
	must(t, err)
	wantCode(t, "as many", parts["a"].Err, kerr.InvalidPartitions)
	if c, err := s.Topic(ctx, "a"); err != nil || c.Partitions != 8 {
		t.Error(c, err)
	}
	del, err := a.DeleteTopics(bounded(t), "a", "busy", "none")
	must(t, err)
	wantCode(t, "delete", del["a"].Err, nil)
	wantCode(t, "in use", del["busy"].Err, kerr.PolicyViolation)
	if !strings.Contains(del["busy"].ErrMessage, "undecided") {
		t.Error(del["busy"])
	}
	wantCode(t, "not there", del["none"].Err, kerr.UnknownTopicOrPartition)
}

func TestOffsetsAndTrims(t *testing.T) {
	s := serve(t, kafkaapi.Options{})
	s.topic(t, "t", 2)
	began := time.Now().Truncate(time.Millisecond).Add(-time.Hour)
	p := s.client(t, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for i, minute := range []int{0, 3, 1, 2} { // times need not be in order
		must(t, p.ProduceSync(bounded(t), &kgo.Record{Topic: "t", Timestamp: began.Add(time.Duration(minute) * time.Minute), Value: []byte{byte(i)}}).FirstErr())
	}
	a := kadm.NewClient(p)
	check := func(what string, got kadm.ListedOffsets, err error, offset, ms int64) {
		t.Helper()
		must(t, err)
		if o := got["t"][0]; o.Err != nil || o.Offset != offset || o.Timestamp != ms {
			t.Errorf("%s: %+v, want %d of %d", what, o, offset, ms)
		}
	}
	got, err := a.ListStartOffsets(bounded(t), "t")
	check("earliest", got, err, 0, -1)
	got, err = a.ListEndOffsets(bounded(t), "t")
	check("latest", got, err, 4, -1)
	got, err = a.ListMaxTimestampOffsets(bounded(t), "t")
	check("max time", got, err, 1, began.Add(3*time.Minute).UnixMilli())
	at := func(d time.Duration) (kadm.ListedOffsets, error) {
		return a.ListOffsetsAfterMilli(bounded(t), began.Add(d).UnixMilli(), "t")
	}
	got, err = at(0)
	check("time 0", got, err, 0, began.UnixMilli())
	got, err = at(time.Millisecond)
	check("time 0:00.001", got, err, 1, began.Add(3*time.Minute).UnixMilli())
	got, err = at(4 * time.Minute) // kadm asks for the end then
	check("after all", got, err, 4, -1)

	trim := kadm.Offsets{}
	trim.Add(kadm.Offset{Topic: "t", At: 3})
	dr, err := a.DeleteRecords(bounded(t), trim)
	must(t, err)
	if r := dr["t"][0]; r.Err != nil || r.LowWatermark != 3 {
		t.Error(r)
	}
	trim.Add(kadm.Offset{Topic: "t", At: 9})
	dr, err = a.DeleteRecords(bounded(t), trim)
	must(t, err)
	wantCode(t, "beyond the end", dr["t"][0].Err, kerr.OffsetOutOfRange)
	got, err = a.ListStartOffsets(bounded(t), "t")
	check("earliest after the trim", got, err, 3, -1)

	for from, want := range map[int64]*kerr.Error{2: kerr.OffsetOutOfRange, 5: kerr.OffsetOutOfRange} {
		c := s.client(t, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"t": {0: kgo.NewOffset().At(from)}}), kgo.ConsumeResetOffset(kgo.NoResetOffset()))
		fs := c.PollFetches(bounded(t))
		if es := fs.Errors(); len(es) != 1 || !errors.Is(es[0].Err, want) {
			t.Errorf("from %d: %v", from, es)
		}
	}
	sizes, err := a.DescribeAllLogDirs(bounded(t), nil)
	must(t, err)
	if size := sizes[kafkaapi.NodeID].Size(); size < 60 {
		t.Errorf("%d bytes", size)
	}
}

// What is not there is refused with the protocol's own codes, and the connection lives on.
func TestNotSupported(t *testing.T) {
	s := serve(t, kafkaapi.Options{})
	s.topic(t, "t", 1)
	c := s.client(t, kgo.TransactionalID("tx"), kgo.RequestRetries(1))
	if err := c.BeginTransaction(); err == nil {
		err = c.ProduceSync(bounded(t), record("t", "v")).FirstErr()
		wantCode(t, "transaction", err, kerr.TransactionalIDAuthorizationFailed)
	}
	raw := dial(t, s)
	for _, q := range []kmsg.Request{kmsg.NewPtrConsumerGroupHeartbeatRequest(), kmsg.NewPtrShareGroupHeartbeatRequest(), kmsg.NewPtrDescribeACLsRequest(), kmsg.NewPtrEndTxnRequest()} {
		r := raw.ask(t, q)
		if code := errorCode(r); code != kerr.UnsupportedVersion.Code {
			t.Errorf("%s: %d", kmsg.NameForKey(q.Key()), code)
		}
	}
	if code := errorCode(raw.ask(t, kmsg.NewPtrSASLHandshakeRequest())); code != kerr.IllegalSaslState.Code {
		t.Errorf("SASL: %d", code)
	}
	q := kmsg.NewPtrApiVersionsRequest()
	advertised := map[int16]bool{}
	r := raw.ask(t, q).(*kmsg.ApiVersionsResponse)
	for _, k := range r.ApiKeys {
		advertised[k.ApiKey] = true
	}
	for _, key := range []int16{17, 24, 25, 26, 28, 29, 30, 36, 68, 69, 76, 78} {
		if advertised[key] {
			t.Errorf("%s is advertised", kmsg.NameForKey(key))
		}
	}
	if len(advertised) < 28 {
		t.Errorf("%d kinds of requests are advertised", len(advertised))
	}
}

// A client begins with a version of ApiVersions that is too new, is told the range, and goes on.
func TestApiVersionsAboveTheMaximum(t *testing.T) {
	raw := dial(t, serve(t, kafkaapi.Options{}))
	q := kmsg.NewPtrApiVersionsRequest()
	q.Version = 5
	r := raw.askAs(t, q, 0).(*kmsg.ApiVersionsResponse)
	if r.ErrorCode != kerr.UnsupportedVersion.Code || len(r.ApiKeys) != 1 || r.ApiKeys[0].ApiKey != 18 || r.ApiKeys[0].MaxVersion != 4 {
		t.Errorf("%+v", r)
	}
	q.Version = 4
	if r := raw.ask(t, q).(*kmsg.ApiVersionsResponse); r.ErrorCode != 0 || len(r.ApiKeys) < 20 {
		t.Errorf("%+v", r)
	}
}

// A fetch waits for what it asks for and no longer, without looking again and again.
func TestLongPoll(t *testing.T) {
	s := serve(t, kafkaapi.Options{})
	s.topic(t, "t", 2)
	append1 := func(p int32) {
		t.Helper()
		_, err := s.Append(ctx, log.Record{Partition: log.Partition{Topic: "t", Index: p}, Value: make([]byte, 1000)})
		must(t, err)
	}
	fetch := func(wait time.Duration, minBytes int32) (*kmsg.FetchResponse, time.Duration) {
		t.Helper()
		q := kmsg.NewPtrFetchRequest()
		q.Version, q.MaxWaitMillis, q.MinBytes, q.MaxBytes = 11, int32(wait.Milliseconds()), minBytes, 1<<20
		topic := kmsg.NewFetchRequestTopic()
		topic.Topic = "t"
		for p := range int32(2) {
			fp := kmsg.NewFetchRequestTopicPartition()
			fp.Partition, fp.PartitionMaxBytes = p, 1<<20
			topic.Partitions = append(topic.Partitions, fp)
		}
		q.Topics = append(q.Topics, topic)
		began := time.Now()
		r := dial(t, s).ask(t, q).(*kmsg.FetchResponse)
		return r, time.Since(began)
	}
	if _, took := fetch(200*time.Millisecond, 1); took < 200*time.Millisecond {
		t.Error("answered with nothing after", took)
	}
	if _, took := fetch(0, 1); took > 10*time.Second {
		t.Error("did not answer at once", took)
	}
	done := make(chan *kmsg.FetchResponse, 1)
	go func() {
		r, _ := fetch(20*time.Second, 2500)
		done <- r
	}()
	for p := range int32(2) {
		append1(p)
	}
	select {
	case <-done:
		t.Error("answered with 2000 bytes of 2500")
	case <-time.After(50 * time.Millisecond): // it must not come: there is nothing else to wait for
	}
	append1(0)
	r := <-done
	n := 0
	for _, p := range r.Topics[0].Partitions {
		n += len(p.RecordBatches)
		for rest := p.RecordBatches; len(rest) > 0; {
			b, more, err := log.ParseBatch(rest)
			must(t, err)
			_ = b
			rest = more
		}
	}
	if n < 2500 || r.Topics[0].Partitions[0].HighWatermark != 2 {
		t.Errorf("%d bytes, %+v", n, r.Topics[0].Partitions[0].HighWatermark)
	}
}

// K4: a client that goes on after the log was restored from a copy is told, whether it ran on or comes back with its place.
func TestRestoredLogIsTold(t *testing.T) {
	mem := vfs.NewCrashableMem()
	l := openLog(t, mem)
	must(t, l.CreateTopic(ctx, log.TopicConfig{Name: "t", Partitions: 1}))
	appendN := func(s *served, n int) {
		t.Helper()
		for range n {
			_, err := s.Append(ctx, log.Record{Partition: log.Partition{Topic: "t"}, Value: []byte("v")})
			must(t, err)
		}
	}
	s := serve(t, kafkaapi.Options{Log: l})
	appendN(s, 3)
	copied := mem.CrashClone(vfs.CrashCloneCfg{}) // the copy has 3 records
	s.close(t)
	s = serve(t, kafkaapi.Options{Log: openLog(t, mem)})
	cluster := s.server.ClusterID()
	appendN(s, 4)
	c := s.client(t, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"t": {0: kgo.NewOffset().AtStart()}}))
	var last *kgo.Record
	for last == nil || last.Offset < 6 {
		c.PollFetches(bounded(t)).EachRecord(func(r *kgo.Record) { last = r })
	}
	s.close(t)

	s = serve(t, kafkaapi.Options{Log: openLogAt(t, copied, time.Hour)}) // restored later
	if s.server.ClusterID() != cluster {
		t.Error("a copy has another cluster id")
	}
	appendN(s, 20) // its offset is there again, of another record
	back := s.client(t, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"t": {0: kgo.NewOffset().At(last.Offset + 1).WithEpoch(last.LeaderEpoch)}}))
	var loss *kgo.ErrDataLoss
	for read := 0; loss == nil && read < 20; {
		fs := back.PollFetches(bounded(t))
		for _, e := range fs.Errors() {
			if !errors.As(e.Err, &loss) {
				t.Fatal(e.Err)
			}
		}
		read += fs.NumRecords()
	}
	if loss == nil || loss.ConsumedTo != 7 || loss.ResetTo != 3 {
		t.Errorf("not told of what is lost: %v", loss)
	}
	other := serve(t, kafkaapi.Options{})
	if other.server.ClusterID() == cluster {
		t.Error("a new log has the same cluster id")
	}
}

// A topic that was deleted and made again is another one to clients that know topics by id.
func TestTopicIDs(t *testing.T) {
	s := serve(t, kafkaapi.Options{})
	s.topic(t, "t", 1)
	raw := dial(t, s)
	id := func() [16]byte {
		q := kmsg.NewPtrMetadataRequest()
		q.Version = 12
		r := raw.ask(t, q).(*kmsg.MetadataResponse)
		return r.Topics[0].TopicID
	}
	old := id()
	must(t, s.server.DeleteTopic(context.Background(), "t"))
	s.topic(t, "t", 1)
	if now := id(); now == old || now == ([16]byte{}) {
		t.Errorf("%x, was %x", now, old)
	}
	q := kmsg.NewPtrFetchRequest()
	q.Version = 13
	topic := kmsg.NewFetchRequestTopic()
	topic.TopicID = old
	topic.Partitions = append(topic.Partitions, kmsg.NewFetchRequestTopicPartition())
	q.Topics = append(q.Topics, topic)
	if r := raw.ask(t, q).(*kmsg.FetchResponse); r.Topics[0].Partitions[0].ErrorCode != kerr.UnknownTopicID.Code {
		t.Errorf("%+v", r)
	}
}

// Retention is what the configurations say, by time and by size.
func TestRetentionConfigs(t *testing.T) {
	clock := logtest.NewClock(time.Now().Truncate(time.Millisecond))
	l, err := embedded.Open(embedded.Options{Dir: "log", FS: vfs.NewMem(), Clock: clock.Now, RetentionEvery: time.Millisecond})
	must(t, err)
	s := serve(t, kafkaapi.Options{Log: l})
	a := kadm.NewClient(s.client(t))
	ms, bytes := "60000", "5000"
	_, err = a.CreateTopic(bounded(t), 1, 1, map[string]*string{"retention.ms": &ms}, "time")
	must(t, err)
	_, err = a.CreateTopic(bounded(t), 1, 1, map[string]*string{"retention.bytes": &bytes}, "size")
	must(t, err)
	first := func(topic string) log.Offset {
		t.Helper()
		first, _, err := s.Bounds(ctx, log.Partition{Topic: topic})
		must(t, err)
		return first
	}
	for range 10 {
		for _, topic := range []string{"time", "size"} {
			_, err := s.Append(ctx, log.Record{Partition: log.Partition{Topic: topic}, Value: make([]byte, 1000)})
			must(t, err)
		}
		clock.Advance(10 * time.Second)
	}
	// Within 60 s are those of the last six turns; 5000 bytes take five rows, not whole.
	for bounded := bounded(t); first("time") < 4 || first("size") < 5; {
		must(t, bounded.Err())
	}
	if at, size := first("time"), first("size"); at != 4 || size != 5 && size != 6 {
		t.Errorf("by time from %d on, by size from %d on", at, size)
	}
}
