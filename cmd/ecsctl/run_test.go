package main

import (
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"ecs/proto/api"
)

func TestRunShowsBothStreamsAndExitsAsTheProgram(t *testing.T) {
	s := newService(t)
	s.task = finishedTask(api.OutcomeExited, 42)
	s.events = []api.Event{stateEvent(api.StatePending), outputEvent(1, api.Stdout, 0, "one "), outputEvent(1, api.Stderr, 0, "oops"),
		outputEvent(1, api.Stdout, 4, "two")}
	i := invoke(s)
	if status := i.main([]string{"run", "busybox", "sh", "-c", "exit 42"}); status != 42 {
		t.Errorf("got status %d, want 42", status)
	}
	if i.out.String() != "one two" || i.err.String() != "oops" {
		t.Errorf("got %q and %q, want the program's output and nothing else", i.out, i.err)
	}
	if got := s.submitted[0]; got.Image != "busybox:latest" || !reflect.DeepEqual(got.Command, []string{"sh", "-c", "exit 42"}) {
		t.Errorf("got image %s and command %q", got.Image, got.Command)
	}
}

func TestOutputSeenTwiceIsShownOnce(t *testing.T) {
	s := newService(t)
	s.events = []api.Event{outputEvent(1, api.Stdout, 0, "abc"), outputEvent(1, api.Stdout, 0, "abcdef"), outputEvent(1, api.Stdout, 2, "cd")}
	i := invoke(s)
	if status := i.main([]string{"run", "busybox"}); status != 0 || i.out.String() != "abcdef" {
		t.Errorf("got status %d, %q, want 0, abcdef", status, i.out)
	}
}

func TestLaterAttemptStartsItsOutputAgainAndThatIsSaid(t *testing.T) {
	s := newService(t)
	s.events = []api.Event{outputEvent(1, api.Stdout, 0, "first"), outputEvent(2, api.Stdout, 0, "second"), outputEvent(1, api.Stdout, 5, "late")}
	i := invoke(s)
	i.main([]string{"run", "busybox"})
	if i.out.String() != "firstsecond" || !strings.Contains(i.err.String(), "attempt 1 is over") {
		t.Errorf("got %q and %q, want both attempts' output and a word about it", i.out, i.err)
	}
}

func TestOutputThatTheEventsLackIsFetched(t *testing.T) {
	s := newService(t)
	s.task.Stdout = &api.Stream{Bytes: 10, Kept: 6, Truncated: true}
	s.output = map[string]string{api.Stdout: "abcdef"}
	i := invoke(s)
	i.main([]string{"run", "busybox"})
	if i.out.String() != "abcdef" || !strings.Contains(i.err.String(), "stdout was cut: 6 bytes of 10 bytes") {
		t.Errorf("got %q and %q, want the output and that it was cut", i.out, i.err)
	}
}

func TestExitStatusSaysHowTheTaskEnded(t *testing.T) {
	for _, tc := range []struct {
		outcome, reason string
		want            int
	}{
		{api.OutcomeExited, "", 0},
		{api.OutcomeTimedOut, "", 124},
		{api.OutcomeDeadlineExceeded, "", 124},
		{api.OutcomeQueueExpired, "", 124},
		{api.OutcomePullTimedOut, "", 124},
		{api.OutcomeOOMKilled, "", 137},
		{api.OutcomeCancelled, "", 130},
		{api.OutcomeImageNotFound, "", 125},
		{api.OutcomeImageDenied, "", 125},
		{api.OutcomeImageUnavailable, "", 125},
		{api.OutcomeImageInvalid, "", 125},
		{api.OutcomeInterrupted, "", 125},
		{api.OutcomeNodeLost, "", 125},
		{api.OutcomeStartFailed, `no such command: "/x" (it, or the interpreter it names, is not in the image)`, 127},
		{api.OutcomeStartFailed, `"/x" can't be executed: permission denied`, 126},
		{api.OutcomeStartFailed, `"/x" can't be executed: exec format error`, 126},
		{api.OutcomeStartFailed, "unable to find user x: no matching entries in passwd file", 125},
	} {
		s := newService(t)
		s.task = finishedTask(tc.outcome, tc.want)
		s.task.Reason = tc.reason
		i := invoke(s)
		if got := i.main([]string{"run", "busybox"}); got != tc.want {
			t.Errorf("%s (%s): got status %d, want %d", tc.outcome, tc.reason, got, tc.want)
		}
		if tc.outcome != api.OutcomeExited && (!strings.Contains(i.err.String(), tc.outcome) || !strings.Contains(i.err.String(), tc.reason)) {
			t.Errorf("%s: got %q, want the outcome and the reason", tc.outcome, i.err)
		}
	}
}

