package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == janitorCommand {
		os.Exit(run(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// A run that is gone without a word leaves nothing: neither processes nor
// namespaces, bridges and rules.
func TestTheJanitorRemovesWhatARunLeft(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	tag := fmt.Sprintf("ecjt%d", os.Getpid()%10000) // of no real run
	j, err := startJanitor(t.TempDir(), tag, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range [][]string{
		{"ip", "netns", "add", tag + "p1"},
		{"ip", "link", "add", tag + "br", "type", "bridge"},
		{"iptables", "-w", "10", "-I", "FORWARD", "-i", tag + "br", "-o", tag + "br", "-j", "ACCEPT"},
	} {
		if err := command(step...); err != nil {
			t.Error(err)
		}
	}
	args := (&network{tag: tag}).inside("p1", "sleep", "1000")
	process := exec.Command(args[0], args[1:]...)
	if err := process.Start(); err != nil {
		t.Error(err)
	}
	within, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := until(within, "its process in the namespace", func() bool {
		out, err := outputOf("ip", "netns", "pids", tag+"p1")
		return err == nil && strings.TrimSpace(out) != ""
	}); err != nil {
		t.Error(err)
	}
	if err := j.close(t.Context()); err != nil {
		t.Error(err)
	}
	if process.Process != nil {
		_ = process.Wait() // it ends only if it was killed
		if s, ok := process.ProcessState.Sys().(syscall.WaitStatus); !ok || s.Signal() != syscall.SIGKILL {
			t.Errorf("its process ended by %v, want SIGKILL", process.ProcessState)
		}
	}
	for _, look := range [][]string{{"ip", "netns", "list"}, {"ip", "-o", "link"}, {"iptables", "-w", "10", "-S", "FORWARD"}} {
		if out, err := outputOf(look...); err != nil || strings.Contains(out, tag) {
			t.Errorf("%s: got %v and %s, want nothing of %s", look, err, out, tag)
		}
	}
	if err := sweep(t.Context(), tag, false); err != nil {
		t.Errorf("once more: %v, want that to be no error", err)
	}
}

func TestOnlyWhatIsOfARunIsRemoved(t *testing.T) {
	rules := "-P FORWARD ACCEPT\n-A FORWARD -i ecsx1br -o ecsx1br -j ACCEPT\n-A FORWARD -i docker0 -o ecsx1br -j DROP\n-A FORWARD -j DOCKER\n"
	if got, want := forwards(rules, "ecsx"), [][]string{{"FORWARD", "-i", "ecsx1br", "-o", "ecsx1br", "-j", "ACCEPT"}}; !reflect.DeepEqual(got, want) {
		t.Errorf("got rules %q, want %q", got, want)
	}
	links := "1: docker0: <UP> mtu 1500\n7: ecsx1br: <UP> mtu 1500\n8: ecsx2br@if3: <UP>\n\n"
	if got, want := linksOf(links, "ecsx"), []string{"ecsx1br", "ecsx2br"}; !slices.Equal(got, want) {
		t.Errorf("got links %q, want %q", got, want)
	}
}
