package docker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ecs/internal/initwire"
)

const (
	// unready is the socket's name until everybody may connect to it.
	unready = "t"
	// helloPatience is how long a peer may take over its Hello.
	helloPatience = 5 * time.Second
)

// door is where an attempt's init comes in. It is open only while it is waited
// for.
type door struct {
	dir *os.File
	l   *net.UnixListener
}

// open listens in the directory. The kernel takes fewer than 108 bytes for the
// socket's path, so the directory is named by its descriptor.
func (h home) open() (*door, error) {
	dir, err := os.Open(h.path)
	if err != nil {
		return nil, fmt.Errorf("listen for the container: %w", err)
	}
	d := &door{dir: dir}
	err = errors.Join(d.unlink(unready), d.unlink(initwire.Socket))
	if err == nil {
		d.l, err = net.ListenUnix("unix", &net.UnixAddr{Name: d.path(unready), Net: "unix"})
	}
	if err == nil {
		d.l.SetUnlinkOnClose(false)
		err = errors.Join(os.Chmod(d.path(unready), 0o666), os.Rename(d.path(unready), d.path(initwire.Socket)))
	}
	if err != nil {
		d.close()
		return nil, fmt.Errorf("listen for the container: %w", err)
	}
	return d, nil
}

func (d *door) path(name string) string { return fmt.Sprintf("/proc/self/fd/%d/%s", d.dir.Fd(), name) }

func (d *door) unlink(name string) error {
	if err := os.Remove(d.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// close is idempotent. It also takes the name away, so that nobody inside can knock.
func (d *door) close() {
	if d.l != nil {
		_ = d.unlink(initwire.Socket)
		d.l.Close()
		d.l = nil
	}
	d.dir.Close()
}

// await returns the connection of the container's PID 1, after its Hello, and
// its pid here. Whoever else connects is sent away.
func (d *door) await(ctx context.Context, container, nonce string) (*line, int, error) {
	listener := d.l // what follows ctx may do so only once the door is closed
	unwatch := context.AfterFunc(ctx, func() { listener.SetDeadline(time.Unix(1, 0)) })
	defer unwatch()
	for {
		conn, err := listener.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return nil, 0, err
		}
		l, pid, err := admit(conn, container, nonce)
		if err == nil {
			return l, pid, nil
		}
		conn.Close()
	}
}

// admit checks who connected, without asking the engine, and that it is this
// attempt's.
func admit(conn *net.UnixConn, container, nonce string) (*line, int, error) {
	pid, err := peerPID(conn)
	if err != nil {
		return nil, 0, err
	}
	if err := isInit(pid, container); err != nil {
		return nil, 0, err
	}
	l := newLine(conn)
	if err := conn.SetReadDeadline(time.Now().Add(helloPatience)); err != nil {
		return nil, 0, err
	}
	f, err := l.in.Next()
	if err != nil {
		return nil, 0, err
	}
	m, err := f.Message()
	if err != nil {
		return nil, 0, err
	}
	hello, ok := m.(initwire.Hello)
	if !ok || hello.Nonce != nonce || hello.Version != initwire.Version {
		return nil, 0, fmt.Errorf("process %d does not say hello as it should", pid)
	}
	l.hello = hello
	return l, pid, conn.SetReadDeadline(time.Time{})
}

func peerPID(conn *net.UnixConn) (int, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var peer *unix.Ucred
	outer := raw.Control(func(fd uintptr) {
		peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(outer, err); err != nil {
		return 0, err
	}
	return int(peer.Pid), nil
}

// isInit checks that a process is PID 1 of a container.
func isInit(pid int, container string) error {
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return err
	}
	if !strings.Contains(string(groups), container) {
		return fmt.Errorf("process %d is not of container %s", pid, short(container))
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		if pids, ok := strings.CutPrefix(line, "NSpid:"); ok {
			if words := strings.Fields(pids); len(words) > 1 && words[len(words)-1] == "1" {
				return nil
			}
		}
	}
	return fmt.Errorf("process %d is not PID 1 of its container", pid)
}
