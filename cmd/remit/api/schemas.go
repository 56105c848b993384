package api

import (
	_ "embed"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/jsonschema-go/jsonschema"

	"github.com/remitlog/remit/log"
)

//go:embed openapi.yaml
var openAPI []byte

func (s *Server) openAPI(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/yaml")
	_, _ = w.Write(openAPI) // the client is gone: nobody is left to be told
	return nil
}

// Schema names the Go type that the data of an event type is made from.
type Schema struct {
	Type  string // "remit.payment.paid.v1"
	Value any    // a zero value will do
}

// SchemaPath is where the schema of an event type is served: what ce_dataschema ends with.
func SchemaPath(eventType string) string { return "/schemas/" + eventType + ".json" }

// Infer makes the JSON Schema (draft 2020-12) of the type. It validates too: see jsonschema.Schema.Resolve.
// Fields that it does not name are allowed, since fields are added within a version. It has no $id: where it
// was read from is its base, and that is not the same for everyone.
func (s Schema) Infer() (*jsonschema.Schema, error) {
	text := func(format, pattern string) *jsonschema.Schema {
		return &jsonschema.Schema{Type: "string", Format: format, Pattern: pattern}
	}
	schema, err := jsonschema.ForType(reflect.TypeOf(s.Value), &jsonschema.ForOptions{TypeSchemas: map[reflect.Type]*jsonschema.Schema{
		reflect.TypeFor[Duration]():  text("", DurationPattern),
		reflect.TypeFor[Time]():      text("date-time", ""),
		reflect.TypeFor[time.Time](): text("date-time", ""),
		reflect.TypeFor[log.ID]():    text("uuid", ""),
	}})
	if err != nil {
		return nil, fmt.Errorf("api: schema of %s: %w", s.Type, err)
	}
	allowMore(schema)
	schema.Schema = "https://json-schema.org/draft/2020-12/schema"
	schema.Title = s.Type
	return schema, nil
}

// allowMore takes back that nothing may be added to the objects of Go structs.
func allowMore(s *jsonschema.Schema) {
	if s == nil {
		return
	}
	if len(s.Properties) > 0 {
		s.AdditionalProperties = nil
	}
	allowMore(s.AdditionalProperties)
	allowMore(s.Items)
	for _, p := range s.Properties {
		allowMore(p)
	}
}

// schemas are the encoded schemas, by event type.
type schemas struct {
	byType map[string]jsontext.Value
	types  []string
}

func newSchemas(list []Schema) (*schemas, error) {
	all := &schemas{byType: map[string]jsontext.Value{}}
	for _, s := range list {
		schema, err := s.Infer()
		if err != nil {
			return nil, err
		}
		b, err := json.Marshal(schema, json.Deterministic(true), jsontext.WithIndent("  "))
		if err != nil {
			return nil, fmt.Errorf("api: schema of %s: %w", s.Type, err)
		}
		if all.byType[s.Type] != nil {
			return nil, fmt.Errorf("api: schema of %s stands twice", s.Type)
		}
		all.byType[s.Type] = b
		all.types = append(all.types, s.Type)
	}
	return all, nil
}

func (s *schemas) get(w http.ResponseWriter, r *http.Request) error {
	eventType, isJSON := strings.CutSuffix(r.PathValue("file"), ".json")
	b := s.byType[eventType]
	if !isJSON || b == nil {
		searched := "the event types that leave remit"
		if near := Nearest(eventType, s.types); near != "" {
			searched += "; did you mean " + SchemaPath(near) + "?"
		}
		return NotFound("schema", r.PathValue("file"), searched)
	}
	w.Header().Set("Content-Type", "application/schema+json")
	_, _ = w.Write(b) // the client is gone: nobody is left to be told
	return nil
}
