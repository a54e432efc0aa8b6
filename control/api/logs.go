package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/julienschmidt/httprouter"

	"ecs/proto/api"
)

// logs serves GET /v2/logs: what the caller's own requests led to, on all nodes;
// for an operator what anybody's did.
func (h *Handler) logs(w http.ResponseWriter, r *http.Request, _ httprouter.Params) error {
	q, err := query(r, []string{"cid", "limit"})
	if err != nil {
		return err
	}
	search := LogSearch{CID: first(q, "cid"), Owner: exchangeOf(r).owner, Lines: api.DefaultLogLines}
	if !saneCID(search.CID) {
		return badParameter("cid", "is needed: a correlation id, of at most 64 letters, digits, '.', '_' and '-'")
	}
	if text := first(q, "limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > api.MaxLogLines {
			return badParameter("limit", fmt.Sprintf("must be a number between 1 and %d", api.MaxLogLines))
		}
		search.Lines = n
	}
	if operates(r) {
		search.Owner = "" // everybody's
	}
	end, err := h.gates.gather(exchangeOf(r).owner, time.Now())
	if err != nil {
		return err
	}
	defer end()
	found := h.cfg.Logs.Logs(r.Context(), search)
	list := api.LogList{CID: search.CID, Lines: make([]json.RawMessage, 0, len(found.Lines)), Truncated: found.Cut,
		Asked: found.Asked, Silent: make([]api.SilentNode, 0, len(found.Silent))}
	for _, line := range found.Lines {
		list.Lines = append(list.Lines, line)
	}
	for _, n := range found.Silent {
		list.Silent = append(list.Silent, api.SilentNode{Node: n.Node, Role: n.Role, Detail: n.Detail})
	}
	h.json(w, r, http.StatusOK, list)
	return nil
}
