package api

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/saga/payments"
)

// BatchOpenMax is how many payments of one batch are under way at once. More would only wait in line, and use up their wait
// there; answers that wait to be read are another matter (AnswersMax).
const BatchOpenMax = 2048

// sweepEvery is how often a batch looks for lines whose wait is over.
const sweepEvery = 50 * time.Millisecond

// createBatch begins a payment a line.
//
//	line ──▶ Claim ──▶ (claimed) ──▶ Begin ──▶ (held, refused or settled) ──▶ answer
//	            all at once    in line order, per payer
//
// No line has a goroutine: claims and answers come back on the goroutines of partitions, and one sweeper a batch answers those whose
// wait is over.
func (p *Payments) createBatch(w http.ResponseWriter, r *http.Request) error {
	q := ParseQuery(r)
	wait := q.Wait()
	if err := q.Done(); err != nil {
		return err
	}
	b := &paymentBatch{payments: p, wait: wait, chains: map[string]*payerChain{}, end: make(chan struct{}), slots: make(chan struct{}, BatchOpenMax)}
	swept := make(chan struct{})
	go func() {
		defer close(swept)
		b.sweep()
	}()
	w.Header().Set("Trailer", PositionHeader) // it is known when all is answered
	err := Stream(w, r, "payment", b.begin)
	close(b.end)
	<-swept
	if err != nil {
		w.Header().Del("Trailer")
		return err
	}
	b.mu.Lock() // a payment whose wait was over may still come in
	defer b.mu.Unlock()
	SetPosition(w, b.position)
	return nil
}

// paymentBatch is one call of createBatch.
type paymentBatch struct {
	payments *Payments
	wait     time.Duration
	end      chan struct{}
	slots    chan struct{} // one is taken by each payment under way

	mu       sync.Mutex
	chains   map[string]*payerChain
	open     []*paymentLine // in the order of their deadlines; some are answered already
	position log.Position
}

// payerChain is the lines of one payer that have not begun, in line order.
//
// INVARIANT: only one goroutine begins lines of a chain at a time, so that they begin in order.
type payerChain struct {
	head, tail *paymentLine
	draining   bool
}

// paymentLine is one line from its begin to its answer.
type paymentLine struct {
	batch    *paymentBatch
	line     *Line
	request  payments.Request
	over     atomic.Bool
	start    time.Time // the node's
	deadline time.Time
	// patience ends with the line's answer: nothing of it waits for a payment to be settled any more.
	patience context.Context
	leave    context.CancelFunc

	chain   *payerChain // guarded by batch.mu, as are those below
	next    *paymentLine
	ready   bool // claimed holds
	claimed payments.Claimed
}

func (b *paymentBatch) begin(l *Line) {
	var body PaymentRequest
	if err := l.Decode(&body); err != nil {
		l.Fail(err)
		return
	}
	req, err := body.check("")
	if err != nil {
		l.Fail(err)
		return
	}
	select {
	case b.slots <- struct{}{}: // no further line is read meanwhile; those under way end by themselves, or by their wait
	case <-l.Context().Done():
		l.Fail(l.Context().Err())
		return
	}
	x := &paymentLine{batch: b, line: l, request: req, start: b.payments.Service.Now(), deadline: time.Now().Add(b.wait)}
	x.patience, x.leave = context.WithCancel(l.Context())
	b.join(x)
	b.payments.Service.Claim(x.patience, req, x.isClaimed)
}

// join puts a line at the end of its payer's chain.
func (b *paymentBatch) join(x *paymentLine) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open = append(b.open, x)
	c := b.chains[x.request.Payer]
	if c == nil {
		c = &payerChain{}
		b.chains[x.request.Payer] = c
	}
	x.chain = c
	if c.tail == nil {
		c.head, c.tail = x, x
		return
	}
	c.tail.next, c.tail = x, x
}

// isClaimed begins what of the payer's chain can begin now.
func (x *paymentLine) isClaimed(claimed payments.Claimed) {
	b, c := x.batch, x.chain
	b.mu.Lock()
	defer b.mu.Unlock()
	x.claimed, x.ready = claimed, true
	if c.draining {
		return // whoever drains sees it
	}
	c.draining = true
	for c.head != nil && c.head.ready {
		first := c.head
		c.head = first.next
		first.next = nil
		if c.head == nil {
			c.tail = nil
		}
		b.mu.Unlock()
		b.payments.Service.Begin(first.claimed, first.done)
		b.mu.Lock()
	}
	c.draining = false
	if c.head == nil {
		delete(b.chains, x.request.Payer)
	}
}

// done answers a line, unless its wait was over before. It runs on a partition's goroutine.
func (x *paymentLine) done(a payments.Answer, err error) {
	if x.over.Swap(true) {
		return
	}
	defer func() { x.leave(); <-x.batch.slots }()
	if err != nil {
		x.line.Fail(x.batch.payments.problem(x.request, err))
		return
	}
	b := x.batch
	b.mu.Lock()
	b.position = b.position.Merge(a.Position)
	b.mu.Unlock()
	b.payments.complete(x.request, &a, x.start)
	x.line.Replayed = a.Replayed
	status, payment := outcome(a)
	if status == http.StatusPaymentRequired {
		x.line.Fail(refused(payment))
		return
	}
	x.line.Answer(status, payment)
}

// sweep answers lines whose wait is over, until the batch ends.
func (b *paymentBatch) sweep() {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-b.end:
			return
		case now := <-tick.C:
			for x := b.overdue(now); x != nil; x = b.overdue(now) {
				x.giveUp()
			}
		}
	}
}

// overdue takes the first line off the open ones that is not answered and whose wait is over, or whose client has left.
func (b *paymentBatch) overdue(now time.Time) *paymentLine {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, x := range b.open {
		switch {
		case x.over.Load():
			b.open[i] = nil
			continue
		case now.Before(x.deadline) && x.line.Context().Err() == nil:
			b.open = b.open[i:]
			return nil
		}
		b.open[i] = nil
		b.open = b.open[i+1:]
		return x
	}
	b.open = nil
	return nil
}

// giveUp answers a line as its payment stands now.
func (x *paymentLine) giveUp() {
	if err := x.line.Context().Err(); err != nil {
		x.done(payments.Answer{}, err)
		return
	}
	x.done(x.batch.payments.Service.Look(x.request))
}
