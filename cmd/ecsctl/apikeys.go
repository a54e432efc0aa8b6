package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"ecs/proto/api"
)

func (a *app) keysCommand() *cobra.Command {
	return group("keys", "Make, list and revoke API keys of the cluster (takes an admin key)", a.keysCreate(), a.keysList(), a.keysRevoke())
}

func (a *app) keysCreate() *cobra.Command {
	var r api.KeyRequest
	var rate, concurrency, quota int
	c := &cobra.Command{Use: "create", Short: "Make a key: prints key:secret, once", Args: none}
	flags := c.Flags()
	flags.StringVar(&r.Role, "role", api.RoleRun, "what it may do: `run` its own tasks, operate (all tasks, nodes), admin (keys and the cluster too)")
	flags.StringVar(&r.Name, "name", "", "`name` for people")
	flags.IntVar(&rate, "rate", 0, "requests a `second`, of each control node; 0: no limit (default: the control nodes')")
	flags.IntVar(&concurrency, "concurrency", 0, "how `many` requests at once, at each control node; 0: no limit (default: the control nodes')")
	flags.IntVar(&quota, "quota", 0, "how `many` of its tasks may wait for a node; 0: no limit (default: the control nodes')")
	json := asJSON(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		for name, limit := range map[string]struct {
			given int
			field **int
		}{"rate": {rate, &r.Rate}, "concurrency": {concurrency, &r.Concurrency}, "quota": {quota, &r.Quota}} {
			if c.Flags().Changed(name) {
				*limit.field = &limit.given
			}
		}
		client, err := a.client()
		if err != nil {
			return err
		}
		defer client.Close()
		k, err := client.MakeKey(c.Context(), r)
		if err != nil {
			return fmt.Errorf("make a key: %w", err)
		}
		if *json {
			return printJSON(a.stdout, k)
		}
		fmt.Fprintf(a.stdout, "%s:%s\n", k.ID, k.Secret)
		a.say("the secret is shown this once; the cluster keeps a hash of it only")
		return nil
	}
	return c
}

func (a *app) keysList() *cobra.Command {
	c := &cobra.Command{Use: "ls", Short: "List the keys of the record, revoked ones included; those of htpasswd files are not among them", Args: none}
	json := asJSON(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		client, err := a.client()
		if err != nil {
			return err
		}
		defer client.Close()
		keys, err := client.Keys(c.Context())
		if err != nil {
			return fmt.Errorf("list keys: %w", err)
		}
		if *json {
			return printJSON(a.stdout, api.KeyList{Keys: keys})
		}
		return keyTable(keys, time.Now()).print(a.stdout)
	}
	return c
}

func keyTable(keys []api.Key, now time.Time) *table {
	t := &table{header: []string{"KEY", "NAME", "ROLE", "RATE", "CONCURRENCY", "QUOTA", "AGE", "REVOKED"}}
	for _, k := range keys {
		t.add(k.ID, k.Name, k.Role, limitText(k.Rate), limitText(k.Concurrency), limitText(k.Quota), age(k.CreatedAt, now), age(k.RevokedAt, now))
	}
	return t
}

func limitText(n *int) string {
	switch {
	case n == nil:
		return "default"
	case *n == 0:
		return "none"
	}
	return strconv.Itoa(*n)
}

func (a *app) keysRevoke() *cobra.Command {
	c := &cobra.Command{Use: "revoke KEY", Short: "Revoke a key, at once and for ever", Args: exactlyOne("a key")}
	json := asJSON(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		client, err := a.client()
		if err != nil {
			return err
		}
		defer client.Close()
		k, err := client.RevokeKey(c.Context(), args[0])
		if err != nil {
			return fmt.Errorf("revoke key %s: %w", args[0], named(err, listsKeys))
		}
		if *json {
			return printJSON(a.stdout, k)
		}
		fmt.Fprintf(a.stdout, "%s revoked; its tasks go on (ecsctl tasks ls --owner %s)\n", cell(k.ID), cell(k.ID))
		return nil
	}
	return c
}
