package output

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"ecs/internal/pki"
	"ecs/internal/task"
	"ecs/proto/ecs/v1/rpc"
)

// Grants says what another agent may read here.
type Grants interface {
	// MayRead returns nil when the leader has told that the node takes over the
	// attempt's output. It may wait a little for that, and ends with ctx.
	MayRead(ctx context.Context, node string, tok task.Token) error
}

// Guard decides who may ask for what on an agent's output port: control nodes for
// everything, other agents for the output that is handed on to them.
type Guard struct {
	// Peer gives who calls, by its certificate.
	Peer   func(context.Context) (pki.Identity, error)
	Grants Grants
}

// Unary refuses calls before they are handled.
func (g *Guard) Unary() grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		if err := g.Control(ctx); err != nil {
			return nil, err
		}
		return handle(ctx, req)
	}
}

// Stream refuses streams before they are handled. What an agent may read the Server
// decides: it depends on what is asked for.
func (g *Guard) Stream() grpc.StreamServerInterceptor {
	return func(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
		if info.FullMethod != rpc.Output_Read_FullMethodName {
			if err := g.Control(s.Context()); err != nil {
				return err
			}
		}
		return handle(srv, s)
	}
}

// Control refuses everybody but control nodes.
func (g *Guard) Control(ctx context.Context) error {
	peer, err := g.peer(ctx)
	if err != nil {
		return err
	}
	if peer.Role != pki.RoleControl {
		return status.Errorf(codes.PermissionDenied, "%s %s may not ask for this", peer.Role, peer.ID)
	}
	return nil
}

// read refuses everybody who may not read an attempt's output.
func (g *Guard) read(ctx context.Context, tok task.Token) error {
	peer, err := g.peer(ctx)
	switch {
	case err != nil:
		return err
	case peer.Role == pki.RoleControl:
		return nil
	case peer.Role != pki.RoleAgent:
		return status.Errorf(codes.PermissionDenied, "%s %s may not read output", peer.Role, peer.ID)
	}
	if err := g.Grants.MayRead(ctx, peer.ID, tok); err != nil {
		return status.Error(codes.PermissionDenied, err.Error())
	}
	return nil
}

func (g *Guard) peer(ctx context.Context) (pki.Identity, error) {
	peer, err := g.Peer(ctx)
	if err != nil {
		return peer, status.Errorf(codes.Unauthenticated, "who are you: %v", err)
	}
	return peer, nil
}
