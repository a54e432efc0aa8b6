package taskwire

import (
	"ecs/internal/task"
	ecsv1 "ecs/proto/ecs/v1"
)

// FromNode gives the message of a node. Reserved and Attempts are derived from
// the live attempts by whoever holds the record, so they are not carried.
func FromNode(n *task.Node) *ecsv1.Node {
	if n == nil {
		return nil
	}
	return &ecsv1.Node{
		Id:           string(n.ID),
		Name:         n.Name,
		Zone:         n.Zone,
		Epoch:        n.Epoch,
		Status:       string(n.Status),
		Drain:        n.Drain,
		Unfit:        n.Unfit,
		MilliCpu:     n.Capacity.MilliCPU,
		Memory:       n.Capacity.Memory,
		Pids:         n.Capacity.Pids,
		Attributes:   n.Attributes,
		OutputAddr:   n.OutputAddr,
		GossipAddr:   n.GossipAddr,
		Version:      n.Version,
		Engine:       n.Engine,
		RegisteredAt: FromTime(n.RegisteredAt),
	}
}

// ToNode gives the node of a message, with nothing reserved.
func ToNode(m *ecsv1.Node) *task.Node {
	if m == nil {
		return nil
	}
	return &task.Node{
		ID:     task.NodeID(m.GetId()),
		Name:   m.GetName(),
		Zone:   m.GetZone(),
		Epoch:  m.GetEpoch(),
		Status: task.NodeStatus(m.GetStatus()),
		Drain:  m.GetDrain(),
		Unfit:  m.GetUnfit(),
		Capacity: task.Capacity{
			MilliCPU: m.GetMilliCpu(),
			Memory:   m.GetMemory(),
			Pids:     m.GetPids(),
		},
		Attributes:   m.GetAttributes(),
		OutputAddr:   m.GetOutputAddr(),
		GossipAddr:   m.GetGossipAddr(),
		Version:      m.GetVersion(),
		Engine:       m.GetEngine(),
		RegisteredAt: ToTime(m.GetRegisteredAt()),
	}
}
