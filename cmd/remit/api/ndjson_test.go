package api

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/go-json-experiment/json"
)

type lineBody struct {
	ID string `json:"id"`
}

type lineAnswer struct {
	Line   int       `json:"line"`
	Status int       `json:"status"`
	Thing  *lineBody `json:"thing"`
	Prob   *struct {
		Code  Code   `json:"code"`
		Field string `json:"field"`
	} `json:"problem"`
}

func (a lineAnswer) String() string {
	switch {
	case a.Prob != nil:
		return fmt.Sprintf("%d %d %s %s", a.Line, a.Status, a.Prob.Code, a.Prob.Field)
	case a.Thing != nil:
		return fmt.Sprintf("%d %d %s", a.Line, a.Status, a.Thing.ID)
	default:
		return fmt.Sprintf("%d %d nothing", a.Line, a.Status)
	}
}

// echo answers with what the line says.
func echo(l *Line) {
	var b lineBody
	if err := l.Decode(&b); err != nil {
		l.Fail(err)
		return
	}
	l.Answer(http.StatusCreated, &b)
}

func streamRoutes(begin func(*Line)) []Route {
	return []Route{{Method: "POST", Pattern: "/v1/things:batch", Name: "batchThings", Streams: true,
		Handler: func(w http.ResponseWriter, r *http.Request) error { return Stream(w, r, "thing", begin) }}}
}

// streamServer serves begin over HTTP/1.1 and cleartext HTTP/2.
func streamServer(t testing.TB, begin func(*Line)) (*httptest.Server, *Server) {
	t.Helper()
	return serveRoutes(t, streamRoutes(begin))
}

func serveRoutes(t testing.TB, routes []Route) (*httptest.Server, *Server) {
	t.Helper()
	s := newTestServer(t, Options{Routes: routes})
	server := httptest.NewUnstartedServer(s)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	return server, s
}

// eachProtocol runs f with a client of each protocol.
func eachProtocol(t *testing.T, f func(t *testing.T, client *http.Client)) {
	for name, set := range map[string]func(*http.Protocols){
		"HTTP/1.1": func(p *http.Protocols) { p.SetHTTP1(true) },
		"h2c":      func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) },
	} {
		t.Run(name, func(t *testing.T) {
			p := new(http.Protocols)
			set(p)
			transport := &http.Transport{Protocols: p}
			defer transport.CloseIdleConnections()
			f(t, &http.Client{Transport: transport})
		})
	}
}

func postLines(t testing.TB, client *http.Client, url string, body io.Reader) *http.Response {
	t.Helper()
	resp, err := client.Post(url+"/v1/things:batch", NDJSONType, body)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

func readAnswers(t testing.TB, r io.Reader) []string {
	t.Helper()
	var all []string
	for in := bufio.NewScanner(r); in.Scan(); {
		var a lineAnswer
		if err := json.Unmarshal(in.Bytes(), &a); err != nil {
			t.Fatalf("%v: %s", err, in.Bytes())
		}
		all = append(all, a.String())
	}
	return all
}

// TestStreamLines proves H3: each line answers for itself, in order.
func TestStreamLines(t *testing.T) {
	long := strings.Repeat("x", BodyMax)
	fits := `{"id":"` + strings.Repeat("y", BodyMax-len(`{"id":""}`)) + `"}`
	body := strings.Join([]string{
		`{"id":"a"}`,
		``,
		"{\"id\":\"b\"}\r",
		`{"idd":"c"}`,
		`{"id":"` + long + `"}`,
		`not json`,
		`{"id":"panic"}`,
		long + long + long,
		fits,
		`{"id":"last"}`, // without an end of line
	}, "\n")
	want := []string{
		"1 201 a", "3 201 b", "4 400 unknown_field idd", "5 413 too_large ", "6 400 invalid_body ",
		"7 500 internal ", "8 413 too_large ", "9 201 " + fits[7:len(fits)-2], "10 201 last",
	}
	server, _ := streamServer(t, func(l *Line) {
		if strings.Contains(string(l.Text), "panic") {
			panic("at this line")
		}
		echo(l)
	})
	eachProtocol(t, func(t *testing.T, client *http.Client) {
		resp := postLines(t, client, server.URL, strings.NewReader(body))
		in := bufio.NewReaderSize(resp.Body, 2*BodyMax)
		for i, want := range want {
			text, err := in.ReadBytes('\n')
			if err != nil {
				t.Fatal(i, err)
			}
			var a lineAnswer
			if err := json.Unmarshal(text, &a); err != nil {
				t.Fatal(err)
			}
			if got := a.String(); got != want {
				t.Errorf("%.100s, want %.100s", got, want)
			}
		}
		if rest, _ := io.ReadAll(in); len(rest) != 0 {
			t.Errorf("and then %q", rest)
		}
	})
}

// TestStreamOrder: answers come in the order of the lines though the work is done in any.
func TestStreamOrder(t *testing.T) {
	const n = 5000
	work := make(chan *Line, n)
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			held := []*Line{}
			for l := range work {
				if held = append(held, l); len(held) == 4 || l.N > n-40 {
					rand.Shuffle(len(held), func(i, j int) { held[i], held[j] = held[j], held[i] })
					for _, l := range held {
						echo(l)
					}
					held = held[:0]
				}
			}
			for _, l := range held {
				echo(l)
			}
		})
	}
	begun := 0
	server, _ := streamServer(t, func(l *Line) {
		if begun++; l.N != begun {
			t.Errorf("line %d began as number %d", l.N, begun)
		}
		if work <- l; l.N == n {
			close(work)
		}
	})
	var body bytes.Buffer
	for i := range n {
		fmt.Fprintf(&body, "{\"id\":\"t-%d\"}\n", i+1)
	}
	answers := readAnswers(t, postLines(t, http.DefaultClient, server.URL, &body).Body)
	workers.Wait()
	if len(answers) != n {
		t.Fatalf("%d answers", len(answers))
	}
	for i, a := range answers {
		if want := fmt.Sprintf("%d 201 t-%d", i+1, i+1); a != want {
			t.Fatalf("%s, want %s", a, want)
		}
	}
}

