package when

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	cesql "github.com/cloudevents/sdk-go/sql/v2"
	theirs "github.com/cloudevents/sdk-go/sql/v2/parser"
	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/remitlog/remit/log"
)

// order is an event with all kinds of attributes.
func order() *log.Event {
	at := time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, time.FixedZone("", 3600))
	return &log.Event{
		ID: "1", Source: "/orders", Type: "order.placed", Subject: "张伟", Time: at, DataContentType: "application/json", DataSchema: "https://example/s",
		Key: "alice", Correlation: "c1", Causation: "c0", TraceParent: "00-1", RecordedTime: at.Add(time.Second),
		Extensions: map[string]any{"region": "eu", "amount": int32(250), "vip": true, "hash": []byte("abc"), "due": at, "none": "", "number": "12", "yes": "TRUE", "remitage": "own"},
		Data:       []byte(`{}`),
	}
}

// TestHolds: what conditions say of an event.
func TestHolds(t *testing.T) {
	extra := Attributes{"remitage": 61, "remitchecks": 3, "far": math.MaxInt64, "deep": math.MinInt64}
	for _, c := range []struct {
		text string
		want bool
	}{
		{"", true}, {" \n", true}, {"TRUE", true}, {"false", false},
		{"type = 'order.placed' AND remitage > 60", true},
		{"remitage > 61", false},
		{"remitage = 61 AND REMITCHECKS = 3 AND far = 2147483647 AND deep = -2147483648", true},
		{"EXISTS remitage AND NOT EXISTS remitproducers", true},
		{"id = 1 AND source = '/orders' AND subject = '张伟' AND specversion = '1.0'", true},
		{"time = '2026-01-02T02:04:05.6Z' AND recordedtime LIKE '2026-01-02T02:04:06.6Z' AND due = time", true},
		{"datacontenttype = 'application/json' AND dataschema LIKE 'https://%'", true},
		{"partitionkey = 'alice' AND correlationid = 'c1' AND causationid = 'c0' AND traceparent = '00-1'", true},
		{"region = 'eu' AND amount >= 250 AND vip AND hash = 'YWJj' AND none = ''", true},
		{"amount = '250' AND number = 12 AND yes = TRUE AND vip = 'true'", true},
		{"vip", true}, {"NOT vip", false}, {"NOT (region = 'eu')", false}, {"(NOT vip) = FALSE", true},
		{"EXISTS none AND EXISTS vip AND NOT EXISTS nothing", true},
		{"region IN ('us', 'eu') AND region NOT IN ('us') AND amount IN (1, 250)", true},
		{"vip OR nothing = 1", true}, {"NOT vip AND nothing = 1", false}, {"vip XOR vip", false}, // what decides is enough
		{"1 + 2 * 3 = 7 AND (1 + 2) * 3 = 9 AND 7 - 2 - 1 = 4 AND 2 -1 = 1 AND 2-1 = 1 AND 7 / 2 = 3 AND -7 / 2 = -3 AND -7 % 2 = -1", true},
		{"-2147483648 < +1 AND - 1 = -1 AND --1 = 1 AND -amount = -250", true},
		{"1 < 2 = TRUE AND 1 != 2 AND 1 <> 2 AND 1 <= 1 AND 1 >= 1", true},
		{`'it\'s' = "it's" AND "a\"b" = 'a"b' AND 'a\b' = 'a\b'`, true},
		{"abs(-3) = 3 AND length(subject) = 2 AND left(subject, 1) = '张' AND right(subject, 1) = '伟' AND substring(subject, 2) = '伟'", true},
		{"subject LIKE '张_' AND subject NOT LIKE '_' AND subject LIKE '%伟'", true},
		{"upper(region) = 'EU' AND concat(region, '-', amount) = 'eu-250' AND is_int(number) AND int(number) = 12 AND bool(yes)", true},
	} {
		condition, err := Compile(c.text)
		if err != nil {
			t.Error(err)
			continue
		}
		if holds, err := condition.Holds(order(), extra); holds != c.want || err != nil {
			t.Errorf("%s: %t, %v", c.text, holds, err)
		}
		if condition.String() != c.text {
			t.Errorf("%s is shown as %s", c.text, condition)
		}
	}
}

