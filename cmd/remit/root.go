package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/remitlog/remit/cmd/remit/api"
)

// serverDefault is where the commands look for the server.
const serverDefault = "http://127.0.0.1:8080"

// app is what every command shares.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	environ        []string
	// signals returns a channel of the signals that stop a server, and how to give them up.
	signals func() (<-chan os.Signal, func())
	// open makes the node that dev and serve run.
	open func(context.Context, Config, nodeDeps) (node, error)

	format string // -o
	server string // --server
	began  bool   // a command's own code runs: what fails from here on is not usage
}

// run is the whole program. It returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr, environ: os.Environ(), signals: notify, open: open}
	return a.run(ctx, args)
}

func notify() (<-chan os.Signal, func()) {
	c := make(chan os.Signal, 2) // the first drains, the second stops at once
	signal.Notify(c, os.Interrupt, syscall.SIGTERM)
	return c, func() { signal.Stop(c) }
}

func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	if _, coded := errors.AsType[*codedError](err); !a.began && !coded {
		err = usageErrorf("%w", err) // cobra's own errors: flags, arguments, unknown commands
	}
	code := exitCode(err)
	fmt.Fprintf(a.stderr, "remit: %s\n", plain(err.Error()))
	if !a.began {
		fmt.Fprintf(a.stderr, "See `%s --help`.\n", cmd.CommandPath())
	}
	return code
}

func (a *app) root() *cobra.Command {
	root := group("remit", "A message-centric payment core",
		newDev(a), newServe(a), newImport(a), newPayments(a), newAccounts(a), newMessages(a), newProducers(a), newSubscriptions(a), newParked(a), newActivities(a),
		newStory(a), newViews(a), newLog(a), newDemo(a), newBench(a), newConfig(a), newVersion(a))
	root.Long = "remit takes payments all-or-nothing across services, tells other systems about them reliably, and answers\n" +
		"questions about them from views. `remit dev` runs all of it on this machine.\n\n" +
		"Exit codes: 0 ok, 1 error, 2 usage, 3 not found, 4 conflict, 5 unavailable, 6 an invariant is broken."
	root.SilenceErrors, root.SilenceUsage = true, true
	root.PersistentFlags().VarP(newChoice(&a.format, "table", "json", "jsonl"), "output", "o", "how to print: table, json or jsonl")
	root.PersistentFlags().StringVar(&a.server, "server", "", "where remit listens (env REMIT_SERVER, default "+serverDefault+")")
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "jsonl"}, cobra.ShellCompDirectiveNoFileComp)) // the flag is there
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	strictDefaults(root) // behind SetOut: where a completion script goes is fixed when its command is made
	root.Version = api.ReadBuild().Version
	root.SetVersionTemplate("remit {{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return plainFlag(err) })
	completeWords(root)
	a.noteBegin(root)
	return root
}

// plainFlag says in words what strconv found in a number.
func plainFlag(err error) error {
	bad, ok := errors.AsType[*pflag.InvalidValueError](err)
	if !ok {
		return err
	}
	switch n := (*strconv.NumError)(nil); {
	case !errors.As(err, &n):
		return err
	case errors.Is(n, strconv.ErrRange):
		return fmt.Errorf("--%s %s: the number is too large", bad.GetFlag().Name, bad.GetValue())
	case bad.GetFlag().Value.Type() == "float64":
		return fmt.Errorf("--%s %q is not a number", bad.GetFlag().Name, bad.GetValue())
	default:
		return fmt.Errorf("--%s %q is not a whole number", bad.GetFlag().Name, bad.GetValue())
	}
}

// strictDefaults makes cobra's own commands refuse what they do not know: as they come they print help and exit with 0.
func strictDefaults(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	root.InitDefaultHelpCmd()
	for _, c := range root.Commands() {
		switch c.Name() {
		case "completion":
			asGroup(c)
		case "help":
			c.Run, c.RunE = nil, helpOf
		}
	}
}

// helpOf prints the help of the command that args name.
func helpOf(c *cobra.Command, args []string) error {
	of, rest, err := c.Root().Find(args)
	if err != nil {
		return usageErrorf("%w", err)
	}
	if len(rest) > 0 {
		return unknownVerb(of, rest[0])
	}
	of.InitDefaultHelpFlag()
	return of.Help()
}

// group is a command that has only verbs below it: alone it prints its help and is an error, and so is a verb it does not know.
func group(use, short string, verbs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short}
	asGroup(c)
	c.AddCommand(verbs...)
	return c
}

func unknownVerb(c *cobra.Command, verb string) error {
	if near := c.SuggestionsFor(verb); len(near) > 0 {
		return usageErrorf("%s has no command %q; did you mean %s?", c.CommandPath(), verb, strings.Join(near, " or "))
	}
	return usageErrorf("%s has no command %q", c.CommandPath(), verb)
}

// asGroup makes c such a command.
func asGroup(c *cobra.Command) {
	c.Args, c.SuggestionsMinimumDistance = cobra.ArbitraryArgs, 2
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return unknownVerb(c, args[0])
		}
		c.SetOut(c.ErrOrStderr())
		_ = c.Help() // to stderr; what cannot be written there cannot be said
		return usageErrorf("%s needs a command", c.CommandPath())
	}
}

// noteBegin notes when a command's own code begins.
func (a *app) noteBegin(c *cobra.Command) {
	if inner := c.RunE; inner != nil && !c.HasSubCommands() {
		c.RunE = func(c *cobra.Command, args []string) error {
			if slices.Contains(args, "") { // a variable of a script that is not set; it would be left out of the call's path
				return usageErrorf("%s: an argument is empty", c.CommandPath())
			}
			a.began = true
			return inner(c, args)
		}
	}
	for _, sub := range c.Commands() {
		a.noteBegin(sub)
	}
}

// env returns a variable of the environment, "" if it is not set.
func (a *app) env(name string) string {
	for _, kv := range slices.Backward(a.environ) {
		if k, v, _ := strings.Cut(kv, "="); k == name {
			return v
		}
	}
	return ""
}

// serverURL is --server, REMIT_SERVER or the default.
func (a *app) serverURL() string {
	s := cmp.Or(a.server, a.env("REMIT_SERVER"), serverDefault)
	if !strings.Contains(s, "://") {
		s = "http://" + s
	}
	return strings.TrimRight(s, "/")
}

// choice is a flag of a few words; the first is the default.
type choice struct {
	to    *string
	words []string
}

func newChoice(to *string, words ...string) *choice {
	*to = words[0]
	return &choice{to, words}
}

func (c *choice) String() string { return *c.to }
func (c *choice) Type() string   { return "string" }

func (c *choice) Set(s string) error {
	if !slices.Contains(c.words, s) {
		return fmt.Errorf("%q is not one of %s", s, strings.Join(c.words, ", "))
	}
	*c.to = s
	return nil
}

// count is a flag of a whole number that is not below zero.
type count struct{ to *int }

func newCount(to *int, is int) *count {
	*to = is
	return &count{to}
}

func (c *count) String() string { return strconv.Itoa(*c.to) }
func (c *count) Type() string   { return "int" }

func (c *count) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err == nil && n < 0 {
		err = errors.New("it is below zero")
	}
	if err == nil {
		*c.to = n
	}
	return err
}
