package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// column is one column of a table.
type column[T any] struct {
	name  string
	value func(T) string
}

// printList prints items: a table, one JSON array, or a line of JSON each.
func printList[T any](a *app, items []T, columns ...column[T]) error {
	switch a.format {
	case "json":
		if items == nil {
			items = []T{}
		}
		return a.printJSON(items)
	case "jsonl":
		for _, item := range items {
			if err := a.printLine(item); err != nil {
				return err
			}
		}
		return nil
	}
	t := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	row := make([]string, len(columns))
	for i, c := range columns {
		row[i] = strings.ToUpper(c.name)
	}
	writeRow(t, row)
	for _, item := range items {
		for i, c := range columns {
			row[i] = cell(c.value(item))
		}
		writeRow(t, row)
	}
	return t.Flush()
}

func writeRow(w io.Writer, cells []string) { fmt.Fprintln(w, strings.Join(cells, "\t")) } // the tabwriter keeps the error for Flush

// printOne prints one thing: a line of "name  value" a column, or JSON. Empty values are left out of the table.
func printOne[T any](a *app, item T, columns ...column[T]) error {
	switch a.format {
	case "json":
		return a.printJSON(item)
	case "jsonl":
		return a.printLine(item)
	}
	t := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	for _, c := range columns {
		if v := cell(c.value(item)); v != "" {
			writeRow(t, []string{c.name, v})
		}
	}
	return t.Flush()
}

// printJSON prints one document: on one line, or indented for a person at a terminal.
func (a *app) printJSON(v any) error {
	if !isTerminal(a.stdout) {
		return a.printLine(v)
	}
	return a.writeJSON(v, jsontext.WithIndent("  "))
}

// printLine prints one document on one line.
func (a *app) printLine(v any) error { return a.writeJSON(v) }

func (a *app) writeJSON(v any, opts ...json.Options) error {
	b, err := json.Marshal(v, append(opts, json.Deterministic(true))...)
	if err != nil {
		return fmt.Errorf("print %T: %w", v, err)
	}
	_, err = a.stdout.Write(append(b, '\n'))
	return err
}

// say talks: to stderr, so that stdout is data alone.
func (a *app) say(format string, args ...any) { fmt.Fprintf(a.stderr, format+"\n", args...) }

// progress says how far it is, over itself, on a terminal alone. An empty line ends it.
func (a *app) progress(format string, args ...any) {
	if isTerminal(a.stderr) {
		fmt.Fprintf(a.stderr, "\r\x1b[K"+format, args...)
	}
}

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// cell is plain on one line.
func cell(s string) string { return strings.ReplaceAll(plain(s), "\n", " ") }

// plain makes text safe for a terminal: what others wrote (a reference, a reason) may hold control characters.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n':
			return r
		case r == '\t':
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r): // what turns the direction turns the columns that follow
			return unicode.ReplacementChar
		default:
			return r
		}
	}, s)
}
