package torture_test

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/remitlog/remit/broker"
	"github.com/remitlog/remit/cmd/remit/torture"
	"github.com/remitlog/remit/log"
)

var (
	undecided     = flag.Int("undecided", 5_000, "half messages that TestUndecided leaves undecided")
	undecidedRate = flag.Int("undecided-rate", 500, "how many of them fall due in a second")
	undecidedFor  = flag.Duration("undecided-for", 3*time.Second, "for how long what falls due is watched")
)

// Bounds of TestUndecided at its large count; what few messages take says nothing.
const (
	undecidedMany        = 1_000_000
	undecidedResidentMax = 500 << 20
	checkLateMax         = time.Second
)

// silent is a producer that is asked, and does not know.
type silent struct {
	*httptest.Server
	mu    sync.Mutex
	asked map[log.ID][]time.Time
}

func newSilent(t *testing.T) *silent {
	s := &silent{asked: map[log.ID][]time.Time{}}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now := time.Now()
		var e struct {
			Data struct {
				ID log.ID `json:"messageId"`
			} `json:"data"`
		}
		if err := json.UnmarshalRead(r.Body, &e); err != nil {
			t.Errorf("asked with something that is no event: %v", err)
		}
		s.mu.Lock()
		s.asked[e.Data.ID] = append(s.asked[e.Data.ID], now)
		s.mu.Unlock()
		_, _ = io.WriteString(w, `{"verdict":"unknown"}`)
	}))
	t.Cleanup(s.Close)
	return s
}

// taken empties what was noted.
func (s *silent) taken() map[log.ID][]time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = map[log.ID][]time.Time{}
	return asked
}

func put(t *testing.T, url, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, url, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if said, _ := io.ReadAll(answer.Body); answer.StatusCode > 299 {
		t.Fatalf("PUT %s: %d %s", url, answer.StatusCode, said)
	}
}

// half is a half message that nobody has decided.
type half struct {
	id       log.ID
	prepared time.Time
	after    time.Duration
}

// schedule is that of the producer of TestUndecided.
var schedule = broker.Schedule{Interval: 600_000, MaxInterval: 600_000, Deadline: 864_000_000}

// due is when its producer is asked first.
func (h half) due() time.Time {
	s := schedule
	s.FirstAfter = h.after.Milliseconds()
	_, at := s.Next(h.prepared.UnixMilli(), h.id, h.prepared.UnixMilli())
	return time.UnixMilli(at)
}

