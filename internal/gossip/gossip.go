// Package gossip knows who is out there, in which zone and at which addresses.
//
// It is the only importer of hashicorp/memberlist. What it says is a hint: a
// member may have been dead for seconds, one that runs well may be missing
// behind a partition. Members find each other by it and operators look at it,
// but nothing that must be right is decided by it.
package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/armon/go-metrics"
	"github.com/hashicorp/memberlist"
)

// Transport carries gossip; memberlist's own over UDP and TCP where none is given.
type Transport = memberlist.Transport

// KeySize is the size of a gossip key in bytes.
const KeySize = 32

const (
	// reclaimAfter lets a node that died come back under another address.
	reclaimAfter = 30 * time.Second
	leaveWithin  = 2 * time.Second
	// announceWithin is how long a change of this member may take to reach the
	// first other; periodic exchanges carry it on anyway.
	announceWithin = 2 * time.Second
)

// Config is what a member is given.
type Config struct {
	Self Member
	Name string   // unique in the cluster; default: the node's id
	Keys *Keyring // the cluster's gossip keys; always needed
	// Label is the cluster's name: packets of another cluster are dropped.
	Label string
	// BindAddr is the IP address and port to listen on, port 0 for any. Unused
	// with Transport.
	BindAddr string
	// AdvertiseAddr is the IP address and port that others dial. Default: what
	// is bound.
	AdvertiseAddr string
	Transport     Transport
	// Join are addresses to look for the cluster at, host:port.
	Join []string
	// Rejoin gives further addresses that should be members, asked each time;
	// nil: none. A partition that outlasts the suspicion heals only if each side
	// knows an address of the other from Join or Rejoin.
	Rejoin func() []string
	// Fast shortens every timer, for clusters on one machine.
	Fast    bool
	Logger  *slog.Logger
	Metrics *metrics.Metrics // nil: none
}

// Members is one member's view of all. Its methods are safe for concurrent use.
type Members struct {
	cfg   Config
	times timing
	ready chan struct{}

	mu struct {
		sync.Mutex
		self    Member
		members map[string]Member // by memberlist name
		changed chan struct{}
	}
	joiner joiner
	// update asks Run to spread new metadata of this member.
	update chan struct{}
	// conflicts takes a second node seen under a known name.
	conflicts chan conflict
}

// New makes a member that Run starts.
func New(cfg Config) *Members {
	if cfg.Name == "" {
		cfg.Name = cfg.Self.ID
	}
	m := &Members{cfg: cfg, times: timingOf(cfg.Fast), ready: make(chan struct{}),
		update: make(chan struct{}, 1), conflicts: make(chan conflict, 1)}
	m.mu.self = cfg.Self
	m.mu.members = map[string]Member{cfg.Name: cfg.Self}
	m.mu.changed = make(chan struct{})
	return m
}

// Run joins and gossips until ctx ends, then leaves in good order. It fails only
// when it can't start: no address, no key, metadata too large. A
// cluster that can't be found is looked for for ever. Run it once.
func (m *Members) Run(ctx context.Context) error {
	if err := m.validate(); err != nil {
		if m.cfg.Transport != nil {
			err = errors.Join(err, m.cfg.Transport.Shutdown())
		}
		return fmt.Errorf("gossip: %w", err)
	}
	// Dialing ends with ctx; the goodbye needs none.
	network, err := m.openNetwork(ctx)
	if err != nil {
		return fmt.Errorf("gossip: %w", err)
	}
	list, err := memberlist.Create(m.config(network))
	if err != nil {
		return errors.Join(fmt.Errorf("gossip: start on %s: %w", m.cfg.BindAddr, err), network.Shutdown())
	}
	m.noteAddr(addrOf(list.LocalNode()))
	m.joiner.open(list, network)
	close(m.ready)

	var loops sync.WaitGroup
	loops.Go(func() { m.keepJoined(ctx, list, network) })
	loops.Go(func() { m.announce(ctx, list) })
	loops.Go(func() { m.reportConflicts(ctx) })
	loops.Wait()

	if err := list.Leave(leaveWithin); err != nil {
		m.cfg.Logger.Info("gossip left without saying so", "err", err)
	}
	if err := list.Shutdown(); err != nil {
		return fmt.Errorf("gossip: shut down: %w", err)
	}
	return nil
}

