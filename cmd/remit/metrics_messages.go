package main

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/remitlog/remit/broker"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/projections/transactions"
)

// messageGauges say how many messages stand where, at each scrape. That costs a few rows a partition (broker.TallyOf), and for the oldest the
// messages that have been committed and not delivered since the scrape before (transactions.Undecided): a million undecided ones cost nothing.
type messageGauges struct {
	node   *fold.Node
	oldest *transactions.Undecided

	undecided, waiting, stuck, age *prometheus.Desc
}

func newMessageGauges(n *fold.Node, v *transactions.View) *messageGauges {
	desc := func(o prometheus.Opts, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(o.Name, o.Help, labels, nil)
	}
	return &messageGauges{
		node: n, oldest: v.Undecided(),
		undecided: desc(prometheus.Opts{Name: "remit_messages_undecided", Help: "Messages that nobody has decided, by state: prepared, or parked. Those of payments and other activities are not counted."}, "state"),
		waiting:   desc(prometheus.Opts{Name: "remit_messages_waiting", Help: "Messages that are committed and not yet delivered: delayed, held by a pre-check, behind another of their key, or without their topic."}),
		stuck:     desc(prometheus.Opts{Name: "remit_messages_stuck", Help: "Prepared messages whose producer has stayed silent past its deadline, as of the last full minute."}),
		age:       desc(prometheus.Opts{Name: "remit_messages_undecided_oldest_seconds", Help: "How long ago the message was prepared that is undecided longest; 0 if all are decided."}),
	}
}

// Describe implements prometheus.Collector.
func (g *messageGauges) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{g.undecided, g.waiting, g.stuck, g.age} {
		to <- d
	}
}

// Collect implements prometheus.Collector. What cannot be read, since the server stops, is left out.
func (g *messageGauges) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, n float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, n, labels...)
	}
	if t, err := g.tally(); err == nil {
		gauge(g.undecided, float64(t.Prepared), broker.StatePrepared.String())
		gauge(g.undecided, float64(t.Parked), broker.StateParked.String())
		gauge(g.waiting, float64(t.Committed))
		gauge(g.stuck, float64(t.Stuck))
	}
	if began, known, err := g.oldest.Oldest(); err == nil && known {
		var age time.Duration
		if !began.IsZero() {
			age = max(g.node.Now().Sub(began), 0)
		}
		gauge(g.age, age.Seconds())
	}
}

// tally sums up all partitions.
func (g *messageGauges) tally() (sum broker.Tally, err error) {
	now := g.node.Now()
	for p := range int32(g.node.Partitions()) {
		err := g.node.Read(p, func(rows fold.Scanner, _ log.Offset) error {
			sum.Add(broker.TallyOf(rows, now))
			return nil
		})
		if err != nil {
			return sum, err
		}
	}
	return sum, nil
}
