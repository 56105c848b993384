package log

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"maps"
	"math"
	"math/rand/v2"
	"testing"
)

func TestPosition(t *testing.T) {
	var none Position
	a := none.With(3, 10).With(0, 7)
	if a[3] != 10 || a[0] != 7 || len(a) != 2 {
		t.Errorf("%v", a)
	}
	if a.With(3, 5)[3] != 10 {
		t.Error("With went back")
	}
	b := Position{3: 4, 5: 1}
	for _, c := range []struct {
		p, q Position
		want bool
	}{
		{none, none, true}, {a, none, true}, {none, a, false}, {a, a, true}, {a, Position{3: 10}, true}, {a, Position{3: 11}, false},
		{a, b, false}, {maps.Clone(b).Merge(a), b, true}, {maps.Clone(b).Merge(a), a, true}, {none, Position{9: 0}, true},
	} {
		if got := c.p.Covers(c.q); got != c.want {
			t.Errorf("%v covers %v: %v", c.p, c.q, got)
		}
	}
}

// The opaque form is what clients keep: it does not change.
func TestPositionForm(t *testing.T) {
	for _, c := range []struct {
		p    Position
		want string
	}{
		{Position{}, ""},
		{Position{0: 0}, "AAA"},
		{Position{0: 1, 1: 2}, "AAEBAg"},
		{Position{15: 300, 3: 7}, "AwcMrAI"},
		{Position{Slots - 1: math.MaxInt64}, "_wf__________38"},
	} {
		if got := c.p.String(); got != c.want {
			t.Errorf("%v is %q, want %q", c.p, got, c.want)
		}
		if got, err := ParsePosition(c.want); err != nil || !maps.Equal(got, c.p) {
			t.Errorf("%q is %v, %v; want %v", c.want, got, err, c.p)
		}
	}
	if (Position)(nil).String() != "" {
		t.Error("the zero Position")
	}
}

func TestPositionRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	for range 2000 {
		p := Position{}
		for range r.IntN(20) {
			p[int32(r.IntN(Slots))] = Offset(r.Int64() >> r.IntN(63))
		}
		if got, err := ParsePosition(p.String()); err != nil || !maps.Equal(got, p) {
			t.Fatalf("%v came back as %v, %v", p, got, err)
		}
	}
}

func TestParsePositionRefuses(t *testing.T) {
	form := func(pairs ...uint64) string {
		var b []byte
		for _, n := range pairs {
			b = binary.AppendUvarint(b, n)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	for name, s := range map[string]string{
		"not base64":           "!",
		"padded":               "AAA=",
		"the other alphabet":   "//8",
		"half a pair":          form(1),
		"three numbers":        form(1, 2, 3),
		"a partition twice":    form(1, 2, 0, 2),
		"partition too large":  form(Slots, 1),
		"partitions add up":    form(Slots-1, 1, 1, 1),
		"step that overflows":  form(1, 1, math.MaxUint64, 1),
		"offset below 0":       form(0, 1<<63),
		"number without end":   base64.RawURLEncoding.EncodeToString([]byte{0x80}),
		"number over 64 bits":  base64.RawURLEncoding.EncodeToString([]byte{0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}),
		"something that ended": form(0, 1) + "A",
	} {
		if p, err := ParsePosition(s); !errors.Is(err, ErrBadPosition) {
			t.Errorf("%s: %q was taken for %v, %v", name, s, p, err)
		}
	}
}

func FuzzParsePosition(f *testing.F) {
	f.Add("")
	f.Add("AwcMrAI")
	f.Add("_wf__________38")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePosition(s)
		if err != nil {
			return
		}
		for partition, end := range p {
			if partition < 0 || partition >= Slots || end < 0 {
				t.Errorf("%q: partition %d, end %d", s, partition, end)
			}
		}
		if again, err := ParsePosition(p.String()); err != nil || !maps.Equal(again, p) || !p.Covers(again) || !again.Covers(p) {
			t.Errorf("%q: %v came back as %v, %v", s, p, again, err)
		}
	})
}
