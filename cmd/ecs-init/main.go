// Command ecs-init is PID 1 of every task's container. It is put there by an
// agent, which tells it what to run over a unix socket (package initwire), and
// runs nothing else.
//
// PID 1 moves to a user of its own that no task may have, so that the program
// can neither signal nor trace nor slow it, and starts the second stage of the
// same binary, which waits. An order goes to the second stage, which gives up
// every privilege, becomes the task's user and executes the program in its own
// place. PID 1 then moves bytes in one loop around poll, and one goroutine
// reaps. Nothing here may need a new thread once the program runs, because the
// program may have used up the container's pids.
package main

import (
	"os"
	"syscall"

	"ecs/internal/initwire"
)

// secondStage is the argument that makes a process the second stage.
const secondStage = "stage2"

// Exit codes of PID 1, for people who look at the engine.
const (
	exitDone   = 0  // the agent has the result
	exitLapsed = 3  // the lease was over first
	exitRefuse = 64 // not started as PID 1 of a container
	exitFault  = 70 // the container lacks something that init needs
)

func main() {
	switch {
	case len(os.Args) == 2 && os.Args[1] == secondStage && os.Getppid() == 1 && isSocket(stageFD):
		becomeProgram()
	case len(os.Args) == 1 && os.Getpid() == 1:
		os.Exit(supervise())
	default:
		complain("ecs-init is for the inside of a container, where an agent starts it as " + initwire.Path)
		os.Exit(exitRefuse)
	}
}

// supervise is the life of PID 1.
func supervise() int {
	nonce := os.Getenv(initwire.NonceEnv)
	if err := os.Unsetenv(initwire.NonceEnv); err != nil {
		return fault("forget the nonce", err)
	}
	tuneRuntime()
	p, err := newPID1(nonce)
	if err != nil {
		return fault("set up", err)
	}
	populate()
	return p.run()
}

func fault(doing string, err error) int {
	complain("ecs-init: " + doing + ": " + err.Error())
	return exitFault
}

func complain(text string) { _, _ = os.Stderr.WriteString(text + "\n") }

func isSocket(fd int) bool {
	var st syscall.Stat_t
	return syscall.Fstat(fd, &st) == nil && st.Mode&syscall.S_IFMT == syscall.S_IFSOCK
}
