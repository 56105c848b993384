// Package docstest holds what the pages say to the code, for the tests of the packages that the pages are about.
package docstest

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Page reads a page.
func Page(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Program builds the first program of a page, which must be formatted and vetted.
func Program(t *testing.T, page string) (binary string) {
	t.Helper()
	_, text, ok := strings.Cut(page, "```go\n")
	text, _, closed := strings.Cut(text, "```")
	if !ok || !closed {
		t.Fatal("there is no program on the page")
	}
	dir := t.TempDir()
	file, binary := filepath.Join(dir, "main.go"), filepath.Join(dir, "program")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"gofmt", "-l", file}, {"go", "vet", file}, {"go", "build", "-o", binary, file}} {
		if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil || len(out) > 0 {
			t.Fatalf("%s: %v\n%s", args, err, out)
		}
	}
	return binary
}

var limit = regexp.MustCompile("`([A-Za-z]+Max)` ([0-9,]+( s| minute| MiB| KiB)?)")

// Limits holds the limits that a page names to what they are.
func Limits(t *testing.T, page string, are map[string]string) {
	t.Helper()
	said := map[string]string{}
	for _, m := range limit.FindAllStringSubmatch(page, -1) {
		said[m[1]] = strings.ReplaceAll(m[2], ",", "")
	}
	for name, want := range are {
		if said[name] != want {
			t.Errorf("the page says that %s is %q; it is %q", name, said[name], want)
		}
	}
}
