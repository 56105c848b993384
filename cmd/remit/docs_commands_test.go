package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// TestCommandsInDocs: every command that the README and the pages of docs show is one that this build takes: in the
// fenced blocks of sh, and in the text as `remit …`. Calls by curl are held against openapi.yaml.
func TestCommandsInDocs(t *testing.T) {
	calls := apiCalls(t)
	for _, page := range pages(t) {
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		text := string(b)
		for _, c := range shellCommands(text) {
			if err := checkCommand(c, calls); err != nil {
				t.Errorf("%s: %s: %v", page, strings.Join(c, " "), err)
			}
		}
		for _, m := range inlineCommand.FindAllStringSubmatch(fenced.ReplaceAllString(text, ""), -1) {
			if err := checkRemit(strings.Fields(m[1]), true); err != nil {
				t.Errorf("%s: `remit %s`: %v", page, m[1], err)
			}
		}
	}
}

// pages are the README and all pages of docs.
func pages(t *testing.T) []string {
	t.Helper()
	all := []string{"../../README.md"}
	err := filepath.WalkDir("../../docs", func(path string, d fs.DirEntry, err error) error {
		if err == nil && filepath.Ext(path) == ".md" {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

var (
	fenced        = regexp.MustCompile("(?ms)^```.*?^```$")
	shellBlock    = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")
	inlineCommand = regexp.MustCompile("`remit ([a-z-][^`]*)`")
)

// shellCommands returns the commands of all fenced blocks of sh, as words.
func shellCommands(page string) (all [][]string) {
	for _, m := range shellBlock.FindAllStringSubmatch(page, -1) {
		all = append(all, split(strings.ReplaceAll(m[1], "\\\n", " "))...)
	}
	return all
}

// split splits a script into commands of words: quotes, comments, pipes and lists; no more of the shell than the pages use.
func split(script string) (commands [][]string) {
	var words []string
	var word strings.Builder
	in, quote := false, rune(0) // within a word, within quotes
	endWord := func() {
		if in {
			words = append(words, word.String())
		}
		word.Reset()
		in = false
	}
	endCommand := func() {
		endWord()
		if len(words) > 0 {
			commands = append(commands, words)
		}
		words = nil
	}
	comment := false
	for _, r := range script {
		switch {
		case comment:
			comment = r != '\n'
			if !comment {
				endCommand()
			}
		case quote != 0:
			if r == quote {
				quote = 0
			} else {
				word.WriteRune(r)
			}
		case r == '\'' || r == '"':
			quote, in = r, true
		case r == '#' && !in:
			comment = true
		case r == '\n' || r == '|' || r == ';' || r == '&':
			endCommand()
		case r == ' ' || r == '\t':
			endWord()
		default:
			word.WriteRune(r)
			in = true
		}
	}
	endCommand()
	return commands
}

// plainTools are commands that need no checking.
var plainTools = []string{"git", "cd", "kill", "cp", "tar", "df", "ls", "jq", "curl", "go", "mkdir", "mv", "rm", "seq", "export", "npm", "printf", "touch"}

func checkCommand(words []string, calls map[string]bool) error {
	for len(words) > 1 && strings.Contains(words[0], "=") { // REMIT_HTTP=…
		words = words[1:]
	}
	switch {
	case words[0] == "remit" || words[0] == "./remit":
		return checkRemit(words[1:], false)
	case len(words) > 2 && words[0] == "go" && words[1] == "run" && words[2] == "./cmd/remit":
		return checkRemit(words[3:], false)
	case words[0] == "curl":
		return checkCurl(words[1:], calls)
	case words[0] == "kcat": // TestReadmeTour and TestKafkaPage run it
		return checkKcat(words[1:])
	case len(words) > 1 && words[0] == "python3" && words[1] == "sink.py": // TestPushPage runs it
		return nil
	case len(words) > 2 && slices.Contains([]string{"node", "python3"}, words[0]): // TestProducerScripts runs it
		if !slices.Contains([]string{"send", "serve"}, words[2]) {
			return fmt.Errorf("%s has no command %q", words[1], words[2])
		}
		_, err := os.Stat(filepath.Join("../..", words[1]))
		return err
	case strings.HasPrefix(words[0], ".ci/"):
		_, err := os.Stat(filepath.Join("../..", words[0]))
		return err
	case !slices.Contains(plainTools, words[0]):
		return fmt.Errorf("nothing checks this command")
	}
	return nil
}

// checkKcat: it names the default address, a topic, and whether it reads or writes.
func checkKcat(args []string) error {
	line := " " + strings.Join(args, " ") + " "
	for _, of := range [][]string{{" -b 127.0.0.1:9092 ", " -b localhost:9092 "}, {" -t "}, {" -C ", " -P "}} {
		if !slices.ContainsFunc(of, func(s string) bool { return strings.Contains(line, s) }) {
			return fmt.Errorf("it has none of%s", strings.Join(of, ","))
		}
	}
	return nil
}

// checkRemit holds a command line against the command tree. Loosely: words in capitals stand for something, and
// arguments may be left out.
func checkRemit(args []string, loosely bool) error {
	root := (&app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard}).root()
	c, rest, err := root.Find(args)
	if err != nil {
		return err
	}
	if len(rest) > 0 && c.HasSubCommands() && !strings.HasPrefix(rest[0], "-") {
		return fmt.Errorf("%s has no command %q", c.CommandPath(), rest[0])
	}
	if !loosely && c.HasSubCommands() && !slices.Contains(rest, "--help") {
		return fmt.Errorf("%s needs a command", c.CommandPath())
	}
	if loosely {
		return knownFlags(c, rest)
	}
	if err := c.ParseFlags(rest); errors.Is(err, pflag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	return c.ValidateArgs(c.Flags().Args())
}

func knownFlags(c *cobra.Command, words []string) error {
	c.InitDefaultHelpFlag()
	for _, w := range words {
		name, _, _ := strings.Cut(strings.TrimLeft(w, "-"), "=")
		switch {
		case strings.HasPrefix(w, "--") && c.Flags().Lookup(name) == nil && c.InheritedFlags().Lookup(name) == nil,
			strings.HasPrefix(w, "-") && !strings.HasPrefix(w, "--") && c.Flags().ShorthandLookup(name) == nil && c.InheritedFlags().ShorthandLookup(name) == nil:
			return fmt.Errorf("%s has no flag %s", c.CommandPath(), w)
		}
	}
	return nil
}

// checkCurl holds a call against openapi.yaml.
func checkCurl(words []string, calls map[string]bool) error {
	c, err := parseCurl(words)
	if err != nil {
		return err
	}
	path, _, _ := strings.Cut(c.path, "?")
	for call := range calls {
		method, pattern, _ := strings.Cut(call, " ")
		if method == c.method && matches(pattern, path) {
			return nil
		}
	}
	return fmt.Errorf("openapi.yaml has no %s %s", c.method, path)
}

// call is what a command line of curl asks for.
type call struct {
	method, path, body string
	header             [][2]string
}

func parseCurl(words []string) (c call, err error) {
	for i := 0; i < len(words); i++ {
		w := words[i]
		next := func() string {
			if i++; i < len(words) {
				return words[i]
			}
			err = fmt.Errorf("%s needs a value", w)
			return ""
		}
		switch w {
		case "-s", "-i", "-f", "-N", "-sS":
		case "-X":
			c.method = next()
		case "--json":
			c.body = next()
			if c.method == "" {
				c.method = "POST"
			}
			c.header = append(c.header, [2]string{"Content-Type", "application/json"})
		case "-H":
			name, value, ok := strings.Cut(next(), ": ")
			if !ok {
				return c, fmt.Errorf("-H %q is no header", words[i])
			}
			c.header = append(c.header, [2]string{name, value})
		case "-d", "--data-binary":
			c.body = next()
			if c.method == "" {
				c.method = "POST"
			}
		default:
			rest, ok := strings.CutPrefix(w, "localhost:8080")
			if !ok {
				return c, fmt.Errorf("%q is no flag that is known here, and no URL of localhost:8080", w)
			}
			c.path = rest
		}
	}
	if c.method == "" {
		c.method = "GET"
	}
	return c, err
}

// matches reports whether path is of a pattern such as /v1/payments/{id}/capture.
func matches(pattern, path string) bool {
	p, q := strings.Split(pattern, "/"), strings.Split(path, "/")
	return slices.EqualFunc(p, q, func(p, q string) bool { return p == q || strings.HasPrefix(p, "{") && q != "" })
}

// apiCalls are the calls of openapi.yaml: "GET /v1/payments/{id}".
func apiCalls(t *testing.T) map[string]bool {
	t.Helper()
	b, err := os.ReadFile("api/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var spec struct {
		Paths map[string]map[string]any `yaml:"paths"`
	}
	if err := yaml.Unmarshal(b, &spec); err != nil {
		t.Fatal(err)
	}
	calls := map[string]bool{}
	for path, methods := range spec.Paths {
		for method := range methods {
			calls[strings.ToUpper(method)+" "+path] = true
		}
	}
	return calls
}

// TestSplit: the shell as the pages use it.
func TestSplit(t *testing.T) {
	got := fmt.Sprintf("%q", split("# no\ncurl -s 'a b' | jq .x # no\nA=1 go run x && cd ..\n"))
	if want := `[["curl" "-s" "a b"] ["jq" ".x"] ["A=1" "go" "run" "x"] ["cd" ".."]]`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
