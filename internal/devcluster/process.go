package devcluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/prometheus/procfs"
)

// start starts the node's daemon in a session of its own, so that it outlives
// this process and a Ctrl-C that is meant for it.
func (c *cluster) start(n node, binaries string) error {
	log, err := os.OpenFile(c.path(n.Name, logFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	binary := controlBinary
	if n.Role == roleAgent {
		binary = agentBinary
	}
	cmd := exec.Command(filepath.Join(binaries, binary), "--config", c.path(n.Name, configFile))
	cmd.Dir = c.path(n.Name)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	// What the environment says of some other cluster is not for this one.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "ECS_") })
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", n.Name, err)
	}
	err = os.WriteFile(c.path(n.Name, pidFile), fmt.Appendln(nil, cmd.Process.Pid), 0o600)
	return errors.Join(err, cmd.Process.Release())
}

// started reports whether the node's daemon was ever started.
func (c *cluster) started(n node) bool {
	_, err := os.Stat(c.path(n.Name, logFile))
	return !errors.Is(err, fs.ErrNotExist)
}

// running finds the cluster's processes: pids by node name. A process that has
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
	pids := make(map[string]int)
	for _, p := range all {
		args, err := p.CmdLine()
		if err != nil || len(args) != 3 || args[1] != "--config" {
			continue
		}
		if name, ours := c.nodeOf(args[2]); ours {
			pids[name] = p.PID
		}
	}
	return pids, nil
}

// nodeOf gives the node whose settings a file holds.
func (c *cluster) nodeOf(config string) (name string, ours bool) {
	for _, n := range c.Nodes {
		if config == c.path(n.Name, configFile) {
			return n.Name, true
		}
	}
	return "", false
}

// signal sends s to the running nodes that which chooses, and says how many
// there were.
func (c *cluster) signal(s syscall.Signal, which func(node) bool) (int, error) {
	pids, err := c.running()
	if err != nil {
		return 0, err
	}
	sent := 0
	for _, n := range c.Nodes {
		pid, runs := pids[n.Name]
		if !runs || !which(n) {
			continue
		}
		if err := syscall.Kill(pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
			return sent, fmt.Errorf("end %s (process %d): %w", n.Name, pid, err)
		}
		sent++
	}
	return sent, nil
}

// logTail gives the last lines of the node's log.
func (c *cluster) logTail(n node) string {
	const lines = 12
	text, err := os.ReadFile(c.path(n.Name, logFile))
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
