package main

import (
	"github.com/spf13/cobra"

	"github.com/remitlog/remit/cmd/remit/api"
)

func newVersion(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Say which build this is",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return printOne(a, api.ReadBuild(),
				column[api.Build]{"version", func(b api.Build) string { return b.Version }},
				column[api.Build]{"revision", revision},
				column[api.Build]{"time", func(b api.Build) string { return b.Time }},
				column[api.Build]{"go", func(b api.Build) string { return b.Go }},
				column[api.Build]{"platform", func(b api.Build) string { return b.Platform }})
		},
	}
}

func revision(b api.Build) string {
	if b.Modified {
		return b.Revision + " (modified)"
	}
	return b.Revision
}
