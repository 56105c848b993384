package log_test

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/remitlog/remit/log"
)

// The fuzz targets hold every parser to two things: it does not panic, and what it takes comes
// back equal from every mode.

func FuzzParseRecord(f *testing.F) {
	f.Add("ce_specversion: 1.0\nce_id: 1\nce_source: /s\nce_type: t\nce_time: 2018-04-05T17:31:00.5+01:00\nce_x: y\ncontent-type: text/plain", []byte("k"), []byte("v"), int64(1e12))
	f.Add("content-type: application/cloudevents+json", []byte("k"), []byte(`{"specversion":"1.0","id":"1","source":"/s","type":"t","x":5,"y":true,"data":[1]}`), int64(-1))
	f.Add("ce_specversion: 1.0\nce_id: 1\nce_source: /s\nce_type: t\nce_recordedtime: 0000-01-01T00:00:00Z\ncontent-type: TEXT/", []byte{}, []byte{0xff}, int64(0))
	f.Fuzz(func(t *testing.T, headers string, key, value []byte, ms int64) {
		r := log.Record{Partition: aPartition, Key: key, Value: value, Time: time.UnixMilli(ms)}
		for line := range strings.Lines(headers) {
			name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
			r.Headers = append(r.Headers, header(name, value))
		}
		if e, err := log.ParseRecord(r); err == nil {
			everyMode(t, e)
		}
	})
}

func FuzzParseStructured(f *testing.F) {
	for _, more := range []string{
		``, `,"data":{"a":1}`, `,"data":"x","datacontenttype":"text/plain"`, `,"data_base64":"AAE="`, `,"x":-0,"y":"\u00e9\ud83d\ude00","z":null`,
		`,"time":"2018-04-05T17:31:00.123456789-07:00","recordedtime":"9999-12-31T23:59:59Z"`, `,"partitionkey":"k","dataschema":"a:b","datacontenttype":"a/b;c"`,
	} {
		f.Add([]byte(`{"specversion":"1.0","id":"1","source":"/s","type":"t"` + more + `}`))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		e, err := log.ParseStructured(b)
		if !bytes.Equal(b, before) {
			t.Error("the input was written to")
		}
		if err != nil {
			return
		}
		clear(b) // nothing of e is in b
		again, err := log.ParseStructured(before)
		same(t, again, err, e)
		everyMode(t, e)
	})
}

func FuzzParseHTTP(f *testing.F) {
	const head = "Ce-Specversion: 1.0\nCe-Id: 1\nCe-Source: /s\nCe-Type: t\n"
	f.Add(head+"Ce-Subject: Euro%20%E2%82%AC\nCe-X: \"a\\\"b\"\nContent-Type: application/json", []byte(`{}`))
	f.Add(head+"ce-y: %25\nContent-Type: text/plain; charset=\"utf-8\"", []byte("\xff"))
	f.Add("Content-Type: application/cloudevents-batch+json", []byte(`[{"specversion":"1.0","id":"1","source":"/s","type":"t"}]`))
	f.Add("Content-Type: Application/CloudEvents+json; charset=utf-8", []byte(`{"specversion":"1.0","id":"1","source":"/s","type":"t","data":1}`))
	f.Fuzz(func(t *testing.T, headers string, body []byte) {
		h := http.Header{}
		for line := range strings.Lines(headers) {
			name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
			h.Add(name, value)
		}
		events, err := log.ParseHTTP(h, body)
		if err != nil {
			return
		}
		for _, e := range events {
			everyMode(t, e)
			back, err := log.FromSDK(e.SDK())
			same(t, back, err, e)
		}
	})
}
