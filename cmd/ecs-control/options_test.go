package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ecs/internal/access"
	"ecs/internal/clusterfiles"
	"ecs/internal/daemon"
	"ecs/internal/pki"
)

// settings makes a directory with everything a node needs and gives the flags
// that name it.
func settings(t *testing.T, role pki.Role) (dir string, flags []string) {
	t.Helper()
	dir = t.TempDir()
	ca, err := clusterfiles.Init(dir, "test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	id := pki.Identity{Cluster: "test", Role: role, ID: "n1"}
	if err := clusterfiles.IssueNode(ca, id, dir, nil, time.Now(), time.Hour); err != nil {
		t.Fatal(err)
	}
	htpasswd := filepath.Join(dir, "htpasswd")
	if err := clusterfiles.AppendHtpasswd(htpasswd, clusterfiles.NewCredentials()); err != nil {
		t.Fatal(err)
	}
	for flag, name := range map[string]string{"ca": clusterfiles.CACert, "cert": clusterfiles.NodeCert, "key": clusterfiles.NodeKey,
		"gossip-key": clusterfiles.GossipKey, "seal-key": clusterfiles.SealKey, "htpasswd": "htpasswd", "data-dir": "data"} {
		flags = append(flags, "--"+flag, filepath.Join(dir, name))
	}
	return dir, flags
}

func checkConfig(args ...string) (status int, said string) {
	var out bytes.Buffer
	status = program().Main(append(args, "--check-config"), &out, &out, nil)
	return status, out.String()
}

func TestWholeConfigurationIsValidAndChangesNothing(t *testing.T) {
	dir, flags := settings(t, pki.RoleControl)
	if status, said := checkConfig(flags...); status != daemon.ExitOK {
		t.Fatalf("got status %d: %s", status, said)
	}
	if _, err := os.Stat(filepath.Join(dir, "data")); err == nil {
		t.Error("--check-config made the data directory")
	}
}

func TestEveryProblemIsNamedAtOnce(t *testing.T) {
	dir, flags := settings(t, pki.RoleControl)
	if err := os.WriteFile(filepath.Join(dir, clusterfiles.SealKey), []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	status, said := checkConfig(append(flags, "--bootstrap-expect", "2", "--snapshot-entries", "1", "--snapshot-interval", "1ms", "--http-addr", "8448", "--zone", "", "--advertise", "host:1",
		"--htpasswd", filepath.Join(dir, "none"), "--join", "nowhere", "--gossip-key", filepath.Join(dir, "none"))...)
	if status != daemon.ExitUsage {
		t.Errorf("got status %d, want %d", status, daemon.ExitUsage)
	}
	for _, want := range []string{"--bootstrap-expect 2", "--snapshot-entries 1", "--snapshot-interval 1ms", "--http-addr", "--zone is needed", "--advertise", "API keys", "--join", "gossip key", "seal key"} {
		if !strings.Contains(said, want) {
			t.Errorf("lacks %q:\n%s", want, said)
		}
	}
}

func TestCertificateOfAnotherRoleIsRefused(t *testing.T) {
	_, flags := settings(t, pki.RoleAgent)
	if status, said := checkConfig(flags...); status != daemon.ExitUsage || !strings.Contains(said, "for the role agent, want control") {
		t.Errorf("got status %d: %s", status, said)
	}
}

func TestUnknownKeyOfTheFileIsNamed(t *testing.T) {
	dir, flags := settings(t, pki.RoleControl)
	file := filepath.Join(dir, "ecs-control.yaml")
	if err := os.WriteFile(file, []byte("zone: a\nhtpaswd: /x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, said := checkConfig(append(flags, "--config", file)...); status != daemon.ExitUsage ||
		!strings.Contains(said, `:2: unknown setting "htpaswd", did you mean "htpasswd"?`) {
		t.Errorf("got status %d: %s", status, said)
	}
}

func TestClientsKeyIsNotTakenForTheNodesKey(t *testing.T) {
	_, flags := settings(t, pki.RoleControl)
	t.Setenv("ECS_KEY", "an api key")
	t.Setenv("ECS_CONTROL_ZONE", "z")
	if status, said := checkConfig(flags...); status != daemon.ExitOK {
		t.Errorf("got status %d: %s", status, said)
	}
}

func TestAnOpenPortWithoutTLSIsRefusedWithARemedy(t *testing.T) {
	dir, flags := settings(t, pki.RoleControl)
	for _, addr := range []string{":8448", "0.0.0.0:8448", "[::]:8448", "192.0.2.1:8448"} {
		status, said := checkConfig(append(flags, "--http-addr", addr)...)
		if status != daemon.ExitUsage || !strings.Contains(said, "--tls-cert") || !strings.Contains(said, "--insecure-listen") {
			t.Errorf("%s: got status %d: %s", addr, status, said)
		}
	}
	// A node's own certificate is one that files can be tried with.
	cert, key := filepath.Join(dir, clusterfiles.NodeCert), filepath.Join(dir, clusterfiles.NodeKey)
	for _, good := range [][]string{
		{"--http-addr", ":8448", "--insecure-listen"},
		{"--http-addr", ":8448", "--tls-cert", cert, "--tls-key", key, "--http-redirect-addr", ":80"},
		{"--http-addr", ":8448", "--tls-cert", cert, "--tls-key", key, "--docs-cert", cert, "--docs-key", key, "--docs-domain", "docs.example.org", "--tls-versions", "TLSv1.3"},
		{"--http-addr", "127.0.0.1:8448", "--trusted-proxies", "127.0.0.1,35.191.0.0/16"},
	} {
		if status, said := checkConfig(append(flags, good...)...); status != daemon.ExitOK {
			t.Errorf("%v: got status %d: %s", good, status, said)
		}
	}
	for _, bad := range [][]string{
		{"--tls-cert", cert}, {"--tls-cert", cert, "--tls-key", "/none"}, {"--docs-cert", cert, "--docs-key", key}, {"--http-redirect-addr", ":80"},
		{"--tls-cert", cert, "--tls-key", key, "--tls-versions", "TLSv1.1"}, {"--tls-cert", cert, "--tls-key", key, "--docs-cert", cert, "--docs-key", key},
		{"--tls-cert", cert, "--tls-key", key, "--http-redirect-addr", "80"}, {"--key-rate", "-1"}, {"--htpasswd-role", "root"}, {"--trusted-proxies", "10.0.0.1,balancer"},
	} {
		if status, said := checkConfig(append(flags, bad...)...); status != daemon.ExitUsage {
			t.Errorf("%v: got status %d: %s", bad, status, said)
		}
	}
}

// A file of the first ECS let nobody see what others run, and does not now.
func TestKeysOfAFileRunTheirOwnTasksUnlessToldOtherwise(t *testing.T) {
	var o options
	o.define(flag.NewFlagSet("", flag.ContinueOnError))
	if o.role.Value != string(access.Run) {
		t.Errorf("got the role %q", o.role.Value)
	}
}

func TestNoHtpasswdFileIsNeeded(t *testing.T) {
	_, flags := settings(t, pki.RoleControl)
	if status, said := checkConfig(append(flags, "--htpasswd", "")...); status != daemon.ExitOK {
		t.Errorf("got status %d: %s", status, said)
	}
}
