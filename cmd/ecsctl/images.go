package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
)

func (a *app) imagesCommand() *cobra.Command {
	return group("images", "List what nodes hold, and have containers started ahead", a.imagesList(), a.imagesWarm())
}

func (a *app) imagesList() *cobra.Command {
	c := &cobra.Command{Use: "ls", Short: "List the images that nodes hold", Args: none}
	json := asJSON(c)
	node := c.Flags().String("node", "", "only what this `node` has, by name or id")
	c.RunE = func(c *cobra.Command, _ []string) error {
		client, err := a.client()
		if err != nil {
			return err
		}
		defer client.Close()
		list, err := client.Images(c.Context(), *node)
		if err != nil {
			return fmt.Errorf("list images: %w", named(err, listsNodes))
		}
		if *json {
			return printJSON(a.stdout, list)
		}
		t := &table{header: []string{"IMAGE", "NODES", "PARKED", "WISHED"}}
		for _, i := range list.Images {
			parked, wished := "", ""
			if i.Warm > 0 {
				parked, wished = strconv.Itoa(i.Parked), strconv.Itoa(i.Warm)
			}
			t.add(i.Image, strconv.Itoa(i.Nodes), parked, wished)
		}
		if err := t.print(a.stdout); err != nil {
			return err
		}
		if list.More {
			a.say("there are more images; name a node with --node")
		}
		a.sayNotes(list.Notes)
		return nil
	}
	return c
}

func (a *app) imagesWarm() *cobra.Command {
	c := &cobra.Command{Use: "warm IMAGE", Short: "Pull an image everywhere and keep containers of it started ahead",
		Args: exactlyOne("an image"),
		Long: "Pull an image everywhere and keep containers of it started ahead, so many over\nthe whole cluster, for tasks that ask for it with default resources, no network and\nno capability. It stays so until it is taken back with --count 0.\n\n" +
			"How many each agent may start ahead is its --warm-count (dev up has one, too), which\nis 0 unless it is set. What is in the way, that or something else, is said."}
	json := asJSON(c)
	count := c.Flags().Int("count", 1, "`number` of containers over the whole cluster; 0 takes the wish back")
	c.RunE = func(c *cobra.Command, args []string) error {
		if *count < 0 {
			return usage("--count %d: want 0 or more", *count)
		}
		client, err := a.client()
		if err != nil {
			return err
		}
		defer client.Close()
		wished, err := client.Warm(c.Context(), args[0], *count)
		if err != nil {
			return fmt.Errorf("warm %s: %w", args[0], err)
		}
		if *json {
			err = printJSON(a.stdout, wished)
		} else {
			_, err = fmt.Fprintf(a.stdout, "%s: %d wished for\n", cell(wished.Image), wished.Count)
		}
		if err != nil {
			return err
		}
		if a.sayNotes(wished.Notes); len(wished.Notes) > 0 {
			a.say("`ecsctl images ls` shows what has come of it")
		}
		return nil
	}
	return c
}

// sayNotes passes on what the service says beside an answer.
func (a *app) sayNotes(notes []string) {
	for _, note := range notes {
		a.say("%s", printable(note))
	}
}
