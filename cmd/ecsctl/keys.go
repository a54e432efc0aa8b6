package main

import (
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/spf13/cobra"

	"ecs/internal/clusterfiles"
	"ecs/internal/pki"
)

func (a *app) credsCommand() *cobra.Command {
	const most = 1000
	return &cobra.Command{
		Use:   "creds [NUMBER]",
		Short: "Make API keys: prints key:secret lines and appends the hashes to ./.htpasswd",
		RunE: func(_ *cobra.Command, args []string) error {
			number := 5
			if len(args) > 1 {
				return usage("one number of keys is enough")
			}
			if len(args) == 1 {
				n, err := strconv.Atoi(args[0])
				if err != nil || n < 1 || n > most {
					return usage("%q: want a number of keys from 1 to %d", args[0], most)
				}
				number = n
			}
			keys := make([]clusterfiles.Credentials, number)
			for i := range keys {
				keys[i] = clusterfiles.NewCredentials()
			}
			if err := clusterfiles.AppendHtpasswd(".htpasswd", keys...); err != nil {
				return err
			}
			for _, k := range keys {
				fmt.Fprintln(a.stdout, k)
			}
			return nil
		},
	}
}

func (a *app) caCommand() *cobra.Command {
	return group("ca", "Make a cluster's certificate authority, keys and node certificates", a.caInit(), a.caIssue(), a.caToken(), a.caTokens(), a.caWithdraw(), a.caRequest(), a.caRevoke(), a.caRevoked())
}

func (a *app) caInit() *cobra.Command {
	var dir string
	c := &cobra.Command{Use: "init CLUSTER", Short: "Make the authority, the gossip key and the seal key of a new cluster", Args: exactlyOne("a name for the cluster")}
	c.Flags().StringVar(&dir, "dir", "ecs-ca", "`directory` to make them in")
	c.RunE = func(_ *cobra.Command, args []string) error {
		if _, err := clusterfiles.Init(dir, args[0], time.Now()); err != nil {
			return err
		}
		file := func(name string) string { return filepath.Join(dir, name) }
		fmt.Fprintf(a.stdout, "%s  to every node\n%s  to every node, secret\n%s  to control nodes only, secret\n%s  stays here: whoever has it is the whole cluster\n",
			file(clusterfiles.CACert), file(clusterfiles.GossipKey), file(clusterfiles.SealKey), file(clusterfiles.CAKey))
		fmt.Fprintf(a.stdout, "Next: ecsctl ca issue --dir %s --role control OUT\n", dir)
		return nil
	}
	return c
}

func (a *app) caIssue() *cobra.Command {
	var dir, role, id string
	var hosts []string
	var days int
	c := &cobra.Command{Use: "issue OUT", Short: "Make a node's certificate and key in the directory OUT", Args: exactlyOne("a directory for the node's files")}
	flags := c.Flags()
	flags.StringVar(&dir, "dir", "ecs-ca", "`directory` that ca init made")
	flags.StringVar(&role, "role", "", "`role` of the node: control or agent")
	flags.StringVar(&id, "id", "", "`id` of the node, for ever (default: a new one)")
	flags.StringArrayVar(&hosts, "host", nil, "`name` or address to put in for tools that check it")
	flags.IntVar(&days, "days", 365, "how many `days` it is valid")
	c.RunE = func(_ *cobra.Command, args []string) error {
		if r := pki.Role(role); r != pki.RoleControl && r != pki.RoleAgent {
			return usage("--role %q: want %s or %s", role, pki.RoleControl, pki.RoleAgent)
		}
		if days < 1 {
			return usage("--days %d: want at least one", days)
		}
		ca, err := clusterfiles.OpenCA(dir)
		if err != nil {
			return err
		}
		if id == "" {
			id = ulid.Make().String()
		}
		identity := pki.Identity{Cluster: ca.Cluster(), Role: pki.Role(role), ID: id}
		if err := clusterfiles.IssueNode(ca, identity, args[0], hosts, time.Now(), time.Duration(days)*24*time.Hour); err != nil {
			return err
		}
		fmt.Fprintf(a.stdout, "%s\n%s  secret\nfor %s\n", filepath.Join(args[0], clusterfiles.NodeCert),
			filepath.Join(args[0], clusterfiles.NodeKey), identity)
		return nil
	}
	return c
}
