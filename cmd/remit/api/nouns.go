package api

import (
	"github.com/remitlog/remit/broker"
	"github.com/remitlog/remit/consumers/parked"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/log/registry"
	"github.com/remitlog/remit/projections"
	"github.com/remitlog/remit/saga/payments"
)

// Nouns are what the calls of all nouns need.
type Nouns struct {
	Log      log.Log
	Node     *fold.Node // of the core
	Registry *registry.Registry
	Broker   *broker.Broker
	Payments *payments.Service
	Views    *projections.Views
	// Answering is at how many addresses a message's producer can be asked about it that are not known to fail.
	Answering func(broker.Message) int
	Parked    *parked.Shelf
	Push      Deliveries
	// AutoCreate makes a topic when something is first written to it.
	AutoCreate bool
	// TopicPartitions is how many partitions a topic gets that asks for no number; 0 means log.PartitionsDefault.
	TopicPartitions int
}

// Routes returns those of all nouns. The table itself needs nothing: that of the zero Nouns is the same.
func (n Nouns) Routes() []Route {
	payments := &Payments{Service: n.Payments, Core: n.Node, Views: n.Views}
	accounts := &Accounts{Node: n.Node, Views: n.Views}
	topics := &Topics{Log: n.Log, Node: n.Node, AutoCreate: n.AutoCreate, Partitions: n.TopicPartitions}
	var all []Route
	for _, noun := range []interface{ Routes() []Route }{
		payments,
		accounts,
		topics,
		&Producers{Registry: n.Registry, Node: n.Node},
		&Subscriptions{Registry: n.Registry, Log: n.Log, Node: n.Node, Push: n.Push},
		&Parked{Shelf: n.Parked, Log: n.Log, Node: n.Node, Registry: n.Registry},
		&Messages{Node: n.Node, Broker: n.Broker, Registry: n.Registry, Topics: topics, Views: n.Views, Answering: n.Answering},
		&Activities{Views: n.Views, Node: n.Node},
		&Views{Views: n.Views, Accounts: accounts, Payments: payments},
		&Stories{Views: n.Views, Node: n.Node},
	} {
		all = append(all, noun.Routes()...)
	}
	return all
}
