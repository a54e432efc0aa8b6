package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"ecs/proto/api"
)

// cat prints what it reads and exits at the end.
func cat() func(string, bool) (string, bool) {
	printed := 0
	return func(all string, end bool) (string, bool) {
		news := all[printed:]
		printed = len(all)
		return news, end
	}
}

func TestWhatIsPipedInComesOut(t *testing.T) {
	s := newService(t)
	s.task = finishedTask(api.OutcomeExited, 3)
	s.runs(t, cat())
	text := strings.Repeat("0123456789abcdef", 100_000)
	i := invoke(s)
	i.stdin = strings.NewReader(text)
	if status := i.main([]string{"run", "-i", "busybox", "cat"}); status != 3 || i.out.String() != text || i.err.String() != "" {
		t.Errorf("got status %d, %d bytes, %q, want 3 and all %d", status, len(i.out.String()), i.err, len(text))
	}
	if q := s.submitted[0]; !q.OpenStdin || q.TTY {
		t.Errorf("got %+v submitted, want stdin open", q)
	}
}

func TestLostConnectionsLoseAndDoubleNothing(t *testing.T) {
	s, other := newService(t), newService(t)
	p := s.runs(t, cat())
	p.drops = 3
	other.program, other.state = p, api.StateFinished // the same cluster, asked at the end
	text := strings.Repeat("0123456789", 30_000)
	i := invoke(s, "ECS_ENDPOINT="+s.URL+","+other.URL)
	i.stdin = strings.NewReader(text)
	status := i.main([]string{"run", "-i", "busybox", "cat"})
	if status != 0 || i.out.String() != text || !strings.Contains(i.err.String(), "the connection was lost, attaching again") {
		t.Errorf("got status %d, %d bytes, %q, want all %d, and a word", status, len(i.out.String()), i.err, len(text))
	}
	if len(p.queries) != 4 {
		t.Errorf("got connections %q, want 4", p.queries)
	}
}

func TestTerminalIsAskedFor(t *testing.T) {
	s := newService(t)
	for _, args := range [][]string{{"run", "-t", "busybox"}, {"run", "-it", "busybox", "sh"}} {
		i := invoke(s)
		if status := i.main(args); status != exitService || !strings.Contains(i.err.String(), "the input device is not a TTY") {
			t.Errorf("%v: got status %d, %q", args, status, i.err)
		}
	}
	s.state, s.task.State, s.task.Spec.TTY = api.StateFinished, api.StateRunning, true
	i := invoke(s)
	if status := i.main([]string{"attach", "t1"}); status != exitUsage || !strings.Contains(i.err.String(), "not a TTY") {
		t.Errorf("attach: got status %d, %q", status, i.err)
	}
	if len(s.submitted) != 0 {
		t.Errorf("got %d tasks submitted, want none", len(s.submitted))
	}
	i = invoke(s)
	if status := i.main([]string{"run", "-itd", "busybox", "sh"}); status != 0 || i.out.String() != "t1\n" {
		t.Errorf("detached: got status %d, %q, want no terminal needed", status, i.err)
	}
}

func TestCtrlCWithoutATerminalCancels(t *testing.T) {
	s := newService(t)
	p := s.runs(t, nil)
	s.hold = make(chan struct{})
	in, typing, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer typing.Close() // it stays open: the reading of it must be given up
	i := invoke(s)
	i.stdin = in
	ended := make(chan int)
	go func() { ended <- i.main([]string{"run", "-i", "busybox"}) }()
	if _, err := typing.WriteString("typed"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "it is typed", func() bool { in, _ := p.typed(); return in == "typed" })
	i.signals <- os.Interrupt
	<-s.hold
	p.print("", true)
	if status := <-ended; status != exitCancelled {
		t.Errorf("got status %d, want %d", status, exitCancelled)
	}
}

// pty is a terminal with a person in front of it.
type pty struct {
	t             *testing.T
	person, slave *os.File
	before        *term.State
	seen          *written
}

// newPTY makes i's terminal one.
func newPTY(t *testing.T, i *invocation) *pty {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	if err := unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := &pty{t: t, person: person, slave: slave, seen: new(written)}
	if p.before, err = term.GetState(int(slave.Fd())); err != nil {
		t.Fatal(err)
	}
	p.size(24, 80)
	var reading sync.WaitGroup
	reading.Go(func() {
		b := make([]byte, 4096)
		for {
			n, err := person.Read(b)
			_, _ = p.seen.Write(b[:n])
			if err != nil {
				return
			}
		}
	})
	t.Cleanup(func() { _ = slave.Close(); reading.Wait(); _ = person.Close() })
	i.stdin, i.stdout, i.stderr = slave, slave, slave
	return p
}

