package core_test

import (
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/remitlog/remit/broker"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/log/names"
	"github.com/remitlog/remit/saga"
	"github.com/remitlog/remit/saga/accounts"
	"github.com/remitlog/remit/saga/payments"
)

// TestAppenders: facts that write themselves write what json.Marshal would.
func TestAppenders(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 9))
	found := 0
	for _, types := range [][]fold.FactType{broker.Facts(), saga.Facts(), accounts.Facts(), names.Facts(), payments.Told()} {
		for _, f := range types {
			if _, fast := f.Zero.(fold.Appender); !fast {
				continue
			}
			found++
			for range 3000 {
				v := reflect.New(reflect.TypeOf(f.Zero)).Elem()
				fill(rng, v)
				want, err := json.Marshal(v.Interface())
				if err != nil {
					t.Fatal(err)
				}
				if got := v.Interface().(fold.Appender).AppendJSON(nil); string(got) != string(want) {
					t.Fatalf("%s: %s\nis not\n%s", f.Type, got, want)
				}
			}
		}
	}
	if found < 6 {
		t.Errorf("%d facts write themselves", found)
	}
}

// fill sets everything in v to something, or leaves it zero.
func fill(rng *rand.Rand, v reflect.Value) {
	if v.Type() == reflect.TypeFor[time.Time]() {
		v.Set(reflect.ValueOf(time.UnixMilli(rng.Int64N(4e12)).UTC()))
		return
	}
	if v.Type() == reflect.TypeFor[jsontext.Value]() {
		v.Set(reflect.ValueOf([]jsontext.Value{nil, jsontext.Value(`{"a":[1,"x"]}`)}[rng.IntN(2)]))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Field(i); f.CanSet() {
				fill(rng, f)
			}
		}
	case reflect.String:
		all := []string{"", "plain", "a \"quote\" \\ <b>& é \u2028 \n\x00"}
		v.SetString(all[rng.IntN(len(all))])
	case reflect.Int32:
		v.SetInt([]int64{0, 1, -1, math.MaxInt32}[rng.IntN(4)])
	case reflect.Int64:
		v.SetInt([]int64{0, 1, -1, math.MaxInt64, math.MinInt64}[rng.IntN(5)])
	case reflect.Bool:
		v.SetBool(rng.IntN(2) == 0)
	case reflect.Array:
		for i := range v.Len() {
			v.Index(i).SetUint(rng.Uint64N(256))
		}
		if rng.IntN(3) == 0 {
			v.SetZero()
		}
	case reflect.Slice:
		if n := rng.IntN(4); n < 3 {
			v.Set(reflect.MakeSlice(v.Type(), n, n))
			for i := range n {
				fill(rng, v.Index(i))
			}
		}
	case reflect.Pointer:
		if rng.IntN(2) == 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(rng, v.Elem())
		}
	default:
		panic("what is " + v.Type().String())
	}
}
