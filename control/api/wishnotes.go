package api

import (
	"context"
	"fmt"
	"strings"
	"time"

	"ecs/proto/api"
)

// mostNamed bounds the images that one note names.
const mostNamed = 3

// notesWithin bounds the look for what is in the way of a wish: the wish is made, its
// answer need not wait for a leader that hangs.
const notesWithin = time.Second

// notesOn says what is in the way of a wish that was made. Only the leader knows
// which images there are: where it can't be asked, nothing is said of them.
func (h *Handler) notesOn(ctx context.Context, made api.WarmAnswer) []string {
	ctx, cancel := context.WithTimeout(ctx, notesWithin)
	defer cancel()
	var wished []api.Image
	found, err := h.cfg.Images.Images(ctx, "")
	if err != nil {
		h.cfg.Log.DebugContext(ctx, "not known where the image is that was wished for", "image", made.Image, "err", err)
	}
	for _, c := range found.Counts {
		if c.Image == made.Image {
			wished = append(wished, api.Image{Image: c.Image, Nodes: c.Nodes, Parked: c.Parked, Warm: made.Count})
		}
	}
	return h.wishNotes(wished)
}

// wishNotes says what is in the way of wishes as things are, and what to do. They
// are no faults: nodes come and go, and so do images.
func (h *Handler) wishNotes(images []api.Image) []string {
	room := h.cfg.Images.Room()
	if room.Wished == 0 {
		return nil
	}
	if room.Nodes == 0 {
		return []string{"no node takes tasks now: until one does, nothing is pulled or started ahead"}
	}
	var notes []string
	switch {
	case room.Off == room.Nodes:
		notes = append(notes, "no container is started ahead: the pool of every node that takes tasks is off. They pull the image and no more, until agents run with a --warm-count above 0 and a --warm-memory that holds a container")
	case room.Fits < room.Wished:
		notes = append(notes, fmt.Sprintf("containers are dealt to nodes in turn, and of all that are wished for (%d) nodes have room for %d of their shares: %s",
			room.Wished, room.Fits, moreRoom(room)))
	}
	if absent := nowhere(images); absent != "" {
		notes = append(notes, fmt.Sprintf("no node has told yet that it holds %s: those that are to have containers of it pull it, without credentials. "+
			"Where that fails none is started, and the agent's log says why", absent))
	}
	return notes
}

// moreRoom is what to do about too little of it. A node whose pool is off is dealt a
// share all the same, for that is what has it pull the image.
func moreRoom(room Room) string {
	if room.Off == 0 {
		return "raise --warm-count and --warm-memory of agents, or wish for fewer"
	}
	return fmt.Sprintf("the pool of %d of %d nodes is off, give their agents a --warm-count, or raise it where there is one", room.Off, room.Nodes)
}

// nowhere names the images that are wished for and on no node. Agents list images less
// often than they tell what they have parked.
func nowhere(images []api.Image) string {
	var names []string
	for _, i := range images {
		if i.Warm > 0 && i.Nodes == 0 && i.Parked == 0 {
			names = append(names, i.Image)
		}
	}
	if more := len(names) - mostNamed; more > 0 {
		names = append(names[:mostNamed], fmt.Sprintf("%d others", more))
	}
	return strings.Join(names, ", ")
}
