package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/remitlog/remit/cmd/remit/importer"
	"github.com/remitlog/remit/saga/accounts"
)

// importRetryFor is how long the server may be away in the middle of an import: as long as a restart takes.
const importRetryFor = 10 * time.Second

// importTalk is how often an import says how far it is.
const importTalk = 200 * time.Millisecond

type importFlags struct {
	currency, as string
	rate         float64
	retryFor     time.Duration
}

func newImport(a *app) *cobra.Command {
	var f importFlags
	c := &cobra.Command{
		Use:   "import FILE",
		Short: "Pay the rows of a file with PaySim's columns",
		Long: "Pay the rows of a CSV file with PaySim's columns, each row a payment; \"-\" reads stdin. Accounts are opened when they\n" +
			"are first seen, with what the row says they had. A row starts when every earlier row that shares an account with it is\n" +
			"settled or refused; rows that share none run side by side.\n\n" +
			"Importing a file again changes nothing: ids are made of its name and the line. So whatever interrupts an import, run it again.\n" +
			"Amounts are taken exactly, in scientific notation too; what is not a whole number of minor units is rejected with its line.",
		Example: "  remit import paysim.csv\n  remit import --rate 500 -o json paysim.csv\n  zcat big.csv.gz | remit import --as big.csv -",
		Args:    cobra.ExactArgs(1),
	}
	c.Flags().StringVar(&f.currency, "currency", "USD", "currency of all amounts")
	c.Flags().Float64Var(&f.rate, "rate", 0, "rows to start a second; 0 is as many as can")
	c.Flags().DurationVar(&f.retryFor, "retry-for", importRetryFor, "how long the server may be away in the middle; given, also at the start")
	c.Flags().StringVar(&f.as, "as", "", "name that ids begin with (default the file's base name)")
	c.RunE = func(c *cobra.Command, args []string) error {
		return a.importFile(c.Context(), args[0], f, c.Flags().Changed("retry-for"))
	}
	return c
}

func (a *app) importFile(ctx context.Context, path string, f importFlags, retryFirst bool) error {
	currency, err := accounts.ParseCurrency(f.currency)
	if err != nil {
		return usageErrorf("--currency: %w", err)
	}
	if f.rate < 0 {
		return usageErrorf("--rate %v: give rows a second, or 0 for as many as can", f.rate)
	}
	in, size, err := a.openImport(path)
	if err != nil {
		return err
	}
	defer in.Close()
	name := f.as
	if name == "" {
		name = filepath.Base(path)
	}
	if path == "-" && f.as == "" {
		return usageErrorf("stdin has no name to make ids of; give one with --as, the same one whenever it is imported again")
	}
	if _, err := a.client(); err != nil { // it checks --server
		return err
	}
	m, err := importer.New(importer.Options{
		Server: a.serverURL(), Name: name, In: in, Currency: currency, Rate: f.rate, RetryFor: f.retryFor, RetryFirst: retryFirst,
	})
	if errors.Is(err, importer.ErrName) {
		return usageErrorf("%w\nRename the file, or say what ids begin with by --as", err)
	}
	if err != nil {
		return usageErrorf("%w", err)
	}
	ctx, giveUp := a.untilSignal(ctx) // so that it says how far it came
	defer giveUp()
	stop := a.importProgress(m, size)
	s, err := m.Run(ctx)
	stop()
	if err != nil {
		return a.importError(s, err)
	}
	return a.printImport(s)
}

func (a *app) openImport(path string) (io.ReadCloser, int64, error) {
	if path == "-" {
		return io.NopCloser(a.stdin), 0, nil
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, 0, usageErrorf("%w", err)
	}
	info, err := file.Stat()
	if err == nil && info.IsDir() {
		err = usageErrorf("%s is a directory; give a CSV file with PaySim's columns", path)
	}
	if err != nil {
		_ = file.Close()
		return nil, 0, err
	}
	return file, info.Size(), nil
}

