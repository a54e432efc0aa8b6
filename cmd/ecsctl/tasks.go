package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ecs/proto/api"
)

func (a *app) tasksCommand() *cobra.Command {
	return group("tasks", "List, show and cancel tasks, and fetch what they left",
		a.tasksList(), a.tasksShow(), a.tasksLogs(), a.tasksCopy(), a.tasksCancel())
}

// asJSON declares --json on a command.
func asJSON(c *cobra.Command) *bool { return c.Flags().Bool("json", false, "print JSON") }

func (a *app) tasksList() *cobra.Command {
	var o api.ListOptions
	var all bool
	c := &cobra.Command{Use: "ls", Short: "List your tasks, newest first", Args: none}
	json := asJSON(c)
	c.Flags().StringArrayVar(&o.States, "state", nil, "only tasks in this `state`: pending, assigned, running or finished")
	c.Flags().StringArrayVarP(&o.Labels, "label", "l", nil, "only tasks with this label, `name` or name=value")
	c.Flags().StringVar(&o.Owner, "owner", "", "those of another `key`, or of all with '*'; takes the role operate")
	c.Flags().IntVarP(&o.Limit, "limit", "n", 20, "at most this `many`")
	c.Flags().BoolVarP(&all, "all", "a", false, "all there are")
	c.RunE = func(c *cobra.Command, _ []string) error {
		client, err := a.client()
		if err != nil {
			return err
		}
		defer client.Close()
		if all {
			o.Limit = api.MaxList
		}
		list, err := listTasks(c.Context(), client, o, all)
		if err != nil {
			return err
		}
		if *json {
			return printJSON(a.stdout, list)
		}
		nameNodes(c.Context(), client, list.Tasks)
		if err := taskTable(list.Tasks, time.Now()).print(a.stdout); err != nil {
			return err
		}
		if list.Next != "" {
			a.say("there are more: --limit or --all shows them")
		}
		return nil
	}
	return c
}

// listTasks gets pages until it has the limit, or with all until the end. A
// page may be short or empty and still have a next one.
func listTasks(ctx context.Context, client *api.Client, o api.ListOptions, all bool) (*api.TaskList, error) {
	list := &api.TaskList{Tasks: []api.Task{}}
	want := o.Limit
	for {
		if !all {
			o.Limit = min(want-len(list.Tasks), api.MaxList)
		}
		page, err := client.List(ctx, o)
		if err != nil {
			return nil, err
		}
		list.Tasks = append(list.Tasks, page.Tasks...)
		list.Next, o.Cursor = page.Next, page.Next
		if page.Next == "" || !all && len(list.Tasks) >= want {
			return list, nil
		}
	}
}

// nameNodes puts nodes' names in place of their ids, for people. A node that
// nobody knows any more keeps its id.
func nameNodes(ctx context.Context, client *api.Client, tasks []api.Task) {
	nodes, err := client.Nodes(ctx)
	if err != nil {
		return // ids will do
	}
	names := make(map[string]string, len(nodes))
	for _, n := range nodes {
		names[n.ID] = n.Name
	}
	for i := range tasks {
		tasks[i].Node = cmp.Or(names[tasks[i].Node], tasks[i].Node)
		for j := range tasks[i].Attempts {
			at := &tasks[i].Attempts[j]
			at.Node = cmp.Or(names[at.Node], at.Node)
		}
	}
}

func taskTable(tasks []api.Task, now time.Time) *table {
	t := &table{header: []string{"ID", "STATE", "OUTCOME", "EXIT", "AGE", "RUN", "NODE", "ZONE", "IMAGE", "COMMAND"}}
	for _, k := range tasks {
		exit, run := "", ""
		if k.ExitCode != nil {
			exit = strconv.Itoa(*k.ExitCode)
		}
		if k.Times != nil && k.Times.Run != nil && k.Finished() {
			run = millis(*k.Times.Run)
		}
		t.add(k.ID, k.State, k.Outcome, exit, age(k.SubmittedAt, now), run, k.Node, k.Zone, k.Spec.Image,
			shorten(strings.Join(k.Spec.Command, " "), 40))
	}
	return t
}

// millis gives milliseconds as people read them.
func millis(ms float64) string {
	if ms < 1000 {
		return strconv.FormatFloat(ms, 'f', 1, 64) + "ms"
	}
	return span(time.Duration(ms * float64(time.Millisecond)))
}