// TestErrors: a condition with an error does not hold, and says why.
func TestErrors(t *testing.T) {
	for text, want := range map[string]string{
		"nothing = 1":                        `when: "nothing = 1": the event has no attribute "nothing"`,
		"NOT (nothing = 1)":                  `the event has no attribute "nothing"`,
		"vip AND remitproducers > 0":         `the event has no attribute "remitproducers"`,
		"vip = TRUE AND LENGTH(nothing) = 0": `the event has no attribute "nothing"`,
		"region > 1":                         "cast",
		"NOT region":                         "cast",
		"amount / 0 = 1":                     "math error",
		"region":                             `its value is "eu", and neither TRUE nor FALSE`,
		"amount":                             `its value is "250", and neither TRUE nor FALSE`,
		"SUBSTRING(region, 1, -1) = ''":      "no negative length",
		"SUBSTRING(region, 5) = ''":          "it has 2 characters",
		"LEFT(region, -1) = ''":              "no negative number",
		"ABS(-2147483648) = 1":               "overflow",
	} {
		condition, err := Compile(text)
		if err != nil {
			t.Error(err)
			continue
		}
		holds, err := condition.Holds(order(), nil)
		if failed, ok := errors.AsType[*Error](err); holds || !ok || failed.Condition != text || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %t, %v", text, holds, err)
		}
		if Missing(err) != strings.Contains(want, "no attribute") {
			t.Errorf("%s: missing: %t", text, Missing(err))
		}
	}
}

// TestSyntax: what does not compile, and where that is said to be (X2).
func TestSyntax(t *testing.T) {
	for _, c := range []struct {
		text string
		at   int
		want string
	}{
		{"type = ", 8, "not the end"},
		{"type = 'x", 8, "does not end"},
		{"type = 'x' #", 12, "'#' means nothing here"},
		{"type ~ 'x'", 6, "'~' means nothing"},
		{"subject = '张伟' ü", 16, "'ü' means nothing"},
		{"a == 1", 4, `not "="`},
		{"a = 1 b", 7, "an operator or the end is expected"},
		{"(a = 1", 7, `")" is expected`},
		{"a = 1)", 6, `not ")"`},
		{"ABC(", 5, "not the end"},
		{"a AND", 6, "not the end"},
		{"AND a", 1, `not "AND"`},
		{"a LIKE b", 8, "a pattern in quotes"},
		{"a NOT = 1", 7, "LIKE or IN is expected behind NOT"},
		{"a IN b", 6, "a list in parentheses"},
		{"a IN ()", 8, "is empty"},
		{"EXISTS 'a'", 8, "an attribute"},
		{"a_b = 1", 1, "letters and digits"},
		{"a = 2147483648", 5, "does not fit 32 bits"},
		{"a = -2147483649", 5, "does not fit 32 bits"},
		{"a = + b", 5, "between two numbers"},
		{"a = 'it''s'", 8, "with a backslash before it"},
		{"FOO(1) = 1", 1, "no function FOO of 1 arguments"},
		{"a = 1 AND LENGTH('a', 'b') = 1", 11, "no function LENGTH of 2 arguments"},
		{"CONCAT_WS() = ''", 1, "no function CONCAT_WS of 0"},
		{"a AND b OR c", 9, "OR beside AND"},
		{"a = 1 OR b = 2 AND c", 16, "AND beside OR"},
		{"NOT a = b", 7, "NOT binds closer than ="},
		{"NOT a LIKE 'b'", 7, "NOT binds closer than LIKE"},
		{"NOT a IN (1)", 7, "NOT binds closer"},
		{"NOT a + 1 = 2", 7, "NOT binds closer"},
		{"1", 1, "a value of type Integer"},
		{"'x'", 1, "a value of type String"},
		{"amount + 1", 1, "a value of type Integer"},
		{"(UPPER(type))", 1, "a value of type String"},
		{"a = 1\xff", 6, "not UTF-8"},
		{"a\x00 = 1", 2, "means nothing"},
		{strings.Repeat("(", 65) + "a" + strings.Repeat(")", 65), 65, "deeper than 64"},
		{strings.Repeat("NOT ", 65) + "a", 257, "deeper than 64"},
		{strings.Repeat("ABS(", 65), 260, "deeper than 64"},
		{strings.Repeat(" ", TextMax+1), 1, "at most 4096"},
	} {
		_, err := Compile(c.text)
		bad, ok := errors.AsType[*SyntaxError](err)
		if !ok || !errors.Is(err, ErrSyntax) || bad.Character != c.at || !strings.Contains(bad.Detail, c.want) {
			t.Errorf("%.60q: %v, not %q at %d", c.text, err, c.want, c.at)
		}
	}
	if _, err := Compile(strings.Repeat("(", 64) + "a" + strings.Repeat(")", 64)); err != nil {
		t.Error(err)
	}
}

func TestUses(t *testing.T) {
	c, err := Compile("RemitAge > 60 AND EXISTS region AND LENGTH(subject) > 1 AND 'remitchecks' = type")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"remitage": true, "region": true, "subject": true, "type": true, "remitchecks": false, "length": false} {
		if c.Uses(name) != want {
			t.Errorf("%s: %t", name, !want)
		}
	}
}

