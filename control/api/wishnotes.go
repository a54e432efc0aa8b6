package api

import (
	"context"
	"fmt"
	"strings"

	"ecs/proto/api"
)

// mostNamed bounds the images that one note names.
const mostNamed = 3

// notesOn says what will not come of a wish that was made. Only the leader knows
// which images there are: where it can't be asked, nothing is said of them.
func (h *Handler) notesOn(ctx context.Context, made api.WarmAnswer) []string {
	var wished []api.Image
	found, err := h.cfg.Images.Images(ctx, "")
	if err != nil {
		h.cfg.Log.DebugContext(ctx, "not known where the image is that was wished for", "image", made.Image, "err", err)
	}
	for _, c := range found.Counts {
		if c.Image == made.Image {
			wished = append(wished, api.Image{Image: c.Image, Nodes: c.Nodes, Warm: made.Count})
		}
	}
	return h.wishNotes(wished)
}

// wishNotes says what will not come of wishes as things are, and what to do. They
// are no faults: nodes come and go, and so do images.
func (h *Handler) wishNotes(images []api.Image) []string {
	room := h.cfg.Images.Room()
	if room.Wished == 0 {
		return nil
	}
	if room.Nodes == 0 {
		return []string{"no node takes tasks now: until one does, nothing is pulled or started ahead (GET /v2/nodes says why)"}
	}
	var notes []string
	switch {
	case room.Off == room.Nodes:
		notes = append(notes, "no container is started ahead: the pool of every node that takes tasks is off. They pull the image and no more, until agents run with --warm-count above 0")
	case room.Fits < room.Wished:
		notes = append(notes, fmt.Sprintf("of the %d containers that are wished for in all, nodes have room for %d at most%s: raise --warm-count and --warm-memory of agents, or wish for fewer",
			room.Wished, room.Fits, shareless(room)))
	}
	if absent := nowhere(images); absent != "" {
		notes = append(notes, fmt.Sprintf("no node has told so far that it holds %s: those that are to have containers of it pull it, without credentials. "+
			"Where that fails none is started, and the agent's log says why", absent))
	}
	return notes
}

// shareless tells of nodes whose share comes to nothing.
func shareless(room Room) string {
	if room.Off == 0 {
		return ""
	}
	return fmt.Sprintf(" (the pool of %d of %d is off, and they are dealt their share all the same)", room.Off, room.Nodes)
}

// nowhere names the images that are wished for and on no node.
func nowhere(images []api.Image) string {
	var names []string
	for _, i := range images {
		if i.Warm > 0 && i.Nodes == 0 {
			names = append(names, i.Image)
		}
	}
	if more := len(names) - mostNamed; more > 0 {
		names = append(names[:mostNamed], fmt.Sprintf("%d others", more))
	}
	return strings.Join(names, ", ")
}
