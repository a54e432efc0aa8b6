// Package task holds the words of the service: what a task is, which state may
// follow which, what is refused and why.
//
// It is pure. It imports the standard library only, starts no goroutine, reads
// no clock and does no I/O. Every other package speaks in its types; the bytes
// that carry them between processes are in proto/ecs/v1.
package task

import (
	"cmp"
	"time"
)

// ID names a task for ever. The first control node to see the request draws it,
// so that a forwarded or repeated proposal is still the same task.
type ID string

// NodeID names an agent's node for ever; it survives restarts of the agent.
type NodeID string

// Token identifies one attempt under one lease epoch. Results, progress and
// output that carry an older token than the record's are refused.
type Token struct {
	Task    ID
	Attempt int    // 1 for the first
	Epoch   uint64 // lease epoch of the node's registration, see Node.Epoch
}

// State orders a task's life: a later state never precedes an earlier one,
// except that a lost attempt sends an unfinished task back to Pending.
type State int

// The states of a task, in order.
const (
	Pending  State = iota + 1 // accepted, waits for a node
	Assigned                  // placed on a node, not yet known to run
	Running                   // its program runs
	Finished                  // has its one outcome; never changes again
)

// String gives the name used on the wire: pending, assigned, running, finished.
func (s State) String() string {
	switch s {
	case Pending:
		return "pending"
	case Assigned:
		return "assigned"
	case Running:
		return "running"
	case Finished:
		return "finished"
	}
	return "unknown"
}

// ParseState is the inverse of String.
func ParseState(name string) (State, bool) {
	for s := Pending; s <= Finished; s++ {
		if s.String() == name {
			return s, true
		}
	}
	return 0, false
}

// CanFollow reports whether a task in state s may move to next.
func (s State) CanFollow(next State) bool {
	switch s {
	case Pending:
		return next == Assigned || next == Finished
	case Assigned:
		return next == Running || next == Finished || next == Pending
	case Running:
		return next == Finished || next == Pending
	}
	return false
}

// Outcome is why a task or an attempt ended. The list is closed.
type Outcome string

// Every outcome there is.
const (
	Exited           Outcome = "exited"
	TimedOut         Outcome = "timed_out"
	OOMKilled        Outcome = "oom_killed"
	Cancelled        Outcome = "cancelled"
	ImageNotFound    Outcome = "image_not_found"
	ImageDenied      Outcome = "image_denied"
	ImageUnavailable Outcome = "image_unavailable"
	ImageInvalid     Outcome = "image_invalid"
	PullTimedOut     Outcome = "pull_timed_out"
	StartFailed      Outcome = "start_failed"
	QueueExpired     Outcome = "queue_expired"
	DeadlineExceeded Outcome = "deadline_exceeded"
	Interrupted      Outcome = "interrupted"
	NodeLost         Outcome = "node_lost"
)

// Outcomes lists every outcome, for tests and documentation.
func Outcomes() []Outcome {
	return []Outcome{Exited, TimedOut, OOMKilled, Cancelled, ImageNotFound, ImageDenied,
		ImageUnavailable, ImageInvalid, PullTimedOut, StartFailed, QueueExpired,
		DeadlineExceeded, Interrupted, NodeLost}
}

// Infrastructure reports whether the outcome is the service's fault and not the
// program's, so that it counts against the infrastructure retry budget.
func (o Outcome) Infrastructure() bool { return o == Interrupted || o == NodeLost }

// Delivery is the promise the caller chose for a task's attempts.
type Delivery string

// The two delivery promises.
const (
	AtLeastOnce Delivery = "at_least_once" // repeated within the infrastructure retry budget
	AtMostOnce  Delivery = "at_most_once"  // an attempt that may have started is never repeated
)

// Network is what of the network the program sees.
type Network string

// The networks a task may ask for.
const (
	NetworkNone   Network = "none"   // loopback only
	NetworkEgress Network = "egress" // outgoing connections, save to the hosts and the metadata server
)

// API tells which contract a task came by; v1 tasks keep the old defaults.
type API string

// The contracts.
const (
	V1 API = "v1"
	V2 API = "v2"
)

