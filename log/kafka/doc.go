// Package kafka is the door to clusters that speak the Kafka protocol: Redpanda, Apache Kafka, and remit's own listener. It alone
// knows franz-go.
//
// What is here is [Reader], a member of a consumer group, for package consumers. The log of a cluster is not built yet.
package kafka
