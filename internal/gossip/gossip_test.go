package gossip

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ecs/internal/memnet"
)

// swarm is members on a network in memory, in a bubble.
type swarm struct {
	t       *testing.T
	net     *memnet.Net
	ctx     context.Context
	tune    func(*Config)
	running sync.WaitGroup
	members []*Members
	stops   []context.CancelFunc
}

func inBubble(t *testing.T, n int, f func(s *swarm)) { inBubbleWith(t, n, nil, f) }

func inBubbleWith(t *testing.T, n int, tune func(*Config), f func(s *swarm)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		s := &swarm{t: t, net: memnet.New(1), ctx: ctx, tune: tune}
		defer func() {
			cancel()
			s.running.Wait()
			time.Sleep(time.Minute) // memberlist's probes outlive its Shutdown by their timeouts
		}()
		for range n {
			s.add()
		}
		s.until(20*time.Second, "everyone sees everyone", func() bool { return s.see(n, s.members...) })
		f(s)
	})
}

func (s *swarm) name(i int) string { return fmt.Sprintf("m%d", i) }

func (s *swarm) add() *Members {
	name := s.name(len(s.members))
	return s.start(name, Config{Self: Member{ID: name, Role: "agent", Zone: "z"}})
}

// start starts a member on a host.
func (s *swarm) start(host string, cfg Config) *Members {
	s.t.Helper()
	transport, err := NewMemTransport(s.net.Host(host), 7946)
	if err != nil {
		s.t.Fatal(err)
	}
	cfg.Transport, cfg.Label = transport, "test"
	if cfg.Keys == nil {
		cfg.Keys = keyring(s.t, Ring{Keys: [][]byte{testKey(0)}})
	}
	cfg.Join = []string{MemAddr("m0", 7946), "m1:7946"}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if s.tune != nil {
		s.tune(&cfg)
	}
	m := New(cfg)
	ctx, stop := context.WithCancel(s.ctx)
	s.running.Go(func() {
		if err := m.Run(ctx); err != nil {
			s.t.Errorf("%s: %v", host, err)
		}
	})
	s.members, s.stops = append(s.members, m), append(s.stops, stop)
	return m
}

// see reports whether each of the members sees n.
func (s *swarm) see(n int, members ...*Members) bool {
	for _, m := range members {
		if len(m.Snapshot()) != n {
			return false
		}
	}
	return true
}

