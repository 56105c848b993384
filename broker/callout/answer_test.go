package callout

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestLongAnswers: what goes on is cut off at BodyMax, and the connection with it (O2).
func TestLongAnswers(t *testing.T) {
	gone := make(chan int, 16) // how much could be sent until the connection or stream was cut
	for name, h := range map[string]http.HandlerFunc{
		"3 MB": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "3000000")
			_, _ = w.Write(make([]byte, 3_000_000))
		},
		"without end": func(w http.ResponseWriter, r *http.Request) {
			for sent := 0; ; sent += 32 << 10 {
				if _, err := w.Write(make([]byte, 32<<10)); err != nil {
					gone <- sent
					return
				}
			}
		},
	} {
		for _, version := range []string{"HTTP/1.1", "HTTP/2.0"} {
			t.Run(name+" "+version, func(t *testing.T) {
				s := httptest.NewUnstartedServer(h)
				s.EnableHTTP2 = version == "HTTP/2.0"
				s.StartTLS()
				defer s.Close()
				c := open(t, Options{BodyMax: 100 << 10, TLS: trusting(s)})
				var before, after syscall.Rusage
				_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
				for range 5 {
					a := do(t, c, orders(s.URL), request)
					if a.Status != 200 || !a.Truncated || len(a.Body) != 100<<10 {
						t.Fatalf("answered %d, %d bytes, truncated %t", a.Status, len(a.Body), a.Truncated)
					}
				}
				_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
				if grown := after.Maxrss - before.Maxrss; grown > 64<<10 {
					t.Errorf("the process grew by %d KiB", grown)
				}
				if name == "without end" {
					for range 5 {
						if sent := <-gone; version == "HTTP/2.0" && sent > 1<<20 {
							t.Errorf("%d bytes were taken of an answer of which 100 KiB are read", sent)
						}
					}
				}
			})
		}
	}
	exact := serve(t, func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(make([]byte, 1000)) })
	if a := do(t, open(t, Options{BodyMax: 1000}), orders(exact), request); a.Truncated || len(a.Body) != 1000 {
		t.Errorf("BodyMax itself: %d bytes, truncated %t", len(a.Body), a.Truncated)
	}
}

// trusting trusts a server of the test.
func trusting(s *httptest.Server) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return &tls.Config{RootCAs: pool}
}

// TestHTTP2: over TLS it is spoken, and one connection serves many calls.
func TestHTTP2(t *testing.T) {
	var conns, calls atomic.Int64
	s := httptest.NewUnstartedServer(func() http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			calls.Add(1)
			fmt.Fprint(w, r.Proto)
		}
	}())
	s.EnableHTTP2 = true
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			conns.Add(1)
		}
	}
	s.StartTLS()
	defer s.Close()
	c := open(t, Options{TLS: trusting(s)})
	for range 20 {
		if a := do(t, c, orders(s.URL), request); string(a.Body) != "HTTP/2.0" {
			t.Fatalf("answered over %s", a.Body)
		}
	}
	if conns.Load() != 1 || calls.Load() != 20 {
		t.Errorf("%d connections for %d calls", conns.Load(), calls.Load())
	}
	// A certificate of nobody's is an error of the target's, which it can mend.
	err := fail(t, open(t, Options{}), orders(s.URL), request, errAny)
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); !ok {
		t.Errorf("%v", err)
	}
}

// TestCompressed: an answer that is packed is not unpacked, and none is asked for (O2).
func TestCompressed(t *testing.T) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write(make([]byte, 50<<20))
	_ = z.Close()
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Asked-For", r.Header.Get("Accept-Encoding"))
		_, _ = w.Write(packed.Bytes())
	})
	a := do(t, open(t, Options{}), orders(url), request)
	if !bytes.Equal(a.Body, packed.Bytes()) || a.Header.Get("Asked-For") != "" {
		t.Errorf("%d bytes of %d; %q was asked for", len(a.Body), packed.Len(), a.Header.Get("Asked-For"))
	}
}

