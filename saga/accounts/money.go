package accounts

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
)

// Limits of money, in minor units.
const (
	// AmountMax is the largest amount of one posting. More is refused when it is parsed.
	AmountMax int64 = 1_000_000_000_000_000
	// BalanceMax is the largest balance an account may come to: thousands of the largest amounts, and
	// far enough from the end of int64 that the sum of any two balances has room.
	BalanceMax int64 = 1 << 62
)

var (
	// ErrCurrency: no currency that accounts are kept in. Use an active ISO 4217 code in upper case, one that has
	// a minor unit.
	ErrCurrency = errors.New("accounts: unknown currency")
	// ErrAmount: no amount of that currency. The text around it says what would be one.
	ErrAmount = errors.New("accounts: bad amount")
	// ErrOverflow: a sum that int64 cannot hold. Amounts and balances that keep to their
	// limits never come to it.
	ErrOverflow = errors.New("accounts: overflow")
)

// Currency is an ISO 4217 code, such as EUR. Only values that [ParseCurrency] returned are to be kept.
type Currency string

// ParseCurrency returns the currency of a code in upper case; ErrCurrency if there is none, or if it has no
// minor unit to count in (XAU, XXX and their like).
func ParseCurrency(code string) (Currency, error) {
	c := Currency(code)
	if _, ok := exponents[c]; !ok {
		return "", c.unknown()
	}
	return c, nil
}

// Exponent returns how many decimal digits the minor unit is below the major unit, 0 to 4, and
// whether c is a currency at all.
func (c Currency) Exponent() (int, bool) {
	n, ok := exponents[c]
	return n, ok
}

func (c Currency) unknown() error {
	return fmt.Errorf("%w: %s; use an active ISO 4217 code in upper case that has a minor unit, like USD", ErrCurrency, brief(string(c)))
}

// ParseAmount returns the minor units of a decimal string in major units: "12.50" EUR is 1250.
//
// The form is ^\d+(\.\d+)?$ without leading zeros, with at most as many digits after the point as the
// currency has: one amount in one currency has few spellings, and none that a reader could take
// for another. From 0 to AmountMax; whether 0 will do is the caller's to say.
//
// Errors: ErrAmount, ErrCurrency.
func ParseAmount(s string, c Currency) (int64, error) {
	exponent, ok := c.Exponent()
	if !ok {
		return 0, c.unknown()
	}
	d, err := scan(s)
	switch {
	case err != "":
		return 0, badAmount(s, c, err)
	case d.scientific:
		return 0, badAmount(s, c, "write it without an exponent")
	case len(d.fraction) > exponent:
		return 0, badAmount(s, c, fmt.Sprintf("%s has %d digits after the point at most", c, exponent))
	}
	return d.minor(s, c, exponent)
}

// ParseScientific is ParseAmount for files that a spreadsheet or a float printer wrote. It also takes an
// exponent ("1.5E+7", "2.1398359e5"), and zeros at the end beyond the minor unit ("181.000"). What is not
// a whole number of minor units is an error: nothing is ever rounded.
//
// Errors: ErrAmount, ErrCurrency.
func ParseScientific(s string, c Currency) (int64, error) {
	exponent, ok := c.Exponent()
	if !ok {
		return 0, c.unknown()
	}
	d, err := scan(s)
	if err != "" {
		return 0, badAmount(s, c, err)
	}
	return d.minor(s, c, exponent)
}

// decimal is a number as it was written: whole.fraction × 10^power.
type decimal struct {
	whole, fraction string
	power           int
	scientific      bool
}

// scan reads ^(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$, or says what is wrong.
func scan(s string) (d decimal, wrong string) {
	const form = `write it as digits with at most one point, like 12.50: no sign, no separators, no spaces`
	d.whole, s = digits(s)
	switch {
	case d.whole == "":
		return d, form
	case len(d.whole) > 1 && d.whole[0] == '0':
		return d, "leave out the leading zeros"
	}
	if strings.HasPrefix(s, ".") {
		if d.fraction, s = digits(s[1:]); d.fraction == "" {
			return d, form
		}
	}
	if s == "" {
		return d, ""
	}
	if s[0] != 'e' && s[0] != 'E' {
		return d, form
	}
	d.scientific = true
	var ok bool
	if d.power, ok = power(s[1:]); !ok {
		return d, form
	}
	return d, ""
}

