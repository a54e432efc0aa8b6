package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ecs/internal/admin"
	"ecs/proto/api"
)

// gossipPort is where control nodes gossip unless told otherwise.
const gossipPort = "7946"

// dataDirs are where daemons keep their data unless told otherwise.
var dataDirs = []string{"/var/lib/ecs/control", "/var/lib/ecs/agent"}

func (a *app) joinCommand() *cobra.Command {
	var dataDir, token string
	c := &cobra.Command{Use: "join [--token TOKEN] ADDR...",
		Short: "Have this machine's daemon join the cluster of control nodes at ADDR",
		Long: "Have the daemon on this machine, agent or control node, join the cluster that the\n" +
			"control nodes at the gossip addresses ADDR (host[:port], 7946 unless given)\n" +
			"belong to. It goes through the daemon's admin socket: as root, on the node.\n\n" +
			"A daemon that was started with --await-join has no certificate yet: --token (or\n" +
			"ECS_JOIN_TOKEN, which no list of processes shows) gets it one, through a control\n" +
			"node's HTTPS (--endpoint), and the addresses to join through when none are given.\n" +
			"`ecsctl ca token` makes a token; it is good once."}
	c.Flags().StringVar(&token, "token", "", "the join `token` of a new node (ECS_JOIN_TOKEN)")
	c.Flags().StringVar(&dataDir, "data-dir", "", "the daemon's data `directory` (default: the one of "+strings.Join(dataDirs, ", ")+" that is there)")
	c.RunE = func(c *cobra.Command, args []string) error {
		daemon, err := localDaemon(dataDir)
		if err != nil {
			return err
		}
		about, err := daemon.About(c.Context())
		if err != nil {
			return err
		}
		switch {
		case about.Awaits != nil:
			found, err := a.letIn(c.Context(), daemon, about, token)
			if err != nil {
				return err
			}
			if len(args) == 0 {
				args = found
			}
		case token != "":
			return usage("the daemon has a certificate, as %s %s of cluster %s: leave --token out. It counts where a daemon was started with --await-join and without one",
				about.Role, about.ID, about.Cluster)
		}
		if len(args) == 0 {
			return usage("the gossip address of a control node is needed: ecsctl join ADDR...")
		}
		for i, addr := range args {
			if _, _, err := net.SplitHostPort(addr); err != nil {
				args[i] = net.JoinHostPort(strings.Trim(addr, "[]"), gossipPort)
			}
		}
		if err := daemon.Join(c.Context(), args, a.progress); err != nil {
			return fmt.Errorf("join: %w", err)
		}
		return a.done("joined")
	}
	return c
}

func (a *app) leaveCommand() *cobra.Command {
	var dataDir, node string
	var force bool
	c := &cobra.Command{Use: "leave", Args: none,
		Short: "Have this machine's daemon, or another node, leave the cluster in good order",
		Long: "Have the daemon on this machine leave its cluster in good order and end: as root,\n" +
			"through its admin socket. With --node another one, from anywhere, with a key.\n\n" +
			"An agent takes nothing new, lets its tasks finish within its grace, has other\n" +
			"agents fetch the output that it holds (for as long as its --hand-over, 2m; what\n" +
			"nobody has taken by then is gone) and gives its lease up, so that the rest runs\n" +
			"elsewhere at once. A control node fails its\n" +
			"health check, accepts for --drain longer, hands leadership and vote over.\n\n" +
			"What would cost the control nodes their majority is refused."}
	c.Flags().StringVar(&dataDir, "data-dir", "", "the daemon's data `directory` (default: the one of "+strings.Join(dataDirs, ", ")+" that is there)")
	c.Flags().StringVar(&node, "node", "", "`name` or id of another node that is to leave")
	c.Flags().BoolVar(&force, "force", false, "leave though it is refused; with --node, take out a node that can't be asked")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if node != "" {
			return a.sendAway(c.Context(), node, force)
		}
		daemon, err := localDaemon(dataDir)
		if err != nil {
			return err
		}
		if err := daemon.Leave(c.Context(), force, a.progress); err != nil {
			return fmt.Errorf("leave: %w", err)
		}
		return a.done("left")
	}
	return c
}

func (a *app) progress(text string) { fmt.Fprintln(a.stdout, printable(text)) }

func (a *app) done(text string) error {
	_, err := fmt.Fprintln(a.stdout, text)
	return err
}

// localDaemon finds the daemon of this machine.
func localDaemon(dataDir string) (*admin.Client, error) {
	if dataDir != "" {
		return admin.NewClient(dataDir), nil
	}
	found := slices.DeleteFunc(slices.Clone(dataDirs), func(dir string) bool {
		_, err := os.Stat(filepath.Join(dir, admin.Socket))
		return errors.Is(err, fs.ErrNotExist)
	})
	switch len(found) {
	case 1:
		return admin.NewClient(found[0]), nil
	case 0:
		return nil, usage("no daemon runs on this machine with its data in %s: start it, or name its directory with --data-dir", strings.Join(dataDirs, " or "))
	}
	return nil, usage("more than one daemon runs on this machine: name one with --data-dir %s", strings.Join(found, " or --data-dir "))
}

// sendAway has a node leave from afar, and follows it until it is no member any
// more.
func (a *app) sendAway(ctx context.Context, node string, force bool) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	going, err := client.Leave(ctx, node, force)
	if err != nil {
		return fmt.Errorf("have node %s leave: %w", node, named(err, listsMembers))
	}
	a.progress(going.Detail)
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	last := ""
	for {
		gone, state, err := whether(ctx, client, going)
		if err == nil && gone {
			return a.done("left")
		}
		if err != nil && ctx.Err() == nil {
			state = "not known at the moment: " + err.Error()
		}
		if state != last {
			a.progress(state)
			last = state
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// whether a node is gone, or else what it is.
func whether(ctx context.Context, client *api.Client, going *api.Leaving) (gone bool, state string, err error) {
	if going.Role == "agent" {
		n, err := client.Node(ctx, going.Node)
		if errors.Is(err, &api.Problem{Code: api.CodeNotFound}) {
			return true, "", nil
		}
		if err != nil {
			return false, "", err
		}
		return n.Status == "left", fmt.Sprintf("it is %s, with %d tasks", nodeStatus(*n), n.Attempts), nil
	}
	c, err := client.Cluster(ctx)
	if err != nil {
		return false, "", err
	}
	state = "it is in the configuration without a vote"
	for _, v := range c.Voters {
		if v.ID == going.Node {
			if v.Voter {
				state = "it is a voter"
			}
			drains := func(m api.Member) bool { return m.ID == going.Node && m.Draining }
			if slices.ContainsFunc(c.Members, drains) {
				state += ", and drains"
			}
			return false, state, nil
		}
	}
	return c.Leader != "", "there is no leader now", nil
}
