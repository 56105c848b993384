package callout

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
)

// TestAddresses: what may be connected to, and what allows the rest (O1).
func TestAddresses(t *testing.T) {
	const loopback, private, never, always = "AllowLoopback", "AllowPrivate", "never", "always"
	for _, c := range []struct{ ips, allow string }{
		{"1.1.1.1 8.8.8.8 223.5.5.5 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 191.255.255.255", always},
		{"2606:4700:4700::1111 2a00:1450:4001::1 2400:3200::1 ::ffff:1.1.1.1 64:ff9b::1.1.1.1", always},
		{"127.0.0.1 127.255.255.255 ::1 ::ffff:127.0.0.1 64:ff9b::127.0.0.1", loopback},
		{"10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 100.127.255.255 fc00::1 fd12:3456::1 ::ffff:10.0.0.1 64:ff9b::c0a8:101", private},
		{"0.0.0.0 0.1.2.3 169.254.169.254 169.254.0.1 192.0.0.192 192.0.2.1 198.51.100.1 203.0.113.1 198.18.0.1 192.88.99.1 224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255", never},
		{":: fe80::1 fe80::1%eth0 fec0::1 ff02::1 ff0e::1 2001:db8::1 3fff::1 100::1 ::ffff:169.254.169.254 ::ffff:0.0.0.0 64:ff9b::a9fe:a9fe 64:ff9b::", never},
		{"2002:7f00:1:: 2002:a9fe:a9fe:: 2002:808:808:: 2001:0:53aa:64c::1 64:ff9b:1::1 ::127.0.0.1 ::ffff:0:127.0.0.1 5f00::1", never}, // IPv4 within IPv6, and segment routing
		{"100.100.100.200 168.63.129.16 fd00:ec2::254 fd20:ce::254 ::ffff:100.100.100.200 64:ff9b::6464:64c8", never},
	} {
		for _, text := range strings.Fields(c.ips) {
			ip := netip.MustParseAddr(text)
			for _, g := range []guard{{}, {loopback: true}, {private: true}, {true, true}} {
				may := c.allow == always || c.allow == loopback && g.loopback || c.allow == private && g.private
				why, allow := g.check(ip)
				if (why == "") != may {
					t.Errorf("%s with %+v: %q", ip, g, why)
				}
				if why := NeverCalled(text); (why != "") != (c.allow == never) {
					t.Errorf("%s is never called: %q", ip, why)
				}
				if want := c.allow; !may && allow != want && !(want == never && allow == "") {
					t.Errorf("%s is said to be allowed by %q, not %q", ip, allow, want)
				}
			}
		}
	}
	if why, _ := (guard{true, true}).check(netip.Addr{}); why == "" {
		t.Error("no address is allowed")
	}
	if why := NeverCalled("orders.example"); why != "" {
		t.Errorf("of a name it is known before it is looked up: %s", why)
	}
}

// embedded returns the IPv4 addresses that an IPv6 one may stand for.
func embedded(ip netip.Addr) (all []netip.Addr) {
	b := ip.As16()
	at := func(n int) { all = append(all, netip.AddrFrom4([4]byte(b[n:n+4]))) }
	switch {
	case netip.MustParsePrefix("64:ff9b::/96").Contains(ip), netip.MustParsePrefix("::/96").Contains(ip), ip.Is4In6():
		at(12)
	case netip.MustParsePrefix("2002::/16").Contains(ip):
		at(2)
	}
	return all
}

