package integration

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ecs/proto/api"
)

// lease is how long a program may outlive contact at most.
const lease = 10 * time.Second

// strike is one way to take from a program what keeps or ends it.
type strike struct {
	name  string
	apply func(t *testing.T, v victim)
}

// victim is a program under a strike: its agent, its fence, its init.
type victim struct {
	agent  node
	task   string
	init   int    // the container's PID 1, by the machine's count
	cgroup string // in the pids hierarchy
	file   string // the program's heartbeat, seen from outside
}

func signal(t *testing.T, pid int, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, s); err != nil {
		t.Errorf("%s to %d: %v", s, pid, err)
	}
}

func killAgent(t *testing.T, v victim) { signal(t, v.agent.PID, syscall.SIGKILL) }
func stopAgent(t *testing.T, v victim) { signal(t, v.agent.PID, syscall.SIGSTOP) }
func stopFence(t *testing.T, v victim) { signal(t, v.agent.FencePID, syscall.SIGSTOP) }
func killInit(t *testing.T, v victim)  { signal(t, v.init, syscall.SIGKILL) }
func stopInit(t *testing.T, v victim)  { signal(t, v.init, syscall.SIGSTOP) }

// cutAgent lets nothing of the agent's out on any network any more, and says so to
// nobody.
func cutAgent(t *testing.T, v victim) { firewall(t, "-A", v.agent) }

func both(first, second func(*testing.T, victim)) func(*testing.T, victim) {
	return func(t *testing.T, v victim) { first(t, v); second(t, v) }
}

// strikes are what is done to an agent and its program, alone and in pairs. Not
// one of them may let the program live past its lease.
var strikes = []strike{
	{"agent killed", killAgent},
	{"agent stopped", stopAgent},
	{"init killed", killInit},
	{"fence stopped", stopFence},
	{"agent killed, fence stopped", both(killAgent, stopFence)},
	{"agent stopped, fence stopped", both(stopAgent, stopFence)},
	{"agent killed, init killed", both(killAgent, killInit)},
	{"agent stopped, init killed", both(stopAgent, killInit)},
	{"init killed, fence stopped", both(killInit, stopFence)},
	{"agent killed, init stopped", both(killAgent, stopInit)},
	{"agent cut off", cutAgent},
	{"agent cut off, fence stopped", both(cutAgent, stopFence)},
	{"agent cut off, init killed", both(cutAgent, killInit)},
}

// mayGoOn names the strikes that leave the agent its lease.
var mayGoOn = map[string]bool{"fence stopped": true}

// programs are what lives under a strike: one that sleeps between heartbeats,
// and one that takes all the CPU there is.
var programs = map[string]string{
	"idle":       `while :; do : >/hb; usleep 20000; done`,
	"saturating": `for i in 1 2 3 4; do (while :; do :; done) & done; while :; do : >/hb; usleep 20000; done`,
}

// rounds is how many strikes the test tries: ECS_FAULT_ROUNDS, or each once.
func rounds(t *testing.T) int {
	text := os.Getenv("ECS_FAULT_ROUNDS")
	if text == "" {
		return len(strikes)
	}
	n, err := strconv.Atoi(text)
	if err != nil || n <= 0 {
		t.Fatalf("ECS_FAULT_ROUNDS=%q: want a number above 0", text)
	}
	return n
}

// TestNoProgramOutlivesItsLease strikes agents, fences and inits under programs
// that write a heartbeat file, several at a time.
func TestNoProgramOutlivesItsLease(t *testing.T) {
	const agents = 5
	c := ownCluster(t, "--controls", "1", "--agents", strconv.Itoa(agents), "--zones", "a,b,c,d,e", "--agent-cpus", "1")
	c.groupAgents(t)
	total := rounds(t)
	for begin := 0; begin < total; begin += agents {
		kind := "idle"
		if begin/agents%2 == 1 {
			kind = "saturating"
		}
		n := min(agents, total-begin)
		victims := make([]victim, n)
		for i := range n {
			victims[i] = c.victim(t, i, programs[kind])
		}
		struck := make([]time.Time, n)
		for i, v := range victims {
			s := strikes[(begin+i)%len(strikes)]
			if !fresh(v.file, time.Second) {
				t.Errorf("%s, %s: no heartbeat before the strike", s.name, kind)
			}
			struck[i] = time.Now()
			s.apply(t, v)
		}
		for i, v := range victims {
			s := strikes[(begin+i)%len(strikes)]
			if mayGoOn[s.name] {
				continue
			}
			time.Sleep(time.Until(struck[i].Add(lease))) // the lease is what is tested
			last, err := os.Stat(v.file)
			switch {
			case errors.Is(err, fs.ErrNotExist): // removed with its container
			case err != nil:
				t.Error(err)
			case last.ModTime().After(struck[i].Add(lease)):
				t.Errorf("%s, %s: the program's last heartbeat came %s after the strike, want %s at most", s.name, kind, last.ModTime().Sub(struck[i]), lease)
			}
			if pids := v.processes(); len(pids) > 0 {
				t.Errorf("%s, %s: processes %v live past the lease", s.name, kind, pids)
			}
		}
		c.heal(t, victims)
	}
}

