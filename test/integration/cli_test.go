package integration

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ecs/proto/api"
)

func TestRunFeelsLikeDockerRun(t *testing.T) {
	c := sharedCluster(t)
	out, errOut, code := c.ecsctl("run", busybox, "sh", "-c", "echo out; echo err >&2; exit 42")
	if out != "out\n" || errOut != "err\n" || code != 42 {
		t.Errorf("got %q %q exit %d, want out, err, 42", out, errOut, code)
	}
	out, _, code = c.ecsctl("run", "-e", "WHO=you", "-w", "/tmp", "-u", "1000", "--label", "a=b", busybox, "sh", "-c", `echo $WHO $(pwd) $(id -u)`)
	if out != "you /tmp 1000\n" || code != 0 {
		t.Errorf("got %q exit %d", out, code)
	}
	if _, errOut, code = c.ecsctl("run", busybox, "/no-such"); code != 127 || !strings.Contains(errOut, "no-such") {
		t.Errorf("no such command: got %q exit %d, want 127 and the reason", errOut, code)
	}
	if _, errOut, _ = c.ecsctl("run", busybox, "ping", "-c1", "-W1", "192.0.2.1"); !strings.Contains(errOut, "--network") && !strings.Contains(errOut, "--cap-add") {
		t.Errorf("got %q, want a hint how to ask for what is missing", errOut)
	}
	if _, errOut, code = c.ecsctl("run", "--timeout", "1s", busybox, "sleep", "30"); code != 124 {
		t.Errorf("timeout: got %q exit %d, want 124", errOut, code)
	}
}

func TestRunStreamsAndCtrlCCancels(t *testing.T) {
	c := sharedCluster(t)
	cmd := exec.Command(filepath.Join(binaries, "ecsctl"), "run", "--label", "test=ctrl-c", busybox, "sh", "-c", "echo first; sleep 60")
	cmd.Env = append(os.Environ(), "ECS_ENDPOINT="+c.Endpoints[1], "ECS_KEY="+c.Key, "ECS_SECRET="+c.Secret)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || line != "first\n" {
		t.Fatalf("got %q %v while it runs, want the first line", line, err)
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("got exit 0 after Ctrl-C")
	}
	within(t, 15*time.Second, "the task is cancelled", func() bool {
		status, _, body := c.get(0, "/v2/tasks?label=test%3Dctrl-c")
		var list api.TaskList
		return status == 200 && json.Unmarshal(body, &list) == nil && len(list.Tasks) == 1 && list.Tasks[0].Outcome == api.OutcomeCancelled
	})
}

func TestTablesAndJSON(t *testing.T) {
	c := sharedCluster(t)
	task := c.run(t, 0, api.TaskRequest{Image: busybox, Command: sh("echo logged")})
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"tasks", "ls"}, task.ID},
		{[]string{"tasks", "show", task.ID}, "exited"},
		{[]string{"tasks", "logs", task.ID}, "logged\n"},
		{[]string{"nodes", "ls"}, "ready"},
		{[]string{"cluster", "status"}, "leader"},
	} {
		out, errOut, code := c.ecsctl(tc.args...)
		if code != 0 || !strings.Contains(strings.ToLower(out), tc.want) {
			t.Errorf("ecsctl %v: exit %d\n%s%s\nwant %q in it", tc.args, code, out, errOut, tc.want)
		}
		if tc.args[1] == "logs" {
			continue
		}
		out, errOut, code = c.ecsctl(append(tc.args, "--json")...)
		if code != 0 || !json.Valid([]byte(out)) {
			t.Errorf("ecsctl %v --json: exit %d\n%s%s", tc.args, code, out, errOut)
		}
	}
}

func TestDevSaysWhatIsInTheWay(t *testing.T) {
	c := sharedCluster(t)
	up := func(args ...string) (string, error) {
		out, err := exec.Command(filepath.Join(binaries, "ecsctl"), append([]string{"dev", "up"}, args...)...).CombinedOutput()
		return string(out), err
	}
	port := c.Endpoints[0][strings.LastIndex(c.Endpoints[0], ":")+1:]
	if out, err := up("--dir", filepath.Join(t.TempDir(), "dev"), "--http-port", port); err == nil || !strings.Contains(out, port) {
		t.Errorf("busy port: got %v %q, want the port named", err, out)
	}
	if out, err := up("--dir", c.Dir, "--http-port", "1"); err == nil || !strings.Contains(out, "dev down") {
		t.Errorf("used directory: got %v %q, want the remedy", err, out)
	}
	out, err := exec.Command(filepath.Join(binaries, "ecsctl"), "dev", "status", "--json", "--dir", c.Dir).Output()
	if err != nil {
		t.Fatal(err)
	}
	status := decodeJSON[cluster](t, out)
	leaders := 0
	for _, n := range status.Nodes {
		if n.Leader {
			leaders++
		}
	}
	if len(status.Nodes) != 6 || leaders != 1 {
		t.Errorf("got %d nodes and %d leaders in %s, want 6 and 1", len(status.Nodes), leaders, out)
	}
}
