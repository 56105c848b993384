package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"

	"github.com/remitlog/remit/cmd/remit/api"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/kafkaapi"
)

// listenKafka takes the address of the Kafka API, before any data is touched.
func listenKafka(ctx context.Context, config Config) (net.Listener, error) {
	secure, err := loadTLS(config)
	if err != nil {
		return nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", config.Kafka)
	if err != nil {
		return nil, listenError("kafka", config.Kafka, "another remit, or a Kafka,", err)
	}
	if secure != nil {
		l = tls.NewListener(l, secure)
	}
	return l, nil
}

// serveKafka serves the log over the Kafka protocol. Until then connections wait.
func (s *server) serveKafka() error {
	k, err := kafkaapi.New(kafkaapi.Options{
		Log: s.log, Advertise: s.config.KafkaAdvertise, AutoCreate: s.config.AutoCreateTopics, Partitions: s.core.Created.Partitions,
		InUse: s.topicInUse, Deleted: s.topicDeleted, Dir: filepath.Join(s.config.dataDir(), "log"), Logger: s.deps.Logger, Listener: s.watch.kafka(),
	})
	if err != nil {
		return err
	}
	s.kafka.Store(k)
	s.serving.Go(func() {
		if err := k.Serve(s.kafkaListener); !errors.Is(err, kafkaapi.ErrServerClosed) {
			s.deps.Fail(fmt.Errorf("kafka: %w", err))
		}
	})
	return nil
}

// closeKafka stops serving; what clients were answered is durable.
func (s *server) closeKafka(ctx context.Context) error {
	k := s.kafka.Load()
	if k == nil {
		return s.kafkaListener.Close()
	}
	defer s.serving.Wait()
	return k.Close(ctx)
}

// topicInUse says why a topic must not be deleted.
func (s *server) topicInUse(name string) error {
	uses, err := api.InUse(s.core.Node, name)
	if err == nil && uses > 0 {
		err = fmt.Errorf("%d messages of topic %s are undecided or not yet delivered; decide them, and wait: GET /v1/messages?topic=%s lists them, with state=prepared, parked or committed", uses, name, name)
	}
	return err
}

// topicsLog is the log as the HTTP API has it: a topic that it deletes is gone for consumer groups too.
type topicsLog struct {
	log.Log
	kafka *kafkaapi.Server
}

func (t topicsLog) DeleteTopic(ctx context.Context, name string) error {
	return t.kafka.DeleteTopic(ctx, name)
}

// kafka listens to the Kafka API.
func (m *metrics) kafka() kafkaapi.Listener {
	return kafkaapi.Listener{
		Connections: func(open int) { m.kafkaConnections.Set(float64(open)) },
		Answered: func(kind string, took time.Duration) {
			m.kafkaRequests.WithLabelValues(kind).Observe(took.Seconds())
		},
		Closed: func(error) { m.kafkaClosed.Inc() },
	}
}
