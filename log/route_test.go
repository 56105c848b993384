package log

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"
)

// The vectors of Apache Kafka's own UtilsTest.testMurmur2.
func TestMurmur2IsKafkas(t *testing.T) {
	for key, want := range map[string]int32{
		"21":                         -973932308,
		"foobar":                     -790332482,
		"a-little-bit-long-string":   -985981536,
		"a-little-bit-longer-string": -1486304829,
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	} {
		if got := int32(murmur2(key)); got != want {
			t.Errorf("murmur2(%q) = %d, want %d", key, got, want)
		}
	}
}

// The slots that api.md promises to whoever makes ids in another language.
func TestSlotVectors(t *testing.T) {
	for key, want := range map[string]int{"": 217, "21": 236, "foobar": 958, "abc": 539} {
		if got := SlotOf(key); got != want {
			t.Errorf("slot of %q is %d, want %d", key, got, want)
		}
	}
}

// A foreign producer with the default partitioner of a Java-compatible client lands where we do.
func TestPartitionIsKgos(t *testing.T) {
	partitioner := kgo.StickyKeyPartitioner(nil).ForTopic("t")
	r := rand.New(rand.NewPCG(1, 1))
	for range 5000 {
		key := randomKey(r)
		for partitions := 1; partitions <= Slots; partitions *= 2 {
			want := partitioner.Partition(&kgo.Record{Key: []byte(key)}, partitions)
			if got := PartitionOf(SlotOf(key), partitions); int(got) != want {
				t.Fatalf("%q of %d partitions: %d, kgo says %d", key, partitions, got, want)
			}
		}
	}
}

// On a user's topic, of any number of partitions, too.
func TestKeyPartitionIsKgos(t *testing.T) {
	partitioner := kgo.StickyKeyPartitioner(nil).ForTopic("t")
	r := rand.New(rand.NewPCG(4, 4))
	for range 5000 {
		key, partitions := randomKey(r), 1+r.IntN(Slots)
		want := partitioner.Partition(&kgo.Record{Key: []byte(key)}, partitions)
		if got := KeyPartition(key, partitions); int(got) != want {
			t.Fatalf("%q of %d partitions: %d, kgo says %d", key, partitions, got, want)
		}
	}
}

func randomKey(r *rand.Rand) string {
	b := make([]byte, 1+r.IntN(40))
	for i := range b {
		b[i] = byte(r.IntN(256))
	}
	return string(b)
}

// Many keys fill all slots, none of them twice as full as another would be by chance.
func TestSlotsAreEven(t *testing.T) {
	const each = 200
	var slots [Slots]int
	for i := range Slots * each {
		slots[SlotOf(fmt.Sprintf("customer-%d", i))]++
	}
	for slot, n := range slots {
		if n < each/2 || n > each*2 {
			t.Errorf("slot %d has %d keys, about %d were expected", slot, n, each)
		}
	}
}

// The layout, bit by bit: what does not belong to time, version, variant and slot is random.
func TestIDLayout(t *testing.T) {
	at := time.UnixMilli(0x0123456789ab)
	ones := ID{}
	for i := range ones {
		ones[i] = 0xff
	}
	for _, c := range []struct {
		random ID
		slot   int
		want   string
	}{
		{ID{}, 0, "01234567-89ab-8000-8000-000000000000"},
		{ID{}, 0x3ff, "01234567-89ab-8000-8000-0000000003ff"},
		{ones, 0, "01234567-89ab-8fff-bfff-fffffffffc00"},
		{ones, 0x2a5, "01234567-89ab-8fff-bfff-fffffffffea5"},
	} {
		id := c.random.at(at, c.slot)
		if id.String() != c.want {
			t.Errorf("slot %#x: %v, want %s", c.slot, id, c.want)
		}
		if id.Slot() != c.slot || !id.Time().Equal(at) {
			t.Errorf("%v: slot %#x, time %v", id, id.Slot(), id.Time())
		}
	}
	if at, u := (ID{}).at(at, 1), (uuid.UUID{}); at.IsZero() || !ID(u).IsZero() {
		t.Error("IsZero")
	}
}

func TestNewID(t *testing.T) {
	now := time.Date(2026, 2, 3, 4, 5, 6, 789e6, time.UTC)
	seen := map[ID]bool{}
	r := rand.New(rand.NewPCG(2, 2))
	for range 2000 {
		key := randomKey(r)
		id := NewID(now, key)
		if id.Slot() != SlotOf(key) || !id.Time().Equal(now) || seen[id] {
			t.Fatalf("%v of %q: slot %d, time %v", id, key, id.Slot(), id.Time())
		}
		seen[id] = true
		if back, ok := ParseID(id.String()); !ok || back != id {
			t.Fatalf("%v came back as %v, %v", id, back, ok)
		}
	}
}

