package facts

import (
	"errors"
	"reflect"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// texts are facts as remit writes them, and as it does not: both must be read as package json reads them.
var texts = []string{
	`{}`,
	` { "id" : "018f0000-0000-8000-8000-000000000001" } `,
	`{"id":"018f0000-0000-8000-8000-000000000001","kind":"payment","name":"n","key":"alice","fingerprint":"00","deadline":-5,"manual":true,` +
		`"actions":[{"name":"debit","participant":"accounts","order":{"side":"debit","account":"alice","currency":"USD","amount":125}},` +
		`{"name":"credit","participant":"accounts","order":{"side":"credit","account":"bob","currency":"XAF","amount":125}}]}`,
	`{"id":"018f0000-0000-8000-8000-000000000001","outcome":"confirm","partition":3,"amount":1,"postings":[{"account":"a","currency":"USD","amount":-1},{"account":"@transit","currency":"USD","amount":1}]}`,
	`{"activity":"018f0000-0000-8000-8000-000000000001","action":"credit","account":"bob","amount":7,"context":{"kind":"payment","from":"alice","at":12},"postings":[{"account":"@transit","currency":"USD","amount":-7},{"account":"bob","currency":"USD","amount":7}]}`,
	`{"places":[{"id":"018f0000-0000-8000-8000-000000000001","partition":2,"offset":9}]}`,
	`{"id":"00000000-0000-0000-0000-000000000001"}`, `{"id":"00000000-0000-0000-0000-000000000000"}`, // of another version, and none
	`{"places":[]}`, `{"places":null}`, `{"postings":[]}`, `{"actions":[]}`, `{"partition":null}`, `{"reference":"a\"b"}`, `{"reference":"日本"}`,
	`{"reference":"\u0041"}`, `{"new":{"deep":[1,2,{"x":"}"}]},"reason":"r"}`, `{"new":1.5e3,"kind":"k"}`, `{"deadline":1e3}`, `{"amount":1.0}`,
	`{"amount":9223372036854775807}`, `{"amount":99999999999999999999}`, `{"amount":01}`, `{"amount":-}`, `{"manual":false}`, `{"manual":1}`,
	message, decision,
	`{"event":{"id":"\u0041","data":"\\"},"id":null}`, `{"event":{"id":"日本"}}`, `{"event":{"a":1,"a":2}}`, `{"event":{"a" 1}}`, `{"event":{"data":tru}}`, `{"event":null}`, `{"event":{"data":{"a":1}  ,  "id" : "x" }  }`,
	`{"event":{"id":7}}`, `{"event":{"id":"x","subject":["a"],"data":{}}}`, `{"event":[{"id":"x"}]}`, `{"event":{}}`, `{"event":{"id":"x",}}`, `{"event":"x"}`,
	`{"id":"x"}`, `{"id":""}`, `{"partition":4294967296}`, `{"partition":-1}`, `{`, `{"a"`, `{"a":`, `{"a":"b"`, `{"a":"b",}`, `{"a":"b"}}`, `[]`, `"x"`, ``, `null`, `{"kind":"` + "\x01" + `"}`,
	`{"kind":"` + "\xff" + `"}`, `{"account":"bob","postings":[{"account":"bob"},{"account":"bobby"},{"account":""}]}`,
}

const (
	message  = `{"id":"018f0000-0000-8000-8000-000000000001","name":"/s 1","fingerprint":"00","topic":"t","producer":"p","key":"k","event":{"specversion":"1.0","id":"1","source":"/s","data":{"a":[1,"]}\"\u00e9"]},"subject":"x"},"deliverAfter":5,"schedule":{"interval":1}}`
	decision = `{"id":"018f0000-0000-8000-8000-000000000001","by":"me","partition":3,"precheck":true}`
)

// TestScannerReadsWhatJSONReads: FactRead asks for no less.
func TestScannerReadsWhatJSONReads(t *testing.T) {
	for _, text := range texts {
		same[Named](t, text, (*scanner).named)
		same[Begun](t, text, (*scanner).begun)
		same[Decided](t, text, (*scanner).decided)
		same[Ended](t, text, (*scanner).ended)
		same[Credited](t, text, (*scanner).credited)
		same[PlacedAll](t, text, (*scanner).placedAll)
		same[Prepared](t, text, (*scanner).prepared)
		same[Committed](t, text, (*scanner).committed)
		sameHead(t, text)
	}
}

// sameHead checks that the head of an event is what package json reads of it.
func sameHead(t *testing.T, text string) {
	t.Helper()
	var f Prepared
	if json.Unmarshal([]byte(text), &f) != nil {
		return // an event that is not valid is not prepared
	}
	var want Head
	err := json.Unmarshal(f.Event, &want)
	got, gotErr := f.Head()
	if (err == nil) != (gotErr == nil) || err == nil && got != want {
		t.Errorf("%s:\n read %+v (%v)\n json %+v (%v)", f.Event, got, gotErr, want, err)
	}
}

// same checks that whatever the scanner takes, package json takes for the same.
func same[T any](t *testing.T, text string, scan func(*scanner, *T)) (taken bool) {
	t.Helper()
	var got, want T
	s := scanner{b: []byte(text)}
	scan(&s, &got)
	if !s.end() {
		return false
	}
	err := json.Unmarshal([]byte(text), &want)
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return true // nobody writes a name twice
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%T %s:\n scanned %+v\n json %+v (%v)", got, text, got, want, err)
	}
	return true
}

// TestScannerTakesWhatRemitWrites: the usual does not fall back.
func TestScannerTakesWhatRemitWrites(t *testing.T) {
	if !same[Begun](t, texts[2], (*scanner).begun) || !same[Decided](t, texts[3], (*scanner).decided) ||
		!same[Credited](t, texts[4], (*scanner).credited) || !same[PlacedAll](t, texts[5], (*scanner).placedAll) ||
		!same[Prepared](t, message, (*scanner).prepared) || !same[Committed](t, decision, (*scanner).committed) {
		t.Error("given up")
	}
}

func FuzzScanner(f *testing.F) {
	for _, text := range texts {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		same[Named](t, text, (*scanner).named)
		same[Begun](t, text, (*scanner).begun)
		same[Decided](t, text, (*scanner).decided)
		same[Ended](t, text, (*scanner).ended)
		same[Credited](t, text, (*scanner).credited)
		same[PlacedAll](t, text, (*scanner).placedAll)
		same[Prepared](t, text, (*scanner).prepared)
		same[Committed](t, text, (*scanner).committed)
		sameHead(t, text)
	})
}
