package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ecs/internal/admin"
	"ecs/internal/clusterfiles"
)

// A daemon can't have root write for whom it is not: whose its socket is counts.
func TestFilesAreWrittenForTheDaemonsOwnUser(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, admin.Socket), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	daemon := admin.NewClient(dir)
	if err := mayWrite(daemon, &admin.Awaited{UID: os.Geteuid()}); err != nil {
		t.Errorf("its own: %v", err)
	}
	if err := mayWrite(daemon, &admin.Awaited{UID: os.Geteuid() + 1}); err == nil || !strings.Contains(err.Error(), "socket belongs to") {
		t.Errorf("another's: got %v", err)
	}
}

// For another user root writes in its own directory alone, whatever leads there.
func TestRootWritesForOthersInOneDirectoryOnly(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("giving the socket to another user needs root")
	}
	const other = 65534
	dir := t.TempDir()
	socket := filepath.Join(dir, admin.Socket)
	if err := os.WriteFile(socket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Lchown(socket, other, other); err != nil {
		t.Fatal(err)
	}
	daemon := admin.NewClient(dir)
	for path, may := range map[string]bool{
		"":                          true, // it has no use for the file
		"/etc/ecs/node.pem":         true,
		"/etc/ecs//node.pem":        true,
		"/etc/ecs/":                 false,
		"/etc/ecs/.":                false,
		"/etc/ecs/..":               false,
		"/etc/ecs/../shadow":        false,
		"/etc/ecs/sub/node.pem":     false,
		"/etc/ecs.d/node.pem":       false,
		"/etc/shadow":               false,
		"/var/lib/ecs/node.pem":     false,
		"node.pem":                  false,
		"etc/ecs/node.pem":          false,
		filepath.Join(dir, "x.pem"): false,
	} {
		places := clusterfiles.Places{Cert: "/etc/ecs/cert.pem"}
		for _, part := range []*string{&places.Cert, &places.Key, &places.CA, &places.GossipKey, &places.SealKey} {
			was := *part
			*part = path
			err := mayWrite(daemon, &admin.Awaited{UID: other, GID: other, Files: places})
			if may != (err == nil) || err != nil && !strings.Contains(err.Error(), path) {
				t.Errorf("%q: got %v, want allowed %t", path, err, may)
			}
			*part = was
		}
	}
	own := &admin.Awaited{UID: os.Geteuid(), Files: clusterfiles.Places{Cert: "/srv/cert.pem"}}
	if err := os.Lchown(socket, os.Geteuid(), -1); err != nil {
		t.Fatal(err)
	}
	if err := mayWrite(daemon, own); err != nil {
		t.Errorf("for itself: got %v, want it anywhere", err)
	}
}
