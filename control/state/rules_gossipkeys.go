package state

import (
	"fmt"
	"slices"
	"time"

	"ecs/internal/task"
	ecsv1 "ecs/proto/ecs/v1"
)

// What the record keeps of a rotation at most.
const (
	maxHolders = 100_000
	maxSkipped = 1_000 // ids; those beyond were not waited for either
)

// RotateGossipKey begins a rotation: the new key joins the ring, which is then to
// go through every step. Old is the key in use, which counts where the record has
// none yet. Version is that of the ring which the proposer saw, 0 for none, so that
// the command can't begin a second rotation after its own.
type RotateGossipKey struct {
	Old, New GossipKey
	Version  uint64
	By       string // the API key that asks
}

// ConfirmGossipKey says that a node has the ring of a version on its disk and in
// use.
type ConfirmGossipKey struct {
	Node    string
	Version uint64
}

// AdvanceGossipKey ends the step that a rotation is at with the ring of a version.
// Skipped are nodes that are gone and catch up when they come back; of those that
// the record knows as there, everyone else must have confirmed.
type AdvanceGossipKey struct {
	Version uint64
	Step    string
	Skipped []string
}

func (cmd RotateGossipKey) apply(c *change) Outcome {
	g := c.gossip.keys()
	var version uint64
	old := cmd.Old
	if g != nil {
		version, old = g.Version, g.Ring[0]
	}
	switch {
	case !cmd.New.sound() || !old.sound() || g == nil && old.ID == cmd.New.ID:
		return refuse(task.CodeBadRequest, "a rotation needs a sealed key in use and a new one")
	case g != nil && (g.Next().ID == cmd.New.ID || old.ID == cmd.New.ID):
		return Outcome{Existed: true}
	case g != nil && g.Step != "":
		return refuse(task.CodeRotation, fmt.Sprintf("a rotation to the key %s is under way since %s (by %s) and at the step %q; "+
			"only one at a time: see it through with `ecsctl cluster rotate-gossip-key --follow`",
			g.Next().ID, g.StartedAt.Format(time.RFC3339), g.StartedBy, g.Step))
	case version != cmd.Version:
		return refuse(task.CodeRotation, "the key was rotated while this was asked for; ask again if it is to be rotated once more")
	}
	c.gossip.forgetHolders()
	c.gossip.put(GossipKeys{Version: c.nextRing(version), Ring: []GossipKey{old, cmd.New}, Step: RotationAdd,
		StartedAt: c.now, StartedBy: cmd.By})
	return Outcome{}
}

// nextRing is a version beyond every one that this or an earlier incarnation of the
// cluster can have given a ring.
func (c *change) nextRing(version uint64) uint64 {
	return max(version, c.incarnation<<32) + 1
}

// renewRing has every node take the ring of a record that was recovered, also those
// that have a newer one, which the record has lost.
func (c *change) renewRing() {
	g := c.gossip.keys()
	if g == nil {
		return
	}
	next := *g
	next.Version = c.nextRing(g.Version)
	c.gossip.forgetHolders()
	c.gossip.put(next)
}

func (cmd ConfirmGossipKey) apply(c *change) Outcome {
	g := c.gossip.keys()
	if cmd.Node == "" || cmd.Version == 0 || g == nil || cmd.Version > g.Version {
		return refuse(task.CodeStale, "the record has no such ring")
	}
	if held, _ := c.gossip.holders.Get([]byte(cmd.Node)); held >= cmd.Version {
		return Outcome{Existed: true}
	}
	if !c.gossip.confirm(cmd.Node, cmd.Version) {
		return refuse(task.CodeTooMany, "too many nodes have confirmed a ring")
	}
	return Outcome{}
}

func (cmd AdvanceGossipKey) apply(c *change) Outcome {
	g := c.gossip.keys()
	if g == nil || g.Step == "" || g.Version != cmd.Version || g.Step != cmd.Step {
		return Outcome{Existed: true} // it is further on already
	}
	for _, n := range valuesOf(c.nodes) {
		held, _ := c.gossip.holders.Get([]byte(n.ID))
		if held < g.Version && n.Status != task.Left && !slices.Contains(cmd.Skipped, string(n.ID)) {
			return refuse(task.CodeStale, fmt.Sprintf("node %s has not confirmed the ring", n.ID))
		}
	}
	next := *g
	next.Skipped = union(g.Skipped, cmd.Skipped)
	switch g.Step {
	case RotationAdd:
		next.Step, next.Version, next.Ring = RotationUse, c.nextRing(g.Version), []GossipKey{g.Ring[1], g.Ring[0]}
	case RotationUse:
		next.Step, next.Version, next.Ring = RotationRemove, c.nextRing(g.Version), g.Ring[:1:1]
	default:
		next.Step, next.EndedAt = "", c.now
	}
	c.gossip.put(next)
	return Outcome{}
}

// union gives the names of both, each once and in order, up to maxSkipped.
func union(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	all = slices.Compact(all)
	return all[:min(len(all), maxSkipped)]
}

// gossipKeysToWire fills in the commands that this file knows.
func gossipKeysToWire(c Command, m *ecsv1.Command) {
	switch c := c.(type) {
	case RotateGossipKey:
		m.Kind = &ecsv1.Command_RotateGossipKey{RotateGossipKey: &ecsv1.RotateGossipKey{
			Old: fromGossipKey(c.Old), New: fromGossipKey(c.New), By: c.By, Version: c.Version}}
	case ConfirmGossipKey:
		m.Kind = &ecsv1.Command_ConfirmGossipKey{ConfirmGossipKey: &ecsv1.ConfirmGossipKey{Node: c.Node, Version: c.Version}}
	case AdvanceGossipKey:
		m.Kind = &ecsv1.Command_AdvanceGossipKey{AdvanceGossipKey: &ecsv1.AdvanceGossipKey{Version: c.Version, Step: c.Step, Skipped: c.Skipped}}
	}
}

// gossipKeysFromWire is its inverse; nil for every other kind.
func gossipKeysFromWire(m *ecsv1.Command) Command {
	switch k := m.GetKind().(type) {
	case *ecsv1.Command_RotateGossipKey:
		r := k.RotateGossipKey
		return RotateGossipKey{Old: toGossipKey(r.GetOld()), New: toGossipKey(r.GetNew()), By: r.GetBy(), Version: r.GetVersion()}
	case *ecsv1.Command_ConfirmGossipKey:
		return ConfirmGossipKey{Node: k.ConfirmGossipKey.GetNode(), Version: k.ConfirmGossipKey.GetVersion()}
	case *ecsv1.Command_AdvanceGossipKey:
		a := k.AdvanceGossipKey
		return AdvanceGossipKey{Version: a.GetVersion(), Step: a.GetStep(), Skipped: a.GetSkipped()}
	}
	return nil
}
