package main

import (
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"
)

// What processes cost is read where the kernel says it.
func TestWhatAProcessCosts(t *testing.T) {
	cat := exec.Command("cat") // until its input closes
	in, err := cat.StdinPipe()
	if err == nil {
		err = cat.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		in.Close()
		_ = cat.Wait() // it is only there to be found
	}()
	pid := os.Getpid()
	if !slices.Contains(childrenOf(pid), cat.Process.Pid) || parentOf(cat.Process.Pid) != pid {
		t.Errorf("%d is not among the children %v of %d, or its parent is %d", cat.Process.Pid, childrenOf(pid), pid, parentOf(cat.Process.Pid))
	}
	if proportionalMiB(pid) <= 0 {
		t.Error("this process holds no memory")
	}
	before, began := ranFor(pid), time.Now()
	for ranFor(pid) < before+10*time.Millisecond && time.Since(began) < 10*time.Second {
	}
	if ran, took := ranFor(pid)-before, time.Since(began); ran < 10*time.Millisecond || ran > took*time.Duration(64) {
		t.Errorf("ran for %s in %s", ran, took)
	}
	if ranFor(cat.Process.Pid, 1<<30) < 0 || childrenOf(1<<30) != nil {
		t.Error("a process that is not there costs something")
	}
}