// TestSlow: what comes drop by drop, or not at all, is given up in time (O2).
func TestSlow(t *testing.T) {
	drip := func(conn net.Conn, text string) {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for range tick.C {
			if _, err := io.WriteString(conn, text); err != nil {
				return
			}
		}
	}
	for name, talk := range map[string]func(net.Conn){
		"silence": func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) },
		"a head":  func(conn net.Conn) { _, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nX: "); drip(conn, "x") },
		"a body": func(conn net.Conn) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n")
			drip(conn, "x")
		},
		"chunks": func(conn net.Conn) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
			drip(conn, "1\r\nx\r\n")
		},
		"a chunk": func(conn net.Conn) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
			drip(conn, "0")
		},
		"trailers": func(conn net.Conn) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")
			drip(conn, "X: y\r\n")
		},
		"no end": func(conn net.Conn) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\nx")
			_, _ = io.Copy(io.Discard, conn)
		},
		"100s": func(conn net.Conn) { drip(conn, "HTTP/1.1 100 Continue\r\n\r\n") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := open(t, Options{})
			began := time.Now()
			r := request
			r.Timeout = 300 * time.Millisecond
			err := fail(t, c, orders(raw(t, talk)), r, errAny)
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("it took %s", took)
			}
			// Too many 100s and trailers without end are given up before their time.
			if !errors.Is(err, ErrTimeout) && name != "100s" && name != "trailers" {
				t.Errorf("%v is no timeout", err)
			}
		})
	}
}

// errAny is any error, for fail.
var errAny = errors.New("any error")

// TestNobodyReads: a target that takes no bytes of the request is given up in time (O2).
func TestNobodyReads(t *testing.T) {
	left := make(chan struct{})
	url := raw(t, func(conn net.Conn) { <-left })
	t.Cleanup(func() { close(left) })
	r := request
	r.Body, r.Timeout = make([]byte, 4<<20), 200*time.Millisecond
	fail(t, open(t, Options{}), orders(url), r, ErrTimeout)
}

// TestGarbage: what is no HTTP is no answer, and harms nothing (O2).
func TestGarbage(t *testing.T) {
	for name, text := range map[string]string{
		"noise":               "\x00\xff\x13garbage",
		"another protocol":    "SSH-2.0-OpenSSH_9.9\r\n",
		"nothing":             "",
		"half a head":         "HTTP/1.1 200",
		"a status of letters": "HTTP/1.1 abc OK\r\n\r\n",
		"two lengths":         "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
		"a negative length":   "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"a broken chunk":      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		"half a body":         "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
		"a long head":         "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: "+strings.Repeat("x", 1000)+"\r\n", 1000) + "\r\n",
		"a long line":         "HTTP/1.1 200 " + strings.Repeat("x", 1<<20) + "\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			url := raw(t, func(conn net.Conn) { _, _ = io.WriteString(conn, text) })
			fail(t, open(t, Options{}), orders(url), request, errAny)
		})
	}
}

// TestSwitchingProtocols: 101 hands over a connection that no context ends. It is an answer, and the connection is closed (O2).
func TestSwitchingProtocols(t *testing.T) {
	closed := make(chan struct{})
	url := raw(t, func(conn net.Conn) {
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
		_, _ = io.Copy(io.Discard, conn)
		close(closed)
	})
	if a := do(t, open(t, Options{}), orders(url), request); a.Status != 101 || len(a.Body) != 0 {
		t.Errorf("answered %d %q", a.Status, a.Body)
	}
	<-closed
}

// TestKeptConnectionClosed: a target may close a kept connection just when the next call is sent on it. The call is sent again, since it may be:
// otherwise each deployment of a target would look like a failure.
func TestKeptConnectionClosed(t *testing.T) {
	var requests atomic.Int64
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				head := make([]byte, 64<<10)
				for n := range 2 { // the first request is answered; the second is read, and the connection closed
					if _, err := conn.Read(head); err != nil {
						return
					}
					requests.Add(1)
					if n == 0 {
						_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
					}
				}
			}()
		}
	}()
	c := open(t, Options{})
	for range 5 {
		if a := do(t, c, orders("http://"+l.Addr().String()), request); string(a.Body) != "ok" {
			t.Errorf("answered %q", a.Body)
		}
	}
	if n := requests.Load(); n != 9 {
		t.Errorf("%d requests; each call but the first is sent twice", n)
	}
	if h := c.Health("orders/check"); h.Answering() != 1 {
		t.Errorf("it is taken for sick: %+v", h)
	}
}

