package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/remitlog/remit/broker"
	"github.com/remitlog/remit/broker/callout"
	"github.com/remitlog/remit/cmd/remit/api"
	"github.com/remitlog/remit/cmd/remit/core"
	"github.com/remitlog/remit/consumers/parked"
	"github.com/remitlog/remit/consumers/push"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/embedded"
	"github.com/remitlog/remit/log/kafkaapi"
	"github.com/remitlog/remit/log/registry"
	"github.com/remitlog/remit/log/store"
	"github.com/remitlog/remit/projections"
	"github.com/remitlog/remit/saga/payments"
)

// node is what a server runs. [app.serve] opens it after the configuration is validated and the HTTP address is
// taken, serves its Handler at once, says that it is ready when Ready is nil, and closes it after the last call.
type node interface {
	Handler() http.Handler
	// Ready says why calls are not yet answered as they should be; nil when they are.
	Ready() error
	// Drain is called once when the server begins to stop: calls that never end by themselves are to end.
	Drain()
	// Close stops everything; what is not done when ctx ends is left, since everything acknowledged is durable.
	Close(ctx context.Context) error
	// About is for the banner.
	About() about
}

// about is what a node says of itself once it is ready.
type about struct {
	// Kafka is the address of the Kafka API, "" when there is none.
	Kafka string
	// Durability says in one sentence how safe an acknowledged write is.
	Durability string
	// Try are commands to try next; {http} stands for the address of the HTTP API, {kafka} for the Kafka API's, {remit} for this program.
	Try []string
}

// nodeDeps are what the process gives a node.
type nodeDeps struct {
	Logger *slog.Logger
	// Fail stops the process with err: for what must not go on, such as a failed fsync. It may be called from any
	// goroutine, and more than once; the first counts.
	Fail func(error)
}

// errRestoring is why a node is not ready at first.
var errRestoring = errors.New("reading the log: the state and the views are being restored")

// server is remit on an embedded log:
//
//	HTTP ──▶ api ──▶ core (fold over the log) ──▶ embedded log, DIR/log
//	                   └──▶ DIR/state, DIR/registry, DIR/views: made from the log
//	Kafka ─────────────────────────────────────▶ kafkaapi ──▶ embedded log
//	sinks ◀── push ── reads the log, and commits to groups of the Kafka API
type server struct {
	config Config
	deps   nodeDeps
	log    *embedded.Log
	cache  *pebble.Cache

	kafkaListener net.Listener
	kafka         atomic.Pointer[kafkaapi.Server]
	serving       sync.WaitGroup

	metrics *prometheus.Registry
	watch   *metrics
	api     atomic.Pointer[api.Server]
	caller  *callout.Caller
	asker   *broker.Producers // nil until the registry is restored
	sinks   *callout.Caller   // of subscriptions
	push    atomic.Pointer[push.Service]
	shelf   *parked.Shelf // set before push is
	core    *core.Core
	views   *projections.Views
	ready   atomic.Pointer[error]
	giveUp  context.CancelFunc
	opening sync.WaitGroup
}

