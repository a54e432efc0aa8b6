package main

import (
	"bytes"
	"io"
	"os"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"ecs/internal/initwire"
)

// capabilityNumbers is how many capabilities there can be.
const capabilityNumbers = 64

// populate puts in place what this process has of its own file, so that an order
// does not find it missing one page fault after the other: on a virtual machine
// each takes some microseconds. The code is the page cache's, one copy for all
// containers. A kernel before 5.14 can't, and then the faults come when they come.
func populate() {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	for line := range bytes.Lines(maps) {
		if start, size, advice, ok := ofTheFile(line); ok {
			_ = onThread(unix.SYS_MADVISE, start, size, advice)
		}
	}
}

// ofTheFile says what a line of /proc/self/maps names of a file, and the advice
// that populates it.
func ofTheFile(line []byte) (start, size, advice uintptr, ok bool) {
	fields := bytes.Fields(line)
	if len(fields) < 6 || fields[5][0] != '/' {
		return 0, 0, 0, false
	}
	first, last, _ := bytes.Cut(fields[0], []byte("-"))
	from, err1 := strconv.ParseUint(string(first), 16, 64)
	to, err2 := strconv.ParseUint(string(last), 16, 64)
	if err1 != nil || err2 != nil || to <= from {
		return 0, 0, 0, false
	}
	advice = unix.MADV_POPULATE_READ
	if fields[1][1] == 'w' {
		advice = unix.MADV_POPULATE_WRITE
	}
	return uintptr(from), uintptr(to - from), advice, fields[1][0] == 'r'
}

// rehearseOrder reads an order and passes it on to nobody, so that the first one finds
// code, heap and a stack that is large enough at hand.
func rehearseOrder() {
	var frames bytes.Buffer
	o := initwire.Order{Argv: []string{"sh"}, Env: completeEnv(nil, "/", false)}
	if initwire.NewWriter(&frames).Send(initwire.Resume{}, o) != nil {
		return
	}
	in, out := initwire.NewReader(&frames), initwire.NewWriter(io.Discard)
	for {
		f, err := in.Next()
		if err != nil {
			return
		}
		if m, err := f.Message(); err == nil {
			_ = out.Send(m)
		}
	}
}

// beforehand is what the second stage knows before it has an order.
type beforehand struct {
	bounding uint64 // the capabilities that it may have to drop
	ignored  []uintptr
}

// rehearse finds out what does not depend on the order, and goes the way of an
// order as far as nothing comes of it, so that what it reads, runs and takes of
// memory is at hand.
func rehearse() beforehand {
	populate()
	var b beforehand
	for number := range capabilityNumbers {
		// What can't be found out is dropped like one that is there, so that what is
		// wrong is told. EINVAL: the kernel has no such capability.
		if set, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(number), 0, 0, 0); err == nil && set == 1 || err != nil && err != unix.EINVAL {
			b.bounding |= 1 << number
		}
	}
	for s := uintptr(1); s <= lastSignal; s++ {
		var action [4]uint64
		err := onThread(unix.SYS_RT_SIGACTION, s, 0, uintptr(unsafe.Pointer(&action)), 8)
		if err == nil && action[0] == ignore {
			b.ignored = append(b.ignored, s)
		}
	}
	// What is wrong with any of these is said to the order.
	for _, path := range []string{oomScoreAdj, "/dev/null"} {
		if fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0); err == nil {
			syscall.Close(fd)
		}
	}
	_, _ = findUser("", nil)
	_, _ = capget()
	_, _ = lookPath("/", nil)
	o := initwire.AppendOrder(nil, initwire.Order{Argv: []string{"sh"}, Env: completeEnv(nil, "/", false)})
	_, _ = initwire.ParseOrder(o)
	return b
}
