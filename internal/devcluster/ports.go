package devcluster

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"al.essio.dev/pkg/shellescape"
	"github.com/prometheus/procfs"
)

// Free ports are looked for below the range from which the kernel gives ports
// to outgoing connections, so that none of those takes one in between.
const (
	lowestPort  = 20000
	highestPort = 29999
)

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// freePorts finds n ports that nothing on this machine uses, for TCP and UDP.
func freePorts(n int) ([]int, error) {
	var held []interface{ Close() error }
	defer func() {
		for _, h := range held {
			h.Close()
		}
	}()
	var ports []int
	span := highestPort - lowestPort + 1
	start := rand.IntN(span) // clusters that start at the same time look elsewhere
	for i := 0; i < span && len(ports) < n; i++ {
		port := lowestPort + (start+i)%span
		tcp, err := net.Listen("tcp", local(port))
		if err != nil {
			continue
		}
		held = append(held, tcp)
		udp, err := net.ListenPacket("udp", local(port))
		if err != nil {
			continue
		}
		held = append(held, udp)
		ports = append(ports, port)
	}
	if len(ports) < n {
		return nil, fmt.Errorf("found %d free ports from %d to %d, want %d", len(ports), lowestPort, highestPort, n)
	}
	return ports, nil
}

// checkPort says who has a port that is to be listened on, and what to do.
func checkPort(port int) error {
	l, err := net.Listen("tcp", local(port))
	if err == nil {
		return l.Close()
	}
	if !errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("port %d cannot be used: %w; choose another with --http-port", port, err)
	}
	pid, args := listener(port)
	switch {
	case pid == 0:
		return fmt.Errorf("port %d is in use: choose another with --http-port", port)
	case filepath.Base(args[0]) == controlBinary && len(args) > 2 && args[1] == "--config":
		dir := filepath.Dir(filepath.Dir(args[2]))
		return fmt.Errorf("port %d is in use by the cluster in %s (process %d): end that with `ecsctl dev down --dir %s`, or choose another port with --http-port",
			port, dir, pid, shellescape.Quote(dir))
	}
	return fmt.Errorf("port %d is in use by process %d (%s): end that, or choose another with --http-port",
		port, pid, filepath.Base(args[0]))
}

// listener finds the process that listens on a TCP port, and its command line;
// 0 when that cannot be seen.
func listener(port int) (pid int, args []string) {
	proc, err := procfs.NewDefaultFS()
	if err != nil {
		return 0, nil
	}
	socket := listeningSocket(proc, port)
	if socket == "" {
		return 0, nil
	}
	all, err := proc.AllProcs()
	if err != nil {
		return 0, nil
	}
	for _, p := range all {
		targets, err := p.FileDescriptorTargets()
		if err != nil || !slices.Contains(targets, socket) {
			continue
		}
		if args, err := p.CmdLine(); err == nil && len(args) > 0 {
			return p.PID, args
		}
	}
	return 0, nil
}

// listeningSocket names the socket as a process's descriptors show it.
func listeningSocket(proc procfs.FS, port int) string {
	const listening = 10 // TCP_LISTEN
	four, _ := proc.NetTCP()
	six, _ := proc.NetTCP6() // absent without IPv6
	for _, line := range append(four, six...) {
		if line.LocalPort == uint64(port) && line.St == listening {
			return fmt.Sprintf("socket:[%d]", line.Inode)
		}
	}
	return ""
}