// TestStreamBothWays: a client that waits for each answer before it sends the next line gets it.
func TestStreamBothWays(t *testing.T) {
	server, _ := streamServer(t, func(l *Line) { go echo(l) })
	eachProtocol(t, func(t *testing.T, client *http.Client) {
		r, w := io.Pipe()
		resp := postLines(t, client, server.URL, r) // returns before anything is sent
		in := bufio.NewScanner(resp.Body)
		for i := range 100 {
			fmt.Fprintf(w, "{\"id\":\"%d\"}\n", i)
			if !in.Scan() || !strings.Contains(in.Text(), strconv.Itoa(i)) {
				t.Fatalf("line %d: %q %v", i, in.Text(), in.Err())
			}
		}
		_ = w.Close()
		if in.Scan() {
			t.Errorf("and then %q", in.Text())
		}
	})
}

// TestStreamSendFirst: AnswersMax lines can be sent before an answer is read; then no further line is begun
// until one is.
func TestStreamSendFirst(t *testing.T) {
	gate := make(chan struct{})
	var begun atomic.Int64
	full := make(chan struct{})
	w := &gatedWriter{ResponseRecorder: httptest.NewRecorder(), gate: gate}
	body := strings.NewReader(strings.Repeat(`{"id":"a"}`+"\n", 3*AnswersMax))
	r := httptest.NewRequest("POST", "/", body)
	r.Header.Set("Content-Type", NDJSONType)
	done := make(chan error)
	go func() {
		done <- Stream(w, r, "thing", func(l *Line) {
			if begun.Add(1) == AnswersMax {
				close(full)
			}
			echo(l)
		})
	}()
	<-full // AnswersMax lines were begun though nothing could be written
	// What writeAnswers has taken into its buffer counts as on its way, so a few more are begun; that buffer is small.
	if n := int(begun.Load()); n > AnswersMax+chunkSize/len(`{"line":1,"status":201,"thing":{"id":"a"}}`)+1 {
		t.Errorf("%d lines were begun with no answer read", n)
	}
	close(gate)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if n := begun.Load(); n != 3*AnswersMax {
		t.Errorf("%d lines were begun in the end", n)
	}
	if n := strings.Count(w.Body.String(), "\n"); n != 3*AnswersMax {
		t.Errorf("%d answers", n)
	}
}

// gatedWriter is a client that does not read until the gate opens.
type gatedWriter struct {
	*httptest.ResponseRecorder
	gate chan struct{}
}

func (w *gatedWriter) Write(b []byte) (int, error) {
	<-w.gate
	return w.ResponseRecorder.Write(b)
}

