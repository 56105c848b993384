package api_test

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	remitlog "github.com/remitlog/remit/log"
)

// creditless is a log that does not take credits until it is let.
type creditless struct {
	remitlog.Log
	let chan struct{}
}

func (l *creditless) Append(ctx context.Context, records ...remitlog.Record) ([]remitlog.Offset, error) {
	credit := func(r remitlog.Record) bool {
		e, err := remitlog.ParseRecord(r)
		return err == nil && e.Type == "remit.account.credited.v1"
	}
	if slices.ContainsFunc(records, credit) {
		<-l.let
	}
	return l.Log.Append(ctx, records...)
}

// TestBatchLineIsForgotten: a line whose wait is over is answered as its payment stands, and nothing waits for it any more, though the
// client goes on with the stream.
func TestBatchLineIsForgotten(t *testing.T) {
	held := &creditless{let: make(chan struct{})}
	w := newWorldOver(t, vfs.NewMem(), "", func(l remitlog.Log) remitlog.Log { held.Log = l; return held })
	shop := "shop"
	for w.core.Node.PartitionOf(shop) == w.core.Node.PartitionOf("alice") {
		shop += "s"
	}
	w.account("alice", "100")
	w.account(shop, "")
	body, client := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), "POST", w.server.URL+"/v1/payments:batch?wait=1ms", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	resp, err := w.server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	defer client.Close()
	defer close(held.let)
	answers := bufio.NewReader(resp.Body)
	for range 3 {
		if _, err := io.WriteString(client, strings.Replace(pay(idFor("alice"), ""), `"shop"`, `"`+shop+`"`, 1)+"\n"); err != nil {
			t.Fatal(err)
		}
		if a, err := answers.ReadString('\n'); err != nil || !strings.Contains(a, `"status":201`) || !strings.Contains(a, `"settled":false`) {
			t.Error(a, err)
		}
	}
	for until := time.Now().Add(time.Minute); w.core.Payments.Waiting() > 0; <-time.After(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("%d lines are waited for", w.core.Payments.Waiting())
		}
	}
}
