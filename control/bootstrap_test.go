package control

import (
	"testing"

	"ecs/internal/gossip"
)

func TestWhoMayFormACluster(t *testing.T) {
	control := func(id string, change ...func(*gossip.Member)) gossip.Member {
		m := gossip.Member{ID: id, Role: roleControl, RaftAddr: id + ":7449", Expect: 3}
		for _, c := range change {
			c(&m)
		}
		return m
	}
	three := hashOf(map[string]string{"c1": "c1:7449", "c2": "c2:7449", "c3": "c3:7449"})
	begun := func(m *gossip.Member) { m.Bootstrapped, m.Founders = true, three }
	over := func(m *gossip.Member) { m.Bootstrapped = true }
	waits := func(m *gossip.Member) { m.Expect = 0 }
	for _, tt := range []struct {
		name    string
		members []gossip.Member
		want    bool
	}{
		{"too few", []gossip.Member{control("c1"), control("c2")}, false},
		{"enough", []gossip.Member{control("c1"), control("c2"), control("c3"), {ID: "a1", Role: roleAgent}}, true},
		{"too many", []gossip.Member{control("c1"), control("c2"), control("c3"), control("c4")}, false},
		{"one that waits to join is none of them", []gossip.Member{control("c1"), control("c2"), control("c3"), control("c4", waits)}, true},
		{"another number", []gossip.Member{control("c1"), control("c2"), control("c3", func(m *gossip.Member) { m.Expect = 5 })}, false},
		{"others have just begun", []gossip.Member{control("c1", begun), control("c2", begun), control("c3")}, true},
		{"they began with others", []gossip.Member{control("c1", begun), control("c2"), control("c4")}, false},
		{"the cluster is there", []gossip.Member{control("c1", over), control("c2", over), control("c3")}, false},
		{"one that joined it is there", []gossip.Member{control("c1"), control("c2"), control("c3"), control("c4", waits, over)}, false},
	} {
		servers, ok := founders(tt.members, 3)
		if ok != tt.want || ok && hashOf(servers) != three {
			t.Errorf("%s: got %v, %v, want %v", tt.name, servers, ok, tt.want)
		}
	}
	if _, ok := founders([]gossip.Member{control("c1", waits)}, 0); ok {
		t.Error("one that expects none formed a cluster")
	}
}
