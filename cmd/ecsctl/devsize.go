package main

import (
	"time"

	"github.com/spf13/cobra"

	"ecs/internal/devcluster"
)

func (a *app) devAdd() *cobra.Command {
	o := devcluster.AddOptions{}
	c := &cobra.Command{Use: "add", Short: "Start further nodes and have them join, one after the other", Args: none}
	json := asJSON(c)
	flags := c.Flags()
	flags.IntVar(&o.Agents, "agents", 0, "`number` of agents to add")
	flags.IntVar(&o.Controls, "controls", 0, "`number` of control nodes to add; 3 or 5 of them vote when there are so many")
	flags.StringVar(&o.Zone, "zone", "", "`zone` of all of them (default: those of the cluster that have fewest)")
	flags.StringVar(&o.Dir, "dir", devcluster.DefaultDir, "`directory` of the cluster's files")
	flags.DurationVar(&o.Within, "within", 2*time.Minute, "how `long` it may take")
	c.RunE = func(c *cobra.Command, _ []string) error {
		o.Progress = a.stderr
		status, err := devcluster.Add(c.Context(), o)
		if err != nil {
			return err
		}
		return a.printDev(status, *json)
	}
	return c
}

func (a *app) devRemove() *cobra.Command {
	o := devcluster.RemoveOptions{}
	c := &cobra.Command{Use: "remove NAME...", Short: "Have nodes leave in good order, one after the other, and remove them", Args: atLeastOne("a node's name")}
	json := asJSON(c)
	flags := c.Flags()
	flags.StringVar(&o.Dir, "dir", devcluster.DefaultDir, "`directory` of the cluster's files")
	flags.BoolVar(&o.Force, "force", false, "remove also what can't leave in good order")
	flags.DurationVar(&o.Within, "within", time.Minute, "how `long` each may take")
	c.RunE = func(c *cobra.Command, names []string) error {
		o.Names, o.Progress = names, a.stderr
		status, err := devcluster.Remove(c.Context(), o)
		if err != nil {
			return err
		}
		return a.printDev(status, *json)
	}
	return c
}
