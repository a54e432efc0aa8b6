package api

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"

	"ecs/internal/task"
	"ecs/internal/telemetry"
	"ecs/proto/api"
)

// retryAfter is what callers are asked to wait, in seconds, where nothing
// better is known: a little longer than a quiet election.
const retryAfter = 2

// codeTable finds what a code means over HTTP.
func codeTable() map[api.Code]api.CodeInfo {
	table := make(map[api.Code]api.CodeInfo)
	for _, info := range api.Codes() {
		table[info.Code] = info
	}
	return table
}

// refusal is a *task.Error without faults.
func refusal(code api.Code, message string) error {
	return &task.Error{Code: task.Code(code), Message: message}
}

// badParameter refuses a header or query parameter.
func badParameter(name, detail string) *api.Problem {
	return &api.Problem{Code: api.CodeBadRequest, Detail: name + " " + detail,
		Errors: []api.Fault{{Parameter: name, Detail: detail}}}
}

// fail answers with err.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	h.problem(w, r, h.problemFor(r, err))
}

// problemFor is the one place where an error becomes a problem. It panics when
// nobody is there to read an answer.
func (h *Handler) problemFor(r *http.Request, err error) *api.Problem {
	var refused *task.Error
	var excess *Excess
	var p *api.Problem
	switch {
	case errors.As(err, &p):
	case errors.As(err, &excess):
		p = problemOfExcess(excess)
	case errors.As(err, &refused):
		p = problemOf(refused)
	case errors.Is(err, context.Canceled) && errors.Is(context.Cause(r.Context()), errLapsed):
		p = &api.Problem{Code: api.CodeUnauthorized, Detail: errLapsed.Error()}
	case errors.Is(err, context.Canceled) && r.Context().Err() != nil:
		panic(http.ErrAbortHandler)
	case errors.Is(err, context.DeadlineExceeded):
		p = &api.Problem{Code: api.CodeUnknown, Detail: "the service did not settle the request in time"}
	default:
		h.cfg.Log.ErrorContext(r.Context(), "request failed", "path", r.URL.Path, "err", err)
		p = &api.Problem{Code: api.CodeInternal}
	}
	return p
}

func problemOf(e *task.Error) *api.Problem {
	p := &api.Problem{Code: api.Code(e.Code), Detail: e.Message}
	if e.Code == task.CodeQuota {
		p.Limit = limitKeyQuota
	}
	for _, f := range e.Faults {
		p.Errors = append(p.Errors, api.Fault{Pointer: f.Pointer, Detail: f.Detail})
	}
	return p
}

// problem answers with p.
func (h *Handler) problem(w http.ResponseWriter, r *http.Request, p *api.Problem) {
	info := h.complete(r, p)
	if info.Retry || p.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(retrySeconds(p)))
	}
	if p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Basic realm="ecs", charset="UTF-8"`)
	}
	h.write(w, r, p.Status, api.ProblemType, p)
}

// complete gives a problem the rest of what it says. Status and title come from
// the table of codes unless it brings its own.
func (h *Handler) complete(r *http.Request, p *api.Problem) api.CodeInfo {
	info, known := h.codes[p.Code]
	if !known && p.Status == 0 {
		h.cfg.Log.ErrorContext(r.Context(), "error with an unknown code", "code", p.Code, "detail", p.Detail)
		info = h.codes[api.CodeInternal]
	}
	if p.Status == 0 {
		p.Status = info.Status
	}
	if p.Title == "" {
		p.Title = info.Title
	}
	if x := exchangeOf(r); x != nil {
		x.code = p.Code
	}
	p.Type = "/docs#" + string(p.Code)
	p.CID = telemetry.CID(r.Context())
	return info
}

// retrySeconds is when to come back: as asked for, else after a little while.
func retrySeconds(p *api.Problem) int {
	if p.RetryAfter > 0 {
		return int(math.Ceil(p.RetryAfter.Seconds()))
	}
	return retryAfter
}

// json answers with a JSON document.
func (h *Handler) json(w http.ResponseWriter, r *http.Request, status int, body any) {
	h.write(w, r, status, "application/json", body)
}

func (h *Handler) write(w http.ResponseWriter, r *http.Request, status int, contentType string, body any) {
	b, err := json.Marshal(body)
	if err != nil { // none of our types can do that
		h.cfg.Log.ErrorContext(r.Context(), "encode answer", "err", err)
		http.Error(w, "", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(b)+1))
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // a caller that is gone needs no answer
}

// outputLost describes output that is gone.
func outputLost(t *task.Task, name, detail string) *api.Problem {
	st := streamOf(t.Result, name)
	return &api.Problem{Code: api.CodeOutputLost, Detail: detail, Task: string(t.ID),
		Lost: &api.LostOutput{Stream: name, Bytes: st.Bytes, Kept: st.Kept, SHA256: hashOf(st)}}
}

func streamOf(r *task.Result, name string) *task.Stream {
	switch {
	case name == api.Stderr:
		return &r.Stderr
	case name == api.OutputsTar:
		return r.Outputs.Stream()
	}
	return &r.Stdout
}