func TestProgramThatMissesSomethingGetsAHint(t *testing.T) {
	for _, tc := range []struct {
		stderr, network string
		exit            int
		want            string
	}{
		{"ping: bad address 'example.com'", "none", 1, "--network egress"},
		{"wget: can't connect: Network is unreachable", "none", 1, "--network egress"},
		{"wget: can't connect: Network is unreachable", "egress", 1, ""},
		{"wget: can't connect: Network is unreachable", "none", 0, ""},
		{"chown: /x: Operation not permitted", "none", 1, "--cap-add"},
		{"just wrong", "none", 1, ""},
	} {
		s := newService(t)
		s.task = finishedTask(api.OutcomeExited, tc.exit)
		s.task.Spec.Network = tc.network
		s.events = []api.Event{outputEvent(1, api.Stderr, 0, tc.stderr)}
		i := invoke(s)
		i.main([]string{"run", "busybox"})
		said := strings.TrimPrefix(i.err.String(), tc.stderr)
		if tc.want == "" && said != "" || !strings.Contains(said, tc.want) {
			t.Errorf("%s, network %s, exit %d: got %q, want %q", tc.stderr, tc.network, tc.exit, said, tc.want)
		}
	}
}

// waitFor waits until cond holds.
func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for late := time.After(20 * time.Second); !cond(); {
		select {
		case <-look.C:
		case <-late:
			t.Fatalf("never: %s", what)
		}
	}
}

func TestFirstCtrlCCancelsAndStays(t *testing.T) {
	s := newService(t)
	s.hold = make(chan struct{})
	s.events = []api.Event{outputEvent(1, api.Stdout, 0, "begun")}
	i := invoke(s)
	ended := make(chan int)
	go func() { ended <- i.main([]string{"run", "busybox"}) }()
	waitFor(t, "output appears while the program runs", func() bool { return i.out.String() == "begun" })
	i.signals <- os.Interrupt
	if status := <-ended; status != 130 {
		t.Errorf("got status %d, want 130", status)
	}
	if s.cancelled != 1 || !strings.Contains(i.err.String(), "cancelling") || !strings.Contains(i.err.String(), "cancelled (task t1)") {
		t.Errorf("got %d cancels and %q", s.cancelled, i.err)
	}
}

func TestSecondCtrlCLeavesAtOnce(t *testing.T) {
	s := newService(t)
	s.hold = make(chan struct{})
	s.cancelled = 1 // so that the cancel does not end it
	s.events = []api.Event{outputEvent(1, api.Stdout, 0, "begun")}
	i := invoke(s)
	ended := make(chan int)
	go func() { ended <- i.main([]string{"run", "busybox"}) }()
	waitFor(t, "output", func() bool { return i.out.String() == "begun" })
	i.signals <- os.Interrupt
	waitFor(t, "cancel is asked for", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.cancelled == 2 })
	i.signals <- os.Interrupt // so soon it is the first one still
	again := time.NewTimer(2 * sameSignal)
	defer again.Stop()
	select {
	case status := <-ended:
		t.Fatalf("left with status %d for one signal that came twice", status)
	case <-again.C:
		i.signals <- os.Interrupt
	}
	if status := <-ended; status != 130 || !strings.Contains(i.err.String(), "left; task t1 is being cancelled") {
		t.Errorf("got status %d, %q, want 130 and that the task goes on", status, i.err)
	}
}

func TestWaitingTaskSaysWhy(t *testing.T) {
	s := newService(t)
	s.hold = make(chan struct{})
	s.waiting = "0 of 3 nodes can take it"
	s.events = []api.Event{stateEvent(api.StatePending)}
	i := invoke(s)
	ended := make(chan int)
	go func() { ended <- i.main([]string{"run", "busybox"}) }()
	waitFor(t, "the reason is shown", func() bool { return strings.Contains(i.err.String(), "task t1 waits: "+s.waiting) })
	i.signals <- os.Interrupt
	<-ended
}

