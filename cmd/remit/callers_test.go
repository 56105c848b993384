package main

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
)

// Each thing is said of each producer once, whatever else is said in between.
func TestSaidOnce(t *testing.T) {
	var b bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&b, nil))
	said := &saidOnce{said: map[[2]string]bool{}}
	for range 3 {
		for _, of := range []string{"shop", "inn"} {
			said.warn(logger, "answers nonsense", of, errors.New("x"))
			said.warn(logger, "asks nonsense", of, errors.New("x"))
		}
	}
	if n := strings.Count(b.String(), "nonsense"); n != 4 {
		t.Errorf("%d lines, want 4:\n%s", n, &b)
	}
}
