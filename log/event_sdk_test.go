package log_test

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/binding/spec"
	"github.com/cloudevents/sdk-go/v2/event"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	"github.com/cloudevents/sdk-go/v2/types"

	"github.com/remitlog/remit/log"
)

func TestFromSDKRefuses(t *testing.T) {
	old := event.New(event.CloudEventsVersionV03)
	_, err := log.FromSDK(old)
	refused(t, "0.3", err, log.ErrNotEvent, "specversion")
	_, err = log.FromSDK(event.Event{})
	refused(t, "zero", err, log.ErrNotEvent, "specversion")
	s := event.New()
	s.SetID("1")
	s.SetType("t")
	_, err = log.FromSDK(s)
	refused(t, "no source", err, log.ErrNotEvent, "source")
	s.SetSource("/s")
	s.SetTime(time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC))
	_, err = log.FromSDK(s)
	refused(t, "time", err, log.ErrNotEvent, "time")
	s.SetTime(noon)
	s.SetExtension("recordedtime", "today")
	_, err = log.FromSDK(s)
	refused(t, "recordedtime", err, log.ErrNotEvent, "recordedtime")
}

// A source that net/url would print in another way is the same after a journey through the SDK.
func TestSDKKeepsSources(t *testing.T) {
	for _, source := range []string{"/a b", "HTTP://Example.COM/%7euser", "urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66", "1-555-123-4567", "http://[::1", "a:b#", "?"} {
		e := log.Event{ID: "1", Source: source, Type: "t"}
		back, err := log.FromSDK(e.SDK())
		same(t, back, err, e)
	}
}

// The SDK and we read each other's JSON.
func TestSDKJSON(t *testing.T) {
	for seed := range uint64(500) {
		e := anEvent(rand.New(rand.NewPCG(seed, 2)))
		if strings.HasPrefix(e.DataContentType, "application/vnd.") && e.Data != nil { // the SDK does not take +json for JSON
			continue
		}
		e.Source = "/plain" // it prints others in its own way
		s := e.SDK()
		b, err := s.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		back, err := log.ParseStructured(b)
		same(t, loose(back), err, loose(e))

		if b, err = e.MarshalStructured(); err != nil {
			t.Fatal(err)
		}
		var theirs event.Event
		if err := theirs.UnmarshalJSON(b); err != nil {
			t.Fatalf("the SDK does not read %s: %v", b, err)
		}
		back, err = log.FromSDK(theirs)
		same(t, loose(back), err, loose(e))
		if t.Failed() {
			t.Fatalf("seed %d: %s", seed, b)
		}
	}
}

// The SDK and we read each other's HTTP messages, as far as it has the binding: it does not percent-encode.
func TestSDKHTTP(t *testing.T) {
	for seed := range uint64(500) {
		e := plainEvent(rand.New(rand.NewPCG(seed, 3)))
		s := e.SDK()
		req, err := http.NewRequest(http.MethodPost, "http://localhost", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := cehttp.WriteRequest(context.Background(), binding.ToMessage(&s), req); err != nil {
			t.Fatal(err)
		}
		var body []byte
		if req.Body != nil {
			if body, err = io.ReadAll(req.Body); err != nil {
				t.Fatal(err)
			}
		}
		events, err := log.ParseHTTP(req.Header, body)
		same(t, loose(only(t, events)), err, loose(e))

		h, body := e.HTTP()
		theirs, err := binding.ToEvent(context.Background(), cehttp.NewMessage(h, io.NopCloser(bytes.NewReader(body))))
		if err != nil {
			t.Fatal(err)
		}
		back, err := log.FromSDK(*theirs)
		same(t, loose(back), err, loose(e))
		if t.Failed() {
			t.Fatalf("seed %d: %v", seed, h)
		}
	}
}

// The headers of a record are those that the SDK's Kafka protocols write, and they read ours. Those protocols are
// modules of their own; kafkaMessage does as they do with the SDK's own attribute tables.
func TestSDKKafka(t *testing.T) {
	for seed := range uint64(500) {
		e := anEvent(rand.New(rand.NewPCG(seed, 4)))
		e.Source = "/plain"
		e.ID, e.Type, e.Subject = strings.TrimSpace(e.ID), strings.TrimSpace(e.Type), strings.TrimSpace(e.Subject) // as the SDK does
		s := e.SDK()
		var theirs kafkaMessage
		if _, err := binding.Write(context.Background(), binding.ToMessage(&s), nil, &theirs); err != nil {
			t.Fatal(err)
		}
		r := e.Record(aPartition)
		if got, want := toMap(r.Headers), toMap(theirs.Headers); !reflect.DeepEqual(got, want) {
			t.Fatalf("seed %d:\n%q\nthe SDK has\n%q", seed, got, want)
		}
		read, err := binding.ToEvent(context.Background(), &kafkaMessage{Record: r})
		if err != nil {
			t.Fatal(err)
		}
		back, err := log.FromSDK(*read)
		same(t, loose(back), err, loose(e))
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// kafkaMessage writes and reads records in binary mode as the SDK's kafka_sarama and kafka_confluent do.
type kafkaMessage struct{ log.Record }

var kafkaSpec = spec.WithPrefix("ce_")

func (m *kafkaMessage) Start(context.Context) error { return nil }
func (m *kafkaMessage) End(context.Context) error   { return nil }

func (m *kafkaMessage) SetAttribute(a spec.Attribute, value any) error {
	if a.Kind() == spec.DataContentType {
		return m.set("content-type", value)
	}
	return m.set("ce_"+a.Name(), value)
}

func (m *kafkaMessage) SetExtension(name string, value any) error { return m.set("ce_"+name, value) }

func (m *kafkaMessage) set(key string, value any) error {
	if value == nil {
		return nil
	}
	text, err := types.Format(value)
	m.Headers = append(m.Headers, header(key, text))
	return err
}

func (m *kafkaMessage) SetData(r io.Reader) (err error) {
	m.Value, err = io.ReadAll(r)
	return err
}

func (m *kafkaMessage) ReadEncoding() binding.Encoding { return binding.EncodingBinary }

func (m *kafkaMessage) ReadStructured(context.Context, binding.StructuredWriter) error {
	return binding.ErrNotStructured
}

func (m *kafkaMessage) ReadBinary(_ context.Context, w binding.BinaryWriter) error {
	version := kafkaSpec.Version("1.0")
	for _, h := range m.Headers {
		var err error
		if a := version.Attribute(h.Key); a != nil {
			err = w.SetAttribute(a, string(h.Value))
		} else if h.Key == "content-type" {
			err = w.SetAttribute(version.AttributeFromKind(spec.DataContentType), string(h.Value))
		} else {
			err = w.SetExtension(strings.TrimPrefix(h.Key, "ce_"), string(h.Value))
		}
		if err != nil {
			return err
		}
	}
	if m.Value == nil {
		return nil
	}
	return w.SetData(bytes.NewReader(m.Value))
}

func (m *kafkaMessage) Finish(error) error { return nil }

func (m *kafkaMessage) GetAttribute(k spec.Kind) (spec.Attribute, any) {
	a := kafkaSpec.Version("1.0").AttributeFromKind(k)
	if value, ok := toMap(m.Headers)["ce_"+a.Name()]; ok {
		return a, value
	}
	return a, nil
}

func (m *kafkaMessage) GetExtension(name string) any {
	if value, ok := toMap(m.Headers)["ce_"+name]; ok {
		return value
	}
	return nil
}

func toMap(headers []log.Header) map[string]string {
	m := map[string]string{}
	for _, h := range headers {
		m[h.Key] = string(h.Value)
	}
	return m
}
