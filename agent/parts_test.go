package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"ecs/agent/runtime"
	"ecs/internal/task"
)

func TestLeaseDeadlines(t *testing.T) {
	const long = time.Minute
	for _, tc := range []struct {
		name    string
		length  time.Duration
		renewed time.Duration // when the last answered heartbeat left
		at      time.Duration
		want    bool
	}{
		{"just before", task.DefaultLease, 0, 8*time.Second - 1, true},
		{"at the deadline", task.DefaultLease, 0, 8 * time.Second, false},
		{"renewed, just before", task.DefaultLease, 3 * time.Second, 11*time.Second - 1, true},
		{"renewed, at the deadline", task.DefaultLease, 3 * time.Second, 11 * time.Second, false},
		{"shorter than the registration's", time.Second, 0, 8*time.Second - 1, true},
		{"longer, after the registration's", long, 0, 30 * time.Second, true},
		{"longer, just before", long, 0, 58*time.Second - 1, true},
		{"longer, at the deadline", long, 0, 58 * time.Second, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var now time.Duration
			l := newLease(func() time.Duration { return now })
			_, void := l.begin()
			if !l.welcome(void, 7, 0, task.DefaultLease) {
				t.Fatal("got no welcome taken, want it")
			}
			var lapsed error
			tok := task.Token{Task: "t", Attempt: 1, Epoch: 7}
			if !l.hold(tok, tc.length, func(err error) { lapsed = err }) {
				t.Fatal("got no hold, want one")
			}
			now = tc.renewed
			if !l.renew(7, tc.renewed) {
				t.Fatal("got no renewal, want one")
			}
			now = tc.at
			if got := l.holds(tok); got != tc.want {
				t.Errorf("got held %t, want %t", got, tc.want)
			}
			if got := errors.Is(lapsed, errLapsed); got == tc.want {
				t.Errorf("got abandoned %t, want %t", got, !tc.want)
			}
			if epoch, _ := l.begin(); (epoch == 7) != (tc.at < tc.renewed+fenced) {
				t.Errorf("got epoch %d to resume at %s", epoch, tc.at)
			}
		})
	}
}

func TestLeaseTakesOnlyWhatIsOfItsEpoch(t *testing.T) {
	l := newLease(func() time.Duration { return 0 })
	ignore := func(error) {}
	if l.hold(task.Token{Task: "t", Attempt: 1}, task.DefaultLease, ignore) {
		t.Error("got a hold without a registration, want none")
	}
	_, void := l.begin()
	if l.welcome(void, 0, 0, task.DefaultLease) {
		t.Error("got epoch 0 taken, want it refused")
	}
	if !l.welcome(void, 7, 0, task.DefaultLease) || l.welcome(void, 8, 0, task.DefaultLease) {
		t.Error("want epoch 7 taken and then no other")
	}
	if l.hold(task.Token{Task: "t", Attempt: 1, Epoch: 6}, task.DefaultLease, ignore) {
		t.Error("got a hold of another epoch, want none")
	}
	if l.renew(6, 0) {
		t.Error("got a renewal of another epoch, want none")
	}
	l.revoke()
	if epoch, fresh := l.begin(); epoch != 0 || isClosed(fresh) || !isClosed(void) {
		t.Errorf("got epoch %d after it was revoked, want a new registration", epoch)
	}
}

