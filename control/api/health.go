package api

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/julienschmidt/httprouter"

	"ecs/internal/task"
	"ecs/proto/api"
)

// healthWithin bounds how long a health answer takes: a load balancer that
// hears nothing decides by itself.
const healthWithin = 2 * time.Second

// NewHealth makes the handler of the load balancer's port. It needs no key and
// says no more than a load balancer has to know.
//
// /_only_for_lb_health_check and /readyz: 200 while the node can accept and
// answer a task, else 503 with the reasons. /livez: 200 while the process
// answers at all.
func NewHealth(c Cluster) http.Handler {
	ready := func(w http.ResponseWriter, r *http.Request, _ httprouter.Params) {
		ctx, cancel := context.WithTimeout(r.Context(), healthWithin)
		defer cancel()
		health := c.Health(ctx)
		if !health.Ready {
			writeHealth(w, http.StatusServiceUnavailable, api.Health{Reasons: health.Reasons})
			return
		}
		writeHealth(w, http.StatusOK, api.Health{Ready: true})
	}
	router := httprouter.New()
	router.RedirectTrailingSlash, router.RedirectFixedPath = false, false
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		router.Handle(method, "/_only_for_lb_health_check", ready)
		router.Handle(method, "/readyz", ready)
		router.Handle(method, "/livez", func(w http.ResponseWriter, _ *http.Request, _ httprouter.Params) {
			writeHealth(w, http.StatusOK, map[string]bool{"alive": true})
		})
	}
	return router
}

func writeHealth(w http.ResponseWriter, status int, body any) {
	b, err := json.Marshal(body)
	if err != nil { // none of our types can do that
		status = http.StatusInternalServerError
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)+1))
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // a load balancer that is gone asks again
}

// versionV1 serves GET /v1.1/_version.
func (h *Handler) versionV1(w http.ResponseWriter, r *http.Request, _ httprouter.Params) error {
	h.json(w, r, http.StatusOK, api.VersionV1{Version: h.cfg.Version, Links: self(w, r)})
	return nil
}

// noopV1 serves GET /v1.1/_noop.
func (h *Handler) noopV1(w http.ResponseWriter, r *http.Request, _ httprouter.Params) error {
	h.json(w, r, http.StatusOK, api.NoopV1{Links: self(w, r)})
	return nil
}

// self links the request's own address, in the body and as Location, as v1
// always did.
func self(w http.ResponseWriter, r *http.Request) api.Links {
	scheme := "http"
	if exchangeOf(r).secure {
		scheme = "https"
	}
	href := scheme + "://" + r.Host + r.URL.Path
	w.Header().Set("Location", href)
	return api.Links{Self: api.Link{Href: href}}
}

const (
	green = "green"
	red   = "red"
)

func colour(ok bool) string {
	if ok {
		return green
	}
	return red
}

// healthV1 serves GET /v1.1/_health. It is red when no agent can run a task or
// this node can't answer; a part may be red without that.
func (h *Handler) healthV1(w http.ResponseWriter, r *http.Request, _ httprouter.Params) error {
	quick := true
	switch q := r.URL.Query(); {
	case !q.Has("quick"), q.Get("quick") == "true":
	case q.Get("quick") == "false":
		quick = false
	default:
		return badParameter("quick", "must be true or false")
	}
	ctx, cancel := context.WithTimeout(r.Context(), healthWithin)
	defer cancel()
	health, engines := h.cfg.Cluster.Health(ctx), h.engines()
	ok := health.Ready && engines.taking > 0
	v := api.HealthV1{Status: colour(ok), Details: map[string]api.HealthPartV1{}, Links: self(w, r)}
	if !quick {
		v.Details["docker remote api"] = api.HealthPartV1{Status: colour(engines.answering > 0), Details: engines.details}
		for _, c := range health.Checks {
			v.Details[c.Name] = api.HealthPartV1{Status: colour(c.OK), Details: details(c.Detail)}
		}
	}
	status := http.StatusOK
	if !ok {
		status = http.StatusServiceUnavailable
	}
	h.json(w, r, status, v)
	return nil
}

func details(text string) map[string]string {
	if text == "" {
		return nil
	}
	return map[string]string{"detail": text}
}

// engines is what the record says of the agents' container engines.
type engines struct {
	taking    int // agents that can run a new task
	answering int // agents whose engine answers
	details   map[string]string
}

// maxEngines bounds how many agents a health answer names.
const maxEngines = 100

func (h *Handler) engines() engines {
	e := engines{details: make(map[string]string)}
	versions := 0
	for n := range h.cfg.Reader.Snapshot().Nodes() {
		if n.Status == task.Left || n.Status == task.Lost {
			continue
		}
		if n.Takes() {
			e.taking++
		}
		about := n.Engine
		if n.Unfit != "" {
			about = red + ": " + n.Unfit
		} else {
			e.answering++
		}
		if n.Engine != "" {
			versions++
		}
		if len(e.details) < maxEngines {
			e.details["agent "+string(n.ID)] = about
		}
	}
	e.details["connectivity"] = colour(e.answering > 0)
	e.details["api version"] = colour(versions > 0)
	return e
}
