package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"ecs/internal/admin"
)

const (
	// upWithin bounds how long a daemon may take to be there with its certificate.
	upWithin = 30 * time.Second
	lookUp   = 100 * time.Millisecond
)

// letIn gets a daemon that waits for it its certificate for a token, and has it go on.
// It gives the addresses to join through.
func (a *app) letIn(ctx context.Context, daemon *admin.Client, about admin.About, token string) (addrs []string, err error) {
	parsed, err := a.joinToken(token)
	if err != nil {
		return nil, fmt.Errorf("the daemon has no certificate yet: %w", err)
	}
	if err := mayWrite(daemon, about.Awaits); err != nil {
		return nil, err
	}
	a.progress("asking " + strings.Join(a.endpoints(), ", ") + " for a certificate as " + about.Role)
	got, err := a.admit(ctx, parsed, about.Role, about.Awaits.Files)
	if err != nil {
		return nil, err
	}
	if err := handTo(about.Awaits); err != nil {
		return nil, err
	}
	a.progress(fmt.Sprintf("the node is %s %s of cluster %s; its daemon starts", about.Role, got.Node, got.Cluster))
	if err := daemon.Start(ctx); err != nil {
		return nil, fmt.Errorf("have the daemon start with its certificate: %w", err)
	}
	return got.Join, a.untilUp(ctx, daemon)
}

// filesDir is the one directory where root writes what a daemon of another user
// asks for: it is root's own, so that nobody leads elsewhere.
const filesDir = "/etc/ecs"

// mayWrite refuses to write, as root, where a daemon that is not root says. Whose
// the socket is shows whose the daemon is: it can't be given away.
func mayWrite(daemon *admin.Client, w *admin.Awaited) error {
	owner, err := daemon.Owner()
	if err != nil {
		return err
	}
	if owner != w.UID {
		return fmt.Errorf("the daemon says that it runs as user %d, and its socket belongs to user %d", w.UID, owner)
	}
	if w.UID == os.Geteuid() {
		return nil
	}
	for _, path := range w.Files.All() {
		if path != "" && filepath.Dir(filepath.Clean(path)) != filesDir {
			return fmt.Errorf("the daemon runs as user %d and wants its files elsewhere than in %s (%s), where root does not write for it: "+
				"get them with ecsctl ca request, and start it with them", w.UID, filesDir, path)
		}
	}
	return nil
}

// handTo gives the files to the daemon's user, where that is not who writes them.
func handTo(w *admin.Awaited) error {
	if w.UID == os.Geteuid() {
		return nil
	}
	for _, path := range w.Files.All() {
		if err := os.Lchown(path, w.UID, w.GID); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("give the node's files to the daemon's user: %w", err)
		}
	}
	return nil
}

// untilUp waits until the daemon answers as what it has become.
func (a *app) untilUp(ctx context.Context, daemon *admin.Client) error {
	ctx, cancel := context.WithTimeout(ctx, upWithin)
	defer cancel()
	tick := time.NewTicker(lookUp)
	defer tick.Stop()
	for {
		about, err := daemon.About(ctx)
		if err == nil && about.Awaits == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the daemon has its certificate and does not start; its log says why, and ecsctl join ADDR goes on from here: %w", ctx.Err())
		}
	}
}
