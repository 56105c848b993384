package api_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// smallDisk is a disk that says how much room it has.
type smallDisk struct {
	vfs.FS
	full atomic.Bool
}

func (d *smallDisk) GetDiskUsage(string) (vfs.DiskUsage, error) {
	if d.full.Load() {
		return vfs.DiskUsage{TotalBytes: 1 << 40}, nil
	}
	return vfs.DiskUsage{TotalBytes: 1 << 40, AvailBytes: 1 << 39}, nil
}

// TestFullDisk: what was paid before is answered on a full disk as ever, in a batch too, whatever else the batch asks for.
func TestFullDisk(t *testing.T) {
	disk := &smallDisk{FS: vfs.NewMem()}
	w := newWorldOn(t, disk, "")
	w.account("alice", "1000")
	w.account("shop", "")
	line := func(id, amount string) string {
		return `{"id":"` + id + `","payer":"alice","payee":"shop","amount":"` + amount + `","currency":"USD"}` + "\n"
	}
	const lines = 100
	var ids []string
	var paid strings.Builder
	for i := range lines {
		id := fmt.Sprint("paid-", i)
		if i%2 == 0 {
			id = idFor("alice")
		}
		ids = append(ids, id)
		paid.WriteString(line(id, "1"))
	}
	const batch, ndjson = "/v1/payments:batch", "Content-Type: application/x-ndjson"
	if a := w.must(200, "POST", batch, paid.String(), ndjson); strings.Count(a.body, `"status":201`) != lines {
		t.Fatal(a.body)
	}
	disk.full.Store(true)
	for i := 0; w.call("POST", "/v1/accounts/alice/deposits", fmt.Sprintf(`{"id":"d%d","amount":"1"}`, i)).status != 503; i++ {
	}
	var body strings.Builder
	for i, id := range ids {
		body.WriteString(line(fmt.Sprint("new-", i), "1") + line(idFor("alice"), "1") + line(id, "1") + line(id, "2"))
	}
	answers := strings.Split(strings.TrimSpace(w.must(200, "POST", batch, body.String(), ndjson).body), "\n")
	if len(answers) != 4*lines {
		t.Fatalf("%d answers", len(answers))
	}
	want := []string{`"code":"disk_full"`, `"code":"disk_full"`, `"status":200,"replayed":true,"payment":{`, `"code":"content_mismatch"`}
	for i, a := range answers {
		if !strings.Contains(a, want[i%4]) {
			t.Errorf("%s\nwant %s", a, want[i%4])
		}
	}
	run(t, w, []row{
		{name: "a repeat", path: "/v1/payments", body: line(ids[1], "1"), status: 200, want: []string{`"state":"paid"`, `"name":"paid-1"`}, sent: replayed},
		{name: "a new one", path: "/v1/payments", body: line("new", "1"), status: 503, want: []string{`"code":"disk_full"`}},
	})
}
