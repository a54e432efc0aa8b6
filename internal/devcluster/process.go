package devcluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/prometheus/procfs"
)

// process is one process of a cluster; its files are named from the cluster's
// directory.
type process struct {
	name, dir                string
	binary, config, log, pid string
}

// fenceSuffix, after an agent's name, names its fence.
const fenceSuffix = "'s fence"

func fenceName(n node) string { return n.Name + fenceSuffix }

// fenced reports whether a fence belongs to the node.
func (c *cluster) fenced(n node) bool { return c.Fenced && n.Role == roleAgent }

// processes are all of the cluster's, each fence before its agent.
func (c *cluster) processes() (all []process) {
	for _, n := range c.Nodes {
		if c.fenced(n) {
			all = append(all, process{name: fenceName(n), dir: n.Name, binary: fenceBinary,
				config: filepath.Join(n.Name, fenceConfig), log: filepath.Join(n.Name, fenceLog), pid: filepath.Join(n.Name, fencePID)})
		}
		all = append(all, nodeProcess(n))
	}
	return all
}

// nodeProcess is the node's daemon itself.
func nodeProcess(n node) process {
	p := process{name: n.Name, dir: n.Name, binary: controlBinary,
		config: filepath.Join(n.Name, configFile), log: filepath.Join(n.Name, logFile), pid: filepath.Join(n.Name, pidFile)}
	if n.Role == roleAgent {
		p.binary = agentBinary
	}
	return p
}

// start starts a process in a session of its own, so that it outlives this one
// and a Ctrl-C that is meant for it.
func (c *cluster) start(p process, binaries string) error {
	log, err := os.OpenFile(c.path(p.log), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(binaries, p.binary), "--config", c.path(p.config))
	cmd.Dir = c.path(p.dir)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	// What the environment says of some other cluster is not for this one.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "ECS_") })
	if err := StartAmong(len(c.Nodes), cmd); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	err = os.WriteFile(c.path(p.pid), fmt.Appendln(nil, cmd.Process.Pid), 0o600)
	return errors.Join(err, cmd.Process.Release())
}

// started reports whether the node's daemon was ever started.
func (c *cluster) started(n node) bool {
	_, err := os.Stat(c.path(n.Name, logFile))
	return !errors.Is(err, fs.ErrNotExist)
}

// running finds the cluster's processes: pids by their names. A process that has
// ended but is not waited for has no command line and is not among them.
func (c *cluster) running() (map[string]int, error) {
	proc, err := procfs.NewDefaultFS()
	if err != nil {
		return nil, err
	}
	all, err := proc.AllProcs()
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	ours := make(map[string]string) // names by what is on the command line
	for _, p := range c.processes() {
		ours[c.path(p.config)] = p.name
	}
	pids := make(map[string]int)
	for _, p := range all {
		args, err := p.CmdLine()
		if err != nil || len(args) != 3 || args[1] != "--config" {
			continue
		}
		if name, ours := ours[args[2]]; ours {
			pids[name] = p.PID
		}
	}
	return pids, nil
}

// ended reports whether a process that was started is no more. One that was just
// started may not have its command line yet, and is not among the running ones.
func (c *cluster) ended(p process) bool {
	text, err := os.ReadFile(c.path(p.pid))
	if err != nil {
		return true
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return true
	}
	proc, err := procfs.NewProc(pid)
	if err != nil {
		return true
	}
	stat, err := proc.Stat()
	return err != nil || stat.State == "Z" || stat.State == "X"
}

// signal sends s to the running processes that which chooses, and says how many
// there were.
func (c *cluster) signal(s syscall.Signal, which func(process) bool) (int, error) {
	pids, err := c.running()
	if err != nil {
		return 0, err
	}
	sent := 0
	for _, p := range c.processes() {
		pid, runs := pids[p.name]
		if !runs || !which(p) {
			continue
		}
		if err := syscall.Kill(pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
			return sent, fmt.Errorf("end %s (process %d): %w", p.name, pid, err)
		}
		sent++
	}
	return sent, nil
}

// logTail gives the last lines of a log.
func (c *cluster) logTail(log string) string {
	const lines = 12
	text, err := os.ReadFile(c.path(log))
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
