package httpapi

import (
	"net/http"
	"net/netip"
	"strings"

	"github.com/leasehold/leasehold/internal/errs"
)

// Proxies says which proxies in front of a listener are believed when they
// tell in X-Forwarded-For who the client is.
type Proxies struct {
	Believed []netip.Prefix // whose header counts
	HopSkips int            // entries to skip, from the end of the header
	// KeepOthers answers those that send the header and are not believed as
	// clients of their own, and KeepHeadless those that send none. Else they
	// are refused: behind a proxy all requests should come through it.
	KeepOthers, KeepHeadless bool
}

// Remote is a Config's Remote for a listener behind the proxies.
func (p Proxies) Remote(r *http.Request) (netip.AddrPort, error) {
	near := farEnd(r)
	lines := r.Header["X-Forwarded-For"]
	switch {
	case len(lines) == 0 && p.KeepHeadless:
		return near, nil
	case len(lines) == 0:
		return near, errs.New(errs.Invalid, "missing X-Forwarded-For header: this listener is behind a proxy and answers only through it")
	case !p.believes(near.Addr()) && p.KeepOthers:
		return near, nil
	case !p.believes(near.Addr()):
		return near, errs.New(errs.Invalid, "client address not authorized for X-Forwarded-For: list the proxy in x_forwarded_for_authorized_addrs")
	}
	hops := strings.Split(strings.Join(lines, ","), ",")
	i := len(hops) - 1 - p.HopSkips
	if i < 0 {
		return near, errs.New(errs.Invalid, "malformed X-Forwarded-For: it names %d hops, and x_forwarded_for_hop_skips is %d", len(hops), p.HopSkips)
	}
	client, err := hop(strings.TrimSpace(hops[i]))
	if err != nil {
		// Whoever is believed must make sense: taking the proxy for the
		// client would lend the proxy's address to everybody behind it.
		return near, errs.New(errs.Invalid, "malformed X-Forwarded-For: an entry is no address")
	}
	if client.Port() == 0 {
		client = netip.AddrPortFrom(client.Addr(), near.Port())
	}
	return client, nil
}

func (p Proxies) believes(a netip.Addr) bool {
	for _, n := range p.Believed {
		if n.Contains(a) {
			return true
		}
	}
	return false
}

// hop reads an address, which some proxies write with a port.
func hop(s string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return netip.AddrPortFrom(a.Unmap().WithZone(""), 0), nil
	}
	a, err := netip.ParseAddrPort(s)
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port()), err
}
