package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"ecs/test/chaos/check"
)

func TestEveryProcessHasALifeOfItsOwn(t *testing.T) {
	dir := t.TempDir()
	for name, beats := range map[string]string{"t1.1.p1.77-1000": "5\n9\n", "t1.1.p1.78-2000": "12\n15\n1", "t2.1.p2.79-3000": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(beats), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	lives, err := processLives(dir)
	if err != nil || len(lives) != 2 {
		t.Fatalf("got %v (%v), want two lives", lives, err)
	}
	if want := (check.Life{Task: "t1", Attempt: 1, Node: "p1", First: 5, Last: 9}); lives[0] != want {
		t.Errorf("got %+v, want %+v", lives[0], want)
	}
	if lives[1].Attempt != 1 || lives[1].Last != time.Duration(15) {
		t.Errorf("got %+v, want the second process's", lives[1])
	}
}
