package api

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/remitlog/remit/log"
)

var update = flag.Bool("update", false, "write the generated pages anew")

const errorsPage = "../../../docs/errors.md"

// TestErrorsPage holds docs/errors.md against Codes.
func TestErrorsPage(t *testing.T) {
	want := renderErrorsPage()
	if *update {
		if err := os.WriteFile(errorsPage, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(errorsPage)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("docs/errors.md is stale: go generate ./cmd/remit/api")
	}
}

func renderErrorsPage() string {
	var b strings.Builder
	b.WriteString("<!-- Generated from cmd/remit/api/codes.go: go generate ./cmd/remit/api -->\n\n# Errors\n\n" +
		"Every answer above 399 is `application/problem+json` ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)): `code` is one of these\n" +
		"words and is for ever, `detail` says what was wrong with this call and what to do next, `retryable` whether the same call may\n" +
		"succeed later with nothing changed. Lines of an NDJSON answer carry the same under `problem`.\n\n" +
		"| status | code | retryable |\n|---|---|---|\n")
	for _, c := range Codes {
		fmt.Fprintf(&b, "| %d | [`%s`](#%s) | %s |\n", c.Status, c.Code, c.Code, yesNo(c.Retryable))
	}
	for _, c := range Codes {
		fmt.Fprintf(&b, "\n## %s\n\n**%s** (%d). %s\n", c.Code, c.Title, c.Status, c.Meaning)
	}
	return b.String()
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// TestCodesAreClosed: every constant of type Code has its row, once, and nothing else has one.
func TestCodesAreClosed(t *testing.T) {
	var declared []string
	file, err := parser.ParseFile(token.NewFileSet(), "codes.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if typ, ok := spec.Type.(*ast.Ident); ok && typ.Name == "Code" {
			word, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			declared = append(declared, word)
		}
		return true
	})
	var listed []string
	for _, c := range Codes {
		listed = append(listed, string(c.Code))
		if c.Status < 400 || c.Title == "" || !strings.HasSuffix(c.Meaning, ".") {
			t.Errorf("%s is not whole", c.Code)
		}
	}
	if !slices.IsSortedFunc(Codes, func(a, b CodeInfo) int { return a.Status - b.Status }) {
		t.Error("Codes are not sorted by status")
	}
	if !slices.Equal(declared, listed) {
		t.Errorf("declared %v\nlisted   %v", declared, listed)
	}
}

// later are the codes that nothing raises yet, by the capability that will. It is empty: a code comes with what raises it.
var later = map[string]string{}

// TestCodesAreRaised: each code is raised somewhere, or says for what it is kept.
func TestCodesAreRaised(t *testing.T) {
	raised := map[string]bool{}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if name == "codes.go" || strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok {
				raised[id.Name] = true
			}
			return true
		})
	}
	file, err := parser.ParseFile(token.NewFileSet(), "codes.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok {
			if typ, ok := spec.Type.(*ast.Ident); ok && typ.Name == "Code" && raised[spec.Names[0].Name] == (later[spec.Names[0].Name] != "") {
				t.Errorf("%s is raised nowhere, or is, and stands in later", spec.Names[0].Name)
			}
		}
		return true
	})
}

// TestPaymentJSON: the fast way writes what the usual way does.
func TestPaymentJSON(t *testing.T) {
	now := Time(time.UnixMilli(1767225600123).UTC())
	for _, p := range []Payment{
		{ID: log.NewID(time.Now(), "a"), Name: "p", State: "paid", Settled: true, Payer: "a", Payee: "b", Amount: "1.00", Captured: "1.00",
			Refunded: "0.00", Currency: "USD", Reference: "a \"quoted\" <b>\u2028 \n é", Reason: "x", CreatedAt: now, DecidedAt: now, EndedAt: now},
	} {
		want, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.AppendJSON(nil); string(got) != string(want) {
			t.Errorf("%s\nis not\n%s", got, want)
		}
	}
}

// TestMessageJSON: the fast way writes what the usual way does, whatever is there and whatever is left out.
func TestMessageJSON(t *testing.T) {
	now, offset := Time(time.UnixMilli(1767225600123).UTC()), log.Offset(7)
	full := Message{
		ID: log.NewID(time.Now(), "a"), Name: "/s \"1\"", Topic: "t", Producer: "p", Key: "k\u2028<é>", State: "delivered",
		Event: jsontext.Value(`{"specversion":"1.0","data":{"a":[1,2.50,"x y"],"b":null}}`), Checks: 3, NextCheckAt: now, Unreachable: true, Stuck: true,
		DecidedBy: "me", Reason: "be\ncause", PreparedAt: now, DecidedAt: now, DeliverAt: now, DeliveredAt: &Delivery{3, &offset},
		Check:   &Heard{Verdict: "unknown", Reason: "busy", Error: "it did\nnot"},
		History: []Step{{At: now, Type: "x"}, {At: now, Type: "y", By: "b", Detail: "d"}},
	}
	parts := reflect.ValueOf(full)
	all := []Message{full, {}, {DeliveredAt: &Delivery{Partition: 1}}, {Check: &Heard{}}, {Check: &Heard{Error: "e"}}}
	for i := range parts.NumField() { // one member at a time
		var m Message
		reflect.ValueOf(&m).Elem().Field(i).Set(parts.Field(i))
		all = append(all, m)
	}
	for _, m := range all {
		want, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if got := m.AppendJSON(nil); string(got) != string(want) {
			t.Errorf("%s\nis not\n%s", got, want)
		}
	}
	full.Event = jsontext.Value("{\"data\":{\n \"a\" : \"\\n\"\r\n}}")
	if got := full.AppendJSON(nil); bytes.ContainsAny(got, "\n\r") || !bytes.Contains(got, []byte(`"event":{"data":{"a":"\n"}}`)) {
		t.Errorf("%q is not one line", got)
	}
}
