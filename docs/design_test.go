package docs

import (
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// chapter returns the text below a heading, up to the next of its level.
func chapter(t *testing.T, page, heading string) string {
	t.Helper()
	_, text, ok := strings.Cut(page, "\n"+heading+"\n")
	if !ok {
		t.Fatalf("there is no %q", heading)
	}
	level, _, _ := strings.Cut(heading, " ")
	text, _, _ = strings.Cut(text, "\n"+level+" ")
	return text
}

var code = regexp.MustCompile("`([^`\n]+)`")

// TestFileMap: the File Map has every package, and nothing that is not there.
func TestFileMap(t *testing.T) {
	mapped := map[string]bool{}
	for _, row := range strings.Split(chapter(t, read(t, "design.md"), "## File Map"), "\n") {
		dir := ""
		for _, m := range code.FindAllStringSubmatch(row, -1) {
			path := m[1]
			switch {
			case !strings.Contains(path, "/") && dir == "" || strings.Contains(path, "/"):
				dir = path
				if filepath.Ext(path) == ".go" {
					dir = filepath.Dir(path)
				}
			case filepath.Ext(path) != "": // `money.go`, in the package of its row
				path = dir + "/" + path
			default:
				continue
			}
			if _, err := os.Stat(filepath.Join("..", path)); err != nil {
				t.Errorf("File Map: %v", err)
			}
			mapped[path] = true
		}
	}
	missing := map[string]bool{}
	sources(t, func(string, string) {}, func(path, _ string, _ *ast.File) {
		if dir := filepath.Dir(path); !mapped[dir] {
			missing[dir] = true
		}
	})
	for dir := range missing {
		t.Errorf("File Map: %s is not there", dir)
	}
}

var newTable = regexp.MustCompile(`NewTable\[.*\]\('(.)'\)`)

// TestTables: the tables of the core's stores are drawn.
func TestTables(t *testing.T) {
	drawn := chapter(t, read(t, "design.md"), "## Bytes")
	found := 0
	sources(t, func(string, string) {}, func(path, top string, _ *ast.File) {
		if strings.HasSuffix(path, "_test.go") || !slices.Contains([]string{"log", "broker", "saga"}, top) {
			return
		}
		for _, m := range newTable.FindAllStringSubmatch(read(t, filepath.Join("..", path)), -1) {
			found++
			if row := "| `" + m[1] + "` | `" + filepath.Dir(path) + "` |"; !strings.Contains(drawn, row) {
				t.Errorf("Bytes: there is no row that begins %s", row)
			}
		}
	})
	if found < 5 {
		t.Errorf("only %d tables were found in the sources", found)
	}
}

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// TestLinks: what the pages point to is there, headings too.
func TestLinks(t *testing.T) {
	pages := []string{"../README.md"}
	for _, pattern := range []string{"*.md", "adr/*.md", "producers/*.md"} {
		more, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, more...)
	}
	for _, page := range pages {
		for _, m := range link.FindAllStringSubmatch(read(t, page), -1) {
			target, heading, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			path := page
			if target != "" {
				path = filepath.Join(filepath.Dir(page), target)
			}
			if _, err := os.Stat(path); err != nil {
				t.Errorf("%s: %s: %v", page, m[1], err)
				continue
			}
			if heading != "" && !slices.Contains(headings(read(t, path)), heading) {
				t.Errorf("%s: %s has no heading #%s", page, path, heading)
			}
		}
	}
}

var notInAnchor = regexp.MustCompile(`[^a-z0-9 _-]`)

// headings are the anchors of a page, as the usual renderers make them.
func headings(page string) (anchors []string) {
	for _, line := range strings.Split(page, "\n") {
		if text, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); ok && strings.HasPrefix(line, "#") {
			anchors = append(anchors, strings.ReplaceAll(notInAnchor.ReplaceAllString(strings.ToLower(text), ""), " ", "-"))
		}
	}
	return anchors
}
