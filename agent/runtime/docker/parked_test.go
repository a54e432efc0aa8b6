package docker

import (
	"os"
	"slices"
	"testing"

	"github.com/docker/docker/api/types/container"

	"ecs/internal/task"
)

// TestUnreadableRecords: a power cut leaves records without content. They hold up
// nothing but what may be of an attempt that is claimed.
func TestUnreadableRecords(t *testing.T) {
	r := &Runtime{cfg: Config{Cluster: "c", Node: "n"}, homes: homes{root: t.TempDir()}}
	mine, other := task.Token{Task: "mine", Attempt: 1, Epoch: 2}, task.Token{Task: "other", Attempt: 1, Epoch: 2}
	homeOf := func(tok task.Token) home { return home{r.homes.root + "/" + homeName(tok) + "x"} }
	parked := func(id string) container.Summary {
		return container.Summary{ID: id, Labels: r.labels(task.Token{Task: task.ID(parkedPrefix + id)})}
	}
	found := []container.Summary{parked("p1"), parked("p2"), {ID: "m", Labels: r.labels(mine)}, {ID: "o", Labels: r.labels(other)}}
	claims := func(tok task.Token) bool { return tok == mine }
	expect := func(what string, fails bool, want ...string) {
		t.Helper()
		got, err := r.unclaimed(found, claims)
		if !slices.Equal(got, want) || (err != nil) != fails {
			t.Errorf("%s: got %v, %v; want %v", what, got, err, want)
		}
	}
	if err := homeOf(mine).write(record{Container: "p1"}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(homeOf(other).path+recordEnd, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	expect("another's record is empty", false, "p2", "o")
	if err := os.Truncate(homeOf(mine).path+recordEnd, 0); err != nil {
		t.Fatal(err)
	}
	expect("the record is empty", true, "o")
	if err := r.homes.sweep(claims); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(homeOf(other).path + recordEnd); err == nil {
		t.Error("another's record is left")
	}
}
