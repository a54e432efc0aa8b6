package main

import (
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"ecs/proto/api"
)

func (a *app) clusterCommand() *cobra.Command {
	c := &cobra.Command{Use: "status", Short: "Show the leader, the control nodes and the health of the cluster", Args: none}
	json := asJSON(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		client, err := a.client()
		if err != nil {
			return err
		}
		defer client.Close()
		info, err := client.Cluster(c.Context())
		if err != nil {
			return err
		}
		if *json {
			return printJSON(a.stdout, info)
		}
		return showCluster(a.stdout, info)
	}
	return group("cluster", "Look at the cluster as a whole, save and recover it", c,
		a.clusterSnapshot(), a.clusterRestore(), a.clusterRecover(), a.rotateGossipKey())
}

func showCluster(w io.Writer, c *api.Cluster) error {
	s := newSheet(w)
	s.line("Cluster", c.Name)
	s.line("Answered by", c.Node)
	s.line("Version", c.Version)
	leader := c.Leader
	if leader == "" {
		leader = "none at the moment"
	}
	s.line("Leader", leader)
	s.line("Term", strconv.FormatUint(c.Term, 10))
	s.line("Applied", strconv.FormatUint(c.Applied, 10))
	s.line("Tasks", fmt.Sprintf("%d pending, %d backing off, %d live, %d finished", c.Tasks.Pending, c.Tasks.BackingOff, c.Tasks.Live, c.Tasks.Finished))
	showGossipKey(s, c)
	health := "ready"
	if !c.Health.Ready {
		health = "not ready"
	}
	s.line("Health", health)
	for _, reason := range c.Health.Reasons {
		s.line("  because", reason)
	}
	for _, check := range c.Health.Checks {
		word := "good"
		if !check.OK {
			word = "bad"
		}
		if check.Detail != "" {
			word += ": " + check.Detail
		}
		s.line("  "+check.Name, word)
	}
	if err := s.w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	return memberTable(c).print(w)
}

// memberTable lists who gossips, and which control nodes vote.
func memberTable(c *api.Cluster) *table {
	t := &table{header: []string{"NAME", "ROLE", "ZONE", "VOTER", "HTTP", "VERSION", "ID"}}
	voters := make(map[string]api.Voter, len(c.Voters))
	for _, v := range c.Voters {
		voters[v.ID] = v
	}
	row := func(name, role, zone, http, version, id string) {
		vote := ""
		if v, known := voters[id]; known && v.Voter {
			vote = "yes"
			if id == c.Leader {
				vote = "leader"
			}
		}
		delete(voters, id)
		t.add(name, role, zone, vote, http, version, id)
	}
	for _, m := range c.Members {
		row(m.Name, m.Role, m.Zone, m.HTTP, m.Version, m.ID)
	}
	for _, v := range c.Voters {
		if _, unseen := voters[v.ID]; unseen {
			row("", "control, not seen", "", "", "", v.ID)
		}
	}
	return t
}
