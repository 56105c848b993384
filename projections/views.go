// Package projections keeps the views: copies of what the log says, each in a store of its own, that answer what
// the core does not. They follow the log, append nothing, and can be thrown away and made again.
//
//	             ┌▶ transactions     payments, refunds, messages, activities, accounts, entries, stories
//	remit.events ┼▶ consumerrecords  what a consumer paid and received
//	             └▶ merchantquery    what a merchant was paid, one by one and per day
//
// # Guarantees
//
// V1: a view equals a fresh replay, byte for byte in its digest; [Views.Verify] shows it on live stores. V3: every view says how
// far it has come, and waits for a position.
//
// What is not promised: that views are at the same position, or that one is at the same position in two partitions.
//
// # Usage
//
//	v, err := projections.Follow(ctx, projections.Options{Log: l, Dir: dir, Partitions: 16, Fatal: stop})
//	…
//	err = v.Wait(ctx, position)
//	payments, next, err := v.Transactions.Payments(transactions.PaymentFilter{Payer: "alice"}, lists.Page{Size: 50})
//
// # Files
//
//	views.go          Follow, Views: positions, lag
//	verify.go         a view against its replay
//	facts/            what is folded, as a consumer of the log declares it
//	lists/            pages over partitions
package projections

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/fold"
	"github.com/remitlog/remit/projections/consumerrecords"
	"github.com/remitlog/remit/projections/facts"
	"github.com/remitlog/remit/projections/merchantquery"
	"github.com/remitlog/remit/projections/transactions"
)

// LingerDefault is how long a follower that has read everything lets more gather. It is most of how far behind a view is; what comes
// together is folded for a fifth less.
const LingerDefault = 50 * time.Millisecond

// Options say what is followed, and where the stores are.
type Options struct {
	Log        log.Log
	Dir        string // the stores are under <Dir>/views
	Partitions int    // of the core topic
	// FS is where Dir is; the operating system's by default.
	FS    vfs.FS
	Cache *pebble.Cache
	// MemTableBytes and FlushEvery bound what a restart reads again; zero means fold's defaults.
	MemTableBytes uint64
	FlushEvery    time.Duration
	Linger        time.Duration
	Logger        *slog.Logger
	// Fatal is told why a view can go on no longer. It is needed.
	Fatal func(error)
}