// digits splits s after the digits that it begins with.
func digits(s string) (head, rest string) {
	n := 0
	for n < len(s) && '0' <= s[n] && s[n] <= '9' {
		n++
	}
	return s[:n], s[n:]
}

// powerMax bounds the power of ten of a number, to both sides; far more than any amount can mean. Beyond
// it only 0 is an amount.
const powerMax = 1 << 30

func power(s string) (int, bool) {
	negative := strings.HasPrefix(s, "-")
	if negative || strings.HasPrefix(s, "+") {
		s = s[1:]
	}
	head, rest := digits(s)
	if head == "" || rest != "" {
		return 0, false
	}
	n, err := strconv.Atoi(head)
	if err != nil || n > powerMax { // it is all digits: the only error is that there are too many
		n = powerMax
	}
	if negative {
		n = -n
	}
	return n, true
}

// minor returns d in units of 10^-exponent. s is what d was read from.
func (d decimal) minor(s string, c Currency, exponent int) (int64, error) {
	all := strings.TrimLeft(d.whole+d.fraction, "0")
	if all == "" {
		return 0, nil
	}
	// all × 10^shift, without zeros at its end, is what is wanted.
	significant := strings.TrimRight(all, "0")
	shift := len(all) - len(significant) - len(d.fraction) + d.power + exponent
	const most = 16 // digits of AmountMax
	switch {
	case shift < 0:
		return 0, badAmount(s, c, fmt.Sprintf("it is finer than the minor unit of %s, which has %d digits after the point; amounts are never rounded", c, exponent))
	case len(significant)+shift > most:
		return 0, tooMuch(s, c)
	}
	n, err := strconv.ParseInt(significant+strings.Repeat("0", shift), 10, 64)
	if err != nil || n > AmountMax {
		return 0, tooMuch(s, c)
	}
	return n, nil
}

func badAmount(s string, c Currency, wrong string) error {
	return fmt.Errorf("%w: %s %s: %s", ErrAmount, brief(s), c, wrong)
}

func tooMuch(s string, c Currency) error {
	return badAmount(s, c, fmt.Sprintf("at most %s at once; split it", FormatAmount(AmountMax, c)))
}

// brief quotes what came, cut where it no longer helps.
func brief(s string) string {
	const most = 40
	if len(s) > most {
		return strconv.Quote(s[:most]) + "…"
	}
	return strconv.Quote(s)
}

// FormatAmount returns minor units as a decimal string in major units, with all of the currency's digits:
// 1250 EUR is "12.50", and a balance below zero begins with a minus. It panics on a currency that is none: any other
// answer would be another amount.
func FormatAmount(minor int64, c Currency) string {
	exponent, ok := c.Exponent()
	if !ok {
		panic(c.unknown())
	}
	var buf [24]byte
	b := buf[:0]
	magnitude := uint64(minor)
	if minor < 0 {
		b = append(b, '-')
		magnitude = -magnitude
	}
	if exponent == 0 {
		return string(strconv.AppendUint(b, magnitude, 10))
	}
	unit := uint64(1)
	for range exponent {
		unit *= 10
	}
	b = append(strconv.AppendUint(b, magnitude/unit, 10), '.')
	for rest := magnitude % unit; unit > 1; rest %= unit {
		unit /= 10
		b = append(b, '0'+byte(rest/unit))
	}
	return string(b)
}

// FormatTotal is FormatAmount for a sum of amounts, which may be larger than any of them.
func FormatTotal(minor *big.Int, c Currency) string {
	if minor.IsInt64() {
		return FormatAmount(minor.Int64(), c)
	}
	exponent, ok := c.Exponent()
	if !ok {
		panic(c.unknown())
	}
	s := minor.String() // longer than any exponent
	if exponent == 0 {
		return s
	}
	return s[:len(s)-exponent] + "." + s[len(s)-exponent:]
}

// Add returns a+b, or ErrOverflow.
func Add(a, b int64) (int64, error) {
	if b > 0 && a > math.MaxInt64-b || b < 0 && a < math.MinInt64-b {
		return 0, fmt.Errorf("%w: %d + %d", ErrOverflow, a, b)
	}
	return a + b, nil
}
