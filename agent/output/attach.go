package output

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"

	lru "github.com/hashicorp/golang-lru/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"ecs/agent/runtime"
	"ecs/internal/task"
	"ecs/internal/taskwire"
	ecsv1 "ecs/proto/ecs/v1"
	"ecs/proto/ecs/v1/rpc"
)

// ErrNoAttempt is answered by Attempts where no program of the attempt runs.
var ErrNoAttempt = errors.New("no program of this attempt runs here")

// Attempts is the way in to the programs that run here. What it answers is
// nil, an error that is ErrNoAttempt, one that is runtime.ErrNoInput when
// standard input is closed or never was open, ctx's own, or any other.
type Attempts interface {
	// Input gives a program's standard input more bytes, and its end with
	// eof. It blocks while the program does not read. It takes all of p or,
	// when it fails, none, so that a call may be repeated.
	Input(ctx context.Context, tok task.Token, p []byte, eof bool) error
	// Resize sets the size of a program's terminal, if it has one.
	Resize(ctx context.Context, tok task.Token, rows, cols uint16) error
	// Signal sends a program a signal.
	Signal(ctx context.Context, tok task.Token, signal syscall.Signal) error
}

// Bounds of what is under way to one program.
const (
	maxPiece   = 32 << 10 // bytes of one piece of input
	maxAhead   = 8        // pieces that are not acknowledged
	maxWriters = 1024     // whose progress is remembered
	maxName    = 64       // bytes of a writer's name
)

// AttachServer implements rpc.AttachServer. Its answers are
//
//	NotFound            no program of the attempt runs here
//	FailedPrecondition  its standard input is closed or never was open
//	InvalidArgument     a message that no control node sends
//	Canceled, DeadlineExceeded  the caller's own
type AttachServer struct {
	rpc.UnimplementedAttachServer
	attempts Attempts
	writers  *lru.Cache[writer, *progress]
	mu       sync.Mutex // of finding a writer's progress
}

// writer is one caller that types into one attempt, over any connection.
type writer struct {
	tok  task.Token
	name string
}

// progress is how far a writer has come. Who gives the program input on the
// writer's behalf holds turn.
type progress struct {
	turn  chan struct{}
	taken int64
	ended bool
}

// NewAttach serves the way in to a's programs.
func NewAttach(a Attempts) *AttachServer {
	writers, err := lru.New[writer, *progress](maxWriters)
	if err != nil {
		panic(err) // of a size that is not positive
	}
	return &AttachServer{attempts: a, writers: writers}
}

// Attach passes on what one writer sends, until the writer ends or something
// fails.
func (s *AttachServer) Attach(stream grpc.BidiStreamingServer[ecsv1.AttachInput, ecsv1.AttachAck]) error {
	ctx, cancel := context.WithCancel(stream.Context())
	var giving sync.WaitGroup
	defer giving.Wait()
	defer cancel()
	messages, over := make(chan *ecsv1.AttachInput), make(chan error, 2)
	go receive(ctx, stream, messages, over)
	var first *ecsv1.AttachInput
	select {
	case first = <-messages:
	case err := <-over:
		return ended(err)
	}
	w := writer{tok: taskwire.ToToken(first.GetToken()), name: first.GetWriter()}
	if len(w.name) > maxName {
		return status.Errorf(codes.InvalidArgument, "a writer's name of %d bytes, at most %d", len(w.name), maxName)
	}
	pieces := make(chan *ecsv1.InputData, maxAhead)
	giving.Go(func() { over <- s.give(ctx, w, pieces, stream.Send) })
	for m := first; ; {
		if err := s.pass(ctx, w.tok, m, pieces); err != nil {
			return err
		}
		select {
		case m = <-messages:
		case err := <-over:
			return ended(err)
		}
	}
}

