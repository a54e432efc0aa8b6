package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"al.essio.dev/pkg/shellescape"

	"ecs/proto/api"
)

// terminal is a real one, of tmux: it is typed into and looked at.
type terminal struct {
	t      *testing.T
	socket string
}

// newTerminal runs a command in a terminal of 80 by 24, which stays to be looked
// at when the command has ended.
func newTerminal(t *testing.T, env []string, command ...string) *terminal {
	t.Helper()
	dir, err := os.MkdirTemp("", "tmux") // short: it holds a socket
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{t, filepath.Join(dir, "s")}
	t.Cleanup(func() {
		_ = exec.Command("tmux", "-S", term.socket, "kill-server").Run()
		os.RemoveAll(dir)
	})
	cmd := exec.Command("tmux", "-S", term.socket, "-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24",
		shellescape.QuoteCommand(command)+`; echo "[exit $?]"; stty -a | tr ' ;' '\n' | grep -E '^-?(icanon|echo)$'; exec sleep 1000`)
	cmd.Env = append(append(os.Environ(), "TERM=xterm", "LC_ALL=C.UTF-8"), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tmux: %v\n%s", err, out)
	}
	return term
}

func (term *terminal) tmux(args ...string) string {
	term.t.Helper()
	out, err := exec.Command("tmux", append([]string{"-S", term.socket}, args...)...).CombinedOutput()
	if err != nil {
		term.t.Fatalf("tmux %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// enter types text and the return key.
func (term *terminal) enter(text string) {
	term.t.Helper()
	term.tmux("send-keys", "-l", text)
	term.press("Enter")
}

func (term *terminal) press(keys ...string) {
	term.t.Helper()
	term.tmux(append([]string{"send-keys"}, keys...)...)
}

// screen is what is to be seen, without what is blank at the end of lines.
func (term *terminal) screen() string {
	term.t.Helper()
	var lines []string
	for line := range strings.Lines(term.tmux("capture-pane", "-p")) {
		lines = append(lines, strings.TrimRight(line, " \n"))
	}
	return strings.TrimRight(strings.Join(lines, "\n"), "\n")
}

// shows waits until the screen matches.
func (term *terminal) shows(what, pattern string) string {
	term.t.Helper()
	wanted := regexp.MustCompile(pattern)
	var last string
	for end := time.Now().Add(time.Minute); ; <-time.After(50 * time.Millisecond) {
		if last = term.screen(); wanted.MatchString(last) {
			return last
		}
		if time.Now().After(end) {
			term.t.Fatalf("the terminal does not show %s (%s):\n%s", what, pattern, last)
		}
	}
}

// inTerminal runs ecsctl in a terminal of its own.
func (c *cluster) inTerminal(t *testing.T, args ...string) *terminal {
	t.Helper()
	env := []string{"ECS_ENDPOINT=" + strings.Join(c.Endpoints, ","), "ECS_KEY=" + c.Key, "ECS_SECRET=" + c.Secret}
	return newTerminal(t, env, append([]string{filepath.Join(binaries, "ecsctl")}, args...)...)
}

func TestShellInARealTerminal(t *testing.T) {
	c := sharedCluster(t)
	term := c.inTerminal(t, "run", "-it", "-e", "PS1=ready> ", busybox, "sh")
	term.shows("the prompt", `ready>$`)
	term.enter("echo $((6 * 7)) $(stty size)")
	term.shows("what the shell answers, and the size", `(?m)^42 24 80$`)

	term.tmux("resize-window", "-x", "100", "-y", "30")
	term.shows("room for it", `ready>$`)
	term.enter("echo now $(stty size)")
	term.shows("the new size", `(?m)^now 30 100$`)

	// All of the screen is the program's, and is given back.
	term.enter("seq 1 60 > /tmp/n; vi /tmp/n")
	term.shows("vi", `(?s)^1\n2\n.*29\n.*/tmp/n`)
	term.press("G")
	term.shows("the end of the file", `(?m)^60$`)
	term.enter(":q!")
	term.shows("the prompt again", `ready>$`)

	term.enter("sleep 1000")
	term.shows("what was typed", `ready> sleep 1000$`)
	term.press("C-c")
	term.shows("the shell, which lives on", `\^C\s+ready>$`)
	term.enter("echo code $?")
	term.shows("that the sleep was interrupted", `(?m)^code 130$`)
	term.enter("(exit 9)")
	term.shows("the prompt again", `\(exit 9\)\s+ready>$`)
	term.press("C-d")
	term.shows("the program's own status and the terminal as it was", `\[exit 9\]\nicanon\necho$`)
}

// TestTerminalOutlivesItsConnection kills the control node that a terminal is
// attached through, and leaves it and comes back on purpose.
func TestTerminalOutlivesItsConnection(t *testing.T) {
	c := ownCluster(t, "--controls", "3", "--agents", "1", "--zones", "a,b,c")
	term := c.inTerminal(t, "run", "-it", "-e", "PS1=ready> ", busybox, "sh")
	term.shows("the prompt", `ready>$`)
	term.enter("secret=$((40 + 2))")
	ids := c.list(t)
	if len(ids) != 1 {
		t.Fatalf("got %d tasks, want the shell", len(ids))
	}
	through := c.attachedThrough(t, term)
	signal(t, through.PID, syscall.SIGKILL)
	term.shows("the loss", `attaching again`)
	term.enter("echo the secret is $secret")
	term.shows("the same shell", `(?m)^the secret is 42`)

	term.press("C-p", "C-q")
	term.shows("how to come back", `detached; task`)
	back := c.inTerminal(t, "attach", ids[0].ID)
	back.enter("")
	back.shows("the prompt", `ready>$`)
	back.enter("echo still $secret; exit 3")
	back.shows("the same shell and its status", `(?s)still 42.*\[exit 3\]`)
	if got := c.await(t, ids[0].ID, time.Minute); got.Outcome != api.OutcomeExited || codeOf(got) != "3" || len(got.Attempts) != 1 {
		t.Errorf("got %s %s after %d attempts, want exited 3 after 1", got.Outcome, codeOf(got), len(got.Attempts))
	}
}

// attachedThrough is the control node that the terminal's ecsctl has a connection
// to, by the kernel's own table.
func (c *cluster) attachedThrough(t *testing.T, term *terminal) node {
	t.Helper()
	shell, err := strconv.Atoi(strings.TrimSpace(term.tmux("display-message", "-p", "#{pane_pid}")))
	if err != nil {
		t.Fatal(err)
	}
	child, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", shell, shell))
	pid := shell
	if words := strings.Fields(string(child)); err == nil && len(words) > 0 {
		pid, _ = strconv.Atoi(words[0])
	}
	sockets := socketsOf(pid)
	table, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		words := strings.Fields(line)
		if len(words) < 10 || words[3] != "01" || !sockets[words[9]] {
			continue
		}
		_, hex, _ := strings.Cut(words[2], ":")
		port, _ := strconv.ParseInt(hex, 16, 32)
		for _, n := range c.Nodes {
			if strings.HasSuffix(n.HTTP, fmt.Sprintf(":%d", port)) {
				return n
			}
		}
	}
	t.Fatalf("process %d has no connection to a control node:\n%s", pid, table)
	return node{}
}

// socketsOf are the inodes of a process's sockets.
func socketsOf(pid int) map[string]bool {
	all := make(map[string]bool)
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, file := range files {
		name, _ := os.Readlink(file)
		if inode, ok := strings.CutPrefix(name, "socket:["); ok {
			all[strings.TrimSuffix(inode, "]")] = true
		}
	}
	return all
}
