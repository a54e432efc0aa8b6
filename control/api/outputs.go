package api

import (
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"

	"github.com/julienschmidt/httprouter"

	"ecs/internal/task"
	"ecs/proto/api"
)

// outputPaths reads what is kept of the container's files.
func outputPaths(o *fields) []string {
	paths := o.texts("outputs")
	if len(paths) > task.MaxOutputPaths {
		o.faults.add(o.at("outputs"), "", "must be at most %d paths", task.MaxOutputPaths)
		return nil
	}
	for i, p := range paths {
		checkOutputPath(o.faults, at(o.at("outputs"), i), p, paths[:i])
	}
	return paths
}

// checkOutputPath wants a clean absolute path that is not of the kernel's file
// systems, and neither in one before it nor around it.
func checkOutputPath(f *faults, pointer, name string, before []string) {
	switch {
	case !strings.HasPrefix(name, "/"):
		f.add(pointer, "", "must be an absolute path")
		return
	case len(name) > task.MaxOutputPath:
		f.add(pointer, "", "must be at most %d bytes long", task.MaxOutputPath)
		return
	case path.Clean(name) != name || name == "/":
		f.add(pointer, "", `must be a clean path below the root: no ".", no "..", no "//" and no "/" at the end`)
		return
	}
	for _, closed := range []string{"/proc", "/sys", "/dev", initDirectory} {
		if within(name, closed) {
			f.add(pointer, "", "must not be in /proc, /sys, /dev or %s", initDirectory)
			return
		}
	}
	for _, other := range before {
		switch {
		case other == name:
			f.add(pointer, "", "is there more than once")
		case other != "" && (within(name, other) || within(other, name)):
			f.add(pointer, "", "cannot be there together with %s: one lies in the other", other)
		}
	}
}

// outputs serves GET /v2/tasks/{id}/outputs: the tar of a finished task's files.
func (h *Handler) outputs(w http.ResponseWriter, r *http.Request, p httprouter.Params) error {
	if _, err := query(r, nil); err != nil {
		return err
	}
	t, err := h.lookup(r, p)
	if err != nil {
		return err
	}
	if len(t.Spec.Outputs) > 0 && t.State != task.Finished {
		// Another node may have said already that it has.
		if err := h.sync(r.Context()); err != nil {
			return err
		}
		if t = h.own(r, t.ID); t == nil {
			return errNotFound()
		}
	}
	if err := hasOutputs(t); err != nil {
		return err
	}
	holdOpen(w)
	w.Header().Set("Content-Type", "application/x-tar")
	return h.finishedOutput(w, r, t, api.OutputsTar)
}

// hasOutputs says why a task has no tar to read, or nil when it has.
func hasOutputs(t *task.Task) error {
	refuse := func(code api.Code, format string, args ...any) error {
		return &api.Problem{Code: code, Task: string(t.ID), Detail: fmt.Sprintf(format, args...)}
	}
	switch {
	case len(t.Spec.Outputs) == 0:
		return refuse(api.CodeNoOutputs, "it asked for none; name paths in the member outputs of a task")
	case t.State != task.Finished:
		return refuse(api.CodeNotFinished, "it is %s; its files are collected when its program has ended", t.State)
	case t.Result.Outputs == nil && mayHaveRun(t):
		return refuse(api.CodeOutputLost, "the files went with the attempt that left them; the task ended as %s", t.Result.Outcome)
	case t.Result.Outputs == nil:
		return refuse(api.CodeNoOutputs, "its program never ran (%s), so it left nothing", t.Result.Outcome)
	case t.Result.Outputs.Lost != "":
		return refuse(api.CodeOutputLost, "the files could not be kept: %s", t.Result.Outputs.Lost)
	}
	return nil
}

// mayHaveRun reports whether an attempt of a finished task that has no files may
// have run its program.
func mayHaveRun(t *task.Task) bool {
	return slices.ContainsFunc(t.Attempts, func(a task.Attempt) bool {
		return a.Outcome.Infrastructure() || !a.StartedAt.IsZero() && a.Outcome != task.StartFailed
	})
}

func renderOutputs(t *task.Task) *api.Outputs {
	o := t.Result.Outputs
	if o == nil {
		return nil
	}
	v := &api.Outputs{Bytes: o.Bytes, Entries: o.Entries, SHA256: hashOf(o.Stream()), Truncated: o.Truncated, Lost: o.Lost}
	for _, i := range o.Missing {
		if i >= 0 && i < len(t.Spec.Outputs) {
			v.Missing = append(v.Missing, t.Spec.Outputs[i])
		}
	}
	return v
}
