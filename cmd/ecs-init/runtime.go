package main

import (
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"unsafe"
)

// spareThreads is how many threads are made before the program runs: the loop's,
// the reaper's, the signals', one for the garbage collector, and reserve. A
// runtime that can't make a thread it needs ends the process.
const spareThreads = 6

// tuneRuntime makes the Go runtime small, and complete.
func tuneRuntime() {
	runtime.GOMAXPROCS(1)
	// The heap is tiny, and the collector's floor shrinks with it, to 0.8 MiB. With
	// half of that the collector was seen to run beside a short program's end.
	debug.SetGCPercent(20)
	makeThreads(spareThreads)
}

// makeThreads makes n threads, by holding n goroutines in a system call each at
// the same time. The runtime keeps them.
func makeThreads(n int) {
	var gate [2]int
	if syscall.Pipe2(gate[:], syscall.O_CLOEXEC) != nil {
		return
	}
	var held, done sync.WaitGroup
	for range n {
		held.Add(1)
		done.Go(func() {
			// A locked thread is this goroutine's alone until it unlocks.
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			held.Done()
			_, _ = syscall.Read(gate[0], make([]byte, 1))
		})
	}
	held.Wait()
	syscall.Close(gate[1])
	done.Wait()
	syscall.Close(gate[0])
}

// forwardSignals passes on what somebody outside sends PID 1 for the program, like
// `docker stop`. It also takes what would end a Go process.
//
// A program that runs as root can send PID 1 any signal by way of F_SETOWN and
// F_SETSIG, capabilities or not, and Go's runtime takes those of the faults for
// real and ends. The kernel keeps from the first process of a namespace what has
// no handler, unless it is real. So they have none.
func forwardSignals(send func(syscall.Signal)) {
	incoming := make(chan os.Signal, 16)
	signal.Notify(incoming, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGABRT, syscall.SIGALRM)
	for _, s := range []syscall.Signal{syscall.SIGILL, syscall.SIGTRAP, syscall.SIGBUS, syscall.SIGFPE, syscall.SIGSEGV,
		syscall.SIGSTKFLT, syscall.SIGSYS, syscall.SIGIO, syscall.SIGURG} {
		dropHandler(s)
	}
	// It ends with the process, like the reaper.
	go func() {
		for s := range incoming {
			switch number := s.(syscall.Signal); number {
			case syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2:
				send(number)
			}
		}
	}()
}

// dropHandler takes the runtime's own handler of a signal away.
func dropHandler(s syscall.Signal) {
	var none [4]uint64 // SIG_DFL, no flags, nothing masked
	_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(&none)), 0, 8, 0, 0)
}
