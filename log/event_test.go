package log_test

import (
	"bytes"
	jsonv1 "encoding/json"
	"errors"
	"math/rand/v2"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/types"
	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/remitlog/remit/log"
)

var (
	aPartition = log.Partition{Topic: "mytopic", Index: 3}
	noon       = time.Date(2018, 4, 5, 17, 31, 0, 0, time.UTC)
)

// header is short for a record header.
func header(key, value string) log.Header { return log.Header{Key: key, Value: []byte(value)} }

// The example of section 3.2.5 of the Kafka binding, both ways.
func TestKafkaBindingBinaryExample(t *testing.T) {
	r := log.Record{
		Partition: aPartition,
		Key:       []byte("mykey"),
		Headers: []log.Header{
			header("ce_specversion", "1.0"),
			header("ce_type", "com.example.someevent"),
			header("ce_source", "/mycontext/subcontext"),
			header("ce_id", "1234-1234-1234"),
			header("ce_time", "2018-04-05T03:56:24Z"),
			header("content-type", "application/avro"),
		},
		Value: []byte("... application data encoded in Avro ..."),
	}
	want := log.Event{
		ID: "1234-1234-1234", Source: "/mycontext/subcontext", Type: "com.example.someevent",
		Time: time.Date(2018, 4, 5, 3, 56, 24, 0, time.UTC), DataContentType: "application/avro",
		Key: "mykey", Data: r.Value,
	}
	e, err := log.ParseRecord(r)
	same(t, e, err, want)

	back := e.Record(aPartition)
	wantHeaders := []log.Header{
		header("ce_specversion", "1.0"),
		header("ce_id", "1234-1234-1234"),
		header("ce_source", "/mycontext/subcontext"),
		header("ce_type", "com.example.someevent"),
		header("ce_time", "2018-04-05T03:56:24Z"),
		header("ce_partitionkey", "mykey"), // the attribute stays with the event (section 3.1)
		header("content-type", "application/avro"),
	}
	if !reflect.DeepEqual(back.Headers, wantHeaders) {
		t.Errorf("headers\n%s\nwant\n%s", back.Headers, wantHeaders)
	}
	if string(back.Key) != "mykey" || !bytes.Equal(back.Value, r.Value) || !back.Time.Equal(want.Time) {
		t.Errorf("record %+v", back)
	}
}

// The example of section 3.3.4 of the Kafka binding, its data being a string as the JSON format has it.
func TestKafkaBindingStructuredExample(t *testing.T) {
	r := log.Record{
		Partition: aPartition,
		Time:      noon,
		Key:       []byte("mykey"),
		Headers:   []log.Header{header("content-type", "application/cloudevents+json; charset=UTF-8")},
		Value: []byte(`{
			"specversion" : "1.0",
			"type" : "com.example.someevent",
			"source" : "/mycontext/subcontext",
			"id" : "1234-1234-1234",
			"time" : "2018-04-05T03:56:24Z",
			"datacontenttype" : "application/xml",
			"data" : "<much wow=\"xml\"/>"
		}`),
	}
	e, err := log.ParseRecord(r)
	same(t, e, err, log.Event{
		ID: "1234-1234-1234", Source: "/mycontext/subcontext", Type: "com.example.someevent",
		Time: time.Date(2018, 4, 5, 3, 56, 24, 0, time.UTC), DataContentType: "application/xml",
		Key: "mykey", RecordedTime: noon, Data: []byte(`<much wow="xml"/>`),
	})
}

// Section 3.2.2 of the Kafka binding: no data is no value. Empty data is not no data.
func TestKafkaNoDataIsNoValue(t *testing.T) {
	for _, data := range [][]byte{nil, {}} {
		e := log.Event{ID: "1", Source: "/s", Type: "t", Data: data}
		r := e.Record(aPartition)
		if (r.Value == nil) != (data == nil) {
			t.Errorf("data %#v became the value %#v", data, r.Value)
		}
		back, err := log.ParseRecord(r)
		same(t, back, err, e)
	}
}

func TestRecordTime(t *testing.T) {
	for _, c := range []struct{ time, recorded, want time.Time }{
		{want: time.Time{}},
		{time: noon, want: noon},
		{time: noon, recorded: noon.Add(time.Hour), want: noon.Add(time.Hour)},
		{time: noon.Add(1234567 * time.Nanosecond), want: noon.Add(time.Millisecond)},
		{time: time.Date(1960, 1, 1, 0, 0, 0, 0, time.UTC), want: time.Time{}}, // a record cannot say it
	} {
		e := log.Event{ID: "1", Source: "/s", Type: "t", Time: c.time, RecordedTime: c.recorded}
		if got := e.Record(aPartition).Time; got != c.want {
			t.Errorf("time %v, recorded %v: the record's time is %v, want %v", c.time, c.recorded, got, c.want)
		}
	}
	// And back: a record time that is none, or that RFC 3339 cannot write, is passed over.
	for _, ms := range []int64{-1, -1 << 62, 1 << 62} {
		r := (&log.Event{ID: "1", Source: "/s", Type: "t"}).Record(aPartition)
		r.Time = time.UnixMilli(ms)
		if e, err := log.ParseRecord(r); err != nil || !e.RecordedTime.IsZero() {
			t.Errorf("record time %d: recordedtime %v, %v", ms, e.RecordedTime, err)
		}
	}
}

