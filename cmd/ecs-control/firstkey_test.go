package main

import (
	"log/slog"
	"os"
	"testing"
)

func TestFirstKeyStaysTheSameUntilItIsDropped(t *testing.T) {
	f := firstKeyIn(t.TempDir(), slog.New(slog.DiscardHandler))
	key, secret, err := f.Draw()
	if err != nil || len(key) != 32 || len(secret) != 32 {
		t.Fatalf("got %q, %q, %v", key, secret, err)
	}
	if info, err := os.Stat(f.path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v, want a file for its owner only", info, err)
	}
	if again, s, err := f.Draw(); err != nil || again != key || s != secret {
		t.Errorf("got %q, %v, want the same key after a crash", again, err)
	}
	if kept, err := f.Kept(); err != nil || kept != key {
		t.Errorf("got %q, %v kept", kept, err)
	}
	for range 2 {
		if err := f.Drop(); err != nil {
			t.Fatal(err)
		}
	}
	if kept, err := f.Kept(); err != nil || kept != "" {
		t.Errorf("got %q, %v kept after it was dropped", kept, err)
	}
	if other, _, err := f.Draw(); err != nil || other == key {
		t.Errorf("got %q, %v, want another key", other, err)
	}
	if err := os.WriteFile(f.path, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Draw(); err == nil {
		t.Error("a file without a key is taken")
	}
}
