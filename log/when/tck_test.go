package when

import (
	"embed"
	"errors"
	"fmt"
	"path"
	"strings"
	"testing"

	sqlerrors "github.com/cloudevents/sdk-go/sql/v2/errors"
	"github.com/go-json-experiment/json"
	"go.yaml.in/yaml/v3"

	"github.com/remitlog/remit/log"
)

//go:embed testdata/tck/*.yaml
var tck embed.FS

// tckCase is one of the TCK's, as its README has it.
type tckCase struct {
	Name           string
	Expression     string
	Result         yaml.Node
	Error          string
	Event          map[string]any
	EventOverrides map[string]any `yaml:"eventOverrides"`
}

// departures are the cases of the TCK that have another outcome here, by file and name, and why.
var departures = map[string]struct{ what, why string }{
	"context_attributes_access/Timestamp type cohercion to string": {
		"the result is 2018-04-26T12:48:09Z", "remit keeps points in time, in UTC, and not the zone that they were written in",
	},
}

// TestTCK: the TCK of the specification (X1). Functions that are not there, and syntax, are refused when the text is compiled.
func TestTCK(t *testing.T) {
	files, err := tck.ReadDir("testdata/tck")
	if err != nil {
		t.Fatal(err)
	}
	cases, departed := 0, map[string]bool{}
	for _, f := range files {
		text, err := tck.ReadFile("testdata/tck/" + f.Name())
		if err != nil {
			t.Fatal(err)
		}
		var suite struct{ Tests []tckCase }
		if err := yaml.Unmarshal(text, &suite); err != nil {
			t.Fatal(f.Name(), err)
		}
		for _, c := range suite.Tests {
			cases++
			name := strings.TrimSuffix(f.Name(), path.Ext(f.Name())) + "/" + c.Name
			t.Run(name, func(t *testing.T) {
				what := c.run(t)
				if d, ok := departures[name]; ok {
					departed[name] = true
					if what != d.what {
						t.Errorf("%s: %q; it is said to depart since %s", c.Expression, what, d.why)
					}
				} else if what != "" {
					t.Errorf("%s: %s", c.Expression, what)
				}
			})
		}
	}
	t.Logf("%d cases", cases)
	if cases < 230 || len(departed) != len(departures) {
		t.Errorf("%d cases, %d of %d departures", cases, len(departed), len(departures))
	}
}

// run returns what is other than the TCK has it.
func (c tckCase) run(t *testing.T) string {
	n, err := compile(c.Expression)
	switch {
	case c.Error == "parse" || c.Error == "missingFunction":
		if !errors.Is(err, ErrSyntax) {
			return "it compiles"
		}
		return ""
	case err != nil:
		return err.Error()
	}
	value, err := evaluate(n.Expression, c.event(t), nil)
	switch want := c.result(t); {
	case kindOf(err) != c.Error:
		return "the error is " + kindOf(err) + ", not " + c.Error
	case value != want:
		return fmt.Sprint("the result is ", value)
	}
	return ""
}

// result is the value as CESQL has it.
func (c tckCase) result(t *testing.T) any {
	var result any
	switch c.Result.Tag {
	case "!!int":
		var i int32
		if err := c.Result.Decode(&i); err != nil {
			t.Fatal(err)
		}
		return i
	case "!!timestamp":
		return c.Result.Value
	}
	if err := c.Result.Decode(&result); err != nil {
		t.Fatal(err)
	}
	return result
}

// compile is Compile for expressions of any type.
func compile(text string) (node, error) {
	p, err := newParser(text, map[string]bool{})
	if err != nil {
		return node{}, err
	}
	return p.whole()
}

// event is the one that the case is about; any will do where it gives none.
func (c tckCase) event(t *testing.T) *log.Event {
	attributes := map[string]any{"specversion": "1.0", "id": "myId", "source": "http://localhost/source", "type": "myType"}
	if c.Event != nil {
		attributes = c.Event
	}
	for name, value := range c.EventOverrides {
		attributes[name] = value
	}
	text, err := json.Marshal(attributes)
	if err != nil {
		t.Fatal(err)
	}
	e, err := log.ParseStructured(text)
	if err != nil {
		t.Fatal(err)
	}
	return &e
}

func kindOf(err error) string {
	_, missing := errors.AsType[*MissingError](err)
	switch {
	case err == nil:
		return ""
	case missing:
		return "missingAttribute"
	case sqlerrors.IsMathError(err):
		return "math"
	case sqlerrors.IsCastError(err):
		return "cast"
	case sqlerrors.IsFunctionEvaluationError(err):
		return "functionEvaluation"
	default:
		return err.Error()
	}
}
