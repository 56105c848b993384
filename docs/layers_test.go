package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/remitlog/remit/"

// layers is the top level and the import arrow of design.md: a package may import
// those beside it and its own subpackages. cmd may import all.
var layers = map[string][]string{
	"log":         {},
	"broker":      {"log"},
	"saga":        {"log", "broker"},
	"projections": {"log"},
	"consumers":   {"log"},
	"docs":        {},
	"cmd":         {"log", "broker", "saga", "projections", "consumers"},
}

var topFiles = []string{"go.mod", "go.sum", "README.md", "LICENSE"}

// rules are the finer rules. A path stands for itself and all below it.
var rules = []struct {
	why     string
	imports []string // what may not be imported
	from    []string // by whom; nil means anybody
	but     []string // except by these
	tests   bool     // test files may
}{
	{
		why:     "log/slog is used; this module's own package is called log",
		imports: []string{"log"},
	},
	{
		why:     "JSON is read and written by github.com/go-json-experiment/json, which knows omitzero, refuses doubled names and is the coming encoding/json/v2",
		imports: []string{"encoding/json"}, but: []string{"log/embedded"}, tests: true, // a topic's row was first written by it
	},
	{
		why:     "math/rand/v2 is used: its generators are seeded on purpose or not at all",
		imports: []string{"math/rand"},
	},
	{
		why:     "an implementation of the log is chosen by cmd, and nobody above log knows which",
		imports: []string{module + "log/embedded", module + "log/kafka", module + "log/kafkaapi"},
		from:    []string{"log", "broker", "saga", "projections", "consumers"},
		but:     []string{"log/embedded", "log/kafka", "log/kafkaapi"}, tests: true,
	},
	{
		why:     "Pebble is opened by log/store, and used by the stores alone; cmd shares caches and file systems out",
		imports: []string{"github.com/cockroachdb/pebble", "github.com/cockroachdb/errors"},
		but:     []string{"log/store", "log/embedded", "log/fold", "log/logtest", "projections", "cmd"}, tests: true,
	},
	{
		why:     "only log/store opens a Pebble: with the witness, the pinned format and the double open",
		imports: []string{module + "log/store"},
		but:     []string{"log/store", "log/embedded", "log/fold", "cmd"}, tests: true,
	},
	{
		why:     "franz-go has one door; what is measured beside Apache Kafka is measured with its users' client",
		imports: []string{"github.com/twmb/franz-go/pkg/kgo"}, but: []string{"log/kafka", "cmd/remit/bench"}, tests: true,
	},
	{
		why:     "the Kafka protocol's encoding has one door",
		imports: []string{"github.com/twmb/franz-go/pkg/kmsg"}, but: []string{"log/kafkaapi", "log/kafka"}, tests: true, // kgo shows it where a commit is made
	},
	{
		why:     "log/event*.go alone knows how a CloudEvent becomes bytes",
		imports: []string{"github.com/cloudevents/sdk-go"}, but: []string{"log", "consumers", "broker/producer"}, tests: true, // services have the SDK's type
	},
	{
		why:     "metrics and the command line are wired in cmd; what is below has a Listener",
		imports: []string{"github.com/prometheus", "github.com/spf13"}, but: []string{"cmd"},
	},
	{
		why:     "YAML is for people: what is configured in cmd, and the test vectors of others",
		imports: []string{"go.yaml.in"}, but: []string{"cmd"}, tests: true,
	},
	{
		why:     "CloudEvents SQL has one door, which bounds it",
		imports: []string{"github.com/cloudevents/sdk-go/sql"}, but: []string{"log/when"},
	},
	{
		why: "what users link has neither a store nor the server in it",
		imports: []string{
			module + "log/store", module + "log/embedded", module + "log/fold", module + "log/names", module + "log/registry",
			"github.com/cockroachdb", "github.com/prometheus", "github.com/spf13",
		},
		from: []string{"broker/producer", "saga/initiator", "saga/participant", "saga/fence", "consumers"}, tests: true,
	},
	{
		why:     "every call to others goes through broker/callout, which looks at addresses; push keeps to the rate that a sink allows",
		imports: []string{"code.dny.dev/ssrf", "github.com/sony/gobreaker", "golang.org/x/time"}, but: []string{"broker/callout", "consumers/push"}, tests: true,
	},
	{
		why:     "a service brings the driver of its database; log/sqltx knows a few methods of its transactions",
		imports: []string{"github.com/jackc/pgx", "github.com/go-sql-driver/mysql", "modernc.org/sqlite"}, tests: true,
	},
	{
		why:     "what starts servers is for tests and measurements",
		imports: []string{module + "consumers/dbtest", module + "log/kafka/kafkatest", module + "consumers/consumerstest", module + "broker/producer/producertest"},
		but:     []string{"cmd/remit/bench"}, tests: true,
	},
	{
		why:     "logtest is for tests",
		imports: []string{module + "log/logtest"}, but: []string{"log/logtest", "cmd/remit/sim", "cmd/remit/torture"}, tests: true,
	},
	{
		why:     "views depend on what is written on the log, not on who writes it",
		imports: []string{module + "log/names", module + "log/registry", module + "broker", module + "saga"},
		from:    []string{"projections"}, tests: true,
	},
}

