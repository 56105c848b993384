package main

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"

	"github.com/remitlog/remit/cmd/remit/core"
	"github.com/remitlog/remit/consumers/push"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/log/registry"
	"github.com/remitlog/remit/saga/payments"
)

//go:generate go test . -run ^Test(Events|Operating)Page$ -update-docs

var updateDocs = flag.Bool("update-docs", false, "write the generated pages and tables anew")

// TestEventsPage holds docs/events.md against the Go types.
func TestEventsPage(t *testing.T) {
	fresh(t, "../../docs/events.md", func(string) string { return renderEvents(t) })
}

// TestOperatingPage holds the tables of docs/operating.md against the options and the metrics.
func TestOperatingPage(t *testing.T) {
	fresh(t, "../../docs/operating.md", func(page string) string {
		page = between(t, page, "options", renderOptions())
		return between(t, page, "metrics", renderMetrics(t))
	})
}

// fresh fails if a page is not what render makes of it, or, if told so, writes it.
func fresh(t *testing.T, path string, render func(page string) string) {
	t.Helper()
	was, err := os.ReadFile(path)
	if err != nil && !*updateDocs {
		t.Fatal(err)
	}
	want := render(string(was))
	switch {
	case string(was) == want:
	case *updateDocs:
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s is stale: go generate ./cmd/remit", path)
	}
}

// between puts a table between its marks.
func between(t *testing.T, page, name, table string) string {
	t.Helper()
	begin, end := "<!-- "+name+": generated, go generate ./cmd/remit -->\n", "<!-- end -->"
	before, rest, ok := strings.Cut(page, begin)
	_, after, ended := strings.Cut(rest, end)
	if !ok || !ended {
		t.Fatalf("the marks of the table of %s are not there", name)
	}
	return before + begin + table + end + after
}

func renderOptions() string {
	var b strings.Builder
	b.WriteString("| flag | variable | default | |\n|---|---|---|---|\n")
	for _, o := range options {
		flag, variable, def := "`--"+o.name+"`", "`"+o.envName()+"`", ""
		if o.secret {
			flag, variable = "", variable+", `"+o.envName()+"_FILE`"
		}
		if o.def != "" {
			def = "`" + o.def + "`"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", flag, variable, def, o.help)
	}
	return b.String()
}

var metricName = regexp.MustCompile(`Name:\s+"(remit_\w+)",\s*Help:\s+"([^"]+)"`)

// renderMetrics finds the metrics in the sources.
func renderMetrics(t *testing.T) string {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("*/*.go")
	if err != nil {
		t.Fatal(err)
	}
	var rows []string
	for _, name := range append(files, more...) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		found := metricName.FindAllStringSubmatch(string(b), -1)
		if named := strings.Count(string(b), `"remit_`); named != len(found) && !strings.HasSuffix(name, "_test.go") {
			t.Errorf("%s: %d names of metrics, of which %d are followed by their Help", name, named, len(found))
		}
		for _, m := range found {
			rows = append(rows, "| `"+m[1]+"` | "+m[2]+" |\n")
		}
	}
	slices.Sort(rows)
	return "| metric | |\n|---|---|\n" + strings.Join(rows, "")
}

const eventsHead = `<!-- Generated from the Go types: go generate ./cmd/remit -->

# Events

Every record that remit writes is a [CloudEvent 1.0](https://github.com/cloudevents/spec) in the binary content mode of the
Kafka protocol binding: attributes are record headers, the data is the record's value, JSON. A type is for ever: a new meaning
is a new type that ends in ` + "`.v2`" + `. Fields may be added to a type, so readers pass over what they do not know.

| header | says |
|---|---|
| ` + "`ce_id`" + ` | unique within ` + "`ce_source`" + `; a reader that has seen the pair has seen the event |
| ` + "`ce_source`" + ` | ` + "`remit`" + ` for remit's own story, ` + "`remit/payments`" + ` for what payments tell, the producer's own for a message |
| ` + "`ce_type`" + ` | one of the types below, or the producer's own |
| ` + "`ce_time`" + ` | when it happened, RFC 3339; of remit's own the time of the turn that wrote it, in whole milliseconds |
| ` + "`ce_partitionkey`" + ` | the routing key, which is the record's key too |
| ` + "`ce_correlationid`" + ` | the payment, refund, message or deposit that it is part of |
| ` + "`ce_dataschema`" + ` | where the JSON Schema of the data is served; on what leaves remit |
| ` + "`ce_recordedtime`" + ` | when remit made it visible; on what leaves remit |
| ` + "`content-type`" + ` | ` + "`application/json`" + ` |

Amounts in remit's own story are whole numbers of minor units; in what leaves remit they are decimal strings in major units.
Times that are numbers are Unix milliseconds. A field marked *optional* is left out when it is empty.
`

