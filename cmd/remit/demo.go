package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/remitlog/remit/cmd/remit/demo"
)

type demoFlags struct {
	dir      string
	keep     bool
	seed     uint64
	payments int
}

func newDemo(a *app) *cobra.Command {
	var f demoFlags
	c := &cobra.Command{
		Use:   "demo",
		Short: "See it work: payments, a kill -9 half way, and what must hold after it",
		Long: "See it work, in a scratch directory: start a server, make a few thousand payments between consumers and merchants, kill the\n" +
			"server half way with SIGKILL and start it again, send again what had no answer, show one payment's story and what the views\n" +
			"say, and check that money is conserved, that every view equals a fresh replay of the log, and that each paid payment is told\n" +
			"exactly once, per payer in the order of decisions. Exits 6 if any of it does not hold.",
		Args: cobra.NoArgs,
	}
	c.Flags().StringVar(&f.dir, "dir", os.TempDir(), "where the scratch directory is made")
	c.Flags().BoolVar(&f.keep, "keep", false, "keep the scratch directory")
	c.Flags().Uint64Var(&f.seed, "seed", 1, "what the payments are made from")
	c.Flags().IntVar(&f.payments, "payments", demo.PaymentsDefault, "payments to make")
	c.RunE = func(c *cobra.Command, _ []string) error { return a.demo(c.Context(), f) }
	return c
}

func (a *app) demo(ctx context.Context, f demoFlags) (err error) {
	if f.payments < 10 {
		return usageErrorf("--payments %d: give at least 10", f.payments)
	}
	scratch, err := os.MkdirTemp(f.dir, "remit-demo-")
	if err != nil {
		return usageErrorf("--dir: %w", err)
	}
	defer func() {
		if f.keep {
			a.say("kept: %s", scratch)
			return
		}
		err = errors.Join(err, os.RemoveAll(scratch))
	}()
	signals, release := a.signals() // the first stops the demo, which then cleans up
	defer release()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-signals:
			cancel(errors.New("stopped by a signal"))
		case <-ctx.Done():
		}
	}()
	start := time.Now()
	r, err := demo.Run(ctx, demo.Options{
		Dir: scratch, Seed: f.seed, Payments: f.payments, Show: a.showDemo,
		Say: func(format string, args ...any) {
			a.progress("")
			a.say("%5.1fs  "+format, append([]any{time.Since(start).Seconds()}, args...)...)
		},
		Progress: func(done, all int) {
			if done%50 == 0 {
				a.progress("        %d of %d payments", done, all)
			}
		},
	})
	if broken, ok := errors.AsType[*demo.BrokenError](err); ok {
		return brokenErrorf("%w", broken)
	}
	if err != nil {
		return err
	}
	return a.printDemo(r)
}

// showDemo asks the commands that a person would ask.
func (a *app) showDemo(ctx context.Context, s demo.Shown) error {
	out := a.stdout
	if a.format != "table" {
		out = a.stderr // stdout is for the report
	}
	for _, args := range [][]string{
		{"story", s.Payment},
		{"views", "query", "transaction", s.Payment},
		{"views", "query", "records", s.Consumer, "--limit", "5"},
		{"views", "query", "merchant", s.Merchant, "--limit", "5"},
		{"views", "query", "summary", s.Merchant},
	} {
		fmt.Fprintf(out, "\n$ remit")
		for _, arg := range args {
			fmt.Fprintf(out, " %s", arg)
		}
		fmt.Fprintln(out)
		var talk bytes.Buffer
		asked := &app{stdin: a.stdin, stdout: out, stderr: &talk, environ: a.environ, signals: a.signals, open: a.open}
		if code := asked.run(ctx, append(args, "--server", s.URL)); code != exitOK {
			return fmt.Errorf("remit %v exited with %d: %s", args, code, talk.Bytes())
		}
	}
	fmt.Fprintln(out)
	return nil
}

func (a *app) printDemo(r demo.Report) error {
	if a.format != "table" {
		return a.printJSON(r)
	}
	n := func(of func(demo.Report) int) func(demo.Report) string {
		return func(r demo.Report) string { return strconv.Itoa(of(r)) }
	}
	if _, err := io.WriteString(a.stdout, "\n"); err != nil {
		return err
	}
	err := printOne(a, r,
		column[demo.Report]{"payments", n(func(r demo.Report) int { return r.Payments })},
		column[demo.Report]{"paid", n(func(r demo.Report) int { return r.Paid })},
		column[demo.Report]{"refused", n(func(r demo.Report) int { return r.Refused })},
		column[demo.Report]{"voided", n(func(r demo.Report) int { return r.Voided })},
		column[demo.Report]{"refunds", n(func(r demo.Report) int { return r.Refunds })},
		column[demo.Report]{"asked for twice, answered the same", n(func(r demo.Report) int { return r.Repeated })},
		column[demo.Report]{"sent again after the kill", n(func(r demo.Report) int { return r.Resent })},
		column[demo.Report]{"events on the log", n(func(r demo.Report) int { return r.Events })},
		column[demo.Report]{"messages on topic payments", n(func(r demo.Report) int { return r.Messages })},
		column[demo.Report]{"on all accounts, as deposited", func(r demo.Report) string { return r.Deposited + " EUR" }},
	)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "\nIt holds: money is conserved, every view equals a fresh replay of the log, and each paid payment and refund was told\nexactly once, per payer in the order of decisions. %.1f s in all.\n\nStart one of your own with `%s dev`.\n", r.Seconds, calledAs(os.Args[0], exec.LookPath))
	return err
}
