package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"ecs/control/api"
	"ecs/control/dispatch"
	"ecs/control/state"
	"ecs/internal/task"
	"ecs/internal/taskwire"
	ecsv1 "ecs/proto/ecs/v1"
)

// mostImages bounds one answer, by name; what is wished for is always in it.
const mostImages = 1000

// Wish commits what is wished to be started ahead.
func (s *Server) Wish(ctx context.Context, w state.Wish) error {
	d, err := s.settle(ctx, w)
	if err != nil {
		return fmt.Errorf("wish for containers of %s: %w", w.Spec.Image, err)
	}
	if d.Err != nil {
		return d.Err
	}
	s.cfg.Log.Info("containers wished for", "image", w.Spec.Image, "count", w.Count, "owner", w.Owner)
	return s.applied(ctx, d)
}

// Room tells how much of what is wished for can come true, as this node's record is.
func (s *Server) Room() api.Room { return api.Room(dispatch.RoomFor(s.store.Snapshot())) }

// Images counts on how many nodes an image is. Only the leader hears of that, so
// it is asked.
func (s *Server) Images(ctx context.Context, node task.NodeID) (api.Images, error) {
	if _, leading, _ := s.replica.Leadership(); leading {
		return s.imagesHere(node)
	}
	client, err := s.leaderClient()
	if err != nil {
		return api.Images{}, err
	}
	answer, err := client.Images(ctx, &ecsv1.ImagesRequest{Node: string(node)})
	if err != nil {
		return api.Images{}, fmt.Errorf("ask the leader for images: %w", err)
	}
	if refusal := taskwire.ToError(answer.GetRefusal()); refusal != nil {
		return api.Images{}, refusal
	}
	found := api.Images{More: answer.GetMore()}
	for _, c := range answer.GetImages() {
		found.Counts = append(found.Counts, api.ImageCount{Image: c.GetImage(), Nodes: int(c.GetNodes()), Parked: int(c.GetParked())})
	}
	return found, nil
}

func (s *Server) imagesHere(node task.NodeID) (api.Images, error) {
	if _, leading, _ := s.replica.Leadership(); !leading {
		return api.Images{}, errNoLeader
	}
	hints, sn := s.sessions.Hints(), s.store.Snapshot()
	counts := map[string]*api.ImageCount{}
	count := func(image string) *api.ImageCount {
		if counts[image] == nil {
			counts[image] = &api.ImageCount{Image: image}
		}
		return counts[image]
	}
	for id, images := range hints.Images {
		if node != "" && id != node {
			continue
		}
		for image := range images { // each is counted alone: the order does not matter
			count(image).Nodes++
		}
	}
	for w := range sn.Wishes() {
		c, shape := count(w.Spec.Image), w.Spec.Shape().Hash()
		for id, parked := range hints.Parked {
			if node == "" || id == node {
				c.Parked += parked[shape]
			}
		}
	}
	found := api.Images{}
	for _, image := range slices.Sorted(maps.Keys(counts)) {
		if _, wished := sn.Wish(image); !wished && len(found.Counts) >= mostImages {
			found.More = true
			continue
		}
		found.Counts = append(found.Counts, *counts[image])
	}
	return found, nil
}

// Images tells what agents say of their engines' images.
func (p *peerServer) Images(ctx context.Context, req *ecsv1.ImagesRequest) (*ecsv1.ImagesAnswer, error) {
	if err := p.authorize(ctx); err != nil {
		return nil, err
	}
	found, err := p.s.imagesHere(task.NodeID(req.GetNode()))
	var refusal *task.Error
	if errors.As(err, &refusal) {
		return &ecsv1.ImagesAnswer{Refusal: taskwire.FromError(refusal)}, nil
	}
	answer := &ecsv1.ImagesAnswer{More: found.More}
	for _, c := range found.Counts {
		answer.Images = append(answer.Images, &ecsv1.ImageCount{Image: c.Image, Nodes: uint32(c.Nodes), Parked: uint32(c.Parked)})
	}
	return answer, err
}
