package clients_test

import (
	"encoding/binary"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestIdleConnections: a server with a thousand idle connections, all of it, is small, and takes no time.
func TestIdleConnections(t *testing.T) {
	const (
		many        = 1000
		residentMax = 100 << 20
		window      = 200 * time.Millisecond
		busyMax     = window / 5
		windows     = 50
	)
	s := dev(t)
	for range many {
		metadata(t, s.Kafka)
	}
	peak := s.PeakBytes()
	t.Logf("%d connections: %d MiB resident at most", many, peak>>20)
	if peak == 0 && runtime.GOOS == "linux" || peak > residentMax {
		t.Errorf("%d MiB resident", peak>>20)
	}
	// A core that is kept busy is busy in every window. A collection of garbage, or what a store does in the background, is in few.
	least := window
	for range windows {
		before := s.CPU()
		time.Sleep(window) // idle is a time in which nothing happens
		if least = min(least, s.CPU()-before); least <= busyMax {
			return
		}
	}
	t.Errorf("of %s it takes %s of processor time at least", window, least)
}

// metadata asks over a connection of its own, which stays until the test ends.
func metadata(t *testing.T, broker string) {
	t.Helper()
	c, err := net.Dial("tcp", broker)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(kmsg.NewRequestFormatter(kmsg.FormatterClientID("idle")).AppendRequest(nil, kmsg.NewPtrMetadataRequest(), 1)); err != nil {
		t.Fatal(err)
	}
	var size [4]byte
	if _, err = io.ReadFull(c, size[:]); err == nil {
		_, err = io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint32(size[:])))
	}
	if err != nil {
		t.Fatal(err)
	}
}
