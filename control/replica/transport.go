package replica

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// beatsPerTimeout is how often in a heartbeat timeout a leader without anything
// to say is heard of. Raft itself would do it ten times, which is half of what
// an idle leader costs; three leave room for two that are late.
const beatsPerTimeout = 3

// maxPool is how many idle connections are kept to a peer.
const maxPool = 3

// transport is raft's network transport with four things added. It sends
// fewer heartbeats (see beatsPerTimeout), and keeps an answer until this node's own
// disk has what was agreed to (see ahead). The others come from watching the
// leader's exchanges with its followers: when a follower last agreed that this
// node leads (see Node.Verify), and a word to followers as soon as something is
// committed, which raft alone tells them with its next entry or after
// CommitTimeout. A client that waits at a follower would wait for that.
type transport struct {
	*raft.NetworkTransport
	leads func(term uint64) bool // whether this node leads in it now
	// awaitDisk waits for this node's own disk; see ahead.
	awaitDisk func(index uint64, closing <-chan struct{}) error

	beat  time.Duration // heartbeats to a follower are about this far apart
	begun time.Time     // beats are counted from it
	// verifying counts those who wait for heartbeats now; hurried fires when one
	// begins to.
	verifying atomic.Int32
	hurried   signal

	asked   atomic.Uint64 // number of the latest question to any follower
	closing chan struct{}
	tellers sync.WaitGroup

	mu struct {
		sync.Mutex
		closed bool
		peers  map[raft.ServerID]*peer
		// the newest entry applied here, and so committed
		index, term uint64
	}
}

// peer is what the leader's exchanges told about one follower.
type peer struct {
	term   uint64    // in which it answered last
	agreed uint64    // number of the latest question it answered
	match  uint64    // its log equals ours up to here
	told   uint64    // it knows that this is committed
	heard  time.Time // when the latest question that it answered was sent
	addr   raft.ServerAddress
	last   raft.AppendEntriesRequest // without entries
	wake   chan struct{}             // for its teller
}

func newTransport(stream StreamLayer, timeout time.Duration, logger *hcLogger, leads func(term uint64) bool) *transport {
	t := &transport{leads: leads, closing: make(chan struct{}), begun: time.Now()}
	t.mu.peers = make(map[raft.ServerID]*peer)
	t.NetworkTransport = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:  stream,
		MaxPool: maxPool,
		// Pipelining can deadlock (raft issue 611), and gains little.
		MaxRPCsInFlight: 1,
		Timeout:         timeout,
		Logger:          logger,
	})
	return t
}

// AppendEntries implements raft.Transport: heartbeats and entries.
func (t *transport) AppendEntries(id raft.ServerID, addr raft.ServerAddress, q *raft.AppendEntriesRequest, a *raft.AppendEntriesResponse) error {
	if heartbeat(q) {
		t.pace(id, q.Term)
	}
	number, sent := t.asked.Add(1), time.Now()
	if err := t.NetworkTransport.AppendEntries(id, addr, q, a); err != nil {
		return err
	}
	if a.Term == q.Term {
		t.answered(id, addr, q, a.Success, number, sent)
	}
	if k := len(q.Entries); k > 0 && a.Success {
		return t.awaitDisk(q.Entries[k-1].Index, t.closing)
	}
	return nil
}

// heartbeat tells raft's heartbeats from questions about the log.
func heartbeat(q *raft.AppendEntriesRequest) bool {
	return q.PrevLogEntry == 0 && q.LeaderCommitIndex == 0 && len(q.Entries) == 0
}

// pace holds a heartbeat back until the follower's last word in the term is
// about a beat old, unless somebody waits for what the follower says. All
// followers' heartbeats leave together: an idle leader wakes once for them.
func (t *transport) pace(id raft.ServerID, term uint64) {
	hurried := t.hurried.wait()
	if t.verifying.Load() > 0 {
		return
	}
	t.mu.Lock()
	var due time.Duration
	if p := t.mu.peers[id]; p != nil && p.term == term {
		next := (p.heard.Sub(t.begun) + t.beat).Round(t.beat)
		due = time.Until(t.begun.Add(next))
	}
	t.mu.Unlock()
	if due <= 0 {
		return
	}
	timer := time.NewTimer(due)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-hurried:
	case <-t.closing:
	}
}

