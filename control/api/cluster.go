package api

import (
	"fmt"
	"log/slog"
	"net/http"

	"github.com/julienschmidt/httprouter"

	"ecs/internal/task"
	"ecs/proto/api"
)

// nodes serves GET /v2/nodes.
func (h *Handler) nodes(w http.ResponseWriter, r *http.Request, _ httprouter.Params) error {
	if _, err := query(r, nil); err != nil {
		return err
	}
	list := api.NodeList{Nodes: []api.Node{}}
	for n := range h.cfg.Reader.Snapshot().Nodes() {
		list.Nodes = append(list.Nodes, renderNode(n))
	}
	h.json(w, r, http.StatusOK, list)
	return nil
}

// node serves GET /v2/nodes/{id}.
func (h *Handler) node(w http.ResponseWriter, r *http.Request, p httprouter.Params) error {
	n, err := h.findNode(r, p.ByName("id"))
	if err != nil {
		return err
	}
	h.json(w, r, http.StatusOK, renderNode(n))
	return nil
}

// drain serves POST /v2/nodes/{id}/drain and /undrain.
func (h *Handler) drain(drain bool) handle {
	return func(w http.ResponseWriter, r *http.Request, p httprouter.Params) error {
		if err := noBody(w, r); err != nil {
			return err
		}
		n, err := h.findNode(r, p.ByName("id"))
		if err != nil {
			return err
		}
		n, err = h.cfg.Cluster.Drain(r.Context(), n.ID, drain)
		if err != nil {
			return err
		}
		h.json(w, r, http.StatusOK, renderNode(n))
		return nil
	}
}

// leave serves POST /v2/nodes/{id}/leave.
func (h *Handler) leave(w http.ResponseWriter, r *http.Request, p httprouter.Params) error {
	if err := noBody(w, r); err != nil {
		return err
	}
	values, err := query(r, []string{"force"})
	if err != nil {
		return err
	}
	force := first(values, "force")
	if force != "" && force != "true" && force != "false" {
		return badParameter("force", "must be true or false")
	}
	id, role, err := h.findMember(r, p.ByName("id"))
	if err != nil {
		return err
	}
	detail, err := h.cfg.Cluster.SendAway(r.Context(), id, force == "true")
	if err != nil {
		return err
	}
	h.json(w, r, http.StatusOK, api.Leaving{Node: id, Role: role, Detail: detail})
	return nil
}

// findMember finds a control node or an agent by id or name.
func (h *Handler) findMember(r *http.Request, name string) (id, role string, err error) {
	info := h.cfg.Cluster.Info(r.Context())
	for _, v := range info.Voters {
		if v.ID == name {
			return name, roleControl, nil
		}
	}
	for _, m := range info.Members {
		if m.Role != roleControl || m.Name != name && m.ID != name {
			continue
		}
		if id != "" {
			return "", "", badParameter("id", fmt.Sprintf("names more than one node: %s and %s; use the id", id, m.ID))
		}
		id, role = m.ID, m.Role
	}
	if id != "" {
		// Daemons on one machine have its name both, unless they were given another.
		if n, err := h.nodeNamed(name); id != name && (n != nil || err != nil) {
			return "", "", badParameter("id", fmt.Sprintf("names more than one node: the control node %s and an agent; use the id", id))
		}
		return id, role, nil
	}
	n, err := h.findNode(r, name)
	if err != nil {
		return "", "", err
	}
	return string(n.ID), "agent", nil
}

const roleControl = "control"

// findNode finds a node by id, else by name when one node alone has it. Before
// it says that there is none, it makes sure that this one has seen everything.
func (h *Handler) findNode(r *http.Request, name string) (*task.Node, error) {
	n, err := h.nodeNamed(name)
	if n != nil || err != nil {
		return n, err
	}
	if err := h.sync(r.Context()); err != nil {
		return nil, err
	}
	n, err = h.nodeNamed(name)
	if n == nil && err == nil {
		err = refusal(api.CodeNotFound, "there is no such node")
	}
	return n, err
}

func (h *Handler) nodeNamed(name string) (*task.Node, error) {
	sn := h.cfg.Reader.Snapshot()
	if n := sn.Node(task.NodeID(name)); n != nil {
		return n, nil
	}
	var found *task.Node
	for n := range sn.Nodes() {
		if n.Name != name || n.Status == task.Left {
			continue
		}
		if found != nil {
			return nil, badParameter("id", fmt.Sprintf("names more than one node: %s and %s; use the id", found.ID, n.ID))
		}
		found = n
	}
	return found, nil
}

