package replica

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"ecs/control/state"
	"ecs/internal/memnet"
	ecsv1 "ecs/proto/ecs/v1"
)

// aGate is the gate of a node with a record of the lineage, open.
func aGate(t *testing.T, net *memnet.Net, name string, l state.Lineage) *gate {
	t.Helper()
	store := state.NewStore(state.Limits{})
	if l.Cluster != "" {
		data, err := proto.Marshal(&ecsv1.Entry{Commands: []*ecsv1.Command{state.ToWire(state.Found{Cluster: l.Cluster}, time.Now())}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := store.Apply(1, data); err != nil {
			t.Fatal(err)
		}
	}
	if l.Recovery != "" {
		store.Recovered(100, l.Recovery)
	}
	host := net.Host(name)
	listener, err := host.Listen(raftPort)
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{StreamLayer: NewStream(listener, listener.Addr().String(), host.DialFunc()),
		node: &Node{cfg: Config{Store: store, Logger: logger(t, name)}}}
	g.open.Store(true)
	return g
}

func TestForeignPeersAreNotLetIn(t *testing.T) {
	for _, tt := range []struct {
		name           string
		caller, called state.Lineage
		want           bool
	}{
		{"the same", state.Lineage{Cluster: "one", Recovery: "r"}, state.Lineage{Cluster: "one", Recovery: "r"}, true},
		{"of before the recovery", state.Lineage{Cluster: "one"}, state.Lineage{Cluster: "one", Recovery: "r"}, false},
		{"to one of before", state.Lineage{Cluster: "one", Recovery: "r"}, state.Lineage{Cluster: "one"}, false},
		{"recovered apart", state.Lineage{Cluster: "one", Recovery: "q"}, state.Lineage{Cluster: "one", Recovery: "r"}, false},
		{"of another cluster", state.Lineage{Cluster: "two"}, state.Lineage{Cluster: "one"}, false},
		{"to one that is new", state.Lineage{Cluster: "one", Recovery: "r"}, state.Lineage{}, true},
		{"of one that is new", state.Lineage{}, state.Lineage{Cluster: "one"}, true},
		{"of one that knows nothing, to a recovered one", state.Lineage{}, state.Lineage{Cluster: "one", Recovery: "r"}, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			net := memnet.New(1)
			caller, called := aGate(t, net, "c1", tt.caller), aGate(t, net, "c2", tt.called)
			defer caller.Close()
			defer called.Close()
			got := make(chan string, 1)
			go func() {
				conn, err := called.Accept()
				if err != nil {
					got <- err.Error()
					return
				}
				defer conn.Close()
				b := make([]byte, 10)
				if _, err := io.ReadFull(conn, b); err != nil {
					got <- err.Error()
					return
				}
				got <- string(b)
			}()
			conn, err := caller.Dial(raft.ServerAddress(called.Addr().String()), time.Second)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			for _, part := range []string{"01234", "56789"} {
				if n, err := conn.Write([]byte(part)); n != len(part) || err != nil {
					t.Errorf("%s: wrote %d, %v, want %d", tt.name, n, err, len(part))
				}
			}
			if heard := <-got; (heard == "0123456789") != tt.want {
				t.Errorf("%s: heard %q, want it let in: %v", tt.name, heard, tt.want)
			}
		})
	}
}

// What a peer may say is judged by what both know when it says it.
func TestPeerThatTurnsOutForeignIsNotHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memnet.New(1)
		caller, called := aGate(t, net, "c1", state.Lineage{Cluster: "one"}), aGate(t, net, "c2", state.Lineage{})
		defer caller.Close()
		defer called.Close()
		heard := make(chan string)
		go func() {
			defer close(heard)
			conn, err := called.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			b := make([]byte, 5)
			for {
				if _, err := io.ReadFull(conn, b); err != nil {
					return
				}
				heard <- string(b)
			}
		}()
		conn, err := caller.Dial(raft.ServerAddress(called.Addr().String()), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("first")); err != nil || <-heard != "first" {
			t.Fatalf("%v, want a peer heard that nobody knows to be foreign", err)
		}
		synctest.Wait() // it reads on
		if err := called.node.descend(state.Lineage{Cluster: "two"}, raft.NewInmemStore(), called); err != nil {
			t.Fatal(err)
		}
		_, err = conn.Write([]byte("later"))
		if got, more := <-heard; more {
			t.Errorf("heard %q (%v) of another cluster, want nothing", got, err)
		}
	})
}

// A peer that was new when it dialed says later who it has become.
func TestConnectionsOfBeforeAreGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memnet.New(1)
		caller, called := aGate(t, net, "c1", state.Lineage{}), aGate(t, net, "c2", state.Lineage{})
		defer caller.Close()
		defer called.Close()
		conn, err := caller.Dial(raft.ServerAddress(called.Addr().String()), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		stable := raft.NewInmemStore()
		want := state.Lineage{Cluster: "one", Recovery: "r"}
		if err := caller.node.descend(want, stable, caller); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("x")); err == nil {
			t.Error("the connection of before still serves")
		}
		again := &Node{cfg: caller.node.cfg}
		if err := again.remember(stable); err != nil || again.Lineage() != want {
			t.Errorf("got %+v, %v after a restart, want %+v", again.Lineage(), err, want)
		}
	})
}

func TestPrefaceIsReadAsItWasWritten(t *testing.T) {
	want := state.Lineage{Cluster: "one", Recovery: strings.Repeat("r", 255)}
	whole := appendPreface(nil, want)
	if got, err := readPreface(bytes.NewReader(whole)); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for n := range whole {
		if got, err := readPreface(bytes.NewReader(whole[:n])); err == nil {
			t.Errorf("got %+v of the first %d bytes, want an error", got, n)
		}
	}
	if _, err := readPreface(strings.NewReader("\x00\x88raft as it is")); err == nil {
		t.Error("a stream without a preface was taken")
	}
}
