package push

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Service delivers all subscriptions.
type Service struct {
	opts   Options
	tails  *tails
	asking chan struct{} // a place for each sink that is being asked
	ctx    context.Context
	stop   context.CancelFunc
	tasks  sync.WaitGroup

	// mu guards what follows, and is held alone.
	mu      sync.Mutex
	closed  bool
	lives   map[string]*life // by name
	books   map[string]*book
	readers map[*life]*reader        // the last of each
	over    map[string]chan struct{} // by name: closed when the last life that was made has ended, and what it leaves is dropped
}

// New delivers what the registry has from now on. Close ends it.
func New(o Options) (*Service, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	s := &Service{
		opts: o, tails: newTails(o.Log, o.LookEvery), asking: make(chan struct{}, o.AskingMax),
		lives: map[string]*life{}, books: map[string]*book{}, readers: map[*life]*reader{}, over: map[string]chan struct{}{},
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	changed := o.Registry.Changed()
	list := o.Registry.Subscriptions()
	s.forgetOthers(list)
	s.follow(list)
	s.tasks.Go(func() { s.loop(changed) })
	return s, nil
}

// loop follows the registry.
func (s *Service) loop(changed <-chan struct{}) {
	for {
		select {
		case <-changed:
		case <-s.ctx.Done():
			return
		}
		changed = s.opts.Registry.Changed()
		s.follow(s.opts.Registry.Subscriptions())
	}
}

// forgetOthers drops what subscriptions have left that were removed while remit had no time for it.
func (s *Service) forgetOthers(list []Subscription) {
	known := map[string]bool{}
	for _, of := range list {
		known[Group(of.Name)] = true
	}
	for _, group := range s.opts.Offsets.Groups(s.ctx, groupPrefix) {
		if !known[group] {
			s.forget(group)
		}
	}
}

func (s *Service) forget(group string) {
	ctx, cancel := context.WithTimeout(s.ctx, offsetsWait)
	defer cancel()
	if err := s.opts.Offsets.ForgetGroup(ctx, group); err != nil {
		s.opts.Logger.Warn("push: what a removed subscription has read is still noted; it is dropped at the next start", "group", group, "error", err)
	}
}

// follow makes the lives as the list has them.
func (s *Service) follow(list []Subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	there := map[string]bool{}
	for _, of := range list {
		there[of.Name] = true
		was := s.lives[of.Name]
		if was != nil && was.of == of {
			continue
		}
		s.replace(was, of)
	}
	for name, l := range s.lives {
		if !there[name] {
			s.remove(l)
		}
	}
}

// replace begins a life, and ends the one before.
func (s *Service) replace(was *life, of Subscription) {
	b := s.books[of.Name]
	if b == nil || !was.of.Registered.Equal(of.Registered) {
		b = newBook()
		s.books[of.Name] = b
	}
	l := newLife(s, of, b)
	s.lives[of.Name] = l
	if was != nil {
		l.awaited = was.awaited // it is not used any more when this one begins
		was.stop(s.opts.ChangeMax)
	}
	s.after(of.Name, func() {
		l.live()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.readers, l)
	})
}

// after does something for a name, after all that was to be done for it before. The caller holds mu.
func (s *Service) after(name string, do func()) {
	before, over := s.over[name], make(chan struct{})
	s.over[name] = over
	s.tasks.Go(func() {
		if before != nil {
			<-before
		}
		do()
		close(over)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.over[name] == over {
			delete(s.over, name)
		}
	})
}

// remove ends a life for good.
func (s *Service) remove(l *life) {
	name := l.of.Name
	delete(s.lives, name)
	delete(s.books, name)
	l.stop(0)
	s.after(name, func() {
		s.forget(Group(name))
		s.opts.Listener.Removed(name)
	})
}

// share is how many bytes of records a run may hold that begins now.
func (s *Service) share() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(s.opts.HeldBytesMax/int64(max(len(s.lives), 1)), s.opts.HeldBytesMin)
}

// TopicDeleted ends what reads a topic that is gone. It is called BEFORE a topic of its name can be made again, and returns when nothing more is committed of
// it.
func (s *Service) TopicDeleted(topic string) {
	s.mu.Lock()
	var of []*reader
	for _, r := range s.readers {
		if r.topic.topic == topic || r.replays.topic == topic {
			of = append(of, r)
		}
	}
	s.mu.Unlock()
	for _, r := range of {
		r.topicDeleted()
	}
}

// Status returns how a subscription stands; not ok when it is not there.
func (s *Service) Status(name string) (st Status, ok bool) {
	s.mu.Lock()
	b := s.books[name]
	s.mu.Unlock()
	if b == nil {
		return st, false
	}
	return b.now(), true
}

// Statuses returns how all stand, by name.
func (s *Service) Statuses() map[string]Status {
	s.mu.Lock()
	books := make(map[string]*book, len(s.books))
	for name, b := range s.books {
		books[name] = b
	}
	s.mu.Unlock()
	all := make(map[string]Status, len(books))
	for name, b := range books {
		all[name] = b.now()
	}
	return all
}

// Resume lets a subscription go on, if it is paused. It reports whether there is one of that name.
func (s *Service) Resume(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lives[name]
	if l == nil {
		return false
	}
	if l.book.now().State != StatePaused {
		return true
	}
	select {
	case l.resumed <- struct{}{}:
	default:
	}
	return true
}

// Close finishes what is under way, for DrainMax at most, notes what was taken, and ends. When ctx ends before, calls are cut off; what was
// taken is noted all the same, and the error is ctx's.
func (s *Service) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	lives := make([]*life, 0, len(s.lives))
	for _, l := range s.lives {
		lives = append(lives, l)
	}
	s.mu.Unlock()
	s.stop()
	for _, l := range lives {
		l.stop(s.opts.DrainMax + time.Second)
	}
	ended := make(chan struct{})
	go func() {
		s.tasks.Wait()
		s.tails.wait()
		close(ended)
	}()
	var err error
	select {
	case <-ended:
	case <-ctx.Done():
		err = fmt.Errorf("push: calls were cut off: %w", ctx.Err())
		for _, l := range lives {
			l.cut()
		}
		<-ended
	}
	return err
}
