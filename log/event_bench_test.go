package log

import (
	"testing"
	"time"
)

// aPayment is an event as the core writes it, some 75,000 times a second.
func aPayment() Event {
	return Event{
		ID: "0198c1f2-7a3b-8d4e-9f00-1a2b3c4d5e6f", Source: "/remit/payments", Type: "remit.payment.paid.v1",
		Time: time.Date(2026, 2, 3, 4, 5, 6, 789e6, time.UTC), DataContentType: JSONContentType,
		Key: "alice", Correlation: "0198c1f2-7a3b-8d4e-9f00-1a2b3c4d5e6f", Causation: "0198c1f2-7a3b-8d4e-9f00-1a2b3c4d5e70",
		TraceParent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
		Extensions:  map[string]any{"sequence": "00000000000000000042"},
		Data:        []byte(`{"payment":"0198c1f2-7a3b-8d4e-9f00-1a2b3c4d5e6f","payer":"alice","payee":"bob","amount":"12.50","currency":"EUR"}`),
	}
}

func BenchmarkRecord(b *testing.B) {
	e := aPayment()
	b.ReportAllocs()
	for b.Loop() {
		_ = e.Record(Partition{EventsTopic, 3})
	}
}

func BenchmarkRecordNoExtension(b *testing.B) {
	e := aPayment()
	e.Extensions = nil
	b.ReportAllocs()
	for b.Loop() {
		_ = e.Record(Partition{EventsTopic, 3})
	}
}

func BenchmarkParseRecord(b *testing.B) {
	e := aPayment()
	r := e.Record(Partition{EventsTopic, 3})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseRecord(r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseRecordNoExtension(b *testing.B) {
	e := aPayment()
	e.Extensions = nil
	r := e.Record(Partition{EventsTopic, 3})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseRecord(r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMarshalStructured(b *testing.B) {
	e := aPayment()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := e.MarshalStructured(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseStructured(b *testing.B) {
	e := aPayment()
	raw, err := e.MarshalStructured()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseStructured(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkValidate(b *testing.B) {
	e := aPayment()
	b.ReportAllocs()
	for b.Loop() {
		if err := e.Validate(); err != nil {
			b.Fatal(err)
		}
	}
}