// A recovered cluster places an attempt that it does not know elsewhere when its old
// lease is over: the registration that says so must not lengthen it.
func TestForgottenAttemptsGetNoNewLease(t *testing.T) {
	now := time.Duration(0)
	l := newLease(func() time.Duration { return now })
	_, void := l.begin()
	l.welcome(void, 7, 0, task.DefaultLease)
	var ended [2]error
	var extended [2]time.Duration
	tokens := []task.Token{{Task: "kept", Attempt: 1, Epoch: 7}, {Task: "forgotten", Attempt: 1, Epoch: 7}}
	for i, tok := range tokens {
		l.hold(tok, 5*time.Minute, func(err error) { ended[i] = err })
		l.bind(tok, func(end time.Duration) { extended[i] = end })
		extended[i] = 0
	}
	now = time.Minute
	_, void = l.begin()
	if !l.welcome(void, 8, now, task.DefaultLease, tokens[1]) {
		t.Fatal("got no welcome taken, want it")
	}
	if ended[0] != nil || !l.holds(tokens[0]) || extended[0] == 0 {
		t.Errorf("got %v, extended to %s, want the attempt that is known to go on", ended[0], extended[0])
	}
	if !errors.Is(ended[1], errForgotten) || l.holds(tokens[1]) || extended[1] != 0 {
		t.Errorf("got %v, extended to %s, want the other one abandoned and no longer lease", ended[1], extended[1])
	}
}

func TestResumptionIsNoContact(t *testing.T) {
	now := time.Second
	l := newLease(func() time.Duration { return now })
	_, void := l.begin()
	l.welcome(void, 7, now, task.DefaultLease)
	now += 7 * time.Second
	epoch, void := l.begin()
	if !l.welcome(void, epoch, now, task.DefaultLease) {
		t.Fatal("got no resumption, want one")
	}
	if _, age := l.state(); age != 7*time.Second {
		t.Errorf("got contact %s ago, want 7s: a welcome needs no leadership", age)
	}
}

func TestJudge(t *testing.T) {
	broken := errors.New("broken")
	for _, tc := range []struct {
		name string
		exit runtime.Exit
		err  error
		want task.Result
	}{
		{"exit", runtime.Exit{Code: 3}, nil, task.Result{Outcome: task.Exited, HasExit: true, ExitCode: 3}},
		{"signal", runtime.Exit{Code: 143, Signal: "SIGTERM"}, nil, task.Result{Outcome: task.Exited, HasExit: true, ExitCode: 143, Signal: "SIGTERM"}},
		{"a child out of memory", runtime.Exit{Code: 5, OOMKilled: true}, nil,
			task.Result{Outcome: task.Exited, HasExit: true, ExitCode: 5, Reason: "one of its processes was killed for want of memory"}},
		{"out of memory", runtime.Exit{Signal: "SIGKILL", OOMKilled: true}, nil,
			task.Result{Outcome: task.OOMKilled, HasExit: true, ExitCode: 137, Signal: "SIGKILL", Reason: "the program needed more memory than its limit"}},
		{"taken away", runtime.Exit{Code: 137, Interrupted: "killed"}, nil, task.Result{Outcome: task.Interrupted, Reason: "killed"}},
		{"stopped", runtime.Exit{Code: 137}, &stopped{task.DeadlineExceeded, "late"}, task.Result{Outcome: task.DeadlineExceeded, Reason: "late"}},
		{"failure", runtime.Exit{}, fmt.Errorf("start: %w", &runtime.Failure{Outcome: task.StartFailed, Reason: "bad user", Err: broken}),
			task.Result{Outcome: task.StartFailed, Reason: "bad user"}},
		{"failure without a reason", runtime.Exit{}, &runtime.Failure{Outcome: task.ImageInvalid, Err: broken},
			task.Result{Outcome: task.ImageInvalid, Reason: "broken"}},
		{"a failure that goes on and on", runtime.Exit{}, &runtime.Failure{Outcome: task.StartFailed, Reason: strings.Repeat("é", 5000)},
			task.Result{Outcome: task.StartFailed, Reason: strings.Repeat("é", 512) + "..."}},
		{"the engine's", runtime.Exit{}, broken, task.Result{Outcome: task.Interrupted, Reason: "broken"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := judge(tc.exit, tc.err); fmt.Sprint(*got) != fmt.Sprint(tc.want) {
				t.Errorf("got %+v, want %+v", *got, tc.want)
			}
		})
	}
}

