package dashboard

import (
	"cmp"
	"net/http"
	"slices"

	"ecs/proto/api"
)

// clusterView is the cluster by zone.
type clusterView struct {
	api.Cluster
	LeaderName string
	Zones      []zoneView
	Agents     int // that can take tasks
	Known      int // agents that have not left
	CPU, Mem   gauge
}

// zoneView is what is in one zone.
type zoneView struct {
	Name     string
	Controls []controlView
	Nodes    []nodeView
	Left     int // agents that left, or are forgotten soon; not listed
	CPU, Mem gauge
}

type controlView struct {
	ID, Name, Addr, HTTP, Version string
	Part                          string // in the cluster: leader, voter, follower without a vote
	Silent                        bool   // gossip does not show it
	Draining                      bool
}

type nodeView struct {
	api.Node
	CPU, Mem gauge
}

// gauge is how much of something is reserved.
type gauge struct{ Used, Total int64 }

// Percent is the part that is reserved, for a bar of 100.
func (g gauge) Percent() float64 {
	if g.Total <= 0 {
		return 0
	}
	return min(100, float64(g.Used)/float64(g.Total)*100)
}

func (g *gauge) add(o gauge) { g.Used, g.Total = g.Used+o.Used, g.Total+o.Total }

func (t *turn) cluster() error {
	v, err := t.clusterData()
	if err != nil {
		return err
	}
	return t.render(http.StatusOK, "cluster", page{Title: "Cluster", Nav: "cluster", Live: t.liveAt("cluster/live", v), Data: v})
}

func (t *turn) clusterData() (any, error) {
	v := new(clusterView)
	var nodes api.NodeList
	if err := t.v.Ask("/v2/cluster", &v.Cluster); err != nil {
		return nil, err
	}
	if err := t.v.Ask("/v2/nodes", &nodes); err != nil {
		return nil, err
	}
	// It moves with every entry of the log, and nobody waits for it.
	v.Applied = 0
	zones := make(map[string]*zoneView)
	in := func(name string) *zoneView {
		if zones[name] == nil {
			zones[name] = &zoneView{Name: name}
		}
		return zones[name]
	}
	v.placeControls(in)
	for _, n := range nodes.Nodes {
		v.placeNode(in(n.Zone), n)
	}
	for _, z := range zones {
		slices.SortFunc(z.Controls, func(a, b controlView) int { return cmp.Compare(a.Name+a.ID, b.Name+b.ID) })
		slices.SortFunc(z.Nodes, func(a, b nodeView) int { return cmp.Compare(a.Name+a.ID, b.Name+b.ID) })
		v.Zones = append(v.Zones, *z)
	}
	slices.SortFunc(v.Zones, func(a, b zoneView) int { return cmp.Compare(a.Name, b.Name) })
	return v, nil
}

// placeControls puts voters and what gossip shows together: either may lack one.
func (v *clusterView) placeControls(in func(string) *zoneView) {
	votes := make(map[string]api.Voter, len(v.Voters))
	for _, o := range v.Voters {
		votes[o.ID] = o
	}
	for _, m := range v.Members {
		if m.Role != "control" {
			continue
		}
		o, there := votes[m.ID]
		delete(votes, m.ID)
		c := controlView{ID: m.ID, Name: cmp.Or(m.Name, short(m.ID)), Addr: o.Addr, HTTP: m.HTTP, Version: m.Version, Draining: m.Draining, Part: part(o, there)}
		if o.Leader {
			v.LeaderName = c.Name
		}
		z := in(m.Zone)
		z.Controls = append(z.Controls, c)
	}
	for _, o := range votes {
		z := in("zone unknown")
		z.Controls = append(z.Controls, controlView{ID: o.ID, Name: short(o.ID), Addr: o.Addr, Part: part(o, true), Silent: true})
	}
}

func part(o api.Voter, there bool) string {
	switch {
	case !there:
		return "joining"
	case o.Leader:
		return "leader"
	case o.Voter:
		return "voter"
	}
	return "no vote"
}

func (v *clusterView) placeNode(z *zoneView, n api.Node) {
	if n.Status == "left" {
		z.Left++
		return
	}
	node := nodeView{Node: n, CPU: gauge{int64(n.Reserved.CPU), int64(n.Capacity.CPU)}, Mem: gauge{int64(n.Reserved.Memory), int64(n.Capacity.Memory)}}
	z.Nodes = append(z.Nodes, node)
	v.Known++
	if n.Status == "lost" {
		return // what it has is nobody's to use
	}
	if n.Status == "ready" && !n.Drain && n.Unfit == "" {
		v.Agents++
	}
	z.CPU.add(node.CPU)
	z.Mem.add(node.Mem)
	v.CPU.add(node.CPU)
	v.Mem.add(node.Mem)
}
