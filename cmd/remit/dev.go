package main

import (
	"slices"

	"github.com/spf13/cobra"
)

func newDev(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "dev",
		Short: "Run everything on this machine",
		Long: "Run everything on this machine: `remit serve` that makes topics when they are first written to, and says what to\n" +
			"try next. It needs nothing beside itself; what it stores is in --data and is there at the next start.",
		Args: cobra.NoArgs,
	}
	l := newLoader(options, c.Flags(), a.environ)
	_ = c.Flags().MarkHidden("auto-create-topics") // it always does; the flag is there
	c.RunE = func(c *cobra.Command, _ []string) error {
		config, err := l.load()
		if err != nil {
			return err
		}
		config.AutoCreateTopics = true
		if !slices.Contains(config.CallsTo, toLoopback) {
			config.CallsTo = append(config.CallsTo, toLoopback)
		}
		return a.serve(c.Context(), "dev", config)
	}
	return c
}