// TestLayers reads the sources itself. Asking go list would be shorter, but go
// test caches its result by the files that the test opens, and cannot see which
// files a child process has read.
func TestLayers(t *testing.T) {
	sources(t, func(path, top string) {
		if _, ok := layers[top]; !ok && !slices.Contains(topFiles, top) {
			t.Errorf("%s: the top level of design.md has no %q", path, top)
		}
	}, func(path, top string, f *ast.File) {
		for _, spec := range f.Imports {
			imp, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Error(path, err)
				continue
			}
			rest, own := strings.CutPrefix(imp, module)
			to, _, _ := strings.Cut(rest, "/")
			user := strings.HasSuffix(f.Name.Name, "_test") // an external test stands where a user stands: above
			if own && top != "cmd" && to != top && !user && !slices.Contains(layers[top], to) {
				t.Errorf("%s must not import %s", path, imp)
			}
			if why := broken(path, imp); why != "" {
				t.Errorf("%s must not import %s: %s", path, imp, why)
			}
		}
	})
}

// broken returns why the file at path must not import imp, "" if it may.
func broken(path, imp string) string {
	dir := filepath.ToSlash(filepath.Dir(path))
	for _, r := range rules {
		switch {
		case r.tests && strings.HasSuffix(path, "_test.go"),
			!imported(imp, r.imports),
			r.from != nil && !within(dir, r.from),
			within(dir, r.but):
		default:
			return r.why
		}
	}
	return ""
}

// TestRules: the rules see what they are for.
func TestRules(t *testing.T) {
	for _, c := range []struct {
		path, imp string
		allowed   bool
	}{
		{"broker/broker.go", "log", false},
		{"broker/broker.go", "log/slog", true},
		{"broker/broker.go", "math/rand", false},
		{"broker/broker.go", "math/rand/v2", true},
		{"broker/broker.go", "github.com/cockroachdb/pebble/v2", false},
		{"broker/broker_test.go", "github.com/cockroachdb/pebble/v2", true},
		{"broker/broker.go", module + "log/fold", true},
		{"broker/broker.go", module + "log/embedded", false},
		{"broker/producer/producer.go", module + "log/fold", false},
		{"broker/producer/producer.go", module + "log", true},
		{"consumers/consumers.go", module + "log/kafka", false},
		{"consumers/once.go", "github.com/jackc/pgx/v5", false},
		{"consumers/once_test.go", "github.com/jackc/pgx/v5", true},
		{"cmd/remit/node.go", module + "log/embedded", true},
		{"log/fold/fold.go", module + "log/kafka", false},
		{"log/when/nodes.go", "github.com/cloudevents/sdk-go/sql/v2/expression", true},
		{"broker/producers.go", "github.com/cloudevents/sdk-go/sql/v2", false},
		{"log/registry/registry.go", "go.yaml.in/yaml/v3", false},
		{"log/fold/fold.go", "github.com/twmb/franz-go/pkg/kgo", false},
		{"log/kafka/kafka.go", "github.com/twmb/franz-go/pkg/kgo", true},
		{"projections/facts/facts.go", module + "saga", false},
		{"saga/saga.go", "github.com/prometheus/client_golang/prometheus", false},
	} {
		if why := broken(c.path, c.imp); (why == "") != c.allowed {
			t.Errorf("%s imports %s: %q", c.path, c.imp, why)
		}
	}
}

// imported reports whether imp is one of packages, or below one. Of the standard library it must be that one: log has
// log/slog below it.
func imported(imp string, packages []string) bool {
	return slices.Contains(packages, imp) || strings.Contains(imp, ".") && within(imp, packages)
}

// within reports whether path is one of roots, or below one.
func within(path string, roots []string) bool {
	return slices.ContainsFunc(roots, func(root string) bool {
		return path == root || strings.HasPrefix(path, root+"/")
	})
}

// sources visits every file and directory from the top on, and parses every Go file. Paths begin at the top.
func sources(t *testing.T, visit func(path, top string), parsed func(path, top string, f *ast.File)) {
	t.Helper()
	err := filepath.WalkDir("..", func(name string, d fs.DirEntry, err error) error {
		path := filepath.ToSlash(strings.TrimPrefix(name, ".."+string(filepath.Separator)))
		switch {
		case err != nil:
			return err
		case path == "..":
			return nil
		case strings.HasPrefix(d.Name(), "."):
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		top, _, _ := strings.Cut(path, "/")
		visit(path, top)
		if d.IsDir() || filepath.Ext(path) != ".go" {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		parsed(path, top, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