// cluster serves GET /v2/cluster.
func (h *Handler) cluster(w http.ResponseWriter, r *http.Request, _ httprouter.Params) error {
	if _, err := query(r, nil); err != nil {
		return err
	}
	info, health, sn := h.cfg.Cluster.Info(r.Context()), h.cfg.Cluster.Health(r.Context()), h.cfg.Reader.Snapshot()
	counts := sn.Counts()
	v := api.Cluster{
		Name: info.Name, Node: info.Node, Version: info.Version, Leader: info.Leader, Term: info.Term, Applied: sn.Index(),
		Voters: []api.Voter{}, Members: []api.Member{}, Health: renderHealth(health),
		Tasks: api.Counts{Pending: counts.Pending, BackingOff: counts.BackingOff, Live: counts.Live, Finished: counts.Finished,
			PendingBytes: counts.PendingBytes, FinishedBytes: counts.FinishedBytes},
	}
	for _, o := range info.Voters {
		v.Voters = append(v.Voters, api.Voter{ID: o.ID, Addr: o.Addr, Voter: o.Voter, Leader: o.ID == info.Leader})
	}
	for _, m := range info.Members {
		name := m.Name
		if n := sn.Node(task.NodeID(m.ID)); name == "" && n != nil {
			name = n.Name // gossip carries those of control nodes alone
		}
		v.Members = append(v.Members, api.Member{ID: m.ID, Name: name, Role: m.Role, Zone: m.Zone, Version: m.Version,
			HTTP: m.HTTPAddr, Draining: m.Draining})
	}
	v.GossipKey = renderRotation(info.Gossip)
	h.json(w, r, http.StatusOK, v)
	return nil
}

// rotateGossipKey serves POST /v2/cluster/gossip-key.
func (h *Handler) rotateGossipKey(w http.ResponseWriter, r *http.Request, _ httprouter.Params) error {
	if err := noBody(w, r); err != nil {
		return err
	}
	if _, err := query(r, nil); err != nil {
		return err
	}
	by := exchangeOf(r).owner
	if err := h.cfg.Cluster.RotateGossipKey(r.Context(), by); err != nil {
		return err
	}
	rotation := h.cfg.Cluster.Info(r.Context()).Gossip
	exchangeOf(r).asked = []slog.Attr{slog.String("key", rotation.NextID)}
	h.cfg.Log.InfoContext(r.Context(), "rotation of the gossip key begun", "key", rotation.NextID, "by", by)
	h.json(w, r, http.StatusAccepted, renderRotation(rotation))
	return nil
}

func renderRotation(r Rotation) api.GossipKey {
	v := api.GossipKey{Version: r.Version, ID: r.KeyID, Next: r.NextID, Step: r.Step, StartedAt: r.StartedAt, StartedBy: r.StartedBy,
		EndedAt: r.EndedAt, Skipped: r.Skipped}
	for _, holder := range r.Waiting {
		v.Waiting = append(v.Waiting, api.KeyHolder{ID: holder.ID, Name: holder.Name, Role: holder.Role, Gone: holder.Gone})
	}
	return v
}

// snapshot serves POST /v2/cluster/snapshot: the whole record, as of a moment after
// the request came.
func (h *Handler) snapshot(w http.ResponseWriter, r *http.Request, _ httprouter.Params) error {
	if err := noBody(w, r); err != nil {
		return err
	}
	if _, err := query(r, nil); err != nil {
		return err
	}
	if err := h.sync(r.Context()); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", `attachment; filename="ecs.snapshot"`)
	w.WriteHeader(http.StatusOK)
	// Whoever reads it sees by the checksum at its end whether it is whole.
	if err := h.cfg.Reader.Snapshot().Archive(w, h.cfg.Cluster.Info(r.Context()).Term); err != nil {
		panic(http.ErrAbortHandler)
	}
	return nil
}

func renderHealth(health Health) api.Health {
	v := api.Health{Ready: health.Ready, Reasons: health.Reasons}
	for _, c := range health.Checks {
		v.Checks = append(v.Checks, api.Check{Name: c.Name, OK: c.OK, Detail: c.Detail})
	}
	return v
}
