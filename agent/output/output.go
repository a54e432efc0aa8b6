// Package output serves an agent's spool to the control nodes, on a port of its
// own so that bulk bytes never delay a heartbeat.
//
// Who may ask a Guard decides: control nodes, which have checked against the record
// whose output it is, and agents to which the leader has it handed on.
package output

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"ecs/agent/spool"
	"ecs/internal/task"
	ecsv1 "ecs/proto/ecs/v1"
	"ecs/proto/ecs/v1/rpc"
)

// Server implements rpc.OutputServer. Its answers are
//
//	NotFound         the output is not here: never was, released or evicted
//	PermissionDenied the caller may not read it
//	InvalidArgument  no such stream, or a negative offset or limit
//	Canceled, DeadlineExceeded  the caller's own
type Server struct {
	rpc.UnimplementedOutputServer
	spool *spool.Spool
	guard *Guard
}

// New serves what s holds to those whom guard lets; nil: to everybody who reaches it.
func New(s *spool.Spool, guard *Guard) *Server { return &Server{spool: s, guard: guard} }

// Read streams one stream of one attempt, finished or live, in chunks of at
// most 32 KiB. With follow it lasts until the stream ends; it ends at once when
// the caller goes away.
func (s *Server) Read(q *ecsv1.OutputRequest, to grpc.ServerStreamingServer[ecsv1.OutputChunk]) error {
	tok := task.Token{
		Task:    task.ID(q.GetToken().GetTask()),
		Attempt: int(q.GetToken().GetAttempt()),
		Epoch:   q.GetToken().GetEpoch(),
	}
	if s.guard != nil {
		if err := s.guard.read(to.Context(), tok); err != nil {
			return err
		}
	}
	// Send copies what it is given before it returns, so the spool may use its
	// buffer again.
	send := func(c spool.Chunk) error {
		return to.Send(&ecsv1.OutputChunk{
			Offset: c.Offset, Data: c.Data, End: c.End, Truncated: c.Truncated, Bytes: c.Bytes,
		})
	}
	err := s.spool.Read(to.Context(), tok, q.GetStream(), q.GetOffset(), q.GetLimit(), q.GetFollow(), send)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, spool.ErrLost):
		return status.Errorf(codes.NotFound, "%s of attempt %d of task %s: %v", q.GetStream(), tok.Attempt, tok.Task, err)
	case errors.Is(err, spool.ErrRequest):
		return status.Error(codes.InvalidArgument, err.Error())
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(err).Err()
	}
	return err // from Send, which speaks gRPC already
}
