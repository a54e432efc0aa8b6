package api

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/julienschmidt/httprouter"

	"ecs/internal/task"
	"ecs/proto/api"
)

const (
	// exitOOM is what v1 callers get for a program that ran out of memory.
	exitOOM = 128 + 9
	// lostRetry is what v1 callers are asked to wait when the service could
	// not run their task.
	lostRetry = 5 * time.Second
)

// run serves POST /v1.1/tasks and /v1.0/tasks: it answers when the task has
// finished. A caller that goes away does not cancel it.
func (h *Handler) run(separate bool) handle {
	return func(w http.ResponseWriter, r *http.Request, _ httprouter.Params) error {
		body, err := readBody(w, r, api.MaxBodyV1)
		if err != nil {
			return err
		}
		req, err := h.parse.v1(body, separate)
		if err != nil {
			return err
		}
		req.spec.Resources.Memory = h.cfg.V1Memory
		t, own, err := h.accept(r, req, true)
		if errors.Is(err, &task.Error{Code: task.CodeUnschedulable}) {
			// The caller chose none of what does not fit: it is the cluster
			// that lacks something.
			return &api.Problem{Code: api.CodeUnschedulable, Status: http.StatusServiceUnavailable,
				Detail: err.Error(), RetryAfter: lostRetry}
		}
		if err != nil {
			return err
		}
		holdOpen(w)
		if t, err = h.await(r.Context(), t, 0); err != nil {
			return err
		}
		return h.answerV1(w, r, t, own)
	}
}

// failuresV1 is how v1 tells outcomes that are not an exit of the program.
func failuresV1() map[task.Outcome]api.Problem {
	return map[task.Outcome]api.Problem{
		task.ImageNotFound:    {Status: http.StatusNotFound, Title: "Image not found"},
		task.ImageDenied:      {Status: http.StatusForbidden, Title: "The registry refuses the image"},
		task.ImageUnavailable: {Status: http.StatusBadGateway, Title: "The registry cannot be reached"},
		task.ImageInvalid:     {Status: http.StatusUnprocessableEntity, Title: "The image cannot be used"},
		task.StartFailed:      {Status: http.StatusUnprocessableEntity, Title: "The program could not be started"},
		task.PullTimedOut:     {Status: http.StatusGatewayTimeout, Title: "Pulling the image took too long"},
		task.TimedOut:         {Status: http.StatusGatewayTimeout, Title: "The program ran too long"},
		task.DeadlineExceeded: {Status: http.StatusGatewayTimeout, Title: "The task took too long"},
		task.Cancelled:        {Status: http.StatusConflict, Title: "The task was cancelled"},
		task.QueueExpired:     {Status: http.StatusServiceUnavailable, Title: "No room in time", RetryAfter: lostRetry},
		task.NodeLost:         {Status: http.StatusServiceUnavailable, Title: "The node that ran the task was lost", RetryAfter: lostRetry},
		task.Interrupted:      {Status: http.StatusServiceUnavailable, Title: "The task was interrupted", RetryAfter: lostRetry},
	}
}

func (h *Handler) answerV1(w http.ResponseWriter, r *http.Request, t *task.Task, own *answering) error {
	if own != nil {
		own.seen = h.cfg.Now()
		own.now = own.seen
	}
	times, overhead := bill(t, own)
	if own != nil {
		h.stats.answered(t.Result.Outcome, overhead)
	}
	serverTiming(w, times)
	w.Header().Set("Location", "/v2/tasks/"+string(t.ID))
	truncated(w, t.Result)
	switch t.Result.Outcome {
	case task.Exited:
		return h.exitedV1(w, r, t, t.Result.ExitCode)
	case task.OOMKilled:
		return h.exitedV1(w, r, t, exitOOM)
	}
	outcome, detail := t.Result.Outcome, t.Result.Reason
	if outcome == task.ImageDenied && !t.Spec.HasAuth {
		// Registries hide what is missing behind a refusal.
		outcome, detail = task.ImageNotFound, "the image is missing or private; pass creds if it is private: "+detail
	}
	p := failuresV1()[outcome]
	p.Code, p.Detail, p.Task = api.Code(outcome), detail, string(t.ID)
	return &p
}

// truncated names the streams that were cut.
func truncated(w http.ResponseWriter, result *task.Result) {
	var cut []string
	for _, name := range []string{api.Stdout, api.Stderr} {
		if st := streamOf(result, name); st.Truncated {
			cut = append(cut, fmt.Sprintf("%s=%d", name, st.Bytes))
		}
	}
	if len(cut) > 0 {
		w.Header().Set(api.HeaderTruncated, strings.Join(cut, ", "))
	}
}

// streamingV1 is what an answer of v1 holds of its output at any time, however
// much there is of it: a chunk, its base64 and the writer's buffer.
const streamingV1 = 256 << 10

// exitedV1 answers 201 with exit code and output. The output goes through as it
// comes. If it breaks off behind the first byte of the answer, the connection is
// cut, so that nobody takes a part for the whole.
func (h *Handler) exitedV1(w http.ResponseWriter, r *http.Request, t *task.Task, code int) error {
	if !h.budget.take(streamingV1) {
		return refusal(api.CodeBusy, "too many answers with output are being assembled; repeat with the same Idempotency-Key")
	}
	defer h.budget.give(streamingV1)
	for _, name := range []string{api.Stdout, api.Stderr} {
		if err := h.available(r.Context(), t, name); err != nil {
			return err
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	out := bufio.NewWriterSize(w, 32<<10)
	fmt.Fprintf(out, `{"exitCode":%d,"stdout":"`, code)
	h.base64Of(r, out, t, api.Stdout)
	out.WriteString(`","stderr":"`)
	h.base64Of(r, out, t, api.Stderr)
	out.WriteString("\"}\n")
	_ = out.Flush() // a caller that is gone needs no answer
	return nil
}

func (h *Handler) base64Of(r *http.Request, to io.Writer, t *task.Task, name string) {
	enc := base64.NewEncoder(base64.StdEncoding, to)
	err := h.copyStream(r.Context(), t, name, 0, -1, func(data []byte) error {
		_, err := enc.Write(data)
		return err
	})
	if err == nil {
		err = enc.Close()
	}
	if err != nil {
		h.cfg.Log.WarnContext(r.Context(), "answer cut", "task", t.ID, "stream", name, "err", err)
		panic(http.ErrAbortHandler)
	}
}