// untilSignal ends a context at the first signal; a second one ends the process, as it does without.
func (a *app) untilSignal(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	signals, release := a.signals()
	go func() {
		select {
		case <-signals:
			release()
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(); release() }
}

// importProgress says how far the import is, on a terminal, until it is stopped.
func (a *app) importProgress(m *importer.Import, size int64) (stop func()) {
	if !isTerminal(a.stderr) {
		return func() {}
	}
	ended, done := make(chan struct{}), make(chan struct{})
	start := time.Now()
	go func() {
		defer close(done)
		tick := time.NewTicker(importTalk)
		defer tick.Stop()
		for {
			select {
			case <-ended:
				a.progress("")
				return
			case <-tick.C:
				p := m.Progress()
				of := ""
				if size > 0 {
					of = fmt.Sprintf("%3d%%  ", 100*p.Bytes/size)
				}
				a.progress("%s%d rows, %d paid, %.0f/s", of, p.Rows, p.Paid, float64(p.Rows)/time.Since(start).Seconds())
			}
		}
	}()
	return func() {
		close(ended)
		<-done
	}
}

// importError says how far it came, and that running it again is safe.
func (a *app) importError(s importer.Summary, err error) error {
	again := fmt.Sprintf("%d rows were done. Run the same command again: it goes on where this ended, and nothing is done twice", s.Rows)
	unavailable := (*importer.UnavailableError)(nil)
	switch {
	case errors.Is(err, importer.ErrHeader):
		return usageErrorf("%w\nIs it the right file? The first line names the columns: type, amount, nameOrig, oldbalanceOrg, nameDest, oldbalanceDest", err)
	case errors.As(err, &unavailable) && unavailable.Answered():
		return &codedError{exitUnavailable, fmt.Errorf("%s takes nothing, for %s now: %w\n%s", a.serverURL(), unavailable.Since.Round(time.Second), unavailable.Err, again)}
	case errors.As(err, &unavailable) && s.Rows == 0:
		return &codedError{exitUnavailable, fmt.Errorf("no answer from %s: %w\nIs it running? Start one with `remit dev`, or say where it is with --server or REMIT_SERVER", a.serverURL(), unavailable.Err)}
	case errors.As(err, &unavailable):
		return &codedError{exitUnavailable, fmt.Errorf("no answer from %s any more, for %s: %w\n%s", a.serverURL(), unavailable.Since.Round(time.Second), unavailable.Err, again)}
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("given up; %s", again)
	}
	return fmt.Errorf("%w\n%s", err, again)
}

// printImport prints the summary; the error says that remit has something else under the file's ids.
func (a *app) printImport(s importer.Summary) error {
	err := printOne(a, s,
		column[importer.Summary]{"rows", func(s importer.Summary) string { return strconv.Itoa(s.Rows) }},
		column[importer.Summary]{"paid", func(s importer.Summary) string { return strconv.Itoa(s.Paid) }},
		column[importer.Summary]{"refused", func(s importer.Summary) string { return refusedCell(s) }},
		column[importer.Summary]{"rejected", func(s importer.Summary) string { return strconv.Itoa(s.RejectedRows) }},
		column[importer.Summary]{"paid sum", func(s importer.Summary) string { return s.PaidSum }},
		column[importer.Summary]{"deposited", func(s importer.Summary) string { return s.DepositedSum }},
		column[importer.Summary]{"replayed", func(s importer.Summary) string { return strconv.Itoa(s.Replayed) }},
		column[importer.Summary]{"seconds", func(s importer.Summary) string { return strconv.FormatFloat(s.Seconds, 'f', 1, 64) }},
	)
	if err != nil {
		return err
	}
	if a.format == "table" {
		const most = 20
		for _, r := range s.Rejected[:min(len(s.Rejected), most)] {
			a.say("line %d rejected: %s", r.Line, cell(r.Reason))
		}
		if s.RejectedRows > most {
			a.say("… and %d more; -o json lists them", s.RejectedRows-most)
		}
	}
	if s.Conflicts > 0 {
		return &codedError{exitConflict, fmt.Errorf("remit has something else under the ids or accounts of %d of the rejected rows: "+
			"was another file of this name imported before? Give this one another name with --as", s.Conflicts)}
	}
	return nil
}

func refusedCell(s importer.Summary) string {
	n := s.RefusedRows()
	if n == 0 {
		return "0"
	}
	var reasons []string
	for reason, of := range s.Refused {
		reasons = append(reasons, fmt.Sprintf("%s %d", reason, of))
	}
	slices.Sort(reasons)
	return fmt.Sprintf("%d (%s)", n, strings.Join(reasons, ", "))
}
