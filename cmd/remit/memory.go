package main

import (
	"context"
	"os"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"time"
)

// Memory of a server. Pebble's memtables and cache are bounded by themselves. Memtables count towards the cache, two of each store once it has been
// busy: up to 226 MiB here, after which little else stays in it. With 288 MiB a server held 583 MiB beside a million undecided messages, with 160 MiB 364.
//
// What Go collects is traded for speed while there is much to do: the collector runs seldom until the heap comes near the soft limit. When there is
// little to do it runs more often, and what it has found goes back to the operating system.
const (
	cacheBytes        = 160 << 20
	logMemTableBytes  = 32 << 20
	viewMemTableBytes = 16 << 20
	memorySoftLimit   = 560 << 20
	gcPercentBusy     = 400
	gcPercentQuiet    = 100

	// A server is quiet once it has allocated less than this in each of so many seconds, and busy with the first one that it allocates more in.
	// Payments by single calls allocate some 300 MiB a second.
	quietBytesMax = 64 << 20
	quietSeconds  = 10
	// freeBytesMin is what is worth giving back, which costs a collection.
	freeBytesMin = 64 << 20
)

// limitMemory sets what the collector keeps to, unless GOGC or GOMEMLIMIT say it.
func limitMemory() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memorySoftLimit)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercentBusy)
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
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		runtimemetrics.Read(s)
		switch changed := g.look(s[allocated].Value.Uint64()); {
		case changed && g.quiet:
			debug.SetGCPercent(gcPercentQuiet)
			if s[objects].Value.Uint64()+s[free].Value.Uint64() >= s[live].Value.Uint64()+freeBytesMin {
				debug.FreeOSMemory()
			}
		case changed:
			debug.SetGCPercent(gcPercentBusy)
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
