package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/julienschmidt/httprouter"

	"ecs/control/state"
	"ecs/internal/access"
	"ecs/internal/task"
	"ecs/proto/api"
)

const (
	// scanAtMost bounds how many records one page of a list looks at.
	scanAtMost = 10_000
	// pageAtMost bounds the bytes of the records on one page, save one.
	pageAtMost = 4 << 20
)

// errNotFound is the same for a task that never was and for another's.
func errNotFound() error { return refusal(api.CodeNotFound, "there is no such task") }

// lookup finds a caller's task. Before it says that there is none, it makes
// sure that this node has seen everything; another's task takes the same way,
// so that the time tells nothing.
func (h *Handler) lookup(r *http.Request, p httprouter.Params) (*task.Task, error) {
	id := task.ID(p.ByName("id"))
	if !saneCID(string(id)) { // ids are drawn from the same letters
		return nil, errNotFound()
	}
	if t := h.own(r, id); t != nil {
		return t, nil
	}
	if err := h.sync(r.Context()); err != nil {
		return nil, err
	}
	if t := h.own(r, id); t != nil {
		return t, nil
	}
	return nil, errNotFound()
}

// current finds a caller's task as it was at some moment since the call: a read
// through any node sees what an earlier write through another has done. What has
// finished never changes.
func (h *Handler) current(r *http.Request, p httprouter.Params) (*task.Task, error) {
	t, err := h.lookup(r, p)
	if err != nil || t.State == task.Finished {
		return t, err
	}
	if err := h.sync(r.Context()); err != nil {
		return nil, err
	}
	return h.lookup(r, p)
}

// lookupOwn is lookup without the tasks that only an operator sees: nobody else
// types into a program.
func (h *Handler) lookupOwn(r *http.Request, p httprouter.Params) (*task.Task, error) {
	t, err := h.lookup(r, p)
	if err == nil && t.Owner != exchangeOf(r).owner {
		return nil, errNotFound()
	}
	return t, err
}

// own finds a task that the caller may see: its own, or any for an operator.
func (h *Handler) own(r *http.Request, id task.ID) *task.Task {
	if t := h.cfg.Reader.Snapshot().Task(id); t != nil && (t.Owner == exchangeOf(r).owner || operates(r)) {
		return t
	}
	return nil
}

// sync makes this node's record complete, or says that it can't be now.
func (h *Handler) sync(ctx context.Context) error {
	err := h.cfg.Reader.Sync(ctx)
	var refused *task.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused), ctx.Err() != nil:
		return err
	}
	h.cfg.Log.WarnContext(ctx, "record not brought up to date", "err", err)
	return refusal(api.CodeNoLeader, "this node can't find out now how it stands with that task; try again")
}

// settle says how a task is answered that may not have finished.
type settle struct {
	wait       time.Duration // 0: not at all
	inline     int64
	unfinished int // status while it has not finished
}

// settleOf reads ?wait and ?max_inline. A caller who asks for neither gets what
// the record itself holds of the output.
func settleOf(r *http.Request, unfinished int) (settle, error) {
	s := settle{unfinished: unfinished}
	q, err := query(r, []string{"wait", "max_inline"})
	if err != nil {
		return s, err
	}
	if s.wait, err = waitOf(q); err != nil {
		return s, err
	}
	otherwise := int64(task.HeadBytes)
	if s.wait > 0 {
		otherwise = api.DefaultInline
	}
	s.inline, err = inlineOf(q, otherwise)
	return s, err
}

// get serves GET /v2/tasks/{id}.
func (h *Handler) get(w http.ResponseWriter, r *http.Request, p httprouter.Params) error {
	s, err := settleOf(r, http.StatusOK)
	if err != nil {
		return err
	}
	t, err := h.current(r, p)
	if err != nil {
		return err
	}
	return h.settled(w, r, t, s)
}

// cancel serves POST /v2/tasks/{id}/cancel.
func (h *Handler) cancel(w http.ResponseWriter, r *http.Request, p httprouter.Params) error {
	s, err := settleOf(r, http.StatusAccepted)
	if err != nil {
		return err
	}
	if err := noBody(w, r); err != nil {
		return err
	}
	t, err := h.lookup(r, p)
	if err != nil {
		return err
	}
	t, err = h.cfg.Tasks.Stop(r.Context(), t.ID, t.Owner, task.Cancelled, cancelledBy(r, t))
	if err != nil {
		return err
	}
	return h.settled(w, r, t, s)
}