func TestParseRecordRefuses(t *testing.T) {
	good := []log.Header{header("ce_specversion", "1.0"), header("ce_id", "1"), header("ce_source", "/s"), header("ce_type", "t")}
	with := func(more ...log.Header) log.Record {
		return log.Record{Headers: append(good[:len(good):len(good)], more...)}
	}
	for _, c := range []struct {
		name      string
		r         log.Record
		err       error
		attribute string
	}{
		{"no event at all", log.Record{Value: []byte("hello")}, log.ErrNotEvent, "specversion"},
		{"no version", log.Record{Headers: good[1:]}, log.ErrNotEvent, "specversion"},
		{"no type", log.Record{Headers: good[:3]}, log.ErrNotEvent, "type"},
		{"empty id", log.Record{Headers: []log.Header{good[0], header("ce_id", ""), good[2], good[3]}}, log.ErrNotEvent, "id"},
		{"other version", log.Record{Headers: append([]log.Header{header("ce_specversion", "0.3")}, good[1:]...)}, log.ErrNotEvent, "specversion"},
		{"twice", with(header("ce_id", "1")), log.ErrNotEvent, "id"},
		{"extension twice", with(header("ce_x", "1"), header("ce_x", "1")), log.ErrNotEvent, "x"},
		{"content type twice", with(header("content-type", "a/b"), header("Content-Type", "a/b")), log.ErrNotEvent, "datacontenttype"},
		{"ce_datacontenttype", with(header("ce_datacontenttype", "a/b")), log.ErrNotEvent, "datacontenttype"},
		{"upper case", with(header("ce_Foo", "1")), log.ErrNotEvent, "Foo"},
		{"no name", with(header("ce_", "1")), log.ErrNotEvent, ""},
		{"reserved name", with(header("ce_data", "1")), log.ErrNotEvent, "data"},
		{"time", with(header("ce_time", "yesterday")), log.ErrNotEvent, "time"},
		{"time before the year 0", with(header("ce_time", "0000-01-01T00:00:00+01:00")), log.ErrNotEvent, "time"},
		{"recorded time", with(header("ce_recordedtime", "2018-04-05")), log.ErrNotEvent, "recordedtime"},
		{"control character", with(header("ce_subject", "a\nb")), log.ErrNotEvent, "subject"},
		{"noncharacter", with(header("ce_subject", "a\ufffeb")), log.ErrNotEvent, "subject"},
		{"not UTF-8", with(header("ce_x", "a\xff")), log.ErrNotEvent, "x"},
		{"batch", with(header("content-type", "application/cloudevents-batch+json")), log.ErrEventFormat, ""},
		{"other format", with(header("content-type", "APPLICATION/CloudEvents+avro")), log.ErrEventFormat, ""},
		{"other charset", with(header("content-type", "application/cloudevents+json; charset=latin1")), log.ErrEventFormat, ""},
		{"structured and no value", with(header("content-type", "application/cloudevents+json")), log.ErrNotEvent, ""},
	} {
		_, err := log.ParseRecord(c.r)
		refused(t, c.name, err, c.err, c.attribute)
	}
	r := with()
	r.Key = []byte{0xff}
	_, err := log.ParseRecord(r)
	refused(t, "a key of bytes", err, log.ErrNotEvent, "partitionkey")
	r.Headers = append(r.Headers, header("ce_partitionkey", "alice")) // which the event goes by
	if e, err := log.ParseRecord(r); err != nil || e.Key != "alice" {
		t.Errorf("key %q, %v", e.Key, err)
	}
}

// The examples of section 3.2 of the JSON format, each beside its form in HTTP binary mode.
func TestJSONFormatExamples(t *testing.T) {
	const head = `"specversion" : "1.0", "type" : "com.example.someevent", "source" : "/mycontext",
		"time" : "2018-04-05T17:31:00Z", "comexampleextension1" : "value", "comexampleothervalue" : 5, `
	for _, c := range []struct {
		name, json, id, contentType, data string
	}{
		{"binary", `{` + head + `"id" : "A234-1234-1234", "datacontenttype" : "application/vnd.apache.thrift.binary", "data_base64" : "AAEC/w=="}`,
			"A234-1234-1234", "application/vnd.apache.thrift.binary", "\x00\x01\x02\xff"},
		{"XML", `{` + head + `"id" : "B234-1234-1234", "unsetextension": null, "datacontenttype" : "application/xml", "data" : "<much wow=\"xml\"/>"}`,
			"B234-1234-1234", "application/xml", `<much wow="xml"/>`},
		{"JSON object", `{` + head + `"subject": null, "id" : "C234-1234-1234", "datacontenttype" : "application/json", "data" : {"appinfoA" : "abc", "appinfoB" : 123, "appinfoC" : true}}`,
			"C234-1234-1234", "application/json", `{"appinfoA" : "abc", "appinfoB" : 123, "appinfoC" : true}`},
		{"JSON number", `{` + head + `"subject": null, "id" : "C234-1234-1234", "datacontenttype" : "application/json", "data" : 1.5}`,
			"C234-1234-1234", "application/json", `1.5`},
		{"JSON string, content type implied", `{` + head + `"subject": null, "id" : "D234-1234-1234", "data" : "I'm just a string"}`,
			"D234-1234-1234", "application/json", `"I'm just a string"`},
	} {
		e, err := log.ParseStructured([]byte(c.json))
		same(t, e, err, log.Event{
			ID: c.id, Source: "/mycontext", Type: "com.example.someevent", Time: noon, DataContentType: c.contentType,
			Extensions: map[string]any{"comexampleextension1": "value", "comexampleothervalue": int32(5)}, Data: []byte(c.data),
		})
		h, body := e.HTTP()
		if want := (http.Header{
			"Ce-Specversion": {"1.0"}, "Ce-Type": {"com.example.someevent"}, "Ce-Source": {"/mycontext"}, "Ce-Id": {c.id},
			"Ce-Time": {"2018-04-05T17:31:00Z"}, "Ce-Comexampleextension1": {"value"}, "Ce-Comexampleothervalue": {"5"},
			"Content-Type": {c.contentType},
		}); !reflect.DeepEqual(h, want) || string(body) != c.data {
			t.Errorf("%s: HTTP\n%v %q\nwant\n%v %q", c.name, h, body, want, c.data)
		}
	}

	// The last: binary data and no content type, which is then not made up either.
	e, err := log.ParseStructured([]byte(`{"specversion" : "1.0", "type" : "com.example.someevent", "source" : "/mycontext",
		"id" : "D234-1234-1234", "data_base64" : "eyAieHl6IjogMTIzIH0="}`))
	same(t, e, err, log.Event{ID: "D234-1234-1234", Source: "/mycontext", Type: "com.example.someevent", Data: []byte(`{ "xyz": 123 }`)})
	if h, _ := e.HTTP(); h.Values("Content-Type") != nil {
		t.Errorf("content type %q", h.Values("Content-Type"))
	}
}