func TestDetachPrintsTheIDAlone(t *testing.T) {
	i := invoke(newService(t))
	if status := i.main([]string{"run", "-d", "busybox"}); status != 0 || i.out.String() != "t1\n" || i.err.String() != "" {
		t.Errorf("got status %d, %q, %q, want 0 and the id", status, i.out, i.err)
	}
}

func TestRefusedRunExitsWith125AndSaysWhyWithoutControlBytes(t *testing.T) {
	for _, args := range [][]string{
		{"run", "bad:1"}, {"run"}, {"run", "--nope", "busybox"}, {"run", "--memory", "lots", "busybox"},
		{"run", "--pull", "always", "busybox"},
	} {
		i := invoke(newService(t))
		if status := i.main(args); status != 125 || i.err.String() == "" || strings.Contains(i.err.String(), "\x1b") {
			t.Errorf("%v: got status %d, %q, want 125 and a reason in plain text", args, status, i.err)
		}
	}
}

func TestFlagsBecomeTheRequest(t *testing.T) {
	s := newService(t)
	i := invoke(s, "HERE=from here", "ECS_REGISTRY_PASSWORD=pw")
	args := []string{"run", "-d", "-e", "A=1", "-e", "HERE", "-e", "UNSET", "--secret-env", "B=2", "-u", "nobody", "-w", "/srv",
		"-m", "128MiB", "--cpus", "0.5", "--network", "egress", "-l", "team=x", "--zone", "a", "--zone", "b", "--cap-add", "NET_RAW",
		"--retry", "0", "--at-most-once", "--timeout", "90s", "--max-output", "2MiB", "--entrypoint", "", "--registry-user", "me",
		"reg.example/x:1", "cmd", "-u", "not-ours"}
	if status := i.main(args); status != 0 {
		t.Fatalf("got status %d: %s", status, i.err)
	}
	none := 0
	want := api.TaskRequest{
		Image: "reg.example/x:1", Command: []string{"cmd", "-u", "not-ours"}, Entrypoint: []string{}, Env: []string{"A=1", "HERE=from here"},
		SecretEnv: []string{"B=2"}, User: "nobody", Workdir: "/srv", Network: "egress", CapAdd: []string{"NET_RAW"},
		Resources: api.Resources{Memory: 128 << 20, CPU: 500, CPULimit: 500}, Labels: map[string]string{"team": "x"},
		Placement: api.Placement{Zones: []string{"a", "b"}}, Retry: api.Retry{Infrastructure: &none}, Delivery: "at_most_once",
		Timeouts: api.Timeouts{Run: api.Duration(90 * time.Second)}, MaxOutput: 2 << 20,
		RegistryAuth: &api.RegistryAuth{Username: "me", Password: "pw"},
	}
	if got := s.submitted[0]; !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestRetriesBecomeTheRequest(t *testing.T) {
	s := newService(t)
	args := []string{"run", "-d", "-i", "--retry-program", "4", "--retry-on", "3,137", "--backoff", "10s", "busybox:1"}
	if i := invoke(s); i.main(args) != 0 {
		t.Fatal(i.err)
	}
	got := s.submitted[0]
	want := api.Retry{Program: 4, OnExitCodes: []int{3, 137}, Backoff: api.Duration(10 * time.Second)}
	if !reflect.DeepEqual(got.Retry, want) || got.Delivery != api.DeliveryAtLeastOnce {
		t.Errorf("got %+v, %q, want %+v at least once", got.Retry, got.Delivery, want)
	}
}

func TestImageWithoutTagIsLatest(t *testing.T) {
	for image, want := range map[string]string{
		"busybox": "busybox:latest", "busybox:1": "busybox:1", "localhost:5000/x": "localhost:5000/x:latest",
		"x@sha256:ab": "x@sha256:ab", "a/b/c": "a/b/c:latest",
	} {
		if got := withTag(image); got != want {
			t.Errorf("%s: got %s, want %s", image, got, want)
		}
	}
}

func TestSizesMayBeWrittenAsForDocker(t *testing.T) {
	for size, want := range map[string]api.Size{"512m": 512 << 20, "1g": 1 << 30, "64K": 64 << 10, "128MiB": 128 << 20, "1000": 1000} {
		s := newService(t)
		if status := invoke(s).main([]string{"run", "-d", "-m", size, "busybox"}); status != 0 {
			t.Errorf("%s: got status %d", size, status)
			continue
		}
		if got := s.submitted[0].Resources.Memory; got != want {
			t.Errorf("%s: got %s, want %s", size, got, want)
		}
	}
}
