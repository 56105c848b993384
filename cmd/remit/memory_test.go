package main

import "testing"

// A server is quiet after ten seconds of little, and busy again with the first second of much.
func TestGear(t *testing.T) {
	const little, much = quietBytesMax - 1, quietBytesMax
	var g gear
	allocated := uint64(0)
	for i, run := range []struct {
		seconds      int
		bytes        uint64 // in each
		quiet, turns bool   // after the last of them, and whether that one has changed it
	}{
		{9, little, false, false}, {1, much, false, false}, {9, little, false, false}, {1, little, true, true}, {1, 0, true, false},
		{1, much, false, true}, {1, much, false, false}, {10, little, true, true}, {1000, 0, true, false},
	} {
		for second := range run.seconds {
			allocated += run.bytes
			changed := g.look(allocated)
			if last := second == run.seconds-1; changed != (last && run.turns) || last && g.quiet != run.quiet {
				t.Errorf("run %d, second %d: changed %t, quiet %t", i, second, changed, g.quiet)
			}
		}
	}
}

// A busy server makes about as much garbage between two collections whatever lives, within bounds.
func TestGarbage(t *testing.T) {
	var g gear
	for live, want := range map[uint64]int{
		0: gcPercentStart, 1: gcPercentMax, 1 << 20: gcPercentMax, garbageBytes / 8: 800, garbageBytes * 10 / 76: 800, garbageBytes * 10 / 74: 700,
		garbageBytes / 2: 200, garbageBytes: 100, 1 << 30: gcPercentQuiet,
	} {
		if got := g.gcPercent(live); got != want {
			t.Errorf("%d bytes live: %d %%, not %d", live, got, want)
		}
	}
	if g.quiet = true; g.gcPercent(1<<20) != gcPercentQuiet {
		t.Error("a quiet server collects as seldom as a busy one")
	}
}
