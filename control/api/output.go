package api

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/julienschmidt/httprouter"

	"ecs/internal/task"
	"ecs/proto/api"
)

// output serves GET /v2/tasks/{id}/output: the raw bytes of one stream.
func (h *Handler) output(w http.ResponseWriter, r *http.Request, p httprouter.Params) error {
	q, err := query(r, []string{"stream", "follow"})
	if err != nil {
		return err
	}
	name := first(q, "stream")
	switch name {
	case "":
		name = api.Stdout
	case api.Stdout, api.Stderr:
	default:
		return badParameter("stream", "must be stdout or stderr")
	}
	follow := false
	switch first(q, "follow") {
	case "", "false":
	case "true":
		follow = true
	default:
		return badParameter("follow", "must be true or false")
	}
	t, err := h.lookup(r, p)
	if err != nil {
		return err
	}
	holdOpen(w)
	w.Header().Set("Content-Type", "application/octet-stream")
	switch {
	case t.State == task.Finished:
		return h.finishedOutput(w, r, t, name)
	case r.Method == http.MethodHead:
		return nil
	case follow:
		return h.followOutput(w, r, t, name)
	}
	return h.outputSoFar(w, r, t, name)
}

// finishedOutput serves a stream that does not change any more, whole or in one
// range.
func (h *Handler) finishedOutput(w http.ResponseWriter, r *http.Request, t *task.Task, name string) error {
	st := streamOf(t.Result, name)
	etag := `"` + hashOf(st) + `"`
	describe(w.Header(), name, st)
	w.Header().Set("ETag", etag)
	w.Header().Set("Accept-Ranges", "bytes")
	offset, n, status := int64(0), st.Kept, http.StatusOK
	if text := r.Header.Get("Range"); text != "" && (r.Header.Get("If-Range") == "" || r.Header.Get("If-Range") == etag) {
		from, length, ok, err := parseRange(text, st.Kept)
		if err != nil {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", st.Kept))
			return err
		}
		if ok {
			offset, n, status = from, length, http.StatusPartialContent
		}
	}
	if n > 0 && offset+n > int64(len(st.Head)) {
		if err := h.available(r.Context(), t, name); err != nil {
			return err
		}
	}
	if status == http.StatusPartialContent {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", offset, offset+n-1, st.Kept))
	}
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return nil
	}
	err := h.copyStream(r.Context(), t, name, offset, n, func(data []byte) error {
		_, err := w.Write(data)
		return err
	})
	if err != nil {
		h.cfg.Log.WarnContext(r.Context(), "output cut", "task", t.ID, "stream", name, "err", err)
		panic(http.ErrAbortHandler)
	}
	return nil
}

// describe tells size, hash and truncation of a stream in headers or trailers.
func describe(header http.Header, name string, st *task.Stream) {
	header.Set(api.HeaderBytes, strconv.FormatInt(st.Bytes, 10))
	header.Set(api.HeaderKept, strconv.FormatInt(st.Kept, 10))
	header.Set(api.HeaderSHA256, hashOf(st))
	if st.Truncated {
		header.Set(api.HeaderTruncated, fmt.Sprintf("%s=%d", name, st.Bytes))
	}
}

// outputSoFar serves what a live attempt has written until now.
func (h *Handler) outputSoFar(w http.ResponseWriter, r *http.Request, t *task.Task, name string) error {
	if t.State == task.Pending {
		return nil
	}
	begun := false
	err := h.cfg.Outputs.Output(r.Context(), t, name, 0, 0, false, func(c OutputChunk) error {
		begun = true
		_, err := w.Write(c.Data)
		return err
	})
	switch {
	case err == nil:
		return nil
	case begun:
		panic(http.ErrAbortHandler)
	case isLost(err) && t.State == task.Assigned:
		return nil // its node has not begun with it
	case isLost(err):
		return &api.Problem{Code: api.CodeUnreachable, Task: string(t.ID), Detail: err.Error()}
	}
	return unavailable(t, name, err)
}

// errNewAttempt ends the following of raw bytes whose attempt was lost: what
// was sent can't be taken back.
var errNewAttempt = errors.New("the attempt was lost and the task runs again")

// followOutput serves a stream as it appears, until the task has finished. The
// trailers say how it ended; an answer without them is not whole.
func (h *Handler) followOutput(w http.ResponseWriter, r *http.Request, t *task.Task, name string) error {
	w.Header().Set("Trailer", strings.Join([]string{api.HeaderBytes, api.HeaderKept, api.HeaderSHA256, api.HeaderTruncated}, ", "))
	w.WriteHeader(http.StatusOK)
	control := http.NewResponseController(w)
	_ = control.Flush() // the caller sees that it is connected; a writer that can't is a test's
	sent := position{}
	f := &follower{h: h, id: t.ID, stream: name, send: func(at position, data []byte) error {
		if sent.offset > 0 && at.attempt != sent.attempt {
			return errNewAttempt
		}
		if _, err := w.Write(data); err != nil {
			return err
		}
		sent = position{attempt: at.attempt, offset: at.offset + int64(len(data))}
		return control.Flush()
	}}
	err := f.run(r.Context())
	now := h.cfg.Reader.Snapshot().Task(t.ID)
	if err == nil && (now == nil || now.Result == nil || streamOf(now.Result, name).Kept != sent.offset) {
		err = io.ErrUnexpectedEOF // an attempt was lost, and the one that stands wrote less
	}
	if err != nil {
		h.cfg.Log.InfoContext(r.Context(), "following ended early", "task", t.ID, "stream", name, "err", err)
		panic(http.ErrAbortHandler)
	}
	describe(w.Header(), name, streamOf(now.Result, name))
	return nil
}

// parseRange reads a Range header of one range. ok is false for what is not
// understood, which means the whole.
func parseRange(text string, size int64) (from, n int64, ok bool, err error) {
	spec, isBytes := strings.CutPrefix(text, "bytes=")
	low, high, dashed := strings.Cut(strings.TrimSpace(spec), "-")
	if !isBytes || !dashed || strings.Contains(spec, ",") || low+high == "" {
		return 0, 0, false, nil
	}
	first, last := int64(0), size-1
	if low == "" { // the last so many bytes
		suffix, bad := strconv.ParseUint(high, 10, 62)
		if bad != nil {
			return 0, 0, false, nil
		}
		first = max(0, size-int64(suffix))
		if suffix == 0 {
			first = size
		}
	} else {
		start, bad := strconv.ParseUint(low, 10, 62)
		if bad != nil {
			return 0, 0, false, nil
		}
		first = int64(start)
		if high != "" {
			end, bad := strconv.ParseUint(high, 10, 62)
			if bad != nil || int64(end) < first {
				return 0, 0, false, nil
			}
			last = min(last, int64(end))
		}
	}
	if first >= size {
		return 0, 0, false, refusal(api.CodeRange, fmt.Sprintf("the output has %d bytes", size))
	}
	return first, last - first + 1, true, nil
}
