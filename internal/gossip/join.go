package gossip

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// timing is how patient joining is.
type timing struct {
	// rejoin is how often known addresses that are not members are tried again:
	// memberlist forgets the dead, so after a partition that lasts longer than
	// its suspicion the two sides would never meet again (memberlist 222).
	rejoin time.Duration
	// firstRetry is how soon it is tried again where nobody answered; a member
	// that is alone never waits longer than lastRetry.
	firstRetry, lastRetry time.Duration
	dial                  time.Duration // and every exchange over a stream
}

func timingOf(fast bool) timing {
	if fast {
		return timing{rejoin: 5 * time.Second, firstRetry: 50 * time.Millisecond, lastRetry: time.Second, dial: time.Second}
	}
	return timing{rejoin: 15 * time.Second, firstRetry: 100 * time.Millisecond, lastRetry: 5 * time.Second, dial: 5 * time.Second}
}

// joinAtOnce is how many addresses are tried together. One that answers is
// enough for both sides to learn of everybody; more are for the case that some
// are gone for good.
const joinAtOnce = 5

// keepJoined looks for members that should be there and are not: more and more
// slowly while some do not answer, and now and again when all are there.
func (m *Members) keepJoined(ctx context.Context, list *memberlist.Memberlist, network *network) {
	retry := m.times.firstRetry
	for {
		missing := m.missing(ctx, network)
		wait := m.times.rejoin
		if m.join(list, missing) == len(missing) {
			retry = m.times.firstRetry
		} else {
			most := m.times.rejoin
			if len(m.Snapshot()) == 1 {
				most = m.times.lastRetry // alone is worse than incomplete
			}
			wait = min(retry, most)
			retry = 2 * wait
		}
		// Jitter, so that the end of a partition is no stampede.
		again := time.NewTimer(wait + rand.N(wait/4+1))
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return
		}
	}
}

// missing are known addresses at which no member is now, a few of them chosen
// at random.
func (m *Members) missing(ctx context.Context, network *network) []string {
	known := append(slices.Clone(m.cfg.Join), m.joiner.given()...)
	if m.cfg.Rejoin != nil {
		known = append(known, m.cfg.Rejoin()...)
	}
	present := make(map[string]bool)
	for _, member := range m.Snapshot() {
		present[member.GossipAddr] = true
	}
	rand.Shuffle(len(known), func(i, j int) { known[i], known[j] = known[j], known[i] })
	var missing []string
	for _, addr := range known {
		if present[addr] {
			continue // without asking a name server
		}
		resolved, err := network.resolve(ctx, addr)
		if err != nil {
			m.cfg.Logger.Debug("gossip address not resolved", "addr", addr, "err", err)
			continue
		}
		if !slices.ContainsFunc(resolved, func(r string) bool { return present[r] }) {
			missing = append(missing, resolved...)
		}
		if len(missing) >= joinAtOnce {
			break
		}
	}
	slices.Sort(missing)
	return slices.Compact(missing)
}

// join exchanges everything with each address and gives how many answered.
func (m *Members) join(list *memberlist.Memberlist, addrs []string) int {
	var joining sync.WaitGroup
	answered := make(chan string, len(addrs))
	for _, addr := range addrs {
		joining.Go(func() {
			if _, err := list.Join([]string{addr}); err != nil {
				m.cfg.Logger.Debug("gossip join", "addr", addr, "err", err)
				return
			}
			answered <- addr
		})
	}
	joining.Wait()
	if n := len(answered); n > 0 {
		m.cfg.Logger.Info("gossip joined", "answered", n, "asked", len(addrs), "members", len(m.Snapshot()))
	}
	return len(answered)
}

// joiner is what Join needs of a member that runs.
type joiner struct {
	mu struct {
		sync.Mutex
		list    *memberlist.Memberlist
		network *network
		addrs   []string // that Join was given
	}
}

func (j *joiner) open(list *memberlist.Memberlist, network *network) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.mu.list, j.mu.network = list, network
}

func (j *joiner) given() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.mu.addrs)
}

// Join looks for the cluster at further addresses, host:port, now and whenever
// nobody is there later. It returns once one of them has answered; the error says
// what came of each.
func (m *Members) Join(ctx context.Context, addrs []string) error {
	select {
	case <-m.ready:
	case <-ctx.Done():
		return ctx.Err()
	}
	m.joiner.mu.Lock()
	list, network := m.joiner.mu.list, m.joiner.mu.network
	m.joiner.mu.Unlock()
	var faults []error
	for _, addr := range addrs {
		resolved, err := network.resolve(ctx, addr)
		if err == nil {
			_, err = list.Join(resolved)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", addr, err))
		}
	}
	if len(faults) == len(addrs) {
		return &NobodyError{Cluster: m.cfg.Label, Err: errors.Join(faults...)}
	}
	m.joiner.mu.Lock()
	defer m.joiner.mu.Unlock()
	m.joiner.mu.addrs = slices.Clone(addrs)
	return nil
}

// NobodyError says that no member of the cluster could be joined. That the gossip key
// is not theirs looks the same as that they are not there.
type NobodyError struct {
	Cluster string
	Err     error
}

func (e *NobodyError) Error() string {
	return fmt.Sprintf("no member of cluster %s answers there: %v", e.Cluster, e.Err)
}

func (e *NobodyError) Unwrap() error { return e.Err }

// conflict is a second node under a known name.
type conflict struct{ name, known, newcomer string }

// conflictEvery bounds how often the same trouble is told.
const conflictEvery = 10 * time.Second

// reportConflicts says loudly that two processes use one name: the newcomer is
// not let in, and somebody has copied a data directory or a certificate.
func (m *Members) reportConflicts(ctx context.Context) {
	for {
		select {
		case c := <-m.conflicts:
			m.cfg.Logger.Error("two nodes use one id, the newcomer stays out: give one of them an empty data directory",
				"member", c.name, "address", c.known, "newcomer", c.newcomer)
			if m.cfg.Metrics != nil {
				m.cfg.Metrics.IncrCounter([]string{"gossip", "conflict"}, 1)
			}
		case <-ctx.Done():
			return
		}
		again := time.NewTimer(conflictEvery)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return
		}
	}
}
