package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"ecs/internal/task"
	"ecs/proto/api"
)

func (a *app) nodesCommand() *cobra.Command {
	return group("nodes", "List the nodes that run tasks, and drain them",
		a.nodesList(), a.nodesShow(), a.nodesDrain("drain", "Let nodes finish what they run and take nothing new", true),
		a.nodesDrain("undrain", "Let drained nodes take tasks again", false))
}

func (a *app) nodesList() *cobra.Command {
	c := &cobra.Command{Use: "ls", Short: "List nodes, with what they have free", Args: none}
	json := asJSON(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		client, err := a.client()
		if err != nil {
			return err
		}
		defer client.Close()
		nodes, err := client.Nodes(c.Context())
		if err != nil {
			return err
		}
		if *json {
			return printJSON(a.stdout, api.NodeList{Nodes: nodes})
		}
		return nodeTable(nodes).print(a.stdout)
	}
	return c
}

func nodeTable(nodes []api.Node) *table {
	t := &table{header: []string{"NAME", "ZONE", "STATUS", "TASKS", "CPU FREE", "MEMORY FREE", "NETWORK", "ENGINE", "VERSION", "ID"}}
	for _, n := range nodes {
		t.add(n.Name, n.Zone, nodeStatus(n), strconv.Itoa(n.Attempts),
			n.Free.CPU.String()+" of "+n.Capacity.CPU.String(),
			bytesText(int64(n.Free.Memory))+" of "+bytesText(int64(n.Capacity.Memory)),
			nodeNetwork(n), n.Engine, n.Version, n.ID)
	}
	return t
}

// nodeNetwork says what network a node can give to tasks.
func nodeNetwork(n api.Node) string {
	if n.Attributes[task.AttributeEgress] == "true" {
		return string(task.NetworkEgress)
	}
	return string(task.NetworkNone)
}

// nodeStatus adds to a node's status what keeps it from taking tasks.
func nodeStatus(n api.Node) string {
	status := n.Status
	if n.Drain && status == "ready" {
		status = "draining"
	}
	if n.Unfit != "" {
		status += ", unfit"
	}
	return status
}

func (a *app) nodesShow() *cobra.Command {
	c := &cobra.Command{Use: "show NODE", Short: "Show a node, by name or id", Args: exactlyOne("a node's name or id")}
	json := asJSON(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		client, err := a.client()
		if err != nil {
			return err
		}
		defer client.Close()
		n, err := client.Node(c.Context(), args[0])
		if err != nil {
			return fmt.Errorf("show node %s: %w", args[0], named(err, listsNodes))
		}
		if *json {
			return printJSON(a.stdout, n)
		}
		return showNode(a.stdout, n, time.Now())
	}
	return c
}

func showNode(w io.Writer, n *api.Node, now time.Time) error {
	s := newSheet(w)
	s.line("Node", n.Name)
	s.line("Id", n.ID)
	s.line("Zone", n.Zone)
	s.line("Status", nodeStatus(*n))
	s.line("Unfit because", n.Unfit)
	s.line("Tasks", strconv.Itoa(n.Attempts))
	s.line("CPU", fmt.Sprintf("%s, %s reserved, %s free", n.Capacity.CPU, n.Reserved.CPU, n.Free.CPU))
	s.line("Memory", fmt.Sprintf("%s, %s reserved, %s free", bytesText(int64(n.Capacity.Memory)),
		bytesText(int64(n.Reserved.Memory)), bytesText(int64(n.Free.Memory))))
	s.line("Engine", n.Engine)
	s.line("Version", n.Version)
	s.line("Registered", when(n.RegisteredAt, now))
	s.line("Lease epoch", strconv.FormatUint(n.Epoch, 10))
	for _, name := range slices.Sorted(maps.Keys(n.Attributes)) {
		s.line("Attribute "+name, n.Attributes[name])
	}
	return s.w.Flush()
}

func (a *app) nodesDrain(verb, short string, drain bool) *cobra.Command {
	c := &cobra.Command{Use: verb + " NODE...", Short: short, Args: atLeastOne("a node's name or id")}
	json := asJSON(c)
	c.RunE = func(c *cobra.Command, names []string) error {
		client, err := a.client()
		if err != nil {
			return err
		}
		defer client.Close()
		nodes := []api.Node{}
		var faults []error
		for _, name := range names {
			n, err := client.Drain(c.Context(), name, drain)
			if err != nil {
				faults = append(faults, fmt.Errorf("%s node %s: %w", verb, name, named(err, listsNodes)))
				continue
			}
			nodes = append(nodes, *n)
		}
		if *json {
			return errors.Join(append(faults, printJSON(a.stdout, api.NodeList{Nodes: nodes}))...)
		}
		for _, n := range nodes {
			fmt.Fprintf(a.stdout, "%s %s, %d tasks\n", cell(n.Name), cell(nodeStatus(n)), n.Attempts)
		}
		return errors.Join(faults...)
	}
	return c
}
