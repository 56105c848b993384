package groups

import (
	"context"
	"sync"
)

// line takes effects of all groups, in order. One goroutine writes them: what waits while it writes is written at once, with one sync.
//
// INVARIANT: one write at a time. The store may let either of two be the later, and a committed offset would fall back.
type line struct {
	mu      sync.Mutex
	waiting []waiting
	ended   bool
	over    bool          // nobody takes any more
	wake    chan struct{} // of 1
}

type waiting struct {
	g *group
	effect
}

func (l *line) init() { l.wake = make(chan struct{}, 1) }

// put puts effects at the end of the line; false if nobody will take them.
func (l *line) put(g *group, effects []effect) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return false
	}
	for _, e := range effects {
		l.waiting = append(l.waiting, waiting{g, e})
	}
	l.poke()
	return true
}

func (l *line) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// end lets take return none once nothing waits.
func (l *line) end() {
	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
	l.poke()
}

// take waits for effects and returns those that wait, about WriteBytesMax of them; none once the line has ended.
func (l *line) take() []waiting {
	for {
		l.mu.Lock()
		if n := l.first(); n > 0 || l.ended {
			taken := l.waiting[:n:n]
			l.waiting = l.waiting[n:]
			l.over = n == 0
			l.mu.Unlock()
			return taken
		}
		l.waiting = nil
		l.mu.Unlock()
		<-l.wake
	}
}

// first returns how many of the first fit in one write, at least one if there is one.
func (l *line) first() int {
	bytes := 0
	for i, w := range l.waiting {
		for _, n := range w.notes {
			bytes += len(n.Key) + len(n.Value)
		}
		if i > 0 && bytes > WriteBytesMax {
			return i
		}
	}
	return len(l.waiting)
}

// write runs until the line has ended.
func (c *Coordinator) write() {
	for taken := c.line.take(); len(taken) > 0; taken = c.line.take() {
		var notes []Note
		for _, w := range taken {
			notes = append(notes, w.notes...)
		}
		var err error
		if len(notes) > 0 {
			if err = c.o.Store.PutNotes(context.Background(), notes...); err != nil {
				c.o.Logger.Error("groups: not written; clients are told to try again", "notes", len(notes), "error", err)
			}
		}
		for _, w := range taken {
			w.g.mu.Lock()
			w.done(c.o.Now(), err)
			c.leave(w.g)
		}
	}
}
