package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/remitlog/remit/cmd/remit/api"
)

// secretFlags are those of a secret: it comes from a file or from the standard input, since the arguments of a program are everybody's to read.
type secretFlags struct {
	app        *app
	name, file string
	none       bool
}

// add adds the flags --NAME-file and --no-NAME.
func (s *secretFlags) add(a *app, c *cobra.Command, name, of string) {
	s.app, s.name = a, name
	c.Flags().StringVar(&s.file, name+"-file", "", "a file with the secret that signs "+of+"; - is the standard input")
	c.Flags().BoolVar(&s.none, "no-"+name, false, "take the secret away")
	c.MarkFlagsMutuallyExclusive(name+"-file", "no-"+name)
}

// read returns the secret that is asked for; nil leaves it as it is.
func (s *secretFlags) read() (*string, error) {
	if s.none {
		return new(string), nil
	}
	if s.file == "" {
		return nil, nil
	}
	from := s.app.stdin
	if s.file != "-" {
		f, err := os.Open(s.file)
		if err != nil {
			return nil, usageErrorf("--%s-file: %w", s.name, err)
		}
		defer func() { _ = f.Close() }()
		from = f
	}
	b, err := io.ReadAll(io.LimitReader(from, 2*api.SecretMax))
	text := strings.TrimSpace(string(b))
	switch {
	case err != nil:
		return nil, usageErrorf("--%s-file: %w", s.name, err)
	case text == "":
		return nil, usageErrorf("--%s-file: there is no secret in it; --no-%s takes the one that is there away", s.name, s.name)
	}
	return &text, nil
}

// once says that of several secrets at most one is read from the standard input.
func once(secrets ...*secretFlags) error {
	var from []string
	for _, s := range secrets {
		if s.file == "-" {
			from = append(from, "--"+s.name+"-file")
		}
	}
	if len(from) > 1 {
		return usageErrorf("%s: the standard input is read once; give the others as files", strings.Join(from, " and "))
	}
	return nil
}

// durationFlag is a duration in the form that remit takes; it is nil unless given.
type durationFlag struct{ to **api.Duration }

func (d durationFlag) Type() string { return "duration" }

func (d durationFlag) String() string {
	if d.to == nil || *d.to == nil {
		return ""
	}
	return (*d.to).String()
}

func (d durationFlag) Set(s string) error {
	v, err := api.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("%q is not a duration such as 10s", s)
	}
	given := api.Duration(v)
	*d.to = &given
	return nil
}

// numberFlag is a number; it is nil unless given.
type numberFlag struct{ to **int }

func (n numberFlag) Type() string { return "int" }

func (n numberFlag) String() string {
	if n.to == nil || *n.to == nil {
		return ""
	}
	return whole(**n.to)
}

func (n numberFlag) Set(s string) error {
	v := 0
	if _, err := fmt.Sscanf(s, "%d", &v); err != nil || whole(v) != s {
		return fmt.Errorf("%q is not a number", s)
	}
	*n.to = &v
	return nil
}

// completionMax is how long a completion may take: somebody has pressed a key.
const completionMax = 2 * time.Second

// completeFrom completes an argument with the names of a list of the server's. Without a server there are none.
func completeFrom[T any](a *app, arg int, path func(args []string) string, name func(T) string) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) != arg {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(c.Context(), completionMax)
		defer cancel()
		var page api.List[T]
		client, err := a.client()
		if err == nil {
			_, err = client.call(ctx, http.MethodGet, path(args)+query{"pageSize", whole(api.PageSizeMax)}.String(), nil, &page)
		}
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []cobra.Completion
		for _, item := range page.Items {
			names = append(names, name(item))
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
