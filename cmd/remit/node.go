package main

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/remitlog/remit/cmd/remit/api"
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
	// Try are commands to try next; {http} stands for the address of the HTTP API.
	Try []string
}

// nodeDeps are what the process gives a node.
type nodeDeps struct {
	Logger *slog.Logger
	// Fail stops the process with err: for what must not go on, such as a failed fsync. It may be called from any
	// goroutine, and more than once; the first counts.
	Fail func(error)
}

// open makes the node. It returns soon: what takes long (replaying a log) goes on behind it, and Ready says how far it
// is. ctx is that of opening alone. The node is, for now, the API server with what is there without any noun.
func open(_ context.Context, _ Config, deps nodeDeps) (node, error) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	server, err := api.New(api.Options{Logger: deps.Logger, Registry: registry})
	if err != nil {
		return nil, err
	}
	return &apiNode{server}, nil
}

// apiNode serves health, version and metrics, and keeps nothing.
type apiNode struct{ server *api.Server }

func (n *apiNode) Handler() http.Handler       { return n.server }
func (n *apiNode) Ready() error                { return nil }
func (n *apiNode) Drain()                      { n.server.Drain() }
func (n *apiNode) Close(context.Context) error { return nil }

func (n *apiNode) About() about {
	return about{
		Durability: "nothing is stored: this build serves health, version and metrics alone",
		Try:        []string{"curl {http}/readyz", "curl {http}/openapi.yaml", "remit config print"},
	}
}