func TestReporterKeepsTheNewestAndRepeatsUntilAnswered(t *testing.T) {
	r := newReporter()
	a, b := task.Token{Task: "a", Attempt: 1, Epoch: 1}, task.Token{Task: "b", Attempt: 1, Epoch: 1}
	start := time.Now()
	r.running(a, start)
	r.running(b, start)
	answered := r.finished(a, start, &task.Result{Outcome: task.Exited}, task.Bill{}, start)
	r.running(a, start) // comes late
	if got := r.take(); got == nil || got.token != b {
		t.Fatalf("got %+v first, want that b runs", got)
	}
	got := r.take()
	if got == nil || got.token != a || got.result == nil {
		t.Fatalf("got %+v, want the end of a", got)
	}
	if m := got.wire(); m.GetResult() == nil || m.GetBill().GetReported() <= 0 {
		t.Errorf("got %v, want a result and the time it took", m)
	}
	if again := r.take(); again != nil {
		t.Errorf("got %+v again, want nothing", again)
	}
	r.acknowledge(a, false) // answers an older word
	r.resend(time.Hour)
	if again := r.take(); again != nil {
		t.Errorf("got %+v again so soon, want nothing", again)
	}
	r.resend(0)
	if first, second := r.take(), r.take(); first == nil || second == nil {
		t.Error("want both again on a new session")
	}
	if isClosed(answered) || r.unacknowledged() != 1 {
		t.Error("got the end acknowledged, want it open")
	}
	r.acknowledge(a, true)
	r.acknowledge(b, false)
	r.resend(0)
	if again := r.take(); again != nil || !isClosed(answered) || r.unacknowledged() != 0 {
		t.Errorf("got %+v, want nothing left", again)
	}
}

func TestTargets(t *testing.T) {
	now := time.Now()
	addrs := []string{"a", "b", "c"}
	fresh := func() targets { return newTargets(rand.New(rand.NewPCG(1, 2))) }

	t.Run("all in turn", func(t *testing.T) {
		tg, seen := fresh(), map[string]int{}
		for range 9 {
			addr, _ := tg.next(addrs, now)
			seen[addr]++
		}
		if seen["a"] != 3 || seen["b"] != 3 || seen["c"] != 3 {
			t.Errorf("got %v, want each three times", seen)
		}
	})
	t.Run("nobody", func(t *testing.T) {
		tg := fresh()
		if addr, _ := tg.next(nil, now); addr != "" {
			t.Errorf("got %q, want nobody", addr)
		}
	})
	t.Run("the first retries are quick", func(t *testing.T) {
		tg := fresh()
		tg.contact(now)
		var total time.Duration
		for i := range 20 {
			tg.failed(now)
			_, pause := tg.next(addrs, now)
			if total += pause; pause > soonCeiling || i == 0 && pause > firstRetry {
				t.Errorf("got pause %s at try %d, want at most %s", pause, i, soonCeiling)
			}
		}
		tg.failed(now.Add(soon))
		if _, pause := tg.next(addrs, now); pause < lateCeiling/2 || pause > lateCeiling {
			t.Errorf("got pause %s when the lease is lost anyway, want about %s", pause, lateCeiling)
		}
	})
	t.Run("a silent node is passed over", func(t *testing.T) {
		tg := fresh()
		tg.fellSilent("b", now)
		for range 6 {
			if addr, _ := tg.next(addrs, now.Add(passedOver-1)); addr == "b" {
				t.Error("got the node that fell silent, want the others")
			}
		}
		tg.redirected("a", "b", now.Add(doubted-1))
		if addr, pause := tg.next(addrs, now); addr == "b" || pause == 0 {
			t.Errorf("got %q after %s, want another after a pause", addr, pause)
		}
		tg.redirected("a", "b", now.Add(doubted))
		if addr, _ := tg.next(addrs, now); addr != "b" {
			t.Errorf("got %q, want b: it may be back", addr)
		}
		if addr, _ := tg.next([]string{"b"}, now); addr != "b" {
			t.Errorf("got %q, want b: there is no other", addr)
		}
		tg.contact(now)
		tg.redirected("a", "b", now)
		if addr, _ := tg.next(addrs, now); addr != "b" {
			t.Errorf("got %q, want b: what was before the last contact is over", addr)
		}
	})
	t.Run("redirects have an end", func(t *testing.T) {
		tg := fresh()
		for i := range maxHops + 1 {
			tg.redirected("a", "b", now)
			addr, pause := tg.next(addrs, now)
			if addr != "b" || (pause > 0) != (i == maxHops) {
				t.Errorf("got %q after %s at hop %d, want b, with a pause at %d", addr, pause, i, maxHops)
			}
		}
	})
}

