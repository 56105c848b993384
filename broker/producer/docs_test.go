package producer_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/remitlog/remit/broker/producer"
	"github.com/remitlog/remit/docs/docstest"
)

const page = "../../docs/producers.md"

// TestPage: the service of docs/producers.md compiles, takes an order once, tells of it, and answers remit, which has not heard, after kill -9.
func TestPage(t *testing.T) {
	binary, d := docstest.Program(t, docstest.Page(t, page)), newDies(t)
	start := func() (stop func(os.Signal)) {
		t.Helper()
		cmd := exec.Command(binary)
		cmd.Env = append(os.Environ(), "DATABASE_URL="+d.dsn, "REMIT="+d.remit.URL, "LISTEN="+d.listen, "CHECK_SECRET=s3cret")
		var said strings.Builder
		cmd.Stderr = &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill() }) // unless it has ended
		return func(signal os.Signal) {
			t.Helper()
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err != nil && signal != os.Kill {
				t.Errorf("%v\n%s", err, said.String())
			}
		}
	}
	if _, err := d.db.ExecContext(t.Context(), "DROP TABLE orders"); err != nil { // the page makes its own
		t.Fatal(err)
	}
	stop := start()
	wait(t, func() bool { return order(d, "order-1") == http.StatusCreated })
	for _, c := range []struct {
		id   string
		want int
	}{{"order-1", http.StatusOK}, {"order-2", http.StatusCreated}} {
		if got := order(d, c.id); got != c.want {
			t.Errorf("%s: %d, not %d", c.id, got, c.want)
		}
	}
	stop(os.Kill)
	// A half message of a process that died before it could begin: remit hears of it from the next one.
	id := d.prepare("order-3")
	stop = start()
	wait(t, func() bool {
		var m message
		d.call(http.MethodGet, "/v1/messages/"+id, &m)
		return m.State == "rolledback"
	})
	stop(syscall.SIGTERM)
	if delivered := d.list("delivered"); len(delivered) != 2 || delivered[0].Name != "/shop order-2" || delivered[1].Name != "/shop order-1" {
		t.Errorf("delivered are %+v", delivered)
	}
	if rows := d.rows(); len(rows) != 2 {
		t.Errorf("the table has %q", rows)
	}
}

// wait waits until something is so.
func wait(t *testing.T, so func() bool) {
	t.Helper()
	look, deadline := time.NewTicker(50*time.Millisecond), time.Now().Add(diesWait)
	defer look.Stop()
	for !so() {
		if time.Now().After(deadline) {
			t.Fatalf("it is not so after %s", diesWait)
		}
		<-look.C
	}
}

// order places one; the status is 0 while nobody listens.
func order(d *dies, id string) (status int) {
	resp, err := http.Post("http://"+d.listen+"/orders", "application/json", strings.NewReader(`{"id":"`+id+`","customer":"alice","cents":1250}`))
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode > 299 {
		d.t.Errorf("%s: %d %s", id, resp.StatusCode, body)
	}
	return resp.StatusCode
}

// prepare stores a half message by hand.
func (d *dies) prepare(event string) (id string) {
	d.t.Helper()
	body := `{"specversion":"1.0","id":"` + event + `","source":"/shop","type":"order.placed.v1","partitionkey":"alice","checkafter":"500ms"}`
	resp, err := http.Post(d.remit.URL+"/v1/topics/orders/messages?producer=shop", "application/cloudevents+json", strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	var m message
	if err := json.UnmarshalRead(resp.Body, &m); err != nil || resp.StatusCode != http.StatusCreated {
		d.t.Fatal(resp.Status, err)
	}
	return m.ID.String()
}

// TestPageLimits: the limits that the page names are the defaults.
func TestPageLimits(t *testing.T) {
	var o producer.Options
	o.EnsureDefaults()
	docstest.Limits(t, docstest.Page(t, page), map[string]string{
		"MessagesMax": strconv.Itoa(producer.MessagesMax), "CallMax": fmt.Sprint(o.CallMax.Seconds(), " s"), "AttemptsMax": strconv.Itoa(o.AttemptsMax),
		"BackoffMax": fmt.Sprint(o.BackoffMax.Seconds(), " s"), "ConfirmsMax": strconv.Itoa(o.ConfirmsMax),
		"ConfirmAttemptsMax": strconv.Itoa(o.ConfirmAttemptsMax), "SettleMax": fmt.Sprint(o.SettleMax.Seconds(), " s"),
		"CheckMax": fmt.Sprint(o.CheckMax.Seconds(), " s"), "CheckBodyMax": fmt.Sprint(producer.CheckBodyMax>>20, " MiB"),
	})
}
