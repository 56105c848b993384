package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/remitlog/remit/cmd/remit/bench"
	"github.com/remitlog/remit/cmd/remit/torture"
	"github.com/remitlog/remit/log"
)

func newBench(a *app) *cobra.Command {
	c := group("bench", "Measure this machine, beside what its disk does bare", newBenchAppend(a), newBenchPayments(a), newBenchMessages(a), newBenchKafka(a), newBenchServe(a))
	c.Long = "Measure remit on this machine. Beside each figure stands its ceiling, measured in the same run: a bare Pebble that commits the same\n" +
		"bytes, with a sync, from as many callers. The two take turns; medians over the rounds are compared.\n\n" +
		"With --rate the load is open: calls are due at that rate however long those before take, and are timed from when they were due."
	return c
}

// benchFlags are those of every measurement.
type benchFlags struct {
	dir             string
	keep            bool
	duration        time.Duration
	callers, rounds int
	rate            float64
	scratch         string // the directory of this run
}

func (f *benchFlags) register(flags *pflag.FlagSet, callers int) {
	flags.StringVar(&f.dir, "dir", os.TempDir(), "where the scratch directory is made: the disk that is measured")
	flags.BoolVar(&f.keep, "keep", false, "keep the scratch directory")
	flags.DurationVar(&f.duration, "duration", 10*time.Second, "how long each side is measured, over all rounds")
	flags.IntVar(&f.rounds, "rounds", 5, "turns that the two sides take")
	flags.IntVar(&f.callers, "callers", callers, "callers at once; with --batch, batches at once")
	flags.Float64Var(&f.rate, "rate", 0, "calls a second; 0 is closed load: each caller calls again when it is answered")
}

// begin checks the flags and makes the scratch directory; end removes it.
func (f *benchFlags) begin(a *app) (end func() error, err error) {
	switch {
	case f.duration <= 0 || f.rounds < 1 || f.callers < 1 || f.rate < 0:
		return nil, usageErrorf("--duration, --rounds and --callers are above zero, --rate is not below it")
	case f.duration/time.Duration(f.rounds) < 10*time.Millisecond:
		return nil, usageErrorf("--duration %s in %d rounds measures nothing; give at least 10ms a round", f.duration, f.rounds)
	}
	if f.scratch, err = os.MkdirTemp(f.dir, "remit-bench-"); err != nil {
		return nil, usageErrorf("--dir: %w", err)
	}
	if f.keep {
		a.say("remit: in %s", f.scratch)
		return func() error { return nil }, nil
	}
	return func() error { return os.RemoveAll(f.scratch) }, nil
}

func newBenchAppend(a *app) *cobra.Command {
	var f benchFlags
	var size, partitions int
	c := &cobra.Command{
		Use:   "append",
		Short: "Measure appends to the embedded log",
		Args:  cobra.NoArgs,
	}
	f.register(c.Flags(), 256)
	c.Flags().IntVar(&size, "size", 300, "bytes of a record")
	c.Flags().IntVar(&partitions, "partitions", log.PartitionsDefault, "partitions that records go to, in turn")
	c.RunE = func(c *cobra.Command, _ []string) (err error) {
		if size < 1 || size > log.RecordMax || partitions < 1 || partitions > log.PartitionsMax {
			return usageErrorf("--size is 1 to %d, --partitions 1 to %d", log.RecordMax, log.PartitionsMax)
		}
		end, err := f.begin(a)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, end()) }()
		r, err := bench.Append(c.Context(), bench.AppendOptions{
			Dir: f.scratch, Callers: f.callers, Bytes: size, Partitions: partitions, Rate: f.rate, Duration: f.duration, Rounds: f.rounds, Say: a.say,
		})
		if err != nil {
			return err
		}
		if a.format != "table" {
			return a.printJSON(r)
		}
		fmt.Fprintf(a.stdout, "records of %d bytes, %d callers, %s, fsync\n\n", r.Bytes, r.Callers, loadName(r.Rate))
		if err := printFigures(a, r.Log, r.Ceiling); err != nil {
			return err
		}
		_, err = fmt.Fprintf(a.stdout, "\nthe log does %.0f %% of the ceiling\n", 100*r.Ratio)
		return err
	}
	return c
}

func loadName(rate float64) string {
	if rate == 0 {
		return "closed load"
	}
	return fmt.Sprintf("open load of %.0f/s", rate)
}

func printFigures(a *app, figures ...bench.Figure) error {
	ms := func(of func(bench.Latency) float64) func(bench.Figure) string {
		return func(f bench.Figure) string { return strconv.FormatFloat(of(f.Latency), 'f', 2, 64) }
	}
	return printList(a, figures,
		column[bench.Figure]{"", func(f bench.Figure) string { return f.Name }},
		column[bench.Figure]{"per second", func(f bench.Figure) string { return strconv.FormatFloat(f.PerSecond, 'f', 0, 64) }},
		column[bench.Figure]{"p50 ms", ms(func(l bench.Latency) float64 { return l.P50 })},
		column[bench.Figure]{"p90", ms(func(l bench.Latency) float64 { return l.P90 })},
		column[bench.Figure]{"p99", ms(func(l bench.Latency) float64 { return l.P99 })},
		column[bench.Figure]{"p99.9", ms(func(l bench.Latency) float64 { return l.P999 })},
		column[bench.Figure]{"max", ms(func(l bench.Latency) float64 { return l.Max })},
	)
}

type benchPayments struct {
	benchFlags
	with, payees       string
	batch              bool
	inFlight, accounts int
	profile            string
}

