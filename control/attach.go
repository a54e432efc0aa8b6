package control

import (
	"context"
	"fmt"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"ecs/control/api"
	"ecs/internal/task"
	"ecs/internal/taskwire"
	ecsv1 "ecs/proto/ecs/v1"
	"ecs/proto/ecs/v1/rpc"
)

// Input opens the way in to a live attempt, over the connection that brings
// its output.
func (s *Server) Input(ctx context.Context, t *task.Task, writer string) (api.Input, error) {
	live := t.Live()
	if live == nil {
		return nil, fmt.Errorf("input of task %s: it does not run", t.ID)
	}
	node := s.store.Snapshot().Node(live.Node)
	if node == nil || node.OutputAddr == "" {
		return nil, fmt.Errorf("input of task %s: its node is not known", t.ID)
	}
	conn, err := s.outputs.to(node.OutputAddr)
	if err != nil {
		return nil, fmt.Errorf("dial the node of task %s at %s: %w", t.ID, node.OutputAddr, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	stream, err := rpc.NewAttachClient(conn).Attach(ctx)
	if err == nil {
		err = stream.Send(&ecsv1.AttachInput{Token: taskwire.FromToken(live.Token(t.ID)), Writer: writer})
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("attach to task %s: %w", t.ID, err)
	}
	return &input{stream: stream, cancel: cancel}, nil
}

// input is one stream to an agent.
type input struct {
	stream grpc.BidiStreamingClient[ecsv1.AttachInput, ecsv1.AttachAck]
	cancel context.CancelFunc
}

// Give sends a piece of standard input.
func (i *input) Give(offset int64, data []byte, end bool) error {
	return i.stream.Send(&ecsv1.AttachInput{Kind: &ecsv1.AttachInput_Data{
		Data: &ecsv1.InputData{Offset: offset, Data: data, End: end}}})
}

// Resize sends the terminal's size.
func (i *input) Resize(rows, cols uint16) error {
	return i.stream.Send(&ecsv1.AttachInput{Kind: &ecsv1.AttachInput_Resize{
		Resize: &ecsv1.WindowSize{Rows: uint32(rows), Cols: uint32(cols)}}})
}

// Signal sends a signal.
func (i *input) Signal(s syscall.Signal) error {
	return i.stream.Send(&ecsv1.AttachInput{Kind: &ecsv1.AttachInput_Signal{Signal: int32(s)}})
}

// Taken waits for the agent's next acknowledgement.
func (i *input) Taken() (int64, bool, error) {
	ack, err := i.stream.Recv()
	if status.Code(err) == codes.FailedPrecondition {
		return 0, false, fmt.Errorf("%w: %s", api.ErrNoInput, status.Convert(err).Message())
	}
	return ack.GetTaken(), ack.GetEnded(), err
}

// Close ends the stream, and with it Taken.
func (i *input) Close() { i.cancel() }
