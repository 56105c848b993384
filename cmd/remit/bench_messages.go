package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/remitlog/remit/cmd/remit/bench"
	"github.com/remitlog/remit/log"
)

type benchMessages struct {
	benchFlags
	with                 string
	batch                bool
	inFlight, keys, size int
	checkAfter           time.Duration
	undecided, due       int
	profile              string
}

func newBenchMessages(a *app) *cobra.Command {
	var f benchMessages
	c := &cobra.Command{
		Use:   "messages",
		Short: "Measure transactional messages over HTTP, by a server of its own",
		Long: "Measure transactional messages over HTTP, against a server of its own in a process of its own, with its data in a scratch directory.\n" +
			"Each message is prepared by one call and committed by another, or by two lines of NDJSON; it is on its topic when its commit is\n" +
			"answered. The bare Pebble beside it puts the same bytes down with as many syncs a message. The callers run on the same cores: what\n" +
			"they cost is in the figures.",
		Args: cobra.NoArgs,
	}
	f.register(c.Flags(), 256)
	c.Flags().Var(newChoice(&f.with, "ids", "names"), "with", "ids or names: whether the client makes messages' ids, or they are known by source and id, which are claimed")
	c.Flags().BoolVar(&f.batch, "batch", false, "send messages and commits as lines of NDJSON")
	c.Flags().IntVar(&f.inFlight, "in-flight", 256, "with --batch, messages of each batch that are not committed")
	c.Flags().IntVar(&f.keys, "keys", 1000, "routing keys")
	c.Flags().IntVar(&f.size, "size", 200, "bytes of an event's data")
	c.Flags().DurationVar(&f.checkAfter, "check-after", 10*time.Second, "after how long the producer is asked about a message that nobody has decided")
	c.Flags().IntVar(&f.undecided, "undecided", 0, "measure beside so many half messages that nobody decides, on a second server, in turn with one that has none")
	c.Flags().IntVar(&f.due, "due", 500, "with --undecided, how many of them fall due in a second")
	c.Flags().StringVar(&f.profile, "cpuprofile", "", "write a CPU profile of the server under load to this file")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if f.batch && !c.Flags().Changed("callers") {
			f.callers = 4
		}
		return a.benchMessages(c.Context(), &f)
	}
	return c
}

func (f *benchMessages) validate() error {
	if f.undecided < 0 || f.due < 1 {
		return usageErrorf("--undecided is not below 0, and --due at least 1")
	}
	if f.inFlight < 1 || f.keys < 1 || f.size < 1 || f.size > log.EventDataMax || f.checkAfter < time.Millisecond {
		return usageErrorf("--in-flight and --keys are at least 1, --size is 1 to %d, --check-after at least 1ms", log.EventDataMax)
	}
	return nil
}

func (a *app) benchMessages(ctx context.Context, f *benchMessages) (err error) {
	if err := f.validate(); err != nil {
		return err
	}
	end, err := f.begin(a)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	profile := f.profile
	if f.undecided > 0 {
		profile = "" // it is the other server's
	}
	server, err := startBenched(ctx, f.scratch, profile)
	if err != nil {
		return err
	}
	defer func() {
		if stopped := server.Stop(); err == nil {
			err = stopped
		}
	}()
	o := bench.MessageOptions{
		Dir: f.scratch, Server: server.Server, Callers: f.callers, InFlight: f.inFlight, Rate: f.rate, Names: f.with == "names", Batch: f.batch,
		Keys: f.keys, Bytes: f.size, CheckAfter: f.checkAfter, Duration: f.duration, Rounds: f.rounds, Say: a.say,
		Begin: server.tell(profileOn), End: server.tell(profileOff),
	}
	if f.undecided > 0 {
		return a.benchUndecided(ctx, o, f)
	}
	r, err := bench.Messages(ctx, o)
	if err != nil {
		return err
	}
	return a.printBenchMessages(r)
}

func (a *app) benchUndecided(ctx context.Context, o bench.MessageOptions, f *benchMessages) (err error) {
	other, err := startBenched(ctx, filepath.Join(f.scratch, "undecided"), f.profile)
	if err != nil {
		return err
	}
	o.Begin, o.End = other.tell(profileOn), other.tell(profileOff)
	defer func() {
		if stopped := other.Stop(); err == nil {
			err = stopped
		}
	}()
	r, err := bench.Undecided(ctx, o, other.Server, f.undecided, f.due)
	if err != nil {
		return err
	}
	if a.format != "table" {
		return a.printJSON(r)
	}
	fmt.Fprintf(a.stdout, "messages with %s from %d callers, beside %d half messages of which %d fall due in a second\n\n", f.with, r.Callers, r.Undecided, r.Due)
	if err := printFigures(a, r.With, r.Without); err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "\nwith them %.0f %% of without, the median of the rounds; the producer was asked %d times, %.0f µs of processor time each; %d MiB resident\n",
		100*r.Ratio, r.Checks, r.CheckMicros, r.ResidentBytes>>20)
	return err
}

func (a *app) printBenchMessages(r bench.MessageReport) error {
	if a.format != "table" {
		return a.printJSON(r)
	}
	how := fmt.Sprintf("two calls each from %d callers", r.Callers)
	if r.How == "batch" {
		how = fmt.Sprintf("%d batches with %d open messages each", r.Callers, r.InFlight)
	}
	var steps []string
	for _, n := range r.Steps {
		steps = append(steps, fmt.Sprint(n))
	}
	fmt.Fprintf(a.stdout, "messages with %s, %d bytes of data, %s, %s, fsync; one puts %s bytes on the log\n\n",
		r.With, r.DataSize, how, loadName(r.Rate), strings.Join(steps, " + "))
	if err := printFigures(a, r.Messages, r.Ceiling); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "\nmessages do %.0f %% of the ceiling; %d back-checks fell due\n", 100*r.Ratio, r.Checks)
	_, err := fmt.Fprintf(a.stdout, "views: at most %d records and %.2f s behind, and caught up %.2f s after the load\nserver: %.0f µs of processor time a message, %d MiB resident at most\n",
		r.Lag.MaxRecords, r.Lag.MaxSeconds, r.Lag.CaughtUpSeconds, r.CPUMicros, r.PeakBytes>>20)
	return err
}
