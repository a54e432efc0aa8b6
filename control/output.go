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
		return s.held(ctx, t, stream, offset, limit, send)
	}
	live := t.Live()
	if live == nil {
		return nil // nothing ran yet
	}
	node := s.store.Snapshot().Node(live.Node)
	if node == nil || node.OutputAddr == "" {
		return lost(t, "its node is not known")
	}
	err := s.fetch(ctx, t, node.OutputAddr, live.Token(t.ID), stream, offset, limit, follow, send)
	return s.unreachable(t, err)
}

// movesAtMost is how often one reading follows output that is handed on.
const movesAtMost = 4

// held reads a finished task's output from the node that holds it. Where that no
// longer does, or goes in the middle, and the record has it at another node by now,
// the reading goes on there.
func (s *Server) held(ctx context.Context, t *task.Task, stream string, offset, limit int64, send func(api.OutputChunk) error) error {
	if now := s.store.Snapshot().Task(t.ID); now != nil {
		t = now
	}
	next, refused := offset, false
	forward := func(c api.OutputChunk) error {
		if err := send(c); err != nil {
			refused = true
			return err
		}
		next = c.Offset + int64(len(c.Data))
		return nil
	}
	for moves := 0; ; moves++ {
		if t.Result.OutputAddr == "" {
			return lost(t, "the node that ran it is gone")
		}
		tok := task.Token{Task: t.ID, Attempt: t.Result.Attempt}
		if n := len(t.Attempts); n > 0 {
			tok = t.Attempts[n-1].Token(t.ID)
		}
		left := limit
		if limit > 0 {
			left = limit - (next - offset)
		}
		err := s.fetch(ctx, t, t.Result.OutputAddr, tok, stream, next, left, false, forward)
		if err == nil || refused || ctx.Err() != nil || moves == movesAtMost || limit > 0 && next-offset >= limit {
			return s.unreachable(t, err)
		}
		moved := s.movedSince(ctx, t)
		if moved == nil {
			return s.unreachable(t, err)
		}
		t = moved
	}
}

// movedSince gives the task as it is now, if its output is not where it was. This
// node's own record may be behind: it asks for the newest before it says no.
func (s *Server) movedSince(ctx context.Context, t *task.Task) *task.Task {
	for synced := false; ; synced = true {
		if now := s.store.Snapshot().Task(t.ID); now != nil && now.Result.OutputAddr != t.Result.OutputAddr {
			return now
		}
		if synced || s.Sync(ctx) != nil {
			return nil // what the reading met with says more
		}
	}
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
		return &fetchError{err}
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
			return &fetchError{err}
		}
		if err := send(api.OutputChunk{Offset: c.GetOffset(), Data: c.GetData(), End: c.GetEnd(),
			Truncated: c.GetTruncated(), Bytes: c.GetBytes()}); err != nil {
			return err
		}
	}
}

// fetchError is what a node, or the way to it, did to a reading.
type fetchError struct{ error }

func (e *fetchError) Unwrap() error { return e.error }

// unreachable tells what is gone from what can't be had now: a node that is
// only slow to answer may still have it. Other errors are given back as they are.
func (s *Server) unreachable(t *task.Task, err error) error {
	var failed *fetchError
	if !errors.As(err, &failed) {
		return err
	}
	if status.Code(failed.error) == codes.NotFound {
		return lost(t, "its node no longer keeps it")
	}
	if t.Result != nil {
		if n := s.store.Snapshot().Node(t.Result.Holder()); n == nil || n.Status == task.Lost || n.Status == task.Left {
			return lost(t, "its node is gone")
		}
	}
	return fmt.Errorf("read output of task %s from its node: %w", t.ID, failed.error)
}

func lost(t *task.Task, why string) error {
	return &task.Error{Code: task.CodeOutputLost, Message: fmt.Sprintf("output of task %s: %s", t.ID, why)}
}
