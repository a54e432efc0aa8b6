package api

import (
	"context"
	"net/http"

	"github.com/julienschmidt/httprouter"

	"ecs/control/state"
	"ecs/internal/task"
	"ecs/proto/api"
)

// ImageStore is what agents say of their engines' images, and what is wished of
// them.
type ImageStore interface {
	// Images counts the nodes that have an image, all of them or one.
	Images(ctx context.Context, node task.NodeID) (Images, error)
	// Wish asks for containers that are started ahead. Refusals are *task.Error.
	Wish(ctx context.Context, w state.Wish) error
	// Room tells how much of what is wished for can come true.
	Room() Room
}

// Room is how much of all that is wished for there is room for on the nodes that take
// tasks.
type Room struct {
	Nodes  int
	Off    int // of them, start nothing ahead
	Wished int // containers
	Fits   int // of them, at most
}

// Images are images by name, as many as one answer has room for.
type Images struct {
	Counts []ImageCount
	More   bool
}

// ImageCount is one image: on how many nodes it is, and how many containers of the
// shape that is wished for it wait there for a task.
type ImageCount struct {
	Image         string
	Nodes, Parked int
}

// images serves GET /v2/images.
func (h *Handler) images(w http.ResponseWriter, r *http.Request, _ httprouter.Params) error {
	q, err := query(r, []string{"node"})
	if err != nil {
		return err
	}
	var node task.NodeID
	if name := first(q, "node"); name != "" {
		n, err := h.findNode(r, name)
		if err != nil {
			return err
		}
		node = n.ID
	}
	found, err := h.cfg.Images.Images(r.Context(), node)
	if err != nil {
		return err
	}
	list := api.ImageList{Images: []api.Image{}, More: found.More}
	sn := h.cfg.Reader.Snapshot()
	for _, c := range found.Counts {
		v := api.Image{Image: c.Image, Nodes: c.Nodes, Parked: c.Parked}
		if wished, ok := sn.Wish(c.Image); ok {
			v.Warm = wished.Count
		}
		list.Images = append(list.Images, v)
	}
	if node == "" {
		list.Notes = h.wishNotes(list.Images)
	}
	h.json(w, r, http.StatusOK, list)
	return nil
}

// warm serves POST /v2/images/warm.
func (h *Handler) warm(w http.ResponseWriter, r *http.Request, _ httprouter.Params) error {
	if _, err := query(r, nil); err != nil {
		return err
	}
	body, err := readBody(w, r, api.MaxBodyWarm)
	if err != nil {
		return err
	}
	wish, err := h.parse.wish(body)
	if err != nil {
		return err
	}
	wish.Owner = exchangeOf(r).owner
	if err := h.cfg.Images.Wish(r.Context(), wish); err != nil {
		return err
	}
	answer := api.WarmAnswer{Image: wish.Spec.Image, Count: wish.Count}
	if wish.Count > 0 {
		answer.Notes = h.notesOn(r.Context(), answer)
	}
	h.json(w, r, http.StatusOK, answer)
	return nil
}

// wish reads the body of POST /v2/images/warm. The error is a *task.Error that lists
// every fault.
func (p *parser) wish(body []byte) (state.Wish, error) {
	f := new(faults)
	root, ok := decode(body, f)
	if !ok {
		return state.Wish{}, f.err()
	}
	o := fieldsOf(root, f)
	spec := task.Spec{Image: image(o, "image", parseImage)}
	if v := o.take("count"); v == nil {
		f.add(o.at("count"), "", "is missing: how many containers over the whole cluster; 0 takes the wish back")
	}
	count, _ := o.count("count", 0, state.MaxWishCount)
	o.done()
	return state.Wish{Spec: spec.WithDefaults(task.V2, false), Count: int(count)}, f.err()
}
