package main

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/remitlog/remit/consumers/push"
)

// subscriptionLabelsMax is how many subscriptions have series of their own, the first by name; what is beyond them is counted together as _other. Each has some
// dozen, and a label for anything that anybody registers would have no bound.
const subscriptionLabelsMax = 100

// pushMetrics count what is delivered.
type pushMetrics struct {
	delivered prometheus.Histogram
	late      prometheus.Histogram
	failed    *prometheus.CounterVec
	skipped   prometheus.Counter
	missed    prometheus.Counter
}

func newPushMetrics(r prometheus.Registerer) *pushMetrics {
	m := &pushMetrics{
		delivered: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "remit_push_delivery_seconds", Help: "How long a call took whose record the sink has taken.", Buckets: seconds}),
		late:      prometheus.NewHistogram(prometheus.HistogramOpts{Name: "remit_push_late_seconds", Help: "How long after it was recorded a record was taken by a sink.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 12)}),
		failed:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "remit_push_failures_total", Help: "Calls whose record the sink has not taken, by its answer; 0 is none."}, []string{"status"}),
		skipped:   prometheus.NewCounter(prometheus.CounterOpts{Name: "remit_push_filtered_total", Help: "Records that did not match their subscription's filter."}),
		missed:    prometheus.NewCounter(prometheus.CounterOpts{Name: "remit_push_missed_total", Help: "Records that retention took before they were delivered."}),
	}
	r.MustRegister(m.delivered, m.late, m.failed, m.skipped, m.missed)
	return m
}

// push listens to subscriptions.
func (m *metrics) push() push.Listener {
	p := m.pushed
	return push.Listener{
		Delivered: func(_ string, took, late time.Duration) {
			p.delivered.Observe(took.Seconds())
			p.late.Observe(late.Seconds())
		},
		Failed:  func(_ string, status int) { p.failed.WithLabelValues(statusLabel(status)).Inc() },
		Skipped: func(string) { p.skipped.Inc() },
		Missed:  func(_ string, n int64) { p.missed.Add(float64(n)) },
	}
}

// statusLabel bounds what a sink can make of a label.
func statusLabel(status int) string {
	switch {
	case status == 0 || status >= 200 && status <= 599:
		return strconv.Itoa(status)
	default:
		return "other"
	}
}

// pushGauges say how subscriptions stand, at each scrape.
type pushGauges struct {
	push *push.Service

	lag, replays, delivered, failed, parked, failing, state *prometheus.Desc
}

func newPushGauges(p *push.Service) *pushGauges {
	desc := func(label string, o prometheus.Opts) *prometheus.Desc {
		return prometheus.NewDesc(o.Name, o.Help, []string{label}, nil)
	}
	const of = "subscription"
	return &pushGauges{
		push:      p,
		lag:       desc(of, prometheus.Opts{Name: "remit_subscription_lag_records", Help: "Records of its topic that a subscription has not done yet, as Kafka tools count it."}),
		replays:   desc(of, prometheus.Opts{Name: "remit_subscription_replays_waiting", Help: "Records that are to be sent again and are not done yet."}),
		delivered: desc(of, prometheus.Opts{Name: "remit_subscription_delivered_total", Help: "Records that the sink has taken."}),
		failed:    desc(of, prometheus.Opts{Name: "remit_subscription_failures_total", Help: "Calls whose record the sink has not taken."}),
		parked:    desc(of, prometheus.Opts{Name: "remit_subscription_parked_total", Help: "Records that were set aside."}),
		failing:   desc(of, prometheus.Opts{Name: "remit_subscription_failing_keys", Help: "Keys that wait for a record that fails."}),
		state:     desc("state", prometheus.Opts{Name: "remit_subscriptions", Help: "Subscriptions by what they are doing: waiting, asking, delivering, failing or paused. Past 100, those of later names share the label _other elsewhere."}),
	}
}

// Describe implements prometheus.Collector.
func (g *pushGauges) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{g.lag, g.replays, g.delivered, g.failed, g.parked, g.failing, g.state} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (g *pushGauges) Collect(to chan<- prometheus.Metric) {
	all := g.push.Statuses()
	states := map[push.State]int{push.StateWaiting: 0, push.StateAsking: 0, push.StateDelivering: 0, push.StateFailing: 0, push.StatePaused: 0}
	var other push.Status
	for i, name := range slices.Sorted(maps.Keys(all)) {
		st := all[name]
		states[st.State]++
		if i < subscriptionLabelsMax {
			g.one(to, name, &st)
			continue
		}
		other.Lag, other.Replays, other.Delivered, other.Failed = other.Lag+st.Lag, other.Replays+st.Replays, other.Delivered+st.Delivered, other.Failed+st.Failed
		other.Parked, other.FailingKeys = other.Parked+st.Parked, other.FailingKeys+st.FailingKeys
	}
	if len(all) > subscriptionLabelsMax {
		g.one(to, "_other", &other)
	}
	for state, n := range states {
		to <- prometheus.MustNewConstMetric(g.state, prometheus.GaugeValue, float64(n), string(state))
	}
}

func (g *pushGauges) one(to chan<- prometheus.Metric, name string, st *push.Status) {
	for _, v := range []struct {
		of   *prometheus.Desc
		kind prometheus.ValueType
		n    int64
	}{
		{g.lag, prometheus.GaugeValue, st.Lag}, {g.replays, prometheus.GaugeValue, st.Replays}, {g.failing, prometheus.GaugeValue, int64(st.FailingKeys)},
		{g.delivered, prometheus.CounterValue, st.Delivered}, {g.failed, prometheus.CounterValue, st.Failed}, {g.parked, prometheus.CounterValue, st.Parked},
	} {
		to <- prometheus.MustNewConstMetric(v.of, v.kind, float64(v.n), name)
	}
}
