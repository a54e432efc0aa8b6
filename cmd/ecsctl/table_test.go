package main

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"

	"ecs/proto/api"
)

func TestCellsForgeNothing(t *testing.T) {
	for in, want := range map[string]string{
		"plain":            "plain",
		"":                 "-",
		"naïve 日本":         "naïve 日本",
		"\x1b[31mred":      `\x1b[31mred`,
		"two\nrows\tcols":  `two\nrows\tcols`,
		"bell\a nul\x00":   `bell\a nul\x00`,
		"bad utf-8 \xff\n": `bad utf-8 \xff\n`,
		"right\u202eleft":  `right\u202eleft`,
		"c1 \u009b31m":     `c1 \u009b31m`,
	} {
		if got := cell(in); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}

func FuzzCellIsPrintable(f *testing.F) {
	f.Add("\x1b]0;title\a")
	f.Add("\xff\u202e")
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range cell(s) {
			if !unicode.IsPrint(r) {
				t.Fatalf("%q: got %q, which has %U in it", s, cell(s), r)
			}
		}
	})
}

func TestTableKeepsItsColumns(t *testing.T) {
	tab := &table{header: []string{"NAME", "STATE"}}
	tab.add("a", "x\ny")
	tab.add("longer name", "")
	var out bytes.Buffer
	if err := tab.print(&out); err != nil {
		t.Fatal(err)
	}
	const want = "NAME         STATE\na            x\\ny\nlonger name  -\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

func TestTaskTable(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	exit, run := 3, 1500.0
	tasks := []api.Task{
		{ID: "1", State: "finished", Outcome: "exited", ExitCode: &exit, SubmittedAt: now.Add(-90 * time.Second), Node: "a1", Zone: "a",
			Times: &api.Times{Run: &run}, Spec: api.Spec{Image: "x:1", Command: []string{"sh", "-c", strings.Repeat("y", 100)}}},
		{ID: "2", State: "pending", SubmittedAt: now.Add(-time.Second), Spec: api.Spec{Image: "x:1"}},
	}
	var out bytes.Buffer
	if err := taskTable(tasks, now).print(&out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	if got := strings.Fields(lines[1]); strings.Join(got[:9], " ") != "1 finished exited 3 90s 1.5s a1 a x:1" || !strings.HasSuffix(lines[1], "...") {
		t.Errorf("got %q", lines[1])
	}
	if got := strings.Fields(lines[2]); strings.Join(got, " ") != "2 pending - - 1.0s - - - x:1 -" {
		t.Errorf("got %q", lines[2])
	}
}

func TestShownTaskSaysWhyItWaitsAndWhereItsTimeWent(t *testing.T) {
	total, queued := 12.5, 3.25
	task := &api.Task{ID: "t", State: "pending", WaitingBecause: "0 of 3 nodes\n can", QueuePosition: 7,
		Times: &api.Times{Total: &total, Queued: &queued}, Attempts: []api.Attempt{{Number: 1, Node: "a1", Outcome: "node_lost"}},
		Stdout: &api.Stream{Bytes: 5 << 20, Kept: 1 << 20, Truncated: true},
		Spec:   api.Spec{Image: "x:1", Command: []string{"sh", "-c", "a b"}, Labels: map[string]string{"b": "2", "a": "1"}}}
	var out bytes.Buffer
	if err := showTask(&out, task, time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`0 of 3 nodes\n can`, "Queue position:", "3.25", "12.50", "node_lost", "the first 1.0 MiB kept", `sh -c "a b"`, "a=1, b=2"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("lacks %q:\n%s", want, out.String())
		}
	}
}

func TestNodeTableSaysWhatKeepsANodeFromTasks(t *testing.T) {
	nodes := []api.Node{
		{Name: "a1", Status: "ready", Attributes: map[string]string{"egress": "true"}, Capacity: api.Capacity{CPU: 2000, Memory: 4 << 30}, Free: api.Capacity{CPU: 1750, Memory: 3 << 30}},
		{Name: "a2", Status: "ready", Drain: true},
		{Name: "a3", Status: "ready", Unfit: "the engine hangs"},
	}
	var out bytes.Buffer
	if err := nodeTable(nodes).print(&out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	for i, want := range [][]string{{"1.75 of 2", " egress "}, {"draining", " none "}, {"ready, unfit", " none "}} {
		for _, w := range want {
			if !strings.Contains(lines[i+1], w) {
				t.Errorf("got %q, want %q in it", lines[i+1], w)
			}
		}
	}
}

func TestAttributesOfANodeAreInOrder(t *testing.T) {
	n := &api.Node{Name: "a1", Attributes: map[string]string{"warm_slots": "4", "egress": "true", "b": "1", "c": "2"}}
	for range 20 {
		var out bytes.Buffer
		if err := showNode(&out, n, time.Now()); err != nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile(`(?s)Attribute b: .*Attribute c: .*Attribute egress: .*Attribute warm_slots: +4`).MatchString(out.String()) {
			t.Fatalf("got %s", out.String())
		}
	}
}

func TestClusterStatusShowsVotersThatAreNotSeen(t *testing.T) {
	c := &api.Cluster{Name: "dev", Leader: "1", Voters: []api.Voter{{ID: "1", Voter: true}, {ID: "2", Voter: true}},
		Members: []api.Member{{ID: "1", Role: "control", Zone: "a"}, {ID: "9", Role: "agent", Zone: "b"}},
		Health:  api.Health{Reasons: []string{"no leader for 10 s"}, Checks: []api.Check{{Name: "disk", OK: true}}}}
	var out bytes.Buffer
	if err := showCluster(&out, c); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"not ready", "no leader for 10 s", "disk:", "leader", "control, not seen"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("lacks %q:\n%s", want, out.String())
		}
	}
}

func TestPeopleSeeNamesOfNodes(t *testing.T) {
	s := newService(t)
	s.state = api.StateFinished
	s.task.Node = "node-id"
	s.task.Attempts = []api.Attempt{{Number: 1, Node: "node-id"}, {Number: 2, Node: "forgotten"}}
	i := invoke(s)
	if status := i.main([]string{"tasks", "show", "t1"}); status != 0 {
		t.Fatalf("got status %d: %s", status, i.err)
	}
	if got := i.out.String(); strings.Contains(got, "node-id") || strings.Count(got, "node-name") != 2 || !strings.Contains(got, "forgotten") {
		t.Errorf("got\n%s\nwant the node by its name, twice, and the forgotten one by its id", got)
	}
}

func TestJSONIsForPrograms(t *testing.T) {
	s := newService(t)
	s.state = api.StateFinished
	i := invoke(s)
	if status := i.main([]string{"tasks", "show", "--json", "t1"}); status != 0 {
		t.Fatalf("got status %d: %s", status, i.err)
	}
	var task api.Task
	if err := json.Unmarshal([]byte(i.out.String()), &task); err != nil || task.ID != "t1" {
		t.Errorf("got %s, %v", i.out, err)
	}
}
