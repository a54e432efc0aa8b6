package output_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"ecs/agent/output"
	"ecs/agent/spool"
	"ecs/internal/task"
	ecsv1 "ecs/proto/ecs/v1"
	"ecs/proto/ecs/v1/rpc"
)

var tok = task.Token{Task: "01t", Attempt: 2, Epoch: 9}

func wire() *ecsv1.Token { return &ecsv1.Token{Task: "01t", Attempt: 2, Epoch: 9} }

// serve gives a spool and a client of the service over it.
func serve(t *testing.T) (*spool.Spool, rpc.OutputClient) {
	t.Helper()
	s, err := spool.Open(t.TempDir(), 1<<30, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	rpc.RegisterOutputServer(server, output.New(s, nil))
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	conn, err := grpc.NewClient("passthrough:///agent",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return s, rpc.NewOutputClient(conn)
}

func fetch(t *testing.T, c rpc.OutputClient, q *ecsv1.OutputRequest) ([]byte, *ecsv1.OutputChunk, error) {
	t.Helper()
	stream, err := c.Read(t.Context(), q)
	if err != nil {
		return nil, nil, err
	}
	var data []byte
	var last *ecsv1.OutputChunk
	for {
		chunk, err := stream.Recv()
		if err == io.EOF {
			return data, last, nil
		}
		if err != nil {
			return data, last, err
		}
		if len(chunk.Data) > 32<<10 {
			t.Errorf("got a chunk of %d bytes, want at most 32 KiB", len(chunk.Data))
		}
		data, last = append(data, chunk.Data...), chunk
	}
}

func TestFinishedOutputIsServedWhole(t *testing.T) {
	s, c := serve(t)
	e := s.Create(tok, 1<<20)
	want := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	_, _ = e.Stdout().Write(want)
	e.Finish()
	got, last, err := fetch(t, c, &ecsv1.OutputRequest{Token: wire(), Stream: "stdout"})
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("got %d bytes, %v, want %d", len(got), err, len(want))
	}
	if !last.End || last.Bytes != int64(len(want)) || last.Truncated {
		t.Errorf("got last chunk end %v, bytes %d, truncated %v", last.End, last.Bytes, last.Truncated)
	}
	got, last, err = fetch(t, c, &ecsv1.OutputRequest{Token: wire(), Stream: "stdout", Offset: 100, Limit: 50_000})
	if err != nil || !bytes.Equal(got, want[100:50_100]) || last.End {
		t.Errorf("got %d bytes, end %v, %v for a range, want 50000", len(got), last.End, err)
	}
}

func TestALiveAttemptIsFollowedToItsEnd(t *testing.T) {
	s, c := serve(t)
	e := s.Create(tok, 1<<20)
	_, _ = e.Stderr().Write([]byte("first "))
	stream, err := c.Read(t.Context(), &ecsv1.OutputRequest{Token: wire(), Stream: "stderr", Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	chunk, err := stream.Recv()
	if err != nil || string(chunk.Data) != "first " {
		t.Fatalf("got %q, %v, want the first word while the program runs", chunk.GetData(), err)
	}
	_, _ = e.Stderr().Write([]byte("second"))
	e.Finish()
	var rest []byte
	for !chunk.GetEnd() {
		if chunk, err = stream.Recv(); err != nil {
			t.Fatal(err)
		}
		rest = append(rest, chunk.Data...)
	}
	if string(rest) != "second" {
		t.Errorf("got %q, want %q", rest, "second")
	}
}

func TestRefusalsSayWhatIsWrong(t *testing.T) {
	s, c := serve(t)
	s.Create(tok, 1<<20)
	for _, q := range []struct {
		name string
		req  *ecsv1.OutputRequest
		code codes.Code
		says string
	}{
		{"unknown attempt", &ecsv1.OutputRequest{Token: &ecsv1.Token{Task: "01t", Attempt: 1, Epoch: 9}, Stream: "stdout"}, codes.NotFound, "task 01t"},
		{"older epoch", &ecsv1.OutputRequest{Token: &ecsv1.Token{Task: "01t", Attempt: 2, Epoch: 8}, Stream: "stdout"}, codes.NotFound, "not held here"},
		{"no token", &ecsv1.OutputRequest{Stream: "stdout"}, codes.NotFound, "not held here"},
		{"no such stream", &ecsv1.OutputRequest{Token: wire(), Stream: "stdin"}, codes.InvalidArgument, "stdin"},
		{"negative offset", &ecsv1.OutputRequest{Token: wire(), Stream: "stdout", Offset: -1}, codes.InvalidArgument, "-1"},
	} {
		t.Run(q.name, func(t *testing.T) {
			_, _, err := fetch(t, c, q.req)
			if got := status.Code(err); got != q.code || !strings.Contains(err.Error(), q.says) {
				t.Errorf("got %v, want %v that says %q", err, q.code, q.says)
			}
		})
	}
}

func TestACallerThatLeavesEndsItsRead(t *testing.T) {
	s, c := serve(t)
	s.Create(tok, 1<<20)
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := c.Read(ctx, &ecsv1.OutputRequest{Token: wire(), Stream: "stdout", Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := stream.Recv(); status.Code(err) != codes.Canceled {
		t.Errorf("got %v, want Canceled", err)
	}
	// The server's Stop in the clean-up waits for the handler to return.
}
