package main

import (
	"github.com/spf13/cobra"
)

// setting is one row of `remit config print`.
type setting struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Source string `json:"source"`
}

func newConfig(a *app) *cobra.Command {
	return group("config", "Look at the configuration", newConfigPrint(a))
}

func newConfigPrint(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "print",
		Short: "Print each option, its value and where it came from",
		Long: "Print each option, its value and where it came from: a flag, else REMIT_*, else the --config file, else the default.\n" +
			"Secrets are masked. It takes the flags of `remit serve`, and checks them.",
		Args: cobra.NoArgs,
	}
	l := newLoader(options, c.Flags(), a.environ)
	c.RunE = func(*cobra.Command, []string) error {
		config, err := l.load()
		if err != nil {
			return err
		}
		err = printList(a, l.settings(),
			column[setting]{"name", func(s setting) string { return s.Name }},
			column[setting]{"value", func(s setting) string { return s.Value }},
			column[setting]{"source", func(s setting) string { return s.Source }})
		if err != nil {
			return err
		}
		return config.Validate() // after it is printed, to show where the mistake comes from
	}
	return c
}

// settings are all options as loaded.
func (l *loader) settings() []setting {
	all := make([]setting, 0, len(l.options))
	for _, o := range l.options {
		value := o.get(&l.config)
		if o.secret && value != "" {
			value = "********"
		}
		all = append(all, setting{o.name, value, l.sources[o.name]})
	}
	return all
}
