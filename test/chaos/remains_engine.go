package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// cgroups are where the kernel's control groups are mounted: of version 2, and each
// controller of version 1.
var cgroups = []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"}

// contained ends what ran in the containers of engines of a run's own, which may be
// gone themselves, and removes their cgroups.
func (r remains) contained(ctx context.Context) error {
	var groups []string
	for _, root := range cgroups {
		found, err := filepath.Glob(filepath.Join(root, r.prefix+"*"))
		if err != nil {
			return err
		}
		for _, top := range found {
			err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					groups = append(groups, path)
				}
				return nil // what goes away by itself is as good
			})
			if err != nil {
				return err
			}
		}
	}
	slices.Reverse(groups) // from the inside out
	return until(ctx, "no cgroup of "+r.prefix, func() bool {
		for _, group := range groups {
			text, _ := os.ReadFile(filepath.Join(group, "cgroup.procs"))
			for _, word := range strings.Fields(string(text)) {
				if pid, err := strconv.Atoi(word); err == nil {
					_ = syscall.Kill(pid, syscall.SIGKILL) // it may be gone
				}
			}
			_ = os.Remove(group)
		}
		return !slices.ContainsFunc(groups, func(group string) bool { _, err := os.Stat(group); return err == nil })
	})
}

// mounts takes away what such engines have mounted in the directories of runs: as
// long as it is there those can't be removed.
func (r remains) mounts() error {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var errs []error
	for _, at := range mountsUnder(string(text), filepath.Join(runsDir, r.prefix)) {
		if err := syscall.Unmount(at, syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) { // EINVAL: it is gone
			errs = append(errs, fmt.Errorf("unmount %s: %w", at, err))
		}
	}
	return errors.Join(errs...)
}

// mountsUnder gives the mount points whose path begins so, the innermost first.
func mountsUnder(mountinfo, prefix string) (points []string) {
	for line := range strings.Lines(mountinfo) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], prefix) {
			points = append(points, fields[4])
		}
	}
	slices.Sort(points)
	slices.Reverse(points)
	return points
}