func (a *app) tasksShow() *cobra.Command {
	c := &cobra.Command{Use: "show ID...", Short: "Show a task: what became of it, why it waits, where its time went", Args: atLeastOne("a task's id")}
	json := asJSON(c)
	c.RunE = func(c *cobra.Command, ids []string) error {
		client, err := a.client()
		if err != nil {
			return err
		}
		defer client.Close()
		for i, id := range ids {
			task, err := client.Get(c.Context(), id)
			if err != nil {
				return fmt.Errorf("show task %s: %w", id, named(err, listsTasks))
			}
			if *json {
				err = printJSON(a.stdout, task)
			} else {
				if i > 0 {
					fmt.Fprintln(a.stdout)
				}
				shown := []api.Task{*task}
				nameNodes(c.Context(), client, shown)
				err = showTask(a.stdout, &shown[0], time.Now())
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	return c
}

func (a *app) tasksLogs() *cobra.Command {
	var follow bool
	var only string
	c := &cobra.Command{Use: "logs ID", Short: "Print a task's output: its stdout on stdout, its stderr on stderr", Args: exactlyOne("a task's id")}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the task has finished")
	c.Flags().StringVar(&only, "stream", "", "only this `stream`: stdout or stderr")
	c.RunE = func(c *cobra.Command, args []string) error {
		if only != "" && only != api.Stdout && only != api.Stderr {
			return usage("--stream %q: want %s or %s", only, api.Stdout, api.Stderr)
		}
		client, err := a.client()
		if err != nil {
			return err
		}
		defer client.Close()
		ctx := c.Context()
		if follow {
			return a.followLogs(ctx, client, args[0], only)
		}
		for _, stream := range []string{api.Stdout, api.Stderr} {
			if only == "" || only == stream {
				if err := a.printLogs(ctx, client, args[0], stream); err != nil {
					return fmt.Errorf("%s of task %s: %w", stream, args[0], named(err, listsTasks))
				}
			}
		}
		return nil
	}
	return c
}

func (a *app) stream(name string) io.Writer {
	if name == api.Stderr {
		return a.stderr
	}
	return a.stdout
}

func (a *app) printLogs(ctx context.Context, client *api.Client, id, stream string) error {
	r, err := client.Output(ctx, id, stream, api.OutputOptions{})
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(a.stream(stream), r)
	if err == nil && r.Truncated() {
		a.say("%s was cut: the program wrote more than was kept", stream)
	}
	return err
}

// followLogs prints both streams as they come. An attempt that takes over from
// a lost one begins again, and that is said.
func (a *app) followLogs(ctx context.Context, client *api.Client, id, only string) error {
	attempt := 0
	for e, err := range client.Events(ctx, id, "") {
		if err != nil {
			return fmt.Errorf("follow task %s: %w", id, named(err, listsTasks))
		}
		if e.Type != api.EventOutput || only != "" && e.Output.Stream != only {
			continue
		}
		if attempt != 0 && e.Output.Attempt > attempt {
			a.say("attempt %d is over; what follows is attempt %d, from the beginning", attempt, e.Output.Attempt)
		}
		attempt = e.Output.Attempt
		data, err := e.Output.Content()
		if err != nil {
			return err
		}
		if _, err := a.stream(e.Output.Stream).Write(data); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) tasksCancel() *cobra.Command {
	c := &cobra.Command{Use: "cancel ID...", Short: "Stop tasks", Args: atLeastOne("a task's id")}
	json := asJSON(c)
	c.RunE = func(c *cobra.Command, ids []string) error {
		client, err := a.client()
		if err != nil {
			return err
		}
		defer client.Close()
		tasks := []api.Task{}
		var faults []error
		for _, id := range ids {
			task, err := client.Cancel(c.Context(), id)
			if err != nil {
				faults = append(faults, fmt.Errorf("cancel task %s: %w", id, named(err, listsTasks)))
				continue
			}
			tasks = append(tasks, *task)
		}
		if *json {
			return errors.Join(append(faults, printJSON(a.stdout, api.TaskList{Tasks: tasks}))...)
		}
		for _, t := range tasks {
			word := "stopping"
			if t.Finished() {
				word = t.Outcome
			}
			fmt.Fprintln(a.stdout, cell(t.ID), cell(word))
		}
		return errors.Join(faults...)
	}
	return c
}
