package accounts

import (
	"errors"
	"math"
	"math/big"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

func TestCurrencies(t *testing.T) {
	// One of each kind, and those that lists get wrong.
	for code, want := range map[string]int{
		"USD": 2, "EUR": 2, "JPY": 0, "KRW": 0, "ISK": 0, "CLP": 0, "VND": 0, "UGX": 0, "XOF": 0, "UYI": 0, "KWD": 3, "BHD": 3, "IQD": 3, "TND": 3,
		"CLF": 4, "UYW": 4, "HUF": 2, "MGA": 2, "MRU": 2, "CNY": 2, "SLE": 2, "XCG": 2, "ZWG": 2, "XAD": 2, "VED": 2, "STN": 2,
	} {
		c, err := ParseCurrency(code)
		if n, ok := c.Exponent(); err != nil || !ok || n != want {
			t.Errorf("%s: exponent %d, %v; want %d", code, n, err, want)
		}
	}
	for _, code := range []string{
		"", "usd", "US", "USDX", " USD", "EUR\n", "978", "ABC",
		"XAU", "XAG", "XPT", "XPD", "XBA", "XBB", "XBC", "XBD", "XDR", "XSU", "XUA", "XTS", "XXX", // no minor unit
		"BGN", "HRK", "DEM", "ANG", "CUC", "ZWL", "SLL", "VEF", "MRO", "BYR", "BTC", // retired, or never one
	} {
		if c, err := ParseCurrency(code); !errors.Is(err, ErrCurrency) || c != "" {
			t.Errorf("%q: %q, %v", code, c, err)
		}
		if _, err := ParseAmount("1", Currency(code)); !errors.Is(err, ErrCurrency) {
			t.Errorf("an amount of %q: %v", code, err)
		}
	}

	seen, total := map[string]bool{}, 0
	for _, group := range currencies {
		last := ""
		for code := range strings.FieldsSeq(group.codes) {
			if !regexp.MustCompile(`^[A-Z]{3}$`).MatchString(code) || seen[code] || code <= last {
				t.Errorf("%s: malformed, twice or out of order", code)
			}
			seen[code], last = true, code
			total++
		}
	}
	if total != len(exponents) || total != 165 {
		t.Errorf("%d currencies, %d in the map", total, len(exponents))
	}
}

func TestParseAmount(t *testing.T) {
	for _, c := range []struct {
		s    string
		in   Currency
		want int64
	}{
		{"0", "USD", 0}, {"0.0", "USD", 0}, {"0.00", "USD", 0}, {"12.50", "USD", 1250}, {"12.5", "USD", 1250}, {"12", "USD", 1200},
		{"0.01", "USD", 1}, {"1000", "JPY", 1000}, {"1.234", "KWD", 1234}, {"0.0001", "CLF", 1},
		{"10000000000000", "USD", AmountMax}, {"10000000000000.00", "USD", AmountMax}, {"9999999999999.99", "USD", AmountMax - 1},
		{"1000000000000000", "JPY", AmountMax}, {"100000000000", "UYW", AmountMax},
	} {
		got, err := ParseAmount(c.s, c.in)
		if err != nil || got != c.want {
			t.Errorf("%s %s: %d, %v; want %d", c.s, c.in, got, err, c.want)
		}
		if got, err := ParseScientific(c.s, c.in); err != nil || got != c.want {
			t.Errorf("%s %s, scientific: %d, %v; want %d", c.s, c.in, got, err, c.want)
		}
	}
	for _, c := range []struct {
		s    string
		in   Currency
		hint string // what the error says to do
	}{
		{"", "USD", "like 12.50"}, {".", "USD", "like 12.50"}, {".5", "USD", "like 12.50"}, {"5.", "USD", "like 12.50"}, {"-1", "USD", "no sign"}, {"+1", "USD", "no sign"},
		{"1,50", "USD", "no separators"}, {"1 000", "USD", "no spaces"}, {" 1", "USD", "no spaces"}, {"1\n", "USD", "no spaces"}, {"1_000", "USD", "no separators"},
		{"1.2.3", "USD", "one point"}, {"0x10", "USD", "digits"}, {"NaN", "USD", "digits"}, {"Inf", "USD", "digits"}, {"١", "USD", "digits"}, {"1\x00", "USD", "digits"},
		{"00", "USD", "leading zeros"}, {"01", "USD", "leading zeros"}, {"00.5", "USD", "leading zeros"},
		{"1e3", "USD", "without an exponent"}, {"1E+3", "USD", "without an exponent"},
		{"1.005", "USD", "USD has 2 digits"}, {"1.000", "USD", "USD has 2 digits"}, {"1.0", "JPY", "JPY has 0 digits"}, {"1.00001", "UYW", "UYW has 4 digits"},
		{"10000000000000.01", "USD", "at most 10000000000000.00 at once"}, {"1000000000000001", "JPY", "at most 1000000000000000 at once"},
		{"9223372036854775807", "JPY", "at most"}, {"9223372036854775808", "JPY", "at most"}, {"18446744073709551617", "USD", "at most"}, {"1" + strings.Repeat("0", 500), "USD", "at most"},
	} {
		got, err := ParseAmount(c.s, c.in)
		if !errors.Is(err, ErrAmount) || got != 0 {
			t.Errorf("%q %s: %d, %v", c.s, c.in, got, err)
			continue
		}
		if !strings.HasPrefix(err.Error(), "accounts: ") || !strings.Contains(err.Error(), c.hint) || len(err.Error()) > 250 {
			t.Errorf("%q %s: %v; want %q in it", c.s, c.in, err, c.hint)
		}
	}
}

func TestParseScientific(t *testing.T) {
	for _, c := range []struct {
		s    string
		in   Currency
		want int64
	}{
		{"1.5E+7", "USD", 1_500_000_000}, {"2.1398359E5", "USD", 21398359}, {"2.1398359e5", "USD", 21398359}, {"1E0", "USD", 100}, {"1e-2", "USD", 1},
		{"100e-4", "USD", 1}, {"181.000", "USD", 18100}, {"1.0", "JPY", 1}, {"1E15", "JPY", AmountMax}, {"1e013", "USD", AmountMax},
		{"0e999999999999999999999", "USD", 0}, {"0.000e-999999999999999999999", "USD", 0}, {"1" + strings.Repeat("0", 100) + "e-100", "USD", 100},
		{"0." + strings.Repeat("0", 99) + "1e100", "USD", 100},
	} {
		if got, err := ParseScientific(c.s, c.in); err != nil || got != c.want {
			t.Errorf("%s %s: %d, %v; want %d", c.s, c.in, got, err, c.want)
		}
	}
	for _, c := range []struct {
		s    string
		hint string
	}{
		{"1e", "digits"}, {"1e+", "digits"}, {"e5", "digits"}, {"1e5.0", "digits"}, {"1e 5", "digits"}, {"1ee5", "digits"}, {"-1e5", "no sign"}, {"01e5", "leading zeros"},
		{"1e-3", "never rounded"}, {"0.30000000000000004", "never rounded"}, {"1.005", "never rounded"}, {"2.1398359E4", "never rounded"},
		{"1e-999999999999999999999", "never rounded"}, {"1e14", "at most"}, {"1.0000000000000001e13", "never rounded"}, {"1.00000000000001e14", "at most"}, {"1e999999999999999999999", "at most"}, {"10000000000000.01", "at most"},
	} {
		if got, err := ParseScientific(c.s, "USD"); !errors.Is(err, ErrAmount) || got != 0 || !strings.Contains(err.Error(), c.hint) {
			t.Errorf("%s: %d, %v; want %q in it", c.s, got, err, c.hint)
		}
	}
}

func TestFormatAmount(t *testing.T) {
	for _, c := range []struct {
		minor int64
		in    Currency
		want  string
	}{
		{0, "USD", "0.00"}, {1, "USD", "0.01"}, {1250, "USD", "12.50"}, {-1, "USD", "-0.01"}, {-1250, "USD", "-12.50"}, {7, "JPY", "7"}, {-7, "JPY", "-7"},
		{1234, "KWD", "1.234"}, {5, "CLF", "0.0005"}, {BalanceMax, "USD", "46116860184273879.04"},
		{math.MaxInt64, "USD", "92233720368547758.07"}, {math.MinInt64, "USD", "-92233720368547758.08"}, {math.MinInt64, "JPY", "-9223372036854775808"},
	} {
		if got := FormatAmount(c.minor, c.in); got != c.want {
			t.Errorf("%d %s: %s, want %s", c.minor, c.in, got, c.want)
		}
	}
	defer func() {
		if err, _ := recover().(error); !errors.Is(err, ErrCurrency) {
			t.Errorf("an amount in no currency: %v", err)
		}
	}()
	_ = FormatAmount(1, "XAU")
}

// What is formatted is parsed to the same, in every currency.
func TestAmountRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for c := range exponents {
		for _, minor := range []int64{0, 1, 9, 10, 11, 99, 100, 101, 999, 10000, AmountMax - 1, AmountMax, r.Int64N(AmountMax), r.Int64N(AmountMax), r.Int64N(1e6)} {
			s := FormatAmount(minor, c)
			if got, err := ParseAmount(s, c); err != nil || got != minor {
				t.Fatalf("%d %s is %s, and that is %d, %v", minor, c, s, got, err)
			}
		}
		if got, err := ParseAmount(FormatAmount(AmountMax+1, c), c); !errors.Is(err, ErrAmount) {
			t.Fatalf("AmountMax+1 %s: %d, %v", c, got, err)
		}
	}
}