func TestRecentIsBounded(t *testing.T) {
	r := newRecent()
	tok := func(i int) task.Token { return task.Token{Task: "t", Attempt: i, Epoch: 1} }
	for i := range 3 * rememberedTokens {
		r.add(tok(i))
	}
	if len(r.set) != rememberedTokens || len(r.ring) != rememberedTokens {
		t.Errorf("got %d remembered, want %d", len(r.set), rememberedTokens)
	}
	if !r.has(tok(3*rememberedTokens-1)) || !r.has(tok(2*rememberedTokens)) || r.has(tok(2*rememberedTokens-1)) {
		t.Error("want the newest remembered and no others")
	}
}

func TestMemTotal(t *testing.T) {
	for _, tc := range []struct {
		text string
		want int64
	}{
		{"MemTotal:       24736140 kB\nMemFree: 1 kB\n", 24736140 << 10},
		{"MemFree: 1 kB\nMemTotal: 1024 kB", 1 << 20},
		{"", 0},
		{"MemTotal: 0 kB", 0},
		{"MemTotal: -5 kB", 0},
		{"MemTotal: many kB", 0},
		{"MemTotal: 99999999999999999999 kB", 0},
		{"MemTotal: 5 MB", 0},
	} {
		got, err := memTotal(strings.NewReader(tc.text))
		if got != tc.want || (err == nil) != (tc.want > 0) {
			t.Errorf("%q: got %d, %v, want %d", tc.text, got, err, tc.want)
		}
	}
}

func FuzzMemTotal(f *testing.F) {
	f.Add("MemTotal:       24736140 kB\n")
	f.Fuzz(func(t *testing.T, text string) {
		if got, err := memTotal(strings.NewReader(text)); (err == nil) != (got > 0) {
			t.Errorf("got %d, %v, want either", got, err)
		}
	})
}

func TestCapacityIsWhatIsNotReserved(t *testing.T) {
	all, err := MeasureCapacity(task.Capacity{})
	if err != nil || all.MilliCPU < 1000 || all.Memory < task.MinMemory {
		t.Fatalf("got %+v, %v, want this machine", all, err)
	}
	less, err := MeasureCapacity(task.Capacity{MilliCPU: 500, Memory: 64 << 20})
	if err != nil || all.MilliCPU-less.MilliCPU != 500 || all.Memory-less.Memory != 64<<20 {
		t.Errorf("got %+v of %+v, %v, want the reserve less", less, all, err)
	}
	for _, reserve := range []task.Capacity{{MilliCPU: all.MilliCPU}, {Memory: all.Memory}} {
		if got, err := MeasureCapacity(reserve); err == nil {
			t.Errorf("got %+v with %+v reserved, want an error", got, reserve)
		}
	}
}

func TestImageThatVanishesOnceIsFetchedAgain(t *testing.T) {
	for _, often := range []int{1, 2} {
		t.Run(fmt.Sprint(often), func(t *testing.T) {
			inBubble(t, func(c *cluster) {
				c.connected(5 * time.Second)
				left := often
				c.engine.fault("create", func(context.Context) error {
					if left--; left >= 0 {
						return &runtime.Failure{Outcome: task.ImageNotFound, Reason: "gone", Err: runtime.ErrNoImage}
					}
					return nil
				})
				got := c.result(c.assign("t1", command("exit 0")), time.Second).result
				if want := []task.Outcome{"", task.Exited, task.Interrupted}[often]; got.Outcome != want {
					t.Errorf("got %s (%s), want %s", got.Outcome, got.Reason, want)
				}
			})
		})
	}
}
