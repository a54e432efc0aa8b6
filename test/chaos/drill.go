package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"ecs/internal/daemon"
	"ecs/test/chaos/check"
)

const (
	probeEvery   = 100 * time.Millisecond
	resumeWithin = time.Minute
	ledWithin    = time.Minute
)

// drill is one kind of loss, again and again, each measured: the lost nodes are cut
// off from all others and from the clients, without a reset, and come back.
type drill struct {
	kind string
	// lost are the nodes that are lost in a round. leader is who leads.
	lost func(c *cluster, leader *node, round int) []*node
	// spares says that no program may be lost by it. The nodes come back once every
	// agent has a session with the next leader, and last later.
	spares bool
	last   time.Duration
}

var drills = map[string]drill{
	"leaders": {kind: "lose the leader", spares: true, last: second, lost: func(_ *cluster, leader *node, _ int) []*node { return []*node{leader} }},
	"zones": {kind: "lose a zone", last: 16 * second, lost: func(c *cluster, leader *node, round int) (lost []*node) {
		zone := leader.zone
		if round%2 == 1 { // with a leader every other time, surely
			zone = controlZones[(round/2)%len(controlZones)]
		}
		for _, n := range c.nodes {
			if n.zone == zone {
				lost = append(lost, n)
			}
		}
		return lost
	}},
}

// floor is what a drill of so many rounds has to show.
func (d drill) floor(rounds int) check.Floor {
	f := check.Floor{Tasks: 8 * rounds, Faults: rounds, Kinds: 1, Snapshots: 1, Fetches: 50, Resumed: rounds}
	if d.spares {
		f.Spared = 2 * rounds
	}
	return f
}

// drill makes the rounds, and gives how long after each loss the next submission
// was accepted that had begun after it.
func (m *nemesis) drill(ctx context.Context, d drill, rounds int, w *workload) (resumed []time.Duration) {
	var probes sync.WaitGroup
	defer probes.Wait()
	for round := range rounds {
		took, err := m.round(ctx, d, round, w, &probes)
		if ctx.Err() != nil {
			return resumed
		}
		if err != nil {
			m.fail(fmt.Errorf("round %d of %s: %w", round, d.kind, err))
			return resumed
		}
		resumed = append(resumed, took)
	}
	sorted := slices.Sorted(slices.Values(resumed))
	m.say("%s, %d times: accepted again after %s in the median, %s at worst; all: %s", d.kind, len(sorted),
		sorted[len(sorted)/2].Round(time.Millisecond), sorted[len(sorted)-1].Round(time.Millisecond), tenths(sorted))
	return resumed
}

func tenths(all []time.Duration) string {
	var words []string
	for _, d := range all {
		words = append(words, fmt.Sprintf("%.2f", d.Seconds()))
	}
	return strings.Join(words, " ")
}

// round is one loss, from a cluster that is led to one that is again.
func (m *nemesis) round(ctx context.Context, d drill, round int, w *workload, probes *sync.WaitGroup) (took time.Duration, err error) {
	leader, err := m.led(ctx)
	if err != nil {
		return 0, err
	}
	lost := d.lost(m.c, leader, round)
	var rest []string
	var others []*node
	for _, n := range m.c.nodes {
		if !slices.Contains(lost, n) {
			rest = append(rest, n.addr)
			if n.control {
				others = append(others, n)
			}
		}
	}
	cutOff := filtered(func(*cluster, *node) ([]rule, error) { return cut(append(rest, m.c.net.here())...), nil })
	began := daemon.Boottime()
	mends := make(map[*node]func() (string, error))
	for _, n := range lost {
		mend, cutErr := cutOff(ctx, m.c, n)
		if err = errors.Join(err, cutErr); cutErr == nil {
			mends[n] = mend
		}
	}
	followed := time.Duration(0)
	if err == nil {
		took, err = w.resume(ctx, others, fmt.Sprintf("r%d", round), began, probes)
	}
	if err == nil && d.spares {
		followed, err = m.followed(ctx, leader, began)
	}
	if err == nil {
		pauseFor(ctx, d.last)
	}
	for n, mend := range mends {
		note := check.Fault{Kind: d.kind, Target: n.name, Begin: began, Leader: n.control, Spares: d.spares}
		bit, mendErr := mend()
		note.Bit, note.End = bit, daemon.Boottime()
		err = errors.Join(err, mendErr)
		m.mu.Lock()
		m.faults = append(m.faults, note)
		m.mu.Unlock()
	}
	m.say("%s %d: %s, led by %s, accepted again after %.2fs, every agent in session after %.2fs", d.kind, round+1, names(lost), leader.name,
		took.Seconds(), followed.Seconds())
	return took, err
}