// TestStreamCutOff: what a client did not finish sending is not begun, and what it did is answered.
func TestStreamCutOff(t *testing.T) {
	var begun []string
	body := io.MultiReader(strings.NewReader("{\"id\":\"a\"}\n{\"id\":\"b\"}"), iotest.ErrReader(io.ErrUnexpectedEOF))
	w := httptest.NewRecorder()
	r := httptest.NewRequest("POST", "/", body)
	r.Header.Set("Content-Type", NDJSONType)
	err := Stream(w, r, "thing", func(l *Line) {
		begun = append(begun, string(l.Text))
		echo(l)
	})
	if err != nil || len(begun) != 1 || strings.Count(w.Body.String(), "\n") != 1 {
		t.Errorf("%v: begun %v, answered %s", err, begun, w.Body)
	}
}

// TestStreamClientLeaves: the stream ends, the lines are told, and it waits for what was begun.
func TestStreamClientLeaves(t *testing.T) {
	eachProtocol(t, func(t *testing.T, client *http.Client) {
		began, ended := make(chan struct{}), make(chan struct{})
		s := newTestServer(t, Options{})
		s.mux.Handle("POST /v1/things:batch", s.handle(Route{Name: "batch", Streams: true, Handler: func(w http.ResponseWriter, r *http.Request) error {
			defer close(ended)
			return Stream(w, r, "thing", func(l *Line) {
				close(began)
				go func() {
					<-l.Context().Done()
					l.Fail(context.Cause(l.Context()))
				}()
			})
		}}))
		server := httptest.NewUnstartedServer(s)
		server.Config.Protocols = new(http.Protocols)
		server.Config.Protocols.SetHTTP1(true)
		server.Config.Protocols.SetUnencryptedHTTP2(true)
		server.Start()
		defer server.Close()

		ctx, leave := context.WithCancel(t.Context())
		body, w := io.Pipe()
		req, _ := http.NewRequestWithContext(ctx, "POST", server.URL+"/v1/things:batch", body)
		req.Header.Set("Content-Type", NDJSONType)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		_, _ = io.WriteString(w, "{\"id\":\"a\"}\n")
		<-began
		leave()
		_ = w.CloseWithError(errors.New("left"))
		<-ended
	})
}

// TestStreamDrain: a stream that waits for lines ends when the server drains.
func TestStreamDrain(t *testing.T) {
	server, s := streamServer(t, echo)
	eachProtocol(t, func(t *testing.T, client *http.Client) {
		if s.draining.Load() { // the second protocol needs a server of its own
			server, s = streamServer(t, echo)
		}
		r, w := io.Pipe()
		defer w.Close()
		resp := postLines(t, client, server.URL, r)
		in := bufio.NewReader(resp.Body)
		_, _ = io.WriteString(w, "{\"id\":\"a\"}\n")
		if text, err := in.ReadString('\n'); err != nil || !strings.Contains(text, `"a"`) {
			t.Fatal(text, err)
		}
		s.Drain()
		if rest, err := io.ReadAll(in); len(rest) != 0 {
			t.Errorf("%q %v", rest, err)
		}
	})
}

// TestStreamDrainAnswers: what was begun when the server drains is answered as it ends, and not given up: also while the client sends on, and
// when it has sent everything.
func TestStreamDrainAnswers(t *testing.T) {
	for _, sending := range []bool{true, false} {
		eachProtocol(t, func(t *testing.T, client *http.Client) {
			begun, calls := make(chan *Line), make(chan context.Context, 1)
			server, s := serveRoutes(t, []Route{{Method: "POST", Pattern: "/v1/things:batch", Name: "batchThings", Streams: true,
				Handler: func(w http.ResponseWriter, r *http.Request) error {
					calls <- r.Context()
					return Stream(w, r, "thing", func(l *Line) { begun <- l })
				}}})
			r, w := io.Pipe()
			defer w.Close()
			go func() {
				_, _ = io.WriteString(w, "{\"id\":\"a\"}\n{\"id\":\"b\"}\n")
				if !sending {
					_ = w.Close()
				}
			}()
			resp := postLines(t, client, server.URL, r)
			lines := []*Line{<-begun, <-begun}
			s.Drain()
			if call := <-calls; resp.ProtoMajor == 1 {
				<-call.Done() // to net/http the client has left
			}
			for _, l := range lines {
				l.stream.clientLeft()
				if err := l.Context().Err(); err != nil {
					t.Errorf("sending %v: line %d is given up: %v", sending, l.N, err)
				}
				echo(l)
			}
			if got := readAnswers(t, resp.Body); !slices.Equal(got, []string{"1 201 a", "2 201 b"}) {
				t.Errorf("sending %v: %q", sending, got)
			}
		})
	}
}

