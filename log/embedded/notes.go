package embedded

import (
	"context"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/remitlog/remit/log"
)

// Limits of notes.
const (
	// NoteKeyMax is the longest key of a note, in bytes.
	NoteKeyMax = 2 << 10
	// NoteMax is the largest value of a note, in bytes.
	NoteMax = 4 << 20
)

// Note is a small row that is kept beside the records, such as what a consumer group has read. It belongs to no topic, and
// stays when one is deleted.
type Note struct {
	// Key names it. Who keeps notes begins their keys with a word of their own.
	Key string
	// Value is what is kept; nil (not merely empty) deletes the note.
	Value []byte
}

// PutNotes makes notes durable before it returns, all of them or none. It may share its sync with appends. Of two notes with one
// key the later counts. Of two calls at once either may be the later.
//
// Errors: as of Append.
func (l *Log) PutNotes(ctx context.Context, notes ...Note) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("embedded: notes: %w", err)
	}
	bytes, err := checkNotes(notes)
	if err != nil || len(notes) == 0 {
		return err
	}
	if err := l.enterWriting(); err != nil {
		return err
	}
	defer l.leave()
	if err := l.floor.take(bytes, l.o.Clock()); err != nil {
		return err
	}
	l.noting.RLock()
	defer l.noting.RUnlock()
	r := requests.Get().(*request)
	defer r.free()
	r.batch = l.store.NewBatch()
	for _, n := range notes { // writing to a batch of one's own does not fail
		if n.Value == nil {
			_ = r.batch.Delete(noteKey(n.Key), nil)
		} else {
			_ = r.batch.Set(noteKey(n.Key), n.Value, nil)
		}
	}
	return l.inLine(r)
}

func checkNotes(notes []Note) (bytes int, err error) {
	for i := range notes {
		k, v := len(notes[i].Key), len(notes[i].Value)
		if k == 0 || k > NoteKeyMax || v > NoteMax {
			return 0, fmt.Errorf("embedded: %w: note %d has a key of %d bytes and a value of %d; 1 to %d, and at most %d", log.ErrTooLarge, i, k, v, NoteKeyMax, NoteMax)
		}
		bytes += k + v
	}
	if bytes > log.AppendMax {
		return 0, fmt.Errorf("embedded: %w: notes of %d bytes, at most %d", log.ErrTooLarge, bytes, log.AppendMax)
	}
	return bytes, nil
}

// Notes returns the notes whose keys begin with prefix, by key. All of them are durable: it waits for those that are being put, since
// Pebble shows them before they are.
func (l *Log) Notes(prefix string) (notes []Note, err error) {
	if err := l.enter(); err != nil {
		return nil, err
	}
	defer l.leave()
	l.noting.Lock()
	defer l.noting.Unlock()
	from := noteKey(prefix)
	it, err := l.store.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: after(from)})
	if err != nil {
		return nil, l.unreadable(err)
	}
	for it.First(); it.Valid(); it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			break // Close says it too
		}
		notes = append(notes, Note{Key: string(it.Key()[1:]), Value: append([]byte{}, value...)})
	}
	if err := it.Close(); err != nil {
		return nil, l.unreadable(err)
	}
	return notes, nil
}

func noteKey(key string) []byte { return append([]byte{kindNote}, key...) }

// after is the first key that does not begin with prefix. Prefixes begin with a kind, so there is one.
func after(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; ; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
}