// The examples of section 4.3 of the JSON format, and batches that are none.
func TestJSONBatchExamples(t *testing.T) {
	const two = `[
		{"specversion" : "1.0", "type" : "com.example.someevent", "source" : "/mycontext/4", "id" : "B234-1234-1234",
		 "time" : "2018-04-05T17:31:00Z", "comexampleextension1" : "value", "comexampleothervalue" : 5,
		 "datacontenttype" : "application/vnd.apache.thrift.binary", "data_base64" : "AAEC/w=="},
		{"specversion" : "1.0", "type" : "com.example.someotherevent", "source" : "/mycontext/9", "id" : "C234-1234-1234",
		 "time" : "2018-04-05T17:31:05Z", "comexampleextension1" : "value", "comexampleothervalue" : 5,
		 "datacontenttype" : "application/json", "data" : {"appinfoA" : "abc", "appinfoB" : 123, "appinfoC" : true}}
	]`
	events, err := log.ParseStructuredBatch([]byte(two))
	if err != nil || len(events) != 2 || events[0].ID != "B234-1234-1234" || string(events[0].Data) != "\x00\x01\x02\xff" ||
		events[1].Source != "/mycontext/9" || string(events[1].Data) != `{"appinfoA" : "abc", "appinfoB" : 123, "appinfoC" : true}` {
		t.Errorf("%+v, %v", events, err)
	}
	viaHTTP, err := log.ParseHTTP(http.Header{"Content-Type": {"application/cloudevents-batch+json; charset=utf-8"}}, []byte(two))
	if err != nil || !reflect.DeepEqual(viaHTTP, events) {
		t.Errorf("%+v, %v", viaHTTP, err)
	}
	if events, err := log.ParseStructuredBatch([]byte(`[]`)); err != nil || events == nil || len(events) != 0 {
		t.Errorf("an empty batch: %v, %v", events, err)
	}
	for _, b := range []string{``, `{}`, `[`, `[]]`, `[1]`, `[{}`, `[],`, `null`} {
		if _, err := log.ParseStructuredBatch([]byte(b)); !errors.Is(err, log.ErrNotEvent) {
			t.Errorf("%s: %v", b, err)
		}
	}
	_, err = log.ParseStructuredBatch([]byte(strings.Replace(two, `"id" : "C234-1234-1234",`, ``, 1)))
	refused(t, "no id in the second", err, log.ErrNotEvent, "id")
	if at := (*log.EventError)(nil); !errors.As(err, &at) || at.Index != 1 || !strings.Contains(err.Error(), "event 1 of the batch") {
		t.Errorf("%v", err)
	}
}

