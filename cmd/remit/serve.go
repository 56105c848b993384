package main

import "github.com/spf13/cobra"

func newServe(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the server",
		Long: "Run the server until SIGTERM or SIGINT. Then calls that run have 10 seconds to end; a second signal stops at once.\n" +
			"Everything that was acknowledged is durable, however it stops.\n\n" +
			"With -o json it prints one line once it is ready: {\"http\":\"HOST:PORT\",\"kafka\":\"HOST:PORT\",\"data\":\"DIR\"}.",
		Args: cobra.NoArgs,
	}
	l := newLoader(options, c.Flags(), a.environ)
	c.RunE = func(c *cobra.Command, _ []string) error {
		config, err := l.load()
		if err != nil {
			return err
		}
		return a.serve(c.Context(), "serve", config)
	}
	return c
}