// TestConnectionsAreKept: calls one after the other use one connection.
func TestConnectionsAreKept(t *testing.T) {
	var conns atomic.Int64
	s := httptest.NewUnstartedServer(status(200))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			conns.Add(1)
		}
	}
	s.Start()
	defer s.Close()
	c := open(t, Options{})
	for range 50 {
		do(t, c, orders(s.URL), request)
	}
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// TestRequest: what is sent is what was given.
func TestRequest(t *testing.T) {
	type seen struct {
		method, query string
		header        http.Header
		body          []byte
	}
	got := make(chan seen, 1)
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got <- seen{r.Method, r.URL.RawQuery, r.Header, body}
	})
	c := open(t, Options{Origin: "remit.example"})
	given := http.Header{"ce-type": {"a", "b"}, "Webhook-Signature": {"forged"}, "webhook-id": {"forged"}}
	a := do(t, c, orders(url+"/check?token=1#part"), Request{ID: "a.b/c%", ContentType: "text/plain", Header: given, Body: []byte("body")})
	s := <-got
	if s.method != "POST" || s.query != "token=1" || string(s.body) != "body" || a.URL != url+"/check" {
		t.Errorf("%+v", s)
	}
	for name, want := range map[string]string{
		"Content-Type": "text/plain", "User-Agent": "remit (remit.example)", "Webhook-Id": "a%2Eb/c%25", "Webhook-Signature": "",
		"Idempotency-Key": "", "Accept-Encoding": "", "Webhook-Request-Origin": "", "Referer": "",
	} {
		if got := strings.Join(s.header.Values(name), ","); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if v := s.header["Ce-Type"]; len(v) != 2 {
		t.Errorf("given headers came as %q", v)
	}
	if len(given) != 3 || given["Webhook-Signature"][0] != "forged" {
		t.Errorf("the request was changed: %v", given)
	}
	do(t, c, orders(url), Request{ID: "1", Method: "OPTIONS"})
	if s := <-got; s.method != "OPTIONS" || s.header.Get("WebHook-Request-Origin") != "remit.example" || len(s.body) != 0 {
		t.Errorf("consent is asked for by %+v", s)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		text, date string
		want       time.Duration
	}{
		{"", "", 0},
		{"0", "", 0},
		{"120", "", 2 * time.Minute},
		{"99999999999999999999", "", 0}, // no number
		{"9999999999", "", RetryAfterMax},
		{"-1", "", 0},
		{"soon", "", 0},
		{now.Add(90 * time.Second).Format(http.TimeFormat), "", 90 * time.Second},
		{now.Add(-time.Hour).Format(http.TimeFormat), "", 0},
		{now.Add(time.Hour).Format(http.TimeFormat), now.Add(59 * time.Minute).Format(http.TimeFormat), time.Minute}, // its clock is ahead
		{now.Add(1000 * time.Hour).Format(http.TimeFormat), "", RetryAfterMax},
	} {
		h := http.Header{}
		h.Set("Retry-After", c.text)
		h.Set("Date", c.date)
		if got := retryAfter(h, now); got != c.want {
			t.Errorf("%q at %q: %s, want %s", c.text, c.date, got, c.want)
		}
	}
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	if a := do(t, open(t, Options{}), orders(url), request); a.Status != 503 || a.RetryAfter != 7*time.Second {
		t.Errorf("answered %d, %s", a.Status, a.RetryAfter)
	}
}

// TestConnectInTime: DNS that is silent takes no longer than ConnectMax.
func TestConnectInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := New(Options{})
		if err != nil {
			t.Fatal(err)
		}
		silent := func(ctx context.Context, _, _ string) (net.Conn, error) {
			near, far := net.Pipe()
			go func() { _, _ = io.Copy(io.Discard, far) }()
			return near, nil
		}
		c.transport.DialContext = (&dialer{Dialer: net.Dialer{Timeout: c.opts.ConnectMax, Resolver: &net.Resolver{PreferGo: true, Dial: silent}}}).dial
		began := time.Now()
		err = fail(t, c, orders("http://orders.example"), request, ErrTimeout)
		if took := time.Since(began); took > c.opts.ConnectMax {
			t.Errorf("it took %s: %v", took, err)
		}
		if err := c.Close(ctx); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute) // of the bubble's: package net lets its lookups end by themselves
	})
}
