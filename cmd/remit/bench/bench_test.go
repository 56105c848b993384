package bench

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remitlog/remit/cmd/remit/torture"
)

// Under open load a stall is in the latency of every call that was due in it, not of the one that met it alone.
func TestCoordinatedOmission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder()
		n := 0
		err := load(t.Context(), 1, newSchedule(10*time.Second, 100), r, func(context.Context, int) error {
			if n++; n == 1 {
				time.Sleep(5 * time.Second) // of the bubble's clock: the server stalls
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		f := r.figure("x")
		if f.Count != 1000 {
			t.Errorf("%d calls of 1000 that were due", f.Count)
		}
		// Half of all calls were due in the stall, and waited 2.5 s on average.
		if f.Latency.Max < 4990 || f.Latency.P50 > 100 || f.Latency.P90 < 3900 {
			t.Errorf("%+v", f.Latency)
		}
	})
}

func TestClosedLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder()
		err := load(t.Context(), 4, newSchedule(time.Second, 0), r, func(context.Context, int) error {
			time.Sleep(10 * time.Millisecond) // of the bubble's clock: how long a call takes
			return nil
		})
		f := r.figure("x")
		if err != nil || f.Count != 400 || f.PerSecond != 400 || f.Latency.P50 < 9.9 || f.Latency.P50 > 10.1 {
			t.Errorf("%+v %v", f, err)
		}
	})
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		v    []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1}, 5}, {[]float64{9, 1, 2}, 2}} {
		if got := median(c.v); got != c.want {
			t.Errorf("%v: %v", c.v, got)
		}
	}
}

// A call that fails ends the load: no figure is made of calls that were not answered as they should be.
func TestLoadFails(t *testing.T) {
	err := load(t.Context(), 8, newSchedule(time.Hour, 0), newRecorder(), func(_ context.Context, caller int) error {
		if caller == 3 {
			return io.ErrUnexpectedEOF
		}
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "unexpected EOF") {
		t.Error(err)
	}
}

// The lean client reads what net/http's server writes, whole, call after call.
func TestLean(t *testing.T) {
	var mu sync.Mutex
	var got []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		mu.Lock()
		got = append(got, fmt.Sprint(r.Method, " ", r.URL, " ", r.Header.Get("Content-Type"), " ", string(b)))
		mu.Unlock()
		w.WriteHeader(200 + len(b))
		_, _ = w.Write(b)
		if strings.HasPrefix(r.URL.Path, "/chunked") {
			_ = http.NewResponseController(w).Flush()
			_, _ = w.Write(b)
		}
	}))
	defer s.Close()
	c, err := dial(t.Context(), strings.TrimPrefix(s.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range 3 {
		body := strings.Repeat("x", i+1)
		for path, want := range map[string]string{"/plain": body, "/chunked": body + body} {
			status, answer, err := c.call("POST", path, "application/json", []byte(body))
			if err != nil || status != 200+len(body) || string(answer) != want {
				t.Errorf("%s: %d %q %v", path, status, answer, err)
			}
		}
	}
	if _, err := c.expect("GET", "/plain", nil, 404); err == nil {
		t.Error("200 was taken for 404")
	}
	if len(got) != 7 || got[6] != "GET /plain  " {
		t.Errorf("%q", got)
	}
}

func TestAppend(t *testing.T) {
	r, err := Append(t.Context(), AppendOptions{Dir: t.TempDir(), Callers: 8, Bytes: 300, Partitions: 4, Duration: 100 * time.Millisecond, Rounds: 2, Say: t.Logf})
	if err != nil || r.Log.Count == 0 || r.Ceiling.Count == 0 || len(r.Log.Rounds) != 2 || r.Ratio <= 0 {
		t.Errorf("%+v %v", r, err)
	}
}

// build builds remit.
func build(t *testing.T) string {
	t.Helper()
	binary, err := torture.Build(filepath.Join(t.TempDir(), "remit"))
	if err != nil {
		t.Fatal(err)
	}
	return binary
}

// Every way of paying measures something, against a real server.
func TestPayments(t *testing.T) {
	binary := build(t)
	for _, o := range []PaymentOptions{
		{Callers: 4},
		{Callers: 4, Names: true, OnePayee: true},
		{Callers: 2, Batch: true, InFlight: 20},
		{Callers: 2, Batch: true, InFlight: 3, Names: true, Rate: 200},
	} {
		t.Run(fmt.Sprintf("%+v", o), func(t *testing.T) {
			o.Dir, o.Accounts, o.Duration, o.Rounds, o.Say = t.TempDir(), 10, 200*time.Millisecond, 2, t.Logf
			o.Begin, o.End = func() {}, func() {}
			var err error
			if o.Server, err = torture.Start(t.Context(), torture.Options{Binary: binary, Data: filepath.Join(o.Dir, "data")}); err != nil {
				t.Fatal(err)
			}
			defer o.Server.Kill()
			r, err := Payments(t.Context(), o)
			if err != nil || r.Payments.Count == 0 || r.Ceiling.Count == 0 || r.Bytes < 500 || r.Ratio <= 0 {
				t.Errorf("%+v %v", r, err)
			}
		})
	}
}

// Every way of sending messages measures something, against a real server; each message that is counted is on its topic once.
func TestMessages(t *testing.T) {
	binary := build(t)
	for _, c := range []struct {
		MessageOptions
		steps int
	}{
		{MessageOptions{Callers: 4, CheckAfter: time.Hour}, 2},
		{MessageOptions{Callers: 4, CheckAfter: time.Hour, Names: true}, 3},
		{MessageOptions{Callers: 2, CheckAfter: time.Millisecond, Batch: true, InFlight: 20}, 2},
		{MessageOptions{Callers: 2, CheckAfter: time.Hour, Batch: true, InFlight: 3, Names: true, Rate: 200}, 3},
	} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			o := c.MessageOptions
			o.Dir, o.Keys, o.Bytes, o.Duration, o.Rounds, o.Say = t.TempDir(), 10, 200, 200*time.Millisecond, 2, t.Logf
			o.Begin, o.End = func() {}, func() {}
			var err error
			if o.Server, err = torture.Start(t.Context(), torture.Options{Binary: binary, Data: filepath.Join(o.Dir, "data"), Args: []string{"--calls-to", "loopback"}}); err != nil {
				t.Fatal(err)
			}
			defer o.Server.Kill()
			r, err := Messages(t.Context(), o)
			if err != nil || r.Messages.Count == 0 || r.Ceiling.Count == 0 || r.Ratio <= 0 || (r.Checks > 0) != (o.CheckAfter < time.Second) {
				t.Fatalf("%+v %v", r, err)
			}
			if len(r.Steps) != c.steps || r.Steps[c.steps-2] < 500 {
				t.Errorf("the steps of a message put down %v bytes", r.Steps)
			}
			s := &sender{MessageOptions: o}
			if err := s.allThere(t.Context(), r.Messages.Count+1); err == nil {
				t.Error("a message that is not on its topic was not missed")
			}
		})
	}
}

