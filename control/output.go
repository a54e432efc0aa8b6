package control

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"ecs/control/api"
	"ecs/internal/task"
	"ecs/internal/taskwire"
	papi "ecs/proto/api"
	ecsv1 "ecs/proto/ecs/v1"
	"ecs/proto/ecs/v1/rpc"
)

// Output reads a stream of a task, or the tar of its outputs: from the record where its head holds the
// range, else from the agent that ran it, over a connection of its own. With
// follow it stays until the present attempt's stream ends.
func (s *Server) Output(ctx context.Context, t *task.Task, stream string, offset, limit int64, follow bool, send func(api.OutputChunk) error) error {
	if t.Result != nil {
		kept := streamOf(t.Result, stream)
		if inHead(kept, offset, limit) {
			return send(fromHead(kept, offset, limit))
		}
		if t.Result.OutputAddr == "" {
			return lost(t, "the node that ran it is gone")
		}
		tok := task.Token{Task: t.ID, Attempt: t.Result.Attempt}
		if n := len(t.Attempts); n > 0 {
			tok = t.Attempts[n-1].Token(t.ID)
		}
		return s.fetch(ctx, t, t.Result.OutputAddr, tok, stream, offset, limit, false, send)
	}
	live := t.Live()
	if live == nil {
		return nil // nothing ran yet
	}
	node := s.store.Snapshot().Node(live.Node)
	if node == nil || node.OutputAddr == "" {
		return lost(t, "its node is not known")
	}
	return s.fetch(ctx, t, node.OutputAddr, live.Token(t.ID), stream, offset, limit, follow, send)
}

func streamOf(r *task.Result, name string) *task.Stream {
	switch {
	case name == "stderr":
		return &r.Stderr
	case name == papi.OutputsTar:
		return r.Outputs.Stream()
	}
	return &r.Stdout
}

// inHead reports whether the record holds the whole range.
func inHead(st *task.Stream, offset, limit int64) bool {
	head := int64(len(st.Head))
	return head == st.Kept || offset >= st.Kept || (limit > 0 && offset+limit <= head)
}

func fromHead(st *task.Stream, offset, limit int64) api.OutputChunk {
	offset = min(offset, int64(len(st.Head)))
	data := st.Head[offset:]
	if limit > 0 && int64(len(data)) > limit {
		data = data[:limit]
	}
	return api.OutputChunk{Offset: offset, Data: data, End: true, Truncated: st.Truncated, Bytes: st.Bytes}
}

func (s *Server) fetch(ctx context.Context, t *task.Task, addr string, tok task.Token, stream string, offset, limit int64, follow bool, send func(api.OutputChunk) error) error {
	conn, err := s.outputs.to(addr)
	if err != nil {
		return fmt.Errorf("dial the output of task %s at %s: %w", t.ID, addr, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // frees the agent's side when send fails
	chunks, err := rpc.NewOutputClient(conn).Read(ctx, &ecsv1.OutputRequest{Token: taskwire.FromToken(tok),
		Stream: stream, Offset: offset, Limit: limit, Follow: follow})
	if err != nil {
		return s.unreachable(t, err)
	}
	for {
		c, err := chunks.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return s.unreachable(t, err)
		}
		if err := send(api.OutputChunk{Offset: c.GetOffset(), Data: c.GetData(), End: c.GetEnd(),
			Truncated: c.GetTruncated(), Bytes: c.GetBytes()}); err != nil {
			return err
		}
	}
}

// unreachable tells what is gone from what can't be had now: a node that is
// only slow to answer may still have it.
func (s *Server) unreachable(t *task.Task, err error) error {
	if status.Code(err) == codes.NotFound {
		return lost(t, "its node no longer keeps it")
	}
	if t.Result != nil {
		if n := s.store.Snapshot().Node(t.Result.Node); n == nil || n.Status == task.Lost || n.Status == task.Left {
			return lost(t, "its node is gone")
		}
	}
	return fmt.Errorf("read output of task %s from its node: %w", t.ID, err)
}

func lost(t *task.Task, why string) error {
	return &task.Error{Code: task.CodeOutputLost, Message: fmt.Sprintf("output of task %s: %s", t.ID, why)}
}
