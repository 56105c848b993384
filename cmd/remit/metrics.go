package main

import (
	"log/slog"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/remitlog/remit/broker"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/embedded"
	"github.com/remitlog/remit/log/fold"
)

// seconds are the buckets of what waits for a disk.
var seconds = prometheus.ExponentialBuckets(0.0001, 2, 16)

// failedTalk is the delay from which on a failing effect is logged.
const failedTalk = 10 * time.Second

// owedID is how people read the id of a thing that owes.
func owedID(id string) string {
	var known log.ID
	if known.UnmarshalBinary([]byte(id)) == nil {
		return known.String()
	}
	return id
}

// metrics are the listeners of what the server runs, as Prometheus shows them.
type metrics struct {
	appends       prometheus.Histogram
	appended      prometheus.Counter
	appendedBytes prometheus.Counter
	diskFull      prometheus.Counter
	turns         prometheus.Histogram
	commands      prometheus.Counter
	events        prometheus.Counter
	retries       prometheus.Counter
	restored      *prometheus.GaugeVec

	calls      *prometheus.HistogramVec
	checks     *prometheus.CounterVec
	prechecks  *prometheus.CounterVec
	unexpected prometheus.Counter
	repeated   prometheus.Counter

	pushed *pushMetrics

	kafkaConnections prometheus.Gauge
	kafkaRequests    *prometheus.HistogramVec
	kafkaClosed      prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		appends:       prometheus.NewHistogram(prometheus.HistogramOpts{Name: "remit_log_append_seconds", Help: "How long an append took until it was durable.", Buckets: seconds}),
		appended:      prometheus.NewCounter(prometheus.CounterOpts{Name: "remit_log_records_total", Help: "Records appended."}),
		appendedBytes: prometheus.NewCounter(prometheus.CounterOpts{Name: "remit_log_bytes_total", Help: "Bytes appended."}),
		diskFull:      prometheus.NewCounter(prometheus.CounterOpts{Name: "remit_log_disk_full_total", Help: "Appends refused because the disk has too little room."}),
		turns:         prometheus.NewHistogram(prometheus.HistogramOpts{Name: "remit_turn_append_seconds", Help: "How long the append of a turn took.", Buckets: seconds}),
		commands:      prometheus.NewCounter(prometheus.CounterOpts{Name: "remit_commands_total", Help: "Commands decided in turns that appended."}),
		events:        prometheus.NewCounter(prometheus.CounterOpts{Name: "remit_events_total", Help: "Core events appended."}),
		retries:       prometheus.NewCounter(prometheus.CounterOpts{Name: "remit_effects_retried_total", Help: "Effects that failed and were started again."}),
		restored:      prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "remit_restored_records", Help: "Records that the last start read again, by partition."}, []string{"partition"}),

		calls:      prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "remit_call_seconds", Help: "How long calls to others took, by what came of them.", Buckets: seconds}, []string{"result"}),
		checks:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "remit_message_checks_total", Help: "Back-checks, by the verdict, or silence."}, []string{"result"}),
		prechecks:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "remit_message_prechecks_total", Help: "Pre-checks, by the verdict, or silence."}, []string{"result"}),
		unexpected: prometheus.NewCounter(prometheus.CounterOpts{Name: "remit_message_verdicts_unexpected_total", Help: "Verdicts that contradict what was decided before they came."}),
		repeated:   prometheus.NewCounter(prometheus.CounterOpts{Name: "remit_message_verdicts_repeated_total", Help: "Verdicts that say what was decided before they came."}),

		kafkaConnections: prometheus.NewGauge(prometheus.GaugeOpts{Name: "remit_kafka_connections", Help: "Open connections of Kafka clients."}),
		kafkaRequests:    prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "remit_kafka_request_seconds", Help: "How long requests of Kafka clients took, by kind.", Buckets: seconds}, []string{"request"}),
		kafkaClosed:      prometheus.NewCounter(prometheus.CounterOpts{Name: "remit_kafka_closed_total", Help: "Connections of Kafka clients that were closed for what they sent, or for a limit."}),
	}
	r.MustRegister(m.appends, m.appended, m.appendedBytes, m.diskFull, m.turns, m.commands, m.events, m.retries, m.restored,
		m.calls, m.checks, m.prechecks, m.unexpected, m.repeated,
		m.kafkaConnections, m.kafkaRequests, m.kafkaClosed)
	m.pushed = newPushMetrics(r)
	return m
}

// called notes a call to another, by what came of it: an answer, an answer that says no, or none.
func (m *metrics) called(status int, err error, took time.Duration) {
	result := "answered"
	switch {
	case status == 0 || err != nil:
		result = "failed"
	case status > 299:
		result = "refused"
	}
	m.calls.WithLabelValues(result).Observe(took.Seconds())
}

func (m *metrics) checked(said broker.Said, err error) {
	m.checks.WithLabelValues(verdict(said, err)).Inc()
}
func (m *metrics) prechecked(said broker.Said, err error) {
	m.prechecks.WithLabelValues(verdict(said, err)).Inc()
}

// verdict is a label: one of the verdicts, or silence.
func verdict(said broker.Said, err error) string {
	if err != nil {
		return "silence"
	}
	return string(said.Verdict)
}

func (m *metrics) log() embedded.Listener {
	return embedded.Listener{
		Appended: func(records, bytes int, took time.Duration) {
			m.appends.Observe(took.Seconds())
			m.appended.Add(float64(records))
			m.appendedBytes.Add(float64(bytes))
		},
		DiskFull: func(uint64) { m.diskFull.Inc() },
	}
}

// fold listens to the core. An effect that goes on failing is said once its delay has grown to failedTalk: a full disk that is
// soon freed is not worth a line a payment.
func (m *metrics) fold(logger *slog.Logger) fold.Listener {
	return fold.Listener{
		Turned: func(_ int32, commands, events, _ int, took time.Duration) {
			m.turns.Observe(took.Seconds())
			m.commands.Add(float64(commands))
			m.events.Add(float64(events))
		},
		Failed: func(p int32, id string, err error, again time.Duration) {
			m.retries.Inc()
			if again >= failedTalk {
				logger.Warn("what is owed fails, and is tried again", "partition", p, "id", owedID(id), "error", err, "again", again)
			}
		},
		ClockJumped: func(by time.Duration) {
			logger.Warn("the wall clock has jumped; remit's time goes on as it did, and follows the clock from the next start", "by", by.Round(time.Millisecond))
		},
		Restored: func(p int32, from, to log.Offset, _ time.Duration) {
			m.restored.WithLabelValues(strconv.Itoa(int(p))).Set(float64(to - from))
		},
	}
}
