package consumers

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/remitlog/remit/log"
)

// window makes a partition of places: '.' done, '0' to '9' not done and failed so often, in a second each, ' ' no record.
func window(base log.Offset, places string) *partition {
	p := &partition{}
	for i, c := range places {
		offset := base + log.Offset(i)
		switch {
		case c == ' ':
		case c == '.':
			p.window = append(p.window, place{offset: offset, done: true})
		default:
			p.window = append(p.window, place{offset: offset, failed: failed{int(c - '0'), time.Duration(c-'0') * time.Second}})
		}
		p.next = offset + 1
	}
	p.trim()
	return p
}

// TestProgressBytes: what is stored never changes.
func TestProgressBytes(t *testing.T) {
	for _, c := range []struct {
		base          log.Offset
		places, bytes string
	}{
		{1000, "", ""},
		{1000, "....", ""},
		{1000, "0", "remit2:6AcBAAA"},
		{1000, "3..0 .", "remit2:6AcGAAO4FwMA"},
		{1000, "..3..0 .", "remit2:6gcGAAO4FwMA"},
	} {
		if got := window(c.base, c.places).progress(); got != c.bytes {
			t.Errorf("%q is written %q, not %q", c.places, got, c.bytes)
		}
	}
}

// TestProgressBefore: what the version before wrote is read.
func TestProgressBefore(t *testing.T) {
	g := parseProgress("remit1:6AcGAAMDAA")
	if f := g.holes[1000]; len(g.holes) != 2 || f != (failed{times: 3}) || g.base != 1000 || g.next != 1006 {
		t.Errorf("it is read as %+v", g)
	}
}

// TestProgress: what is read is what was written, also when not all of it fits; then less is done, never more.
func TestProgress(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 300 {
		n := rnd.IntN(200)
		if rnd.IntN(10) == 0 {
			n = rnd.IntN(20_000)
		}
		p := &partition{next: 7}
		for range n {
			p.next += log.Offset(1 + rnd.IntN(3))
			p.window = append(p.window, place{offset: p.next - 1, done: rnd.IntN(3) > 0, failed: failed{}})
			if n := rnd.IntN(300); n > 20 {
				p.window[len(p.window)-1].failed = failed{n, time.Duration(rnd.IntN(100_000_000)) * time.Millisecond}
			}
		}
		p.trim()
		text := p.progress()
		if len(text) > progressMax {
			t.Fatalf("%d bytes", len(text))
		}
		g := parseProgress(text)
		for _, a := range p.window {
			done, failed := g.done(a.offset)
			known := a.offset < g.next
			if done && !a.done || known && (done != a.done || !done && failed != a.failed) {
				t.Fatalf("%+v is read as done %t, %+v, of %d places", a, done, failed, len(p.window))
			}
			if !known && n < 200 {
				t.Fatalf("of %d places some are not known", len(p.window))
			}
		}
		if done, _ := g.done(p.next); done {
			t.Fatal("a record that has not come is done")
		}
	}
}

// FuzzProgress: whatever another consumer has put there does no harm.
func FuzzProgress(f *testing.F) {
	for _, s := range []string{"", "consumer-1-abc", "remit1:", "remit1:6AcBAAA", "remit1:6AcBAA", "remit1:////////////////////", "remit2:6AcBAAA", "remit2:6AcGAAO4FwMA", "remit2:6AcGAAP///////////8B", "remit3:6AcBAAA"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		g := parseProgress(s)
		if g.base < 0 || g.next < g.base {
			t.Errorf("%+v", g)
		}
		if done, _ := g.done(g.next); done {
			t.Error("next is done")
		}
	})
}
