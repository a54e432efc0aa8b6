package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ecs/internal/admin"
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
