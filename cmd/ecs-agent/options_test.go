package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ecs/internal/clusterfiles"
	"ecs/internal/daemon"
	"ecs/internal/pki"
	"ecs/internal/task"
)

// settings gives the flags that name everything an agent needs.
func settings(t *testing.T) (flags []string) {
	t.Helper()
	dir := t.TempDir()
	ca, err := clusterfiles.Init(dir, "test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	id := pki.Identity{Cluster: "test", Role: pki.RoleAgent, ID: "n1"}
	if err := clusterfiles.IssueNode(ca, id, dir, nil, time.Now(), time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ecs-init"), nil, 0o700); err != nil {
		t.Fatal(err)
	}
	for flag, name := range map[string]string{"ca": clusterfiles.CACert, "cert": clusterfiles.NodeCert, "key": clusterfiles.NodeKey,
		"gossip-key": clusterfiles.GossipKey, "data-dir": "data", "init": "ecs-init"} {
		flags = append(flags, "--"+flag, filepath.Join(dir, name))
	}
	return flags
}

func checkConfig(args ...string) (status int, said string) {
	var out bytes.Buffer
	status = program().Main(append(args, "--check-config"), &out, &out, nil)
	return status, out.String()
}

func TestWholeConfigurationIsValid(t *testing.T) {
	if status, said := checkConfig(settings(t)...); status != daemon.ExitOK {
		t.Errorf("got status %d: %s", status, said)
	}
}

func TestEveryProblemIsNamedAtOnce(t *testing.T) {
	status, said := checkConfig(append(settings(t), "--grace", "-1s", "--memory", "1MiB", "--output-addr", "x", "--health-addr", "y",
		"--reserve", "cpu=100000", "--ca", "/no/such/ca", "--fence-socket", "s", "--init", "/no/such/init")...)
	if status != daemon.ExitUsage {
		t.Errorf("got status %d, want %d", status, daemon.ExitUsage)
	}
	for _, want := range []string{"--grace", "--memory", "--output-addr", "--health-addr", "reserve", "/no/such/ca", "--fence-socket", "/no/such/init"} {
		if !strings.Contains(said, want) {
			t.Errorf("lacks %q:\n%s", want, said)
		}
	}
}

func TestCapacityIsWhatIsGivenAndTheMachinesForTheRest(t *testing.T) {
	measure := func(args ...string) task.Capacity {
		t.Helper()
		o := new(options)
		fs := flag.NewFlagSet("test", flag.ContinueOnError)
		o.define(fs)
		if err := fs.Parse(args); err != nil {
			t.Fatal(err)
		}
		c, err := o.measure()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if got := measure("--cpus", "1.5", "--memory", "1GiB"); got.MilliCPU != 1500 || got.Memory != 1<<30 {
		t.Errorf("got %+v, want 1500m and 1 GiB", got)
	}
	all, less := measure("--reserve", "cpu=0,memory=0"), measure("--reserve", "cpu=0.25,memory=64MiB")
	if all.MilliCPU-less.MilliCPU != 250 || all.Memory-less.Memory != 64<<20 {
		t.Errorf("got %+v and %+v, want the reserve between them", all, less)
	}
	if got := measure("--cpus", "7"); got.MilliCPU != 7000 || got.Memory <= 0 || got.Memory >= all.Memory {
		t.Errorf("got %+v, want 7000m and the machine's memory less the reserve", got)
	}
}

func TestInitIsBesideTheAgentUnlessNamed(t *testing.T) {
	if path, err := findInit(""); err == nil || !strings.Contains(err.Error(), filepath.Join(filepath.Dir(os.Args[0]), "ecs-init")) {
		t.Errorf("got %s, %v, want it looked for beside this program", path, err)
	}
	dir := t.TempDir()
	if path, err := findInit(dir); err == nil || !strings.Contains(err.Error(), "not an executable file") {
		t.Errorf("got %s, %v, want a directory refused", path, err)
	}
}