// FuzzAddress holds the guard to what package netip knows, which it does not ask.
func FuzzAddress(f *testing.F) {
	for _, text := range []string{"1.1.1.1", "127.0.0.1", "169.254.169.254", "::ffff:7f00:1", "64:ff9b::7f00:1", "2002:7f00:1::", "fe80::1", "fd00::1", "2606:4700::1"} {
		f.Add(netip.MustParseAddr(text).AsSlice(), true, false)
	}
	f.Fuzz(func(t *testing.T, bytes []byte, loopback, private bool) {
		ip, ok := netip.AddrFromSlice(bytes)
		if !ok {
			return
		}
		g := guard{loopback, private}
		why, _ := g.check(ip)
		if why != "" {
			if open, _ := (guard{true, true}).check(ip); open != "" && ip.Is4() && ip.IsGlobalUnicast() && !ip.IsPrivate() && !ip.IsLinkLocalUnicast() && ip.As4()[0] < 192 && ip.As4()[0] != 0 && !contain(privateRanges, ip) && ip != metadata[1] {
				t.Errorf("%s is a public host's address: %s", ip, why)
			}
			return
		}
		for _, a := range append(embedded(ip), ip, ip.Unmap()) {
			switch {
			case a.IsLoopback() && !loopback, a.IsPrivate() && !private:
				t.Errorf("%s is called, and stands for %s", ip, a)
			case a.IsUnspecified(), a.IsMulticast(), a.IsLinkLocalUnicast(), a.IsLinkLocalMulticast(), a.IsInterfaceLocalMulticast():
				t.Errorf("%s is called, and stands for %s", ip, a)
			}
		}
		if x, y := g.check(ip.Unmap()); x != "" {
			t.Errorf("%s is called, and %s not: %s %s", ip, ip.Unmap(), x, y)
		}
	})
}

// TestForbiddenBeforeConnect: nothing is connected to before its address was looked at, however it is written (O1).
func TestForbiddenBeforeConnect(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var came atomic.Int64
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			came.Add(1)
			conn.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	c := openClosed(t, Options{BreakerFailures: 1, Resolver: dns(t, func(string, int) []string { return []string{"127.0.0.1"} })})
	for _, host := range []string{"127.0.0.1", "127.1.2.3", "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "localhost", "orders.example"} {
		err := fail(t, c, orders("http://"+host+":"+port+"/check"), request, ErrForbiddenAddress)
		var at *AddressError
		if !errors.As(err, &at) || !strings.HasSuffix(at.Host, ":"+port) || !at.IP.IsValid() {
			t.Errorf("%s: %#v", host, at)
		}
	}
	for _, host := range []string{"2130706433", "0x7f.1", "017700000001"} { // which C reads as 127.0.0.1
		if a, err := c.Do(ctx, Target{Name: host, URLs: []string{"http://" + host + ":" + port}}, request); err == nil {
			t.Errorf("%s answered %d", host, a.Status)
		}
	}
	if n := came.Load(); n != 0 {
		t.Errorf("%d connections were made", n)
	}
	if c.Health("orders/check").Open {
		t.Error("a forbidden address has opened the breaker: who asks next would not hear of it")
	}
	if err := fail(t, c, orders("http://orders.example:"+port), request, ErrForbiddenAddress); !strings.Contains(err.Error(), "orders.example:"+port+" leads to 127.0.0.1, this machine itself: called only with AllowLoopback, which is `remit serve --calls-to loopback`") {
		t.Errorf("it is said so: %v", err)
	}
}

// TestRebinding: DNS that answers well once and badly later gets nowhere (O1).
func TestRebinding(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close") // so that each call connects anew
	})
	_, port, _ := strings.Cut(strings.TrimPrefix(url, "http://"), ":")
	lies := []string{"127.0.0.1", "169.254.169.254", "10.0.0.1", "0.0.0.0", "127.0.0.1"}
	c := open(t, Options{Resolver: dns(t, func(_ string, n int) []string { return lies[n : n+1] })})
	to := orders("http://orders.example:" + port)
	for n, ip := range lies {
		if ip == "127.0.0.1" {
			do(t, c, to, request)
			continue
		}
		err := fail(t, c, to, request, ErrForbiddenAddress)
		var at *AddressError
		if !errors.As(err, &at) || at.IP.String() != ip {
			t.Errorf("lookup %d: %v", n, err)
		}
	}
}

// TestOneOfManyAddresses: of several addresses those that are allowed are used.
func TestOneOfManyAddresses(t *testing.T) {
	url := serve(t, status(200))
	_, port, _ := strings.Cut(strings.TrimPrefix(url, "http://"), ":")
	c := open(t, Options{Resolver: dns(t, func(string, int) []string { return []string{"169.254.169.254", "127.0.0.1", "10.0.0.1"} })})
	do(t, c, orders("http://orders.example:"+port), request)
}

