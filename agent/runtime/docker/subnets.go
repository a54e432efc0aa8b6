package docker

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// containerLinks begin the names of interfaces that lead to containers: those
// of engines' own bridges, ours included, and of pairs into namespaces.
var containerLinks = []string{"docker", "br-", "veth", "ecs-", "cni", "virbr"}

// deniedNetworks reads Config.EgressDeny.
func deniedNetworks(deny []string) ([]netip.Prefix, error) {
	if deny == nil {
		return connectedSubnets()
	}
	var found []netip.Prefix
	for _, text := range deny {
		p, err := netip.ParsePrefix(text)
		if err != nil || !p.Addr().Is4() {
			return nil, fmt.Errorf("denied network %q is no IPv4 network (want 10.0.0.0/8)", text)
		}
		found = append(found, p.Masked())
	}
	return tidied(found), nil
}

// connectedSubnets are the private networks that this machine is in.
func connectedSubnets() ([]netip.Prefix, error) {
	links, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var found []netip.Prefix
	for _, link := range links {
		addrs, err := link.Addrs()
		if err != nil {
			continue // it went away meanwhile
		}
		found = append(found, privateSubnets(link, addrs)...)
	}
	return tidied(found), nil
}

// privateSubnets are the private IPv4 networks that a link leads to.
func privateSubnets(link net.Interface, addrs []net.Addr) []netip.Prefix {
	if link.Flags&net.FlagUp == 0 || link.Flags&net.FlagLoopback != 0 {
		return nil
	}
	if slices.ContainsFunc(containerLinks, func(begin string) bool { return strings.HasPrefix(link.Name, begin) }) {
		return nil
	}
	var found []netip.Prefix
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && p.Addr().Is4() && p.Addr().IsPrivate() {
			found = append(found, p.Masked())
		}
	}
	return found
}

// tidied are the networks in order, each once.
func tidied(networks []netip.Prefix) []netip.Prefix {
	slices.SortFunc(networks, func(a, b netip.Prefix) int { return strings.Compare(a.String(), b.String()) })
	return slices.Compact(networks)
}
