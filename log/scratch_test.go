package log_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/remitlog/remit/log"
)

// What is made in a Scratch is what is made without, and stays until Reset, however much is made.
func TestScratch(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	var s log.Scratch
	for turn := range 200 {
		s.Reset()
		var got, want []log.Record
		var texts [][]byte
		for i := range 1 + rng.IntN(40) {
			e := anEvent(rng)
			if rng.IntN(50) == 0 {
				e.Subject = strings.Repeat("s", rng.IntN(100<<10))
			}
			if rng.IntN(4) == 0 { // longer than is reckoned with
				e.Extensions = map[string]any{"long": strings.Repeat("l", rng.IntN(2<<10))}
			}
			p := log.Partition{Topic: "t", Index: int32(i)}
			got, want = append(got, s.Record(&e, p)), append(want, e.Record(p))
			text := fmt.Sprint(turn, " ", strings.Repeat("x", rng.IntN(6<<10)))
			texts = append(texts, []byte(text), s.Bytes(func(b []byte) []byte { return append(b, text...) }))
		}
		for i := range got {
			if !reflect.DeepEqual(got[i], want[i]) {
				t.Fatalf("turn %d: %+v\nis not\n%+v", turn, got[i], want[i])
			}
			if !bytes.Equal(texts[2*i], texts[2*i+1]) {
				t.Fatalf("turn %d: %.40q is not %.40q", turn, texts[2*i+1], texts[2*i])
			}
		}
	}
	e := log.Event{ID: "1", Source: "s", Type: "t", Key: "k", Time: noon}
	if n := testing.AllocsPerRun(100, func() {
		s.Reset()
		for range 20 {
			_ = s.Record(&e, log.Partition{Topic: "t"})
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