func (s *swarm) until(limit time.Duration, what string, ok func() bool) {
	s.t.Helper()
	deadline := time.Now().Add(limit)
	for !ok() {
		if time.Now().After(deadline) {
			s.t.Fatalf("not within %s: %s", limit, what)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func TestMembersFindEachOtherAndSpreadChanges(t *testing.T) {
	inBubble(t, 20, func(s *swarm) {
		changed := s.members[7].Changed()
		s.members[3].Update(func(m *Member) { m.Draining = true })
		s.until(10*time.Second, "the change is everywhere", func() bool {
			for _, m := range s.members {
				if !slices.ContainsFunc(m.Snapshot(), func(m Member) bool { return m.ID == "m3" && m.Draining }) {
					return false
				}
			}
			return true
		})
		select {
		case <-changed:
		default:
			t.Error("the change closed nobody's Changed channel")
		}
	})
}

func TestACrashIsSeenAndALeaveSooner(t *testing.T) {
	inBubble(t, 6, func(s *swarm) {
		start := time.Now()
		s.stops[5]()
		s.until(5*time.Second, "the leave is seen", func() bool { return s.see(5, s.members[:5]...) })
		left := time.Since(start)
		start = time.Now()
		s.net.Isolate("m4")
		s.until(30*time.Second, "the loss is seen", func() bool { return s.see(4, s.members[:4]...) })
		if lost := time.Since(start); lost < left {
			t.Errorf("a loss was seen after %s, a leave after %s: want the leave sooner", lost, left)
		}
	})
}

// TestAPartitionHealsByItself is memberlist issue 222: after a partition that
// outlives its suspicion, memberlist alone never joins the sides again.
func TestAPartitionHealsByItself(t *testing.T) {
	inBubble(t, 6, func(s *swarm) {
		s.net.Partition([]string{"m0", "m2", "m4"}, []string{"m1", "m3", "m5"})
		s.until(time.Minute, "both sides give each other up", func() bool { return s.see(3, s.members...) })
		time.Sleep(2 * time.Minute)
		s.net.HealAll()
		s.until(time.Minute, "both sides see everyone again", func() bool { return s.see(6, s.members...) })
	})
}

// As above, but what the members were told to join at is gone: the replicated
// record knows the others.
func TestAPartitionHealsByTheAddressesOfTheRecord(t *testing.T) {
	record := func() []string {
		return []string{MemAddr("m2", 7946), MemAddr("m3", 7946), MemAddr("m4", 7946), MemAddr("m5", 7946), MemAddr("gone", 7946)}
	}
	inBubbleWith(t, 6, func(c *Config) { c.Rejoin = record }, func(s *swarm) {
		s.net.Host("m0").Crash(true)
		s.net.Host("m1").Crash(true)
		s.until(time.Minute, "the two are lost", func() bool { return s.see(4, s.members[2:]...) })
		s.net.Partition([]string{"m2", "m3"}, []string{"m4", "m5"})
		s.until(time.Minute, "both sides give each other up", func() bool { return s.see(2, s.members[2:]...) })
		time.Sleep(10 * time.Minute)
		s.net.HealAll()
		s.until(time.Minute, "both sides see everyone again", func() bool { return s.see(4, s.members[2:]...) })
	})
}

func TestALossyNetworkLosesNobody(t *testing.T) {
	inBubble(t, 10, func(s *swarm) {
		for i := range 9 {
			s.net.Loss("m9", s.name(i), 0.3)
		}
		lost := 0
		for range 600 {
			time.Sleep(time.Second)
			if !s.see(10, s.members...) {
				lost++
			}
		}
		if lost > 60 {
			t.Errorf("somebody was missing for %d of 600 seconds at 30%% loss to one member", lost)
		}
		if s.net.Dropped() == 0 {
			t.Error("nothing was lost: this proves nothing")
		}
	})
}

func TestASecondNodeOfOneNameStaysOutUntilTheFirstIsGone(t *testing.T) {
	said := &lines{}
	hear := func(c *Config) {
		if c.Self.ID == "m0" {
			c.Logger = slog.New(said)
		}
	}
	inBubbleWith(t, 4, hear, func(s *swarm) {
		second := s.start("elsewhere", Config{Self: Member{ID: "m3", Zone: "other"}, Logger: slog.New(slog.DiscardHandler)})
		time.Sleep(time.Minute)
		for _, m := range s.members[0].Snapshot() {
			if m.ID == "m3" && m.Zone == "other" {
				t.Error("the newcomer took the place of a living member")
			}
		}
		if said.count("two nodes use one id") == 0 {
			t.Error("nobody said that two nodes use one id")
		}
		s.net.Host("m3").Crash(true)
		s.stops[3]()
		s.until(2*time.Minute, "the newcomer has the dead one's name", func() bool {
			return slices.ContainsFunc(s.members[0].Snapshot(), func(m Member) bool { return m.ID == "m3" && m.Zone == "other" })
		})
		s.until(2*time.Minute, "the newcomer sees everyone", func() bool { return s.see(4, second) })
	})
}

func TestStoppingDoesNotWaitForAnAddressThatIsAway(t *testing.T) {
	inBubble(t, 1, func(s *swarm) {
		for _, away := range []string{"m1", "m2"} {
			s.net.Host(away)
			s.net.Cut("m0", away)
		}
		time.Sleep(30 * time.Second)
		start := time.Now()
		s.stops[0]()
		s.running.Wait()
		if took := time.Since(start); took > 0 {
			t.Errorf("stopping took %v, want no wait", took)
		}
	})
}

func TestMetadataThatDoesNotFitIsRefused(t *testing.T) {
	fits := Member{ID: strings.Repeat("x", 500)}
	if _, err := encode(fits); err != nil {
		t.Errorf("500 bytes of id: %v", err)
	}
	m := New(Config{Self: Member{ID: strings.Repeat("x", 600)}, Keys: keyring(t, Ring{Keys: [][]byte{testKey(0)}}), BindAddr: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)})
	if err := m.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "512") {
		t.Errorf("got %v, want an error that names the bound", err)
	}
	small := New(Config{Self: fits, Logger: slog.New(slog.DiscardHandler)})
	small.Update(func(m *Member) { m.Zone = strings.Repeat("z", 100) })
	if got := small.Self().Zone; got != "" {
		t.Errorf("got zone of %d bytes, want the change dropped", len(got))
	}
}

func TestGossipNeedsAKey(t *testing.T) {
	m := New(Config{Self: Member{ID: "a"}, BindAddr: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)})
	if err := m.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "key") {
		t.Errorf("got %v, want an error about the key", err)
	}
}