func TestParseStructuredRefuses(t *testing.T) {
	const good = `"specversion":"1.0","id":"1","source":"/s","type":"t"`
	if _, err := log.ParseStructured([]byte(` {` + good + `} `)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ json, attribute string }{
		{``, ""}, {`[]`, ""}, {`"x"`, ""}, {`{` + good, ""}, {`{` + good + `}{}`, ""}, {`{` + good + `,}`, ""}, {`{` + good + `}x`, ""},
		{`{"id":"1","source":"/s","type":"t"}`, "specversion"},
		{`{"specversion":null,"id":"1","source":"/s","type":"t"}`, "specversion"},
		{`{"specversion":"0.3","id":"1","source":"/s","type":"t"}`, "specversion"},
		{`{"specversion":1.0,"id":"1","source":"/s","type":"t"}`, "specversion"},
		{`{"specversion":"1.0","source":"/s","type":"t"}`, "id"},
		{`{"specversion":"1.0","id":"","source":"/s","type":"t"}`, "id"},
		{`{"specversion":"1.0","id":"1","source":null,"type":"t"}`, "source"},
		{`{"specversion":"1.0","id":"1","source":"/s"}`, "type"},
		{`{"specversion":"1.0","id":5,"source":"/s","type":"t"}`, "id"},
		{`{` + good + `,"id":"1"}`, "id"},
		{`{` + good + `,"\u0069d":"1"}`, "id"},
		{`{` + good + `,"subject":null,"subject":"x"}`, "subject"},
		{`{` + good + `,"x":"1","x":2}`, "x"},
		{`{` + good + `,"x":null,"x":2}`, "x"},
		{`{` + good + `,"x":null,"x":null}`, "x"},
		{`{` + good + `,"Foo":"1"}`, "Foo"},
		{`{` + good + `,"a_b":null}`, "a_b"},
		{`{` + good + `,"":"1"}`, ""},
		{`{` + good + `,"x":1.5}`, "x"},
		{`{` + good + `,"x":1e3}`, "x"},
		{`{` + good + `,"x":2147483648}`, "x"},
		{`{` + good + `,"x":{}}`, "x"},
		{`{` + good + `,"x":["a"]}`, "x"},
		{`{` + good + `,"x":"a\nb"}`, "x"},
		{`{` + good + `,"x":"\udead"}`, ""}, // no JSON
		{`{` + good + `,"x":"\uffff"}`, "x"},
		{`{` + good + `,"time":"2018-04-05"}`, "time"},
		{`{` + good + `,"time":"2018-04-05T17:31:00,5Z"}`, "time"},
		{`{` + good + `,"time":"2018-04-05T7:31:00Z"}`, "time"},
		{`{` + good + `,"time":"2018-04-05T17:31:00+24:00"}`, "time"},
		{`{` + good + `,"time":"2018-04-05T17:31:00+01:60"}`, "time"},
		{`{` + good + `,"time":"2018-04-05 17:31:00Z"}`, "time"},
		{`{` + good + `,"time":"2018-04-05T17:31:00"}`, "time"},
		{`{` + good + `,"time":"2018-02-30T17:31:00Z"}`, "time"},
		{`{` + good + `,"partitionkey":5}`, "partitionkey"},
		{`{` + good + `,"data":1,"data":1}`, "data"},
		{`{` + good + `,"data":1,"data_base64":"AA=="}`, "data"},
		{`{` + good + `,"data_base64":"A"}`, "data_base64"},
		{`{` + good + `,"data_base64":5}`, "data_base64"},
		{`{` + good + `,"datacontenttype":"text/plain","data":5}`, "data"},
		{`{` + good + `,"datacontenttype":"text/plain; charset=latin1","data":"a"}`, "data"},
		{`{` + good + `,"datacontenttype":"application/cloudevents+json","data":{}}`, "datacontenttype"},
	} {
		_, err := log.ParseStructured([]byte(c.json))
		refused(t, c.json, err, log.ErrNotEvent, c.attribute)
	}
}

// An event is part of other JSON: an answer, a list, an event about it. None may keep the whole from being written.
func TestEventsWithinJSON(t *testing.T) {
	for _, data := range []string{
		`{"a":1,"a":2}`, `{bad`, "\xff", `"\ud800"`, `{"n":1e400}`, strings.Repeat(`[`, 9_999) + strings.Repeat(`]`, 9_999),
	} {
		in := []log.Event{{ID: "1", Source: "/s", Type: "t", DataContentType: "application/json", Data: []byte(data)}}
		b, err := jsonv2.Marshal(struct{ Items []log.Event }{in})
		if err != nil {
			t.Errorf("%.20s: %v", data, err)
			continue
		}
		var out struct{ Items []log.Event }
		if err := jsonv2.Unmarshal(b, &out); err != nil || len(out.Items) != 1 {
			t.Errorf("%.20s: %d, %v", data, len(out.Items), err)
			continue
		}
		same(t, out.Items[0], nil, in[0])
	}
}

func TestStructuredData(t *testing.T) {
	for _, c := range []struct{ contentType, data, want string }{
		{"", `{"a":1}`, `"data":{"a":1}`},
		{"", `not JSON`, `"data_base64":"bm90IEpTT04="`},
		{"application/json", "\n {\"b\":1, \"a\":2}\r\n", `"data":{"b":1, "a":2}`}, // the bytes stay as they are
		{"application/json", `null`, `"data":null`},
		{"application/json", `{"a":1,"a":2}`, `"data_base64":"eyJhIjoxLCJhIjoyfQ=="`}, // the user's own, and nothing to put into other JSON
		{"", `[{"a":{"b":1,"b":2}}]`, `"data_base64":"W3siYSI6eyJiIjoxLCJiIjoyfX1d"`},
		{"application/json", ``, `"data_base64":""`},
		{"Application/Problem+JSON; charset=utf-8", `[1]`, `"data":[1]`},
		{"text/json", `1`, `"data":1`},
		{"text/plain", "a\n\x00\u00e9", `"data":"a\n\u0000é"`},
		{"text/plain; charset=UTF-8", "é", `"data":"é"`},
		{"text/plain; charset=latin1", "a", `"data_base64":"YQ=="`},
		{"text/plain", "\xff", `"data_base64":"/w=="`},
		{"image/svg+xml", "<svg/>", `"data":"<svg/>"`},
		{"image/png", "abc", `"data_base64":"YWJj"`},
	} {
		e := log.Event{ID: "1", Source: "/s", Type: "t", DataContentType: c.contentType, Data: []byte(c.data)}
		b, err := e.MarshalStructured()
		if err != nil || !bytes.HasSuffix(b, []byte(c.want+"}")) {
			t.Errorf("%q %q: %s, %v; want %s", c.contentType, c.data, b, err, c.want)
			continue
		}
		back, err := log.ParseStructured(b)
		same(t, loose(back), err, loose(e))
	}
	for _, depth := range []int{512, 513, 9_999, 50_000} {
		data := strings.Repeat(`[`, depth) + strings.Repeat(`]`, depth)
		e := log.Event{ID: "1", Source: "/s", Type: "t", DataContentType: "application/json", Data: []byte(data)}
		b, err := e.MarshalStructured()
		if asJSON := bytes.Contains(b, []byte(`"data":[`)); err != nil || asJSON != (depth <= 512) {
			t.Errorf("%d deep: as JSON %v, %v", depth, asJSON, err)
		}
		back, err := log.ParseStructured(b)
		same(t, back, err, e)
	}
	// "null", an explicit payload of JSON, is no payload of any other type, nor in base64.
	for _, more := range []string{`"datacontenttype":"text/plain","data":null`, `"data_base64":null`} {
		e, err := log.ParseStructured([]byte(`{"specversion":"1.0","id":"1","source":"/s","type":"t",` + more + `}`))
		if err != nil || e.Data != nil {
			t.Errorf("%s: %q, %v", more, e.Data, err)
		}
	}
}

