package gossip

import (
	"fmt"

	"github.com/hashicorp/memberlist"
	"google.golang.org/protobuf/proto"

	ecsv1 "ecs/proto/ecs/v1"
)

// Member is what a process tells of itself. It is comparable.
type Member struct {
	ID, Role, Zone, Version string
	Name                    string // for people; control nodes only
	// Where its services are, host:port; control nodes only.
	RPCAddr, RaftAddr, HTTPAddr string
	Expect                      int  // voters it waits for to form a cluster
	Bootstrapped                bool // it belongs to a cluster
	Draining                    bool
	// Founders is a hash of those that a control node forms a cluster with, until
	// all of them belong to it.
	Founders    uint64
	Incarnation uint64 // of the cluster that a control node belongs to
	Recovery    string // which made it
	// Capacity, a hint; agents only.
	MilliCPU, Memory int64
	// GossipAddr is where gossip reaches it; filled in by this package.
	GossipAddr string
}

// encode checks the bound that memberlist would panic on.
func encode(m Member) ([]byte, error) {
	meta, err := proto.MarshalOptions{Deterministic: true}.Marshal(&ecsv1.Member{
		Id: m.ID, Role: m.Role, Zone: m.Zone, Version: m.Version,
		RpcAddr: m.RPCAddr, RaftAddr: m.RaftAddr, HttpAddr: m.HTTPAddr,
		Expect: uint32(m.Expect), Bootstrapped: m.Bootstrapped, Draining: m.Draining,
		MilliCpu: m.MilliCPU, Memory: m.Memory,
		Name: m.Name, Founders: m.Founders, Incarnation: m.Incarnation, Recovery: m.Recovery,
	})
	if err != nil {
		return nil, fmt.Errorf("encode metadata: %w", err)
	}
	if len(meta) > memberlist.MetaMaxSize {
		return nil, fmt.Errorf("metadata has %d bytes, at most %d are allowed: shorten the node's name, zone or addresses",
			len(meta), memberlist.MetaMaxSize)
	}
	return meta, nil
}

func decode(meta []byte) (Member, error) {
	var m ecsv1.Member
	if err := proto.Unmarshal(meta, &m); err != nil {
		return Member{}, fmt.Errorf("decode metadata: %w", err)
	}
	return Member{
		ID: m.GetId(), Role: m.GetRole(), Zone: m.GetZone(), Version: m.GetVersion(),
		RPCAddr: m.GetRpcAddr(), RaftAddr: m.GetRaftAddr(), HTTPAddr: m.GetHttpAddr(),
		Expect: int(m.GetExpect()), Bootstrapped: m.GetBootstrapped(), Draining: m.GetDraining(),
		MilliCPU: m.GetMilliCpu(), Memory: m.GetMemory(),
		Name: m.GetName(), Founders: m.GetFounders(), Incarnation: m.GetIncarnation(), Recovery: m.GetRecovery(),
	}, nil
}
