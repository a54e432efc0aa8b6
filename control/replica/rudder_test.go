package replica

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// Whoever gets a vote may die at once: what is left must be a majority without it.
func TestNoVoteCostsTheMajority(t *testing.T) {
	for n := 2; n <= 6; n++ {
		for state := range 1 << (2 * (n - 1)) { // of each but the leader: answers, silent for a while, failed
			voters, lively := []ballot{{id: "0", answers: true}}, 1
			for i := 1; i < n; i++ {
				bits := state >> (2 * (i - 1)) & 3
				v := ballot{id: fmt.Sprint(i), answers: bits == 0, failed: bits == 2}
				if v.answers {
					lively++
				}
				voters = append(voters, v)
			}
			if 2*lively <= n {
				continue // nobody leads
			}
			failed, ok := inPlaceOf(voters)
			after := n + 1
			for _, v := range voters {
				if v.id == failed {
					after--
					if !v.failed {
						t.Errorf("%+v: %s loses its vote and has not failed", voters, failed)
					}
					if 2*lively <= n-1 {
						t.Errorf("%+v: without %s there is no majority on the way", voters, failed)
					}
				}
			}
			if ok && 2*lively <= after {
				t.Errorf("%+v: %d of %d live if the newcomer dies, want a majority", voters, lively, after)
			}
			if !ok && 2*lively > after {
				t.Errorf("%+v: no vote for a newcomer, want one: %d of %d live without it", voters, lively, after)
			}
		}
	}
	if _, ok := inPlaceOf([]ballot{{id: "0", answers: true}}); !ok {
		t.Error("one alone takes no second")
	}
}

// Of three voters one dies, and soon before or after its replacement has the vote, that
// dies too. The other two voters go on, whenever it is.
func TestASpareThatDiesWithAVoterDoesNotCostTheMajority(t *testing.T) {
	lost := 0
	for _, apart := range []time.Duration{0, 200, 500, 1000, 1500, 2000, 2500, 3000, 3500, 4000, 6000} {
		for _, phase := range []time.Duration{0, 700, 1300} {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, 4, uint64(apart+phase+1), nil)
				defer c.stop()
				l := c.withSpare()
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan struct{})
				go func() {
					defer close(done)
					l.node.KeepVoters(ctx, func() map[string]Candidate { return map[string]Candidate{} })
				}()
				defer func() { cancel(); <-done }()
				time.Sleep(15*time.Second + phase*time.Millisecond)
				spare := c.nodes[3]
				for _, m := range c.nodes[:3] {
					if m != l {
						m.crash()
						break
					}
				}
				time.Sleep(apart * time.Millisecond)
				before := l.node.Voters()
				spare.crash()
				time.Sleep(30 * time.Second)
				if _, leading, _ := l.node.Leadership(); !leading {
					lost++
					t.Logf("the spare dies %d ms after a voter: no leader; before: %v", apart, before)
				}
			})
		}
	}
	if lost > 0 {
		t.Errorf("got no leader in %d cases, want one in all", lost)
	}
}

// withSpare has the first three nodes found a cluster and the fourth receive its log.
// It gives the leader.
func (c *cluster) withSpare() *member {
	c.t.Helper()
	addr := func(name string) string { return fmt.Sprintf("%s:%d", name, raftPort) }
	servers := map[string]string{}
	for _, m := range c.nodes {
		m.start()
		<-m.node.Ready()
	}
	for _, m := range c.nodes[:3] {
		servers[m.name] = addr(m.name)
	}
	for _, m := range c.nodes[:3] {
		if err := m.node.Bootstrap(servers); err != nil {
			c.t.Fatal(err)
		}
	}
	l := c.leader()
	spare := c.nodes[3].name
	if err := l.node.Reconfigure(c.t.Context(), func(turn *Turn) error { return turn.Add(spare, addr(spare)) }); err != nil {
		c.t.Fatal(err)
	}
	return l
}