// Task is the whole replicated record of one task. It is immutable: a change is
// a changed copy, so readers hold it without a lock.
type Task struct {
	ID    ID
	CID   string // correlation id of the request that made it
	Trace string // W3C traceparent of that request, or empty
	Owner string // API key that submitted it; it alone sees the task
	Key   string // the caller's idempotency key, or empty
	// BodyMAC is a keyed hash of the spec as submitted. The same Key with
	// another BodyMAC is a conflict.
	BodyMAC []byte
	API     API
	Spec    Spec

	// Seq orders tasks by acceptance across the whole cluster.
	Seq   uint64
	State State
	// BackingOff: the program failed and is to be run again, but not before its
	// last attempt's RetryAt. Until then it is Pending without being in the queue.
	BackingOff bool
	// StopAs, when set, is the outcome an unfinished task is to end with:
	// Cancelled or DeadlineExceeded.
	StopAs   Outcome
	Attempts []Attempt // the last one is the present one
	Result   *Result   // nil until Finished

	SubmittedAt time.Time // leader's wall clock when proposed
	FinishedAt  time.Time
	Bill        Bill
}

// Live returns the attempt that holds or may hold a container, or nil.
func (t *Task) Live() *Attempt {
	if t.State == Pending || t.State == Finished || len(t.Attempts) == 0 {
		return nil
	}
	return &t.Attempts[len(t.Attempts)-1]
}

// Attempt is one try at a task on one node.
type Attempt struct {
	Number  int
	Node    NodeID
	Zone    string
	Epoch   uint64
	Outcome Outcome // empty while live
	Reason  string
	// PlacedAt and EndedAt are the leader's wall clock; StartedAt is the
	// agent's, zero while the program is not known to run.
	PlacedAt, StartedAt, EndedAt time.Time
	// ExitCode, when HasExit, is that of a program that failed and is run again.
	// How the last attempt ended is in the task's Result.
	ExitCode int
	HasExit  bool
	// RetryAt is when the next attempt may be placed, by the leader's wall clock;
	// zero where it may be at once, or there is none.
	RetryAt time.Time
}

// Token names the attempt of the given task.
func (a *Attempt) Token(id ID) Token { return Token{Task: id, Attempt: a.Number, Epoch: a.Epoch} }

// Result is the one final result of a task, or the end of one attempt.
type Result struct {
	Outcome  Outcome
	ExitCode int    // valid when HasExit
	HasExit  bool   // the program ended by itself or by a signal and its code is known
	Signal   string // name of the signal that ended it, or empty
	Reason   string // one sentence for people, empty for a plain exit
	// ImageDigest is what ran, "sha256:...", or empty when none was resolved.
	ImageDigest    string
	Stdout, Stderr Stream
	// Node ran the attempt. OutputAddr says where the bytes beyond Head are kept,
	// and the tar of Outputs; empty when there are none. OutputNode is whose
	// address that is: empty for Node's, another's once that has handed it on.
	Node       NodeID
	OutputAddr string
	OutputNode NodeID
	Attempt    int
	Outputs    *Outputs // nil: none were asked for, or the program never ran
}

// Holder is the node that keeps what OutputAddr leads to.
func (r *Result) Holder() NodeID { return cmp.Or(r.OutputNode, r.Node) }

// HeadBytes is how much of each stream the replicated record holds.
const HeadBytes = 8 << 10

// Stream is what the record knows of one output stream.
type Stream struct {
	Head      []byte   // the first HeadBytes of the kept bytes
	Bytes     int64    // how many the program wrote
	Kept      int64    // how many of them are kept: min(Bytes, max_output)
	SHA256    [32]byte // of the kept bytes
	Truncated bool     // Kept < Bytes
}

// Bill says where a task's time went. Each part is timed by one clock.
type Bill struct {
	Accepted  time.Duration // receiving node: request read until proposed
	Committed time.Duration // receiving node: proposed until committed
	Queued    time.Duration // leader: accepted, or in the queue again, until a node was chosen
	Placed    time.Duration // leader: chosen until committed
	Assigned  time.Duration // leader: committed until sent to the agent
	Image     time.Duration // agent: permission, resolution and pull
	Create    time.Duration // agent: container made
	Start     time.Duration // agent: start asked until the program runs
	Run       time.Duration // agent: the program
	Output    time.Duration // agent: program's end until its last output byte, and its files, were kept
	Reported  time.Duration // agent: last byte until the result was sent
	// LeaderTotal is the leader's time from accepting the task to holding its
	// result; what the parts between do not explain is transfer.
	LeaderTotal time.Duration
	// Warm is "hit" where the container had been started ahead, or why it was
	// not; empty where the node starts none.
	Warm string
}
