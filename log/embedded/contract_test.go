package embedded_test

import (
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/remitlog/remit/log"
	"github.com/remitlog/remit/log/embedded"
	"github.com/remitlog/remit/log/logtest"
)

func TestContract(t *testing.T) {
	for name, fs := range map[string]func() vfs.FS{"mem": func() vfs.FS { return vfs.NewMem() }, "disk": func() vfs.FS { return vfs.Default }} {
		t.Run(name, func(t *testing.T) {
			logtest.Exercise(t, func(t *testing.T) log.Log {
				l, err := embedded.Open(embedded.Options{Dir: t.TempDir(), FS: fs(), MemTableBytes: 512 << 10, FreeFloorBytes: 1 << 20,
					Fatal: func(err error) { t.Errorf("fatal: %v", err) }})
				if err != nil {
					t.Fatal(err)
				}
				return l
			})
		})
	}
}

// ReadBatches gives what goes on the wire.
func TestReadBatches(t *testing.T) {
	l := open(t, options(t, vfs.NewMem()))
	defer func() { must(t, l.Close()) }()
	withTopic(t, l, 1)
	for i := range 10 {
		_, err := l.Append(ctx, rec(0, fmt.Sprint(i)), rec(0, fmt.Sprint(i)))
		must(t, err)
	}
	raw, err := l.ReadBatches(ctx, part(0), 3, 1<<20)
	must(t, err)
	next := log.Offset(2)
	for len(raw) > 0 {
		var b log.Batch
		b, raw, err = log.ParseBatch(raw)
		must(t, err)
		if b.Base() != next || b.Count() != 2 {
			t.Fatal(b.Base(), next)
		}
		next += 2
	}
	if next != 20 {
		t.Fatal(next)
	}
}