func cancelledBy(r *http.Request, t *task.Task) string {
	if t.Owner != exchangeOf(r).owner {
		return "cancelled by an operator"
	}
	return "cancelled by its owner"
}

// settled answers with the task, once it has finished if that is asked for.
func (h *Handler) settled(w http.ResponseWriter, r *http.Request, t *task.Task, s settle) error {
	if s.wait > 0 {
		holdOpen(w)
		var err error
		if t, err = h.await(r.Context(), t, s.wait); err != nil {
			return err
		}
	}
	if t.State != task.Finished {
		h.json(w, r, s.unfinished, h.explained(r.Context(), t))
		return nil
	}
	return h.answer(w, r, t, s.inline, nil)
}

// list serves GET /v2/tasks: the caller's own, newest first; for an operator also
// another key's, or everybody's.
func (h *Handler) list(w http.ResponseWriter, r *http.Request, _ httprouter.Params) error {
	q, err := query(r, []string{"limit", "cursor", "owner"}, "state", "label")
	if err != nil {
		return err
	}
	f, err := filterOf(q)
	if err != nil {
		return err
	}
	tasks, err := h.tasksOf(r, first(q, "owner"), f.before)
	if err != nil {
		return err
	}
	page := api.TaskList{Tasks: make([]api.Task, 0, min(f.limit, api.DefaultList))}
	looked, size, last := 0, int64(0), uint64(0)
	for t := range tasks {
		if len(page.Tasks) == f.limit || looked == scanAtMost || size > pageAtMost {
			page.Next = strconv.FormatUint(last, 36)
			break
		}
		looked, last = looked+1, t.Seq
		if f.matches(t) {
			size += state.Size(t)
			v := render(t)
			if t.Result != nil {
				times, overhead := bill(t, nil)
				v.Times, v.OverheadMS = &times, ms(overhead)
			}
			page.Tasks = append(page.Tasks, v)
		}
	}
	h.json(w, r, http.StatusOK, page)
	return nil
}

// everybody, as an owner, is all of them.
const everybody = "*"

// tasksOf gives the tasks of an owner, "" being the caller, newest first.
func (h *Handler) tasksOf(r *http.Request, owner string, before uint64) (iter.Seq[*task.Task], error) {
	own := exchangeOf(r).owner
	if owner != "" && owner != own && !operates(r) {
		return nil, refusal(api.CodeForbidden, fmt.Sprintf("the tasks of others take a key with the role %s", access.Operate))
	}
	sn := h.cfg.Reader.Snapshot()
	if owner == everybody {
		return sn.Newest(before), nil
	}
	return sn.NewestOf(cmp.Or(owner, own), before), nil
}

// filter is what a list is to hold.
type filter struct {
	states map[task.State]bool // empty: any
	labels []label             // all of them
	limit  int
	before uint64 // a Seq; 0: from the newest
}

type label struct {
	key, value string
	any        bool // whatever its value
}

func filterOf(q map[string][]string) (filter, error) {
	f := filter{states: make(map[task.State]bool), limit: api.DefaultList}
	for _, names := range q["state"] {
		for name := range strings.SplitSeq(names, ",") {
			s, ok := task.ParseState(name)
			if !ok {
				return f, badParameter("state", "must be pending, assigned, running or finished")
			}
			f.states[s] = true
		}
	}
	for _, text := range q["label"] {
		key, value, exact := strings.Cut(text, "=")
		if key == "" {
			return f, badParameter("label", "must be key=value, or key alone")
		}
		f.labels = append(f.labels, label{key: key, value: value, any: !exact})
	}
	if text := first(q, "limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > api.MaxList {
			return f, badParameter("limit", fmt.Sprintf("must be a number between 1 and %d", api.MaxList))
		}
		f.limit = n
	}
	if text := first(q, "cursor"); text != "" {
		seq, err := strconv.ParseUint(text, 36, 64)
		if err != nil || seq == 0 {
			return f, badParameter("cursor", "is not one that this service gave")
		}
		f.before = seq
	}
	return f, nil
}

func (f *filter) matches(t *task.Task) bool {
	if len(f.states) > 0 && !f.states[t.State] {
		return false
	}
	for _, l := range f.labels {
		value, there := t.Spec.Labels[l.key]
		if !there || !l.any && value != l.value {
			return false
		}
	}
	return true
}
