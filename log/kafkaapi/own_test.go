package kafkaapi_test

import (
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/kafkaapi"
)

// TestOwnGroups is K5 of groups: what remit itself has read is shown to every tool, and changed by remit alone.
func TestOwnGroups(t *testing.T) {
	const own = "remit.push.shop"
	s := serve(t, kafkaapi.Options{})
	s.topic(t, "orders", 2)
	p0, p1 := log.Partition{Topic: "orders"}, log.Partition{Topic: "orders", Index: 1}
	for range 5 {
		_, err := s.Append(ctx, log.Record{Partition: p0, Value: []byte("v")})
		must(t, err)
	}
	at := map[log.Partition]kafkaapi.Committed{p0: {Next: 3, Remark: "beyond"}, p1: {Next: 0}}
	must(t, s.server.Commit(ctx, own, at))
	if got, err := s.server.Committed(ctx, own); err != nil || !maps.Equal(got, at) {
		t.Errorf("%v is committed, %v", got, err)
	}
	if err := s.server.Commit(ctx, own, map[log.Partition]kafkaapi.Committed{{Topic: "orders", Index: 2}: {}}); !errors.Is(err, log.ErrUnknownTopic) {
		t.Error(err)
	}
	if names := s.server.Groups(ctx, "remit.push."); !slices.Equal(names, []string{own}) {
		t.Error(names)
	}

	c := s.client(t)
	a := kadm.NewClient(c)
	lags, err := a.Lag(bounded(t), own)
	must(t, err)
	if lag := lags[own].Lag.Total(); lags[own].State != "Empty" || lag != 2 {
		t.Errorf("tools see a lag of %d: %+v", lag, lags[own])
	}
	denied := kerr.GroupAuthorizationFailed
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: "orders", At: 0})
	committed, err := a.CommitOffsets(bounded(t), own, offsets)
	must(t, err)
	o, _ := committed.Lookup("orders", 0)
	wantCode(t, "commit", o.Err, denied)
	_, err = a.DeleteOffsets(bounded(t), own, kadm.TopicsSet{"orders": {0: {}}})
	wantCode(t, "delete offsets", err, denied)
	gone, err := a.DeleteGroups(bounded(t), own)
	must(t, err)
	wantCode(t, "delete", gone[own].Err, denied)
	member := s.client(t, kgo.ConsumerGroup(own), kgo.ConsumeTopics("orders"))
	wantCode(t, "join", member.PollFetches(bounded(t)).Err(), denied)
	if got, err := s.server.Committed(ctx, own); err != nil || !maps.Equal(got, at) {
		t.Errorf("after others have tried, %v is committed, %v", got, err)
	}

	must(t, s.server.ForgetGroup(ctx, own))
	must(t, s.server.ForgetGroup(ctx, own))
	if got, err := s.server.Committed(ctx, own); err != nil || len(got) > 0 {
		t.Errorf("of a group that is forgotten %v is committed, %v", got, err)
	}
}

// TestReads: whether a group reads a topic is known from its members, and from what it has committed.
func TestReads(t *testing.T) {
	s := serve(t, kafkaapi.Options{})
	s.topic(t, "orders", 1)
	s.topic(t, "orders.replay", 1)
	s.topic(t, "others", 1)
	_, err := s.Append(ctx, log.Record{Partition: log.Partition{Topic: "orders"}, Value: []byte("v")})
	must(t, err)
	member := s.client(t, kgo.ConsumerGroup("shop"), kgo.ConsumeTopics("orders", "orders.replay"))
	values(t, member, 1)
	for topic, want := range map[string]bool{"orders": true, "orders.replay": true, "others": false} {
		if s.server.Reads(ctx, "shop", topic) != want {
			t.Errorf("%s: %t", topic, !want)
		}
	}
	must(t, member.CommitUncommittedOffsets(bounded(t)))
	member.Close()
	for topic, want := range map[string]bool{"orders": true, "orders.replay": false} {
		if s.server.Reads(ctx, "shop", topic) != want {
			t.Errorf("without members, %s: %t", topic, !want)
		}
	}
	if s.server.Reads(ctx, "nobody", "orders") {
		t.Error("a group that is not there reads")
	}
}

// TestDeletedIsTold: who is told of a deletion hears of it before the topic can be made again, and before what was committed is dropped.
func TestDeletedIsTold(t *testing.T) {
	var s *served
	told := ""
	s = serve(t, kafkaapi.Options{Deleted: func(topic string) {
		_, err := s.Topic(ctx, topic)
		at, err2 := s.server.Committed(ctx, "remit.push.shop")
		if !errors.Is(err, log.ErrUnknownTopic) || err2 != nil || len(at) != 1 {
			t.Errorf("the topic: %v; committed: %v, %v", err, at, err2)
		}
		told = topic
	}})
	s.topic(t, "orders", 1)
	must(t, s.server.Commit(ctx, "remit.push.shop", map[log.Partition]kafkaapi.Committed{{Topic: "orders"}: {}}))
	must(t, s.server.DeleteTopic(ctx, "orders"))
	at, err := s.server.Committed(ctx, "remit.push.shop")
	if told != "orders" || len(at) > 0 || err != nil {
		t.Errorf("told of %q; %v is committed, %v", told, at, err)
	}
}