func (p *pty) size(rows, cols uint16) {
	p.t.Helper()
	if err := unix.IoctlSetWinsize(int(p.slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}); err != nil {
		p.t.Fatal(err)
	}
}

func (p *pty) press(keys string) {
	p.t.Helper()
	if _, err := p.person.WriteString(keys); err != nil {
		p.t.Fatal(err)
	}
}

func (p *pty) restored() bool {
	p.t.Helper()
	now, err := term.GetState(int(p.slave.Fd()))
	if err != nil {
		p.t.Fatal(err)
	}
	return reflect.DeepEqual(now, p.before)
}

func (p *pty) shows(text string) func() bool {
	return func() bool { return strings.Contains(p.seen.String(), text) }
}

func TestTerminalIsTheProgramsUntilItEnds(t *testing.T) {
	s := newService(t)
	s.task = finishedTask(api.OutcomeExited, 5)
	p := s.runs(t, nil)
	i := invoke(s)
	tty := newPTY(t, i)
	p.print("$ ", false)
	ended := make(chan int)
	go func() { ended <- i.main([]string{"run", "-it", "busybox", "sh"}) }()
	waitFor(t, "the prompt", tty.shows("$ "))
	tty.press("a\x03\x04\x10b\r")
	waitFor(t, "every key is the program's", func() bool { in, end := p.typed(); return in == "a\x03\x04\x10b\r" && !end })
	if tty.restored() {
		t.Error("the terminal is not raw while the program has it")
	}
	tty.size(50, 132)
	if err := syscall.Kill(os.Getpid(), syscall.SIGWINCH); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the new size", func() bool {
		return strings.Join(p.told(), " ") == `{"resize":{"rows":24,"cols":80}} {"resize":{"rows":50,"cols":132}}`
	})
	p.print("\r\nbye\r\n", true)
	if status := <-ended; status != 5 || !tty.restored() {
		t.Errorf("got status %d, restored %v, want 5 and the terminal as it was", status, tty.restored())
	}
	if q := s.submitted[0]; !q.OpenStdin || !q.TTY {
		t.Errorf("got %+v submitted", q)
	}
	if s.cancelled != 0 {
		t.Error("Ctrl-C cancelled the task, want it to be the program's")
	}
}

func TestTaskIsLeftAndComeBackTo(t *testing.T) {
	s := newService(t)
	s.task = finishedTask(api.OutcomeExited, 9)
	p := s.runs(t, nil)
	p.print("before\r\n$ \x1b[6n", false)
	i := invoke(s)
	tty := newPTY(t, i)
	ended := make(chan int)
	go func() { ended <- i.main([]string{"run", "-it", "busybox", "sh"}) }()
	waitFor(t, "the prompt", tty.shows("$ "))
	tty.press("\x10\x11")
	if status := <-ended; status != 0 || !tty.restored() {
		t.Errorf("got status %d, restored %v, want 0 and the terminal as it was", status, tty.restored())
	}
	waitFor(t, "how to come back", tty.shows("ecsctl attach t1"))

	s.mu.Lock()
	s.state, s.task.State = api.StateFinished, api.StateRunning
	s.task.Spec.TTY, s.task.Spec.OpenStdin, s.task.Attempts = true, true, []api.Attempt{{Number: 1}}
	s.output = map[string]string{api.Stdout: "before\r\n$ \x1b[6n"}
	s.mu.Unlock()
	back := invoke(s)
	again := newPTY(t, back)
	go func() { ended <- back.main([]string{"attach", "t1"}) }()
	waitFor(t, "the prompt again", again.shows("$ "))
	again.press("x")
	waitFor(t, "what is typed", func() bool { in, _ := p.typed(); return in == "x" })
	s.mu.Lock()
	s.task = finishedTask(api.OutcomeExited, 9)
	s.mu.Unlock()
	p.print("after", true)
	if status := <-ended; status != 9 || !again.restored() {
		t.Errorf("got status %d, restored %v, want 9", status, again.restored())
	}
	waitFor(t, "the line it was left in and what is new", func() bool { return again.seen.String() == "$ after" })
}

