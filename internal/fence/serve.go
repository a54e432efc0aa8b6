package fence

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	maxConns  = 64
	maxKills  = 256 // that one client waits for
	writeTime = 3 * time.Second
)

// listen makes the socket, for root alone. The state directory's lock says that
// no other fence uses the path.
func listen(path string) (*net.UnixListener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make the socket's directory: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove the last socket: %w", err)
	}
	name, done, err := socketName(path)
	if err != nil {
		return nil, err
	}
	defer done()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false) // the name may be gone by then; the next start removes it
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// serve answers clients until the listener is closed.
func (s *Server) serve(ctx context.Context, l *net.UnixListener) error {
	var g errgroup.Group
	g.SetLimit(maxConns)
	defer func() { _ = g.Wait() }()
	for {
		conn, err := l.AcceptUnix()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return os.Remove(s.cfg.Socket)
		case err != nil:
			s.log.Error("a client can't be accepted", "err", err)
			pause(ctx, againPause) // another may have to leave first
			continue
		}
		if !g.TryGo(func() error { s.client(ctx, conn); return nil }) {
			s.log.Error("too many clients", "most", maxConns)
			conn.Close()
		}
	}
}

// replies sends answers to one client.
type replies struct {
	conn net.Conn
	mu   struct {
		sync.Mutex
		out *json.Encoder
	}
}

// send hangs up on a client that does not read.
func (r *replies) send(a answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.conn.SetWriteDeadline(time.Now().Add(writeTime))
	if err == nil {
		err = r.mu.out.Encode(a)
	}
	if err != nil {
		r.conn.Close()
	}
}

func (s *Server) client(ctx context.Context, conn *net.UnixConn) {
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	var kills errgroup.Group
	kills.SetLimit(maxKills)
	defer func() { _ = kills.Wait() }()
	defer cancel()
	back := &replies{conn: conn}
	back.mu.out = json.NewEncoder(conn)
	peer, err := peerOf(conn)
	if err == nil && peer.Uid != 0 {
		err = fmt.Errorf("only root may use the fence, not user %d", peer.Uid)
	}
	if err != nil {
		s.log.Warn("a client is refused", "err", err)
		back.send(answer{Error: err.Error()})
		return
	}
	in := bufio.NewScanner(conn)
	in.Buffer(nil, maxLine)
	for in.Scan() {
		var r request
		if err := json.Unmarshal(in.Bytes(), &r); err != nil {
			s.log.Warn("a client sends what is no request", "pid", peer.Pid, "err", err)
			back.send(answer{Error: "no request: " + err.Error()})
			return
		}
		if r.Op != opKill {
			back.send(s.answer(r, int(peer.Pid)))
			continue
		}
		if !kills.TryGo(func() error { back.send(s.reply(r, s.kill(ctx, r.ID))); return nil }) {
			back.send(s.reply(r, errors.New("too many kills at once")))
		}
	}
	if err := in.Err(); err != nil && ctx.Err() == nil {
		s.log.Warn("a client is lost", "pid", peer.Pid, "err", err)
	}
}

// answer does everything but kills.
func (s *Server) answer(r request, peer int) answer {
	switch r.Op {
	case opAdd:
		return s.reply(r, s.add(r.Entry, peer))
	case opRemove:
		return s.reply(r, s.remove(r.ID))
	case opRenew:
		lost := s.renew(r.Renewals)
		a := s.reply(r, nil)
		a.Lost = lost
		return a
	case opList:
		a := s.reply(r, nil)
		a.Entries = s.list()
		return a
	}
	return s.reply(r, fmt.Errorf("no such request: %.40q", r.Op))
}

func (s *Server) reply(r request, err error) answer {
	a := answer{Seq: r.Seq, Trouble: s.trouble(), Ended: errors.Is(err, ErrEnded)}
	if err != nil {
		a.Error = err.Error()
	}
	return a
}

// peerOf is who made a connection, as the kernel says.
func peerOf(conn *net.UnixConn) (*unix.Ucred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var peer *unix.Ucred
	if outer := raw.Control(func(fd uintptr) {
		peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); outer != nil {
		return nil, outer
	}
	return peer, err
}
