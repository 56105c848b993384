package fold

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/remitlog/remit/log"
)

// model is a store with what its rows should be.
type model struct {
	*testing.T
	rng   *rand.Rand
	fs    *vfs.MemFS
	store *Store
	at    log.Offset
	truth layers
	clock int // of ascending keys
}

var modelTables = []Table[int]{NewTable[int]('a').Ascending(), NewTable[int]('b'), NewTable[int]('c').MostlyAbsent(), NewTable[int]('d').Ascending().Until(odd), NewTable[int]('e').Until(odd)}

func odd(v *int) bool { return *v%2 == 1 }

func (m *model) open() {
	m.Helper()
	s, err := OpenStore(StoreOptions{Dir: "s", Version: "1", Partitions: 3, FS: m.fs, MemTableBytes: 256 << 10})
	if err != nil {
		m.Fatal(err)
	}
	m.store = s
	s.writers[1].max = 1 + m.rng.IntN(12)
}

// key is mostly new and beyond the last, sometimes a little behind it as ids of one millisecond are, sometimes anything.
func (m *model) key() (Table[int], string) {
	var n int
	switch m.rng.IntN(6) {
	case 0, 1:
		m.clock++
		n = m.clock
	case 2:
		n = m.clock - m.rng.IntN(8)
	case 3:
		n = m.clock + m.rng.IntN(8)
	default:
		n = m.rng.IntN(m.clock + 3)
	}
	return modelTables[m.rng.IntN(len(modelTables))], fmt.Sprintf("%06d", max(n, 0))
}

// layers are maps on top of one another; gone stands for a row that is deleted.
type layers []map[string]int

const gone = -1

func (ls layers) get(key string) (v int, ok bool) {
	for _, l := range slices.Backward(ls) {
		if v, ok = l[key]; ok {
			return v, v != gone
		}
	}
	return 0, false
}

func (ls layers) merge() {
	maps.Copy(ls[len(ls)-2], ls[len(ls)-1])
}

func (m *model) get(r Reader, truth layers, table Table[int], key string) {
	m.Helper()
	got, ok := table.Get(r, key)
	want, there := truth.get(table.prefix + key)
	if ok != there || ok && got != want {
		m.Fatalf("%s%s: got %d %t, want %d %t", table.prefix, key, got, ok, want, there)
	}
}

// turn changes some rows through an overlay, as commands of which some fail, and makes it the state or drops it.
func (m *model) turn(o *overlay) {
	o.reset()
	turn := append(slices.Clone(m.truth), map[string]int{})
	for range m.rng.IntN(6) {
		o.mark()
		mine := append(slices.Clone(turn), map[string]int{})
		for range m.rng.IntN(8) {
			table, key := m.key()
			m.get(o, mine, table, key)
			switch m.rng.IntN(4) {
			case 0:
				table.Delete(o, key)
				mine[2][table.prefix+key] = gone
			case 1, 2:
				v := m.rng.Int()
				table.Put(o, key, v)
				mine[2][table.prefix+key] = v
			}
			m.get(o, mine, table, key)
		}
		if m.rng.IntN(4) == 0 {
			o.rollback()
		} else {
			mine.merge()
		}
	}
	if m.rng.IntN(5) == 0 {
		return // refused
	}
	m.at++
	if err := m.store.commit(1, o, meta{Offset: m.at}); err != nil {
		m.Fatal(err)
	}
	turn.merge()
}

// Rows read through overlay, recent rows, horizon and store are those of a plain map, whatever was rolled back, refused,
// forgotten, flushed or restarted. A key wrongly believed absent would pay twice.
func TestRowsAreThoseOfAMap(t *testing.T) {
	for seed := range uint64(10) {
		m := &model{T: t, rng: rand.New(rand.NewPCG(seed, 3)), fs: vfs.NewMem(), truth: layers{{}}}
		m.open()
		o := newOverlay(m.store.writers[1])
		for range 40 {
			m.turn(o)
			switch m.rng.IntN(30) {
			case 0:
				if err := m.store.Flush(); err != nil {
					t.Fatal(err)
				}
			case 1:
				if err := m.store.Close(); err != nil {
					t.Fatal(err)
				}
				m.open()
				o = newOverlay(m.store.writers[1])
			}
			for range 10 {
				table, key := m.key()
				m.get(m.store.writers[1], m.truth, table, key)
			}
		}
		for _, table := range modelTables {
			for n := range m.clock + 10 {
				m.get(m.store.writers[1], m.truth, table, fmt.Sprintf("%06d", n))
				m.get(m.store.scanner(1), m.truth, table, fmt.Sprintf("%06d", n))
			}
		}
		for _, rows := range []map[string]*row{m.store.writers[1].young, m.store.writers[1].old} {
			for key, r := range rows {
				if r.over {
					t.Errorf("%q is over, and is kept", key)
				}
			}
		}
		if n := len(m.store.writers[1].young); n > m.store.writers[1].max {
			t.Errorf("%d rows are kept", n)
		}
		if err := m.store.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A table that is only written is not kept at hand, and so must not be read by the fold.
func TestWriteOnlyTable(t *testing.T) {
	s := openTestStore(t, vfs.NewMem(), 1)
	defer closeStore(t, s)
	o := newOverlay(s.writers[0])
	history.Put(o, "a", 1)
	if err := s.commit(0, o, meta{Offset: 1}); err != nil {
		t.Fatal(err)
	}
	if got, ok := history.Get(s.scanner(0), "a"); !ok || got != 1 {
		t.Errorf("%d %t", got, ok)
	}
	for name, r := range map[string]Reader{"overlay": o, "recent": s.writers[0]} {
		if !panics(func() { history.Get(r, "a") }) {
			t.Errorf("%s: read", name)
		}
	}
	if !panics(func() { NewTable[int](0xff) }) || !panics(func() { NewTable[int](dueTable) }) || !panics(func() { NewTable[int](0) }) {
		t.Error("a table has a byte that it must not have")
	}
}

func panics(f func()) (yes bool) {
	defer func() { yes = recover() != nil }()
	f()
	return false
}
