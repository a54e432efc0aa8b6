// Package admin is the door to a daemon for whoever operates its machine: a unix
// socket in the data directory, over which `ecsctl join` and `ecsctl leave` have
// the daemon change its place in a cluster and hear how that goes.
//
// It speaks HTTP. An answer is a stream of JSON lines, one Step each, the last of
// which says that it is done or what went wrong. Only root and the daemon's own
// user get through.
package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"ecs/internal/clusterfiles"
)

// Socket is the socket's name in the data directory.
const Socket = "admin.sock"

// Node is a daemon, as far as its operator changes it.
type Node interface {
	// About says what the daemon is.
	About() About
	// Join has the daemon become a part of the cluster that control nodes at the
	// addresses belong to, and returns once it is.
	Join(ctx context.Context, addrs []string, say func(string)) error
	// Leave has the daemon leave its cluster in good order and end; it returns
	// when it is about to. The end of ctx does not call it off.
	Leave(ctx context.Context, force bool, say func(string)) error
}

// About says what a daemon is.
type About struct {
	Role    string `json:"role"` // control | agent
	ID      string `json:"id"`
	Name    string `json:"name"`
	Cluster string `json:"cluster"`
	State   string `json:"state"` // for people
	// Awaits, when set, says that the daemon has no certificate yet: it goes on once
	// the files are there and it is told to.
	Awaits *Awaited `json:"awaits,omitzero"`
}

// Awaited is where a daemon without a certificate wants its files.
type Awaited struct {
	Files clusterfiles.Places `json:"files"` // absolute
	UID   int                 `json:"uid"`   // whose they have to be
	GID   int                 `json:"gid"`
}

// Step is one line of progress.
type Step struct {
	Say   string `json:"say,omitempty"`
	Done  bool   `json:"done,omitempty"`
	Error string `json:"error,omitempty"`
}

// Listen opens the socket of a data directory, in place of one that an earlier
// process left. The caller holds the directory.
func Listen(dataDir string) (net.Listener, error) {
	short, done, err := shorten(dataDir)
	if err != nil {
		return nil, err
	}
	defer done()
	path := filepath.Join(short, Socket)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the old admin socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", filepath.Join(dataDir, Socket), err)
	}
	l.SetUnlinkOnClose(false) // the short name is gone by then
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &guarded{UnixListener: l}, nil
}

// shorten gives a name of a directory that leaves room for a socket's: those have
// 107 bytes at most.
func shorten(dir string) (short string, done func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return "", nil, err
	}
	return "/proc/self/fd/" + strconv.Itoa(int(d.Fd())), func() { _ = d.Close() }, nil
}

// guarded lets in root and the daemon's own user alone, whatever the modes of the
// directories.
type guarded struct{ *net.UnixListener }

// Accept implements net.Listener.
func (g *guarded) Accept() (net.Conn, error) {
	for {
		conn, err := g.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if allowed(conn) {
			return conn, nil
		}
		_ = conn.Close() // a stranger is told nothing
	}
}

func allowed(conn *net.UnixConn) bool {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	ok := false
	err = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		ok = err == nil && (cred.Uid == 0 || int(cred.Uid) == os.Geteuid())
	})
	return err == nil && ok
}