func (m *Members) validate() error {
	if m.cfg.Keys == nil {
		return errors.New("a key is needed: gossip is always encrypted")
	}
	if m.cfg.Name == "" {
		return errors.New("a name is needed")
	}
	if len(m.cfg.Label) > memberlist.LabelMaxSize {
		return fmt.Errorf("the cluster's name has %d bytes, at most %d are allowed", len(m.cfg.Label), memberlist.LabelMaxSize)
	}
	_, err := encode(m.Self())
	return err
}

func (m *Members) config(network *network) *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	// Nothing here is in a hurry, and every tick wakes an idle process.
	c.GossipInterval = 500 * time.Millisecond
	if m.cfg.Fast {
		c = memberlist.DefaultLocalConfig()
		c.SuspicionMult = 4 // a local cluster still has busy cores
	}
	c.TCPTimeout = m.times.dial
	c.Name, c.Keyring, c.Label = m.cfg.Name, m.cfg.Keys.list, m.cfg.Label
	c.DeadNodeReclaimTime = reclaimAfter
	c.Delegate, c.Events, c.Conflict = delegate{m}, events{m}, conflicts{m}
	c.Logger = stdLogger(m.cfg.Logger)
	c.Transport = network
	c.AdvertiseAddr, c.AdvertisePort = network.advertiseIP, network.advertisePort
	return c
}

// announce spreads changes of this member.
func (m *Members) announce(ctx context.Context, list *memberlist.Memberlist) {
	for {
		select {
		case <-m.update:
			if err := list.UpdateNode(announceWithin); err != nil {
				m.cfg.Logger.Debug("gossip of a change not confirmed", "err", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// Ready is closed once this member listens.
func (m *Members) Ready() <-chan struct{} { return m.ready }

// Addr is where others reach this member's gossip, or "" before Ready.
func (m *Members) Addr() string { return m.Self().GossipAddr }

// Self is this member as it presents itself.
func (m *Members) Self() Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.self
}

// Snapshot lists the members that are alive as far as this one knows, itself
// included, by id.
func (m *Members) Snapshot() []Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]Member, 0, len(m.mu.members))
	for _, member := range m.mu.members {
		all = append(all, member)
	}
	slices.SortFunc(all, func(a, b Member) int { return strings.Compare(a.ID, b.ID) })
	return all
}

// Changed returns a channel that is closed when Snapshot next differs.
func (m *Members) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.changed
}

// Update changes what this member says of itself and spreads it. A change that
// would not fit into a gossip packet is logged and dropped.
func (m *Members) Update(change func(*Member)) {
	m.mu.Lock()
	next := m.mu.self
	change(&next)
	next.GossipAddr = m.mu.self.GossipAddr
	_, err := encode(next)
	if err == nil && next != m.mu.self {
		m.mu.self = next
		m.mu.members[m.cfg.Name] = next
		m.pokeLocked()
	}
	m.mu.Unlock()
	if err != nil {
		m.cfg.Logger.Error("gossip metadata not changed", "err", err)
		return
	}
	select {
	case m.update <- struct{}{}:
	default: // one is on its way and will take this along
	}
}

func (m *Members) noteAddr(addr string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.self.GossipAddr = addr
	m.mu.members[m.cfg.Name] = m.mu.self
	m.pokeLocked()
}

// set notes another member as memberlist shows it.
func (m *Members) set(name string, member Member) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if name == m.cfg.Name {
		return // what we say is newer than what comes back to us
	}
	if old, known := m.mu.members[name]; known && old == member {
		return
	}
	m.mu.members[name] = member
	m.pokeLocked()
}

func (m *Members) drop(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.mu.members[name]; !known || name == m.cfg.Name {
		return // of us: we are alive enough to hear it
	}
	delete(m.mu.members, name)
	m.pokeLocked()
}

func (m *Members) pokeLocked() {
	close(m.mu.changed)
	m.mu.changed = make(chan struct{})
}
