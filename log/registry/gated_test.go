package registry_test

import (
	"context"
	"sync"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/logtest"
)

var ownPartition = log.Partition{Topic: log.RegistryTopic}

// gated is a log in memory whose appends wait while its gate is held, and may then be refused.
type gated struct {
	*logtest.Mem
	mu   sync.Mutex
	gate chan struct{} // of the last hold; nil: there was none
	err  error
}

func newGated() *gated { return &gated{Mem: logtest.NewMem()} }

// hold lets nothing through until it is released; from then on appends are refused with its error.
func (l *gated) hold() (release func(error)) {
	gate := make(chan struct{})
	l.set(gate, nil)
	return func(err error) { l.set(gate, err); close(gate) }
}

func (l *gated) set(gate chan struct{}, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gate, l.err = gate, err
}

func (l *gated) is() (gate chan struct{}, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.gate, l.err
}

func (l *gated) Append(ctx context.Context, records ...log.Record) ([]log.Offset, error) {
	if gate, _ := l.is(); gate != nil {
		<-gate
	}
	if _, err := l.is(); err != nil {
		return nil, err
	}
	return l.Mem.Append(ctx, records...)
}

// end is the end of the registry.
func (l *gated) end() log.Offset {
	_, end, err := l.Bounds(context.Background(), ownPartition)
	if err != nil {
		panic(err)
	}
	return end
}