// TestStreamExpectContinue: with Expect, 100 Continue comes before the answer.
func TestStreamExpectContinue(t *testing.T) {
	server, _ := streamServer(t, echo)
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	line := "{\"id\":\"a\"}\n"
	fmt.Fprintf(conn, "POST /v1/things:batch HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", NDJSONType, len(line))
	in := bufio.NewReader(conn)
	if first, _ := in.ReadString('\n'); !strings.HasPrefix(first, "HTTP/1.1 100") {
		t.Fatalf("first %q", first)
	}
	_, _ = in.ReadString('\n')
	_, _ = io.WriteString(conn, line)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := readAnswers(t, resp.Body); len(got) != 1 || got[0] != "1 201 a" {
		t.Errorf("%v", got)
	}
}

// TestStreamType: a stream of another type is not begun.
func TestStreamType(t *testing.T) {
	server, _ := streamServer(t, echo)
	resp, err := http.Post(server.URL+"/v1/things:batch", "application/json", strings.NewReader("{}\n"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); resp.StatusCode != 415 || !strings.Contains(string(b), NDJSONType) {
		t.Errorf("%d %s", resp.StatusCode, b)
	}
}

// TestLineAnswersOnce: the first answer counts, a later one changes nothing.
func TestLineAnswersOnce(t *testing.T) {
	w := httptest.NewRecorder()
	r := httptest.NewRequest("POST", "/", strings.NewReader("{\"id\":\"a\"}\n{\"id\":\"b\"}\n"))
	r.Header.Set("Content-Type", NDJSONType)
	err := Stream(w, r, "thing", func(l *Line) {
		echo(l)
		l.Fail(errors.New("too late"))
		if l.N == 2 {
			panic("too late as well")
		}
	})
	if got := readAnswers(t, w.Body); err != nil || fmt.Sprint(got) != "[1 201 a 2 201 b]" {
		t.Errorf("%v %v", got, err)
	}
}

// TestLineReader cuts the same lines whatever the reads give.
func TestLineReader(t *testing.T) {
	text := "a\n\nbb\r\n" + strings.Repeat("c", chunkSize-3) + "\n" + strings.Repeat("d", 3*chunkSize) + "\n" +
		strings.Repeat("e", BodyMax) + "\r\n" + strings.Repeat("f", BodyMax+1) + "\ng\n" + strings.Repeat("h", 3*BodyMax)
	want := []int{1, 0, 2, chunkSize - 3, 3 * chunkSize, BodyMax, -1, 1, -1}
	for name, r := range map[string]io.Reader{
		"whole":         strings.NewReader(text),
		"half":          iotest.HalfReader(strings.NewReader(text)),
		"data with EOF": iotest.DataErrReader(strings.NewReader(text)),
		"odd":           &oddReader{strings.NewReader(text)},
	} {
		in := lineReader{r: r}
		var got []int
		for {
			line, err := in.next()
			if errors.Is(err, errLineTooLong) {
				got = append(got, -1)
				continue
			}
			if err != nil {
				break
			}
			got = append(got, len(line))
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

type oddReader struct{ r io.Reader }

func (o *oddReader) Read(b []byte) (int, error) { return o.r.Read(b[:min(len(b), 1009)]) }

// BenchmarkStream is one line of a stream, decoded, answered from another goroutine, encoded, over a real connection.
func BenchmarkStream(b *testing.B) {
	server, _ := streamServer(b, func(l *Line) { go echo(l) })
	const line = `{"id":"order-123456789012345678901234567890"}` + "\n"
	r, w := io.Pipe()
	resp := postLines(b, http.DefaultClient, server.URL, r)
	b.ReportAllocs()
	b.ResetTimer()
	go func() {
		out := bufio.NewWriterSize(w, 32<<10)
		for range b.N {
			_, _ = out.WriteString(line)
		}
		_ = out.Flush()
		_ = w.Close()
	}()
	n := 0
	for in := bufio.NewScanner(resp.Body); in.Scan(); {
		n++
	}
	if n != b.N {
		b.Fatalf("%d answers", n)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lines/s")
}
