package gossip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"ecs/internal/memnet"
)

// memberlist speaks of members by IP address, memnet of hosts by name: a host's
// name of up to 14 bytes is written into an IPv6 address behind this prefix.
var memPrefix = []byte{0xfd, 0xec}

func memIP(name string) (net.IP, error) {
	if len(name) > net.IPv6len-len(memPrefix) {
		return nil, fmt.Errorf("host name %q is too long for a gossip address in memory", name)
	}
	ip := make(net.IP, net.IPv6len)
	copy(ip, memPrefix)
	copy(ip[len(memPrefix):], name)
	return ip, nil
}

func memName(host string) string {
	ip := net.ParseIP(host)
	if ip == nil || !bytes.HasPrefix(ip, memPrefix) {
		return host
	}
	return string(bytes.TrimRight(ip[len(memPrefix):], "\x00"))
}

// MemAddr is the gossip address of a host in memory, for Config.Join.
func MemAddr(host string, port int) string {
	ip, err := memIP(host)
	if err != nil {
		return net.JoinHostPort(host, strconv.Itoa(port))
	}
	return joinAddr(ip, port)
}

type packet = memberlist.Packet

// memTransport carries gossip over a network in memory.
type memTransport struct {
	host    *memnet.Host
	port    int
	conns   net.PacketConn
	streams net.Listener
	packets chan *packet
	stream  chan net.Conn
	closing chan struct{}
	once    sync.Once
	loops   sync.WaitGroup
}

// NewMemTransport listens for gossip on a host in memory. Shutdown, which
// Members.Run calls, ends what it starts.
func NewMemTransport(h *memnet.Host, port int) (Transport, error) {
	if _, err := memIP(h.Name()); err != nil {
		return nil, err
	}
	conns, err := h.Packets(port)
	if err != nil {
		return nil, err
	}
	streams, err := h.Listen(port)
	if err != nil {
		return nil, errors.Join(err, conns.Close())
	}
	t := &memTransport{host: h, port: port, conns: conns, streams: streams,
		packets: make(chan *packet), stream: make(chan net.Conn), closing: make(chan struct{})}
	t.loops.Go(t.readPackets)
	t.loops.Go(t.accept)
	return t, nil
}

func (t *memTransport) readPackets() {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := t.conns.ReadFrom(buf)
		if err != nil {
			return
		}
		select {
		case t.packets <- &packet{Buf: bytes.Clone(buf[:n]), From: from, Timestamp: time.Now()}:
		case <-t.closing:
			return
		}
	}
}

func (t *memTransport) accept() {
	for {
		conn, err := t.streams.Accept()
		if err != nil {
			return
		}
		select {
		case t.stream <- conn:
		case <-t.closing:
			_ = conn.Close()
			return
		}
	}
}

// FinalAdvertiseAddr implements memberlist.Transport.
func (t *memTransport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	ip, err := memIP(t.host.Name())
	return ip, t.port, err
}

func (t *memTransport) named(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	return net.JoinHostPort(memName(host), port)
}

// WriteTo implements memberlist.Transport.
func (t *memTransport) WriteTo(b []byte, addr string) (time.Time, error) {
	host, port, err := splitAddr(t.named(addr))
	if err != nil {
		return time.Time{}, err
	}
	_, err = t.conns.WriteTo(b, memAddr{host, port})
	return time.Now(), err
}

type memAddr struct {
	host string
	port int
}

func (memAddr) Network() string  { return "udp" }
func (a memAddr) String() string { return net.JoinHostPort(a.host, strconv.Itoa(a.port)) }

// PacketCh implements memberlist.Transport.
func (t *memTransport) PacketCh() <-chan *packet { return t.packets }

// DialTimeout implements memberlist.Transport.
func (t *memTransport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return t.dial(ctx, addr)
}

func (t *memTransport) dial(ctx context.Context, addr string) (net.Conn, error) {
	return t.host.Dial(ctx, "tcp", t.named(addr))
}

// StreamCh implements memberlist.Transport.
func (t *memTransport) StreamCh() <-chan net.Conn { return t.stream }

// Shutdown implements memberlist.Transport.
func (t *memTransport) Shutdown() error {
	t.once.Do(func() {
		close(t.closing)
		// A host that crashed has closed them already.
		_ = t.conns.Close()
		_ = t.streams.Close()
	})
	t.loops.Wait()
	return nil
}
