package docker

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"

	"ecs/agent/runtime"
	"ecs/internal/fence"
	"ecs/internal/initwire"
	"ecs/internal/task"
)

// TestUnreadableRecords: a power cut leaves records without content. They hold up
// nothing but what may be of an attempt that is claimed.
func TestUnreadableRecords(t *testing.T) {
	r := &Runtime{cfg: Config{Cluster: "c", Node: "n"}, homes: homes{root: t.TempDir()}}
	mine, other := task.Token{Task: "mine", Attempt: 1, Epoch: 2}, task.Token{Task: "other", Attempt: 1, Epoch: 2}
	homeOf := func(tok task.Token) home { return home{r.homes.root + "/" + homeName(tok) + "x"} }
	parked := func(id string) container.Summary {
		return container.Summary{ID: id, Labels: r.labels(task.Token{Task: task.ID(parkedPrefix + id)})}
	}
	found := []container.Summary{parked("p1"), parked("p2"), {ID: "m", Labels: r.labels(mine)}, {ID: "o", Labels: r.labels(other)}}
	claims := func(tok task.Token) bool { return tok == mine }
	expect := func(what string, fails bool, want ...string) {
		t.Helper()
		got, err := r.unclaimed(found, claims)
		if !slices.Equal(got, want) || (err != nil) != fails {
			t.Errorf("%s: got %v, %v; want %v", what, got, err, want)
		}
	}
	if err := homeOf(mine).write(record{Container: "p1"}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(homeOf(other).path+recordEnd, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	expect("another's record is empty", false, "p2", "o")
	if err := os.Truncate(homeOf(mine).path+recordEnd, 0); err != nil {
		t.Fatal(err)
	}
	expect("the record is empty", true, "o")
	if err := r.homes.sweep(claims); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(homeOf(other).path + recordEnd); err == nil {
		t.Error("another's record is left")
	}
}

// TestClaimsEnd: Reap forgets whose a container was when nobody claims it.
func TestClaimsEnd(t *testing.T) {
	r := &Runtime{cfg: Config{Cluster: "c", Node: "n"}, homes: homes{root: t.TempDir()}}
	place, owner := task.Token{Task: parkedPrefix + "p"}, task.Token{Task: "t", Attempt: 1, Epoch: 1}
	found := []container.Summary{{ID: "p", Labels: r.labels(place)}}
	r.parking.bind(place, owner)
	for _, claimed := range []bool{true, false} {
		ids, err := r.unclaimed(found, func(tok task.Token) bool { return claimed && tok == owner })
		if _, known := r.parking.owner(place); err != nil || known != claimed || (len(ids) == 0) != claimed {
			t.Errorf("claimed %v: got %v, %v, known %v", claimed, ids, err, known)
		}
	}
}

// TestFailedBindLeavesNoClaim holds whose it is to drop the claim.
func TestFailedBindLeavesNoClaim(t *testing.T) {
	b := &berth{gone: make(chan struct{})}
	if usable, first := b.use(); !usable || !first {
		t.Errorf("first: got %v, %v", usable, first)
	}
	if usable, first := b.use(); usable || first {
		t.Errorf("second: got %v, %v; the claim may be the first's", usable, first)
	}
	b = &berth{gone: make(chan struct{})}
	b.leave()
	if usable, first := b.use(); usable || !first {
		t.Errorf("ended: got %v, %v; want the claim dropped", usable, first)
	}
}

// outerFence counts what it is to confirm.
type outerFence struct {
	Fence
	adds   []time.Duration
	answer error
	health error

	renewals int
}

func (f *outerFence) Add(_ context.Context, e fence.Entry) error {
	f.adds = append(f.adds, e.Deadline)
	return f.answer
}

func (f *outerFence) Healthy() error { return f.health }

func TestFenceConfirmsWhatItDoesNotKnow(t *testing.T) {
	bad := errors.New("bad")
	for name, tt := range map[string]struct {
		later  time.Duration
		health error
		answer error
		adds   int
		want   error
	}{
		"as confirmed": {},
		"later":        {later: time.Second, adds: 1},
		"unhealthy":    {health: bad, adds: 1},
		"refused":      {later: time.Second, answer: bad, adds: 1, want: bad},
		"ended":        {later: time.Second, answer: fence.ErrEnded, adds: 1, want: runtime.ErrSpent},
	} {
		f := &outerFence{health: tt.health, answer: tt.answer}
		c := &attempt{r: &Runtime{cfg: Config{Fence: f}}, fenced: time.Hour}
		c.mu.lease = c.fenced + task.OuterFenceAhead + tt.later
		if err := c.refence(t.Context()); !errors.Is(err, tt.want) || len(f.adds) != tt.adds {
			t.Errorf("%s: got %v after %d questions, want %v after %d", name, err, len(f.adds), tt.want, tt.adds)
		}
		if tt.adds > 0 && tt.want == nil && c.fenced != time.Hour+tt.later {
			t.Errorf("%s: got %s confirmed", name, c.fenced)
		}
	}
}

func (f *outerFence) Renew(string, time.Duration) { f.renewals++ }

// What is bound begins in a moment, with the lease as it is then: until that neither
// init nor fence is woken for it.
func TestBoundContainerHearsOfItsLeaseWithItsOrder(t *testing.T) {
	end := boottime() + time.Hour
	for name, tt := range map[string]struct {
		bound bool
		phase phase
		told  bool
	}{
		"parked":  {told: true},
		"bound":   {bound: true},
		"begins":  {bound: true, phase: starting, told: true},
		"running": {bound: true, phase: running, told: true},
	} {
		f := &outerFence{}
		l := newLine(nil)
		c := &attempt{r: &Runtime{cfg: Config{Fence: f}}, berth: &berth{bound: tt.bound}}
		c.mu.line, c.mu.phase = l, tt.phase
		c.Renew(end)
		if told := l.mu.lease != 0; told != tt.told || (f.renewals == 1) != tt.told || c.lease() != end {
			t.Errorf("%s: init told %t, fence told %d times, lease %s; want told %t", name, told, f.renewals, c.lease(), tt.told)
		}
	}
}

// An order that its start's end cuts is never completed, by nobody.
func TestCutOrderIsNeverCompleted(t *testing.T) {
	ours, theirs := connect(t)
	l := newLine(ours)
	go l.write() // as since it was parked
	ctx, cancel := context.WithCancel(t.Context())
	sent := make(chan error, 1)
	order := initwire.Order{Argv: []string{"sh"}, Input: make([]byte, initwire.KindOrder.MaxPayload()-1000)} // more than a socket takes
	go func() { sent <- l.resume(ctx, initwire.Position{}, order) }()
	in := initwire.NewReader(theirs)
	if f, err := in.Next(); err != nil || f.Kind != initwire.KindResume {
		t.Fatalf("got %v, %v", f.Kind, err)
	}
	cancel()
	l.renew(time.Minute) // who else writes does not give it more time
	select {
	case err := <-sent:
		if err == nil {
			t.Fatal("got no error")
		}
	case <-time.After(writePatience / 2):
		t.Fatal("it is not cut")
	}
	read := make(chan []byte, 1)
	go func() {
		rest, _ := io.ReadAll(theirs) // what there is until the end is looked at
		read <- rest
	}()
	l.renew(time.Hour)
	l.close()
	rest := <-read
	if len(rest) == 0 || bytes.ContainsFunc(rest[len(rest)/2:], func(r rune) bool { return r != 0 }) {
		t.Errorf("got %d bytes, want the input's zeros to the end, no lease behind them", len(rest))
	}
}
