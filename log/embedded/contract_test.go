package embedded_test

import (
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