// hurry lets every heartbeat go at once until done is called.
func (t *transport) hurry() (done func()) {
	t.verifying.Add(1)
	t.hurried.fire()
	return func() { t.verifying.Add(-1) }
}

// answered notes that a follower takes this node for the leader of q.Term.
func (t *transport) answered(id raft.ServerID, addr raft.ServerAddress, q *raft.AppendEntriesRequest, success bool, number uint64, sent time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.mu.peers[id]
	if p == nil {
		if t.mu.closed {
			return
		}
		p = &peer{wake: make(chan struct{}, 1)}
		t.mu.peers[id] = p
		wake := p.wake
		t.tellers.Go(func() { t.tell(id, p, wake) })
	}
	switch {
	case q.Term < p.term:
		return
	case q.Term > p.term:
		*p = peer{term: q.Term, wake: p.wake}
	}
	p.agreed = max(p.agreed, number)
	if sent.After(p.heard) {
		p.heard = sent
	}
	if !success || q.PrevLogEntry == 0 && len(q.Entries) == 0 {
		return // says nothing of its log
	}
	match := q.PrevLogEntry
	if k := len(q.Entries); k > 0 {
		match = q.Entries[k-1].Index
	}
	p.match = max(p.match, match)
	p.told = max(p.told, min(q.LeaderCommitIndex, match))
	p.addr, p.last = addr, *q
	p.last.Entries = nil
	if t.owes(p) {
		poke(p.wake)
	}
}

// confirmed reports whether a majority of the voters, this node included,
// agreed that it leads in term in answer to questions after the given one.
func (t *transport) confirmed(servers []raft.Server, self string, term, after uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	voters, agree := 0, 0
	for _, s := range servers {
		if s.Suffrage != raft.Voter {
			continue
		}
		voters++
		if s.ID == raft.ServerID(self) {
			agree++
		} else if p := t.mu.peers[s.ID]; p != nil && p.term == term && p.agreed > after {
			agree++
		}
	}
	return agree > voters/2
}

// contact is what a follower's answers in a term say of it.
func (t *transport) contact(id raft.ServerID, term uint64) (Contact, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.mu.peers[id]
	if p == nil || p.term != term {
		return Contact{}, false
	}
	return Contact{Heard: time.Since(p.heard), Match: p.match}, true
}

// committed notes the newest entry that is applied here, and lets those know
// who have it.
func (t *transport) committed(index, term uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.index, t.mu.term = index, term
	for _, p := range t.mu.peers {
		if t.owes(p) {
			poke(p.wake)
		}
	}
}

// tell tells one follower how far the log is committed, whenever it has the
// entry and does not know, until the transport closes.
func (t *transport) tell(id raft.ServerID, p *peer, wake <-chan struct{}) {
	for {
		select {
		case <-wake:
		case <-t.closing:
			return
		}
		q, addr, ok := t.news(p)
		if !ok || !t.leads(q.Term) {
			continue
		}
		var a raft.AppendEntriesResponse
		// An error is no matter: raft repeats it after CommitTimeout.
		_ = t.AppendEntries(id, addr, &q, &a)
	}
}

// owes reports whether a follower has the newest committed entry without
// knowing that it is.
func (t *transport) owes(p *peer) bool {
	return p.term == t.mu.term && p.match >= t.mu.index && p.told < t.mu.index
}

// news makes the message of a leader that has nothing to send but how far its
// log is committed.
func (t *transport) news(p *peer) (q raft.AppendEntriesRequest, addr raft.ServerAddress, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.owes(p) {
		return q, addr, false
	}
	q = p.last
	q.PrevLogEntry, q.PrevLogTerm, q.LeaderCommitIndex = t.mu.index, t.mu.term, t.mu.index
	return q, p.addr, true
}

// shut closes the transport and every connection, and waits for the tellers.
func (t *transport) shut() {
	t.mu.Lock()
	closed := t.mu.closed
	t.mu.closed = true
	t.mu.Unlock()
	if closed {
		return
	}
	close(t.closing)
	_ = t.NetworkTransport.Close() // never fails
	t.tellers.Wait()
}

func poke(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}
