package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Handler answers one call. What it returns is sent as a problem (see [AsProblem]), so it returns an error only
// while nothing has been written.
type Handler func(w http.ResponseWriter, r *http.Request) error

// Route is one row of the route table. openapi.yaml is held against the table by a test, both ways.
type Route struct {
	Method  string
	Pattern string // of net/http: "/v1/payments/{id}"
	// Name is the operationId in openapi.yaml and the route label of the metrics: "getPayment".
	Name    string
	Handler Handler
	// Streams: the call reads or writes for as long as it likes (see [Stream]); no write deadline is set.
	Streams bool
}

// Options are what a [Server] is made of.
type Options struct {
	// Routes are those of the nouns; the server adds its own (see [Server.Routes]).
	Routes []Route
	// Schemas are the event types that leave remit.
	Schemas []Schema
	// Ready says why not to /readyz; nil means that there is nothing to wait for.
	Ready func() error
	// LoopbackOnly refuses calls whose Host is not a loopback address: where nobody is asked who they are, the address is the
	// only protection, and a name can be rebound to it.
	LoopbackOnly bool
	// Logger takes one line a call. Default: slog.Default.
	Logger *slog.Logger
	// Registry is what /metrics shows. Default: a new one.
	Registry *prometheus.Registry
}

// EnsureDefaults fills in what is not set.
func (o *Options) EnsureDefaults() {
	if o.Ready == nil {
		o.Ready = func() error { return nil }
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Registry == nil {
		o.Registry = prometheus.NewRegistry()
	}
}

// Server is the API as an http.Handler.
//
// It refuses calls that a page of another origin makes in a browser: remit listens on loopback without
// asking who calls, and every page that the user opens could reach it there.
type Server struct {
	Options
	mux     *http.ServeMux
	routes  []Route
	origins *http.CrossOriginProtection
	metrics *metrics

	draining  atomic.Bool
	drained   context.Context // ends when Drain is called: streams stop reading
	drainDone context.CancelFunc
}

// New makes the server. Errors: a pattern or a name that stands twice, a type without a schema.
func New(o Options) (*Server, error) {
	o.EnsureDefaults()
	s := &Server{Options: o, mux: http.NewServeMux(), origins: http.NewCrossOriginProtection()}
	s.drained, s.drainDone = context.WithCancel(context.Background())
	schemas, err := newSchemas(o.Schemas)
	if err != nil {
		return nil, err
	}
	s.metrics = newMetrics(o.Registry)
	s.routes = slices.Concat(s.own(schemas), o.Routes)
	if err := checkRoutes(s.routes); err != nil {
		return nil, err
	}
	for _, route := range s.routes {
		s.mux.Handle(route.Method+" "+route.Pattern, s.handle(route))
	}
	s.mux.Handle("/", s.handle(Route{Name: "none", Handler: s.noRoute}))
	return s, nil
}

// own are the routes that are there without any noun.
func (s *Server) own(schemas *schemas) []Route {
	metrics := promhttp.HandlerFor(s.Registry, promhttp.HandlerOpts{Registry: s.Registry})
	return []Route{
		{Method: "GET", Pattern: "/livez", Name: "getLive", Handler: s.live},
		{Method: "GET", Pattern: "/readyz", Name: "getReady", Handler: s.ready},
		{Method: "GET", Pattern: "/metrics", Name: "getMetrics", Handler: asHandler(metrics)},
		{Method: "GET", Pattern: "/version", Name: "getVersion", Handler: s.version},
		{Method: "GET", Pattern: "/openapi.yaml", Name: "getOpenAPI", Handler: s.openAPI},
		{Method: "GET", Pattern: "/schemas/{file}", Name: "getSchema", Handler: schemas.get},
	}
}

func checkRoutes(routes []Route) error {
	patterns, names := map[string]bool{}, map[string]bool{}
	for _, r := range routes {
		pattern := r.Method + " " + r.Pattern
		if r.Method == "" || r.Name == "" || r.Handler == nil || !strings.HasPrefix(r.Pattern, "/") {
			return fmt.Errorf("api: route %q is not whole", pattern)
		}
		if patterns[pattern] || names[r.Name] {
			return fmt.Errorf("api: route %q (%s) stands twice", pattern, r.Name)
		}
		patterns[pattern], names[r.Name] = true, true
	}
	return nil
}

func asHandler(h http.Handler) Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		h.ServeHTTP(w, r)
		return nil
	}
}

// Routes returns the whole table, sorted as it was given.
func (s *Server) Routes() []Route { return slices.Clone(s.routes) }

// ServeHTTP answers one call.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// Drain makes /readyz say that remit is stopping, and every [Stream] stop reading, answer what it has begun, and
// end. Calls that run go on. It is given to http.Server.RegisterOnShutdown.
func (s *Server) Drain() {
	s.draining.Store(true)
	s.drainDone()
}

type status struct {
	Status string `json:"status"`
}

func (s *Server) live(w http.ResponseWriter, _ *http.Request) error {
	return WriteJSON(w, http.StatusOK, status{"live"})
}

func (s *Server) ready(w http.ResponseWriter, _ *http.Request) error {
	if s.draining.Load() {
		return NewProblem(CodeNotReady, "remit is stopping")
	}
	err := s.Ready()
	if err == nil {
		return WriteJSON(w, http.StatusOK, status{"ready"})
	}
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	return NewProblem(CodeNotReady, "%s", err.Error())
}

func (s *Server) version(w http.ResponseWriter, _ *http.Request) error {
	return WriteJSON(w, http.StatusOK, ReadBuild())
}

// noRoute says what was searched: 405 if the path is there for other methods, else 404. While the server is not
// ready, its nouns are not there yet.
func (s *Server) noRoute(w http.ResponseWriter, r *http.Request) error {
	if s.Ready() != nil {
		return s.ready(w, r)
	}
	var allowed []string
	probe := r.Clone(r.Context())
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} {
		probe.Method = method
		if _, pattern := s.mux.Handler(probe); pattern != "/" && pattern != "" {
			allowed = append(allowed, method)
		}
	}
	if len(allowed) == 0 {
		return NewProblem(CodeNotFound, "no call has the path %q; /openapi.yaml lists them all", r.URL.Path)
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	return NewProblem(CodeMethodNotAllowed, "%s takes %s, not %s", r.URL.Path, strings.Join(allowed, ", "), r.Method)
}
