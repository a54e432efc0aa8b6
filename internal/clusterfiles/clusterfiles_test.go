package clusterfiles

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"ecs/internal/pki"
)

func TestIssuedNodeLoadsAndKeepsItsIdentity(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	if _, err := Init(dir, "c1", time.Now()); err != nil {
		t.Fatal(err)
	}
	ca, err := OpenCA(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := pki.Identity{Cluster: "c1", Role: pki.RoleAgent, ID: "a1"}
	node := filepath.Join(dir, "a1")
	if err := IssueNode(ca, want, node, []string{"127.0.0.1"}, time.Now(), time.Hour); err != nil {
		t.Fatal(err)
	}
	loaded, err := pki.LoadNode(filepath.Join(dir, CACert), filepath.Join(node, NodeCert), filepath.Join(node, NodeKey))
	if err != nil {
		t.Fatal(err)
	}
	if got := loaded.Identity(); got != want {
		t.Errorf("got identity %v, want %v", got, want)
	}
}

func TestInitNeverOverwrites(t *testing.T) {
	for _, present := range []string{CACert, CAKey, GossipKey, SealKey} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, present), []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Init(dir, "c1", time.Now()); !errors.Is(err, fs.ErrExist) {
			t.Errorf("with %s there: got %v, want %v", present, err, fs.ErrExist)
		}
		if entries, _ := os.ReadDir(dir); len(entries) != 1 {
			t.Errorf("with %s there: got %d files, want the one that was there", present, len(entries))
		}
	}
}

func TestPrivateFilesAreTheirOwnersOnly(t *testing.T) {
	dir := t.TempDir()
	if _, err := Init(dir, "c1", time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{CAKey, GossipKey, SealKey} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != 0o600 {
			t.Errorf("%s: got mode %o, want 600", name, got)
		}
	}
}

func TestReadKeyTakesOnlyWholeKeys(t *testing.T) {
	dir := t.TempDir()
	if _, err := Init(dir, "c1", time.Now()); err != nil {
		t.Fatal(err)
	}
	key, err := ReadKey(filepath.Join(dir, SealKey))
	if err != nil || len(key) != 32 {
		t.Fatalf("got %d bytes, %v, want 32", len(key), err)
	}
	for _, text := range []string{"", "short", "AAAA", string(key)} {
		bad := filepath.Join(dir, "bad")
		if err := os.WriteFile(bad, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadKey(bad); err == nil {
			t.Errorf("%q: got no error, want one", text)
		}
	}
}