// Sums agree with big integers.
func TestAdd(t *testing.T) {
	edges := []int64{0, 1, -1, 2, -2, AmountMax, -AmountMax, BalanceMax, -BalanceMax, math.MaxInt64, math.MinInt64, math.MaxInt64 - 1, math.MinInt64 + 1}
	r := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		edges = append(edges[:13], r.Int64()>>r.IntN(63), -r.Int64()>>r.IntN(63))
		for _, a := range edges {
			for _, b := range edges {
				agrees(t, a, b)
			}
		}
		if t.Failed() {
			return
		}
	}
	if sum, err := Add(BalanceMax, BalanceMax-1); err != nil || sum != math.MaxInt64 {
		t.Errorf("%d, %v", sum, err)
	}
}

func agrees(t *testing.T, a, b int64) {
	t.Helper()
	want := new(big.Int).Add(big.NewInt(a), big.NewInt(b))
	got, err := Add(a, b)
	switch {
	case want.IsInt64() && (err != nil || got != want.Int64()):
		t.Errorf("%d + %d = %d, %v; want %v", a, b, got, err, want)
	case !want.IsInt64() && (!errors.Is(err, ErrOverflow) || got != 0):
		t.Errorf("%d + %d = %d, %v; it overflows", a, b, got, err)
	}
}

