package main

import (
	"context"
	"os"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"time"
)

// Memory of a server. Pebble's memtables and cache are bounded by themselves. Memtables count towards the cache, two of each store once it has been
// busy: up to 178 MiB here, after which the rest is left for blocks.
//
// What Go collects is traded for speed while there is much to do: about garbageBytes are made between two collections, and no less than lives, unless
// the heap comes near the soft limit. Calls that meet a collection wait for it. When there is little to do it runs more often, and what it has found
// goes back to the operating system.
const (
	cacheBytes         = 288 << 20
	logMemTableBytes   = 32 << 20
	stateMemTableBytes = 32 << 20
	viewMemTableBytes  = 8 << 20
	memorySoftLimit    = 560 << 20
	garbageBytes       = 192 << 20
	gcPercentStart     = 400 // until it is known what lives
	gcPercentMax       = 2000
	gcPercentQuiet     = 100

	// A server is quiet once it has allocated less than this in each of so many seconds, and busy with the first one that it allocates more in.
	// Payments by single calls allocate some 300 MiB a second.
	quietBytesMax = 64 << 20
	quietSeconds  = 10
	// freeBytesMin is what is worth giving back, which costs a collection.
	freeBytesMin = 64 << 20
)

// limitMemory sets what the collector keeps to, unless GOGC or GOMEMLIMIT say it, and C's allocator.
func limitMemory() {
	limitMalloc()
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memorySoftLimit)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercentStart)
	}
}

// tuneMemory suits the collector to how much there is to do, until ctx ends; not if GOGC says how it is to run.
func tuneMemory(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	const allocated, objects, free, live = 0, 1, 2, 3
	s := []runtimemetrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/free:bytes"}, {Name: "/gc/heap/live:bytes"}}
	runtimemetrics.Read(s)
	g := gear{allocated: s[allocated].Value.Uint64()}
	percent := gcPercentStart
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		runtimemetrics.Read(s)
		changed := g.look(s[allocated].Value.Uint64())
		if want := g.gcPercent(s[live].Value.Uint64()); want != percent {
			percent = want
			debug.SetGCPercent(percent)
		}
		if !changed || !g.quiet {
			continue
		}
		trimMalloc()
		if s[objects].Value.Uint64()+s[free].Value.Uint64() >= s[live].Value.Uint64()+freeBytesMin {
			debug.FreeOSMemory()
		}
	}
}

// gear tells a quiet server from a busy one.
type gear struct {
	allocated uint64 // by the process, at the last look
	seconds   int    // of little, on end
	quiet     bool
}

// look is called every second, and reports whether quiet has changed.
func (g *gear) look(allocated uint64) (changed bool) {
	if allocated-g.allocated < quietBytesMax {
		g.seconds++
	} else {
		g.seconds = 0
	}
	g.allocated = allocated
	was := g.quiet
	g.quiet = g.seconds >= quietSeconds
	return g.quiet != was
}

// gcPercent is how much may be allocated between two collections, in percent of what lives, which is 0 before the first. It comes in hundreds,
// since each change stops the world.
func (g *gear) gcPercent(live uint64) int {
	switch {
	case g.quiet:
		return gcPercentQuiet
	case live == 0:
		return gcPercentStart
	}
	return int(min(max((garbageBytes+live/2)/live*100, gcPercentQuiet), gcPercentMax))
}
