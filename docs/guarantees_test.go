package docs

import (
	"go/ast"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	namedTest = regexp.MustCompile("`([a-z][a-z0-9/]*)\\.((?:Test|Fuzz|Example|Benchmark)\\w*)`")
	promise   = regexp.MustCompile(`(?m)^\| \*\*([A-Z]\d+)\*\* \| .* \| (.*) \|$`)
	promised  = regexp.MustCompile(`\b([A-Z][1-9]\d?)(?: \(|: )`)
)

// TestGuarantees: every test that a page names is there, every promise has a test or says that it has none, and every number
// that a package comment promises stands on the page.
func TestGuarantees(t *testing.T) {
	tests, numbers := map[string]bool{}, map[string]string{}
	sources(t, func(string, string) {}, func(path, _ string, f *ast.File) {
		dir := filepath.Dir(path)
		if strings.HasSuffix(path, "_test.go") {
			for _, d := range f.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil {
					tests[dir+"."+fn.Name.Name] = true
				}
			}
			return
		}
		for _, m := range promised.FindAllStringSubmatch(f.Doc.Text(), -1) {
			numbers[m[1]] = dir
		}
	})
	page := read(t, "guarantees.md")
	for _, m := range namedTest.FindAllStringSubmatch(page, -1) {
		if name := m[1] + "." + m[2]; !tests[name] {
			t.Errorf("guarantees.md names %s, which is not there", name)
		}
	}
	stands := map[string]bool{}
	for _, m := range promise.FindAllStringSubmatch(page, -1) {
		if stands[m[1]] {
			t.Errorf("%s stands twice", m[1])
		}
		stands[m[1]] = true
		if !namedTest.MatchString(m[2]) && !strings.HasPrefix(m[2], "none yet") {
			t.Errorf("%s: no test is named", m[1])
		}
	}
	for n, dir := range numbers {
		if !stands[n] {
			t.Errorf("%s promises %s, which guarantees.md does not have", dir, n)
		}
	}
	if len(numbers) < 30 {
		t.Errorf("only %d promises were found in package comments", len(numbers))
	}
}