var (
	plainForm      = regexp.MustCompile(`^(0|[1-9][0-9]*)(\.[0-9]+)?$`)
	scientificForm = regexp.MustCompile(`^(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)
	powerForm      = regexp.MustCompile(`[eE][+-]?0*([0-9]*)$`)
)

// exactly is what s means in minor units, by way of big.Rat; false if it is no amount.
func exactly(s string, form *regexp.Regexp, exponent int) (int64, bool) {
	if !form.MatchString(s) {
		return 0, false
	}
	if p := powerForm.FindStringSubmatch(s); p != nil && len(p[1]) > 3 { // big.Rat would take all memory
		return 0, strings.Trim(s[:strings.IndexAny(s, "eE")], "0.") == ""
	}
	v, ok := new(big.Rat).SetString(s)
	if !ok {
		return 0, false
	}
	v.Mul(v, new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(exponent)), nil)))
	if !v.IsInt() || v.Num().Cmp(big.NewInt(AmountMax)) > 0 {
		return 0, false
	}
	return v.Num().Int64(), true
}

// fuzzed are a currency of each exponent.
var fuzzed = [...]Currency{"JPY", "USD", "KWD", "CLF"}

func FuzzParseAmount(f *testing.F) {
	for _, s := range []string{"0", "12.50", "1.005", "01", "1e3", "10000000000000.01", "9223372036854775808", "-1", "1.", "0.0000"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, c := range fuzzed {
			exponent, _ := c.Exponent()
			want, ok := exactly(s, plainForm, exponent)
			if _, fraction, _ := strings.Cut(s, "."); len(fraction) > exponent {
				want, ok = 0, false
			}
			got, err := ParseAmount(s, c)
			if ok != (err == nil) || got != want {
				t.Errorf("%q %s: %d, %v; want %d, %v", s, c, got, err, want, ok)
			}
			if err == nil {
				if again, err := ParseAmount(FormatAmount(got, c), c); err != nil || again != got {
					t.Errorf("%q %s: %d comes back as %d, %v", s, c, got, again, err)
				}
			}
		}
	})
}

func FuzzParseScientific(f *testing.F) {
	for _, s := range []string{"0", "1.5E+7", "2.1398359E5", "1e-2", "1e-3", "0e99999999999999999999", "1e-99999999999999999999", "100000e-5", "181.000"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 2000 { // the oracle is slow
			return
		}
		for _, c := range fuzzed {
			exponent, _ := c.Exponent()
			want, ok := exactly(s, scientificForm, exponent)
			got, err := ParseScientific(s, c)
			if ok != (err == nil) || got != want {
				t.Errorf("%q %s: %d, %v; want %d, %v", s, c, got, err, want, ok)
			}
		}
	})
}

func FuzzFormatAmount(f *testing.F) {
	f.Add(int64(math.MinInt64))
	f.Add(int64(-5))
	f.Fuzz(func(t *testing.T, minor int64) {
		for _, c := range fuzzed {
			s := FormatAmount(minor, c)
			if got, err := strconv.ParseInt(strings.Replace(s, ".", "", 1), 10, 64); err != nil || got != minor {
				t.Errorf("%d %s is %s", minor, c, s)
			}
		}
	})
}

func BenchmarkParseAmount(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseAmount("181.36", "USD"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFormatAmount(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_ = FormatAmount(18136, "USD")
	}
}

func TestFormatTotal(t *testing.T) {
	for _, test := range []struct {
		minor, want string
		c           Currency
	}{
		{"0", "0.00", "EUR"}, {"-5", "-0.05", "EUR"}, {"9223372036854775807", "92233720368547758.07", "EUR"},
		{"9223372036854775808", "92233720368547758.08", "EUR"}, {"-9223372036854775809", "-92233720368547758.09", "EUR"},
		{"100000000000000000000", "100000000000000000000", "JPY"}, {"100000000000000000000", "100000000000000000.000", "KWD"},
	} {
		n, _ := new(big.Int).SetString(test.minor, 10)
		if got := FormatTotal(n, test.c); got != test.want {
			t.Errorf("%s %s: %s, want %s", test.minor, test.c, got, test.want)
		}
	}
}
