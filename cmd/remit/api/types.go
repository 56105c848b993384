package api

import (
	"encoding"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
)

var textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()

// DurationPattern is what a duration looks like.
const DurationPattern = `^\d+(ms|s|m|h)$`

// Duration is a duration in the form of [DurationPattern], in bodies and in queries.
type Duration time.Duration

var durationUnits = []struct {
	suffix string
	unit   time.Duration
}{{"h", time.Hour}, {"ms", time.Millisecond}, {"m", time.Minute}, {"s", time.Second}} // ms before s

// ParseDuration reads one; the error is a *[Problem] without a field.
func ParseDuration(s string) (time.Duration, error) {
	for _, u := range durationUnits {
		digits, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 63)
		if err != nil || digits[0] == '+' {
			break
		}
		if n > uint64(math.MaxInt64/u.unit) {
			return 0, NewProblem(CodeInvalidField, "%q is longer than remit can count", s)
		}
		return time.Duration(n) * u.unit, nil
	}
	return 0, NewProblem(CodeInvalidField, "%q is not a duration; write a whole number and ms, s, m or h, such as 30s", s)
}

// UnmarshalText reads a duration.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// MarshalText writes it in the largest unit that divides it.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// String is the same: 24h, 90s, 1500ms. What is below a millisecond is cut off.
func (d Duration) String() string {
	v := time.Duration(d)
	switch {
	case v != 0 && v%time.Hour == 0:
		return strconv.FormatInt(int64(v/time.Hour), 10) + "h"
	case v != 0 && v%time.Minute == 0:
		return strconv.FormatInt(int64(v/time.Minute), 10) + "m"
	case v%time.Second == 0:
		return strconv.FormatInt(int64(v/time.Second), 10) + "s"
	default:
		return strconv.FormatInt(v.Milliseconds(), 10) + "ms"
	}
}

// Time is a time in RFC 3339: any offset is read, UTC is written.
type Time time.Time

// ParseTime reads one; the error is a *[Problem] without a field.
func ParseTime(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}, NewProblem(CodeInvalidField, "%q is not a time; write RFC 3339, such as 2026-01-31T12:00:00Z", s)
	}
	return t.UTC(), nil
}

// UnmarshalText reads a time.
func (t *Time) UnmarshalText(b []byte) error {
	v, err := ParseTime(string(b))
	*t = Time(v)
	return err
}

// MarshalText writes it in UTC.
func (t Time) MarshalText() ([]byte, error) { return t.append(nil), nil }

// append writes milliseconds always, so that times sort as text, and nanoseconds where there are any.
func (t Time) append(b []byte) []byte {
	u := time.Time(t).UTC()
	if u.Nanosecond()%int(time.Millisecond) != 0 {
		return u.AppendFormat(b, time.RFC3339Nano)
	}
	return u.AppendFormat(b, "2006-01-02T15:04:05.000Z07:00")
}

// IsZero makes omitzero leave out a time that is not set.
func (t Time) IsZero() bool { return time.Time(t).IsZero() }

func (t Time) String() string { return string(t.append(nil)) }

// Nearest returns the known word that a typing mistake away from word, "" if none is near.
func Nearest(word string, known []string) string {
	best, least := "", len(word)/3+2
	for _, k := range known {
		if d := editDistance(strings.ToLower(word), strings.ToLower(k)); d < least {
			best, least = k, d
		}
	}
	return best
}

// editDistance is Levenshtein's, over bytes, in one row.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
