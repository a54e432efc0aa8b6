package api

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/julienschmidt/httprouter"

	"ecs/proto/api"
)

// handle serves one route. An error is answered by Handler.fail; a handle that
// has begun its answer returns nil or panics with http.ErrAbortHandler.
type handle func(w http.ResponseWriter, r *http.Request, p httprouter.Params) error

type route struct {
	method, path string
	handle       handle
	open         bool // needs no key
}

// routes is every route there is. openapi.yaml describes the same ones.
func (h *Handler) routes() []route {
	const get, post, del = http.MethodGet, http.MethodPost, http.MethodDelete
	list := []route{
		{get, "/", h.index, true},
		{get, "/docs", h.docs, true},
		{get, "/openapi.yaml", h.openAPI, true},
		{get, "/metrics", h.metrics, false},

		{post, "/v2/tasks", h.submit, false},
		{get, "/v2/tasks", h.list, false},
		{get, "/v2/tasks/:id", h.get, false},
		{get, "/v2/tasks/:id/output", h.output, false},
		{get, "/v2/tasks/:id/outputs", h.outputs, false},
		{get, "/v2/tasks/:id/events", h.events, false},
		{post, "/v2/tasks/:id/cancel", h.cancel, false},
		{get, "/v2/tasks/:id/attach", h.attach, false},

		{get, "/v2/nodes", h.nodes, false},
		{get, "/v2/nodes/:id", h.node, false},
		{post, "/v2/nodes/:id/drain", h.drain(true), false},
		{post, "/v2/nodes/:id/undrain", h.drain(false), false},
		{get, "/v2/images", h.images, false},
		{post, "/v2/images/warm", h.warm, false},
		{post, "/v2/nodes/:id/leave", h.leave, false},
		{get, "/v2/cluster", h.cluster, false},
		{post, "/v2/cluster/snapshot", h.snapshot, false},
		{post, "/v2/cluster/gossip-key", h.rotateGossipKey, false},

		{get, "/v2/keys", h.keys, false},
		{post, "/v2/keys", h.makeKey, false},
		{del, "/v2/keys/:id", h.revokeKey, false},
		{post, "/v2/join/tokens", h.makeToken, false},
		{get, "/v2/join/tokens", h.tokens, false},
		{del, "/v2/join/tokens/:id", h.withdrawToken, false},
		{post, "/v2/join", h.admitNode, true},
		{get, "/v2/revocations", h.revocations, false},
		{post, "/v2/revocations", h.revoke, false},
		{get, "/v2/logs", h.logs, false},
	}
	for _, version := range []string{"/v1.0", "/v1.1"} {
		run := h.run(version == "/v1.0")
		list = append(list,
			route{post, version + "/tasks", run, false},
			route{post, version + "/tasks/", run, false},
			route{get, version + "/_version", h.versionV1, false},
			route{get, version + "/_noop", h.noopV1, false},
			route{get, version + "/_health", h.healthV1, false},
		)
	}
	return list
}

// routed serves the routes, and the pages for people beside them. It redirects
// nothing: a path is right or it is not there.
func (h *Handler) routed() (http.Handler, map[string]bool) {
	router := httprouter.New()
	router.RedirectTrailingSlash = false
	router.RedirectFixedPath = false
	router.NotFound = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.problem(w, r, &api.Problem{Code: api.CodeNotFound, Detail: "there is no such path: /docs describes those that there are"})
	})
	router.MethodNotAllowed = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.problem(w, r, &api.Problem{Code: api.CodeNotAllowed, Detail: "this path takes " + w.Header().Get("Allow")})
	})
	open := make(map[string]bool)
	for _, rt := range h.routes() {
		served := h.serve(rt)
		router.Handle(rt.method, rt.path, served)
		if rt.method == http.MethodGet && !strings.HasSuffix(rt.path, "/events") && !strings.HasSuffix(rt.path, "/attach") {
			router.Handle(http.MethodHead, rt.path, served)
		}
		if rt.open {
			open[rt.path] = true
		}
	}
	if h.cfg.Pages != nil {
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost} {
			router.Handle(method, PagesPath+"*page", h.page)
		}
	}
	return router, open
}

func (h *Handler) serve(rt route) httprouter.Handle {
	return func(w http.ResponseWriter, r *http.Request, p httprouter.Params) {
		exchangeOf(r).route = rt.path
		if !rt.open && !h.may(w, r, rt) {
			return
		}
		if err := rt.handle(w, r, p); err != nil {
			h.fail(w, r, err)
		}
	}
}

// query gives the query parameters when all of them are known and none but
// those in many comes more than once. A misspelt ?wait must not be ignored.
func query(r *http.Request, known []string, many ...string) (map[string][]string, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, refusal(api.CodeBadRequest, "the query string cannot be read: "+err.Error())
	}
	var p *api.Problem
	for name, all := range values {
		var detail string
		switch {
		case slices.Contains(many, name):
		case !slices.Contains(known, name):
			detail = "is not a query parameter of this call"
		case len(all) > 1:
			detail = "is there more than once"
		}
		if detail == "" {
			continue
		}
		if p == nil {
			p = badParameter(name, detail)
		} else {
			p.Errors = append(p.Errors, api.Fault{Parameter: name, Detail: detail})
		}
	}
	if p != nil {
		return nil, p
	}
	return values, nil
}

func first(values map[string][]string, name string) string {
	if v := values[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}
