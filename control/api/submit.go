package api

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"

	"github.com/julienschmidt/httprouter"
	"google.golang.org/protobuf/proto"

	"ecs/control/state"
	"ecs/internal/task"
	"ecs/internal/taskwire"
	"ecs/internal/telemetry"
	"ecs/proto/api"
)

// submit serves POST /v2/tasks.
func (h *Handler) submit(w http.ResponseWriter, r *http.Request, _ httprouter.Params) error {
	q, err := query(r, []string{"wait", "max_inline"})
	if err != nil {
		return err
	}
	wait, err := waitOf(q)
	if err != nil {
		return err
	}
	body, err := readBody(w, r, api.MaxBodyV2)
	if err != nil {
		return err
	}
	req, err := h.parse.v2(body)
	if err != nil {
		return err
	}
	if req.maxInline, err = inlineOf(q, req.maxInline); err != nil {
		return err
	}
	t, own, err := h.accept(r, req, wait > 0)
	if err != nil {
		return err
	}
	w.Header().Set("Location", "/v2/tasks/"+string(t.ID))
	if wait == 0 {
		h.json(w, r, http.StatusAccepted, withHeads(render(t), t))
		return nil
	}
	holdOpen(w)
	if t, err = h.await(r.Context(), t, wait); err != nil {
		return err
	}
	if t.State != task.Finished {
		h.json(w, r, http.StatusAccepted, h.explained(r.Context(), t))
		return nil
	}
	return h.answer(w, r, t, req.maxInline, own)
}

// accept commits the task that a request asks for. The second value is this
// node's part of the bill, nil when an earlier request made the task.
func (h *Handler) accept(r *http.Request, req request, waiting bool) (*task.Task, *answering, error) {
	key, err := keyOf(r)
	if err != nil {
		return nil, nil, err
	}
	x := exchangeOf(r)
	t := &task.Task{ID: h.cfg.NewID(), CID: telemetry.CID(r.Context()), Trace: x.trace.parent, Owner: x.owner, Key: key,
		API: req.api, Spec: req.spec.WithDefaults(req.api, waiting)}
	x.asked = h.audit.asked(&t.Spec)
	if key != "" {
		t.BodyMAC = h.cfg.Sealer.MAC(req.canonical)
	}
	if err := h.seal(t, req.secrets); err != nil {
		return nil, nil, err
	}
	proposed := h.cfg.Now()
	t.Bill.Accepted = proposed.Sub(x.start)
	committed, existed, err := h.cfg.Tasks.Submit(r.Context(), t, max(h.gates.of(x.principal).Quota, 0))
	if err != nil {
		return nil, nil, err
	}
	x.task = committed.ID
	if waiting {
		h.audit.begun(r, x)
	}
	if existed {
		return committed, nil, nil
	}
	now := h.cfg.Now()
	x.trace.part("committed", proposed, now)
	return committed, &answering{start: x.start, committed: now.Sub(proposed)}, nil
}

// seal puts what only the agent may learn into the spec, readable by control
// nodes alone.
func (h *Handler) seal(t *task.Task, secrets task.Secrets) error {
	if secrets.Auth == nil && len(secrets.Env) == 0 {
		return nil
	}
	plain, err := proto.Marshal(taskwire.FromSecrets(&secrets))
	if err != nil {
		return fmt.Errorf("encode secrets of task %s: %w", t.ID, err)
	}
	if t.Spec.Secrets, err = h.cfg.Sealer.Seal(plain, []byte(t.ID)); err != nil {
		return fmt.Errorf("seal secrets of task %s: %w", t.ID, err)
	}
	t.Spec.HasAuth = secrets.Auth != nil
	for _, e := range secrets.Env {
		name, _, _ := strings.Cut(e, "=")
		t.Spec.SecretEnvNames = append(t.Spec.SecretEnvNames, name)
	}
	return nil
}

// await gives the task once it has finished, or as it is when limit is over;
// limit 0 is none. A caller that goes away ends the wait and nothing else.
func (h *Handler) await(ctx context.Context, t *task.Task, limit time.Duration) (*task.Task, error) {
	var over <-chan time.Time
	if limit > 0 {
		timer := time.NewTimer(limit)
		defer timer.Stop()
		over = timer.C
	}
	there := false
	for t.State != task.Finished {
		now, changed := h.cfg.Reader.Snapshot().WatchTask(t.ID)
		if now == nil && there {
			return nil, errNotFound() // finished and forgotten meanwhile
		}
		if now == nil && h.cfg.Reader.CatchUp(ctx, state.AcceptedAt(t)) == nil {
			there = true // it was committed, this node had only not seen it
			continue
		}
		if now != nil {
			t = now
			if t.State == task.Finished {
				break
			}
		}
		select {
		case <-changed:
		case <-over:
			return t, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return t, nil
}

// explainWithin bounds how long an answer waits for the leader's explanation.
const explainWithin = time.Second

// explained renders a task and, while it is pending, says why it waits.
func (h *Handler) explained(ctx context.Context, t *task.Task) api.Task {
	v := withHeads(render(t), t)
	if t.State != task.Pending {
		return v
	}
	ctx, cancel := context.WithTimeout(ctx, explainWithin)
	defer cancel()
	because, position, err := h.cfg.Explainer.Explain(ctx, t.ID)
	if err != nil {
		h.cfg.Log.DebugContext(ctx, "no explanation", "task", t.ID, "err", err)
		return v
	}
	v.WaitingBecause, v.QueuePosition = because, position
	return v
}

// waitOf reads ?wait: 0 when it is absent.
func waitOf(q map[string][]string) (time.Duration, error) {
	if _, asked := q["wait"]; !asked {
		return 0, nil
	}
	text := first(q, "wait")
	if text == "" {
		return api.DefaultWait, nil
	}
	d, err := api.ParseDuration(text)
	if err != nil {
		return 0, badParameter("wait", err.Error())
	}
	if d <= 0 || d > api.MaxWait {
		return 0, badParameter("wait", fmt.Sprintf("must be more than 0 and at most %s", api.Duration(api.MaxWait)))
	}
	return d, nil
}

// inlineOf reads ?max_inline.
func inlineOf(q map[string][]string, otherwise int64) (int64, error) {
	text := first(q, "max_inline")
	if text == "" {
		return otherwise, nil
	}
	n, err := api.ParseSize(text)
	if err != nil {
		return 0, badParameter("max_inline", err.Error())
	}
	if n < 0 || n > api.MaxInline {
		return 0, badParameter("max_inline", fmt.Sprintf("must be between 0 and %s", api.Size(api.MaxInline)))
	}
	return n, nil
}

// keyOf reads the idempotency key, empty when there is none.
func keyOf(r *http.Request) (string, error) {
	values := r.Header.Values(api.HeaderIdempotencyKey)
	if len(values) == 0 {
		return "", nil
	}
	key := values[0]
	switch {
	case len(values) > 1:
		return "", badParameter(api.HeaderIdempotencyKey, "is there more than once")
	case key == "":
		return "", badParameter(api.HeaderIdempotencyKey, "is empty")
	case len(key) > api.MaxKey:
		return "", badParameter(api.HeaderIdempotencyKey, fmt.Sprintf("is longer than %d bytes", api.MaxKey))
	case strings.ToValidUTF8(key, "") != key || strings.ContainsFunc(key, unicode.IsControl):
		return "", badParameter(api.HeaderIdempotencyKey, "contains control characters or no UTF-8")
	}
	return key, nil
}
