package embedded

import (
	"encoding/hex"
	"reflect"
	"strings"
	"testing"
)

// The row of a producer is for ever.
func TestProducerRow(t *testing.T) {
	p := &producer{epoch: 3, seen: 0x0102030405060708, last: []sentBatch{{first: 7, last: 9, base: 1 << 40}, {first: 0x7fffffff, last: 6, base: 5}}}
	b := make([]byte, producerRowLen)
	p.put(b)
	const want = "0003" + "02" + "0102030405060708" + "00000007" + "00000009" + "0000010000000000" + "7fffffff" + "00000006" + "0000000000000005"
	if got := hex.EncodeToString(b); got != want+strings.Repeat("00", producerRowLen-len(want)/2) {
		t.Error(got)
	}
	if got, ok := parseProducer(b); !ok || !reflect.DeepEqual(got, p) {
		t.Errorf("%+v", got)
	}
	for _, bad := range [][]byte{nil, b[:producerRowLen-1], make([]byte, producerRowLen)} {
		if _, ok := parseProducer(bad); ok {
			t.Errorf("%x is read", bad)
		}
	}
	if got := hex.EncodeToString(producerKey(1, 2, 3)); got != "06"+"00000001"+"00000002"+"0000000000000003" {
		t.Error(got)
	}
}