// victim starts a program on the i-th agent and finds it from outside.
func (c *cluster) victim(t *testing.T, i int, script string) victim {
	t.Helper()
	return c.victimOf(t, i, api.TaskRequest{Command: sh(script)})
}

// victimOf is victim with a task of its own making.
func (c *cluster) victimOf(t *testing.T, i int, req api.TaskRequest) victim {
	t.Helper()
	v := victim{agent: c.agents()[i]}
	none := 0
	req.Image, req.Retry, req.Placement = busybox, api.Retry{Infrastructure: &none}, api.Placement{Zones: []string{v.agent.Zone}}
	task := c.start(t, 0, req)
	v.task = task.ID
	within(t, 30*time.Second, "the program runs on "+v.agent.Name, func() bool { return c.task(0, task.ID).State == api.StateRunning })
	format := `{{.State.Pid}} {{.Id}} {{.GraphDriver.Data.UpperDir}}`
	out, err := exec.Command("docker", "inspect", "-f", format, c.containerID(t, task.ID)).Output()
	if err != nil {
		t.Fatalf("docker inspect: %v", err)
	}
	words := strings.Fields(string(out))
	v.init, _ = strconv.Atoi(words[0])
	v.cgroup, v.file = "/sys/fs/cgroup/pids/docker/"+words[1], filepath.Join(words[2], "hb")
	if _, err := os.Stat(v.cgroup); err != nil {
		v.cgroup = "/sys/fs/cgroup/system.slice/docker-" + words[1] + ".scope"
	}
	within(t, 10*time.Second, "its heart beats", func() bool { return fresh(v.file, time.Second) })
	return v
}

func (c *cluster) containerID(t *testing.T, id string) string {
	t.Helper()
	found := c.containersOf(t, id)
	if len(found) != 1 {
		t.Fatalf("containers of task %s: got %q, want one", id, found)
	}
	return found[0]
}

func fresh(file string, age time.Duration) bool {
	info, err := os.Stat(file)
	return err == nil && time.Since(info.ModTime()) < age
}

// processes are those of the container, apart from its init, which stays a little
// for an agent that comes back; none when it is gone.
func (v victim) processes() []string {
	text, _ := os.ReadFile(filepath.Join(v.cgroup, "cgroup.procs"))
	return slices.DeleteFunc(strings.Fields(string(text)), func(pid string) bool { return pid == strconv.Itoa(v.init) })
}

// heal lets what was stopped go on, starts what was killed, ends the programs,
// and waits until the nodes take tasks again and nothing of the round is left.
func (c *cluster) heal(t *testing.T, victims []victim) {
	t.Helper()
	for _, v := range victims {
		firewall(t, "-D", v.agent)
		_ = syscall.Kill(v.agent.FencePID, syscall.SIGCONT)
		if alive(v.agent.PID) {
			_ = syscall.Kill(v.agent.PID, syscall.SIGCONT)
		} else {
			c.restart(t, v.agent)
		}
	}
	for _, task := range c.list(t) {
		if task.State != api.StateFinished {
			c.cancel(t, 0, task.ID)
		}
	}
	c.ready(t)
}

// ready waits until every node takes tasks, has none, and nothing of any is left.
func (c *cluster) ready(t *testing.T) {
	t.Helper()
	within(t, time.Minute, "every node is ready and every container gone", func() bool {
		for _, n := range c.nodes(t) {
			if n.Status != "ready" || n.Unfit != "" || n.Attempts > 0 {
				return false
			}
		}
		return c.inUse(t) == 0
	})
}