// open makes the node. What the log itself is refused for is said here; restoring the state from it goes on behind,
// and Ready says how far it is. ctx is that of opening alone.
func open(ctx context.Context, config Config, deps nodeDeps) (node, error) {
	limitMemory()
	s := &server{config: config, deps: deps, cache: pebble.NewCache(cacheBytes), metrics: prometheus.NewRegistry()}
	s.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	s.watch = newMetrics(s.metrics)
	s.unready(errRestoring)
	if err := s.serve(nil); err != nil {
		return nil, err
	}
	var err error
	if s.caller, err = newCaller(config, deps.Logger, s.watch); err != nil {
		return nil, err
	}
	if s.sinks, err = newSinkCaller(config, s.watch); err != nil {
		return nil, err
	}
	if s.kafkaListener, err = listenKafka(ctx, config); err != nil {
		return nil, err
	}
	if err := checkLog(config.Data); err != nil {
		return nil, errors.Join(err, s.kafkaListener.Close())
	}
	s.log, err = embedded.Open(embedded.Options{
		Dir: filepath.Join(config.Data, "log"), Logger: deps.Logger, Fatal: deps.Fail, Cache: s.cache,
		Listener: s.watch.log(), MemTableBytes: logMemTableBytes,
	})
	if err != nil {
		return nil, errors.Join(err, s.kafkaListener.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.giveUp = cancel
	go tuneMemory(ctx)
	s.opening.Go(func() {
		if err := s.restore(ctx); err != nil {
			s.unready(err)
			deps.Fail(err)
		}
	})
	return s, nil
}

// checkLog refuses to begin a new log beside what was made from another: whose directory is empty, or not mounted, has lost the log, and a
// remit that began anew would answer as if nothing had ever been. The log is made first, so its state is never there without it.
func checkLog(data string) error {
	if there, err := store.Exists(vfs.Default, filepath.Join(data, "log")); there || err != nil {
		return nil // what is wrong with it is said when it is opened
	}
	for _, made := range []string{"state", "registry"} {
		if there, err := store.Exists(vfs.Default, filepath.Join(data, made)); there || err != nil {
			return fmt.Errorf("data %s: %w", data, &log.CorruptError{File: "log", Byte: -1, Detail: "it is not there, and " + made + ", which is made from it, is; " +
				"put it back, or restore a copy; to begin anew move state, registry and views away"})
		}
	}
	return nil
}

func (s *server) unready(err error) { s.ready.Store(&err) }

// serve puts the API up with the routes that there are.
func (s *server) serve(routes []api.Route) error {
	schemas := []api.Schema{}
	for _, f := range payments.Told() {
		schemas = append(schemas, api.Schema{Type: f.Type, Value: f.Zero})
	}
	schemas = append(schemas, api.Schema{Type: push.Missed{}.EventType(), Value: push.Missed{}})
	registry := s.metrics
	if routes == nil {
		registry = prometheus.NewRegistry() // it is put up again when the state is restored
	}
	a, err := api.New(api.Options{Routes: routes, Schemas: schemas, Ready: s.Ready, LoopbackOnly: true, Logger: s.deps.Logger, Registry: registry})
	if err != nil {
		return err
	}
	s.api.Store(a)
	return nil
}

func (s *server) restore(ctx context.Context) (err error) {
	s.core, err = core.Open(ctx, core.Options{
		Log: s.log, Dir: s.config.Data, Partitions: s.config.Partitions, Cache: s.cache, MemTableBytes: stateMemTableBytes, Logger: s.deps.Logger,
		Fatal: s.deps.Fail, ClockBehindAllowed: s.config.AllowClockBehind, Listener: s.watch.fold(s.deps.Logger),
		Asker: func(r *registry.Registry) broker.Asker {
			s.asker = newAsker(r, s.caller, s.deps.Logger, s.watch)
			return s.asker
		},
	})
	if err != nil {
		return fmt.Errorf("data %s: %w", s.config.Data, err)
	}
	s.views, err = projections.Follow(ctx, projections.Options{
		Log: s.log, Dir: s.config.Data, Partitions: s.config.Partitions, Cache: s.cache, Logger: s.deps.Logger, Fatal: s.deps.Fail,
		MemTableBytes: viewMemTableBytes,
	})
	if err != nil {
		return fmt.Errorf("data %s: %w", s.config.Data, err)
	}
	// Sums over half a view would be wrong and look right: the views catch up with what is there before anything is served.
	if err := s.views.Wait(ctx, s.core.Node.Position()); err != nil {
		return fmt.Errorf("data %s: %w", s.config.Data, err)
	}
	s.metrics.MustRegister(newMessageGauges(s.core.Node, s.views.Transactions))
	if err := s.serveKafka(); err != nil {
		return fmt.Errorf("data %s: %w", s.config.Data, err)
	}
	if err := s.servePush(); err != nil {
		return fmt.Errorf("data %s: %w", s.config.Data, err)
	}
	if err := s.serve(s.routes()); err != nil {
		return err
	}
	s.ready.Store(new(error))
	return nil
}

func (s *server) routes() []api.Route {
	return api.Nouns{
		Log: topicsLog{s.log, s.kafka.Load()}, Node: s.core.Node, Registry: s.core.Registry, Broker: s.core.Broker, Payments: s.core.Payments, Views: s.views,
		Parked: s.shelf, Push: s.push.Load(), Answering: s.asker.Answering, AutoCreate: s.config.AutoCreateTopics, TopicPartitions: s.core.Created.Partitions,
	}.Routes()
}

// Handler answers by the API that is up; until the state is restored only health and documents are.
func (s *server) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.api.Load().ServeHTTP(w, r)
	})
}

func (s *server) Ready() error { return *s.ready.Load() }

func (s *server) Drain() { s.api.Load().Drain() }

func (s *server) Close(ctx context.Context) error {
	s.giveUp()
	closed := make(chan error, 1)
	go func() {
		s.opening.Wait()
		errs := []error{s.closePush(ctx), s.sinks.Close(ctx)} // what sinks have taken is noted in the groups that the Kafka API keeps
		errs = append(errs, s.closeKafka(ctx))
		if s.views != nil {
			errs = append(errs, s.views.Close())
		}
		if s.core != nil {
			errs = append(errs, s.core.Close())
		}
		errs = append(errs, s.caller.Close(ctx)) // what is answered now comes too late, and is asked again
		closed <- errors.Join(append(errs, s.log.Close())...)
	}()
	select {
	case err := <-closed:
		return err
	case <-ctx.Done():
		return nil
	}
}

func (s *server) About() about {
	return about{
		Kafka:      s.kafkaListener.Addr().String(),
		Durability: "every answer is on this disk before it is given (fsync); one disk, one copy: back it up",
		Try: []string{
			"{remit} accounts open alice --currency EUR && {remit} accounts deposit alice --id d1 --amount 100.00",
			"{remit} accounts open shop --currency EUR",
			"{remit} payments pay --id order-1 --payer alice --payee shop --amount 12.50 --currency EUR",
			"{remit} story order-1",
			"kcat -b {kafka} -t payments -o beginning -e",
		},
	}
}
