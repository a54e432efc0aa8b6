package control

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"ecs/control/replica"
	"ecs/control/state"
	"ecs/proto/ecs/v1/rpc"
)

// What calls between control nodes carry: which past the caller's record is of.
const (
	headerCluster  = "ecs-cluster"
	headerRecovery = "ecs-recovery"
)

// peerClient calls another control node on a connection.
func (s *Server) peerClient(conn grpc.ClientConnInterface) rpc.PeersClient {
	return rpc.NewPeersClient(introduced{conn, s.replica})
}

// introduced says on each call whose record the caller has.
type introduced struct {
	grpc.ClientConnInterface
	replica *replica.Node
}

// Invoke implements grpc.ClientConnInterface; Peers has no streams.
func (i introduced) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	l := i.replica.Lineage()
	ctx = metadata.AppendToOutgoingContext(ctx, headerCluster, l.Cluster, headerRecovery, l.Recovery)
	return i.ClientConnInterface.Invoke(ctx, method, args, reply, opts...)
}

// related refuses the calls of a node whose record has gone another way: nothing it
// says of the cluster is so.
func (s *Server) related(ctx context.Context) error {
	md, _ := metadata.FromIncomingContext(ctx)
	first := func(key string) string {
		if all := md.Get(key); len(all) > 0 {
			return all[0]
		}
		return ""
	}
	theirs := state.Lineage{Cluster: first(headerCluster), Recovery: first(headerRecovery)}
	if ours := s.replica.Lineage(); ours.Foreign(theirs) {
		return status.Errorf(codes.FailedPrecondition, "a control node of cluster %s, recovery %q, called one of cluster %s, recovery %q: "+
			"empty its data directory and have it join again (runbook: Lost majority)", theirs.Cluster, theirs.Recovery, ours.Cluster, ours.Recovery)
	}
	return nil
}
