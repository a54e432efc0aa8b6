package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"ecs/proto/api"
)

func (a *app) tasksCopy() *cobra.Command {
	c := &cobra.Command{
		Use:   "cp ID[:PATH] DEST",
		Short: "Copy the files that a finished task left",
		Long: `Copy the files that a finished task left, of those that its outputs name, into
the directory DEST, which is made if need be. All of them keep their paths below
DEST; with PATH it is that file or directory alone, under its last name. DEST -
writes a tar to stdout.

Files of the same name are replaced. Nothing is written outside of DEST, and
through no link: symbolic links that lead out of DEST are left out and said, so
are devices. Owners stay yours; set-user-ID, set-group-ID and sticky bits go.`,
		Example: `  ecsctl run --output /out alpine:3 sh -c 'mkdir /out; date >/out/now'
  ecsctl tasks cp 01j8zk5m7q ./results
  ecsctl tasks cp 01j8zk5m7q:/out/now .
  ecsctl tasks cp 01j8zk5m7q - | tar t`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usage("a task's id and where to copy to are needed (see: %s --help)", c.CommandPath())
			}
			return nil
		},
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		id, from, picks := strings.Cut(args[0], ":")
		if id == "" {
			return usage("%q: want a task's id, with or without :PATH", args[0])
		}
		if picks {
			from = strings.Trim(path.Clean("/"+from), "/")
		}
		client, err := a.client()
		if err != nil {
			return err
		}
		defer client.Close()
		return a.copyOutputs(c.Context(), client, id, from, args[1])
	}
	return c
}

// copyOutputs copies what a task left at from, "" for all of it.
func (a *app) copyOutputs(ctx context.Context, client *api.Client, id, from, dest string) error {
	task, err := client.Get(ctx, id)
	if err != nil {
		return fmt.Errorf("copy from task %s: %w", id, named(err, listsTasks))
	}
	if err := hasOutputs(task, from); err != nil {
		return fmt.Errorf("copy from task %s: %w", id, err)
	}
	in, err := client.Outputs(ctx, id, 0)
	if err != nil {
		return fmt.Errorf("copy from task %s: %w", id, err)
	}
	defer in.Close()
	if task.Outputs == nil {
		return fmt.Errorf("copy from task %s: the service gave files that it does not know of", id)
	}
	checked := &checkedReader{from: io.LimitReader(in, api.MaxOutputs), hash: sha256.New(), want: task.Outputs.SHA256}
	err = a.unpack(checked, from, dest)
	if err == nil {
		err = checked.rest()
	}
	if err != nil {
		return fmt.Errorf("copy from task %s: %w", id, err)
	}
	if from == "" {
		for _, p := range task.Outputs.Missing {
			a.say("the program left nothing at %s", printable(p))
		}
	}
	if task.Outputs.Truncated {
		a.say("this is not all: the files were cut where they came to %s or too many entries", bytesText(api.MaxOutputs))
	}
	return nil
}

// hasOutputs says why there is nothing to copy.
func hasOutputs(t *api.Task, from string) error {
	switch {
	case len(t.Spec.Outputs) == 0:
		return errors.New("it asked for no outputs; name the paths to keep when it is submitted (run --output)")
	case !t.Finished():
		return fmt.Errorf("it is %s, and files are kept when it has finished", t.State)
	case t.Outputs != nil && t.Outputs.Lost == "" && from != "" && slices.Contains(t.Outputs.Missing, "/"+from):
		return fmt.Errorf("the program left nothing at /%s", from)
	}
	return nil // or the service says why
}

// unpack writes what lies at from to dest.
func (a *app) unpack(in io.Reader, from, dest string) error {
	if dest == "-" {
		if from == "" {
			_, err := io.Copy(a.stdout, in)
			return err
		}
		return pick(in, a.stdout, from)
	}
	if err := os.MkdirAll(dest, 0o777); err != nil {
		return err
	}
	root, err := os.OpenRoot(dest)
	if err != nil {
		return err
	}
	defer root.Close()
	x := &extraction{root: root, from: from, made: map[string]bool{}, say: a.say}
	return x.run(in)
}

// checkedReader makes sure that what is read is what was recorded.
type checkedReader struct {
	from io.Reader
	hash hash.Hash
	want string // in hex
}

func (r *checkedReader) Read(p []byte) (int, error) {
	n, err := r.from.Read(p)
	r.hash.Write(p[:n])
	return n, err
}

// rest reads to the end, where the hash is known.
func (r *checkedReader) rest() error {
	if _, err := io.Copy(io.Discard, r); err != nil {
		return err
	}
	if got := hex.EncodeToString(r.hash.Sum(nil)); got != r.want {
		return fmt.Errorf("what came is not what was recorded: its SHA-256 is %s, want %s", got, r.want)
	}
	return nil
}