// The examples of section 3.1.4 of the HTTP binding, and of 3.1.3.2.
func TestHTTPBindingExamples(t *testing.T) {
	h := http.Header{}
	for _, line := range [][2]string{
		{"ce-specversion", "1.0"}, {"ce-type", "com.example.someevent"}, {"ce-time", "2018-04-05T03:56:24Z"},
		{"ce-id", "1234-1234-1234"}, {"ce-source", "/mycontext/subcontext"}, {"Content-Type", "application/json; charset=utf-8"},
		{"Content-Length", "2"}, {"Host", "webhook.example.com"},
	} {
		h.Set(line[0], line[1])
	}
	want := log.Event{
		ID: "1234-1234-1234", Source: "/mycontext/subcontext", Type: "com.example.someevent",
		Time: time.Date(2018, 4, 5, 3, 56, 24, 0, time.UTC), DataContentType: "application/json; charset=utf-8", Data: []byte(`{}`),
	}
	events, err := log.ParseHTTP(h, []byte(`{}`))
	same(t, only(t, events), err, want)

	// Section 3.2.4.
	events, err = log.ParseHTTP(http.Header{"Content-Type": {"application/cloudevents+json; charset=utf-8"}},
		[]byte(`{"specversion" : "1.0", "type" : "com.example.someevent", "id":"1", "source":"/s", "data" : {"a":1}}`))
	same(t, only(t, events), err, log.Event{ID: "1", Source: "/s", Type: "com.example.someevent", DataContentType: "application/json", Data: []byte(`{"a":1}`)})

	for _, c := range []struct{ sent, want string }{
		{"Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"},
		{"Euro%20%e2%82%ac%20%f0%9f%98%80", "Euro € 😀"},
		{"%45uro", "Euro"}, // needlessly encoded
		{"100%25", "100%"},
		{"%2541", "%41"}, // one round, not two
		{`"a \"quoted\" \\ value %41"`, `a "quoted" \ value A`},
		{`a"b`, `a"b`},
		{"Euro €", "Euro €"}, // not encoded, though it should be
	} {
		h.Set("ce-subject", c.sent)
		events, err := log.ParseHTTP(h, []byte(`{}`))
		if err != nil || events[0].Subject != c.want {
			t.Errorf("%s: %q, %v; want %q", c.sent, events, err, c.want)
		}
	}
	for _, sent := range []string{"%C0%A0", "%", "%4", "%4g", "%+1", `"`, `"a`, `"a"b"`, `"a\`, `"a\"`, "%00", "a\x7f"} {
		h.Set("ce-subject", sent)
		_, err := log.ParseHTTP(h, []byte(`{}`))
		refused(t, sent, err, log.ErrNotEvent, "subject")
	}
	e := log.Event{ID: "1", Source: "/s", Type: "t", Subject: "Euro € 😀", Extensions: map[string]any{"x": "\"100%\""}}
	sent, _ := e.HTTP()
	if got := sent.Get("ce-subject"); got != "Euro%20%E2%82%AC%20%F0%9F%98%80" {
		t.Errorf("subject is sent as %s", got)
	}
	if got := sent.Get("ce-x"); got != "%22100%25%22" {
		t.Errorf("x is sent as %s", got)
	}
}

