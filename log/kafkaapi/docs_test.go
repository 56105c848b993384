package kafkaapi

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// The page has every request that is advertised, with its versions, and no other.
func TestPageHasRequests(t *testing.T) {
	b, err := os.ReadFile("../../docs/kafka-api.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rows, ok := strings.Cut(string(b), "| request | key | versions |\n|---|---|---|\n")
	if !ok {
		t.Fatal("there is no table of requests")
	}
	rows, _, _ = strings.Cut(rows, "\n\n")
	left := map[string]bool{}
	for row := range strings.Lines(rows) {
		left[strings.TrimSpace(row)] = true
	}
	for key, v := range served() {
		row := fmt.Sprintf("| %s | %d | %d to %d |", kmsg.NameForKey(key), key, v.min, v.max)
		if !left[row] {
			t.Errorf("there is no row %s", row)
		}
		delete(left, row)
	}
	for row := range left {
		t.Errorf("%s is not served", row)
	}
}
