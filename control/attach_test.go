package control

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	"ecs/control/api"
	"ecs/control/state"
	"ecs/internal/task"
	ecsv1 "ecs/proto/ecs/v1"
	"ecs/proto/ecs/v1/rpc"
)

// attachAgent is an agent's end of Attach: it notes what comes and
// acknowledges data, or fails.
type attachAgent struct {
	rpc.UnimplementedAttachServer
	got   chan *ecsv1.AttachInput
	fails error
}

func (a *attachAgent) Attach(stream grpc.BidiStreamingServer[ecsv1.AttachInput, ecsv1.AttachAck]) error {
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		a.got <- m
		if d := m.GetData(); d != nil {
			if a.fails != nil {
				return a.fails
			}
			if err := stream.Send(&ecsv1.AttachAck{Taken: d.GetOffset() + int64(len(d.GetData())), Ended: d.GetEnd()}); err != nil {
				return err
			}
		}
	}
}

// overAgent gives a server whose task t runs on an agent that is a.
func overAgent(t *testing.T, a *attachAgent) (*Server, *task.Task) {
	t.Helper()
	l := bufconn.Listen(1 << 16)
	server := grpc.NewServer()
	rpc.RegisterAttachServer(server, a)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	s := &Server{cfg: Config{Log: slog.New(slog.DiscardHandler)}, store: state.NewStore(state.Limits{})}
	s.outputs = newConnections(func(addr string) (*grpc.ClientConn, error) {
		if addr != "n:1" {
			t.Errorf("dialed %s, want the node's output port", addr)
		}
		return grpc.NewClient("passthrough:///agent", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	})
	t.Cleanup(func() { s.outputs.close(); server.Stop(); <-served })
	apply := func(index uint64, c state.Command) {
		t.Helper()
		entry, err := proto.Marshal(&ecsv1.Entry{Commands: []*ecsv1.Command{state.ToWire(c, time.Now())}})
		if err != nil {
			t.Fatal(err)
		}
		if out, err := s.store.Apply(index, entry); err != nil || out[0].Err != nil {
			t.Fatal(err, out)
		}
	}
	apply(1, state.Register{Node: task.Node{ID: "n", Name: "n", Zone: "z", OutputAddr: "n:1", Capacity: task.Capacity{MilliCPU: 4000, Memory: 4 << 30}}})
	apply(2, state.Submit{Task: &task.Task{ID: "t", Owner: "o", API: task.V2, Spec: task.Spec{Image: "busybox:1", OpenStdin: true}.WithDefaults(task.V2, false)}})
	apply(3, state.Place{Decisions: []state.Decision{{Task: "t", Attempt: 1, Node: "n", Epoch: s.store.Snapshot().Node("n").Epoch}}})
	return s, s.store.Snapshot().Task("t")
}

func TestInputReachesTheAttemptsAgent(t *testing.T) {
	a := &attachAgent{got: make(chan *ecsv1.AttachInput, 10)}
	s, running := overAgent(t, a)
	in, err := s.Input(t.Context(), running, "me")
	if err != nil {
		t.Fatal(err)
	}
	if first := <-a.got; first.GetWriter() != "me" || first.GetToken().GetTask() != "t" || first.GetToken().GetAttempt() != 1 || first.GetToken().GetEpoch() != running.Live().Epoch {
		t.Errorf("got %v, want the attempt and the writer first", first)
	}
	if err := errors.Join(in.Resize(24, 80), in.Signal(2), in.Give(5, []byte("abc"), true)); err != nil {
		t.Fatal(err)
	}
	if m := <-a.got; m.GetResize().GetRows() != 24 || m.GetResize().GetCols() != 80 {
		t.Errorf("got %v, want the size", m)
	}
	if m := <-a.got; m.GetSignal() != 2 {
		t.Errorf("got %v, want the signal", m)
	}
	if taken, ended, err := in.Taken(); taken != 8 || !ended || err != nil {
		t.Errorf("got %d, %v, %v, want all taken, to the end", taken, ended, err)
	}
	in.Close()
	if _, _, err := in.Taken(); err == nil {
		t.Error("a closed input still waits")
	}
}

func TestClosedInputIsToldFromABrokenOne(t *testing.T) {
	for code, closed := range map[codes.Code]bool{codes.FailedPrecondition: true, codes.NotFound: false, codes.Unavailable: false} {
		a := &attachAgent{got: make(chan *ecsv1.AttachInput, 10), fails: status.Error(code, "no")}
		s, running := overAgent(t, a)
		in, err := s.Input(t.Context(), running, "me")
		if err != nil {
			t.Fatal(err)
		}
		if err := in.Give(0, []byte("x"), false); err != nil {
			t.Fatal(err)
		}
		if _, _, err := in.Taken(); err == nil || errors.Is(err, api.ErrNoInput) != closed {
			t.Errorf("%v: got %v, want it closed: %v", code, err, closed)
		}
		in.Close()
	}
	s, running := overAgent(t, &attachAgent{})
	pending := *running
	pending.State = task.Pending
	if _, err := s.Input(t.Context(), &pending, "me"); err == nil {
		t.Error("a task that waits has a way in")
	}
}
