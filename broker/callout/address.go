package callout

import (
	"context"
	"net"
	"net/netip"
	"syscall"

	"code.dny.dev/ssrf"
)

// guard says which addresses may be connected to.
type guard struct {
	loopback, private bool // allowed
}

// reserved knows the special ranges of IANA's registries: for IPv6 all but global unicast, and 6to4 and Teredo, which have IPv4 addresses
// in them.
var reserved = ssrf.New(ssrf.WithAnyPort())

var (
	loopbackRanges = prefixes("127.0.0.0/8", "::1/128")
	// 100.64.0.0/10 is the carriers' own by name, and the network of many clusters in fact.
	privateRanges = prefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
	// nat64Range has IPv4 addresses in its last 32 bits (RFC 6052). The local one, 64:ff9b:1::/48, has them where the network likes, and is
	// never called.
	nat64Range = netip.MustParsePrefix("64:ff9b::/96")
	// metadata are addresses at which clouds hand credentials to whoever asks from within, and which lie in ranges that may be
	// allowed, or in public ones. 169.254.0.0/16 has most, and is never called as a whole.
	metadata = []netip.Addr{
		netip.MustParseAddr("100.100.100.200"), // Alibaba Cloud
		netip.MustParseAddr("168.63.129.16"),   // Azure
		netip.MustParseAddr("fd00:ec2::254"),   // AWS
		netip.MustParseAddr("fd20:ce::254"),    // Google Cloud
	}
)

func prefixes(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, t := range texts {
		all = append(all, netip.MustParsePrefix(t))
	}
	return all
}

func contain(ranges []netip.Prefix, ip netip.Addr) bool {
	for _, r := range ranges {
		if r.Contains(ip) {
			return true
		}
	}
	return false
}

// check returns why ip may not be connected to, and which field of Options would allow it. why is empty if it may.
func (g guard) check(ip netip.Addr) (why, allow string) {
	ip = ip.Unmap().WithZone("")
	for _, m := range metadata {
		if ip == m {
			return "where a cloud keeps its metadata", ""
		}
	}
	switch {
	case !ip.IsValid():
		return "which is no address", ""
	case contain(loopbackRanges, ip):
		return unless(g.loopback, "this machine itself", "AllowLoopback")
	case contain(privateRanges, ip):
		return unless(g.private, "a private network", "AllowPrivate")
	case nat64Range.Contains(ip):
		b := ip.As16()
		if why, allow = g.check(netip.AddrFrom4([4]byte(b[12:]))); why != "" {
			why = "which stands for an IPv4 address: " + why
		}
		return why, allow
	case reserved.SafeAddr(ip) != nil:
		return "no address of a public host", ""
	default:
		return "", ""
	}
}

// NeverCalled returns why the host of a URL can never be called, whatever Options allow. It is empty for a name, which is looked up with each
// call, and for an address that may be called, or may be if it is allowed.
func NeverCalled(host string) (why string) {
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return ""
	}
	why, _ = guard{loopback: true, private: true}.check(ip)
	return why
}

func unless(allowed bool, why, allow string) (string, string) {
	if allowed {
		return "", ""
	}
	return why, allow
}

// dialer connects to hosts whose addresses may be called.
type dialer struct {
	guard
	net.Dialer
}

// dial is a Transport's DialContext.
//
// INVARIANT: the address is looked at in ControlContext, which is called for each address after DNS and before connect, with the address that
// connect gets. A look at the name or at a lookup of one's own would be made again by the dialer, with whatever DNS says then.
func (d *dialer) dial(ctx context.Context, network, host string) (net.Conn, error) {
	safe := d.Dialer
	safe.ControlContext = func(_ context.Context, _, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return &AddressError{Host: host, Why: "of which no address can be read: " + address}
		}
		if why, allow := d.check(at.Addr()); why != "" {
			return &AddressError{Host: host, IP: at.Addr(), Why: why, Allow: allow}
		}
		return nil
	}
	return safe.DialContext(ctx, network, host)
}
