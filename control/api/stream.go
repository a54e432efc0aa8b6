package api

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"ecs/internal/task"
	"ecs/proto/api"
)

// available makes sure that a finished task's stream can be had before an
// answer begins that could not be taken back.
func (h *Handler) available(ctx context.Context, t *task.Task, name string) error {
	if missing(streamOf(t.Result, name), api.MaxInline) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, fetchWithin)
	defer cancel()
	st := streamOf(t.Result, name)
	got := false
	// The last byte: the first ones are in the record and prove nothing.
	err := h.cfg.Outputs.Output(ctx, t, name, st.Kept-1, 1, false, func(c OutputChunk) error {
		got = got || len(c.Data) > 0
		return nil
	})
	if got {
		return nil
	}
	if err == nil {
		err = refusal(api.CodeOutputLost, "the end of it is missing")
	}
	return unavailable(t, name, err)
}

// unavailable tells output that is gone from output that can't be reached now.
func unavailable(t *task.Task, name string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, &task.Error{Code: task.CodeOutputLost}):
		return outputLost(t, name, err.Error())
	case errors.Is(err, context.Canceled):
		return err
	}
	return &api.Problem{Code: api.CodeUnreachable, Task: string(t.ID), Detail: err.Error()}
}

// resumeAtMost is how often the reading of a stream is taken up again.
const resumeAtMost = 2

// copyStream gives n bytes of a finished task's stream from offset on, n < 0
// for all the rest, in order. A reading that breaks off is taken up where it
// broke. A whole stream is checked against its hash at the end.
func (h *Handler) copyStream(ctx context.Context, t *task.Task, name string, offset, n int64, send func([]byte) error) error {
	st := streamOf(t.Result, name)
	end := st.Kept
	if n >= 0 {
		end = min(end, offset+n)
	}
	hash, whole := sha256.New(), offset == 0 && end == st.Kept
	var failed error // of send: the caller's reader, not the output
	next := offset
	if head := int64(len(st.Head)); next < min(head, end) {
		data := st.Head[next:min(head, end)]
		hash.Write(data)
		if err := send(data); err != nil {
			return err
		}
		next += int64(len(data))
	}
	for resumed := 0; next < end; resumed++ {
		err := h.cfg.Outputs.Output(ctx, t, name, next, end-next, false, func(c OutputChunk) error {
			if len(c.Data) == 0 {
				return nil
			}
			if c.Offset != next || next+int64(len(c.Data)) > end {
				return fmt.Errorf("%d bytes at %d do not follow %d of %d", len(c.Data), c.Offset, next, end)
			}
			next += int64(len(c.Data))
			hash.Write(c.Data)
			failed = send(c.Data)
			return failed
		})
		switch {
		case failed != nil:
			return failed
		case next >= end:
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, &task.Error{Code: task.CodeOutputLost}), resumed == resumeAtMost:
			return fmt.Errorf("%s of task %s ends at byte %d of %d: %w", name, t.ID, next, end, errOr(err))
		}
	}
	if whole && end > 0 && [sha256.Size]byte(hash.Sum(nil)) != st.SHA256 {
		return fmt.Errorf("%s of task %s is not what was recorded", name, t.ID)
	}
	return nil
}

func errOr(err error) error {
	if err == nil {
		return errors.New("no more came")
	}
	return err
}