// TestBounds: the worst texts that we know of compile and are evaluated in milliseconds (X3). Before a parser of its own, "(((…" took two seconds.
func TestBounds(t *testing.T) {
	long := order()
	long.Subject = strings.Repeat("a", log.EventAttributeMax)
	fill := func(unit, end string) string {
		return strings.Repeat(unit, (TextMax-len(end))/len(unit)) + end
	}
	for name, text := range map[string]string{
		"open":     fill("(", ""),
		"closed":   fill(")", ""),
		"calls":    fill("ABS(", ""),
		"nots":     fill("NOT ", "a"),
		"minus":    fill("-", "1"),
		"sum":      fill("1+", "1 = 1"),
		"ands":     fill("a AND ", "a"),
		"equals":   fill("1=", "1"),
		"in":       "vip IN (" + fill("1,", "1)")[8:],
		"likes":    "vip" + fill(" LIKE 'x'", "")[3:],
		"garbage":  fill("#", ""),
		"quotes":   fill("\\'", ""),
		"pattern":  "subject LIKE '" + fill("%a", "b'")[14:],
		"pattern2": "subject LIKE '%" + fill("a", "b'")[15:],
		"concat":   "CONCAT(" + strings.Repeat("subject,", 500) + "subject) = ''",
		"deep":     fill("(a AND ", ""),
		"utf-8":    fill("ſ", ""),
	} {
		began := time.Now()
		c, err := Compile(text)
		if err == nil {
			_, err = c.Holds(long, nil)
		}
		if took := time.Since(began); took > 2*time.Second { // 30 ms on an idle machine
			t.Errorf("%s: %s", name, took)
		}
		if name == "concat" && (err == nil || !strings.Contains(err.Error(), "at most 16384 are taken")) {
			t.Errorf("%v", err)
		}
	}
	two, err := Compile("LENGTH(CONCAT(subject, subject)) = 16384")
	if err != nil {
		t.Fatal(err)
	}
	if holds, err := two.Holds(long, nil); !holds {
		t.Errorf("ValueMax itself: %v", err)
	}
}

// TestPanic: what panics within the library is an error.
func TestPanic(t *testing.T) {
	if _, err := evaluate(panics{}, order(), nil); err == nil || !strings.Contains(err.Error(), "cannot be evaluated: oh") {
		t.Errorf("%v", err)
	}
}

type panics struct{}

func (panics) Evaluate(event.Event) (any, error) { panic("oh") }

// TestAtOnce: a condition may be asked by many, and texts compiled by many.
func TestAtOnce(t *testing.T) {
	shared, err := Compile("type LIKE 'order.%' AND remitage > 60 AND LENGTH(region) = 2")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 200 {
				own, err := Compile(shared.String())
				if err != nil {
					t.Error(err)
					return
				}
				for _, c := range []*Condition{shared, own} {
					if holds, err := c.Holds(order(), Attributes{"remitage": 61}); !holds || err != nil {
						t.Error(holds, err)
					}
				}
			}
		})
	}
	all.Wait()
}

// TestAgainstLibrary: random expressions mean what the library's own parser takes them for (X1). It is not used but here; see parse.go.
func TestAgainstLibrary(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	e := order()
	sdk := e.SDK()
	compared, kinds := 0, map[string]int{}
	for range 3000 {
		text := generate(random, 4)
		n, err := compile(text)
		if err != nil {
			if !strings.Contains(err.Error(), "bind") { // what is refused on purpose
				t.Errorf("%s: %v", text, err)
			}
			continue
		}
		library, err := theirs.Parse(text)
		if err != nil {
			t.Errorf("%s: the library says %v", text, err)
			continue
		}
		got, gotErr := evaluate(n.Expression, e, nil)
		want, wantErr := library.Evaluate(sdk)
		compared++
		kinds[fmt.Sprintf("%T %t", got, gotErr == nil)]++
		if (gotErr == nil) != (wantErr == nil) || gotErr == nil && got != want {
			t.Errorf("%s: %v, %v; the library says %v, %v", text, got, gotErr, want, wantErr)
		}
	}
	t.Logf("%d compared: %v", compared, kinds)
	if compared < 1500 || kinds["bool true"] < 300 || kinds["bool false"] < 100 || kinds["int32 true"] < 100 {
		t.Error("too few were compared to show anything")
	}
}

