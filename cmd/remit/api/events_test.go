package api_test

import (
	"strings"
	"testing"

	"github.com/remitlog/remit/cmd/remit/api"
)

// TestEventsOfAnyData: what one event holds keeps nobody from reading its partition.
func TestEventsOfAnyData(t *testing.T) {
	w := newWorld(t)
	w.must(201, "PUT", "/v1/topics/any", `{"partitions":1}`)
	binary := []string{"Content-Type: application/json", "Ce-Specversion: 1.0", "Ce-Id: 1", "Ce-Source: /s", "Ce-Type: t"}
	datas := []string{`{"a":1,"a":2}`, `{broken`, strings.Repeat("[", 9_999) + strings.Repeat("]", 9_999), `{"a":1}`}
	for _, data := range datas {
		w.must(201, "POST", "/v1/topics/any/events", data, binary...)
	}
	w.must(201, "POST", "/v1/topics/any/events", event("2", `,"data":{"b":[{"a":1,"a":2}]}`), structured)
	var page struct {
		Items []struct{ Event map[string]any }
		Next  int
	}
	w.must(200, "GET", "/v1/topics/any/events", "").into(t, &page)
	if len(page.Items) != len(datas)+1 || page.Next != len(page.Items) {
		t.Fatalf("%d of %d events, next %d", len(page.Items), len(datas)+1, page.Next)
	}
	for i, item := range page.Items {
		_, text := item.Event["data_base64"]
		if _, value := item.Event["data"]; value == text || value != (i == 3) {
			t.Errorf("event %d: data %v, data_base64 %v", i, value, text)
		}
	}
}

// TestFollowersDoNotHoldUpAStop: who waits for the next record of a topic is answered when the server drains.
func TestFollowersDoNotHoldUpAStop(t *testing.T) {
	w := newWorld(t)
	w.must(201, "PUT", "/v1/topics/quiet", `{"partitions":1}`)
	answered := make(chan string)
	go func() { answered <- w.must(200, "GET", "/v1/topics/quiet/events?wait=1m", "").body }()
	w.server.Config.Handler.(*api.Server).Drain()
	if body := <-answered; !strings.Contains(body, `"items":[],"next":0`) {
		t.Error(body)
	}
}
