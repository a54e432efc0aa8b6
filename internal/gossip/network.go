package gossip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/hashicorp/memberlist"
)

// network is the transport as memberlist gets it. Its dials end with the
// member, and it resolves names itself: memberlist would ask name servers for
// everything they have, and for as long as they like.
type network struct {
	memberlist.Transport
	life          context.Context
	advertiseIP   string // empty: what is bound
	advertisePort int
}

// openNetwork takes the transport given, or listens on BindAddr.
func (m *Members) openNetwork(life context.Context) (*network, error) {
	n := &network{Transport: m.cfg.Transport, life: life}
	if n.Transport != nil {
		return n, nil
	}
	host, port, err := splitAddr(m.cfg.BindAddr)
	if err != nil {
		return nil, fmt.Errorf("address %q to listen on: %w", m.cfg.BindAddr, err)
	}
	if host == "" {
		host = "0.0.0.0"
	}
	if net.ParseIP(host) == nil {
		return nil, fmt.Errorf("address %q to listen on: an IP address and a port are needed", m.cfg.BindAddr)
	}
	if m.cfg.AdvertiseAddr != "" {
		if n.advertiseIP, n.advertisePort, err = splitAddr(m.cfg.AdvertiseAddr); err != nil {
			return nil, fmt.Errorf("address %q to advertise: %w", m.cfg.AdvertiseAddr, err)
		}
		if net.ParseIP(n.advertiseIP) == nil {
			return nil, fmt.Errorf("address %q to advertise: an IP address and a port are needed", m.cfg.AdvertiseAddr)
		}
	}
	n.Transport, err = memberlist.NewNetTransport(&memberlist.NetTransportConfig{
		BindAddrs: []string{host}, BindPort: port, Logger: stdLogger(m.cfg.Logger),
	})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", m.cfg.BindAddr, err)
	}
	return n, nil
}

// DialTimeout implements memberlist.Transport.
func (n *network) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(n.life, timeout)
	defer cancel()
	switch t := n.Transport.(type) {
	case *memTransport:
		return t.dial(ctx, addr)
	case *memberlist.NetTransport:
		var dialer net.Dialer
		return dialer.DialContext(ctx, "tcp", addr)
	}
	return n.Transport.DialTimeout(addr, timeout)
}

// resolve gives the addresses of host:port as memberlist writes them.
func (n *network) resolve(ctx context.Context, addr string) ([]string, error) {
	host, port, err := splitAddr(addr)
	if err != nil {
		return nil, err
	}
	if ip := net.ParseIP(host); ip != nil {
		return []string{joinAddr(ip, port)}, nil
	}
	if _, ok := n.Transport.(*memTransport); ok {
		ip, err := memIP(host)
		return []string{joinAddr(ip, port)}, err
	}
	ips, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		return nil, err
	}
	var addrs []string
	for _, ip := range ips {
		addrs = append(addrs, joinAddr(ip.IP, port))
	}
	return addrs, nil
}

func splitAddr(addr string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	port, err = strconv.Atoi(text)
	if err != nil || port < 0 || port > 65535 {
		return "", 0, errors.New("the port is a number up to 65535")
	}
	return host, port, nil
}

func joinAddr(ip net.IP, port int) string { return net.JoinHostPort(ip.String(), strconv.Itoa(port)) }

func addrOf(n *memberlist.Node) string { return joinAddr(n.Addr, int(n.Port)) }
