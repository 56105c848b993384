package callout

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// open makes a Caller that may call this machine, and closes it at the end.
func open(t testing.TB, o Options) *Caller {
	t.Helper()
	o.AllowLoopback = true
	return openClosed(t, o)
}

// openClosed makes one that may not.
func openClosed(t testing.TB, o Options) *Caller {
	t.Helper()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, end := context.WithCancel(context.Background())
		end() // what is still under way is cut off
		_ = c.Close(ctx)
	})
	return c
}

// serve starts a server on this machine and returns its URL.
func serve(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s.URL
}

// raw starts a server that is no HTTP server: each connection is handed to talk after the head of a request was read.
func raw(t testing.TB, talk func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var open sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	open.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
			open.Go(func() {
				defer conn.Close()
				head := make([]byte, 64<<10)
				if _, err := conn.Read(head); err == nil {
					talk(conn)
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, conn := range conns {
			conn.Close()
		}
		mu.Unlock()
		open.Wait()
	})
	return "http://" + l.Addr().String()
}

func orders(urls ...string) Target { return Target{Name: "orders/check", URLs: urls} }

var request = Request{ID: "m1", ContentType: "application/json", Body: []byte(`{"n":1}`)}

// do makes a call that must be answered.
func do(t testing.TB, c *Caller, to Target, r Request) Answer {
	t.Helper()
	a, err := c.Do(context.Background(), to, r)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// fail makes a call that must fail with want.
func fail(t testing.TB, c *Caller, to Target, r Request, want error) error {
	t.Helper()
	a, err := c.Do(context.Background(), to, r)
	if err == nil || want != errAny && !errors.Is(err, want) {
		t.Fatalf("answered %d, error %v; want %v", a.Status, err, want)
	}
	return err
}

// dns is a resolver that answers what say says: the n-th time, from 0 on, that a name is asked for its IPv4 addresses. It has no IPv6 ones.
func dns(t testing.TB, say func(name string, n int) []string) *net.Resolver {
	var mu sync.Mutex
	asked := map[string]int{}
	answer := func(query []byte) ([]byte, error) {
		var m dnsmessage.Message
		if err := m.Unpack(query); err != nil {
			return nil, err
		}
		q := m.Questions[0]
		m.Header = dnsmessage.Header{ID: m.ID, Response: true, RecursionAvailable: true}
		m.Additionals = nil
		if q.Type == dnsmessage.TypeA {
			mu.Lock()
			name := q.Name.String()
			n := asked[name]
			asked[name]++
			mu.Unlock()
			for _, ip := range say(name[:len(name)-1], n) {
				m.Answers = append(m.Answers, dnsmessage.Resource{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class},
					Body:   &dnsmessage.AResource{A: netip.MustParseAddr(ip).As4()},
				})
			}
		}
		return m.Pack()
	}
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe() // no packet connection: messages come with their length, as over TCP
		go func() {
			defer far.Close()
			for {
				var size [2]byte
				if _, err := io.ReadFull(far, size[:]); err != nil {
					return
				}
				query := make([]byte, binary.BigEndian.Uint16(size[:]))
				if _, err := io.ReadFull(far, query); err != nil {
					return
				}
				message, err := answer(query)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := far.Write(binary.BigEndian.AppendUint16(nil, uint16(len(message)))); err != nil {
					return
				}
				if _, err := far.Write(message); err != nil {
					return
				}
			}
		}()
		return near, nil
	}}
}

// pipes is a network within the test's process, for tests whose clock is not real. A host is a handler.
type pipes struct {
	mu    sync.Mutex
	hosts map[string]*pipeListener
}

type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l *pipeListener) Close() error   { close(l.closed); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// openPipes makes a Caller whose connections lead to hosts. It returns what closes both.
func openPipes(t testing.TB, o Options, hosts map[string]http.HandlerFunc) (*Caller, func()) {
	t.Helper()
	p := &pipes{hosts: map[string]*pipeListener{}}
	var servers []*http.Server
	for host, h := range hosts {
		l := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
		p.hosts[host+":80"] = l
		s := &http.Server{Handler: h}
		servers = append(servers, s)
		go func() { _ = s.Serve(l) }()
	}
	o.Dial = func(ctx context.Context, _, host string) (net.Conn, error) {
		p.mu.Lock()
		l := p.hosts[host]
		p.mu.Unlock()
		if l == nil {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
		}
		near, far := net.Pipe()
		select {
		case l.conns <- far:
			return near, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c, func() {
		if err := c.Close(context.Background()); err != nil {
			t.Error(err)
		}
		for _, s := range servers {
			_ = s.Close()
		}
	}
}

// eventually waits until what holds, for what no channel tells.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	limit := time.NewTimer(20 * time.Second)
	defer limit.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}

// status answers with one.
func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(code) }
}

// counted counts calls.
func counted(n *atomic.Int64, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		h(w, r)
	}
}

var ctx = context.Background()

// silence does not answer, until the client has gone. That is noticed only once the body is read.
func silence(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}