func TestParseID(t *testing.T) {
	const good = "0198c1f2-7a3b-8d4e-9f00-1a2b3c4d5e6f"
	want, ok := ParseID(good)
	if !ok || want.String() != good {
		t.Fatalf("%v, %v", want, ok)
	}
	// RFC 9562 has readers take upper case. If we took it for a name, one id in two spellings would be two things.
	if upper, ok := ParseID(strings.ToUpper(good)); !ok || upper != want {
		t.Errorf("upper case: %v, %v", upper, ok)
	}
	for _, s := range []string{
		"", "x", good[:35], good + "0", " " + good, good + " ",
		"{" + good + "}", "urn:uuid:" + good, strings.ReplaceAll(good, "-", ""),
		strings.Replace(good, "-8d4e", "-4d4e", 1), // other versions are names
		strings.Replace(good, "-8d4e", "-7d4e", 1),
		strings.Replace(good, "-8d4e", "-0d4e", 1),
		strings.Replace(good, "-9f00", "-1f00", 1), // other variants too
		strings.Replace(good, "-9f00", "-cf00", 1),
		strings.Replace(good, "-9f00", "-ff00", 1),
		strings.Replace(good, "0", "g", 1),
		strings.Replace(good, "-", "0", 1),
		"0198c1f27a3b8d4e-9f00-1a2b-3c4d5e6f-", // 36 characters, the hyphens elsewhere
		uuid.Nil.String(), uuid.Max.String(),
	} {
		if id, ok := ParseID(s); ok {
			t.Errorf("%q was taken for the id %v", s, id)
		}
	}
}

func TestIsName(t *testing.T) {
	const id = "0198c1f2-7a3b-8d4e-9f00-1a2b3c4d5e6f"
	for s, want := range map[string]bool{
		"a": true, "order-1": true, "AZaz09._:~-": true, "paysim.csv:2:open": true, strings.Repeat("x", 128): true,
		"6e8bc430-9c3a-41d9-9669-0800200c9a66": true, // a UUID of the caller's own
		"x" + id:                               true, // the prefix that makes a UUIDv8 a name
		id:                                     false,
		strings.ToUpper(id):                    false,
		"":                                     false,
		strings.Repeat("x", 129):               false,
		"a b":                                  false, "a/b": false, "a%20": false, "é": false, "a\n": false, "a\x00": false, "{a}": false, "a,b": false,
	} {
		if got := IsName(s); got != want {
			t.Errorf("IsName(%q) = %v", s, got)
		}
	}
}

func TestIDForms(t *testing.T) {
	id := NewID(time.Now(), "alice")
	b, err := json.Marshal(map[string]ID{"id": id})
	if err != nil || string(b) != `{"id":"`+id.String()+`"}` {
		t.Errorf("%s, %v", b, err)
	}
	var back map[string]ID
	if err := json.Unmarshal(b, &back); err != nil || back["id"] != id {
		t.Errorf("%v, %v", back, err)
	}
	raw, err := id.MarshalBinary()
	var again ID
	if err != nil || len(raw) != 16 || again.UnmarshalBinary(raw) != nil || again != id {
		t.Errorf("%x, %v, %v", raw, again, err)
	}
	if again.UnmarshalBinary(raw[:15]) == nil {
		t.Error("15 bytes were taken for an id")
	}
}

// No string is both an id and a name, and an id has one form that it is printed in.
func FuzzParseID(f *testing.F) {
	f.Add("0198c1f2-7a3b-8d4e-9f00-1a2b3c4d5e6f")
	f.Add("0198C1F2-7A3B-8D4E-9F00-1A2B3C4D5E6F")
	f.Add("order-1")
	f.Fuzz(func(t *testing.T, s string) {
		id, ok := ParseID(s)
		if !ok {
			return
		}
		if IsName(s) {
			t.Errorf("%q is an id and a name", s)
		}
		if id.String() != strings.ToLower(s) {
			t.Errorf("%q is printed as %v", s, id)
		}
		if slot := id.Slot(); slot < 0 || slot >= Slots || id.at(id.Time(), slot) != id {
			t.Errorf("%q: slot %d, time %v", s, slot, id.Time())
		}
	})
}

func FuzzSlotOf(f *testing.F) {
	f.Add("alice")
	f.Add("")
	partitioner := kgo.StickyKeyPartitioner(nil).ForTopic("t")
	f.Fuzz(func(t *testing.T, key string) {
		want := partitioner.Partition(&kgo.Record{Key: append([]byte{}, key...)}, Slots)
		if got := SlotOf(key); got != want {
			t.Errorf("%q: %d, kgo says %d", key, got, want)
		}
	})
}

func BenchmarkSlotOf(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_ = SlotOf("customer-1234567")
	}
}
