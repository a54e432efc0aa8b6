package output_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"ecs/agent/output"
	"ecs/agent/runtime"
	"ecs/internal/task"
	ecsv1 "ecs/proto/ecs/v1"
	"ecs/proto/ecs/v1/rpc"
)

// program stands for the one that runs: it notes what it is given, and does not
// read while it is full.
type program struct {
	mu      sync.Mutex
	read    strings.Builder
	ends    int
	happens []string      // resizes and signals
	full    chan struct{} // not nil: Input waits for it to be closed
	waiting chan struct{} // one for each Input that waits
	fails   error
}

func (p *program) Input(ctx context.Context, got task.Token, b []byte, eof bool) error {
	if got != tok {
		return fmt.Errorf("attempt %d: %w", got.Attempt, output.ErrNoAttempt)
	}
	p.mu.Lock()
	full, fails := p.full, p.fails
	p.mu.Unlock()
	if fails != nil {
		return fails
	}
	if full != nil {
		p.waiting <- struct{}{}
		select {
		case <-full:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.read.Write(b)
	if eof {
		p.ends++
	}
	return nil
}

func (p *program) Resize(_ context.Context, _ task.Token, rows, cols uint16) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.happens = append(p.happens, fmt.Sprintf("%dx%d", rows, cols))
	return nil
}

func (p *program) Signal(_ context.Context, got task.Token, s syscall.Signal) error {
	if got != tok {
		return output.ErrNoAttempt
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.happens = append(p.happens, s.String())
	return nil
}

func (p *program) state() (read string, ends int, happened string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.read.String(), p.ends, strings.Join(p.happens, " ")
}

// attachable serves the way in to p and gives a client of it.
func attachable(t *testing.T, p *program) rpc.AttachClient {
	t.Helper()
	l := bufconn.Listen(1 << 20)
	server := grpc.NewServer(grpc.WaitForHandlers(true))
	rpc.RegisterAttachServer(server, output.NewAttach(p))
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
	return rpc.NewAttachClient(conn)
}

type attached struct {
	t *testing.T
	grpc.BidiStreamingClient[ecsv1.AttachInput, ecsv1.AttachAck]
}

func attach(ctx context.Context, t *testing.T, c rpc.AttachClient, to *ecsv1.Token, name string) attached {
	t.Helper()
	stream, err := c.Attach(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&ecsv1.AttachInput{Token: to, Writer: name}); err != nil {
		t.Fatal(err)
	}
	return attached{t, stream}
}

func (a attached) send(offset int64, data string, end bool) {
	a.t.Helper()
	if err := a.Send(&ecsv1.AttachInput{Kind: &ecsv1.AttachInput_Data{Data: &ecsv1.InputData{Offset: offset, Data: []byte(data), End: end}}}); err != nil {
		a.t.Fatal(err)
	}
}

func (a attached) acked(taken int64, end bool) {
	a.t.Helper()
	ack, err := a.Recv()
	if err != nil || ack.GetTaken() != taken || ack.GetEnded() != end {
		a.t.Fatalf("got %v, %v, want %d taken, ended %v", ack, err, taken, end)
	}
}

func TestInputIsTakenInOrderAndAcknowledged(t *testing.T) {
	p := new(program)
	a := attach(t.Context(), t, attachable(t, p), wire(), "w")
	a.send(0, "one ", false)
	a.send(4, "two", false)
	a.acked(4, false)
	a.acked(7, false)
	a.send(7, "", true)
	a.acked(7, true)
	a.send(7, "", true)
	a.acked(7, true)
	if read, ends, _ := p.state(); read != "one two" || ends != 1 {
		t.Errorf("got %q and %d ends, want both pieces and one end", read, ends)
	}
	if err := a.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Recv(); err != io.EOF {
		t.Errorf("got %v, want a clean end", err)
	}
}

func TestWriterThatComesBackDoublesNothing(t *testing.T) {
	p := &program{full: make(chan struct{}), waiting: make(chan struct{}, 9)}
	c := attachable(t, p)
	ctx, drop := context.WithCancel(t.Context())
	first := attach(ctx, t, c, wire(), "w")
	first.send(0, "not taken", false)
	<-p.waiting
	drop()
	p.mu.Lock()
	p.full = nil
	p.mu.Unlock()
	second := attach(t.Context(), t, c, wire(), "w")
	second.send(0, "not taken", false)
	second.acked(9, false)
	second.send(0, "not taken, and more", false) // as if the answer had been lost
	second.acked(19, false)
	other := attach(t.Context(), t, c, wire(), "another")
	other.send(0, "!", false)
	other.acked(1, false)
	afterRestart := attach(t.Context(), t, c, wire(), "of an earlier process")
	afterRestart.send(1000, "?", false)
	afterRestart.acked(1001, false)
	if read, _, _ := p.state(); read != "not taken, and more!?" {
		t.Errorf("got %q, want each byte once", read)
	}
}

func TestSignalsPassByInputThatIsNotRead(t *testing.T) {
	p := &program{full: make(chan struct{}), waiting: make(chan struct{}, 9)}
	a := attach(t.Context(), t, attachable(t, p), wire(), "w")
	a.send(0, "x", false)
	<-p.waiting
	for _, m := range []*ecsv1.AttachInput{
		{Kind: &ecsv1.AttachInput_Resize{Resize: &ecsv1.WindowSize{Rows: 24, Cols: 80}}},
		{Kind: &ecsv1.AttachInput_Signal{Signal: int32(syscall.SIGINT)}},
	} {
		if err := a.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, _, got := p.state(); got == "24x80 interrupt" {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("got %q, want the size and the signal while the program does not read", got)
		}
	}
	close(p.full)
	a.acked(1, false)
}

func TestAttachSaysWhyItFails(t *testing.T) {
	p := new(program)
	c := attachable(t, p)
	piece := func(data string) *ecsv1.AttachInput {
		return &ecsv1.AttachInput{Kind: &ecsv1.AttachInput_Data{Data: &ecsv1.InputData{Data: []byte(data)}}}
	}
	for _, tc := range []struct {
		name  string
		to    *ecsv1.Token
		m     *ecsv1.AttachInput
		fails error
		want  codes.Code
	}{
		{"another attempt", &ecsv1.Token{Task: "01t", Attempt: 1}, piece("x"), nil, codes.NotFound},
		{"a signal to another attempt", &ecsv1.Token{}, &ecsv1.AttachInput{Kind: &ecsv1.AttachInput_Signal{Signal: 2}}, nil, codes.NotFound},
		{"closed", wire(), piece("x"), fmt.Errorf("write: %w", runtime.ErrNoInput), codes.FailedPrecondition},
		{"broken", wire(), piece("x"), errors.New("engine gone"), codes.Unknown},
		{"too much at once", wire(), piece(strings.Repeat("x", 32<<10+1)), nil, codes.InvalidArgument},
		{"too large a terminal", wire(), &ecsv1.AttachInput{Kind: &ecsv1.AttachInput_Resize{Resize: &ecsv1.WindowSize{Rows: 1 << 16}}}, nil, codes.InvalidArgument},
		{"before the beginning", wire(), &ecsv1.AttachInput{Kind: &ecsv1.AttachInput_Data{Data: &ecsv1.InputData{Offset: -1}}}, nil, codes.InvalidArgument},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p.mu.Lock()
			p.fails = tc.fails
			p.mu.Unlock()
			a := attach(t.Context(), t, c, tc.to, tc.name)
			if err := a.Send(tc.m); err != nil {
				t.Fatal(err)
			}
			if _, err := a.Recv(); status.Code(err) != tc.want {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

func TestWriterMayNotRunAhead(t *testing.T) {
	p := &program{full: make(chan struct{}), waiting: make(chan struct{}, 1)}
	a := attach(t.Context(), t, attachable(t, p), wire(), "w")
	for range 12 {
		_ = a.Send(&ecsv1.AttachInput{Kind: &ecsv1.AttachInput_Data{Data: &ecsv1.InputData{Data: []byte("x")}}}) // it may have ended already
	}
	if _, err := a.Recv(); status.Code(err) != codes.InvalidArgument {
		t.Errorf("got %v, want it refused", err)
	}
}