// TestNoProxy: the environment's proxy is not asked; it would connect to what it likes (O1).
func TestNoProxy(t *testing.T) {
	var proxied atomic.Int64
	proxy := serve(t, counted(&proxied, status(200)))
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"} {
		t.Setenv(name, proxy)
	}
	_, port, _ := strings.Cut(strings.TrimPrefix(serve(t, status(204)), "http://"), ":")
	c := open(t, Options{Resolver: dns(t, func(string, int) []string { return []string{"127.0.0.1"} })})
	if a := do(t, c, orders("http://orders.example:"+port), request); a.Status != 204 || proxied.Load() != 0 {
		t.Errorf("answered %d, the proxy was asked %d times", a.Status, proxied.Load())
	}
}

// TestRedirect: no redirect is followed. It is an answer (O1).
func TestRedirect(t *testing.T) {
	var followed atomic.Int64
	elsewhere := serve(t, counted(&followed, status(200)))
	for _, to := range []string{"http://169.254.169.254/latest/meta-data/", elsewhere} {
		for _, code := range []int{301, 302, 303, 307, 308} {
			url := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, code) })
			a := do(t, open(t, Options{}), orders(url), request)
			if a.Status != code || a.Header.Get("Location") != to {
				t.Errorf("answered %d %v", a.Status, a.Header)
			}
		}
	}
	if n := followed.Load(); n != 0 {
		t.Errorf("%d were followed", n)
	}
}

// TestBadTargets: what cannot be called is refused before anything is sent.
func TestBadTargets(t *testing.T) {
	c := open(t, Options{URLsMax: 2})
	for name, to := range map[string]Target{
		"no URL":          orders(),
		"too many":        orders("http://a", "http://b", "http://c"),
		"no host":         orders("http:///check"),
		"a port alone":    orders("http://:80/check"),
		"a password":      orders("http://user:password@orders.example"),
		"another scheme":  orders("gopher://orders.example"),
		"a file":          orders("file:///etc/passwd"),
		"no scheme":       orders("orders.example/check"),
		"a control":       orders("http://orders.example/\n"),
		"no base64":       {Name: "x", URLs: []string{"http://a"}, Secrets: []string{"whsec_***"}},
		"an empty secret": {Name: "x", URLs: []string{"http://a"}, Secrets: []string{""}},
		"a bare prefix":   {Name: "x", URLs: []string{"http://a"}, Secrets: []string{"whsec_"}},
	} {
		t.Run(name, func(t *testing.T) {
			fail(t, c, to, request, ErrBadTarget)
		})
	}
	for name, r := range map[string]Request{
		"no id":          {},
		"a long id":      {ID: strings.Repeat("x", 1025)},
		"a method":       {ID: "1", Method: "NO WAY"},
		"a content type": {ID: "1", ContentType: "a\r\nb: c"},
		"a header":       {ID: "1", Header: http.Header{"A": {"b\r\nc: d"}}},
		"a name":         {ID: "1", Header: http.Header{"A B": {"c"}}},
		"a timeout":      {ID: "1", Timeout: c.opts.TimeoutMax + 1},
	} {
		t.Run(name, func(t *testing.T) { fail(t, c, orders("http://127.0.0.1:1"), r, ErrBadRequest) })
	}
	fail(t, c, orders("http://127.0.0.1:1"), Request{ID: "1", Body: make([]byte, 4<<20+1)}, ErrTooLarge)
	if len(c.targets) != 0 {
		t.Errorf("%d targets are kept of what was refused", len(c.targets))
	}
}

func ExampleAddressError() {
	c, err := New(Options{})
	if err != nil {
		panic(err)
	}
	_, err = c.Do(ctx, Target{Name: "orders/check", URLs: []string{"http://169.254.169.254/check"}}, Request{ID: "1"})
	fmt.Println(err)
	// Output: callout: target "orders/check": http://169.254.169.254/check: dial tcp 169.254.169.254:80: 169.254.169.254:80 leads to 169.254.169.254, no address of a public host: never called
}
