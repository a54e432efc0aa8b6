// Command prog is the program inside the test images. Each argument list is a
// script of steps separated by ";": prog print hi ; exit 3.
//
// It does one plain thing per step, so that a test can say exactly which bytes
// and which exit code it expects.
package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	for _, step := range split(os.Args[1:]) {
		if err := run(step[0], step[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "prog:", step[0]+":", err)
			os.Exit(2)
		}
	}
}

// split cuts the arguments into steps at every ";".
func split(args []string) [][]string {
	var steps [][]string
	var step []string
	for _, a := range append(args, ";") {
		if a != ";" {
			step = append(step, a)
			continue
		}
		if len(step) > 0 {
			steps = append(steps, step)
		}
		step = nil
	}
	return steps
}

func run(name string, args []string) error {
	if do := one[name]; do != nil {
		if len(args) != 1 {
			return fmt.Errorf("got %d words, want 1", len(args))
		}
		return do(args[0])
	}
	if do := many[name]; do != nil {
		return do(args)
	}
	return fmt.Errorf("no such step")
}

// one are the steps that take one word.
var one = map[string]func(string) error{
	"exit": func(code string) error {
		n, err := strconv.Atoi(code)
		if err == nil {
			os.Exit(n)
		}
		return err
	},
	"lines":     lines,
	"spew":      func(n string) error { return spew(os.Stdout, n) },
	"alloc":     alloc,
	"burn":      burn,
	"sleep":     sleep,
	"signal":    raise,
	"trap":      trap,
	"heartbeat": heartbeat,
	"connect":   connect,
	"listen":    listen,
}

// many are the steps that take any number of words.
var many = map[string]func([]string) error{
	"print":  func(words []string) error { return write(os.Stdout, strings.Join(words, " ")) },
	"eprint": func(words []string) error { return write(os.Stderr, strings.Join(words, " ")) },
	"echo":   func(words []string) error { return write(os.Stdout, strings.Join(words, " ")+"\n") },
	"args":   func(words []string) error { return write(os.Stdout, fmt.Sprintf("%q\n", words)) },
	"bytes":  func([]string) error { return everyByte(os.Stdout) },
	"oom":    func([]string) error { return alloc(strconv.Itoa(1 << 40)) }, // ends long before
	"env":    func([]string) error { return write(os.Stdout, strings.Join(os.Environ(), "\n")+"\n") },
	"id":     func([]string) error { return id(os.Stdout) },
	"addrs":  func([]string) error { return addrs(os.Stdout) },
	"cat":    cat,
	"orphan": orphan,
	"pwd": func([]string) error {
		dir, err := os.Getwd()
		if err != nil {
			return err
		}
		return write(os.Stdout, dir+"\n")
	},
	"hostname": func([]string) error {
		host, err := os.Hostname()
		if err != nil {
			return err
		}
		return write(os.Stdout, host+"\n")
	},
}

func write(w io.Writer, text string) error {
	_, err := io.WriteString(w, text)
	return err
}

// everyByte writes 0 to 255, no newline at the end.
func everyByte(w io.Writer) error {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	_, err := w.Write(all)
	return err
}

// lines writes n numbered lines, even ones to stdout and odd ones to stderr.
func lines(count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	for i := range n {
		w := os.Stdout
		if i%2 == 1 {
			w = os.Stderr
		}
		if _, err := fmt.Fprintf(w, "line %d\n", i); err != nil {
			return err
		}
	}
	return nil
}

// spew writes n bytes; byte i is i mod 251, so that a lost piece shows.
func spew(w io.Writer, count string) error {
	n, err := strconv.ParseInt(count, 10, 64)
	if err != nil {
		return err
	}
	const period = 251
	block := make([]byte, period*256)
	for i := range block {
		block[i] = byte(i % period)
	}
	for n > 0 {
		k := min(n, int64(len(block)))
		if _, err := w.Write(block[:k]); err != nil {
			return err
		}
		n -= k
	}
	return nil
}

