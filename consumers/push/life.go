package push

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/remitlog/remit/consumers"
	"github.com/remitlog/remit/log"
)

// life is one subscription as it is registered now. What is changed gets another life, which begins when this one has ended: so two of a
// subscription never deliver side by side.
type life struct {
	s      *Service
	of     Subscription
	filter Filter
	book   *book

	ctx     context.Context // ends when nothing more is to be sent
	end     context.CancelFunc
	calls   context.Context // ends when calls are cut off; AFTER ctx
	cut     context.CancelFunc
	resumed chan struct{} // of 1: a person says that it is to go on
	topic   *tail
	replays *tail
	awaited map[string]bool // topics that were not there
	tries   int             // in vain, since anything could be delivered
}

func newLife(s *Service, of Subscription, b *book) *life {
	l := &life{s: s, of: of, book: b, resumed: make(chan struct{}, 1), awaited: map[string]bool{}}
	l.ctx, l.end = context.WithCancel(context.Background())
	l.calls, l.cut = context.WithCancel(context.Background())
	return l
}

// stop ends it; calls under way are cut off after a while.
func (l *life) stop(patience time.Duration) {
	l.end()
	if patience > 0 {
		time.AfterFunc(patience, l.cut)
	} else {
		l.cut()
	}
}

// live returns when it is stopped.
func (l *life) live() {
	defer l.cut()
	l.topic, l.replays = l.s.tails.follow(l.of.Topic), l.s.tails.follow(consumers.ReplayTopic(l.of.Topic))
	defer l.s.tails.release(l.topic)
	defer l.s.tails.release(l.replays)
	for l.ctx.Err() == nil {
		if err := l.compile(); err != nil {
			l.pause("its filter cannot be read: " + err.Error()) // the door lets none in that cannot: a newer version has
			continue
		}
		if !l.awaitTopic() || l.next(l.begin()) {
			continue
		}
		l.tries++
		_ = sleep(l.ctx, pause(l.tries, l.of.Interval, l.of.MaxInterval), nil)
	}
}

func (l *life) compile() (err error) {
	if l.of.Filter != "" && l.filter == nil {
		l.filter, err = l.s.opts.Compile(l.of.Filter)
	}
	return err
}

// begin fixes where it begins, asks the sink, and delivers until something ends that; the error says what.
func (l *life) begin() error {
	r := l.newReader()
	if err := r.begin(); err != nil {
		return err
	}
	l.book.reads(r)
	consent, ok := l.consent()
	if !ok {
		return &lostError{consent.Why}
	}
	l.tries = 0
	return l.deliver(r, consent)
}

// consent asks the sink. It is not ok when it does not consent.
func (l *life) consent() (c Consent, ok bool) {
	select {
	case l.s.asking <- struct{}{}:
		defer func() { <-l.s.asking }()
	case <-l.ctx.Done():
		return c, false
	}
	c = ask(l.ctx, l.s.opts.Caller, l.s.opts.Origin, &l.of)
	if l.ctx.Err() != nil {
		return c, false
	}
	l.book.consent(c)
	return c, c.Granted
}

// awaitTopic waits until the topic is there. It is false when the life has ended.
func (l *life) awaitTopic() bool {
	for l.ctx.Err() == nil {
		_, changed := l.topic.seen()
		_, err := l.s.opts.Log.Topic(l.ctx, l.of.Topic)
		if !errors.Is(err, log.ErrUnknownTopic) {
			return l.ctx.Err() == nil
		}
		l.awaited[l.of.Topic] = true
		l.book.moved(StateWaiting, fmt.Sprintf("there is no topic %s; it begins when there is", l.of.Topic))
		_ = sleep(l.ctx, forever, changed)
	}
	return false
}

// next says what follows from how delivering has ended: going on at once, or after a while.
func (l *life) next(err error) (atOnce bool) {
	var gone *goneError
	var lost *lostError
	switch {
	case l.ctx.Err() != nil:
		return true
	case errors.As(err, &gone):
		l.pause(gone.Error() + "; change its sink, or resume it")
		return true
	case errors.As(err, &lost):
		l.book.moved(StateAsking, lost.why)
	case errors.Is(err, errNoTopic):
		return true
	case errors.Is(err, errTopicGone):
		l.awaited[l.of.Topic], l.awaited[l.replays.topic] = true, true // what comes is new from its first record on
		return true
	default:
		l.book.moved(StateAsking, err.Error())
		l.s.opts.Logger.Warn("push: delivering ended, and begins again", "subscription", l.of.Name, "error", err)
	}
	l.book.trouble(err)
	return false
}

// pause waits for a person.
func (l *life) pause(why string) {
	select {
	case <-l.resumed: // it was not paused then
	default:
	}
	l.book.moved(StatePaused, why)
	l.s.opts.Logger.Warn("push: a subscription is paused", "subscription", l.of.Name, "why", why)
	select {
	case <-l.resumed:
	case <-l.ctx.Done():
	}
}

// newReader makes the reader of one run.
func (l *life) newReader() *reader {
	share := l.s.share()
	r := &reader{log: l.s.opts.Log, offsets: l.s.opts.Offsets, of: l.of, group: Group(l.of.Name), topic: l.topic, replays: l.replays, awaited: l.awaited,
		share: share, bytes: int(min(share/8, readMax)), missed: l.missed}
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	l.s.readers[l] = r
	return r
}

// missed tells of records that retention took before they were delivered: for good, on the parked topic.
func (l *life) missed(ctx context.Context, p log.Partition, from, to log.Offset) error {
	if err := appendBeside(ctx, l.s.opts.Log, l.of.Topic, gapRecord(&l.of, p, from, to)); err != nil {
		return err
	}
	n := int64(to - from)
	l.book.update(func(s *Status) { s.Missed += n })
	l.s.opts.Listener.Missed(l.of.Name, n)
	l.s.opts.Logger.Warn("push: records were gone before they were delivered", "subscription", l.of.Name, "topic", p.Topic, "partition", p.Index, "from", from, "to", to)
	return nil
}

// pause doubles from least to most with the tries, and up to half of it is chance: subscriptions that began to fail together do not go on together.
func pause(tries int, least, most time.Duration) time.Duration {
	d := least
	for range tries - 1 {
		if d *= 2; d >= most {
			d = most
			break
		}
	}
	return d - time.Duration(rand.Int64N(int64(d/2)+1))
}
