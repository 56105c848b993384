// Package core puts remit together on a log: the machines, their doors, and the views that follow.
//
//	        doors (api)
//	          │ commands                         queries
//	          ▼                                     ▲
//	names · broker · saga · accounts · payments     │
//	          │ fold.Node, one goroutine a partition │
//	          ▼                                     │
//	   log ── remit.events ──▶ fold.Follower ──▶ transactions · consumerrecords · merchantquery
//	    └──── users' topics, payments
package core

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/remitlog/remit/broker"
	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/log/names"
	"github.com/remitlog/remit/log/registry"
	"github.com/remitlog/remit/saga"
	"github.com/remitlog/remit/saga/accounts"
	"github.com/remitlog/remit/saga/payments"
)

// FoldVersion names the rules of the core's folds. A release that changes what a row looks like raises it: the stores are then made
// again from the log.
const FoldVersion = "core/5"

// Options of a Core.
type Options struct {
	Log        log.Log
	Dir        string // of the stores
	Partitions int
	// FS is where Dir is; the operating system's by default.
	FS     vfs.FS
	Cache  *pebble.Cache
	Logger *slog.Logger
	// MemTableBytes and FlushEvery bound what a restart reads again; zero means fold's defaults.
	MemTableBytes uint64
	FlushEvery    time.Duration
	// Now is the wall clock.
	Now                func() time.Time
	ClockBehindAllowed bool
	// Fatal is told why nothing can be decided any more. The default stops the process.
	Fatal    func(error)
	Listener fold.Listener
	// Asker makes who asks producers; nil asks nobody.
	Asker func(*registry.Registry) broker.Asker
}

// Core is remit on a log, without its face.
type Core struct {
	Created  registry.Created
	Log      log.Log
	Node     *fold.Node
	Registry *registry.Registry
	Payments *payments.Service

	Broker *broker.Broker
	Saga   *saga.Saga

	stores []*fold.Store
}

// Facts lists every fact of the core topic.
func Facts() []fold.FactType {
	var all []fold.FactType
	for _, f := range [][]fold.FactType{names.Facts(), broker.Facts(), saga.Facts(), accounts.Facts()} {
		all = append(all, f...)
	}
	return all
}

// Open makes or checks the core's topics, restores its state, and begins to decide. It does not close the log.
func Open(ctx context.Context, o Options) (_ *Core, err error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Core{Log: o.Log}
	defer func() {
		if err != nil {
			_ = c.Close()
		}
	}()
	if c.Created, err = registry.Create(ctx, o.Log, o.Partitions, o.Now()); err != nil {
		return nil, err
	}
	if err = c.openRegistry(ctx, o); err != nil {
		return nil, err
	}
	return c, c.openNode(ctx, o)
}

func (c *Core) store(o Options, name string, partitions int, memTable uint64) (*fold.Store, error) {
	s, err := fold.OpenStore(fold.StoreOptions{
		Dir: filepath.Join(o.Dir, name), Version: FoldVersion, Partitions: partitions, FS: o.FS, Cache: o.Cache,
		MemTableBytes: memTable, FlushEvery: o.FlushEvery, Fatal: o.Fatal, Logger: o.Logger,
		Doubt: func(dir string, why error) {
			o.Logger.Warn("store is made again from the log", "dir", dir, "why", why)
		},
	})
	if err != nil {
		return nil, fmt.Errorf("core: %w", err)
	}
	c.stores = append(c.stores, s)
	return s, nil
}

func (c *Core) openRegistry(ctx context.Context, o Options) error {
	s, err := c.store(o, "registry", 1, 1<<20)
	if err != nil {
		return err
	}
	c.Registry, err = registry.Open(ctx, fold.Options{
		Log: o.Log, Store: s, Now: o.Now, ClockBehindAllowed: o.ClockBehindAllowed, Fatal: o.Fatal,
	})
	return err
}

func (c *Core) openNode(ctx context.Context, o Options) error {
	s, err := c.store(o, "state", c.Created.Partitions, o.MemTableBytes)
	if err != nil {
		return err
	}
	var asker broker.Asker
	if o.Asker != nil {
		asker = o.Asker(c.Registry)
	}
	c.Broker = broker.New(broker.Options{Topics: c.topics, Asker: asker})
	c.Payments = payments.NewService(o.Log)
	c.Saga = saga.New(saga.Options{
		Partitions: c.Created.Partitions, Topics: c.topics, Initiators: payments.Initiators(), Answered: c.Payments.Answered,
	})
	c.Node, err = fold.Open(ctx, fold.Options{
		Log: o.Log, Topic: log.EventsTopic, Owner: fold.All(c.Created.Partitions), Store: s,
		Facts: fold.NewFacts(true, Facts()...),
		Machines: map[byte]fold.Machine{
			'n': names.Machine{}, 'a': accounts.Machine{}, broker.MachineByte: c.Broker, saga.MachineByte: c.Saga, 'p': payments.Machine{},
		},
		// The saga's rows rest on what accounts have folded, and the payments' on the saga's.
		Order:  []byte{'n', 'a', broker.MachineByte, saga.MachineByte, 'p'},
		Placed: broker.Placed, Now: o.Now, ClockBehindAllowed: o.ClockBehindAllowed, Fatal: o.Fatal, Listener: o.Listener,
		Ready: func(n *fold.Node) { c.Payments.Serve(n, c.Saga) },
	})
	return err
}

// topics is broker.Topics.
func (c *Core) topics(name string) (int, bool) {
	t, err := c.Log.Topic(context.Background(), name)
	return t.Partitions, err == nil
}

// Store returns the core's own store, for its digests.
func (c *Core) Store() *fold.Store { return c.stores[len(c.stores)-1] }

// RegistryStore returns the registry's.
func (c *Core) RegistryStore() *fold.Store { return c.stores[0] }

// Err returns why nothing can be decided any more, or nil.
func (c *Core) Err() error { return errors.Join(c.Registry.Err(), c.Node.Err()) }

// Close ends the turns that have begun, and closes the stores; the log is the caller's.
func (c *Core) Close() error {
	var errs []error
	if c.Node != nil {
		errs = append(errs, c.Node.Close())
	}
	if c.Registry != nil {
		errs = append(errs, c.Registry.Close())
	}
	for _, s := range c.stores {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}
