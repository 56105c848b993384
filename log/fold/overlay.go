package fold

// overlay is rows on top of a store's: what a turn, or a batch of a replay, has changed. One level of
// undo lets a command that fails leave nothing behind.
type overlay struct {
	below Reader
	rows  map[string][]byte // nil value: deleted
	undo  []undoRow
}

type undoRow struct {
	key   string
	value []byte
	there bool
}

func newOverlay(below Reader) *overlay {
	return &overlay{below: below, rows: make(map[string][]byte, 64)}
}

func (o *overlay) Get(key string, absentLikely bool) []byte {
	if v, ok := o.rows[key]; ok {
		return v
	}
	return o.below.Get(key, absentLikely)
}

func (o *overlay) Put(key string, value []byte) { o.set(key, value) }

func (o *overlay) Delete(key string) { o.set(key, nil) }

func (o *overlay) set(key string, value []byte) {
	old, there := o.rows[key]
	o.undo = append(o.undo, undoRow{key, old, there})
	o.rows[key] = value
}

// mark makes what has been set so far stay.
func (o *overlay) mark() { o.undo = o.undo[:0] }

// rollback drops what was set since mark.
func (o *overlay) rollback() {
	for i := len(o.undo) - 1; i >= 0; i-- {
		u := o.undo[i]
		if u.there {
			o.rows[u.key] = u.value
		} else {
			delete(o.rows, u.key)
		}
	}
	o.mark()
}

// reset empties the overlay for the next turn.
func (o *overlay) reset() {
	clear(o.rows)
	o.mark()
}
