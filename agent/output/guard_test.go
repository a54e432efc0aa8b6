package output_test

import (
	"context"
	"errors"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"ecs/agent/output"
	"ecs/internal/pki"
	"ecs/internal/task"
	ecsv1 "ecs/proto/ecs/v1"
	"ecs/proto/ecs/v1/rpc"
)

// granted lets one node read one attempt's output.
type granted string

func (g granted) MayRead(_ context.Context, node string, asked task.Token) error {
	if node != string(g) || asked != tok {
		return errors.New("not handed on")
	}
	return nil
}

// onlyContext is a stream that never gets as far as its messages.
type onlyContext struct {
	grpc.ServerStream
	ctx context.Context
}

func (s onlyContext) Context() context.Context { return s.ctx }

type onlyContextRead struct {
	grpc.ServerStreamingServer[ecsv1.OutputChunk]
	ctx context.Context
}

func (s onlyContextRead) Context() context.Context { return s.ctx }

// An agent may read what is handed on to it and nothing else; nobody but control
// nodes may ask for anything else.
func TestAgentsReadOnlyWhatIsHandedOnToThem(t *testing.T) {
	s, _ := serve(t)
	other := &ecsv1.Token{Task: "other", Attempt: 1, Epoch: 1}
	for _, tc := range []struct {
		who                 pki.Identity
		err                 error
		read, readOther, do codes.Code
	}{
		{who: pki.Identity{Role: pki.RoleControl, ID: "c1"}, read: codes.NotFound, readOther: codes.NotFound, do: codes.OK},
		{who: pki.Identity{Role: pki.RoleAgent, ID: "a2"}, read: codes.NotFound, readOther: codes.PermissionDenied, do: codes.PermissionDenied},
		{who: pki.Identity{Role: pki.RoleAgent, ID: "a3"}, read: codes.PermissionDenied, readOther: codes.PermissionDenied, do: codes.PermissionDenied},
		{err: errors.New("nobody"), read: codes.Unauthenticated, readOther: codes.Unauthenticated, do: codes.Unauthenticated},
	} {
		g := &output.Guard{Peer: func(context.Context) (pki.Identity, error) { return tc.who, tc.err }, Grants: granted("a2")}
		server := output.New(s, g)
		for asked, want := range map[*ecsv1.Token]codes.Code{wire(): tc.read, other: tc.readOther} {
			err := server.Read(&ecsv1.OutputRequest{Token: asked, Stream: "stdout"}, onlyContextRead{ctx: t.Context()})
			if status.Code(err) != want {
				t.Errorf("%+v reads %v: got %v, want %v", tc.who, asked, err, want)
			}
		}
		handled := func(any, grpc.ServerStream) error { return nil }
		for method, want := range map[string]codes.Code{rpc.Attach_Attach_FullMethodName: tc.do, rpc.Output_Read_FullMethodName: codes.OK} {
			if err := g.Stream()(nil, onlyContext{ctx: t.Context()}, &grpc.StreamServerInfo{FullMethod: method}, handled); status.Code(err) != want {
				t.Errorf("%+v streams %s: got %v, want %v", tc.who, method, err, want)
			}
		}
		_, err := g.Unary()(t.Context(), nil, nil, func(context.Context, any) (any, error) { return nil, nil })
		if status.Code(err) != tc.do {
			t.Errorf("%+v calls: got %v, want %v", tc.who, err, tc.do)
		}
	}
}
