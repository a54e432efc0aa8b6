package docker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// errNoCgroup: where the container's processes are is not known.
var errNoCgroup = errors.New("the container's cgroup is not known")

// killPause is between two looks at a cgroup that is being emptied.
const killPause = 5 * time.Millisecond

// cgroupPlaces are where an engine's drivers put a container, under cgroup v1
// (in the pids hierarchy) and v2.
var cgroupPlaces = []string{
	"/sys/fs/cgroup/pids/docker/%s",
	"/sys/fs/cgroup/pids/system.slice/docker-%s.scope",
	"/sys/fs/cgroup/docker/%s",
	"/sys/fs/cgroup/system.slice/docker-%s.scope",
}

// findCgroup is the directory of a started container's cgroup, or empty when
// it is somewhere else, hidden, or the program has ended already.
func findCgroup(id string) string {
	for _, place := range cgroupPlaces {
		dir := fmt.Sprintf(place, id)
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err == nil {
			return dir
		}
	}
	return ""
}

// cgroupPids are the processes of a cgroup. One that is gone has none.
func cgroupPids(dir string) ([]int, error) {
	list, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, word := range strings.Fields(string(list)) {
		pid, err := strconv.Atoi(word)
		if err != nil || pid <= 0 {
			return nil, fmt.Errorf("cgroup %s: no pid: %q", dir, word)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

func cgroupEmpty(dir string) bool {
	pids, err := cgroupPids(dir)
	return err == nil && len(pids) == 0
}

// killCgroup kills every process of a cgroup, again until it is empty, past
// the engine. It needs root; nil means that none is left.
func killCgroup(ctx context.Context, dir string) error {
	if dir == "" {
		return errNoCgroup
	}
	for {
		pids, err := cgroupPids(dir)
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("kill pid %d: %w", pid, err)
			}
		}
		if !sleep(ctx, killPause) {
			return ctx.Err()
		}
	}
}

// oomKills is how many processes the kernel has killed for want of memory
// since the machine started, under any cgroup; 0 where it does not say.
func oomKills() int64 {
	f, err := os.Open("/proc/vmstat")
	if err != nil {
		return 0
	}
	defer f.Close()
	for in := bufio.NewScanner(f); in.Scan(); {
		if n, ok := strings.CutPrefix(in.Text(), "oom_kill "); ok {
			count, _ := strconv.ParseInt(n, 10, 64)
			return count
		}
	}
	return 0
}