// prepareMany stores half messages by one call, each of which is asked about after some time, and returns them.
func prepareMany(t *testing.T, s *torture.Server, first, n int, after func(i int) time.Duration) []half {
	t.Helper()
	all := make([]half, n)
	r, w := io.Pipe()
	go func() {
		b := bufio.NewWriterSize(w, 64<<10)
		for i := range all {
			key := fmt.Sprint("k", first+i)
			all[i] = half{id: log.NewID(time.Now(), key), after: max(after(first+i), time.Millisecond).Truncate(time.Millisecond)}
			fmt.Fprintf(b, `{"specversion":"1.0","id":"m%d","source":"/shop","type":"order","partitionkey":"%s","remitid":"%s","checkafter":"%dms","datacontenttype":"application/json","data":{"order":%d,"of":"somebody who has not decided yet"}}`+"\n",
				first+i, key, all[i].id, all[i].after.Milliseconds(), first+i)
		}
		_ = w.CloseWithError(b.Flush())
	}()
	answer, err := http.Post(s.URL+"/v1/topics/orders/messages:batch?producer=shop", "application/x-ndjson", r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	lines, i := bufio.NewScanner(answer.Body), 0
	for ; lines.Scan(); i++ {
		var line struct {
			Status  int `json:"status"`
			Message struct {
				ID         log.ID    `json:"id"`
				PreparedAt time.Time `json:"preparedAt"`
			} `json:"message"`
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil || line.Status != http.StatusCreated || i == n || line.Message.ID != all[i].id {
			t.Fatalf("%s: %v", lines.Bytes(), err)
		}
		all[i].prepared = line.Message.PreparedAt
	}
	if err := lines.Err(); err != nil || i != n {
		t.Fatalf("%d of %d were answered: %v", i, n, err)
	}
	return all
}

// TestUndecided (line 5): with a million half messages that nobody has decided the server is small, asks about each within a second of its time, and is
// soon back after a kill -9.
func TestUndecided(t *testing.T) {
	producer := newSilent(t)
	s, err := torture.Start(t.Context(), torture.Options{Binary: build(t), Data: filepath.Join(t.TempDir(), "data"), Command: []string{"dev"}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Kill()
	put(t, s.URL+"/v1/producers/shop", fmt.Sprintf(
		`{"check":{"url":%q,"firstAfter":"1h","interval":"10m","maxInterval":"10m","deadline":"240h","concurrency":64}}`, producer.URL))

	// From when all are stored, as far as that can be told before, -undecided-rate of them fall due in a second.
	n, began, all := *undecided, time.Now(), []half(nil)
	due := began.Add(time.Duration(n/5_000+2) * time.Second)
	after := func(i int) time.Duration {
		return time.Until(due.Add(time.Duration(i) * time.Second / time.Duration(*undecidedRate)))
	}
	const stream = 50_000
	for i := 0; i < n; i += stream {
		all = append(all, prepareMany(t, s, i, min(stream, n-i), after)...)
	}
	took := time.Since(began)
	t.Logf("%d half messages in %.1f s, %.0f/s", n, took.Seconds(), float64(n)/took.Seconds())
	if early := time.NewTimer(time.Until(due)); time.Now().Before(due) {
		<-early.C // it went faster than was thought
	}
	watch(t, producer, all)
	small(t, s, n)

	s.Kill()
	killed := time.Now()
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	back := time.Since(killed)
	t.Logf("ready %.1f s after kill -9", back.Seconds())
	if n >= undecidedMany && back > restartMax {
		t.Errorf("it was ready after %s, more than %s", back, restartMax)
	}
	watch(t, producer, all)
	small(t, s, n)
}

// watch looks for a while at what falls due: each is asked about then.
func watch(t *testing.T, producer *silent, all []half) {
	t.Helper()
	from := time.Now()
	until := from.Add(*undecidedFor)
	producer.taken()
	done := time.NewTimer(*undecidedFor + 5*checkLateMax)
	defer done.Stop()
	select {
	case <-done.C:
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
	asked := producer.taken()
	var late []time.Duration
	missed := 0
	for _, h := range all {
		due := h.due()
		if due.Before(from) || due.After(until) {
			continue
		}
		if at := asked[h.id]; len(at) == 0 {
			missed++
		} else {
			late = append(late, at[0].Sub(due))
		}
	}
	if len(late) == 0 {
		t.Errorf("none was asked about in time; %d fell due", missed)
		return
	}
	slices.Sort(late)
	t.Logf("%d fell due in %s; asked p50 %s, p99 %s, at most %s after their time; %d not", len(late)+missed, *undecidedFor,
		late[len(late)/2].Round(time.Millisecond), late[len(late)*99/100].Round(time.Millisecond), late[len(late)-1].Round(time.Millisecond), missed)
	if missed > 0 || late[0] < 0 || len(all) >= undecidedMany && late[len(late)-1] > checkLateMax {
		t.Errorf("not each was asked about within %s of its time; the earliest %s after it", checkLateMax, late[0])
	}
}

// small fails if the server has more memory than it may. While it took the messages in it may have had more.
func small(t *testing.T, s *torture.Server, n int) {
	t.Helper()
	now := s.ResidentBytes()
	if t.Logf("%d MiB resident, %d at most", now>>20, s.PeakBytes()>>20); n >= undecidedMany && now > undecidedResidentMax {
		t.Errorf("%d MiB resident with %d undecided messages, more than %d", now>>20, n, undecidedResidentMax>>20)
	}
}
