package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ecs/proto/api"
)

// lookAtRotation is how often it is looked how far a rotation is.
const lookAtRotation = 500 * time.Millisecond

func (a *app) rotateGossipKey() *cobra.Command {
	var follow bool
	c := &cobra.Command{Use: "rotate-gossip-key", Args: none,
		Short: "Put a new key in the place of the one that encrypts gossip, on every node",
		Long: "Draw a new gossip key and have it take the old one's place in three steps: every\n" +
			"node learns it, every node uses it, every node forgets the old one. It takes a\n" +
			"key with the role admin.\n\n" +
			"Each step waits for every node that is there and prints for whom. Nodes that are\n" +
			"gone are skipped; they get the key when they are back. The rotation goes on\n" +
			"without this command and under another leader: --follow shows one that is under\n" +
			"way."}
	c.Flags().BoolVar(&follow, "follow", false, "begin none: show how far the one that is under way is")
	c.RunE = func(c *cobra.Command, _ []string) error {
		client, err := a.client()
		if err != nil {
			return err
		}
		defer client.Close()
		if !follow {
			k, err := client.RotateGossipKey(c.Context())
			if err != nil {
				return fmt.Errorf("rotate the gossip key: %w", err)
			}
			a.progress(fmt.Sprintf("key %s is to take the place of key %s", cell(k.Next), cell(k.ID)))
		}
		return a.followRotation(c.Context(), client)
	}
	return c
}

// followRotation prints each change of what is waited for until the rotation is over.
func (a *app) followRotation(ctx context.Context, client *api.Client) error {
	tick := time.NewTicker(lookAtRotation)
	defer tick.Stop()
	last := ""
	for {
		text := ""
		switch c, err := client.Cluster(ctx); {
		case err != nil && ctx.Err() == nil:
			text = "not known at the moment: " + err.Error()
		case err == nil && c.GossipKey.Step == "":
			return a.rotated(c.GossipKey)
		case err == nil:
			text = rotationStep(c.GossipKey)
		}
		if text != last {
			a.progress(text)
			last = text
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (a *app) rotated(k api.GossipKey) error {
	if k.Version == 0 {
		return usage("the gossip key was never rotated, and is not now")
	}
	for _, id := range k.Skipped {
		behind := func(h api.KeyHolder) bool { return h.ID == id }
		if slices.ContainsFunc(k.Waiting, behind) {
			a.progress("node " + id + " was gone; it gets the key when it is back")
		}
	}
	return a.done("rotated: key " + cell(k.ID) + " alone is in use")
}

// rotationStep says in a line what a rotation does and for whom it waits.
func rotationStep(k api.GossipKey) string {
	text := map[string]string{
		api.RotationAdd:    "step 1 of 3: every node learns the new key",
		api.RotationUse:    "step 2 of 3: every node encrypts with the new key",
		api.RotationRemove: "step 3 of 3: every node forgets the old key",
	}[k.Step]
	if text == "" {
		text = "step " + k.Step
	}
	if len(k.Waiting) == 0 {
		return text
	}
	return text + "; waiting for " + holders(k.Waiting)
}

// holders names the first of them.
func holders(all []api.KeyHolder) string {
	const most = 5
	var names []string
	for _, h := range all[:min(len(all), most)] {
		name := h.Name
		if name == "" {
			name = h.ID
		}
		name = h.Role + " " + name
		if h.Gone {
			name += " (not heard of)"
		}
		names = append(names, name)
	}
	if more := len(all) - most; more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}

// showGossipKey adds the key to a sheet of the cluster.
func showGossipKey(s sheet, c *api.Cluster) {
	k := c.GossipKey
	switch {
	case k.ID == "":
		return // of a control node of before
	case k.Step != "":
		s.line("Gossip key", k.ID+", being rotated to "+k.Next)
		s.line("  rotation", rotationStep(k))
	case len(k.Waiting) > 0:
		s.line("Gossip key", k.ID)
		s.line("  not yet on", holders(k.Waiting))
	default:
		s.line("Gossip key", k.ID)
	}
}
