package task

import (
	"strconv"
	"time"
)

// NodeStatus is what the replicated record says of a node.
type NodeStatus string

// The node states.
const (
	Ready    NodeStatus = "ready"
	Draining NodeStatus = "draining" // runs what it has, takes nothing new
	Lost     NodeStatus = "lost"     // its lease lapsed
	Left     NodeStatus = "left"     // gave its lease up in good order
)

// Node is the replicated record of one agent's node. Immutable, as Task is.
type Node struct {
	ID   NodeID
	Name string
	Zone string
	// Epoch is the lease epoch of the present registration: the raft index
	// that committed it, so it only grows.
	Epoch  uint64
	Status NodeStatus
	// Drain is the operator's wish; it outlives registrations.
	Drain bool
	// Unfit, when not empty, says why the node can take no task now (its
	// engine hangs, its disk is full); it is reported by the agent.
	Unfit      string
	Capacity   Capacity
	Attributes map[string]string
	OutputAddr string // host:port of the agent's output service
	GossipAddr string // host:port at which gossip reached it when it registered
	Version    string
	// Engine describes the container engine, for people.
	Engine       string
	RegisteredAt time.Time

	// Reserved is the sum over live attempts, kept by the state machine.
	Reserved Capacity
	Attempts int // live ones
}

// Capacity is what a node has for tasks, or what is reserved of it.
type Capacity struct {
	MilliCPU int64
	Memory   int64 // bytes
	Pids     int64 // zero in a node's capacity: unbounded
}

// Takes reports whether the node may be given a new attempt at all.
func (n *Node) Takes() bool { return n.Status == Ready && !n.Drain && n.Unfit == "" }

// Free is what is not reserved.
func (n *Node) Free() Capacity {
	return Capacity{
		MilliCPU: n.Capacity.MilliCPU - n.Reserved.MilliCPU,
		Memory:   n.Capacity.Memory - n.Reserved.Memory,
	}
}

// Fits reports whether r can be reserved out of c.
func (c Capacity) Fits(r Resources) bool { return r.MilliCPU <= c.MilliCPU && r.Memory <= c.Memory }

// AttributeWarmSlots is the registration attribute that says how many containers a
// node may start ahead of tasks; "0": its pool is off.
const AttributeWarmSlots = "warm_slots"

// WarmSlots is how many containers the node may start ahead of tasks. An agent of an
// older release does not say: then known is false.
func (n *Node) WarmSlots() (slots int, known bool) {
	slots, err := strconv.Atoi(n.Attributes[AttributeWarmSlots])
	return max(slots, 0), err == nil
}

// AttributeEgress is the registration attribute "true" of a node that can give
// tasks network: egress with the hosts and the metadata server closed off.
const AttributeEgress = "egress"
