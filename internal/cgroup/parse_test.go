package cgroup

import (
	"slices"
	"testing"
)

func TestDirectoriesOfAProcess(t *testing.T) {
	for text, want := range map[string][]string{
		"9:name=systemd:/\n8:pids:/docker/x\n6:freezer:/docker/x\n0::/\n": {Root + "/pids/docker/x", Root + "/freezer/docker/x", Root},
		"0::/system.slice/docker-x.scope\n":                               {Root + "/system.slice/docker-x.scope"},
		"8:pids:/../x\n0::/a:b\n":                                         {Root + "/a:b"},
		"garbage\n":                                                       nil,
	} {
		if got := candidates(text); !slices.Equal(got, want) {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
	}
}

func TestSiblingOnlyBelowTheRoot(t *testing.T) {
	for _, dir := range []string{"/tmp/x", Root, Root + "/pids", Root + "/pids/no/such"} {
		if got := sibling(dir, "freezer"); got != "" && dir != Root+"/pids" {
			t.Errorf("%s: got %s, want none", dir, got)
		}
	}
}