// section is the events of one topic.
type section struct {
	title, text string
	facts       []fold.FactType
}

func renderEvents(t *testing.T) string {
	p := eventPage{t: t, comments: map[string]string{}, words: map[string][]string{}}
	p.b.WriteString(eventsHead)
	sections := []section{
		{"What leaves remit: topic `payments`", "Written in the append of the decision, keyed by payer, once for each paid payment and each refund.", payments.Told()},
		{"What leaves remit: topics `….parked`", "Beside records that were set aside as they were: see [what was parked](push.md#what-was-parked).", []fold.FactType{fold.FactOf[push.Missed]()}},
		{"remit's own story: topic `remit.events`", "A partition of it is the whole story of its slots. remit alone writes it.", core.Facts()},
		{"The registry: topic `remit.registry`", "One partition, folded by every node. remit alone writes it.", registry.Facts()},
	}
	for _, s := range sections {
		for _, f := range s.facts {
			p.read(reflect.TypeOf(f.Zero).PkgPath())
		}
	}
	for _, s := range sections {
		fmt.Fprintf(&p.b, "\n## %s\n\n%s\n\n| type | |\n|---|---|\n", s.title, s.text)
		for _, f := range s.facts {
			fmt.Fprintf(&p.b, "| [`%s`](#%s) | %s |\n", f.Type, anchor(f.Type), p.says(f))
		}
		for _, f := range s.facts {
			fmt.Fprintf(&p.b, "\n### %s\n\n%s\n", f.Type, sentence(p.says(f)))
			p.fields(reflect.TypeOf(f.Zero))
		}
	}
	p.b.WriteString("\n## Objects within events\n")
	for i := 0; i < len(p.objects); i++ { // it grows
		o := p.objects[i]
		fmt.Fprintf(&p.b, "\n### %s\n\n%s\n", o.Name(), sentence(asJSON(o, strings.TrimPrefix(p.comment(o, ""), o.Name()+" is "))))
		p.fields(o)
	}
	return p.b.String()
}

// eventPage writes the page, and notes the objects that are still to be described.
type eventPage struct {
	t        *testing.T
	b        strings.Builder
	objects  []reflect.Type
	comments map[string]string   // of types and fields, by package path, type and field; "" of a package: it is read
	words    map[string][]string // the constants of a string type, by reflect's name of it
}

// says is what the comment of a fact says that it is the fact of.
func (p *eventPage) says(f fold.FactType) string {
	typ := reflect.TypeOf(f.Zero)
	c := p.comment(typ, "")
	c = strings.TrimPrefix(c, typ.Name()+" is ")
	return strings.TrimSuffix(strings.TrimPrefix(c, "the fact that "), ".")
}

func sentence(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + strings.TrimSuffix(s[1:], ".") + "."
}

func anchor(s string) string { return strings.ReplaceAll(s, ".", "") }

func (p *eventPage) fields(typ reflect.Type) {
	p.b.WriteString("\n| field | is | |\n|---|---|---|\n")
	p.rows(typ)
}

// rows writes the fields as JSON has them: those of embedded structs among the others.
func (p *eventPage) rows(typ reflect.Type) {
	for i := range typ.NumField() {
		f := typ.Field(i)
		tag, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && tag == "":
			p.rows(f.Type)
			continue
		case !f.IsExported():
			continue
		case tag == "":
			p.t.Errorf("%s.%s has no name in JSON", typ, f.Name)
		}
		is := p.kind(f.Type)
		if strings.HasPrefix(options, "omit") {
			is += ", *optional*"
		}
		said := strings.TrimSuffix(p.comment(typ, f.Name), ".")
		if words := p.words[f.Type.String()]; len(words) > 0 {
			said = strings.TrimPrefix(said+"; `"+strings.Join(words, "`, `")+"`", "; ")
		}
		fmt.Fprintf(&p.b, "| `%s` | %s | %s |\n", tag, is, asJSON(typ, said))
	}
}

