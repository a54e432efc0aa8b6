package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/client"
)

// remains is what a run may leave behind: everything whose name, or whose
// cluster's name, begins so.
type remains struct {
	prefix string
	engine *client.Client // nil: there were no containers
}

// clusterLabel names the cluster that a container is of.
const clusterLabel = "ecs.cluster"

// remove ends and removes all of it. Of what is not there, or only in part, the
// rest goes; to remove it twice is no error.
func (r remains) remove(ctx context.Context) error {
	// Whoever makes containers ends first.
	errs := []error{r.processes(ctx), r.contained(ctx), r.mounts()}
	if r.engine != nil {
		errs = append(errs, r.containers(ctx))
	}
	errs = append(errs, r.network())
	if r.engine != nil {
		errs = append(errs, r.containers(ctx)) // the engine may have been about to make one
	}
	return errors.Join(errs...)
}

// processes ends whatever runs in the namespaces, the programs of tasks too.
func (r remains) processes(ctx context.Context) error {
	spaces, err := r.namespaces()
	if err != nil {
		return err
	}
	return until(ctx, "no process in the namespaces of "+r.prefix, func() bool {
		alive := 0
		for _, ns := range spaces {
			out, err := outputOf("ip", "netns", "pids", ns)
			if err != nil {
				continue // it is half made or half removed: nothing runs there
			}
			for _, word := range strings.Fields(out) {
				if pid, err := strconv.Atoi(word); err == nil {
					alive++
					_ = syscall.Kill(pid, syscall.SIGKILL) // it may be gone
				}
			}
		}
		return alive == 0
	})
}

// namespaces lists those that `ip netns` made. It keeps one file each, which is
// there also when the namespace was made by half.
func (r remains) namespaces() (names []string, err error) {
	entries, err := os.ReadDir("/run/netns")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list network namespaces: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), r.prefix) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func (r remains) containers(ctx context.Context) error {
	var failed error
	late := until(ctx, "no container of "+r.prefix, func() bool {
		var list []container.Summary
		list, failed = r.engine.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", clusterLabel))})
		left := 0
		for _, c := range list {
			if !strings.HasPrefix(c.Labels[clusterLabel], r.prefix) {
				continue
			}
			left++
			err := r.engine.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true, RemoveVolumes: true})
			if err != nil && !cerrdefs.IsNotFound(err) && !cerrdefs.IsConflict(err) { // a removal may be under way
				failed = errors.Join(failed, err)
			}
		}
		return failed == nil && left == 0
	})
	if late != nil {
		return errors.Join(late, failed)
	}
	return nil
}

func (r remains) network() error {
	spaces, err := r.namespaces()
	errs := []error{err}
	for _, ns := range spaces {
		errs = append(errs, command("ip", "netns", "del", ns))
	}
	rules, err := outputOf("iptables", "-w", "10", "-S", "FORWARD")
	errs = append(errs, err)
	for _, rule := range forwards(rules, r.prefix) {
		errs = append(errs, command(append([]string{"iptables", "-w", "10", "-D"}, rule...)...))
	}
	links, err := outputOf("ip", "-o", "link", "show", "type", "bridge")
	errs = append(errs, err)
	for _, name := range linksOf(links, r.prefix) {
		errs = append(errs, command("ip", "link", "del", name))
	}
	return errors.Join(errs...)
}

// forwards gives the rules, without the -A before them, that are about a bridge of
// that prefix.
func forwards(listed, prefix string) (rules [][]string) {
	for line := range strings.Lines(listed) {
		fields := strings.Fields(line)
		for i, f := range fields {
			if f == "-i" && i+1 < len(fields) && fields[0] == "-A" && strings.HasPrefix(fields[i+1], prefix) {
				rules = append(rules, fields[1:])
			}
		}
	}
	return rules
}

// linksOf gives the names of links of that prefix, from `ip -o link`.
func linksOf(listed, prefix string) (names []string) {
	for line := range strings.Lines(listed) {
		fields := strings.Fields(line) // 7: name: <...> or 7: name@other: <...>
		if len(fields) < 2 {
			continue
		}
		name, _, _ := strings.Cut(strings.TrimSuffix(fields[1], ":"), "@")
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	return names
}
