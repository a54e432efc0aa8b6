package api

import "time"

// Index is what a node answers to a program at its root.
type Index struct {
	Version       string `json:"version"`
	Documentation string `json:"documentation"` // paths
	OpenAPI       string `json:"openapi"`
	Dashboard     string `json:"dashboard,omitempty"`
}

// Node is one agent's node.
type Node struct {
	ID           string            `json:"id"`
	Name         string            `json:"name"`
	Zone         string            `json:"zone"`
	Status       string            `json:"status"` // ready | draining | lost | left
	Drain        bool              `json:"drain"`  // an operator wants it empty
	Unfit        string            `json:"unfit,omitempty"`
	Capacity     Capacity          `json:"capacity"`
	Reserved     Capacity          `json:"reserved"`
	Free         Capacity          `json:"free"`
	Attempts     int               `json:"attempts"` // live ones
	Attributes   map[string]string `json:"attributes,omitempty"`
	Engine       string            `json:"engine,omitempty"`
	Version      string            `json:"version,omitempty"`
	Epoch        uint64            `json:"epoch"`
	RegisteredAt time.Time         `json:"registered_at,omitzero"`
}

// Capacity is an amount of a node.
type Capacity struct {
	CPU    CPU  `json:"cpu"`
	Memory Size `json:"memory"`
}

// NodeList is every node the cluster knows, by id.
type NodeList struct {
	Nodes []Node `json:"nodes"`
}

// Cluster is the cluster as the answering node sees it.
type Cluster struct {
	Name    string   `json:"name"`
	Node    string   `json:"node"` // that answers
	Version string   `json:"version"`
	Leader  string   `json:"leader,omitempty"`
	Term    uint64   `json:"term"`
	Applied uint64   `json:"applied"` // log index that the answer reflects
	Voters  []Voter  `json:"voters"`
	Members []Member `json:"members"`
	Tasks   Counts   `json:"tasks"`
	Health  Health   `json:"health"`

	GossipKey GossipKey `json:"gossip_key"`
}

// The steps of a rotation of the gossip key. Each is over when every node that is
// there has confirmed it.
const (
	RotationAdd    = "add"    // the old key encrypts, both decrypt
	RotationUse    = "use"    // the new one encrypts, both decrypt
	RotationRemove = "remove" // the new one alone
)

// GossipKey says which key encrypts gossip, and how far its last rotation is.
type GossipKey struct {
	Version   uint64      `json:"version"`       // of the ring of keys; 0: it was never rotated
	ID        string      `json:"id"`            // a hash of the key that encrypts
	Next      string      `json:"next,omitzero"` // of the one that a rotation under way brings
	Step      string      `json:"step,omitzero"` // add | use | remove; absent: none is under way
	StartedAt time.Time   `json:"started_at,omitzero"`
	StartedBy string      `json:"started_by,omitzero"`
	EndedAt   time.Time   `json:"ended_at,omitzero"`
	Waiting   []KeyHolder `json:"waiting,omitzero"` // who has not confirmed the newest ring
	Skipped   []string    `json:"skipped,omitzero"` // nodes that were gone, by id: they get the keys when they are back
}

// KeyHolder is a node that has not confirmed the newest ring.
type KeyHolder struct {
	ID   string `json:"id"`
	Name string `json:"name,omitzero"`
	Role string `json:"role"`           // control | agent
	Gone bool   `json:"gone,omitempty"` // nothing is heard of it; the rotation waits for a while
}

// Voter is one control node of the replicated configuration.
type Voter struct {
	ID     string `json:"id"`
	Addr   string `json:"addr"`
	Voter  bool   `json:"voter"`
	Leader bool   `json:"leader"`
}

// Member is one process that gossip shows.
type Member struct {
	ID       string `json:"id"`
	Name     string `json:"name,omitempty"` // absent of an agent that has not registered yet
	Role     string `json:"role"`           // control | agent
	Zone     string `json:"zone"`
	Version  string `json:"version"`
	HTTP     string `json:"http,omitempty"` // host:port of a control node
	Draining bool   `json:"draining,omitempty"`
}

// Leaving is what becomes of a node that was asked to leave.
type Leaving struct {
	Node   string `json:"node"`
	Role   string `json:"role"`   // control | agent
	Detail string `json:"detail"` // what happens now, for people
}

// Counts are numbers of tasks.
type Counts struct {
	Pending       int   `json:"pending"`     // in the queue for a node
	BackingOff    int   `json:"backing_off"` // between two runs of their program
	Live          int   `json:"live"`
	Finished      int   `json:"finished"`
	PendingBytes  int64 `json:"pending_bytes"`
	FinishedBytes int64 `json:"finished_bytes"`
}

// Health says whether the answering node can accept and answer a task.
type Health struct {
	Ready   bool     `json:"ready"`
	Reasons []string `json:"reasons,omitempty"` // why not
	Checks  []Check  `json:"checks,omitempty"`
}

// Check is one thing that was looked at.
type Check struct {
	Name   string `json:"name"` // raft | gossip | disk | certificate
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"`
}