func (c *cluster) agents() (agents []node) {
	for _, n := range c.Nodes {
		if n.Role == "agent" {
			agents = append(agents, n)
		}
	}
	return agents
}

// firstGroup and those after it are groups of nobody's.
const firstGroup = 59_001

// groupAgents starts every agent again in a group of its own: a firewall tells
// processes of one user apart by that.
func (c *cluster) groupAgents(t *testing.T) {
	t.Helper()
	for i := range c.Nodes {
		n := &c.Nodes[i]
		if n.Role != "agent" {
			continue
		}
		n.group = uint32(firstGroup + i)
		signal(t, n.PID, syscall.SIGTERM)
		c.restart(t, *n)
		t.Cleanup(func() { firewall(t, "-D", *n) })
	}
	c.ready(t)
}

// firewall adds (-A) or deletes (-D) the rule that lets nothing of a daemon's group
// out. What is not there is not deleted.
func firewall(t *testing.T, change string, n node) {
	t.Helper()
	rule := []string{"OUTPUT", "-m", "owner", "--gid-owner", strconv.Itoa(int(n.group)), "-j", "DROP"}
	if change == "-D" && exec.Command("iptables", append([]string{"-w", "5", "-C"}, rule...)...).Run() != nil {
		return
	}
	if out, err := exec.Command("iptables", append([]string{"-w", "5", change}, rule...)...).CombinedOutput(); err != nil {
		t.Errorf("iptables %s %v: %v\n%s", change, rule, err, out)
	}
}

// alive reports whether the process runs; a zombie does not.
func alive(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && len(text) > 0
}

// restart starts a node's daemon again, with its own settings.
func (c *cluster) restart(t *testing.T, n node) {
	t.Helper()
	within(t, 10*time.Second, n.Name+" is gone", func() bool { return !alive(n.PID) })
	dir := filepath.Join(c.Dir, n.Name)
	log, err := os.OpenFile(filepath.Join(dir, "daemon.log"), os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatalf("restart %s: %v", n.Name, err)
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(binaries, "ecs-"+n.Role), "--config", filepath.Join(dir, "config.yaml"))
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: &syscall.Credential{Gid: n.group, NoSetGroups: true}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go cmd.Wait() // so that its end leaves no zombie; the process is the cluster's
	for i := range c.Nodes {
		if c.Nodes[i].Name == n.Name {
			c.Nodes[i].PID = cmd.Process.Pid
		}
	}
}

// TestRestartedAgentAdoptsWithoutLosingAByte kills an agent with SIGKILL again
// and again under a program that prints a numbered line every 10 ms.
func TestRestartedAgentAdoptsWithoutLosingAByte(t *testing.T) {
	c := ownCluster(t, "--controls", "1", "--agents", "1", "--zones", "a")
	const lines, kills = 600, 3
	script := fmt.Sprintf(`i=0; while [ $i -lt %d ]; do echo line $i; i=$((i+1)); usleep 10000; done; exit 7`, lines)
	task := c.start(t, 0, api.TaskRequest{Image: busybox, Command: sh(script)})
	for range kills {
		within(t, 30*time.Second, "the program runs", func() bool { return c.task(0, task.ID).State == api.StateRunning })
		before := c.containerID(t, task.ID)
		agent := c.agents()[0]
		signal(t, agent.PID, syscall.SIGKILL)
		c.restart(t, agent)
		within(t, 20*time.Second, "the agent is back", func() bool {
			answer, err := http.Get(agent.Health + "/readyz")
			if err != nil {
				return false
			}
			answer.Body.Close()
			return answer.StatusCode == http.StatusOK
		})
		if after := c.containerID(t, task.ID); after != before {
			t.Fatalf("the task runs in container %s, want %s still", after, before)
		}
	}
	got := c.await(t, task.ID, 2*time.Minute)
	if got.Outcome != api.OutcomeExited || codeOf(got) != "7" || len(got.Attempts) != 1 {
		t.Errorf("got %s %s after %d attempts (%s), want exited 7 after 1", got.Outcome, codeOf(got), len(got.Attempts), got.Reason)
	}
	next := 0
	for in := bufio.NewScanner(strings.NewReader(string(content(t, got.Stdout)))); in.Scan(); next++ {
		if want := fmt.Sprint("line ", next); in.Text() != want {
			t.Fatalf("got %q, want %q", in.Text(), want)
		}
	}
	if next != lines {
		t.Errorf("got %d lines, want %d", next, lines)
	}
}
