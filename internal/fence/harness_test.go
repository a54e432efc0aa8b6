package fence

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ecs/internal/cgroup"
	"ecs/internal/cgroup/cgrouptest"
)

// This test binary is also a fence, and a client that is not root.
const (
	beFence  = "FENCE_TEST_FENCE"  // the directory
	beClient = "FENCE_TEST_CLIENT" // the socket
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(beFence); dir != "" {
		if err := Prioritise(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		fmt.Fprintln(os.Stderr, NewServer(config(dir)).Run(context.Background()))
		os.Exit(1)
	}
	if socket := os.Getenv(beClient); socket != "" {
		os.Exit(printFirstLine(socket))
	}
	os.Exit(m.Run())
}

func printFirstLine(socket string) int {
	conn, err := net.Dial("unix", socket)
	if err == nil {
		var line string
		line, err = bufio.NewReader(conn).ReadString('\n')
		fmt.Print(line)
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

func config(dir string) ServerConfig {
	return ServerConfig{Socket: filepath.Join(dir, "s"), StateDir: filepath.Join(dir, "state"), Log: slog.New(slog.DiscardHandler)}
}

// here runs a fence in this process. stop ends it, and may be repeated.
func here(t *testing.T, dir string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- NewServer(config(dir)).Run(ctx) }()
	stop = func() {
		if cancel(); ended == nil {
			return
		}
		if err := <-ended; err != nil {
			t.Errorf("the fence ended: %v", err)
		}
		ended = nil
	}
	t.Cleanup(stop)
	return stop
}

// process runs a fence in a process of its own.
func process(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), beFence+"="+dir)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { crash(cmd) })
	return cmd
}

// crash ends a fence as nothing can prevent.
func crash(cmd *exec.Cmd) {
	_ = cmd.Process.Kill()
	_, _ = cmd.Process.Wait()
}

// connect runs a client. stop ends it.
func connect(t *testing.T, dir string) (c *Client, stop func()) {
	t.Helper()
	c = New(filepath.Join(dir, "s"), slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = c.Run(ctx)
	}()
	stop = func() {
		cancel()
		<-ended
	}
	t.Cleanup(stop)
	return c, stop
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func mustAdd(t *testing.T, c *Client, id string, g *cgrouptest.Group, in time.Duration) Entry {
	t.Helper()
	e := Entry{ID: id, Cgroup: g.Dir, Deadline: boottime() + in}
	if err := c.Add(soon(t), e); err != nil {
		t.Fatal(err)
	}
	return e
}

// wantKilled wants all processes to be killed after e's deadline, by no more
// than the fence may be late.
func wantKilled(t *testing.T, g *cgrouptest.Group, e Entry) {
	t.Helper()
	const late = 2 * time.Second
	g.Until(t, max(0, e.Deadline-boottime())+late, "none", func(pids []int) bool { return len(pids) == 0 })
	if now := boottime(); now < e.Deadline {
		t.Errorf("killed %s early", e.Deadline-now)
	} else {
		t.Logf("killed %s after the deadline", now-e.Deadline)
	}
}

// wantAlive wants processes until t.
func wantAlive(t *testing.T, g *cgrouptest.Group, until time.Duration) {
	t.Helper()
	g.Until(t, time.Minute, "some", func(pids []int) bool {
		if len(pids) == 0 {
			t.Fatalf("killed %s before it should be looked at", until-boottime())
		}
		return boottime() > until
	})
}

// await waits for what is told by no channel.
func await(t *testing.T, want string, cond func() bool) {
	t.Helper()
	for began := time.Now(); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > 30*time.Second {
			t.Fatalf("waited in vain for: %s", want)
		}
	}
}

// awaitOnDisk waits until the fence's files have e as it is.
func awaitOnDisk(t *testing.T, dir string, e Entry) {
	t.Helper()
	file := (&store{dir: filepath.Join(dir, "state")}).file(e.ID)
	await(t, "the deadline on disk", func() bool {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		kept, _, err := parseEntry(text)
		return err == nil && kept == e
	})
}

// asNobody runs this binary as a user who is not root.
func asNobody(t *testing.T, socket string) string {
	t.Helper()
	binary := filepath.Join(filepath.Dir(socket), "client")
	self, err := os.ReadFile(os.Args[0])
	if err == nil {
		err = os.WriteFile(binary, self, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary)
	cmd.Env = []string{beClient + "=" + socket}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil && len(out) == 0 {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// saturate keeps every processor busy with twice as many processes.
func saturate(t *testing.T, number int) {
	t.Helper()
	g := cgrouptest.Make(t)
	g.Run(t, strings.Repeat("while :; do :; done & ", number)+"wait")
	g.Await(t, number)
	t.Cleanup(func() {
		if err := cgroup.Kill(context.Background(), g.Dir); err != nil {
			t.Error(err)
		}
	})
}
