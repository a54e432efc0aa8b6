package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"ecs/internal/initwire"
)

// These tests run the real program as PID 1 of a real container: namespaces, a
// root file system of its own with busybox, and the capabilities that an agent
// gives. The test plays the agent.

const (
	setupEnv = "ECS_INIT_TEST_SETUP" // the container's directory
	capsEnv  = "ECS_INIT_TEST_CAPS"
	pidsEnv  = "ECS_INIT_TEST_PIDS" // the cgroup.procs to join
)

// built is what all tests share: the program, and the container's /bin.
var built struct{ dir, init, bin string }

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "prog" {
		program(os.Args[1:])
		return
	}
	if dir := os.Getenv(setupEnv); dir != "" {
		fmt.Fprintln(os.Stderr, "set up a container:", enter(dir))
		os.Exit(1)
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	if os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "these tests make containers: run them as root")
		return 1
	}
	dir, err := os.MkdirTemp("", "ecs-init")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	built.dir, built.init, built.bin = dir, filepath.Join(dir, "init"), filepath.Join(dir, "bin")
	if err := build(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func build() error {
	// The program in the containers is these tests themselves, but static.
	static := filepath.Join(built.dir, "prog")
	for _, args := range [][]string{{"build", "-trimpath", "-o", built.init, "."}, {"test", "-c", "-o", static, "."}} {
		cmd := exec.Command("go", args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go %v: %w\n%s", args, err, out)
		}
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return fmt.Errorf("%w: run ops/setup/busybox.sh", err)
	}
	prog, err := os.ReadFile(static)
	if err != nil {
		return err
	}
	if err := os.Chmod(built.dir, 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(built.bin, 0o755); err != nil {
		return err
	}
	for name, content := range map[string][]byte{"busybox": busybox, "prog": prog, "secret": busybox,
		"text": []byte("echo not a program\n"), "orphan": []byte("#!/no/such/shell\n")} {
		mode := os.FileMode(0o755)
		if name == "secret" {
			mode = 0o644
		}
		if err := os.WriteFile(filepath.Join(built.bin, name), content, mode); err != nil {
			return err
		}
	}
	for _, name := range strings.Fields("sh cat echo id env sleep stty test true false ls kill yes head pwd setsid nohup seq tty hostname readlink grep printf trap dd umask") {
		if err := os.Symlink("busybox", filepath.Join(built.bin, name)); err != nil {
			return err
		}
	}
	return nil
}

const (
	passwd = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:100:App:/home/app:/bin/sh\nhide:x:2147483000:1:::\n" +
		"broken\nhuge:x:99999999999:1::/:\nlast:x:1001:101::/home/last:/bin/sh"
	group = "root:x:0:\nusers:x:100:\naudio:x:29:app,last\nvideo:x:44:app\nbad\nstaff:x:50:root"
)

// enter makes the container around this process and becomes its PID 1. It
// returns only if it fails.
func enter(dir string) error {
	if procs := os.Getenv(pidsEnv); procs != "" {
		if err := os.WriteFile(procs, []byte("0"), 0); err != nil {
			return err
		}
	}
	root := filepath.Join(dir, "root")
	if err := makeRoot(dir, root); err != nil {
		return err
	}
	old := filepath.Join(root, "old")
	if err := syscall.PivotRoot(root, old); err != nil {
		return fmt.Errorf("pivot: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	if err := unix.Unmount("/old", unix.MNT_DETACH); err != nil {
		return err
	}
	if err := os.Remove("/old"); err != nil {
		return err
	}
	// A machine may forbid it, which the tests do not depend on.
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-999"), 0); err != nil && !errors.Is(err, os.ErrPermission) {
		return err
	}
	caps, err := strconv.ParseUint(os.Getenv(capsEnv), 10, 64)
	if err != nil {
		return err
	}
	return confine(caps)
}

func makeRoot(dir, root string) error {
	type mount struct {
		from, to, kind string
		flags          uintptr
		data           string
	}
	for _, m := range []mount{
		{"", "/", "", unix.MS_PRIVATE | unix.MS_REC, ""},
		{"tmpfs", root, "tmpfs", 0, "mode=755"},
		{filepath.Join(dir, "ecs"), root + initwire.Dir, "", unix.MS_BIND, ""},
		{"", root + initwire.Dir, "", unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY, ""},
		{filepath.Join(filepath.Dir(dir), "bin"), root + "/bin", "", unix.MS_BIND, ""},
		{"proc", root + "/proc", "proc", 0, ""},
		{"tmpfs", root + "/tmp", "tmpfs", 0, "mode=1777"},
		{"devpts", root + "/dev/pts", "devpts", 0, "newinstance,ptmxmode=0666,mode=0620,gid=5"},
	} {
		if err := os.MkdirAll(m.to, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.from, m.to, m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s: %w", m.to, err)
		}
	}
	for _, sub := range []string{"etc", "old", "root", "home/app"} {
		if err := os.MkdirAll(filepath.Join(root, sub), 0o755); err != nil {
			return err
		}
	}
	if err := os.Chown(root+"/home/app", 1000, 100); err != nil {
		return err
	}
	for link, to := range map[string]string{"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0",
		"stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"} {
		if err := os.Symlink(to, filepath.Join(root, "dev", link)); err != nil {
			return err
		}
	}
	old := unix.Umask(0)
	defer unix.Umask(old)
	for name, minor := range map[string]uint32{"null": 3, "zero": 5} {
		if err := unix.Mknod(filepath.Join(root, "dev", name), unix.S_IFCHR|0o666, int(unix.Mkdev(1, minor))); err != nil {
			return err
		}
	}
	if err := unix.Mknod(filepath.Join(root, "dev", "tty"), unix.S_IFCHR|0o666, int(unix.Mkdev(5, 0))); err != nil {
		return err
	}
	return os.WriteFile(root+"/etc/passwd", []byte(passwd), 0o644)
}

// confine leaves this process what an engine would, and becomes init.
func confine(caps uint64) error {
	if err := os.WriteFile("/etc/group", []byte(group), 0o644); err != nil {
		return err
	}
	runtime.LockOSThread() // what follows is this thread's, which becomes init
	for number := range uintptr(41) {
		if caps&(1<<number) == 0 {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, number, 0, 0, 0); err != nil {
				return fmt.Errorf("drop capability %d: %w", number, err)
			}
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	env := []string{"PATH=/bin", initwire.NonceEnv + "=" + testNonce}
	return syscall.Exec(initwire.Path, []string{initwire.Path}, env)
}