// receive passes on what comes. Recv ends with the stream's own context only,
// which gRPC cancels when the handler returns: so the handler does not wait for
// this goroutine, it ends right after it.
func receive(ctx context.Context, stream grpc.BidiStreamingServer[ecsv1.AttachInput, ecsv1.AttachAck], to chan<- *ecsv1.AttachInput, over chan<- error) {
	for {
		m, err := stream.Recv()
		if err != nil {
			over <- err
			return
		}
		select {
		case to <- m:
		case <-ctx.Done():
			return
		}
	}
}

// pass puts a piece of input in line; a resize or a signal takes effect at once.
func (s *AttachServer) pass(ctx context.Context, tok task.Token, m *ecsv1.AttachInput, pieces chan<- *ecsv1.InputData) error {
	switch m.GetKind().(type) {
	case *ecsv1.AttachInput_Data:
		if n := len(m.GetData().GetData()); n > maxPiece {
			return status.Errorf(codes.InvalidArgument, "a piece of input of %d bytes, at most %d", n, maxPiece)
		}
		select {
		case pieces <- m.GetData():
			return nil
		default:
			return status.Errorf(codes.InvalidArgument, "more than %d pieces of input are not acknowledged", maxAhead)
		}
	case *ecsv1.AttachInput_Resize:
		size := m.GetResize()
		if size.GetRows() > 1<<16-1 || size.GetCols() > 1<<16-1 {
			return status.Errorf(codes.InvalidArgument, "no terminal has %d rows and %d columns", size.GetRows(), size.GetCols())
		}
		return answer(s.attempts.Resize(ctx, tok, uint16(size.GetRows()), uint16(size.GetCols())))
	case *ecsv1.AttachInput_Signal:
		return answer(s.attempts.Signal(ctx, tok, syscall.Signal(m.GetSignal())))
	}
	return nil // only says who it is
}

// give gives the program the pieces in order and acknowledges each.
func (s *AttachServer) give(ctx context.Context, w writer, pieces <-chan *ecsv1.InputData, ack func(*ecsv1.AttachAck) error) error {
	p := s.progress(w)
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done(): // an earlier connection of the writer's still gives
		return ctx.Err()
	}
	for {
		select {
		case piece := <-pieces:
			if err := s.giveOne(ctx, w.tok, p, piece); err != nil {
				return err
			}
			if err := ack(&ecsv1.AttachAck{Taken: p.taken, Ended: p.ended}); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// giveOne gives what is new of a piece. An offset beyond what was reached is
// believed: the writer was here before this process was.
func (s *AttachServer) giveOne(ctx context.Context, tok task.Token, p *progress, piece *ecsv1.InputData) error {
	if piece.GetOffset() < 0 {
		return status.Errorf(codes.InvalidArgument, "input at %d", piece.GetOffset())
	}
	data := piece.GetData()
	data = data[min(int64(len(data)), max(0, p.taken-piece.GetOffset())):]
	eof := piece.GetEnd() && !p.ended
	if len(data) > 0 || eof {
		if err := s.attempts.Input(ctx, tok, data, eof); err != nil {
			return answer(err)
		}
	}
	p.taken = max(p.taken, piece.GetOffset()+int64(len(piece.GetData())))
	p.ended = p.ended || eof
	return nil
}

func (s *AttachServer) progress(w writer) *progress {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.writers.Get(w)
	if !ok {
		p = &progress{turn: make(chan struct{}, 1)}
		s.writers.Add(w, p)
	}
	return p
}

// answer gives an error of Attempts its code.
func answer(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrNoAttempt):
		return status.Error(codes.NotFound, err.Error())
	case errors.Is(err, runtime.ErrNoInput):
		return status.Error(codes.FailedPrecondition, err.Error())
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(err).Err()
	}
	return fmt.Errorf("pass input on: %w", err)
}

// ended turns the end of the writer's side into the answer.
func ended(err error) error {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(err).Err()
	case errors.Is(err, io.EOF):
		return nil
	}
	return err
}
