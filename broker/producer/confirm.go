package producer

import (
	"context"
	"errors"
	"fmt"
)

// tell tells remit how a local transaction has ended, if that is certain. The error is ErrContradicted: what cannot be told now is told again in the
// background.
func (p *Producer[T]) tell(ctx context.Context, s *sending) error {
	if s.verdict == Unknown {
		return nil
	}
	return each(s.halves, func(h half) error {
		err := p.remit.decide(ctx, h.id, s.verdict)
		if err != nil && (IsRetryable(err) || ctx.Err() != nil) {
			p.tellAgain(h, s.verdict, err)
			return nil
		}
		return p.told(h, s.verdict, 1, err)
	})
}

// told takes remit's last word on a decision.
func (p *Producer[T]) told(h half, v Verdict, attempt int, err error) error {
	switch {
	case err == nil:
		p.opts.Listener.Confirmed(h.id, v, attempt)
		return nil
	case !contradicts(err):
		p.opts.Listener.Unconfirmed(h.id, v, err)
		return nil
	}
	p.opts.Listener.Contradicted(h.id, v, err)
	if v == Commit {
		return h.error(fmt.Errorf("%w: %w", ErrContradicted, err))
	}
	return nil
}

var errTooMany = errors.New("too many decisions wait to be told again")

// tellAgain tells a decision again in the background, a bounded number of times. Its caller is counted by work.
func (p *Producer[T]) tellAgain(h half, v Verdict, err error) {
	select {
	case p.places <- struct{}{}:
	default:
		p.opts.Listener.Unconfirmed(h.id, v, fmt.Errorf("%w: %w", errTooMany, err))
		return
	}
	p.work.Go(func() {
		defer func() { <-p.places }()
		for n := 2; n <= p.opts.ConfirmAttemptsMax; n++ {
			after := p.opts.backoff(n-1, err)
			p.opts.Listener.Retried(string(v)+" "+h.id.String(), err, after)
			if !pause(p.stop, after) {
				break
			}
			if err = p.remit.decide(p.stop, h.id, v); err == nil || !IsRetryable(err) {
				_ = p.told(h, v, n, err) // nobody waits for it
				return
			}
		}
		p.opts.Listener.Unconfirmed(h.id, v, err)
	})
}

// Close waits until every Send has returned and remit was told what became of them, at most until ctx ends; what it was not told by then
// is left to the back-check, and the error says of how many. Leases are given back. A Send after it is ErrClosed; CheckHandler
// goes on answering.
func (p *Producer[T]) Close(ctx context.Context) error {
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		close(p.closing)
	}
	p.mu.Unlock()
	defer p.giveUp()
	done := make(chan struct{})
	go func() {
		p.work.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("producer: closed while %d decisions were not told to remit; back-checks settle them: %w", len(p.places), ctx.Err())
	}
}
