package fold

import "slices"

// overlay is rows on top of a store's: what a turn, or a batch of a replay, has changed. One level of
// undo lets a command that fails leave nothing behind.
type overlay struct {
	below Reader
	rows  map[string]*row
	undo  []undoRow
	final bool     // what is set stays: nothing is rolled back
	keys  []string // of the last sorted
	// missed is the key that was last asked for below, in vain: who decides asks for what it then folds.
	missed string
}

type undoRow struct {
	key string
	row *row // nil: there was none
}

func newOverlay(below Reader) *overlay {
	return &overlay{below: below, rows: make(map[string]*row, overlayRows)}
}

// newFinal returns an overlay whose changes all stay.
func newFinal(below Reader) *overlay {
	o := newOverlay(below)
	o.final = true
	return o
}

func (o *overlay) get(key string, how lookup) *row {
	if r, ok := o.rows[key]; ok {
		return r
	}
	if key == o.missed {
		return nil
	}
	r := o.below.get(key, how)
	if r == nil {
		o.missed = key
	}
	return r
}

func (o *overlay) set(key string, r *row) {
	if !o.final {
		o.undo = append(o.undo, undoRow{key, o.rows[key]})
	}
	o.rows[key] = r
}

// mark makes what has been set so far stay.
func (o *overlay) mark() { o.undo = o.undo[:0] }

// rollback drops what was set since mark.
func (o *overlay) rollback() {
	for i := len(o.undo) - 1; i >= 0; i-- {
		if u := o.undo[i]; u.row != nil {
			o.rows[u.key] = u.row
		} else {
			delete(o.rows, u.key)
		}
	}
	o.mark()
}

// sorted returns the keys in order. The slice is good until the next call.
func (o *overlay) sorted() []string {
	o.keys = o.keys[:0]
	for key := range o.rows {
		o.keys = append(o.keys, key)
	}
	slices.Sort(o.keys)
	return o.keys
}

// overlayRows is how many rows an overlay has room for at first, and overlayKeepMax how many it may have had for its room to be kept.
const (
	overlayRows    = 64
	overlayKeepMax = 1024
)

// reset empties the overlay for the next turn, or batch.
func (o *overlay) reset() {
	if len(o.rows) > overlayKeepMax {
		o.rows, o.keys = make(map[string]*row, overlayRows), nil
	}
	clear(o.rows)
	o.missed = "" // what is below moves on
	o.mark()
}

// recent keeps the rows that a partition has used lately, decoded, above its store. It is touched by the goroutine
// that writes the partition alone, and changes when an overlay has become the state.
//
// It is two generations of rows: when the younger is full it becomes the older, whose rows are
// forgotten unless they were used again.
type recent struct {
	below      Scanner
	young, old map[string]*row
	// horizon is, of each ascending table that was asked, a key that no row outside of here is beyond. A key beyond
	// it that is not here is not there.
	horizon map[byte]string
	max     int // rows of a generation
}

// recentMax is how many rows a generation holds. The collector looks at each, and calls wait for it: twice as many make payments no faster, and the
// slowest of a hundred slower.
const recentMax = 512

func newRecent(below Scanner) *recent {
	return &recent{below: below, max: recentMax, young: map[string]*row{}, old: map[string]*row{}, horizon: map[byte]string{}}
}

func (c *recent) get(key string, how lookup) *row {
	if r, ok := c.young[key]; ok {
		return r
	}
	r, ok := c.old[key]
	switch {
	case ok:
	case how == ascending && key > c.last(key[0]):
	default:
		r = c.below.get(key, how)
	}
	if r != nil {
		c.keep(key, r)
	}
	return r
}

func (c *recent) keep(key string, r *row) {
	if len(c.young) >= c.max {
		c.forget()
	}
	c.young[key] = r
}

// forget drops the older generation.
func (c *recent) forget() {
	for key := range c.old {
		c.leave(key)
	}
	clear(c.old)
	c.young, c.old = c.old, c.young
}

// leave moves the horizon of a table over a row that is here no longer.
func (c *recent) leave(key string) {
	if last, ok := c.horizon[key[0]]; ok && key > last {
		c.horizon[key[0]] = key
	}
}

// last returns the horizon of a table: at first the last key of the store, which has all rows that are not in an overlay.
func (c *recent) last(table byte) string {
	if last, ok := c.horizon[table]; ok {
		return last
	}
	last := ""
	for key := range c.below.scan(string([]byte{table}), string([]byte{table + 1}), true) {
		last = key
		break
	}
	c.horizon[table] = last // only now: a scan that fails tells nothing
	return last
}

// landed takes the rows of an overlay that is the state now. Those that are gone are kept as such: the older
// generation may still have them.
func (c *recent) landed(o *overlay) {
	for key, r := range o.rows {
		switch {
		case key[0] == dueTable, r.once: // due rows are read in order, from the store
		case r.over:
			delete(c.young, key)
			delete(c.old, key)
			c.leave(key)
		default:
			c.keep(key, r)
		}
	}
}
