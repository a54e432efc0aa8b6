package state

import (
	"cmp"
	"fmt"
	"iter"
	"slices"

	"ecs/internal/task"
)

// What is wished for is bounded: every agent is told its share with every
// heartbeat.
const (
	MaxWishes    = 64   // images
	MaxWishCount = 4096 // containers of one image
)

func (cmd Wish) apply(c *change) Outcome {
	switch {
	case cmd.Spec.Image == "":
		return refuse(task.CodeBadRequest, "a wish needs an image")
	case cmd.Count < 0 || cmd.Count > MaxWishCount:
		return refuse(task.CodeBadRequest, fmt.Sprintf("%d containers of an image: want 0 to %d", cmd.Count, MaxWishCount))
	}
	at, found := slices.BinarySearchFunc(c.wishes, cmd.Spec.Image, byImage)
	switch {
	case cmd.Count == 0 && !found:
		return Outcome{}
	case !found && len(c.wishes) >= MaxWishes:
		return refuse(task.CodeTooLarge, fmt.Sprintf("containers of %d images are wished for, which is all there may be; take one back", MaxWishes))
	}
	wishes := slices.Clone(c.wishes) // snapshots share it
	switch {
	case cmd.Count == 0:
		wishes = slices.Delete(wishes, at, at+1)
	case found:
		wishes[at] = cmd
	default:
		wishes = slices.Insert(wishes, at, cmd)
	}
	c.wishes = wishes
	return Outcome{}
}

func byImage(w Wish, image string) int { return cmp.Compare(w.Spec.Image, image) }

// Wishes gives what is wished for, by image.
func (sn *Snapshot) Wishes() iter.Seq[Wish] { return slices.Values(sn.wishes) }

// Wish gives what is wished for of an image.
func (sn *Snapshot) Wish(image string) (Wish, bool) {
	at, found := slices.BinarySearchFunc(sn.wishes, image, byImage)
	if !found {
		return Wish{}, false
	}
	return sn.wishes[at], true
}
