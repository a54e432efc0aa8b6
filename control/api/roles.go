package api

import (
	"fmt"
	"net/http"
	"strings"

	"ecs/internal/access"
	"ecs/proto/api"
)

// roleFor is the least role that a route takes. A new route is closed to all but
// admins until it is named here.
func roleFor(rt route) access.Role {
	read := rt.method == http.MethodGet
	under := func(prefix string) bool {
		return rt.path == prefix || strings.HasPrefix(rt.path, prefix+"/")
	}
	switch {
	case under("/v2/tasks"), under("/v1.0"), under("/v1.1"), under("/v2/logs"):
		return access.Run
	case under("/v2/nodes") && !strings.HasSuffix(rt.path, "/leave"), under("/v2/images"), under("/metrics"), under("/v2/cluster") && read:
		return access.Operate
	case under("/v2/keys"), under("/v2/join"), under("/v2/revocations"): // join/tokens lists what nodes are let in by
		return access.Admin
	}
	return access.Admin
}

// may lets a caller with the role pass, or answers with 403.
func (h *Handler) may(w http.ResponseWriter, r *http.Request, rt route) bool {
	need, has := roleFor(rt), exchangeOf(r).principal.Role
	if has.May(need) {
		return true
	}
	h.problem(w, r, &api.Problem{Code: api.CodeForbidden, Detail: fmt.Sprintf("the key has the role %s; this takes %s", has, need)})
	return false
}

// operates reports whether the caller may see and stop the tasks of others.
func operates(r *http.Request) bool { return exchangeOf(r).principal.Role.May(access.Operate) }
