package api

import (
	"fmt"
	"html"
	"io"
	"net/http"
	"strings"

	"github.com/julienschmidt/httprouter"

	"ecs/proto/api"
)

// openAPI serves GET /openapi.yaml.
func (h *Handler) openAPI(w http.ResponseWriter, _ *http.Request, _ httprouter.Params) error {
	w.Header().Set("Content-Type", "application/yaml")
	_, _ = io.WriteString(w, api.OpenAPI()) // a caller that is gone needs no answer
	return nil
}

// docs serves GET /docs: where the description is, and what every error code
// means. The type of every error refers to its line here.
func (h *Handler) docs(w http.ResponseWriter, _ *http.Request, _ httprouter.Params) error {
	var b strings.Builder
	b.WriteString("<!doctype html><html lang=en><meta charset=utf-8><title>ECS API</title><h1>ECS API</h1>" +
		"<p>The API is described in <a href=/openapi.yaml>/openapi.yaml</a>.</p><h2>Error codes</h2><dl>")
	for _, c := range api.Codes() {
		fmt.Fprintf(&b, "<dt id=%s><code>%s</code> (%d) %s<dd>%s", c.Code, c.Code, c.Status,
			html.EscapeString(c.Title), html.EscapeString(c.Meaning))
	}
	b.WriteString("</dl></html>\n")
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'")
	_, _ = io.WriteString(w, b.String())
	return nil
}

// metrics serves GET /metrics.
func (h *Handler) metrics(w http.ResponseWriter, r *http.Request, _ httprouter.Params) error {
	h.cfg.Metrics.ServeHTTP(w, r)
	return nil
}