// TestAnotherKeyStaysOutside uses real sockets.
func TestAnotherKeyStaysOutside(t *testing.T) {
	var running sync.WaitGroup
	defer running.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	said := &lines{}
	start := func(id string, key byte, join ...string) *Members {
		m := New(Config{Self: Member{ID: id}, Keys: keyring(t, Ring{Keys: [][]byte{testKey(key)}}), Label: "real", BindAddr: "127.0.0.1:0",
			Join: join, Fast: true, Logger: slog.New(said).With("id", id)})
		running.Go(func() {
			if err := m.Run(ctx); err != nil {
				t.Errorf("%s: %v", id, err)
			}
		})
		<-m.Ready()
		return m
	}
	first := start("first", 1)
	stranger := start("stranger", 2, first.Addr())
	// By name, which is resolved.
	friend := start("friend", 1, strings.Replace(first.Addr(), "127.0.0.1", "localhost", 1))
	limit := time.After(20 * time.Second)
	for {
		changed, friendChanged := first.Changed(), friend.Changed() // before looking
		if len(first.Snapshot()) == 2 && len(friend.Snapshot()) == 2 {
			break
		}
		select {
		case <-changed:
		case <-friendChanged:
		case <-limit:
			t.Fatalf("got %v and %v, want first and friend in both", first.Snapshot(), friend.Snapshot())
		}
	}
	for said.count("gossip join") < 3 { // the stranger's vain attempts
		select {
		case <-time.After(20 * time.Millisecond):
		case <-limit:
			t.Fatal("the stranger did not try to join")
		}
	}
	for _, m := range first.Snapshot() {
		if m.ID == "stranger" {
			t.Error("the stranger got in")
		}
	}
	if n := len(stranger.Snapshot()); n != 1 {
		t.Errorf("the stranger sees %d members, want itself alone", n)
	}
}

// lines is a log that counts what was said.
type lines struct {
	slog.Handler
	mu   sync.Mutex
	said []string
}

func (*lines) Enabled(context.Context, slog.Level) bool { return true }
func (l *lines) WithAttrs([]slog.Attr) slog.Handler     { return l }
func (l *lines) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.said = append(l.said, r.Message)
	return nil
}

// count counts the lines that begin so, "gossip join" not among "gossip joined".
func (l *lines) count(begin string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, line := range l.said {
		if line == begin || strings.HasPrefix(line, begin+",") {
			n++
		}
	}
	return n
}

func TestLevelsOfMemberlistsLinesAreKept(t *testing.T) {
	var out strings.Builder
	log := stdLogger(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}})))
	for line, want := range map[string]string{
		"[DEBUG] memberlist: Stream connection": `level=DEBUG msg="Stream connection"`,
		"[INFO] memberlist: Suspect":            `level=INFO msg=Suspect`,
		"[WARN] memberlist: Refuting":           `level=WARN msg=Refuting`,
		"[ERR] memberlist: Push/Pull":           `level=WARN msg=Push/Pull`,
		"[ERR] Failed to shutdown":              `level=WARN msg="Failed to shutdown"`,
		"no level":                              `level=INFO msg="no level"`,
	} {
		out.Reset()
		log.Print(line)
		if got := out.String(); !strings.HasPrefix(got, want) {
			t.Errorf("%s: got %s, want %s", line, got, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	meta, err := encode(Member{ID: "a", Role: "control", Expect: 3, Bootstrapped: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(meta)
	f.Fuzz(func(t *testing.T, meta []byte) {
		m, err := decode(meta)
		if err != nil {
			return
		}
		again, err := encode(m)
		if err != nil {
			return // longer than gossip carries
		}
		if back, err := decode(again); err != nil || back != m {
			t.Errorf("got %+v %v, want %+v", back, err, m)
		}
	})
}

func TestMemberThatWaitsJoinsWhenItIsTold(t *testing.T) {
	inBubble(t, 2, func(s *swarm) {
		s.tune = func(c *Config) { c.Join = nil }
		late := s.add()
		time.Sleep(time.Minute)
		if !s.see(1, late) || !s.see(2, s.members[:2]...) {
			t.Fatal("got it among the others, want it to wait")
		}
		if err := late.Join(s.ctx, []string{"nowhere:7946"}); err == nil || !strings.Contains(err.Error(), "no member of cluster test answers") {
			t.Errorf("got %v, want it told that nobody is there", err)
		}
		if err := late.Join(s.ctx, []string{"nowhere:7946", "m0:7946"}); err != nil {
			t.Fatal(err)
		}
		s.until(20*time.Second, "everyone sees everyone", func() bool { return s.see(3, s.members...) })
	})
}
