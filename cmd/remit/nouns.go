package main

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"github.com/remitlog/remit/cmd/remit/api"
)

// limitDefault is how many items a list prints unless --limit says otherwise.
const limitDefault = 50

// query is what goes behind the path: names and values, of which the empty ones are left out.
type query []string

func (q query) String() string {
	values := url.Values{}
	for i := 0; i+1 < len(q); i += 2 {
		if q[i+1] != "" {
			values.Set(q[i], q[i+1])
		}
	}
	if len(values) == 0 {
		return ""
	}
	return "?" + values.Encode()
}

// at joins the steps of a path, each escaped.
func at(steps ...string) string {
	for i, s := range steps {
		steps[i] = escapeStep(s)
	}
	return "/v1/" + strings.Join(steps, "/")
}

// escapeStep escapes one step of a path. "." and ".." are fit names, and would be taken for a way through the path.
func escapeStep(s string) string {
	if s == "." || s == ".." {
		return strings.ReplaceAll(s, ".", "%2E")
	}
	return url.PathEscape(s)
}

// one calls the server and prints the one thing that it answers with.
func one[T any](ctx context.Context, a *app, method, path string, in any, columns ...column[T]) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	var out T
	if _, err := c.call(ctx, method, path, in, &out); err != nil {
		return errors.Join(err, a.printRefused(err))
	}
	return printOne(a, out, columns...)
}

// printRefused prints a payment or refund that was refused for programs to read: that is an outcome, and is on remit's record. A table has
// the error's words alone.
func (a *app) printRefused(err error) error {
	e, ok := errors.AsType[*apiError](err)
	if !ok || e.Status != http.StatusPaymentRequired || a.format == "table" {
		return nil
	}
	for _, refused := range []jsontext.Value{e.Payment, e.Refund} {
		if refused != nil {
			return printOne(a, refused)
		}
	}
	return nil
}

// listed prints a list of the server's, page by page, up to --limit items; all of them if that is 0.
func listed[T any](ctx context.Context, a *app, path string, q query, limit int, columns ...column[T]) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	var items []T
	for token := ""; limit == 0 || len(items) < limit; {
		size := api.PageSizeMax
		if limit > 0 {
			size = min(size, limit-len(items))
		}
		var page api.List[T]
		if _, err := c.call(ctx, http.MethodGet, path+append(q, "pageSize", strconv.Itoa(size), "pageToken", token).String(), nil, &page); err != nil {
			return err
		}
		items = append(items, page.Items...)
		if token = page.NextPageToken; token == "" {
			break
		}
		if limit > 0 && len(items) >= limit {
			a.say("remit: there are more; --limit 0 prints all")
		}
	}
	return printList(a, items, columns...)
}

// deleted calls the server to delete, and prints nothing.
func deleted(ctx context.Context, a *app, path string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	_, err = c.call(ctx, http.MethodDelete, path, nil, nil)
	return err
}

// listFlags are those of a list.
type listFlags struct {
	from, to string
	limit    int
}

func (l *listFlags) add(c *cobra.Command, spans bool) {
	c.Flags().Var(newCount(&l.limit, limitDefault), "limit", "how many to print, the newest first; 0 prints all")
	if spans {
		c.Flags().StringVar(&l.from, "from", "", "from this time on, RFC 3339")
		c.Flags().StringVar(&l.to, "to", "", "before this time, RFC 3339")
	}
}

// addByName is add for lists that are in the order of names.
func (l *listFlags) addByName(c *cobra.Command) {
	c.Flags().Var(newCount(&l.limit, limitDefault), "limit", "how many to print, the first names first; 0 prints all")
}

func (l *listFlags) span() query { return query{"from", l.from, "to", l.to} }

// verb is a command below a noun.
func verb(use, short string, args cobra.PositionalArgs, run func(c *cobra.Command, args []string) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: args, RunE: run}
}

func when(t api.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.String()
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func whole[N ~int | ~int32 | ~int64](n N) string { return strconv.FormatInt(int64(n), 10) }
