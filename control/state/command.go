package state

import (
	"time"

	"ecs/internal/task"
)

// Command is one change to the record. The set is closed: ToWire and FromWire
// know every kind. A command carries no time of its own; whoever proposes it
// stamps it through ToWire, and Apply reads that stamp and no clock.
//
// Every command may be applied twice: the second time it changes nothing or is
// refused.
type Command interface {
	// apply decides and makes the change. It reads only its receiver and c.
	apply(c *change) Outcome
}

// Submit accepts a task. Seq, State and the times are set by Apply.
//
// Node, unless empty, is where its first attempt is to run, by the node's epoch
// that this was decided for. Apply checks it as it checks a Decision: where it
// no longer holds, the task is accepted and waits.
type Submit struct {
	Task  *task.Task
	Node  task.NodeID
	Epoch uint64
	// Quota is how many tasks the owner may have waiting: of those, and of half
	// of all bytes that may wait, it can't have more. 0: neither is checked.
	Quota int
}

// Register gives a node a new lease epoch. Running names the attempts that the
// agent still holds; it vouches that every other one of its attempts has ended.
type Register struct {
	Node    task.Node
	Running []task.Token
}

// Place gives pending tasks their next attempts.
type Place struct {
	Decisions []Decision
}

// Decision is one placement, made on a snapshot and checked again by Apply.
type Decision struct {
	Task    task.ID
	Attempt int // number of the attempt it would make
	Node    task.NodeID
	Epoch   uint64        // the node's epoch it was made for
	Queued  time.Duration // for the bill
}

// Progress says that an attempt's program runs.
type Progress struct {
	Token     task.Token
	Node      task.NodeID // that says so: only the attempt's own may; empty: not checked
	StartedAt time.Time   // the agent's clock
}

// Finish ends an attempt with what became of it.
type Finish struct {
	Token  task.Token
	Node   task.NodeID // that says so: only the attempt's own may; empty: not checked
	Result task.Result
	Bill   task.Bill // the agent's and the leader's parts
	// StartedAt is when the program began, by the agent's clock; zero when it
	// never did. Short programs end before a Progress says so.
	StartedAt time.Time
}

// Stop asks for an unfinished task to end as Outcome (Cancelled or
// DeadlineExceeded); a pending one ends at once.
type Stop struct {
	Task    task.ID
	Outcome task.Outcome
	Reason  string // for people; empty: a sentence that fits the outcome
	Owner   string // the API key that asks; empty: the service or an operator
}

// LoseNode ends a node's epoch, and with it every attempt whose lease is not
// longer than Lease. With Left the agent ended everything itself.
type LoseNode struct {
	Node  task.NodeID
	Epoch uint64
	Left  bool
	Lease time.Duration
}

// LoseAttempt ends one attempt whose own, longer lease has lapsed.
type LoseAttempt struct {
	Token  task.Token
	Reason string
}

// SetNode changes what an operator (Drain) or the agent (Unfit) wants of a
// node; nil leaves it as it is. Epoch is checked for Unfit only.
type SetNode struct {
	Node  task.NodeID
	Drain *bool
	Unfit *string
	Epoch uint64
}

// Expire ends pending tasks whose queue clock ran out. With Held it ends those that
// are held back because they may run (see Snapshot.Uncertain) and may wait no longer:
// for their queue clocks, or, at-most-once ones, because they are never placed.
type Expire struct {
	Tasks []task.ID
	Held  bool
}

// Forget drops finished records and their idempotency keys.
type Forget struct {
	Tasks []task.ID
}

// Wish asks for Count containers over the whole cluster that are started ahead of
// tasks of Spec's shape, in the place of what was wished for its image before. Spec
// is what a task has that asks for the image alone.
type Wish struct {
	Spec  task.Spec
	Count int
	Owner string // whose permission to use the image counts
}

// Resume puts tasks whose backoff is over back into the queue. Of Tasks, those whose
// RetryAt has come, by the leader's wall clock. RetryAt may be another leader's, and
// hours ahead: a task of Waited goes whatever it says, if the attempt that it backs
// off after is still its last. The leader has itself seen it wait for so long.
type Resume struct {
	Tasks  []task.ID
	Waited []Waited
}

// Waited is a task that has backed off for its pause after an attempt.
type Waited struct {
	Task    task.ID
	Attempt int
}

// Found names the cluster, once and for ever: the first one holds. Two clusters
// may have the same name and even the same authority; this one tells them apart.
type Found struct {
	Cluster string
}

// ForgetNodes drops the records of nodes that are gone for good. Of those, the
// ones go that are lost or have left, hold nothing and have not registered since.
type ForgetNodes struct {
	Nodes []GoneNode
}

// GoneNode is a node as of one registration.
type GoneNode struct {
	Node  task.NodeID
	Epoch uint64
}

// Outcome is what applying one command decided, the same on every replica.
type Outcome struct {
	Index uint64 // of the entry that carried the command
	// Task is the record after Submit, Progress, Finish, Stop and LoseAttempt,
	// also after a refusal if it is known.
	Task    *task.Task
	Existed bool       // Submit: the task was there before
	Node    *task.Node // after Register, LoseNode and SetNode
	Placed  []task.ID  // Place: the decisions that were accepted
	// Forget lists what a Register named and the record no longer knows as
	// live: the agent ends it without a report.
	Forget []task.Token
	Lost   []task.Token // attempts that ended because their node is gone
	Ended  []task.ID    // Expire, Forget, Resume and MoveOutputs: the tasks it concerned
	// Err is a refusal, always a *task.Error, or nil.
	Err error
	// Committed is how long the proposal took until it was applied. The
	// proposing replica fills it in.
	Committed time.Duration
}

func refuse(code task.Code, message string) Outcome {
	return Outcome{Err: &task.Error{Code: code, Message: message}}
}
