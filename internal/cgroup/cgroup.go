// Package cgroup finds the processes of a control group and ends them, past the
// engine that made it. It knows cgroup v1 and v2, and needs root to kill.
//
// A cgroup is named by its directory: under v1 that of the pids hierarchy, whose
// siblings in other hierarchies (freezer, cpu, memory) have the same path there,
// under v2 the only one there is.
package cgroup

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Root is where cgroups are mounted.
const Root = "/sys/fs/cgroup"

// ErrUnknown: where the processes are is not known.
var ErrUnknown = errors.New("the cgroup is not known")

const (
	procsFile       = "cgroup.procs"
	controllersFile = "cgroup.controllers" // only v2 has it
)

// enginePlaces are where an engine's drivers put a container, under v1 and v2.
var enginePlaces = []string{
	Root + "/pids/docker/%s",
	Root + "/pids/system.slice/docker-%s.scope",
	Root + "/docker/%s",
	Root + "/system.slice/docker-%s.scope",
}

// OfContainer is the directory of a started container's cgroup, by its full id;
// empty when it is somewhere else, hidden, or gone already.
func OfContainer(id string) string {
	for _, place := range enginePlaces {
		dir := fmt.Sprintf(place, id)
		if Exists(dir) {
			return dir
		}
	}
	return ""
}

// Of is the directory of the cgroup that a process is in. The error is
// fs.ErrNotExist when there is no such process, and ErrUnknown when its cgroup
// cannot be seen from here.
func Of(pid int) (string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if errors.Is(err, unix.ESRCH) {
		err = fs.ErrNotExist
	}
	if err != nil {
		return "", fmt.Errorf("cgroup of process %d: %w", pid, err)
	}
	for _, dir := range candidates(string(text)) {
		if Exists(dir) {
			return dir, nil
		}
	}
	return "", fmt.Errorf("process %d: %w", pid, ErrUnknown)
}

// candidates are the directories that a /proc/PID/cgroup speaks of, the one to
// prefer first.
func candidates(text string) []string {
	dirs := make(map[string]string) // by controller; "" is v2
	for line := range strings.Lines(text) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		// A path outside this process's own cgroup namespace begins with "/..".
		if len(parts) != 3 || strings.HasPrefix(parts[2], "/..") {
			continue
		}
		for _, controller := range strings.Split(parts[1], ",") {
			dirs[controller] = filepath.Join(Root, controller, parts[2])
		}
	}
	var found []string
	for _, controller := range []string{"pids", "freezer", ""} {
		if dir, ok := dirs[controller]; ok {
			found = append(found, dir)
		}
	}
	return found
}

// Exists reports whether dir is a cgroup now.
func Exists(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, procsFile))
	return err == nil
}

// Pids are the processes of a cgroup and of those below it. One that is gone has
// none; a process that has ended but is not waited for is none.
func Pids(dir string) ([]int, error) {
	pids, err := ownPids(dir)
	if err != nil {
		return nil, err
	}
	below, err := children(dir)
	if err != nil {
		return nil, err
	}
	for _, child := range below {
		more, err := Pids(child)
		// A child that is threaded names its processes at its parent.
		if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return nil, err
		}
		pids = append(pids, more...)
	}
	return pids, nil
}

func ownPids(dir string) ([]int, error) {
	list, err := os.ReadFile(filepath.Join(dir, procsFile))
	if isGone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var pids []int
	for word := range bytes.FieldsSeq(list) {
		pid, err := strconv.Atoi(string(word))
		if err != nil || pid <= 0 {
			return nil, fmt.Errorf("cgroup %s: no pid: %q", dir, word)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// children are the cgroups directly below dir.
func children(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if isGone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var below []string
	for _, e := range entries {
		if e.IsDir() {
			below = append(below, filepath.Join(dir, e.Name()))
		}
	}
	return below, nil
}

// isGone tells the errors of a cgroup that was removed, also under an open file.
func isGone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV)
}

// Empty reports whether a cgroup has no process, or is gone.
func Empty(dir string) bool {
	pids, err := Pids(dir)
	return err == nil && len(pids) == 0
}

// unified reports whether dir is one of v2.
func unified(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, controllersFile))
	return err == nil
}

// sibling is dir's counterpart in another hierarchy of v1, or empty.
func sibling(dir, controller string) string {
	rest, ok := strings.CutPrefix(filepath.Clean(dir), Root+"/")
	if !ok {
		return ""
	}
	_, path, ok := strings.Cut(rest, "/")
	if other := filepath.Join(Root, controller, path); ok && Exists(other) {
		return other
	}
	return ""
}

// OOMKills is how many processes of the cgroup the kernel has killed for want
// of memory. The error is ErrUnknown where the kernel does not say.
func OOMKills(dir string) (int64, error) {
	if unified(dir) {
		return oomKill(filepath.Join(dir, "memory.events"))
	}
	memory := sibling(dir, "memory")
	if memory == "" {
		return 0, fmt.Errorf("count kills for memory: %w", ErrUnknown)
	}
	return oomKill(filepath.Join(memory, "memory.oom_control"))
}

// MachineOOMKills is the same for the whole machine since it started.
func MachineOOMKills() (int64, error) { return oomKill("/proc/vmstat") }

// oomKill is the number after "oom_kill" in a file of names and numbers.
func oomKill(file string) (int64, error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, fmt.Errorf("count kills for memory: %w", errors.Join(ErrUnknown, err))
	}
	defer f.Close()
	in := bufio.NewScanner(f)
	for in.Scan() {
		if n, ok := strings.CutPrefix(in.Text(), "oom_kill "); ok {
			return strconv.ParseInt(n, 10, 64)
		}
	}
	return 0, fmt.Errorf("count kills for memory: %s: %w", file, errors.Join(ErrUnknown, in.Err()))
}