// alloc takes n bytes and touches every page, 1 MiB at a time.
func alloc(count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	var held [][]byte
	for n > 0 {
		piece := make([]byte, min(n, 1<<20))
		for i := 0; i < len(piece); i += 4096 {
			piece[i] = 1
		}
		held = append(held, piece)
		n -= len(piece)
	}
	runtime.KeepAlive(held)
	return nil
}

// burn keeps one core busy for as long as it says.
func burn(d string) error {
	span, err := time.ParseDuration(d)
	if err != nil {
		return err
	}
	for end := time.Now().Add(span); time.Now().Before(end); {
	}
	return nil
}

func sleep(d string) error {
	span, err := time.ParseDuration(d)
	if err != nil {
		return err
	}
	time.Sleep(span)
	return nil
}

var signals = map[string]syscall.Signal{
	"HUP": syscall.SIGHUP, "INT": syscall.SIGINT, "KILL": syscall.SIGKILL,
	"TERM": syscall.SIGTERM, "USR1": syscall.SIGUSR1,
}

func raise(name string) error {
	sig, ok := signals[strings.TrimPrefix(name, "SIG")]
	if !ok {
		return fmt.Errorf("unknown signal %q", name)
	}
	if err := syscall.Kill(os.Getpid(), sig); err != nil {
		return err
	}
	select {} // the signal ends it
}

// trap waits for SIGTERM, says so and goes on; without one it fails after d.
func trap(d string) error {
	span, err := time.ParseDuration(d)
	if err != nil {
		return err
	}
	got := make(chan os.Signal, 1)
	signal.Notify(got, syscall.SIGTERM)
	if err := write(os.Stdout, "ready\n"); err != nil {
		return err
	}
	select {
	case <-got:
		return write(os.Stdout, "got SIGTERM\n")
	case <-time.After(span):
		return fmt.Errorf("no SIGTERM in %s", span)
	}
}

// id prints who it is and what it may do: the lines of /proc/self/status that
// tell.
func id(w io.Writer) error {
	status, err := os.Open("/proc/self/status")
	if err != nil {
		return err
	}
	defer status.Close()
	for in := bufio.NewScanner(status); in.Scan(); {
		switch name, _, _ := strings.Cut(in.Text(), ":"); name {
		case "Pid", "Uid", "Gid", "Groups", "CapEff", "CapPrm", "CapBnd", "NoNewPrivs", "Seccomp":
			if _, err := fmt.Fprintln(w, in.Text()); err != nil {
				return err
			}
		}
	}
	return nil
}

func cat(files []string) error {
	if len(files) == 0 {
		_, err := io.Copy(os.Stdout, os.Stdin)
		return err
	}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		_, err = io.Copy(os.Stdout, f)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// heartbeat appends the wall clock in nanoseconds to a file, every 10 ms until
// it is killed; "-" is stdout.
func heartbeat(name string) error {
	out := os.Stdout
	if name != "-" {
		f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
		if err != nil {
			return err
		}
		defer f.Close()
		out = f
	}
	for range time.Tick(10 * time.Millisecond) {
		if _, err := fmt.Fprintln(out, time.Now().UnixNano()); err != nil {
			return err
		}
	}
	return nil
}

// connect says whether a TCP address can be reached within 2 s.
func connect(addr string) error {
	c, err := net.DialTimeout("tcp", addr, 2*time.Second)
	if err != nil {
		return write(os.Stdout, "refused: "+err.Error()+"\n")
	}
	c.Close()
	return write(os.Stdout, "connected\n")
}

// listen takes TCP connections until it is killed.
func listen(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := write(os.Stdout, "listening\n"); err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		c.Close()
	}
}

func addrs(w io.Writer) error {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return err
	}
	for _, a := range all {
		if _, err := fmt.Fprintln(w, a); err != nil {
			return err
		}
	}
	return nil
}

// orphan starts prog again with the given steps, sharing its output, and does
// not wait for it.
func orphan(steps []string) error {
	c := exec.Command("/proc/self/exe", strings.Split(strings.Join(steps, " "), " ")...)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	return c.Start()
}