func TestParseHTTPRefuses(t *testing.T) {
	for _, c := range []struct {
		name      string
		h         http.Header
		err       error
		attribute string
	}{
		{"nothing", http.Header{}, log.ErrNotEvent, "specversion"},
		{"twice", http.Header{"Ce-Id": {"1", "2"}}, log.ErrNotEvent, "id"},
		{"none", http.Header{"Ce-Id": {}}, log.ErrNotEvent, "id"},
		{"twice, in two spellings", http.Header{"Ce-Id": {"1"}, "CE-ID": {"1"}}, log.ErrNotEvent, "id"},
		{"ce-datacontenttype", http.Header{"Ce-Datacontenttype": {"a/b"}}, log.ErrNotEvent, "datacontenttype"},
		{"two content types", http.Header{"Content-Type": {"a/b", "a/b"}}, log.ErrNotEvent, "datacontenttype"},
		{"bad name", http.Header{"Ce-A_b": {"1"}}, log.ErrNotEvent, "a_b"},
		{"data", http.Header{"Ce-Data": {"1"}}, log.ErrNotEvent, "data"},
		{"avro", http.Header{"Content-Type": {"application/cloudevents+avro"}}, log.ErrEventFormat, ""},
		{"avro batch", http.Header{"Content-Type": {"application/cloudevents-batch+avro"}}, log.ErrEventFormat, ""},
		{"batch in another charset", http.Header{"Content-Type": {"application/cloudevents-batch+json; charset=utf-16"}}, log.ErrEventFormat, ""},
		{"no format", http.Header{"Content-Type": {"application/cloudevents"}}, log.ErrEventFormat, ""},
		{"no media type", http.Header{"Content-Type": {"application/cloudevents+json; ="}}, log.ErrEventFormat, ""},
	} {
		_, err := log.ParseHTTP(c.h, nil)
		refused(t, c.name, err, c.err, c.attribute)
	}
}