// generate makes an expression that is parsed; whether its types fit is left to chance.
func generate(random *rand.Rand, depth int) string {
	pick := func(all ...string) string { return all[random.IntN(len(all))] }
	if depth == 0 || random.IntN(5) == 0 {
		return pick("id", "type", "region", "Amount", "vip", "number", "yes", "nothing", "1", "-5", "12", "250", "TRUE", "false", "'eu'", `"12"`, "'true'", "''")
	}
	a := func() string { return generate(random, depth-1) }
	switch random.IntN(12) {
	case 0, 1, 2:
		return a() + " " + pick("=", "!=", "<>", "<", "<=", ">", ">=") + " " + a()
	case 3, 4:
		return a() + " " + pick("AND", "or", "XOR") + " " + a()
	case 5:
		return a() + " " + pick("+", "-", "*", "/", "%") + " " + a()
	case 6, 7:
		return "(" + a() + ")"
	case 8:
		return pick("NOT ", "-") + a()
	case 9:
		return a() + pick(" ", " NOT ") + "LIKE " + pick("'%'", "'e_'", "'order.%'", `'1\_%'`, "'2%0'")
	case 10:
		return a() + pick(" ", " not ") + "IN (" + a() + ", " + a() + ")"
	default:
		return pick("LENGTH", "upper", "INT", "STRING", "is_int", "ABS", "TRIM") + "(" + a() + ")"
	}
}

// FuzzCompile: no text panics, and what is said to be wrong stands in the text (X3).
func FuzzCompile(f *testing.F) {
	for _, text := range []string{"", "a = 1 AND b LIKE 'x%'", "NOT EXISTS a OR b IN (1, 'c')", "SUBSTRING(a, 1, -1) = ''", "((((", "a ~ b", "'", "-2147483648 = +1", "ſ"} {
		f.Add(text, "region", "eu")
	}
	f.Fuzz(func(t *testing.T, text, name, value string) {
		c, err := Compile(text)
		if err != nil {
			bad, ok := errors.AsType[*SyntaxError](err)
			if !ok || bad.Character < 1 || bad.Character > len(text)+1 || bad.Detail == "" {
				t.Errorf("%q: %#v", text, err)
			}
			return
		}
		e := order()
		e.Extensions[name], e.Subject = value, value
		holds, err := c.Holds(e, Attributes{"remitage": int64(len(value))})
		if holds && err != nil || err != nil && strings.Contains(err.Error(), "cannot be evaluated") {
			t.Errorf("%q: %t, %v", text, holds, err)
		}
		if again, _ := c.Holds(e, Attributes{"remitage": int64(len(value))}); again != holds {
			t.Errorf("%q is %t and %t", text, holds, again)
		}
	})
}

// FuzzLike: LIKE is what a regular expression makes of it.
func FuzzLike(f *testing.F) {
	f.Add("abc", "a%")
	f.Add("a_c", `a\_%_`)
	f.Add("张伟", "张_")
	f.Add("aXbXc", "%X%")
	f.Fuzz(func(t *testing.T, text, pattern string) {
		if len(text) > 100 || len(pattern) > 100 || strings.ToValidUTF8(text, "") != text || strings.ToValidUTF8(pattern, "") != pattern {
			return
		}
		r := regexp.QuoteMeta(pattern)
		r = regexp.MustCompile(`\\\\[_%]|[_%]`).ReplaceAllStringFunc(r, func(s string) string {
			return map[string]string{"_": ".", "%": ".*", `\\_`: "_", `\\%`: "%"}[s]
		})
		if got, want := newPattern(pattern).matches(text), regexp.MustCompile(`(?s)\A`+r+`\z`).MatchString(text); got != want {
			t.Errorf("%q LIKE %q: %t", text, pattern, got)
		}
	})
}

var benchmarks = map[string]string{
	"one attribute":  "type = 'order.placed'",
	"a check's":      "type = 'order.placed' AND remitage > 60 AND remitproducers > 0",
	"an extension's": "region IN ('us', 'eu') AND amount >= 100 AND NOT EXISTS nothing",
	"texts":          "type LIKE 'order.%' AND LENGTH(subject) < 100 AND UPPER(region) = 'EU'",
}

func BenchmarkHolds(b *testing.B) {
	for name, text := range benchmarks {
		b.Run(name, func(b *testing.B) {
			c, err := Compile(text)
			if err != nil {
				b.Fatal(err)
			}
			e, extra := order(), Attributes{"remitage": 61, "remitchecks": 3, "remitproducers": 2}
			b.ReportAllocs()
			for b.Loop() {
				if holds, err := c.Holds(e, extra); !holds || err != nil {
					b.Fatal(holds, err)
				}
			}
		})
	}
}

// BenchmarkConverted is what it would cost with the library's nodes, which want an event of the SDK's.
func BenchmarkConverted(b *testing.B) {
	for name, text := range benchmarks {
		b.Run(name, func(b *testing.B) {
			expression, err := theirs.Parse(text)
			if err != nil {
				b.Fatal(err)
			}
			e := order()
			b.ReportAllocs()
			for b.Loop() {
				sdk := e.SDK()
				sdk.SetExtension("remitage", 61)
				sdk.SetExtension("remitproducers", 2)
				if _, err := expression.Evaluate(sdk); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Compile(benchmarks["a check's"]); err != nil {
			b.Fatal(err)
		}
	}
}

var _ cesql.Expression = panics{}
