package control

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"ecs/control/replica"
	"ecs/control/state"
	ecsv1 "ecs/proto/ecs/v1"
)

// carried hands a call's headers to a server instead of making it.
type carried struct {
	grpc.ClientConnInterface
	server *Server
}

func (c carried) Invoke(ctx context.Context, _ string, _, _ any, _ ...grpc.CallOption) error {
	sent, _ := metadata.FromOutgoingContext(ctx)
	return c.server.related(metadata.NewIncomingContext(context.Background(), sent))
}

func TestForeignControlNodesMayNotCall(t *testing.T) {
	of := func(l state.Lineage) *Server {
		s := &Server{store: state.NewStore(state.Limits{})}
		s.replica = replica.New(replica.Config{Store: s.store})
		if l.Cluster == "" {
			return s
		}
		data, err := proto.Marshal(&ecsv1.Entry{Commands: []*ecsv1.Command{state.ToWire(state.Found{Cluster: l.Cluster}, time.Now())}})
		if err == nil {
			_, err = s.store.Apply(1, data)
		}
		if err != nil {
			t.Fatal(err)
		}
		if l.Recovery != "" {
			s.store.Recovered(100, l.Recovery)
		}
		return s
	}
	ours := of(state.Lineage{Cluster: "one", Recovery: "r"})
	for _, tt := range []struct {
		name   string
		caller state.Lineage
		want   bool
	}{
		{"the same", state.Lineage{Cluster: "one", Recovery: "r"}, true},
		{"one without a record", state.Lineage{}, true},
		{"one of before the recovery", state.Lineage{Cluster: "one"}, false},
		{"one of another cluster", state.Lineage{Cluster: "two", Recovery: "r"}, false},
	} {
		_, err := of(tt.caller).peerClient(carried{server: ours}).Go(t.Context(), &ecsv1.GoRequest{})
		if (err == nil) != tt.want {
			t.Errorf("%s: got %v, want it let in: %v", tt.name, err, tt.want)
		}
	}
}