// EnsureDefaults fills in what was left out.
func (o *Options) EnsureDefaults() {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Linger == 0 {
		o.Linger = LingerDefault
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// Validate says what is missing.
func (o *Options) Validate() error {
	if o.Log == nil || o.Dir == "" || o.Partitions < 1 || o.Fatal == nil {
		return errors.New("projections: Options need Log, Dir, Partitions and Fatal")
	}
	return nil
}

func (o *Options) String() string {
	return fmt.Sprintf("dir=%s partitions=%d linger=%s memtable=%d flush=%s", o.Dir, o.Partitions, o.Linger, o.MemTableBytes, o.FlushEvery)
}

// Facts returns what the views fold.
func Facts() fold.Facts { return facts.All() }

// kind is what there is to know of a view before it is opened.
type kind struct {
	name, version string
	view          func(o *Options, s *fold.Store) fold.View
}

// kinds lists the views. What a version names never changes: new rules are a new version, and the store is made again.
var kinds = []kind{
	{transactions.Name, transactions.Version, func(o *Options, s *fold.Store) fold.View { return transactions.New(s, o.Log, o.Partitions) }},
	{consumerrecords.Name, consumerrecords.Version, func(o *Options, s *fold.Store) fold.View { return consumerrecords.New(s, o.Partitions) }},
	{merchantquery.Name, merchantquery.Version, func(o *Options, s *fold.Store) fold.View { return merchantquery.New(s, o.Partitions) }},
}

// Views are the three views, following the log.
type Views struct {
	Transactions    *transactions.View
	ConsumerRecords *consumerrecords.View
	MerchantQuery   *merchantquery.View

	opts     Options
	follower *fold.Follower
	views    []fold.Followed
}

// Follow opens the stores and begins to follow the log, each view from where its store is. It does not wait until they have caught
// up: see Wait. It does not close the log.
func Follow(ctx context.Context, o Options) (_ *Views, err error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	v := &Views{opts: o}
	defer func() {
		if err != nil {
			_ = v.Close()
		}
	}()
	for _, k := range kinds {
		s, err := o.open(k, filepath.Join(o.Dir, "views", k.name))
		if err != nil {
			return nil, err
		}
		v.views = append(v.views, fold.Followed{View: k.view(&v.opts, s), Store: s})
	}
	v.Transactions = v.views[0].View.(*transactions.View)
	v.ConsumerRecords = v.views[1].View.(*consumerrecords.View)
	v.MerchantQuery = v.views[2].View.(*merchantquery.View)
	v.follower, err = fold.Follow(ctx, fold.FollowOptions{
		Log: o.Log, Topic: log.EventsTopic, Facts: Facts(), Views: v.views, Linger: o.Linger, Fatal: o.Fatal,
	})
	return v, err
}

func (o *Options) open(k kind, dir string) (*fold.Store, error) {
	s, err := fold.OpenStore(fold.StoreOptions{
		Dir: dir, Version: k.version, Partitions: o.Partitions, FS: o.FS, Cache: o.Cache, MemTableBytes: o.MemTableBytes,
		FlushEvery: o.FlushEvery, Fatal: o.Fatal, Logger: o.Logger,
		Doubt: func(dir string, why error) { o.Logger.Warn("view is made again from the log", "dir", dir, "why", why) },
	})
	if err != nil {
		return nil, fmt.Errorf("projections: view %s: %w", k.name, err)
	}
	return s, nil
}

// Close stops following, and closes the stores.
func (v *Views) Close() error {
	if v.follower != nil {
		v.follower.Close()
	}
	var errs []error
	for _, f := range v.views {
		errs = append(errs, f.Store.Close())
	}
	return errors.Join(errs...)
}

// Names lists the views.
func (v *Views) Names() []string {
	names := make([]string, len(v.views))
	for i, f := range v.views {
		names[i] = f.View.Name()
	}
	return names
}

// Position returns how far all views have come: what is in it, every one of them has.
func (v *Views) Position() log.Position {
	all := v.views[0].Store.Position()
	for _, f := range v.views[1:] {
		for p, at := range f.Store.Position() {
			all[p] = min(all[p], at)
		}
	}
	return all
}

// PositionOf returns how far one view has come; nil if there is none of that name.
func (v *Views) PositionOf(name string) log.Position {
	if f, ok := v.named(name); ok {
		return f.Store.Position()
	}
	return nil
}

func (v *Views) named(name string) (fold.Followed, bool) {
	for _, f := range v.views {
		if f.View.Name() == name {
			return f, true
		}
	}
	return fold.Followed{}, false
}

// Wait returns when every view has everything up to a position, or with ctx's error.
func (v *Views) Wait(ctx context.Context, to log.Position) error {
	for _, f := range v.views {
		if err := f.Store.Wait(ctx, to); err != nil {
			return err
		}
	}
	return nil
}

// Status is how a view stands.
type Status struct {
	Name string
	// Generation names the build that serves: the version of its rules.
	Generation string
	Position   log.Position
	// Durable is what a power cut would leave of it; the rest is read from the log again.
	Durable log.Position
	// Lag is how many records of the log it does not have, over all partitions, and LagTime how long ago the oldest of them was
	// recorded.
	Lag     int64
	LagTime time.Duration
}

// Status says how every view stands at now.
func (v *Views) Status(ctx context.Context, now time.Time) ([]Status, error) {
	all := make([]Status, len(v.views))
	for i, f := range v.views {
		s := Status{Name: f.View.Name(), Generation: kinds[i].version, Position: f.Store.Position(), Durable: log.Position{}}
		for p := range int32(v.opts.Partitions) {
			durable, err := f.Store.Durable(p)
			if err != nil {
				return nil, fmt.Errorf("projections: view %s: %w", s.Name, err)
			}
			s.Durable[p] = durable
			records, behind, err := v.lag(ctx, p, s.Position[p], now)
			if err != nil {
				return nil, err
			}
			s.Lag, s.LagTime = s.Lag+records, max(s.LagTime, behind)
		}
		all[i] = s
	}
	return all, nil
}

// lag says how far at is behind the end of a partition.
func (v *Views) lag(ctx context.Context, p int32, at log.Offset, now time.Time) (records int64, behind time.Duration, err error) {
	part := log.Partition{Topic: log.EventsTopic, Index: p}
	_, end, err := v.opts.Log.Bounds(ctx, part)
	if err != nil || at >= end {
		return 0, 0, err
	}
	next, err := v.opts.Log.Read(ctx, part, at, 1)
	if err != nil {
		return 0, 0, err
	}
	return int64(end - at), max(now.Sub(next[0].Time), 0), nil
}
