package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"al.essio.dev/pkg/shellescape"
	"github.com/spf13/cobra"

	"ecs/internal/devcluster"
	"ecs/proto/api"
)

func (a *app) devCommand() *cobra.Command {
	return group("dev", "Run a whole cluster of real processes on this machine", a.devUp(), a.devDown(), a.devStatus(), a.devAdd(), a.devRemove())
}

func (a *app) devUp() *cobra.Command {
	o := devcluster.Options{}
	var zones, cpus, memory string
	c := &cobra.Command{Use: "up", Short: "Start a cluster and wait until every node is ready", Args: none}
	json := asJSON(c)
	flags := c.Flags()
	flags.IntVar(&o.Controls, "controls", 3, "`number` of control nodes: 1, 3 or 5")
	flags.IntVar(&o.Agents, "agents", 3, "`number` of agents")
	flags.StringVar(&zones, "zones", "a,b,c", "`zones`, dealt to the nodes in turn")
	flags.StringVar(&o.Dir, "dir", devcluster.DefaultDir, "`directory` of the cluster's files")
	flags.IntVar(&o.HTTPPort, "http-port", 8448, "first of the control nodes' HTTP `ports`")
	flags.StringVar(&cpus, "agent-cpus", "", "`CPUs` each agent offers (default: the machine's, shared out, at least 1)")
	flags.StringVar(&memory, "agent-memory", "", "`size` of memory each agent offers (default: three quarters of the machine's, shared out)")
	flags.IntVar(&o.WarmCount, "warm-count", 0, "`number` of containers that each agent may start ahead of tasks; 0: none, the pool is off")
	flags.StringVar(&o.DefaultRegistry, "default-registry", "", "`registry` of images that name none (default docker.io)")
	flags.StringArrayVar(&o.InsecureRegistries, "insecure-registry", nil, "`registry` to speak to without TLS")
	flags.StringVar(&o.DockerHost, "docker-host", "", "`address` of the engine (DOCKER_HOST; default the local one)")
	flags.DurationVar(&o.Within, "within", time.Minute, "how `long` it may take")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := devOptions(&o, zones, cpus, memory, c.Flags().Changed("agents")); err != nil {
			return err
		}
		o.Progress = a.stderr
		status, err := devcluster.Up(c.Context(), o)
		if err != nil {
			return err
		}
		return a.printDev(status, *json)
	}
	return c
}

func devOptions(o *devcluster.Options, zones, cpus, memory string, agentsGiven bool) error {
	for _, z := range strings.Split(zones, ",") {
		if z = strings.TrimSpace(z); z != "" {
			o.Zones = append(o.Zones, z)
		}
	}
	if agentsGiven && o.Agents == 0 {
		o.Agents = devcluster.NoAgents
	}
	if cpus != "" {
		n, err := api.ParseCPU(cpus)
		if err != nil {
			return usage("--agent-cpus: %w", err)
		}
		o.AgentCPUs = api.CPU(n)
	}
	if memory != "" {
		n, err := api.ParseSize(memory)
		if err != nil {
			return usage("--agent-memory: %w", err)
		}
		o.AgentMemory = api.Size(n)
	}
	return nil
}

func (a *app) devStatus() *cobra.Command {
	var dir string
	c := &cobra.Command{Use: "status", Short: "Show a cluster that dev up started; fails when a part of it does not run", Args: none}
	json := asJSON(c)
	c.Flags().StringVar(&dir, "dir", devcluster.DefaultDir, "`directory` of the cluster's files")
	c.RunE = func(c *cobra.Command, _ []string) error {
		status, err := devcluster.ReadStatus(c.Context(), dir)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("no cluster in %s: `ecsctl dev up --dir %s` starts one", dir, shellescape.Quote(dir))
		}
		if err != nil {
			return err
		}
		if err := a.printDev(status, *json); err != nil {
			return err
		}
		if missing := status.Missing(); len(missing) > 0 {
			return fmt.Errorf("these do not run: %s", strings.Join(missing, ", "))
		}
		return nil
	}
	return c
}

func (a *app) devDown() *cobra.Command {
	var dir string
	c := &cobra.Command{Use: "down", Short: "End a cluster that dev up started, and remove everything of it", Args: none}
	c.Flags().StringVar(&dir, "dir", devcluster.DefaultDir, "`directory` of the cluster's files")
	c.RunE = func(c *cobra.Command, _ []string) error { return devcluster.Down(c.Context(), dir) }
	return c
}

func (a *app) printDev(s *devcluster.Status, json bool) error {
	if json {
		return printJSON(a.stdout, s)
	}
	t := &table{header: []string{"NAME", "ROLE", "ZONE", "PID", "HTTP", "HEALTH", "LEADER"}}
	for _, n := range s.Nodes {
		pid, leader := "down", ""
		if n.PID != 0 {
			pid = strconv.Itoa(n.PID)
		}
		if n.Leader {
			leader = "leader"
		}
		t.add(n.Name, n.Role, n.Zone, pid, n.HTTP, n.Health, leader)
	}
	if err := t.print(a.stdout); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "\nFiles are in %s. To use the cluster:\n\n  export ECS_ENDPOINT=%s\n  export ECS_KEY=%s\n  export ECS_SECRET=%s\n",
		s.Dir, strings.Join(s.Endpoints, ","), s.Key, s.Secret)
	return nil
}