func newBenchPayments(a *app) *cobra.Command {
	var f benchPayments
	c := &cobra.Command{
		Use:   "payments",
		Short: "Measure payments over HTTP, by a server of its own",
		Long: "Measure payments over HTTP, against a server of its own in a process of its own, with its data in a scratch directory. The callers\n" +
			"run on the same cores: what they cost is in the figures.",
		Args: cobra.NoArgs,
	}
	f.register(c.Flags(), 64)
	c.Flags().Var(newChoice(&f.with, "ids", "names"), "with", "ids or names: whether payments bring remit's ids, or names of the caller's own")
	c.Flags().Var(newChoice(&f.payees, "many", "one"), "payees", "many or one: who is paid")
	c.Flags().BoolVar(&f.batch, "batch", false, "send payments as lines of NDJSON")
	c.Flags().IntVar(&f.inFlight, "in-flight", 500, "with --batch, lines of each batch that wait for their answers")
	c.Flags().IntVar(&f.accounts, "accounts", 1000, "accounts that pay")
	c.Flags().StringVar(&f.profile, "cpuprofile", "", "write a CPU profile of the server under load to this file")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if f.batch && !c.Flags().Changed("callers") {
			f.callers = 4
		}
		return a.benchPayments(c.Context(), &f)
	}
	return c
}

func (a *app) benchPayments(ctx context.Context, f *benchPayments) (err error) {
	if f.inFlight < 1 || f.accounts < 2 {
		return usageErrorf("--in-flight is at least 1, --accounts at least 2")
	}
	end, err := f.begin(a)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	server, err := startBenched(ctx, f.scratch, f.profile)
	if err != nil {
		return err
	}
	defer func() {
		if stopped := server.Stop(); err == nil {
			err = stopped
		}
	}()
	r, err := bench.Payments(ctx, bench.PaymentOptions{
		Dir: f.scratch, Server: server.Server, Callers: f.callers, InFlight: f.inFlight, Rate: f.rate, Names: f.with == "names", Batch: f.batch,
		OnePayee: f.payees == "one", Accounts: f.accounts, Duration: f.duration, Rounds: f.rounds, Say: a.say,
		Begin: server.tell(profileOn), End: server.tell(profileOff),
	})
	if err != nil {
		return err
	}
	return a.printBenchPayments(r)
}

// benched is the server that is measured.
type benched struct {
	*torture.Server
	profiled bool
}

// startBenched starts one, with its data under dir; with a profile, it is written there when it is told to.
func startBenched(ctx context.Context, dir, profile string) (*benched, error) {
	o := torture.Options{Data: filepath.Join(dir, "data"), Args: []string{"--calls-to", "loopback"}}
	if profile != "" {
		path, err := filepath.Abs(profile)
		if err != nil {
			return nil, usageErrorf("--cpuprofile: %w", err)
		}
		o.Command, o.Args = []string{"bench", "serve"}, append(o.Args, "--cpuprofile", path)
	}
	server, err := torture.Start(ctx, o)
	return &benched{server, profile != ""}, err
}

// tell returns a function that says a word to a server that is profiled.
func (b *benched) tell(word string) func() {
	return func() {
		if b.profiled {
			_, _ = fmt.Fprintln(b.Stdin, word) // a server that is gone is noticed by its callers
		}
	}
}

func (a *app) printBenchPayments(r bench.PaymentReport) error {
	if a.format != "table" {
		return a.printJSON(r)
	}
	how := fmt.Sprintf("single calls from %d callers", r.Callers)
	if r.How == "batch" {
		how = fmt.Sprintf("%d batches with %d lines in flight each", r.Callers, r.InFlight)
	}
	payees := "many payees"
	if r.Payees == "one" {
		payees = "one payee"
	}
	fmt.Fprintf(a.stdout, "payments with %s, %s, %s, %s, fsync; one puts %d bytes on the log\n\n", r.With, payees, how, loadName(r.Rate), r.Bytes)
	if err := printFigures(a, r.Payments, r.Ceiling); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "\npayments do %.0f %% of the ceiling\n", 100*r.Ratio)
	_, err := fmt.Fprintf(a.stdout, "views: at most %d records and %.2f s behind, and caught up %.2f s after the load\nserver: %.0f µs of processor time a payment, %d MiB resident at most\n",
		r.Lag.MaxRecords, r.Lag.MaxSeconds, r.Lag.CaughtUpSeconds, r.CPUMicros, r.PeakBytes>>20)
	return err
}

// The words that a profiled server is told on its stdin.
const (
	profileOn  = "profile"
	profileOff = "enough"
)

// newBenchServe is serve with a CPU profile of what happens between two words on stdin: of the load, not of its preparation.
func newBenchServe(a *app) *cobra.Command {
	c := newServe(a)
	c.Hidden, c.Short = true, "Run the server that bench profiles"
	var profile string
	c.Flags().StringVar(&profile, "cpuprofile", "", "file")
	inner := c.RunE
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		file, err := os.Create(profile)
		if err != nil {
			return usageErrorf("--cpuprofile: %w", err)
		}
		go func() {
			if err := profileByWord(a.stdin, file); err != nil {
				a.say("remit: %v", err)
			}
		}()
		err = inner(c, args)
		pprof.StopCPUProfile()
		return errors.Join(err, file.Close())
	}
	return c
}

// profileByWord profiles from the first word to the second; what comes after is not looked at.
func profileByWord(words io.Reader, to io.Writer) error {
	in := bufio.NewScanner(words)
	for on := false; in.Scan(); {
		switch {
		case in.Text() == profileOn && !on:
			if err := pprof.StartCPUProfile(to); err != nil {
				return err
			}
			on = true
		case in.Text() == profileOff && on:
			pprof.StopCPUProfile()
			return nil
		}
	}
	return in.Err()
}