func names(nodes []*node) string {
	var all []string
	for _, n := range nodes {
		all = append(all, n.name)
	}
	return strings.Join(all, " ")
}

// answeredWithin tells an agent that its leader has just answered from one that lives
// on the word of the leader before.
const answeredWithin = 1500 * time.Millisecond

// led waits until every control node names the same leader, and every agent has a
// session with it, in which its lease was renewed: losses that come faster than that
// are one long one.
func (m *nemesis) led(ctx context.Context) (leader *node, err error) {
	ctx, cancel := context.WithTimeout(ctx, ledWithin)
	defer cancel()
	err = until(ctx, "one leader, which every agent follows", func() bool {
		leaders := make(map[string]bool)
		for _, n := range m.c.controls() {
			one, cancel := context.WithTimeout(ctx, time.Second)
			info, err := n.client.Cluster(one)
			cancel()
			if err != nil || info.Leader == "" || !info.Health.Ready {
				return false
			}
			leaders[info.Leader] = true
			if info.Leader == n.name {
				leader = n
			}
		}
		return len(leaders) == 1 && leader != nil && leaders[leader.name] && m.c.follow(ctx, func(addr string, answered time.Duration) bool {
			return strings.HasPrefix(addr, leader.addr+":") && answered < answeredWithin
		})
	})
	return leader, err
}

// followed waits until every agent has a session with a leader other than the lost
// one, or longer than any lease has.
func (m *nemesis) followed(ctx context.Context, lost *node, began time.Duration) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, ledWithin)
	defer cancel()
	err := until(ctx, "every agent in session with another leader", func() bool {
		return m.c.follow(ctx, func(addr string, _ time.Duration) bool { return !strings.HasPrefix(addr, lost.addr+":") })
	})
	return daemon.Boottime() - began, err
}

// follow reports whether every agent has a session with a leader that is wanted, as
// their own health says.
func (c *cluster) follow(ctx context.Context, wanted func(addr string, answered time.Duration) bool) bool {
	for _, n := range c.agents() {
		if addr, answered := n.follows(ctx); addr == "" || !wanted(addr, answered) {
			return false
		}
	}
	return true
}

// follows is the address of the leader that an agent has a session with, or empty,
// and how long ago that, or the one before it, answered a heartbeat.
func (n *node) follows(ctx context.Context) (leader string, answered time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.addr+":"+healthPort+"/readyz", nil)
	if err != nil {
		return "", 0
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", 0
	}
	defer answer.Body.Close()
	said, err := io.ReadAll(io.LimitReader(answer.Body, 1000))
	if err != nil || answer.StatusCode != http.StatusOK {
		return "", 0
	}
	return toldOf(string(said))
}

// toldOf reads what an agent's health says of its leader.
func toldOf(health string) (leader string, answered time.Duration) {
	_, rest, _ := strings.Cut(strings.TrimSpace(health), ", leader ")
	leader, ago, known := strings.Cut(rest, ", last answer ")
	seconds, err := strconv.ParseFloat(strings.TrimSuffix(ago, " s ago"), 64)
	if !known || err != nil {
		return "", 0
	}
	return leader, time.Duration(seconds * float64(time.Second))
}

// resume submits new tasks through each of some nodes again and again until one is
// accepted, and gives how long after began that was. The calls that are under way
// then are left to come to their end, in probes.
func (w *workload) resume(ctx context.Context, nodes []*node, prefix string, began time.Duration, probes *sync.WaitGroup) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, resumeWithin)
	defer cancel()
	accepted := make(chan time.Duration, 1)
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for i := 0; ; i++ {
		for k, n := range nodes {
			rng := rand.New(rand.NewPCG(uint64(began), uint64(i*len(nodes)+k)))
			j := &job{key: fmt.Sprintf("%s-%d-%d", prefix, i, k)}
			var want check.Task
			j.request, want = draw(rng, j.key, false, fewLast)
			w.mu.Lock()
			w.tasks[j.key], w.asked[j.key] = want, j.request
			w.mu.Unlock()
			probes.Go(func() {
				w.submitTo(ctx, n, prober, j, "body")
				if j.ids != "" {
					select {
					case accepted <- daemon.Boottime() - began:
					default: // it was not the first
					}
				}
			})
		}
		select {
		case took := <-accepted:
			return took, nil
		case <-tick.C:
		case <-ctx.Done():
			return 0, fmt.Errorf("no submission was accepted: %w", ctx.Err())
		}
	}
}
