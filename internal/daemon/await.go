package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"ecs/internal/admin"
	"ecs/internal/clusterfiles"
	"ecs/internal/pki"
)

// AwaitJoin holds the data directory and serves the admin socket in it until ecsctl
// join has put the node's files in place and load takes them. sealKey is empty for an
// agent. An error of load goes to the operator, and the wait goes on.
func (t *Trust) AwaitJoin(ctx context.Context, place *Place, role pki.Role, sealKey string, load func() error, log *slog.Logger) (err error) {
	files, err := absolute(clusterfiles.Places{CA: t.CA, Cert: t.Cert, Key: t.Key, GossipKey: t.GossipKey, SealKey: sealKey})
	if err != nil {
		return err
	}
	data, err := takeDataDir(place.DataDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, data.Close()) }()
	l, err := admin.Listen(place.DataDir)
	if err != nil {
		return err
	}
	log.Info("no certificate yet: waiting for ecsctl join --token", "role", string(role), "cert", files.Cert)
	about := admin.About{Role: string(role), Name: place.Name, State: "without a certificate; it waits for ecsctl join --token",
		Awaits: &admin.Awaited{Files: files, UID: os.Geteuid(), GID: os.Getegid()}}
	started, err := admin.ServeAwaiting(ctx, l, about, load)
	switch {
	case err != nil:
		return fmt.Errorf("wait for a certificate: %w", err)
	case !started:
		return ctx.Err()
	}
	return nil
}

func absolute(p clusterfiles.Places) (clusterfiles.Places, error) {
	for _, path := range []*string{&p.CA, &p.Cert, &p.Key, &p.GossipKey, &p.SealKey} {
		if *path == "" {
			continue
		}
		var err error
		if *path, err = filepath.Abs(*path); err != nil {
			return p, err
		}
	}
	return p, nil
}
