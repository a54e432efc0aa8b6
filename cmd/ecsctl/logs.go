package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ecs/proto/api"
)

func (a *app) logsCommand() *cobra.Command {
	c := &cobra.Command{Use: "logs --cid ID", Short: "Gather what all nodes logged of late about one request",
		Long: "Gather what all nodes logged of late about one request, by its correlation id: the X-Correlation-ID\n" +
			"of its answer, or the cid of its task. Nodes keep the last few MiB of their logs. (The output of a\n" +
			"task is `ecsctl tasks logs`.)",
		Args: none}
	cid := c.Flags().String("cid", "", "correlation `id`; needed")
	limit := c.Flags().Int("limit", api.DefaultLogLines, "at most so many lines, the newest")
	asText := asJSON(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *cid == "" {
			return usage("whose lines? give --cid: the X-Correlation-ID of an answer, or what `ecsctl tasks show` says (see: %s --help)", c.CommandPath())
		}
		client, err := a.client()
		if err != nil {
			return err
		}
		defer client.Close()
		list, err := client.Logs(c.Context(), *cid, *limit)
		if err != nil {
			return fmt.Errorf("gather the log lines of %s: %w", *cid, err)
		}
		if *asText {
			return printJSON(a.stdout, list)
		}
		for _, line := range list.Lines {
			fmt.Fprintln(a.stdout, logText(line))
		}
		a.sayOfLogs(list)
		return nil
	}
	return c
}

// sayOfLogs tells what may be missing.
func (a *app) sayOfLogs(list *api.LogList) {
	for _, n := range list.Silent {
		a.say("%s %s did not answer: %s", cell(n.Role), cell(n.Node), cell(n.Detail))
	}
	switch {
	case list.Truncated:
		a.say("older lines were left out; --limit raises the bound, to at most %d", api.MaxLogLines)
	case len(list.Lines) == 0:
		a.say("none of %d nodes has a line of it that is yours: it is too long ago, or another key's", list.Asked)
	}
}

// logText is a line of a log as people read it: time, level, node, message, and
// the rest by name.
func logText(line json.RawMessage) string {
	var members map[string]json.RawMessage
	if json.Unmarshal(line, &members) != nil {
		return cell(string(line))
	}
	text := func(name string) string {
		raw := members[name]
		delete(members, name)
		var s string
		if json.Unmarshal(raw, &s) != nil {
			return string(raw)
		}
		return s
	}
	at := text("time")
	if t, err := time.Parse(time.RFC3339Nano, at); err == nil {
		at = t.UTC().Format("15:04:05.000000")
	}
	parts := []string{at, fmt.Sprintf("%-5s", cell(text("level"))), cell(shorten(text("node"), 16)), cell(text("msg"))}
	delete(members, "cid")
	for _, name := range slices.Sorted(maps.Keys(members)) {
		parts = append(parts, cell(name)+"="+cell(text(name)))
	}
	return strings.Join(parts, "  ")
}
