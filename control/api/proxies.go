package api

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// ParseProxies reads addresses and prefixes, such as 10.0.0.2 and 35.191.0.0/16.
func ParseProxies(list []string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, text := range list {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			var addr netip.Addr
			if addr, err = netip.ParseAddr(text); err == nil {
				prefix = netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen())
			}
		}
		if err != nil {
			return nil, err
		}
		all = append(all, prefix.Masked())
	}
	return all, nil
}

// proxied puts into r, a copy, where a request came from when a trusted proxy
// brought it: the last hop of X-Forwarded-For that is none. Whatever stands before
// that hop its sender made up. secure reports whether the last proxy was spoken to
// over TLS.
func proxied(r *http.Request, trusted []netip.Prefix) (secure bool) {
	if len(trusted) == 0 || !among(hop(r.RemoteAddr), trusted) {
		return false
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0; i-- {
		addr := hop(hops[i])
		if !addr.IsValid() {
			break
		}
		r.RemoteAddr = net.JoinHostPort(addr.String(), "0")
		if !among(addr, trusted) {
			break
		}
	}
	return strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https")
}

// hop reads an address with or without a port; the zero one is none.
func hop(text string) netip.Addr {
	text = strings.TrimSpace(text)
	if addr, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil {
		return addr.Unmap().WithZone("")
	}
	if both, err := netip.ParseAddrPort(text); err == nil {
		return both.Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

func among(addr netip.Addr, list []netip.Prefix) bool {
	for _, p := range list {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}
