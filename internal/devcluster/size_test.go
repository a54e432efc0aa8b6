package devcluster

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func namesOf(s *Status) (names []string) {
	for _, n := range s.Nodes {
		names = append(names, n.Name+n.Zone)
	}
	return names
}

func TestNodesAreAddedAndRemovedOneByOne(t *testing.T) {
	o := options(t)
	o.Controls, o.Agents = 1, 1
	mustUp(t, o)
	var said bytes.Buffer
	s, err := Add(context.Background(), AddOptions{Dir: o.Dir, Controls: 2, Agents: 1, Binaries: o.Binaries, Progress: &said})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"c1a", "a1a", "c2b", "c3c", "a2b"}; !slices.Equal(namesOf(s), want) || len(s.Missing()) > 0 || len(s.Endpoints) != 3 {
		t.Errorf("got %v, %v missing, %d endpoints, want %v", namesOf(s), s.Missing(), len(s.Endpoints), want)
	}
	if !strings.Contains(said.String(), "c3: joining through 127.0.0.1:") {
		t.Errorf("got %q, want each step", said.String())
	}
	settings, err := os.ReadFile(filepath.Join(o.Dir, "c2", configFile))
	if err != nil || !strings.Contains(string(settings), "bootstrap_expect: 0") {
		t.Errorf("got %s, %v, want a node that forms no cluster", settings, err)
	}
	s, err = Remove(context.Background(), RemoveOptions{Dir: o.Dir, Names: []string{"a1", "c1"}})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"c2b", "c3c", "a2b"}; !slices.Equal(namesOf(s), want) {
		t.Errorf("got %v, want %v", namesOf(s), want)
	}
	wantGone(t, filepath.Join(o.Dir, "c1"))
	if _, err := Remove(context.Background(), RemoveOptions{Dir: o.Dir, Names: []string{"a9"}}); err == nil || !strings.Contains(err.Error(), "no node a9") || !strings.Contains(err.Error(), "dev status --dir "+o.Dir) {
		t.Errorf("got %v, want a9 unknown", err)
	}
	if s, err = Add(context.Background(), AddOptions{Dir: o.Dir, Agents: 1, Zone: "z", Binaries: o.Binaries}); err != nil || s.Nodes[3].Name != "a3" || s.Nodes[3].Zone != "z" {
		t.Errorf("got %v, %v, want a3 in z: no name comes twice", s, err)
	}
}

func TestNodeThatDoesNotJoinIsRemovedAgain(t *testing.T) {
	o := options(t)
	o.Controls, o.Agents = 1, 1
	mustUp(t, o)
	t.Setenv(fakeWho, "c2")
	t.Setenv(fakeHow, refuses)
	if _, err := Add(context.Background(), AddOptions{Dir: o.Dir, Controls: 1, Binaries: o.Binaries}); err == nil || !strings.Contains(err.Error(), "nobody there") {
		t.Errorf("got %v, want why c2 did not join", err)
	}
	wantGone(t, filepath.Join(o.Dir, "c2"))
	wantOut(t, o.Dir, 1) // it may have been taken in before it failed
	s, err := ReadStatus(context.Background(), o.Dir)
	if err != nil || len(s.Nodes) != 2 || len(s.Missing()) > 0 {
		t.Errorf("got %+v, %v, want the two of before", s, err)
	}
}

func TestNodeThatMayNotLeaveStays(t *testing.T) {
	o := options(t)
	o.Controls, o.Agents = 1, NoAgents
	t.Setenv(fakeWho, "c1")
	t.Setenv(fakeHow, refuses)
	mustUp(t, o)
	if _, err := Remove(context.Background(), RemoveOptions{Dir: o.Dir, Names: []string{"c1"}}); err == nil || !strings.Contains(err.Error(), "last voter") {
		t.Errorf("got %v, want the refusal", err)
	}
	if s, err := ReadStatus(context.Background(), o.Dir); err != nil || len(s.Missing()) > 0 {
		t.Errorf("got %+v, %v, want it to run on", s, err)
	}
}

// wantOut checks how many nodes were taken out of the configuration.
func wantOut(t *testing.T, dir string, want int) {
	t.Helper()
	if out, err := filepath.Glob(fakeOut(dir, "*")); err != nil || len(out) != want {
		t.Errorf("got %v, %v, want %d taken out of the configuration", out, err, want)
	}
}

func TestNodeThatDoesNotLeaveIsTakenOutByForce(t *testing.T) {
	o := options(t)
	o.Agents = NoAgents
	t.Setenv(fakeWho, "c2")
	t.Setenv(fakeHow, refuses)
	mustUp(t, o)
	s, err := Remove(context.Background(), RemoveOptions{Dir: o.Dir, Names: []string{"c2"}, Force: true})
	if err != nil || len(s.Nodes) != 2 || len(s.Missing()) > 0 {
		t.Fatalf("got %+v, %v, want the two others", s, err)
	}
	wantOut(t, o.Dir, 1)
	wantGone(t, filepath.Join(o.Dir, "c2"))
}

func TestNodeThatTheOthersNeedStaysWhateverTheForce(t *testing.T) {
	o := options(t)
	o.Agents = NoAgents
	t.Setenv(fakeWho, "c2")
	t.Setenv(fakeHow, refuses)
	t.Setenv(fakeKeep, "yes")
	mustUp(t, o)
	_, err := Remove(context.Background(), RemoveOptions{Dir: o.Dir, Names: []string{"c2"}, Force: true})
	if err == nil || !strings.Contains(err.Error(), "says the leader") {
		t.Errorf("got %v, want the leader's refusal", err)
	}
	if s, err := ReadStatus(context.Background(), o.Dir); err != nil || len(s.Nodes) != 3 || len(s.Missing()) > 0 {
		t.Errorf("got %+v, %v, want all three to run on", s, err)
	}
	if _, err := os.Stat(filepath.Join(o.Dir, "c2", "data")); err != nil {
		t.Errorf("its data: %v", err)
	}
}

func TestLastNodeIsRemovedByForceWithoutAsking(t *testing.T) {
	o := options(t)
	o.Controls, o.Agents = 1, NoAgents
	t.Setenv(fakeWho, "c1")
	t.Setenv(fakeHow, refuses)
	mustUp(t, o)
	if _, err := Remove(context.Background(), RemoveOptions{Dir: o.Dir, Names: []string{"c1"}, Force: true}); err != nil {
		t.Error(err)
	}
	wantOut(t, o.Dir, 0)
	wantGone(t, filepath.Join(o.Dir, "c1"))
}

func TestSuggestedDirectoriesAreOneWordOfAShell(t *testing.T) {
	_, _, err := change("/no dir")
	if err == nil || !strings.Contains(err.Error(), "no cluster in /no dir (`ecsctl dev up --dir '/no dir'`") {
		t.Errorf("got %v", err)
	}
}
