package replica

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"ecs/internal/pki"
)

func TestStrangersWhoHoldConnectionsKeepNobodyOut(t *testing.T) {
	ca, err := pki.NewCA("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := ca.Issue(pki.Identity{Cluster: "test", Role: pki.RoleControl, ID: "x"}, nil, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	node, err := pki.NewNode(ca.CertPEM(), cert, key)
	if err != nil {
		t.Fatal(err)
	}
	open := func() *stream {
		l := listen(t)
		s := NewTLSStream(l, l.Addr().String(), node.ServerTLS(pki.RoleControl), node.DialFunc(pki.RoleControl)).(*stream)
		t.Cleanup(func() { s.Close() })
		return s
	}
	s, peer := open(), open()
	heard := serveReads(s)
	serveReads(peer)
	for range maxStrangers + 50 {
		conn, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	// Sooner than strangers are given up on.
	late := time.After(handshakeWithin - time.Second)
	in, err := peer.Dial(raft.ServerAddress(s.Addr().String()), handshakeWithin)
	if err != nil {
		t.Fatalf("a peer dials: %v", err)
	}
	if _, err := in.Write([]byte{1}); err != nil {
		t.Fatalf("a peer writes: %v", err)
	}
	select {
	case <-heard:
	case <-late:
		t.Fatal("a peer is not heard behind strangers")
	}
	out, err := s.Dial(raft.ServerAddress(peer.Addr().String()), handshakeWithin)
	if err != nil {
		t.Fatalf("the node dials: %v", err)
	}
	out.Close()
	if got := s.strangers.Len(); got >= maxStrangers {
		t.Errorf("got %d strangers, want fewer than %d: the peer is none", got, maxStrangers)
	}
}

// serveReads reads from each connection as raft does, and tells of the first
// byte that came from a peer.
func serveReads(s *stream) (heard <-chan struct{}) {
	got := make(chan struct{}, 1)
	go func() {
		for {
			conn, err := s.Accept()
			if err != nil {
				return
			}
			go func() {
				if _, err := conn.Read(make([]byte, 1)); err != nil {
					conn.Close()
					return
				}
				select {
				case got <- struct{}{}:
				default:
				}
			}()
		}
	}()
	return got
}

func TestIdleLeaderSpeaksSeldomAndStillAnswersAtOnce(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *cluster) {
		l := c.leader()
		up := l.node.up.Load()
		time.Sleep(10 * time.Second)
		before := up.transport.asked.Load()
		time.Sleep(time.Minute)
		timing := DefaultConfig().Timing
		beats := uint64(time.Minute / (timing.HeartbeatTimeout / beatsPerTimeout))
		repeats := uint64(time.Minute / timing.CommitTimeout)
		if got, most := up.transport.asked.Load()-before, 2*(beats+repeats)+4; got > most {
			t.Errorf("got %d questions to followers in a minute, want %d at most", got, most)
		}
		for range 20 {
			time.Sleep(37 * time.Millisecond)
			start := time.Now()
			if err := l.node.Verify(t.Context()); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(start); took > 5*time.Millisecond {
				t.Errorf("a leadership check took %v on a network without delay", took)
			}
		}
	})
}

// A check with the next beat is one that had to be sent anyway; a leader that is
// cut off is not confirmed by any.
func TestCheckAtTheNextBeatCostsNothing(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *cluster) {
		l := c.leader()
		up := l.node.up.Load()
		asked := func(check bool) uint64 {
			before, end := up.transport.asked.Load(), time.Now().Add(time.Minute)
			for time.Now().Before(end) {
				start := time.Now()
				if check {
					if err := l.node.VerifyAtNextBeat(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				if took := time.Since(start); took > 2*up.transport.beat {
					t.Errorf("a check took %v, want two beats of %v at most", took, up.transport.beat)
				}
				time.Sleep(time.Second)
			}
			return up.transport.asked.Load() - before
		}
		if idle, checked := asked(false), asked(true); checked > idle+idle/10 {
			t.Errorf("got %d questions a minute with checks, %d without: want no more", checked, idle)
		}
		c.net.Isolate(l.name)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := l.node.VerifyAtNextBeat(ctx); err == nil {
			t.Error("a leader that is cut off was confirmed")
		}
	})
}

func TestFollowersNoticeANewLeaderWithoutAsking(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *cluster) {
		l := c.leader()
		f := c.follower(l)
		synctest.Wait()
		l.kill()
		start := time.Now()
		for {
			changed := f.node.LeaderChanged()
			if id, _ := f.node.Leader(); id != "" && id != l.name {
				return
			}
			select {
			case <-changed:
			case <-time.After(5*time.Second - time.Since(start)):
				t.Fatal("got no notice of the new leader within 5s")
			}
		}
	})
}
