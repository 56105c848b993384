package demo

import (
	"context"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/remitlog/remit/cmd/remit/torture"
)

// The same seed makes the same payments, and all kinds of them.
func TestPlan(t *testing.T) {
	a, b := newPlan(1, 3000), newPlan(1, 3000)
	if !reflect.DeepEqual(a, b) {
		t.Error("one seed makes two plans")
	}
	if reflect.DeepEqual(a, newPlan(2, 3000)) {
		t.Error("two seeds make one plan")
	}
	endings := map[ending]int{}
	var repeated, refunded int
	sold := map[string]int{}
	for _, p := range a.payments {
		endings[p.ending]++
		sold[p.payee]++
		if p.repeated {
			repeated++
		}
		if p.refunded {
			refunded++
		}
	}
	if len(endings) != 4 || repeated == 0 || refunded == 0 {
		t.Errorf("endings %v, %d repeated, %d refunded", endings, repeated, refunded)
	}
	if most := sold["shop-01"]; most < 3*3000/len(a.merchants) {
		t.Errorf("the first shop sells %d of 3000: that is not skewed", most)
	}
}

// The whole of it, small: a server is killed half way, and everything holds.
func TestRun(t *testing.T) {
	binary, err := torture.Build(filepath.Join(t.TempDir(), "remit"))
	if err != nil {
		t.Fatal(err)
	}
	var shown Shown
	r, err := Run(t.Context(), Options{
		Dir: t.TempDir(), Seed: 3, Payments: 300, Say: t.Logf, Progress: func(int, int) {},
		Show:   func(_ context.Context, s Shown) error { shown = s; return nil },
		Server: torture.Options{Binary: binary},
	})
	if err != nil {
		t.Fatal(err)
	}
	if r.Payments != 300 || r.Paid == 0 || r.Refunds == 0 || r.Voided == 0 || r.Messages != r.Paid+r.Refunds || shown.Payment == "" {
		t.Errorf("%+v, shown %+v", r, shown)
	}
}

// A demo in which remit would not keep what it promises says so.
func TestBroken(t *testing.T) {
	d := &demo{Options: Options{}, plan: newPlan(1, 10)}
	d.brokenf("x is %d", 1)
	if err := error(&BrokenError{d.broken}); err.Error() != "demo: what must always hold does not:\nx is 1" {
		t.Error(err)
	}
}