func TestCtrlCBeforeThereIsAProgramCancels(t *testing.T) {
	s := newService(t)
	p := s.runs(t, nil)
	p.waiting = "all nodes are full"
	s.hold = make(chan struct{})
	i := invoke(s)
	tty := newPTY(t, i)
	ended := make(chan int)
	go func() { ended <- i.main([]string{"run", "-it", "busybox", "sh"}) }()
	waitFor(t, "why it waits", tty.shows("all nodes are full\r\n"))
	tty.press("\x03")
	<-s.hold
	p.print("", true)
	if status := <-ended; status != exitCancelled || !tty.restored() {
		t.Errorf("got status %d, restored %v, want %d", status, tty.restored(), exitCancelled)
	}
}

func TestTerminalIsSetBackWhenTheServiceGoesAway(t *testing.T) {
	s := newService(t)
	p := s.runs(t, nil)
	i := invoke(s)
	tty := newPTY(t, i)
	ended := make(chan int)
	go func() { ended <- i.main([]string{"run", "-it", "busybox", "sh"}) }()
	waitFor(t, "the size is told", func() bool { return len(p.told()) == 1 })
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if status := <-ended; status != exitService || !tty.restored() {
		t.Errorf("got status %d, restored %v, want %d", status, tty.restored(), exitService)
	}
}

func TestFirstCtrlCOfAnOutputTerminalIsTheProgramsAsASignal(t *testing.T) {
	s := newService(t)
	p := s.runs(t, nil)
	i := invoke(s)
	newPTY(t, i)
	ended := make(chan int)
	go func() { ended <- i.main([]string{"run", "-t", "busybox", "top"}) }()
	waitFor(t, "the size is told", func() bool { return len(p.told()) == 1 })
	i.signals <- os.Interrupt
	waitFor(t, "the signal", func() bool { return strings.Contains(strings.Join(p.told(), " "), `{"signal":"INT"}`) })
	p.print("", true)
	if status := <-ended; status != 0 || s.cancelled != 0 {
		t.Errorf("got status %d, cancelled %d times, want neither", status, s.cancelled)
	}
}

func TestKeysToLeaveByAreTakenOut(t *testing.T) {
	for _, tc := range []struct {
		typed []string
		want  string
		left  bool
	}{
		{[]string{"ab\x10\x11c"}, "", true}, {[]string{"a\x10", "\x11"}, "a", true}, {[]string{"\x10", "\x10", "\x11"}, "\x10", true},
		{[]string{"\x10a"}, "\x10a", false}, {[]string{"\x11"}, "\x11", false}, {[]string{"\x10", "b", "\x11"}, "\x10b\x11", false},
	} {
		k := keyboard{detach: func() {}, interrupt: func() bool { return false }}
		var got bytes.Buffer
		left := false
		for _, typed := range tc.typed {
			rest, leave := k.filter([]byte(typed))
			got.Write(rest)
			left = left || leave
		}
		if left != tc.left || got.String() != tc.want {
			t.Errorf("%q: got %q, left %v, want %q, %v", tc.typed, got.String(), left, tc.want, tc.left)
		}
	}
}

func TestLocalFilesGoAlong(t *testing.T) {
	dir := t.TempDir()
	odd := filepath.Join(dir, "a:b c")
	if err := os.WriteFile(odd, []byte("text\n"), 0o750); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "binary")
	if err := os.WriteFile(binary, []byte{0xff, 0}, 0o600); err != nil {
		t.Fatal(err)
	}
	s := newService(t)
	i := invoke(s)
	if status := i.main([]string{"run", "-d", "--file", odd + ":/x/y", "--file", binary + ":/z:0444", "busybox"}); status != 0 {
		t.Fatalf("got status %d: %s", status, i.err)
	}
	want := []api.File{{Path: "/x/y", Mode: "0750", Content: api.Content{Encoding: "utf-8", Data: "text\n"}},
		{Path: "/z", Mode: "0444", Content: api.Content{Encoding: "base64", Data: "/wA="}}}
	if got := s.submitted[0].Files; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	huge := filepath.Join(dir, "huge")
	if err := os.WriteFile(huge, make([]byte, api.MaxBodyV2+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for flag, says := range map[string]string{odd: "SRC:DST", odd + ":relative": "SRC:DST", dir + ":/x": "regular", filepath.Join(dir, "none") + ":/x": "no such file",
		huge + ":/x": "256.0 KiB"} {
		i := invoke(s)
		if status := i.main([]string{"run", "-d", "--file", flag, "busybox"}); status != exitService || !strings.Contains(i.err.String(), says) {
			t.Errorf("%s: got status %d, %q, want it to say %q", flag, status, i.err, says)
		}
	}
}
