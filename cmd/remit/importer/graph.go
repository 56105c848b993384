package importer

import "sync"

// graph knows which rows wait for which: a row for the last unfinished one before it on each of its two accounts, which
// itself waits for those before it. Rows are in it from when they are read until they are finished.
type graph struct {
	max int

	mu         sync.Mutex
	room       sync.Cond       // add waits
	work       sync.Cond       // take waits
	tails      map[string]*row // by account: the last unfinished row
	ready      []*row          // to be sent, from head on
	unfinished int
	whole      bool // no row is added any more
	stopped    bool
	finished   func(*row) // of rejected rows, which nobody takes
}

func newGraph(max int, finished func(*row)) *graph {
	g := &graph{max: max, tails: map[string]*row{}, finished: finished}
	g.room.L, g.work.L = &g.mu, &g.mu
	return g
}

// add puts a row behind those before it, waiting while the graph is full. It reports false once the graph is stopped.
func (g *graph) add(r *row) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.unfinished >= g.max && !g.stopped {
		g.room.Wait()
	}
	if g.stopped {
		return false
	}
	g.unfinished++
	r.waits = len(r.openings)
	var behind *row
	for _, account := range []string{r.payer, r.payee} {
		if before := g.tails[account]; before != nil && before != behind {
			before.next = append(before.next, r)
			r.waits++
			behind = before
		}
		g.tails[account] = r
	}
	if r.waits == 0 {
		g.push(r)
	}
	return true
}

// end says that no row will be added.
func (g *graph) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.whole = true
	g.work.Broadcast()
}

// stop makes add and take return at once.
func (g *graph) stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stopped = true
	g.room.Broadcast()
	g.work.Broadcast()
}

// wake makes those that wait in take look again whether they still want to.
func (g *graph) wake() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.work.Broadcast()
}

func (g *graph) push(r *row) {
	g.ready = append(g.ready, r)
	g.work.Signal()
}

// opened says that one opening of r is done, or why it cannot be.
func (g *graph) opened(r *row, rejected string, conflict bool) {
	g.mu.Lock()
	if rejected != "" {
		r.rejected, r.conflict = rejected, r.conflict || conflict
	}
	gone := g.release(r, nil)
	g.mu.Unlock()
	g.tell(gone)
}

// finish lets go what waits for r.
func (g *graph) finish(r *row) {
	g.mu.Lock()
	gone := g.remove(r, nil)
	g.mu.Unlock()
	g.tell(gone)
}

func (g *graph) tell(gone []*row) {
	for _, r := range gone {
		g.finished(r)
	}
}

// release takes one wait from r. Rejected rows that nothing holds back any more are removed and collected in gone.
func (g *graph) release(r *row, gone []*row) []*row {
	r.waits--
	switch {
	case r.waits > 0:
		return gone
	case r.rejected != "":
		return g.remove(r, append(gone, r))
	}
	g.push(r)
	return gone
}

func (g *graph) remove(r *row, gone []*row) []*row {
	for _, account := range []string{r.payer, r.payee} {
		if g.tails[account] == r {
			delete(g.tails, account)
		}
	}
	g.unfinished--
	g.room.Signal()
	if g.whole && g.unfinished == 0 {
		g.work.Broadcast()
	}
	next := r.next
	r.next = nil
	for _, waiting := range next {
		gone = g.release(waiting, gone)
	}
	return gone
}

// take returns rows that can start, at most max. If there are none it returns nil at once, or waits for the first: until
// everything is finished, the graph is stopped, or gaveUp says so.
func (g *graph) take(max int, wait bool, gaveUp func() bool) []*row {
	g.mu.Lock()
	defer g.mu.Unlock()
	for wait && len(g.ready) == 0 && !(g.whole && g.unfinished == 0) && !g.stopped && !gaveUp() {
		g.work.Wait()
	}
	if g.stopped || gaveUp() {
		g.work.Signal() // what woke this one is another's
		return nil
	}
	n := min(max, len(g.ready))
	if n == 0 {
		return nil
	}
	rows := g.ready[:n:n]
	g.ready = g.ready[n:]
	if len(g.ready) > 0 {
		g.work.Signal()
	}
	return rows
}

// again puts rows back that were taken.
func (g *graph) again(rows ...*row) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range rows {
		g.push(r)
	}
}