// Beside messages that nobody decides: both sides send, and the producer is asked about what falls due.
func TestUndecided(t *testing.T) {
	binary := build(t)
	o := MessageOptions{Dir: t.TempDir(), Callers: 4, Keys: 10, Bytes: 200, CheckAfter: time.Hour, Duration: 3 * time.Second, Rounds: 1, Say: t.Logf, Begin: func() {}, End: func() {}}
	servers := make([]*torture.Server, 2)
	for i := range servers {
		var err error
		servers[i], err = torture.Start(t.Context(), torture.Options{Binary: binary, Data: filepath.Join(o.Dir, fmt.Sprint(i)), Args: []string{"--calls-to", "loopback"}})
		if err != nil {
			t.Fatal(err)
		}
		defer servers[i].Kill()
	}
	o.Server = servers[0]
	r, err := Undecided(t.Context(), o, servers[1], 1000, 50)
	if err != nil || r.With.Count == 0 || r.Without.Count == 0 || r.Ratio <= 0 || r.Checks == 0 {
		t.Fatalf("%+v %v", r, err)
	}
}

// A message that is answered, and not as delivered, is no measured one.
func TestMessageAnswers(t *testing.T) {
	const id = "019a1fbb-560f-8167-96d6-424ec3242195"
	for _, c := range []struct {
		line messageLine
		text string
		ok   bool
	}{
		{messageLine{}, `{"line":1,"status":201,"message":{"id":"` + id + `","state":"prepared"}}`, true},
		{messageLine{}, `{"line":1,"status":202,"message":{"id":"` + id + `","state":"prepared"}}`, false},
		{messageLine{}, `{"line":2,"status":201,"message":{"id":"` + id + `","state":"prepared"}}`, false},
		{messageLine{}, `{"line":1,"status":201,"message":{"state":"prepared"}}`, false},
		{messageLine{commits: true}, `{"line":1,"status":200,"message":{"id":"` + id + `","state":"delivered"}}`, true},
		{messageLine{commits: true}, `{"line":1,"status":200,"message":{"id":"` + id + `","state":"committed"}}`, false},
		{messageLine{commits: true}, `{"line":1,"status":409,"problem":{"code":"already_decided"}}`, false},
	} {
		b := &messageBatch{room: make(chan struct{}, 1), commits: make(chan openMessage, 1)}
		b.room <- struct{}{}
		if err := b.answered(c.line, 1, []byte(c.text), newRecorder()); (err == nil) != c.ok {
			t.Errorf("%+v %s: %v", c.line, c.text, err)
		}
	}
}
