package newcomers_test

import (
	"net"
	"testing"

	"ecs/internal/newcomers"
)

// conn is a connection from somewhere, which is all that is looked at.
type conn struct {
	net.Conn
	from string
}

func (c *conn) RemoteAddr() net.Addr { return address(c.from) }

type address string

func (a address) Network() string { return "tcp" }
func (a address) String() string  { return string(a) }

func TestAFloodMakesRoomAtItsOwnExpense(t *testing.T) {
	s := newcomers.New(4)
	guest := &conn{from: "192.0.2.1:1"} // the oldest of all
	if got := s.Add(guest); got != nil {
		t.Fatalf("got %v closed, want none", got)
	}
	var flood []*conn
	for range 1000 {
		c := &conn{from: "192.0.2.66:2"}
		flood = append(flood, c)
		evicted := s.Add(c)
		if len(flood) <= 3 {
			if evicted != nil {
				t.Fatalf("connection %d: one was closed while there was room", len(flood))
			}
			continue
		}
		if want := flood[len(flood)-4]; evicted != want {
			t.Fatalf("connection %d: got %v closed, want the flood's oldest", len(flood), evicted)
		}
	}
	if got := s.Len(); got != 4 {
		t.Errorf("got %d connections, want 4", got)
	}
	// Once it has shown who it is it counts no more.
	s.Forget(guest)
	s.Forget(guest)
	if got := s.Add(&conn{from: "192.0.2.2:3"}); got != nil {
		t.Errorf("got %v closed, want none", got)
	}
}

func TestWhatIsForgottenLeavesNothing(t *testing.T) {
	s := newcomers.New(2)
	a, b := &conn{from: "[2001:db8::1]:1"}, &conn{from: "[2001:db8::2]:1"}
	s.Add(a)
	s.Add(b)
	if got := s.Add(&conn{from: "192.0.2.1:1"}); got != a {
		t.Errorf("got %v closed, want the oldest of the /64 that both are of", got)
	}
	s.Forget(b)
	if got := s.Len(); got != 1 {
		t.Errorf("got %d connections, want 1", got)
	}
}

func TestNetworkIsWhomAnAddressCountsFor(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.1:80":           "192.0.2.1",
		"[::ffff:192.0.2.1]:80":  "192.0.2.1",
		"[2001:db8:1:2:3::4]:80": "2001:db8:1:2::/64",
		"[fe80::1%eth0]:80":      "fe80::/64",
		"192.0.2.1":              "192.0.2.1",
		"pipe":                   "pipe",
	} {
		if got := newcomers.Network(address); got != want {
			t.Errorf("%s: got %s, want %s", address, got, want)
		}
	}
}
