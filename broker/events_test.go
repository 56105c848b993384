package broker

import (
	"reflect"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
)

// What is written without reflection is what json.Marshal writes, with all members, with none, and with each alone.
func TestFactsAppended(t *testing.T) {
	id, partition := log.NewID(time.Now(), "k"), int32(0)
	for _, full := range []fold.Appender{
		Prepared{
			ID: id, Name: "/s \"1\"\n", Fingerprint: log.FingerprintOf("x"), Topic: "t", Producer: "p", Key: "<é>\u2028",
			Event: jsontext.Value(`{"id":"1","data":{"a":[1,2.0,"x y"]}}`), DeliverAt: 5, DeliverAfter: -1, CheckAfter: 7, Schedule: DefaultSchedule,
		},
		Committed{Decision: Decision{ID: id, By: "me", Reason: "be\tcause"}, Partition: &partition, Precheck: true},
		PlacedAll{Places: []Place{{ID: id, Partition: 1, Offset: 2}, {ID: id}}},
	} {
		parts := reflect.ValueOf(full)
		all := []fold.Fact{full, reflect.Zero(parts.Type()).Interface().(fold.Fact)}
		for i := range parts.NumField() {
			one := reflect.New(parts.Type()).Elem()
			one.Field(i).Set(parts.Field(i))
			all = append(all, one.Interface().(fold.Fact))
		}
		for _, f := range all {
			want, err := json.Marshal(f)
			if err != nil {
				t.Fatal(err)
			}
			if got := f.(fold.Appender).AppendJSON(nil); string(got) != string(want) {
				t.Errorf("%s\nis not\n%s", got, want)
			}
		}
	}
	schedule := reflect.ValueOf(DefaultSchedule)
	for i := 1; i < schedule.NumField(); i++ { // the first is for CBOR
		p := Prepared{Event: jsontext.Value(`{}`)}
		reflect.ValueOf(&p.Schedule).Elem().Field(i).Set(schedule.Field(i))
		if want, err := json.Marshal(p); err != nil || string(p.AppendJSON(nil)) != string(want) {
			t.Errorf("%s\nis not\n%s %v", p.AppendJSON(nil), want, err)
		}
	}
}