func TestValidate(t *testing.T) {
	long := strings.Repeat("x", log.EventAttributeMax+1)
	tooMany := map[string]any{}
	for i := range log.EventExtensionsMax + 1 {
		tooMany["x"+strings.Repeat("y", i%60)+string(rune('a'+i/60))] = true
	}
	tooMuch := map[string]any{}
	for _, name := range strings.Split("abcdefghi", "") {
		tooMuch[name] = strings.Repeat("x", log.EventAttributeMax)
	}
	for _, c := range []struct {
		name      string
		change    func(e *log.Event)
		err       error
		attribute string
	}{
		{"nothing", func(*log.Event) {}, nil, ""},
		{"no id", func(e *log.Event) { e.ID = "" }, log.ErrNotEvent, "id"},
		{"source", func(e *log.Event) { e.Source = "http://[::1" }, log.ErrNotEvent, "source"},
		{"source with a space", func(e *log.Event) { e.Source = "a b" }, log.ErrNotEvent, "source"},
		{"source beyond ASCII", func(e *log.Event) { e.Source = "/é" }, log.ErrNotEvent, "source"},
		{"source with half an escape", func(e *log.Event) { e.Source = "/a?b%2" }, log.ErrNotEvent, "source"},
		{"source with all there is", func(e *log.Event) { e.Source = "a-.+1://_~u:p@[::1]:80/!$&'()*,;=%2f?q[]#f" }, nil, ""},
		{"schema", func(e *log.Event) { e.DataSchema = "/relative" }, log.ErrNotEvent, "dataschema"},
		{"schema with a space", func(e *log.Event) { e.DataSchema = "http://example.com/a b" }, log.ErrNotEvent, "dataschema"},
		{"content type", func(e *log.Event) { e.DataContentType = "text/" }, log.ErrNotEvent, "datacontenttype"},
		{"event in event", func(e *log.Event) { e.DataContentType = " Application/CloudEvents+JSON" }, log.ErrNotEvent, "datacontenttype"},
		{"time", func(e *log.Event) { e.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }, log.ErrNotEvent, "time"},
		{"control character", func(e *log.Event) { e.Key = "a\tb" }, log.ErrNotEvent, "partitionkey"},
		{"name", func(e *log.Event) { e.Extensions = map[string]any{"Foo": ""} }, log.ErrNotEvent, "Foo"},
		{"own field", func(e *log.Event) { e.Extensions = map[string]any{"partitionkey": "a"} }, log.ErrNotEvent, "partitionkey"},
		{"type", func(e *log.Event) { e.Extensions = map[string]any{"x": 5} }, log.ErrNotEvent, "x"},
		{"nil", func(e *log.Event) { e.Extensions = map[string]any{"x": nil} }, log.ErrNotEvent, "x"},
		{"time extension", func(e *log.Event) {
			e.Extensions = map[string]any{"x": time.Date(-5, 1, 1, 0, 0, 0, 0, time.UTC)}
		}, log.ErrNotEvent, "x"},
		{"long attribute", func(e *log.Event) { e.Subject = long }, log.ErrTooLarge, "subject"},
		{"long extension", func(e *log.Event) { e.Extensions = map[string]any{"x": []byte(long)} }, log.ErrTooLarge, "x"},
		{"long name", func(e *log.Event) { e.Extensions = map[string]any{long[:65]: ""} }, log.ErrTooLarge, long[:65]},
		{"many extensions", func(e *log.Event) { e.Extensions = tooMany }, log.ErrTooLarge, ""},
		{"all attributes", func(e *log.Event) { e.Extensions = tooMuch }, log.ErrTooLarge, ""},
		{"data", func(e *log.Event) { e.Data = make([]byte, log.EventDataMax+1) }, log.ErrTooLarge, "data"},
	} {
		e := log.Event{ID: "1", Source: "/s", Type: "t"}
		c.change(&e)
		err := e.Validate()
		if c.err == nil {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		refused(t, c.name, err, c.err, c.attribute)
	}
}

// An event at every limit is a record below RecordMax, and one inside the data of another below EventDataMax.
func TestLimitsFitTogether(t *testing.T) {
	if n := log.EventDataMax + 2*log.EventAttributesMax; n > log.RecordMax {
		t.Errorf("%d bytes", n)
	}
	const body = 1 << 20 // of an HTTP request
	if n := (body+2)/3*4 + 2*log.EventAttributesMax; n > log.EventDataMax {
		t.Errorf("%d bytes", n)
	}
}

func TestTimesOfEveryZone(t *testing.T) {
	for _, value := range []string{"2018-04-05T17:31:00Z", "2018-04-05T18:31:00+01:00", "2018-04-05T17:31:00-00:00", "2018-04-04T17:32:00.000-23:59"} {
		e, err := log.ParseStructured([]byte(`{"specversion":"1.0","id":"1","source":"/s","type":"t","time":"` + value + `"}`))
		same(t, e, err, log.Event{ID: "1", Source: "/s", Type: "t", Time: noon})
	}
}

// Every event that is valid comes back from every mode.
func TestRoundTrips(t *testing.T) {
	for seed := range uint64(3000) {
		e := anEvent(rand.New(rand.NewPCG(seed, 1)))
		if err := e.Validate(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		everyMode(t, e)

		s := e.SDK()
		if err := s.Validate(); err != nil {
			t.Fatalf("seed %d: the SDK refuses %+v: %v", seed, e, err)
		}
		back, err := log.FromSDK(s)
		same(t, back, err, e)
		if t.Failed() {
			t.Fatalf("seed %d: %+v", seed, e)
		}
	}
}

// Extensions keep their types where the JSON has them, and become their canonical strings elsewhere.
func TestExtensionTypes(t *testing.T) {
	uri, ref := *types.ParseURI("http://example.com/a"), *types.ParseURIRef("/a")
	e := log.Event{ID: "1", Source: "/s", Type: "t", Extensions: map[string]any{
		"b": true, "n": int32(-7), "s": "", "y": []byte{0, 255}, "t": noon, "u": uri, "r": ref, "z": types.Timestamp{Time: noon},
	}}
	if err := e.Validate(); err != nil {
		t.Fatal(err)
	}
	text := map[string]any{
		"b": "true", "n": "-7", "s": "", "y": "AP8=", "t": "2018-04-05T17:31:00Z", "u": "http://example.com/a", "r": "/a", "z": "2018-04-05T17:31:00Z",
	}
	got, err := log.ParseRecord(e.Record(aPartition))
	if err != nil || !reflect.DeepEqual(got.Extensions, text) {
		t.Errorf("record: %v, %v", got.Extensions, err)
	}
	b, err := e.MarshalStructured()
	if err != nil {
		t.Fatal(err)
	}
	text["b"], text["n"] = true, int32(-7)
	if got, err = log.ParseStructured(b); err != nil || !reflect.DeepEqual(got.Extensions, text) {
		t.Errorf("JSON: %v, %v", got.Extensions, err)
	}
	typed := map[string]any{"b": true, "n": int32(-7), "s": "", "y": []byte{0, 255}, "t": noon, "u": uri, "r": ref, "z": noon}
	if got, err = log.FromSDK(e.SDK()); err != nil || !reflect.DeepEqual(got.Extensions, typed) {
		t.Errorf("SDK: %v, %v", got.Extensions, err)
	}
}

// An event within other JSON is a structured one, for both JSON packages.
func TestEventInsideJSON(t *testing.T) {
	type message struct {
		Event log.Event `json:"event"`
	}
	in := message{log.Event{ID: "1", Source: "/s", Type: "t", Key: "k", DataContentType: log.JSONContentType, Data: []byte(`{"a":1}`)}}
	const want = `{"event":{"specversion":"1.0","id":"1","source":"/s","type":"t","datacontenttype":"application/json","partitionkey":"k","data":{"a":1}}}`
	for _, c := range []struct {
		marshal   func(any) ([]byte, error)
		unmarshal func([]byte, any) error
	}{
		{jsonv1.Marshal, jsonv1.Unmarshal},
		{func(v any) ([]byte, error) { return jsonv2.Marshal(v) }, func(b []byte, v any) error { return jsonv2.Unmarshal(b, v) }},
	} {
		b, err := c.marshal(in)
		if err != nil || string(b) != want {
			t.Errorf("%s, %v", b, err)
		}
		var back message
		err = c.unmarshal(b, &back)
		same(t, back.Event, err, in.Event)
		if err := c.unmarshal([]byte(`{"event":{"id":"1"}}`), &back); !errors.Is(err, log.ErrNotEvent) {
			t.Errorf("half an event: %v", err)
		}
	}
	bad := log.Event{ID: "a\xff", Source: "/s", Type: "t"}
	_, err := bad.MarshalStructured()
	refused(t, "not UTF-8", err, log.ErrNotEvent, "id")
	bad = log.Event{ID: "1", Source: "/s", Type: "t", Extensions: map[string]any{"x": struct{}{}}}
	_, err = bad.MarshalStructured()
	refused(t, "a struct", err, log.ErrNotEvent, "x")
}

// everyMode sends e through every mode and checks that it comes back.
func everyMode(t *testing.T, e log.Event) {
	t.Helper()
	r := e.Record(aPartition)
	if string(r.Key) != e.Key {
		t.Errorf("the record's key is %q, the event's %q", r.Key, e.Key)
	}
	back, err := log.ParseRecord(r)
	want := e
	if want.RecordedTime.IsZero() {
		want.RecordedTime = r.Time // by design: a record always says when it was made
	}
	same(t, texts(back), err, texts(want))
	again, err := log.ParseRecord(back.Record(aPartition))
	same(t, again, err, back)

	b, err := e.MarshalStructured()
	if err != nil {
		t.Errorf("%+v: %v", e, err)
		return
	}
	back, err = log.ParseStructured(b)
	same(t, loose(back), err, loose(e))
	events, err := log.ParseStructuredBatch(append(append([]byte{'['}, b...), ']'))
	same(t, only(t, events), err, back)

	h, body := e.HTTP()
	events, err = log.ParseHTTP(h, body)
	same(t, emptyIsNone(texts(only(t, events))), err, emptyIsNone(texts(e)))
}

// texts is e with its extensions in canonical form, as binary mode has them.
func texts(e log.Event) log.Event {
	var extensions map[string]any
	for name, value := range e.Extensions {
		text, err := types.Format(value)
		if err != nil {
			panic(err)
		}
		if extensions == nil {
			extensions = map[string]any{}
		}
		extensions[name] = text
	}
	e.Extensions = extensions
	return e
}

// loose is e without what the JSON format does not keep apart: extension types, an implied content
// type, white space around JSON, and the SDK's idea that empty data is none.
func loose(e log.Event) log.Event {
	e = texts(e)
	if e.Data != nil && e.DataContentType == "" && jsontext.Value(e.Data).IsValid() {
		e.DataContentType = "application/json"
	}
	if jsontext.Value(e.Data).IsValid() {
		e.Data = bytes.TrimSpace(e.Data)
	}
	return emptyIsNone(e)
}

func emptyIsNone(e log.Event) log.Event {
	if len(e.Data) == 0 {
		e.Data = nil
	}
	return e
}

func only(t *testing.T, events []log.Event) log.Event {
	t.Helper()
	if len(events) > 1 {
		t.Errorf("%d events", len(events))
	}
	if len(events) == 0 { // same reports the error
		return log.Event{}
	}
	return events[0]
}

func same(t *testing.T, got log.Event, err error, want log.Event) {
	t.Helper()
	if err != nil {
		t.Errorf("%v\nwanted %+v", err, want)
	} else if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func refused(t *testing.T, name string, err, want error, attribute string) {
	t.Helper()
	at := (*log.EventError)(nil)
	switch {
	case err == nil:
		t.Errorf("%s: taken", name)
	case !errors.Is(err, want) || !errors.As(err, &at):
		t.Errorf("%s: %v; want %v", name, err, want)
	case at.Attribute != attribute:
		t.Errorf("%s: %v; want the attribute %q", name, err, attribute)
	case !strings.HasPrefix(err.Error(), "log: ") || at.Detail == "":
		t.Errorf("%s: %v", name, err)
	}
}

// anEvent makes any valid event.
func anEvent(r *rand.Rand) log.Event {
	return eventOf(r, []string{"a", "Z", "0", "-", " ", "%", "\"", "\\", "é", "€", "😀", "\u00a0", "<", "&", "\ufffd", "\u2028"})
}

// plainEvent makes an event of characters that HTTP needs no encoding for.
func plainEvent(r *rand.Rand) log.Event { return eventOf(r, []string{"a", "Z", "0", "-", ".", "~"}) }

// uriLetter drops the letters that no URI has as they are.
func uriLetter(r rune) rune {
	if r > '~' || strings.ContainsRune(` %"\<`, r) {
		return -1
	}
	return r
}

func eventOf(r *rand.Rand, letters []string) log.Event {
	word := func() string {
		var b strings.Builder
		for range 1 + r.IntN(12) {
			b.WriteString(letters[r.IntN(len(letters))])
		}
		return b.String()
	}
	maybe := func(f func() string) string {
		if r.IntN(2) == 0 {
			return ""
		}
		return f()
	}
	clock := func() time.Time {
		if r.IntN(2) == 0 {
			return time.Time{}
		}
		t := noon.Add(time.Duration(r.Int64N(int64(20 * 365 * 24 * time.Hour))))
		return t.Truncate([]time.Duration{1, time.Microsecond, time.Millisecond, time.Second}[r.IntN(4)])
	}
	e := log.Event{
		ID: "i" + word(), Source: "/" + strings.Map(uriLetter, word()), Type: "t" + word(),
		Subject: maybe(func() string { return "s" + word() }), Time: clock(), Key: maybe(word), Correlation: maybe(word), Causation: maybe(word),
		TraceParent: maybe(word), RecordedTime: clock(), DataSchema: maybe(func() string { return "http://example.com/schema" }),
		DataContentType: maybe(func() string {
			return []string{"application/json", "text/plain", "application/xml", "image/png", "application/vnd.x+json", "text/plain; charset=utf-8"}[r.IntN(6)]
		}),
	}
	values := []func() any{
		func() any { return word() }, func() any { return r.IntN(2) == 0 }, func() any { return int32(r.Uint32()) },
		func() any { return []byte(word()) }, func() any { return noon.Add(time.Duration(r.Int64N(1e18))) }, func() any { return "" },
	}
	for range r.IntN(4) {
		if e.Extensions == nil {
			e.Extensions = map[string]any{}
		}
		e.Extensions["x"+string(rune('a'+r.IntN(26)))+string(rune('0'+r.IntN(10)))] = values[r.IntN(len(values))]()
	}
	switch r.IntN(5) {
	case 0:
		e.Data = []byte(`{"a":[1,2.50,null,"é"], "a":"` + "\u2028" + `"}`)
	case 1:
		e.Data = []byte(word())
	case 2:
		e.Data = []byte{0, 0xff, byte(r.IntN(256))}
	case 3:
		e.Data = []byte("null")
	}
	return e
}
