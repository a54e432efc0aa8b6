package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// program is what the test binary does as a program in the container.
func program(args []string) {
	switch args[0] {
	case "subreaper":
		_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
		_ = exec.Command("sh", "-c", "sleep 1000 &").Run()
		select {}
	case "bomb":
		bomb()
	case "numbers":
		numbers(args[1])
	case "bytes":
		n, _ := strconv.ParseInt(args[1], 10, 64)
		_, _ = io.CopyN(os.Stdout, zeros{}, n)
	case "attack":
		signalByIO()
		attack()
	case "traced":
		traced()
	case "winsize":
		winsize()
	case "swallow": // closes its input after some bytes
		_, _ = io.ReadFull(os.Stdin, make([]byte, 10))
		os.Stdin.Close()
		fmt.Println("closed")
		time.Sleep(time.Hour)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// bomb forks as fast as it can, for ever, without a runtime that would need threads.
func bomb() {
	signal.Ignore(syscall.SIGTERM, syscall.SIGHUP)
	for {
		pid, _, _ := syscall.RawSyscall(syscall.SYS_FORK, 0, 0, 0)
		if pid == 0 {
			for {
				_, _, _ = syscall.RawSyscall(syscall.SYS_FORK, 0, 0, 0)
			}
		}
	}
}

// numbers writes numbered lines to stdout and other ones to stderr.
func numbers(to string) {
	n, _ := strconv.Atoi(to)
	out, errs := bufio.NewWriter(os.Stdout), bufio.NewWriter(os.Stderr)
	for i := range n {
		fmt.Fprintf(out, "line %d\n", i)
		if i%7 == 0 {
			fmt.Fprintf(errs, "note %d\n", i)
		}
	}
	out.Flush()
	errs.Flush()
}

func expected(n int) (stdout, stderr []byte) {
	var out, errs bytes.Buffer
	for i := range n {
		fmt.Fprintf(&out, "line %d\n", i)
		if i%7 == 0 {
			fmt.Fprintf(&errs, "note %d\n", i)
		}
	}
	return out.Bytes(), errs.Bytes()
}

// signalByIO sends PID 1 signals that the kernel lets root send without any
// capability. Whether they do harm shows in PID 1's going on.
func signalByIO() {
	for _, s := range []syscall.Signal{syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGILL, syscall.SIGFPE, syscall.SIGTRAP,
		syscall.SIGSYS, syscall.SIGSTKFLT, syscall.SIGURG, syscall.SIGIO, syscall.SIGKILL, syscall.SIGSTOP} {
		pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
		if err != nil {
			fmt.Println(err)
			return
		}
		_, _ = unix.FcntlInt(uintptr(pair[0]), unix.F_SETOWN, 1)
		_, _ = unix.FcntlInt(uintptr(pair[0]), unix.F_SETSIG, int(s))
		_, _ = unix.FcntlInt(uintptr(pair[0]), unix.F_SETFL, unix.O_ASYNC)
		_, _ = syscall.Write(pair[1], []byte("x"))
		syscall.Close(pair[0])
		syscall.Close(pair[1])
	}
}

func init() {
	if len(os.Args) > 1 && os.Args[1] == "traced" {
		runtime.LockOSThread() // the first thread is the one that is waited for
	}
}

// traced asks to be traced by PID 1, and stops.
func traced() {
	_, _, _ = syscall.RawSyscall(unix.SYS_PTRACE, unix.PTRACE_TRACEME, 0, 0)
	fmt.Println("stopping")
	_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	fmt.Println("went on")
}

// attack tries all that could stop PID 1 from doing its work.
func attack() {
	try := func(name string, trap uintptr, args ...uintptr) {
		var a [6]uintptr
		copy(a[:], args)
		_, _, errno := syscall.RawSyscall6(trap, a[0], a[1], a[2], a[3], a[4], a[5])
		fmt.Printf("%s %d\n", name, int(errno))
	}
	for _, s := range []syscall.Signal{0, syscall.SIGHUP, syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGTERM, syscall.SIGSEGV, syscall.SIGQUIT} {
		try("kill", unix.SYS_KILL, 1, uintptr(s))
	}
	try("ptrace attach", unix.SYS_PTRACE, unix.PTRACE_ATTACH, 1)
	try("ptrace seize", unix.SYS_PTRACE, unix.PTRACE_SEIZE, 1)
	var param int32
	idle := uintptr(5) // SCHED_IDLE
	try("scheduler", unix.SYS_SCHED_SETSCHEDULER, 1, idle, uintptr(unsafe.Pointer(&param)))
	var mask uint64 = 1
	try("affinity", unix.SYS_SCHED_SETAFFINITY, 1, 8, uintptr(unsafe.Pointer(&mask)))
	try("nice", unix.SYS_SETPRIORITY, 0, 1, 19)
	var limit = unix.Rlimit{Cur: 1, Max: 1}
	try("prlimit", unix.SYS_PRLIMIT64, 1, unix.RLIMIT_CPU, uintptr(unsafe.Pointer(&limit)))
	try("ioprio", unix.SYS_IOPRIO_SET, 1, 1, 3<<13)
	var word uint64
	local := unix.Iovec{Base: (*byte)(unsafe.Pointer(&word)), Len: 8}
	remote := local
	try("read memory", unix.SYS_PROCESS_VM_READV, 1, uintptr(unsafe.Pointer(&local)), 1, uintptr(unsafe.Pointer(&remote)), 1, 0)
	try("write memory", unix.SYS_PROCESS_VM_WRITEV, 1, uintptr(unsafe.Pointer(&local)), 1, uintptr(unsafe.Pointer(&remote)), 1, 0)
	slack := []byte("1000000000")
	if fd, err := syscall.Open("/proc/1/timerslack_ns", syscall.O_WRONLY, 0); err == nil { // everybody may open it
		try("timer slack", unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&slack[0])), uintptr(len(slack)))
	}
	for _, path := range []string{"/proc/1/mem", "/proc/1/environ", "/proc/1/fd/0", "/proc/1/oom_score_adj", "/proc/1/root", "/proc/1/cwd",
		"/proc/1/coredump_filter", "/proc/1/autogroup", "/proc/1/comm", "/proc/1/setgroups", "/proc/1/uid_map", "/.ecs/init", "/.ecs/s"} {
		flags := os.O_RDWR
		if path == "/proc/1/environ" || path == "/proc/1/root" || path == "/proc/1/cwd" {
			flags = os.O_RDONLY
		}
		f, err := os.OpenFile(path, flags, 0)
		if err == nil {
			f.Close()
			fmt.Printf("open %s 0\n", path)
		} else {
			fmt.Printf("open %s 1\n", path)
		}
	}
}

// winsize says the terminal's size whenever it changes.
func winsize() {
	changed := make(chan os.Signal, 8)
	signal.Notify(changed, syscall.SIGWINCH)
	for {
		ws, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%dx%d\n", ws.Row, ws.Col)
		if ws.Row == 50 {
			return
		}
		<-changed
	}
}
