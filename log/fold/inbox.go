package fold

import (
	"sync"
	"sync/atomic"
	"time"
)

// ask is a command that waits, and who wants its result.
type ask struct {
	command Command
	done    func(Result) // may be nil; runs on the partition's goroutine and MUST NOT block
	door    bool
	// lazy: nobody waits for it. It takes part in the next turn that others make, or in one of its own after LazyMax.
	lazy bool
}

// inbox holds what a partition has been asked. Only doors are bounded: what remit itself owes is
// bounded by what is open, and a loop that blocked on sending to another could wait for itself.
type inbox struct {
	doorMax int
	wake    chan struct{} // holds one token while asks wait
	busy    *atomic.Int64 // counts what is put; the loop counts off what it has taken, once that is dealt with

	mu     sync.Mutex
	asks   []ask
	head   int // of asks: those before it are taken
	doors  int
	lazing bool // a lazy one has set its time
	closed bool
}

func newInbox(doorMax int, busy *atomic.Int64) *inbox {
	return &inbox{doorMax: doorMax, busy: busy, wake: make(chan struct{}, 1)}
}

// put adds an ask, or says why not. It never blocks.
func (b *inbox) put(a ask) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return ErrStopped
	case a.door && b.doors >= b.doorMax:
		return ErrBusy
	case a.door:
		b.doors++
	}
	b.asks = append(b.asks, a)
	b.busy.Add(1)
	switch {
	case !a.lazy:
		b.rouse()
	case !b.lazing:
		b.lazing = true
		time.AfterFunc(LazyMax, b.lazed)
	}
	return nil
}

// rouse wakes the partition.
func (b *inbox) rouse() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// lazed is called when a lazy ask has waited long enough, if it still waits.
func (b *inbox) lazed() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lazing = false; len(b.asks) > b.head {
		b.rouse()
	}
}

// take moves up to max asks into buf, oldest first.
func (b *inbox) take(buf []ask, max int) []ask {
	b.mu.Lock()
	defer b.mu.Unlock()
	waiting := b.asks[b.head:]
	n := min(max, len(waiting))
	buf = append(buf, waiting[:n]...)
	clear(waiting[:n])
	b.head += n
	rest := len(waiting) - n
	if b.head >= rest { // what is moved was taken before, once for each: a long line costs no more than a short one
		copy(b.asks, b.asks[b.head:])
		clear(b.asks[rest:])
		b.asks, b.head = b.asks[:rest], 0
	}
	for _, a := range buf {
		if a.door {
			b.doors--
		}
	}
	if rest > 0 {
		b.rouse()
	}
	return buf
}

// close refuses what comes later and returns what still waits.
func (b *inbox) close() []ask {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	rest := b.asks[b.head:]
	b.asks, b.head = nil, 0
	return rest
}