// asJSON calls the fields of a type what JSON calls them.
func asJSON(typ reflect.Type, said string) string {
	for i := range typ.NumField() {
		f := typ.Field(i)
		if tag, _, _ := strings.Cut(f.Tag.Get("json"), ","); tag != "" {
			said = regexp.MustCompile(`\b`+f.Name+`\b`).ReplaceAllString(said, "`"+tag+"`")
		}
	}
	return said
}

// kind says what a value looks like in JSON.
func (p *eventPage) kind(typ reflect.Type) string {
	switch typ {
	case reflect.TypeFor[log.ID](), reflect.TypeFor[uuid.UUID]():
		return "id"
	case reflect.TypeFor[log.Fingerprint]():
		return "32 hex digits"
	case reflect.TypeFor[registry.Secret]():
		return "string; once it was changed, object of `now`, `before` and `beforeUntil`"
	case reflect.TypeFor[time.Time]():
		return "time, RFC 3339"
	case reflect.TypeFor[jsontext.Value]():
		return "object"
	}
	switch typ.Kind() {
	case reflect.Pointer:
		return p.kind(typ.Elem())
	case reflect.Slice:
		return "list of " + p.kind(typ.Elem())
	case reflect.Struct:
		if !slices.Contains(p.objects, typ) {
			p.objects = append(p.objects, typ)
		}
		return "[" + typ.Name() + "](#" + strings.ToLower(typ.Name()) + ")"
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int32, reflect.Int64:
		return "integer"
	}
	p.t.Errorf("%s: no event has had a %s yet; say here what it looks like in JSON", typ, typ.Kind())
	return "?"
}

// comment returns the comment of a type, or of a field of it, on one line.
func (p *eventPage) comment(typ reflect.Type, field string) string {
	p.read(typ.PkgPath())
	return p.comments[typ.PkgPath()+"."+typ.Name()+"."+field]
}

// read finds the comments of a package of ours.
func (p *eventPage) read(pkg string) {
	if _, read := p.comments[pkg]; read {
		return
	}
	p.comments[pkg] = ""
	dir, ours := strings.CutPrefix(pkg, "github.com/remitlog/remit/")
	if !ours {
		return
	}
	files, err := filepath.Glob(filepath.Join("../..", dir, "*.go"))
	if err != nil || len(files) == 0 {
		p.t.Fatal(pkg, files, err)
	}
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			p.t.Fatal(err)
		}
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, s := range g.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					p.readType(pkg, g, s)
				case *ast.ValueSpec:
					p.readWord(f.Name.Name, s)
				}
			}
		}
	}
}

// readWord notes a constant of a string type: Confirm Outcome = "confirm".
func (p *eventPage) readWord(pkg string, s *ast.ValueSpec) {
	var typ string
	switch t := s.Type.(type) {
	case *ast.Ident:
		typ = pkg + "." + t.Name
	case *ast.SelectorExpr:
		typ = types.ExprString(t)
	}
	if typ == "" || len(s.Values) != 1 {
		return
	}
	if lit, ok := s.Values[0].(*ast.BasicLit); ok && lit.Kind == token.STRING {
		p.words[typ] = append(p.words[typ], strings.Trim(lit.Value, `"`))
	}
}

func (p *eventPage) readType(pkg string, g *ast.GenDecl, s *ast.TypeSpec) {
	at := pkg + "." + s.Name.Name + "."
	if p.comments[at] = line(s.Doc); s.Doc == nil {
		p.comments[at] = line(g.Doc)
	}
	st, ok := s.Type.(*ast.StructType)
	if !ok {
		return
	}
	for _, f := range st.Fields.List {
		said := line(f.Doc)
		if f.Doc == nil {
			said = line(f.Comment)
		}
		for _, n := range f.Names {
			p.comments[at+n.Name] = said
		}
	}
}

func line(g *ast.CommentGroup) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(g.Text()), " "), "|", "\\|")
}
