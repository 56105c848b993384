package api

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// nounRoutes are the routes of all nouns: the table of the zero Nouns is that of any.
func nounRoutes() []Route { return Nouns{}.Routes() }

func parseOpenAPI(t *testing.T) map[string]any {
	t.Helper()
	var doc map[string]any
	if err := yaml.Unmarshal(openAPI, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// TestOpenAPIMatchesRoutes: every route is an operation of the page and every operation a route, by method, path, name and
// path parameters.
func TestOpenAPIMatchesRoutes(t *testing.T) {
	s := newTestServer(t, Options{Routes: nounRoutes()})
	var routes []string
	for _, r := range s.Routes() {
		path := strings.ReplaceAll(r.Pattern, "...}", "}") // OpenAPI has no word for a parameter with slashes
		routes = append(routes, fmt.Sprintf("%s %s %s %v", r.Method, path, r.Name, pathParameters(path)))
	}
	var operations []string
	doc := parseOpenAPI(t)
	for path, item := range doc["paths"].(map[string]any) {
		for method, op := range item.(map[string]any) {
			if method == "parameters" {
				continue
			}
			op := op.(map[string]any)
			operations = append(operations, fmt.Sprintf("%s %s %s %v", strings.ToUpper(method), path, op["operationId"], declaredParameters(doc, item, op)))
			if op["responses"].(map[string]any)["default"] == nil {
				t.Errorf("%s %s has no default response: every call can fail", method, path)
			}
		}
	}
	slices.Sort(routes)
	slices.Sort(operations)
	if !slices.Equal(routes, operations) {
		t.Errorf("routes\n  %s\nopenapi.yaml\n  %s", strings.Join(routes, "\n  "), strings.Join(operations, "\n  "))
	}
}

func pathParameters(pattern string) []string {
	var names []string
	for _, m := range regexp.MustCompile(`\{(\w+)\}`).FindAllStringSubmatch(pattern, -1) {
		names = append(names, m[1])
	}
	slices.Sort(names)
	return names
}

func declaredParameters(doc map[string]any, item any, op map[string]any) []string {
	var names []string
	for _, from := range []any{item.(map[string]any)["parameters"], op["parameters"]} {
		list, _ := from.([]any)
		for _, p := range list {
			p := p.(map[string]any)
			if ref, ok := p["$ref"].(string); ok {
				p, _ = resolve(doc, ref).(map[string]any)
			}
			if p["in"] == "path" {
				names = append(names, fmt.Sprint(p["name"]))
			}
		}
	}
	slices.Sort(names)
	return names
}

func resolve(doc map[string]any, ref string) any {
	var at any = doc
	for _, step := range strings.Split(strings.TrimPrefix(ref, "#/"), "/") {
		m, _ := at.(map[string]any)
		at = m[step]
	}
	return at
}

// TestOpenAPIReferences: what is referred to is there.
func TestOpenAPIReferences(t *testing.T) {
	doc := parseOpenAPI(t)
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok && resolve(doc, ref) == nil {
				t.Errorf("%s is not there", ref)
			}
			for _, k := range slices.Sorted(maps.Keys(v)) {
				walk(v[k])
			}
		case []any:
			for _, e := range v {
				walk(e)
			}
		}
	}
	walk(doc)
}

// TestOpenAPISchemas holds the properties of the page's schemas against the Go types that are answered and read.
func TestOpenAPISchemas(t *testing.T) {
	doc := parseOpenAPI(t)
	for _, v := range []any{
		PaymentRequest{}, Payment{}, Refund{}, OpenAccount{}, ChangeAccount{}, Account{}, CashRequest{}, Cash{}, Entry{}, TopicRequest{}, Topic{},
		TopicEnd{}, EventPlace{}, Published{}, TopicEvents{}, TopicEvent{}, RawRecord{}, Message{}, Heard{}, Delivery{}, Step{}, ProducerRequest{},
		CheckRequest{}, PrecheckRequest{}, ProducerCall{}, Producer{}, ProducerCheck{}, InstanceRequest{}, Instance{}, SubscriptionRequest{}, RetryRequest{},
		Subscription{}, SubscriptionStatus{}, SubscriptionConsent{}, SubscriptionCounts{}, SubscriptionError{}, FailingRecord{}, ResumeRequest{}, ParkedRecord{}, ParkedReplay{},
		ReplayRequest{}, ReplayPosition{}, Replay{}, ReplayGroup{}, ReplayLeft{}, Retry{}, Activity{}, Action{}, View{}, ViewPartition{}, Record{}, Transaction{},
		Day{}, Story{}, StoryEvent{}, Build{},
	} {
		typ := reflect.TypeOf(v)
		properties, _ := resolve(doc, "#/components/schemas/"+typ.Name()+"/properties").(map[string]any)
		got, want := slices.Sorted(maps.Keys(properties)), fieldsOf(typ)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: openapi.yaml has %v, the type %v", typ.Name(), got, want)
		}
	}
}

// TestOpenAPICodes holds the page's list of codes against Codes.
func TestOpenAPICodes(t *testing.T) {
	var got, want []string
	for _, v := range resolve(parseOpenAPI(t), "#/components/schemas/Code/enum").([]any) {
		got = append(got, v.(string))
	}
	for _, c := range Codes {
		want = append(want, string(c.Code))
	}
	if !slices.Equal(got, want) {
		t.Errorf("openapi.yaml %v\nCodes        %v", got, want)
	}
}
