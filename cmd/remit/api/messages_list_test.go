package api_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/remitlog/remit/cmd/remit/api"
	"github.com/remitlog/remit/projections/transactions"
)

// TestPagesOfLongEvents: a page of messages is bounded by what their events come to, whatever its size; the pages have each message once, newest
// first.
func TestPagesOfLongEvents(t *testing.T) {
	w := newWorld(t)
	w.must(201, "PUT", "/v1/topics/orders", "")
	w.must(201, "PUT", "/v1/producers/shop", "")
	const eventBytes, count = 1 << 20 * 9 / 10, 3 * transactions.EventsBytesMax / (1 << 20)
	var sent, listed []string
	for i := range count {
		name := fmt.Sprint("m", i)
		a := w.must(201, "POST", "/v1/topics/orders/messages?producer=shop", event(name, `,"partitionkey":"k","data":"`+strings.Repeat("x", eventBytes)+`"`), structured)
		var m api.Message
		a.into(t, &m)
		sent = append(sent, m.ID.String())
	}
	slices.Reverse(sent)
	query := "/v1/messages?producer=shop&wait=10s&after=" + w.core.Node.Position().String()
	for _, size := range []string{"&pageSize=1000", "&pageSize=7"} {
		listed = nil
		for token := ""; ; {
			var page api.List[api.Message]
			a := w.must(200, "GET", query+size+token, "")
			a.into(t, &page)
			if len(a.body) > transactions.EventsBytesMax+2*eventBytes {
				t.Fatalf("%s: a page of %d bytes", size, len(a.body))
			}
			for _, m := range page.Items {
				if len(m.Event) < eventBytes {
					t.Errorf("%s: %s has an event of %d bytes", size, m.ID, len(m.Event))
				}
				listed = append(listed, m.ID.String())
			}
			if page.NextPageToken == "" {
				break
			}
			token = "&pageToken=" + page.NextPageToken
		}
		if !slices.Equal(listed, sent) {
			t.Errorf("%s: listed %d of %d:\n%v\n%v", size, len(listed), len(sent), listed, sent)
		}
	}
}
